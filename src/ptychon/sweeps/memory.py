"""What a run holds, from shapes alone; and, on a GPU, whether the frames are to be there or on the
host.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..engines import Engine
from ..kernels.gpu import lists
from ..kernels.gpu.far import group_frames
from ..kernels.gpu.geometry import FRAME_BLOCKS, GRID_ROWS
from ..types import PtychonError

#: Bytes that are left alone: compiled kernels, FFT plans of other sizes, what the allocator cannot
#: use.
RESERVE = 256 * 2**20


@dataclass(frozen=True)
class Shapes:
    """What memory depends on: N frames of P x Q, object H x W, probe modes, distinct shifts, masks
    (1 or N), whether counts are kept beside the amplitudes, for a background, whether the detector
    is near, and slices of the object."""

    frames: int
    frame: tuple[int, int]
    object: tuple[int, int]
    modes: int = 1
    shifts: int = 1
    masks: int = 1
    counts: bool = False
    near_field: bool = False
    slices: int = 1

    @classmethod
    def of(cls, problem: Any, modes: int) -> Shapes:
        """Those of a `Problem`."""
        return cls(
            len(problem),
            problem.frame_shape,
            problem.object_shape,
            modes,
            len(problem.shifts),
            len(problem.mask),
            getattr(problem, "counts", None) is not None,
            problem.near_field,
            int(np.prod(getattr(problem, "field_shape", ())[:-2])),
        )


@dataclass(frozen=True)
class Memory:
    """A plan.

    Attributes
    ----------
    engine : str
    device : dict of str to int
        Bytes on the device, by what they are for.
    host : dict of str to int
        Bytes of arrays with an entry for each frame that stay on the host; empty where nothing
        does.
    block : int
        Frames worked on together.
    free : int
        Bytes that could be had on the device when the plan was made; 0 if nobody asked.
    where : str
        "GPU", or "host" for a run on the CPU.
    """

    engine: str
    device: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)
    block: int = 1
    free: int = 0
    where: str = "GPU"

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.device.values())

    @property
    def held(self) -> int:
        """Bytes on the device and on the host."""
        return self.total + sum(self.host.values())

    @property
    def far(self) -> bool:
        """Whether the frames stay on the host."""
        return bool(self.host)

    def line(self) -> str:
        """One line for people: what is held, in GB, and how much is free."""
        parts = ", ".join(
            f"{name} {size / 1e9:.2f}" for name, size in self.device.items() if size >= 5e6
        )
        said = (
            f"{self.where} memory: {self.engine} holds {self.total / 1e9:.2f} GB "
            f"({parts or 'all small'})"
        )
        if self.free:
            said += f"; {self.free / 1e9:.2f} GB are free"
        if self.far:
            kept = " and ".join(f"{name} ({size / 1e9:.1f} GB)" for name, size in self.host.items())
            said += f"; {kept} stay on the host and are sent in groups"
        return said


def needed(
    engine: Engine, shapes: Shapes, *, far: bool = False, block: int = 1, group_bytes: int = 0
) -> Memory:
    """What a run holds with blocks of `block` frames, frames and waves on the device or (far) on
    the host; rather too much.

    Parameters
    ----------
    engine : Engine
        Its `keeps` and `stacks` say what it holds.
    shapes : Shapes
    far : bool
    block : int
    group_bytes : int
        Of the frames, and waves, that are on the device at a time, twice, where they are far.
    """
    (p, q), (h, w), n, k = shapes.frame, shapes.object, shapes.frames, shapes.modes
    pixels, keeps = p * q, engine.keeps
    stack = keeps.stack
    # waves on each slice, beside those in front of and behind the detector
    stacks = engine.stacks * (1 + shapes.slices) / 2
    size = int((keeps.stack_bytes * k * stacks + keeps.frame_bytes) * n * pixels)
    kept = {"frames": 4 * n * pixels * (1 + (shapes.counts and keeps.counts))} | (
        {stack: size} if stack else {}
    )
    groups = 0
    if far:
        group = min(n, group_frames(group_bytes, pixels, k if stack else 0, shapes.masks > 1))
        groups = 2 * group * (pixels * (4 + (8 * k + (shapes.masks > 1) if stack else 0)) + 64)
        if keeps.sums_apart:
            # and those of the sums after a sweep
            group = min(n, group_frames(group_bytes, pixels, 1, False))
            groups += 2 * group * 8 * pixels
        if stack:
            # which frames of each group reach which tile
            groups += (
                -(-n // group) * 4 * (lists.tile_count((h, w)) + shapes.shifts * lists.SEGMENTS + 2)
            )
    device = {
        "object and probe": (8 + keeps.object_bytes) * h * w * shapes.slices
        + 24 * k * pixels
        + keeps.shift_bytes * pixels * shapes.shifts,
        "masks": shapes.masks * pixels,
        **({"transfer functions": 8 * pixels * shapes.shifts} if shapes.near_field else {}),
        **({} if far else kept),
        "groups": groups,
        "work": work(engine, shapes, block, far),
    }
    return Memory(engine.name, device, kept if far else {}, block)


def work(engine: Engine, shapes: Shapes, block: int, far: bool = False) -> int:
    """Bytes of working arrays, with blocks of `block` frames."""
    (p, q), (h, w), n = shapes.frame, shapes.object, shapes.frames
    wave = 8 * shapes.modes * p * q
    # two arrays of waves and as much again for the FFTs; shifted probes and their spectrum
    total = (3 + shapes.slices) * block * wave + (shapes.shifts + 3) * wave
    # sums, or beliefs kept for a batch, on the object; lists of what reaches its tiles; errors of
    # frames
    total += 12 * h * w + 4 * n * (lists.tiles_of_frame((p, q)) + 1) + 5 * 8 * FRAME_BLOCKS * n
    if engine.moves_probe:
        segments = shapes.shifts * lists.segments_per_shift(shapes.shifts, n, p * q)
        total += segments * (wave + 4 * p * q) * (2 if far and engine.keeps.sums_apart else 1)
    return total


def largest_block(shapes: Shapes, block_bytes: int) -> int:
    """Frames of a block where memory is no matter: what the cache holds."""
    p, q = shapes.frame
    return max(1, min(shapes.frames, GRID_ROWS, block_bytes // (8 * shapes.modes * p * q)))


def planned(
    engine: Engine, shapes: Shapes, free: int, *, block_bytes: int, group_bytes: int
) -> Memory:
    """How a run fits into `free` bytes: all on the device if it can, with smaller blocks where
    memory is short, else with frames and waves on the host.

    Parameters
    ----------
    engine, shapes
        As in `needed`. Frames of an engine that cannot stream them, or keeps more than one stack of
        waves, stay on the device.
    free : int
    block_bytes, group_bytes : int
        Of the launcher.

    Raises
    ------
    PtychonError
        Where it does not fit in any way: what is needed, what is free, and what may help.
    """
    room = free - RESERVE if free > 4 * RESERVE else int(0.75 * free)
    tries, stay = [], not engine.keeps.streams or engine.stacks > 1
    for far in (False,) if stay else (False, True):
        block = largest_block(shapes, block_bytes)
        while block:
            tries.append(needed(engine, shapes, far=far, block=block, group_bytes=group_bytes))
            if tries[-1].total <= room:
                return replace(tries[-1], free=free)
            block //= 2
    least = min(found.total for found in tries)
    plain = " (this run cannot leave its frames on the host)" if stay else ""
    raise PtychonError(
        f"engine {engine.name!r} needs {least / 1e9:.2f} GB on the GPU{plain}, and "
        f"{free / 1e9:.2f} GB are free; use fewer or "
        f"smaller frames (a crop or a binning), fewer modes, subpixel=False, or --backend numpy"
    )


def on_host(problem: Any, engine: Engine, modes: int) -> Memory:
    """What a run on the CPU holds, its data included; working arrays are small beside it."""
    found = needed(engine, Shapes.of(problem, modes))
    return replace(found, free=host_free(), where="host")


def host_free() -> int:
    """Bytes the host could give now; 0 where the system does not say."""
    try:
        return int(os.sysconf("SC_AVPHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 0
