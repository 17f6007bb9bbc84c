"""What whole sweeps share: the launcher they need, a scan on the device, working arrays, and sweeps
over frames in groups.

The mathematics is that of the engines; the kernels are those of cuda/*.cu. What is launched in what
order is written here once, for any `Launcher`: CuPy on a GPU, where a sweep becomes a CUDA graph,
or, in tests, the same sources compiled for the host.

Everything that may change between two sweeps of one graph lives in device arrays: the order of the
visits, the step sizes, the noise variance. A plan works in place on the arrays of one state and
keeps them alive; what an engine puts in their place between sweeps is copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ...types import Array, IntArray
from . import lists as lists
from .far import Copier, Far, Stream, group_frames, in_groups

BY_SHIFT, BY_SLOT, ONLY_ONE = 0, 1, 2
#: Most blocks of threads for one frame, and for a whole object: enough to fill a GPU, few enough
#: parts to add up.
FRAME_BLOCKS, OBJECT_BLOCKS = 64, 512
GRID_ROWS = 65535
#: Most jobs of a sweep that are kept as graphs; about eight kernels each.
MOST_JOBS = 2**15

Jobs = Callable[[], Iterator[Callable[[], None]]]
#: Some launches, and the visits [first, stop) whose frames they need (none where both are 0).
Visit = tuple[Callable[[], None], int, int]


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


@dataclass(frozen=True)
class Local:
    """The frames of one group as if there were no others: arrays by the place of a frame in its
    group.

    first : the visit with which the group begins
    arrays : "frames", "corners", "index", "mask" where each frame has one, and what the engine
    keeps for each frame
    """

    first: int
    arrays: dict[str, Array]


class Plan(Geometry):
    """The data on the device, working arrays, and the launches that all engines share."""

    #: Arrays of the state that a plan works on in place.
    names: tuple[str, ...] = ()
    #: The one with an entry for each frame and mode, if there is one; then groups are worked on as
    #: if they were all there is.
    stack: str = ""

    def __init__(self, launcher: Launcher, problem: Any, modes: int, block: int = 0) -> None:
        super().__init__(
            launcher,
            problem.corners,
            problem.shift_index,
            problem.shifts,
            problem.frame_shape,
            problem.object_shape,
            modes,
        )
        self.graphs: dict[Hashable, Any] = {}
        self.bound: dict[str, Array] = {}
        self.far = problem.amplitude if launcher.is_far(problem.amplitude) else None
        self.amplitude = None if self.far is not None else launcher.upload(problem.amplitude)
        many = len(problem.mask) > 1
        self.group = min(
            self.count,
            group_frames(launcher.group_bytes, self.pixels, modes if self.stack else 0, many),
        )
        self.local: Local | None = None
        self._batches: Any = None
        self._taken: tuple[IntArray, IntArray]
        self._listed: bool | None = None
        self.group_first = 0
        self.group_frames: Array = self.amplitude
        self.graphs_of_group: dict[int, dict[Hashable, Any]] = {}
        self.mask = launcher.upload(problem.mask).view("uint8")
        self.valid = problem.mask.sum(axis=(-2, -1)).astype("float32")
        transfer = problem.propagator.transfer
        self.transfer = None if transfer is None else launcher.upload(transfer)
        self.norm = self.pixels**-0.5 if transfer is None else 1 / self.pixels
        #: Whether kernels that have the transforms inside serve these frames.
        known = all(side in lists.LINE_SIDES for side in self.frame)
        self.fused = launcher.lines and transfer is None and known
        if self.fused:
            blocks = [
                -(-self.frame[i] // lists.lines_of_block(self.frame[1 - i])[1]) for i in (0, 1)
            ]
            self.grid = min(max(blocks), FRAME_BLOCKS)
        # not more frames than a grid has rows
        self.block = block or max(
            1, min(self.count, GRID_ROWS, launcher.block_bytes // (8 * modes * self.pixels))
        )
        self.order = launcher.upload(np.arange(self.count, dtype=np.int32))
        self.sums = launcher.empty((4,), "float64")
        self.partial = launcher.empty((FRAME_BLOCKS,), "float64")

    # ------------------------------------------------------------ arrays

    def forget(self) -> None:
        self.graphs.clear()
        self.graphs_of_group.clear()

    def waves(self, name: str, count: int | None = None) -> Array:
        """(count, K, P, Q), of one array for the largest block."""
        return self.array(name, (self.block, self.modes, *self.frame))[: count or self.block]

    def bind(self, state: Any, *names: str) -> None:
        """Make the arrays of `state` those the launches work on, with the values the
        state has now.
        """
        for name in names:
            value = getattr(state, name)
            if isinstance(value, Far):
                self.bound[name] = value
                continue
            if name not in self.bound:
                # a view may be of an array that others hold
                self.bound[name] = (
                    value if value.flags.c_contiguous and value.base is None else value.copy()
                )
            elif value is not self.bound[name]:
                self.bound[name][...] = value
            setattr(state, name, self.bound[name])

    def _probes(self) -> Array:
        """What `shift_all` made."""
        return self.kept["probes"] if self.subpixel else self.bound["probe"][None]

    def take(self, batches: Any) -> tuple[IntArray, IntArray]:
        """Order and bounds of the batches of this sweep, the order also on the device; the same
        object is taken only once.
        """
        if batches is not self._batches:
            self._batches, self._taken, self._listed = batches, lists.order_of(batches), None
            self.launcher.write(self.order, self._taken[0])
        return self._taken

    def list_blocks(self, blocks: list[list[tuple[int, int]]], segments: bool) -> None:
        """`make_lists` for the batches that were taken, if not made already."""
        if self._listed is not segments:
            self.make_lists(
                self._taken[0], [block for batch in blocks for block in batch], segments
            )
            self._listed = segments

    def scan(self, first: int, order: Array | None = None) -> tuple[Any, ...]:
        """The arguments that say which frame a slot is."""
        if self.local is not None:
            here = self.local.arrays
            return self.iota, first - self.local.first, here["corners"], here["index"]
        return (self.order if order is None else order), first, self.corners, self.index

    def each(self, name: str) -> Array:
        """An array with an entry for each frame, as `scan` counts them: "frames", "mask", "valid",
        or one of the state.
        """
        if self.local is not None and name in self.local.arrays:
            return self.local.arrays[name]
        data = {"frames": self.amplitude, "mask": self.mask, "valid": self.valid}
        return data[name] if name in data else self.bound[name]

    def here(self, parts: Array) -> Array:
        """An array with an entry for each visit, from the first of the group on."""
        return parts if self.local is None else parts[self.local.first :]

    def total(self, parts: Array, out: int) -> None:
        """sums[out] = the sum of an array."""
        blocks = min(-(-parts.size // self.launcher.threads), FRAME_BLOCKS)
        self.launcher.launch("sum_parts", (blocks, 1), parts, parts.size, self.partial)
        self.launcher.launch("sum_parts", (1, 1), self.partial, blocks, self.sums[out:])

    def found(self, i: int) -> Array:
        """A copy of sums[i], 0-d, that the next sweep leaves alone."""
        return self.sums[i : i + 1].copy().reshape(())

    def propagate(self, a: Array, out: Array, backward: bool, scan: tuple[Any, ...]) -> None:
        """To the detector or back, short of a factor `norm`; `scan` says which frames."""
        if self.transfer is None:
            self.launcher.fft(a, out, backward)
            return
        self.launcher.fft(a, out, False)
        order, at, _, index = scan
        size = self.modes, self.pixels
        self.launch(
            "multiply", len(out) * self.modes, out, self.transfer, order, at, index, *size, backward
        )
        self.launcher.fft(out, out, True)

    def modulus(self, wave: Array, first: int, misfit: Array, rows: bool = False) -> None:
        """wave <- Pi_F wave - wave, propagated there and back; with `rows` it comes with its rows
        transformed and stays so.
        """
        scan = self.scan(first)
        frames, by_slot = self.each("frames"), False
        if self.far is not None and self.local is None:
            frames, by_slot = self.group_frames[first - self.group_first :], True
        head = wave, frames, by_slot, self.each("mask"), len(self.mask), *scan[:2], self.modes
        tail = self.norm, self.norm, self.here(misfit)
        if rows:
            self.launch_lines(
                "modulus_columns", self.frame[0], len(wave), *head, *self.frame, *tail
            )
            return
        self.propagate(wave, wave, False, scan)
        self.launch("modulus_change", len(wave), *head, self.pixels, *tail)
        self.propagate(wave, wave, True, scan)

    def by_rows(self, name: str, fused: str, frames: int, *args: Any) -> None:
        """The kernel `fused` of lines.cu, along rows, where it serves these frames, else `name`,
        which takes the same.
        """
        if self.fused:
            self.launch_lines(fused, self.frame[1], frames, *args)
        else:
            self.launch(name, frames, *args)

    def visit_all(
        self,
        key: Hashable,
        order: IntArray,
        visits: Callable[[], Iterator[Visit]],
        streams: tuple[Stream, ...] = (),
    ) -> None:
        """Do all visits: in one go, or group by group while what the next group needs (by default
        its frames) is on its way.
        """
        if self.far is None:
            self.launcher.run(self.graphs, key, lambda: (work for work, _, _ in visits()))
            return
        groups = _groups(visits(), self.group)
        # the graphs of a very long sweep would fill the memory that the frames have left
        keep = sum(len(jobs) for jobs, _, _ in groups) <= MOST_JOBS
        rows = [order[first:stop] for _, first, stop in groups]
        for i, (slot, arrays) in enumerate(
            in_groups(self.launcher, streams or (Stream("frames", self.far),), rows, self._room)
        ):
            jobs, first, stop = groups[i]
            if self.stack:
                self.local = Local(first, arrays | self._own(slot, first, stop))
            else:
                self.group_first, self.group_frames = first, arrays["frames"]
            graphs = self.graphs_of_group.setdefault(i, {}) if keep else {}
            self.launcher.run(graphs, key, partial(iter, jobs))
            if self.local is not None:
                self._give_back(first, stop)
        self.local = None

    def _room(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Two places for groups of any size up to the largest."""
        return self.array(name, (self.group, *shape[1:]), dtype)

    def few(self) -> dict[str, Array]:
        """Small arrays with an entry for each frame that are on the device and that kernels look up
        by frame.
        """
        found = {"corners": self.corners, "index": self.index}
        return found if len(self.mask) == 1 else found | {"mask": self.mask, "valid": self.valid}

    def _own(self, slot: int, first: int, stop: int) -> dict[str, Array]:
        """`few` of the frames of a group."""
        rows, own = self.order[first:stop], {}
        for name, values in self.few().items():
            own[name] = self._room(f"{name} {slot}", values.shape, str(values.dtype))
            own[name][: stop - first] = values[rows]
        return own

    def _give_back(self, first: int, stop: int) -> None:
        """What the visits of a group changed of `few`, to where it belongs."""

    def parts(self, name: str) -> Array:
        """(N, blocks) float64, one sum for each frame and block of threads."""
        return self.array(name, (self.count, self.grid), "float64")


def _groups(visits: Iterator[Visit], size: int) -> list[tuple[list[Callable[[], None]], int, int]]:
    """Consecutive visits that need no more than `size` frames in all: jobs and the frames [first,
    stop) they need.
    """
    groups: list[tuple[list[Callable[[], None]], int, int]] = []
    for work, first, stop in visits:
        if not groups or (stop and groups[-1][2] and stop - groups[-1][1] > size):
            groups.append(([work], first, stop))
            continue
        jobs, begin, end = groups[-1]
        jobs.append(work)
        if stop:
            groups[-1] = jobs, begin if end else first, stop
    return groups
