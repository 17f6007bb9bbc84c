"""The only loop over passes, as a generator, and the one call that does everything."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from .. import __version__
from ..backends import Backend, get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine, State, make
from ..metrics.residual import residual
from ..model.problem import Problem
from ..sweeps.find import memory as memory_of
from ..sweeps.find import placed
from ..types import ComplexArray, FloatArray, PtychonError, PtychonWarning
from .checkpoint import Checkpoint, restore
from .compile import on_stderr, warm_up
from .doubts import all_doubts
from .first_probe import find_probe
from .guess import initial_object, scaled_probe, wave_power
from .iterate import iterate
from .modes import for_engine, orthogonal
from .progress import Callback
from .recipe import AGAIN_PASSES, WarmStart
from .recipe import warm_start as start_of
from .schedule import Schedule

#: Restarts of a failed run before it is given up.
MAX_RESTARTS = 2
#: Passes in a row below the tolerance before a run counts as converged.
STILL_PASSES = 5


class FailedError(PtychonError):
    """A run that learned nothing, whatever was tried."""


def reconstruct(
    data: Dataset | Problem,
    engine: str | Engine = "rpie",
    *,
    epochs: int = 100,
    backend: str | Backend = "auto",
    callbacks: Sequence[Callback] = (),
    object: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    modes: int | None = None,
    start: Result | None = None,
    schedule: Schedule | str | None = None,
    batch_size: int = 16,
    shuffle: bool | None = None,
    seed: int = 0,
    subpixel: bool = True,
    tolerance: float | None = None,
    warm_start: int | None = None,
    resume: Checkpoint | None = None,
    tell: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = on_stderr,
    judge: bool = True,
    **options: Any,
) -> Result:
    """Reconstruct object and probe from a scan.

    Parameters
    ----------
    data : Dataset or Problem
    engine : {"pie", "epie", "rpie", "dm", "ep"} or Engine
    epochs : int
        Passes over the data.
    backend : {"auto", "numpy", "cupy", "reference"} or Backend
    callbacks : sequence of callables
        Called with a `Progress` after each pass; True ends the run.
    object : (H, W) complex array, optional
        First object; default a constant. Never changed.
    probe : (P, Q) or (K, P, Q) complex array, optional
        First probe, or the known one for engines that do not move it; default that of the data set, else found from the data.
        Never changed. Engines that move the probe rescale it to the mean counts of a frame.
    modes : int, optional
        Incoherent modes of the probe; default as many as the first probe has. Weak ones are added to it (see
        `ptychon.run.modes`).
    start : Result, optional
        An earlier result to start from: its object, its probe, and its count of passes.
    schedule : Schedule or str, optional
        How a pass is cut into batches; default what the engine asks for.
    batch_size : int
        Of the schedule "minibatch".
    shuffle : bool, optional
        Visit frames in a new random order each pass; default True for ePIE and rPIE, False for the others.
    seed : int
        Of the shuffling. The result is a function of seed, backend and thread count.
    subpixel : bool
        Honour fractions of a pixel in the positions.
    tolerance : float, optional
        Stop when the object's relative change stays below this for five passes (engines that report it: "ep").
    warm_start : int, optional
        Passes that make the first guess, beside `epochs`: of PIE with a known probe, else of the difference map (of rPIE in the
        near field). Default for Ptycho-EP where neither `object` nor `start` is given: 20 (0 with few measurements), and up to
        60 with an unknown probe; else 0. See `warm_start`.
    resume : Checkpoint, optional
        Go on bit for bit from where a run with these same arguments was stopped; `epochs` counts its passes too.
    tell : callable, optional
        Told in one line, before anything is computed, what memory the run will hold and how much is free.
    say : callable, optional
        Told, in one sentence, where kernels must be compiled first; default prints it on the standard error stream.
    judge : bool
        Warn of what speaks against the result, though R may not show it (see `ptychon.run.doubts`).
    **options
        Of the engine, as `ptychon engines` lists them.

    Returns
    -------
    Result

    Raises
    ------
    PtychonError
        For bad input, unknown names, or a run that fails after its restarts.
    """
    if epochs < 1:
        raise PtychonError(f"epochs is {epochs}; at least 1 pass is needed")
    chosen = make(engine, **options) if isinstance(engine, str) else engine
    if not isinstance(engine, str) and options:
        raise PtychonError(f"options {', '.join(options)} were given beside a ready engine; set them on the engine")
    chosen = chosen.for_passes(epochs)
    ctx = Context(get_backend(backend))
    problem = Problem.from_dataset(data, subpixel=subpixel) if isinstance(data, Dataset) else data
    first_object, first_probe = _first_guess(data, problem, chosen, ctx, object, probe, modes, start)
    if not isinstance(schedule, Schedule):
        shuffle = chosen.shuffle if shuffle is None else shuffle
        schedule = Schedule(kind=schedule or chosen.schedule, size=batch_size, shuffle=shuffle, seed=seed)
    memory = memory_of(ctx.backend, problem, chosen, len(first_probe))
    if tell is not None:
        tell(memory.line())
    compile_seconds, guess = warm_up(problem, chosen, ctx, len(first_probe), schedule, say), None
    way: dict[str, Any] = {"object": first_object, "probe": first_probe, "backend": ctx.backend, "seed": seed, "say": say}
    light = np.linalg.norm(first_probe)
    before_it = start_of(problem, chosen, first_probe, warm_start, given=start is not None or object is not None)
    if before_it is not None and resume is None:
        guess = before_it.run(problem, callbacks, **way)
        if guess is not None:
            first_object, first_probe = guess.object, guess.probe
    before = start.epochs if start is not None else 0
    if resume is not None and (resume.engine != chosen.name or len(resume.errors) >= epochs):
        done = f"engine {resume.engine!r} after {len(resume.errors)} passes"
        raise PtychonError(f"the checkpoint is of {done}; it cannot go on as {chosen.name!r} to {epochs} passes")
    rest = ctx, schedule, epochs, callbacks, tolerance, before
    try:
        try:
            rows, state, seconds, chosen = _run(problem, chosen, first_object, first_probe, *rest, resume)
        except FailedError as error:
            if object is not None or start is not None or chosen.moves_probe:
                raise
            warnings.warn(f"{error}; beginning with {AGAIN_PASSES} passes of PIE", PtychonWarning, stacklevel=2)
            guess = WarmStart("pie", AGAIN_PASSES).run(problem, callbacks, **way)
            if guess is None:
                raise
            rows, state, seconds, chosen = _run(problem, chosen, guess.object, first_probe, *rest)
    except MemoryError as error:  # CuPy's own is a MemoryError too
        raise PtychonError(
            f"out of memory ({error}). {memory.line()}; use rpie or epie, which keep no wave for each frame, crop or bin the "
            f"frames, or take fewer of them"
        ) from None
    estimate = chosen.estimate(state, ctx)
    host = ctx.backend.to_host
    found_object, found_probe = host(estimate.object), host(estimate.probe)
    if not (np.isfinite(found_object).all() and np.isfinite(found_probe).all()):
        raise PtychonError(
            f"engine {chosen.name!r} diverged (object or probe not finite after {len(rows)} passes); "
            f"try smaller steps, a larger object_reg, or another first probe"
        )
    if chosen.moves_probe:
        found_probe = orthogonal(found_probe)
    if chosen.moves_probe and not chosen.fixes_scale:
        # the data do not hold the scale between the two, and noise lets it drift: the probe keeps the power it began with
        factor = np.float32(light / np.linalg.norm(found_probe))
        found_object, found_probe = found_object / factor, found_probe * factor
    earlier = start.errors if start is not None else np.zeros(0, np.float32)
    history = start.history if start is not None else {}
    names = sorted({*history, *(name for _, extra in rows for name in extra)})
    warmed = warm_start if resume is not None else guess.epochs if guess is not None else 0
    result = Result(
        object=found_object,
        probe=found_probe,
        object_std=None if estimate.object_std is None else host(estimate.object_std),
        draws=None if estimate.draws is None else host(estimate.draws),
        noise_variances=None if estimate.noise_variances is None else host(estimate.noise_variances),
        errors=np.concatenate([earlier, np.array([e for e, _ in rows], np.float32)]).astype(np.float32),
        final_error=residual(problem, found_object, found_probe, ctx.backend),
        positions=_centres(problem),
        origin=problem.origin,
        pixel_size=problem.pixel_size,
        engine=chosen.name,
        epochs=before + len(rows),
        backend=ctx.backend.name,
        options=_options(chosen),
        history={name: _column(name, rows, history, len(earlier)) for name in names},
        settings={"epochs": epochs, "seed": seed, "subpixel": subpixel, "schedule": asdict(schedule), "warm_start": warmed}
        | ({} if modes is None else {"modes": modes}),
        provenance={"ptychon": __version__, "backend": ctx.backend.describe()},
        seconds=seconds + (guess.seconds if guess is not None else 0.0),
        compile_seconds=compile_seconds,
    )
    if judge:
        for doubt in all_doubts(result, problem, data if isinstance(data, Dataset) else None):
            warnings.warn(doubt.text, PtychonWarning, stacklevel=2)
    return result


def _run(
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
) -> tuple[list[tuple[float, dict[str, float]]], State, float, Engine]:
    """The passes, with the stop rule and restarts: history, last state, seconds, and the engine that made it."""
    began = time.perf_counter()
    because = ""
    try:
        for attempt in range(MAX_RESTARTS + 1):
            rows: list[tuple[float, dict[str, float]]] = []
            state = None
            if resume is not None and attempt == 0:
                local, move = placed(problem, ctx.backend, engine, len(probe)), ctx.backend.asarray
                first = engine.init(local, move(object), move(probe), ctx)
                rows, state = resume.rows(), restore(resume, first, ctx.backend)
            remedy = None
            for progress in iterate(problem, engine, object, probe, ctx=ctx, schedule=schedule, resume=state, epochs=epochs):
                rows.append((progress.error, progress.extra))
                seen = replace(progress, epoch=before + progress.epoch, epochs=before + epochs)
                asked = [bool(callback(seen)) for callback in callbacks]
                remedy = engine.remedy(progress.extra, len(rows))
                if remedy is not None or any(asked) or _still(rows, tolerance) >= STILL_PASSES or len(rows) >= epochs:
                    break
            if remedy is None:
                earlier = resume.seconds if resume is not None and attempt == 0 else 0.0
                return rows, progress.state, earlier + time.perf_counter() - began, engine
            because = remedy.because
            if attempt < MAX_RESTARTS:
                changed = _difference(engine, remedy.engine)
                text = f"pass {len(rows)} of engine {engine.name!r} {because}; starting again with {changed}"
                warnings.warn(text, PtychonWarning, stacklevel=4)
                engine = remedy.engine
        raise FailedError(
            f"engine {engine.name!r} failed {MAX_RESTARTS + 1} times (the last one {because}); start it from the "
            f"result of another engine, or give a better probe"
        )
    finally:
        for callback in callbacks:
            close = getattr(callback, "close", None)
            if close is not None:
                close()


def _column(
    name: str, rows: list[tuple[float, dict[str, float]]], history: Mapping[str, FloatArray], passes: int
) -> FloatArray:
    """One number of the history over all passes, those of earlier runs first; NaN where it was not recorded."""
    before = history.get(name, np.full(passes, np.nan))
    return np.concatenate([before, [extra.get(name, np.nan) for _, extra in rows]]).astype(np.float32)


def _still(rows: list[tuple[float, dict[str, float]]], tolerance: float | None) -> int:
    """Passes at the end of a run in which the object changed by less than the tolerance; at most `STILL_PASSES`."""
    count = 0
    while tolerance and count < min(STILL_PASSES, len(rows)) and rows[-1 - count][1].get("change", math.inf) < tolerance:
        count += 1
    return count


def _options(engine: Engine) -> dict[str, Any]:
    return asdict(engine)


def _difference(old: Engine, new: Engine) -> str:
    a, b = _options(old), _options(new)
    return ", ".join(f"{k}={b[k]}" for k in b if a[k] != b[k])


def _centres(problem: Problem) -> FloatArray:
    p, q = problem.frame_shape
    centres: FloatArray = problem.corners + np.array([p // 2, q // 2]) + problem.shifts[problem.shift_index].astype(float)
    return centres


def _first_guess(
    data: Dataset | Problem,
    problem: Problem,
    engine: Engine,
    ctx: Context,
    object: ComplexArray | None,
    probe: ComplexArray | None,
    modes: int | None,
    start: Result | None,
) -> tuple[ComplexArray, ComplexArray]:
    """Object (H, W) and probe (K, P, Q) to start from."""
    power = wave_power(problem)
    if start is not None:
        object = start.object if object is None else object
        probe = start.probe if probe is None else probe
    elif probe is None and isinstance(data, Dataset):
        probe = data.probe
    if probe is None:
        probe = find_probe(problem, ctx.backend)
    probe = np.asarray(probe)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim != 3 or probe.shape[1:] != problem.frame_shape:
        raise PtychonError(f"the probe has shape {probe.shape}; frames are {problem.frame_shape}: they must agree")
    if not np.isfinite(probe).all() or not np.any(probe):
        raise PtychonError("the first probe has values that are not finite, or is zero everywhere")
    probe = for_engine(probe, modes, engine)
    if engine.moves_probe and start is None and object is None:
        probe = scaled_probe(probe, power)
    if object is None:
        object = initial_object(problem, probe, power)
    object = np.asarray(object)
    if object.shape != problem.object_shape:
        raise PtychonError(f"the first object has shape {object.shape}; the problem needs {problem.object_shape}")
    if not np.isfinite(object).all():
        raise PtychonError("the first object has values that are not finite")
    # rows in memory as compiled loops run over them; files of other languages store columns
    return np.ascontiguousarray(object, np.complex64), np.ascontiguousarray(probe, np.complex64)
