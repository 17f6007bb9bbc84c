"""The sweeps of all engines as sequences of kernel launches and FFTs, with nothing on the host per
position.

Here those that keep a wave for each frame; where the frames stay on the host, the waves do too, and
both go to the device and back in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..kernels.gpu import lists as lists
from ..kernels.gpu.far import Stream
from ..kernels.gpu.geometry import Launcher
from ..kernels.gpu.plan import BY_SHIFT, Plan, Visit
from ..types import Array
from .gpu_ep import Expectation
from .gpu_pie import Iterative

__all__ = ["DifferenceMap", "Expectation", "Iterative"]


class DifferenceMap(Plan):
    """The difference map. With a `beta` other than 1 the waves reflected at the modulus have an
    object and a probe of their own ("back"), and are kept beside the waves, on the device alone."""

    names = ("object", "probe", "waves")
    stack = "waves"

    def __init__(self, launcher: Launcher, problem: Any, modes: int, block: int = 0) -> None:
        super().__init__(launcher, problem, modes, block)
        # sums run over all frames whatever the batches are
        self.frames = np.arange(self.count)
        size = self.count if self.far is None else self.group
        self.blocks = [
            (first, min(first + size, self.count)) for first in range(0, self.count, size)
        ]
        self.make_lists(self.frames, self.blocks, True)

    def step(self, engine: Any, state: Any, problem: Any) -> Array | None:
        """One pass on the arrays of `state`; returns the misfit where it was measured."""
        measure, moves = (
            state.epoch % engine.residual_every == 0,
            engine.probe_moves_at(state.epoch),
        )
        self.bind(state, *self.names)
        bound = engine.noise_power(problem, state)
        settings = (
            engine.object_inertia,
            engine.probe_inertia,
            0.0 if problem.near_field else bound,
            engine.beta,
        )
        self.launcher.write(self.array("settings", (4,), "float32"), np.array(settings, np.float32))
        if problem.near_field:  # it is on the device
            self.kept["settings"][2:3] = bound
        self.twice = engine.beta != 1
        key = measure, moves, engine.overlap_passes
        if self.far is None:
            self.launcher.run(self.graphs, (*key, self.twice), lambda: self._jobs(*key))
        else:
            self._in_groups(*key)
        return self.found(0) if measure else None

    def _jobs(self, measure: bool, moves: bool, passes: int) -> Iterator[Callable[[], None]]:
        if self.twice:
            reflected = self.array("reflected", self.bound["waves"].shape)
            for first in range(0, self.count, self.block):
                yield partial(
                    self._reflect_modulus, first, min(first + self.block, self.count), reflected
                )
            yield lambda: self._overlap_back(moves, passes)
        yield lambda: self._overlap(moves, passes)
        for work, _, _ in self._reflections(measure):
            yield work
        if measure:
            yield lambda: self.total(self.parts("misfit"), 0)

    def _in_groups(self, measure: bool, moves: bool, passes: int) -> None:
        """The same where the waves are on the host: three sweeps over them, the last of which
        writes them.
        """
        self._overlap(moves, passes)
        waves = Stream("waves", self.bound["waves"], True)
        streams = Stream("frames", self.far), waves
        self.visit_all(
            ("reflect", measure), self.frames, lambda: self._reflections(measure), streams
        )
        if measure:
            self.total(self.parts("misfit"), 0)

    def _reflections(self, measure: bool) -> Iterator[Visit]:
        for begin, end in self.blocks:
            for first in range(begin, end, self.block):
                stop = min(first + self.block, end)
                yield partial(self._reflect, first, stop, measure), first, stop

    def _over_waves(self, name: str, add: Callable[[int, int], None]) -> None:
        """`add(first, block)` for the waves of all frames."""
        if self.far is None:
            add(0, 0)
            return
        visits = [
            (partial(add, first, b), first, stop) for b, (first, stop) in enumerate(self.blocks)
        ]
        self.visit_all(
            name, self.frames, lambda: iter(visits), (Stream("waves", self.bound["waves"]),)
        )

    def _reflect_modulus(self, first: int, stop: int, reflected: Array) -> None:
        waves, wave, order = self.bound["waves"], self.waves("wave", stop - first), self.iota
        self.copy(waves[first:stop], wave)
        changed = self.parts("change")
        self.modulus(wave, first, changed)
        head = (
            waves,
            wave,
            changed,
            self.valid,
            len(self.mask),
            order,
            first,
            self.modes,
            self.pixels,
        )
        self.launch("reflect_modulus", len(wave), *head, self.kept["settings"], reflected)

    def _overlap_back(self, moves: bool, passes: int) -> None:
        """Object and probe of the reflected waves, from those of the state."""
        names = ("object", "probe", "waves")
        own = {name: self.bound[name] for name in names}
        back = {name: self.array(f"back {name}", own[name].shape) for name in ("object", "probe")}
        for name, array in back.items():
            self.copy(own[name], array)
        self.bound |= back | {"waves": self.kept["reflected"]}
        self._overlap(moves, passes)
        self.bound |= own
        if self.subpixel:
            self.shift_all(back["probe"], "back probes")

    def _overlap(self, moves: bool, passes: int) -> None:
        O, P, settings = self.bound["object"], self.bound["probe"], self.kept["settings"]
        num, den = self.array("num", self.shape), self.array("den", self.shape, "float32")
        self.shift_all(P)
        for _ in range(passes if moves else 1):
            self.clear(num, den)
            self._over_waves("object sums", self._add_object)
            self.over("settle", self.size, num, den, *self.peak(den), settings, self.size, O)
            if not moves:
                return
            force, weight = self.segment_arrays()
            self.clear(force, weight)
            self._over_waves("probe sums", self._add_probe)
            update = self.array("update", P.shape)
            self.gather_force(force, update)
            total, light = self.light_total(weight)
            self.launch(
                "probe_settle", 1, P, update, total, *light, settings, self.modes, self.pixels
            )
            self.shift_all(P)

    def _add_object(self, first: int, block: int) -> None:
        size, scan = (self.modes, *self.frame), self.scan(first, self.iota)
        head = self.each("waves"), 0, self._probes(), *self.listed("tile", block)
        self.over_tiles(
            "object_sums", *head, *scan, *size, *self.shape, self.kept["num"], self.kept["den"]
        )

    def _add_probe(self, first: int, block: int) -> None:
        size, scan = (self.modes, *self.frame), self.scan(first, self.iota)
        head = (
            self.each("waves"),
            0,
            self.bound["object"],
            self.shape[1],
            self._probes(),
            1,
            *self.listed("segment", block),
        )
        self.launch("probe_sums", self.segments, *head, *scan, *size, *self.segment_arrays())

    def _reflect(self, first: int, stop: int, measure: bool) -> None:
        O, waves = self.bound["object"], self.each("waves")
        probes = self._probes()
        wave = self.waves("wave", stop - first)
        scan, size = self.scan(first, self.iota), (self.modes, *self.frame)
        if measure:
            self.launch(
                "exit_wave",
                len(wave),
                O,
                self.shape[1],
                probes,
                BY_SHIFT,
                *scan,
                *size,
                wave,
                None,
                None,
            )
            self.propagate(wave, wave, False, scan)
            data = (
                self.each("frames"),
                0.0,
                self.each("mask"),
                len(self.mask),
                *scan[:2],
                self.modes,
                self.pixels,
                self.norm,
            )
            sums = (self.here(self.parts(name)) for name in ("misfit", "unused"))
            self.launch("misfits", len(wave), wave, *data, *sums)
        self.by_rows(
            "reflect_open",
            "open_rows",
            len(wave),
            waves,
            O,
            self.shape[1],
            probes,
            *scan,
            *size,
            self.kept["settings"],
            wave,
        )
        changed = self.parts("change")
        self.modulus(wave, first, changed, self.fused)
        head = (
            waves,
            O,
            self.shape[1],
            probes,
            *self._back(),
            wave,
            self.here(changed),
            self.each("valid"),
            len(self.mask),
        )
        tail = *scan, *size, self.kept["settings"]
        self.by_rows("reflect_close", "close_rows", len(wave), *head, *tail)

    def _back(self) -> tuple[Array | None, Array | None]:
        """Object and shifted probes of the reflected waves, where there are any."""
        if not self.twice:
            return None, None
        return self.kept["back object"], self.kept["back probes"] if self.subpixel else self.kept[
            "back probe"
        ][None]
