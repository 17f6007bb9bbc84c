"""HDF5 underneath everything: files that appear whole or not at all, and plain values <-> HDF5
nodes.

Each node carries an attribute ``type`` that says what it was: none, bool, int, float, complex, str,
array, list, tuple, map, record (a dataclass) or repr (the text of something that has no other
form). Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import importlib
import io
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..types import PtychonError

if TYPE_CHECKING:
    import h5py

PathLike: TypeAlias = str | os.PathLike[str]

#: Arrays smaller than this are stored as they are: a chunk index would cost more than compression
#: saves.
_COMPRESS_FROM = 4096
_DEEPEST = 32
#: Seconds after which an unfinished file is nobody's.
_FORGOTTEN = 86400.0
#: Bytes from which a dataset must be stored to be believed, and how much smaller compression can
#: make it.
_LARGE, _BEST_COMPRESSION = 2**28, 2000
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

    check_readable(path)
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


def _escape(key: str) -> str:
    name = key.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return name.replace(".", "%2E") if name in (".", "..") else name or "%"


def _unescape(name: str) -> str:
    if name == "%":
        return ""
    return name.replace("%2E", ".").replace("%00", "\0").replace("%2F", "/").replace("%25", "%")


def put(group: Any, name: str, value: Any, *, lenient: bool = False) -> Any:
    """Store a plain value as the node `name` of an open group.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Any text; a slash does not make a subgroup.
    value : None, bool, int, float, complex, str, path, array, list, tuple, mapping with str keys,
    or dataclass
    lenient : bool
        Store the text of anything else instead of refusing it.

    Returns
    -------
    h5py.Group or h5py.Dataset

    Raises
    ------
    PtychonError
        If the value has no form in HDF5.
    """
    key = _escape(name)
    if isinstance(value, np.generic) and value.dtype.kind in "biufcU":
        value = value.item()
    if isinstance(value, PurePath):
        value = str(value)
    kind: str
    if value is None:
        node, kind = group.create_group(key), "none"
    elif isinstance(value, str):
        try:
            plain = "\0" not in value and bool(value.encode())
        except UnicodeEncodeError:  # a file name that is not UTF-8
            plain = False
        data: Any = (
            value if plain else np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8)
        )
        node, kind = group.create_dataset(key, data=data), "str"
    elif isinstance(value, (bool, int, float, complex)):
        whole = isinstance(value, int) and not -(2**63) <= value < 2**63
        node, kind = (
            group.create_dataset(key, data=str(value) if whole else value),
            type(value).__name__,
        )
    elif isinstance(value, Mapping):
        node, kind = group.create_group(key, track_order=True), "map"
        for inner, item in value.items():
            if not isinstance(inner, str) and not lenient:
                raise PtychonError(f"cannot store {name!r}: its key {inner!r} is not text")
            put(node, str(inner), item, lenient=lenient)
    elif isinstance(value, (list, tuple)):
        node, kind = group.create_group(key), "tuple" if isinstance(value, tuple) else "list"
        for index, item in enumerate(value):
            put(node, str(index), item, lenient=lenient)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        node, kind = group.create_group(key, track_order=True), "record"
        node.attrs["class"] = type(value).__name__
        for item in dataclasses.fields(value):
            put(node, item.name, getattr(value, item.name), lenient=lenient)
    elif hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biufc":
        node, kind = put_array(group, key, np.asarray(value)), "array"
    elif hasattr(value, "__array__") and np.asarray(value).dtype.kind in "US":
        return put(group, name, np.asarray(value).astype(str).tolist())
    elif lenient:
        node, kind = put(group, name, repr(value)), "repr"
    else:
        raise PtychonError(f"cannot store {name!r}: a {type(value).__name__} has no form in HDF5")
    node.attrs["type"] = kind
    return node


def put_array(group: Any, name: str, array: Any, dtype: Any = None) -> Any:
    """A dataset, compressed where that pays. `array` may be lazy: a long stack is copied in blocks
    of frames.
    """
    shape, dtype = tuple(array.shape), np.dtype(dtype or array.dtype)
    large = int(np.prod(shape)) * dtype.itemsize >= _COMPRESS_FROM
    if not large or 0 in shape:
        return group.create_dataset(name, data=np.asarray(array, dtype))
    chunks = (1, *shape[1:]) if len(shape) == 3 else True
    node = group.create_dataset(
        name,
        shape,
        dtype,
        chunks=chunks,
        compression="gzip",
        compression_opts=1,
        shuffle=dtype.itemsize > 1,
    )
    step = max(1, int(2**26 // max(1, np.prod(shape[1:]) * dtype.itemsize)))
    for first in range(0, shape[0], step):
        node[first : first + step] = np.asarray(array[first : first + step], dtype)
    return node


def check_size(node: Any) -> None:
    """Refuse a dataset of absurd shape before it is read: one of a gigabyte of which next to
    nothing is stored.

    Raises
    ------
    PtychonError
        If its shape must be damaged.
    """
    size = math.prod(node.shape or (0,)) * node.dtype.itemsize
    stored = int(node.id.get_storage_size()) if size > _LARGE else size
    if size > _LARGE and stored * _BEST_COMPRESSION < size:
        raise PtychonError(
            f"{node.name} says its shape is {node.shape}, but only {stored} bytes are stored: "
            "it is damaged"
        )


def get(node: Any, _depth: int = 0) -> Any:
    """The value that `put` stored. Dataclasses come back as mappings of their fields.

    Raises
    ------
    PtychonError
        If the node was not written by `put`.
    """
    kind = node.attrs.get("type")
    if _depth > _DEEPEST:
        raise PtychonError(
            f"{node.name} is nested more than {_DEEPEST} deep: not written by this package"
        )
    if kind == "none":
        return None
    if hasattr(node, "dtype"):
        check_size(node)
    if kind in ("map", "record"):
        return {_unescape(name): get(node[name], _depth + 1) for name in node}
    if kind in ("list", "tuple"):
        items = [get(node[str(index)], _depth + 1) for index in range(len(node))]
        return tuple(items) if kind == "tuple" else items
    if kind in ("str", "repr"):
        value = node[()]
        data: bytes = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        return data.decode("utf-8", "surrogatepass")
    if kind in ("bool", "int", "float", "complex"):
        value = node[()]
        return {"bool": bool, "int": int, "float": float, "complex": complex}[kind](value)
    if kind == "array":
        return node[()]
    raise PtychonError(
        f"{node.name} in {node.file.filename} has the type {kind!r}: not written by this package"
    )
