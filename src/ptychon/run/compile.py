"""Compilation before a run, so that it is in no pass and is announced where it takes time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..engines import Context, Engine
from ..metrics.residual import residual
from ..model.detector import blur
from ..model.problem import Problem
from ..model.propagators import NearField
from .schedule import Schedule

#: What `_pace` takes on the machine on which compiling was measured, seconds.
MEASURED = 0.005


def announcement(engine: Engine, shared: float = 0.0, pace: float = 1.0) -> str:
    """What is said before kernels are compiled.

    Parameters
    ----------
    engine : Engine
    shared : float
        Seconds that what engines share takes beside the engine's own kernels.
    pace : float
        How many times longer than stated things take here.
    """
    seconds = pace * (engine.keeps.compile_seconds + shared)
    return f"Compiling kernels (once, about {max(round(seconds), 1)} s)"


def _pace() -> float:
    """How many times longer the interpreter takes here than where compiling was measured: compilers
    are slow for the same reasons.
    """
    times = []
    for _ in range(5):
        start, sum_ = time.perf_counter(), 0
        for i in range(100_000):
            sum_ += i & 7
        times.append(time.perf_counter() - start)
    return min(times) / MEASURED


def on_stderr(text: str) -> None:
    """On the screen, apart from what a program prints."""
    print(text, file=sys.stderr, flush=True)


def warm_up(
    problem: Problem,
    engine: Engine,
    ctx: Context,
    modes: int = 1,
    schedule: Schedule | None = None,
    say: Callable[[str], None] | None = None,
) -> float:
    """Compile everything a run of `engine` needs by running it on a tiny problem of the same kind.

    Parameters
    ----------
    problem : Problem
    engine : Engine
    ctx : Context
    modes : int
        Of the probe.
    schedule : Schedule, optional
    say : callable, optional
        Told, in one sentence, if kernels are not on disk from an earlier run.

    Returns
    -------
    float
        Seconds.
    """
    from .iterate import iterate

    start = time.perf_counter()
    n, (p, q) = 3, (8, 8)
    shifts = np.array([[0.25, 0.5]] if problem.subpixel else [[0, 0]], np.float32)
    propagator = problem.propagator
    if propagator.transfer is not None:
        propagator = NearField.through(np.zeros((p, q)))
    tiny = replace(
        problem,
        amplitude=np.ones((n, p, q), np.float32),
        counts=None if problem.counts is None else np.ones((n, p, q), np.float32),
        background=None if problem.background is None else np.ones((1, p, q), np.float32),
        mask=np.ones((1 if len(problem.mask) == 1 else n, p, q), bool),
        # two that overlap and one that stands apart, so that schedules find batches of every kind
        corners=np.array([[0, 0], [1, 1], [p, q]], np.int32),
        shifts=shifts,
        shift_index=np.zeros(n, np.int32),
        object_shape=(2 * p, 2 * q),
        propagator=propagator,
        spread=None if problem.spread is None else blur((p, q), 1.0),
        measured=None,
        log_scale=None,
        variations=None,
        weights=None,
    )
    probe = np.ones((modes, p, q), np.complex64)

    def announce() -> None:
        if say is not None:
            say(announcement(engine, ctx.backend.shared_left(), _pace()))

    with ctx.backend.compiling(announce):
        for method, passes in ((engine, 1), (engine.eager(), 2)):
            steps = iterate(
                tiny,
                method,
                np.ones(tiny.field_shape, np.complex64),
                probe,
                ctx=ctx,
                schedule=schedule,
            )
            for _ in range(passes):
                last = next(steps)
        found = method.estimate(last.state, ctx)
        residual(
            tiny, ctx.backend.to_host(found.object), ctx.backend.to_host(found.probe), ctx.backend
        )
        ctx.backend.synchronise()
    return time.perf_counter() - start
