"""Scans of one object, each with its own probe: passes over them take turns.

A sequential engine goes from frame to frame with one object; whether the next frame is of the same
scan, and so of the same probe, makes no difference to it. A pass here is one over each scan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import __version__
from ..data.result import Result
from ..engines import Context, able
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError
from .guess import mean_power
from .iterate import iterate
from .progress import Callback, Progress
from .recipe import Recipe, Stage
from .scans import Scans
from .stages import Ready, Run, settled

First = Callable[[Problem, int], tuple[ComplexArray, ComplexArray]]


def in_turn(
    scans: Scans,
    asked: Stage | Recipe,
    first: First,
    finish: Callable[[Run], Result],
    ctx: Context,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> list[Result]:
    """Results of scans that share the object.

    Parameters
    ----------
    scans : Scans
    asked : Stage or Recipe
    first : callable
        The first object and probe of a problem, on the canvas, and the number of its scan.
    finish : callable
        Makes a result of a run.
    ctx : Context
    seed : int
    callbacks : sequence of callables
        Called after each pass over the first scan.

    Raises
    ------
    PtychonError
        For an engine that looks at all frames at once.
    """
    recipe = Recipe(asked) if isinstance(asked, Stage) else asked
    for stage in recipe.stages:
        if "constraints" not in stage.made().copes:
            raise PtychonError(
                f"engine {stage.name!r} fits one probe to all frames at once, so that scans with "
                f"probes of their own cannot share the object; these can: {able('constraints')}; "
                "or share='both', where the probe is the same"
            )
    problems = [scans.placed(i) for i in range(len(scans.parts))]
    guesses = [first(problem, i) for i, problem in enumerate(problems)]
    object, probes = guesses[0][0], [probe for _, probe in guesses]
    light = [float(np.linalg.norm(probe)) for probe in probes]
    powers = np.array([mean_power(problem) * len(problem) for problem in problems])
    rows: list[tuple[float, dict[str, float]]] = []
    ran, began = [], time.perf_counter()
    for stage in recipe.stages:
        ready = [Ready.of(stage, problem, seed) for problem in problems]
        runs: list[Any] = [None] * len(problems)
        last: list[Progress] = [None] * len(problems)  # type: ignore[list-item]
        held: Any = object
        for epoch in range(stage.passes):
            for i, problem in enumerate(problems):
                if runs[i] is None:
                    runs[i] = iterate(
                        problem,
                        ready[i].engine,
                        held,
                        probes[i],
                        ctx=ctx,
                        schedule=ready[i].schedule,
                        planned=recipe.passes,
                        turns=stage.turns(ready[i].engine, seed),
                    )
                else:
                    last[i].state.object = held
                last[i] = next(runs[i])
                for constraint in stage.constraints:
                    if constraint.when.moves(epoch):
                        constraint.apply(last[i].state, problem, ctx)
                held = last[i].state.object
            errors = np.array([progress.error for progress in last])
            error = float(np.sqrt((errors**2 * powers).sum() / powers.sum()))
            rows.append((error, last[0].extra))
            seen = replace(last[0], passes=len(rows), planned=recipe.passes, error=error)
            ended = [bool(callback(seen)) for callback in callbacks]
            if any(ended):
                break
        ran.append([stage.name, epoch + 1, False])
        estimates = []
        for i, progress in enumerate(last):
            progress.state.object = held
            estimates.append(ready[i].engine.estimate(progress.state, ctx))
            object, probes[i] = settled(ready[i].engine, estimates[i], ctx, None, stage.passes)
            if progress.found is not None:
                problems[i] = progress.found.applied(problems[i])
        if any(ended):
            break
    free = any(stage.made().moves_probe for stage in recipe.stages)
    # one scale of the object for all: that at which the first probe has the power it began with
    factor = np.float32(light[0] / np.linalg.norm(probes[0])) if free else np.float32(1)
    results = []
    for i, problem in enumerate(problems):
        run = Run(recipe, problem, object / factor, probes[i] * factor)
        run.estimate, run.engine, run.ready = estimates[i], ready[i].engine, ready[i]
        run.rows, run.ran, run.seconds = rows, ran, time.perf_counter() - began
        results.append(_cut(finish(run), scans, i))
    return results


def _cut(result: Result, scans: Scans, number: int) -> Result:
    """A result on the canvas as one on the object of its scan."""
    part, corner = scans.parts[number], scans.corners[number]
    y, x = (slice(c, c + n) for c, n in zip(corner, part.object_shape, strict=True))
    given = result.positions_given
    own = replace(
        result,
        object=np.ascontiguousarray(result.object[..., y, x]),
        positions=result.positions - corner,
        corners=None if result.corners is None else result.corners - corner,
        positions_given=None if given is None else given - corner,
        provenance={**result.provenance, "ptychon": __version__},
    )
    return scans.named(own, part, number)


__all__ = ["in_turn"]
