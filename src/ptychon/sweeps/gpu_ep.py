"""Expectation propagation on a GPU: its passes captured as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..kernels.gpu import lists as lists
from ..kernels.gpu.far import Stream
from ..kernels.gpu.plan import Plan, Visit
from ..types import Array


class Expectation(Plan):
    """Ptycho-EP: the visits of a sweep. What follows them is the engine's own `finish`."""

    names = ("precision", "natural", "messages", "message_precision", "probes")
    stack = "messages"

    def step(
        self, engine: Any, state: Any, problem: Any, batches: Any
    ) -> tuple[Array | None, Array, Array, Array]:
        """Misfit (where measured), misfit of the stabilised amplitudes, noise, skips."""
        order, bounds = self.take(batches)
        together = not (bool((np.diff(bounds) == 1).all()) or getattr(batches, "disjoint", False))
        measure, laplace, offset = (
            state.epoch % engine.residual_every == 0,
            engine.uses_laplace(state),
            engine.offset(problem),
        )
        self.bind(state, *self.names)
        self.bound["noise_variance"] = self.array("noise variance", (self.count,), "float32")
        self.bound["noise_variance"][...] = state.noise_variance
        self.launcher.write(
            self.array("damping", (1,), "float32"), np.array([engine.weight], np.float32)
        )
        blocks = lists.cut(bounds, self.block if self.far is None else min(self.block, self.group))
        if together:
            self.list_blocks(blocks, False)
        key = together, measure, laplace, offset, bounds.tobytes()
        streams = Stream("frames", self.far), Stream("messages", self.bound["messages"], True)
        self.visit_all(
            key, order, lambda: self._visits(blocks, together, measure, laplace, offset), streams
        )
        stabilised, noise = self.found(1), self.found(2)
        if engine.noise_per_frame:
            stabilised, noise = self._by_frame("stabilised"), self._by_frame("noise")
        return (self.found(0) if measure else None), stabilised, noise, self.found(3)

    def _by_frame(self, name: str) -> Array:
        """What `parts` has by visits, added up and by frames: (N,) float64."""
        out = self.array(f"{name} by frame", (self.count,), "float64")
        out[self.order] = self.parts(name).sum(axis=1)
        return out.copy()

    def few(self) -> dict[str, Array]:
        return super().few() | {
            name: self.bound[name] for name in ("message_precision", "noise_variance")
        }

    def _give_back(self, first: int, stop: int) -> None:
        assert self.local is not None
        changed = self.local.arrays["message_precision"][: stop - first]
        self.bound["message_precision"][self.order[first:stop]] = changed

    def _visits(
        self,
        blocks: list[list[tuple[int, int]]],
        together: bool,
        measure: bool,
        laplace: bool,
        offset: float,
    ) -> Iterator[Visit]:
        done = 0
        for batch in blocks:
            beliefs = self.bound["precision"], self.bound["natural"]
            seen = beliefs
            if together and len(batch) > 1:
                # all frames of the batch must see the belief before it, and the sums of a block
                # change it
                seen = (
                    self.array("seen precision", self.shape, "float32"),
                    self.array("seen natural", self.shape),
                )
                for source, target in zip(beliefs, seen, strict=True):
                    yield partial(self.copy, source, target), 0, 0
            for first, stop in batch:
                yield (
                    partial(
                        self._visit, first, stop, done, seen, together, measure, laplace, offset
                    ),
                    first,
                    stop,
                )
                done += 1
        for i, name in enumerate(("misfit", "stabilised", "noise")):
            if measure or name == "noise":
                yield partial(self._total, name, i), 0, 0
        yield lambda: self.total(self.array("skips", (self.count,), "float64"), 3), 0, 0

    def _total(self, name: str, i: int) -> None:
        self.total(self.parts(name), i)

    def _visit(
        self,
        first: int,
        stop: int,
        block: int,
        seen: tuple[Array, Array],
        together: bool,
        measure: bool,
        laplace: bool,
        offset: float,
    ) -> None:
        count, W, scan = stop - first, self.shape[1], self.scan(first)
        psi, wave = self.waves("psi", count), self.waves("wave", count)
        probes, messages, g = (
            self.bound["probes"],
            self.each("messages"),
            self.each("message_precision"),
        )
        cavities, changes = (
            self.array("cavities", (self.block, 2), "float32"),
            self.array("changes", (self.block,), "float32"),
        )
        parts, variances = (
            self.array(n, (self.block, self.grid), "float64")
            for n in ("belief parts", "variance parts")
        )
        data = self.each("mask"), len(self.mask), *scan[:2]
        self.launch("belief_variance", count, seen[0], W, probes, *scan, *self.frame, parts)
        if measure:
            self.launch("belief_wave", count, *seen, W, probes, *scan, *self.frame, psi)
            self.propagate(psi, wave, False, scan)
            sums = (self.here(self.parts(name)) for name in ("misfit", "stabilised"))
            self.launch(
                "misfits",
                count,
                wave,
                self.each("frames"),
                offset,
                *data,
                1,
                self.pixels,
                self.norm,
                *sums,
            )
        head = *seen, W, probes, messages, g, *scan, *self.frame, parts, cavities, psi
        noise = self.here(self.parts("noise"))
        likelihood = cavities, self.each("noise_variance"), laplace
        output = *likelihood, self.norm, self.norm, variances, noise
        known = wave, self.each("frames"), offset, *data
        if self.fused:
            self.launch_lines("cavity_rows", self.frame[1], count, *head, wave)
            self.launch_lines(
                "posterior_columns", self.frame[0], count, *known, *self.frame, *output
            )
        else:
            self.launch("cavity_wave", count, *head)
            self.propagate(psi, wave, False, scan)
            self.launch("posterior", count, *known, self.pixels, *output)
            self.propagate(wave, wave, True, scan)
        beliefs = self.bound["precision"], self.bound["natural"]
        head = (
            *beliefs,
            W,
            probes,
            messages,
            g,
            wave,
            psi,
            *scan,
            *self.frame,
            cavities,
            variances,
            self.kept["damping"],
        )
        skips = self.array("skips", (self.count,), "float64")
        tail = together, changes, self.here(skips)
        self.by_rows("message_step", "message_rows", count, *head, *tail)
        if together:
            head = *beliefs, probes, changes, 0, wave, 1, *self.listed("tile", block)
            self.over_tiles("belief_sums", *head, *scan, *self.frame, *self.shape)
