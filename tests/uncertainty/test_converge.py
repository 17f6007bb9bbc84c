"""Steps from the joint posterior to the optimum, on data of the second simulator: what the passes
leave is taken away, and what remains is said.
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
from ptychon.metrics.ambiguities import unseen, without_unseen
from ptychon.metrics.residual import illumination, residual
from ptychon.model.noise import noise_of
from ptychon.run.progress import silent
from ptychon.uncertainty.converge import converged
from ptychon.uncertainty.joint import begun_anew
from ptychon.uncertainty.twin import FAR, Twin

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of

CELL = Cell("power-2", False, frame=24, side=6, step=3.5, dose=2e5)


@pytest.fixture(scope="module")
def scan():
    return dataset_of(CELL, 3)


@pytest.fixture(scope="module")
def passed(scan):
    """A few passes of the joint posterior from the truth, and its problem."""
    data, truth, probe = scan
    start = {"object": truth.astype(np.complex64), "probe": probe[None].astype(np.complex64)}
    more = {"burn_in": 4, "draws": 2, "draw_iterations": 15}
    problem = Problem.from_dataset(data)
    found = reconstruct(
        problem, "joint", passes=6, backend="numpy", judge=False, update={"probe": True},
        **start, **more,
    )  # fmt: skip
    return problem, found


def to_optimum(problem, found):
    return converged(
        problem,
        found,
        free_probe=True,
        noise=noise_of(problem, "auto", None),
        draws=6,
        backend=get_backend("numpy"),
        seed=0,
        tell=silent,
    )


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


def test_a_coarse_error_of_the_mean_is_taken_away(passed):
    """A smooth phase that the object has gained: from there the steps lead where they lead without
    it.
    """
    problem, found = passed
    y, x = np.mgrid[: len(found.object), : len(found.object)] / len(found.object)
    wrong = found.object * np.exp(0.05j * np.cos(4 * y + 3 * x))
    off = replace(found, object=wrong.astype(np.complex64))
    one, remains = to_optimum(problem, found)
    two, _ = to_optimum(problem, off)
    taper = taper_of(illumination(problem, found.probe), np)
    names, host = unseen(False, True), get_backend("numpy")

    def distance(a, b):
        gap = without_unseen((a - b).astype(np.complex64), one.object, taper, names, host)
        bars = (taper * one.object_std**2).sum()
        return float((taper * abs(gap) ** 2).sum() / bars) ** 0.5

    assert distance(found.object, off.object) > 1.0
    assert distance(one.object, two.object) < 0.3
    assert remains.rounds > 1
    assert remains.worst < FAR
    assert "bars" in remains.sentence()
    assert one.draws.shape == (6, *found.object.shape)


def test_the_twin_begins_as_the_data_did(scan):
    problem = Problem.from_dataset(scan[0])
    start = reconstruct(problem, "rpie", passes=12, backend="numpy", judge=False)
    again = begun_anew(problem, start, True, get_backend("numpy"))
    assert again is not None
    assert np.array_equal(again.object, start.object)
    later = reconstruct(problem, "rpie", passes=3, start=start, backend="numpy", judge=False)
    assert begun_anew(problem, later, True, get_backend("numpy")) is None


def test_bars_of_a_mean_that_has_not_converged_do_not_hold():
    covered = (0.5, 0.683, 0.9, 0.95, 0.99)
    good = Twin(temperature=1.0, covered=covered, misfit=1.0, assumed=0.0, error_db=30.0, anew=True)
    assert good.holds
    assert "begun anew" in good.sentence()
    assert "0.20 bars from" in replace(good, remains=0.2).sentence()
    far = replace(good, remains=0.5)
    assert not far.holds
    assert "not converged" in far.sentence()
