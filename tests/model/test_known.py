"""How much of what a frame sees the others see too; and that frames at the rim which fit badly are
not put where nobody else sees anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _scenes import textured
from ptychon import Problem
from ptychon.backends import get_backend
from ptychon.engines import After, Context, make
from ptychon.model.alternate import best_of, misfits
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.known import known
from ptychon.run.between import Refinement
from ptychon.run.refine import Refine, Turns
from ptychon.simulation import scan


def test_the_share_that_others_see_is_that_of_their_light():
    """Against sums over pixels, one by one; with nothing beyond the object."""
    rng = np.random.default_rng(1)
    light, shape = rng.random((4, 5)), (9, 10)
    places = np.array([[2.0, 2.0], [4.2, 5.9], [7.0, 7.0]])
    tried = rng.uniform(-2, 11, (6, 2, 2))
    found = known(light, places, np.array([0, 2]), tried, shape)
    for t in range(6):
        for b, j in enumerate((0, 2)):
            seen = 0.0
            for r in np.ndindex(light.shape):
                at = np.rint(tried[t, b]) - [2, 2] + r
                there = [np.rint(places[i]) - [2, 2] for i in range(3) if i != j]
                inside = [
                    tuple((at - c).astype(int))
                    for c in there
                    if (at >= c).all() and (at < c + np.array([4, 5])).all()
                ]
                others = sum(light[k] for k in inside)
                seen += light[r] * others / (others + light[r])
            assert found[t, b] == pytest.approx(seen / light.sum(), abs=1e-9)
    far = known(light, places, np.array([1]), np.full((1, 1, 2), 40.0), shape)
    assert far == 0


def scene():
    """25 frames of 24 x 24 and an object that is wider than they see."""
    places = scan.raster(5, step=3, jitter=0.75, whole=False, seed=1)
    made = textured(24, places, (4, 4), room=24, texture=2, counts=3e4, seed=1)
    return Problem.from_dataset(made.dataset, object_shape=made.object.shape), made


def test_a_place_where_a_frame_fits_hardly_better_does_not_count():
    """A frame that is 2 px off goes home, unless it must fit better still."""
    problem, made = scene()
    places = problem.positions.copy()
    places[12] += 2, 0
    backend = get_backend("numpy")
    wrong = problem.with_positions(places)
    model, x = Model.of(wrong, backend), unknowns_of(wrong, made.object, made.probe)
    x.positions = places
    before, there = misfits(model, wrong, x), problem.positions
    true = replace(x, positions=there)
    least = misfits(Model.of(problem, backend), problem, true)
    assert least[12] < 0.5 * before[12]
    for most, end in ((1.1 * least, there), (0.9 * least, places)):
        found = best_of(model, wrong, x, there[None], most)
        np.testing.assert_allclose(found[12], end[12])


@pytest.mark.parametrize("looked", [True, False])
def test_a_frame_at_the_rim_that_fits_badly_stays_at_the_object(looked, monkeypatch):
    """The object is wrong where the last frame is, at a corner, and happens to fit it 5 px outside,
    where no other light is: it goes there unless it is looked at who else sees it.
    """
    if not looked:
        monkeypatch.setattr("ptychon.run.between.KNOWN", 0.0)
    problem, made = scene()
    true, (y, x) = made.object.astype(np.complex64), problem.positions[-1].astype(int)
    object, rng = true.copy(), np.random.default_rng(2)
    object[y - 1 :, x - 1 :] *= np.exp(2j * rng.standard_normal(object[y - 1 :, x - 1 :].shape))
    object[y + 1 :, x - 6 :] = true[y - 4 : -5, x - 6 :]
    engine, ctx = make("rpie"), Context(get_backend("numpy"))
    turns = Turns(Refine(limit=0.1), {"positions": After(0)}, 20)
    refinement = Refinement(turns, problem, problem, engine, ctx)
    state = engine.init(problem, object, made.probe, ctx)
    state.epoch = 5  # the fifth turn looks for frames that fit badly
    refinement.turn(state)
    out = refinement.found.positions[-1] - problem.positions[-1]
    assert out[0] < 1 if looked else out[0] > 4
