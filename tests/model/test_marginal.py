"""The operator of error bars against a dense matrix, whose derivatives are difference quotients of
intensities that are written out here: double precision, everything free that can be.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from _problems import distance
from ptychon.backends import get_backend
from ptychon.kernels import marginal as specified
from ptychon.metrics.ambiguities import gauge_of
from ptychon.model.detector import Detector
from ptychon.model.forward import Model
from ptychon.model.marginal import Marginal
from ptychon.model.problem import Problem
from ptychon.model.propagators import FarField, NearField, spectrum_phase
from ptychon.model.solve import solve
from ptychon.model.unknowns import Unknowns
from ptychon.uncertainty.background import columns_of

#: Six frames of 6 x 6, two modes, one variation.
SIDE, DARK = 6, 3.0
OWN = ("positions", "log_scale", "weights")
PRIOR = Unknowns(
    object=0.3,
    probe=0.02,
    positions=0.25,
    log_scale=4.0,
    variations=0.05,
    weights=9.0,
    background=0.1,
    distance=2.0,
)
#: h^4 of the difference quotients.
STEP = 2e-3


def shared(near):
    """What all frames share, in the order of `Unknowns`."""
    return ("object", "probe", "variations", "background") + (("distance",) if near else ())


def everything(near):
    """All that is free, in the same order."""
    names = ("object", "probe", "positions", "log_scale", "variations", "weights", "background")
    return names + (("distance",) if near else ())


@functools.cache
def scene(near=False):
    """The truth, the corners of the windows, and the propagator."""
    rng = np.random.default_rng(3)
    r = np.arange(SIDE) - SIDE // 2
    first = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / 5) * np.exp(0.05j * r[None] ** 2)
    probe = 30 * np.stack([first, 0.4 * first * (r[:, None] + 0.3j * r[None])])
    y, x = (a.ravel() for a in np.meshgrid([0, 2], [0, 2, 4], indexing="ij"))
    corners = np.stack([y, x], axis=1)
    shape = SIDE + 3, SIDE + 5
    unknowns = Unknowns(
        object=((1 + 0.3 * rng.standard_normal(shape)) * np.exp(0.5j * rng.standard_normal(shape)))[
            None
        ],
        probe=probe,
        positions=corners + SIDE // 2 + rng.uniform(-0.4, 0.4, (6, 2)),
        log_scale=0.05 * rng.standard_normal(6),
        variations=(probe[:1] * r[None, :, None]) * 0.3,
        weights=0.1 * rng.standard_normal((6, 1)),
        background=np.zeros((1, 4)),
        distance=np.array([0.03]) if near else None,
    )
    phase = spectrum_phase((SIDE, SIDE), (1.0, 1.0), 0.1, 60.0)
    return unknowns, corners, NearField(np.exp(1j * phase), phase=phase) if near else FarField()


def columns():
    """Four images of a background."""
    return columns_of("smooth", (SIDE, SIDE)).astype(float)[[0, 1, 5, 6]]


def waves_of(x, corners, propagator):
    """At the detector, (N, K, P, Q)."""
    q, half = np.fft.fftfreq(SIDE), SIDE // 2
    f = x.positions - corners - half
    ramp = np.exp(-2j * np.pi * (q[:, None] * f[:, 0, None, None] + q * f[:, 1, None, None]))[
        :, None
    ]
    P = np.repeat(x.probe[None], len(corners), axis=0)
    P[:, 0] += np.tensordot(x.weights, x.variations, 1)
    P = np.exp(x.log_scale)[:, None, None, None] * np.fft.ifft2(np.fft.fft2(P) * ramp)
    O = np.array([x.object[0, y : y + SIDE, c : c + SIDE] for y, c in corners])
    wave = np.fft.fft2(P * O[:, None], norm="ortho")
    if propagator.free is None:
        return wave
    longer = 0.0 if x.distance is None else x.distance[0]
    H = np.exp(1j * (1 + longer) * propagator.phase)
    return np.fft.ifft2(H * ramp.conj() * wave, norm="ortho")


@functools.cache
def dense(near=False, spread=False):
    """The normal matrix in the order of `everything`, with and without its prior, and the weights:
    rho, C and sigma.
    """
    x, corners, propagator = scene(near)
    names = everything(near)
    waves = waves_of(x, corners, propagator)
    light = (abs(waves) ** 2).sum(axis=1) + DARK
    root = 1 / np.sqrt(light)
    radial = 2 * waves * root[:, None]
    across = np.random.default_rng(1).uniform(0, 1, light.shape) if spread else None
    free = x.only(names)

    def seen(v):
        y = x.zeros().axpy(1, x).axpy(1, free.from_vector(v))
        image = np.tensordot(y.background[0], columns(), 1)
        w = waves_of(y, corners, propagator)
        along = (radial.conj() * w).real.sum(axis=1) + root * image
        parts = [along.ravel()]
        if across is not None:
            w = np.sqrt(across)[:, None] * w
            parts += [w.real.ravel(), w.imag.ravel()]
        return np.concatenate(parts)

    h = STEP * np.concatenate(
        [np.full(x.only([n]).vector().size, 1.0 if n == "probe" else 0.5) for n in names]
    )
    # of rho* w + sigma db, which is what A is the square of: derivatives of w alone, rho held
    J = np.stack(
        [
            (8 * (seen(a) - seen(-a)) - (seen(2 * a) - seen(-2 * a))) / (12 * a.sum())
            for a in np.diag(h)
        ],
        axis=1,
    )
    prior = np.concatenate(
        [np.full(x.only([n]).vector().size, float(getattr(PRIOR, n))) for n in names]
    )
    return J.T @ J + np.diag(prior), J.T @ J, (radial, across, root)


def operator(near, spread, precision="double", backend="reference"):
    x, corners, propagator = scene(near)
    x = x.astype(precision)
    problem_corners = corners.astype(np.int32)
    chosen = get_backend(backend)
    model = Model(corners=problem_corners, backend=chosen, detector=Detector(propagator))
    weights = [
        None
        if a is None
        else a.astype(x.probe.dtype if a.dtype.kind == "c" else x.probe.real.dtype)
        for a in dense(near, spread)[2]
    ]
    images = columns().astype(x.probe.real.dtype)
    prior = PRIOR.only(everything(near)).map(lambda n: np.asarray(n, x.probe.real.dtype))
    return Marginal(model, x, shared(near), OWN, *weights, prior, images)


def places(x, near):
    """Where each unknown is in a vector of all."""
    at, where = 0, {}
    for name in everything(near):
        size = x.only([name]).vector().size
        where[name] = np.arange(at, at + size)
        at += size
    return where


def schur(N, x, near):
    """What is left of the normal matrix for what is shared."""
    where = places(x, near)
    s, o = (np.concatenate([where[n] for n in names]) for names in (shared(near), OWN))
    return N[np.ix_(s, s)] - N[np.ix_(s, o)] @ np.linalg.solve(N[np.ix_(o, o)], N[np.ix_(o, s)]), s


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("near", [False, True])
def test_it_is_the_schur_complement(near, spread):
    """To 1e-9, products and the diagonal of the object."""
    N, x, H = dense(near, spread)[0], scene(near)[0], operator(near, spread)
    left, s = schur(N, x, near)
    like, rng = x.only(shared(near)), np.random.default_rng(0)
    v = rng.standard_normal(len(s))
    assert distance(H(like.from_vector(v)).vector(), left @ v) < 1e-9
    halves = np.diag(left)[: 2 * x.object.size].reshape(-1, 2).mean(axis=1)
    assert distance(H.diagonal().object.ravel(), halves) < 1e-9


@pytest.mark.parametrize("near", [False, True])
def test_solved_it_gives_the_inverse_of_everything(near):
    """A column of each kind of unknown, to 1e-8."""
    N, x, H = dense(near, True)[0], scene(near)[0], operator(near, True)
    names = everything(near)
    C, free = np.linalg.inv(N), x.only(names)
    size, where = len(N), places(x, near)
    for name in names:
        i = where[name][len(where[name]) // 3]
        rhs, u = H.reduced(free.from_vector(np.eye(size)[i]))
        found = solve(H, rhs, H.diagonal(), 1e-13, 3000)
        own, _ = H.frames(found.x, u)
        assert distance(found.x.axpy(1, own).only(names).vector(), C[:, i]) < 1e-8


def test_noise_has_the_covariance_of_everything():
    """400 draws along two random directions: within five standard deviations."""
    N, H = dense(False, True)[0], operator(False, True)
    rng = np.random.default_rng(2)
    draws = np.array([H.noise(rng).only(everything(False)).vector() for _ in range(400)])
    for v in rng.standard_normal((2, len(N))) / np.sqrt(np.diag(N)):
        ratio = ((draws @ v) ** 2).mean() / (v @ N @ v)
        assert abs(ratio - 1) < 5 * np.sqrt(2 / 400)


@pytest.mark.parametrize("near", [False, True])
def test_what_moved_waves_ask_for_is_the_gradient_of_their_square(near):
    """Of 1/2 |A^1/2 (z(x + d) - z(x), db)|^2, by all that is free, along random directions."""
    H, rng, names = operator(near, True), np.random.default_rng(6), everything(near)

    def random(size):
        size = size * np.abs(scene(near)[0].only(names).vector()).mean()
        step = size * rng.standard_normal(len(dense(near, True)[0]))
        return H.x.only(names).from_vector(step)

    def half(d):
        there = H.x.axpy(1, d)
        moved = ((b, H.model.view(there, b).waves - H.waves(b)) for b in H.blocks())
        return sum(0.5 * float(H.taken(b, wave, d).sum()) for b, wave in moved)

    d = random(1e-2)
    for h in (random(1e-6) for _ in range(3)):
        slope = (half(d.axpy(1, h)) - half(d.axpy(-1, h))) / 2
        assert slope == pytest.approx(float(H.pulled(d).dot(h)), rel=1e-5)


@pytest.mark.parametrize("near", [False, True])
def test_the_compiled_product_is_the_specified_one(near):
    """In single precision, with and without what may be missing."""
    H, rng = operator(near, True, "single", "numpy"), np.random.default_rng(4)
    d = H.zeros().map(lambda a: rng.standard_normal(a.shape).astype(a.dtype))
    image = H.image(d.background)
    bare = H.seen._replace(across=None, root=None, own_images=None, own=H.seen.own[:, :0])
    known = bare._replace(weights=None)
    both = np.concatenate([d.probe, d.variations])
    for seen, P, dark in (
        (H.seen, both, image),
        (H.seen, None, None),
        (bare, both, None),
        (known, d.probe, None),
    ):
        given = d.object[0], P, dark, H.x.object[0], seen
        for threads in (1, 3):
            one = H.model.backend.kernels.marginal(*given, threads)
            for a, b in zip(one, specified.marginal(*given), strict=True):
                assert (a is None) == (b is None)
                assert a is None or distance(a, b) < 1e-5


def gauge_at(x, corners, propagator, *free):
    """What is called a gauge, everywhere on the object."""
    problem = Problem(
        amplitude=np.ones((6, SIDE, SIDE), np.float32),
        mask=np.ones((1, SIDE, SIDE), bool),
        corners=corners.astype(np.int32),
        shifts=np.zeros((1, 2), np.float32),
        shift_index=np.zeros(6, np.int32),
        object_shape=x.object.shape[1:],
        propagator=propagator,
    )
    whole = np.ones(x.object.shape[1:], bool)
    return gauge_of(problem, x.object[0], x.probe, True, whole, whole, *free)


def seen_change(x, corners, propagator, step):
    """Change of the counts that are expected, for a step of length 1 in units of the probe's."""

    def light(h):
        waves = waves_of(x.zeros().axpy(1, x).axpy(h, step), corners, propagator)
        return (abs(waves) ** 2).sum(axis=1)

    h = 1e-5
    change = np.linalg.norm(light(h) - light(-h)) / (2 * h)
    return change / (2 * np.linalg.norm(x.probe) * np.linalg.norm(step.vector()))


def exact_directions(x, corners, propagator, gauge):
    """Names of the directions that are called exact, each tried: what frames have of their own
    follows by what is written out here.
    """
    at = (corners + SIDE // 2 - np.array(x.object.shape[1:]) // 2) / max(x.object.shape)
    doses = {"all doses": -np.ones(6)}
    doses |= {f"gradient of doses along {a}": -at[:, i] for i, a in enumerate("yx")}
    M, found = x.weights.shape[1], []
    follow = {"all weights of a variation": iter(-np.eye(M)[:, None, :] * np.ones((6, 1)))}
    # V_l gets V_m, and c_jm loses c_jl
    units = np.eye(M * M).reshape(-1, M, M)
    follow["mixing of the variations"] = iter(-(x.weights @ Y) for Y in units)
    for i, name in enumerate(gauge.names):
        step = Unknowns(
            object=gauge.object[i][None],
            probe=gauge.probe[i],
            variations=None if gauge.variations is None else gauge.variations[i],
            log_scale=doses.get(name, np.zeros(6)),
            weights=next(follow[name]) if name in follow else np.zeros((6, M)),
        )
        if gauge.exact[i]:
            assert seen_change(x, corners, propagator, step) < 1e-9, name
            found.append(name)
    return found


@pytest.mark.parametrize("near", [False, True])
def test_what_is_called_a_gauge_changes_no_frame(near):
    """Counts by the model that is written out here: all K^2 mixings of two modes, a gradient of
    doses, mean weights, mixings of variations. On whole pixels, where a shift of the probe is no
    question.
    """
    x, corners, propagator = scene(near)
    rng = np.random.default_rng(5)
    x = x.zeros().axpy(1, x)
    x.positions[:] = corners + SIDE // 2
    x.variations = 3 * (
        rng.standard_normal((2, SIDE, SIDE)) + 1j * rng.standard_normal((SIDE, SIDE))
    )
    x.weights = 0.1 * rng.standard_normal((6, 2))
    moves = 0 if near else 2
    # of a probe that varies by known images the first mode is none of several alike
    gauge = gauge_at(x, corners, propagator, False, True, x.variations, True)
    assert len(gauge.names) == len(gauge.object) == 1 + 4 + 1 + 2 + moves + 1 + 2 + 2
    found = exact_directions(x, corners, propagator, gauge)
    assert found == ["global phase", "all doses", *["all weights of a variation"] * 2]
    # where these are free they follow, but no mixing with another mode does
    gauge = gauge_at(x, corners, propagator, False, True, x.variations, True, True)
    found = exact_directions(x, corners, propagator, gauge)
    assert found.count("mixing of the variations") == 4
    assert found.count("mixing of the modes") == 1
    assert {"phase of the probe", "scale", "ramp along x", "gradient of doses along y"} <= set(
        found
    )
    x.weights[:] = 0
    gauge = gauge_at(x, corners, propagator, False, True)
    found = exact_directions(x, corners, propagator, gauge)
    assert found.count("mixing of the modes") == 3
    assert len(found) == 1 + 4 + 1 + 2 + 1 + 2
    # and one that is none
    assert seen_change(x, corners, propagator, Unknowns(object=x.object)) > 1e-3
