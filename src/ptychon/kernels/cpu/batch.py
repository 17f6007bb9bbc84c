"""Batches of PIE, ePIE and rPIE whose frames all see the same object and probe; the mathematics is
that of `engines.pie`.

Threads take frames where every frame writes to a place of its own, and rows where frames are
summed, in their order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...types import Array
from .fft import NONE
from .modulus import modulus_return
from .rows import ONE, exit_wave, fft, jit, largest, power_row, shift_rows
from .vectors import clear


@jit
def batch_shift(
    first: int,
    last: int,
    spectrum: Array,
    ramps_y: Array,
    ramps_x: Array,
    distinct: Array,
    out: Array,
) -> None:
    """out[i] (K, P, Q) = the probe at shift distinct[i], for i = first..last-1."""
    for i in range(first, last):
        shift_rows(spectrum, ramps_y[distinct[i]], ramps_x[distinct[i]], out[i])
        fft(out[i], out[i], False)


@jit
def batch_light(
    top: int, bottom: int, frames: Array, which: Array, probes: Array, corners: Array, light: Array
) -> None:
    """light += sum_k |P_k|^2 of each frame, on rows top..bottom-1 of the object; frame i has probe
    which[i].
    """
    row, q = np.empty(probes.shape[3], np.float32), probes.shape[3]
    for i in range(len(frames)):
        y0, x0 = corners[frames[i], 0], corners[frames[i], 1]
        for y in range(max(top, y0), min(bottom, y0 + probes.shape[2])):
            power_row(probes[which[i]], y - y0, row)
            target = light[y, x0 : x0 + q]
            for c in range(q):
                target[c] += row[c]


@jit
def batch_power(
    top: int, bottom: int, frames: Array, O: Array, corners: Array, power: Array
) -> None:
    """power (P, Q) += |O_j|^2 of each frame, on rows top..bottom-1 of the window."""
    q = power.shape[1]
    for i in range(len(frames)):
        y0, x0 = corners[frames[i], 0], corners[frames[i], 1]
        for r in range(top, bottom):
            o, p = O[y0 + r, x0 : x0 + q], power[r]
            for c in range(q):
                p[c] += o[c].real * o[c].real + o[c].imag * o[c].imag


@jit
def batch_changes(
    frames: Array,
    which: Array,
    first: int,
    O: Array,
    probes: Array,
    light: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    root: bool,
    step: Any,
    a: Any,
    reg: Any,
    moves: bool,
    weight: Array,
    subpixel: bool,
    ramps_y: Array,
    ramps_x: Array,
    transfer: Array,
    near: bool,
    push: Array,
    pull: Array,
    misfit: Array,
) -> None:
    """What each frame adds: to its window of the object, push[first + i] (P, Q); to the probe,
    pull[first + i] (K, P, Q), as a spectrum if `subpixel`. `weight` (P, Q) is the probe's."""
    p_, q = probes.shape[2], probes.shape[3]
    wave, row, top = np.empty_like(probes[0]), np.empty(q, np.float32), np.empty(q, np.float32)
    for i in range(len(frames)):
        j = frames[i]
        P, y0, x0 = probes[which[i]], corners[j, 0], corners[j, 1]
        exit_wave(O, y0, x0, P, wave, 0, p_)
        misfit[j] = modulus_return(
            wave, amplitude[j], mask[j % len(mask)], transfer[index[j]], near, 0, p_, -ONE, NONE
        )
        clear(top)
        for r in range(p_):
            total = light[y0 + r, x0 : x0 + q]
            for c in range(q):
                top[c] = max(top[c], total[c])
        b, scale = reg * largest(top), step
        if root:
            clear(top)
            for r in range(p_):
                power_row(P, r, row)
                for c in range(q):
                    top[c] = max(top[c], row[c])
            scale = step / np.sqrt(largest(top))
        for r in range(p_):
            total, add = light[y0 + r, x0 : x0 + q], push[first + i, r]
            clear(add)
            for k in range(P.shape[0]):
                p, d = P[k, r], wave[k, r]
                for c in range(q):
                    add[c] += p[c].conjugate() * d[c]
            if root:
                power_row(P, r, row)
                for c in range(q):
                    add[c] = add[c] * (scale * np.sqrt(row[c]) / (a * total[c] + b))
            else:
                for c in range(q):
                    add[c] = add[c] * (scale / (a * total[c] + b))
            if moves:
                o, w = O[y0 + r, x0 : x0 + q], weight[r]
                for k in range(P.shape[0]):
                    d, f = wave[k, r], pull[first + i, k, r]
                    for c in range(q):
                        f[c] = w[c] * (o[c].conjugate() * d[c])
        if moves and subpixel:
            u, out = index[j], pull[first + i]
            fft(out, out, True)
            shift_rows(out, ramps_y[u].conjugate(), ramps_x[u].conjugate(), out)


@jit
def batch_add(top: int, bottom: int, frames: Array, corners: Array, push: Array, O: Array) -> None:
    """Add what the frames push to rows top..bottom-1 of the object."""
    q = push.shape[2]
    for i in range(len(frames)):
        y0, x0 = corners[frames[i], 0], corners[frames[i], 1]
        for y in range(max(top, y0), min(bottom, y0 + push.shape[1])):
            o, d = O[y, x0 : x0 + q], push[i, y - y0]
            for c in range(q):
                o[c] += d[c]


@jit
def batch_pull(top: int, bottom: int, count: int, pull: Array, out: Array) -> None:
    """out (K, P, Q) += the first `count` pulls, on rows top..bottom-1."""
    for i in range(count):
        for k in range(out.shape[0]):
            for r in range(top, bottom):
                o, d = out[k, r], pull[i, k, r]
                for c in range(out.shape[2]):
                    o[c] += d[c]
