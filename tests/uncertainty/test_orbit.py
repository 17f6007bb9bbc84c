"""Directions along which all data are equal: what they are, and that no step moves along them."""

from __future__ import annotations

import numpy as np
import pytest

from _scenes import small_texture
from ptychon import reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.residual import illumination
from ptychon.model.noise import noise_of, told
from ptychon.model.problem import Problem
from ptychon.uncertainty import steps
from ptychon.uncertainty.laplace import laplace
from ptychon.uncertainty.optimum import Work, solved
from ptychon.uncertainty.orbit import answers
from ptychon.uncertainty.steps import refined


@pytest.fixture(scope="module")
def scan():
    made = small_texture()
    problem = Problem.from_dataset(made.dataset)
    return problem, reconstruct(problem, "rpie", passes=40, backend="numpy", judge=False, say=None)


def at(scan, *free):
    problem, found = scan
    backend, problem = get_backend("numpy"), told(problem, None, "auto", None)
    touched = illumination(problem, found.probe) > 0
    lit = touched & (illumination(problem, found.probe) > 1e-2)
    work = Work(problem.to(backend), backend, ("object", "probe", *free), 0.5, lit, touched)
    start = work.start(found.object, found.probe)
    return work, work.at(start, noise_of(problem, "auto", None))


@pytest.mark.parametrize(("free", "number"), [((), 1), (("log_scale",), 4)])
def test_no_data_tell_a_step_along_an_orbit(scan, free, number):
    """The scale, and with free doses all of these and two gradients: moduli change by the square of
    a step alone.
    """
    _, point = at(scan, *free)
    assert len(point.equal) == number
    (_, before), *_ = point._all_waves(point.x)
    for i in range(number):
        step = point.equal.direction(i)
        changes = []
        for length in (0.1, 1e-2):
            (_, after), *_ = point._all_waves(point.x.axpy(length, step))
            changes.append(np.abs(abs(after) - abs(before)).max() / abs(before).max())
        assert changes[0] < 2e-2
        assert changes[1] < 0.05 * changes[0]


@pytest.mark.parametrize("free", [(), ("log_scale",)])
def test_a_step_is_newtons_under_the_constraint(scan, free):
    """d with heavy d = 0 and H d = g - heavy^T factors: uphill by d^T H d, and nothing where g asks
    for the orbit alone.
    """
    _, point = at(scan, *free)
    held = answers(point, 1e-3, 300)
    gradient = point.gradient()
    newton = point.solved(gradient, 1e-4, 400).x
    step = point.equal.without(newton, held)
    most = np.abs([point.equal.along(newton), point.equal.along(step)]).max(axis=1)
    assert most[1] < 1e-4 * max(most[0], 1)
    assert float(gradient.dot(step)) > 0
    for h in held:
        nothing = point.equal.without(h, held)
        assert float(nothing.norm()) < 1e-4 * float(h.norm())


def test_the_pull_is_the_gradient_of_an_optimum(scan, monkeypatch):
    """At the optimum under the constraint, priors pull along the orbit, and nothing is left beside
    that.
    """
    monkeypatch.setattr(steps, "ENOUGH", 5e-3)
    work, point = at(scan)
    drawn = solved(work, point, [(1, 0, s) for s in range(2)], 3e-2)
    begun = point.gradient()
    assert work.pull.left(point, begun) is begun
    point, remains = refined(work, point, 20, drawn, ())
    assert remains.worst < 0.1
    gradient = point.gradient()
    left = work.pull.left(point, gradient)

    def size(g):
        return float(g.dot(g.times(point.diagonal.map(lambda d: 1 / d))))

    assert size(left) < 0.1 * size(gradient) < 0.1 * size(begun)
    again, _ = refined(work, point, 1, drawn, ())
    moved = again.x.only(work.free).axpy(-1, point.x.only(work.free))
    assert abs(point.equal.along(moved)[0]) < 1e-3 * float(moved.norm() * point.equal.row(0).norm())


def test_a_learned_prior_does_not_draw_the_object_after_itself(scan):
    """Its power stays what it was; without the constraint it falls to 0.89 of it here."""
    problem, found = scan
    bars = laplace(problem, found.object, found.probe, prior="learned", draws=4, backend="numpy")
    lit = illumination(problem, found.probe) > 0.5
    before, after = (float((abs(o[lit]) ** 2).mean()) for o in (found.object, bars.object))
    assert after == pytest.approx(before, rel=0.03)
