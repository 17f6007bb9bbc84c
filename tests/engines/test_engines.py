"""Engines: single updates against the published formulas in float64, compiled sweeps against the
engines' own steps.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import i0e, i1e

from _problems import (
    MASKS,
    backward64,
    distance,
    forward64,
    frame_mask,
    frame_shift,
    free_space,
    make_case,
    normal,
    shift64,
    window,
)
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.engines.base import State
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Batches, Schedule
from ptychon.sweeps.find import fast_step

#: One update in float32 differs from the same in float64 by this.
TIGHT = 1e-5
BACKENDS = ("reference", "numpy")
SETTINGS = [
    pytest.param(
        {"subpixel": s, "near": n, "masks": m},
        id=f"{'subpixel' if s else 'whole'}-{'near' if n else 'far'}-{m}",
    )
    for s, n, m in itertools.product((False, True), (False, True), MASKS)
]


def context(backend="reference", **options):
    return Context(get_backend(backend, **options))


def one_step(engine, state, problem, batches, ctx):
    """The fused step where the backend has one (asserted for numpy), else the engine's."""
    fused = fast_step(ctx.backend, engine, problem, batches)
    assert (fused is not None) == (ctx.backend.name == "numpy")
    return (fused or engine.step)(state, problem, batches, ctx)


def single_frame(j):
    return Batches([slice(j, j + 1)])


# ---------------------------------------------------------------- PIE family, one frame


def change64(case, j, psi):
    """F^-1[y F psi/|F psi|] - psi of frame j, masked pixels kept; and the sum of (|F psi| - y)^2
    over valid pixels.
    """
    way = free_space(case.problem), frame_shift(case, j)
    y, valid = case.problem.amplitude[j].astype(float), frame_mask(case, j)
    wave = forward64(psi, *way)
    modulus = np.sqrt((np.abs(wave) ** 2).sum(axis=0))
    projected = np.where(valid, wave * y / modulus, wave)
    return backward64(projected, *way) - psi, (np.where(valid, modulus - y, 0) ** 2).sum()


def literal(name, case, j, O, P0, o):
    """One update of frame j by the published formula, with options `o`: object, probe, misfit."""
    O, P0, box = O.astype(np.complex128), P0.astype(np.complex128), window(case, j)
    P = shift64(P0, frame_shift(case, j))
    patch = O[box].copy()
    delta, misfit = change64(case, j, P * patch)
    p2, o2 = (np.abs(P) ** 2).sum(axis=0), np.abs(patch) ** 2
    pull = (P.conj() * delta).sum(axis=0)
    if name == "pie":
        weight = np.sqrt(p2) / np.sqrt(p2.max()) / (p2 + o["object_reg"] * p2.max())
    elif name == "epie":
        weight = 1 / p2.max()
    else:
        weight = 1 / ((1 - o["object_reg"]) * p2 + o["object_reg"] * p2.max())
    O[box] += o["object_step"] * weight * pull
    if name != "pie":
        b = o.get("probe_reg", 1.0)
        update = o["probe_step"] * patch.conj() * delta / ((1 - b) * o2 + b * o2.max())
        P0 = P0 + shift64(update, frame_shift(case, j), -1)
    return O, P0, misfit


OPTIONS = {
    "pie": {"object_step": 0.8, "object_reg": 0.1},
    "epie": {"object_step": 0.9, "probe_step": 0.6, "probe_start": 0},
    "rpie": {
        "object_step": 0.9,
        "probe_step": 0.6,
        "object_reg": 0.2,
        "probe_reg": 0.4,
        "probe_start": 0,
    },
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", list(OPTIONS))
def test_one_update(name, settings, modes, backend):
    """One frame of PIE, ePIE, rPIE as published, the gain in object and probe compared and not only
    their sum.
    """
    case, ctx, j = make_case(**settings, modes=modes), context(backend), 6
    engine = make(name, **OPTIONS[name])
    problem = case.problem.to(ctx.backend)
    state = engine.init(problem, case.object, case.probe, ctx)
    state, report = one_step(engine, state, problem, single_frame(j), ctx)
    O, P, misfit = literal(name, case, j, case.object, case.probe, OPTIONS[name])
    assert distance(state.object, O) < 1e-6
    assert distance(state.object - case.object, O - case.object) < TIGHT
    if name == "pie":
        assert np.array_equal(state.probe, case.probe)
    else:
        assert distance(state.probe, P) < 1e-6
        assert distance(state.probe - case.probe, P - case.probe) < TIGHT
    assert float(report.misfit) == pytest.approx(misfit, rel=1e-4)
    assert state.epoch == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_sweep_is_its_updates_in_order(backend):
    """A sequential pass of rPIE is 16 literal updates, each with what the last one left."""
    case, ctx = make_case(subpixel=True, modes=2), context(backend)
    O, P, total = case.object, case.probe, 0.0
    order = np.random.default_rng(1).permutation(len(case.problem))
    for j in order:
        O, P, misfit = literal("rpie", case, j, O, P, OPTIONS["rpie"])
        total += misfit
    engine = make("rpie", **OPTIONS["rpie"])
    state = engine.init(case.problem, case.object, case.probe, ctx)
    batches = Batches(slice(int(j), int(j) + 1) for j in order)
    state, report = one_step(engine, state, case.problem, batches, ctx)
    assert distance(state.object, O) < TIGHT
    assert distance(state.probe, P) < TIGHT
    assert float(report.misfit) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rpie_without_regularisation_to_spare_is_epie(backend):
    """object_reg = probe_reg = 1."""
    case, ctx = make_case(subpixel=True), context(backend)
    both = {"object_step": 0.9, "probe_step": 0.6, "probe_start": 0}
    found = []
    for engine in (make("epie", **both), make("rpie", object_reg=1.0, probe_reg=1.0, **both)):
        state = engine.init(case.problem, case.object, case.probe, ctx)
        found.append(
            one_step(engine, state, case.problem, Schedule().batches(case.problem, 0), ctx)[0]
        )
    assert distance(found[0].object, found[1].object) < 1e-6
    assert distance(found[0].probe, found[1].probe) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("degrees", [60, 90, 180])
def test_a_phase_of_the_probe_goes_into_the_object(backend, degrees):
    """The maximum of a complex probe is that of its modulus: ePIE from P e^{i phi}, O e^{-i phi}
    gives the same waves.
    """
    case, ctx = make_case(subpixel=True), context(backend)
    turn = np.complex64(np.exp(1j * np.deg2rad(degrees)))
    engine = make("epie", object_step=1.0, probe_step=1.0, probe_start=0)
    found = []
    for factor in (np.complex64(1), turn):
        state = engine.init(case.problem, case.object / factor, case.probe * factor, ctx)
        for _ in range(3):
            state, report = one_step(
                engine, state, case.problem, Schedule().batches(case.problem, 0), ctx
            )
        found.append((state.object * factor, state.probe / factor, float(report.misfit)))
    assert distance(found[1][0], found[0][0]) < 1e-4
    assert distance(found[1][1], found[0][1]) < 1e-4
    assert found[1][2] == pytest.approx(found[0][2], rel=1e-3)


def test_batches_that_overlap_stay_normalised():
    """All frames at once: no weight exceeds what one frame alone would get, and the
    misfit falls.
    """
    case, ctx = make_case(subpixel=True), context()
    for name in OPTIONS:
        engine = make(name, **OPTIONS[name])
        state = engine.init(case.problem, case.object, case.true_probe, ctx)
        misfits = []
        for _ in range(12):
            state, report = engine.step(state, case.problem, [slice(0, len(case.problem))], ctx)
            misfits.append(float(report.misfit))
        assert misfits[-1] < 0.3 * misfits[0]
        assert all(b < a for a, b in itertools.pairwise(misfits))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["epie", "rpie"])
def test_steps_shrink_from_a_given_pass(name, backend):
    """cool_from=2: passes 0 to 2 take full steps, pass 5 a third of them; None never shrinks
    them, in the engine itself.
    """
    case, ctx, j = make_case(subpixel=True), context(backend), 6
    for cool_from, epoch, factor in (
        (2, 0, 1),
        (2, 2, 1),
        (2, 5, 1 / 3),
        (0, 3, 1 / 3),
        (None, 50, 1),
    ):
        engine = make(name, cool_from=cool_from, **OPTIONS[name])
        state = engine.init(case.problem, case.object, case.probe, ctx)
        state.epoch = epoch
        state, _ = one_step(engine, state, case.problem, single_frame(j), ctx)
        steps = {k: OPTIONS[name][k] * factor for k in ("object_step", "probe_step")}
        O, P, _ = literal(name, case, j, case.object, case.probe, OPTIONS[name] | steps)
        assert distance(state.object - case.object, O - case.object) < 3 * TIGHT
        assert distance(state.probe - case.probe, P - case.probe) < 3 * TIGHT


def test_probe_waits_for_its_pass():
    """probe_start counts passes from 0; PIE never moves it."""
    case, ctx = make_case(), context("numpy")
    for name in ("epie", "rpie"):
        engine = make(name, probe_start=2)
        state = engine.init(case.problem, case.object, case.probe, ctx)
        moved = []
        for _ in range(3):
            state, _ = one_step(
                engine, state, case.problem, Schedule().batches(case.problem, 0), ctx
            )
            moved.append(not np.array_equal(state.probe, case.probe))
        assert moved == [False, False, True]


# ---------------------------------------------------------------- difference map


def dm_modulus64(case, j, psi, bound):
    """Pi_F of frame j: the measured modulus, or only the way to a ball around it whose squared
    radius is `bound` a pixel.
    """
    delta, misfit = change64(case, j, psi)
    return psi + max(0.0, 1 - np.sqrt(bound * frame_mask(case, j).sum() / misfit)) * delta


def dm_overlap64(case, waves, O, P0, inertia, passes):
    """Pi_O: O = sum P* psi/sum |P|^2, then the probe from P + sum S^-1 O*(psi - P O)/sum |O|^2."""
    n, (h, w) = len(case.problem), O.shape
    for _ in range(passes):
        num, den = np.zeros((h, w), complex), np.zeros((h, w))
        for j in range(n):
            P = shift64(P0, frame_shift(case, j))
            num[window(case, j)] += (P.conj() * waves[j]).sum(axis=0)
            den[window(case, j)] += (np.abs(P) ** 2).sum(axis=0)
        extra = inertia * den.max()
        O = np.where(den > 0, (num + extra * O) / np.where(den > 0, den + extra, 1), O)
        force, weight = np.zeros_like(P0), np.zeros(P0.shape[1:])
        for j in range(n):
            patch, P = O[window(case, j)], shift64(P0, frame_shift(case, j))
            force += shift64(patch.conj() * (waves[j] - P * patch), frame_shift(case, j), -1)
            weight += np.abs(patch) ** 2
        P0 = P0 + force / ((1 - inertia) * weight + inertia * weight.max())
    return O, P0


def dm_estimate64(case, O, P0):
    return np.stack(
        [shift64(P0, frame_shift(case, j)) * O[window(case, j)] for j in range(len(case.problem))]
    )


def dm64(case, beta, inertia=0.0, passes=1, power_bound=0.0, steps=1):
    """psi += beta (Pi_F[(1 + 1/beta) Pi_O psi - psi/beta] - Pi_O[(1 - 1/beta) Pi_F psi +
    psi/beta]), psi_0 = Pi_F[P O].
    """
    n, bound = len(case.problem), power_bound * (case.problem.noise_variance or 0)
    O, P = case.object.astype(np.complex128), case.probe.astype(np.complex128)

    def modulus(waves):
        return np.stack([dm_modulus64(case, j, waves[j], bound) for j in range(n)])

    psi = modulus(dm_estimate64(case, O, P))
    for _ in range(steps):
        f_F = (1 - 1 / beta) * modulus(psi) + psi / beta
        back = dm_estimate64(case, *dm_overlap64(case, f_F, O, P, inertia, passes))
        O, P = dm_overlap64(case, psi, O, P, inertia, passes)
        estimate = dm_estimate64(case, O, P)
        psi = psi + beta * (modulus((1 + 1 / beta) * estimate - psi / beta) - back)
    return psi, O, P


DM = {"probe_start": 0, "object_inertia": 0.0, "probe_inertia": 0.0, "power_bound": 0.0}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("settings", SETTINGS)
def test_one_difference_map_step(settings, modes, backend):
    """beta = 1, no inertia, no bound: the iteration of Thibault et al."""
    case, ctx = make_case(**settings, modes=modes), context(backend)
    engine = make("dm", beta=1.0, **DM)
    problem = case.problem.to(ctx.backend)
    state = engine.init(problem, case.object, case.probe, ctx)
    state, _ = one_step(engine, state, problem, [slice(0, len(problem))], ctx)
    psi, O, P = dm64(case, 1.0)
    assert distance(state.waves, psi) < TIGHT
    assert distance(state.object, O) < TIGHT
    assert distance(state.probe, P) < TIGHT
    unreached = np.ones(O.shape, bool)
    for j in range(len(problem)):
        unreached[window(case, j)] = False
    assert unreached.any()
    assert np.array_equal(state.object[unreached], case.object[unreached])


def test_the_closed_form_of_the_probe():
    """On whole pixels the probe of the overlap projection is sum O* psi/sum |O|^2, whatever it was
    before.
    """
    case, ctx = make_case(), context()
    engine = make("dm", **DM)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    waves = state.waves.copy()
    state, _ = engine.step(state, case.problem, [slice(0, len(case.problem))], ctx)
    patches = np.stack([state.object[window(case, j)] for j in range(len(case.problem))]).astype(
        np.complex128
    )
    closed = (patches.conj() * waves[:, 0]).sum(axis=0) / (np.abs(patches) ** 2).sum(axis=0)
    assert distance(state.probe[0], closed) < TIGHT


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("inertia", "passes", "bound"), [(1e-2, 1, 0.0), (1e-3, 3, 1.0), (0.0, 2, 30.0)]
)
def test_difference_map_options(backend, inertia, passes, bound):
    """Inertia, alternations of the overlap projection, and the power bound, over two steps."""
    case, ctx = make_case(subpixel=True, masks="each"), context(backend)
    options = {
        "probe_start": 0,
        "object_inertia": inertia,
        "probe_inertia": inertia,
        "overlap_passes": passes,
    }
    engine = make("dm", power_bound=bound, **options)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    for _ in range(2):
        state, _ = one_step(engine, state, case.problem, [slice(0, len(case.problem))], ctx)
    psi, O, P = dm64(case, 1.0, inertia, passes, bound, steps=2)
    assert distance(state.waves, psi) < 5 * TIGHT
    assert distance(state.object, O) < 5 * TIGHT
    assert distance(state.probe, P) < 5 * TIGHT


def test_a_near_field_difference_map_that_drifts_asks_for_less():
    """Mean square misfits in units of the noise: at 3 it has drifted from 2, and asks for 0.6 of
    the least from then on.
    """
    ctx, noise = context(), 1e-4
    for near in (True, False):
        case = make_case(near=near, subpixel=True, masks="shared")
        problem = replace(case.problem, noise_variance=noise)
        pixels = float(problem.mask.sum() * len(problem))
        engine = make("dm", power_bound=2.0)
        state, bounds = engine.init(problem, case.object, case.probe, ctx), []
        for misfit in (4, 2, 2.3, 3, 1.8, 0.5):
            state, _ = engine.finish(state, np.float64(misfit * noise * pixels), problem, ctx)
            bounds.append(float(engine.noise_power(problem, state)) / noise)
        # twice, for that is the power bound asked for; not less than the noise
        assert bounds == pytest.approx([2, 2, 2, 2.4, 2.16, 2] if near else 6 * [2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bound_of_a_drifting_difference_map_is_obeyed(backend):
    """A bound beyond every misfit leaves the waves where the estimate is."""
    case, ctx = make_case(near=True, subpixel=True), context(backend)
    engine = make("dm", probe_start=0)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    state.bound = np.asarray(1e9)
    state, _ = one_step(engine, state, case.problem, [slice(0, len(case.problem))], ctx)
    assert distance(state.waves, dm_estimate64(case, state.object, state.probe)) < TIGHT


@pytest.mark.parametrize("beta", [0.7, -0.5])
@pytest.mark.parametrize("settings", [{}, {"subpixel": True, "near": True, "masks": "each"}])
def test_difference_map_with_any_beta(beta, settings):
    case, ctx = make_case(**settings), context()
    engine = make("dm", beta=beta, **DM)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    state, _ = engine.step(state, case.problem, [slice(0, 5), slice(5, len(case.problem))], ctx)
    psi, O, P = dm64(case, beta)
    assert distance(state.waves, psi) < TIGHT
    assert distance(state.object, O) < TIGHT
    assert distance(state.probe, P) < TIGHT


def test_difference_map_is_continuous_at_beta_one():
    """The short way for beta = 1 (compiled or not) meets the general formula next to it."""
    case = make_case(subpixel=True, masks="shared")
    found = []
    for beta, backend in ((1.0, "reference"), (1.0, "numpy"), (1 - 1e-6, "numpy")):
        ctx, engine = context(backend), make("dm", beta=beta, **DM)
        state = engine.init(case.problem, case.object, case.probe, ctx)
        batches = Schedule(kind="parallel").batches(case.problem, 0)
        step = fast_step(ctx.backend, engine, case.problem, batches)
        assert (step is not None) == (beta == 1 and backend == "numpy")
        for _ in range(2):
            state, _ = (step or engine.step)(state, case.problem, batches, ctx)
        found.append(state)
    for other in found[1:]:
        assert distance(other.waves, found[0].waves) < 2e-5
        assert distance(other.object, found[0].object) < 2e-5
        assert distance(other.probe, found[0].probe) < 2e-5


@pytest.mark.parametrize("change", ["nothing", "probe", "problem"])
def test_the_difference_map_forgets_a_probe_that_is_another(change):
    """Shifted probes are kept between passes: a backend that has kept none must find
    the same bits.
    """
    case, engine = make_case(subpixel=True), make("dm", **DM)
    ctx, batches = context("numpy"), [slice(0, len(case.problem))]
    state, problem = engine.init(case.problem, case.object, case.probe, ctx), case.problem
    for _ in range(2):
        state, _ = one_step(engine, state, problem, batches, ctx)
    if change == "probe":
        state.probe[0, 3] *= 1.5
    elif change == "problem":
        problem = replace(problem, shifts=problem.shifts[::-1].copy())
    other = copy.deepcopy(state)
    state, _ = one_step(engine, state, problem, batches, ctx)
    other, _ = one_step(engine, other, problem, batches, context("numpy"))
    for name in ("object", "probe", "waves"):
        assert np.array_equal(getattr(state, name), getattr(other, name)), name


def test_difference_map_threads():
    """One, two or five threads agree to rounding; the same number gives the same
    bits every time.
    """
    case = make_case(subpixel=True)
    found = {}
    for threads, attempt in itertools.product((1, 2, 5), (0, 1)):
        ctx, engine = context("numpy", threads=threads), make("dm", **DM)
        state = engine.init(case.problem, case.object, case.probe, ctx)
        for _ in range(5):
            state, _ = one_step(engine, state, case.problem, [slice(0, len(case.problem))], ctx)
        found[threads, attempt] = state.waves, state.object, state.probe
    for threads in (1, 2, 5):
        for a, b in zip(found[threads, 0], found[threads, 1], strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(found[threads, 0], found[1, 0], strict=True):
            assert distance(a, b) < 1e-5


# ---------------------------------------------------------------- Ptycho-EP, one frame


def rician64(z_c, v0, y, v):
    """E z, Var z and E|y e^{i theta} - z|^2/2 with the Bessel functions of SciPy."""
    s, r0 = v0 + 2 * v, np.abs(z_c)
    kappa = 2 * y * r0 / s
    R = i1e(kappa) / i0e(kappa)
    rho = (v0 * y * R + 2 * v * r0) / s
    variance = 2 * v0 * v / s + (v0 * y / s) ** 2 * (1 - R**2)
    noise = y**2 - 2 * y * (v0 * y + 2 * v * r0 * R) / s + variance + rho**2
    return z_c / r0 * rho, variance, noise / 2


def laplace64(z_c, v0, y, v):
    s, r0 = v0 + 2 * v, np.abs(z_c)
    rho = (v0 * y + 2 * v * r0) / s
    return z_c / r0 * rho, v0 * v / s + v0 * rho / (2 * r0), (y - rho) ** 2 + v0 * v / s


class EP64:
    """Beliefs and messages in float64: Lambda = L0 + sum g |P|^2, eta = sum g P* phi."""

    def __init__(self, case, output, damping, scale=1.0, offset=0.0):
        self.case, self.output, self.d, self.skipped = case, output, damping, 0
        n = len(case.problem)
        P0, O = case.probe.astype(np.complex128), case.object.astype(np.complex128)
        self.P = [shift64(P0, frame_shift(case, j))[0] for j in range(n)]
        self.y = np.sqrt(case.problem.amplitude.astype(float) ** 2 + offset)
        self.phi = [self.P[j] * O[window(case, j)] for j in range(n)]
        self.g = np.full(n, 1 / ((case.problem.amplitude.astype(float) ** 2).mean() + offset))
        self.prior, self.v = 1 / scale, case.problem.noise_variance
        self.rebuild()

    def rebuild(self):
        self.Lambda = np.full(self.case.problem.object_shape, self.prior)
        self.eta = np.zeros(self.case.problem.object_shape, complex)
        for j in range(len(self.g)):
            self.Lambda[window(self.case, j)] += self.g[j] * np.abs(self.P[j]) ** 2
            self.eta[window(self.case, j)] += self.g[j] * self.P[j].conj() * self.phi[j]

    def visit(self, j):
        """One factor update; returns the noise moment, and the misfit at the belief."""
        box, P, way = (
            window(self.case, j),
            self.P[j],
            (free_space(self.case.problem), frame_shift(self.case, j)),
        )
        L, valid = self.Lambda[box].copy(), frame_mask(self.case, j)
        psi = P * self.eta[box] / L
        misfit = (
            np.where(valid, np.abs(forward64(psi, *way)) - self.case.problem.amplitude[j], 0) ** 2
        ).sum()
        g_b = 1 / (np.abs(P) ** 2 / L).mean()
        g_c = g_b - self.g[j]
        psi_c = (g_b * psi - self.g[j] * self.phi[j]) / g_c
        z_c = forward64(psi_c, *way)
        z, v_hat, noise = self.output(z_c, 1 / g_c, self.y[j], self.v)
        z, v_hat, noise = (
            np.where(valid, z, z_c),
            np.where(valid, v_hat, 1 / g_c),
            np.where(valid, noise, 0),
        )
        g_hat = 1 / v_hat.mean()
        if g_hat <= 1.0001 * g_c:  # nothing learned
            self.skipped += 1
            return noise.sum(), misfit
        g_n = g_hat - g_c
        phi_n = (g_hat * backward64(z, *way) - g_c * psi_c) / g_n
        g = (self.d * g_n**-0.5 + (1 - self.d) * self.g[j] ** -0.5) ** -2
        phi = self.d * phi_n + (1 - self.d) * self.phi[j]
        self.Lambda[box] += (g - self.g[j]) * np.abs(P) ** 2
        self.eta[box] += P.conj() * (g * phi - self.g[j] * self.phi[j])
        self.g[j], self.phi[j] = g, phi
        return noise.sum(), misfit

    def move_probe(self, P0, ridge):
        """One EM update of the probe, object belief and messages held still."""
        force, weight = np.zeros_like(P0, complex), np.zeros(P0.shape[1:])
        for j in range(len(self.g)):
            box = window(self.case, j)
            mu, var = self.eta[box] / self.Lambda[box], 1 / self.Lambda[box]
            pull = self.g[j] * (mu.conj() * (self.phi[j] - mu * self.P[j]) - self.P[j] * var)
            force += shift64(pull[None], frame_shift(self.case, j), -1)
            weight += self.g[j] * (np.abs(mu) ** 2 + var)
        P0 = P0 + force / np.maximum(weight, ridge * weight.max())
        self.P = [shift64(P0, frame_shift(self.case, j))[0] for j in range(len(self.g))]
        return P0


def assert_beliefs(state, exact, tight):
    assert distance(state.message_precision, exact.g) < tight
    assert distance(state.messages, np.stack(exact.phi)) < tight
    assert distance(state.precision, exact.Lambda) < tight
    assert distance(state.natural, exact.eta) < tight


#: Laplace is elementary; the Bessel ratios of the Rician output function are rational fits good to
#: 1.3e-4 and 6.7e-4.
OUTPUTS = {"laplace": (laplace64, TIGHT), "rician": (rician64, 1e-3)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", list(OUTPUTS))
@pytest.mark.parametrize("settings", SETTINGS)
def test_one_factor_update(settings, output, backend):
    """One frame of Ptycho-EP: belief, cavity, moments, extrinsic, damping, sums."""
    case, ctx, j = make_case(**settings), context(backend), 6
    function, tight = OUTPUTS[output]
    engine = make("ep", output=output, probe_updates=0, damping=0.7, residual_every=1)
    problem = case.problem.to(ctx.backend)
    state = engine.init(problem, case.object, case.probe, ctx)
    exact = EP64(case, function, 0.7)
    assert_beliefs(state, exact, 1e-6)
    before = copy.deepcopy(state.messages)
    state, report = one_step(engine, state, problem, single_frame(j), ctx)
    _, misfit = exact.visit(j)
    assert_beliefs(state, exact, tight)
    assert distance(state.messages[j] - before[j], exact.phi[j] - before[j]) < 3 * tight
    assert distance(state.object, exact.eta / exact.Lambda) < tight
    assert float(report.misfit) == pytest.approx(misfit, rel=1e-4)
    others = np.delete(np.arange(len(problem)), j)
    assert np.array_equal(state.messages[others], before[others])
    estimate = engine.estimate(state, ctx)
    assert distance(estimate.object_std, exact.Lambda**-0.5) < tight
    assert distance(estimate.object, exact.eta / exact.Lambda) < tight


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", list(OUTPUTS))
def test_one_sweep_of_factor_updates(output, backend):
    """16 frames in order, the noise variance learned and the probe moved at the end."""
    case, ctx = make_case(subpixel=True, masks="each"), context(backend)
    function, tight = OUTPUTS[output]
    options = {
        "probe_updates": 2,
        "probe_start": 0,
        "noise_start": 0,
        "learn_noise": True,
        "object_variance": 2.0,
    }
    engine = make("ep", output=output, damping=0.5, **options)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    exact = EP64(case, function, 0.5, scale=2.0)
    state, report = one_step(engine, state, case.problem, Schedule().batches(case.problem, 0), ctx)
    noise = sum(exact.visit(j)[0] for j in range(len(case.problem)))
    v = noise / case.problem.mask.sum()
    assert exact.v / 10 < v < exact.v * 10
    P = exact.move_probe(exact.move_probe(case.probe, 1e-2), 1e-2)
    exact.rebuild()
    assert float(report.extra["noise_variance"]) == pytest.approx(
        exact.v, rel=1e-6
    )  # the one this sweep used
    assert float(state.noise_variance) == pytest.approx(v, rel=10 * tight)
    assert_beliefs(state, exact, 3 * tight)
    assert distance(state.probe, P) < 3 * tight
    assert exact.skipped == 0
    assert float(report.extra["skipped"]) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_are_stabilised(backend):
    """Poisson data: y = sqrt(n + 3/8) with variance 1/4 inside EP; the residual is still that of
    sqrt(n).
    """
    case = make_case(subpixel=True)
    counts = np.random.default_rng(2).poisson(case.problem.amplitude**2)
    case = replace(
        case,
        problem=replace(
            case.problem,
            amplitude=np.sqrt(counts).astype(np.float32),
            counting=True,
            noise_variance=None,
        ),
    )
    ctx, engine = (
        context(backend),
        make("ep", output="laplace", probe_updates=0, damping=0.9, residual_every=1),
    )
    state = engine.init(case.problem, case.object, case.probe, ctx)
    exact = EP64(case, laplace64, 0.9, offset=0.375)
    exact.v = 0.25
    assert float(state.noise_variance) == 0.25
    assert not engine.learns(case.problem)
    state, report = one_step(engine, state, case.problem, single_frame(3), ctx)
    _, misfit = exact.visit(3)
    assert_beliefs(state, exact, TIGHT)
    assert float(report.misfit) == pytest.approx(misfit, rel=1e-4)


# --------------------------------------------------------- compiled sweeps against the engines' own


ENGINES = {
    "pie": ({}, ("sequential", "wavefronts", "colours", "minibatch", "parallel")),
    "epie": ({"probe_start": 1, "cool_from": 1}, ("sequential", "minibatch", "wavefronts")),
    "epie-fixed": ({"probe_start": 1000}, ("sequential", "minibatch")),
    "rpie": (
        {"object_reg": 0.3, "probe_reg": 0.4, "probe_start": 1},
        ("sequential", "minibatch", "parallel", "colours"),
    ),
    "dm": ({"probe_start": 1, "overlap_passes": 2}, ("parallel", "minibatch", "sequential")),
    "ep": (
        {"probe_updates": 0, "residual_every": 2},
        ("sequential", "wavefronts", "colours", "minibatch", "parallel"),
    ),
    "ep-laplace": ({"probe_updates": 0, "output": "laplace"}, ("sequential", "parallel")),
    "ep-sparse": (
        {"probe_updates": 0, "prior": "sparse", "prior_start": 1, "sparse_density": 0.7},
        ("sequential", "minibatch"),
    ),
    "ep-counts": ({"probe_updates": 0, "residual_every": 2}, ("sequential", "minibatch")),
    "ep-probe": (
        {"probe_updates": 1, "probe_start": 1, "learn_noise": True, "noise_start": 1},
        ("sequential", "minibatch"),
    ),
    "ep-frames": (
        {"probe_updates": 0, "noise_per_frame": True, "noise_start": 0, "residual_every": 2},
        ("sequential", "minibatch", "parallel", "colours"),
    ),
}
SWEEPS = [(name, kind) for name, (_, kinds) in ENGINES.items() for kind in kinds]


def arrays(state):
    """Every array of a state."""
    slots = [slot for cls in type(state).__mro__ for slot in getattr(cls, "__slots__", ())]
    values = {slot: getattr(state, slot) for slot in slots}
    return {
        slot: np.asarray(value)
        for slot, value in values.items()
        if isinstance(value, (np.ndarray, np.generic))
    }


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("name", "kind"), SWEEPS)
def test_compiled_sweeps(name, kind, settings):
    """Three passes from a near start, compiled and with reference kernels: the same state to
    rounding.

    One pass with Laplace's output function, which amplifies rounding where a detector wave is
    small.
    """
    # more frames a pixel hold what that amplifies
    passes, side = (1, 4) if "laplace" in name else (3, 3)
    case = make_case(**settings, side=side, modes=2 if name in ("pie", "epie", "rpie", "dm") else 1)
    if name == "ep-counts":
        case = replace(case, problem=replace(case.problem, counting=True, noise_variance=None))
    engine = make(name.split("-")[0], **ENGINES[name][0])
    schedule = Schedule(kind=kind, size=5)
    found = []
    for backend in BACKENDS:
        ctx = context(backend)
        problem = case.problem.to(ctx.backend)
        state = engine.init(problem, case.object, case.probe, ctx)
        for epoch in range(passes):
            state, report = one_step(engine, state, problem, schedule.batches(problem, epoch), ctx)
        found.append((state, report))
    (a, told_a), (b, told_b) = found
    assert a.epoch == b.epoch == passes
    expected, compared = arrays(a), arrays(b)
    assert expected.keys() == compared.keys()
    for slot, value in expected.items():
        assert compared[slot].dtype == value.dtype, slot
        # a message that says hardly more than its cavity is mostly rounding
        tight = 1e-3 if slot == "messages" and name in ("ep-laplace", "ep-sparse") else 1e-4
        assert np.array_equal(compared[slot], value) or distance(compared[slot], value) < tight, (
            slot
        )
    assert (told_a.misfit is None) == (told_b.misfit is None)
    if told_a.misfit is not None:
        assert float(told_b.misfit) == pytest.approx(float(told_a.misfit), rel=1e-3)
    assert told_a.extra.keys() == told_b.extra.keys()
    for key, value in told_a.extra.items():
        assert float(told_b.extra[key]) == pytest.approx(float(value), rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize("kind", ["parallel", "minibatch", "wavefronts", "colours"])
def test_threads_change_no_bit(kind):
    """PIE, ePIE, rPIE and Ptycho-EP on one, two and five threads, batches longer than the workspace
    included: the same bits.
    """
    case, schedule = make_case(subpixel=True, masks="each", side=7), Schedule(kind=kind, size=40)
    engines = [make("ep", probe_updates=1, probe_start=0, learn_noise=True, noise_start=0)]
    engines += [make(name) for name in ("pie", "epie", "rpie")]
    for engine in engines:
        found = []
        for threads in (1, 2, 5):
            ctx = context("numpy", threads=threads)
            state = engine.init(case.problem, case.object, case.probe, ctx)
            for epoch in range(3):
                state, _ = one_step(
                    engine, state, case.problem, schedule.batches(case.problem, epoch), ctx
                )
            found.append(arrays(state))
        for other in found[1:]:
            assert all(np.array_equal(value, other[slot]) for slot, value in found[0].items())
        ctx = context("reference")
        state = engine.init(case.problem, case.object, case.probe, ctx)
        for epoch in range(3):
            state, _ = engine.step(state, case.problem, schedule.batches(case.problem, epoch), ctx)
        assert distance(found[0]["object"], state.object) < 1e-4


def test_where_there_is_no_compiled_sweep():
    """The general difference map is left to the engine."""
    case, backend = make_case(), get_backend("numpy")
    for name, options, kind in (
        ("dm", {"beta": 0.9}, "parallel"),
        ("dm", {"beta": -0.5}, "minibatch"),
    ):
        batches = Schedule(kind=kind).batches(case.problem, 0)
        assert fast_step(backend, make(name, **options), case.problem, batches) is None, (
            name,
            kind,
        )


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("output", ["pie", "rician", "laplace"])
def test_wavefronts_are_sequential_bit_for_bit(output, subpixel):
    """From a random start, ten passes: frames that do not overlap may be visited in any order."""
    case = make_case(subpixel=subpixel, side=6)
    start = normal(np.random.default_rng(3), case.object.shape).astype(np.complex64)
    engine = make("pie") if output == "pie" else make("ep", output=output, probe_updates=0)
    ctx, found = context("numpy"), []
    for kind in ("sequential", "wavefronts"):
        steps = iterate(
            case.problem, engine, start, case.probe, ctx=ctx, schedule=Schedule(kind=kind)
        )
        found.append(next(itertools.islice(steps, 9, None)).state)
    a, b = (arrays(state) for state in found)
    for slot, value in a.items():
        assert np.array_equal(value, b[slot]) or slot == "noise_variance", slot
    assert len(Schedule(kind="wavefronts").batches(case.problem, 0)) < len(case.problem)


@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("name", ["pie", "ep"])
def test_disjoint_batches_of_the_reference_are_sequential_to_rounding(name, subpixel):
    """Neither the batch a frame is in nor the shift of another frame matters to it."""
    case, ctx = make_case(subpixel=subpixel), context()
    engine = make(name) if name == "pie" else make(name, probe_updates=0)
    found = []
    for kind in ("sequential", "wavefronts"):
        state = engine.init(case.problem, case.object, case.probe, ctx)
        state, _ = engine.step(
            state, case.problem, Schedule(kind=kind).batches(case.problem, 0), ctx
        )
        found.append(state.object)
    assert distance(found[1], found[0]) < 1e-6


# ---------------------------------------------------------------- what belongs to the caller


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["pie", "epie", "rpie", "dm", "ep"])
def test_arrays_of_the_caller_never_change(name, backend):
    case = make_case(subpixel=True, masks="each")
    problem = case.problem
    mine = (
        case.object,
        case.probe,
        problem.amplitude,
        problem.mask,
        problem.corners,
        problem.shifts,
        problem.shift_index,
    )
    kept = [a.copy() for a in mine]
    for a in mine[:2]:
        a.flags.writeable = False  # writing would raise
    steps = iterate(problem, make(name), case.object, case.probe, ctx=context(backend))
    last = next(itertools.islice(steps, 3, None))
    assert isinstance(last.state, State)
    assert not np.array_equal(last.state.object, case.object)
    for a, b in zip(mine, kept, strict=True):
        assert np.array_equal(a, b)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("pie", "object_step", 0.0),
        ("pie", "object_step", 2.5),
        ("pie", "object_reg", 0.0),
        ("epie", "probe_step", -1.0),
        ("epie", "probe_start", -1),
        ("rpie", "object_reg", 1.5),
        ("rpie", "probe_reg", 0.0),
        ("rpie", "object_step", float("nan")),
        ("dm", "beta", 0.0),
        ("dm", "beta", 1.5),
        ("dm", "overlap_passes", 0),
        ("dm", "object_inertia", 1.0),
        ("dm", "power_bound", -1.0),
        ("dm", "residual_every", 0),
        ("ep", "damping", 1.5),
        ("ep", "sparse_density", 1.0),
        ("ep", "object_variance", -1.0),
        ("ep", "damping", 0.0),
        ("ep", "object_variance", 0.0),
        ("ep", "noise_variance", 0.0),
        ("joint", "object_variance", 0.0),
        ("joint", "noise_variance", 0.0),
        ("ml", "position_spread", 0.0),
        ("ml", "dose_spread", 0.0),
        ("rpie", "cool_from", -1),
        ("epie", "cool_from", -2),
        ("ep", "noise_variance", -1.0),
        ("ep", "probe_updates", -1),
        ("ep", "residual_every", 0),
    ],
)
def test_options_out_of_range(name, option, value):
    """Option and value are both named."""
    with pytest.raises(PtychonError) as error:
        make(name, **{option: value})
    assert option in str(error.value)
    assert f"{abs(value) if option == 'beta' else value}" in str(error.value)


def test_wrong_names_get_the_nearest():
    for call, words in (
        (lambda: make("repie"), ("'repie'", "'rpie'")),
        (lambda: make("ep", dampning=0.5), ("'dampning'", "'damping'")),
        (lambda: make("ep", output="ricean"), ("'ricean'", "rician")),
        (lambda: make("ep", prior="sparce"), ("'sparce'", "sparse")),
        (lambda: make("pie", probe_step=0.1), ("'probe_step'", "object_step")),
        (lambda: make("rpie", object_step="fast"), ("object_step", "'fast'", "float")),
        (lambda: make("rpie", probe_start=1.5), ("probe_start", "1.5", "int")),
        (lambda: make("ep", learn_noise=1), ("learn_noise", "1", "bool")),
    ):
        with pytest.raises(PtychonError) as error:
            call()
        assert all(word in str(error.value) for word in words), error.value


def test_ep_takes_one_mode():
    case, ctx = make_case(modes=2), context()
    with pytest.raises(PtychonError, match="2 modes"):
        make("ep").init(case.problem, case.object, case.probe, ctx)
