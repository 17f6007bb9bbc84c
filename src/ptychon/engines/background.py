"""A background that an engine finds with the wave: where it begins, and what keeps it from being
negative.

It lies on a grid of points and is linear between them (`model.detector.hats`),

    lambda = sum_k |z_k|^2 + Y b X^T

The values b at the points are not negative, so neither is what lies between.
"""

from __future__ import annotations

from typing import Any

from ..model.detector import Separable, hats
from ..model.problem import Problem
from ..types import Array, PtychonError
from .base import Context

#: Stiffness that holds a value at 0, in units of the largest ridge.
STIFF = 1e6
#: Points of the grid across a frame, where nobody says their distance, and the least and the
#: largest distance then, detector pixels.
ACROSS, NEAREST, FARTHEST = 8, 4.0, 8.0


def grid(engine: Any, problem: Problem, ctx: Context) -> Separable | None:
    """From the points of the grid to pixels; None where each pixel has its own."""
    shape, centred = problem.frame_shape, not problem.near_field
    distance = engine.background_distance
    if distance is None:
        distance = min(max(min(shape) / ACROSS, NEAREST), FARTHEST)
    if distance <= 1:
        return None
    return hats(shape, distance, centred=centred).to(ctx.backend)


def first_background(engine: Any, problem: Problem, ctx: Context) -> tuple[Array, Array]:
    """Where it begins, on the grid and of each pixel: at what is known of it, else at 0.

    Raises
    ------
    PtychonError
        Where frames are no counts.
    """
    if not problem.counting:
        raise PtychonError(
            "a background is refined for counts only, and these data are not counts; subtract one "
            "with --background, or state --gain"
        )
    xp, between = ctx.backend.xp, grid(engine, problem, ctx)
    dark = xp.zeros(problem.frame_shape, "float32")
    if problem.background is not None:
        dark = ctx.backend.asarray(problem.background)[0] - problem.read_noise**2
        dark = dark.astype("float32").clip(0, None)
    if between is None:
        return dark, dark
    found = between.transpose(dark) / between.transpose(1 + 0 * dark)
    return found, between.forward(found)


def held(background: Array, gradient: Array, ridge: Array) -> Array:
    """Stiffness of each value in a step: large for those that are 0 and would fall."""
    return ridge * (1 + (STIFF - 1) * ((background <= 0) & (gradient > 0))).astype(ridge.dtype)


def in_units(misfit: Any, dark: Array, problem: Problem, given: Problem) -> Array:
    """A misfit of the waves alone, in the units of that of a problem whose power is another: R is
    then that of the waves.
    """
    valid, before = problem.mask, (given.mask * given.amplitude**2).sum(dtype="float64")
    left = (problem.amplitude**2 - dark).clip(0, None)
    return misfit * before / (valid * left).sum(dtype="float64")


def dark_share(dark: Array, problem: Problem) -> Array:
    """Of all light, the share that is background."""
    many = len(problem) // len(problem.mask)
    counted = (problem.mask * problem.amplitude**2).sum(dtype="float64")
    return (dark * problem.mask.sum(axis=0)).sum(dtype="float64") * many / counted
