"""Fused sweeps: the same step as an engine's own, as compiled loops over positions. `find` says
where one exists.

An engine's `step` stays the specification; tests hold each sweep here against it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import numpy as np

from ..engines.base import Report
from ..engines.difference_map import RAAR, DifferenceMap
from ..engines.mpie import MPIE
from ..engines.pie import ITERATIVE
from ..engines.ptycho_ep import PtychoEP
from ..kernels.cpu import batch as _numba_batch
from ..kernels.cpu import ep as _numba_ep
from ..kernels.cpu import pie as _numba_pie
from ..kernels.cpu import rows as _numba
from ..kernels.cpu.rows import ONE, f4
from ..types import Array, IntArray
from . import cpu_lsqml, cpu_waves
from .threads import each, stripes

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
#: Frames of a batch whose changes are held at a time, 8 bytes a pixel each.
CHUNK = 32


class Kept:
    """The probe at every shift and, where it is known, its weights, from one pass to the next of
    the same problem.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, ...] | None = None
        self._ramps: tuple[Any, tuple[Array, Array]] | None = None

    def ramps(self, problem: Any) -> tuple[Array, Array]:
        """Those of every distinct shift."""
        if self._ramps is None or self._ramps[0]() is not problem:
            self._ramps = (
                weakref.ref(problem),
                _numba.separable_ramps(problem.shifts, problem.frame_shape),
            )
        return self._ramps[1]

    def _forget(self, problem: Any) -> None:
        self._entry = None

    def probes(
        self, state: Any, problem: Any, ctx: Any, weights: tuple[bool, Any, Any, Any]
    ) -> tuple[Array, Array]:
        """(U, K, P, Q) and (U, P, Q), made anew where the probe's values, the weights or the
        problem have changed.
        """
        entry = self._entry
        if (
            entry is not None
            and entry[0]() is problem
            and entry[1] == weights
            and np.array_equal(entry[2], state.probe)
        ):
            return entry[3], entry[4]
        probes = self.shifted(state, problem, ctx)
        factor = np.empty((len(probes), *probes.shape[2:]), np.float32)
        _numba_pie.object_weights(probes, *weights, factor)
        self._entry = (
            weakref.ref(problem, self._forget),
            weights,
            state.probe.copy(),
            probes,
            factor,
        )
        return probes, factor

    def shifted(self, state: Any, problem: Any, ctx: Any) -> Array:
        """(U, K, P, Q) alone: the difference map begins a pass with the probe that it ended the
        last one with.
        """
        entry = self._entry
        if entry is not None and entry[0]() is problem and np.array_equal(entry[2], state.probe):
            return cast(Array, entry[3])
        probes = _shifted(state, problem, ctx)
        self._entry = weakref.ref(problem, self._forget), None, state.probe.copy(), probes, None
        return probes


def find(engine: Any, problem: Any, batches: Any, threads: int, kept: Kept) -> Step | None:
    """The fused step of `engine` for these batches, or None where only the engine's own will do."""
    one_by_one = all(isinstance(b, slice) and b.stop - b.start == 1 for b in batches)
    apart = one_by_one or getattr(batches, "disjoint", False)
    kind = type(engine)  # a subclass may compute something else
    if cpu_lsqml.serves(engine):
        return lambda *a: cpu_lsqml.lsqml_pass(engine, *a, kept=kept, threads=threads)
    if kind is PtychoEP:
        return lambda *a: _ep(engine, *a, apart=apart, threads=1 if one_by_one else threads)
    if kind is RAAR or (kind is DifferenceMap and engine.beta == 1):
        step = cpu_waves.raar if kind is RAAR else cpu_waves.difference_map
        return lambda *a: step(engine, *a, kept=kept, threads=threads)
    if kind in (*ITERATIVE, MPIE):
        if one_by_one or (apart and not engine.moves_probe):
            return engine.pass_of(  # type: ignore[no-any-return]
                lambda *a: _iterative(engine, *a, kept=kept, threads=1 if one_by_one else threads)
            )
        return engine.pass_of(  # type: ignore[no-any-return]
            lambda *a: _together(engine, *a, kept=kept, threads=threads)
        )
    return None


def _weights(engine: Any) -> tuple[bool, Any, Any, Any]:
    """(root, step, a, reg) of the object weight step (|P|/max|P| if root)/(a |P|^2 +
    reg max|P|^2).
    """
    reg = f4(getattr(engine, "object_reg", 1.0))
    return engine.root, f4(engine.object_step), ONE if engine.root else ONE - reg, reg


def _order(batches: Any) -> tuple[IntArray, IntArray]:
    """Positions in the order of the batches, and where each batch begins and ends."""
    groups = [np.arange(b.start, b.stop) if isinstance(b, slice) else b for b in batches]
    return np.concatenate(groups), np.cumsum([0, *(len(g) for g in groups)])


def _transfer(problem: Any) -> tuple[Array, bool]:
    return _numba.transfer_table(problem.propagator.transfer, len(problem.shifts))


def _iterative(
    engine: Any, state: Any, problem: Any, batches: Any, ctx: Any, *, kept: Kept, threads: int
) -> tuple[Any, Any]:
    order, bounds = _order(batches)
    transfer, near = _transfer(problem)
    root, step, a, reg = _weights(engine)
    cooling = f4(engine.cooling(state.epoch))
    step = cooling * step
    scan = problem.shift_index, problem.corners, problem.amplitude, problem.mask
    if engine.probe_moves_at(state.epoch):
        ramps = kept.ramps(problem)
        p_step, p_reg = cooling * f4(engine.probe_step), f4(getattr(engine, "probe_reg", 1.0))
        misfit = _numba_pie.moving_probe_sweep(
            state.object,
            state.probe,
            problem.subpixel,
            *ramps,
            *scan,
            order,
            step,
            reg,
            p_step,
            p_reg,
            transfer,
            near,
        )
    else:
        probes, factor = kept.probes(state, problem, ctx, (root, step, a, reg))
        parts = (
            [[order]]
            if threads == 1
            else [np.array_split(order[i:j], threads) for i, j in pairwise(bounds)]
        )
        with ThreadPoolExecutor(
            threads
        ) as pool:  # windows of one batch do not overlap: threads may write at once
            jobs = [
                [(state.object, probes, factor, *scan, part, transfer, near) for part in batch]
                for batch in parts
            ]
            misfit = sum(sum(each(pool, _numba_pie.fixed_probe_sweep, batch)) for batch in jobs)
    state.epoch += 1
    return state, Report(ctx.comm.sum(misfit))


def _together(
    engine: Any, state: Any, problem: Any, batches: Any, ctx: Any, *, kept: Kept, threads: int
) -> tuple[Any, Any]:
    """PIE, ePIE and rPIE where the frames of a batch see the same object and probe."""
    moves, subpixel, shape = (
        engine.probe_moves_at(state.epoch),
        problem.subpixel,
        problem.frame_shape,
    )
    root, step, a, reg = weights = _weights(engine)
    cooling, ramps = f4(engine.cooling(state.epoch)), kept.ramps(problem)
    scan = problem.shift_index, problem.corners, problem.amplitude, problem.mask
    largest = min(CHUNK, max(b.stop - b.start if isinstance(b, slice) else len(b) for b in batches))
    push, misfit = np.empty((largest, *shape), np.complex64), np.zeros(len(problem))
    pull = np.empty((largest if moves else 0, *state.probe.shape), np.complex64)
    weight = np.zeros(shape, np.float32)
    if not moves:
        probes = kept.probes(state, problem, ctx, weights)[0]
    rows, lines = stripes(len(state.object), threads), stripes(shape[0], threads)
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            frames = np.arange(batch.start, batch.stop) if isinstance(batch, slice) else batch
            which = problem.shift_index[frames].astype(np.int64)
            if moves:
                distinct, which = np.unique(which, return_inverse=True)
                probes = np.empty((len(distinct), *state.probe.shape), np.complex64)
                spectrum = ctx.backend.fft2(state.probe) if subpixel else state.probe
                if subpixel:
                    part = (spectrum, *ramps, distinct, probes)
                    each(
                        pool,
                        _numba_batch.batch_shift,
                        [(i, j, *part) for i, j in stripes(len(distinct), threads)],
                    )
                else:
                    probes[:] = state.probe
                power = np.zeros(shape, np.float32)
                each(
                    pool,
                    _numba_batch.batch_power,
                    [(i, j, frames, state.object, scan[1], power) for i, j in lines],
                )
                p_reg = f4(getattr(engine, "probe_reg", 1.0))
                weight = (
                    cooling * f4(engine.probe_step) / ((1 - p_reg) * power + p_reg * power.max())
                )
            light = np.zeros(state.object.shape, np.float32)
            each(
                pool,
                _numba_batch.batch_light,
                [(i, j, frames, which, probes, scan[1], light) for i, j in rows],
            )
            # a batch that fits one chunk reads everything before anything is written
            seen = state.object if len(frames) <= CHUNK else state.object.copy()
            force = np.zeros_like(state.probe)
            rest = (
                root,
                cooling * step,
                a,
                reg,
                moves,
                weight,
                subpixel,
                *ramps,
                *_transfer(problem),
                push,
                pull,
                misfit,
            )
            for start in range(0, len(frames), CHUNK):
                chunk, mine = frames[start : start + CHUNK], which[start : start + CHUNK]
                jobs = [
                    (chunk[i:j], mine[i:j], i, seen, probes, light, *scan, *rest)
                    for i, j in stripes(len(chunk), threads)
                ]
                each(pool, _numba_batch.batch_changes, jobs)
                each(
                    pool,
                    _numba_batch.batch_add,
                    [(i, j, chunk, scan[1], push, state.object) for i, j in rows],
                )
                if moves:
                    each(
                        pool,
                        _numba_batch.batch_pull,
                        [(i, j, len(chunk), pull, force) for i, j in lines],
                    )
            if moves:
                state.probe = state.probe + (ctx.backend.ifft2(force) if subpixel else force)
    state.epoch += 1
    return state, Report(ctx.comm.sum(misfit.sum()))


def _ep(
    engine: Any, state: Any, problem: Any, batches: Any, ctx: Any, *, apart: bool, threads: int
) -> tuple[Any, Any]:
    measure, learn = (
        state.epoch % engine.residual_every == 0,
        engine.learns_at(problem, state.epoch),
    )
    engine.update_prior(state, ctx)
    belief = state.precision, state.natural
    scan = state.probes, problem.shift_index, problem.corners
    v = np.full(len(problem), state.noise_variance, np.float32)
    model = engine.offset(problem), v, engine.uses_laplace(state), engine.weight
    sums = np.zeros((len(problem), 4))
    data: tuple[Any, ...] = (
        *(state.messages, state.message_precision, *scan, problem.amplitude, problem.mask),
        *(
            f4(model[0]),
            model[1],
            model[2],
            f4(model[3]),
            *_transfer(problem),
            measure,
            learn,
            sums,
        ),
    )
    if threads == 1 and apart:
        _numba_ep.ep_visits(_order(batches)[0], *belief, *data)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for batch in batches:
                frames = np.arange(batch.start, batch.stop) if isinstance(batch, slice) else batch
                if apart:  # no two windows overlap: threads may write at once
                    jobs = [(part, *belief, *data) for part in np.array_split(frames, threads)]
                    each(pool, _numba_ep.ep_visits, jobs)
                else:
                    _ep_together(pool, threads, frames, belief, data, scan)
    misfit, chi2, noise, skips = sums.sum(axis=0)
    if engine.noise_per_frame:
        chi2, noise = sums[:, 1], sums[:, 2]
    done: tuple[Any, Any] = engine.finish(
        state, problem, ctx, misfit if measure else None, chi2, noise, skips
    )
    return done


def _ep_together(
    pool: ThreadPoolExecutor, threads: int, frames: IntArray, belief: Any, data: Any, scan: Any
) -> None:
    """One batch whose frames all see the same belief: new messages in parallel, then their sum, in
    parallel over rows.

    The sum over frames is taken in the same order whatever the number of threads, so that the
    result does not depend on it.
    """
    # a batch that fits one chunk reads everything before anything is written
    seen = belief if len(frames) <= CHUNK else tuple(a.copy() for a in belief)
    shape = scan[0].shape[-2:]
    change, gain = (
        np.empty((min(CHUNK, len(frames)), *shape), np.complex64),
        np.empty(CHUNK, np.float32),
    )
    rows = [int(r) for r in np.linspace(0, len(belief[0]), threads + 1)]
    for start in range(0, len(frames), CHUNK):
        chunk = frames[start : start + CHUNK]
        parts, first = np.array_split(chunk, threads), 0
        jobs: list[tuple[Any, ...]] = []
        for part in parts:
            jobs.append((part, first, *seen, *data, change, gain))
            first += len(part)
        each(pool, _numba_ep.ep_changes, jobs)
        stripes = [(a, b, chunk, *belief, *scan, change, gain) for a, b in pairwise(rows)]
        each(pool, _numba_ep.ep_add, stripes)


def _shifted(state: Any, problem: Any, ctx: Any) -> Array:
    """The probe at every distinct shift, (U, K, P, Q)."""
    return np.ascontiguousarray(ctx.backend.kernels.shift(state.probe, problem.shifts))
