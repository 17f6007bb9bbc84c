"""mPIE and RAAR: one update written out, what momentum keeps, and when it begins anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.cli.engines import documented
from ptychon.engines import LSQML, MPIE, RAAR, RPIE, Context, options
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.testing.scans import small_scan


def start(scan):
    return np.full_like(scan.object, np.abs(scan.object).mean()), scan.probe


def batches_of(scan, epoch=0, **how):
    return Schedule(**how).batches(scan.problem, epoch)


def test_mpie_has_the_options_of_rpie():
    """All are explained."""
    _, about = documented(MPIE)
    assert set(options(MPIE)) == set(about)
    assert not set(options(RPIE)) - set(options(MPIE))


@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_momentum_is_added_after_so_many_frames(name):
    """36 frames, T = 15: after the frames 15, 30 and 45, the last one in the second pass. Written
    out with sweeps of rPIE over the frames between.
    """
    scan, ctx = small_scan(), Context(get_backend(name))
    engine = MPIE(
        every=15,
        object_friction=0.6,
        probe_friction=0.4,
        momentum_start=0,
        probe_start=0,
        object_step=1.0,
        probe_step=0.5,
    )
    plain = RPIE(probe_start=0, object_step=1.0, probe_step=0.5)
    steps = iterate(scan.problem, engine, *start(scan), ctx=ctx)
    next(steps)
    found = next(steps).state
    reference = Context(get_backend("reference"))
    state = plain.init(scan.problem, *start(scan), reference)
    order = [slice(j % 36, j % 36 + 1) for j in range(72)]
    v = w = 0
    for first, last in ((0, 15), (15, 30), (30, 45), (45, 60), (60, 72)):
        O, P = state.object.copy(), state.probe.copy()
        state, _ = plain.step(state, scan.problem, order[first:last], reference)
        if last < 72:
            v, w = 0.6 * v + (state.object - O), 0.4 * w + (state.probe - P)
            state.object = (state.object + 0.6 * v).astype(np.complex64)
            state.probe = (state.probe + 0.4 * w).astype(np.complex64)
    assert found.epoch == 2
    assert found.frames == 12
    for a, b in ((found.object, state.object), (found.probe, state.probe)):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b)


def test_without_friction_it_is_rpie():
    """The same bits, compiled and not."""
    scan = small_scan()
    for name in ("reference", "numpy"):
        found = []
        for engine in (RPIE(), MPIE(object_friction=0.0, probe_friction=0.0, every=10)):
            steps = iterate(scan.problem, engine, *start(scan), ctx=Context(get_backend(name)))
            next(steps), next(steps)
            found.append(next(steps).state.object)
        assert np.array_equal(*found)


def test_momentum_begins_anew_where_windows_have_changed():
    scan, ctx = small_scan(), Context(get_backend("reference"))
    engine = MPIE(every=10, momentum_start=0)
    state = next(iterate(scan.problem, engine, *start(scan), ctx=ctx)).state
    assert np.any(state.object_velocity)
    assert state.frames == 6
    factor = np.ones(36, np.float32)
    engine.moved(state, scan.problem, scan.problem, factor, ctx)
    assert np.any(state.object_velocity), "no window has changed"
    other = scan.problem.with_positions(scan.problem.positions + np.array([0, 1.2]))
    engine.moved(state, scan.problem, other, factor, ctx)
    assert not np.any(state.object_velocity)
    assert not np.any(state.probe_velocity)
    assert state.frames == 0


def test_an_update_of_raar_is_its_formula():
    """In float64, from waves that no estimate fits, without a bound."""
    scan, ctx = small_scan(), Context(get_backend("reference"))
    engine = RAAR(beta=0.8, probe_start=None, power_bound=0.0, object_inertia=0.0)
    p = scan.problem.with_positions(np.round(scan.problem.positions))
    state = engine.init(p, *start(scan), ctx)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *state.waves.shape))
    state.waves += (0.1 * np.abs(state.waves).max() * (noise[0] + 1j * noise[1])).astype(
        "complex64"
    )
    psi, P = state.waves.astype(complex), scan.probe.astype(complex)
    z = np.fft.fft2(psi, norm="ortho")
    y = p.amplitude[:, None].astype(float)
    projected = np.fft.ifft2(y * z / np.abs(z), norm="ortho")
    mirrored = 2 * projected - psi
    num, den = np.zeros(p.object_shape, complex), np.zeros(p.object_shape)
    windows = [(slice(y0, y0 + 24), slice(x0, x0 + 24)) for y0, x0 in p.corners]
    for j, at in enumerate(windows):
        num[at] += (P.conj() * mirrored[j]).sum(axis=0)
        den[at] += (np.abs(P) ** 2).sum(axis=0)
    O = num / np.maximum(den, 1e-30)
    overlap = np.stack([P * O[at] for at in windows])
    wanted = 0.8 * psi + (1 - 1.6) * projected + 0.8 * overlap
    found, _ = engine.step(state, p, [slice(0, 20), slice(20, 36)], ctx)
    assert np.linalg.norm(found.waves - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_sparse_members_lie_far_apart_and_compact_ones_near():
    """Each frame once; how far the nearest of a batch are, of a scan with steps of 5 px; and the
    groups of a compact schedule stay.
    """
    scan = small_scan()
    places = scan.problem.positions

    def nearest(group):
        d = np.linalg.norm(places[group][:, None] - places[group][None], axis=-1)
        return (d + 1e9 * np.eye(len(group))).min(axis=0).mean()

    for kind, near in (("compact", True), ("sparse", False)):
        groups = batches_of(scan, kind=kind, size=6, shuffle=True)
        groups = [np.arange(36)[g] for g in groups]
        assert sorted(np.concatenate(groups).tolist()) == list(range(36))
        assert {len(g) for g in groups} == {6}
        apart = np.mean([nearest(g) for g in groups])
        assert apart < 5.5 if near else apart > 9
        later = [np.arange(36)[g] for g in batches_of(scan, 1, kind=kind, size=6, shuffle=True)]
        same = {tuple(g) for g in groups} == {tuple(g) for g in later}
        assert same == near


def test_lsqml_gets_below_rpie():
    """R of a simulated scan after 15 passes, sparse batches against rPIE with full steps."""
    scan, ctx = small_scan(), Context(get_backend("numpy", threads=1))
    y, x = np.indices((24, 24)) - 12
    probe = (scan.probe * np.exp(0.01j * (y**2 + x**2))).astype(np.complex64)
    left = []
    for engine in (LSQML(), RPIE(cool_from=1000)):
        schedule = Schedule(kind=engine.schedule, shuffle=True)
        steps = iterate(scan.problem, engine, start(scan)[0], probe, ctx=ctx, schedule=schedule)
        for _ in range(15):
            done = next(steps)
        left.append(done.error)
    assert left[0] < left[1], left


@pytest.mark.parametrize("engine", [MPIE(every=10), LSQML()])
def test_a_probe_that_is_known_stays(engine):
    scan, ctx = small_scan(), Context(get_backend("numpy", threads=1))
    steps = iterate(scan.problem, replace(engine, probe_start=None), *start(scan), ctx=ctx)
    for _ in range(5):
        state = next(steps).state
    assert np.array_equal(state.probe, scan.probe)
