"""The compiled pass of RAAR is the engine's own step."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.engines import RAAR, Context
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
