"""Numba versions of the kernels of the joint posterior: `site_moments` in double precision, a pixel
at a time; `curvature` a frame at a time, on threads that each have their own sums."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...types import Array
from ..likelihoods import CAVITY_SHARE
from .pixel import counts, normal, rician, shifted
from .rows import (
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

__all__ = ["curvature", "site_moments"]

_KINDS = {"rician": 0, "normal": 1, "counts": 2, "shifted": 3}


@jit
def _site_moments(
    wave: Array,
    natural: Array,
    index: Array,
    table: Array,
    data: Array,
    v: Array,
    kind: int,
    background: Array,
    ratio: Array,
    sums: Array,
    frames: Array,
) -> None:
    K, last, many = wave.shape[1], table.shape[1] - 1, background.shape[0] > 1
    for b in range(wave.shape[0]):
        for r in range(wave.shape[2]):
            for c in range(wave.shape[3]):
                i = index[b, r, c]
                if i == last:
                    ratio[b, r, c] = 1
                    sums[0, i] += 1
                    continue
                V, g = np.float64(table[0, i]), np.float64(table[1, i])
                g_c = max(1 / V - g, CAVITY_SHARE / V)
                power = 0.0
                for k in range(K):
                    x = np.float64(wave[b, k, r, c].real) / V - natural[b, k, r, c].real
                    y = np.float64(wave[b, k, r, c].imag) / V - natural[b, k, r, c].imag
                    power += x * x + y * y
                r0, v0, a = math.sqrt(power) / g_c, 1 / g_c, np.float64(data[b, r, c])
                if kind == 3:
                    rho, along, across, noise = shifted(
                        r0, a, v0, np.float64(background[b if many else 0, r, c]), K
                    )
                elif kind == 2:
                    rho, along, across, noise = counts(r0, np.rint(a * a), v0, K)
                elif kind == 1:
                    rho, along, across, noise = normal(r0, a, v0, v[b], K)
                else:
                    rho, along, across, noise = rician(r0, a, v0, v[b], K)
                ratio[b, r, c] = rho / max(r0, 1e-30)
                sums[0, i] += 1
                sums[1, i] += along
                sums[2, i] += across
                sums[3, i] += noise
                frames[b] += noise


def site_moments(
    wave: Array,
    natural: Array,
    index: Array,
    table: Array,
    data: Array,
    v: Any,
    kind: str,
    background: Array | None = None,
) -> tuple[Array, Array, Array]:
    ratio, sums, frames = (
        np.empty(index.shape, np.float32),
        np.zeros((4, table.shape[1])),
        np.zeros(len(index)),
    )
    each = np.full(len(index), v, np.float64)
    B = np.zeros((1, 1, 1), np.float32) if background is None else background
    _site_moments(wave, natural, index, table, data, each, _KINDS[kind], B, ratio, sums, frames)
    return ratio, sums, frames


@inner
def _weigh(wave: Array, classes: Array, weights: Array, directions: Array, directed: bool) -> None:
    """In place, on one frame (K, P, Q)."""
    for r in range(wave.shape[1]):
        kind = classes[r]
        if not directed:
            for k in range(wave.shape[0]):
                w = wave[k, r]
                for c in range(w.shape[0]):
                    w[c] = w[c] * weights[1, kind[c]]
        elif wave.shape[0] == 1:
            w, u = wave[0, r], directions[0, r]
            for c in range(w.shape[0]):
                power = max(u[c].real * u[c].real + u[c].imag * u[c].imag, np.float32(1e-30))
                along = (u[c].real * w[c].real + u[c].imag * w[c].imag) / power
                across = weights[1, kind[c]]
                w[c] = across * w[c] + ((weights[0, kind[c]] - across) * along) * u[c]
        else:
            for c in range(wave.shape[2]):
                power, along = ZERO, ZERO
                for k in range(wave.shape[0]):
                    u1, w1 = directions[k, r, c], wave[k, r, c]
                    power += u1.real * u1.real + u1.imag * u1.imag
                    along += u1.real * w1.real + u1.imag * w1.imag
                across = weights[1, kind[c]]
                along *= (weights[0, kind[c]] - across) / max(power, np.float32(1e-30))
                for k in range(wave.shape[0]):
                    wave[k, r, c] = across * wave[k, r, c] + along * directions[k, r, c]


@jit
def _curvature(
    order: Array,
    change: Array,
    spectrum: Array,
    joint: bool,
    probes: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    index: Array,
    corners: Array,
    classes: Array,
    weights: Array,
    waves: Array,
    directed: bool,
    transfer: Array,
    near: bool,
    out: Array,
    out_spectrum: Array,
) -> None:
    """Frames of `order`, sorted by shift; `spectrum` is the FFT of the probe's change,
    `out_spectrum` receives the sum's.
    """
    K, p, q = probes.shape[1], probes.shape[2], probes.shape[3]
    psi, wave = np.empty((K, p, q), np.complex64), np.empty((K, p, q), np.complex64)
    moved, group = np.zeros((K, p, q), np.complex64), np.zeros((K, p, q), np.complex64)
    for i in range(len(order)):
        j = order[i]
        P, y0, x0 = probes[index[j]], corners[j, 0], corners[j, 1]
        if joint and (i == 0 or index[order[i - 1]] != index[j]):
            shift_rows(spectrum, ramps_y[index[j]], ramps_x[index[j]], moved)
            fft(moved, moved, False)
        for k in range(K):
            for r in range(p):
                s, a, o = psi[k, r], P[k, r], change[y0 + r, x0 : x0 + q]
                for c in range(q):
                    s[c] = a[c] * o[c]
                if joint:
                    d, o2 = moved[k, r], object[y0 + r, x0 : x0 + q]
                    for c in range(q):
                        s[c] += d[c] * o2[c]
        propagate(psi, wave, transfer[index[j]], near, True)
        _weigh(wave, classes[j], weights, waves[j], directed)
        propagate(wave, psi, transfer[index[j]], near, False)
        for k in range(K):
            for r in range(p):
                s, a, o = psi[k, r], P[k, r], out[y0 + r, x0 : x0 + q]
                for c in range(q):
                    o[c] += a[c].conjugate() * s[c]
                if joint:
                    g, o2 = group[k, r], object[y0 + r, x0 : x0 + q]
                    for c in range(q):
                        g[c] += o2[c].conjugate() * s[c]
        if joint and (i == len(order) - 1 or index[order[i + 1]] != index[j]):
            fft(group, group, True)
            unshift_add(group, ramps_y[index[j]], ramps_x[index[j]], out_spectrum)
            group[:] = 0


@jit
def _transform(a: Array, forward: bool) -> None:
    fft(a, a, forward)


def curvature(
    change: Array,
    probe_change: Array | None,
    probes: Array,
    object: Array | None,
    shifts: Array,
    index: Array,
    corners: Array,
    classes: Array,
    weights: Array,
    waves: Array | None,
    transfer: Array | None,
    threads: int,
) -> tuple[Array, Array | None]:
    joint = probe_change is not None
    spectrum = (
        np.zeros(probes.shape[1:], np.complex64) if probe_change is None else np.array(probe_change)
    )
    _transform(spectrum, True)
    ramps = separable_ramps(shifts, probes.shape[-2:])
    # sorted by shift, so that the probe's way there and back costs one FFT a distinct shift
    parts = [p for p in np.array_split(np.argsort(index, kind="stable"), threads) if len(p)]
    out = np.zeros((len(parts), *change.shape), np.complex64)
    back = np.zeros((len(parts), *probes.shape[1:]), np.complex64)
    common = (
        *(
            np.ascontiguousarray(change),
            spectrum,
            joint,
            probes,
            change if object is None else object,
            *ramps,
        ),
        *(index, corners, classes, np.ascontiguousarray(weights, np.float32)),
        *(probes if waves is None else waves, waves is not None),
        *transfer_table(transfer, len(shifts)),
    )
    if len(parts) == 1:
        _curvature(parts[0], *common, out[0], back[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            jobs = [
                pool.submit(_curvature, part, *common, out[i], back[i])
                for i, part in enumerate(parts)
            ]
            for job in jobs:
                job.result()
    if not joint:
        return out.sum(axis=0), None
    total = back.sum(axis=0)
    _transform(total, False)
    return out.sum(axis=0), total
