"""The compiled pass of LSQ-ML is the engine's own step, and threads do not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.engines import LSQML, Context
from ptychon.run.schedule import Schedule
from ptychon.sweeps.cpu_lsqml import serves
from ptychon.sweeps.find import fast_step, why_slow
from ptychon.testing.scans import small_scan, two_slices

SCANS = {
    "far": {},
    "modes, masked": {"modes": 2, "masked": True},
    "near": {"near_field": True},
    "whole pixels": {},
    "counts": {"modes": 2, "masked": True},
    "counts, background": {"background": 40.0},
    "counts, near": {"near_field": True},
}


def start(scan, engine, ctx, problem):
    y, x = np.indices(scan.probe.shape[-2:]) - 12
    probe = (scan.probe * np.exp(0.004j * (y**2 + x**2))).astype(np.complex64)
    object = np.full_like(scan.object, np.abs(scan.object).mean())
    return engine.init(problem, object, probe, ctx)


def off(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("kind", ["sparse", "compact", "together"])
@pytest.mark.parametrize("case", list(SCANS))
def test_it_is_the_step(case, kind):
    """Four passes, the last with momentum of the object, in batches of 7."""
    scan, engine = small_scan(**SCANS[case]), LSQML(probe_start=0, momentum_start=2)
    problem = scan.problem
    if case.startswith("counts"):
        engine = replace(engine, noise="poisson")
    if case == "whole pixels":
        problem = problem.with_positions(np.round(problem.positions))
    if kind == "together":
        engine, kind = replace(engine, together_from=1), "compact"
    schedule, found = Schedule(kind=kind, size=7, shuffle=True), []
    for name in ("reference", "numpy"):
        ctx = Context(get_backend(name))
        state = start(scan, engine, ctx, problem)
        for epoch in range(4):
            batches = schedule.batches(problem, epoch)
            step = fast_step(ctx.backend, engine, problem, batches) or engine.step
            state, report = step(state, problem, batches, ctx)
        found.append((state.object, state.probe, state.object_velocity, report.misfit))
    for a, b in zip(*found, strict=True):
        assert off(a, b) < 1e-3


def test_threads_do_not_matter():
    """The same bits."""
    scan, engine, found = small_scan(modes=2), LSQML(probe_start=0), []
    for threads in (1, 3):
        ctx = Context(get_backend("numpy", threads=threads))
        state = start(scan, engine, ctx, scan.problem)
        batches = Schedule(kind="sparse", size=7).batches(scan.problem, 0)
        step = fast_step(ctx.backend, engine, scan.problem, batches)
        state, _ = step(state, scan.problem, batches, ctx)
        found.append((state.object, state.probe))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_it_serves_what_it_computes():
    """Thin objects; slices have the engine's own step."""
    backend, scan = get_backend("numpy"), small_scan()
    batches = Schedule(kind="sparse").batches(scan.problem, 0)
    assert fast_step(backend, LSQML(), scan.problem, batches) is not None
    assert why_slow(backend, LSQML()) is None
    assert fast_step(backend, LSQML(noise="poisson"), scan.problem, batches) is not None
    thick = replace(scan.problem, slices=two_slices().problem.slices)
    assert fast_step(backend, LSQML(), thick, batches) is None

    class Mine(LSQML):
        name = "mine"

    assert not serves(Mine())
