"""The passes of one engine: when to stop, what to do when they go wrong."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ..engines import Context, Engine, State
from ..model.problem import Problem
from ..sweeps.find import placed
from ..types import ComplexArray, PtychonError, PtychonWarning
from .checkpoint import Checkpoint, restore
from .iterate import iterate
from .progress import Callback
from .schedule import Schedule

#: Restarts of a failed run before it is given up.
MAX_RESTARTS = 2
#: Passes in a row below the tolerance before a run counts as converged.
STILL_PASSES = 5

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
        Whether a callback or the tolerance ended them.
    """

    rows: Rows
    state: State
    seconds: float
    engine: Engine
    asked: bool = False


def passes(
    problem: Problem,
    engine: Engine,
    object: ComplexArray,
    probe: ComplexArray,
    ctx: Context,
    schedule: Schedule,
    epochs: int,
    callbacks: Sequence[Callback],
    tolerance: float | None,
    before: int,
    resume: Checkpoint | None = None,
    total: int | None = None,
    done: int = 0,
    spent: float = 0.0,
) -> Passes:
    """Passes of an engine, with the stop rule and restarts.

    Parameters
    ----------
    problem, engine, object, probe, ctx, schedule
        As `iterate` takes them.
    epochs : int
        Passes of this engine.
    callbacks : sequence of callables
    tolerance : float, optional
    before : int
        Passes done before, earlier runs included: what callbacks are told begins after them.
    resume : Checkpoint, optional
        Of this engine.
    total : int, optional
        Passes that callbacks are told are planned, after those of earlier runs; default `before` +
        `epochs`.
    done : int
        Rows of the checkpoint that are of another engine, before this one.
    spent : float
        Seconds of that one, for callbacks.

    Raises
    ------
    FailedError
        Where restarts do not help.
    """
    began, because = time.perf_counter(), ""
    total = before + epochs if total is None else total
    for attempt in range(MAX_RESTARTS + 1):
        rows: Rows = []
        state = None
        if resume is not None and attempt == 0:
            rows, state = (
                resume.rows()[done:],
                restored(resume, problem, engine, object, probe, ctx),
            )
        remedy = None
        for progress in iterate(
            problem, engine, object, probe, ctx=ctx, schedule=schedule, resume=state, epochs=epochs
        ):
            rows.append((progress.error, progress.extra))
            seen = replace(
                progress,
                epoch=before + progress.epoch,
                epochs=total,
                seconds=spent + progress.seconds,
            )
            answers = [bool(callback(seen)) for callback in callbacks]
            remedy = engine.remedy(progress.extra, len(rows))
            asked = any(answers) or still(rows, tolerance) >= STILL_PASSES
            if remedy is not None or asked or len(rows) >= epochs:
                break
        if remedy is None:
            earlier = resume.seconds if resume is not None and attempt == 0 else 0.0
            return Passes(
                rows,
                progress.state,
                earlier + time.perf_counter() - began,
                progress.engine or engine,
                asked,
            )
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
        f"engine {engine.name!r} failed {MAX_RESTARTS + 1} times (the last one {because}); "
        "start it from the "
        f"result of another engine, or give a better probe"
    )


def restored(
    resume: Checkpoint,
    problem: Problem,
    engine: Engine,
    object: ComplexArray,
    probe: ComplexArray,
    ctx: Context,
) -> State:
    """The state of a checkpoint of this engine, on the backend."""
    local, move = placed(problem, ctx.backend, engine, len(probe)), ctx.backend.asarray
    return restore(resume, engine.init(local, move(object), move(probe), ctx), ctx.backend)


def still(rows: Rows, tolerance: float | None) -> int:
    """Passes at the end of a run in which the object changed by less than the tolerance; at most
    `STILL_PASSES`.
    """
    count = 0
    while (
        tolerance
        and count < min(STILL_PASSES, len(rows))
        and rows[-1 - count][1].get("change", math.inf) < tolerance
    ):
        count += 1
    return count


def _difference(old: Engine, new: Engine) -> str:
    a, b = asdict(old), asdict(new)
    return ", ".join(f"{k}={b[k]}" for k in b if a[k] != b[k])
