"""The one call that does everything."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, overload

import numpy as np

from .. import __version__
from ..backends import Backend, get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine, Update, make, plain
from ..metrics.residual import residual
from ..model.noise.background import dark_of
from ..model.problem import Problem
from ..sweeps.find import memory, why_slow
from ..types import ComplexArray, PtychonError, PtychonWarning
from .begin import first_guess
from .checkpoint import Checkpoint
from .compile import on_stderr, warm_up
from .constraints import Constraint, constraint_of
from .doubts import all_doubts
from .in_turn import in_turn
from .iterate import iterate
from .modes import for_engine
from .observers import ProgressBar
from .positions import carried, without_doses
from .progress import Callback, Progress
from .recipe import Recipe, Stage
from .refine import Refine
from .registered import PASSES, found_shifts, searched, stated
from .scans import Scans, shared_scans
from .scans_start import joined_start, starts_of
from .schedule import Schedule
from .stages import Ready, Run, run_recipe
from .thick import GROW_PASSES, growing, grown, with_slices
from .until import Until, rule_of
from .usual import usual

__all__ = ["Callback", "Progress", "iterate", "reconstruct"]


@overload
def reconstruct(data: Dataset | Problem, *given: Any, **how: Any) -> Result: ...


@overload
def reconstruct(data: Sequence[Dataset | Problem], *given: Any, **how: Any) -> list[Result]: ...


def reconstruct(
    data: Dataset | Problem | Sequence[Dataset | Problem],
    recipe: str | Engine | Stage | Recipe = "rpie",
    *,
    passes: int = 100,
    update: Update | None = None,
    until: Until | str | Sequence[Until] = (),
    schedule: Schedule | str | None = None,
    refine: Refine | Mapping[str, Any] | str | None = None,
    constraints: Constraint | str | Sequence[Constraint | str] = (),
    object: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    modes: int | None = None,
    start: Result | Sequence[Result] | None = None,
    slices: int | None = None,
    spacing: float | Sequence[float] | None = None,
    tilt: float | Sequence[float] | None = None,
    backend: str | Backend = "auto",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    subpixel: bool = True,
    resume: Checkpoint | None = None,
    details: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = on_stderr,
    judge: bool = True,
    progress: bool | None = None,
    live: bool = False,
    share: str | None = None,
    shift: str | Sequence[float] | Sequence[Sequence[float]] | None = None,
    **options: Any,
) -> Result | list[Result]:
    """Reconstruct object and probe from a scan, or from several that share one of them.

    Parameters
    ----------
    data : Dataset or Problem, or a list of them
    recipe : str, Engine, Stage or Recipe
        The name of an engine ("pie", "epie", "rpie", "dm", "ep", "ml", ...), a ready engine, or
        stages such as "dm:60, rpie:100, ep:400". Around a single engine or stage goes what it needs
        (see `ptychon.run.usual`): passes that make a first guess for "ep" and "ml", beside
        `passes`, and a last quarter of "dm" by "rpie". A recipe runs as it is written.
    passes : int
        Passes over the data, where the recipe does not say them.
    update : mapping of str to bool or After, optional
        What moves and when, such as {"positions": After(8)}; see `Stage`.
    until : rule, str or sequence of rules
        End the passes early, such as "still:1e-4" or `Still(1e-4)`; see `ptychon.run.until`.
    schedule : Schedule or str, optional
        How a pass is cut into batches; default what the engine asks for.
    refine : Refine, mapping or str, optional
        How positions and the background are refined between the passes of an engine that does not
        move them itself, such as "trials=4"; see `ptychon.run.refine`.
    constraints : Constraint, str or sequence of them, optional
        What object and probe are made to fulfil after the passes, such as ["support:radius=20",
        "tv:weight=1e-3,after=5"]; see `ptychon.run.constraints`.
    object : (H, W) or (S, H, W) complex array, optional
        First object; default a constant. Never changed. A thin one becomes alike slices.
    probe : (P, Q) or (K, P, Q) complex array, optional
        First probe, or the known one for engines that do not move it; default that of the data set,
        else found from the data. Never changed. Engines that move the probe rescale it to the mean
        counts of a frame.
    modes : int, optional
        Incoherent modes of the probe; default as many as the first probe has. Weak ones are added
        to it (see `ptychon.run.modes`).
    start : Result, optional
        An earlier result to start from: its object, its probe, the positions it has refined, and
        its count of passes. One of another part, crop or binning of the scan is placed by its
        origin and resampled to the pixel size of these data. Where counts have another unit, the
        probe is rescaled.
    slices : int, optional
        Slices of a thick specimen; default one, or as many as the result to start from has. More
        than 10 grow from one and from a quarter of them, where the run starts from nothing.
    spacing : float or (slices - 1,) floats, optional
        Distance between slices, m.
    tilt : float or (y, x), optional
        Angle of the beam against what stands straight in the specimen, rad.
    backend : {"auto", "numpy", "cupy", "reference"} or Backend
    callbacks : sequence of callables
        Called with a `Progress` after each pass; True ends the run.
    seed : int
        Seed of the frame order. The result is a function of seed, backend and thread count.
    subpixel : bool
        Honour fractions of a pixel in the positions.
    resume : Checkpoint, optional
        Go on bit for bit from where a run with these same arguments was stopped; `passes` counts
        its passes too.
    details : callable, optional
        Told in one line each, before anything is computed, what memory the run will hold and how
        much is free, and which steps were chosen and why.
    say : callable, optional
        Told, in one sentence each, where kernels must be compiled first and how a result to start
        from was placed; default prints it on the standard error stream.
    judge : bool
        Warn of what speaks against the result, though R may not show it (see `ptychon.run.doubts`).
    progress : bool, optional
        Show a bar on a terminal and in a notebook, and a line every half minute elsewhere; default
        yes, unless one of `callbacks` is a `ProgressBar`, or `judge` is off (a part of a longer
        computation).
    live : bool
        Redraw object, probe and R every few passes, below the cell of a notebook or in a window.
    share : {"probe", "object", "both"}, optional
        What a list of scans shares; see `ptychon.run.scans`.
    shift : "search", (2,) or (S - 1, 2) floats, optional
        What is added to the positions of each scan but the first, where they share the object and
        do not state their positions in one system of coordinates: m, or pixels where their size is
        not known. "search" reconstructs each scan by itself, and lays one object on the other.
    **options
        Of the engine, as `ptychon engines` lists them.

    Returns
    -------
    Result, or a list with one for each scan
        Its `settings` hold the recipe; `Recipe.of` gives it again.

    Raises
    ------
    PtychonError
        For bad input, unknown names, or a run that fails after its restarts and rescues.
    """
    how = {k: v for k, v in locals().items() if k not in ("data", "share", "options")} | options
    asked = _asked(recipe, passes, options, update or {}, until, schedule, refine, constraints)
    main = (asked if isinstance(asked, Stage) else asked.main).made()
    ctx, seed = Context(get_backend(backend)), plain(seed)
    if isinstance(data, (list, tuple)):
        return _several(data, asked, how | {"share": share}, ctx)
    for name, value in (("share", share), ("shift", shift)):
        if value is not None:
            raise PtychonError(
                f"{name}={value!r} is for several scans, and one is given: give a list"
            )
    assert isinstance(data, Dataset | Problem)
    return _one(data, asked, main, ctx, **{**how, "seed": seed})


def _one(
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
        asked = _resumed(asked, resume)
    elif object is None and start is None and growing(problem.slices):
        first = grown(problem, *first, partial(_grow, moving, ctx, seed, say))
    lines = _lines(asked, problem, ctx, len(first[1]), seed)
    if details is not None:
        for line in lines:
            details(line)
    before = start.passes if start is not None else 0
    callbacks = [*callbacks, *_watchers(callbacks, progress, judge, live, main, before, ctx)]
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
    result = _result(run, ctx, start, compiled)
    if run.problem.background is not stated:
        result = replace(result, background=dark_of(run.problem))
    how = {"passes": asked.passes, "seed": seed, "subpixel": subpixel}
    how |= {} if modes is None else {"modes": modes}
    result = replace(result, settings={**how, **result.settings})
    if judge and result.object_std is not None and result.positions_given is not None:
        warnings.warn(
            f"the error bars that {result.engine!r} gives take the refined positions as exact, and "
            "are too small by what is left of their errors; ptychon bars RESULT --update positions "
            "frees them",
            PtychonWarning,
            stacklevel=2,
        )
    if judge:
        for doubt in all_doubts(result, run.problem):
            # that the window cuts the beam off was said before the first pass
            if doubt.about != "window" or not early:
                warnings.warn(doubt.text, PtychonWarning, stacklevel=3)
    return result


#: What asks for no slices.
THIN = {"slices": None, "spacing": None, "tilt": None}


def _several(
    data: Sequence[Dataset | Problem], asked: Stage | Recipe, how: dict[str, Any], ctx: Context
) -> list[Result]:
    """Results of scans that share object or probe."""
    if how["share"] is None:
        raise PtychonError(
            f"{len(data)} scans are given; say what they share: share='probe', 'object' or 'both' "
            "(--share)"
        )
    stages = (asked,) if isinstance(asked, Stage) else asked.stages
    seed, main = plain(how["seed"]), (asked if isinstance(asked, Stage) else asked.main).made()
    start, resume, shift = how["start"], how["resume"], how["shift"]
    if shift is not None and how["share"] == "probe":
        raise PtychonError(
            "a shift says how scans lie on one object, and these share the probe only: leave it out"
        )
    if searched(shift):
        moves = found_shifts([_for_shift(one, how, ctx, seed) for one in data], how["say"])
    else:
        moves = stated(shift, len(data))
    scans = Scans.of(data, how["share"], how["subpixel"], moves)
    begun = start[0] if start and not isinstance(start, Result) else None
    thick = how["slices"], how["spacing"], how["tilt"], begun
    cut = [with_slices(p, d, *thick) for p, d in zip(scans.parts, data, strict=True)]
    scans, how = replace(scans, parts=tuple(cut)), how | THIN

    def one(problem: Problem, probe: ComplexArray | None) -> Result:
        for stage in stages:
            if without_doses(problem, stage.made()).log_scale is not problem.log_scale:
                raise PtychonError(
                    f"engine {stage.name!r} knows nothing of doses, and those of the scans differ "
                    "by more than 1 %: share the probe only, or use rpie, dm or ml"
                )
        given = how if how["probe"] is not None else {**how, "probe": probe}
        if start is not None:
            first = joined_start(scans, start, problem)
            given = {**given, "start": first, "probe": how["probe"]}
        return _one(problem, asked, main, ctx, **{**given, "seed": seed}, level=scans.level)

    def turns() -> list[Result]:
        moving = next((s.made() for s in stages if s.made().moves_probe), main)
        starts = None if start is None else starts_of(scans, start)

        def first(problem: Problem, i: int) -> tuple[Problem, ComplexArray, ComplexArray]:
            if starts is not None:
                problem = carried(problem, starts[i], main)
                given = (starts[i].object, starts[i].probe, how["modes"], None, how["say"])
            else:
                given = (how["object"], how["probe"], how["modes"], None, how["say"])
            return problem, *first_guess(data[i], problem, moving, ctx, *given, lambda text: None)

        def finish(run: Run, i: int) -> Result:
            result = _result(run, ctx, None if start is None else start[i], 0.0)
            said = {"passes": run.recipe.passes, "seed": seed, "subpixel": how["subpixel"]}
            return replace(result, settings={**said, **result.settings})

        recipe = Recipe(asked) if isinstance(asked, Stage) else asked
        recipe = recipe if resume is None else _resumed(recipe, resume)
        before = 0 if start is None else start[0].passes
        watch = _watchers(how["callbacks"], how["progress"], how["judge"], False, main, before, ctx)
        heard = [*how["callbacks"], *watch]
        try:
            return in_turn(scans, recipe, first, finish, ctx, seed, heard, resume, before)
        finally:
            for callback in heard:
                if (close := getattr(callback, "close", None)) is not None:
                    close()

    return shared_scans(scans, data, one, turns)


def _for_shift(data: Dataset | Problem, how: dict[str, Any], ctx: Context, seed: int) -> Result:
    """One of several scans by itself, to see where it lies on the others."""
    near = data.near_field if isinstance(data, Problem) else data.geometry == "near"
    asked = Stage("rpie", PASSES, constraints=() if near else (constraint_of("centre:every=5"),))
    alone = {**how, "start": None, "resume": None, "object": None, "callbacks": (), "seed": seed}
    alone |= THIN | {"judge": False, "progress": False, "details": None, "live": False}
    return _one(data, asked, asked.made(), ctx, **alone)


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


def _watchers(
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


def _asked(
    recipe: str | Engine | Stage | Recipe,
    passes: Any,
    options: dict[str, Any],
    update: Update,
    until: Until | str | Sequence[Until],
    schedule: Schedule | str | None,
    refine: Any,
    constraints: Any,
) -> Stage | Recipe:
    """The stage or the recipe that the arguments of `reconstruct` ask for."""
    if isinstance(recipe, str) and ":" in recipe:
        recipe = Recipe.parse(recipe)
    more = {"update": update, "until": until, "schedule": schedule, "options": options}
    more |= {"refine": refine, "constraints": constraints}
    if isinstance(recipe, (Stage, Recipe)):
        beside = [name for name, value in more.items() if value not in (None, {}, ())]
        if beside:
            raise PtychonError(
                f"{', '.join(beside)} stand beside a recipe; give them to a Stage of it"
            )
        return recipe
    rules = until if isinstance(until, (list, tuple)) else (until,)
    named = constraints if isinstance(constraints, (list, tuple)) else (constraints,)
    return Stage(
        recipe,
        plain(passes),
        options=options,
        update=update,
        until=tuple(map(rule_of, rules)),
        schedule=schedule,
        refine=Refine() if refine is None else refine,
        constraints=tuple(map(constraint_of, named)),
    )


def _resumed(asked: Recipe, resume: Checkpoint) -> Recipe:
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


def _result(run: Run, ctx: Context, start: Result | None, compiled: float) -> Result:
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
