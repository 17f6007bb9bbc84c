"""Whole sweeps of PIE, ePIE and rPIE in one compiled loop; the mathematics is that of
`engines.pie`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from .fft import NONE
from .linked import FLOATS, KEPT_WAVES, WAVE, WAVES, linked
from .modulus import modulus_return
from .rows import (
    ONE,
    OPTIONS,
    exit_wave,
    exit_wave_peak,
    fft,
    jit,
    largest,
    peak_power,
    power_row,
    shift_rows,
    supports,
    unshift_add,
)
from .vectors import clear


@jit
def object_weights(probes: Array, root: bool, step: Any, a: Any, reg: Any, out: Array) -> None:
    """out (U, P, Q) = step (|P|/max|P| if root)/(a |P|^2 + reg max|P|^2) for each of probes (U, K,
    P, Q).
    """
    for u in range(len(probes)):
        peak = peak_power(probes[u])
        scale = step / np.sqrt(peak) if root else step
        for r in range(out.shape[1]):
            w = out[u, r]
            power_row(probes[u], r, w)
            for c in range(out.shape[2]):
                w[c] = (scale * np.sqrt(w[c]) if root else scale) / (a * w[c] + reg * peak)


@jit
def fixed_probe_sweep(
    O: Array,
    probes: Array,
    weights: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    order: Array,
    transfer: Array,
    near: bool,
) -> float:
    """One pass with the probe held still; probes (U, K, P, Q), weights (U, P, Q). Returns the
    misfit, each frame before its update."""
    wave = np.empty_like(probes[0])
    lit = np.empty((len(probes), 2), np.int64)
    supports(probes, lit)
    total, q = 0.0, probes.shape[3]
    for i in range(len(order)):
        j = order[i]
        u, y0, x0 = index[j], corners[j, 0], corners[j, 1]
        top, bottom = lit[u, 0], lit[u, 1]
        exit_wave(O, y0, x0, probes[u], wave, top, bottom)
        total += modulus_return(
            wave, amplitude[j], mask[j % len(mask)], transfer[u], near, top, bottom, -ONE, NONE
        )
        for r in range(top, bottom):
            o, w = O[y0 + r, x0 : x0 + q], weights[u, r]
            for k in range(probes.shape[1]):
                p, d = probes[u, k, r], wave[k, r]
                for c in range(q):
                    o[c] += w[c] * (p[c].conjugate() * d[c])
    return total


@linked(types.void(WAVE, *[types.intp] * 2, KEPT_WAVES, WAVES, *[types.float32] * 6), **OPTIONS)
def _both_rows(
    O: Array,
    y0: int,
    x0: int,
    P: Array,
    change: Array,
    step: Any,
    a: Any,
    b: Any,
    p_step: Any,
    p_a: Any,
    p_b: Any,
) -> None:
    """O += step P* change/(a |P|^2 + b); `change` becomes the probe's update p_step O* change/(p_a
    |O|^2 + p_b), both from the old O and P."""
    q = P.shape[2]
    power, pull, old = np.empty(q, np.float32), np.empty(q, np.complex64), np.empty(q, np.complex64)
    constant, even, p_even = a == 0 and p_a == 0, step / b, p_step / p_b
    for r in range(P.shape[1]):
        o = O[y0 + r, x0 : x0 + q]
        p, d = P[0, r], change[0, r]
        if P.shape[0] == 1 and constant:
            for c in range(q):
                new = o[c] + even * (p[c].conjugate() * d[c])
                d[c] = p_even * (o[c].conjugate() * d[c])
                o[c] = new
        elif P.shape[0] == 1:
            for c in range(q):
                p2 = p[c].real * p[c].real + p[c].imag * p[c].imag
                o2 = o[c].real * o[c].real + o[c].imag * o[c].imag
                new = o[c] + (step / (a * p2 + b)) * (p[c].conjugate() * d[c])
                d[c] = (p_step / (p_a * o2 + p_b)) * (o[c].conjugate() * d[c])
                o[c] = new
        else:
            power_row(P, r, power)
            clear(pull)
            for k in range(P.shape[0]):
                p, d = P[k, r], change[k, r]
                for c in range(q):
                    pull[c] += p[c].conjugate() * d[c]
            for c in range(q):
                z = o[c]
                old[c] = z.conjugate() * (
                    p_step / (p_a * (z.real * z.real + z.imag * z.imag) + p_b)
                )
                o[c] = z + (step / (a * power[c] + b)) * pull[c]
            for k in range(P.shape[0]):
                d = change[k, r]
                for c in range(q):
                    d[c] = old[c] * d[c]


@linked(types.float32(WAVES, KEPT_WAVES, FLOATS), **OPTIONS)
def _add_peak(P: Array, update: Array, top: Array) -> Any:
    """P += update; returns the new max over pixels of sum_k |P_k|^2. `top` (Q,) is room."""
    clear(top)
    row = np.empty(P.shape[2], np.float32)
    for r in range(P.shape[1]):
        if P.shape[0] == 1:
            p, d = P[0, r], update[0, r]
            for c in range(P.shape[2]):
                z = p[c] + d[c]
                p[c] = z
                top[c] = max(top[c], z.real * z.real + z.imag * z.imag)
        else:
            for k in range(P.shape[0]):
                p, d = P[k, r], update[k, r]
                for c in range(P.shape[2]):
                    p[c] += d[c]
            power_row(P, r, row)
            for c in range(P.shape[2]):
                top[c] = max(top[c], row[c])
    return largest(top)


@jit
def moving_probe_sweep(
    O: Array,
    P: Array,
    subpixel: bool,
    ramps_y: Array,
    ramps_x: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    order: Array,
    step: Any,
    reg: Any,
    p_step: Any,
    p_reg: Any,
    transfer: Array,
    near: bool,
) -> float:
    """One pass that moves object and probe (K, P, Q), both in place. Returns the misfit.

    With sub-pixel shifts the probe lives as its spectrum during the pass: a shift is then a ramp
    and one inverse FFT.
    """
    wave, moved = np.empty_like(P), np.empty_like(P)
    spectrum, top = np.empty_like(P), np.empty(P.shape[2], np.float32)
    if subpixel:
        fft(P, spectrum, True)
    total, p_peak = 0.0, peak_power(P)
    for i in range(len(order)):
        j = order[i]
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        if subpixel:
            shift_rows(spectrum, ramps_y[u], ramps_x[u], moved)
            fft(moved, moved, False)
            p_peak = peak_power(moved)
        here = moved if subpixel else P
        o_peak = exit_wave_peak(O, y0, x0, here, wave, top)
        total += modulus_return(
            wave, amplitude[j], mask[j % len(mask)], transfer[u], near, 0, wave.shape[1], -ONE, NONE
        )
        _both_rows(
            O,
            y0,
            x0,
            here,
            wave,
            step,
            ONE - reg,
            reg * p_peak,
            p_step,
            ONE - p_reg,
            p_reg * o_peak,
        )
        if subpixel:
            fft(wave, wave, True)
            unshift_add(wave, ramps_y[u], ramps_x[u], spectrum)
        else:
            p_peak = _add_peak(P, wave, top)
    if subpixel:
        fft(spectrum, P, False)
    return total
