"""The distance from the object to the detector, found by `ml` with object and probe."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ptychon import Problem, PtychonError, Result, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import After
from ptychon.metrics.alignment import align
from ptychon.metrics.moves import refined
from ptychon.metrics.residual import illuminated, residual
from ptychon.model.found import on_grid
from ptychon.model.gauss_newton import GaussNewton
from ptychon.model.propagators import NearField
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.simulation import phantoms, scan
from ptychon.simulation.simulate import simulate
from ptychon.testing import scene as small

SIDE = 32
SETTING = {"geometry": "near", "wavelength": 1e-10, "pixel_size": 1e-7}


@cache
def scene(factor):
    """36 frames of 32 x 32, 1e5 counts each, a phase object behind a rough beam; the detector
    stands `factor` times as far as the data state.
    """
    places = scan.raster(6, step=3, jitter=0.8, whole=False, seed=4)
    size = int(np.ptp(places, axis=0).max()) + SIDE + 12
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 7), amplitude_range=(1, 1)
    )
    y, f2 = np.arange(SIDE) - SIDE // 2, np.add.outer(*2 * [np.fft.fftfreq(SIDE) ** 2])
    noise = np.random.default_rng(1).standard_normal((SIDE, SIDE))
    rough = np.fft.ifft2(np.exp(-f2 / (2 * 0.08**2)) * np.fft.fft2(noise)).real
    beam = np.exp(-np.add.outer(y**2, y**2) / (2 * 7.0**2) + 2j * rough / rough.std())
    more = {"noise": "poisson", "mean_counts": 1e5, "seed": 3, "distance": 1e-3 * factor}
    made = simulate(truth, beam, places, **more, **SETTING)
    data = replace(made.dataset, distance=1e-3, object_shape=truth.shape)
    return data, Problem.from_dataset(data), made.object


def run(problem, passes=12, **more):
    more = {"backend": "numpy", "judge": False, "say": None, **more}
    return reconstruct(problem, "ml", passes=passes, **more)


@cache
def found(factor):
    return run(scene(factor)[1], update={"distance": True})


def error(result, factor):
    _, problem, truth = scene(factor)
    lit = illuminated(problem, result.probe, 0.3)
    return 10 ** (-align(result.object, truth, region=lit, subpixel=True).error_db / 20)


def test_a_distance_that_is_wrong_is_found():
    """A fifth too long: measured 0.8010 and an object error of 1.7 %, 16 % where it stays."""
    result, stays = found(0.8), run(scene(0.8)[1])
    assert result.distance == pytest.approx(0.8, abs=0.004)
    assert result.distance == pytest.approx(float(result.history["distance"][-1]), rel=1e-5)
    assert error(stays, 0.8) > 5 * error(result, 0.8)
    assert result.final_error < 0.9 * stays.final_error
    assert stays.distance is None
    assert ("distance to the detector", "-19.9 % of what the data state") in refined(result)


def test_a_distance_that_is_right_stays():
    result = found(1.0)
    assert result.distance == pytest.approx(1, abs=0.005)
    assert error(result, 1.0) < 1.05 * error(run(scene(1.0)[1]), 1.0)


def test_what_is_found_is_kept_and_used(tmp_path):
    """By a file, by the data on the grid of the result, and by a run of another engine."""
    result, (data, problem, _) = found(0.8), scene(0.8)
    result.save(tmp_path / "out.h5")
    again = Result.load(tmp_path / "out.h5")
    assert again.distance == result.distance
    assert residual(on_grid(data, again), again.object, again.probe) == pytest.approx(
        result.final_error, rel=1e-4
    )
    on, off = (
        reconstruct(problem, "rpie", passes=2, start=s, backend="numpy", say=None, judge=False)
        for s in (again, replace(again, distance=None))
    )
    assert on.distance == result.distance
    assert off.distance is None
    assert on.final_error < 0.8 * off.final_error


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    _, problem, _ = scene(0.8)
    first = np.ones(problem.object_shape, np.complex64)
    more = {"update": {"distance": After(1)}, "passes": 3, "object": first}
    straight = run(problem, **more)
    path = tmp_path / "run.h5"
    run(problem, callbacks=[Checkpointer(path, 2), lambda p: p.passes == 2], **more)
    again = run(problem, resume=load_checkpoint(path), **more)
    assert again.distance == straight.distance != 1
    np.testing.assert_array_equal(again.object, straight.object)


@pytest.mark.parametrize("own", [(), ("positions", "log_scale")])
def test_its_column_is_that_of_the_matrix(own):
    """Products with the compiled kernel and one column kept, against arrays alone."""
    made = small(1, 2, 2, near=True)
    x = made.x.astype("single")
    update = ("object", "probe", "background", "distance")
    model = made.model.to(get_backend("numpy", threads=1))
    H, plain = (GaussNewton(model, x, update, own) for _ in range(2))
    assert H.fuses
    d = made.direction(update).astype("single")
    expected = plain.zeros()
    plain._plainly(d, expected)
    for name, array in H(d).each():
        np.testing.assert_allclose(
            array, getattr(expected, name), rtol=1e-3, atol=1e-4 * abs(array).max()
        )
    unit = plain.zeros()
    unit.distance[:] = 1
    share = float(H(unit).distance[0] / H.diagonal().distance[0])
    assert share == pytest.approx(1, rel=1e-4) if not own else 0 < share < 1


def test_frames_on_whole_pixels_share_one_illumination():
    """The compiled product takes it as any other."""
    made = small(1, 2, 0, near=True)
    x = replace(made.x.astype("single"), positions=None, log_scale=None)
    update = ("object", "probe")
    model = made.model.to(get_backend("numpy", threads=1))
    H = GaussNewton(model, x, update, ())
    assert H.fuses
    d = made.direction(update).astype("single")
    expected = H.zeros()
    H._plainly(d, expected)
    for name, array in H(d).each():
        error = np.linalg.norm(array - getattr(expected, name))
        assert error < 1e-4 * np.linalg.norm(array)


def test_what_knows_no_distance_refuses():
    _, problem, _ = scene(1.0)
    far = replace(problem, propagator=small(1).model.detector.propagator)
    with pytest.raises(PtychonError, match="a distance is a scale of the scan; refine positions"):
        run(far, update={"distance": True})
    with pytest.raises(PtychonError, match="make it with NearField"):
        NearField(problem.propagator.free).longer(1.1)
    with pytest.raises(PtychonError, match="engine 'rpie' does not move 'distance'; these do: ml"):
        reconstruct(problem, "rpie", update={"distance": True}, passes=1)
