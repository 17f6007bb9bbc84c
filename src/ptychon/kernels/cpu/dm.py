"""Passes of the difference map and of RAAR over a range of positions, compiled; the mathematics is
that of `engines.difference_map`.

Each function handles the positions of one thread and adds to arrays of its own, so that threads
share nothing and the result depends only on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from .fft import NONE
from .linked import KEPT_MASK, KEPT_WAVE, KEPT_WAVES, WAVES, linked
from .modulus import modulus_return
from .rows import (
    HALF,
    ONE,
    OPTIONS,
    ZERO,
    ask_row,
    exit_wave,
    fft,
    jit,
    largest,
    modulus_change,
    propagate,
    supports,
    unshift_add,
)
from .vectors import clear, stretch


@jit
def object_sums(
    waves: Array, probes: Array, index: Array, corners: Array, order: Array, num: Array, den: Array
) -> None:
    """num += P* psi_j and den += |P|^2 on the object, for the positions in `order`; rows no probe
    lights add nothing.
    """
    q, lit = waves.shape[3], np.empty((len(probes), 2), np.int64)
    supports(probes, lit)
    for i in range(len(order)):
        j, soon = order[i], order[min(i + 1, len(order) - 1)]
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        for k in range(waves.shape[1]):
            for r in range(lit[u, 0], lit[u, 1]):
                ask_row(waves[soon, k, r])
                n, d = num[y0 + r, x0 : x0 + q], den[y0 + r, x0 : x0 + q]
                p, w = probes[u, k, r], waves[j, k, r]
                for c in range(q):
                    n[c] += p[c].conjugate() * w[c]
                    d[c] += p[c].real * p[c].real + p[c].imag * p[c].imag


@jit
def probe_sums(
    waves: Array,
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    order: Array,
    ramps_y: Array,
    ramps_x: Array,
    spectrum: Array,
    den: Array,
) -> None:
    """Spectrum of sum_j S_j^-1 O_j* (psi_j - P_j O_j), and sum_j |O_j|^2; `order` sorted by shift:
    one FFT a distinct shift, whose probe is taken once: sum O* (psi - P O) = sum O* psi - P sum
    |O|^2."""
    q = waves.shape[3]
    group, weight = np.zeros_like(spectrum), np.zeros_like(den)
    for i in range(len(order)):
        j, soon = order[i], order[min(i + 1, len(order) - 1)]
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        for r in range(waves.shape[2]):
            o, d = O[y0 + r, x0 : x0 + q], weight[r]
            for c in range(q):
                d[c] += o[c].real * o[c].real + o[c].imag * o[c].imag
            for k in range(waves.shape[1]):
                ask_row(waves[soon, k, r])
                w, g = waves[j, k, r], group[k, r]
                for c in range(q):
                    g[c] += o[c].conjugate() * w[c]
        if i == len(order) - 1 or index[order[i + 1]] != u:
            for r in range(waves.shape[2]):
                d, total = weight[r], den[r]
                for k in range(waves.shape[1]):
                    p, g = probes[u, k, r], group[k, r]
                    for c in range(q):
                        g[c] -= d[c] * p[c]
                for c in range(q):
                    total[c] += d[c]
            fft(group, group, True)
            unshift_add(group, ramps_y[u], ramps_x[u], spectrum)
            clear(group)
            clear(weight)


@linked(types.intp(KEPT_MASK), **OPTIONS)
def _valid(mask: Array) -> int:
    """How many."""
    count = 0
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            count += mask[r, c]
    return count


@jit
def reflect(
    waves: Array,
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    order: Array,
    bound: Any,
    shares: Array,
    transfer: Array,
    near: bool,
    measure: bool,
) -> float:
    """psi_j += Pi_F[2 P O_j - psi_j] - P O_j (beta = 1), B = `bound` times shares (1 or N,) a
    valid pixel; returns the misfit of P O_j if asked.
    """
    wave, lit = np.empty_like(waves[0]), np.empty((len(probes), 2), np.int64)
    supports(probes, lit)
    bounds = np.empty(len(mask))
    for i in range(len(mask)):
        bounds[i] = bound * _valid(mask[i])
    total = 0.0
    for i in range(len(order)):
        j = order[i]
        u, y0, x0 = index[j], corners[j, 0], corners[j, 1]
        if measure:
            _affine(ONE, O, y0, x0, probes[u], lit[u], ZERO, wave, wave)
            propagate(wave, wave, transfer[u], near, True)
            total += modulus_change(wave, amplitude[j], mask[j % len(mask)])
        _affine(ONE + ONE, O, y0, x0, probes[u], lit[u], -ONE, waves[j], wave)
        later = stretch(waves[order[min(i + 1, len(order) - 1)]])
        least = bounds[j % len(mask)] * shares[j % len(shares)]
        misfit = modulus_return(
            wave,
            amplitude[j],
            mask[j % len(mask)],
            transfer[u],
            near,
            0,
            wave.shape[1],
            least,
            later,
        )
        share = np.float32(1.0 - np.sqrt(least / misfit)) if misfit > least else ZERO
        # Pi_F f = f + share change, so psi + (f + share change) - P O = P O + share change
        _affine(ONE, O, y0, x0, probes[u], lit[u], share, wave, waves[j])
    return total


@jit
def mirror(
    waves: Array,
    mirrored: Array,
    index: Array,
    amplitude: Array,
    mask: Array,
    order: Array,
    bound: Any,
    shares: Array,
    transfer: Array,
    near: bool,
) -> None:
    """mirrored_j = 2 Pi_F psi_j - psi_j, B = `bound` times shares (1 or N,) a valid pixel."""
    bounds, wave = np.empty(len(mask)), np.empty_like(waves[0])
    for i in range(len(mask)):
        bounds[i] = bound * _valid(mask[i])
    for i in range(len(order)):
        j = order[i]
        wave[:] = waves[j]
        least = bounds[j % len(mask)] * shares[j % len(shares)]
        misfit = modulus_return(
            wave,
            amplitude[j],
            mask[j % len(mask)],
            transfer[index[j]],
            near,
            0,
            wave.shape[1],
            least,
            NONE,
        )
        share = np.float32(1.0 - np.sqrt(least / misfit)) if misfit > least else ZERO
        for k in range(wave.shape[0]):
            for r in range(wave.shape[1]):
                m, p, d = mirrored[j, k, r], waves[j, k, r], wave[k, r]
                if share == 0:
                    for c in range(len(m)):
                        m[c] = p[c]
                else:
                    for c in range(len(m)):
                        m[c] = p[c] + (share + share) * d[c]


@jit
def relax(
    waves: Array,
    mirrored: Array,
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    order: Array,
    beta: Any,
    transfer: Array,
    near: bool,
    measure: bool,
) -> float:
    """psi_j <- beta (psi_j + P O_j) + (1 - 2 beta) Pi_F psi_j, with Pi_F psi = (mirrored + psi)/2;
    returns the misfit of P O_j if asked.
    """
    wave, half, total = np.empty_like(waves[0]), (ONE - beta - beta) * HALF, 0.0
    for i in range(len(order)):
        j = order[i]
        u = index[j]
        exit_wave(O, corners[j, 0], corners[j, 1], probes[u], wave, 0, wave.shape[1])
        for k in range(wave.shape[0]):
            for r in range(wave.shape[1]):
                p, m, e = waves[j, k, r], mirrored[j, k, r], wave[k, r]
                for c in range(len(p)):
                    p[c] = beta * (p[c] + e[c]) + half * (m[c] + p[c])
        if measure:
            propagate(wave, wave, transfer[u], near, True)
            total += modulus_change(wave, amplitude[j], mask[j % len(mask)])
    return total


@linked(
    types.void(
        *(types.float32, KEPT_WAVE, types.intp, types.intp, KEPT_WAVES),
        *(types.Array(types.int64, 1, "C"), types.float32, KEPT_WAVES, WAVES),
    ),
    **OPTIONS,
)
def _affine(
    a: Any, O: Array, y0: int, x0: int, P: Array, lit: Array, b: Any, x: Array, out: Array
) -> None:
    """out = a P O + b x on one window (nothing of x where b = 0); P O = 0 off the rows
    lit[0]..lit[1]-1.
    """
    q = P.shape[2]
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            o, p, y, z = O[y0 + r, x0 : x0 + q], P[k, r], x[k, r], out[k, r]
            if r < lit[0] or r >= lit[1]:
                for c in range(q):
                    z[c] = b * y[c] if b != 0 else ZERO
            elif b == 0:
                for c in range(q):
                    z[c] = a * (p[c] * o[c])
            else:
                for c in range(q):
                    z[c] = a * (p[c] * o[c]) + b * y[c]


@jit
def settle(num: Array, den: Array, O: Array, y0: int, x0: int, inertia: Any) -> None:
    """O <- (num + inertia max(den) O)/(den + inertia max(den)) where den is something, in the box
    from (y0, x0) on.

    num, den (T, h, w) are those of each thread.
    """
    peaks, width = np.zeros(num.shape[2], np.float32), num.shape[2]
    for y in range(num.shape[1]):
        n0, d0 = num[0, y], den[0, y]
        for t in range(1, num.shape[0]):
            n, d = num[t, y], den[t, y]
            for x in range(width):
                n0[x] += n[x]
                d0[x] += d[x]
        for x in range(width):
            peaks[x] = max(peaks[x], d0[x])
    peak = largest(peaks)
    extra, floor = inertia * peak, peak * np.float32(1e-10)
    for y in range(num.shape[1]):
        n0, d0, o = num[0, y], den[0, y], O[y0 + y, x0 : x0 + width]
        for x in range(width):
            o[x] = (
                (n0[x] + extra * o[x]) * (ONE / max(d0[x] + extra, floor))
                if d0[x] > floor
                else o[x]
            )
