"""Stacks of frames that stay on disk until they are sliced."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..data.lazy import BLOCK_BYTES, Frames, blocks, runs
from ..types import IntArray, PtychonError
from .hdf5 import PathLike, opened, write_aside
from .sources import check_filters, check_sources


class Hdf5Frames(Frames):
    """Frames of an HDF5 dataset (..., P, Q); leading axes, of a raster say, are taken in C order.

    A chunk that holds pieces of many frames is decompressed once for all that are asked for
    together, not once a frame.

    Parameters
    ----------
    path : path of the file
    dataset : str
        Name of the dataset in it.

    Raises
    ------
    PtychonError
        If it is compressed with a plugin that is not there, or is made of other files of which some
        are missing.
    """

    def __init__(self, path: PathLike, dataset: str) -> None:
        self._path, self._dataset = path, dataset
        with opened(path) as file:
            node = file[dataset]
            self._full = tuple(int(n) for n in node.shape)
            self._chunks = None if node.chunks is None else tuple(int(n) for n in node.chunks)
            check_filters(node, path)
            check_sources(node, path)
            dtype = node.dtype
        super().__init__(self._full, dtype, f"{dataset} of {path}")

    @property
    def together(self) -> int:
        """Frames of the rows of the scan that lie in the same chunks."""
        scan, chunk = self._scan
        if math.prod(chunk) == 1:
            return 1
        outer = next(axis for axis, size in enumerate(chunk) if size > 1)
        whole = scan[outer] % chunk[outer] == 0 or outer == 0  # else chunks begin anew in every row
        return (min(chunk[outer], scan[outer]) if whole else scan[outer]) * math.prod(
            scan[outer + 1 :]
        )

    @property
    def _scan(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the scan and of a chunk along its axes."""
        scan = self._full[:-2] or (1,)
        return scan, (1,) * len(scan) if self._chunks is None else self._chunks[:-2] or (1,)

    @contextlib.contextmanager
    def _node(self, first: int, last: int) -> Iterator[Any]:
        """The open dataset, from which these frames are read."""
        try:
            with opened(self._path) as file:
                node = file[self._dataset]
                if tuple(node.shape) != self._full:
                    raise PtychonError(
                        f"{self.source} has changed since it was opened; load it again"
                    )
                yield node
        except MemoryError:
            raise PtychonError(
                f"not enough memory for frames {first} to {last} of {self.source}"
            ) from None

    def _read(self, first: int, last: int) -> Any:
        inner = math.prod(self._full[1:-2])
        if len(self._full) > 3 and last - first < inner:
            return self._gather(np.arange(first, last))
        with self._node(first, last - 1) as node:
            if len(self._full) == 2:
                return node[()][None][first:last].astype(self.dtype, copy=False)
            rows = slice(first // inner, -(-last // inner))
            block = node[rows].reshape(-1, *self.shape[1:])
            block = block[first - rows.start * inner : last - rows.start * inner]
            return block.astype(self.dtype, copy=False)

    def _gather(self, index: IntArray) -> Any:
        if index.size == 0 or len(self._full) == 2:
            return super()._gather(index)
        scan, chunk = self._scan
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        place = np.stack(np.unravel_index(index, scan), axis=-1)
        # frames of the same chunks are read together; where a chunk is one frame, neighbours of a
        # row of the scan
        cell = np.ravel_multi_index(
            (place // chunk).T, tuple(-(-n // c) for n, c in zip(scan, chunk, strict=True))
        )
        with self._node(int(index.min()), int(index.max())) as node:
            for group in _equal(cell) if math.prod(chunk) > 1 else _rows(index, scan[-1]):
                self._pick(node, group, place, out)
        return out

    def _pick(self, node: Any, which: IntArray, place: IntArray, out: Any) -> None:
        """Read the box of the scan that holds some frames, tile by tile where it is much larger
        than they are.
        """
        low, high = place[which].min(axis=0), place[which].max(axis=0) + 1
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        local = tuple((place[which] - low).T)
        p, q = self.shape[1:]
        tiles = (p, q)
        if (
            math.prod(high - low) * p * q * node.dtype.itemsize > BLOCK_BYTES
            and self._chunks is not None
        ):
            tiles = self._chunks[-2], self._chunks[-1]
        for top in range(0, p, tiles[0]):
            for left in range(0, q, tiles[1]):
                tile = slice(top, top + tiles[0]), slice(left, left + tiles[1])
                out[(which, *tile)] = node[(*box, *tile)][local]

    def walk(self) -> int:
        """Go through the index of all chunks, and return their number; it is damaged where this
        fails.
        """
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


def _rows(index: IntArray, length: int) -> list[IntArray]:
    """Where the runs of neighbours within rows of a scan stand in an index."""
    return [row[run] for row in _equal(index // length) for run in runs(index[row])]


def _equal(labels: IntArray) -> list[IntArray]:
    """Where equal numbers stand in an array, one array for each."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


class NpzFrames(Frames):
    """Frames of one array of an .npz archive, which is compressed as a whole: read at the first
    touch and kept.
    """

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
    except (
        Exception
    ) as error:  # BadZipFile, zlib.error, struct.error, ...: whatever a broken stream provokes
        if "Object arrays" in str(error):
            raise PtychonError(
                f"{path} holds pickled objects, which are never loaded; save plain arrays"
            ) from error
        raise PtychonError(
            f"{path} is truncated or damaged ({_short(error)}); copy it again"
        ) from error


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
                    raise ValueError(
                        f"{info.filename} says {shape} {dtype} but has {info.file_size} bytes"
                    )
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
    """A compressed .npz archive that appears when it is complete; lazy stacks of frames are written
    in blocks.

    Raises
    ------
    PtychonError
        If it cannot be written.
    """
    with (
        write_aside(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
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
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(stream, header)
    for part in blocks(array):
        stream.write(np.ascontiguousarray(array[part], array.dtype).tobytes())
