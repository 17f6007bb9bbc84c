"""Information, score and energy as functions of the expected counts: against the noise model of one
wave, and derivatives.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _flat import Flat
from _problems import distance, make_case
from ptychon.backends import get_backend
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.gauss_newton import GaussNewton
from ptychon.model.noise import Likelihood, Noise, noise_of

KINDS = ("poisson", "background", "amplitude", "anscombe")


def problem_and_noise(kind, case):
    if kind == "amplitude":
        return case.problem, Noise("amplitude", case.problem.noise_variance)
    counted = np.sqrt(np.round(case.problem.amplitude**2))
    problem = replace(case.problem, counting=True, noise_variance=None, amplitude=counted)
    if kind == "background":
        problem = replace(problem, read_noise=0.5).with_background(1.3)
    return problem, noise_of(problem, "amplitude" if kind == "anscombe" else "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_energy_and_products_are_those_of_the_error_bars(kind):
    case, backend = make_case(subpixel=True, modes=2, masks="each"), get_backend("reference")
    problem, noise = problem_and_noise(kind, case)
    old = Flat(problem, case.object, case.probe, noise, backend)
    likelihood = Likelihood(problem, noise)
    model, x = Model.of(problem, backend), unknowns_of(problem, case.object, case.probe)
    H = GaussNewton(model, x, ("object", "probe"), information=likelihood.information)
    g = H.gradient(likelihood.score)
    assert distance(old.pack(g.object[0], g.probe), old.gradient()) < 1e-4
    d = x.only(("object", "probe"))
    product = H(d)
    assert (
        distance(
            old.pack(product.object[0], product.probe), old.product(old.pack(d.object[0], d.probe))
        )
        < 1e-5
    )
    every = slice(None)
    light = model.intensity(model.view(x, every))
    valid = np.broadcast_to(model.detector.valid(every), light.shape)
    assert likelihood.energy(light, every)[valid].sum(dtype=float) == pytest.approx(
        old.energy(), rel=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_slope_of_the_energy_and_the_information_its_mean_slope(kind):
    case = make_case(side=3)
    problem, noise = problem_and_noise(kind, case)
    likelihood, b, rng = Likelihood(problem, noise), slice(0, 9), np.random.default_rng(0)
    light = (
        problem.amplitude.astype(float) ** 2 * rng.uniform(0.7, 1.3, problem.amplitude.shape) + 2
    )
    up, down = likelihood.energy(light + 1e-4, b), likelihood.energy(light - 1e-4, b)
    assert np.allclose((up - down) / 2e-4, likelihood.score(light, b), rtol=1e-5, atol=1e-6)
    # where the data are what is expected, the score falls to 0 with the slope of the information
    noise = replace(noise, offset=0.0)
    exact = Likelihood(
        replace(
            problem, amplitude=np.sqrt(light), counts=None if problem.counts is None else light
        ),
        noise,
    )
    assert np.abs(exact.score(light, b)).max() < 1e-9
    slope = (exact.score(light + 1e-4, b) - exact.score(light - 1e-4, b)) / 2e-4
    soft = light / (light + noise.extra) if noise.kind == "poisson" else 1.0
    assert np.allclose(slope, exact.information(light, b) * soft, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_pixels_say_nothing(kind):
    """Whatever is expected there; the valid ones say what they say without a mask."""
    case = make_case(side=3, masks="each")
    problem, noise = problem_and_noise(kind, case)
    masked = Likelihood(problem, noise)
    plain = Likelihood(replace(problem, mask=np.ones_like(problem.mask)), noise)
    some, valid = np.arange(2, 7), problem.mask[2:7]
    light = np.random.default_rng(0).uniform(1, 9, valid.shape).astype(np.float32)
    assert 0 < valid.mean() < 1
    for name in ("energy", "score", "information"):
        found = getattr(masked, name)(light, some)
        assert found.dtype == np.float32
        assert np.array_equal(found[valid], getattr(plain, name)(light, some)[valid])
        assert not found[~valid].any()
