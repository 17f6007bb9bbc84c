"""Numba version of `kernels.turns`: a frame at a time, nothing of a frame's size is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...types import Array
from ..turns import Normals, Seen
from .extended import _through
from .joint import transform
from .rows import TINY, ZERO, exit_wave, f4, fft, inner, jit, shift_rows

__all__ = ["frame_light", "frame_normals"]


@inner
def _power(wave: Array, out: Array) -> None:
    """out (P, Q) = sum_k |wave_k|^2."""
    for r in range(wave.shape[1]):
        o = out[r]
        w = wave[0, r]
        for c in range(wave.shape[2]):
            o[c] = w[c].real * w[c].real + w[c].imag * w[c].imag
        for k in range(1, wave.shape[0]):
            w = wave[k, r]
            for c in range(wave.shape[2]):
                o[c] += w[c].real * w[c].real + w[c].imag * w[c].imag


@inner
def _wave(spectrum: Array, y: Array, x: Array, object: Array, y0: int, x0: int, out: Array) -> None:
    """out = F[ F^-1[spectrum y x] O ]."""
    shift_rows(spectrum, y, x, out)
    fft(out, out, False)
    exit_wave(object, y0, x0, out, out, 0, out.shape[1])
    fft(out, out, True)


@inner
def _add_slope(wave: Array, y: Array, x: Array, out: Array) -> None:
    """out += (y + x) wave, y (P,) and x (Q,) complex."""
    for k in range(wave.shape[0]):
        for r in range(wave.shape[1]):
            w, o, a = wave[k, r], out[k, r], y[r]
            for c in range(wave.shape[2]):
                o[c] += w[c] * (a + x[c])


@inner
def _along(wave: Array, change: Array, modulus: Array, out: Array) -> None:
    """out = Re sum_k wave_k* change_k/modulus, 0 where there is no wave."""
    for r in range(wave.shape[1]):
        o, m = out[r], modulus[r]
        for c in range(wave.shape[2]):
            o[c] = ZERO
        for k in range(wave.shape[0]):
            w, d = wave[k, r], change[k, r]
            for c in range(wave.shape[2]):
                o[c] += w[c].real * d[c].real + w[c].imag * d[c].imag
        for c in range(wave.shape[2]):
            # moduli below TINY have no direction: their product is below it, too
            o[c] = o[c] / max(m[c], TINY)


@inner
def _sums(images: Array, off: Array, valid: Array, G: Array, g: Array) -> None:
    """G = sum over valid pixels of a a^T, g of a off; `off` is 0 on the others."""
    n = len(g)
    for i in range(n):
        total = 0.0
        for r in range(off.shape[0]):
            a, d, row = images[i, r], off[r], ZERO
            for c in range(off.shape[1]):
                row += a[c] * d[c]
            total += row
        g[i] = total
        for l in range(i + 1):
            total = 0.0
            for r in range(off.shape[0]):
                a, b, v, row = images[i, r], images[l, r], valid[r], ZERO
                for c in range(off.shape[1]):
                    row += a[c] * b[c] * f4(v[c])
                total += row
            G[i, l] = total
            G[l, i] = total


@jit
def _light(
    spectrum: Array,
    object: Array,
    corners: Array,
    ramps_y: Array,
    ramps_x: Array,
    strength: Array,
    transfer: Array,
    out: Array,
) -> None:
    wave, lit = np.empty_like(spectrum), np.empty(spectrum.shape[1], np.complex64)
    for j in range(len(corners)):
        for r in range(len(lit)):
            lit[r] = ramps_y[j, r] * strength[j]
        _wave(spectrum, lit, ramps_x[j], object, corners[j, 0], corners[j, 1], wave)
        if len(transfer) > 0:
            _through(wave, transfer, ramps_y[j], ramps_x[j], True)
            fft(wave, wave, False)
        _power(wave, out[j])


@jit
def _normals(
    spectrum: Array,
    object: Array,
    corners: Array,
    ramps_y: Array,
    ramps_x: Array,
    strength: Array,
    transfer: Array,
    rates: tuple[Array, Array],
    amplitude: Array,
    mask: Array,
    position: bool,
    dose: bool,
    misfit: Array,
    G: Array,
    g: Array,
) -> None:
    """`rates` are 2 pi i q along y and x; `transfer` has no pixels in the far field."""
    p, q = spectrum.shape[1:]
    near, many = len(transfer) > 0, len(mask) > 1
    before, wave = np.empty_like(spectrum), np.empty_like(spectrum)
    change = np.empty_like(spectrum)
    modulus, off = np.empty((p, q), np.float32), np.empty((p, q), np.float32)
    images = np.empty((g.shape[1], p, q), np.float32)
    still = np.zeros(p, np.complex64), np.zeros(q, np.complex64)
    steep_y, steep_x = np.empty(p, np.complex64), np.empty(q, np.complex64)
    lit = np.empty(p, np.complex64)
    for j in range(len(corners)):
        y, x, y0, x0 = ramps_y[j], ramps_x[j], corners[j, 0], corners[j, 1]
        valid, measured = mask[j if many else 0], amplitude[j]
        for r in range(p):
            lit[r] = y[r] * strength[j]
        _wave(spectrum, lit, x, object, y0, x0, wave)
        if near:
            before[:] = wave
            _through(wave, transfer, y, x, True)
            fft(wave, wave, False)
        _power(wave, modulus)
        total = 0.0
        for r in range(p):
            m, d, a, v, row = modulus[r], off[r], measured[r], valid[r], ZERO
            for c in range(q):
                m[c] = np.sqrt(m[c])
                d[c] = (m[c] - a[c]) * f4(v[c])
                row += d[c] * d[c]
            total += row
        misfit[j] = total
        n = 0
        if position:
            for r in range(p):
                steep_y[r] = -lit[r] * rates[0][r]
            for c in range(q):
                steep_x[c] = -x[c] * rates[1][c]
            _wave(spectrum, steep_y, x, object, y0, x0, change)
            if near:
                _add_slope(before, rates[0], still[1], change)
                _through(change, transfer, y, x, True)
                fft(change, change, False)
            _along(wave, change, modulus, images[0])
            _wave(spectrum, lit, steep_x, object, y0, x0, change)
            if near:
                _add_slope(before, still[0], rates[1], change)
                _through(change, transfer, y, x, True)
                fft(change, change, False)
            _along(wave, change, modulus, images[1])
            n = 2
        if dose:
            images[n] = modulus
        _sums(images, off, valid, G[j], g[j])


def frame_light(seen: Seen, threads: int = 1) -> Array:
    out = np.empty((len(seen.corners), *seen.probe.shape[1:]), np.float32)
    first, rows = _given(seen)
    _in_parts(
        lambda b: _light(*first, *(row[b] for row in rows[:4]), rows[4], out[b]), len(out), threads
    )
    return out


def frame_normals(
    seen: Seen, amplitude: Array, mask: Array, position: bool, dose: bool, threads: int = 1
) -> Normals:
    count, n = len(seen.corners), 2 * position + dose
    out = np.zeros(count), np.zeros((count, n, n)), np.zeros((count, n))
    first, rows = _given(seen)
    p, q = seen.probe.shape[1:]
    rates = tuple((2j * np.pi * np.fft.fftfreq(side)).astype(np.complex64) for side in (p, q))

    def part(b: slice) -> None:
        own = mask[b] if len(mask) > 1 else mask
        where = (*first, *(row[b] for row in rows[:4]), rows[4])
        _normals(*where, rates, amplitude[b], own, position, dose, *(o[b] for o in out))

    _in_parts(part, count, threads)
    return Normals(*out)


def _given(seen: Seen) -> tuple[Any, Any]:
    """The spectrum of the probe and the object; what frames have of their own, and the transfer
    function.
    """
    spectrum = np.array(seen.probe)
    transform(spectrum, True)
    q = spectrum.shape[2]
    transfer = np.zeros((0, q), np.complex64) if seen.transfer is None else seen.transfer
    own = seen.corners, seen.ramps_y, seen.ramps_x, seen.strength
    return (spectrum, seen.object), (*own, transfer)


def _in_parts(work: Any, count: int, threads: int) -> None:
    """Frames are independent of each other: a part to each thread."""
    parts = [part for part in np.array_split(np.arange(count), max(1, threads)) if len(part)]
    blocks = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
    if len(blocks) == 1:
        work(blocks[0])
        return
    with ThreadPoolExecutor(len(blocks)) as pool:
        for job in [pool.submit(work, b) for b in blocks]:
            job.result()
