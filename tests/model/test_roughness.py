"""Priors of neighbouring pixels: their gradient, their form, and what they do for few counts."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon import PtychonError, Stage, reconstruct
from ptychon.metrics.alignment import align
from ptychon.model.problem import Problem
from ptychon.model.roughness import Roughness
from ptychon.run.constraints import constraint_of
from ptychon.simulation.phantoms import make
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate


def random(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize(("smooth", "vary"), [(0.7, 0.0), (0.0, 1.3), (0.4, 0.6)])
def test_products_are_derivatives_of_the_cost(smooth, vary):
    """The gradient against a difference quotient; the form touches the prior from above."""
    O, d = random((2, 7, 5), 1), random((2, 7, 5), 2)
    prior = Roughness(smooth, vary, 0.3, O)
    slope = float(np.vdot(prior(O), d).real)
    step = 1e-5
    quotient = float(prior.cost(O + step * d) - prior.cost(O - step * d)) / (2 * step)
    assert slope == pytest.approx(quotient, rel=1e-5)
    assert np.vdot(d, prior(O)) == pytest.approx(np.vdot(prior(d), O), rel=1e-6)
    for far in (0.1, 1.0, 3.0):
        form = far * slope + 0.5 * far**2 * float(np.vdot(d, prior(d)).real)
        assert float(prior.cost(O + far * d) - prior.cost(O)) <= form * (1 + 1e-6) + 1e-9
    ones = np.eye(70).reshape(70, 2, 7, 5)
    along = [float(np.vdot(one, prior(one)).real) for one in ones]
    np.testing.assert_allclose(prior.diagonal().ravel(), along, rtol=1e-5)
    drawn = prior.drawn(random((2, *O.shape), 3))
    assert drawn.shape == O.shape


def test_few_counts_gain_by_total_variation():
    """300 counts a frame, an object of flat parts; the scale and the misfit stay what they are."""
    y, x = np.indices((24, 24)) - 12
    waves = 0.06 * (y**2 + x**2) + 0.5 * np.sin(0.7 * x + 1) + 0.4 * np.cos(0.6 * y + 0.2 * x)
    probe = np.exp(-(y**2 + x**2) / (2 * 4.0**2) + 1j * waves)
    picture = make("cell", (64, 64), 5)
    object = ((1 - 0.1 * picture) * np.exp(0.8j * picture)).astype("c8")
    made = simulate(
        object,
        probe,
        raster(7, step=5.0, jitter=1.0, seed=2),
        noise="poisson",
        mean_counts=300,
        seed=6,
    )
    problem = Problem.from_dataset(made.dataset, object_shape=object.shape)
    errors, powers = [], []
    for variation in (0.0, 0.1):
        found = reconstruct(problem, "ml", passes=6, judge=False, say=None, variation=variation)
        inner = (slice(18, 46), slice(18, 46))
        errors.append(10 ** (-align(found.object, made.object, region=inner).error_db / 20))
        powers.append(float((np.abs(found.probe) ** 2).sum()))
    assert errors[1] < 0.9 * errors[0]
    assert powers[1] == pytest.approx(powers[0], rel=1e-3)


def test_a_constraint_names_them():
    with pytest.raises(PtychonError, match="smoothness, variation"):
        Stage("ml", 3, constraints=(constraint_of("tv:1e-3"),))
