"""What was found of single frames, positions, doses and variations of the probe, of the background
and of the distance, on its way from one result to the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.result import Result
from ..engines import Engine, Estimate
from ..model.noise.background import with_dark
from ..model.problem import Problem
from ..types import PtychonWarning

#: Parts of a pixel to which refined positions are rounded for engines that keep a probe for each
#: distinct shift, in scans of more frames than so many.
PER_PIXEL, MANY = 32, 1024
#: Object pixels by which two sets of measured positions may differ and still be the same scan: they
#: are rounded to 1/16 px.
SAME = 0.13


def carried(problem: Problem, start: Result, engine: Engine) -> Problem:
    """The problem with what the result that a run starts from has found of each frame and of the
    background; itself where that is nothing.

    Doses go only to engines that know of them, variations of the probe to those that move them;
    others would take them for part of the object.
    """
    dark = start.background
    if dark is not None and dark.shape == problem.frame_shape and problem.counting:
        problem = with_dark(problem, dark)
    if start.positions_given is None:
        given, refined = problem.positions, None
    else:
        given, refined = (
            np.asarray(start.positions_given, float),
            np.asarray(start.positions, float),
        )
    log_scale = start.log_scale if _doses(engine) else None
    varies = start.weights is not None and "variations" in engine.moves
    if start.distance is not None and problem.near_field:
        problem = problem.with_distance(start.distance)
    if refined is None and log_scale is None and not varies:
        return problem
    measured = problem.positions if problem.measured is None else problem.measured
    same = len(start.positions) == len(problem) and given.shape == measured.shape
    if not same or np.abs(given - measured).max() > SAME:
        warnings.warn(
            "the refined positions of the result to start from are left out: its "
            f"{len(start.positions)} frames were not "
            f"measured where the {len(problem)} frames of these data were; start from a result "
            "of these data",
            PtychonWarning,
            stacklevel=3,
        )
        return problem
    many = len(problem) > MANY and "positions" not in engine.moves
    places = problem.positions if refined is None else refined
    placed = problem.with_positions(
        places, log_scale, corners=start.corners, per_pixel=PER_PIXEL if many else None
    )
    if not varies:
        return placed
    return replace(placed, variations=start.variations, weights=start.weights)


def without_doses(problem: Problem, engine: Engine) -> Problem:
    """The problem as an engine takes it: without doses and variations of the probe where it does
    not know of them.
    """
    if problem.log_scale is not None and not _doses(engine):
        problem = replace(problem, log_scale=None)
    if problem.weights is not None and "variations" not in engine.moves:
        problem = replace(problem, variations=None, weights=None)
    return problem


def _doses(engine: Engine) -> bool:
    return "log_scale" in engine.moves | engine.follows


def with_found(
    problem: Problem, estimate: Estimate, host: Callable[[Any], Any], factor: float = 1.0
) -> Problem:
    """The problem with what an engine has found of each frame and of the background; itself where
    it has found nothing.

    `factor` is what the probe was multiplied by since.
    """
    if estimate.weights is not None:
        variations = (factor * host(estimate.variations)).astype("complex64")
        problem = replace(problem, variations=variations, weights=host(estimate.weights))
    if estimate.background is not None:
        problem = problem.with_background(host(estimate.background), instead=True)
    if estimate.distance is not None:
        problem = problem.with_distance(problem.longer + float(host(estimate.distance)[0]))
    if estimate.positions is None and estimate.log_scale is None:
        return problem
    places = problem.positions if estimate.positions is None else host(estimate.positions)
    log_scale = problem.log_scale if estimate.log_scale is None else host(estimate.log_scale)
    corners = problem.corners if estimate.corners is None else host(estimate.corners)
    return problem.with_positions(places, log_scale, corners=corners)
