"""A probe that varies from frame to frame, found by the PIE family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import RPIE, After, Context, make, updated
from ptychon.engines.pie import full
from ptychon.engines.varying_pie import VaryingState
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated, residual
from ptychon.model.forward import Model
from ptychon.model.unknowns import Unknowns
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.iterate import iterate
from ptychon.simulation import phantoms, probes, scan
from ptychon.sweeps.find import fast_step
from ptychon.testing.scans import two_slices

SIDE, SHARE = 24, 0.15
FIRST = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=5.5)


def tilts(kind, n):
    """Weights of a tilt, of mean 0 and rms 1: without a pattern in time, or slow."""
    rng = np.random.default_rng(4)
    c = rng.standard_normal(n)
    if kind == "slow":
        c = np.sin(8 * np.linspace(0, 1, n)) + 0.3 * np.convolve(c, np.ones(5) / 5, "same")
    return (c - c.mean()) / c.std()


@cache
def wandering(kind="random", share=SHARE, other=False):
    """36 frames of 24 x 24, 1e5 counts each, under a beam whose tilt wanders: P + c_j V, V of the
    norm of P. Made in plain NumPy. Data, object and c. `other` is an object with absorption and a
    smooth beam.
    """
    rng = np.random.default_rng(4)
    places = scan.raster(6, step=3, jitter=1, whole=True, seed=3)
    corners = (places - places.min(axis=0)).astype(int) + 4
    size = corners.max() + SIDE + 4
    field = phantoms.complex_object(
        phantoms.texture((size, size), 9) if other else np.zeros((size, size)),
        phantoms.texture((size, size), 6),
        amplitude_range=(0.6, 1) if other else (1, 1),
    )
    u = np.arange(SIDE) - SIDE // 2
    beam = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=4).astype(complex)
    if other:
        r2 = u[:, None] ** 2 + u**2
        beam = np.exp(-r2 / (2 * 2.8**2) + 0.07j * r2 + 0.3j * np.sin(0.6 * u))
    beam *= np.sqrt(1e5) / np.linalg.norm(beam)
    tilt = 1j * u * beam
    tilt *= np.linalg.norm(beam) / np.linalg.norm(tilt)
    c = share * tilts(kind, len(corners))
    frames = [
        np.abs(np.fft.fft2((beam + w * tilt) * field[y : y + SIDE, x : x + SIDE], norm="ortho"))
        ** 2
        for (y, x), w in zip(corners, c, strict=True)
    ]
    counts = np.fft.fftshift(rng.poisson(frames), axes=(1, 2)).astype(np.float32)
    centres = corners + SIDE // 2 - size // 2.0
    data = Dataset(patterns=counts, positions=centres, object_shape=(size, size))
    return data, field, c


def run(recipe="rpie", passes=40, world=(), **more):
    more = {"probe": FIRST, "backend": "numpy", "say": None, "judge": False, **more}
    if isinstance(recipe, str):
        more["passes"] = passes
    return reconstruct(wandering(*world)[0], recipe, **more)


@cache
def found(engine="rpie"):
    return run(engine, update={"variations": After(8)})


def error(result, world=()):
    data, field, _ = wandering(*world)
    lit = illuminated(Problem.from_dataset(data), result.probe, 0.3)
    return 10 ** (-align(result.object, field, region=lit, subpixel=True).error_db / 20)


def alike(result, world=()):
    return abs(np.corrcoef(result.weights[:, 0], wandering(*world)[2])[0, 1])


@pytest.mark.parametrize("engine", ["rpie", "epie", "mpie"])
def test_weights_are_found(engine):
    """Weights without a pattern in time."""
    varied, plain = found(engine), run(engine)
    assert alike(varied) > 0.98
    assert varied.weights.std() == pytest.approx(SHARE, rel=0.1)
    assert error(varied) < 0.4 * error(plain)
    assert varied.final_error < 0.75 * plain.final_error
    assert float(varied.history["varies"][7]) == 0
    assert float(varied.history["varies"][-1]) == pytest.approx(varied.weights.std(), rel=0.05)
    # R of the pass and that of the result are of the same model
    assert varied.final_error == pytest.approx(float(varied.errors[-1]), rel=0.05)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_slow_tilts_are_found(share, other):
    """They are nearly those of a curved object."""
    world = "slow", share, other
    varied, plain = run(world=world, update={"variations": After(8)}), run(world=world)
    assert alike(varied, world) > 0.95
    assert error(varied, world) < 0.9 * error(plain, world)


@pytest.mark.parametrize("engine", ["rpie", "mpie"])
@pytest.mark.parametrize("other", [False, True])
def test_a_steady_beam_is_not_made_to_vary(engine, other):
    world = "slow", 0.0, other
    varied, plain = (
        run(engine, world=world, update=update) for update in ({"variations": After(8)}, None)
    )
    assert varied.weights.std() < 1e-3
    # such small scans have not settled after 40 passes, and errors differ by up to 8 % either way;
    # nine of 49 frames, after 60: by 2 % at most, 0.4 % less in the mean
    assert error(varied, world) < 1.12 * error(plain, world)


def test_two_ways_and_two_modes():
    """A second mode does not vary; a second way, which is not there, is noise and goes."""
    both = run(update={"variations": After(8)}, variations=2, modes=2)
    assert alike(both) > 0.95
    assert both.weights[:, 1].std() < 0.3 * both.weights[:, 0].std()


def test_under_two_slices():
    """The frames of a two-slice specimen under a tilt: weights are found there as well."""
    scan, backend = two_slices(), get_backend("numpy", threads=1)
    c = (0.2 * tilts("random", len(scan.problem))).astype(np.float32)
    u = np.arange(scan.probe.shape[-1]) - scan.probe.shape[-1] // 2
    tilt = (1j * u * scan.probe[0]).astype(np.complex64)
    tilt *= np.linalg.norm(scan.probe[0]) / np.linalg.norm(tilt)
    x = Unknowns(object=scan.object, probe=scan.probe, variations=tilt[None], weights=c[:, None])
    model = Model.of(scan.problem, backend)
    light = model.intensity(model.view(x, slice(None)))
    counts = np.random.default_rng(1).poisson(light)
    problem = replace(scan.problem, amplitude=np.sqrt(counts).astype(np.float32))
    engine, start = RPIE(variations=1, variations_start=3), 0.9 + 0.1 * scan.object
    for progress in iterate(problem, engine, start, scan.probe, ctx=Context(backend)):
        if progress.state.epoch == 14:
            break
    assert abs(np.corrcoef(progress.state.weights[:, 0], c)[0, 1]) > 0.9


def test_without_variations_a_pass_is_what_it_was():
    """The frames of one pass with weights of 0, and of the engine as it was, by arrays."""
    problem, ctx = Problem.from_dataset(wandering()[0]), Context(get_backend("reference"))
    engine, batches = full(RPIE()), [np.array([j]) for j in range(6)]
    O = np.ones(problem.object_shape, np.complex64)
    P = (400 * FIRST / np.linalg.norm(FIRST)).astype(np.complex64)[None]
    plain, _ = engine.step(engine.init(problem, O, P, ctx), problem, batches, ctx)
    still = full(RPIE(variations=2, variations_start=9))
    state = still.init(problem, O, P, ctx)
    assert isinstance(state, VaryingState)
    held, report = still.step(state, problem, batches, ctx)
    np.testing.assert_allclose(held.object, plain.object, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(held.probe, plain.probe, rtol=1e-5, atol=1e-4)
    assert float(report.extra["varies"]) == 0


@pytest.mark.parametrize("engine", ["rpie", "mpie"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(engine, tmp_path):
    more = {"update": {"variations": After(1)}, "passes": 4}
    straight = run(engine, **more)
    path = tmp_path / "run.h5"
    run(engine, callbacks=[Checkpointer(path, 3), lambda p: p.passes == 3], **more)
    again = run(engine, resume=load_checkpoint(path), **more)
    np.testing.assert_array_equal(again.weights, straight.weights)
    np.testing.assert_array_equal(again.object, straight.object)


def test_what_was_found_goes_on():
    """As it is where a later run is not asked to move it, and from there where it is."""
    result = found()
    held = run(passes=3, start=result)
    np.testing.assert_allclose(held.weights, result.weights, rtol=1e-5)
    assert held.final_error < 1.3 * result.final_error
    chain = Recipe(
        (Stage("rpie", 12, update={"variations": After(6)}), Stage("ml", 2, {"variations": 1}))
    )
    both = run(chain)
    assert np.isfinite(both.weights).all()
    problem = Problem.from_dataset(wandering()[0])
    alone = residual(problem, both.object, both.probe, get_backend("numpy", threads=1))
    assert both.final_error < alone


def test_what_cannot_vary_says_so():
    problem = Problem.from_dataset(wandering()[0])
    assert fast_step(get_backend("numpy"), RPIE(variations=1), problem, [slice(0, 36)]) is None
    with pytest.raises(PtychonError, match="engine 'dm' has no option 'variations'"):
        make("dm", variations=1)
    with pytest.raises(PtychonError, match="engine 'dm' does not move 'variations'; these do:"):
        updated(make("dm"), {"variations": True})
    assert updated(RPIE(), {"variations": After(4)}).variations_start == 4
    with pytest.raises(PtychonError, match="give the pass that begins alone"):
        updated(RPIE(), {"variations": After(4, every=2)})
