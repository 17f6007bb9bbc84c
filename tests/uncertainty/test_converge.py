"""Steps to the optimum on data of the second simulator: what the start has wrong is taken away, and
what remains is said.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.engines.spectral_prior import taper_of
from ptychon.metrics.alignment import align
from ptychon.metrics.ambiguities import unseen, without_unseen
from ptychon.metrics.residual import illumination, residual
from ptychon.uncertainty import laplace
from ptychon.uncertainty.methods import Laplace
from ptychon.uncertainty.optimum import CONVERGED
from ptychon.uncertainty.starts import begun_anew, translated
from ptychon.uncertainty.verdict import FAR, Twin

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of

CELL = Cell("power-2", False, frame=24, side=5, step=3.5, dose=2e5)


@pytest.fixture(scope="module")
def scan():
    return dataset_of(CELL, 3)


def test_the_second_simulator_has_the_same_model(scan):
    """Counting noise alone stands between its truth and its data: R of the roots of Poisson counts,
    each with a variance of a quarter.
    """
    data, truth, probe = scan
    problem = Problem.from_dataset(data)
    found = residual(problem, truth.astype(np.complex64), probe[None].astype(np.complex64))
    bright = data.patterns > 20
    noise = 0.5 / np.sqrt(data.patterns[bright].mean() * bright.mean())
    assert 0.5 * noise < found < 1.1 * noise


def test_a_coarse_error_of_the_start_is_taken_away(scan):
    """A smooth phase that the object has gained: from there the steps lead where they lead without
    it, and say how far they are from there.
    """
    data, truth, probe = scan
    problem = Problem.from_dataset(data)
    start = truth.astype(np.complex64), probe[None].astype(np.complex64)
    y, x = np.mgrid[: len(truth), : len(truth)] / len(truth)
    wrong = (start[0] * np.exp(0.05j * np.cos(4 * y + 3 * x))).astype(np.complex64)
    options = {"prior": "learned", "draws": 2, "backend": "numpy"}
    one = laplace(problem, *start, **options)
    two = laplace(problem, wrong, start[1], **options)
    taper = taper_of(illumination(problem, start[1]), np)
    names, host = unseen(False, True), get_backend("numpy")

    def distance(a, b):
        gap = without_unseen((a - b).astype(np.complex64), one.object, taper, names, host)
        bars = (taper * one.object_std**2).sum()
        return float((taper * abs(gap) ** 2).sum() / bars) ** 0.5

    assert distance(start[0], wrong) > 1.0
    assert distance(one.object, two.object) < 0.3
    assert np.nanmax(two.remains) < FAR
    assert "bars (rms)" in two.way_left()
    assert 0 <= one.assumed < 0.5


def test_steps_go_on_to_the_optimum(scan, monkeypatch):
    """Rounds of one step each do not reach it; what then remains is above a tenth of the bars."""
    problem = Problem.from_dataset(scan[0])
    start = reconstruct(problem, "rpie", passes=40, backend="numpy", judge=False)
    options = {"draws": 2, "refine": 1, "backend": "numpy"}
    found = laplace(problem, start.object, start.probe, **options)
    assert np.nanmax(found.remains) <= CONVERGED
    monkeypatch.setattr(sys.modules["ptychon.uncertainty.laplace"], "CONVERGED", np.inf)
    short = laplace(problem, start.object, start.probe, **options)
    assert np.nanmax(short.remains) > CONVERGED


@pytest.mark.slow
def test_a_smooth_object_leaves_the_noise_that_its_run_has_fitted():
    """At few counts the way to the optimum of a white prior leads over learned spectra; straight
    from 100 passes of rPIE it ends in an optimum that is less likely, further from the truth.
    """
    data, truth, _ = dataset_of(replace(CELL, kind="power-2.5", dose=2e4), 0)
    problem = Problem.from_dataset(data)
    start = reconstruct(problem, "rpie", passes=100, backend="numpy", judge=False)
    errors = []
    for limit in (None, 1e4):
        way = Laplace(refine=True, draws=2, propose=False, limit=limit)
        assert way.by_spectra(problem) == (limit is None)
        _, bars = way.run(problem, start, "numpy", lambda *_: None, Path())
        lit = bars.region
        laid = align(bars.object, truth.astype(np.complex64), region=lit, subpixel=True)
        errors.append(laid.error_db)
    assert errors[0] > errors[1] + 0.5
    bright = Problem.from_dataset(dataset_of(replace(CELL, dose=2e5), 0)[0])
    assert not Laplace(refine=True).by_spectra(bright)


def test_the_twin_begins_as_the_data_did(scan):
    problem = Problem.from_dataset(scan[0])
    start = reconstruct(problem, "rpie", passes=12, backend="numpy", judge=False)
    again = begun_anew(problem, start, True, get_backend("numpy"))
    assert again is not None
    assert np.array_equal(again.object, start.object)
    later = reconstruct(problem, "rpie", passes=3, start=start, backend="numpy", judge=False)
    assert begun_anew(problem, later, True, get_backend("numpy")) is None


def test_the_twin_lies_elsewhere_than_its_beginning(scan):
    """A smooth probe and a smooth object are moved together: the modulus of a frame stays."""
    problem = Problem.from_dataset(scan[0])
    start = reconstruct(problem, "rpie", passes=1, backend="numpy", judge=False)
    n, size = 24, start.object.shape[0]
    y, x = np.mgrid[:n, :n] - n // 2
    probe = np.exp(-(y**2 + x**2) / 30 + 0.1j * x).astype(np.complex64)
    y, x = np.mgrid[:size, :size] / size
    truth = (0.8 + 0.2 * np.cos(11 * y + 5 * x) + 0.3j * np.sin(9 * x)).astype(np.complex64)
    moved, seen = translated(truth, replace(start, probe=probe[None]), 0)
    window = np.s_[8 : 8 + n, 9 : 9 + n]

    def frame(object, probe):
        return np.abs(np.fft.fft2(probe * object[window]))

    still, both, one = (
        frame(*pair) for pair in ((truth, probe), (moved, seen.probe[0]), (moved, probe))
    )
    assert abs(moved - truth)[window].max() > 0.02
    assert np.linalg.norm(both - still) < 0.02 * np.linalg.norm(still)
    assert np.linalg.norm(both - still) < 0.2 * np.linalg.norm(one - still)


def test_bars_of_a_mean_that_has_not_converged_do_not_hold():
    covered = (0.5, 0.683, 0.9, 0.95, 0.99)
    good = Twin(temperature=1.0, covered=covered, misfit=1.0, assumed=0.0, error_db=30.0, anew=True)
    assert good.holds
    assert "begun anew" in good.sentence()
    assert "0.20 bars from" in replace(good, remains=0.2).sentence()
    far = replace(good, remains=0.5)
    assert not far.holds
    assert "not converged" in far.sentence()


def test_a_temperature_that_may_be_chance_is_not_taken():
    twin = Twin(temperature=1.36, covered=(), misfit=1.0, assumed=0.0, error_db=30.0)
    assert twin.factor == pytest.approx(1.36)
    assert replace(twin, chance=0.16).factor == pytest.approx(1.075, abs=0.001)
    assert replace(twin, chance=0.2).factor == 1
    assert replace(twin, temperature=0.7, chance=0.2).factor == 1
    assert replace(twin, temperature=0.7, chance=0.05).factor == pytest.approx(0.733, abs=0.001)
