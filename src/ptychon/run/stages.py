"""A recipe run on a problem: each stage begins where the last one ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..engines import Context, Engine, Estimate, able, check_copes, make
from ..model.problem import Problem
from ..model.slices import share
from ..types import ComplexArray, PtychonError, PtychonWarning
from .bent import straightened
from .checkpoint import Checkpoint
from .compile import warm_up
from .guess import wave_power
from .modes import orthogonal
from .observers import Interrupt
from .passes import Passes, Rows, passes
from .positions import with_found, without_doses
from .progress import Callback, Plan
from .recipe import Recipe, Stage
from .refine import Found
from .schedule import Schedule
from .steps import with_steps


@dataclass(frozen=True)
class Ready:
    """A stage made ready for a problem.

    Attributes
    ----------
    stage : Stage
    engine : Engine
        With what was left open chosen.
    schedule : Schedule
    steps : str
        Why the steps are what they are; empty where they were given.
    """

    stage: Stage
    engine: Engine
    schedule: Schedule
    steps: str

    @classmethod
    def of(cls, stage: Stage, problem: Problem, seed: int) -> Ready:
        """Choose what was left open.

        Raises
        ------
        PtychonError
            Where the engine does not cope with the problem.
        """
        engine = stage.made().for_passes(stage.passes)
        check_copes(engine, problem)
        engine, steps = with_steps(engine, problem)
        stage.turns(engine, seed)
        for constraint in stage.constraints:
            constraint.check(problem)
        return cls(stage, engine, stage.scheduled(engine, seed), steps)


@dataclass
class Run:
    """What the stages of a recipe came to.

    Attributes
    ----------
    recipe : Recipe
        As it ran.
    problem : Problem
        With the positions and doses that were found.
    object, probe : (H, W) or (S, H, W), (K, P, Q) complex64 arrays
    estimate : Estimate
        Of the last stage, on the device.
    engine : Engine
        That the result is named after; after a restart not the one that began.
    ready : Ready
        The stage of that engine.
    rows : list of (R, other numbers)
        Of the passes that count.
    ran : list of [engine, passes, whether aside]
    seconds, compile_seconds : float
    earlier : float
        Seconds of the run that was resumed, within `seconds`.
    """

    recipe: Recipe
    problem: Problem
    object: ComplexArray
    probe: ComplexArray
    estimate: Estimate | None = None
    engine: Engine | None = None
    ready: Ready | None = None
    rows: Rows = field(default_factory=list)
    ran: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0
    compile_seconds: float = 0.0
    earlier: float = 0.0


def run_recipe(
    recipe: Recipe,
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    ctx: Context,
    callbacks: Sequence[Callback] = (),
    *,
    seed: int = 0,
    before: int = 0,
    resume: Checkpoint | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run the stages of a recipe.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
        On the host.
    object, probe : (H, W) or (S, H, W), (K, P, Q) complex arrays
        The first guess.
    ctx : Context
    callbacks : sequence of callables
        Called after each pass that counts. Of passes aside an `Interrupt` hears, and the method
        `aside` of a callback that has one.
    seed : int
        Of the shuffling.
    before : int
        Passes of an earlier run.
    resume : Checkpoint, optional
        Go on from there; its recipe is `recipe`.
    say : callable, optional
        Told where kernels must be compiled first.

    Raises
    ------
    PtychonError
        From a stage that failed and names no rescue.
    """
    refuse_losses(recipe, len(probe))
    run = Run(recipe, problem, object, probe)
    stages, number, ended = list(recipe.stages), 0, False
    if resume is not None:
        run.problem = Found.read(resume.begun).applied(problem)
        number, run.ran = resume.stage, [list(part) for part in resume.ran]
        run.rows = resume.rows()[: sum(n for _, n, aside in run.ran if not aside)]
        run.seconds = run.earlier = resume.seconds
    for stage in stages[number:]:
        run.compile_seconds += _compiled(stage, problem, len(probe), ctx, seed, say)
    while number < len(stages) and not ended:
        stage, here = stages[number], resume
        resume = None
        found = problem if stage.start == "first" else run.problem
        begin = (run.object, run.probe) if stage.start == "last" else (object, probe)
        if stage.start == "again":
            # the first probe had the light of a background that is known now
            less = np.float32(_light(probe, problem, found) / np.linalg.norm(probe))
            begin = (object, probe * less)
        begun = Found.of(found, problem).stored()
        try:
            ready = Ready.of(stage, without_doses(found, stage.made()), seed)
            if here is not None:
                ready = replace(ready, engine=make(here.engine, **here.options))
            done = _stage(
                ready, found, begin, ctx, callbacks, run, stages, number, before, here, seed, begun
            )
            estimate = done.engine.estimate(done.state, ctx)
            del done.state  # the waves of all frames
            held = any(constraint.holds_scale for constraint in stage.constraints)
            light = None if held else _light(probe, problem, found)
            run.object, run.probe = settled(done.engine, estimate, ctx, light, len(done.rows))
        except PtychonError as error:
            others = (*stages[:number], *stages[number + 1 :], *(stage.rescue or ()))
            if stage.rescue is None or all(other.aside for other in others):
                raise  # nothing is left that would be a result
            instead = ", ".join(f"{s.passes} passes of {s.name}" for s in stage.rescue)
            text = f"going on with {instead} instead" if instead else "going on without it"
            warnings.warn(f"{error}: {text}", PtychonWarning, stacklevel=3)
            stages[number : number + 1] = stage.rescue
            for other in stage.rescue:
                run.compile_seconds += _compiled(other, problem, len(probe), ctx, seed, say)
            run.recipe = Recipe(stages)
            continue
        factor = np.linalg.norm(run.probe) / np.linalg.norm(ctx.backend.to_host(estimate.probe))
        local = without_doses(found, done.engine)
        whole = with_found(local, estimate, ctx.backend.to_host, float(factor))
        refined = done.found
        learns = done.engine.moves_probe
        if learns and stage.turns(done.engine, seed) is not None:
            bent = straightened(refined, refined.applied(whole), run.object, run.probe, ctx)
            refined, run.object, run.probe = bent
            refined, run.object, run.probe = refined.levelled(whole, run.object, run.probe)
        run.problem = refined.applied(whole)
        free = not (done.engine.fixes_scale or held)
        darker = refined.background is not None or estimate.background is not None
        if learns and free and darker:
            # the probe has the light of the wave alone
            less = np.float32(_light(probe, problem, run.problem) / np.linalg.norm(run.probe))
            run.object, run.probe = run.object / share(less, run.object), run.probe * less
        if stage.more and not (done.ended or done.asked):
            # the recipe of the result says what ran
            stages[number : number + 1] = replace(stage, until=(), more=()), *stage.more
            for other in stage.more:
                run.compile_seconds += _compiled(other, problem, len(probe), ctx, seed, say)
            run.recipe = Recipe(stages)
        run.ran.append([done.engine.name, len(done.rows), stage.aside])
        run.seconds += done.seconds
        run.estimate = estimate
        if stage.aside:
            _tell_of_interrupt(callbacks, done)
        else:
            run.rows += done.rows
            ended = done.asked
            finishes = run.engine is not None and run.engine.finished_by == done.engine.name
            if not finishes:
                run.engine, run.ready = done.engine, ready
        number += 1
    return run


def refuse_losses(recipe: Recipe, modes: int) -> None:
    """Refuse a recipe of which a stage cannot take what is known before it.

    Raises
    ------
    PtychonError
        For an engine of one mode where there are several, or one that knows of no variations of the
        probe after a stage that has found some; with the engines that can.
    """
    varies = ""
    for stage in recipe.counted:
        engine = stage.made()
        if modes > 1 and "modes" not in engine.copes:
            raise PtychonError(
                f"the probe has {modes} modes and engine {engine.name!r} of the recipe {recipe} "
                f"takes one; these take several: {able('modes')}"
            )
        if varies and "variations" not in engine.moves:
            raise PtychonError(
                f"engine {engine.name!r} would lose how the probe varies, which {varies!r} finds "
                f"before it in the recipe {recipe}; let {varies!r} be the last, or leave the "
                "variations to a later stage of it"
            )
        varies = engine.name if engine.varies_probe else varies


def settled(
    engine: Engine, estimate: Estimate, ctx: Context, light: Any, done: int
) -> tuple[ComplexArray, ComplexArray]:
    """Object and probe of an estimate on the host, in the form in which they are passed on.

    Modes are orthogonal. Where nothing in the engine holds the scale between object and probe,
    noise lets it drift: the probe gets back the norm `light` that it began with, unless that is
    None.

    Raises
    ------
    PtychonError
        If they are not finite.
    """
    host = ctx.backend.to_host
    object, probe = host(estimate.object), host(estimate.probe)
    if not (np.isfinite(object).all() and np.isfinite(probe).all()):
        raise PtychonError(
            f"engine {engine.name!r} diverged (object or probe not finite after {done} passes); "
            "try smaller steps, a larger object_reg, or another first probe"
        )
    if engine.moves_probe:
        if estimate.weights is None:  # variations belong to the first mode as it is
            probe = orthogonal(probe)
        if not engine.fixes_scale and light is not None:
            factor = np.float32(light / np.linalg.norm(probe))
            object, probe = object / share(factor, object), probe * factor
    return object, probe


def _light(probe: ComplexArray, given: Problem, problem: Problem) -> float:
    """Norm of the first probe, for the background that is found now."""
    light = float(np.linalg.norm(probe))
    if problem.background is given.background:
        return light
    return light * float(np.sqrt(wave_power(problem) / wave_power(given)))


def _compiled(
    stage: Stage,
    problem: Problem,
    modes: int,
    ctx: Context,
    seed: int,
    say: Callable[[str], None] | None,
) -> float:
    """Compile what a stage needs; the seconds."""
    ready = Ready.of(stage, without_doses(problem, stage.made()), seed)
    return warm_up(problem, ready.engine, ctx, modes, ready.schedule, say)


def _stage(
    ready: Ready,
    problem: Problem,
    begin: tuple[ComplexArray, ComplexArray],
    ctx: Context,
    callbacks: Sequence[Callback],
    run: Run,
    stages: Sequence[Stage],
    number: int,
    before: int,
    resume: Checkpoint | None,
    seed: int,
    begun: dict[str, Any],
) -> Passes:
    stage, local = ready.stage, without_doses(problem, ready.engine)
    heard = _aside(callbacks) if stage.aside else callbacks
    done = 0 if stage.aside else len(run.rows)
    left = sum(s.passes for s in stages[number:] if not s.aside)
    return passes(
        local,
        ready.engine,
        *begin,
        ctx,
        ready.schedule,
        stage.passes,
        heard,
        until=stage.until,
        constraints=stage.constraints,
        resume=resume,
        before=before + done,
        total=None if stage.aside else before + done + left,
        spent=run.seconds - run.earlier,
        plan=Plan(Recipe(stages).stored(), number, [list(part) for part in run.ran], begun),
        turns=stage.turns(ready.engine, seed),
    )


def _aside(callbacks: Sequence[Callback]) -> list[Callback]:
    """What hears of passes that do not count: Ctrl-C, and the `aside` of who shows them."""
    shown = [c.aside for c in callbacks if hasattr(c, "aside")]
    return [*shown, *(c for c in callbacks if isinstance(c, Interrupt))]


def _tell_of_interrupt(callbacks: Sequence[Callback], done: Passes) -> None:
    if any(isinstance(c, Interrupt) and c.pressed for c in callbacks):
        text = f"stopped after {len(done.rows)} of the passes that make the first guess"
        warnings.warn(
            f"{text}: begin again rather than go on from it", PtychonWarning, stacklevel=4
        )


__all__ = ["Ready", "Run", "run_recipe", "settled"]
