"""Error bars with what all frames share free beside object and probe: the distance of a near field,
the variations of a probe. Against dense inverses whose derivatives are difference quotients of
intensities that are written out here.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.model.noise import Noise
from ptychon.model.problem import Problem
from ptychon.model.propagators import FarField, NearField
from ptychon.model.unknowns import Unknowns
from ptychon.uncertainty import laplace
from ptychon.uncertainty.choose import learned_by, wanted
from ptychon.uncertainty.optimum import DISTANCE_SPREAD, Work, weight_spread

#: Six frames of 8 x 8, and the phase of the near field at the distance that is stated.
SIDE = 8
Q2 = np.add.outer(*2 * [np.fft.fftfreq(SIDE) ** 2])
PHASE = -6 * np.pi * Q2


def light_of(x, corners, near):
    """Counts that are expected; x of a near field has its distance."""
    probes = np.repeat(x.probe[None, 0], len(corners), axis=0)
    if x.variations is not None:
        probes = probes + np.tensordot(x.weights, x.variations, 1)
    seen = np.array([x.object[0, y : y + SIDE, c : c + SIDE] for y, c in corners])
    waves = np.fft.fft2(probes * seen, norm="ortho")
    if near:
        waves = np.fft.ifft2(np.exp(1j * (1 + x.distance[0]) * PHASE) * waves, norm="ortho")
    return np.abs(waves) ** 2


@functools.cache
def scene(near, longer=0.0):
    """The truth, and a problem whose data are what is expected of it."""
    rng = np.random.default_rng(3)
    r = np.arange(SIDE) - SIDE // 2
    beam = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / 8) * np.exp(0.05j * r[None] ** 2)
    if near:
        beam = beam * np.exp(0.8j * rng.standard_normal((SIDE, SIDE)))
    beam *= 60 / np.linalg.norm(beam)
    y, x = (a.ravel() for a in np.meshgrid([0, 3], [0, 3, 6], indexing="ij"))
    corners = np.stack([y, x], axis=1)
    shape = SIDE + 4, SIDE + 7
    object = (1 + 0.3 * rng.standard_normal(shape)) * np.exp(0.5j * rng.standard_normal(shape))
    truth = Unknowns(object=object[None], probe=beam[None])
    if near:
        truth.distance = np.array([longer])
    else:
        truth.variations = (beam * r[None])[None] / 3
        truth.weights = np.array([[0.2], [-0.3], [0.1], [0.25], [-0.15], [0.05]])
    phase = {"propagator": NearField.through(PHASE) if near else FarField()}
    problem = Problem(
        amplitude=np.sqrt(light_of(truth, corners, near)).astype(np.float32),
        mask=np.ones((1, SIDE, SIDE), bool),
        corners=corners.astype(np.int32),
        shifts=np.zeros((1, 2), np.float32),
        shift_index=np.zeros(6, np.int32),
        object_shape=shape,
        counting=True,
        variations=None if near else truth.variations.astype(np.complex64),
        weights=None if near else truth.weights.astype(np.float32),
        **phase,
    )
    return problem, truth


def lit():
    """Where errors are compared: the inner pixels."""
    region = np.zeros((SIDE + 4, SIDE + 7), bool)
    region[3:-3, 3:-3] = True
    return region


def dense(near, update):
    """The normal matrix of all that is free, with the priors of `laplace`, and the record whose
    vector it is of.
    """
    problem, truth = scene(near)
    free = truth.only(update)

    def light(v):
        x = truth.zeros().axpy(1, truth).axpy(1, free.from_vector(v))
        return light_of(x, problem.corners, near).ravel()

    n, h = free.vector().size, 1e-5
    J = np.stack([(light(h * u) - light(-h * u)) / (2 * h) for u in np.eye(n)], axis=1)
    weight = {
        "object": 2 / float(np.mean(np.abs(truth.object[0][lit()]) ** 2)),
        "probe": 2 / float((np.abs(truth.probe) ** 2).max()),
        "distance": DISTANCE_SPREAD**-2,
    }
    if not near:
        weight["weights"] = float(weight_spread(truth.weights)[0]) ** -2
        weight["variations"] = 2 / float((np.abs(truth.variations) ** 2).max())
    prior = np.concatenate([np.full(free.only([u]).vector().size, weight[u]) for u in free.names])
    return J.T @ (J / light(np.zeros(n))[:, None]) + np.diag(prior), free


def held(N, free, point):
    """The covariance, the gauge of a point held as it holds it."""
    for i in range(len(next(point.H.gauge.each())[1])):
        rows = Unknowns(**{name: array[i] for name, array in point.H.gauge.each()})
        g = free.zeros().axpy(1, rows).vector()
        N = N + point.H.stiffness * np.outer(g, g)
    return np.linalg.inv(N)


def point_of(near, update):
    """The curvature of `laplace` at the truth, and the directions that no data tell."""
    problem, truth = scene(near)
    chosen, whole = get_backend("numpy"), np.ones(problem.object_shape, bool)
    S = float(np.mean(np.abs(truth.object[0][lit()]) ** 2))
    work = Work(problem.to(chosen), chosen, update, S, lit(), whole)
    return work.at(work.start(truth.object[0], truth.probe), Noise("poisson")), work.gauge


@pytest.mark.parametrize(
    ("near", "more"),
    [
        (True, ("distance",)),
        (True, ("probe", "distance")),
        (False, ("probe", "variations")),
        (False, ("probe", "variations", "weights")),
    ],
)
def test_variances_are_those_of_the_dense_inverse(near, more):
    """Of pixels of the object after alignment, and of the distance, to 1e-3."""
    update = ("object", *more)
    N, free = dense(near, update)
    point, gauge = point_of(near, update)
    C, n = held(N, free, point), 2 * lit().size
    G = np.stack([np.stack([g.real, g.imag], -1).ravel() for g in gauge.object], axis=1)
    seen = np.repeat(lit().ravel(), 2)[:, None] * G
    M = np.eye(n) - G @ np.linalg.pinv(G.T @ seen, rcond=1e-10) @ seen.T
    rows = [np.pad(M[i], (0, len(C) - n)) for i in np.flatnonzero(np.repeat(lit(), 2))[3::20]]
    rows += [np.eye(len(C))[-1]]
    for row in rows:
        v = free.from_vector(row).astype("single")
        x = point.solved(point.x.zeros(update).axpy(1, v), 1e-5, 2000).x
        assert float(v.dot(x)) == pytest.approx(row @ C @ row, rel=1e-3)


def test_the_bar_of_a_distance_is_that_of_the_dense_inverse():
    """Of `laplace` itself, to 1e-3, and wider bars of the object."""
    problem, truth = scene(True)
    options = {"refine": 0, "averaged": False, "region": lit(), "backend": "numpy", "draws": 2}
    for more in ((), ("probe",)):
        update = ("object", *more, "distance")
        found = laplace(problem, truth.object[0], truth.probe, update=update, **options)
        N, free = dense(True, update)
        C = held(N, free, point_of(True, update)[0])
        assert found.longer == pytest.approx(1, abs=1e-6)
        assert found.longer_std == pytest.approx(C[-1, -1] ** 0.5, rel=1e-3)
        assert "distance to the detector (within 10 %)" in found.conditional[2]
    inner = slice(0, 2 * lit().size)
    known = np.linalg.inv(N[inner, inner])
    assert np.trace(C[inner, inner]) > 1.003 * np.trace(known)
    held_at = laplace(problem, truth.object[0], truth.probe, update=("object",), **options)
    assert held_at.longer is held_at.longer_std is held_at.path is None
    assert "distance to the detector" in held_at.conditional[3]


def test_a_wrong_distance_is_found_with_its_bar():
    """Stated 4 % too short, 6000 counts a pixel, the probe known: within four bars of the truth,
    and in m, where held it does not fit.
    """
    problem, truth = scene(True, 0.04)
    rng = np.random.default_rng(0)
    counts = rng.poisson(100 * problem.amplitude.astype(float) ** 2)
    problem = replace(problem, amplitude=np.sqrt(counts).astype(np.float32))
    # Phi = -6 pi q^2 is that of 0.06 m
    problem = replace(problem, wavelength=1e-10, pixel_size=(1e-6, 1e-6))
    assert problem.path == pytest.approx(0.06, rel=1e-6)
    options = {"backend": "numpy", "draws": 4, "refine": 8, "averaged": False}
    start = problem, truth.object[0], 10 * truth.probe
    free = laplace(*start, update=("object", "distance"), **options)
    stuck = laplace(*start, update=("object",), **options)
    assert abs(free.longer - 1.04) < 4 * free.longer_std < 0.005
    assert free.path == pytest.approx(0.06 * free.longer)
    assert free.path_std == pytest.approx(0.06 * free.longer_std)
    assert stuck.chi2 > 2 > 1.7 > free.chi2


def test_variations_have_bars_of_their_own():
    problem, truth = scene(False)
    update = ("object", "probe", "variations", "weights")
    options = {"draws": 2, "refine": 0, "averaged": False, "region": lit(), "backend": "numpy"}
    found = laplace(problem, truth.object[0], truth.probe, update=update, **options)
    assert found.variations_std.shape == (1, SIDE, SIDE)
    assert 0 < np.median(found.variations_std) < np.abs(truth.variations).max()
    assert found.weights_std.shape == (6, 1)
    assert "weights of 1 variations of the probe, variations of the probe" in found.conditional[2]
    assert "mixing of the variations" in found.conditional[-2]
    held_at = laplace(problem, truth.object[0], truth.probe, update=update[:2], **options)
    assert held_at.variations_std is None
    assert "variations of the probe" in held_at.conditional[3]


def test_what_cannot_be_free_is_refused_with_what_can():
    far, truth = scene(False)
    near = scene(True)[0]
    for problem, update, words in (
        (far, ("object", "distance"), "it is a scale of the scan, which free positions hold"),
        (far, ("object", "variations"), "free the probe too"),
        (near, ("object", "probe", "variations"), "this result has none"),
        (
            replace(near, propagator=NearField(near.propagator.free)),
            ("object", "distance"),
            "make it with NearField.through",
        ),
    ):
        with pytest.raises(PtychonError, match=words):
            laplace(problem, truth.object[0], truth.probe, update=update)


def test_what_a_run_has_found_is_free():
    """A probe that varies, and a distance; variations only with the probe."""
    none = {"positions_given": None, "log_scale": None, "background": None, "options": {}}
    found = SimpleNamespace(engine="ml", weights=1, distance=1.02, **none)
    names = ("object", "probe", "variations", "weights", "distance")
    assert learned_by(found) == names
    assert wanted(found, {"probe": False}) == ("object", "weights", "distance")
    assert wanted(found, {"distance": False}) == names[:-1]
