"""Thick specimens, end to end: what several slices find, and that one slice is what it was."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import ptychon
from ptychon import PtychonError, Result
from ptychon.backends import get_backend
from ptychon.data.slices import Slices
from ptychon.engines import RPIE, Context
from ptychon.engines import slices as walking
from ptychon.metrics.residual import illuminated, residual
from ptychon.model.batch import Batch
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.gauss_newton import GaussNewton
from ptychon.model.problem import Problem
from ptychon.model.slices import transfer
from ptychon.model.unknowns import Unknowns
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.constraints.depth import Depth, even
from ptychon.run.doubts import doubts
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.run.thick import growing, in_slices
from ptychon.simulation import probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

PIXEL, WAVE = 1e-8, 1e-10
QUIET = {"judge": False, "progress": False, "say": None}


def smooth(rng, size, cut=0.12):
    f2 = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    field = np.fft.ifft2(
        np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-f2 / (2 * cut**2))
    )
    return field.real / field.real.std()


def thick(slices, far, side=6, frame=32, counts=1e6, seed=0, **more):
    """A scan of phase slices, `far` apart: wavelength x distance, in squares of the pixel."""
    rng = np.random.default_rng(seed)
    positions = raster(side, 4, jitter=1.0, seed=seed, whole=False)
    size = frame + 2 * int(np.ceil(np.abs(positions).max() + 1))
    truth = np.exp(0.5j / np.sqrt(slices) * np.stack([smooth(rng, size) for _ in range(slices)]))
    made = simulate(
        truth if slices > 1 else truth[0],
        probes.defocused_aperture((frame, frame), 6, 10),
        positions,
        noise="poisson",
        mean_counts=counts,
        seed=seed + 1,
        pixel_size=PIXEL,
        wavelength=WAVE,
        spacing=far * PIXEL**2 / WAVE if slices > 1 else None,
        **more,
    )
    return made, replace(Problem.from_dataset(made.dataset), slices=made.slices)


def correlations(found, truth, lit):
    """Of the phases of each slice with those of the truth, less constant and plane."""
    y, x = np.indices(lit.shape)
    plane = np.stack([np.ones(lit.sum()), y[lit], x[lit]], axis=1)

    def level(layer):
        phase = np.angle(layer[lit] * np.conj(layer[lit].sum()))
        return phase - plane @ np.linalg.lstsq(plane, phase, rcond=None)[0]

    return [np.corrcoef(level(a), level(b))[0, 1] for a, b in zip(found, truth, strict=True)]


# ---------------------------------------------------------------- the model


def test_frames_are_those_of_the_walk_written_out():
    """Fresnel steps in float64, slice after slice, with a tilt, against the simulation."""
    tilt = (2e-4, -1e-4)
    made, problem = thick(3, 20, side=2, tilt=tilt)
    q = np.fft.fftfreq(32, PIXEL)
    q2 = q[:, None] ** 2 + q**2
    d = made.slices.gaps[0]
    step = np.exp(-1j * np.pi * WAVE * d * q2)
    step = step * np.exp(2j * np.pi * d * (q[:, None] * np.tan(tilt[0]) + q * np.tan(tilt[1])))
    x = unknowns_of(problem, made.object, made.probe)
    model = Model.of(problem, get_backend("reference"))
    seen = model.intensity(model.view(x, slice(None)))
    f = np.fft.fftfreq(32)
    for j, (r, c) in enumerate(problem.corners):
        y, z = problem.shifts[problem.shift_index[j]]
        ramp = np.exp(-2j * np.pi * (f[:, None] * y + f * z))
        psi = np.fft.ifft2(np.fft.fft2(made.probe[0].astype(complex)) * ramp)
        for s, layer in enumerate(made.object):
            psi = psi * layer[r : r + 32, c : c + 32]
            psi = np.fft.ifft2(step * np.fft.fft2(psi)) if s < 2 else psi
        expected = np.abs(np.fft.fft2(psi, norm="ortho")) ** 2
        np.testing.assert_allclose(seen[j], expected, atol=2e-4 * expected.max())


def test_a_tilt_moves_the_wave_against_the_next_slice():
    """By -d tan(tilt), which is here two rows and one column."""
    gap = 1e-6
    slices = Slices((gap,), WAVE, (PIXEL, PIXEL), tuple(np.arctan([2e-2, 1e-2])))
    straight = replace(slices, tilt=(0.0, 0.0))
    wave = np.random.default_rng(0).standard_normal((16, 16))
    moved, free = (
        np.fft.ifft2(transfer(one, (16, 16))[0] * np.fft.fft2(wave)) for one in (slices, straight)
    )
    np.testing.assert_allclose(moved, np.roll(free, (-2, -1), (0, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("count", "given", "message"),
    [
        (3, {"spacing": None}, "3 slices need their distance"),
        (3, {"spacing": [1e-6]}, None),
        (3, {"spacing": [1e-6, 1e-6, 1e-6]}, "3 slices have 2 gaps, but 3 spacings"),
        (3, {"spacing": -1e-6}, "must be positive"),
        (1, {"spacing": 1e-6}, "slices is 1"),
        (0, {"spacing": None}, "slices is 0"),
        (2, {"spacing": 1e-6, "wavelength": None}, "need the wavelength"),
        (2, {"spacing": 1e-6, "pixel_size": None}, "need the pixel size"),
        (2, {"spacing": 1e-6, "tilt": (0.1, 2.0)}, "the tilt is"),
    ],
)
def test_slices_that_cannot_be(count, given, message):
    known = {"wavelength": WAVE, "pixel_size": (PIXEL, PIXEL)} | given
    if message is None:
        assert Slices.of(count, **known).gaps == (1e-6, 1e-6)
        return
    with pytest.raises(PtychonError, match=message):
        Slices.of(count, **known)


def test_what_holds_slices_together_is_in_product_diagonal_and_draws():
    """H with `between` less H without it is tau times the second difference; diagonal and noise
    belong to it.
    """
    made, problem = thick(3, 20, side=2)
    model = Model.of(problem, get_backend("reference"))
    x = unknowns_of(problem, made.object, made.probe)
    with_it, without = (GaussNewton(model, x, ["object"], between=t) for t in (7.0, 0.0))
    rng = np.random.default_rng(0)
    shape = made.object.shape
    d = Unknowns(object=(rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))
    d = d.astype("single")
    more = with_it(d).object - without(d).object
    o = d.object
    expected = 7 * np.stack([o[0] - o[1], 2 * o[1] - o[0] - o[2], o[2] - o[1]])
    np.testing.assert_allclose(more, expected, atol=2e-3 * np.abs(without(d).object).max())
    diagonal = with_it.diagonal().object - without.diagonal().object
    np.testing.assert_allclose(diagonal[:, 0, 0], [7, 14, 7], rtol=1e-4)
    # nothing is lit in the corner: what is drawn there is what holds slices together
    drawn = [with_it.noise(np.random.default_rng(i)).object[:, 0, 0] for i in range(400)]
    square = np.mean(np.abs(drawn) ** 2, axis=0) / 2
    np.testing.assert_allclose(square, [7, 14, 7], rtol=0.3)


# ---------------------------------------------------------------- engines


@pytest.mark.parametrize(("engine", "of_floor"), [("rpie", 1.5), ("epie", 2.5)])
def test_two_slices_are_found_and_one_does_not_do(engine, of_floor):
    made, problem = thick(2, 60)
    lit = illuminated(problem, made.probe, 0.3)
    floor = residual(problem, made.object, made.probe)
    found, thin = (
        ptychon.reconstruct(p, engine, probe=made.probe, passes=15, **QUIET)
        for p in (problem, replace(problem, slices=None))
    )
    assert found.object.shape == made.object.shape
    assert found.final_error < of_floor * floor
    assert thin.final_error > 2 * found.final_error
    assert min(correlations(found.object, made.object, lit)) > 0.95


def test_five_slices_need_one_step_for_all(monkeypatch):
    """The exact step finds them; with the full step of each, together five times what was asked,
    the run is lost.
    """
    made, problem = thick(5, 15)
    lit = illuminated(problem, made.probe, 0.3)
    floor = residual(problem, made.object, made.probe)
    engine = RPIE(object_reg=0.1, probe_start=None)
    found = ptychon.reconstruct(problem, engine, probe=made.probe, passes=12, **QUIET)
    assert found.final_error < 3.5 * floor
    assert min(correlations(found.object, made.object, lit)) > 0.65
    monkeypatch.setattr(walking, "best", lambda t, change: np.float32(1))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            lost = ptychon.reconstruct(problem, engine, probe=made.probe, passes=6, **QUIET)
        except PtychonError:  # not finite
            return
    assert not lost.final_error < 0.5


def test_ml_tells_slices_apart_that_rpie_does_not():
    made, problem = thick(3, 15, side=5)
    lit = illuminated(problem, made.probe, 0.3)
    first = ptychon.reconstruct(problem, "rpie", probe=made.probe, passes=10, **QUIET)
    ready = {"object": first.object, "probe": made.probe, "update": {"probe": False}, **QUIET}
    found = ptychon.reconstruct(problem, "ml", passes=5, iterations=25, **ready)
    before, after = (min(correlations(r.object, made.object, lit)) for r in (first, found))
    assert after > max(0.9, before)
    # slices that are held together are more alike
    held = ptychon.reconstruct(problem, "ml", passes=3, iterations=25, depth=0.1, **ready)
    apart = [np.linalg.norm(np.diff(even(r.object), axis=0)[:, lit]) for r in (found, held)]
    assert apart[1] < 0.7 * apart[0]


def test_the_step_is_the_best_along_its_direction():
    """One frame: any other length of the same step leaves a larger misfit of the exit wave."""
    made, problem = thick(4, 20)
    one, ctx = problem.select([14]), Context(get_backend("numpy"))
    start = np.ones(problem.field_shape, np.complex64)
    left = {}
    for size in (0.5, 1.0, 1.5):
        engine = RPIE(object_step=size, probe_start=None, cool_from=10**6)
        steps = iterate(one, engine, start, made.probe, ctx=ctx, schedule=Schedule())
        state = next(steps).state
        frames = Batch.of(one, ctx.backend, slice(None))
        before, after = (
            frames.exits(object, frames.probe(made.probe)) for object in (start, state.object)
        )
        wave, _ = ctx.backend.kernels.modulus_projection(
            frames.onward(before), one.amplitude, one.mask
        )
        left[size] = np.linalg.norm(frames.back(wave) - after)
    assert left[1.0] < left[0.5]
    assert left[1.0] < left[1.5]


def test_modes_and_the_near_field():
    """Two modes, and frames that are images: the misfit falls to a third."""
    rng = np.random.default_rng(0)
    positions = raster(5, 4, jitter=1.0, seed=0, whole=False)
    size = 32 + 2 * int(np.ceil(np.abs(positions).max() + 1))
    truth = np.exp(0.5j * np.stack([smooth(rng, size) for _ in range(2)]))
    beam = probes.defocused_aperture((32, 32), 7, 10)
    modes = np.stack([beam, 0.4 * beam * np.linspace(-1, 1, 32)])
    for geometry in ("far", "near"):
        made = simulate(
            truth,
            modes,
            positions,
            noise="poisson",
            mean_counts=1e6,
            pixel_size=PIXEL,
            wavelength=WAVE,
            spacing=40 * PIXEL**2 / WAVE,
            geometry=geometry,
            distance=20 * PIXEL**2 / WAVE if geometry == "near" else None,
        )
        problem = replace(Problem.from_dataset(made.dataset), slices=made.slices)
        flat = np.ones_like(made.object)
        before = residual(problem, flat, made.probe)
        found = ptychon.reconstruct(problem, "rpie", probe=made.probe, passes=15, **QUIET)
        assert found.final_error < before / 3, geometry


def test_one_slice_is_the_thin_object_bit_for_bit():
    made, _ = thick(1, 0, side=4)
    for engine, how in (("rpie", {"passes": 3}), ("ml", {"passes": 2})):
        thin, one = (
            ptychon.reconstruct(made.dataset, engine, probe=made.probe, **how, **more, **QUIET)
            for more in ({}, {"slices": 1})
        )
        assert one.slices is None
        assert np.array_equal(thin.object, one.object)
        assert np.array_equal(thin.probe, one.probe)


def test_engines_that_know_no_slices_say_who_does():
    made, problem = thick(2, 20, side=4)
    for engine in ("ep", "joint", "dm"):
        with pytest.raises(PtychonError, match=r"several slices; these do: .*rpie.*ml"):
            ptychon.reconstruct(problem, engine, probe=made.probe, passes=1, **QUIET)


# ---------------------------------------------------------------- where it begins


def test_a_thin_object_in_slices_is_the_same_thin_object():
    """Through its root, though its phase wraps; and through another number of slices."""
    y, x = np.indices((40, 40)) - 20
    thin = np.exp(3j * np.exp(-(y**2 + x**2) / 200) * 2).astype(np.complex64)
    slices = Slices.of(4, 1e-6, wavelength=WAVE, pixel_size=(PIXEL, PIXEL))
    four = in_slices(thin, slices)
    assert four.shape == (4, 40, 40)
    np.testing.assert_allclose(four.prod(axis=0), thin, atol=1e-4)
    # no edge where the phase wraps
    assert np.abs(np.diff(four, axis=1)).max() < np.abs(np.diff(thin, axis=0)).max()
    np.testing.assert_allclose(in_slices(four, slices.each(6)).prod(axis=0), thin, atol=1e-4)
    np.testing.assert_allclose(in_slices(four, None), thin, atol=1e-4)
    assert in_slices(four, slices) is four or np.array_equal(in_slices(four, slices), four)


def test_many_slices_grow():
    many = Slices.of(12, 1e-6, wavelength=WAVE, pixel_size=(PIXEL, PIXEL))
    fewer = growing(many)
    assert fewer[0] is None
    assert len(fewer[1]) == 3
    assert fewer[1].gaps[0] == pytest.approx(4e-6)
    assert growing(many.each(5)) == []
    made, _ = thick(2, 20, side=4)
    found = ptychon.reconstruct(
        made.dataset,
        slices=12,
        spacing=made.slices.gaps[0] / 6,
        probe=made.probe,
        passes=2,
        **QUIET,
    )
    assert found.object.shape[0] == 12
    assert found.passes == 2
    assert found.final_error < 0.12


def test_a_result_is_started_from_with_its_slices_and_with_others():
    made, _ = thick(2, 20, side=4)
    gap = made.slices.gaps[0]
    first = ptychon.reconstruct(
        made.dataset, slices=2, spacing=gap, probe=made.probe, passes=6, **QUIET
    )
    again = ptychon.reconstruct(made.dataset, start=first, passes=1, **QUIET)
    assert again.slices == first.slices
    assert again.errors[6] < first.errors[0]
    thin = ptychon.reconstruct(made.dataset, start=first, slices=1, passes=1, **QUIET)
    assert thin.object.ndim == 2
    three = ptychon.reconstruct(
        made.dataset, start=first, slices=3, spacing=gap / 1.5, passes=1, **QUIET
    )
    assert three.object.shape[0] == 3
    assert three.errors[6] < first.errors[0]


def test_too_long_a_gap_is_refused():
    made, _ = thick(2, 20, side=4)
    with pytest.raises(PtychonError, match="light would leave"):
        ptychon.reconstruct(made.dataset, slices=2, spacing=40 * PIXEL**2 / WAVE, **QUIET)


# ---------------------------------------------------------------- what goes on between passes


def test_the_filter_keeps_what_is_alike_and_takes_what_alternates():
    rng = np.random.default_rng(0)
    alike = np.repeat(np.exp(0.1j * smooth(rng, 32))[None], 6, axis=0).astype(np.complex64)
    np.testing.assert_allclose(Depth(1.0).filter(alike), alike, atol=1e-5)
    coarse = 0.1 * np.cos(2 * np.pi * np.arange(32) / 32)
    sign = np.array([1, -1] * 3)[:, None, None]
    stripes = np.exp(1j * sign * coarse).astype(np.complex64)
    after = Depth(1.0).filter(stripes)
    assert np.abs(np.angle(after)).max() < 0.3 * 0.1
    # fine detail is told along the depth: more of it stays
    fine = np.exp(1j * sign * 0.1 * np.cos(np.pi * np.arange(32))).astype(np.complex64)
    kept = [np.abs(np.angle(Depth(1.0).filter(part))).max() for part in (stripes, fine)]
    assert kept[1] > 3 * kept[0]


def test_constants_of_single_slices_are_evened_out_without_a_change_of_their_product():
    rng = np.random.default_rng(1)
    stack = np.exp(
        0.2j * rng.standard_normal((3, 8, 8)) + 1j * np.array([1, -2, 0.5])[:, None, None]
    )
    found = even(stack.astype(np.complex64))
    np.testing.assert_allclose(found.prod(axis=0), stack.prod(axis=0), atol=1e-5)
    assert np.ptp(np.angle(found.sum(axis=(1, 2)))) < 1e-5


def test_the_filter_needs_slices_and_an_engine_that_takes_it():
    made, problem = thick(2, 20, side=4)
    how = {"probe": made.probe, "passes": 2, **QUIET}
    with pytest.raises(PtychonError, match="there for several slices"):
        ptychon.reconstruct(made.dataset, depth_filter=1.0, **how)
    with pytest.raises(PtychonError, match="its option depth holds slices together"):
        ptychon.reconstruct(problem, "ml", depth_filter=1.0, **how)
    plain, filtered = (
        ptychon.reconstruct(problem, "rpie", **how, **more) for more in ({}, {"depth_filter": 1.0})
    )
    apart = [np.linalg.norm(np.diff(even(r.object), axis=0)) for r in (plain, filtered)]
    assert apart[1] < 0.5 * apart[0]


# ---------------------------------------------------------------- what is kept


def test_a_result_comes_back_from_its_file(tmp_path):
    made, _ = thick(3, 20, side=4, tilt=(1e-4, 2e-4))
    found = ptychon.reconstruct(
        made.dataset,
        slices=3,
        spacing=made.slices.gaps,
        tilt=made.slices.tilt,
        probe=made.probe,
        passes=1,
        **QUIET,
    )
    found.save(tmp_path / "r.h5")
    back = Result.load(tmp_path / "r.h5")
    assert back.slices == found.slices == made.slices
    assert np.array_equal(back.object, found.object)
    assert "3 slices" in repr(back)
    np.testing.assert_array_equal(back.projection, np.prod(found.object, axis=0))
    import h5py

    with h5py.File(tmp_path / "r.h5") as file:
        image = file["entry_1/image_1"]
        assert list(image.attrs["axes"]) == ["z", "y", "x"]
        np.testing.assert_allclose(image["z"], made.slices.depths)
        assert image["z"].attrs["units"] == "m"


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    made, problem = thick(2, 20, side=4)
    how = {"probe": made.probe, "depth_filter": 0.2, **QUIET}
    whole = ptychon.reconstruct(problem, passes=4, **how)
    keeper = Checkpointer(tmp_path / "c.h5", 2)
    ptychon.reconstruct(problem, passes=4, callbacks=[keeper, lambda p: p.passes == 2], **how)
    kept = load_checkpoint(tmp_path / "c.h5")
    assert kept.state["object"].shape == problem.field_shape
    on = ptychon.reconstruct(problem, passes=4, resume=kept, **how)
    assert np.array_equal(whole.object, on.object)
    assert np.array_equal(whole.probe, on.probe)


def test_error_bars_are_refused_in_a_sentence():
    made, problem = thick(2, 20, side=4)
    found = ptychon.reconstruct(problem, probe=made.probe, passes=1, **QUIET)
    with pytest.raises(PtychonError, match="thin objects only, and this one has 2 slices"):
        ptychon.error_bars(problem, found)


def test_structure_at_an_end_is_a_doubt():
    made, problem = thick(5, 15, side=4)
    found = ptychon.reconstruct(problem, probe=made.probe, passes=1, **QUIET)
    assert "depth" not in {doubt.about for doubt in doubts(replace(found, object=made.object))}
    one_sided = np.ones_like(made.object)
    one_sided[-1] = made.object[-1]
    said = [d for d in doubts(replace(found, object=one_sided)) if d.about == "depth"]
    assert "at the last of the slices" in said[0].text
