"""Whole sweeps of PIE, ePIE and rPIE in one compiled loop; the mathematics is that of `engines.pie`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array
from ._numba import (
    ONE,
    ZERO,
    exit_wave,
    f4,
    fft,
    inner,
    jit,
    modulus_change,
    peak_power,
    propagate,
    shift_rows,
    unshift_add,
)


@inner
def _object_rows(O: Array, y0: int, x0: int, P: Array, change: Array, root: bool, step: Any, a: Any, b: Any) -> None:
    """O += step w P* change, w = 1/(a |P|^2 + b), times |P| if `root` (step then holds 1/max |P|)."""
    for r in range(P.shape[1]):
        o = O[y0 + r, x0 : x0 + P.shape[2]]
        if P.shape[0] == 1:
            p, d = P[0, r], change[0, r]
            if root:
                for c in range(P.shape[2]):
                    p2 = p[c].real * p[c].real + p[c].imag * p[c].imag
                    o[c] += (step * np.sqrt(p2) / (a * p2 + b)) * (p[c].conjugate() * d[c])
            else:
                for c in range(P.shape[2]):
                    p2 = p[c].real * p[c].real + p[c].imag * p[c].imag
                    o[c] += (step / (a * p2 + b)) * (p[c].conjugate() * d[c])
        else:
            for c in range(P.shape[2]):
                p2, total = ZERO, np.complex64(0)
                for k in range(P.shape[0]):
                    z = P[k, r, c]
                    p2 += z.real * z.real + z.imag * z.imag
                    total += z.conjugate() * change[k, r, c]
                w = step / (a * p2 + b)
                o[c] += (w * np.sqrt(p2) if root else w) * total


@inner
def _both_rows(
    O: Array, y0: int, x0: int, P: Array, change: Array, step: Any, a: Any, b: Any, p_step: Any, p_a: Any, p_b: Any
) -> None:
    """O as above; `change` becomes the probe's update p_step O* change/(p_a |O|^2 + p_b), both from the old O and P."""
    for r in range(P.shape[1]):
        o = O[y0 + r, x0 : x0 + P.shape[2]]
        if P.shape[0] == 1:
            p, d = P[0, r], change[0, r]
            for c in range(P.shape[2]):
                p2 = p[c].real * p[c].real + p[c].imag * p[c].imag
                o2 = o[c].real * o[c].real + o[c].imag * o[c].imag
                new = o[c] + (step / (a * p2 + b)) * (p[c].conjugate() * d[c])
                d[c] = (p_step / (p_a * o2 + p_b)) * (o[c].conjugate() * d[c])
                o[c] = new
        else:
            for c in range(P.shape[2]):
                p2, total, old = ZERO, np.complex64(0), o[c]
                w = p_step / (p_a * (old.real * old.real + old.imag * old.imag) + p_b)
                for k in range(P.shape[0]):
                    z, d1 = P[k, r, c], change[k, r, c]
                    p2 += z.real * z.real + z.imag * z.imag
                    total += z.conjugate() * d1
                    change[k, r, c] = w * (old.conjugate() * d1)
                o[c] = old + (step / (a * p2 + b)) * total


@jit
def fixed_probe_sweep(
    O: Array, probes: Array, index: Array, corners: Array, amplitude: Array, mask: Array, order: Array,
    root: bool, step: Any, a: Any, reg: Any, transfer: Array, near: bool,
) -> float:  # fmt: skip
    """One pass with the probe held still; probes (U, K, P, Q). Returns the misfit, each frame before its update."""
    wave = np.empty_like(probes[0])
    peaks = np.empty(len(probes), np.float32)
    for u in range(len(probes)):
        peaks[u] = peak_power(probes[u])
    total = 0.0
    for i in range(len(order)):
        j = order[i]
        P, peak, y0, x0 = probes[index[j]], peaks[index[j]], corners[j, 0], corners[j, 1]
        exit_wave(O, y0, x0, P, wave)
        propagate(wave, wave, transfer, near, True)
        total += modulus_change(wave, amplitude[j], mask[j % len(mask)])
        propagate(wave, wave, transfer, near, False)
        _object_rows(O, y0, x0, P, wave, root, step / np.sqrt(peak) if root else step, a, reg * peak)
    return total


@jit
def moving_probe_sweep(
    O: Array, P: Array, subpixel: bool, ramps_y: Array, ramps_x: Array, index: Array, corners: Array, amplitude: Array,
    mask: Array, order: Array, step: Any, reg: Any, p_step: Any, p_reg: Any, transfer: Array, near: bool,
) -> float:  # fmt: skip
    """One pass that moves object and probe (K, P, Q), both in place. Returns the misfit.

    With sub-pixel shifts the probe lives as its spectrum during the pass: a shift is then a ramp and one inverse FFT.
    """
    wave, moved = np.empty_like(P), np.empty_like(P)
    spectrum = np.empty_like(P)
    if subpixel:
        fft(P, spectrum, True)
    total = 0.0
    for i in range(len(order)):
        j = order[i]
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        if subpixel:
            shift_rows(spectrum, ramps_y[u], ramps_x[u], moved)
            fft(moved, moved, False)
            here = moved
        else:
            here = P
        o_peak = exit_wave(O, y0, x0, here, wave)
        p_peak = peak_power(here)
        propagate(wave, wave, transfer, near, True)
        total += modulus_change(wave, amplitude[j], mask[j % len(mask)])
        propagate(wave, wave, transfer, near, False)
        _both_rows(O, y0, x0, here, wave, step, ONE - reg, reg * p_peak, p_step, ONE - p_reg, p_reg * o_peak)
        if subpixel:
            fft(wave, wave, True)
            unshift_add(wave, ramps_y[u], ramps_x[u], spectrum)
        else:
            P += wave
    if subpixel:
        fft(spectrum, P, False)
    return total


def weights(engine: Any) -> tuple[bool, Any, Any, Any]:
    """(root, step, a, reg) of the object weight step (|P|/max|P| if root)/(a |P|^2 + reg max|P|^2)."""
    if engine.name == "pie":
        return True, f4(engine.object_step), ONE, f4(engine.object_reg)
    reg = f4(getattr(engine, "object_reg", 1.0))
    return False, f4(engine.object_step), ONE - reg, reg
