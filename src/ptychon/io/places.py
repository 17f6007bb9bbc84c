"""Where a scan is: a file, a folder of files, or a pattern that names some files of a folder."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from ..types import PtychonError
from .hdf5 import PathLike, check_readable

#: Scans larger than this are not hashed: reading them again would cost more than it tells.
HASHED_BYTES = 2**31
#: Suffix -> kind of file.
KINDS = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NumPy",
    ".cbf": "CBF",
    ".edf": "EDF",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".hdf": "HDF5",
    ".nxs": "HDF5",
    ".cxi": "HDF5",
}
#: Another series of files of which there are more than this share is not left aside without asking.
_SECOND = 0.5


def is_folder(path: PathLike) -> bool:
    """Whether a path is a folder, or a pattern with ``*`` or ``?`` for files in one (and no file
    itself).
    """
    return os.path.isdir(path) or (bool(glob.has_magic(str(path))) and not os.path.exists(path))


def is_store(path: PathLike) -> bool:
    """Whether a folder is a Zarr store: one array, or a group of them, in pieces."""
    return any((Path(path) / name).exists() for name in (".zarray", ".zgroup", "zarr.json"))


def files_of(path: PathLike) -> list[Path]:
    """All files in a folder, or those that a pattern names, in the order that people count in.

    Raises
    ------
    PtychonError
        If there are none.
    """
    if is_store(path):
        return sorted(place for place in Path(path).rglob("*") if place.is_file())
    folder, pattern = (
        (Path(path), "*") if os.path.isdir(path) else (Path(path).parent, Path(path).name)
    )
    try:
        found = [
            Path(entry.path)
            for entry in os.scandir(folder)
            if entry.is_file() and not entry.name.startswith(".")
        ]
    except OSError as error:
        raise PtychonError(f"cannot read the folder {folder}: {error.strerror}") from error
    found = [place for place in found if fnmatch.fnmatchcase(place.name, pattern)]
    if not found:
        raise PtychonError(
            f"{path}: there are no files in this folder"
            if folder == Path(path)
            else f"{path}: no such files"
        )
    return sorted(found, key=lambda place: natural(place.name))


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts names by their numbers, frame_2 before frame_10."""
    return tuple(
        (0, int(part), part) if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    )


def series_of(path: PathLike) -> tuple[list[Path], list[Path]]:
    """The files of a folder (or that a pattern names) that hold the frames, alike but for their
    numbers; and the others.

    Raises
    ------
    PtychonError
        If it cannot be told which they are.
    """
    files = files_of(path)
    groups: dict[tuple[str, str], list[Path]] = {}
    for place in files:
        if place.suffix.lower() in KINDS:
            groups.setdefault((re.sub(r"\d+", "#", place.stem), place.suffix.lower()), []).append(
                place
            )
    if not groups:
        kinds = ", ".join(dict.fromkeys(KINDS))
        raise PtychonError(
            f"{path}: none of its {len(files)} files holds frames ({kinds}); name a file, or "
            "another folder"
        )
    ranked = sorted(groups.values(), key=len, reverse=True)
    if len(ranked) > 1 and len(ranked[1]) > max(1, _SECOND * len(ranked[0])):
        listed = ", ".join(f"{len(group)} like {group[0].name}" for group in ranked[:4])
        first = ranked[0][0]
        example = first.parent / (re.sub(r"\d+", "*", first.stem) + first.suffix)
        raise PtychonError(
            f"{path} holds several series of files ({listed}): name that of the frames, for "
            f"example '{example}'"
        )
    if len(ranked[0]) == 1:
        if len(ranked) == 1:
            only = ranked[0][0]
            raise PtychonError(f"{path} holds one file that may have frames; name it: {only}")
        listed = ", ".join(group[0].name for group in ranked[:4])
        raise PtychonError(
            f"{path} holds no series of files with frames, but {listed}; name a file"
        )
    chosen = set(ranked[0])
    return ranked[0], [place for place in files if place not in chosen]


def exists(path: PathLike) -> bool:
    """Whether there is a file, a folder with files, or a file that a pattern names."""
    if not is_folder(path):
        return Path(path).is_file()
    try:
        return bool(files_of(path))
    except PtychonError:
        return False


def check_there(path: PathLike) -> None:
    """Refuse what `exists` denies, and files that cannot be read, with the reason."""
    if is_folder(path):
        files_of(path)
    else:
        check_readable(path)


def sha256_of(path: PathLike) -> str | None:
    """SHA-256 of a file, or of the frames in a folder with their names; None if that is too much to
    be read once more.
    """
    if not is_folder(path):
        if Path(path).stat().st_size > HASHED_BYTES:
            return None
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = series_of(path)[0]  # results may have been written beside them
    if sum(place.stat().st_size for place in files) > HASHED_BYTES:
        return None
    whole = hashlib.sha256()
    for place in files:
        with place.open("rb") as stream:
            whole.update(place.name.encode("utf-8", "surrogatepass") + b"\0")
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def size_of(path: PathLike) -> int:
    """Bytes of a file, or of the files of a folder; 0 if there are none."""
    if not is_folder(path):
        return os.path.getsize(path) if os.path.isfile(path) else 0
    return sum(place.stat().st_size for place in files_of(path)) if exists(path) else 0


def stem_of(path: PathLike) -> str:
    """The name of a scan, for the names of files that are made from it."""
    place = Path(os.path.realpath(path))
    if not is_folder(path):
        return Path(path).stem
    return (
        place.name
        if place.is_dir()
        else re.sub(r"[*?\[\]]+", "", place.stem).strip("_-. ") or place.parent.name
    )
