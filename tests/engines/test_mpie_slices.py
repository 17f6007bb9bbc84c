"""mPIE of several slices: what momentum is worth there."""

from __future__ import annotations

import numpy as np

from ptychon.backends import get_backend
from ptychon.engines import MPIE, RPIE, Context
from ptychon.metrics.residual import residual
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.testing.scans import two_slices


def test_momentum_tells_slices_apart_sooner():
    """R after 15 passes that cool down, of two slices with a probe that is free: 0.048 of rPIE,
    0.037 with momentum. And slices move each by its own velocity.
    """
    scan, ctx, left = two_slices(), Context(get_backend("numpy", threads=1)), []
    schedule = Schedule(shuffle=True)
    for engine in (RPIE().for_passes(15), MPIE().for_passes(15)):
        start = np.ones(scan.problem.field_shape, np.complex64)
        steps = iterate(scan.problem, engine, start, scan.probe, ctx=ctx, schedule=schedule)
        for _ in range(15):
            state = next(steps).state
        left.append(residual(scan.problem, state.object, state.probe))
    assert left[1] < 0.85 * left[0], left
    first, second = state.object_velocity
    assert np.linalg.norm(first - second) > 0.1 * np.linalg.norm(first)


def test_slices_have_momentum_after_all_frames_at_least():
    """Of 49 frames with T = 10: after one pass O = 1 + v + 0.7 v, v being all that it changed."""
    scan, ctx = two_slices(), Context(get_backend("reference"))
    engine = MPIE(every=10, momentum_start=0, probe_start=None)
    start = np.ones(scan.problem.field_shape, np.complex64)
    steps = iterate(scan.problem, engine, start, scan.probe, ctx=ctx)
    state = next(steps).state
    assert state.frames == 0
    assert np.allclose(state.object, 1 + 1.7 * state.object_velocity, atol=1e-5)
