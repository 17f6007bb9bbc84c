"""Steps to the optimum of error bars: what they are made of, and that they get on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _scenes import small_texture
from ptychon import Problem
from ptychon.backends import get_backend
from ptychon.metrics.residual import illumination
from ptychon.model.noise import noise_of
from ptychon.model.unknowns import Unknowns
from ptychon.uncertainty import steps
from ptychon.uncertainty.optimum import Work
from ptychon.uncertainty.steps import damped, refined


@pytest.fixture(scope="module")
def begun():
    """A point at the truth of 25 frames of 24 x 24, of object, probe and background."""
    made = small_texture()
    problem, backend = Problem.from_dataset(made.dataset), get_backend("numpy")
    touched = illumination(problem, made.probe) > 0
    lit = illumination(problem, made.probe) > 0.5

    def at(*free, dark=0.0):
        work = Work(problem.to(backend), backend, ("object", "probe", *free), 0.5, lit, touched)
        noise = replace(noise_of(problem, "auto", None), background=dark)
        return work, work.at(work.start(made.object, made.probe), noise)

    return at


def test_the_gradient_is_that_of_the_energy_where_a_background_would_be_negative(begun):
    """Half of the detector has none: there neither changes."""
    work, point = begun("background", dark=0.3)
    x = point.x.copy()
    x.background[0, :2] = -0.5, 2.0
    point = work.at(x, point.noise)
    none = np.asarray(point.noise_at(x).background) == 0
    assert 0.3 < none.mean() < 0.7
    for k in range(3):
        step = point.x.zeros(["background"])
        step.background[0, k] = 1
        up, down = (point.energy(x.axpy(h, step)) for h in (1e-2, -1e-2))
        slope = float(point.gradient().dot(step))
        assert slope == pytest.approx((up - down) / 2e-2, rel=0.02, abs=1)


def test_a_background_that_is_none_may_grow(begun):
    _, point = begun("background")
    assert np.abs(point.gradient().background).max() > 1


def test_a_change_of_the_gradient_is_damped_where_the_curvature_is_next_to_nothing():
    """s y = 0.2 s B s then; else it stays as it is."""
    rng = np.random.default_rng(1)
    step, other = (Unknowns(object=rng.standard_normal((1, 5, 5)) + 0j) for _ in "ab")
    other = other.axpy(-float(step.dot(other) / step.dot(step)), step)
    foretold = step.times(3.0)
    flat = other.axpy(0.01, step)
    assert float(step.dot(damped(step, flat, foretold))) == pytest.approx(
        0.2 * float(step.dot(foretold))
    )
    curved = other.axpy(0.7, step)
    assert damped(step, curved, foretold) is curved


def test_steps_forget_what_leads_uphill(begun, monkeypatch):
    """What earlier steps have shown leads a million times too far: steps go on with H alone."""
    work, point = begun()
    straight, before = steps._direction, point.energy()
    first, _ = refined(work, point, 1)
    bent = []

    def direction(work, point, gradient, pairs, tolerance):
        found = straight(work, point, gradient, [], tolerance)
        bent.append(bool(pairs))
        return found.times(1e6) if pairs else found

    monkeypatch.setattr(steps, "_direction", direction)
    monkeypatch.setattr(steps, "STILL", 1e-5)
    last, _ = refined(work, point, 6)
    assert True in bent
    assert False in bent[1:]
    assert last.energy() < first.energy() < before
