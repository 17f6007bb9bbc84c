"""Engines timed against the textbook code, against their FFTs, and beside a busy neighbour.

Everything that is compared is measured in turns, so that whatever else the machine does falls on
all alike: a repeat is one stretch of passes of each, and what is reported is the median over
repeats, of times and of the ratios within a repeat. On a machine that others use, processor time is
the steadier measure: it leaves out the time a process waits for its turn.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..engines import Context, Engine, nearest
from ..kernels.cpu.rows import fft, jit
from ..metrics.residual import residual
from ..run.compile import warm_up
from ..run.iterate import iterate
from ..run.progress import Progress
from ..run.schedule import Schedule
from ..sweeps.find import fast_step
from ..types import Array, PtychonError
from . import textbook_runs
from .cases import ENGINES, Case, engine_named
from .clock import machine, timed

#: Passes of a stretch: a multiple of the passes between two measurements of the residual, which
#: some passes do.
PASSES = 5


@dataclass
class _Contender:
    """What is timed: `stretch` runs the passes once; `seconds` and `cpu` collect one time a repeat,
    of the clock, and of the processors, summed over threads."""

    stretch: Callable[[], Any]
    backend: Backend
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self) -> None:
        begin = time.process_time()
        self.seconds.append(timed(self.backend, self.stretch)[1])
        self.cpu.append(time.process_time() - begin)


def fallback(engine: Engine, problem: Any, backend: Backend) -> list[str]:
    """Reference kernels that a pass of `engine` would use: none where the backend has a fused sweep
    for it.
    """
    batches = Schedule(kind=engine.schedule).batches(problem, 0)
    if fast_step(backend, engine, problem, batches) is not None:
        return []
    return list(backend.describe()["reference kernels"])


def compare(
    case: Case,
    engines: Sequence[str] = (),
    repeats: int = 7,
    threads: int = 1,
    *,
    backend: str | Backend = "numpy",
    passes: int = PASSES,
    busy: bool = False,
    with_textbook: bool = True,
    allow_reference: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time engines on a case.

    Parameters
    ----------
    case : Case
    engines : sequence of str
        Names of `cases.ENGINES`; all the case is for if there are none.
    repeats : int
    threads : int
        Of the numpy backend. The textbook code has one.
    backend : str or Backend
    passes : int
        Passes over the data a repeat.
    busy : bool
        Time each engine also while another process keeps a core busy.
    with_textbook : bool
    allow_reference : bool
        Time engines that would run on the reference kernels, instead of refusing.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Ready for JSON. `engines[name]`: `us` a position and iteration (median) and `all_us`,
        `textbook_us`, `ratio` textbook/package, `fft_us` and `fft_share`, the time that two FFTs a
        mode and position alone take; on a CPU `cpu_us`, `cpu_ratio` and `cpu_fft_share`, the same
        in processor time summed over threads; `busy_us` and `slowdown`, `peak_bytes` of arrays
        beyond the problem and `bytes_per_position` of them, `compile_s`, `R` at the end and
        `passes` until then, `skipped` share of frames that expectation propagation left alone
        (which costs less).

    Raises
    ------
    PtychonError
        Unknown engines, numbers that are not positive, a reference fallback that was not asked for.
    """
    if repeats < 1 or passes < 1:
        raise PtychonError(f"repeats is {repeats} and passes {passes}; both must be at least 1")
    names = tuple(engines) or case.engines
    for name in names:
        if name not in ENGINES:
            raise PtychonError(f"unknown engine {name!r}; {nearest(name, ENGINES)}")
        if name not in case.engines:
            raise PtychonError(
                f"engine {name!r} cannot do case {case.name!r}; it is for {', '.join(case.engines)}"
            )
    chosen = get_backend(backend, **({"threads": threads} if backend == "numpy" else {}))
    methods = {name: engine_named(name) for name in names}
    for name, method in methods.items():
        slow = fallback(method, case.problem, chosen)
        if slow and not allow_reference:
            raise PtychonError(
                f"engine {name!r} on backend {chosen.name!r} would run on reference kernels "
                f"({', '.join(slow)}); "
                f"such times say nothing of the backend (ask for them with --reference)"
            )
    rows = {}
    for name, method in methods.items():
        say(f"{case.name}: {name}")
        rows[name] = _measure(case, method, Context(chosen), repeats, passes, busy, with_textbook)
    return {
        "case": {
            "name": case.name,
            "about": case.about,
            "positions": len(case.problem),
            "modes": len(case.probe),
        },
        "machine": machine(),
        "backend": chosen.describe(),
        "threads": chosen.threads,
        "repeats": repeats,
        "passes": passes,
        "engines": rows,
    }


def _measure(
    case: Case,
    engine: Engine,
    ctx: Context,
    repeats: int,
    passes: int,
    busy: bool,
    with_textbook: bool,
) -> dict[str, Any]:
    row = _times(case, engine, ctx, repeats, passes, busy, with_textbook)
    # after the times, when everything is loaded and let go of, so that only arrays of a run are
    # counted
    row["peak_bytes"] = _peak(case, engine, ctx)
    row["bytes_per_position"] = row["peak_bytes"] / len(case.problem)
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in row.items()
    }


def _times(
    case: Case,
    engine: Engine,
    ctx: Context,
    repeats: int,
    passes: int,
    busy: bool,
    with_textbook: bool,
) -> dict[str, Any]:
    backend, n = ctx.backend, len(case.problem)
    row: dict[str, Any] = {"compile_s": warm_up(case.problem, engine, ctx, len(case.probe))}
    steps = iterate(case.problem, engine, *case.start(engine), ctx=ctx)
    seen: deque[Progress] = deque(maxlen=repeats * passes)

    def go() -> None:
        for _ in range(passes):
            seen.append(next(steps))

    go()
    package = _Contender(go, backend)
    rivals = {"package": package}
    if with_textbook:
        try:
            book = textbook_runs.start(engine, case.problem, *case.start(engine))
        except PtychonError as error:
            row["no_textbook"] = str(error)
        else:
            book.sweep()
            rivals["textbook"] = _Contender(
                lambda: [book.sweep() for _ in range(passes)], get_backend("reference")
            )
    if backend.name == "numpy":
        rivals["fft"] = _Contender(
            _fft_pairs(case.probe.shape, n * passes, backend.threads), backend
        )
    pressed = _Contender(go, backend)
    for _ in range(repeats):
        for rival in rivals.values():
            rival.run()
        if busy:
            with neighbour():
                pressed.run()
    state = seen[-1].state
    estimate = engine.estimate(state, ctx)
    found = backend.to_host(estimate.object), backend.to_host(estimate.probe)
    scale = 1e6 / (n * passes)
    row |= {
        "us": scale * _median(package.seconds),
        "all_us": [round(scale * s, 2) for s in package.seconds],
    }
    on_cpu = backend.name != "cupy"
    if on_cpu:
        row["cpu_us"] = scale * _median(package.cpu)
    for name, ratio in (("textbook", "ratio"), ("fft", "fft_share")):
        if name in rivals:
            row[f"{name}_us"] = scale * _median(rivals[name].seconds)
            row[ratio] = _median_ratio(rivals[name].seconds, package.seconds)
            if on_cpu:
                row[f"cpu_{ratio}"] = _median_ratio(rivals[name].cpu, package.cpu)
    if busy:
        row["busy_us"] = scale * _median(pressed.seconds)
        row["slowdown"] = _median_ratio(pressed.seconds, package.seconds)
    row |= {"R": residual(case.problem, *found, backend), "passes": int(state.epoch)}
    row["skipped"] = float(np.mean([progress.extra.get("skipped", 0.0) for progress in seen]))
    return row


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _median_ratio(a: list[float], b: list[float]) -> float:
    # a clock that ticks coarsely may see nothing of a tiny problem
    return float(np.median(np.array(a) / np.maximum(b, 1e-9)))


def _peak(case: Case, engine: Engine, ctx: Context) -> int:
    """Peak bytes of arrays that the first state and two passes hold beyond the problem, its copies
    on a GPU included.
    """
    if ctx.backend.name == "cupy":
        xp: Any = ctx.backend.xp
        pool = xp.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        _few(case, engine, ctx)
        return int(pool.total_bytes() - before)
    tracemalloc.start()
    try:
        _few(case, engine, ctx)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _few(case: Case, engine: Engine, ctx: Context) -> None:
    steps = iterate(case.problem, engine, *case.start(engine), ctx=ctx)
    for _ in range(2):
        next(steps)


@jit
def _pairs(a: Array, count: int) -> None:
    for _ in range(count):
        fft(a, a, True)
        fft(a, a, False)


def _fft_pairs(shape: tuple[int, ...], count: int, threads: int) -> Callable[[], Any]:
    """A function that does `count` forward and inverse FFTs of (K, P, Q) with the FFT of the fused
    kernels, cut by thread.
    """
    waves = [np.ones(shape, np.complex64) for _ in range(threads)]
    shares = [len(part) for part in np.array_split(np.arange(count), threads)]
    for wave in waves:
        _pairs(wave, 1)
    if threads == 1:
        return lambda: _pairs(waves[0], count)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(_pairs, waves, shares))


@contextmanager
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that keeps one core busy for as long as the block lasts."""
    code = "print(flush=True)\nx = 1.0\nwhile True: x = x * 0.999 + 1"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()
