"""Numba version of `kernels.joint`: a frame at a time, on threads that each have their own sums."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...types import Array
from .rows import ZERO, fft, inner, jit, shift_rows, unshift_add

__all__ = ["joint_product"]


@inner
def along_rows(wave: Array, radial: Array, along: Array) -> None:
    """along (P, Q) = Re sum_k radial_k* wave_k."""
    for r in range(wave.shape[1]):
        v = along[r]
        v[:] = ZERO
        for k in range(wave.shape[0]):
            a, w = radial[k, r], wave[k, r]
            for c in range(wave.shape[2]):
                v[c] += a[c].real * w[c].real + a[c].imag * w[c].imag


@inner
def less(along: Array, own: Array, found: Array) -> None:
    """along -= sum_n own_n <own_n, along>; `found` (n,) is room."""
    for n in range(own.shape[0]):
        total = 0.0
        for r in range(along.shape[0]):
            a, v, row = own[n, r], along[r], ZERO
            for c in range(along.shape[1]):
                row += a[c] * v[c]
            total += row
        found[n] = total
    for n in range(own.shape[0]):
        for r in range(along.shape[0]):
            a, v, f = own[n, r], along[r], found[n]
            for c in range(along.shape[1]):
                v[c] -= a[c] * f


@jit
def _joint(
    change: Array,
    spectrum: Array,
    joint: bool,
    lit: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    corners: Array,
    radial: Array,
    own: Array,
    out: Array,
    out_spectrum: Array,
) -> None:
    """`spectrum` is the FFT of the probe's change, `out_spectrum` receives the sum's."""
    K, p, q = lit.shape[1], lit.shape[2], lit.shape[3]
    wave, moved = np.empty((K, p, q), np.complex64), np.empty((K, p, q), np.complex64)
    along, found = np.empty((p, q), np.float32), np.empty(own.shape[1], np.float32)
    for j in range(lit.shape[0]):
        y0, x0 = corners[j, 0], corners[j, 1]
        if joint:
            shift_rows(spectrum, ramps_y[j], ramps_x[j], moved)
            fft(moved, moved, False)
        for k in range(K):
            for r in range(p):
                s, a, o = wave[k, r], lit[j, k, r], change[y0 + r, x0 : x0 + q]
                if joint:
                    d, o2 = moved[k, r], object[y0 + r, x0 : x0 + q]
                    for c in range(q):
                        s[c] = a[c] * o[c] + d[c] * o2[c]
                else:
                    for c in range(q):
                        s[c] = a[c] * o[c]
        fft(wave, wave, True)
        along_rows(wave, radial[j], along)
        less(along, own[j], found)
        for k in range(K):
            for r in range(p):
                w, a, v = wave[k, r], radial[j, k, r], along[r]
                for c in range(q):
                    w[c] = a[c] * v[c]
        fft(wave, wave, False)
        for k in range(K):
            for r in range(p):
                s, a, o = wave[k, r], lit[j, k, r], out[y0 + r, x0 : x0 + q]
                for c in range(q):
                    o[c] += a[c].conjugate() * s[c]
                if joint:
                    o2 = object[y0 + r, x0 : x0 + q]
                    for c in range(q):
                        s[c] = o2[c].conjugate() * s[c]
        if joint:
            fft(wave, wave, True)
            unshift_add(wave, ramps_y[j], ramps_x[j], out_spectrum)


@jit
def transform(a: Array, forward: bool) -> None:
    fft(a, a, forward)


def joint_product(
    change: Array,
    probe_change: Array | None,
    lit: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    corners: Array,
    radial: Array,
    own: Array,
    out: Array,
    out_probe: Array | None,
    threads: int = 1,
) -> None:
    joint = probe_change is not None and out_probe is not None
    spectrum = np.array(probe_change) if joint else np.zeros(lit.shape[1:], np.complex64)
    if joint:
        transform(spectrum, True)
    parts = [p for p in np.array_split(np.arange(len(lit)), max(1, threads)) if len(p)]
    # the first part adds to the sum itself
    sums = [out, *(np.zeros_like(out) for _ in parts[1:])]
    backs = [np.zeros(lit.shape[1:], np.complex64) for _ in parts]
    calls = []
    for part, total, back in zip(parts, sums, backs, strict=True):
        b = slice(part[0], part[-1] + 1)
        rows = lit[b], object, ramps_y[b], ramps_x[b], corners[b], radial[b], own[b]
        calls.append((change, spectrum, joint, *rows, total, back))
    if len(calls) == 1:
        _joint(*calls[0])
    else:
        with ThreadPoolExecutor(len(calls)) as pool:
            for job in [pool.submit(_joint, *call) for call in calls]:
                job.result()
        for total in sums[1:]:
            out += total
    if joint:
        back = np.sum(backs, axis=0)
        transform(back, False)
        out_probe += back
