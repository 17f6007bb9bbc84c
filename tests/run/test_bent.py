"""A bend of the doses across a scan is found with the object and the probe that have taken it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _scenes import textured
from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import Context
from ptychon.metrics.residual import residual
from ptychon.run.bent import Bend, straightened
from ptychon.run.refine import Found
from ptychon.simulation import probes, scan

SIDE = 24
CTX = Context(get_backend("numpy", threads=1))


@pytest.fixture(scope="module")
def scene():
    """49 frames of 24 x 24 without noise, and what they were made of."""
    places = scan.raster(7, step=4, jitter=0.8, whole=False, seed=1)
    made = textured(SIDE, places, (3.5, 4), room=8, texture=2, counts=1e5, seed=1)
    return Problem.from_dataset(made.dataset, object_shape=made.object.shape), made


@pytest.mark.parametrize("thick", [False, True])
def test_a_bend_is_undone(scene, thick):
    """Doses bent by up to 15 % at the ends of the scan, object and probe by as much the other way:
    what is left is that of the noise, and R is that of the truth again.
    """
    problem, made = scene
    q = np.array([0.15, -0.1, 0.06])
    bend = Bend.of(problem.positions, (SIDE, SIDE))
    dose = bend.scan @ q
    O = made.object * np.exp(-np.tensordot(q, bend.of_object(made.object.shape), 1))
    P = made.probe.reshape(1, SIDE, SIDE) * np.exp(np.tensordot(q, bend.window, 1))
    O, P = O.astype(np.complex64), P.astype(np.complex64)
    P *= np.exp(dose.mean())
    dose -= dose.mean()
    given = replace(problem, log_scale=dose.astype(np.float32))
    found, object, probe = straightened(
        Found(log_scale=dose), given, O[None] if thick else O, P, CTX
    )
    assert object.shape == ((1, *O.shape) if thick else O.shape)
    assert dose.std() > 0.04
    assert found.log_scale.std() < 0.1 * dose.std()
    best = residual(problem, made.object, made.probe.reshape(1, SIDE, SIDE))
    assert residual(given, O, P) > 1.002 * best
    after = replace(problem, log_scale=found.log_scale.astype(np.float32))
    assert residual(after, object.reshape(O.shape), probe) < 1.001 * best


def test_what_has_no_doses_stays(scene):
    problem, made = scene
    O, P = made.object.astype(np.complex64), made.probe.reshape(1, SIDE, SIDE)
    none = straightened(Found(), problem, O, P, CTX)
    assert none[1] is O
    assert none[2] is P
    few = problem.select(slice(0, 8))
    assert straightened(Found(log_scale=np.zeros(8)), few, O, P, CTX)[1] is O


def test_doses_in_turn_end_straight(scene):
    """Exact doses: what is left of a bend is within what noise makes of it."""
    problem, _ = scene
    first = probes.defocused_aperture((SIDE, SIDE), radius=3.5, defocus=5)
    found = reconstruct(
        problem,
        "rpie",
        passes=30,
        probe=first,
        update={"dose": True},
        backend="numpy",
        say=None,
        judge=False,
    )
    bend = Bend.of(problem.positions, (SIDE, SIDE))
    columns = np.concatenate([bend.scan, np.ones((49, 1))], axis=1)
    q = np.linalg.lstsq(columns, found.log_scale, rcond=None)[0][:3]
    assert np.abs(q).max() < 0.02
