"""Compiled passes of engines that keep a wave for each frame, on the CPU: the difference map with
beta = 1, and RAAR. They share the overlap projection.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..kernels.cpu import dm as _dm
from ..kernels.cpu.rows import f4, scan_box, transfer_table
from ..types import Array
from .threads import each


def difference_map(
    engine: Any, state: Any, problem: Any, batches: Any, ctx: Any, *, kept: Any, threads: int
) -> tuple[Any, Any]:
    """One pass of the difference map; the arguments of `Engine.step`."""
    measure = state.epoch % engine.residual_every == 0
    parts = _parts(problem, threads)
    with ThreadPoolExecutor(len(parts)) as pool:
        probes = _overlap(pool, engine, state, state.waves, problem, ctx, kept, parts)
        scan = problem.shift_index, problem.corners, problem.amplitude, problem.mask
        rest = *_bound(engine, state, problem), *_transfer(problem), measure
        jobs = [(state.waves, state.object, probes, *scan, part, *rest) for part in parts]
        misfit = each(pool, _dm.reflect, jobs)
    return engine.finish(state, sum(misfit) if measure else None, problem, ctx)  # type: ignore[no-any-return]


def raar(
    engine: Any, state: Any, problem: Any, batches: Any, ctx: Any, *, kept: Any, threads: int
) -> tuple[Any, Any]:
    """One pass of RAAR; the arguments of `Engine.step`."""
    measure = state.epoch % engine.residual_every == 0
    parts = _parts(problem, threads)
    mirrored, transfer = np.empty_like(state.waves), _transfer(problem)
    data = problem.shift_index, problem.amplitude, problem.mask
    bound = _bound(engine, state, problem)
    with ThreadPoolExecutor(len(parts)) as pool:
        first = [(state.waves, mirrored, *data, part, *bound, *transfer) for part in parts]
        each(pool, _dm.mirror, first)
        probes = _overlap(pool, engine, state, mirrored, problem, ctx, kept, parts)
        scan = problem.shift_index, problem.corners, problem.amplitude, problem.mask
        rest = f4(engine.beta), *transfer, measure
        jobs = [(state.waves, mirrored, state.object, probes, *scan, p, *rest) for p in parts]
        misfit = each(pool, _dm.relax, jobs)
    return engine.finish(state, sum(misfit) if measure else None, problem, ctx)  # type: ignore[no-any-return]


def _overlap(
    pool: ThreadPoolExecutor,
    engine: Any,
    state: Any,
    waves: Array,
    problem: Any,
    ctx: Any,
    kept: Any,
    parts: list[Array],
) -> Array:
    """Object and probe of the state from waves; returns the probe at every shift, (U, K, P, Q)."""
    moves, scan = engine.probe_moves_at(state.epoch), (problem.shift_index, problem.corners)
    probes: Array = kept.shifted(state, problem, ctx)
    low, box = scan_box(problem.corners, problem.frame_shape)
    near = problem.shift_index, problem.corners - low
    for _ in range(engine.overlap_passes if moves else 1):
        num, den = (np.zeros((len(parts), *box), kind) for kind in (np.complex64, np.float32))
        sums: list[tuple[Any, ...]] = [
            (waves, probes, *near, part, n, d) for part, n, d in zip(parts, num, den, strict=True)
        ]
        each(pool, _dm.object_sums, sums)
        _dm.settle(num, den, state.object, low[0], low[1], f4(engine.object_inertia))
        if not moves:
            break
        ramps = kept.ramps(problem)
        spectra = np.zeros((len(parts), *state.probe.shape), np.complex64)
        weight = np.zeros((len(parts), *problem.frame_shape), np.float32)
        sums = [
            (waves, state.object, probes, *scan, part, *ramps, n, d)
            for part, n, d in zip(parts, spectra, weight, strict=True)
        ]
        each(pool, _dm.probe_sums, sums)
        force, total = ctx.backend.ifft2(spectra.sum(axis=0)), weight.sum(axis=0)
        share = engine.probe_inertia
        with np.errstate(invalid="ignore"):  # a run that diverges is noticed at its end
            state.probe = state.probe + force / np.maximum(
                (1 - share) * total + share * total.max(), f4(1e-30)
            )
        probes = kept.shifted(state, problem, ctx)
    return probes


def _bound(engine: Any, state: Any, problem: Any) -> tuple[float, Array]:
    """B a valid pixel on average, and how many times that a frame has, (1 or N,)."""
    shares = np.ones(1) if problem.noise_shares is None else problem.noise_shares.astype(float)
    return float(engine.noise_power(problem, state)), shares


def _parts(problem: Any, threads: int) -> list[Array]:
    """The frames of each thread, sorted by shift: the probe's way back costs one FFT a distinct
    shift.
    """
    order = np.argsort(problem.shift_index, kind="stable")
    return [part for part in np.array_split(order, threads) if len(part)]


def _transfer(problem: Any) -> tuple[Array, bool]:
    return transfer_table(problem.propagator.transfer, len(problem.shifts))
