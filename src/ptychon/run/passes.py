"""The passes of one engine: when to stop, what to do when they go wrong."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from ..engines import Context, Engine, State
from ..model.problem import Problem
from ..sweeps.find import placed
from ..types import ComplexArray, PtychonError, PtychonWarning
from .between import Refinement
from .checkpoint import Checkpoint, restore
from .constraints import Constraint
from .iterate import iterate
from .progress import Callback, Plan
from .refine import Found, Turns
from .schedule import Schedule
from .until import Until

#: Restarts of a failed run before it is given up.
MAX_RESTARTS = 2

Rows = list[tuple[float, dict[str, float]]]


class FailedError(PtychonError):
    """A run that learned nothing, whatever was tried."""


@dataclass
class Passes:
    """What the passes of an engine came to.

    Attributes
    ----------
    rows : list of (R, other numbers)
        One a pass.
    state : State
    seconds : float
    engine : Engine
        After a restart not the one that began.
    asked : bool
        Whether a callback ended them, and the run with them.
    found : Found
        What was refined between them.
    ended : bool
        Whether a rule ended them.
    """

    rows: Rows
    state: State
    seconds: float
    engine: Engine
    asked: bool = False
    found: Found = field(default_factory=Found)
    ended: bool = False


def passes(
    problem: Problem,
    engine: Engine,
    object: ComplexArray,
    probe: ComplexArray,
    ctx: Context,
    schedule: Schedule,
    passes: int,
    callbacks: Sequence[Callback] = (),
    *,
    until: Sequence[Until] = (),
    constraints: Sequence[Constraint] = (),
    resume: Checkpoint | None = None,
    before: int = 0,
    total: int | None = None,
    spent: float = 0.0,
    plan: Plan | None = None,
    turns: Turns | None = None,
) -> Passes:
    """Passes of an engine, with rules that end them, constraints and restarts.

    Parameters
    ----------
    problem, engine, object, probe, ctx, schedule
        As `iterate` takes them.
    passes : int
        Passes of this engine.
    callbacks : sequence of callables
    until, constraints
        As `Stage` has them.
    resume : Checkpoint, optional
        Of this engine; its last rows are of it.
    before : int
        Passes done before, earlier stages and runs included: what callbacks are told begins after
        them.
    total : int, optional
        Passes that callbacks are told are planned; default `before` + `passes`.
    spent : float
        Seconds of earlier stages, for callbacks.
    plan : Plan, optional
        Told to callbacks.
    turns : Turns, optional
        What is refined between the passes.

    Raises
    ------
    FailedError
        Where restarts do not help.
    """
    began, because = time.perf_counter(), ""
    total = before + passes if total is None else total
    for attempt in range(MAX_RESTARTS + 1):
        rows: Rows = []
        state = found = None
        if resume is not None and attempt == 0:
            found = Found.read(resume.found)
            state = restored(resume, problem, engine, object, probe, ctx, turns, found)
            rows = resume.rows()[len(resume.errors) - state.epoch :]
            if len(rows) >= passes:  # it was stopped after the last of them
                return Passes(rows, state, 0.0, engine, found=found)
        remedy, watches = None, [rule.watch() for rule in until]
        for progress in iterate(
            problem,
            engine,
            object,
            probe,
            ctx=ctx,
            schedule=schedule,
            resume=state,
            planned=passes,
            turns=turns,
            found=found,
        ):
            for constraint in constraints:
                if constraint.when.moves(progress.state.epoch - 1):
                    constraint.apply(progress.state, problem, ctx)
            rows.append((progress.error, progress.extra))
            seen = replace(
                progress,
                passes=before + progress.passes,
                planned=total,
                seconds=spent + progress.seconds,
                plan=plan,
            )
            answers = [bool(callback(seen)) for callback in callbacks]
            remedy = engine.remedy(progress.extra, len(rows))
            rules = [watch(progress) for watch in watches]
            ended = any(rules)
            if remedy is not None or any(answers) or ended or len(rows) >= passes:
                break
        if remedy is None:
            seconds = time.perf_counter() - began
            engine = progress.engine or engine
            found = progress.found or Found()
            return Passes(rows, progress.state, seconds, engine, any(answers), found, ended)
        because = remedy.because
        if attempt < MAX_RESTARTS:
            changed = _difference(engine, remedy.engine)
            text = (
                f"pass {len(rows)} of engine {engine.name!r} {because}; starting again with "
                f"{changed}"
            )
            warnings.warn(text, PtychonWarning, stacklevel=4)
            engine = remedy.engine
    raise FailedError(
        f"engine {engine.name!r} failed {MAX_RESTARTS + 1} times (the last one {because}); start "
        "it from the result of another engine, or give a better probe"
    )


def restored(
    resume: Checkpoint,
    problem: Problem,
    engine: Engine,
    object: ComplexArray,
    probe: ComplexArray,
    ctx: Context,
    turns: Turns | None,
    found: Found,
) -> State:
    """The state of a checkpoint of this engine, on the backend."""
    base, move = placed(problem, ctx.backend, engine, len(probe)), ctx.backend.asarray
    local = Refinement(turns, problem, base, engine, ctx, found).local
    return restore(resume, engine.init(local, move(object), move(probe), ctx), ctx.backend)


def _difference(old: Engine, new: Engine) -> str:
    a, b = asdict(old), asdict(new)
    return ", ".join(f"{k}={b[k]}" for k in b if a[k] != b[k])
