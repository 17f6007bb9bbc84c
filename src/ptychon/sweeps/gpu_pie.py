"""PIE, ePIE and rPIE as sequences of launches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..engines.pie import full
from ..kernels.gpu import lists as lists
from ..kernels.gpu.plan import BY_SHIFT, ONLY_ONE, Plan, Visit
from ..types import Array


class Iterative(Plan):
    """PIE, ePIE and rPIE."""

    names = ("object", "probe")

    def step(self, engine: Any, state: Any, batches: Any) -> Array:
        """One sweep on the arrays of `state`; returns the misfit."""
        engine = full(engine)
        order, bounds = self.take(batches)
        moves, root = engine.probe_moves_at(state.epoch), engine.root
        one_by_one = bool((np.diff(bounds) == 1).all())
        apart = one_by_one or (not moves and getattr(batches, "disjoint", False))
        reg = getattr(engine, "object_reg", 1.0)
        p_reg = getattr(engine, "probe_reg", 1.0)
        steps = (
            engine.object_step,
            1.0 if root else 1 - reg,
            reg,
            getattr(engine, "probe_step", 0.0),
            1 - p_reg,
            p_reg,
        )
        self.bind(state, *self.names)
        self.launcher.write(self.array("steps", (6,), "float32"), np.array(steps, np.float32))
        blocks = lists.cut(bounds, min(self.block, self.group))
        if not apart:
            self.list_blocks(blocks, moves)
        key = root, moves, apart, bounds.tobytes()
        self.visit_all(key, order, lambda: self._visits(blocks, root, moves, apart))
        return self.found(0)

    def _visits(
        self, blocks: list[list[tuple[int, int]]], root: bool, moves: bool, apart: bool
    ) -> Iterator[Visit]:
        probe = self.bound["probe"]
        if apart and moves:
            if self.subpixel:
                yield (
                    lambda: self.launcher.fft(probe, self.array("spectrum", probe.shape), False),
                    0,
                    0,
                )
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
        self.launcher.launch(
            "probe_peaks", (1, self.shifts), probes, self.modes, self.pixels, peaks
        )
        return peaks

    def _exit(
        self, probes: Array, select: int, first: int, wave: Array, *peaks: Array | None
    ) -> None:
        tops = peaks or (None, None)
        head = self.bound["object"], self.shape[1], probes, select, *self.scan(first)
        self.by_rows(
            "exit_wave", "exit_rows", len(wave), *head, self.modes, *self.frame, wave, *tops
        )

    def _move_object(self, first: int, stop: int, root: bool) -> None:
        """Fixed probe, windows apart."""
        wave, probes = self.waves("wave", stop - first), self._probes()
        self._exit(probes, BY_SHIFT, first, wave)
        self.modulus(wave, first, self.parts("misfit"), self.fused)
        head = (
            self.bound["object"],
            self.shape[1],
            probes,
            self.kept["probe peaks"],
            wave,
            *self.scan(first),
        )
        tail = self.modes, *self.frame, root, self.kept["steps"]
        self.by_rows("object_step", "object_rows", len(wave), *head, *tail)

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
        self.modulus(wave, first, self.parts("misfit"), self.fused)
        head = self.bound["object"], self.shape[1], here, wave, *self.scan(first)
        tail = *size, *tops, self.kept["steps"], self.subpixel
        self.by_rows("both_step", "both_rows", 1, *head, *tail)
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

    # a batch of frames that see the same object and probe, normalised by their sums where they
    # overlap

    def _begin_batch(self, batch: list[tuple[int, int]], done: int, moves: bool) -> None:
        """Light of the batch on the object and its maximum in each window; sums at zero."""
        probes, size = self.shift_all(self.bound["probe"]), (self.modes, *self.frame)
        self._peaks(probes)
        push, light = self.array("push", self.shape), self.array("light", self.shape, "float32")
        tops = self.array("window peaks", (self.count,), "float32")
        self.clear(push, light)
        for b, (first, _) in enumerate(batch, done):
            tiles = self.listed("tile", b)
            self.over_tiles(
                "object_sums",
                None,
                1,
                probes,
                *tiles,
                *self.scan(first),
                *size,
                *self.shape,
                None,
                light,
            )
        for first, stop in batch:
            head = light, self.shape[1], *self.scan(first)
            self.launcher.launch("window_peaks", (1, stop - first), *head, *self.frame, tops)
        if moves:
            self.clear(*self.segment_arrays())

    def _pull(self, first: int, stop: int, block: int, root: bool, moves: bool) -> None:
        """What the frames of one block ask of object and probe."""
        wave, probes, size, scan = (
            self.waves("wave", stop - first),
            self._probes(),
            (self.modes, *self.frame),
            self.scan(first),
        )
        light, tops, peaks = (self.kept[name] for name in ("light", "window peaks", "probe peaks"))
        self._exit(probes, BY_SHIFT, first, wave)
        self.modulus(wave, first, self.parts("misfit"), self.fused)
        if self.fused:
            self.launch_lines("rows_back", self.frame[1], len(wave) * self.modes, wave, *self.frame)
        head = wave, probes, peaks, light, tops, root, *self.listed("tile", block)
        self.over_tiles(
            "object_pull", *head, *scan, *size, *self.shape, self.kept["steps"], self.kept["push"]
        )
        if moves:
            pulls = (
                wave,
                1,
                self.bound["object"],
                self.shape[1],
                probes,
                0,
                *self.listed("segment", block),
            )
            self.launch("probe_sums", self.segments, *pulls, *scan, *size, *self.segment_arrays())

    def _end_batch(self, moves: bool) -> None:
        self.add(self.kept["push"], self.bound["object"])
        if moves:
            probe, (force, weight) = self.bound["probe"], self.segment_arrays()
            total, bright = self.light_total(weight)
            steps = self.kept["steps"]
            self.launch(
                "force_weight",
                self.segments * self.modes,
                force,
                total,
                *bright,
                self.pixels,
                steps,
            )
            update = self.array("update", probe.shape)
            self.gather_force(force, update)
            self.add(update, probe)
