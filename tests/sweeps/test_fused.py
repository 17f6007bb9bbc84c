"""What only compiled sweeps do: rows a known probe never lights are left out, and its shifted
copies are kept.
"""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from _problems import distance, make_case, normal
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.kernels.cpu import fft as _numba_fft
from ptychon.kernels.cpu import rows
from ptychon.model.problem import Problem
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.simulation import scan
from ptychon.simulation.simulate import simulate
from ptychon.sweeps.find import fast_step


@rows.jit
def fft(a, out, forward):
    """That of compiled code."""
    rows.fft(a, out, forward)


@rows.jit
def fft_within(a, out, forward, top, bottom):
    rows.fft_within(a, out, forward, top, bottom)


#: So faint that adding it to a number of order one changes no bit.
FAINT = np.complex64(1e-30)


def lit_on(side, top, bottom):
    """A scan with a probe of `side` pixels that lights rows top..bottom-1 only: problem, object,
    probe (1, P, Q).
    """
    rng = np.random.default_rng(3)
    probe = np.zeros((side, side), np.complex64)
    probe[top:bottom] = (1 + normal(rng, (bottom - top, side))).astype(np.complex64)
    truth = (1 + 0.3 * normal(rng, (2 * side, 2 * side))).astype(np.complex64)
    problem = Problem.from_dataset(
        simulate(truth, probe, scan.raster(4, side // 5), seed=0).dataset
    )
    return problem, np.ones(problem.object_shape, np.complex64), probe[None]


def passes(name, problem, O, P, count=3, threads=1, **options):
    ctx = Context(get_backend("numpy", threads=threads))
    engine = make(name, **options)
    state = engine.init(problem, O, P, ctx)
    batches = Schedule(kind=engine.schedule).batches(problem, 0)
    for _ in range(count):
        state, report = fast_step(ctx.backend, engine, problem, batches)(
            state, problem, batches, ctx
        )
    return state, report


@pytest.mark.parametrize("shape", [(32, 64), (128, 32), (12, 9)])
@pytest.mark.parametrize(("top", "bottom"), [(5, 9), (0, 7), (3, 12), (6, 6)])
def test_an_fft_may_leave_out_rows_that_are_zero(shape, top, bottom):
    """Bit for bit: forward with the other rows zero, backward on the rows that are wanted."""
    a = np.zeros((2, *shape), np.complex64)
    a[:, top:bottom] = normal(np.random.default_rng(0), (2, bottom - top, shape[1])).astype(
        np.complex64
    )
    whole, part = a.copy(), a.copy()
    fft(whole, whole, True)
    fft_within(part, part, True, top, bottom)
    assert np.array_equal(whole, part)
    fft(whole, whole, False)
    fft_within(part, part, False, top, bottom)
    assert np.array_equal(whole[:, top:bottom], part[:, top:bottom])


@pytest.mark.skipif(not _numba_fft.WIDE, reason="this processor has no 256-bit vectors")
def test_rows_that_are_not_wanted_are_not_computed():
    """Otherwise the tests of equality would say nothing."""
    a = normal(np.random.default_rng(0), (1, 64, 64)).astype(np.complex64)
    whole, part = a.copy(), a.copy()
    fft(whole, whole, False)
    fft_within(part, part, False, 16, 32)
    assert not np.allclose(whole[0, 48:], part[0, 48:])


@pytest.mark.parametrize("side", [32, 20])
@pytest.mark.parametrize("name", ["pie", "ep", "dm"])
def test_rows_without_light_change_no_bit(name, side):
    """A probe that is exactly zero on some rows, which are skipped, and one that is 1e-30 there,
    which are not.
    """
    problem, O, P = lit_on(side, 4, 11)
    options = {
        "pie": {},
        "ep": {"probe_updates": 0},
        "dm": {"probe_start": 99, "object_inertia": 1e-3},
    }[name]
    skipped, report = passes(name, problem, O, P, **options)
    full, expected = passes(name, problem, O, np.where(P == 0, FAINT, P), **options)
    lit = np.zeros(O.shape, bool)
    for y, x in problem.corners:
        lit[y + 4 : y + 11, x : x + side] = True
    assert np.array_equal(skipped.object[lit], full.object[lit])
    assert distance(skipped.object, O) > 0.01
    if name == "pie":
        assert np.array_equal(skipped.object, full.object)
        assert np.array_equal(skipped.object[~lit], O[~lit])
        assert float(report.misfit) == float(expected.misfit)


def test_the_known_probe_is_shifted_once(monkeypatch):
    """Between passes its shifted copies are kept; another probe, other weights or another problem
    make new ones.
    """
    from ptychon.sweeps import cpu as fused

    made = []
    original = fused._shifted
    monkeypatch.setattr(fused, "_shifted", lambda *a: made.append(1) or original(*a))
    case, ctx = make_case(subpixel=True), Context(get_backend("numpy"))

    def run(engine, problem, probe, count):
        state = engine.init(problem, case.object, probe, ctx)
        for _ in range(count):
            batches = Schedule().batches(problem, 0)
            state, _ = fast_step(ctx.backend, engine, problem, batches)(
                state, problem, batches, ctx
            )
        return state.object

    once = run(make("pie"), case.problem, case.probe, 3)
    assert len(made) == 1
    assert np.array_equal(run(make("pie"), case.problem, case.probe, 3), once)
    assert len(made) == 1
    for engine, problem, probe in (
        (make("pie"), case.problem, 2 * case.probe),
        (make("pie", object_reg=0.3), case.problem, case.probe),
        (make("pie"), replace(case.problem), case.probe),
    ):
        before = len(made)
        found = run(engine, problem, probe, 2)
        assert len(made) == before + 1
        fresh = Context(get_backend("reference"))
        state = engine.init(problem, case.object, probe, fresh)
        for _ in range(2):
            state, _ = engine.step(state, problem, Schedule().batches(problem, 0), fresh)
        assert distance(found, state.object) < 1e-5


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("name", ["dm", "ep"])
def test_bytes_of_the_state(name, modes):
    """What the mathematics needs for a position and no more: a wave, 8 bytes a pixel and mode, and
    for EP one precision.

    A pass, too, allocates nothing that grows with the number of positions but a row of sums.
    """
    if name == "ep" and modes > 1:
        pytest.skip("EP takes one mode")
    sizes, peaks = [], []
    case, ctx = make_case(modes=modes), Context(get_backend("numpy", threads=2))
    for times in (1, 5):
        # every position several times, so that arrays of the object's size are the same
        problem, engine = (
            case.problem.select(np.tile(np.arange(16), times)),
            make(name, probe_start=0),
        )
        state = engine.init(problem, case.object, case.probe, ctx)
        batches = Schedule(kind=engine.schedule).batches(problem, 0)
        step = fast_step(ctx.backend, engine, problem, batches)
        state, _ = step(state, problem, batches, ctx)  # compiles
        slots = {slot for cls in type(state).__mro__ for slot in getattr(cls, "__slots__", ())}
        arrays = [
            getattr(state, slot) for slot in slots if isinstance(getattr(state, slot), np.ndarray)
        ]
        sizes.append(sum(a.nbytes for a in arrays))
        tracemalloc.start()
        step(state, problem, batches, ctx)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    p, q = problem.frame_shape
    added = 4 * 16
    assert sizes[1] - sizes[0] == added * (8 * modes * p * q + (4 if name == "ep" else 0))
    assert peaks[1] - peaks[0] < added * 400


@pytest.mark.parametrize("name", ["pie", "epie", "dm", "ep"])
def test_first_guesses_stored_by_columns(name):
    """As files of other languages hold them: the same bits."""
    case, ctx, found = make_case(subpixel=True), Context(get_backend("numpy", threads=1)), []
    for order in ("C", "F"):
        first = (np.asarray(a, order=order) for a in (case.object, case.probe))
        steps = iterate(case.problem, make(name), *first, ctx=ctx)
        found.append([next(steps).state for _ in range(3)][-1])
    assert np.array_equal(found[0].object, found[1].object)
    assert np.array_equal(found[0].probe, found[1].probe)


def test_no_thread_outlives_a_pass():
    """A process that keeps threads cannot be copied safely, and damaged files are read in a copy
    (`io.guard`).
    """
    case = make_case()
    before = threading.active_count()
    passes("dm", case.problem, case.object, case.probe, threads=2)
    assert threading.active_count() == before
