"""Numba version of `kernels.marginal`: a frame at a time, on threads that each have their own
sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from ..marginal import Seen
from .curvature import _add_back, _changed_wave
from .joint import transform
from .linked import FLOATS, KEPT_FRAME, KEPT_WAVES, WAVES, linked
from .rows import OPTIONS, ZERO, fft, jit, propagate, shift_rows, unshift_add
from .threads import run_all, summed
from .vectors import clear

__all__ = ["marginal"]

OWN = types.Array(types.complex64, 4, "C", readonly=True)
OWN_IMAGES = types.Array(types.float32, 3, "C", readonly=True)
WEIGHTS = types.Array(types.float32, 1, "C", readonly=True)
FRAME = types.Array(types.float32, 2, "C")
SUMS = types.Array(types.float64, 1, "C")


@linked(types.void(KEPT_WAVES, OWN, OWN_IMAGES, KEPT_FRAME, types.boolean, SUMS), **OPTIONS)
def _explained(
    wave: Array, own: Array, images: Array, light: Array, dark: bool, found: Array
) -> None:
    """found (n,) = Re <own, wave> + <images, light>."""
    for n in range(own.shape[0]):
        total = 0.0
        for r in range(wave.shape[1]):
            row = ZERO
            for k in range(wave.shape[0]):
                a, w = own[n, k, r], wave[k, r]
                for c in range(wave.shape[2]):
                    row += a[c].real * w[c].real + a[c].imag * w[c].imag
            if dark:
                e, b = images[n, r], light[r]
                for c in range(wave.shape[2]):
                    row += e[c] * b[c]
            total += row
        found[n] = total


@linked(
    types.void(
        *(WAVES, KEPT_WAVES, KEPT_FRAME, types.boolean, OWN, OWN_IMAGES, KEPT_FRAME, KEPT_FRAME),
        *(types.boolean, SUMS, FRAME, FLOATS),
    ),
    **OPTIONS,
)
def _weigh(
    wave: Array,
    radial: Array,
    across: Array,
    spread: bool,
    own: Array,
    images: Array,
    root: Array,
    light: Array,
    dark: bool,
    found: Array,
    back: Array,
    along: Array,
) -> None:
    """A less what `own` explains, in place on one frame (K, P, Q); where `dark`, what it asks of
    the background is added to `back`. `along` (Q,) is room.
    """
    for r in range(wave.shape[1]):
        clear(along)
        for k in range(wave.shape[0]):
            a, w = radial[k, r], wave[k, r]
            for c in range(wave.shape[2]):
                along[c] += a[c].real * w[c].real + a[c].imag * w[c].imag
        if dark:
            s, b, g = root[r], light[r], back[r]
            for c in range(wave.shape[2]):
                along[c] += s[c] * b[c]
            for c in range(wave.shape[2]):
                g[c] += s[c] * along[c]
            for n in range(own.shape[0]):
                e, f = images[n, r], np.float32(found[n])
                for c in range(wave.shape[2]):
                    g[c] -= f * e[c]
        for k in range(wave.shape[0]):
            a, w = radial[k, r], wave[k, r]
            if spread:
                s = across[r]
                for c in range(wave.shape[2]):
                    w[c] = a[c] * along[c] + s[c] * w[c]
            else:
                for c in range(wave.shape[2]):
                    w[c] = a[c] * along[c]
            for n in range(own.shape[0]):
                e2, f = own[n, k, r], np.float32(found[n])
                for c in range(wave.shape[2]):
                    w[c] -= e2[c] * f


@linked(types.void(KEPT_WAVES, WEIGHTS, WAVES), **OPTIONS)
def _mixed(probes: Array, weights: Array, out: Array) -> None:
    """out (K, P, Q) = the modes, the first of `probes` (K + M, P, Q), the variations behind them
    with their weights (M,) in mode 0.
    """
    K = out.shape[0]
    for r in range(out.shape[1]):
        for k in range(K):
            p, o = probes[k, r], out[k, r]
            for c in range(out.shape[2]):
                o[c] = p[c]
        for m in range(len(weights)):
            w, v, o = weights[m], probes[K + m, r], out[0, r]
            for c in range(out.shape[2]):
                o[c] += w * v[c]


@linked(types.void(KEPT_WAVES, WEIGHTS, WAVES), **OPTIONS)
def _unmixed_add(asked: Array, weights: Array, out: Array) -> None:
    """The adjoint of `_mixed`, added to out (K + M, P, Q)."""
    K = asked.shape[0]
    for r in range(asked.shape[1]):
        for k in range(K):
            a, o = asked[k, r], out[k, r]
            for c in range(asked.shape[2]):
                o[c] += a[c]
        for m in range(len(weights)):
            w, a, o = weights[m], asked[0, r], out[K + m, r]
            for c in range(asked.shape[2]):
                o[c] += w * a[c]


@jit
def _marginal(
    frames: Array,
    change: Array,
    spectrum: Array,
    joint: bool,
    light: Array,
    dark: bool,
    object: Array,
    lit: Array,
    ramps_y: Array,
    ramps_x: Array,
    corners: Array,
    radial: Array,
    across: Array,
    spread: bool,
    root: Array,
    own: Array,
    images: Array,
    weights: Array,
    transfer: Array,
    near: bool,
    out: Array,
    out_spectrum: Array,
    back: Array,
) -> None:
    """`spectrum` is the FFT of the probe's change, `out_spectrum` receives the sum's; those of
    variations come after those of modes.
    """
    K, p, q = lit.shape[1], lit.shape[2], lit.shape[3]
    wave, moved = np.empty((K, p, q), np.complex64), np.zeros((K, p, q), np.complex64)
    group, along = np.zeros((K, p, q), np.complex64), np.empty(q, np.float32)
    found, varies = np.zeros(own.shape[1]), weights.shape[1] > 0
    mixed = np.empty((K if varies else 0, p, q), np.complex64)
    for j in frames:
        y0, x0, t = corners[j, 0], corners[j, 1], min(j, len(transfer) - 1)
        # what there is none of has one row, a place holder
        a, s, e = min(j, len(across) - 1), min(j, len(root) - 1), min(j, len(images) - 1)
        if joint:
            if varies:
                _mixed(spectrum, weights[j], mixed)
                shift_rows(mixed, ramps_y[j], ramps_x[j], moved)
            else:
                shift_rows(spectrum, ramps_y[j], ramps_x[j], moved)
            fft(moved, moved, False)
        _changed_wave(change, lit[j], object, moved, joint, y0, x0, wave)
        propagate(wave, wave, transfer[t], near, True)
        _explained(wave, own[j], images[e], light, dark, found)
        _weigh(
            *(wave, radial[j], across[a], spread, own[j], images[e], root[s], light, dark, found),
            *(back, along),
        )
        propagate(wave, wave, transfer[t], near, False)
        if joint:
            clear(group)
        _add_back(wave, lit[j], object, joint, y0, x0, out, group)
        if joint:
            fft(group, group, True)
            if varies:
                clear(mixed)
                unshift_add(group, ramps_y[j], ramps_x[j], mixed)
                _unmixed_add(mixed, weights[j], out_spectrum)
            else:
                unshift_add(group, ramps_y[j], ramps_x[j], out_spectrum)


def marginal(
    change: Array,
    probe_change: Array | None,
    background_change: Array | None,
    object: Array,
    seen: Seen,
    threads: int = 1,
    parts: int = 0,
) -> tuple[Array, Array | None, Array | None]:
    joint, dark = probe_change is not None, background_change is not None
    K, p, q = seen.lit.shape[1:]
    spectrum = np.array(probe_change) if joint else np.zeros((K, p, q), np.complex64)
    if joint:
        transform(spectrum, True)
    none_of = np.zeros((len(seen.corners), 0), np.float32)
    none = np.zeros((1, 1, 1), np.float32)
    images = np.zeros((1, *seen.own.shape[1:2], 1, 1), np.float32)
    light = np.zeros((1, 1), np.float32) if background_change is None else background_change
    near = seen.transfer is not None
    common: tuple[Any, ...] = (
        *(np.ascontiguousarray(change), spectrum, joint, np.ascontiguousarray(light), dark, object),
        *(seen.lit, seen.ramps_y, seen.ramps_x, seen.corners, seen.radial),
        *(none if seen.across is None else seen.across, seen.across is not None),
        *(none if seen.root is None else seen.root, seen.own),
        images if seen.own_images is None else seen.own_images,
        none_of if seen.weights is None else seen.weights,
        *(np.zeros((1, 1, 1), np.complex64) if seen.transfer is None else seen.transfer, near),
    )
    frames = np.arange(len(seen.corners))
    shares = [share for share in np.array_split(frames, parts or threads) if len(share)]
    out = np.zeros((len(shares), *change.shape), np.complex64)
    spectra = np.zeros((len(shares), *spectrum.shape), np.complex64)
    back = np.zeros((len(shares), p, q), np.float32)
    calls = [(share, *common, out[i], spectra[i], back[i]) for i, share in enumerate(shares)]
    run_all(_marginal, calls, threads)
    total = summed(spectra)
    if joint:
        transform(total, False)
    return summed(out), total if joint else None, summed(back) if dark else None
