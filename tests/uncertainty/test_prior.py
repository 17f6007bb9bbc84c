"""Priors whose spectra are learned: as operators, from fields whose spectra are known, and in error
bars of objects that fall faster than any power law.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem, PtychonError, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.alignment import align, phase_align
from ptychon.metrics.residual import coverage
from ptychon.uncertainty import laplace
from ptychon.uncertainty.joint import joint, lit_region
from ptychon.uncertainty.methods import make_method
from ptychon.uncertainty.prior import Seen, Spectral, by_bands, continued, refit

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of

SHAPE = (40, 44)


@pytest.fixture
def prior():
    """Two different spectra, about a tilted axis."""
    region = np.zeros(SHAPE, bool)
    region[4:-4, 4:-4] = True
    seen = Seen.of(region)
    k = np.maximum(np.arange(len(seen.size)), 1.0)
    y, x = np.indices(SHAPE)
    carrier = np.exp(1j * (0.4 + 0.05 * y - 0.02 * x))
    return Spectral(get_backend("numpy"), seen, np.array([k**-2, 0.2 * k**-1]), carrier)


def complex_field(seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def real_dot(a, b):
    return float((a.conj() * b).real.sum())


def test_the_precision_is_symmetric_and_positive(prior):
    a, b = (complex_field(s)[None].astype(np.complex64) for s in (1, 2))
    assert real_dot(a, prior(b)) == pytest.approx(real_dot(prior(a), b), rel=1e-4)
    assert real_dot(a, prior(a)) > 0


def test_the_inverse_is_that_of_even_light(prior):
    a = complex_field(3)[None].astype(np.complex64)
    back = prior.inverse(prior(a) + np.float32(0.7) * a, 0.7)
    assert abs(back - a).max() < 1e-4 * abs(a).max()


def test_noise_has_the_precision_for_its_covariance(prior):
    """E <a, n>^2 = <a, H a> for n ~ N(0, H)."""
    a = complex_field(4)[None].astype(np.complex64)
    rng = np.random.default_rng(5)
    drawn = [real_dot(a, prior.noise(rng)) ** 2 for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(real_dot(a, prior(a)), rel=0.2)


@pytest.mark.parametrize("fall", ["power law", "Gaussian"])
def test_spectra_are_learned_as_far_as_noise_allows(fall):
    """Signal and white noise of known spectra, a thousand rings' worth: where the signal is above
    its noise it is found, far below it little is left.
    """
    region = np.ones((64, 64), bool)
    seen = Seen.of(region)
    k = np.maximum(np.arange(len(seen.size)), 0.5)
    true = 3 * k**-3.0 if fall == "power law" else 3 * np.exp(-((k / 5) ** 2))
    noise = np.full(len(k), 1e-3)
    S = true + noise
    rng = np.random.default_rng(6)
    modes = 0.5 * seen.share * seen.size
    measured = (true + noise) * rng.gamma(modes, 1 / np.maximum(modes, 0.1))
    rows = [by_bands(seen, row) for row in (S, noise, measured)]
    for _ in range(4):
        S = refit(seen, S, rows[0], rows[1], rows[2])
        rows[0] = by_bands(seen, S)
    bright = (true > 5 * noise) & (np.arange(len(k)) > 2)
    assert np.exp(np.abs(np.log(S[bright] / true[bright])).mean()) < 1.5
    assert (S[true < 0.01 * noise] < 0.5e-3).all()
    assert bright.sum() > 4


def found_beside_a_probe(true, noise, shown, continues):
    """Spectra after some turns, of an optimum that shows a share `shown` (R,) of the power Y."""
    seen, S = Seen.of(np.ones((64, 64), bool)), true + noise
    rows = [by_bands(seen, row) for row in (noise, shown * (true + noise))]
    for _ in range(4):
        S = refit(seen, S, by_bands(seen, S), *rows)
        S = continued(seen, S, *rows) if continues else S
    return S


def test_where_data_hardly_tell_a_spectrum_follows_the_power_law_before():
    """With a learned probe an optimum loses power at fine details: here a tenth where S = 3 N and
    three tenths where S = N.
    """
    k = np.maximum(np.arange(33), 0.5)
    true, noise = 3 * k**-3.0, np.full(33, 3e-4)
    shown = np.interp(np.log(true / noise), np.log([1, 3, 10]), [0.7, 0.9, 1])
    fine = true < 3 * noise
    followed, kept = (found_beside_a_probe(true, noise, shown, c) for c in (False, True))
    assert followed[fine].mean() < 0.6 * true[fine].mean()
    assert kept[fine] == pytest.approx(true[fine], rel=0.25)
    assert kept[~fine][4:] == pytest.approx(followed[~fine][4:], rel=0.15)


def test_less_power_than_the_noise_is_no_spectrum_that_has_fallen():
    """With several learned modes an optimum loses the finest details altogether: a twentieth of
    their power is left where S = 0.3 N.
    """
    k = np.maximum(np.arange(33), 0.5)
    true, noise = 3 * k**-3.0, np.full(33, 3e-4)
    shown = np.interp(np.log(true / noise), np.log([0.3, 1, 3, 10]), [0.05, 0.4, 0.9, 1])
    fine = true < noise
    followed, kept = (found_beside_a_probe(true, noise, shown, c) for c in (False, True))
    assert followed[fine].mean() < 0.2 * true[fine].mean()
    assert kept[fine] == pytest.approx(true[fine], rel=0.25)


def test_a_spectrum_that_falls_off_is_believed():
    """A Gaussian one ends far below the power law of its last rings that are well known."""
    k = np.maximum(np.arange(33), 0.5)
    true, noise = 3 * np.exp(-((k / 6) ** 2)) + 1e-7, np.full(33, 1e-2)
    found, followed = (found_beside_a_probe(true, noise, np.ones(33), c) for c in (True, False))
    dark = k > 22
    assert found[dark].max() < 0.1 * noise[0]
    assert found[dark] == pytest.approx(followed[dark], rel=0.5)


@pytest.mark.slow
def test_fine_details_of_a_learned_probe_keep_their_power():
    """49 frames of 48 x 48: mean (error/bar)^2 is 1.44 with a spectrum that follows the optimum
    down to 0.6 of the truth, and 1.17 with one that does not.
    """
    cell = Cell("power-1.5", False, frame=48, side=7, step=6.912, dose=39 * 48.0**2)
    data, truth, _ = dataset_of(cell, 1)
    start = reconstruct(data, "rpie", passes=300, backend="numpy", judge=False, say=None)
    way = make_method("laplace", prior="learned", refine=True, update=("object", "probe"), draws=8)
    _, bars = way.run(Problem.from_dataset(data), start, "numpy", lambda *_: None, Path("nowhere"))
    lit, exact = bars.region, truth.astype(np.complex64)
    laid = align(bars.object, exact, region=lit, max_shift=4, subpixel=True)
    off = np.abs(laid.estimate - exact)[lit] / (bars.object_std[lit] / abs(laid.scale))
    assert np.mean(off**2) < 1.3


def test_a_smooth_object_gets_a_smooth_prior():
    """With white priors the noise of fine structures, which the object does not have, is the bulk
    of the bars; they are right all the same, but three times as wide.
    """
    cell = Cell("smooth-3.5", True, frame=24, side=5, step=4.0, dose=4e4)
    data, truth, probe = dataset_of(cell, 2)
    problem, exact = Problem.from_dataset(data), truth.astype(np.complex64)
    light = probe[None].astype(np.complex64)

    def bars(prior):
        options = {"update": ("object",), "draws": 4, "backend": "numpy", "prior": prior}
        found = laplace(problem, exact, light, **options)
        estimate = phase_align(found.object, exact, found.region)
        error = np.sqrt(np.mean(abs(estimate - exact)[found.region] ** 2))
        return error, coverage(estimate, exact, found.object_std, found.region).mean_square

    (white, _), (learned, square) = bars("white"), bars("learned")
    assert learned < 0.6 * white
    assert square == pytest.approx(1, abs=0.45)


def test_an_unknown_prior_is_refused():
    cell = Cell("smooth-3.5", True, frame=24, side=3, step=4.0, dose=4e4)
    data, truth, probe = dataset_of(cell, 2)
    with pytest.raises(PtychonError, match="white, learned, local"):
        laplace(Problem.from_dataset(data), truth, probe[None], prior="edges")


@pytest.fixture(scope="module")
def known():
    """A scan of an object of some kind, begun with its probe."""

    def made(kind, dose=4e4):
        cell = Cell(kind, True, frame=24, side=5, step=3.5, dose=dose)
        data, _, probe = dataset_of(cell, 2)
        light = probe[None].astype(np.complex64)
        begun = reconstruct(
            data, "ep", passes=40, probe=light, probe_updates=0, backend="numpy", say=None
        )
        return Problem.from_dataset(data), begun

    return made


@pytest.mark.parametrize(("kind", "steps"), [("smooth-3.5", True), ("power-1", False)])
def test_steps_have_the_last_word_where_the_object_is_no_power_law(known, kind, steps):
    """The probe is known: 38 instead of 32 dB for smooth objects, and nothing for rough ones."""
    problem, begun = known(kind)
    _, bars, _ = joint(
        problem, begun, update=("object",), check=False, draws=4, backend="numpy", seed=1
    )
    assert any("next step of the mean" in fact for fact in bars.conditional) == steps


def test_laplace_and_joint_agree_where_their_prior_is_the_same(known):
    """Bars of messages and those of a curvature: measured 2 % apart at 4000 counts a pixel. Those
    of messages, which know more of dark pixels, are 2 to 6 % wider at 400 and 6 to 8 % at 40.
    """
    problem, begun = known("power-1.5", 2.3e6)
    S = float(np.mean(np.abs(begun.object) ** 2))
    options = {"prior": "white", "object_variance": S, "draws": 16, "burn_in": 16}
    passed = reconstruct(
        problem, "joint", passes=32, start=begun, backend="numpy", say=None, **options
    )
    bars = laplace(
        *(problem, begun.object, begun.probe),
        update=("object",),
        object_variance=S,
        backend="numpy",
    )
    inside = lit_region(problem, begun)
    quotient = np.median(passed.object_std[inside] / bars.object_std[inside])
    assert quotient == pytest.approx(1, abs=0.05)
