"""LSQ-ML of several slices: steps against dense least squares, one slice in a stack, and what is
found.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from ptychon.backends import get_backend
from ptychon.data.slices import Slices
from ptychon.engines import LSQML, Context
from ptychon.model.unknowns import Unknowns
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.testing.scans import small_scan, two_slices


def test_slices_share_one_step_that_is_of_dense_least_squares():
    """A is how the exit wave changes along all slices at once, here by central differences of a
    walk that is written out.
    """
    scan, backend, rng = two_slices(), get_backend("reference"), np.random.default_rng(2)
    engine, frames = LSQML(damping=0.0), np.array([1, 20, 40])
    x = Unknowns(object=scan.object, probe=scan.probe, positions=scan.problem.positions)
    x = x.astype("double")
    x.object = x.object * np.exp(0.3j * rng.standard_normal(x.object.shape))
    model = engine.model(scan.problem, backend)
    view = model.view(x, frames)
    chi, _ = engine.asked(scan.problem, model, view)
    d = model.zeros(x, ["object", "probe"])
    model.exit_adjoint(view, chi, d)
    d = engine.preconditioned(
        d, engine.light(model, view), (np.abs(view.windows[0]) ** 2).sum(axis=0)
    )
    found = engine.steps(model, view, chi, d)
    gap = model.specimen.gaps[0]

    def exit_wave(b, step, turn):
        y, z = view.corners[b]
        first, second = (x.object + step * d.object)[:, y : y + 24, z : z + 24]
        ramp = view.ramps[0][b][:, None] * view.ramps[1][b]
        probe = np.fft.ifft2(np.fft.fft2(x.probe[0] + turn * d.probe[0]) * ramp)
        return second * np.fft.ifft2(gap * np.fft.fft2(first * probe))

    h = 1e-4
    for b in range(len(frames)):
        columns = [
            (exit_wave(b, h, 0) - exit_wave(b, -h, 0)) / (2 * h),
            (exit_wave(b, 0, h) - exit_wave(b, 0, -h)) / (2 * h),
        ]
        A = np.stack([np.concatenate([c.real.ravel(), c.imag.ravel()]) for c in columns], axis=1)
        right = np.concatenate([chi[b].real.ravel(), chi[b].imag.ravel()])
        assert np.allclose(found[b], nnls(A, right)[0], rtol=1e-6, atol=1e-12)


def test_one_slice_in_a_stack_is_the_thin_object():
    """Bit for bit, with momentum."""
    scan, ctx, found = small_scan(), Context(get_backend("reference")), []
    one = Slices((), 1e-10, (1e-8, 1e-8))
    for slices in (None, one):
        problem = replace(scan.problem, slices=slices)
        object = np.full(problem.field_shape, np.abs(scan.object).mean(), np.complex64)
        schedule = Schedule(kind="sparse", shuffle=True)
        engine = LSQML(momentum_start=1)
        steps = iterate(problem, engine, object, scan.probe, ctx=ctx, schedule=schedule)
        for _ in range(4):
            state = next(steps).state
        found.append((state.object.reshape(scan.object.shape), state.probe))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_slices_move_together():
    """R of two slices falls where the object moves once a pass."""
    scan, ctx = two_slices(), Context(get_backend("reference"))
    start = np.ones(scan.problem.field_shape, np.complex64)
    schedule = Schedule(kind="compact", size=12)
    engine = LSQML(probe_start=None, together_from=0)
    steps = iterate(scan.problem, engine, start, scan.probe, ctx=ctx, schedule=schedule)
    left = [next(steps).error for _ in range(8)]
    assert left[-1] < 0.6 * left[0]
