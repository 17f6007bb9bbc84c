"""Background and read noise: in the data set, the problem, the likelihood of counts, files and
simulations.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ive

from ptychon import Dataset, Problem, PtychonError, PtychonWarning, load, reconstruct
from ptychon.__main__ import main
from ptychon.backends import get_backend
from ptychon.checks.predictive import check
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.data.result import Result
from ptychon.inspect.orientation import Orientation
from ptychon.io import convert, load_result, write_dataset
from ptychon.kernels import likelihoods as sites
from ptychon.kernels.cpu import likelihoods as _numba_sites
from ptychon.metrics.alignment import phase_align
from ptychon.model.noise import noise_of
from ptychon.model.simulated import model_of
from ptychon.reports.numbers import fit
from ptychon.run.guess import mean_power, wave_power
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty import laplace
from ptychon.uncertainty.bootstrap import simulated as bootstrapped
from ptychon.uncertainty.splitting import thinned

pytestmark = pytest.mark.usefixtures("sketched")

RNG = np.random.default_rng(5)
POSITIONS = np.array([[0, 0], [0, 3], [3, 0], [3, 3]], float)


def dataset(patterns, **more):
    return Dataset(patterns=patterns, positions=POSITIONS[: len(patterns)], **more)


def simulated(dose=2e4, background=2.0, read_noise=1.5, seed=0, side=5, frame=32):
    """A jittered raster with the known probe."""
    step = 6
    size = (side - 1) * step + frame + 6
    parts = phantoms.texture((size, size), 1), phantoms.texture((size, size), 2)
    sample = phantoms.complex_object(*parts, amplitude_range=(0.1, 1), phase_range=(0, np.pi / 2))
    light = probes.circular_aperture((frame, frame), 0.45 * frame)
    where = scan.raster(side, step, jitter=1, seed=seed)
    how = {"mean_counts": dose, "background": background, "read_noise": read_noise}
    return simulate(sample, light, where, subpixel=False, noise="poisson", seed=seed, **how)


# ------------------------------------------------------------ data set


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"background": -1.0}, "background is -1"),
        ({"background": np.nan}, "background is nan"),
        ({"background": np.ones((3, 3))}, r"background has shape \(3, 3\); frames are \(8, 8\)"),
        ({"read_noise": -0.5}, "read noise is -0.5"),
        ({"read_noise": np.inf}, "read noise is inf"),
        ({"background": 1.0, "counting": False}, "belongs to patterns that are counts"),
        ({"read_noise": 1.0, "noise_variance": 0.1}, "stated by noise_variance"),
    ],
)
def test_impossible_values_are_refused(how, said):
    with pytest.raises(PtychonError, match=said):
        dataset(np.ones((4, 8, 8)), **how)


def test_noise_below_zero_is_kept_with_read_noise_and_told_of_without():
    frames = 1 + RNG.normal(0, 1, (4, 8, 8))
    with pytest.warns(PtychonWarning, match="--read-noise"):
        plain = Problem.from_dataset(dataset(frames))
    assert plain.mask.all()
    problem = Problem.from_dataset(dataset(frames, read_noise=1.0))
    assert problem.mask.all()
    assert problem.counts.min() == pytest.approx(frames.min() + 1, rel=1e-5)
    assert np.allclose(problem.amplitude, plain.amplitude, rtol=1e-6)
    assert problem.amplitude.min() == 0


# ------------------------------------------------------------ problem


def test_problem_holds_what_was_counted_and_what_is_left_of_it():
    frames = RNG.poisson(6, (4, 8, 6)).astype("u2")
    dark = RNG.uniform(0, 3, (8, 6))
    mask = RNG.random((8, 6)) > 0.2
    problem = Problem.from_dataset(dataset(frames, background=dark, read_noise=1.5, mask=mask))
    valid = np.fft.ifftshift(mask)
    shifted = np.fft.ifftshift(frames, axes=(1, 2)).astype(float)
    assert np.allclose(problem.counts[:, valid], shifted[:, valid] + 2.25)
    assert (problem.counts[:, ~valid] == 0).all()
    assert np.allclose(problem.background[0], np.fft.ifftshift(dark) + 2.25, rtol=1e-6)
    left = np.maximum(shifted - np.fft.ifftshift(dark), 0)
    assert np.allclose(problem.amplitude[:, valid], np.sqrt(left)[:, valid], atol=1e-6)
    # N and B give the amplitude back, and measured patterns are taken apart in the same way
    again = problem.counted(shifted, slice(0, 4))
    assert np.allclose(again[0], problem.amplitude, atol=1e-6)
    assert np.allclose(again[1], problem.counts, atol=1e-6)
    few = problem.select([2, 0])
    assert np.array_equal(few.counts, problem.counts[[2, 0]])
    plain = problem.subtracted()
    assert plain.counts is None
    assert plain.background is None
    assert plain.amplitude is problem.amplitude
    assert not plain.counting


def test_no_second_stack_without_a_background():
    for how in ({}, {"background": 0.0}, {"read_noise": 0.0}):
        problem = Problem.from_dataset(dataset(np.ones((4, 8, 8)), **how))
        assert problem.counts is None
        assert problem.background is None


def test_told_later_is_told_at_once():
    frames = RNG.poisson(4, (4, 8, 8))
    at_once = Problem.from_dataset(dataset(frames, background=2.0))
    later = Problem.from_dataset(dataset(frames)).with_background(2.0)
    assert np.allclose(later.amplitude, at_once.amplitude, atol=1e-6)
    assert np.allclose(later.counts, at_once.counts, atol=1e-5)
    assert np.array_equal(later.background, at_once.background)
    with pytest.raises(PtychonError, match="already"):
        later.with_background(1.0)
    with pytest.raises(PtychonError, match="not counts"):
        later.subtracted().with_background(1.0)
    with pytest.raises(PtychonError, match="not negative"):
        Problem.from_dataset(dataset(frames)).with_background(-1.0)


# ------------------------------------------------------------ likelihood


def brute(r0, N, v0, B, K):
    """rho, Var along and Var across on a dense grid of |z|."""
    high = 1.2 * max(r0, max(N, 0) ** 0.5) + 12 * (1 + v0**0.5)
    low = 0.0
    for _ in range(6):
        r = np.linspace(low, high, 801)
        r = r[r > 0]
        p = log_density(r, r0, N, v0, B, K)
        seen = np.flatnonzero(p > p.max() - 45)
        low, high = (
            (0.0 if seen[0] == 0 and low == 0 else r[max(seen[0] - 1, 0)]),
            r[min(seen[-1] + 1, len(r) - 1)],
        )
    r = low + (high - low) * (np.arange(2001) + 0.5) / 2001
    p = log_density(r, r0, N, v0, B, K)
    p = np.exp(p - p.max())
    p /= p.sum()
    x = 2 * r0 * r / v0
    q = np.where(x > 1e-8, ive(K, x) / np.maximum(ive(K - 1, x) * x, 1e-300), 1 / (2 * K))
    across = (p * r * r * q).sum()
    rho, mean = 2 * r0 * across / v0, (p * r).sum()
    return (
        rho,
        (p * (r - mean) ** 2).sum() + (mean - rho) * (mean + rho) - (2 * K - 1) * across,
        across,
    )


def log_density(r, r0, N, v0, B, K):
    x = 2 * r0 * r / v0
    angles = (
        K * np.log(r) + np.log(np.maximum(ive(K - 1, x), 1e-300)) if r0 else (2 * K - 1) * np.log(r)
    )
    return angles - (r - r0) ** 2 / v0 - r * r + N * np.log(r * r + B)


def plausible():
    for v0 in (1e-2, 0.3, 1.0, 10.0, 1e3):
        for B in (0.01, 1.0, 4.25, 100.0, 1e5):
            for N in (0.0, 0.3, 1.0, 5.0, 100.0, 1e4, 1e6):
                for r0 in (0.0, 0.3, 2.0, 10.0, 300.0):
                    power = r0**2 + v0
                    if abs(N - B - power) < 10 * (2 * power * v0 + v0**2 + power + B) ** 0.5:
                        yield r0, N, v0, B


@pytest.mark.parametrize("modes", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_moments_of_counts_with_a_background(modes):
    """Against dense sums, where data and prior agree to ten standard deviations: from no count to a
    million.
    """
    cases = list(plausible())
    assert len(cases) > 150
    found = np.array(
        sites._shifted(np, *(np.array(c) for c in zip(*cases, strict=True)), modes)[:3]
    ).T
    expected = np.array([brute(*case, modes) for case in cases])
    deviation = np.sqrt(expected[:, 1] + expected[:, 2])
    assert (np.abs(found[:, 0] - expected[:, 0]) / deviation).max() < 2e-3
    for i in (1, 2):
        off = np.abs(found[:, i] / expected[:, i] - 1)
        assert np.median(off) < 1e-4
        assert off.max() < 5e-3


def test_without_background_the_moments_are_those_of_counts():
    r0, v0, n = np.array([0.4, 3.0, 2.0]), np.array([0.5, 0.8, 2.0]), np.array([0.0, 7.0, 12.0])
    exact = sites._counts(np, r0, n, v0, 1)
    found = sites._shifted(np, r0, n, v0, np.full(3, 1e-6), 1)
    for a, b in zip(exact[:3], found[:3], strict=True):
        assert np.allclose(a, b, rtol=1e-3)


def test_negative_counts_narrow_the_belief():
    """N < 0 leaves a Gaussian, continuously at N = 0, and the more negative the narrower."""
    r0, v0, B = np.full(4, 1.2), np.full(4, 0.7), np.full(4, 2.0)
    rho, along, across, _ = sites._shifted(np, r0, np.array([0.0, -1e-9, -1.0, -4.0]), v0, B, 1)
    assert rho[1] == pytest.approx(rho[0], rel=1e-4)
    assert (np.diff(rho[1:]) < 0).all()
    assert np.array_equal(along[1:], across[1:])
    assert np.allclose(rho[1:], 1.2 / (1 + 0.7 * np.array([1, 1.5, 3])), rtol=1e-6)


@pytest.mark.parametrize("modes", [1, 2, 3])
@pytest.mark.parametrize("maps", [1, 2])
def test_site_moments_in_numba(modes, maps):
    shape = (2, modes, 16, 12)
    wave = RNG.standard_normal((*shape, 2)).astype(np.float32).view(np.complex64)[..., 0]
    wave *= np.exp(2 * RNG.standard_normal((2, 1, 16, 12))).astype(np.float32)
    natural, index = (
        np.asarray(0.3 * wave, np.complex64),
        RNG.integers(0, 6, (2, 16, 12)).astype(np.uint8),
    )
    table = np.array([[0.05, 0.2, 0.5, 1, 0.3, 1], [10, 2, 0.5, 0.3, 2, 0]], np.float32)
    B = RNG.uniform(0.2, 9, (maps, 16, 12)).astype(np.float32)
    mean = (np.abs(wave) ** 2).sum(axis=1) + B
    N = (RNG.poisson(mean) + 1.5 * RNG.standard_normal(mean.shape) - 1).astype(np.float32)
    assert (N < 0).any()
    ratio, sums, noise = sites.site_moments(wave, natural, index, table, N, 0.25, "shifted", B)
    fast, fast_sums, fast_noise = _numba_sites.site_moments(
        wave, natural, index, table, N, 0.25, "shifted", B
    )
    assert np.allclose(fast, ratio, rtol=1e-5)
    assert np.allclose(fast_sums[:, :-1], sums[:, :-1], rtol=1e-6)
    assert np.allclose(fast_noise, noise)
    assert (fast[index == 5] == 1).all()


# ------------------------------------------------------------ simulated, reconstructed


def test_simulated_noise_has_the_mean_and_variance_that_are_stated():
    made = simulated(dose=1e4, background=3.0, read_noise=2.0)
    clean = simulate(made.object, made.probe, made.dataset.positions, subpixel=False)
    noise = made.dataset.patterns - clean.dataset.patterns
    assert noise.mean() == pytest.approx(3, abs=0.05)
    assert np.mean((noise - 3) ** 2 / (clean.dataset.patterns + 7)) == pytest.approx(1, abs=0.03)
    assert made.dataset.patterns.min() < 0
    whole = simulated(dose=1e4, background=3.0, read_noise=None)
    assert whole.dataset.patterns.dtype == np.uint16
    assert whole.dataset.background == 3.0
    with pytest.raises(PtychonError, match="belong to Poisson noise"):
        simulate(made.object, made.probe, made.dataset.positions, background=1.0)


def db(found, made, lit):
    error = phase_align(found, made.object, lit)[lit] - made.object[lit]
    return 10 * np.log10((np.abs(made.object[lit]) ** 2).sum() / (np.abs(error) ** 2).sum()), error


@pytest.mark.parametrize(
    ("background", "read_noise", "modes"),
    [
        (2.0, 1.5, 1),
        pytest.param(2.0, None, 1, marks=pytest.mark.slow),
        pytest.param(None, 1.5, 1, marks=pytest.mark.slow),
        pytest.param(2.0, 1.5, 2, marks=pytest.mark.slow),
    ],
)
def test_posterior_told_of_the_background_is_nearer_and_its_bars_are_true(
    background, read_noise, modes
):
    made = simulated(background=background, read_noise=read_noise, side=6)
    problem = Problem.from_dataset(made.dataset)
    probe = made.probe
    if modes == 2:  # a second mode that is nearly dark
        probe = np.concatenate([probe, 1e-3 * np.roll(probe, 3, axis=-1)]).astype(np.complex64)
    start = reconstruct(problem, "pie", passes=40, probe=probe, backend="numpy", say=None)
    run = {"passes": 32, "burn_in": 24, "start": start, "backend": "numpy", "say": None}
    as_counts = replace(problem.subtracted(), counting=True, noise_variance=None)
    told, subtracted = (reconstruct(p, "joint", **run) for p in (problem, as_counts))
    untold = reconstruct(
        Problem.from_dataset(replace(made.dataset, background=None)), "joint", **run
    )
    lit = told.illumination > 0.5 * told.illumination.max()
    (near, error), (far, other), (_, worst) = (
        db(r.object, made, lit) for r in (told, subtracted, untold)
    )
    assert near > far + 0.5
    square = np.mean(np.abs(error) ** 2 / told.object_std[lit] ** 2)
    assert 0.6 < square < 1.4
    assert np.mean(np.abs(other) ** 2 / subtracted.object_std[lit] ** 2) > 2 * square
    if background:
        assert np.mean(np.abs(worst) ** 2 / untold.object_std[lit] ** 2) > 1.5 * square


def test_other_engines_get_the_subtracted_amplitude():
    made = simulated(side=4)
    problem = Problem.from_dataset(made.dataset)
    # without their counts nobody can choose steps by them
    for engine, steps in (
        ("pie", {}),
        ("rpie", {"object_step": 0.8, "probe_step": 0.4}),
        ("dm:3", {}),
    ):
        first = 0.7 * np.ones(problem.object_shape)
        run = {"object": first, "probe": made.probe, "backend": "numpy", "say": None, **steps}
        run |= {} if ":" in engine else {"passes": 3}
        one, other = (reconstruct(p, engine, **run) for p in (problem, problem.subtracted()))
        assert np.array_equal(one.object, other.object)
        assert one.final_error == other.final_error


@pytest.mark.parametrize(("background", "read_noise"), [(2.0, 1.5), (10.0, None)])
def test_subtracted_amplitudes_state_their_mean_variance(background, read_noise):
    """Where pixels are dark it is more than the 1/4 of counts; measured over draws."""
    made = simulated(dose=5e3, background=background, read_noise=read_noise)
    problem = Problem.from_dataset(made.dataset)
    draws = [simulated_data(problem, made, noise_of(problem), seed).amplitude for seed in range(20)]
    measured = float(np.var(draws, axis=0, ddof=1).mean())
    assert problem.subtracted().noise_variance == pytest.approx(measured, rel=0.2)
    assert measured > 0.4


def test_ptycho_ep_starts_where_most_pixels_are_dark():
    """With the variance 1/4 of counts every frame is a surprise, and it learns nothing (1 dB worse,
    or a failed run).
    """
    made = simulated(dose=5e3, side=6)
    problem = Problem.from_dataset(made.dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reconstruct(
            problem, "ep", passes=60, probe=made.probe, probe_updates=0, backend="numpy", say=None
        )
    lit = found.illumination > 0.5 * found.illumination.max()
    assert db(found.object, made, lit)[0] > 10


def test_the_first_power_is_that_of_the_wave():
    """Clipped amplitudes hold too much of it where most pixels are dark."""
    problem = Problem.from_dataset(simulated(dose=2e3).dataset)
    assert wave_power(problem) == pytest.approx(2e3, rel=0.05)
    assert mean_power(problem) > 2.3e3
    assert wave_power(problem.subtracted()) == mean_power(problem)


# ------------------------------------------------------------ preparation, orientation, files


def test_crop_and_bin_take_background_and_read_noise_along():
    frames = RNG.poisson(5, (4, 16, 16)).astype("u2")
    dark = RNG.uniform(0, 2, (16, 16)).astype(np.float32)
    data = dataset(frames, background=dark, read_noise=1.5)
    binned = prepare(data, Preparation(bin=2, crop=(8, 12)))
    assert np.allclose(
        binned.background, dark[4:12, 2:14].reshape(4, 2, 6, 2).sum(axis=(1, 3)), rtol=1e-5
    )
    assert binned.read_noise == 3.0
    scaled = prepare(data, Preparation(dark=0.0, gain=2.0))
    assert np.allclose(scaled.background, dark / 2)
    assert scaled.read_noise == 0.75


def test_stated_read_noise_keeps_what_the_dark_makes_negative():
    frames = RNG.normal(100, 3, (4, 8, 8))
    data = prepare(
        dataset(frames), Preparation(dark=100.0, gain=2.0, read_noise=1.5, background=0.2)
    )
    assert np.asarray(data.patterns).min() < 0
    assert (data.background, data.read_noise) == (pytest.approx(0.2), 1.5)
    # without it the mean stays what it is, too
    assert np.allclose(
        np.asarray(prepare(dataset(frames), Preparation(dark=100.0)).patterns),
        frames - 100,
        atol=1e-4,
    )


def test_turned_with_the_frames():
    dark = RNG.uniform(0, 2, (8, 6))
    data = dataset(RNG.poisson(5, (4, 8, 6)), background=dark)
    turned = Orientation.parse("transpose+flip-rows").apply(data)
    assert np.array_equal(
        turned.background, Orientation.parse("transpose+flip-rows").frames(data.background, True)
    )


@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz", "scan.mat"])
@pytest.mark.parametrize("as_map", [False, True])
def test_files_keep_both(tmp_path, name, as_map):
    dark = RNG.uniform(0, 2, (8, 6)).astype(np.float32) if as_map else 2.0
    data = dataset(RNG.normal(5, 3, (4, 8, 6)).astype(np.float32), background=dark, read_noise=1.5)
    write_dataset(tmp_path / "first.cxi", data)
    convert(tmp_path / "first.cxi", tmp_path / name, None)
    again = load(tmp_path / name)
    assert np.array_equal(again.background, dark)
    assert again.read_noise == 1.5
    given = load(tmp_path / name, background=1.0, read_noise=0.5)
    assert (given.background, given.read_noise) == (1.0, 0.5)


# ------------------------------------------------------------ uncertainty


def test_scores_have_the_mean_0_at_the_truth_and_the_information_as_variance():
    """Of each noise model of a problem with a background, from draws; N may be negative."""
    made = simulated(dose=1e4)
    problem = Problem.from_dataset(made.dataset)
    noise = noise_of(problem)
    draws = [simulated_data(problem, made, noise, seed) for seed in range(6)]
    m = model_of(
        problem, made.object, made.probe, slice(0, len(problem)), get_backend("numpy")
    ).astype(float)
    pulls = np.array([noise.pull(m, noise.root(p, slice(0, len(p))), None) for p in draws])
    known = noise.information(m)
    assert np.mean([p.counts.min() for p in draws]) < 0
    spread = np.sqrt(known.sum() / len(draws))
    assert abs(pulls.mean(axis=0).sum() / spread) < 4
    assert np.mean(pulls**2) == pytest.approx(known.mean(), rel=0.03)
    surprise = np.mean([noise.surprise(m, noise.root(p, slice(0, len(p)))) for p in draws])
    assert surprise == pytest.approx(noise.expected_surprise(m).mean(), rel=0.06)


def simulated_data(problem, made, noise, seed):
    truth = Result(
        object=made.object,
        probe=made.probe,
        errors=np.zeros(0),
        final_error=0.0,
        positions=np.zeros((0, 2)),
        engine="pie",
        passes=0,
    )
    return bootstrapped(problem, truth, noise, get_backend("numpy"), np.random.default_rng(seed))


def test_data_simulated_from_a_result_have_background_and_read_noise():
    made = simulated(dose=1e4, background=3.0, read_noise=2.0, side=4)
    problem = Problem.from_dataset(made.dataset)
    again = simulated_data(problem, made, noise_of(problem), 1)
    m = model_of(
        problem, made.object, made.probe, slice(0, len(problem)), get_backend("numpy")
    ).astype(float)
    off = again.counts - 4 - (m**2 + 3)
    assert np.mean(off**2 / (m**2 + 7)) == pytest.approx(1, abs=0.05)
    assert off.mean() == pytest.approx(0, abs=0.15)
    assert np.allclose(
        again.amplitude, np.sqrt(np.maximum(again.counts - again.background, 0)), atol=1e-3
    )


def test_halves_by_counts_share_the_background_and_refuse_read_noise():
    problem = Problem.from_dataset(simulated(read_noise=None, side=4).dataset)
    one, two = thinned(problem)
    assert np.allclose(one.counts + two.counts, problem.counts)
    assert np.allclose(one.background, problem.background / 2)
    assert one.counts.mean() == pytest.approx(problem.counts.mean() / 2, rel=0.01)
    with pytest.raises(PtychonError, match=r"read noise of 1\.5.*split the data by positions"):
        thinned(Problem.from_dataset(simulated(side=4).dataset))


def test_laplace_takes_the_background_from_the_problem():
    made = simulated(side=6)
    problem = Problem.from_dataset(made.dataset)
    start = reconstruct(problem, "pie", passes=40, probe=made.probe, backend="numpy", say=None)
    found = laplace(problem, start.object, made.probe, update=("object",), draws=8, backend="numpy")
    assert "background of 2 counts a pixel and a read noise of 1.5 counts" in found.conditional[0]
    error = (
        phase_align(found.object, made.object, found.region)[found.region]
        - made.object[found.region]
    )
    assert 0.5 < np.mean(np.abs(error) ** 2 / found.object_std[found.region] ** 2) < 1.3
    assert found.chi2 == pytest.approx(1, abs=0.1)
    with pytest.raises(PtychonError, match="state their background already"):
        laplace(problem, start.object, made.probe, background=1.0, backend="numpy")


def test_check_and_report_know_of_it():
    """The predictive check finds the misfit it foretells, and with the background untold it does
    not.
    """
    made = simulated(side=6)
    problem = Problem.from_dataset(made.dataset)
    start = reconstruct(problem, "pie", passes=40, probe=made.probe, backend="numpy", say=None)
    run = {"passes": 32, "burn_in": 24, "start": start, "backend": "numpy", "say": None}
    found = reconstruct(problem, "joint", **run)
    seen = check(problem, found)
    assert seen.level == pytest.approx(1, abs=0.05)
    assert seen.fits
    assert seen.clean
    assert np.median(seen.dose) == pytest.approx(1, abs=0.01)
    frames = np.maximum(made.dataset.patterns, 0)
    plain = Problem.from_dataset(
        replace(made.dataset, background=None, read_noise=None, patterns=frames)
    )
    untold = check(plain, reconstruct(plain, "joint", **run))
    assert not untold.fits
    about = fit(problem, found, get_backend("numpy"))
    assert about.residual == pytest.approx(about.noise, rel=0.1)
    assert abs(np.nanmean(about.bias)) < 0.1


# ------------------------------------------------------------ command line


def test_command_line_states_both(tmp_path, monkeypatch, capsys):
    """Simulated, converted without, stated by flags: the result keeps what it was told, and its
    posterior uses it.
    """
    monkeypatch.chdir(tmp_path)
    how = [
        "--frame",
        "16",
        "--points",
        "4",
        "--counts",
        "2e3",
        "--background",
        "2",
        "--read-noise",
        "1.5",
        "-q",
    ]
    assert main(["simulate", "scan.cxi", *how]) == 0
    data = load("scan.cxi")
    assert (data.background, data.read_noise) == (2.0, 1.5)
    write_dataset(
        "plain.cxi",
        replace(data, background=None, read_noise=None, patterns=np.asarray(data.patterns)),
    )
    run = ["-q", "--backend", "reference", "--passes", "2", "-o", "out.h5", "--force"]
    assert main(["reconstruct", "plain.cxi", *run]) == 0
    assert "to keep them give --read-noise" in capsys.readouterr().err
    np.save("dark.npy", np.full((16, 16), 2.0))
    assert (
        main(["reconstruct", "plain.cxi", "--background", "dark.npy", "--read-noise", "1.5", *run])
        == 0
    )
    stored = load_result("out.h5").settings["request"]["data"]
    assert stored["read_noise"] == 1.5
    assert stored["background"].endswith("dark.npy")
    assert (
        main(
            [
                "error_bars",
                "out.h5",
                "--draws",
                "2",
                "--backend",
                "reference",
                "--update",
                "probe:no",
            ]
        )
        == 0
    )
    assert "background of 2 counts a pixel and a read noise of 1.5" in capsys.readouterr().out
    assert main(["inspect", "plain.cxi", "--background", "2", "--read-noise", "1.5"]) == 0
    assert "2 counts a pixel" in capsys.readouterr().out
    assert (
        main(["reconstruct", "plain.cxi", "--background", "-1", "--read-noise", "1.5", *run]) == 2
    )
    assert "background is -1" in capsys.readouterr().err
    assert main(["simulate", "none.cxi", "--noise", "none", "--background", "2"]) == 2
    assert "belong to Poisson noise" in capsys.readouterr().err


def test_background_is_a_number_or_a_file_in_every_command(tmp_path, monkeypatch, capsys):
    """simulate adds a frame of it; bars takes the same frame or number where the scan states none,
    in the order of the frames as they are stored.
    """
    monkeypatch.chdir(tmp_path)
    dark = np.ones((16, 16))
    dark[:, :8] = 3.0  # not symmetric: a wrong order would be seen
    np.save("dark.npy", dark)
    how = ["--frame", "16", "--points", "4", "--counts", "2e3", "-q"]
    assert main(["simulate", "scan.cxi", "--background", "dark.npy", *how]) == 0
    data = load("scan.cxi")
    np.testing.assert_array_equal(data.background, dark)
    write_dataset("plain.cxi", replace(data, background=None, patterns=np.asarray(data.patterns)))
    run = ["-q", "--backend", "reference", "-n", "2", "-o"]
    assert main(["reconstruct", "plain.cxi", *run, "out.h5"]) == 0
    assert main(["reconstruct", "scan.cxi", *run, "told.h5"]) == 0
    asked = []
    monkeypatch.setattr(
        "ptychon.uncertainty.call.with_bars", lambda problem, *rest: asked.append(problem) or 1 / 0
    )
    for given, mean in (("dark.npy", dark), ("2", np.full((16, 16), 2.0))):
        with pytest.raises(ZeroDivisionError):
            main(["error_bars", "out.h5", "--background", given])
        np.testing.assert_array_equal(asked[-1].background[0], np.fft.ifftshift(mean))
    capsys.readouterr()
    assert main(["error_bars", "told.h5", "--background", "2"]) == 2
    assert "state their background already" in capsys.readouterr().err
    assert main(["error_bars", "out.h5", "--background", "none.npy"]) == 2
    assert "none.npy" in capsys.readouterr().err
