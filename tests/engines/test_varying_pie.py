"""A probe that varies from frame to frame, found by the PIE family."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import MPIE, RPIE, After, Context, make, updated
from ptychon.engines.pie import full
from ptychon.engines.varying_pie import VaryingState
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated, residual
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.simulation import phantoms, probes, scan
from ptychon.sweeps.find import fast_step

SIDE, SHARE = 24, 0.15
FIRST = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=5.5)


@cache
def wandering():
    """36 frames of 24 x 24, 1e5 counts each, under a beam whose tilt wanders: P + c_j V, V of the
    norm of P. Made in plain NumPy. Data, object and c.
    """
    rng = np.random.default_rng(4)
    places = scan.raster(6, step=3, jitter=1, whole=True, seed=3)
    corners = (places - places.min(axis=0)).astype(int) + 4
    size = corners.max() + SIDE + 4
    field = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 6), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=4).astype(complex)
    beam *= np.sqrt(1e5) / np.linalg.norm(beam)
    tilt = 1j * (np.arange(SIDE) - SIDE // 2) * beam
    tilt *= np.linalg.norm(beam) / np.linalg.norm(tilt)
    c = rng.standard_normal(len(corners))
    c = SHARE * (c - c.mean()) / c.std()
    frames = [
        np.abs(np.fft.fft2((beam + w * tilt) * field[y : y + SIDE, x : x + SIDE], norm="ortho"))
        ** 2
        for (y, x), w in zip(corners, c, strict=True)
    ]
    counts = np.fft.fftshift(rng.poisson(frames), axes=(1, 2)).astype(np.float32)
    centres = corners + SIDE // 2 - size // 2.0
    data = Dataset(patterns=counts, positions=centres, object_shape=(size, size))
    return data, field, c


def run(recipe="rpie", passes=40, **more):
    more = {"probe": FIRST, "backend": "numpy", "say": None, "judge": False, **more}
    if isinstance(recipe, str):
        more["passes"] = passes
    return reconstruct(wandering()[0], recipe, **more)


@cache
def found(engine="rpie"):
    return run(engine, update={"variations": After(8)})


def error(result):
    data, field, _ = wandering()
    lit = illuminated(Problem.from_dataset(data), result.probe, 0.3)
    return 10 ** (-align(result.object, field, region=lit, subpixel=True).error_db / 20)


@pytest.mark.parametrize("engine", ["rpie", "epie"])
def test_weights_are_found(engine):
    """Weights without a pattern in time: slow changes of the tilt are those of a curved object."""
    varied, plain = found(engine), run(engine)
    assert abs(np.corrcoef(varied.weights[:, 0], wandering()[2])[0, 1]) > 0.95
    assert varied.weights.std() == pytest.approx(SHARE, rel=0.25)
    assert error(varied) < 0.6 * error(plain)
    assert varied.final_error < 0.75 * plain.final_error
    assert float(varied.history["varies"][7]) == 0
    assert float(varied.history["varies"][-1]) == pytest.approx(varied.weights.std(), rel=0.05)
    # R of the pass and that of the result are of the same model
    assert varied.final_error == pytest.approx(float(varied.errors[-1]), rel=0.05)


def test_without_variations_a_pass_is_what_it_was():
    """The frames of one pass with weights of 0, and of the engine as it was, by arrays."""
    problem, ctx = Problem.from_dataset(wandering()[0]), Context(get_backend("reference"))
    engine, batches = full(RPIE()), [np.array([j]) for j in range(6)]
    O = np.ones(problem.object_shape, np.complex64)
    P = (400 * FIRST / np.linalg.norm(FIRST)).astype(np.complex64)[None]
    plain, _ = engine.sweep(engine.init(problem, O, P, ctx), problem, batches, ctx)
    still = full(RPIE(variations=2, variations_start=9))
    state = still.init(problem, O, P, ctx)
    assert isinstance(state, VaryingState)
    held, report = still.sweep(state, problem, batches, ctx)
    np.testing.assert_allclose(held.object, plain.object, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(held.probe, plain.probe, rtol=1e-5, atol=1e-4)
    assert float(report.extra["varies"]) == 0


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    more = {"update": {"variations": After(1)}, "passes": 4}
    straight = run(**more)
    path = tmp_path / "run.h5"
    run(callbacks=[Checkpointer(path, 3), lambda p: p.passes == 3], **more)
    again = run(resume=load_checkpoint(path), **more)
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
    with pytest.raises(PtychonError, match="engine 'mpie' has no option 'variations'"):
        make("mpie", variations=1)
    with pytest.raises(PtychonError, match="engine 'mpie' does not move 'variations'; these do:"):
        updated(MPIE(), {"variations": True})
    assert updated(RPIE(), {"variations": After(4)}).variations_start == 4
    with pytest.raises(PtychonError, match="give the pass that begins alone"):
        updated(RPIE(), {"variations": After(4, every=2)})
