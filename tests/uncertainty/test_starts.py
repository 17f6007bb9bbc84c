"""Two starts by different engines: whether they have ended in the same optimum."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.model.noise import noise_of
from ptychon.uncertainty.centre import energy, moved
from ptychon.uncertainty.starts import Starts, begun_otherwise, compared, differ
from ptychon.uncertainty.verdict import Twin

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of

CELL = Cell("power-1.5", False, frame=24, side=5, step=3.5, dose=2e5)


@pytest.fixture(scope="module")
def scan():
    data, _, probe = dataset_of(CELL, 5)
    problem = Problem.from_dataset(data)
    first = np.asarray(probe[None], np.complex64)
    found = reconstruct(problem, "rpie", passes=40, probe=first, backend="numpy", judge=False)
    rng = np.random.default_rng(0)
    shape = (4, *found.object.shape)
    draws = 0.02 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    found = replace(found, draws=draws.astype(np.complex64), history={"chi2": np.array([1.0])})
    lit = found.illumination > 0.5 * found.illumination.max()
    return problem, found, lit


def test_a_translation_and_a_factor_are_no_difference(scan):
    _, found, lit = scan
    away = moved(found, (0.2, -0.1))
    away = replace(away, object=(away.object * 0.9 * np.exp(0.4j)).astype(np.complex64))
    assert np.nanmax(differ(found, found, lit, False)) < 0.01
    assert np.nanmax(differ(found, away, lit, False)) < 0.2


def test_a_difference_is_told_in_bars_at_its_octave(scan):
    """A wave of a period of 3 px that is as strong as the bars are at its octave."""
    _, found, lit = scan
    x = np.arange(found.object.shape[1])
    wave = np.exp(2j * np.pi * x / 3)[None] * np.ones((len(found.object), 1))
    other = replace(found, object=(found.object + 0.05 * wave).astype(np.complex64))
    apart = differ(found, other, lit, False)
    assert apart[4] > 3 * np.nan_to_num(apart[:4]).max()
    assert apart[4] > 1.0
    double = replace(found, draws=2 * found.draws)
    assert differ(double, other, lit, False)[4] == pytest.approx(apart[4] / 2, rel=1e-3)


def test_the_better_start_is_kept(scan):
    problem, found, lit = scan
    host = get_backend("numpy")
    noise = noise_of(problem, "auto", None)
    rng = np.random.default_rng(1)
    noisy = found.object + 0.05 * rng.standard_normal(found.object.shape)
    worse = replace(found, object=noisy.astype(np.complex64))
    assert energy(problem, worse, noise, host) > energy(problem, found, noise, host)
    first, second = (
        compared(problem, *pair, lit, noise, host) for pair in ((found, worse), (worse, found))
    )
    assert (first.kept, second.kept) == ("first", "second")
    assert first.gain == pytest.approx(-second.gain)
    assert not first.agree
    assert "more" not in first.sentence()
    assert "first fits by" in first.sentence()
    # one that fits visibly worse tells nothing
    poor = replace(worse, history={"chi2": np.array([1.2])})
    assert compared(problem, found, poor, lit, noise, host).agree


def test_a_second_start_begins_by_another_engine(scan):
    problem, found, _ = scan
    host = get_backend("numpy")
    assert begun_otherwise(problem, found, host).engine != "rpie"
    dm = reconstruct(problem, "dm", passes=8, backend="numpy", judge=False)
    assert begun_otherwise(problem, dm, host).engine == "rpie"


def test_of_several_modes_the_second_start_has_one_more_and_drops_it(scan):
    """One that holds less light than those which stay."""
    problem, found, _ = scan
    rng = np.random.default_rng(2)
    second = 0.3 * np.roll(found.probe, 3, axis=2) * np.exp(1j * rng.uniform(0, 1, (1, 24, 24)))
    two = replace(found, probe=np.concatenate([found.probe, second]).astype(np.complex64))
    other = begun_otherwise(problem, two, get_backend("numpy"))
    assert len(other.probe) == 2
    assert other.settings["modes"] == 3
    power = (np.abs(other.probe) ** 2).sum(axis=(1, 2))
    assert power[0] > power[1] > 0


def test_objects_as_they_were_are_compared_again_where_the_grid_of_the_data_is(scan, monkeypatch):
    """Starts that differ about the object that was given are refused only if their optima, moved to
    the grid, differ too.
    """
    from ptychon.uncertainty import checked
    from ptychon.uncertainty.methods import Laplace

    problem, found, lit = scan
    compared_here = []

    def apart(problem, one, two, region):
        compared_here.append((one, two))
        gap = 0.9 if len(compared_here) == 1 else 0.1
        return Starts(apart=(np.nan, 0.1, 0.05, 0.02, gap), gain=-30.0, kept="first")

    monkeypatch.setattr(checked, "apart", apart)
    monkeypatch.setattr(checked, "begun_otherwise", lambda *_: found)
    way = Laplace(update=("object", "probe"), draws=4, propose=False)
    nothing = {"tell": lambda *_: None, "place": Path("nowhere")}
    _, bars = way.run(problem, found, "numpy", *nothing.values())
    twin = checked.check(problem, found, way, bars, backend="numpy", **nothing)
    assert len(compared_here) == 2
    assert twin.starts.agree
    # the second pair are optima, the first were made about the object
    (as_it_was, _), (optimum, again) = compared_here
    np.testing.assert_array_equal(optimum.object, again.object)
    assert np.linalg.norm((optimum.object - found.object)[lit]) > 0
    assert np.nanmax(differ(optimum, as_it_was, lit, False)) < 1.5


def test_bars_of_one_of_several_optima_do_not_hold():
    covered = (0.5, 0.683, 0.9, 0.95, 0.99)
    good = Twin(temperature=1.0, covered=covered, misfit=1.0, assumed=0.0, error_db=30.0, anew=True)
    same = Starts(apart=(np.nan, 0.1, 0.05, 0.02, 0.2), gain=-30.0, kept="first")
    assert replace(good, starts=same).holds
    other = replace(same, apart=(np.nan, 0.1, 0.05, 0.02, 0.9))
    bad = replace(good, starts=other)
    assert not bad.holds
    assert "do not rely" in bad.sentence()
    assert replace(good, starts=replace(other, poor=True)).holds
    assert replace(good, starts=other.in_bars(3.0)).holds
