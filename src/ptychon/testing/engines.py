"""Tests that an engine inherits: it is what the rest of the package takes it for, and it finds a
small object.

A new engine needs no more than this, in a test module that pytest collects:

    class TestMine(EngineTests):
        engine = Mine

On a simulated scan of 36 frames of 24 x 24 pixels, of which object and probe are known, it must: be
a frozen record with a name, a title and documented options; leave the caller's arrays alone; give
the same bits twice; go on from a state as if it had never stopped; agree with itself on every
backend of the CPU; cope with what it declares, leave masked pixels out among it; and lower the
misfit.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any, ClassVar

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..engines import Context, Engine, State, check_engine
from ..engines.base import Report
from ..metrics.residual import residual
from ..run.iterate import iterate
from ..run.schedule import Schedule
from ..sweeps.find import fast_step, placed
from ..types import ComplexArray
from .scans import Scan, small_scan, two_slices


class EngineTests:
    """Base of the tests of an engine.

    Attributes
    ----------
    engine : type
        The class to test.
    options : dict
        Options that the tests set; what they leave out has its default.
    passes : int
        After which the misfit must have fallen.
    gain : float
        To which part of that of the first pass it must have.
    agreement : float
        Largest relative distance between backends after two passes from the same start.
    """

    engine: ClassVar[type[Engine]]
    options: ClassVar[dict[str, Any]] = {}
    passes: ClassVar[int] = 15
    gain: ClassVar[float] = 0.6
    agreement: ClassVar[float] = 1e-3

    def make(self) -> Engine:
        """The engine to test."""
        return self.engine(**self.options)

    def backends(self) -> tuple[Backend, ...]:
        """On what to test; the first is what the others are compared with, the second has two
        threads.
        """
        return get_backend("reference"), get_backend("numpy", threads=2)

    def start(self, scan: Scan) -> tuple[ComplexArray, ComplexArray]:
        """Object and probe to begin with: a constant object, and the probe, a little wrong where
        the engine moves it.
        """
        object = np.full_like(scan.object, np.abs(scan.object).mean())
        probe = scan.probe.copy()
        if self.make().moves_probe:
            y, x = np.indices(probe.shape[-2:]) - np.array(probe.shape[-2:])[:, None, None] // 2
            probe = (probe * np.exp(0.004j * (y**2 + x**2))).astype(np.complex64)
        return object, probe

    def run(
        self, scan: Scan, passes: int, backend: Backend | None = None, resume: State | None = None
    ) -> list[Any]:
        """States and R after each pass, the states as copies on the host."""
        backend = backend or self.backends()[0]
        engine, found = self.make().for_passes(passes), []
        steps = iterate(
            scan.problem, engine, *self.start(scan), ctx=Context(backend), resume=resume
        )
        for _ in range(passes):
            done = next(steps)
            estimate = engine.estimate(done.state, Context(backend))
            host = backend.to_host
            found.append(
                (np.array(host(estimate.object)), np.array(host(estimate.probe)), done.error)
            )
        return found

    def test_it_is_an_engine(self) -> None:
        """A frozen record, with a name and a title of its own."""
        check_engine(self.engine)
        assert self.engine.title, (
            f"{self.engine.__name__} has no title: one line for lists of engines"
        )
        assert self.engine.moves <= {
            "object",
            "probe",
            "positions",
            "log_scale",
            "variations",
            "weights",
            "background",
            "distance",
        }
        assert "object" in self.engine.moves
        engine = self.make()
        name = fields(engine)[0].name if fields(engine) else "name"
        try:
            setattr(engine, name, None)
        except FrozenInstanceError:
            return
        raise AssertionError(
            f"{self.engine.__name__} can be changed after it was made; it must be frozen"
        )

    def test_options_are_documented(self) -> None:
        """Each under Parameters in the docstring of the class, which is what ``ptychon engines``
        shows.
        """
        text = inspect.getdoc(self.engine) or ""
        section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n[A-Z][a-z]+\n-+|\Z)", text, re.DOTALL)
        lines = section.group(1).splitlines() if section else []
        named = {
            n.strip()
            for line in lines
            if line[:1].strip()
            for n in line.partition(" : ")[0].split(",")
        }
        new = {f.name for f in fields(self.engine)} & set(
            vars(self.engine).get("__annotations__", {})
        )
        assert new <= named, f"not described under Parameters: {', '.join(sorted(new - named))}"

    def test_options_can_be_stored(self) -> None:
        """Numbers, texts, booleans or None: they go into files and come from the command line."""
        for name, value in asdict(self.make()).items():
            assert value is None or isinstance(value, bool | int | float | str), (
                f"{name} is {value!r}"
            )

    def test_arrays_of_the_caller_stay(self) -> None:
        scan = small_scan()
        object, probe = self.start(scan)
        kept = object.copy(), probe.copy()
        for backend in self.backends():
            steps = iterate(scan.problem, self.make(), object, probe, ctx=Context(backend))
            next(steps), next(steps)
        assert np.array_equal(object, kept[0])
        assert np.array_equal(probe, kept[1])

    def test_passes_are_counted(self) -> None:
        """`state.epoch` is one more after each: schedules and checkpoints follow from it."""
        scan = small_scan()
        steps = iterate(
            scan.problem, self.make(), *self.start(scan), ctx=Context(self.backends()[0])
        )
        assert [next(steps).passes for _ in range(3)] == [1, 2, 3]

    def test_the_same_bits_twice(self) -> None:
        for backend in self.backends():
            one, two = (self.run(small_scan(), 3, backend)[-1] for _ in range(2))
            assert np.array_equal(one[0], two[0])
            assert np.array_equal(one[1], two[1])

    def test_it_goes_on_from_a_state(self) -> None:
        """Four passes, and two from the state after two: the same bits."""
        scan, ctx = small_scan(), Context(self.backends()[0])
        whole = self.run(scan, 4)[-1]
        engine = self.make().for_passes(4)
        steps = iterate(scan.problem, engine, *self.start(scan), ctx=ctx)
        next(steps)
        state = next(steps).state
        steps = iterate(scan.problem, engine, *self.start(scan), ctx=ctx, resume=state)
        next(steps)
        later = engine.estimate(next(steps).state, ctx)
        assert np.array_equal(ctx.backend.to_host(later.object), whole[0])
        assert np.array_equal(ctx.backend.to_host(later.probe), whole[1])

    def test_backends_agree(self) -> None:
        """After two passes from the same start, and batch by batch where several frames go
        together.
        """
        first, *others = self.backends()
        wanted = self.run(small_scan(), 2, first)[-1]
        for backend in others:
            found = self.run(small_scan(), 2, backend)[-1]
            for a, b in zip(found[:2], wanted[:2], strict=True):
                assert _distance(a, b) < self.agreement, (
                    f"{backend.name} and {first.name} differ by {_distance(a, b):.1e}"
                )

    def test_a_compiled_pass_is_its_step(self) -> None:
        """Where a backend has a compiled pass for it, that pass computes what `step` does."""
        scan = small_scan()
        for backend in self.backends():
            engine, ctx = self.make(), Context(backend)
            start = [backend.asarray(a) for a in self.start(scan)]
            local = placed(scan.problem, backend, engine, len(scan.probe))
            batches = Schedule(kind=engine.schedule).batches(local, 0)
            fast = fast_step(backend, engine, local, batches)
            if fast is None:
                continue
            states = [engine.init(local, start[0], start[1], ctx) for _ in range(2)]
            done: list[tuple[State, Report]] = [
                step(state, local, batches, ctx)
                for step, state in zip((fast, engine.step), states, strict=True)
            ]
            for name in ("object", "probe"):
                a, b = (np.asarray(backend.to_host(getattr(state, name))) for state, _ in done)
                assert _distance(a, b) < self.agreement

    def test_it_copes_with_what_it_declares(self) -> None:
        """Several modes, the near field, masks, a background: passes that end in finite numbers."""
        copes = self.engine.copes
        kinds = {
            "modes": {"modes": 2},
            "near field": {"near_field": True},
            "masks": {"masked": True},
            "background": {"background": 5.0},
        }
        known = {*kinds, "constraints", "slices", "spread"}
        assert copes <= known, f"unknown in copes: {', '.join(sorted(copes - known))}"
        for name in sorted(copes & set(kinds)):
            object, probe, _ = self.run(small_scan(**kinds[name]), 3)[-1]  # type: ignore[arg-type]
            assert np.isfinite(object).all(), f"the object is not finite with {name}"
            assert np.isfinite(probe).all(), f"the probe is not finite with {name}"

    def test_it_finds_slices(self) -> None:
        """Of two slices far apart, where it copes with them: R falls, and below what a thin object
        reaches.
        """
        if "slices" not in self.engine.copes:
            return
        scan, ctx, left = two_slices(), Context(self.backends()[-1]), []
        for slices in (scan.problem.slices, None):
            problem = replace(scan.problem, slices=slices)
            engine = self.make().for_passes(self.passes)
            first = np.ones(problem.field_shape, np.complex64)
            steps = iterate(problem, engine, first, scan.probe, ctx=ctx)
            for _ in range(self.passes):
                state = next(steps).state
            found = engine.estimate(state, ctx)
            host = [np.asarray(ctx.backend.to_host(a)) for a in (found.object, found.probe)]
            assert host[0].shape == problem.field_shape
            left.append(residual(problem, host[0], host[1]))
        assert left[0] < 0.7 * left[1], (
            f"R is {left[0]:.4f} with two slices and {left[1]:.4f} with one: of data of two slices "
            "that are far apart, two must fit better"
        )

    def test_it_takes_data_that_are_no_counts(self) -> None:
        """Amplitudes with a noise of which nobody knows the variance: passes that end in finite
        numbers.
        """
        scan = small_scan()
        problem = replace(scan.problem, counting=False, noise_variance=None)
        steps = iterate(problem, self.make(), *self.start(scan), ctx=Context(self.backends()[0]))
        for _ in range(3):
            state = next(steps).state
        assert np.isfinite(state.object).all(), "the object is not finite with data in other units"
        assert np.isfinite(state.probe).all(), "the probe is not finite with data in other units"

    def test_masked_pixels_hold_no_data(self) -> None:
        """From the true object and probe, with 3 % of the pixels masked, in all frames alike and in
        each other ones: R of the valid pixels stays what it is without a mask. An engine that takes
        them for dark pixels ends at three times that and more.
        """
        if "masks" not in self.engine.copes:
            return
        scan, left = small_scan(), []
        each = np.random.default_rng(1).random(scan.problem.amplitude.shape) > 0.03
        for mask in (np.ones_like(each[:1]), each[:1], each):
            problem = replace(scan.problem, mask=mask, amplitude=scan.problem.amplitude * mask)
            backend, engine = self.backends()[-1], self.make().for_passes(3)
            steps = iterate(problem, engine, scan.object, scan.probe, ctx=Context(backend))
            for _ in range(3):
                state = next(steps).state
            found = engine.estimate(state, Context(backend))
            host = [np.asarray(backend.to_host(a)) for a in (found.object, found.probe)]
            left.append(residual(problem, host[0], host[1]))
        words = "in all frames alike", "in each frame other ones"
        for word, found_here in zip(words, left[1:], strict=True):
            assert found_here < 1.5 * left[0], (
                f"with masked pixels, {word}, R is {found_here:.4f} after 3 passes from the truth, "
                f"{left[0]:.4f} without: leave them out, as problem.mask_of(frames) says"
            )

    def test_a_pass_begins_with_what_constraints_have_left(self) -> None:
        """An object put into the state after a pass is the one that the next pass moves."""
        if "constraints" not in self.engine.copes:
            return
        scan, ctx = small_scan(), Context(self.backends()[0])
        engine, found = self.make(), []
        for scale in (1, 1, 1.2):
            steps = iterate(scan.problem, engine, *self.start(scan), ctx=ctx)
            state = next(steps).state
            state.object = state.object * ctx.backend.xp.float32(scale)
            found.append(ctx.backend.to_host(next(steps).state.object).copy())
        assert _distance(found[0], found[1]) == 0
        assert _distance(found[0], found[2]) > 1e-3, "the next pass begins with another object"

    def test_positions_that_it_moves_come_right(self) -> None:
        """Half a pixel off, from the true object: a quarter of that is left. Its option `positions`
        switches it on.
        """
        if "positions" not in self.engine.moves:
            return
        scan, ctx = small_scan(), Context(self.backends()[0])
        true, rng = scan.problem.positions, np.random.default_rng(4)
        given = scan.problem.with_positions(true + 0.5 * rng.standard_normal(true.shape))
        problem = replace(given, measured=None)
        engine = self.engine(**{**self.options, "positions": True}).for_passes(self.passes)
        steps = iterate(problem, engine, scan.object, scan.probe, ctx=ctx)
        for _ in range(self.passes):
            state = next(steps).state
        found = engine.estimate(state, ctx).positions
        assert found is not None, "positions are to be moved, and the estimate has none"
        before, after = (
            e - e.mean(axis=0)
            for e in (given.positions - true, np.asarray(ctx.backend.to_host(found)) - true)
        )
        rms = [float(np.sqrt((e**2).mean())) for e in (before, after)]
        assert rms[1] < 0.25 * rms[0], (
            f"positions are {rms[1]:.3f} px off after {self.passes} passes, {rms[0]:.3f} px before"
        )

    def test_a_probe_that_it_does_not_move_stays(self) -> None:
        if not self.make().moves_probe:
            scan = small_scan()
            assert np.array_equal(self.run(scan, 3)[-1][1], self.start(scan)[1])

    def test_the_misfit_falls(self) -> None:
        """R against the data, measured with object and probe held still."""
        scan = small_scan()
        before = residual(scan.problem, *self.start(scan))
        object, probe, _ = self.run(scan, self.passes, self.backends()[-1])[-1]
        after = residual(scan.problem, object, probe)
        assert after < self.gain * before, (
            f"R went from {before:.3f} to {after:.3f} in {self.passes} passes, not below "
            f"{self.gain:g} of it: a slow engine needs more (`passes` of this class) or a larger "
            "step, a wrong one never gets there"
        )


def _distance(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
