"""What a frame says of its position and its dose while object and probe stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import make_case
from ptychon.backends import get_backend
from ptychon.engines import Context, DifferenceMap, PtychoEP
from ptychon.model.alternate import background_step, best_of, frame_steps, misfits
from ptychon.model.batch import Batch, exit_wave, followed
from ptychon.model.forward import Model
from ptychon.model.unknowns import Unknowns

BACKEND = get_backend("reference")


def scene(**kind):
    """Frames that the true object and probe make exactly, and a little wrong positions and
    doses.
    """
    case = make_case(subpixel=True, frame=(16, 14), **kind)
    object, probe = case.true_object.astype("c8"), case.true_probe.astype("c8")
    x = Unknowns(
        object=object[None], probe=probe, positions=case.problem.positions, log_scale=np.zeros(16)
    )
    model = Model.of(case.problem, BACKEND)
    light = model.intensity(model.view(x, slice(None)))
    amplitude = np.where(case.problem.mask, np.sqrt(light), 0).astype("f4")
    return replace(case.problem, amplitude=amplitude), x, model


@pytest.mark.parametrize("kind", [{}, {"modes": 2}, {"near": True}, {"masks": "each"}])
@pytest.mark.parametrize("names", [("positions",), ("log_scale",), ("positions", "log_scale")])
def test_a_step_finds_small_errors(kind, names):
    """Of 0.02 px and 1 %: to second order, which is a few per cent of them."""
    problem, true, model = scene(**kind)
    rng = np.random.default_rng(0)
    off = np.concatenate([0.02 * rng.standard_normal((16, 2)), 0.01 * rng.normal(size=(16, 1))], 1)
    given = replace(
        true,
        positions=true.positions + (off[:, :2] if "positions" in names else 0),
        log_scale=off[:, 2] if "log_scale" in names else true.log_scale,
    )
    limits = [1.0] * (2 * ("positions" in names) + ("log_scale" in names))
    steps = frame_steps(model, problem, given, names, limits)
    wanted = -off[:, {1: slice(2, 3), 2: slice(0, 2), 3: slice(0, 3)}[len(limits)]]
    assert np.linalg.norm(steps.change - wanted) < 0.1 * np.linalg.norm(wanted)
    before = misfits(model, problem, given)
    np.testing.assert_allclose(before, steps.misfit, rtol=1e-5)


def test_a_frame_without_texture_stays():
    """Behind an empty object no position is better than another."""
    problem, x, model = scene()
    flat = replace(x, object=np.ones_like(x.object))
    light = model.intensity(model.view(flat, slice(None)))
    rng = np.random.default_rng(1)
    noisy = np.sqrt(light) + 0.3 * rng.standard_normal(light.shape)
    problem = replace(problem, amplitude=np.abs(noisy).astype("f4"))
    steps = frame_steps(model, problem, flat, ("positions",), (0.1, 0.1))
    assert np.abs(steps.change).max() < 0.2


def test_the_best_of_some_places_is_taken():
    problem, true, model = scene()
    rng = np.random.default_rng(0)
    given = true.positions + 0.8 * rng.standard_normal((16, 2))
    trials = true.positions + 0.5 * rng.standard_normal((3, 16, 2))
    trials[1, :8] = true.positions[:8]
    best = best_of(model, problem, replace(true, positions=given), trials)
    np.testing.assert_array_equal(best[:8], true.positions[:8])
    everywhere = np.concatenate([given[None], trials])
    assert (np.abs(everywhere - best).sum(axis=2).min(axis=0) == 0).all()


def test_the_background_that_is_true_stays():
    """And one that is not moves towards it; masked pixels take what is around them."""
    problem, x, model = scene(masks="shared")
    dark = np.full(problem.frame_shape, 0.7)
    pattern = np.where(problem.mask, problem.amplitude**2 + np.float32(0.7), 0)
    for smooth in (0.0, 2.0):
        same = background_step(model, pattern, problem, x, dark, smooth)
        np.testing.assert_allclose(same, dark, rtol=1e-4)
        less = background_step(model, pattern, problem, x, 0.3 * dark, smooth)
        valid = problem.mask[0]
        assert (less[valid] > 0.3 * dark[valid]).all()
        assert (less[valid] < 1.01 * dark[valid]).all()


def moved_problem(problem):
    """The same positions in windows a pixel further, and others a quarter of a pixel away."""
    places = problem.positions + np.array([[0.3, -0.2]])
    corners = problem.corners.copy()
    corners[::2] += [[1, 0]]
    corners[1::4] += [[0, 1]]
    return problem.with_positions(places, corners=corners)


@pytest.mark.parametrize("near", [False, True])
def test_what_stands_on_the_object_stays_there(near):
    problem = make_case(near=near).problem
    rng = np.random.default_rng(0)
    field = rng.standard_normal(problem.object_shape)
    before, after = problem.corners, moved_problem(problem).corners
    p, q = problem.frame_shape

    def windows(corners):
        return np.stack([field[y : y + p, x : x + q] for y, x in corners])

    found = followed(windows(before), before, after, np)
    for got, wanted, (y, x) in zip(found, windows(after), after - before, strict=True):
        np.testing.assert_array_equal(got[: p - y, : q - x], wanted[: p - y, : q - x])


@pytest.mark.parametrize("near", [False, True])
def test_waves_of_the_difference_map_follow(near):
    """Waves that are P O_j are so afterwards too, as in a run that began there."""
    case = make_case(subpixel=True, near=near)
    ctx, engine = Context(BACKEND), DifferenceMap()
    after = moved_problem(case.problem)
    states = [engine.init(p, case.object, case.probe, ctx) for p in (case.problem, after)]
    for state, problem in zip(states, (case.problem, after), strict=True):
        frames = Batch.of(problem, BACKEND, slice(None))
        state.waves[:] = exit_wave(frames.probe(state.probe), frames.window(state.object))
    ones = np.ones(len(after), np.float32)
    moved = engine.moved(states[0], case.problem, after, ones, ctx)
    assert np.abs(moved.waves - states[1].waves).max() < 1e-4 * np.abs(moved.waves).max()


def test_waves_take_doses_off():
    """A frame that is 10 % brighter than the model is no longer, once that is known of it."""
    case = make_case()
    ctx, engine = Context(BACKEND), DifferenceMap()
    state = engine.init(case.problem, case.object, case.probe, ctx)
    before = state.waves.copy()
    factor = np.full(len(case.problem), 1 / 1.1, np.float32)
    moved = engine.moved(state, case.problem, case.problem, factor, ctx)
    np.testing.assert_allclose(moved.waves, before / np.float32(1.1), rtol=1e-4, atol=1e-4)


def test_messages_of_ptycho_ep_follow():
    """Messages that are P mu are so afterwards too, and the belief is their sum again."""
    case = make_case(subpixel=True)
    ctx, engine = Context(BACKEND), PtychoEP()
    after = moved_problem(case.problem)
    state = engine.init(case.problem, case.object, case.probe, ctx)
    mean = state.natural / state.precision
    frames = Batch.of(case.problem, BACKEND, slice(None))
    state.messages[:] = exit_wave(state.probes[frames.index], frames.window(mean))
    moved = engine.moved(state, case.problem, after, np.ones(16, np.float32), ctx)
    frames = Batch.of(after, BACKEND, slice(None))
    wanted = exit_wave(moved.probes[frames.index], frames.window(mean))
    assert len(moved.probes) == len(after.shifts)
    assert np.abs(moved.messages - wanted).max() < 1e-4 * np.abs(wanted).max()
    light = np.zeros(after.object_shape, np.float32)
    frames.add(light, np.abs(moved.probes[frames.index]) ** 2)
    g = moved.message_precision[0]
    np.testing.assert_allclose(moved.precision, moved.prior_precision + g * light, rtol=1e-4)
