"""Data on the grid of a result that was made from them, with all that it has found beside object
and probe.
"""

from __future__ import annotations

from dataclasses import replace

from ..data.dataset import Dataset
from ..data.result import Result
from .noise.background import with_dark
from .problem import Problem


def on_grid(data: Dataset, result: Result) -> Problem:
    """Data as they were put on the pixel grid of a result made from them, with what it has found of
    each frame, positions, doses, and how the probe varies, with its background, its distance and
    its slices.
    """
    problem = Problem.from_dataset(data, subpixel=bool(result.settings.get("subpixel", True)))
    return with_found(problem, result)


def with_found(problem: Problem, result: Result) -> Problem:
    """A problem on the grid of a result, with all that this has found beside object and probe."""
    if len(result.positions) != len(problem):
        return problem
    if result.positions_given is not None or result.log_scale is not None:
        problem = problem.with_positions(result.positions, result.log_scale, corners=result.corners)
    if result.distance is not None and problem.near_field:
        problem = problem.with_distance(result.distance)
    if result.background is not None and result.background.shape == problem.frame_shape:
        problem = with_dark(problem, result.background)
    return replace(
        problem, variations=result.variations, weights=result.weights, slices=result.slices
    )
