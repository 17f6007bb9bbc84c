"""Row loops that the fused sweeps and the Numba kernels are made of.

Loops run over rows taken as views: only then does LLVM see unit stride and vectorise complex
arithmetic. `fastmath` lets it reorder sums, which stays deterministic for one compiled binary.
Everything releases the GIL and nothing starts threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba as nb
import numpy as np
from numba.core import types
from rocket_fft import c2c

from ...types import Array
from .. import reference
from .cache import cached
from .fft import NONE, fft2_small
from .linked import (
    FLOATS,
    KEPT_FRAME,
    KEPT_MASK,
    KEPT_WAVE,
    KEPT_WAVE_ROW,
    KEPT_WAVES,
    ROWS,
    WAVES,
    linked,
    uniform,
)
from .vectors import LINE, STRETCH, ask, clear, stretch

F = TypeVar("F", bound=Callable[..., Any])
f4 = np.float32
TINY = np.float32(reference.TINY)
ZERO: Any = np.float32(0)
ONE: Any = np.float32(1)
TWO: Any = np.float32(2)
HALF: Any = np.float32(0.5)


OPTIONS: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}


def jit(function: F) -> F:
    """Compile an entry point, called from Python: cached on disk, GIL released, float32 kept, no
    threads.
    """
    return cast(F, cached(function, nogil=True, no_cfunc_wrapper=True, **OPTIONS))


def inner(function: F) -> F:
    """Compile what only compiled code calls: always inlined, so that what is not `linked` is one
    piece of machine code with its entry point. Otherwise rounding would depend on whether a callee
    was compiled with its caller or came from the cache.
    """
    return cast(F, nb.njit(forceinline=True, nogil=True, **OPTIONS)(function))


# ---------------------------------------------------------------- propagation


@linked(types.void(KEPT_WAVES, WAVES, types.boolean), error_model="numpy")
def fft(a: Array, out: Array, forward: bool) -> None:
    """Orthonormal 2-D FFT over the last two axes of (K, P, Q) complex64 arrays;
    `out` may be `a`.
    """
    fft_asking(a, out, forward, 0, a.shape[1], NONE, NONE)


@linked(types.void(KEPT_WAVES, WAVES, types.boolean, *[types.intp] * 2), error_model="numpy")
def fft_within(a: Array, out: Array, forward: bool, top: int, bottom: int) -> None:
    """`fft` where rows outside top..bottom-1 are zero in both arrays (forward) or are not wanted
    (backward).
    """
    fft_asking(a, out, forward, top, bottom, NONE, NONE)


@linked(
    types.void(KEPT_WAVES, WAVES, types.boolean, types.intp, types.intp, STRETCH, STRETCH),
    error_model="numpy",
)
def fft_asking(
    a: Array,
    out: Array,
    forward: bool,
    top: int,
    bottom: int,
    soon: tuple[int, int],
    later: tuple[int, int],
) -> None:
    """`fft_within` that meanwhile asks for two stretches of memory, where it can."""
    if not fft2_small(a, out, forward, top, bottom, soon, later):
        axes = np.array([1, 2])
        c2c(a, out, axes, forward, 1.0 / np.sqrt(a.shape[1] * a.shape[2]), 1)


@linked(types.void(WAVES, KEPT_WAVE, types.boolean), **OPTIONS)
def multiply_rows(a: Array, b: Array, conjugate: bool) -> None:
    """a (K, P, Q) *= b (P, Q), or its conjugate."""
    for k in range(a.shape[0]):
        for r in range(a.shape[1]):
            x, y = a[k, r], b[r]
            if conjugate:
                for c in range(a.shape[2]):
                    x[c] = x[c] * y[c].conjugate()
            else:
                for c in range(a.shape[2]):
                    x[c] = x[c] * y[c]


@linked(types.void(KEPT_WAVES, WAVES, KEPT_WAVE, *[types.boolean] * 2), **OPTIONS)
def propagate(a: Array, out: Array, transfer: Array, near: bool, forward: bool) -> None:
    """Far field: one FFT. Near field: FFT, times the transfer function (its conjugate backwards),
    inverse FFT.
    """
    propagate_within(a, out, transfer, near, forward, 0, a.shape[1], NONE, NONE)


@linked(
    types.void(
        KEPT_WAVES, WAVES, KEPT_WAVE, *[types.boolean] * 2, *[types.intp] * 2, *[STRETCH] * 2
    ),
    **OPTIONS,
)
def propagate_within(
    a: Array,
    out: Array,
    transfer: Array,
    near: bool,
    forward: bool,
    top: int,
    bottom: int,
    soon: tuple[int, int],
    later: tuple[int, int],
) -> None:
    """`propagate` where rows outside top..bottom-1 are zero in both arrays (forward) or are not
    wanted (backward); meanwhile two stretches of memory are asked for that will be wanted."""
    if near:
        fft_asking(
            a, out, True, top if forward else 0, bottom if forward else a.shape[1], soon, later
        )
        multiply_rows(out, transfer, not forward)
        fft_within(out, out, False, 0 if forward else top, a.shape[1] if forward else bottom)
    else:
        fft_asking(a, out, forward, top, bottom, soon, later)


@linked(types.void(KEPT_WAVES, *[KEPT_WAVE_ROW] * 2, WAVES), **OPTIONS)
def shift_rows(spectrum: Array, ramp_y: Array, ramp_x: Array, out: Array) -> None:
    """out = spectrum (K, P, Q) times the separable ramp of a shift."""
    for k in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            s, o, y = spectrum[k, r], out[k, r], ramp_y[r]
            for c in range(spectrum.shape[2]):
                o[c] = s[c] * (y * ramp_x[c])


@linked(types.void(KEPT_WAVES, *[KEPT_WAVE_ROW] * 2, WAVES), **OPTIONS)
def unshift_add(spectrum: Array, ramp_y: Array, ramp_x: Array, out: Array) -> None:
    """out += spectrum times the conjugate ramp."""
    for k in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            s, o, y = spectrum[k, r], out[k, r], ramp_y[r]
            for c in range(spectrum.shape[2]):
                o[c] += s[c] * (y * ramp_x[c]).conjugate()


@linked(types.void(KEPT_WAVE_ROW), **OPTIONS)
def ask_row(row: Array) -> None:
    """Ask the memory for a row that will be wanted."""
    place, size = stretch(row)
    for n in range(-(-size // LINE)):
        ask(place, n)


# ---------------------------------------------------------------- exit wave, modulus


@linked(uniform(types.intp, 2)(KEPT_WAVES), **OPTIONS)
def support(P: Array) -> tuple[int, int]:
    """First and last-but-one row on which a probe (K, P, Q) is not exactly zero: what a known probe
    never lights is skipped.
    """
    top, bottom = P.shape[1], 0
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            for c in range(P.shape[2]):
                if P[k, r, c] != 0:
                    top, bottom = min(top, r), max(bottom, r + 1)
                    break
    return min(top, bottom), bottom


@linked(types.void(KEPT_WAVE, *[types.intp] * 2, KEPT_WAVES, WAVES, *[types.intp] * 2), **OPTIONS)
def exit_wave(O: Array, y0: int, x0: int, P: Array, psi: Array, top: int, bottom: int) -> None:
    """psi = P O on rows top..bottom-1 of one window, and zero on the others."""
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            if r < top or r >= bottom:
                s = psi[k, r]
                for c in range(P.shape[2]):
                    s[c] = 0
        for r in range(top, bottom):
            o, p, s = O[y0 + r, x0 : x0 + P.shape[2]], P[k, r], psi[k, r]
            for c in range(P.shape[2]):
                s[c] = p[c] * o[c]


@linked(types.void(types.Array(types.complex64, 4, "C", readonly=True), ROWS), **OPTIONS)
def supports(probes: Array, lit: Array) -> None:
    """`support` of each of probes (U, K, P, Q), into lit (U, 2)."""
    for u in range(len(probes)):
        lit[u, 0], lit[u, 1] = support(probes[u])


# Maxima are kept by column, for a running maximum of one number does not vectorise.


@linked(types.float32(FLOATS), **OPTIONS)
def largest(row: Array) -> Any:
    """Of positive numbers."""
    found = ZERO
    for c in range(len(row)):
        found = max(found, row[c])
    return found


@linked(types.float32(KEPT_WAVE, *[types.intp] * 2, KEPT_WAVES, WAVES, FLOATS), **OPTIONS)
def exit_wave_peak(O: Array, y0: int, x0: int, P: Array, psi: Array, top: Array) -> Any:
    """psi = P O on one window; returns max |O|^2 over it. `top` (Q,) is room."""
    clear(top)
    for r in range(P.shape[1]):
        o, p, s = O[y0 + r, x0 : x0 + P.shape[2]], P[0, r], psi[0, r]
        for c in range(P.shape[2]):
            s[c] = p[c] * o[c]
            top[c] = max(top[c], o[c].real * o[c].real + o[c].imag * o[c].imag)
        for k in range(1, P.shape[0]):
            p, s = P[k, r], psi[k, r]
            for c in range(P.shape[2]):
                s[c] = p[c] * o[c]
    return largest(top)


@linked(types.float32(KEPT_WAVES), **OPTIONS)
def peak_power(P: Array) -> Any:
    """max over pixels of sum_k |P_k|^2."""
    top, row = np.zeros(P.shape[2], np.float32), np.empty(P.shape[2], np.float32)
    for r in range(P.shape[1]):
        power_row(P, r, row)
        for c in range(P.shape[2]):
            top[c] = max(top[c], row[c])
    return largest(top)


@linked(types.void(KEPT_WAVES, types.intp, FLOATS), **OPTIONS)
def power_row(P: Array, r: int, row: Array) -> None:
    """row = sum_k |P_k|^2 on row r."""
    p = P[0, r]
    for c in range(P.shape[2]):
        row[c] = p[c].real * p[c].real + p[c].imag * p[c].imag
    for k in range(1, P.shape[0]):
        p = P[k, r]
        for c in range(P.shape[2]):
            row[c] += p[c].real * p[c].real + p[c].imag * p[c].imag


@linked(types.float64(WAVES, KEPT_FRAME, KEPT_MASK), **OPTIONS)
def modulus_change(wave: Array, amplitude: Array, mask: Array) -> float:
    """wave (K, P, Q) <- Pi_F wave - wave, in place; returns sum over valid pixels of
    (|z| - y)^2.
    """
    total = 0.0
    power = np.empty(amplitude.shape[1], np.float32)
    for r in range(amplitude.shape[0]):
        a, valid, row = amplitude[r], mask[r], ZERO
        if wave.shape[0] == 1:
            w = wave[0, r]
            for c in range(a.shape[0]):
                m = np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
                d = (a[c] - m) * f4(valid[c])
                row += d * d
                w[c] = w[c] * (d / max(m, TINY))
        else:
            power_row(wave, r, power)
            for c in range(a.shape[0]):
                m = np.sqrt(power[c])
                d = (a[c] - m) * f4(valid[c])
                row += d * d
                power[c] = d / max(m, TINY)
            for k in range(wave.shape[0]):
                w = wave[k, r]
                for c in range(a.shape[0]):
                    w[c] = w[c] * power[c]
        total += row
    return total


def separable_ramps(shifts: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """exp(-2 pi i f s) along y (U, P) and x (U, Q), complex64."""
    y, x = (np.exp(-2j * np.pi * np.outer(shifts[:, i], np.fft.fftfreq(shape[i]))) for i in (0, 1))
    return y.astype(np.complex64), x.astype(np.complex64)


def transfer_table(transfer: Array | None, shifts: int) -> tuple[Array, bool]:
    """Transfer functions by shift (U, P, Q), and whether they are of the near field; in the far
    field a place holder.
    """
    return (np.zeros((shifts, 1, 1), np.complex64), False) if transfer is None else (transfer, True)


def scan_box(corners: Array, shape: tuple[int, ...]) -> tuple[Array, tuple[int, int]]:
    """First pixel (2,) and size of the smallest box of the object that holds every window."""
    low = corners.min(axis=0)
    height, width = (corners.max(axis=0) - low + shape).tolist()
    return low, (height, width)
