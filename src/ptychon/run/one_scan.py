"""The result of one scan: what is there to begin with, the recipe, and what its run has found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from .. import __version__
from ..backends import get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine, make
from ..metrics.residual import residual
from ..model.noise.background import dark_of
from ..model.problem import Problem
from ..sweeps.find import memory, why_slow
from ..types import ComplexArray, PtychonError, PtychonWarning
from .begin import first_guess
from .checkpoint import Checkpoint
from .compile import warm_up
from .doubts import all_doubts
from .modes import for_engine
from .observers import ProgressBar
from .positions import carried, without_doses
from .progress import Callback
from .recipe import Recipe, Stage
from .stages import Ready, Run, run_recipe
from .thick import GROW_PASSES, growing, grown, with_slices
from .usual import usual


def one_scan(
    data: Dataset | Problem,
    asked: Stage | Recipe,
    main: Engine,
    ctx: Context,
    *,
    object: ComplexArray | None,
    probe: ComplexArray | None,
    modes: int | None,
    start: Result | None,
    slices: int | None,
    spacing: Any,
    tilt: Any,
    callbacks: Sequence[Callback],
    seed: int,
    subpixel: bool,
    resume: Checkpoint | None,
    details: Callable[[str], None] | None,
    say: Callable[[str], None] | None,
    judge: bool,
    progress: bool | None,
    live: bool,
    level: Callable[[ComplexArray], ComplexArray] | None = None,
    **rest: Any,
) -> Result:
    """The result of one scan; arguments as `reconstruct` has them.

    `level` changes the first object where it is a constant; what is left in `rest` is in `asked`.
    """
    problem = Problem.from_dataset(data, subpixel=subpixel) if isinstance(data, Dataset) else data
    problem = with_slices(problem, data, slices, spacing, tilt, start)
    stated = problem.background
    if start is not None:
        problem = carried(problem, start, main)
    given = (asked,) if isinstance(asked, Stage) else asked.stages
    known = probe is not None or start is not None
    known = known or (isinstance(data, Dataset) and data.probe is not None)
    own = {"object": object is not None, "probe": known and start is None}
    if judge and not known and not any(stage.made().moves_probe for stage in given):
        warnings.warn(
            f"engine {main.name!r} keeps the probe as it is, and none was given: the one that is "
            "found from the data is only a first guess, and its errors go into the object; give "
            "the probe with --probe, or use an engine that moves it, such as rpie",
            PtychonWarning,
            stacklevel=3,
        )
    for stage in given:
        Ready.of(stage, without_doses(problem, stage.made()), seed)
    compiled = 0.0
    if probe is None and start is None and (isinstance(data, Problem) or data.probe is None):
        # candidates are tried with rPIE on one core
        one = Context(get_backend("numpy", threads=1))
        compiled = warm_up(replace(problem, slices=None), make("rpie"), one, say=say)
    moving = next((s.made() for s in given if s.made().moves_probe), main)
    early: list[str] = []
    first = first_guess(data, problem, moving, ctx, object, probe, modes, start, say, early.append)
    if level is not None and start is None and object is None:
        first = level(first[0]), first[1]
    for text in early:
        warnings.warn(text, PtychonWarning, stacklevel=3)
    if judge and problem.spread is not None and len(first[1]) > 1:
        warnings.warn(
            f"a blur of the detector and {len(first[1])} modes of the probe explain the same loss "
            "of contrast, so that neither is what it seems; try one of them at a time",
            PtychonWarning,
            stacklevel=3,
        )
    for stage in given:
        for_engine(first[1], None, stage.made())
    if isinstance(asked, Stage):
        asked = usual(asked, problem, first[1], given=start is not None or object is not None)
    if resume is not None:
        asked = resumed(asked, resume)
    elif object is None and start is None and growing(problem.slices):
        first = grown(problem, *first, partial(_grow, moving, ctx, seed, say))
    lines = _lines(asked, problem, ctx, len(first[1]), seed)
    if details is not None:
        for line in lines:
            details(line)
    before = start.passes if start is not None else 0
    callbacks = [*callbacks, *watchers(callbacks, progress, judge, live, main, before, ctx)]
    try:
        run = run_recipe(
            asked, problem, *first, ctx, callbacks, seed=seed, before=before, resume=resume, say=say
        )
    except MemoryError as error:  # CuPy's own is a MemoryError too
        raise PtychonError(
            f"out of memory ({error}). {'; '.join(lines[:1])}; use rpie or epie, which keep no "
            "wave for each frame, crop or bin the frames, or take fewer of them"
        ) from None
    finally:
        for callback in callbacks:
            close = getattr(callback, "close", None)
            if close is not None:
                close()
    result = result_of(run, ctx, start, compiled)
    if run.problem.background is not stated:
        result = replace(result, background=dark_of(run.problem))
    how: dict[str, Any] = {"passes": asked.passes, "seed": seed, "subpixel": subpixel}
    how |= {} if modes is None else {"modes": modes}
    how |= {"given": [name for name in own if own[name]]} if any(own.values()) else {}
    result = replace(result, settings={**how, **result.settings})
    if judge and result.object_std is not None and result.positions_given is not None:
        warnings.warn(
            f"the error bars that {result.engine!r} gives take the refined positions as exact, and "
            "are too small by what is left of their errors; ptychon error_bars RESULT --update "
            "positions frees them",
            PtychonWarning,
            stacklevel=2,
        )
    if judge:
        for doubt in all_doubts(result, run.problem):
            # that the window cuts the beam off was said before the first pass
            if doubt.about != "window" or not early:
                warnings.warn(doubt.text, PtychonWarning, stacklevel=3)
    return result


def _grow(
    engine: Engine,
    ctx: Context,
    seed: int,
    say: Callable[[str], None] | None,
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
) -> tuple[ComplexArray, ComplexArray]:
    """Passes over a problem with fewer slices than are asked for."""
    name = engine.begins_with[0] if engine.begins_with else engine.name
    recipe = Recipe((Stage(name, GROW_PASSES),))
    run = run_recipe(recipe, problem, object, probe, ctx, seed=seed, say=say)
    return run.object, run.probe


def watchers(
    callbacks: Sequence[Callback],
    progress: bool | None,
    judge: bool,
    live: bool,
    engine: Engine,
    before: int,
    ctx: Context,
) -> list[Callback]:
    """What shows how far a run is, beside the callbacks that it was given."""
    shown: list[Callback] = []
    if progress is None:
        progress = judge and not any(isinstance(c, ProgressBar) for c in callbacks)
    if progress:
        shown.append(ProgressBar(engine.name, earlier=before))
    if live:
        from ..plots.live import Live

        shown.append(Live(ctx, before))
    return shown


def resumed(asked: Recipe, resume: Checkpoint) -> Recipe:
    """The recipe of a checkpoint, with as many passes as are asked for now."""
    kept = Recipe.read(resume.recipe)
    done = f"engine {resume.engine!r} after {len(resume.errors)} passes"
    if kept.main.name != asked.main.name or len(resume.errors) >= asked.passes:
        raise PtychonError(
            f"the checkpoint is of {done}; it cannot go on as {asked.main.name!r} to "
            f"{asked.passes} passes"
        )
    return kept.reaching(asked.passes, resume.stage, resume.done)


def _lines(recipe: Recipe, problem: Problem, ctx: Context, modes: int, seed: int) -> list[str]:
    """What is told before a run: memory of the stage that holds most; of the main engine missing
    fast kernels, and steps.
    """
    plans = []
    for stage in recipe.stages:
        ready = Ready.of(stage, without_doses(problem, stage.made()), seed)
        try:
            plans.append(memory(ctx.backend, problem, ready.engine, modes))
        except PtychonError:
            if stage.rescue is None:
                raise
    ready = Ready.of(recipe.main, without_doses(problem, recipe.main.made()), seed)
    most = max((plan.held, plan.line()) for plan in plans)[1] if plans else ""
    steps = f"steps: {ready.steps}" if ready.steps else ""
    return [line for line in (most, why_slow(ctx.backend, ready.engine), steps) if line]


def result_of(run: Run, ctx: Context, start: Result | None, compiled: float) -> Result:
    """What a run has found, with the passes of the result that it started from."""
    assert run.engine is not None
    assert run.ready is not None
    assert run.estimate is not None
    host, found, problem = ctx.backend.to_host, run.estimate, run.problem
    earlier = np.zeros(0, np.float32) if start is None else start.errors
    columns: dict[str, Any] = {} if start is None else dict(start.history)
    for name in sorted({*columns, *(name for _, extra in run.rows for name in extra)}):
        before = columns.get(name, np.full(len(earlier), np.nan))
        values = [extra.get(name, np.nan) for _, extra in run.rows]
        columns[name] = np.concatenate([before, values]).astype(np.float32)
    errors = np.concatenate([earlier, [error for error, _ in run.rows]]).astype(np.float32)
    # R is that of the model that was fitted
    own = run.engine.model(problem, ctx.backend) if run.engine.models else None
    each = (found.object_std, found.draws, found.noise_variances)
    std, draws, variances = (None if array is None else host(array) for array in each)
    return Result(
        object=run.object,
        probe=run.probe,
        object_std=std,
        draws=draws,
        noise_variances=variances,
        slices=problem.slices,
        errors=errors,
        final_error=residual(problem, run.object, run.probe, ctx.backend, own),
        positions=problem.positions,
        corners=np.array(problem.corners),
        positions_given=problem.measured,
        log_scale=problem.log_scale,
        variations=problem.variations,
        weights=problem.weights,
        distance=None if problem.longer == 1 else problem.longer,
        origin=problem.origin,
        pixel_size=problem.pixel_size,
        engine=run.engine.name,
        passes=(0 if start is None else start.passes) + len(run.rows),
        backend=ctx.backend.name,
        options=asdict(run.engine),
        history=columns,
        settings={
            "recipe": run.recipe.stored(),
            "schedule": asdict(run.ready.schedule),
            "ran": [part[:2] for part in run.ran if not part[2]],
            "first_guess": [part[:2] for part in run.ran if part[2]],
            "steps": run.ready.steps,
        },
        provenance={"ptychon": __version__, "backend": ctx.backend.describe()},
        seconds=run.seconds,
        compile_seconds=compiled + run.compile_seconds,
    )
