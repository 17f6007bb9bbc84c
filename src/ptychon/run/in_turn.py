"""Scans of one object, each with its own probe: passes over them take turns.

A sequential engine goes from frame to frame with one object; whether the next frame is of the same
scan, and so of the same probe, makes no difference to it. A pass here is one over each scan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import __version__
from ..data.result import Result
from ..engines import Context, State, able, make
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError
from .checkpoint import Checkpoint
from .guess import mean_power
from .iterate import iterate
from .passes import restored
from .progress import Callback, Plan, Progress
from .recipe import Recipe, Stage
from .refine import Found
from .scans import Scans, cut, times
from .stages import Ready, Run, settled


@dataclass
class Scan:
    """One of the scans, and how far it is.

    Attributes
    ----------
    given, problem : Problem
        On the canvas: as it was given, and with what earlier stages have refined.
    probe : (K, P, Q) complex
        At the start of the stage.
    ready : Ready
        The stage.
    state : State or None
        After its last pass in this stage.
    found : Found or None
        What is refined in this stage.
    passes : iterator of Progress
    estimate : Estimate
        Of the last stage.
    """

    given: Problem
    problem: Problem
    probe: ComplexArray
    ready: Ready = field(init=False)
    state: State | None = None
    found: Found | None = None
    passes: Iterator[Progress] | None = None
    estimate: Any = None

    def begin(self, stage: Stage, seed: int, resume: Checkpoint | None = None) -> None:
        """A stage."""
        self.state = self.found = self.passes = None
        self.ready = Ready.of(stage, self.problem, seed)
        if resume is not None:
            self.ready = replace(self.ready, engine=make(resume.engine, **resume.options))

    def restore(self, resume: Checkpoint, object: ComplexArray, ctx: Context, seed: int) -> None:
        """The stage as a checkpoint has it."""
        engine, self.found = self.ready.engine, Found.read(resume.found)
        turns = self.ready.stage.turns(engine, seed)
        self.state = restored(
            resume, self.problem, engine, object, self.probe, ctx, turns, self.found
        )

    def go(self, object: Any, planned: int, ctx: Context, seed: int) -> Progress:
        """A pass, from an object on the device or, at the start, on the host."""
        if self.state is not None:
            self.state.object = object
        if self.passes is None:
            self.passes = iterate(
                self.problem,
                self.ready.engine,
                object,
                self.probe,
                ctx=ctx,
                schedule=self.ready.schedule,
                resume=self.state,
                planned=planned,
                turns=self.ready.stage.turns(self.ready.engine, seed),
                found=self.found,
            )
        progress = next(self.passes)
        self.state, self.found = progress.state, progress.found
        return progress

    def end(self, object: Any, ctx: Context, passes: int) -> ComplexArray:
        """The stage is over: the object, on the host."""
        assert self.state is not None
        self.state.object = object
        self.estimate = self.ready.engine.estimate(self.state, ctx)
        whole, self.probe = settled(self.ready.engine, self.estimate, ctx, None, passes)
        if self.found is not None:
            self.problem = self.found.applied(self.problem)
        return whole


def in_turn(
    scans: Scans,
    asked: Stage | Recipe,
    first: Callable[[Problem, int], tuple[Problem, ComplexArray, ComplexArray]],
    finish: Callable[[Run, int], Result],
    ctx: Context,
    seed: int,
    callbacks: Sequence[Callback] = (),
    resume: Checkpoint | None = None,
    before: int = 0,
) -> list[Result]:
    """Results of scans that share the object.

    Parameters
    ----------
    scans : Scans
    asked : Stage or Recipe
    first : callable
        From a problem on the canvas and the number of its scan the problem with what is known of
        it, its first object and its first probe.
    finish : callable
        Makes a result of a run, and of the number of its scan.
    ctx : Context
    seed : int
    callbacks : sequence of callables
        Called after each pass over all scans.
    resume : Checkpoint, optional
        Go on from there; its recipe is `asked`.
    before : int
        Passes of an earlier run, for callbacks.

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
    guesses = [first(scans.placed(i), i) for i in range(len(scans.parts))]
    object = guesses[0][1]
    each = [Scan(scans.placed(i), guess[0], guess[2]) for i, guess in enumerate(guesses)]
    light = float(np.linalg.norm(each[0].probe))
    powers = np.array([mean_power(one.problem) * len(one.problem) for one in each])
    rows: list[tuple[float, dict[str, float]]] = []
    ran: list[list[Any]] = []
    number, earlier, began = 0, 0.0, time.perf_counter()
    if resume is not None:
        _check(resume, len(each))
        number, rows, earlier = resume.stage, resume.rows(), resume.seconds
        ran = [list(part) for part in resume.ran]
        for i, one in enumerate(each):
            one.problem = Found.read(resume.of_scan(i).begun).applied(one.given)
    ended = False
    while number < len(recipe.stages) and not ended:
        stage, done, held = recipe.stages[number], 0, object
        for i, one in enumerate(each):
            one.begin(stage, seed, None if resume is None else resume.of_scan(i))
        if resume is not None:
            for i, one in enumerate(each):
                one.restore(resume.of_scan(i), object, ctx, seed)
            last = each[-1].state
            assert last is not None
            done, held, resume = last.epoch, last.object, None
        watches = [rule.watch() for rule in stage.until]
        over = done >= stage.passes
        while not over:
            seen = []
            for one in each:
                progress = one.go(held, recipe.passes, ctx, seed)
                for constraint in stage.constraints:
                    if constraint.when.moves(done):
                        constraint.apply(progress.state, one.problem, ctx)
                held = progress.state.object
                begun = Found.of(one.problem, one.given).stored()
                plan = Plan(recipe.stored(), number, [list(part) for part in ran], begun)
                seen.append(replace(progress, plan=plan))
            done += 1
            errors = np.array([progress.error for progress in seen])
            error = float(np.sqrt((errors**2 * powers).sum() / powers.sum()))
            rows.append((error, seen[0].extra))
            told = replace(
                seen[0],
                passes=before + len(rows),
                planned=before + recipe.passes,
                error=error,
                seconds=time.perf_counter() - began,
                others=tuple(seen[1:]),
            )
            answers = [bool(callback(told)) for callback in callbacks]  # all of them are told
            ended = any(answers)
            rules = [watch(told) for watch in watches]
            over = ended or any(rules) or done >= stage.passes
        ran.append([stage.name, done, False])
        for one in each:
            object = one.end(held, ctx, done)
        number += 1
    free = any(stage.made().moves_probe for stage in recipe.stages)
    # one scale of the object for all: that at which the first probe has the power it began with
    factor = np.float32(light / np.linalg.norm(each[0].probe)) if free else np.float32(1)
    results = []
    for i, one in enumerate(each):
        run = Run(recipe, one.problem, times(object, 1 / factor), one.probe * factor)
        run.estimate, run.engine, run.ready = one.estimate, one.ready.engine, one.ready
        run.rows, run.ran = rows, ran
        run.seconds = earlier + time.perf_counter() - began
        results.append(_cut(finish(run, i), scans, i))
    return results


def _check(resume: Checkpoint, count: int) -> None:
    """Refuse a checkpoint of another number of scans."""
    kept = 1 + len(resume.others)
    if kept != count:
        raise PtychonError(
            f"the checkpoint is of {kept} scan{'s' if kept > 1 else ''} that share the object, and "
            f"{count} are given; give those it was written for"
        )


def _cut(result: Result, scans: Scans, number: int) -> Result:
    """A result on the canvas as one on the object of its scan."""
    part, corner = scans.parts[number], scans.corners[number]
    given = result.positions_given
    own = replace(
        result,
        object=np.ascontiguousarray(result.object[(..., *cut(corner, part))]),
        positions=result.positions - corner,
        corners=None if result.corners is None else result.corners - corner,
        positions_given=None if given is None else given - corner,
        provenance={**result.provenance, "ptychon": __version__},
    )
    return scans.named(own, part, number)


__all__ = ["in_turn"]
