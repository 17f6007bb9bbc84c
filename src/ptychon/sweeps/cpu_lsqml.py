"""A compiled pass of LSQ-ML on the CPU, for a thin object; the equations of frames, means
and momentum are the engine's own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..engines.base import Report
from ..engines.lsqml import FAR, LSQML
from ..kernels.cpu import batch as _batch
from ..kernels.cpu import lsqml as _lsqml
from ..kernels.cpu.rows import f4, transfer_table
from ..model.unknowns import Unknowns
from ..types import IntArray
from .threads import each, stripes


def serves(engine: Any) -> bool:
    """Whether this pass computes what the engine does."""
    return type(engine) is LSQML


def lsqml_pass(
    engine: LSQML, state: Any, problem: Any, batches: Any, ctx: Any, *, kept: Any, threads: int
) -> tuple[Any, Report]:
    """One pass; the arguments of `Engine.step`."""
    epoch = state.epoch
    moves, together = engine.probe_moves_at(epoch), engine.together(epoch)
    shape, subpixel = problem.frame_shape, problem.subpixel
    scan = problem.shift_index, problem.corners, problem.amplitude, problem.mask
    ramps = kept.ramps(problem)
    transfer = transfer_table(problem.propagator.transfer, len(problem.shifts))
    O, P, corners = state.object.copy(), state.probe, problem.corners
    counted = _counted(engine, problem)
    groups = [_frames(batch) for batch in batches]
    largest = max(len(frames) for frames in groups)
    asked, light = np.zeros_like(O), np.zeros(O.shape, np.float32)
    total = np.zeros_like(light)
    whole = np.zeros_like(O) if together else asked
    chi = np.empty((largest, *P.shape), np.complex64)
    push = np.empty((largest, *shape), np.complex64)
    pull = np.empty_like(chi) if moves else chi
    sums, misfit, least_step = np.zeros((largest, 5)), np.zeros(len(problem)), np.inf
    rows, lines = stripes(len(O), threads), stripes(shape[0], threads)
    with ThreadPoolExecutor(threads) as pool:
        for frames in groups:
            n = len(frames)
            distinct, which = np.unique(
                problem.shift_index[frames].astype(np.int64), return_inverse=True
            )
            parts = stripes(n, threads)

            def shifted(field: Any, distinct: Any = distinct) -> Any:
                if not subpixel:
                    return np.repeat(field[None], len(distinct), axis=0)
                out = np.empty((len(distinct), *field.shape), np.complex64)
                job = ctx.backend.fft2(field), *ramps, distinct, out
                each(
                    pool,
                    _batch.batch_shift,
                    [(i, j, *job) for i, j in stripes(len(distinct), threads)],
                )
                return out

            probes = shifted(P)
            own = moves, subpixel, *ramps, *transfer, *counted, chi, push, pull, misfit
            each(
                pool,
                _lsqml.ask_frames,
                [(frames[i:j], which[i:j], i, O, probes, *scan, *own) for i, j in parts],
            )
            job = frames, which, probes, corners, light
            each(pool, _batch.batch_light, [(i, j, *job) for i, j in rows])
            each(pool, _batch.batch_add, [(i, j, frames, corners, push, asked) for i, j in rows])
            floor = f4(engine.floor) * f4(_lsqml.brightest(frames, corners, shape, light))
            direction, moved = None, probes
            if moves:
                power, force = np.zeros(shape, np.float32), np.zeros_like(P)
                job = frames, O, corners, power
                each(pool, _batch.batch_power, [(i, j, *job) for i, j in lines])
                each(pool, _batch.batch_pull, [(i, j, n, pull, force) for i, j in lines])
                force = ctx.backend.ifft2(force) if subpixel else force
                direction = force / (power + f4(engine.floor) * power.max())
                moved = shifted(direction)
            rest = O, probes, moved, asked, light, floor, corners, chi, moves, sums
            each(pool, _lsqml.frame_sums, [(frames[i:j], which[i:j], i, *rest) for i, j in parts])
            steps = engine.mean(engine.solved(*_equations(sums[:n], moves), np), np)
            step = f4(engine.step_size) * f4(steps[0])
            least_step = min(least_step, float(steps[0]))
            job = frames, corners, shape, asked, light, floor, step, O, total, whole, together
            each(pool, _lsqml.move_rows, [(i, j, *job) for i, j in rows])
            if direction is not None:
                share = engine.step_size / (len(groups) if together else 1)
                P = P + f4(share) * f4(steps[1]) * direction
    if together:
        d = engine.preconditioned(Unknowns(object=whole), total, 0).object
        O = O + f4(engine.step_size) * f4(least_step) * d
    found = ctx.comm.sum(np.asarray(misfit.sum()))
    engine.take(state, Unknowns(object=O, probe=P), total, found, np)
    state.epoch += 1
    return state, Report(found)


def _equations(sums: Any, moves: bool) -> tuple[Any, Any]:
    """Matrices (B, n, n) and right sides (B, n) of what `frame_sums` finds."""
    if not moves:
        return sums[:, None, :1], sums[:, 3:4]
    return sums[:, [0, 1, 1, 2]].reshape(-1, 2, 2), sums[:, 3:]


def _counted(engine: LSQML, problem: Any) -> tuple[Any, ...]:
    """Whether counts are compared, whether they are known beside the amplitude, they and their
    background; and where the model is wrong, not they.
    """
    by_counts, known = engine.noise == "poisson", problem.counts is not None
    if by_counts:
        engine.check_counts(problem)
    counts = problem.counts if known else problem.amplitude
    dark = problem.background[0] if known else np.zeros((1, problem.frame_shape[1]), np.float32)
    return by_counts, known, counts, dark, f4(FAR)


def _frames(batch: Any) -> IntArray:
    return np.arange(batch.start, batch.stop) if isinstance(batch, slice) else batch
