"""Frames that are lost at the rim, looked for with the part of the object that only they see:
with several modes of the probe, and with a mask for each frame.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from _scenes import textured
from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import ML, Context
from ptychon.engines.ml_cost import fitted
from ptychon.model.lost import Windows, found_again
from ptychon.simulation import probes, scan

SIDE, LOST = 24, 24
#: By how much the last frame, at a corner, is off, px.
OFF = np.array([2.6, -1.6])


def beams(modes):
    """A defocused aperture, and a second mode with a fifth of its power."""
    first = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=4)
    y = (np.arange(SIDE) - SIDE // 2)[:, None] / 4
    return np.stack([first, 0.45 * first * (y + 0.3)][:modes])


#: And 6 px off, where the data put it right.
FURTHER = np.array([-4.6, -3.8])


@cache
def scene(modes, masked):
    """25 frames of 24 x 24 with their true positions, and object and probe.

    Where frames are masked, each in pixels of its own, they count far too much.
    """
    places = scan.raster(5, step=3, jitter=0.75, whole=False, seed=1)
    made = textured(
        *(SIDE, places, (4, 4)), room=12, texture=2, counts=3e4, seed=1, light=beams(modes)
    )
    data = made.dataset
    if masked:
        bad = np.random.default_rng(5).random(data.patterns.shape) < 0.1
        patterns = np.where(bad, 3000, data.patterns).astype(np.float32)
        data = replace(data, patterns=patterns, mask=~bad)
    return Problem.from_dataset(data, object_shape=made.object.shape), made


def adapted(modes, masked, off=OFF, stated=False):
    """The problem with the last frame off, and an object that has adapted to it; where the true
    positions are stated, it is a run that has moved it.
    """
    true, made = scene(modes, masked)
    places = true.positions.copy()
    places[LOST] += off
    problem = true.with_positions(places)
    problem = replace(problem, measured=true.positions if stated else None)
    way = {"probe": made.probe, "object": made.object, "backend": "numpy", "say": None}
    return problem, reconstruct(problem, "ml", passes=4, update={"probe": False}, **way)


def looked_for(problem, start):
    """What `found_again` makes of it: fit, estimate, how many have moved, cost before and after."""
    engine, ctx = ML(positions=True, probe=False), Context(get_backend("numpy"))
    state = engine.init(problem, start.object, start.probe, ctx)
    x, model = engine.unknowns(state, problem), engine.model(problem, ctx.backend)
    fit, _, diagonal = fitted(engine, state, problem, model, x, ("positions",), False)
    before = fit.cost(x)
    x = x.copy()
    moved, after = found_again(fit, x, before, diagonal.object[0])
    return fit, x, moved, before, after


@pytest.mark.parametrize(("modes", "masked"), [(2, False), (1, True), (2, True)])
def test_a_lost_frame_comes_back(modes, masked):
    """3 px off, to where a step leads on, and no other frame moves; the cost that comes back
    with it is that of the estimate.
    """
    problem, start = adapted(modes, masked)
    true, _ = scene(modes, masked)
    fit, x, moved, before, after = looked_for(problem, start)
    assert moved == 1
    assert np.hypot(*(x.positions[LOST] - true.positions[LOST])) < 0.6
    np.testing.assert_array_equal(x.positions[:LOST], problem.positions[:LOST])
    assert after.total < before.total
    again = replace(fit, model=fit.model.follow(x)).cost(x)
    assert after.total == pytest.approx(again.total, rel=1e-9)


@pytest.mark.parametrize("looked", [True, False])
def test_a_frame_that_went_far_is_looked_for_where_it_is_expected(looked, monkeypatch):
    """6 px off, beyond the places around it."""
    if not looked:
        monkeypatch.setattr("ptychon.model.lost.SAME", np.inf)
    problem, start = adapted(1, False, FURTHER, stated=True)
    true, _ = scene(1, False)
    _, x, _, _, _ = looked_for(problem, start)
    assert (np.hypot(*(x.positions[LOST] - true.positions[LOST])) < 0.6) == looked
    np.testing.assert_array_equal(x.positions[:LOST], problem.positions[:LOST])


@pytest.mark.parametrize("masked", [False, True])
def test_windows_of_their_own_cost_what_their_frames_cost(masked):
    """Where they are, before any step: each frame with all its modes, in its own pixels."""
    true, made = scene(2, masked)
    engine, ctx = ML(positions=True, probe=False), Context(get_backend("numpy"))
    object = made.object.astype(np.complex64)
    state = engine.init(true, object, made.probe, ctx)
    x, model = engine.unknowns(state, true), engine.model(true, ctx.backend)
    fit, _, diagonal = fitted(engine, state, true, model, x, ("positions",), False)
    of = np.array([LOST, 3, 11])
    looked = Windows.made(fit, x, of, diagonal.object[0])
    there = looked.placed(looked.now, looked.places(x))
    np.testing.assert_allclose(
        looked.fit.cost(there).frames, fit.cost(x).frames[of], rtol=1e-4, atol=1e-2
    )
