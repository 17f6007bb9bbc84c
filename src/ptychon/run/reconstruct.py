"""The one call that does everything."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .. import __version__
from ..backends import Backend, get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine, check_copes, make, plain
from ..metrics.residual import residual
from ..model.problem import Problem
from ..sweeps.find import memory as memory_of
from ..sweeps.find import why_slow
from ..types import ComplexArray, FloatArray, PtychonError, PtychonWarning
from .attempts import FailedError
from .checkpoint import Checkpoint
from .compile import on_stderr, warm_up
from .doubts import all_doubts
from .finish import Plan, finishing_passes
from .first_probe import find_probe
from .guess import initial_object, scaled_probe, wave_power
from .iterate import iterate
from .modes import for_engine, orthogonal
from .placing import placed, rescaling
from .positions import carried, with_found
from .progress import Callback, Progress
from .recipe import AGAIN_PASSES, WarmStart
from .recipe import warm_start as start_of
from .schedule import Schedule
from .steps import with_steps

__all__ = ["Callback", "Progress", "iterate", "reconstruct"]


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
    finish: int | None = None,
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
    engine : {"pie", "epie", "rpie", "dm", "ep", "ml"} or Engine
    epochs : int
        Passes over the data.
    backend : {"auto", "numpy", "cupy", "reference"} or Backend
    callbacks : sequence of callables
        Called with a `Progress` after each pass; True ends the run.
    object : (H, W) complex array, optional
        First object; default a constant. Never changed.
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
    schedule : Schedule or str, optional
        How a pass is cut into batches; default what the engine asks for.
    batch_size : int
        Of the schedule "minibatch".
    shuffle : bool, optional
        Visit frames in a new random order each pass; default True for ePIE and rPIE, False for the
        others.
    seed : int
        Of the shuffling. The result is a function of seed, backend and thread count.
    subpixel : bool
        Honour fractions of a pixel in the positions.
    tolerance : float, optional
        Stop when the object's relative change stays below this for five passes (engines that report
        it: "ep").
    warm_start : int, optional
        Passes that make the first guess, beside `epochs`: of PIE with a known probe, else of the
        difference map (of rPIE in the near field). Default for Ptycho-EP where neither `object` nor
        `start` is given: 20 (0 with few measurements), and up to 60 with an unknown probe; for "ml"
        20 of rPIE; else 0. See `warm_start`.
    finish : int, optional
        Passes of rPIE that end a run of the difference map, of the `epochs` asked for; default a
        quarter of them, 0 for none.
    resume : Checkpoint, optional
        Go on bit for bit from where a run with these same arguments was stopped; `epochs` counts
        its passes too.
    tell : callable, optional
        Told in one line each, before anything is computed, what memory the run will hold and how
        much is free, and which steps were chosen and why.
    say : callable, optional
        Told, in one sentence each, where kernels must be compiled first and how a result to start
        from was placed; default prints it on the standard error stream.
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
    epochs, seed, finish, warm_start, tolerance = (
        plain(v) for v in (epochs, seed, finish, warm_start, tolerance)
    )
    if epochs < 1:
        raise PtychonError(f"epochs is {epochs}; at least 1 pass is needed")
    chosen = make(engine, **options) if isinstance(engine, str) else engine
    if not isinstance(engine, str) and options:
        raise PtychonError(
            f"options {', '.join(options)} were given beside a ready engine; set them on the engine"
        )
    finish = finishing_passes(chosen, finish, epochs)
    chosen = chosen.for_passes(epochs)
    ctx = Context(get_backend(backend))
    problem = Problem.from_dataset(data, subpixel=subpixel) if isinstance(data, Dataset) else data
    if start is not None:
        problem = carried(problem, start, chosen)
    check_copes(chosen, problem)
    chosen, steps = with_steps(chosen, problem)
    second, second_steps = chosen, ""
    if finish:
        second, second_steps = with_steps(make(chosen.finished_by).for_passes(finish), problem)
    compile_seconds = 0.0
    if probe is None and start is None and (isinstance(data, Problem) or data.probe is None):
        # candidates are tried with rPIE on one core
        compile_seconds += warm_up(
            problem, make("rpie"), Context(get_backend("numpy", threads=1)), say=say
        )
    early: list[str] = []
    first_object, first_probe = _first_guess(
        data, problem, chosen, ctx, object, probe, modes, start, say, early.append
    )
    for text in early:
        warnings.warn(text, PtychonWarning, stacklevel=2)
    shuffled = chosen.shuffle if shuffle is None else shuffle
    second_schedule = Schedule(
        kind=second.schedule, size=batch_size, shuffle=shuffle is not False, seed=seed
    )
    if not isinstance(schedule, Schedule):
        schedule = Schedule(
            kind=schedule or chosen.schedule, size=batch_size, shuffle=shuffled, seed=seed
        )
    memory = memory_of(ctx.backend, problem, chosen, len(first_probe))
    if tell is not None:
        tell(memory.line())
        slow = why_slow(ctx.backend, chosen)
        if slow is not None:
            tell(slow)
        if steps:
            tell(f"steps: {steps}")
    compile_seconds += warm_up(problem, chosen, ctx, len(first_probe), schedule, say)
    if finish:
        compile_seconds += warm_up(problem, second, ctx, len(first_probe), second_schedule, say)
    guess: Result | None = None
    way: dict[str, Any] = {
        "object": first_object,
        "probe": first_probe,
        "backend": ctx.backend,
        "seed": seed,
        "say": say,
    }
    light = np.linalg.norm(first_probe)
    before_it = start_of(
        problem, chosen, first_probe, warm_start, given=start is not None or object is not None
    )
    if before_it is not None and resume is None:
        guess = before_it.run(problem, callbacks, **way)
        if guess is not None:
            first_object, first_probe = guess.object, guess.probe
            compile_seconds += guess.compile_seconds
    before = start.epochs if start is not None else 0
    goes_on = resume is None or resume.engine in (chosen.name, second.name)
    if resume is not None and (not goes_on or len(resume.errors) >= epochs):
        done = f"engine {resume.engine!r} after {len(resume.errors)} passes"
        raise PtychonError(
            f"the checkpoint is of {done}; it cannot go on as {chosen.name!r} to {epochs} passes"
        )
    plan, rest = (
        Plan(chosen, schedule, epochs, finish, second, second_schedule),
        (ctx, callbacks, tolerance, before),
    )
    try:
        try:
            run, ran = plan.run(problem, first_object, first_probe, *rest, resume)
        except FailedError as error:
            if object is not None or start is not None or chosen.moves_probe:
                raise
            warnings.warn(
                f"{error}; beginning with {AGAIN_PASSES} passes of PIE",
                PtychonWarning,
                stacklevel=2,
            )
            guess = WarmStart("pie", AGAIN_PASSES, dispensable=True).run(problem, callbacks, **way)
            if guess is None:
                raise
            run, ran = plan.run(problem, guess.object, first_probe, *rest)
    except MemoryError as error:  # CuPy's own is a MemoryError too
        raise PtychonError(
            f"out of memory ({error}). {memory.line()}; use rpie or epie, which keep no wave "
            "for each frame, crop or bin the "
            f"frames, or take fewer of them"
        ) from None
    finally:
        for callback in callbacks:
            close = getattr(callback, "close", None)
            if close is not None:
                close()
    rows = run.rows
    chosen = run.engine if len(ran) == 1 else chosen
    estimate = run.engine.estimate(run.state, ctx)
    host = ctx.backend.to_host
    found_object, found_probe = host(estimate.object), host(estimate.probe)
    if not (np.isfinite(found_object).all() and np.isfinite(found_probe).all()):
        raise PtychonError(
            f"engine {chosen.name!r} diverged (object or probe not finite after {len(rows)} "
            "passes); "
            f"try smaller steps, a larger object_reg, or another first probe"
        )
    if chosen.moves_probe:
        found_probe = orthogonal(found_probe)
    if chosen.moves_probe and not chosen.fixes_scale:
        # the data do not hold the scale between the two, and noise lets it drift: the probe keeps
        # the power it began with
        factor = np.float32(light / np.linalg.norm(found_probe))
        found_object, found_probe = found_object / factor, found_probe * factor
    problem = with_found(problem, estimate, host)
    earlier = start.errors if start is not None else np.zeros(0, np.float32)
    history = start.history if start is not None else {}
    names = sorted({*history, *(name for _, extra in rows for name in extra)})
    warmed = warm_start if resume is not None else guess.epochs if guess is not None else 0
    result = Result(
        object=found_object,
        probe=found_probe,
        object_std=None if estimate.object_std is None else host(estimate.object_std),
        draws=None if estimate.draws is None else host(estimate.draws),
        noise_variances=None
        if estimate.noise_variances is None
        else host(estimate.noise_variances),
        errors=np.concatenate([earlier, np.array([e for e, _ in rows], np.float32)]).astype(
            np.float32
        ),
        final_error=residual(problem, found_object, found_probe, ctx.backend),
        positions=problem.positions,
        corners=np.array(problem.corners),
        positions_given=problem.measured,
        log_scale=problem.log_scale,
        origin=problem.origin,
        pixel_size=problem.pixel_size,
        engine=chosen.name,
        epochs=before + len(rows),
        backend=ctx.backend.name,
        options=asdict(chosen),
        history={name: _column(name, rows, history, len(earlier)) for name in names},
        settings={
            "epochs": epochs,
            "seed": seed,
            "subpixel": subpixel,
            "schedule": asdict(schedule),
            "warm_start": warmed,
            "finish": finish,
            "ran": [list(part) for part in ran],
            "steps": steps or (second_steps if len(ran) > 1 else ""),
        }
        | ({} if modes is None else {"modes": modes}),
        provenance={"ptychon": __version__, "backend": ctx.backend.describe()},
        seconds=run.seconds + (guess.seconds if guess is not None else 0.0),
        compile_seconds=compile_seconds,
    )
    if judge:
        for doubt in all_doubts(result, problem):
            # that the window cuts the beam off was said before the first pass
            if doubt.about != "window" or not early:
                warnings.warn(doubt.text, PtychonWarning, stacklevel=2)
    return result


def _column(
    name: str,
    rows: list[tuple[float, dict[str, float]]],
    history: Mapping[str, FloatArray],
    passes: int,
) -> FloatArray:
    """One number of the history over all passes, those of earlier runs first; NaN where it was not
    recorded.
    """
    before = history.get(name, np.full(passes, np.nan))
    return np.concatenate([before, [extra.get(name, np.nan) for _, extra in rows]]).astype(
        np.float32
    )


def _first_guess(
    data: Dataset | Problem,
    problem: Problem,
    engine: Engine,
    ctx: Context,
    object: ComplexArray | None,
    probe: ComplexArray | None,
    modes: int | None,
    start: Result | None,
    say: Callable[[str], None] | None,
    doubt: Callable[[str], None],
) -> tuple[ComplexArray, ComplexArray]:
    """Object (H, W) and probe (K, P, Q) to start from."""
    power = wave_power(problem)
    if start is not None:
        moved = placed(start, problem)
        known = probe is not None and not engine.moves_probe
        object = moved.object if object is None else object
        probe = moved.probe if probe is None else probe
        if say is not None and moved.said:
            say(moved.said)
    elif probe is None and isinstance(data, Dataset):
        probe = data.probe
    if probe is None:
        probe = find_probe(problem, ctx.backend, doubt)
    probe = np.asarray(probe)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim != 3 or probe.shape[1:] != problem.frame_shape:
        raise PtychonError(
            f"the probe has shape {probe.shape}; frames are {problem.frame_shape}: they must agree"
        )
    if not np.isfinite(probe).all() or not np.any(probe):
        raise PtychonError("the first probe has values that are not finite, or is zero everywhere")
    probe = for_engine(probe, modes, engine)
    if engine.moves_probe and start is None and object is None:
        probe = scaled_probe(probe, power)
    if object is None:
        object = initial_object(problem, probe, power)
    object = np.asarray(object)
    if object.shape != problem.object_shape:
        raise PtychonError(
            f"the first object has shape {object.shape}; the problem needs {problem.object_shape}"
        )
    if not np.isfinite(object).all():
        raise PtychonError("the first object has values that are not finite")
    if start is not None and (factor := rescaling(problem, object, probe)) != 1:
        if say is not None:
            say(
                f"the model of the result to start from is multiplied by {factor:.4g}: its "
                "counts had another unit"
            )
        object, probe = (object * factor, probe) if known else (object, probe * factor)
    # rows in memory as compiled loops run over them; files of other languages store columns
    return np.ascontiguousarray(object, np.complex64), np.ascontiguousarray(probe, np.complex64)
