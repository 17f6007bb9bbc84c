"""Numba version of `kernels.extended`: a frame at a time, on threads that each have their own
sums.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...types import Array
from ..extended import Changes, Frames
from .curvature import _add_back, _changed_wave
from .joint import along_rows, less, transform
from .rows import fft, inner, jit, shift_rows, unshift_add
from .vectors import clear

__all__ = ["extended_product"]


@inner
def _mix(spectrum: Array, varied: Array, weights: Array, out: Array) -> None:
    """out = spectrum, sum_l weights_l varied_l added to its first mode."""
    for k in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            s, o = spectrum[k, r], out[k, r]
            for c in range(spectrum.shape[2]):
                o[c] = s[c]
    for l in range(varied.shape[0]):
        w = weights[l]
        for r in range(spectrum.shape[1]):
            v, o = varied[l, r], out[0, r]
            for c in range(spectrum.shape[2]):
                o[c] += w * v[c]


@inner
def _through(wave: Array, transfer: Array, y: Array, x: Array, onward: bool) -> None:
    """wave *= H conj(y x), or its conjugate on the way back."""
    for k in range(wave.shape[0]):
        for r in range(wave.shape[1]):
            w, h, a = wave[k, r], transfer[r], y[r]
            if onward:
                for c in range(wave.shape[2]):
                    w[c] = w[c] * (h[c] * (a * x[c]).conjugate())
            else:
                for c in range(wave.shape[2]):
                    w[c] = w[c] * (h[c].conjugate() * (a * x[c]))


@inner
def _unmix(wave: Array, y: Array, x: Array, weights: Array, out: Array) -> None:
    """out_l += weights_l wave_0 conj(y x)."""
    for l in range(out.shape[0]):
        for r in range(wave.shape[1]):
            w, o, a = wave[0, r], out[l, r], weights[l] * y[r]
            for c in range(wave.shape[2]):
                o[c] += w[c] * (a * x[c]).conjugate()


@inner
def _add_scaled(out: Array, root: Array, image: Array, into: bool) -> None:
    """image += root out, or out += root image."""
    for r in range(image.shape[0]):
        o, a, v = out[r], root[r], image[r]
        if into:
            for c in range(image.shape[1]):
                o[c] += a[c] * v[c]
        else:
            for c in range(image.shape[1]):
                v[c] += a[c] * o[c]


@jit
def _extended(
    change: Array,
    spectrum: Array,
    varied: Array,
    dark: Array,
    lit: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    strength: Array,
    weights: Array,
    transfer: Array,
    corners: Array,
    radial: Array,
    own: Array,
    root: Array,
    out: Array,
    out_spectrum: Array,
    out_varied: Array,
    out_dark: Array,
    joint: bool,
) -> None:
    """`spectrum` and `varied` are FFTs of the changes of probe and variations, `out_spectrum` and
    `out_varied` receive those of the sums. What is absent has no pixels.
    """
    K, p, q = lit.shape[1], lit.shape[2], lit.shape[3]
    near, darkens = len(transfer) > 0, len(dark) > 0
    wave, moved = np.empty((K, p, q), np.complex64), np.empty((K, p, q), np.complex64)
    along, found = np.empty((p, q), np.float32), np.empty(own.shape[1], np.float32)
    y = np.empty(p, np.complex64)
    for j in range(lit.shape[0]):
        y0, x0 = corners[j, 0], corners[j, 1]
        for r in range(p):
            y[r] = ramps_y[j, r] * strength[j]
        if joint:
            _mix(spectrum, varied, weights[j], wave)
            shift_rows(wave, y, ramps_x[j], moved)
            fft(moved, moved, False)
        _changed_wave(change, lit[j], object, moved, joint, y0, x0, wave)
        fft(wave, wave, True)
        if near:
            _through(wave, transfer, ramps_y[j], ramps_x[j], True)
            fft(wave, wave, False)
        along_rows(wave, radial[j], along)
        if darkens:
            _add_scaled(dark, root[j], along, False)
        less(along, own[j], found)
        if darkens:
            _add_scaled(out_dark, root[j], along, True)
        for k in range(K):
            for r in range(p):
                w, a, v = wave[k, r], radial[j, k, r], along[r]
                for c in range(q):
                    w[c] = a[c] * v[c]
        if near:
            fft(wave, wave, True)
            _through(wave, transfer, ramps_y[j], ramps_x[j], False)
        fft(wave, wave, False)
        if joint:
            clear(moved)
        _add_back(wave, lit[j], object, joint, y0, x0, out, moved)
        if joint:
            fft(moved, moved, True)
            unshift_add(moved, y, ramps_x[j], out_spectrum)
            _unmix(moved, y, ramps_x[j], weights[j], out_varied)


def extended_product(change: Changes, frames: Frames, out: Changes, threads: int = 1) -> None:
    f, (count, modes, p, q) = frames, frames.lit.shape
    joint = change.probe is not None or change.variations is not None
    spectrum = _spectrum(change.probe, (modes, p, q))
    varied = _spectrum(change.variations, (0, p, q))
    dark = np.zeros((0, q), np.float32) if change.background is None else change.background
    weights = np.zeros((count, 0), np.float32) if not len(varied) else f.weights
    transfer = np.zeros((0, q), np.complex64) if f.transfer is None else f.transfer
    root = np.zeros((count, 0, q), np.float32) if not len(dark) else f.root
    assert weights is not None
    assert root is not None
    parts = [part for part in np.array_split(np.arange(count), max(1, threads)) if len(part)]
    calls, sums = [], []
    for n, part in enumerate(parts):
        b = slice(part[0], part[-1] + 1)
        total = (
            # the first part adds to the sum itself
            out.object if n == 0 else np.zeros_like(out.object),
            np.zeros_like(spectrum),
            np.zeros_like(varied),
            np.zeros_like(dark),
        )
        rows = f.lit[b], f.object, f.ramps_y[b], f.ramps_x[b], f.strength[b], weights[b], transfer
        more = f.corners[b], f.radial[b], f.own[b], root[b]
        calls.append((change.object, spectrum, varied, dark, *rows, *more, *total, joint))
        sums.append(total)
    if len(calls) == 1:
        _extended(*calls[0])
    else:
        with ThreadPoolExecutor(len(calls)) as pool:
            for job in [pool.submit(_extended, *call) for call in calls]:
                job.result()
    for n, (field, probe, variations, background) in enumerate(sums):
        if n:
            out.object[...] += field
        for into, back in ((out.probe, probe), (out.variations, variations)):
            if into is not None:
                transform(back, False)
                into += back
        if out.background is not None:
            out.background[...] += background


def _spectrum(waves: Array | None, shape: tuple[int, ...]) -> Array:
    """Their FFT; zeros where there are none."""
    if waves is None:
        return np.zeros(shape, np.complex64)
    found = np.array(waves)
    transform(found, True)
    return found
