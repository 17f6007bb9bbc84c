"""The joint posterior: its kernels against the reference and against plain integrals, its belief,
and the truth of its bars.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln, ive

from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.engines import spectral_prior as stationary
from ptychon.kernels import curvature as products
from ptychon.kernels import likelihoods as sites
from ptychon.kernels.cpu import curvature as _numba_products
from ptychon.kernels.cpu import likelihoods as _numba_sites
from ptychon.kernels.curvature import ByClass, ByPixel
from ptychon.metrics.alignment import align
from ptychon.metrics.ambiguities import unseen, without_unseen
from ptychon.metrics.residual import PROBABILITIES, coverage
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import PtychonError
from ptychon.uncertainty import laplace
from ptychon.uncertainty.joint import joint, lit_region

RNG = np.random.default_rng(2)


def complex_normal(*shape):
    return ((RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)) / np.sqrt(2)).astype(
        np.complex64
    )


def integrals(log_likelihood, r0, v0, K=1):
    """E|z| along z_c and both variances by brute force over the modulus and the angle to z_c in 2K
    dimensions.
    """
    top = r0 + 8 * np.sqrt(v0)
    r = np.linspace(0, top, 1201)[1:]
    angle = (np.arange(400) + 0.5) * np.pi / 400
    log = log_likelihood(r) - (r - r0) ** 2 / v0
    p = r ** (2 * K - 1) * np.exp(log - log.max())
    x = 2 * r * r0 / v0
    around = np.array([np.exp(x * (np.cos(a) - 1)) * np.sin(a) ** (2 * K - 2) for a in angle])
    norm = (p * around.sum(axis=0)).sum()
    mean, cos2 = (((p * r**n) @ (around.T @ np.cos(angle) ** n)) / norm for n in (1, 2))
    sin2 = ((p * r**2) @ (around.T @ np.sin(angle) ** 2)) / norm / (2 * K - 1)
    return mean, cos2 - mean**2, sin2


@pytest.mark.parametrize("modes", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 5, 16])
@pytest.mark.parametrize(("r0", "v0"), [(0.3, 0.5), (2.0, 0.2), (3.0, 2.0)])
def test_moments_of_a_count_are_its_integrals(n, r0, v0, modes):
    expected = integrals(lambda r: 2 * n * np.log(r) - r**2 - gammaln(n + 1), r0, v0, modes)
    found = sites._counts(np, np.array([r0]), np.array([float(n)]), np.array([v0]), modes)[:3]
    assert np.allclose([f[0] for f in found], expected, rtol=2e-4)


@pytest.mark.parametrize("modes", [2, 3])
def test_moments_of_many_counts_are_nearly_its_integrals(modes):
    """Anscombe's root, for modes with its own constant: without it the mean would be off by 0.06
    and 0.12 of the error.
    """
    n, r0, v0 = 20.0, 4.6, 0.2
    mean, along, across = integrals(
        lambda r: 2 * n * np.log(r) - r**2 - gammaln(n + 1), r0, v0, modes
    )
    found = [
        f[0] for f in sites._counts(np, np.array([r0]), np.array([n]), np.array([v0]), modes)[:3]
    ]
    assert abs(found[0] - mean) < 0.015 * np.sqrt(along)
    assert np.allclose(found[1:], [along, across], rtol=0.02)


@pytest.mark.parametrize("modes", [1, 2, 3])
@pytest.mark.parametrize("y", [0.2, 1.0, 4.0])
@pytest.mark.parametrize(("r0", "v0"), [(0.1, 0.5), (1.1, 0.05), (4.0, 1.0)])
def test_moments_of_an_amplitude_are_its_integrals(y, r0, v0, modes):
    expected = integrals(lambda r: -((y - r) ** 2) / (2 * 0.1), r0, v0, modes)
    found = sites._normal(np, np.array([r0]), np.array([y]), np.array([v0]), 0.1, modes)[:3]
    assert np.allclose([f[0] for f in found], expected, rtol=1e-3)


def test_an_amplitude_of_zero_was_zero_or_below():
    from scipy.special import log_ndtr

    expected = integrals(lambda r: log_ndtr(-r / np.sqrt(0.1)), 0.6, 0.3)
    found = sites._normal(np, np.array([0.6]), np.array([0.0]), np.array([0.3]), 0.1, 1)[:3]
    assert np.allclose([f[0] for f in found], expected, rtol=2e-3)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_quotient_of_bessel_functions(order):
    kappa = np.logspace(-3, 6, 200)
    assert np.allclose(
        sites.bessel_quotient(np, kappa, order),
        ive(order, kappa) / ive(order - 1, kappa),
        rtol=3e-6,
    )


def test_rician_variances_are_its_derivatives():
    """Var along = v0/2 d rho/d r0 and Var across = v0/2 rho/r0, for any number of modes."""
    v0, v, y, h = np.array([0.4]), 0.1, np.array([1.3]), 1e-4
    for modes in (1, 3):
        for r0 in (0.2, 1.0, 5.0):
            low, high = (
                sites._rician(np, np.array([r0 + s * h]), y, v0, v, modes)[0] for s in (-1, 1)
            )
            rho, along, across, _ = sites._rician(np, np.array([r0]), y, v0, v, modes)
            assert along[0] == pytest.approx(0.2 * (high - low)[0] / (2 * h), rel=2e-3)
            assert across[0] == pytest.approx(0.2 * rho[0] / r0, rel=1e-6)


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("kind", ["rician", "normal", "counts"])
def test_site_moments_in_numba(kind, modes):
    wave = complex_normal(2, modes, 16, 12) * np.exp(
        2 * RNG.standard_normal((2, 1, 16, 12))
    ).astype(np.float32)
    natural, index = (
        0.3 * complex_normal(*wave.shape),
        RNG.integers(0, 6, (2, 16, 12)).astype(np.uint8),
    )
    table = np.array([[0.05, 0.2, 0.5, 1, 0.3, 1], [10, 2, 0.5, 0.3, 5, 0]], np.float32)
    amplitude = np.sqrt(RNG.poisson(np.abs(wave[:, 0]) ** 2)).astype(np.float32)
    v = np.array([0.25, 0.4])
    ratio, sums, noise = sites.site_moments(wave, natural, index, table, amplitude, v, kind)
    fast, fast_sums, fast_noise = _numba_sites.site_moments(
        wave, natural, index, table, amplitude, v, kind
    )
    assert np.allclose(fast_noise, noise, rtol=2e-3)
    assert noise.sum() == pytest.approx(sums[3, :-1].sum())
    for j in (0, 1):
        one = sites.site_moments(
            *(x[j : j + 1] for x in (wave, natural, index)), table, amplitude[j : j + 1], v[j], kind
        )
        assert np.array_equal(one[0][0], ratio[j])
    assert np.allclose(fast, ratio, rtol=2e-4)
    assert np.allclose(fast_sums[:, :-1], sums[:, :-1], rtol=2e-3)
    assert np.array_equal(fast_sums[0], sums[0])
    assert (fast[index == 5] == 1).all()


def linear_case(modes):
    n, U, p = 9, 4, 16
    shifts, index = (
        RNG.uniform(-0.5, 0.5, (U, 2)).astype(np.float32),
        RNG.integers(0, U, n).astype(np.int32),
    )
    corners = RNG.integers(0, 20, (n, 2)).astype(np.int32)
    classes = RNG.integers(0, 5, (n, p, p)).astype(np.uint8)
    fields = (
        complex_normal(U, modes, p, p),
        complex_normal(36, 36),
        complex_normal(36, 36),
        complex_normal(modes, p, p),
    )
    return (
        *fields,
        shifts,
        index,
        corners,
        classes,
        RNG.random((2, 5)).astype(np.float32),
        complex_normal(n, modes, p, p),
    )


def weights_of(held, classes, table, waves):
    """In every way that weights can be held."""
    if held == "alike":
        return ByClass(classes, np.stack([table[1], table[1]]), None)
    if held == "directed":
        return ByClass(classes, table, waves)
    size = np.sqrt((np.abs(waves) ** 2).sum(axis=1, keepdims=True))
    along, across = table.max(axis=0)[classes], table.min(axis=0)[classes]
    radial = (waves / size * np.sqrt(along - across)[:, None]).astype(np.complex64)
    return ByPixel(radial, across if held == "spread" else None)


HELD = ("alike", "directed", "radial", "spread")


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("joint_probe", [False, True])
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("near", [False, True])
def test_curvature_in_numba(modes, joint_probe, held, near):
    P, O, x, dp, shifts, index, corners, *rest = linear_case(modes)
    transfer = np.exp(1j * RNG.random((len(shifts), 16, 16))).astype(np.complex64) if near else None
    scan = P, O if joint_probe else None, shifts, index, corners
    arguments = (x, dp if joint_probe else None, *scan, weights_of(held, *rest), transfer)
    expected = products.curvature(*arguments, 1)
    for threads in (1, 2):
        found = _numba_products.curvature(*arguments, threads)
        assert np.allclose(found[0], expected[0], atol=2e-6 * np.abs(expected[0]).max())
        if joint_probe:
            assert np.allclose(found[1], expected[1], atol=2e-6 * np.abs(expected[1]).max())


def test_classes_and_pixels_may_weigh_alike():
    """The same weights held in both ways give the same product."""
    P, O, x, dp, shifts, index, corners, classes, table, waves = linear_case(2)
    table = np.sort(table, axis=0)[::-1].copy()  # along is not less than across
    both = [weights_of(held, classes, table, waves) for held in ("directed", "spread")]
    one, other = (products.curvature(x, dp, P, O, shifts, index, corners, w, None, 1) for w in both)
    for a, b in zip(one, other, strict=True):
        assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("held", HELD)
def test_curvature_is_symmetric_and_positive(held):
    P, O, x, dp, *scan, classes, table, waves = linear_case(1)
    y, dq = complex_normal(*x.shape), complex_normal(*dp.shape)
    weights = weights_of(held, classes, table, waves)

    def inner(a, b):
        return sum(float((u.conj() * w).real.sum()) for u, w in zip(a, b, strict=True))

    Hx, Hy = (
        products.curvature(a, b, P, O, *scan, weights, None, 1) for a, b in ((x, dp), (y, dq))
    )
    assert inner((y, dq), Hx) == pytest.approx(inner((x, dp), Hy), rel=1e-4)
    assert inner((x, dp), Hx) > 0


def test_ambiguities_are_what_alignment_would_take_out():
    O = phantoms.texture((40, 36), 3).astype(np.complex64) * np.exp(
        1j * phantoms.texture((40, 36), 4)
    ).astype(np.complex64)
    weight, backend = np.ones(O.shape, np.float32), get_backend("numpy")
    assert np.abs(without_unseen(0.01j * O, O, weight, unseen(False, False), backend)).max() < 1e-6
    y = (np.arange(40)[:, None] - 20) / 40
    moved = 0.01 * (0.3 + 1j + 2j * y) * O
    assert np.abs(without_unseen(moved, O, weight, unseen(False, True), backend)).max() < 1e-5
    other = complex_normal(*O.shape)
    left = without_unseen(other, O, weight, unseen(False, True), backend)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(other), rel=0.02)
    assert np.allclose(
        without_unseen(left, O, weight, unseen(False, True), backend), left, atol=1e-5
    )


def test_translations_are_kept_in_the_near_field():
    """There the data tell where object and probe are (tests/model/test_near_field.py), so a draw of
    the error keeps it.
    """
    O = phantoms.texture((40, 36), 3).astype(np.complex64) * np.exp(
        1j * phantoms.texture((40, 36), 4)
    ).astype(np.complex64)
    moved, weight = 1e-3 * (np.roll(O, -1, 0) - np.roll(O, 1, 0)), np.ones(O.shape, np.float32)
    left = [
        without_unseen(moved, O, weight, unseen(near, True), get_backend("numpy"))
        for near in (False, True)
    ]
    assert np.linalg.norm(left[0]) < 1e-3 * np.linalg.norm(moved)
    assert np.linalg.norm(left[1]) > 0.5 * np.linalg.norm(moved)


def test_spectrum_is_learned_and_goes_on_as_a_power_law():
    """Rings 3..40 are measured, the others are not: the true law is found on both sides."""
    shape = (128, 128)
    _, size = stationary.rings_of(shape, np)
    k = np.maximum(np.arange(len(size)), 1)
    truth, noise = (
        (50.0 * k**-2.0).astype(np.float32),
        np.where(np.arange(len(size)) < 40, 1e-3, 10.0),
    )
    S = np.full(len(size), 1.0, np.float32)
    for _ in range(60):
        V = 1 / (1 / S + 1 / noise)
        mean = (S / (S + noise)) ** 2 * (truth + noise)
        S = stationary.learned(S, mean, V, size, np)
    assert np.allclose(S[3:60], truth[3:60], rtol=0.25)


def a_scan(counts, step=9.0, size=128, seed=0, frame=32, **more):
    O = phantoms.complex_object(
        phantoms.texture((size, size), 1),
        phantoms.texture((size, size), 2),
        amplitude_range=(0.1, 1),
        phase_range=(0, 1.5),
    )
    P = probes.circular_aperture((frame, frame), 0.45 * frame)
    where = scan.fit(scan.fermat_spiral(400, step, whole=True), (size, size), (frame, frame))
    return simulate(O, P, where, noise="poisson", mean_counts=counts * frame**2, seed=seed, **more)


def test_a_pass_on_the_reference_backend_is_the_same():
    made = a_scan(20)
    problem = Problem.from_dataset(made.dataset)
    objects = []
    for name in ("reference", "numpy"):
        ctx = Context(get_backend(name))
        engine = make("joint", probe=True, burn_in=1, draws=2, draw_iterations=5)
        state = engine.init(problem, made.object, made.probe, ctx)
        for _ in range(2):
            state, _ = engine.step(state, problem, [], ctx)
        objects.append((state.object, state.probe, engine.estimate(state, ctx).object_std))
    for a, b in zip(*objects, strict=True):
        assert np.linalg.norm(a - b) < 2e-3 * np.linalg.norm(a)


def test_nothing_of_the_callers_changes_and_the_seed_decides():
    made = a_scan(20)
    kept = made.object.copy(), made.probe.copy()
    options = {
        "passes": 4,
        "burn_in": 2,
        "draws": 2,
        "object": made.object,
        "probe": made.probe,
        "backend": "numpy",
    }
    one, two, other = (
        reconstruct(made.dataset, "joint", seed=0, **options, **s) for s in ({}, {}, {})
    )
    assert np.array_equal(one.object, two.object)
    assert np.array_equal(one.draws, other.draws)
    assert np.array_equal(made.object, kept[0])
    assert np.array_equal(made.probe, kept[1])
    assert one.draws.shape == (2, *one.object.shape)


def test_options_out_of_range():
    for bad in ({"prior": "tv"}, {"damping": 0.0}, {"draws": 0}, {"burn_in": -1}):
        with pytest.raises(PtychonError):
            make("joint", **bad)


def test_masked_pixels_carry_nothing():
    """With the middle of the detector masked the bars are wider, and what stands under the mask
    does not matter.
    """
    made, n = a_scan(60), 32
    mask = np.ones((n, n), bool)
    mask[n // 2 - 3 : n // 2 + 3, n // 2 - 3 : n // 2 + 3] = False
    hidden = a_scan(60, mask=mask)
    options = {
        "passes": 12,
        "burn_in": 8,
        "draws": 4,
        "object": made.object,
        "probe": made.probe,
        "backend": "numpy",
    }
    full, part = (reconstruct(m.dataset, "joint", **options) for m in (made, hidden))
    lit = lit_region(Problem.from_dataset(made.dataset), full)
    assert np.median(part.object_std[lit] / full.object_std[lit]) > 1.05


@pytest.mark.parametrize("counts", [3.0, 100.0])
def test_bars_cover_with_a_known_probe(counts):
    """Within 7 points at each probability on one small scan (12 at 3 counts a pixel, where
    Ptycho-EP's own are far off).
    """
    made = a_scan(counts, size=128 if counts < 10 else 96)
    problem = Problem.from_dataset(made.dataset)
    start = reconstruct(
        made.dataset, "ep", passes=80, probe=made.probe, probe_updates=0, backend="numpy"
    )
    found, posterior, twin = joint(problem, start, update=("object",), backend="numpy")
    lit = lit_region(problem, found)
    cover = coverage(found.object, made.object, found.object_std, lit)
    assert np.abs(np.subtract(cover.covered, PROBABILITIES)).max() < (0.12 if counts < 10 else 0.07)
    assert twin.holds, twin.sentence()
    assert "learned spectrum" in " ".join(posterior.conditional)
    before = coverage(start.object, made.object, start.object_std, lit)
    if counts < 10:
        assert before.mean_square < 0.6
        error = [np.linalg.norm((r.object - made.object)[lit]) for r in (start, found)]
        assert error[1] < error[0]


def test_bars_cover_with_an_unknown_probe():
    made = a_scan(200, step=6.0, size=80)
    problem = Problem.from_dataset(made.dataset)
    y = (np.arange(32) - 16) / 16
    wrong = (made.probe * np.exp(0.5j * (y[:, None] ** 2 + y**2))).astype(np.complex64)
    start = reconstruct(made.dataset, "ep", passes=120, probe=wrong, backend="numpy")
    found, _, twin = joint(problem, start, backend="numpy")
    lit = lit_region(problem, found)
    laid = align(found.object, made.object, region=lit, max_shift=4, subpixel=True)
    inside = lit & (np.abs(laid.estimate) > 0)
    cover = coverage(laid.estimate, made.object, found.object_std / abs(laid.scale), inside)
    assert np.abs(np.subtract(cover.covered, PROBABILITIES)).max() < 0.12
    # by one method about one point: the probe's error is part of the object's
    own = {"object": found.object, "probe": found.probe, "refine": 0, "draws": 16, "seed": 1}
    free, known = (
        laplace(problem, update=u, backend="numpy", **own)
        for u in (("object", "probe"), ("object",))
    )
    assert np.median(free.object_std[lit] / known.object_std[lit]) > 1.0
    assert 0.6 < twin.temperature < 2
