"""What runs kernels on a device, and where the frames of a scan lie and how they are shifted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

import numpy as np

from ...types import Array, IntArray
from . import lists as lists
from .far import Copier

#: Most blocks of threads for one frame, and for a whole object: enough to fill a GPU, few enough
#: parts to add up.
FRAME_BLOCKS, OBJECT_BLOCKS = 64, 512

GRID_ROWS = 65535

#: Most jobs of a sweep that are kept as graphs; about eight kernels each.
MOST_JOBS = 2**15

Jobs = Callable[[], Iterator[Callable[[], None]]]


class Launcher(Copier, Protocol):
    """What runs kernels.

    threads : of a block, a multiple of 32
    block_bytes : of waves that are worked on together, about what the second-level cache holds
    group_bytes : of frames that are on the device at a time, twice, where not all can be
    lines : whether kernels with the transforms inside are used where they know the frames
    """

    threads: int
    lines: bool
    block_bytes: int
    group_bytes: int

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array: ...
    def upload(self, host: Any) -> Array:
        """A contiguous array on the device, whatever it was before."""
        ...

    def write(self, target: Array, host: Any) -> None:
        """Overwrite the first elements of a device array."""
        ...

    def launch(
        self, name: str, grid: tuple[int, int], *args: Any, threads: int = 0, shared: int = 0
    ) -> None:
        """Run a kernel with the usual number of threads in a block or another, and with so many
        bytes of shared memory.
        """
        ...

    def fft(self, a: Array, out: Array, inverse: bool) -> None:
        """Over the last two axes, without any factor in either direction; `out` may be `a`."""
        ...

    def run(self, graphs: dict[Hashable, Any], key: Hashable, jobs: Jobs) -> None:
        """Do all jobs, in order; `graphs` is where a launcher may keep what it made of those of a
        key.
        """
        ...

    def is_far(self, frames: Array) -> bool:
        """Whether frames stayed on the host because the device has no room for them."""
        ...


class Geometry:
    """Where the frames of a scan lie and how they are shifted, on the device, and the launches that
    need no more.
    """

    def __init__(
        self,
        launcher: Launcher,
        corners: Any,
        index: Any,
        shifts: Any,
        frame: tuple[int, int],
        shape: tuple[int, int],
        modes: int,
    ) -> None:
        L = self.launcher = launcher
        self.count, self.modes, self.frame, self.shape = len(corners), modes, frame, shape
        self.pixels, self.size = frame[0] * frame[1], shape[0] * shape[1]
        self.host_corners, self.host_index = np.asarray(corners), np.asarray(index)
        self.shifts = len(shifts)
        self.subpixel = bool(np.any(shifts)) or self.shifts > 1
        self.corners = L.upload(self.host_corners.astype(np.int32))
        self.index = L.upload(self.host_index.astype(np.int32))
        self.ramps = tuple(L.upload(r) for r in lists.ramps(shifts, frame))
        self.grid = min(-(-self.pixels // L.threads), FRAME_BLOCKS)
        self.deal = lists.segments_per_shift(self.shifts, self.count, self.pixels)
        self.segments = self.shifts * self.deal
        self.iota = L.upload(np.arange(max(self.count, self.segments), dtype=np.int32))
        self.segment_shift = L.upload(np.repeat(np.arange(self.shifts), self.deal).astype(np.int32))
        self.peaks = L.empty((OBJECT_BLOCKS,), "float32")
        self.kept: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str = "complex64") -> Array:
        """A working array, made at first use and then the same for as long as this lives."""
        if name not in self.kept or self.kept[name].shape != shape:
            if name in self.kept:
                self.forget()
            self.kept[name] = self.launcher.empty(shape, dtype)
        return self.kept[name]

    def forget(self) -> None:
        """An array is replaced: what remembers its address is void."""

    # ------------------------------------------------------------ launches

    def launch(self, name: str, frames: int, *args: Any) -> None:
        """A kernel over pixels and frames."""
        self.launcher.launch(name, (self.grid, frames), *args)

    def launch_lines(self, name: str, side: int, frames: int, *args: Any) -> None:
        """A kernel of lines.cu, whose lines have `side` points."""
        threads, lines = lists.lines_of_block(side)
        shared = 8 * lines * (side + side // 8 + 4)
        self.launcher.launch(name, (self.grid, frames), *args, threads=threads, shared=shared)

    def over(self, name: str, count: int, *args: Any) -> None:
        """A kernel over the elements of a long array."""
        blocks = min(-(-count // self.launcher.threads), OBJECT_BLOCKS)
        self.launcher.launch(name, (blocks, 1), *args)

    def over_tiles(self, name: str, *args: Any) -> None:
        self.launcher.launch(name, (lists.tile_count(self.shape), 1), *args)

    def clear(self, *arrays: Array) -> None:
        for a in arrays:
            floats = a.view("float32")
            self.over("fill", floats.size, floats, floats.size, 0.0)

    def copy(self, source: Array, target: Array) -> None:
        floats = source.view("float32")
        self.over("segment_sum", floats.size, floats, 1, floats.size, 0, target.view("float32"))

    def add(self, source: Array, target: Array, factor: float = 1.0) -> None:
        """target += factor source."""
        floats = source.view("float32")
        self.over("add_scaled", floats.size, floats, floats.size, factor, target.view("float32"))

    def peak(self, x: Array) -> tuple[Array, int]:
        """Parts of the maximum of a real array, and their number."""
        blocks = min(-(-x.size // self.launcher.threads), OBJECT_BLOCKS)
        self.launcher.launch("max_parts", (blocks, 1), x, x.size, self.peaks)
        return self.peaks, blocks

    # ------------------------------------------------------------ shifted probes

    def shift_all(self, probe: Array, name: str = "probes") -> Array:
        """The probe at every shift, (U, K, P, Q); the probe itself where there is only one and it
        is zero.
        """
        if not self.subpixel:
            return probe[None]
        spectrum, out = (
            self.array("spectrum", probe.shape),
            self.array(name, (self.shifts, *probe.shape)),
        )
        self.launcher.fft(probe, spectrum, False)
        names = self.iota, 0, self.iota
        self.launch(
            "ramp",
            self.shifts,
            spectrum,
            *self.ramps,
            *names,
            self.modes,
            *self.frame,
            1 / self.pixels,
            out,
        )
        self.launcher.fft(out, out, True)
        return out

    def gather_force(self, force: Array, out: Array) -> None:
        """out (K, P, Q) = sum of the segments (S, K, P, Q), each shifted back to the grid of the
        probe; `force` is used up.
        """
        if not self.subpixel:
            floats = force.view("float32")
            each = floats.size // self.segments
            self.over("segment_sum", each, floats, self.segments, each, 0, out.view("float32"))
            return
        self.launcher.fft(force, force, False)
        self.clear(out)
        names = self.iota, 0, self.segment_shift
        factor = 1 / self.pixels
        self.launch(
            "unramp_add",
            1,
            force,
            self.segments,
            *self.ramps,
            *names,
            self.modes,
            *self.frame,
            factor,
            out,
        )
        self.launcher.fft(out, out, True)

    def segment_arrays(self) -> tuple[Array, Array]:
        """Force (S, K, P, Q) and weight (S, P, Q) of the segments."""
        force = self.array("force", (self.segments, self.modes, *self.frame))
        return force, self.array("force weight", (self.segments, *self.frame), "float32")

    def light_total(self, weight: Array) -> tuple[Array, tuple[Array, int]]:
        """The sum of the segments of a weight (S, P, Q), and the parts of its maximum."""
        total = self.array("weight", self.frame, "float32")
        self.over("segment_sum", self.pixels, weight, self.segments, self.pixels, 0, total)
        return total, self.peak(total)

    # ------------------------------------------------------- lists for sums over overlapping frames

    def make_lists(self, order: IntArray, blocks: list[tuple[int, int]], segments: bool) -> None:
        """Lists for these blocks of the order, in arrays that stay where they are while their sizes
        stay.
        """
        found = {"tile": lists.tile_lists(self.host_corners[order], self.frame, self.shape, blocks)}
        if segments:
            found["segment"] = lists.segment_lists(
                self.host_index[order], self.shifts, blocks, self.deal
            )
        for name, (starts, members) in found.items():
            room = self.count * (lists.tiles_of_frame(self.frame) if name == "tile" else 1)
            self.launcher.write(self.array(f"{name} starts", starts.shape, "int32"), starts)
            self.launcher.write(self.array(f"{name} members", (room,), "int32"), members)

    def listed(self, name: str, block: int) -> tuple[Array, Array]:
        return self.kept[f"{name} starts"][block], self.kept[f"{name} members"]
