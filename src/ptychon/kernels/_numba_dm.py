"""Passes of the difference map over a range of positions, compiled; the mathematics is that of `engines.difference_map`.

Each function handles the positions of one thread and adds to arrays of its own, so that threads share nothing and the result
depends only on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array
from ._numba import ONE, ZERO, exit_wave, fft, inner, jit, modulus_change, propagate, unshift_add


@jit
def object_sums(
    waves: Array, probes: Array, index: Array, corners: Array, order: Array, num: Array, den: Array
) -> None:
    """num += P* psi_j and den += |P|^2 on the object, for the positions in `order`."""
    q = waves.shape[3]
    for i in range(len(order)):
        j = order[i]
        y0, x0 = corners[j, 0], corners[j, 1]
        for k in range(waves.shape[1]):
            for r in range(waves.shape[2]):
                n, d = num[y0 + r, x0 : x0 + q], den[y0 + r, x0 : x0 + q]
                p, w = probes[index[j], k, r], waves[j, k, r]
                for c in range(q):
                    n[c] += p[c].conjugate() * w[c]
                    d[c] += p[c].real * p[c].real + p[c].imag * p[c].imag


@jit
def probe_sums(
    waves: Array, O: Array, probes: Array, index: Array, corners: Array, order: Array, ramps_y: Array, ramps_x: Array,
    spectrum: Array, den: Array,
) -> None:  # fmt: skip
    """Spectrum of sum_j S_j^-1 O_j* (psi_j - P_j O_j), and sum_j |O_j|^2; `order` sorted by shift: one FFT a distinct shift."""
    q = waves.shape[3]
    group = np.zeros_like(spectrum)
    for i in range(len(order)):
        j = order[i]
        y0, x0 = corners[j, 0], corners[j, 1]
        for r in range(waves.shape[2]):
            o, d = O[y0 + r, x0 : x0 + q], den[r]
            for c in range(q):
                d[c] += o[c].real * o[c].real + o[c].imag * o[c].imag
            for k in range(waves.shape[1]):
                p, w, g = probes[index[j], k, r], waves[j, k, r], group[k, r]
                for c in range(q):
                    g[c] += o[c].conjugate() * (w[c] - p[c] * o[c])
        if i == len(order) - 1 or index[order[i + 1]] != index[j]:
            fft(group, group, True)
            unshift_add(group, ramps_y[index[j]], ramps_x[index[j]], spectrum)
            group[:] = 0


@jit
def reflect(
    waves: Array, O: Array, probes: Array, index: Array, corners: Array, amplitude: Array, mask: Array, order: Array,
    bound: Any, transfer: Array, near: bool, measure: bool,
) -> float:  # fmt: skip
    """psi_j += Pi_F[2 P O_j - psi_j] - P O_j (beta = 1), B = `bound` a valid pixel; returns the misfit of P O_j if asked."""
    estimate, wave = np.empty_like(waves[0]), np.empty_like(waves[0])
    bounds = np.empty(len(mask))
    for i in range(len(mask)):
        bounds[i] = bound * mask[i].sum()
    total = 0.0
    for i in range(len(order)):
        j = order[i]
        exit_wave(O, corners[j, 0], corners[j, 1], probes[index[j]], estimate, 0, estimate.shape[1])
        if measure:
            propagate(estimate, wave, transfer, near, True)
            total += modulus_change(wave, amplitude[j], mask[j % len(mask)])
        _twice_minus(estimate, waves[j], wave)
        propagate(wave, wave, transfer, near, True)
        misfit = modulus_change(wave, amplitude[j], mask[j % len(mask)])
        share = np.float32(max(0.0, 1.0 - np.sqrt(bounds[j % len(mask)] / max(misfit, 1e-30))))
        if share > 0:
            propagate(wave, wave, transfer, near, False)
        # Pi_F f = f + share change, so psi + (f + share change) - estimate = estimate + share change
        _sum(estimate, share, wave, waves[j])
    return total


@inner
def _twice_minus(a: Array, b: Array, out: Array) -> None:
    """out = 2 a - b."""
    for k in range(a.shape[0]):
        for r in range(a.shape[1]):
            x, y, z = a[k, r], b[k, r], out[k, r]
            for c in range(a.shape[2]):
                z[c] = x[c] + x[c] - y[c]


@inner
def _sum(a: Array, share: Any, b: Array, out: Array) -> None:
    """out = a + share b."""
    for k in range(a.shape[0]):
        for r in range(a.shape[1]):
            x, y, z = a[k, r], b[k, r], out[k, r]
            for c in range(a.shape[2]):
                z[c] = x[c] + share * y[c]


@jit
def settle(num: Array, den: Array, old: Array, inertia: Any, out: Array) -> None:
    """out = (num + inertia max(den) old)/(den + inertia max(den)); `old` where den is nothing. num, den (T, H, W): threads."""
    peak = ZERO
    for y in range(old.shape[0]):
        n0, d0 = num[0, y], den[0, y]
        for t in range(1, num.shape[0]):
            n, d = num[t, y], den[t, y]
            for x in range(old.shape[1]):
                n0[x] += n[x]
                d0[x] += d[x]
        for x in range(old.shape[1]):
            peak = max(peak, d0[x])
    extra, floor = inertia * peak, peak * np.float32(1e-10)
    for y in range(old.shape[0]):
        n0, d0, a, o = num[0, y], den[0, y], old[y], out[y]
        for x in range(old.shape[1]):
            o[x] = (n0[x] + extra * a[x]) * (ONE / max(d0[x] + extra, floor)) if d0[x] > floor else a[x]
