"""Whole sweeps as sequences of kernel launches and FFTs, with nothing on the host per position.

The mathematics is that of the engines; the kernels are those of cuda/*.cu. What is launched in what order is written here once,
for any `Launcher`: CuPy on a GPU, where a sweep becomes a CUDA graph, or, in tests, the same sources compiled for the host.

Everything that may change between two sweeps of one graph lives in device arrays: the order of the visits, the step sizes, the
noise variance. A plan works in place on the arrays of one state and keeps them alive; what an engine puts in their place
between sweeps is copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..types import Array, IntArray
from . import _cupy_lists as lists

BY_SHIFT, BY_SLOT, ONLY_ONE = 0, 1, 2
#: Most blocks of threads for one frame, and for a whole object: enough to fill a GPU, few enough parts to add up.
FRAME_BLOCKS, OBJECT_BLOCKS = 64, 512
GRID_ROWS = 65535
#: Most jobs of a sweep that are kept as graphs; about eight kernels each.
MOST_JOBS = 2**15

Jobs = Callable[[], Iterator[Callable[[], None]]]
#: Some launches, and the visits [first, stop) whose frames they need (none where both are 0).
Visit = tuple[Callable[[], None], int, int]


class Launcher(Protocol):
    """What runs kernels.

    threads : of a block, a multiple of 32
    block_bytes : of waves that are worked on together, about what the second-level cache holds
    group_bytes : of frames that are on the device at a time, twice, where not all can be
    """

    threads: int
    block_bytes: int
    group_bytes: int

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array: ...
    def upload(self, host: Any) -> Array:
        """A contiguous array on the device, whatever it was before."""
        ...

    def write(self, target: Array, host: Any) -> None:
        """Overwrite the first elements of a device array."""
        ...

    def launch(self, name: str, grid: tuple[int, int], *args: Any) -> None: ...
    def fft(self, a: Array, out: Array, inverse: bool) -> None:
        """Over the last two axes, without any factor in either direction; `out` may be `a`."""
        ...

    def run(self, graphs: dict[Hashable, Any], key: Hashable, jobs: Jobs) -> None:
        """Do all jobs, in order; `graphs` is where a launcher may keep what it made of those of a key."""
        ...

    def is_far(self, frames: Array) -> bool:
        """Whether frames stayed on the host because the device has no room for them."""
        ...

    def send(self, frames: Any, rows: IntArray, target: Array, slot: int) -> None:
        """Start copying rows of `frames` on the host to `target`, once the launches before `used(slot)` are done."""
        ...

    def arrived(self, slot: int) -> None:
        """What is launched from now on finds what was sent."""
        ...

    def used(self, slot: int) -> None:
        """What was launched until now is all that reads the target of this slot."""
        ...


class Geometry:
    """Where the frames of a scan lie and how they are shifted, on the device, and the launches that need no more."""

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
        self.deal = lists.segments_per_shift(self.shifts, self.count)
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

    def shift_all(self, probe: Array) -> Array:
        """The probe at every shift, (U, K, P, Q); the probe itself where there is only one and it is zero."""
        if not self.subpixel:
            return probe[None]
        spectrum, out = self.array("spectrum", probe.shape), self.array("probes", (self.shifts, *probe.shape))
        self.launcher.fft(probe, spectrum, False)
        names = self.iota, 0, self.iota
        self.launch("ramp", self.shifts, spectrum, *self.ramps, *names, self.modes, *self.frame, 1 / self.pixels, out)
        self.launcher.fft(out, out, True)
        return out

    def gather_force(self, force: Array, out: Array) -> None:
        """out (K, P, Q) = sum of the segments (S, K, P, Q), each shifted back to the grid of the probe; `force` is used up."""
        if not self.subpixel:
            floats = force.view("float32")
            each = floats.size // self.segments
            self.over("segment_sum", each, floats, self.segments, each, 0, out.view("float32"))
            return
        self.launcher.fft(force, force, False)
        self.clear(out)
        names = self.iota, 0, self.segment_shift
        factor = 1 / self.pixels
        self.launch("unramp_add", 1, force, self.segments, *self.ramps, *names, self.modes, *self.frame, factor, out)
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

    # ------------------------------------------------------------ lists for sums over overlapping frames

    def make_lists(self, order: IntArray, blocks: list[tuple[int, int]], segments: bool) -> None:
        """Lists for these blocks of the order, in arrays that stay where they are while their sizes stay."""
        found = {"tile": lists.tile_lists(self.host_corners[order], self.frame, self.shape, blocks)}
        if segments:
            found["segment"] = lists.segment_lists(self.host_index[order], self.shifts, blocks, self.deal)
        for name, (starts, members) in found.items():
            room = self.count * (lists.tiles_of_frame(self.frame) if name == "tile" else 1)
            self.launcher.write(self.array(f"{name} starts", starts.shape, "int32"), starts)
            self.launcher.write(self.array(f"{name} members", (room,), "int32"), members)

    def listed(self, name: str, block: int) -> tuple[Array, Array]:
        return self.kept[f"{name} starts"][block], self.kept[f"{name} members"]


class Plan(Geometry):
    """The data on the device, working arrays, and the launches that all engines share."""

    #: Arrays of the state that a plan works on in place.
    names: tuple[str, ...] = ()

    def __init__(self, launcher: Launcher, problem: Any, modes: int, block: int = 0) -> None:
        super().__init__(
            launcher, problem.corners, problem.shift_index, problem.shifts, problem.frame_shape, problem.object_shape, modes
        )
        self.graphs: dict[Hashable, Any] = {}
        self.bound: dict[str, Array] = {}
        self.far = problem.amplitude if launcher.is_far(problem.amplitude) else None
        self.amplitude = None if self.far is not None else launcher.upload(problem.amplitude)
        self.group = max(1, launcher.group_bytes // (4 * self.pixels))
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
        # not more frames than a grid has rows
        self.block = block or max(1, min(self.count, GRID_ROWS, launcher.block_bytes // (8 * modes * self.pixels)))
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
        """Make the arrays of `state` those the launches work on, with the values the state has now."""
        for name in names:
            value = getattr(state, name)
            if name not in self.bound:
                # a view may be of an array that others hold
                self.bound[name] = value if value.flags.c_contiguous and value.base is None else value.copy()
            elif value is not self.bound[name]:
                self.bound[name][...] = value
            setattr(state, name, self.bound[name])

    def _probes(self) -> Array:
        """What `shift_all` made."""
        return self.kept["probes"] if self.subpixel else self.bound["probe"][None]

    def take(self, batches: Any) -> tuple[IntArray, IntArray]:
        """Order and bounds of the batches of this sweep, the order also on the device; the same object is taken only once."""
        if batches is not self._batches:
            self._batches, self._taken, self._listed = batches, lists.order_of(batches), None
            self.launcher.write(self.order, self._taken[0])
        return self._taken

    def list_blocks(self, blocks: list[list[tuple[int, int]]], segments: bool) -> None:
        """`make_lists` for the batches that were taken, if not made already."""
        if self._listed is not segments:
            self.make_lists(self._taken[0], [block for batch in blocks for block in batch], segments)
            self._listed = segments

    def scan(self, first: int, order: Array | None = None) -> tuple[Any, ...]:
        """The arguments that say which frame a slot is."""
        return (self.order if order is None else order), first, self.corners, self.index

    def total(self, parts: Array, out: int) -> None:
        """sums[out] = the sum of an array."""
        blocks = min(-(-parts.size // self.launcher.threads), FRAME_BLOCKS)
        self.launcher.launch("sum_parts", (blocks, 1), parts, parts.size, self.partial)
        self.launcher.launch("sum_parts", (1, 1), self.partial, blocks, self.sums[out:])

    def found(self, i: int) -> Array:
        """A copy of sums[i], 0-d, that the next sweep leaves alone."""
        return self.sums[i : i + 1].copy().reshape(())

    def propagate(self, a: Array, out: Array, backward: bool) -> None:
        """To the detector or back, short of a factor `norm`."""
        if self.transfer is None:
            self.launcher.fft(a, out, backward)
            return
        self.launcher.fft(a, out, False)
        self.launch("multiply", len(out) * self.modes, out, self.transfer, self.pixels, backward)
        self.launcher.fft(out, out, True)

    def modulus(self, wave: Array, first: int, misfit: Array) -> None:
        """wave <- Pi_F wave - wave, propagated there and back."""
        self.propagate(wave, wave, False)
        near = self.far is None
        frames = self.amplitude if near else self.group_frames[first - self.group_first :]
        data = frames, not near, self.mask, len(self.mask)
        self.launch(
            "modulus_change", len(wave), wave, *data, self.order, first, self.modes, self.pixels, self.norm, self.norm, misfit
        )
        self.propagate(wave, wave, True)

    def visit_all(self, key: Hashable, order: IntArray, visits: Callable[[], Iterator[Visit]]) -> None:
        """Do all visits: in one go, or group by group while the frames of the next group are on their way."""
        if self.far is None:
            self.launcher.run(self.graphs, key, lambda: (work for work, _, _ in visits()))
            return
        groups = _groups(visits(), self.group)
        # the graphs of a very long sweep would fill the memory that the frames have left
        keep = sum(len(jobs) for jobs, _, _ in groups) <= MOST_JOBS
        room = self.group, *self.frame
        frames = [self.array(f"frames {slot}", room, "float32") for slot in (0, 1)]
        self.launcher.send(self.far, order[groups[0][1] : groups[0][2]], frames[0], 0)
        for i, (jobs, first, _) in enumerate(groups):
            if i + 1 < len(groups):
                rows = order[groups[i + 1][1] : groups[i + 1][2]]
                self.launcher.send(self.far, rows, frames[(i + 1) % 2], (i + 1) % 2)
            self.group_first, self.group_frames = first, frames[i % 2]
            self.launcher.arrived(i % 2)
            graphs = self.graphs_of_group.setdefault(i, {}) if keep else {}
            self.launcher.run(graphs, key, partial(iter, jobs))
            self.launcher.used(i % 2)

    def parts(self, name: str) -> Array:
        """(N, blocks) float64, one sum for each frame and block of threads."""
        return self.array(name, (self.count, self.grid), "float64")


def _groups(visits: Iterator[Visit], size: int) -> list[tuple[list[Callable[[], None]], int, int]]:
    """Consecutive visits that need no more than `size` frames in all: jobs and the frames [first, stop) they need."""
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


class Iterative(Plan):
    """PIE, ePIE and rPIE."""

    names = ("object", "probe")

    def step(self, engine: Any, state: Any, batches: Any) -> Array:
        """One sweep on the arrays of `state`; returns the misfit."""
        order, bounds = self.take(batches)
        moves, root = engine.probe_moves_at(state.epoch), engine.name == "pie"
        one_by_one = bool((np.diff(bounds) == 1).all())
        apart = one_by_one or (not moves and getattr(batches, "disjoint", False))
        reg = 1.0 if engine.name == "epie" else engine.object_reg
        p_reg = getattr(engine, "probe_reg", 1.0)
        steps = engine.object_step, 1.0 if root else 1 - reg, reg, getattr(engine, "probe_step", 0.0), 1 - p_reg, p_reg
        self.bind(state, *self.names)
        self.launcher.write(self.array("steps", (6,), "float32"), np.array(steps, np.float32))
        blocks = lists.cut(bounds, min(self.block, self.group))
        if not apart:
            self.list_blocks(blocks, moves)
        key = root, moves, apart, bounds.tobytes()
        self.visit_all(key, order, lambda: self._visits(blocks, root, moves, apart))
        return self.found(0)

    def _visits(self, blocks: list[list[tuple[int, int]]], root: bool, moves: bool, apart: bool) -> Iterator[Visit]:
        probe = self.bound["probe"]
        if apart and moves:
            if self.subpixel:
                yield lambda: self.launcher.fft(probe, self.array("spectrum", probe.shape), False), 0, 0
            for ((first, stop),) in blocks:
                yield partial(self._move_both, first), first, stop
            if self.subpixel:
                yield self._leave_spectrum, 0, 0
        elif apart:
            yield lambda: self._peaks(self.shift_all(probe)), 0, 0
            for batch in blocks:
                for first, stop in batch:
                    yield partial(self._move_object, first, stop, root), first, stop
        else:
            done = 0
            for batch in blocks:
                yield partial(self._begin_batch, batch, done, moves), 0, 0
                for first, stop in batch:
                    yield partial(self._pull, first, stop, done, root, moves), first, stop
                    done += 1
                yield partial(self._end_batch, moves), 0, 0
        yield lambda: self.total(self.parts("misfit"), 0), 0, 0

    def _peaks(self, probes: Array) -> Array:
        peaks = self.array("probe peaks", (self.shifts,), "float32")
        self.launcher.launch("probe_peaks", (1, self.shifts), probes, self.modes, self.pixels, peaks)
        return peaks

    def _exit(self, probes: Array, select: int, first: int, wave: Array, *peaks: Array | None) -> None:
        tops = peaks or (None, None)
        head = self.bound["object"], self.shape[1], probes, select, *self.scan(first)
        self.launch("exit_wave", len(wave), *head, self.modes, *self.frame, wave, *tops)

    def _move_object(self, first: int, stop: int, root: bool) -> None:
        """Fixed probe, windows apart."""
        wave, probes = self.waves("wave", stop - first), self._probes()
        self._exit(probes, BY_SHIFT, first, wave)
        self.modulus(wave, first, self.parts("misfit"))
        head = self.bound["object"], self.shape[1], probes, self.kept["probe peaks"], wave, *self.scan(first)
        self.launch("object_step", len(wave), *head, self.modes, *self.frame, root, self.kept["steps"])

    def _move_both(self, first: int) -> None:
        """Object and probe, one frame."""
        wave, here = self.waves("wave", 1), self.bound["probe"]
        tops = [self.array(name, (self.grid,), "float32") for name in ("object top", "probe top")]
        place, size = (self.order, first, self.index), (self.modes, *self.frame)
        if self.subpixel:
            here, spectrum = self.waves("here", 1), self.kept["spectrum"]
            self.launch("ramp", 1, spectrum, *self.ramps, *place, *size, 1 / self.pixels, here)
            self.launcher.fft(here, here, True)
        self._exit(here, ONLY_ONE, first, wave, *tops)
        self.modulus(wave, first, self.parts("misfit"))
        head = self.bound["object"], self.shape[1], here, wave, *self.scan(first)
        self.launch("both_step", 1, *head, *size, *tops, self.kept["steps"], self.subpixel)
        if self.subpixel:
            self.launcher.fft(wave, wave, False)
            self.launch("unramp_add", 1, wave, 1, *self.ramps, *place, *size, 1.0, spectrum)

    def _leave_spectrum(self) -> None:
        """The probe from its spectrum."""
        probe = self.bound["probe"]
        spectrum = self.kept["spectrum"]
        self.clear(probe)
        self.launcher.fft(spectrum, spectrum, True)
        self.add(spectrum, probe, 1 / self.pixels)

    # a batch of frames that see the same object and probe, normalised by their sums where they overlap

    def _begin_batch(self, batch: list[tuple[int, int]], done: int, moves: bool) -> None:
        """Light of the batch on the object and its maximum in each window; sums at zero."""
        probes, size = self.shift_all(self.bound["probe"]), (self.modes, *self.frame)
        self._peaks(probes)
        push, light = self.array("push", self.shape), self.array("light", self.shape, "float32")
        tops = self.array("window peaks", (self.count,), "float32")
        self.clear(push, light)
        for b, (first, _) in enumerate(batch, done):
            tiles = self.listed("tile", b)
            self.over_tiles("object_sums", None, 1, probes, *tiles, *self.scan(first), *size, *self.shape, None, light)
        for first, stop in batch:
            head = light, self.shape[1], *self.scan(first)
            self.launcher.launch("window_peaks", (1, stop - first), *head, *self.frame, tops)
        if moves:
            self.clear(*self.segment_arrays())

    def _pull(self, first: int, stop: int, block: int, root: bool, moves: bool) -> None:
        """What the frames of one block ask of object and probe."""
        wave, probes, size, scan = self.waves("wave", stop - first), self._probes(), (self.modes, *self.frame), self.scan(first)
        light, tops, peaks = (self.kept[name] for name in ("light", "window peaks", "probe peaks"))
        self._exit(probes, BY_SHIFT, first, wave)
        self.modulus(wave, first, self.parts("misfit"))
        head = wave, probes, peaks, light, tops, root, *self.listed("tile", block)
        self.over_tiles("object_pull", *head, *scan, *size, *self.shape, self.kept["steps"], self.kept["push"])
        if moves:
            pulls = wave, 1, self.bound["object"], self.shape[1], probes, 0, *self.listed("segment", block)
            self.launch("probe_sums", self.segments, *pulls, *scan, *size, *self.segment_arrays())

    def _end_batch(self, moves: bool) -> None:
        self.add(self.kept["push"], self.bound["object"])
        if moves:
            probe, (force, weight) = self.bound["probe"], self.segment_arrays()
            total, bright = self.light_total(weight)
            steps = self.kept["steps"]
            self.launch("force_weight", self.segments * self.modes, force, total, *bright, self.pixels, steps)
            update = self.array("update", probe.shape)
            self.gather_force(force, update)
            self.add(update, probe)


class DifferenceMap(Plan):
    """The difference map with beta = 1."""

    names = ("object", "probe", "waves")

    def __init__(self, launcher: Launcher, problem: Any, modes: int, block: int = 0) -> None:
        super().__init__(launcher, problem, modes, block)
        # sums run over all frames whatever the batches are
        self.make_lists(np.arange(self.count), [(0, self.count)], True)

    def step(self, engine: Any, state: Any, problem: Any) -> Array | None:
        """One pass on the arrays of `state`; returns the misfit where it was measured."""
        measure, moves = state.epoch % engine.residual_every == 0, engine.probe_moves_at(state.epoch)
        self.bind(state, *self.names)
        settings = engine.object_inertia, engine.probe_inertia, engine.noise_power(problem)
        self.launcher.write(self.array("settings", (3,), "float32"), np.array(settings, np.float32))
        key = measure, moves, engine.overlap_passes
        self.launcher.run(self.graphs, key, lambda: self._jobs(*key))
        return self.found(0) if measure else None

    def _jobs(self, measure: bool, moves: bool, passes: int) -> Iterator[Callable[[], None]]:
        yield lambda: self._overlap(moves, passes)
        for first in range(0, self.count, self.block):
            stop = min(first + self.block, self.count)
            yield lambda first=first, stop=stop: self._reflect(first, stop, measure)  # type: ignore[misc]
        if measure:
            yield lambda: self.total(self.parts("misfit"), 0)

    def _overlap(self, moves: bool, passes: int) -> None:
        O, P, waves, settings = self.bound["object"], self.bound["probe"], self.bound["waves"], self.kept["settings"]
        num, den = self.array("num", self.shape), self.array("den", self.shape, "float32")
        scan, size = self.scan(0, self.iota), (self.modes, *self.frame)
        probes = self.shift_all(P)
        for _ in range(passes if moves else 1):
            self.clear(num, den)
            tiles = self.listed("tile", 0)
            self.over_tiles("object_sums", waves, 0, probes, *tiles, *scan, *size, *self.shape, num, den)
            self.over("settle", self.size, num, den, *self.peak(den), settings, self.size, O)
            if not moves:
                return
            force, weight = self.segment_arrays()
            self.clear(force, weight)
            head = waves, 0, O, self.shape[1], probes, 1, *self.listed("segment", 0)
            self.launch("probe_sums", self.segments, *head, *scan, *size, force, weight)
            update = self.array("update", P.shape)
            self.gather_force(force, update)
            total, light = self.light_total(weight)
            self.launch("probe_settle", 1, P, update, total, *light, settings, self.modes, self.pixels)
            probes = self.shift_all(P)

    def _reflect(self, first: int, stop: int, measure: bool) -> None:
        O, waves = self.bound["object"], self.bound["waves"]
        probes = self._probes()
        wave = self.waves("wave", stop - first)
        scan, size = self.scan(first, self.iota), (self.modes, *self.frame)
        if measure:
            self.launch("exit_wave", len(wave), O, self.shape[1], probes, BY_SHIFT, *scan, *size, wave, None, None)
            self.propagate(wave, wave, False)
            data = self.amplitude, 0.0, self.mask, len(self.mask), self.iota, first, self.modes, self.pixels, self.norm
            self.launch("misfits", len(wave), wave, *data, self.parts("misfit"), self.parts("unused"))
        self.launch("reflect_open", len(wave), waves, O, self.shape[1], probes, *scan, *size, wave)
        changed = self.parts("change")
        self.modulus(wave, first, changed)
        head = waves, O, self.shape[1], probes, wave, changed, self.valid, len(self.mask)
        self.launch("reflect_close", len(wave), *head, *scan, *size, self.kept["settings"])


class Expectation(Plan):
    """Ptycho-EP: the visits of a sweep. What follows them is the engine's own `finish`."""

    names = ("precision", "natural", "messages", "message_precision", "probes")

    def step(self, engine: Any, state: Any, problem: Any, batches: Any) -> tuple[Array | None, Array, Array, Array]:
        """Misfit (where measured), misfit of the stabilised amplitudes, noise, skips."""
        _, bounds = self.take(batches)
        together = not (bool((np.diff(bounds) == 1).all()) or getattr(batches, "disjoint", False))
        measure, laplace, offset = state.epoch % engine.residual_every == 0, engine.uses_laplace(state), engine.offset(problem)
        self.bind(state, *self.names)
        self.array("noise variance", (1,), "float32")[...] = state.noise_variance
        self.launcher.write(self.array("damping", (1,), "float32"), np.array([engine.weight], np.float32))
        blocks = lists.cut(bounds, self.block)
        if together:
            self.list_blocks(blocks, False)
        key = together, measure, laplace, offset, bounds.tobytes()
        self.launcher.run(self.graphs, key, lambda: self._jobs(blocks, together, measure, laplace, offset))
        return (self.found(0) if measure else None), self.found(1), self.found(2), self.found(3)

    def _jobs(
        self, blocks: list[list[tuple[int, int]]], together: bool, measure: bool, laplace: bool, offset: float
    ) -> Iterator[Callable[[], None]]:
        done = 0
        for batch in blocks:
            beliefs = self.bound["precision"], self.bound["natural"]
            seen = beliefs
            if together and len(batch) > 1:
                # all frames of the batch must see the belief before it, and the sums of a block change it
                seen = self.array("seen precision", self.shape, "float32"), self.array("seen natural", self.shape)
                for source, target in zip(beliefs, seen, strict=True):
                    yield lambda source=source, target=target: self.copy(source, target)  # type: ignore[misc]
            for first, stop in batch:
                args = first, stop, done, seen, together, measure, laplace, offset
                yield lambda args=args: self._visit(*args)  # type: ignore[misc]
                done += 1
        for i, name in enumerate(("misfit", "stabilised", "noise")):
            if measure or name == "noise":
                yield lambda i=i, name=name: self.total(self.parts(name), i)  # type: ignore[misc]
        yield lambda: self.total(self.array("skips", (self.count,), "float64"), 3)

    def _visit(
        self, first: int, stop: int, block: int, seen: tuple[Array, Array], together: bool, measure: bool, laplace: bool,
        offset: float,
    ) -> None:  # fmt: skip
        count, W, scan = stop - first, self.shape[1], self.scan(first)
        psi, wave = self.waves("psi", count), self.waves("wave", count)
        probes, messages, g = self.bound["probes"], self.bound["messages"], self.bound["message_precision"]
        cavities, changes = self.array("cavities", (self.block, 2), "float32"), self.array("changes", (self.block,), "float32")
        parts, variances = (self.array(n, (self.block, self.grid), "float64") for n in ("belief parts", "variance parts"))
        data = self.mask, len(self.mask), self.order, first
        self.launch("belief_variance", count, seen[0], W, probes, *scan, *self.frame, parts)
        if measure:
            self.launch("belief_wave", count, *seen, W, probes, *scan, *self.frame, psi)
            self.propagate(psi, wave, False)
            tail = 1, self.pixels, self.norm, self.parts("misfit"), self.parts("stabilised")
            self.launch("misfits", count, wave, self.amplitude, offset, *data, *tail)
        self.launch("cavity_wave", count, *seen, W, probes, messages, g, *scan, *self.frame, parts, cavities, psi)
        self.propagate(psi, wave, False)
        output = cavities, self.kept["noise variance"], laplace, self.norm, self.norm, variances, self.parts("noise")
        self.launch("posterior", count, wave, self.amplitude, offset, *data, self.pixels, *output)
        self.propagate(wave, wave, True)
        beliefs = self.bound["precision"], self.bound["natural"]
        head = *beliefs, W, probes, messages, g, wave, psi, *scan, *self.frame, cavities, variances, self.kept["damping"]
        self.launch("message_step", count, *head, together, changes, self.array("skips", (self.count,), "float64"))
        if together:
            head = *beliefs, probes, changes, 0, wave, 1, *self.listed("tile", block)
            self.over_tiles("belief_sums", *head, *scan, *self.frame, *self.shape)
