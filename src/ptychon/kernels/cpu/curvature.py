"""Numba version of `kernels.curvature`: a frame at a time, on threads that each have their own
sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from ..curvature import ByClass, Weights
from .joint import transform
from .linked import FLOATS, KEPT_FRAME, KEPT_WAVE, KEPT_WAVES, WAVE, WAVES, linked
from .rows import (
    OPTIONS,
    ZERO,
    fft,
    inner,
    jit,
    propagate,
    separable_ramps,
    shift_rows,
    transfer_table,
    unshift_add,
)
from .threads import run_all, summed
from .vectors import clear, flat

__all__ = ["curvature"]

#: How weights are held: one number a class, two a class, `radial` of each pixel, and a number
#: across it as well.
ALIKE, DIRECTED, RADIAL, SPREAD = range(4)


@inner
def _weigh_by_class(
    wave: Array, classes: Array, table: Array, directions: Array, directed: bool
) -> None:
    """In place, on one frame (K, P, Q)."""
    for r in range(wave.shape[1]):
        kind = classes[r]
        if not directed:
            for k in range(wave.shape[0]):
                w = wave[k, r]
                for c in range(w.shape[0]):
                    w[c] = w[c] * table[1, kind[c]]
        elif wave.shape[0] == 1:
            w, u = wave[0, r], directions[0, r]
            for c in range(w.shape[0]):
                power = max(u[c].real * u[c].real + u[c].imag * u[c].imag, np.float32(1e-30))
                along = (u[c].real * w[c].real + u[c].imag * w[c].imag) / power
                across = table[1, kind[c]]
                w[c] = across * w[c] + ((table[0, kind[c]] - across) * along) * u[c]
        else:
            for c in range(wave.shape[2]):
                power, along = ZERO, ZERO
                for k in range(wave.shape[0]):
                    u1, w1 = directions[k, r, c], wave[k, r, c]
                    power += u1.real * u1.real + u1.imag * u1.imag
                    along += u1.real * w1.real + u1.imag * w1.imag
                across = table[1, kind[c]]
                along *= (table[0, kind[c]] - across) / max(power, np.float32(1e-30))
                for k in range(wave.shape[0]):
                    wave[k, r, c] = across * wave[k, r, c] + along * directions[k, r, c]


@linked(types.void(WAVES, KEPT_WAVES, KEPT_FRAME, types.boolean, FLOATS), **OPTIONS)
def _weigh_by_pixel(wave: Array, radial: Array, across: Array, spread: bool, along: Array) -> None:
    """In place, on one frame (K, P, Q); `along` (Q,) is room to work."""
    for r in range(wave.shape[1]):
        clear(along)
        for k in range(wave.shape[0]):
            a, w = radial[k, r], wave[k, r]
            for c in range(wave.shape[2]):
                along[c] += a[c].real * w[c].real + a[c].imag * w[c].imag
        for k in range(wave.shape[0]):
            a, w = radial[k, r], wave[k, r]
            if spread:
                s = across[r]
                for c in range(wave.shape[2]):
                    w[c] = a[c] * along[c] + s[c] * w[c]
            else:
                for c in range(wave.shape[2]):
                    w[c] = a[c] * along[c]


@linked(
    types.void(
        *(KEPT_WAVE, KEPT_WAVES, KEPT_WAVE, KEPT_WAVES, types.boolean, types.intp, types.intp),
        WAVES,
    ),
    **OPTIONS,
)
def _changed_wave(
    change: Array, P: Array, object: Array, moved: Array, joint: bool, y0: int, x0: int, wave: Array
) -> None:
    """wave = P change, plus `moved` times the object where `joint`, on one window."""
    q = P.shape[2]
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            s, a, o = wave[k, r], P[k, r], change[y0 + r, x0 : x0 + q]
            if joint:
                d, o2 = moved[k, r], object[y0 + r, x0 : x0 + q]
                for c in range(q):
                    s[c] = a[c] * o[c] + d[c] * o2[c]
            else:
                for c in range(q):
                    s[c] = a[c] * o[c]


@linked(
    types.void(
        *(KEPT_WAVES, KEPT_WAVES, KEPT_WAVE, types.boolean, types.intp, types.intp, WAVE, WAVES)
    ),
    **OPTIONS,
)
def _add_back(
    wave: Array, P: Array, object: Array, joint: bool, y0: int, x0: int, out: Array, group: Array
) -> None:
    """out += P* wave on one window; group += O* wave where `joint`."""
    q = P.shape[2]
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            s, a, o = wave[k, r], P[k, r], out[y0 + r, x0 : x0 + q]
            for c in range(q):
                o[c] += a[c].conjugate() * s[c]
            if joint:
                g, o2 = group[k, r], object[y0 + r, x0 : x0 + q]
                for c in range(q):
                    g[c] += o2[c].conjugate() * s[c]


@jit
def _curvature(
    order: Array,
    change: Array,
    spectrum: Array,
    joint: bool,
    still: bool,
    probes: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    index: Array,
    corners: Array,
    held: int,
    classes: Array,
    table: Array,
    directions: Array,
    across: Array,
    transfer: Array,
    near: bool,
    out: Array,
    out_spectrum: Array,
) -> None:
    """Frames of `order`, sorted by shift; `spectrum` is the FFT of the probe's change,
    `out_spectrum` receives the sum's. Where no probe is shifted (`still`) both are the probe's own.
    """
    K, p, q = probes.shape[1], probes.shape[2], probes.shape[3]
    wave = np.empty((K, p, q), np.complex64)
    moved, group = np.zeros((K, p, q), np.complex64), np.zeros((K, p, q), np.complex64)
    along = np.empty(q, np.float32)
    for i in range(len(order)):
        j = order[i]
        P, y0, x0 = probes[index[j]], corners[j, 0], corners[j, 1]
        if joint and (i == 0 or index[order[i - 1]] != index[j]):
            if still:
                source, target = flat(spectrum), flat(moved)
                for c in range(len(source)):
                    target[c] = source[c]
            else:
                shift_rows(spectrum, ramps_y[index[j]], ramps_x[index[j]], moved)
                fft(moved, moved, False)
        _changed_wave(change, P, object, moved, joint, y0, x0, wave)
        propagate(wave, wave, transfer[index[j]], near, True)
        if held <= DIRECTED:
            _weigh_by_class(wave, classes[j], table, directions[j], held == DIRECTED)
        else:
            _weigh_by_pixel(wave, directions[j], across[j], held == SPREAD, along)
        propagate(wave, wave, transfer[index[j]], near, False)
        _add_back(wave, P, object, joint, y0, x0, out, group)
        if joint and (i == len(order) - 1 or index[order[i + 1]] != index[j]):
            if still:
                source, target = flat(group), flat(out_spectrum)
                for c in range(len(source)):
                    target[c] += source[c]
            else:
                fft(group, group, True)
                unshift_add(group, ramps_y[index[j]], ramps_x[index[j]], out_spectrum)
            clear(group)


def _parts(weights: Weights, frames: int) -> tuple[Any, ...]:
    """What `_curvature` takes of the weights, with place holders for what there is not."""
    none = np.zeros((frames, 1, 1), np.float32)
    if isinstance(weights, ByClass):
        table = np.ascontiguousarray(weights.table, np.float32)
        if weights.waves is None:
            return ALIKE, weights.classes, table, none[:, None].astype(np.complex64), none
        return DIRECTED, weights.classes, table, weights.waves, none
    classes, table = none.astype(np.uint8), np.zeros((2, 1), np.float32)
    if weights.across is None:
        return RADIAL, classes, table, weights.radial, none
    return SPREAD, classes, table, weights.radial, weights.across


def curvature(
    change: Array,
    probe_change: Array | None,
    probes: Array,
    object: Array | None,
    shifts: Array,
    index: Array,
    corners: Array,
    weights: Weights,
    transfer: Array | None,
    threads: int,
    parts: int = 0,
) -> tuple[Array, Array | None]:
    joint = probe_change is not None
    spectrum = (
        np.zeros(probes.shape[1:], np.complex64) if probe_change is None else np.array(probe_change)
    )
    still = not joint or not shifts.any()
    if not still:
        transform(spectrum, True)
    none = np.zeros((len(shifts), 1), np.complex64)
    ramps = (none, none) if still else separable_ramps(shifts, probes.shape[-2:])
    # sorted by shift, so that the probe's way there and back costs one FFT a distinct shift
    order = np.argsort(index, kind="stable")
    shares = [p for p in np.array_split(order, parts or threads) if len(p)]
    out = np.zeros((len(shares), *change.shape), np.complex64)
    back = np.zeros((len(shares), *probes.shape[1:]), np.complex64)
    common: tuple[Any, ...] = (
        *(
            np.ascontiguousarray(change),
            spectrum,
            joint,
            still,
            probes,
            change if object is None else object,
            *ramps,
        ),
        *(index, corners, *_parts(weights, len(index))),
        *transfer_table(transfer, len(shifts)),
    )
    run_all(_curvature, [(s, *common, out[i], back[i]) for i, s in enumerate(shares)], threads)
    out, back = summed(out), summed(back)
    if not joint:
        return out, None
    if not still:
        transform(back, False)
    return out, back
