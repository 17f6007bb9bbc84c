"""Which frames reach which tile of the object, and which share a shift: lists that make sums
deterministic without atomics.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...types import IntArray
from .source import TILE

#: Segments that frames of one shift are summed in, where there are few shifts, and how many pixels
#: in all are enough to fill a GPU.
SEGMENTS, SEGMENT_PIXELS = 16, 2**18
#: Points of the lines that kernels with transforms inside know.
LINE_SIDES = (32, 64, 128, 256, 512)


def order_of(batches: Any) -> tuple[IntArray, IntArray]:
    """Positions in the order of the batches (int32), and where each batch begins and ends."""
    if all(isinstance(b, slice) and b.stop == b.start + 1 for b in batches):
        return np.array([b.start for b in batches], np.int32), np.arange(len(batches) + 1)
    groups = [
        np.arange(b.start, b.stop) if isinstance(b, slice) else np.asarray(b) for b in batches
    ]
    return np.concatenate(groups).astype(np.int32), np.cumsum([0, *(len(g) for g in groups)])


def cut(bounds: IntArray, size: int) -> list[list[tuple[int, int]]]:
    """For each batch its blocks [first, stop) of at most `size` frames."""
    pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    return [[(i, min(i + size, stop)) for i in range(first, stop, size)] for first, stop in pairs]


def tile_count(shape: tuple[int, int]) -> int:
    """Tiles of an object."""
    return -(-shape[0] // TILE[0]) * -(-shape[1] // TILE[1])


def tiles_of_frame(frame: tuple[int, int]) -> int:
    """The most tiles that one frame reaches."""
    return ((frame[0] + TILE[0] - 2) // TILE[0] + 1) * ((frame[1] + TILE[1] - 2) // TILE[1] + 1)


def tile_lists(
    corners: IntArray, frame: tuple[int, int], shape: tuple[int, int], blocks: list[tuple[int, int]]
) -> tuple[IntArray, IntArray]:
    """For each block of frames and each tile the slots of the frames that reach it, in their order.

    Parameters
    ----------
    corners : (N, 2), in the order of the visits
    blocks : [first, stop) of each block

    Returns
    -------
    starts (blocks, tiles + 1) and members, int32: block b, tile t has members[starts[b,
    t]:starts[b, t + 1]]
    """
    across, tiles = -(-shape[1] // TILE[1]), tile_count(shape)
    starts, members, used = np.empty((len(blocks), tiles + 1), np.int32), [], 0
    for b, (first, stop) in enumerate(blocks):
        low = corners[first:stop] // TILE
        high = (corners[first:stop] + frame - 1) // TILE
        span = (high - low).max(axis=0) + 1
        y, x = (low[:, i, None] + np.arange(span[i]) for i in (0, 1))
        inside = (y <= high[:, 0, None])[:, :, None] & (x <= high[:, 1, None])[:, None, :]
        tile = (y[:, :, None] * across + x[:, None, :])[inside]
        slot = np.broadcast_to(np.arange(stop - first)[:, None, None], inside.shape)[inside]
        starts[b] = used + np.concatenate([[0], np.cumsum(np.bincount(tile, minlength=tiles))])
        members.append(slot[np.argsort(tile, kind="stable")])
        used += len(slot)
    return starts, np.concatenate(members).astype(np.int32)


def lines_of_block(side: int) -> tuple[int, int]:
    """Threads of a block, and how many lines of `side` points it has: four, so that neighbouring
    columns fill the 32 bytes that memory gives at a time, or more where that would be few threads.
    """
    threads = max(64, side // 2)
    return threads, threads * 8 // side


def segments_per_shift(shifts: int, frames: int, pixels: int) -> int:
    """Into how many segments the frames of one shift are dealt."""
    segments = max(1, min(SEGMENTS, SEGMENT_PIXELS // pixels))
    return max(1, min(segments // shifts, frames))


def segment_lists(
    index: IntArray, shifts: int, blocks: list[tuple[int, int]], deal: int
) -> tuple[IntArray, IntArray]:
    """For each block and segment its slots; segment u * deal + d has frames of shift u. As
    `tile_lists`.
    """
    starts, members, used = np.empty((len(blocks), shifts * deal + 1), np.int32), [], 0
    for b, (first, stop) in enumerate(blocks):
        segment = index[first:stop] * deal + np.arange(stop - first) % deal
        starts[b] = used + np.concatenate(
            [[0], np.cumsum(np.bincount(segment, minlength=shifts * deal))]
        )
        members.append(np.argsort(segment, kind="stable"))
        used += stop - first
    return starts, np.concatenate(members).astype(np.int32)


def ramps(shifts: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """exp(-2 pi i f s) along y (U, P) and x (U, Q), complex64."""
    y, x = (np.exp(-2j * np.pi * np.outer(shifts[:, i], np.fft.fftfreq(shape[i]))) for i in (0, 1))
    return y.astype(np.complex64), x.astype(np.complex64)
