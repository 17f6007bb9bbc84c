"""Batches of LSQ-ML, compiled; the mathematics is that of `engines.lsqml`.

Threads take frames where every frame writes to a place of its own, and rows of the object where
frames are summed, in their order: the result does not depend on the number of threads. What a batch
asks of the object, and its light, are arrays of the whole object of which only the windows of the
batch are touched, and which are left empty: a batch costs what its frames do, however large the
object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from .fft import NONE
from .linked import FRAME, KEPT_FRAME, KEPT_MASK, WAVES, linked
from .modulus import modulus_return
from .rows import (
    HALF,
    ONE,
    OPTIONS,
    TINY,
    TWO,
    ZERO,
    exit_wave,
    f4,
    fft,
    jit,
    largest,
    power_row,
    propagate,
    shift_rows,
)
from .vectors import clear

#: Scoring steps for the length of a step of counts.
SCORINGS = 3


@linked(
    types.float64(
        *(WAVES, KEPT_FRAME, KEPT_FRAME, KEPT_FRAME, KEPT_MASK),
        *(types.boolean, types.float32, FRAME, FRAME),
    ),
    **OPTIONS,
)
def count_change(
    wave: Array,
    y: Array,
    n: Array,
    dark: Array,
    mask: Array,
    known: bool,
    far: Any,
    power: Array,
    xi: Array,
) -> float:
    """wave (K, P, Q) <- -alpha xi wave, in place; returns sum over valid pixels of (|z| - y)^2.
    `power` and `xi` (P, Q) are room.
    """
    total, signal, energy, q = 0.0, 0.0, 0.0, y.shape[1]
    for r in range(y.shape[0]):
        row, a, valid, c_, b_ = power[r], y[r], mask[r], n[r], dark[r % len(dark)]
        power_row(wave, r, row)
        own = light = asked = ZERO
        for c in range(q):
            d = (np.sqrt(row[c]) - a[c]) * f4(valid[c])
            own += d * d
            light += a[c] * a[c]
            asked += max(c_[c] - b_[c], ZERO) * f4(valid[c])
        total += own
        energy += light
        signal += asked
    # what is known of the dose of a frame has scaled its amplitude, not its counts
    scale = f4(signal / max(energy, 1e-20)) if known else ONE
    for r in range(y.shape[0]):
        row, x, a, valid, c_, b_ = power[r], xi[r], y[r], mask[r], n[r], dark[r % len(dark)]
        for c in range(q):
            light = row[c] * scale
            m, b = (c_[c], b_[c]) if known else (a[c] * a[c], ZERO)
            mean = max(light + b, TINY)
            best = ONE - np.sqrt(max(m - b, ZERO) / max(light, TINY))
            wrong = m > mean + far * np.sqrt(mean + ONE)
            x[c] = (TWO * best if wrong else ONE - m / mean) * f4(valid[c])
            row[c] = light
    alpha = HALF
    for _ in range(SCORINGS):
        score, information = 0.0, 0.0
        for r in range(y.shape[0]):
            row, x, a, valid, c_, b_ = power[r], xi[r], y[r], mask[r], n[r], dark[r % len(dark)]
            own = know = ZERO
            for c in range(q):
                m, b = (c_[c], b_[c]) if known else (a[c] * a[c], ZERO)
                left = ONE - alpha * x[c]
                mean = max(left * left * row[c] + b, TINY)
                slope = -TWO * x[c] * left * row[c]
                own += slope * (ONE - m / mean) * f4(valid[c])
                know += slope * (slope / mean)
            score += own
            information += know
        alpha = f4(min(max(alpha - score / max(information, 1e-20), 0.0), 1.0))
    for k in range(wave.shape[0]):
        for r in range(y.shape[0]):
            w, x = wave[k, r], xi[r]
            for c in range(q):
                w[c] = w[c] * (-alpha * x[c])
    return total


@jit
def ask_frames(
    frames: Array,
    which: Array,
    first: int,
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    moves: bool,
    subpixel: bool,
    ramps_y: Array,
    ramps_x: Array,
    transfer: Array,
    near: bool,
    by_counts: bool,
    known: bool,
    counts: Array,
    dark: Array,
    far: Any,
    chi: Array,
    push: Array,
    pull: Array,
    misfit: Array,
) -> None:
    """chi[first + i] (K, P, Q) of each frame, what it asks of its window of the object, push[first
    + i] (P, Q), and of the probe, pull[first + i] (K, P, Q), as a spectrum if `subpixel`.

    `by_counts`: counts are compared, those of `counts` with a background `dark` (P, Q) if they are
    `known`, else squares of the amplitude; `far` standard deviations above what is expected the
    model is wrong, not they.
    """
    p_, q = probes.shape[2], probes.shape[3]
    power, xi = np.empty((p_, q), np.float32), np.empty((p_, q), np.float32)
    for i in range(len(frames)):
        j, wave = frames[i], chi[first + i]
        P, y0, x0 = probes[which[i]], corners[j, 0], corners[j, 1]
        exit_wave(O, y0, x0, P, wave, 0, p_)
        valid, gap = mask[j % len(mask)], transfer[index[j]]
        if by_counts:
            propagate(wave, wave, gap, near, True)
            n = counts[j] if known else amplitude[j]
            misfit[j] = count_change(wave, amplitude[j], n, dark, valid, known, far, power, xi)
            propagate(wave, wave, gap, near, False)
        else:
            misfit[j] = modulus_return(wave, amplitude[j], valid, gap, near, 0, p_, -ONE, NONE)
        for r in range(p_):
            add, o = push[first + i, r], O[y0 + r, x0 : x0 + q]
            clear(add)
            for k in range(P.shape[0]):
                p, d = P[k, r], wave[k, r]
                for c in range(q):
                    add[c] += p[c].conjugate() * d[c]
            if moves:
                for k in range(P.shape[0]):
                    d, f = wave[k, r], pull[first + i, k, r]
                    for c in range(q):
                        f[c] = o[c].conjugate() * d[c]
        if moves and subpixel:
            u, out = index[j], pull[first + i]
            fft(out, out, True)
            shift_rows(out, ramps_y[u].conjugate(), ramps_x[u].conjugate(), out)


@jit
def brightest(frames: Array, corners: Array, shape: tuple[int, int], light: Array) -> Any:
    """The largest light in the windows of the frames."""
    p_, q = shape
    top = np.zeros(q, np.float32)
    for i in range(len(frames)):
        y0, x0 = corners[frames[i], 0], corners[frames[i], 1]
        for r in range(p_):
            row = light[y0 + r, x0 : x0 + q]
            for c in range(q):
                top[c] = max(top[c], row[c])
    return largest(top)


@jit
def frame_sums(
    frames: Array,
    which: Array,
    first: int,
    O: Array,
    probes: Array,
    moved: Array,
    asked: Array,
    light: Array,
    least: Any,
    corners: Array,
    chi: Array,
    moves: bool,
    sums: Array,
) -> None:
    """sums[first + i] = |A|^2, Re <A, B>, |B|^2, Re <A, chi>, Re <B, chi> of each frame, with A =
    dO P, dO = asked/(light + least), and B = dP O, dP being moved[which[i]] (K, P, Q).
    """
    p_, q = probes.shape[2], probes.shape[3]
    d = np.empty(q, np.complex64)
    for i in range(len(frames)):
        j = frames[i]
        y0, x0 = corners[j, 0], corners[j, 1]
        aa, ab, bb, ac, bc = 0.0, 0.0, 0.0, 0.0, 0.0
        for r in range(p_):
            o, pull, lit = (
                O[y0 + r, x0 : x0 + q],
                asked[y0 + r, x0 : x0 + q],
                light[y0 + r, x0 : x0 + q],
            )
            for c in range(q):
                d[c] = pull[c] * (ONE / (lit[c] + least))
            for k in range(probes.shape[1]):
                p, x = probes[which[i], k, r], chi[first + i, k, r]
                own = want = ONE - ONE
                for c in range(q):
                    a = d[c] * p[c]
                    own += a.real * a.real + a.imag * a.imag
                    want += a.real * x[c].real + a.imag * x[c].imag
                aa += own
                ac += want
                if moves:
                    m = moved[which[i], k, r]
                    own = want = both = ONE - ONE
                    for c in range(q):
                        a, b = d[c] * p[c], m[c] * o[c]
                        own += b.real * b.real + b.imag * b.imag
                        want += b.real * x[c].real + b.imag * x[c].imag
                        both += a.real * b.real + a.imag * b.imag
                    bb += own
                    bc += want
                    ab += both
        row = sums[first + i]
        row[0], row[1], row[2], row[3], row[4] = aa, ab, bb, ac, bc


@jit
def move_rows(
    top: int,
    bottom: int,
    frames: Array,
    corners: Array,
    shape: tuple[int, int],
    asked: Array,
    light: Array,
    least: Any,
    step: Any,
    O: Array,
    total: Array,
    whole: Array,
    together: bool,
) -> None:
    """O += step asked/(light + least) in the windows of the frames, on rows top..bottom-1, or, if
    `together`, whole += asked; total += light; then nothing is asked and there is no light.
    """
    p_, q = shape
    for i in range(len(frames)):
        y0, x0 = corners[frames[i], 0], corners[frames[i], 1]
        for y in range(max(top, y0), min(bottom, y0 + p_)):
            pull, lit, sum_ = asked[y, x0 : x0 + q], light[y, x0 : x0 + q], total[y, x0 : x0 + q]
            if together:
                out = whole[y, x0 : x0 + q]
                for c in range(q):
                    out[c] += pull[c]
            else:
                out = O[y, x0 : x0 + q]
                for c in range(q):
                    out[c] += pull[c] * (step / (lit[c] + least))
            for c in range(q):
                sum_[c] += lit[c]
            clear(pull)
            clear(lit)
