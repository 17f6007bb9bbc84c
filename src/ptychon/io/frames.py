"""Stacks of frames that stay on disk until they are sliced."""

from __future__ import annotations

import importlib
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..data.lazy import Frames, blocks
from ..types import PtychonError
from .hdf5 import PathLike, opened, write_aside


class Hdf5Frames(Frames):
    """Frames of an HDF5 dataset (..., P, Q); leading axes, of a raster say, are taken in C order.

    Parameters
    ----------
    path : path of the file
    dataset : str
        Name of the dataset in it.
    """

    def __init__(self, path: PathLike, dataset: str) -> None:
        self._path, self._dataset = path, dataset
        with opened(path) as file:
            node = file[dataset]
            self._full = tuple(int(n) for n in node.shape)
            self._plugin = _needs_plugin(node)
            if self._plugin:
                _load_plugin(path, dataset)
            dtype = node.dtype
        super().__init__(self._full, dtype, f"{dataset} of {path}")

    def _read(self, first: int, last: int) -> Any:
        if self._plugin:
            _load_plugin(self._path, self._dataset)
        try:
            with opened(self._path) as file:
                node = file[self._dataset]
                if tuple(node.shape) != self._full:
                    raise PtychonError(f"{self.source} has changed since it was opened; load it again")
                block = self._slice(node, first, last)
        except MemoryError:
            raise PtychonError(f"not enough memory for frames {first} to {last - 1} of {self.source}") from None
        return block.astype(self.dtype, copy=False)

    def walk(self) -> int:
        """Go through the index of all chunks, and return their number; it is damaged where this fails."""
        with opened(self._path) as file:
            node = file[self._dataset]
            if node.chunks is None:
                return 0
            count = 0

            def visit(info: Any) -> None:
                nonlocal count
                count += 1

            node.id.chunk_iter(visit)
            return count

    def _slice(self, node: Any, first: int, last: int) -> Any:
        if len(self._full) == 3:
            return node[first:last]
        if len(self._full) == 2:
            return node[()][None][first:last]
        inner = math.prod(self._full[1:-2])
        rows = slice(first // inner, -(-last // inner))
        block = node[rows].reshape(-1, *self.shape[1:])
        return block[first - rows.start * inner : last - rows.start * inner]


def _needs_plugin(node: Any) -> bool:
    """Whether the compression is one that the HDF5 library does not bring (bitshuffle, LZ4, Blosc, ...)."""
    plist = node.id.get_create_plist()
    return any(plist.get_filter(i)[0] >= 256 for i in range(plist.get_nfilters()))


def _load_plugin(path: PathLike, dataset: str) -> None:
    try:
        importlib.import_module("hdf5plugin")  # registers the filters
    except ImportError:
        raise PtychonError(
            f"{dataset} of {path} is compressed with a plugin: install it with 'pip install hdf5plugin'"
        ) from None


class NpzFrames(Frames):
    """Frames of one array of an .npz archive, which is compressed as a whole: read at the first touch and kept."""

    def __init__(self, path: PathLike, member: str) -> None:
        self._path, self._member = path, member
        shape, dtype = npz_headers(path)[member]
        self._full = shape
        self._data: Any = None
        super().__init__(shape, dtype, f"{member} of {path}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def _read(self, first: int, last: int) -> Any:
        if self._data is None:
            array = read_npz(self._path, self._member).reshape(self.shape)
            self._data = np.ascontiguousarray(array, self.dtype)
            self._data.flags.writeable = False
        return self._data[first:last]


def _npz(path: PathLike, read: Callable[[zipfile.ZipFile], Any]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return read(archive)
    except MemoryError:
        raise PtychonError(f"not enough memory for the arrays of {path}") from None
    except PtychonError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, struct.error, ...: whatever a broken stream provokes
        if "Object arrays" in str(error):
            raise PtychonError(f"{path} holds pickled objects, which are never loaded; save plain arrays") from error
        raise PtychonError(f"{path} is truncated or damaged ({_short(error)}); copy it again") from error


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:100] or type(error).__name__


def npz_headers(path: PathLike) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of every array of an .npz archive, without reading the arrays.

    Raises
    ------
    PtychonError
        If the archive is damaged, holds pickled objects, or an array is not as long as it says.
    """

    def headers(archive: zipfile.ZipFile) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        found = {}
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                if version[0] == 1:
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
                if dtype.hasobject:
                    raise ValueError("Object arrays cannot be loaded")
                if stream.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
                    raise ValueError(f"{info.filename} says {shape} {dtype} but has {info.file_size} bytes")
            found[info.filename.removesuffix(".npy")] = (shape, dtype)
        return found

    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = _npz(path, headers)
    return found


def read_npz(path: PathLike, member: str) -> Any:
    """One array of an .npz archive; nothing is unpickled."""

    def read(archive: zipfile.ZipFile) -> Any:
        with archive.open(f"{member}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return _npz(path, read)


def write_npz(path: PathLike, arrays: Mapping[str, Any]) -> None:
    """A compressed .npz archive that appears when it is complete; lazy stacks of frames are written in blocks.

    Raises
    ------
    PtychonError
        If it cannot be written.
    """
    with write_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                write_npy(stream, array)


def write_npy(stream: Any, array: Any) -> None:
    """An array in the format .npy into an open file; lazy stacks of frames in blocks."""
    if not isinstance(array, Frames):
        np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
        return
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for part in blocks(array):
        stream.write(np.ascontiguousarray(array[part], array.dtype).tobytes())
