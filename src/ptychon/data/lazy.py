"""Stacks of frames that are computed or read when they are sliced, and never before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..types import Array, IntArray, PtychonError

#: Bytes of frames that are handled at a time.
BLOCK_BYTES = 64 * 2**20


class Frames:
    """Something that looks like an (N, P, Q) array and reads what is asked for. Base of the kinds below.

    Any index works on the first axis: a number, a slice, an array of numbers or of booleans; further axes are cut after
    reading. Every access opens the file anew, so that nothing is kept open, objects can be pickled and other processes
    may read as well.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, source: str) -> None:
        self.shape: tuple[int, int, int] = (math.prod(shape[:-2]), int(shape[-2]), int(shape[-1]))
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.source = source

    ndim = 3
    #: Whether something was subtracted, so that values below zero are noise and no marks (`ptychon.data.bad_values`).
    subtracted = False

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.shape[0]} frames of {self.shape[1]}x{self.shape[2]} {self.dtype} in {self.source}>"

    def _read(self, first: int, last: int) -> Any:
        raise NotImplementedError

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
        out = np.empty((flat.size, *self.shape[1:]), self.dtype)
        order = np.argsort(flat, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(flat[order]) > 1) + 1) if flat.size else []
        for run in runs:  # neighbours are read together
            first = int(flat[run[0]])
            out[run] = self._read(first, int(flat[run[-1]]) + 1)[flat[run] - first]
        block = out.reshape(*index.shape, *self.shape[1:])
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
        super().__init__((len(self._index), *frames.shape[1:]), frames.dtype, getattr(frames, "source", "memory"))
        self.subtracted = getattr(frames, "subtracted", False)

    def _read(self, first: int, last: int) -> Any:
        return np.asarray(self._frames[self._index[first:last]])


class Stacked(Frames):
    """Several stacks, one after the other."""

    def __init__(self, stacks: Sequence[Array]) -> None:
        shapes = {tuple(stack.shape[1:]) for stack in stacks}
        if len(shapes) != 1:
            raise PtychonError(f"the parts of the scan have frames of different shapes: {sorted(shapes)}")
        self._stacks = list(stacks)
        self._ends = np.cumsum([len(stack) for stack in stacks])
        dtype = np.result_type(*(stack.dtype for stack in stacks))
        super().__init__((int(self._ends[-1]), *stacks[0].shape[1:]), dtype, getattr(stacks[0], "source", "memory"))
        self.subtracted = any(getattr(stack, "subtracted", False) for stack in stacks)

    def _read(self, first: int, last: int) -> Any:
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        for stack, end in zip(self._stacks, self._ends, strict=True):
            begin = int(end) - len(stack)
            low, high = max(first, begin), min(last, int(end))
            if low < high:
                out[low - first : high - first] = stack[low - begin : high - begin]
        return out


class Derived(Frames):
    """Frames computed from others, block by block.

    Parameters
    ----------
    frames : (N, P, Q) array, perhaps lazy
    function : callable
        From a block (B, P, Q) and the index of its first frame to the derived block (B, P', Q').
    shape : (P', Q')
    dtype : dtype of the derived frames
    """

    def __init__(self, frames: Array, function: Callable[[Any, int], Any], shape: tuple[int, int], dtype: Any) -> None:
        self._frames, self._function = frames, function
        super().__init__((len(frames), *shape), dtype, getattr(frames, "source", "memory"))
        self.subtracted = getattr(frames, "subtracted", False)

    def _read(self, first: int, last: int) -> Any:
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        step = max(1, BLOCK_BYTES // (4 * math.prod(self._frames.shape[1:])))
        for begin in range(first, last, step):  # the frames they are made of may be much larger
            end = min(begin + step, last)
            out[begin - first : end - first] = self._function(np.asarray(self._frames[begin:end]), begin)
        return out


def transposed(block: Any, first: int = 0) -> Any:
    """Frames with rows and columns exchanged (a function that can be pickled, for `Derived`)."""
    return np.swapaxes(block, -1, -2)


def blocks(frames: Array) -> list[slice]:
    """Slices along the first axis that cut a stack into parts of `BLOCK_BYTES` in float32, at least one frame each."""
    n = int(frames.shape[0])
    step = max(1, BLOCK_BYTES // max(1, 4 * math.prod(frames.shape[1:])))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]
