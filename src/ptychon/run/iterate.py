"""The loop over passes, as a generator."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ..backends import Backend
from ..engines import Context, Engine, Report, State
from ..engines.pie import full
from ..model.problem import Problem
from ..sweeps.find import fast_step, placed
from ..types import ComplexArray
from .between import Refinement
from .guess import mean_power
from .progress import Progress
from .refine import Found, Turns
from .schedule import Batches, Schedule


def iterate(
    problem: Problem,
    engine: Engine,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    ctx: Context,
    schedule: Schedule | None = None,
    resume: State | None = None,
    planned: int | None = None,
    turns: Turns | None = None,
    found: Found | None = None,
) -> Iterator[Progress]:
    """Yield a `Progress` after every pass, for ever.

    Parameters
    ----------
    problem : Problem
        On the host or already on the backend's device.
    engine : Engine
    object : (H, W) complex array
    probe : (K, P, Q) complex array
    ctx : Context
    schedule : Schedule, optional
        Default: the kind the engine asks for, in the order of the scan.
    resume : State, optional
        Go on from this state (it is changed) instead of from `object` and `probe`.
    planned : int, optional
        Only passed on to `Progress`.
    turns : Turns, optional
        What is refined between the passes; the problem is then on the host.
    found : Found, optional
        What had been refined when the state to go on from was kept.
    """
    backend, engine = ctx.backend, full(engine)
    base = placed(problem, backend, engine, len(probe if resume is None else resume.probe))
    schedule = schedule or Schedule(kind=engine.schedule)
    power = mean_power(problem) * len(problem)
    refined = Refinement(turns, problem, base, engine, ctx, found)
    local = refined.local
    state = (
        resume
        if resume is not None
        else engine.init(local, backend.asarray(object), backend.asarray(probe), ctx)
    )
    batches = Batches()
    start = time.perf_counter()
    while True:
        if not batches or schedule.differs(state.epoch):
            batches = schedule.batches(local, state.epoch)
        local = refined.local
        step = fast_step(backend, engine, local, batches) or engine.step
        state, report = step(state, local, batches, ctx)
        error, extra = _read(report, refined.power or power, backend)
        state = refined.turn(state)
        if refined.local.corners is not local.corners:
            batches = Batches()
        yield Progress(
            state.epoch,
            planned,
            error,
            state,
            time.perf_counter() - start,
            extra | refined.extra(),
            engine,
            found=refined.found,
        )


def _read(report: Report, power: float, backend: Backend) -> tuple[float, dict[str, float]]:
    error = float("nan")
    if report.misfit is not None:
        error = float(np.sqrt(float(backend.to_host(report.misfit)) / power))
    return error, {k: float(backend.to_host(v)) for k, v in report.extra.items()}
