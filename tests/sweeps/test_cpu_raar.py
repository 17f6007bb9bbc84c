"""The compiled passes of RAAR and of the difference map are the engines' own steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.engines import RAAR, Context, DifferenceMap
from ptychon.sweeps.find import fast_step, why_slow
from ptychon.testing.scans import small_scan


@pytest.mark.parametrize(
    "case", [{}, {"modes": 2, "masked": True}, {"near_field": True}], ids=["far", "modes", "near"]
)
@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_it_is_the_step(case, bound):
    """Three passes, the probe moving in the last, two alternations of the overlap."""
    scan, found = small_scan(**case), []
    engine = RAAR(beta=0.8, power_bound=bound, overlap_passes=2, residual_every=2)
    object = np.full_like(scan.object, np.abs(scan.object).mean())
    for name in ("reference", "numpy"):
        ctx = Context(get_backend(name, **({"threads": 2} if name == "numpy" else {})))
        state, misfits = engine.init(scan.problem, object, scan.probe, ctx), []
        for _ in range(3):
            batches = [slice(0, 20), slice(20, 36)]
            step = fast_step(ctx.backend, engine, scan.problem, batches) or engine.step
            state, report = step(state, scan.problem, batches, ctx)
            misfits.append(-1.0 if report.misfit is None else float(report.misfit))
        found.append((state.object, state.probe, state.waves, np.array(misfits)))
    assert why_slow(get_backend("numpy"), engine) is None
    for a, b in zip(*found, strict=True):
        assert np.linalg.norm(a - b) < 2e-4 * np.linalg.norm(b)
    assert found[0][3][1] == -1


@pytest.mark.parametrize("kind", [RAAR, DifferenceMap])
def test_frames_scaled_by_their_doses_have_bounds_of_their_own(kind):
    """Every other frame counted a ninth: where it is as near as its noise, it is left alone."""
    scan, found = small_scan(), []
    scale = np.where(np.arange(len(scan.problem)) % 2, 9, 1).astype("f4")
    level = float((scan.problem.amplitude**2).mean()) / 400
    own = replace(scan.problem, noise_scale=scale, counting=False, noise_variance=level)
    assert own.noise_level == pytest.approx(5 * level)
    np.testing.assert_allclose(own.noise_shares, scale / 5, rtol=1e-6)
    object = np.full_like(scan.object, np.abs(scan.object).mean())
    for name, problem in (
        ("reference", own),
        ("numpy", own),
        ("numpy", replace(own, noise_scale=None, noise_variance=5 * level)),
    ):
        ctx, engine = Context(get_backend(name)), kind()
        state = engine.init(problem, object, scan.probe, ctx)
        for _ in range(3):
            batches = [slice(0, 20), slice(20, 36)]
            step = fast_step(ctx.backend, engine, problem, batches) or engine.step
            state, _ = step(state, problem, batches, ctx)
        found.append(state.waves)
    assert np.linalg.norm(found[1] - found[0]) < 2e-4 * np.linalg.norm(found[0])
    assert np.linalg.norm(found[2] - found[0]) > 1e-2 * np.linalg.norm(found[0])


def test_the_noise_of_scaled_counts_is_that_of_the_counts():
    problem = small_scan().problem
    counts = np.random.default_rng(0).poisson(3, problem.amplitude.shape).astype("f4")
    scale = np.linspace(0.5, 2, len(counts)).astype("f4")
    before = replace(problem, amplitude=np.sqrt(counts), counting=True)
    after = replace(before, amplitude=np.sqrt(counts * scale[:, None, None]), noise_scale=scale)
    each = np.minimum(counts, 0.25).mean(axis=(1, 2)) * scale
    np.testing.assert_allclose(after.noise_shares * after.noise_level, each, rtol=1e-5)
    assert after.noise_level == pytest.approx(each.mean(), rel=1e-6)
    np.testing.assert_array_equal(after.select([3, 4]).noise_scale, scale[3:5])
