"""HDF5 underneath everything: files that appear whole or not at all, and plain values <-> HDF5
nodes.

Each node carries an attribute ``type`` that says what it was: none, bool, int, float, complex, str,
array, list, tuple, map, record (a dataclass) or repr (the text of something that has no other
form). Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import PathLike as PathLike
from ..types import PtychonError

if TYPE_CHECKING:
    import h5py

#: Seconds after which an unfinished file is nobody's.
_FORGOTTEN = 86400.0
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "part of the path is a file, not a folder",
    errno.EFBIG: "the file would be larger than allowed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "it is a folder",
}


def _reason(error: BaseException) -> str:
    return (
        _REASONS.get(getattr(error, "errno", None) or 0)
        or getattr(error, "strerror", None)
        or _first_line(error)
    )


@contextlib.contextmanager
def write_aside(path: PathLike) -> Iterator[Path]:
    """A temporary file in the folder of `path` that takes its place if, and only if, all goes well.

    Parameters
    ----------
    path : path of the file to appear

    Yields
    ------
    Path
        Write here. On leaving normally it is flushed to the disk and renamed; on any exception,
        Ctrl-C included, it is removed and what was at `path` before is untouched.

    Raises
    ------
    PtychonError
        If the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # through a symbolic link to what it points at
    aside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        if target.exists() and not target.is_file():
            raise PtychonError(
                f"cannot write {path}: it is "
                f"{'a folder' if target.is_dir() else 'not a regular file'}"
            )
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        _sweep(target)
        try:
            yield aside
            _to_disk(aside)
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        kept = "; the file that was there is unharmed" if os.path.exists(target) else ""
        raise PtychonError(f"cannot write {path}: {_reason(error)}{kept}") from error
    with contextlib.suppress(
        OSError
    ):  # the name itself; not every file system lets a folder be flushed
        _to_disk(target.parent)


def _sweep(target: Path) -> None:
    """Remove what processes that were killed a day or more ago have left beside a file."""
    with contextlib.suppress(OSError):
        for old in target.parent.glob(f".{glob.escape(target.name[:100])}.????????.part"):
            if time.time() - old.stat().st_mtime > _FORGOTTEN:
                old.unlink()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def titled(name: object, default: str) -> str:
    """A title that HDF5 can hold, without the characters it cannot (NUL, halves of others)."""
    text = str(name or "").replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
    return text or default


def check_writable(path: PathLike) -> None:
    """Refuse a place that cannot be written, before hours are spent on what would be written there.

    Raises
    ------
    PtychonError
        As `write_aside`.
    """
    with contextlib.suppress(_Enough), write_aside(path):
        raise _Enough


class _Enough(Exception):
    pass


@contextlib.contextmanager
def create(path: PathLike) -> Iterator[h5py.File]:
    """An HDF5 file open for writing that appears at `path` only when it is complete (see
    `write_aside`).
    """
    with write_aside(path) as aside, _on_disk(aside, "w") as file:
        yield file


@contextlib.contextmanager
def amend(path: PathLike, source: PathLike) -> Iterator[h5py.File]:
    """A copy of the HDF5 file `source` open for changes, which appears at `path` only when it is
    complete.
    """
    with write_aside(path) as aside:
        shutil.copyfile(source, aside)
        with _on_disk(aside, "r+") as file:
            yield file


@contextlib.contextmanager
def _on_disk(path: Path, mode: str) -> Iterator[h5py.File]:
    import h5py

    with _Disk(path) as disk:
        try:
            with h5py.File(disk, mode) as file:
                yield file
        finally:
            disk.check()  # a failed disk is the cause of whatever else went wrong


class _Disk(io.FileIO):
    """A file that remembers the first failure instead of raising it.

    The HDF5 library, told of a full disk, can no longer close its file and says so at length on
    stderr, again at exit.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.failure is None and done < len(view):  # a nearly full disk takes a part
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[h5py.File]:
    """An HDF5 file open for reading; whatever is wrong with it is said in one sentence.

    Filters of plugins are registered first: any dataset in the file may be compressed with one, or
    stand for others that are (a virtual dataset, a link to another file).

    Raises
    ------
    PtychonError
        If the file is missing, empty, not HDF5, truncated or damaged.
    """
    import h5py

    from .guard import check_nodes

    check_readable(path)
    check_nodes(path)
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError, ValueError) as error:
        raise PtychonError(_unreadable(path, error)) from error
    with file:
        try:
            yield file
        except PtychonError:
            raise
        except (
            OSError,
            RuntimeError,
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            MemoryError,
        ) as error:
            raise PtychonError(_unusable(path, error)) from error


def _unusable(path: PathLike, error: BaseException) -> str:
    text = _first_line(error)
    if "filter" in text and (
        "not registered" in text or "not available" in text or "plugin" in text
    ):
        return (
            f"a dataset of {path} is compressed with a plugin that is not there ({text}); {PLUGINS}"
        )
    return f"{path} is damaged or not what it seems: {text}"


#: What to do where a filter is missing.
PLUGINS = "install the usual ones with 'pip install --upgrade hdf5plugin'"


def check_readable(path: PathLike) -> None:
    """Refuse what is not a file with something in it, with the reason."""
    place = Path(path)
    try:
        if not place.exists():
            raise PtychonError(f"{path}: there is no such file")
        if not place.is_file():
            raise PtychonError(
                f"{path} is {'a folder' if place.is_dir() else 'not a regular file'}; name a file"
            )
        if place.stat().st_size == 0:
            raise PtychonError(f"{path} is empty (0 bytes); copy or write it again")
        with place.open("rb"):
            pass
    except OSError as error:
        raise PtychonError(f"cannot read {path}: {_reason(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (text.splitlines() or [type(error).__name__])[0].strip() or type(error).__name__


def _unreadable(path: PathLike, error: BaseException) -> str:
    found = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
    if found:
        return (
            f"{path} is truncated: {found.group(1)} of {found.group(2)} bytes are there; copy "
            "it again"
        )
    if "signature not found" in str(error):
        return f"{path} is not an HDF5 file, or its beginning is damaged"
    return f"cannot read {path}: {_first_line(error)}"
