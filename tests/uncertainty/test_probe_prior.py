"""The prior of a probe that was learned: what it learns from powers that are known, as an operator,
in H, and on a dim scan whose beam leaves half of its window dark.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from _problems import normal
from _scenes import small_texture
from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illumination
from ptychon.model.noise import noise_of
from ptychon.uncertainty import laplace, optimum
from ptychon.uncertainty.joint import lit_region
from ptychon.uncertainty.optimum import Work
from ptychon.uncertainty.probe_prior import BRIGHT, LEAST, Plane, ProbePrior, power, spectrum

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of, made_probe

SHAPE = (2, 20, 24)


def complex_field(seed, shape=SHAPE):
    return normal(np.random.default_rng(seed), shape).astype(np.complex64) * np.float32(2**0.5)


def real_dot(a, b):
    return float((a.conj() * b).real.sum())


@pytest.fixture
def prior():
    """Of two modes, dark in the outer half of the window and at high frequencies."""
    y, x = (np.indices(SHAPE[1:]).T - np.array([10, 12])).T
    bright = np.exp(-(y**2 + x**2) / 30)
    far = np.fft.ifftshift(np.exp(-(y**2 + x**2) / 50))
    probe = 30 * np.fft.ifft2(far * np.fft.fft2(bright * complex_field(1)))
    errors = [complex_field(s) for s in (2, 3)]
    return ProbePrior.learned(get_backend("numpy"), probe, errors)


def test_planes_say_where_the_light_is(prior):
    middle, corner = (10, 12), (0, 0)
    for plane, lit, dark in ((prior.window, middle, corner), (prior.far, corner, middle)):
        assert plane.precision[lit] == 0
        assert 0.3 < plane.precision[dark] * plane.noise[dark] < 1 / LEAST
    assert "of its window" in prior.sentence()


def test_a_bright_pixel_has_no_prior_and_a_dark_one_that_of_its_light():
    N = np.full(4, 2.0)
    S = np.array([1e3, 2 * BRIGHT, 3.0, 0.0])
    plane = Plane.learned(S + N, N, None)
    known = np.maximum(1 / np.maximum(S, LEAST * N) - 1 / (BRIGHT * N), 0)
    np.testing.assert_allclose(plane.precision, known)
    assert not plane.precision[:2].any()


def test_what_was_learned_is_learned_again_under_its_own_prior():
    """The power of an optimum is less by what the prior has taken of it, and that of draws too."""
    N, S = np.full(3, 2.0), np.array([50.0, 5.0, 3.0])
    first = Plane.learned(S + N, N, None)
    known = 1 / (1 + first.precision * N)
    again = Plane.learned((S + N) * known**2, N * known, first)
    np.testing.assert_allclose(again.precision, first.precision, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(again.noise, N)
    np.testing.assert_allclose(again.measured, S + N)


def test_a_plane_keeps_what_it_does_not_see_any_more():
    """Under a prior with ten times the precision of the data, an optimum tells nothing of them."""
    N = np.full(2, 2.0)
    first = Plane.learned(np.array([2.0, 2.1]), N, None)
    known = 1 / (1 + first.precision * N)
    assert (known < 0.1).all()
    again = Plane.learned(np.array([40.0, 0.0]), 1.02 * N * known, first)
    np.testing.assert_allclose(again.precision, first.precision)


def test_the_precision_is_symmetric_and_positive(prior):
    a, b = (complex_field(s) for s in (4, 5))
    assert real_dot(a, prior(b)) == pytest.approx(real_dot(prior(a), b), rel=1e-4)
    assert real_dot(a, prior(a)) > 0


def test_draws_have_the_precision_for_their_covariance(prior):
    a = complex_field(6)
    rng = np.random.default_rng(7)
    seen = [real_dot(a, prior.noise(rng)) ** 2 for _ in range(600)]
    assert np.mean(seen) == pytest.approx(real_dot(a, prior(a)), rel=0.2)


def test_the_diagonal_is_that_of_single_pixels(prior):
    for at in ((0, 3, 4), (1, 10, 12)):
        one = np.zeros(SHAPE, np.complex64)
        one[at] = 1
        diagonal = np.broadcast_to(prior.diagonal, SHAPE)
        assert real_dot(one, prior(one)) == pytest.approx(float(diagonal[at]), rel=1e-3)


def test_systems_are_near_its_inverse(prior):
    """Eigenvalues of what conjugate gradients see lie closer together than by the diagonal."""
    light, n = 2.0, int(np.prod(SHAPE[1:]))
    one = ProbePrior(prior.backend, prior.window, prior.far, 1)
    eye = np.eye(n, dtype=np.complex64).reshape(n, 1, *SHAPE[1:])
    H = np.array([(one(e) + np.float32(light) * e).ravel() for e in eye])
    near = np.array([one.inverse(e, light).ravel() for e in eye])
    np.testing.assert_allclose(near, near.conj().T, atol=1e-4 * abs(near).max())
    spread = []
    for inverse in (near, np.diag(1 / (light + np.asarray(one.diagonal)).ravel())):
        values = np.linalg.eigvals(inverse.astype(complex) @ H).real
        assert values.min() > 0
        spread.append(values.max() / values.min())
    assert spread[0] < 0.7 * spread[1]


@pytest.mark.parametrize("free", [(), ("log_scale",)], ids=["compiled", "with doses"])
def test_the_curvature_holds_the_prior(free):
    """In its product, its gradient and its energy, with object and probe alone and with unknowns of
    frames.
    """
    made = small_texture()
    problem, backend = Problem.from_dataset(made.dataset), get_backend("numpy")
    touched = illumination(problem, made.probe) > 0
    work = Work(problem.to(backend), backend, ("object", "probe", *free), 0.5, touched, touched)
    x, noise = work.start(made.object, made.probe), noise_of(problem, "auto", None)
    without = work.at(x, noise)
    shape = x.probe.shape
    errors = [5e-3 * abs(x.probe).max() * complex_field(s, shape) for s in (1, 2)]
    work.beam = ProbePrior.learned(backend, x.probe, errors)
    point = work.at(x, noise)
    p, step = x.probe.astype(complex), complex_field(3, shape)
    pressed = work.beam(x.probe)
    assert point.energy() - without.energy() == pytest.approx(
        0.5 * real_dot(p, pressed), rel=1e-2, abs=1e-6 * abs(without.energy())
    )
    pull = (point.gradient().probe - without.gradient().probe).astype(complex)
    assert abs(pull - pressed).max() < 1e-3 * abs(without.gradient().probe).max()
    d = x.zeros(point.H.zeros().names)
    d.probe = step
    point.H.gauge = without.H.gauge = None
    change = point.H(d).axpy(-1, without.H(d))
    np.testing.assert_allclose(
        change.probe, work.beam(step), atol=1e-4 * abs(without.H(d).probe).max()
    )
    assert abs(change.object).max() < 1e-4 * abs(without.H(d).object).max()


def test_a_dim_scan_with_a_dark_window_is_sharper_for_it(monkeypatch):
    """A beam of 0.4 of the window at 3 counts a pixel: outside of it the probe has a third of the
    light, and the object is better.
    """
    cell = Cell("power-1.5", False, frame=32, side=6, step=4.0, dose=3e3)
    data, truth, _ = dataset_of(cell, 1, made_probe(32, 0.2))
    problem = Problem.from_dataset(data)
    start = reconstruct(problem, "rpie", passes=150, backend="numpy", judge=False, say=None)
    lit = lit_region(problem, start)
    y, x = np.indices((32, 32)) - 16
    outside = np.hypot(y, x) > 10
    errors, dark = [], []
    for prior in (True, False):
        if not prior:
            monkeypatch.setattr(optimum.ProbePrior, "learned", lambda *rest: None)
        bars = laplace(
            *(problem, start.object, start.probe), prior="learned", draws=4, backend="numpy"
        )
        laid = align(bars.object, truth.astype(np.complex64), region=lit, subpixel=True)
        errors.append(float((abs(laid.estimate - truth)[lit] ** 2).mean()))
        light = abs(bars.probe[0]) ** 2
        dark.append(float(light[outside].mean() / light.max()))
        assert any("prior of the probe" in fact for fact in bars.conditional) == prior
    assert dark[0] < dark[1] / 3
    assert errors[0] < 0.98 * errors[1]


def test_powers_are_kept_in_the_far_field():
    a = complex_field(8)
    assert power(spectrum(a), "wrap").sum() == pytest.approx(power(a, "wrap").sum(), rel=1e-4)
