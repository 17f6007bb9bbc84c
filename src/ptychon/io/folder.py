"""A folder of files with one frame each, or a few, as detectors write them: read in the order that
people count in.

Files are of one kind (TIFF, CBF, EDF, .npy or HDF5) and alike in name but for their numbers;
frame_2 comes before frame_10. Others are left aside, and a table of positions among them is found
by its length.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.lazy import Frames, Stacked
from ..types import PtychonError
from .arrays import read_hdf5
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, check_readable, opened
from .nodes import is_dataset
from .places import KINDS, files_of, series_of
from .positions import add_positions
from .raw import TiffFrames
from .tables import positions_from

_TABLES = (".csv", ".txt", ".dat", ".tsv", ".npy", ".npz", ".h5", ".hdf5", ".mat")
#: Tables that are tried.
_MOST_TABLES = 20


def read_folder(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of the files in a folder (or that a pattern names); ``data_path`` in `given` names
    their dataset in HDF5.

    Raises
    ------
    PtychonError
        If there are no frames, or it cannot be told which files hold them.
    """
    frames_of, others = series_of(path)
    kind = KINDS[frames_of[0].suffix.lower()]
    found = Found(f"folder of {kind} files")
    remark = f"{len(frames_of)} files, {frames_of[0].name} to {frames_of[-1].name}"
    if others:
        remark += f"; left aside: {', '.join(place.name for place in others[:3])}" + (
            ", ..." if len(others) > 3 else ""
        )
    found.add("patterns", _stack(frames_of, kind, given), remark)
    if given.get("positions_path") and not Path(given["positions_path"]).is_file():
        beside = Path(path if os.path.isdir(path) else Path(path).parent) / given["positions_path"]
        given = {**given, "positions_path": str(beside)} if beside.is_file() else given
    if given.get("positions_path") is None and given.get("positions") is None:
        given = {
            **given,
            "positions_path": _table(path, set(frames_of), others, len(found.fields["patterns"])),
        }
    add_positions(found, given)
    return found


def _stack(files: list[Path], kind: str, given: Mapping[str, Any]) -> Frames:
    """The frames of all files, one after the other."""
    check_readable(files[0])
    if kind == "HDF5":
        name = _dataset(files[0], given)
        stack = Hdf5Frames(files[0], name)
        if len(stack) > 1:
            return Stacked([stack, *(Hdf5Frames(file, name) for file in files[1:])])
        return FolderFrames(files, partial(_hdf5, name), 1, stack.shape[1:], stack.dtype)
    first = _READERS[kind](files[0])
    if first.ndim not in (2, 3) or first.dtype.kind not in "uifb" or min(first.shape) < 1:
        raise PtychonError(
            f"{files[0]} has shape {first.shape} and type {first.dtype}; frames are images of "
            "real numbers"
        )
    if first.ndim == 2:
        return FolderFrames(files, _READERS[kind], 1, first.shape, first.dtype)
    if kind == "TIFF":
        return Stacked([TiffFrames(file) for file in files])
    if kind == "NumPy":
        return Stacked(
            [
                _checked(file, partial(np.load, file, mmap_mode="r", allow_pickle=False))
                for file in files
            ]
        )
    return FolderFrames(files, _READERS[kind], len(first), first.shape[1:], first.dtype)


def _dataset(path: Path, given: Mapping[str, Any]) -> str:
    """The dataset of frames in an HDF5 file; one image alone will do."""
    if given.get("data_path"):
        return str(given["data_path"])
    images: list[str] = []

    def visit(name: str, node: Any) -> None:
        if (
            is_dataset(node)
            and len(node.shape) in (2, 3, 4)
            and node.dtype.kind in "uifb"
            and min(node.shape[-2:]) >= 4
        ):
            images.append(name)

    with opened(path) as file:
        file.visititems(visit)
    return images[0] if len(images) == 1 else read_hdf5(path, given).where["patterns"]


class FolderFrames(Frames):
    """Equally many frames in every file of a folder, read when they are asked for.

    Parameters
    ----------
    files : list of paths
    read : callable
        From a path to its array (P, Q) or (each, P, Q).
    each : int
        Frames in a file.
    shape : (P, Q)
    dtype : dtype of the frames
    """

    def __init__(
        self,
        files: list[Path],
        read: Callable[[Path], Any],
        each: int,
        shape: tuple[int, ...],
        dtype: Any,
    ) -> None:
        self._files, self._get, self._each = files, read, each
        super().__init__((len(files) * each, *shape), dtype, f"{files[0].parent}")

    @property
    def together(self) -> int:
        """The frames of a file."""
        return self._each

    def _read(self, first: int, last: int) -> Any:
        return self._gather(np.arange(first, last))

    def _gather(self, index: Any) -> Any:
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        which = index // self._each
        for number in np.unique(which):
            file = self._files[number]
            array = self._get(file)
            expected = (self._each, *self.shape[1:])
            if array.size != math.prod(expected) or array.shape[-2:] != expected[-2:]:
                usual, this = (
                    (expected, array.shape) if self._each > 1 else (expected[1:], array.shape[-2:])
                )
                raise PtychonError(
                    f"{file} has shape {this}, {self._files[0].name} {usual}; remove it from "
                    "the folder, or write it again"
                )
            if not np.can_cast(array.dtype, self.dtype, "same_kind"):
                raise PtychonError(
                    f"{file} holds {array.dtype}, {self._files[0].name} {self.dtype}; files "
                    "must be alike"
                )
            mine = which == number
            out[mine] = array.reshape(expected)[index[mine] - number * self._each]
        return out


def _npy(path: Path) -> Any:
    return _checked(path, lambda: np.load(path, allow_pickle=False))


def _tiff(path: Path) -> Any:
    import tifffile

    return _checked(path, lambda: tifffile.imread(path))


def _fabio(path: Path) -> Any:
    try:
        import fabio
    except ImportError:
        raise PtychonError(
            f"{path} is a {path.suffix[1:].upper()} file: install its reader with 'pip install "
            "ptychon[detectors]'"
        ) from None

    def read() -> Any:
        with fabio.open(str(path)) as image:
            return (
                np.asarray(image.data)
                if image.nframes == 1
                else np.stack([f.data for f in image.frames()])
            )

    return _checked(path, read)


def _hdf5(name: str, path: Path) -> Any:
    return np.asarray(Hdf5Frames(path, name))


_READERS: dict[str, Callable[[Path], Any]] = {
    "NumPy": _npy,
    "TIFF": _tiff,
    "CBF": _fabio,
    "EDF": _fabio,
}


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    check_readable(path)
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file provokes in a decoder
        reason = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
        raise PtychonError(f"{path} is truncated or damaged ({reason}); copy it again") from error


def _table(path: PathLike, series: set[Path], others: list[Path], count: int) -> str | None:
    """The table of positions among the other files: the only one of the right length; None if there
    is none.
    """
    if not os.path.isdir(path):  # a pattern names no table
        others = [place for place in files_of(Path(path).parent) if place not in series]
    tables = [place for place in others if place.suffix.lower() in _TABLES]
    tables.sort(key=lambda place: "pos" not in place.name.lower())
    fitting = []
    for place in tables[:_MOST_TABLES]:
        try:
            if len(positions_from(place)[0]) == count:
                fitting.append(place)
        except PtychonError:
            continue
    named = [place for place in fitting if "pos" in place.name.lower()]
    best = named or fitting
    return str(best[0]) if len(best) == 1 else None
