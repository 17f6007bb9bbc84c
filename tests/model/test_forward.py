"""The forward model against what stands elsewhere: engines and metrics of the package, whole-pixel
windows, formulas.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import distance, forward64, gpu_backend, make_case, shift64
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.engines.base import State
from ptychon.kernels import reference
from ptychon.metrics.residual import residual
from ptychon.model.detector import binning, blur
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.grid import windows
from ptychon.model.specimen import Specimen
from ptychon.model.unknowns import Unknowns
from ptychon.testing import scene

BACKENDS = ("reference", "numpy")


def backend_of(name):
    return get_backend(name, threads=1) if name == "numpy" else get_backend(name)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return backend_of(request.param)


@pytest.mark.parametrize("modes", [1, 2])
def test_waves_of_a_thin_object_are_the_formula(modes, backend):
    case = make_case(subpixel=True, modes=modes)
    problem = case.problem
    model, x = Model.of(problem, backend), unknowns_of(problem, case.object, case.probe)
    frames = np.array([3, 0, 7])
    view = model.view(x, frames)
    for i, j in enumerate(frames):
        r, c = problem.corners[j]
        psi = (
            shift64(case.probe, problem.shifts[problem.shift_index[j]])
            * case.object[r : r + 12, c : c + 9]
        )
        assert distance(model.waves(view)[i], forward64(psi, None)) < 1e-6
    assert model.waves(view).dtype == np.complex64
    assert model.intensity(view).dtype == np.float32


@pytest.mark.parametrize("masks", ["none", "shared", "each"])
def test_the_residual_is_that_of_the_metrics(masks, backend):
    case = make_case(subpixel=True, modes=2, masks=masks)
    model, x = Model.of(case.problem, backend), unknowns_of(case.problem, case.object, case.probe)
    error = signal = 0.0
    for b in (slice(0, 5), slice(5, len(case.problem))):
        valid, y = model.detector.valid(b), case.problem.amplitude[b].astype(float)
        modulus = np.sqrt(model.intensity(model.view(x, b)))
        error += (np.where(valid, modulus - y, 0) ** 2).sum()
        signal += (np.where(valid, y, 0) ** 2).sum()
    assert np.sqrt(error / signal) == pytest.approx(
        residual(case.problem, case.object, case.probe), rel=1e-6
    )


def rpie_by_the_model(model, x, problem, batch, engine):
    """One batch of rPIE, in the words of the model: the update of object and probe."""
    view, k = model.view(x, batch), reference
    wave, _ = k.modulus_projection(
        model.waves(view), problem.amplitude[batch], model.detector.valid(batch)
    )
    change = model.backend.ifft2(wave - model.waves(view))
    step = x.copy()
    for s in view.slices_back():
        to_object, to_wave = model.pull(view, s, change)
        p2, o2 = k.abs2(view.incident[s]).sum(axis=1), k.abs2(view.windows[s]).sum(axis=0)
        k.scatter_add(
            step.object[s], view.corners, engine.object_weight(p2, view.corners, k) * to_object
        )
        change = model.up(view, s, to_wave)
    model.illumination.adjoint(view, engine.probe_weight(o2) * change, probe := x.zeros(["probe"]))
    return step.axpy(1, probe)


@pytest.mark.parametrize("modes", [1, 2])
def test_an_update_of_rpie_is_that_of_the_engine(modes, backend):
    case = make_case(subpixel=True, modes=modes, masks="each")
    engine, batch = make("rpie", probe_start=0), np.array([0, 5, 6])
    wide = backend.name == "reference"
    problem = (
        replace(case.problem, amplitude=case.problem.amplitude.astype(float))
        if wide
        else case.problem
    )
    types = (complex, complex) if wide else (np.complex64, np.complex64)
    start = State(case.object.astype(types[0]), case.probe.astype(types[1]))
    x = unknowns_of(problem, start.object.copy(), start.probe.copy())
    state, _ = engine.step(start, problem, [batch], Context(backend))
    mine = rpie_by_the_model(Model.of(problem, backend), x, problem, batch, engine)
    for ours, theirs, before in (
        (mine.object[0], state.object, x.object[0]),
        (mine.probe, state.probe, x.probe),
    ):
        assert distance(theirs, before) > 1e-3
        assert distance(ours, theirs) < 1e-6
        assert distance(ours - before, theirs - before) < (1e-12 if wide else 1e-5)


@pytest.mark.parametrize("near", [False, True])
def test_a_whole_pixel_of_fraction_is_a_window_one_further(near):
    """A probe one pixel off the middle of its window sees what it sees in the middle of the next:
    no shift theorem in that.
    """
    s = scene(2, 2, near=near)
    p, q = s.x.probe.shape[-2:]
    probe = np.zeros_like(s.x.probe)
    probe[:, 2 : p - 2, 2 : q - 2] = s.x.probe[:, 2 : p - 2, 2 : q - 2]
    corners = np.array([[3, 5], [8, 2]])
    x = Unknowns(
        object=s.x.object,
        probe=probe,
        positions=corners + np.array([p // 2, q // 2]) + np.array([[1, -1], [0, 1]]),
    )
    off = replace(s.model, corners=corners, specimen=Specimen(np.ones((1, p, q))))
    at = off.follow(x)
    assert (at.corners - corners).tolist() == [[1, -1], [0, 1]]
    one, other = (np.abs(m.waves(m.view(x, slice(None)))) for m in (off, at))
    assert distance(one, other) < 1e-12
    if near:
        # the wave itself, too: the image stands where the detector is
        assert (
            distance(off.waves(off.view(x, slice(None))), at.waves(at.view(x, slice(None)))) < 1e-12
        )


def test_slices_one_after_the_other():
    """Three slices written out, and their product where nothing is between them."""
    s = scene(3, 2)
    view = s.model.view(s.x, s.frames)
    for i, j in enumerate(s.frames):
        (r, c), (p, q) = s.model.corners[j], view.shape
        f = s.x.positions[j] - s.model.corners[j] - [p // 2, q // 2]
        wave = shift64(s.x.probe, f)
        for layer, gap in zip(s.x.object, [*s.model.specimen.gaps, None], strict=True):
            wave = wave * layer[r : r + p, c : c + q]
            wave = wave if gap is None else np.fft.ifft2(np.fft.fft2(wave) * gap)
        assert distance(s.model.waves(view)[i], forward64(wave, None)) < 1e-12
    flat = replace(s.model, specimen=Specimen(np.ones((2, *view.shape))))
    thin = replace(s.model, specimen=Specimen())
    product = replace(s.x, object=s.x.object.prod(axis=0)[None])
    assert distance(flat.view(s.x, s.frames).waves, thin.view(product, s.frames).waves) < 1e-12


def test_dose_and_variations_of_each_frame():
    s = scene(1, 2, 2)
    view, x = s.model.view(s.x, s.frames), s.x
    for i, j in enumerate(s.frames):
        probe = x.probe.copy()
        probe[0] += x.weights[j, 0] * x.variations[0] + x.weights[j, 1] * x.variations[1]
        f = x.positions[j] - s.model.corners[j] - np.array(view.shape) // 2
        assert distance(view.incident[0][i], np.exp(x.log_scale[j]) * shift64(probe, f)) < 1e-12
    light = (np.abs(view.waves) ** 2).sum(axis=1)
    assert distance(s.model.intensity(view), light + x.background) < 1e-14


def test_the_background_of_a_problem_is_in_the_model():
    case = make_case(side=3)
    problem = replace(
        case.problem, counting=True, amplitude=np.round(case.problem.amplitude)
    ).with_background(0.7)
    x = unknowns_of(problem, case.object, case.probe)
    model = Model.of(problem, get_backend("reference"))
    view = model.view(x, slice(0, 4))
    assert np.allclose(
        model.intensity(view), reference.abs2(view.waves).sum(axis=1) + 0.7, rtol=1e-6
    )


def test_windows_follow_only_positions_that_left_them():
    shape, corners = (8, 7), np.array([[3, 4], [3, 4], [3, 4]], np.int32)
    positions = corners + np.array([4, 3]) + np.array([[0.74, -0.74], [0.76, 0.0], [0.2, -1.4]])
    assert (windows(positions, shape, corners) - corners).tolist() == [[0, 0], [1, 0], [0, -1]]
    assert (windows(positions, shape) - corners).tolist() == [[1, -1], [1, 0], [0, -1]]
    model = Model(corners=corners, backend=get_backend("reference"))
    x = Unknowns(
        object=np.ones((1, 20, 20), complex),
        probe=np.ones((1, *shape), complex),
        positions=positions,
    )
    moved = model.follow(x)
    assert moved.follow(x) is moved
    assert model.follow(replace(x, positions=None)) is model
    x.positions[0, 0] -= 0.3
    assert moved.follow(x) is moved


def test_a_window_beyond_the_object_is_refused():
    s = scene()
    model = replace(s.model, corners=s.model.corners + np.array([13, 0], np.int32))
    with pytest.raises(
        PtychonError,
        match=r"window of frame [142] covers pixels \[\d+, \d+\] to .* object of \(20, 19\)",
    ):
        model.view(s.x, s.frames)


def test_gaps_and_slices_must_fit():
    s = scene(3)
    with pytest.raises(
        PtychonError, match="3 slices, but the specimen 0 gaps between them; give 2"
    ):
        replace(s.model, specimen=Specimen()).view(s.x, s.frames)
    with pytest.raises(PtychonError, match=r"a gap is \(7, 8\) pixels, but a frame \(8, 7\)"):
        replace(s.model, specimen=Specimen(np.ones((2, 7, 8)))).view(s.x, s.frames)


def test_an_estimate_that_does_not_fit_the_model_is_refused():
    s = scene(1, 1, 2)
    with pytest.raises(PtychonError, match="rows for 4 frames, but the model has 6 windows"):
        s.model.view(s.x.select(slice(0, 4)), s.frames)
    with pytest.raises(PtychonError, match="variations of the probe and weights go together"):
        s.model.view(replace(s.x, weights=None), s.frames)
    with pytest.raises(PtychonError, match="the same frame twice"):
        s.model.view(s.x, np.array([1, 4, 1]))
    with pytest.raises(
        PtychonError, match=r"the background is \(3, 7\) pixels, but a frame \(8, 7\)"
    ):
        s.model.intensity(s.model.view(replace(s.x, background=s.x.background[:3]), s.frames))
    with pytest.raises(PtychonError, match="variations has P = 7, but probe has P = 8"):
        s.model.view(replace(s.x, variations=s.x.variations[:, 1:]), s.frames)


def test_only_unknowns_with_a_derivative_can_be_updated():
    s = scene()
    assert s.model.zeros(s.x, ["object", "positions"]).names == ("object", "positions")
    with pytest.raises(PtychonError, match="no unknown 'variations' in this estimate"):
        s.model.zeros(s.x, ["variations"])
    stiff = replace(s.model, illumination=s.model.specimen)
    with pytest.raises(PtychonError, match="no derivative for 'probe'"):
        stiff.zeros(s.x, ["probe"])


def test_updates_do_not_change_the_estimate():
    s = scene(2, 2, 2)
    before = s.x.copy()
    view = s.model.view(s.x, s.frames)
    out = s.model.zeros(s.x, s.x.names)
    s.model.intensity_adjoint(view, s.normal(s.model.intensity(view).shape, "real"), out)
    s.model.intensity_tangent(view, s.direction(s.x.names))
    assert all(
        np.array_equal(a, b) for (_, a), (_, b) in zip(before.each(), s.x.each(), strict=True)
    )
    assert not any(np.shares_memory(a, b) for _, a in out.each() for _, b in s.x.each())


# ---------------------------------------------------------------- point spread


def test_a_blur_is_a_gaussian_that_keeps_the_light():
    spread = blur((16, 12), (1.0, 1.5))
    point = np.zeros((1, 16, 12))
    point[0, 5, 6] = 3.0
    seen = spread.forward(point)[0]
    assert seen.sum() == pytest.approx(3.0)
    assert (seen >= 0).all()
    y, x = np.arange(16)[:, None] - 5, np.arange(12)[None] - 6
    assert distance(seen, 3 * np.exp(-(y**2) / 2 - x**2 / 4.5) / (2 * np.pi * 1.5)) < 1e-3
    assert (seen * y**2).sum() / 3 == pytest.approx(1.0, rel=1e-3)
    corner = np.roll(point, (-5, -6), (1, 2))
    assert np.allclose(spread.forward(corner)[0], np.roll(seen, (-5, -6), (0, 1)))


def test_binning_sums_cells():
    rng = np.random.default_rng(0)
    fine = rng.random((2, 12, 6))
    image = binning((12, 6), 3, centred=False).forward(fine)
    assert np.allclose(image, fine.reshape(2, 4, 3, 2, 3).sum(axis=(2, 4)))
    pattern = binning((12, 6), 3).forward(fine)
    assert pattern[0, 0, 0] == pytest.approx(fine[0][np.ix_([-1, 0, 1], [-1, 0, 1])].sum())
    both = binning((12, 6), 3).after(blur((12, 6), 1.0))
    assert np.allclose(
        both.forward(fine), binning((12, 6), 3).forward(blur((12, 6), 1.0).forward(fine))
    )


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: blur((8, 8), 0.0), "width of 0.0 px; it must be positive"),
        (lambda: blur((8, 8), float("nan")), "width of nan px"),
        (lambda: binning((8, 9), 2), "8 x 9 pixels cannot be summed by 2"),
    ],
)
def test_a_spread_that_makes_no_sense_is_refused(make_it, message):
    with pytest.raises(PtychonError, match=message):
        make_it()


# ---------------------------------------------------------------- devices


@pytest.mark.gpu
def test_a_gpu_computes_the_same():
    backend, s = gpu_backend(), scene(3, 2, 2, near=True)
    x, model = s.x.astype("single").to(backend), s.model.to(backend)
    view = model.view(x, s.frames)
    truth = s.model.view(s.x, s.frames)
    assert distance(backend.to_host(model.intensity(view)), s.model.intensity(truth)) < 1e-5
    w = s.normal(s.model.intensity(truth).shape, "real")
    out, expected = model.zeros(x, x.names), s.model.zeros(s.x, s.x.names)
    model.intensity_adjoint(view, backend.asarray(w.astype(np.float32)), out)
    s.model.intensity_adjoint(truth, w, expected)
    for (name, a), (_, b) in zip(out.on_host(backend).each(), expected.each(), strict=True):
        assert distance(a, b) < 1e-5, name
