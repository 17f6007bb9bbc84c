"""The mean of a posterior beside its deepest point: what is quadratic in draws alone, what no data
tell is left out, and the light of a second mode comes out as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem
from ptychon.backends import get_backend
from ptychon.metrics.residual import illuminated, illumination
from ptychon.model.noise import noise_of
from ptychon.uncertainty import laplace, optimum
from ptychon.uncertainty.optimum import Work, solved
from ptychon.uncertainty.tilt import Tilt

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import SHARE, Cell, dataset_of, second_mode


def two_modes(seed):
    """A problem of few counts with 15 % of the light in a second mode, its object and modes."""
    cell = Cell("power-1.5", frame=20, side=5, step=2.88, dose=39 * 20**2)
    data, truth, first = dataset_of(cell, seed, jitter=1.2, fault="modes")
    probe = np.stack([first, second_mode(first) * (SHARE / (1 - SHARE)) ** 0.5])
    return Problem.from_dataset(data), truth.astype(np.complex64), probe.astype(np.complex64)


def share(probe):
    """Of the light in the second mode, however the two are mixed."""
    flat = probe.reshape(len(probe), -1).astype(complex)
    least, most = np.linalg.eigvalsh(flat @ flat.conj().T)
    return least / (least + most)


@pytest.fixture(scope="module")
def point():
    """Work, the curvature at the truth of a scan, and draws."""
    problem, truth, probe = two_modes(0)
    backend, lit = get_backend("numpy"), illuminated(problem, probe)
    S = float((abs(truth[lit]) ** 2).mean())
    touched = illumination(problem, probe) > 0
    work = Work(problem.to(backend), backend, ("object", "probe"), S, lit, touched)
    here = work.at(work.start(truth, probe), noise_of(problem, "auto", None))
    return work, here, [d.x for d in solved(work, here, [(0, s) for s in range(2)], 1e-2)]


def test_it_is_quadratic_in_the_draws(point):
    """What is linear in them cancels, so that a draw of twice the size has four times as much."""
    _, here, draws = point
    one, two = (Tilt.of(here, [d.times(size) for d in draws]).slope for size in (1, 2))
    assert float(two.axpy(-4, one).norm()) < 1e-2 * float(two.norm())


def test_what_no_data_tell_moves_nothing(point):
    _, here, draws = point
    held = here.untold.direction(0)
    size = 0.1 * float(draws[0].norm() / held.norm())
    same, other = (Tilt.of(here, [d]).slope for d in (draws[0], draws[0].axpy(size, held)))
    assert float(other.axpy(-1, same).norm()) < 1e-2 * float(same.norm())


def test_the_gradient_is_that_of_the_energy(point):
    work, here, draws = point
    work.tilt = Tilt.of(here, draws)
    tilted = work.at(here.x, here.noise)
    work.tilt = None
    step = draws[1].times(1e-2)
    change = tilted.energy(here.x.axpy(1, step)) - here.energy(here.x.axpy(1, step))
    linear = float(step.dot(tilted.tilt.slope))
    assert change == pytest.approx(linear, rel=1e-3)
    more = tilted.gradient().axpy(-1, here.gradient())
    assert float(more.axpy(-1, tilted.tilt.slope).norm()) < 1e-3 * float(more.norm())


def test_the_light_of_a_second_mode_is_what_it_was(monkeypatch):
    """Of the deepest point it is 0.87 times that of the truth, where the steps begin."""
    problem, truth, probe = two_modes(1)
    way = {"prior": "learned", "draws": 2, "backend": "numpy"}
    found = share(laplace(problem, truth, probe, **way).probe)
    monkeypatch.setattr(optimum.Tilt, "of", classmethod(lambda *_: None))
    deepest = share(laplace(problem, truth, probe, **way).probe)
    assert deepest < 0.135
    assert abs(found - SHARE) < 0.4 * abs(deepest - SHARE)
