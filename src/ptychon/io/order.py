"""Which axes of a stack are the scan and which the detector, and stacks whose frames are along the
last axes.

The rule is (frames, rows, columns) and (slow, fast, rows, columns). It is turned round where the
number of positions, or the shape of the raster, fits only the last axes, and for three axes of
which only the first two are equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.lazy import Frames
from ..types import PtychonError
from .hdf5 import PathLike, opened


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length 1 at the front, as long as there are more than four."""
    while len(shape) > 4 and shape[0] == 1:
        shape = shape[1:]
    return shape


def frames_last(
    shape: tuple[int, ...], points: set[int], raster: tuple[int, int] | None = None
) -> str:
    """Why the frames of a stack are along its last axes; empty if they are along the first, as
    usual.

    Parameters
    ----------
    shape : (a, b, c) or (a, b, c, d)
    points : set of int
        Numbers of positions that the scan may have.
    raster : (slow, fast), optional
        Its shape, if it is stated.
    """
    first, last = (shape[:1], shape[2:]) if len(shape) == 3 else (shape[:2], shape[2:])
    if raster is not None:
        points = {math.prod(raster)}
    if math.prod(first) in points or min(first) < 1:
        return ""
    if raster is None and len(shape) == 3 and shape[1] == shape[2] != shape[0]:
        # square frames along the first axis: there are too few or too many positions, which is said
        return ""
    if math.prod(last) in points and min(shape[: len(shape) - len(last)]) >= 4:
        return (
            f"frames along the last {'axis' if len(last) == 1 else 'axes'}, since there are "
            f"{math.prod(last)} positions"
        )
    if not points and len(shape) == 3 and shape[0] == shape[1] != shape[2] and shape[2] > 1:
        return "guess: frames along the last axis, since the first two are equal"
    return ""


class Hdf5Last(Frames):
    """Frames of an HDF5 dataset (P, Q, N) or (P, Q, slow, fast)."""

    def __init__(self, path: PathLike, dataset: str) -> None:
        self._path, self._dataset = path, dataset
        with opened(path) as file:
            node = file[dataset]
            self._full = tuple(int(n) for n in node.shape)
            dtype = node.dtype
        super().__init__((*self._full[2:], *self._full[:2]), dtype, f"{dataset} of {path}")

    def _read(self, first: int, last: int) -> Any:
        inner = math.prod(self._full[3:])
        rows = slice(first // inner, -(-last // inner))
        with opened(self._path) as file:
            node = file[self._dataset]
            if tuple(node.shape) != self._full:
                raise PtychonError(f"{self.source} has changed since it was opened; load it again")
            block = np.asarray(node[:, :, rows])
        block = np.moveaxis(block.reshape(*self._full[:2], -1), -1, 0)
        return np.ascontiguousarray(
            block[first - rows.start * inner : last - rows.start * inner], self.dtype
        )


class ArrayLast(Frames):
    """The same of an array in memory, or one that is read as a whole at the first touch."""

    def __init__(self, read: Any, shape: tuple[int, ...], dtype: Any, source: str) -> None:
        self._read_all, self._full = read, shape
        self._data: Any = None
        super().__init__((*shape[2:], *shape[:2]), dtype, source)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def _read(self, first: int, last: int) -> Any:
        if self._data is None:
            whole = np.asarray(self._read_all()).reshape(*self._full[:2], -1)
            self._data = np.ascontiguousarray(np.moveaxis(whole, -1, 0), self.dtype)
        return self._data[first:last]
