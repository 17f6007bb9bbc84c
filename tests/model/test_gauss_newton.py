"""Unknowns of single frames eliminated exactly, and the Gauss-Newton operator, against dense
matrices of a tiny scan.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _device import device_backend

from _flat import Flat
from _problems import distance, make_case
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.model import gauss_newton
from ptychon.model.detector import blur, hats
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.frames import Eliminated, columns, components, put_rows, rows
from ptychon.model.gauss_newton import GaussNewton, poisson
from ptychon.model.noise import Noise
from ptychon.model.solve import solve
from ptychon.model.unknowns import Unknowns
from ptychon.testing import FRAME, scene

OWN = ("positions", "log_scale", "weights")
PRIOR = Unknowns(
    object=np.array(2.0),
    probe=np.array(0.5),
    variations=np.array(0.7),
    background=np.array(0.1),
    positions=np.array([[4.0, 9.0]]),
    log_scale=np.array([25.0]),
    weights=np.array([[1.0, 2.0]]),
)


def tiny(slices=1, near=False, masked=True):
    """Six frames with everything unknown, a blur and masked pixels."""
    s = scene(slices, 2, 2, near=near)
    mask = s.rng.random((6, *FRAME)) > 0.15
    detector = replace(s.model.detector, spread=blur(FRAME, 0.8), mask=mask if masked else None)
    return replace(s, model=replace(s.model, detector=detector), frames=slice(0, 6))


def jacobian(s, names):
    """d lambda/d x, a column for each real number of the unknowns named."""
    view, zero = s.model.view(s.x, s.frames), s.x.zeros(names)
    unit = np.eye(zero.vector().size)
    return np.stack(
        [s.model.intensity_tangent(view, zero.from_vector(u)).ravel() for u in unit], axis=1
    )


def prior_of(s, names):
    """Its precision for each real number."""
    ones = s.x.only(names).map(
        lambda a: np.ones_like(a) * (1 + 1j) if np.iscomplexobj(a) else np.ones_like(a)
    )
    return ones.times(PRIOR).vector()


def normal_matrix(s, update, own):
    """The whole normal matrix, and how many of its rows belong to `update`."""
    light = s.model.intensity(s.model.view(s.x, s.frames))
    W = (poisson(light) * s.model.detector.valid(s.frames)).ravel()
    J = (
        np.concatenate([jacobian(s, update), jacobian(s, own)], axis=1)
        if own
        else jacobian(s, update)
    )
    n = s.x.only(update).vector().size
    prior = np.concatenate([prior_of(s, update), prior_of(s, own)]) if own else prior_of(s, update)
    return (J.T * W) @ J + np.diag(prior), n


@pytest.mark.parametrize(
    ("own", "near"), [(("positions",), True), (("log_scale",), False), (OWN, True)]
)
def test_what_is_left_is_the_schur_complement(own, near):
    s, update = tiny(1, near), ("object", "probe", "variations", "background")
    whole, n = normal_matrix(s, update, own)
    schur = whole[:n, :n] - whole[:n, n:] @ np.linalg.solve(whole[n:, n:], whole[n:, :n])
    H = GaussNewton(s.model, s.x, update, own, prior=PRIOR)
    for _ in range(3):
        d = s.direction(update)
        assert distance(H(d).vector(), schur @ d.vector()) < 1e-12
        assert distance(schur @ d.vector(), whole[:n, :n] @ d.vector()) > 1e-6


def test_a_step_solves_for_everything_that_is_free(monkeypatch):
    s, update = tiny(), ("object", "probe")
    whole, n = normal_matrix(s, update, OWN)
    monkeypatch.setattr(gauss_newton, "BLOCK_BYTES", 4 * s.x.probe.nbytes)
    for keep in (True, False):
        H = GaussNewton(s.model, s.x, update, OWN, prior=PRIOR, keep=keep)
        assert len(H.blocks()) == 2
        g = s.direction((*update, *OWN))
        step = H.step(g, tolerance=1e-12, iterations=2000)
        expected = -np.linalg.solve(
            whole, np.concatenate([g.only(update).vector(), g.only(OWN).vector()])
        )
        assert distance(step.only(update).vector(), expected[:n]) < 1e-8
        assert distance(step.only(OWN).vector(), expected[n:]) < 1e-8


def test_unknowns_of_frames_may_also_be_left_in():
    """In the vector or eliminated: the same solution."""
    s, update = tiny(), ("object",)
    g = s.direction((*update, "positions", "log_scale"))
    out = GaussNewton(s.model, s.x, update, ("positions", "log_scale"), prior=PRIOR)
    one = out.step(g, 1e-12, 2000)
    other = GaussNewton(s.model, s.x, (*update, "positions", "log_scale"), prior=PRIOR).step(
        g, 1e-12, 2000
    )
    assert distance(one.vector(), other.vector()) < 1e-8


def test_noise_has_the_covariance_of_the_normal_matrix():
    """Variance along random directions and along single unknowns, 600 draws: within five of its
    standard deviations.
    """
    s, update = tiny(), ("object", "probe")
    whole, _ = normal_matrix(s, update, OWN)
    H, rng = GaussNewton(s.model, s.x, update, OWN, prior=PRIOR), np.random.default_rng(1)
    order = [*update, *OWN]
    draws = np.stack(
        [
            np.concatenate([g.only([n]).vector() for n in order])
            for g in (H.noise(rng) for _ in range(600))
        ]
    )
    directions = np.concatenate(
        [rng.standard_normal((4, whole.shape[0])), np.eye(whole.shape[0])[[-1, -14, -20, 3]]]
    )
    for v in directions:
        ratio = ((draws @ v) ** 2).mean() / (v @ whole @ v)
        assert abs(ratio - 1) < 5 * np.sqrt(2 / 600), ratio


def test_the_gradient_is_that_of_the_likelihood():
    """Of lambda - n log lambda over valid pixels, by a difference quotient along each unknown."""
    s, names = tiny(), ("object", "probe", "background", *OWN)
    n = s.rng.poisson(s.model.intensity(s.model.view(s.x, s.frames))) + 3.0
    H = GaussNewton(s.model, s.x, names[:3], names[3:], prior=PRIOR)
    g = H.gradient(lambda light, frames: 1 - n[frames] / light, s.x.times(PRIOR).only(names))

    def energy(x):
        light = s.model.intensity(s.model.view(x, s.frames))
        data = np.where(s.model.detector.valid(s.frames), light - n * np.log(light), 0).sum()
        return data + 0.5 * float(x.only(names).dot(x.times(PRIOR)))

    for name in names:
        d = s.direction([name])
        slope = (energy(s.x.axpy(1e-5, d)) - energy(s.x.axpy(-1e-5, d))) / 2e-5
        assert float(g.dot(d)) == pytest.approx(slope, rel=1e-6), name


def test_the_diagonal_is_exact_for_one_mode_of_a_thin_object_in_the_far_field():
    """Windows on whole pixels; half the trace of the two rows of a complex number."""
    s, names = (
        scene(1, 1, 2, between=False),
        ("object", "probe", "variations", "background", "log_scale", "weights"),
    )
    s = replace(s, frames=slice(0, 6))
    diagonal = GaussNewton(s.model, s.x, names, prior=PRIOR).diagonal()
    for name in names:
        whole, _ = normal_matrix(s, (name,), ())
        expected, found = np.diag(whole), getattr(diagonal, name).ravel()
        if np.iscomplexobj(getattr(s.x, name)):
            expected = expected.reshape(-1, 2).mean(axis=1)
        assert distance(found, expected) < 1e-12, name


def test_it_helps_to_precondition():
    """After 30 iterations on a scan with many counts the error, in the norm of H, is smaller: 0.38
    against 0.62.
    """
    case, update = make_case(subpixel=True, modes=2), ("object", "probe")
    x = unknowns_of(case.problem, case.true_object, 30 * case.true_probe)
    prior = Unknowns(object=np.array(2.0), probe=np.array(2e-4))
    H, rng = (
        GaussNewton(Model.of(case.problem, get_backend("reference")), x, update, prior=prior),
        np.random.default_rng(0),
    )
    b = H.noise(rng)
    truth = solve(H, b, H.diagonal(), 1e-6, 1000).x

    def error(diagonal):
        e = solve(H, b, diagonal, 0.0, 30).x.axpy(-1, truth)
        return float(e.dot(H(e)) / truth.dot(H(truth))) ** 0.5

    assert error(H.diagonal()) < 0.7 * error(b.map(lambda a: np.ones(a.shape)))


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("background", [0.0, 2.0])
def test_products_are_those_of_the_error_bars(modes, background):
    """The curvature that the bars are made of, known and unknown probe, masks, with counts and a
    background.
    """
    case = make_case(subpixel=True, modes=modes, masks="each")
    problem = replace(
        case.problem,
        counting=True,
        noise_variance=None,
        amplitude=np.sqrt(np.round(case.problem.amplitude**2)),
    )
    if background:
        problem = problem.with_background(background)
    backend, rng = get_backend("reference"), np.random.default_rng(0)
    model, x = Model.of(problem, backend), unknowns_of(problem, case.object, case.probe)
    for update in (("object",), ("object", "probe")):
        H = GaussNewton(model, x, update)
        d = x.only(update).map(
            lambda a: (rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape)).astype(
                a.dtype
            )
        )
        noise, free = (
            Noise("poisson", background=problem.background if background else 0.0),
            "probe" in update,
        )
        old = Flat(problem, case.object, case.probe, noise, backend, free)
        expected = old.product(old.pack(d.object[0], d.probe))
        ours = H(d)
        assert distance(old.pack(ours.object[0], ours.probe), expected) < 1e-5


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("update", [("object",), ("object", "probe"), ("probe",)])
@pytest.mark.parametrize("own", [(), ("positions", "log_scale")])
def test_one_kernel_is_the_whole_model(backend, update, own):
    """Two modes, masks, doses and places between pixels: the product of the kernel in single
    precision against the model in double precision, which uses none.
    """
    case = make_case(subpixel=True, modes=2, masks="each")
    rng = np.random.default_rng(7)
    doses = (0.3 * rng.standard_normal(len(case.problem))).astype(np.float32)
    problem = replace(case.problem, log_scale=doses)
    x = unknowns_of(problem, case.object, case.probe)
    x.positions[:] += 0.2 * rng.standard_normal(x.positions.shape)
    prior = Unknowns(positions=np.array([4.0, 9.0]), log_scale=np.float32(25.0))
    device = get_backend(backend, threads=3) if backend == "numpy" else get_backend(backend)
    H = GaussNewton(Model.of(problem, device), x, update, own, prior=prior)
    plain = Model.of(problem, get_backend("reference"))
    whole = GaussNewton(plain, x.astype("double"), update, own, prior=prior)
    assert H.fuses
    assert not whole.fuses
    for _ in range(2):
        d = x.only(update).map(
            lambda a: (rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape)).astype(
                a.dtype
            )
        )
        assert distance(H(d).vector(), whole(d.astype("double")).vector()) < 3e-6


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize(
    ("near", "update"),
    [
        (True, ("object", "probe")),
        (True, ("object",)),
        (False, ("object", "variations")),
        (False, ("probe", "background")),
        (True, ("object", "probe", "variations", "background")),
    ],
)
def test_one_kernel_knows_free_space_variations_and_a_background(near, update, between, backend):
    """With two modes, positions, doses and weights eliminated, on three threads."""
    s, rng = scene(1, 2, 2, near=near, between=between), np.random.default_rng(8)
    detector = s.model.detector
    if between:
        detector = replace(detector, between=hats(s.x.background.shape, 3.0, centred=not near))
        s.x.background = 0.5 + rng.random((3, 3))
    model = replace(s.model, detector=detector)
    device = get_backend(backend, threads=3) if backend == "numpy" else get_backend(backend)
    own = ("positions", "log_scale", "weights") if between else ("log_scale", "weights")
    prior = Unknowns(log_scale=np.float32(25.0), weights=np.array([1.0, 4.0], np.float32))
    H = GaussNewton(model.to(device), s.x.astype("single").to(device), update, own, prior=prior)
    whole = GaussNewton(model, s.x, update, own, prior=prior)
    assert H.fuses
    assert not whole.fuses
    for _ in range(2):
        d = s.direction(update)
        wanted = whole(d)
        found = H(d.astype("single").to(device))
        assert distance(found.vector(), wanted.vector()) < 1e-5
        assert np.array_equal(H(d.astype("single").to(device)).vector(), found.vector())
        for name in update:
            one, other = getattr(found, name), getattr(wanted, name)
            assert distance(one, other) < 2e-5, name


def test_what_the_kernel_does_not_know_goes_without_it():
    """Slices, a point spread, double precision: products of arrays."""
    blurred = scene()
    blurred = replace(
        blurred,
        model=replace(
            blurred.model, detector=replace(blurred.model.detector, spread=blur((8, 7), 1.0))
        ),
    )
    for s in (scene(2), blurred):
        x = s.x.astype("single")
        assert not GaussNewton(s.model, x, ("object", "probe")).fuses
    assert not GaussNewton(scene().model, scene().x, ("object",)).fuses
    assert GaussNewton(scene().model, scene().x.astype("single"), ("object",)).fuses


def test_rows_of_frames_go_there_and_back():
    s = tiny()
    assert components(s.x, OWN) == [
        ("positions", 0),
        ("positions", 1),
        ("log_scale", 0),
        ("weights", 0),
        ("weights", 1),
    ]
    frames = np.array([4, 0])
    numbers = rows(s.x, OWN, frames, np)
    assert np.array_equal(numbers[1], [*s.x.positions[0], s.x.log_scale[0], *s.x.weights[0]])
    out = s.x.zeros(OWN)
    put_rows(numbers, OWN, frames, out)
    assert np.array_equal(rows(out, OWN, frames, np), numbers)
    assert not out.positions[[1, 2, 3, 5]].any()


def test_what_all_frames_share_cannot_be_eliminated():
    s = tiny()
    with pytest.raises(
        PtychonError,
        match=r"'probe' is not an unknown of each frame.*those are positions, log_scale, weights",
    ):
        GaussNewton(s.model, s.x, ("object",), ("probe",))


def test_on_a_device_and_in_single_precision():
    """As on a GPU, where arrays of the host must not come in between."""
    s, update = tiny(2, near=True), ("object", "probe")
    truth = GaussNewton(s.model, s.x, update, OWN, prior=PRIOR)
    g = s.direction((*update, *OWN))
    expected, d = truth.step(g, 1e-9, 1000), s.direction(update)
    device = device_backend()
    model, x = s.model.to(device), s.x.astype("single").to(device)
    H = GaussNewton(model, x, update, OWN, prior=PRIOR.to(device))
    assert (
        distance(H(d.astype("single").to(device)).on_host(device).vector(), truth(d).vector())
        < 1e-5
    )
    step = H.step(g.astype("single").to(device), 1e-5, 1000).on_host(device)
    assert distance(step.vector(), expected.vector()) < 1e-3
    H.noise(np.random.default_rng(0))
    view = model.view(x, slice(0, 2))
    assert columns(model, view, OWN).shape == (2, 5, *FRAME)
    assert Eliminated.of(model, view, model.intensity(view), ()).inverse is None
