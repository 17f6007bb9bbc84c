"""What a check on simulated data says: the chance of one scan, the three verdicts, and twins of
scans with unknowns of their frames.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychon import Problem, PtychonError, error_bars, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.residual import PROBABILITIES
from ptychon.model.noise import noise_of
from ptychon.model.unknowns import Unknowns
from ptychon.simulation.phantoms import complex_object, texture
from ptychon.simulation.probes import defocused_aperture
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty import methods
from ptychon.uncertainty.call import with_bars
from ptychon.uncertainty.laplace import laplace
from ptychon.uncertainty.methods import make_method
from ptychon.uncertainty.twin import twin_data
from ptychon.uncertainty.verdict import HOLD, NOT, RIGHT, UNTOLD, Twin, scatter

GOOD = Twin(
    temperature=1.0,
    covered=PROBABILITIES,
    misfit=1.0,
    assumed=0.0,
    error_db=30.0,
    anew=True,
    chance=0.04,
)


def fields(rng, count, width):
    """Complex Gaussian fields of unit variance, (count, 24, 24), blurred by so many pixels."""
    both = rng.standard_normal((2, count, 24, 24))
    if width:
        both = gaussian_filter(both, (0, 0, width, width), mode="wrap")
        both /= both.std()
    return (both[0] + 1j * both[1]) / np.sqrt(2)


@pytest.mark.parametrize("width", [0, 1.0, 2.5])
def test_the_chance_of_one_scan_is_read_off_its_draws(width):
    rng = np.random.default_rng(3)
    region, std = np.ones((24, 24), bool), np.ones((24, 24))
    found = [scatter(fields(rng, 8, width), std, region) for _ in range(8)]
    seen = (np.abs(fields(rng, 1500, width)) ** 2).mean(axis=(1, 2)).std()
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(seen, rel=0.12)
    if not width:
        assert seen == pytest.approx(1 / 24, rel=0.1)
    else:
        assert seen > 2 / 24


def test_an_offset_scatters_with_what_is_drawn():
    """Of bars that hold the distance of an object from the optimum as well."""
    rng = np.random.default_rng(4)
    region = np.ones((24, 24), bool)
    offset = fields(rng, 1, 2.5)[0]
    std = np.sqrt(1 + np.abs(offset) ** 2)
    squares = np.abs(fields(rng, 1500, 2.5) - offset) ** 2 / std**2
    seen = squares.mean(axis=(1, 2)).std()
    found = [scatter(fields(rng, 8, 2.5), std, region, offset) for _ in range(8)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(seen, rel=0.2)


def test_the_foretold_share_outside_is_that_of_many_scans():
    """The truth of a kind of scan, its twin and the scan itself, drawn by the rule's own theory."""
    rng = np.random.default_rng(5)
    for chance in (0.05, 0.1, 0.2):
        shape = chance**-2
        own = rng.gamma(shape, 1 / shape, 40_000)
        told = replace(GOOD, chance=chance)
        seen = np.mean((own < RIGHT[0]) | (own > RIGHT[1]))
        # not less than chance alone, and not much more: kinds of scans differ a little
        assert seen <= told.outside < seen + 0.05
        low, high = told.span
        assert 0.94 < told.inside(low, high) < 0.96


def test_there_are_three_verdicts():
    assert (GOOD.verdict, GOOD.reason) == (HOLD, "")
    small = replace(GOOD, chance=0.15)
    assert small.verdict == UNTOLD
    assert not small.holds
    assert "right on the average" in small.reason
    assert small.reason in small.sentence()
    low, high = small.span
    assert low < 0.8
    assert high > 1.25
    for bad in (
        replace(GOOD, temperature=2.0),
        replace(GOOD, misfit=1.2),
        replace(GOOD, assumed=0.7),
        replace(GOOD, covered=(0.6, *PROBABILITIES[1:])),
    ):
        # what is wrong outweighs what cannot be told
        for chance in (0.04, 0.15):
            judged = replace(bad, chance=chance)
            assert judged.verdict == NOT
            assert "do not rely" in judged.reason or "assumed" in judged.reason


def test_of_a_learned_probe_less_is_told():
    """By as much as such scans scatter about their twins: as much again as by chance."""
    for chance in (0.02, 0.06):
        known, learned = (replace(GOOD, chance=chance, modes=m) for m in (0, 1))
        assert learned.variance == pytest.approx(known.variance + chance**2)
    assert (known.verdict, learned.verdict) == (HOLD, UNTOLD)
    assert "too small" in learned.reason
    assert replace(learned, chance=0.01).verdict == HOLD


def test_a_correction_may_not_fit_the_data():
    """Of a large scan whose twin asks for bars that are 18 % wider: it is not its size."""
    large = replace(GOOD, chance=0.01, temperature=1.4, modes=1)
    assert large.verdict == UNTOLD
    assert "after a factor of 1.18" in large.reason
    assert "small" not in large.reason


def test_several_learned_modes_are_not_passed():
    modes = replace(GOOD, modes=2)
    assert modes.verdict == UNTOLD
    assert "learned modes" in modes.reason
    assert replace(modes, misfit=1.06).verdict == NOT


def test_a_misfit_that_may_be_chance_is_none():
    assert replace(GOOD, misfit=1.06).verdict == NOT
    assert replace(GOOD, misfit=1.06, misfit_chance=0.03).verdict == HOLD


@pytest.fixture(scope="module")
def small():
    """(Problem, Result, truth) of a known probe: 25 frames of 16 x 16."""
    truth = complex_object(texture((40, 40)), texture((40, 40), 1))
    probe = defocused_aperture((16, 16), radius=5, defocus=4)
    made = simulate(truth, probe, raster(5, 4), noise="poisson", mean_counts=1e5)
    problem = Problem.from_dataset(made.dataset)
    found = reconstruct(
        problem, "pie", passes=60, probe=made.probe, backend="numpy", judge=False, say=None
    )
    return problem, found, made


def test_what_is_drawn_of_frames_is_in_the_data_of_a_twin_and_is_not_told(small):
    problem, found, _ = small
    host, noise = get_backend("numpy"), noise_of(problem)
    rng = np.random.default_rng(0)
    plain = Unknowns(object=found.object[None])
    dose = 0.2 * rng.standard_normal(len(problem)).astype(np.float32)
    dark = np.full((1, *problem.frame_shape), 30, np.float32)
    moved = problem.positions + 0.7 * rng.standard_normal((len(problem), 2))

    def light(**own):
        drawn = replace(plain, **own)
        data = twin_data(problem, found, found.object, drawn, noise, host, 1)
        assert np.array_equal(data.corners, problem.corners)
        assert data.log_scale is None
        return (data.amplitude.astype(float) ** 2).sum(axis=(1, 2))

    before = light()
    assert light(log_scale=dose) / before == pytest.approx(np.exp(2 * dose), rel=0.02)
    assert (light(background=dark) - before).mean() == pytest.approx(30 * 256, rel=0.1)
    there = (
        twin_data(problem, found, found.object, replace(plain, positions=p), noise, host, 1)
        for p in (problem.positions, moved)
    )
    same, other = (each.amplitude for each in there)
    still = twin_data(problem, found, found.object, plain, noise, host, 1).amplitude
    assert np.abs(same - still).mean() < 0.02 * np.abs(other - still).mean()


def test_a_draw_of_all_that_is_free_is_kept(small):
    problem, found, _ = small
    free = ("object", "probe", "positions", "dose", "background")
    bars = laplace(
        *(problem, found.object, found.probe), update=free, draws=4, refine=1, backend="numpy"
    )
    assert bars.sample.names == ("object", "probe", "positions", "log_scale", "background")
    assert bars.sample.background.shape == (1, *problem.frame_shape)
    off = bars.sample.positions - problem.positions
    assert 0.2 < np.sqrt((off**2).mean()) / np.median(bars.positions_std) < 5


@pytest.mark.parametrize("refine", [False, True])
def test_laplace_is_checked_and_corrected(small, refine):
    problem, found, _ = small
    way = {"draws": 4, "backend": "numpy", "seed": 2, "propose": False, "refine": refine}
    plain = error_bars(problem, found, "laplace", twin=False, **way)
    tried = error_bars(problem, found, "laplace", twin=True, **way)
    assert "verdict" not in plain.settings["error_bars"]
    assert tried.settings["error_bars"]["verdict"] in (HOLD, UNTOLD)
    assert np.array_equal(tried.object, plain.object)
    # one factor for all pixels, and near 1 where bars are right
    ratio = tried.object_std / plain.object_std
    assert np.ptp(ratio) < 1e-5 * ratio.mean()
    assert 0.8 < ratio.mean() < 1.25


def test_laplace_is_checked_unasked_where_that_is_quick(small, monkeypatch):
    problem, _, _ = small
    assert make_method("laplace").checks(problem)
    assert not make_method("laplace", limit=60.0).checks(problem)
    assert make_method("laplace", limit=60.0, twin=True).checks(problem)
    assert not make_method("laplace", twin=False).checks(problem)
    monkeypatch.setattr(methods, "QUICK", problem.amplitude.size - 1)
    assert not make_method("laplace").checks(problem)


def test_bars_of_a_wrong_model_do_not_hold(small):
    _, _, made = small
    light = made.dataset.patterns.mean()
    rng = np.random.default_rng(2)
    more = rng.poisson(made.dataset.patterns + 0.1 * light)
    worse = Problem.from_dataset(replace(made.dataset, patterns=more.astype(np.uint32)))
    start = reconstruct(
        worse, "pie", passes=60, probe=made.probe, backend="numpy", judge=False, say=None
    )
    how = error_bars(
        *(worse, start, "laplace"), twin=True, refine=True, draws=4, backend="numpy"
    ).settings["error_bars"]
    assert how["verdict"] == NOT
    assert "do not rely" in how["reason"]


def test_halves_and_a_twin_are_one_too_many(small):
    problem, found, _ = small
    with pytest.raises(PtychonError, match=r"leave out halves .* or twin"):
        error_bars(problem, found, "laplace", twin=True, halves="positions", backend="numpy")


@pytest.mark.parametrize("at", ["checking: optimum", "checking: sampling", "optimum"])
def test_ctrl_c_leaves_bars_but_no_check_that_was_cut_off(small, at):
    """A twin whose way to the optimum ends halfway says nothing of the data's bars."""
    problem, found, _ = small

    pressed = []

    def tell(what, done, total):
        if what.startswith(at) and not pressed:
            pressed.append(what)
            raise KeyboardInterrupt

    method = make_method("laplace", update=("object",), refine=True, twin=True, draws=4)
    _, bars = with_bars(problem, found, method, "numpy", tell, Path("none.h5"))
    assert pressed
    assert not bars.verdict
    assert np.isfinite(bars.object_std).all()
    if at == "optimum":
        assert bars.stopped
    else:
        assert any("not checked on a twin: it was stopped" in c for c in bars.conditional)


def test_ctrl_c_in_the_proposals_keeps_the_bars(small):
    problem, found, _ = small

    def tell(what, done, total):
        if what == "what else to free":
            raise KeyboardInterrupt

    method = make_method("laplace", update=("object",), refine=True, twin=False, draws=4)
    _, bars = with_bars(problem, found, method, "numpy", tell, Path("none.h5"))
    assert bars.stopped
    assert not bars.gains
