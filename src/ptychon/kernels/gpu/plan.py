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
from typing import Any

import numpy as np

from ...types import Array, IntArray
from . import lists as lists
from .far import Far, Stream, group_frames, in_groups
from .geometry import FRAME_BLOCKS, GRID_ROWS, MOST_JOBS, Geometry, Launcher

BY_SHIFT, BY_SLOT, ONLY_ONE = 0, 1, 2
#: Some launches, and the visits [first, stop) whose frames they need (none where both are 0).
Visit = tuple[Callable[[], None], int, int]


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
