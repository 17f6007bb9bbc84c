"""The exact information and the bound, the bootstrap, and how the methods agree."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace

import numpy as np
import pytest

from _problems import forward64, free_space, make_case, shift64
from ptychon import Problem, PtychonError, Recipe, Stage
from ptychon.metrics import residual as metrics
from ptychon.model.propagators import NearField
from ptychon.run.reconstruct import reconstruct
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty import bootstrap, cramer_rao, information, laplace


def tiny(near=False, modes=1, subpixel=True, masked=True):
    """Nine frames of 8x8 on an object of 24x24, the probe with a random phase."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*2 * [[0, 7, 15]], indexing="ij"), -1).reshape(
        -1, 2
    ) + rng.integers(0, 2, (9, 2))
    shifts = (
        np.array([[0, 0], [0.25, -0.4375]], np.float32)
        if subpixel
        else np.zeros((1, 2), np.float32)
    )
    transfer = None
    if near:
        f2 = np.fft.fftfreq(8)[:, None] ** 2 + np.fft.fftfreq(8)[None] ** 2
        transfer = np.exp(-6j * np.pi * f2).astype(np.complex64)
    problem = replace(
        make_case(side=2).problem,
        amplitude=np.zeros((9, 8, 8), np.float32),
        mask=rng.random((9, 8, 8)) > (0.1 if masked else -1),
        corners=grid.astype(np.int32),
        shifts=shifts,
        shift_index=rng.integers(0, len(shifts), 9).astype(np.int32),
        object_shape=(24, 24),
        counting=False,
        noise_variance=0.04,
    )
    if transfer is not None:
        problem = replace(problem, propagator=NearField(transfer))
    object = (0.6 + 0.4 * rng.random((24, 24))) * np.exp(1j * rng.random((24, 24)))
    probe = 5 * np.exp(1j * rng.random((modes, 8, 8))) * (0.2 + rng.random((modes, 8, 8)))
    return problem, object, probe


def moduli(problem, object, probe):
    """m of every valid pixel, in float64 and without the package."""
    found = []
    for j, (y, x) in enumerate(problem.corners.tolist()):
        by = problem.shifts[problem.shift_index[j]]
        wave = forward64(shift64(probe, by) * object[y : y + 8, x : x + 8], free_space(problem), by)
        found.append(np.sqrt((np.abs(wave) ** 2).sum(axis=0))[problem.mask[j]])
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("near", "modes", "free"),
    [(False, 1, False), (False, 1, True), (True, 1, True), (False, 2, True)],
)
def test_information_against_differences(near, modes, free):
    """24x24, every unknown: J^T J/v with J from central differences."""
    problem, object, probe = tiny(near, modes)
    found, pixels = information(problem, object, probe, update=("object", "probe")[: 1 + free])
    assert found.shape == (2 * (len(pixels) + (probe.size if free else 0)),) * 2
    rng, h = np.random.default_rng(1), 1e-5
    n, sizes = len(pixels), [len(pixels)] * 2 + ([probe.size] * 2 if free else [])
    for _ in range(12):
        v, w = rng.standard_normal((2, sum(sizes)))
        slopes = []
        for d in (v, w):
            parts = np.split(d, np.cumsum(sizes)[:-1])
            dO, dP = np.zeros(object.size, complex), np.zeros(probe.shape, complex)
            dO[pixels] = parts[0] + 1j * parts[1]
            if free:
                dP = (parts[2] + 1j * parts[3]).reshape(probe.shape)
            up, down = (
                moduli(problem, object + s * dO.reshape(24, 24), probe + s * dP) for s in (h, -h)
            )
            slopes.append((up - down) / (2 * h))
        assert v @ found @ w == pytest.approx(
            slopes[0] @ slopes[1] / 0.04, rel=1e-6, abs=1e-6 * np.linalg.norm(slopes[0]) ** 2
        )
    assert n == int((metrics.illumination(problem, probe) > 0).sum())


def test_information_of_counts():
    """4 m^2/(m^2 + b) instead of 1/v, pixel by pixel: with one frame the trace tells."""
    problem, object, probe = tiny(masked=False, subpixel=False)
    one = replace(problem.select(slice(0, 1)), counting=True, noise_variance=None)
    m2 = moduli(one, object, probe) ** 2
    plain, dark = (np.trace(information(one, object, probe, background=b)[0]) for b in (0.0, 3.0))
    assert plain == pytest.approx(4 * float(np.sum(np.abs(probe) ** 2)), rel=1e-6)
    assert dark == pytest.approx(plain * float(np.mean(m2 / (m2 + 3))), rel=1e-6)


@pytest.mark.parametrize("free", [False, True])
def test_the_bound_is_what_laplace_says_at_the_truth(free):
    """Two codes, dense and sampled: measured 0.99 to 1.01 in the median, and amplitude and phase
    each.
    """
    problem, object, probe = tiny()
    problem = replace(problem, mask=np.ones((1, 8, 8), bool), noise_variance=0.01)
    lit = np.zeros(object.shape, bool)
    lit[2:-2, 2:-2] = True
    options = {"update": ("object", "probe")[: 1 + free], "region": lit, "object_variance": 0.2}
    bound = cramer_rao(problem, object, probe, **options)
    again = laplace(
        problem, object, probe, averaged=False, refine=0, draws=100, backend="numpy", **options
    )
    for name in ("object_std", "amplitude_std", "phase_std"):
        ratio = (getattr(again, name) / getattr(bound, name))[lit]
        assert np.median(ratio) == pytest.approx(1, abs=0.03), name
        assert np.percentile(ratio, [5, 95]) == pytest.approx([1, 1], abs=0.2), name
    np.testing.assert_allclose(
        np.diag(bound.covariance).sum(),
        (bound.object_std.ravel()[bound.pixels] ** 2).sum(),
        rtol=1e-5,
    )


def test_what_cannot_be_told_is_not_in_the_bound():
    """The aligned covariance has no part along the gauge on the region, and less light gives a
    larger bound.
    """
    problem, object, probe = tiny(masked=False)
    bound = cramer_rao(problem, object, probe, object_variance=1.0)
    inside = bound.region.ravel()[bound.pixels]
    g = (1j * object).ravel()[bound.pixels] * inside
    g = np.concatenate([g.real, g.imag])
    assert g @ bound.covariance @ g < 1e-9 * (g @ g)
    darker = cramer_rao(problem, object, probe / 2, object_variance=1.0)
    assert (darker.object_std > bound.object_std)[bound.region].mean() > 0.95


def test_the_bound_needs_a_variance_and_a_small_problem():
    problem, object, probe = tiny()
    with pytest.raises(PtychonError, match="needs the variance"):
        cramer_rao(replace(problem, noise_variance=None), object, probe)
    big = replace(problem, object_shape=(200, 200), corners=(problem.corners * 12).astype(np.int32))
    wide = replace(
        big,
        corners=np.array([[y, x] for y in range(0, 190, 8) for x in range(0, 190, 8)], np.int32),
    )
    wide = replace(
        wide,
        shift_index=np.zeros(len(wide.corners), np.int32),
        amplitude=np.zeros((len(wide.corners), 8, 8)),
    )
    with pytest.raises(PtychonError, match="too many for the exact information"):
        information(wide, np.ones((200, 200), complex), probe)


# ---------------------------------------------------------------- bootstrap


@functools.cache
def scanned(noise="poisson"):
    n, L = 16, 48
    truth = phantoms.complex_object(
        phantoms.texture((L, L), 1), phantoms.cell((L, L), 2), amplitude_range=(0.4, 1.0)
    )
    positions = scan.fit(scan.fermat_spiral(400, 3.0, whole=True), (L, L), (n, n))
    strength = {"snr_db": 30} if noise == "gaussian" else {"mean_counts": 3e5}
    return simulate(
        truth, probes.defocused_aperture((n, n), 0.36 * n, 8.0), positions, noise=noise, **strength
    )


@pytest.mark.parametrize("engine", ["ep", "rpie"])
@pytest.mark.parametrize("noise", ["poisson", "gaussian"])
def test_bootstrap_agrees_with_laplace(engine, noise):
    """Probe known (EP) and learned (rPIE), 30 replicates: measured ratios of the median 0.98, 0.87
    and 1.08, 1.17.
    """
    s = scanned(noise)
    problem = Problem.from_dataset(s.dataset)
    options = {"probe_updates": 0} if engine == "ep" else {}
    r = reconstruct(problem, engine, probe=s.probe, passes=50, backend="numpy", **options)
    by_hand = bootstrap(problem, r, replicates=30, backend="numpy")
    free = engine == "rpie"
    quick = laplace(
        problem,
        r.object,
        r.probe,
        update=("object", "probe")[: 1 + free],
        draws=32,
        backend="numpy",
    )
    inside = metrics.illuminated(problem, s.probe, 0.3)

    # rPIE does not average as the posterior does: its scatter lies above the optimum's
    assert (
        0.8
        < np.median((by_hand.object_std / quick.object_std)[inside])
        < (1.15 if engine == "ep" else 1.5)
    )
    assert (
        np.corrcoef(np.log(by_hand.object_std[inside]), np.log(quick.object_std[inside]))[0, 1]
        > 0.6
    )
    assert by_hand.monte_carlo == pytest.approx(1 / (2 * 29**0.5))
    assert any("again" in text for text in by_hand.conditional)


def test_bootstrap_is_reproducible_and_goes_on(tmp_path):
    s = scanned()
    problem = Problem.from_dataset(s.dataset)
    r = reconstruct(problem, "rpie", probe=s.probe, passes=4, backend="numpy")
    place = tmp_path / "kept.npz"
    whole = bootstrap(problem, r, replicates=4, backend="numpy", seed=3, keep=True)
    bootstrap(problem, r, replicates=2, backend="numpy", seed=3, store=place)
    said = []
    gone_on = bootstrap(
        problem,
        r,
        replicates=4,
        backend="numpy",
        seed=3,
        store=place,
        keep=True,
        tell=lambda *a: said.append(a[1]),
    )
    assert said == [2, 3, 4]
    assert np.array_equal(gone_on.draws, whole.draws)
    assert np.array_equal(gone_on.object_std, whole.object_std)
    np.testing.assert_allclose(whole.draws.std(axis=0, ddof=1), whole.object_std, rtol=1e-4)
    with pytest.raises(PtychonError, match="another result, seed or setting"):
        bootstrap(problem, r, replicates=4, backend="numpy", seed=4, store=place)
    place.write_bytes(b"no such thing")
    with pytest.raises(PtychonError, match="holds no replicates"):
        bootstrap(problem, r, replicates=4, backend="numpy", seed=3, store=place)


def test_replicates_from_the_beginning():
    """They start from the first probe and know nothing of the solution; with as many passes they
    scatter about it.
    """
    s = scanned()
    problem = Problem.from_dataset(s.dataset)
    first = probes.defocused_aperture((16, 16), 0.38 * 16, 7.0)[None]
    r = reconstruct(problem, "rpie", probe=first, passes=60, backend="numpy")
    options = {"replicates": 4, "probe": first, "backend": "numpy"}
    found = [bootstrap(problem, r, start=start, **options) for start in ("beginning", "solution")]
    assert not np.array_equal(found[0].object_std, found[1].object_std)
    ratio = np.median((found[0].object_std / found[1].object_std)[found[0].region])
    assert 0.5 < ratio < 3


def test_bad_bootstraps_are_one_sentence():
    s = scanned()
    problem = Problem.from_dataset(s.dataset)
    r = reconstruct(problem, "rpie", probe=s.probe, passes=1, backend="numpy")
    with pytest.raises(PtychonError, match="1 replicates give no standard deviation"):
        bootstrap(problem, r, replicates=1)
    with pytest.raises(PtychonError, match="'solution' or from the 'beginning'"):
        bootstrap(problem, r, start="anywhere")


def test_replicates_begin_as_the_result_did(monkeypatch):
    """With the stages of the first guess, where they begin from the beginning."""
    seen = []

    def watched(problem, recipe, **options):
        seen.append(str(recipe))
        return reconstruct(problem, recipe, **options)

    case = make_case()
    recipe = Recipe(Stage("dm", 4, aside=True), Stage("rpie", 3))
    result = reconstruct(case.problem, recipe, probe=case.probe, backend="numpy")
    monkeypatch.setattr(sys.modules["ptychon.uncertainty.bootstrap"], "reconstruct", watched)
    for start, probe in (("beginning", case.probe), ("solution", None)):
        bootstrap(case.problem, result, replicates=2, start=start, probe=probe, backend="numpy")
    assert seen == ["dm:4, rpie:3"] * 2 + ["rpie:3"] * 2
