"""Whole sweeps of Ptycho-EP in one compiled loop; the mathematics is that of
`engines.ptycho_ep`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from ..reference import CAVITY_FLOOR, EXTRINSIC_GAIN, VARIANCE_FLOOR
from .linked import FRAME, KEPT_FRAME, KEPT_MASK, KEPT_WAVE, WAVE, linked, uniform
from .moments import laplace_rows, rician_rows
from .rows import ONE, OPTIONS, ZERO, f4, inner, jit, propagate, propagate_within
from .vectors import clear, stretch

_CAVITY, _GAIN, _LEAST = (
    np.float32(CAVITY_FLOOR),
    np.float32(1 + EXTRINSIC_GAIN),
    np.float32(VARIANCE_FLOOR),
)


@linked(uniform(types.float64, 2)(KEPT_WAVE, KEPT_FRAME, KEPT_MASK, types.float32), **OPTIONS)
def misfits(wave: Array, amplitude: Array, mask: Array, offset: Any) -> tuple[float, float]:
    """sum over valid pixels of (|z| - a)^2 and of (|z| - sqrt(a^2 + offset))^2 for one
    mode (P, Q).
    """
    total, stabilised = 0.0, 0.0
    for r in range(amplitude.shape[0]):
        w, a, valid, row, row2 = wave[r], amplitude[r], mask[r], ZERO, ZERO
        for c in range(a.shape[0]):
            m = np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
            d = (m - a[c]) * f4(valid[c])
            e = (m - np.sqrt(a[c] * a[c] + offset)) * f4(valid[c])
            row += d * d
            row2 += e * e
        total += row
        stabilised += row2
    return total, stabilised


@linked(types.float32(KEPT_FRAME, KEPT_WAVE, *[types.intp] * 2, KEPT_WAVE, WAVE), **OPTIONS)
def belief(precision: Array, natural: Array, y0: int, x0: int, P: Array, psi: Array) -> Any:
    """psi = P eta/Lambda on one window (P, Q); returns mean |P|^2/Lambda."""
    total = 0.0
    for r in range(P.shape[0]):
        L, h = precision[y0 + r, x0 : x0 + P.shape[1]], natural[y0 + r, x0 : x0 + P.shape[1]]
        p, s, row = P[r], psi[r], ZERO
        for c in range(P.shape[1]):
            inverse = ONE / L[c]
            s[c] = (p[c] * h[c]) * inverse
            row += (p[c].real * p[c].real + p[c].imag * p[c].imag) * inverse
        total += row
    return f4(total / P.size)


@linked(types.void(types.float32, WAVE, types.float32, KEPT_WAVE), **OPTIONS)
def combine(a: Any, x: Array, b: Any, y: Array) -> None:
    """x <- a x - b y, (P, Q)."""
    for r in range(x.shape[0]):
        u, v = x[r], y[r]
        for c in range(x.shape[1]):
            u[c] = a * u[c] - b * v[c]


@linked(
    types.void(
        *(FRAME, WAVE, types.intp, types.intp, KEPT_WAVE, KEPT_WAVE, KEPT_WAVE, WAVE),
        uniform(types.float32, 5),
    ),
    **OPTIONS,
)
def message_update(
    precision: Array,
    natural: Array,
    y0: int,
    x0: int,
    P: Array,
    back: Array,
    psi_c: Array,
    phi: Array,
    coefficients: Array,
) -> None:
    """phi <- a back - b psi_c + e phi in place, and the change of g |P|^2, g P* phi onto Lambda and
    eta.
    """
    a, b, e, g_new, g_old = coefficients
    for r in range(P.shape[0]):
        L, h = precision[y0 + r, x0 : x0 + P.shape[1]], natural[y0 + r, x0 : x0 + P.shape[1]]
        p, w, s, m = P[r], back[r], psi_c[r], phi[r]
        for c in range(P.shape[1]):
            new = a * w[c] - b * s[c] + e * m[c]
            h[c] += p[c].conjugate() * (g_new * new - g_old * m[c])
            L[c] += (g_new - g_old) * (p[c].real * p[c].real + p[c].imag * p[c].imag)
            m[c] = new


@inner
def ep_message(
    j: int,
    precision: Array,
    natural: Array,
    phi: Array,
    g_j: Any,
    P: Array,
    y0: int,
    x0: int,
    amplitude: Array,
    mask: Array,
    offset: Any,
    v: Any,
    laplace: bool,
    damping: Any,
    transfer: Array,
    near: bool,
    measure: bool,
    learn: bool,
    psi: Array,
    wave: Array,
    root: Array,
    sums: Array,
    later: Array,
) -> Any:
    """The update of one frame up to its new message, which is a wave - b psi + e phi with precision
    g_new.

    Returns (a, b, e, g_new, g_j), with g_new = 0 where the data taught nothing. `sums` (4,)
    receives misfit, stabilised misfit, noise (of `laplace`, or if `learn`) and skips. `later` is
    the message that will be wanted after this one.
    """
    variance = belief(precision, natural, y0, x0, P, psi[0])
    if measure:
        propagate(psi, wave, transfer, near, True)
        sums[0], sums[1] = misfits(wave[0], amplitude, mask, offset)
    g_b = ONE / variance
    g_c = max(g_b - g_j, _CAVITY * g_b)
    combine(g_b / g_c, psi[0], g_j / g_c, phi)
    propagate_within(
        psi, wave, transfer, near, True, 0, psi.shape[1], stretch(amplitude), stretch(later)
    )
    if laplace:
        v_hat, noise = laplace_rows(wave[0], ONE / g_c, amplitude, offset, mask, v)
    else:
        v_hat, noise = rician_rows(wave[0], ONE / g_c, amplitude, offset, mask, v, learn, root)
    g_hat = ONE / max(v_hat, _LEAST / g_c)
    skipped = not g_hat > _GAIN * g_c
    sums[2], sums[3] = noise, 1.0 if skipped else 0.0
    if skipped:
        return ZERO, ZERO, ONE, ZERO, g_j
    propagate(wave, wave, transfer, near, False)
    g_n = g_hat - g_c
    keep = ONE - damping
    root = damping / np.sqrt(g_n) + keep / np.sqrt(g_j)
    return damping * g_hat / g_n, damping * g_c / g_n, keep, ONE / (root * root), g_j


@jit
def ep_visits(
    order: Array,
    precision: Array,
    natural: Array,
    messages: Array,
    g: Array,
    probes: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    offset: Any,
    v: Array,
    laplace: bool,
    damping: Any,
    transfer: Array,
    near: bool,
    measure: bool,
    learn: bool,
    sums: Array,
) -> None:
    """Visit the frames of `order` one after the other; each sees what the one before has done. `v`
    is (N,), `sums` (N, 4) float64."""
    psi = np.empty((1, probes.shape[1], probes.shape[2]), np.complex64)
    wave, root = np.empty_like(psi), np.empty(probes.shape[2], np.float32)
    for i in range(len(order)):
        j = order[i]
        P, y0, x0 = probes[index[j]], corners[j, 0], corners[j, 1]
        later = messages[order[min(i + 1, len(order) - 1)]]
        new = ep_message(
            j,
            precision,
            natural,
            messages[j],
            g[j],
            P,
            y0,
            x0,
            amplitude[j],
            mask[j % len(mask)],
            offset,
            v[j],
            laplace,
            damping,
            transfer[index[j]],
            near,
            measure,
            learn,
            psi,
            wave,
            root,
            sums[j],
            later,
        )
        if new[3] > 0:
            message_update(precision, natural, y0, x0, P, wave[0], psi[0], messages[j], new)
            g[j] = new[3]


@jit
def ep_changes(
    order: Array,
    first: int,
    precision: Array,
    natural: Array,
    messages: Array,
    g: Array,
    probes: Array,
    index: Array,
    corners: Array,
    amplitude: Array,
    mask: Array,
    offset: Any,
    v: Array,
    laplace: bool,
    damping: Any,
    transfer: Array,
    near: bool,
    measure: bool,
    learn: bool,
    sums: Array,
    change: Array,
    gain: Array,
) -> None:
    """New messages of the frames of `order`, all from the same belief, which is left alone.

    change[first + i] (P, Q) receives the change of g P* phi and gain[first + i] that of g.
    """
    psi = np.empty((1, probes.shape[1], probes.shape[2]), np.complex64)
    wave, root = np.empty_like(psi), np.empty(probes.shape[2], np.float32)
    for i in range(len(order)):
        j = order[i]
        P, phi = probes[index[j]], messages[j]
        later = messages[order[min(i + 1, len(order) - 1)]]
        a, b, e, g_new, g_old = ep_message(
            j,
            precision,
            natural,
            phi,
            g[j],
            P,
            corners[j, 0],
            corners[j, 1],
            amplitude[j],
            mask[j % len(mask)],
            offset,
            v[j],
            laplace,
            damping,
            transfer[index[j]],
            near,
            measure,
            learn,
            psi,
            wave,
            root,
            sums[j],
            later,
        )
        out = change[first + i]
        gain[first + i] = ZERO
        if g_new > 0:
            gain[first + i] = g_new - g_old
            g[j] = g_new
        for r in range(P.shape[0]):
            p, w, s, m, o = P[r], wave[0, r], psi[0, r], phi[r], out[r]
            if g_new > 0:
                for c in range(P.shape[1]):
                    fresh = a * w[c] - b * s[c] + e * m[c]
                    o[c] = p[c].conjugate() * (g_new * fresh - g_old * m[c])
                    m[c] = fresh
            else:
                clear(o)


@jit
def ep_add(
    top: int,
    bottom: int,
    order: Array,
    precision: Array,
    natural: Array,
    probes: Array,
    index: Array,
    corners: Array,
    change: Array,
    gain: Array,
) -> None:
    """Add the changes of the frames of `order` to rows top..bottom-1 of the object: threads take
    rows, so none collide.
    """
    q = probes.shape[2]
    for i in range(len(order)):
        j = order[i]
        y0, x0, extra = corners[j, 0], corners[j, 1], gain[i]
        for y in range(max(top, y0), min(bottom, y0 + probes.shape[1])):
            L, h = precision[y, x0 : x0 + q], natural[y, x0 : x0 + q]
            p, d = probes[index[j], y - y0], change[i, y - y0]
            for c in range(q):
                h[c] += d[c]
                L[c] += extra * (p[c].real * p[c].real + p[c].imag * p[c].imag)
