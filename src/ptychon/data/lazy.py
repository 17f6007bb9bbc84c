"""Stacks of frames that are computed or read when they are sliced, and never before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..types import Array, IntArray, PtychonError

#: Bytes of frames that are handled at a time.
BLOCK_BYTES = 64 * 2**20
#: What `spare_memory` says where the system does not tell.
_SPARE = 2**30


class Frames:
    """Something that looks like an (N, P, Q) array and reads what is asked for. Base of the kinds
    below.

    Any index works on the first axis: a number, a slice, an array of numbers or of booleans;
    further axes are cut after reading. Every access opens the file anew, so that nothing is kept
    open, objects can be pickled and other processes may read as well.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, source: str) -> None:
        self.shape: tuple[int, int, int] = (math.prod(shape[:-2]), int(shape[-2]), int(shape[-1]))
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.source = source

    ndim = 3
    #: Whether something was subtracted, so that values below zero are noise and no marks
    #: (`ptychon.data.bad_values`).
    subtracted = False

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return (
            f"<{self.shape[0]} frames of {self.shape[1]}x{self.shape[2]} {self.dtype} in "
            f"{self.source}>"
        )

    @property
    def together(self) -> int:
        """How many neighbouring frames, counted from the first, are stored together; 1 where each
        is alone.
        """
        return 1

    def parts(self) -> list[Any]:
        """Slices or index arrays that go once through all frames, in blocks, in the order that is
        read fastest.
        """
        return list(blocks(self))

    def _read(self, first: int, last: int) -> Any:
        raise NotImplementedError

    def _gather(self, index: IntArray) -> Any:
        """Frames of any numbers (M,), not negative, in their order, (M, P, Q)."""
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        for run in runs(index):  # neighbours are read together
            first = int(index[run[0]])
            out[run] = self._read(first, int(index[run[-1]]) + 1)[index[run] - first]
        return out

    def __getitem__(self, key: Any) -> Any:
        which, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if which is Ellipsis or isinstance(which, tuple) or any(k is Ellipsis for k in rest):
            return np.asarray(self)[key]
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                block = self._read(start, max(start, stop))
                return block[(slice(None), *rest)] if rest else block
            which = np.arange(start, stop, step)
        index = np.asarray(which)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"boolean index of shape {index.shape} for {len(self)} frames")
            index = np.flatnonzero(index)
        if index.dtype.kind not in "iu" and index.size:
            raise IndexError(f"{which!r} cannot index frames")
        if index.size and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"frame {which!r} of {len(self)}")
        flat = np.where(index < 0, index + len(self), index).astype(np.intp).reshape(-1)
        block = self._gather(flat).reshape(*index.shape, *self.shape[1:])
        return block[(*[slice(None)] * index.ndim, *rest)] if rest else block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._read(0, len(self)), dtype)


class Selected(Frames):
    """Some frames of a stack, in any order.

    Parameters
    ----------
    frames : (N, P, Q) array, perhaps lazy
    index : (M,) int array
    """

    def __init__(self, frames: Array, index: IntArray) -> None:
        self._frames, self._index = frames, np.asarray(index, np.intp)
        super().__init__(
            (len(self._index), *frames.shape[1:]), frames.dtype, getattr(frames, "source", "memory")
        )
        self.subtracted = getattr(frames, "subtracted", False)

    @property
    def together(self) -> int:
        """That of the whole stack, where neighbours there are neighbours here."""
        shared = together(self._frames)
        aligned = (
            len(self._index) > 0
            and self._index[0] % shared == 0
            and bool((np.diff(self._index) == 1).all())
        )
        return shared if aligned else 1

    def parts(self) -> list[Any]:
        """Those of the whole stack, as far as they are here; blocks, where they are alike."""
        if together(self._frames) == together(self):
            return list(blocks(self))
        label = np.empty(len(self._frames), np.intp)
        for number, part in enumerate(parts(self._frames)):
            label[part] = number
        order = np.argsort(label[self._index], kind="stable")
        return np.split(order, np.flatnonzero(np.diff(label[self._index][order])) + 1)

    def _read(self, first: int, last: int) -> Any:
        return np.asarray(self._frames[self._index[first:last]])

    def _gather(self, index: IntArray) -> Any:
        return np.asarray(self._frames[self._index[index]])


class Gridded(Frames):
    """The frames of a scan in rows and columns, row by row.

    Parameters
    ----------
    frames : (rows, columns, P, Q) array with slices along its first two axes, perhaps on disk
    """

    def __init__(self, frames: Any) -> None:
        self._frames, self._columns = frames, int(frames.shape[1])
        super().__init__(tuple(frames.shape), frames.dtype, f"a grid of {frames.shape[0]} rows")

    def _read(self, first: int, last: int) -> Any:
        if first >= last:
            return np.empty((0, *self.shape[1:]), self.dtype)
        columns = self._columns
        top, bottom = first // columns, (last - 1) // columns
        found = [
            np.asarray(
                self._frames[
                    row,
                    first - row * columns if row == top else 0 : last - row * columns
                    if row == bottom
                    else columns,
                ],
                self.dtype,
            )
            for row in range(top, bottom + 1)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)


class Sliced(Frames):
    """An array of another package (h5py, dask, zarr, xarray) that knows slices along its first
    axis, which is all that is asked of it.

    Parameters
    ----------
    array : (N, P, Q) array
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        super().__init__(tuple(array.shape), array.dtype, f"a {type(array).__name__}")

    def _read(self, first: int, last: int) -> Any:
        return np.asarray(self._array[first:last], self.dtype)


class Stacked(Frames):
    """Several stacks, one after the other."""

    def __init__(self, stacks: Sequence[Array]) -> None:
        shapes = {tuple(stack.shape[1:]) for stack in stacks}
        if len(shapes) != 1:
            raise PtychonError(
                f"the parts of the scan have frames of different shapes: {sorted(shapes)}"
            )
        self._stacks = list(stacks)
        self._ends = np.cumsum([len(stack) for stack in stacks])
        dtype = np.result_type(*(stack.dtype for stack in stacks))
        super().__init__(
            (int(self._ends[-1]), *stacks[0].shape[1:]),
            dtype,
            getattr(stacks[0], "source", "memory"),
        )
        self.subtracted = any(getattr(stack, "subtracted", False) for stack in stacks)

    def _read(self, first: int, last: int) -> Any:
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        for stack, end in zip(self._stacks, self._ends, strict=True):
            begin = int(end) - len(stack)
            low, high = max(first, begin), min(last, int(end))
            if low < high:
                out[low - first : high - first] = stack[low - begin : high - begin]
        return out

    def parts(self) -> list[Any]:
        """Those of one stack after the other."""
        begins = self._ends - [len(stack) for stack in self._stacks]
        found = []
        for stack, begin in zip(self._stacks, begins, strict=True):
            for part in parts(stack):
                whole = isinstance(part, slice)
                found.append(
                    slice(int(begin) + part.start, int(begin) + part.stop)
                    if whole
                    else begin + part
                )
        return found

    def _gather(self, index: IntArray) -> Any:
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(which):
            stack, mine = self._stacks[number], np.flatnonzero(which == number)
            out[mine] = stack[index[mine] - (int(self._ends[number]) - len(stack))]
        return out


class Derived(Frames):
    """Frames computed from others, block by block.

    Parameters
    ----------
    frames : (N, P, Q) array, perhaps lazy
    function : callable
        From a block (B, P, Q) to the derived block (B, P', Q').
    shape : (P', Q')
    dtype : dtype of the derived frames
    """

    def __init__(
        self, frames: Array, function: Callable[[Any], Any], shape: tuple[int, int], dtype: Any
    ) -> None:
        self._frames, self._function = frames, function
        super().__init__((len(frames), *shape), dtype, getattr(frames, "source", "memory"))
        self.subtracted = getattr(frames, "subtracted", False)

    @property
    def together(self) -> int:
        """That of the frames they are made of."""
        return together(self._frames)

    def parts(self) -> list[Any]:
        """Those of the frames they are made of."""
        return list(parts(self._frames))

    def _read(self, first: int, last: int) -> Any:
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        for part in blocks(
            self._frames, first, last
        ):  # the frames they are made of may be much larger
            out[part.start - first : part.stop - first] = self._function(
                np.asarray(self._frames[part])
            )
        return out

    def _gather(self, index: IntArray) -> Any:
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        step = _most(self._frames)
        for begin in range(0, index.size, step):
            out[begin : begin + step] = self._function(
                np.asarray(self._frames[index[begin : begin + step]])
            )
        return out


def transposed(block: Any, first: int = 0) -> Any:
    """Frames with rows and columns exchanged (a function that can be pickled, for `Derived`)."""
    return np.swapaxes(block, -1, -2)


def runs(index: IntArray) -> list[IntArray]:
    """Where in an index its runs of neighbouring (or equal) numbers stand, each in ascending order
    of the numbers.
    """
    order = np.argsort(index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index[order]) > 1) + 1) if index.size else []


def together(frames: Array) -> int:
    """Neighbouring frames that are stored together; 1 for arrays in memory and where
    each is alone.
    """
    return int(getattr(frames, "together", 1))


def _bytes(frames: Array) -> int:
    """Of a frame in float32."""
    return max(1, 4 * int(math.prod(frames.shape[1:])))


def _block(frames: Array) -> int:
    """Frames of a part of `BLOCK_BYTES` in float32, at least one."""
    return max(1, BLOCK_BYTES // _bytes(frames))


def _most(frames: Array) -> int:
    """Frames that a part may have: more than `_block` where fewer would have the same chunks
    decompressed again.
    """
    if together(frames) == 1:
        return _block(frames)
    return max(_block(frames), spare_memory() // _bytes(frames))


def free_memory() -> int | None:
    """Bytes that the machine has left; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            return next(
                int(line.split()[1]) * 1024 for line in stream if line.startswith("MemAvailable")
            )
    except (OSError, StopIteration, ValueError):
        return None


def spare_memory() -> int:
    """Bytes that a block may take where smaller ones would have the same chunks decompressed over
    and over again.
    """
    free = free_memory()
    return _SPARE if free is None else max(BLOCK_BYTES, free // 4)


def blocks(frames: Array, first: int = 0, last: int | None = None) -> list[slice]:
    """Slices along the first axis that cut a stack into parts of `BLOCK_BYTES` in float32, at least
    one frame each.

    Frames that are stored together are not parted, unless they need more than a quarter of the free
    memory.

    Parameters
    ----------
    frames : (N, P, Q) array, perhaps lazy
    first, last : int
        Only these frames.
    """
    last = int(frames.shape[0]) if last is None else last
    step, shared = _block(frames), together(frames)
    if shared > 1:
        most = _most(frames)
        step = max(1, step // shared) * shared if shared <= most else most
    cuts = [first, *range(first - first % step + step, last, step), last]
    return [slice(a, b) for a, b in pairwise(cuts) if a < b]


def parts(frames: Array) -> list[Any]:
    """Slices or index arrays that go once through a stack, in blocks, in whatever order is read
    fastest.
    """
    return frames.parts() if isinstance(frames, Frames) else list(blocks(frames))
