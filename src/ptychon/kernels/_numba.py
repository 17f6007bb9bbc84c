"""Numba versions of reference kernels, and the row loops the fused sweeps are made of.

Loops run over rows taken as views: only then does LLVM see unit stride and vectorise complex arithmetic. `fastmath` lets it
reorder sums, which stays deterministic for one compiled binary. Everything releases the GIL and nothing starts threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba as nb
import numpy as np
from rocket_fft import c2c

from ..types import Array
from . import reference
from .reference import BESSEL_A, BESSEL_B, BESSEL_C, BESSEL_D, KAPPA_MAX

__all__ = ["bernoulli_gauss", "gather", "message_sums", "modulus_projection", "probe_force", "scatter_add"]

F = TypeVar("F", bound=Callable[..., Any])
f4 = np.float32
TINY = np.float32(reference.TINY)
A0, A1, A2, A3 = (np.float32(c) for c in BESSEL_A)
B0, B1, B2, B3, B4 = (np.float32(c) for c in BESSEL_B)
C0, C1, C2, C3 = (np.float32(c) for c in BESSEL_C)
D0, D1, D2, D3, D4 = (np.float32(c) for c in BESSEL_D)
KMAX = np.float32(KAPPA_MAX)
ZERO: Any = np.float32(0)
ONE: Any = np.float32(1)
TWO: Any = np.float32(2)
HALF: Any = np.float32(0.5)


_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}


def jit(function: F) -> F:
    """Compile an entry point, called from Python: cached on disk, GIL released, float32 kept, no threads."""
    return cast(F, nb.njit(cache=True, **_OPTIONS)(function))


def inner(function: F) -> F:
    """Compile what only compiled code calls: always inlined, so that an entry point is one piece of machine code. Otherwise
    rounding would depend on whether a callee was compiled with its caller or came from the cache."""
    return cast(F, nb.njit(forceinline=True, **_OPTIONS)(function))


# ---------------------------------------------------------------- propagation


@inner
def fft(a: Array, out: Array, forward: bool) -> None:
    """Orthonormal 2-D FFT over the last two axes of (K, P, Q) complex64 arrays; `out` may be `a`."""
    axes = np.array([1, 2])
    c2c(a, out, axes, forward, 1.0 / np.sqrt(a.shape[1] * a.shape[2]), 1)


@inner
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


@inner
def propagate(a: Array, out: Array, transfer: Array, near: bool, forward: bool) -> None:
    """Far field: one FFT. Near field: FFT, times the transfer function (its conjugate backwards), inverse FFT."""
    if near:
        fft(a, out, True)
        multiply_rows(out, transfer, not forward)
        fft(out, out, False)
    else:
        fft(a, out, forward)


@inner
def shift_rows(spectrum: Array, ramp_y: Array, ramp_x: Array, out: Array) -> None:
    """out = spectrum (K, P, Q) times the separable ramp of a shift."""
    for k in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            s, o, y = spectrum[k, r], out[k, r], ramp_y[r]
            for c in range(spectrum.shape[2]):
                o[c] = s[c] * (y * ramp_x[c])


@inner
def unshift_add(spectrum: Array, ramp_y: Array, ramp_x: Array, out: Array) -> None:
    """out += spectrum times the conjugate ramp."""
    for k in range(spectrum.shape[0]):
        for r in range(spectrum.shape[1]):
            s, o, y = spectrum[k, r], out[k, r], ramp_y[r]
            for c in range(spectrum.shape[2]):
                o[c] += s[c] * (y * ramp_x[c]).conjugate()


# ---------------------------------------------------------------- exit wave, modulus


@inner
def exit_wave(O: Array, y0: int, x0: int, P: Array, psi: Array) -> Any:
    """psi = P O on one window; returns max |O|^2 over it."""
    peak = ZERO
    for k in range(P.shape[0]):
        for r in range(P.shape[1]):
            o, p, s = O[y0 + r, x0 : x0 + P.shape[2]], P[k, r], psi[k, r]
            for c in range(P.shape[2]):
                s[c] = p[c] * o[c]
                peak = max(peak, o[c].real * o[c].real + o[c].imag * o[c].imag)
    return peak


@inner
def peak_power(P: Array) -> Any:
    """max over pixels of sum_k |P_k|^2."""
    peak = ZERO
    for r in range(P.shape[1]):
        for c in range(P.shape[2]):
            total = ZERO
            for k in range(P.shape[0]):
                p = P[k, r, c]
                total += p.real * p.real + p.imag * p.imag
            peak = max(peak, total)
    return peak


@inner
def modulus_change(wave: Array, amplitude: Array, mask: Array) -> float:
    """wave (K, P, Q) <- Pi_F wave - wave, in place; returns sum over valid pixels of (|z| - y)^2."""
    total = 0.0
    K = wave.shape[0]
    for r in range(amplitude.shape[0]):
        a, valid, row = amplitude[r], mask[r], ZERO
        if K == 1:
            w = wave[0, r]
            for c in range(a.shape[0]):
                m = np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
                d = (a[c] - m) * f4(valid[c])
                row += d * d
                w[c] = w[c] * (d / max(m, TINY))
        else:
            for c in range(a.shape[0]):
                power = ZERO
                for k in range(K):
                    z = wave[k, r, c]
                    power += z.real * z.real + z.imag * z.imag
                m = np.sqrt(power)
                d = (a[c] - m) * f4(valid[c])
                row += d * d
                factor = d / max(m, TINY)
                for k in range(K):
                    wave[k, r, c] = wave[k, r, c] * factor
        total += row
    return total


@inner
def misfits(wave: Array, amplitude: Array, mask: Array, offset: Any) -> tuple[float, float]:
    """sum over valid pixels of (|z| - a)^2 and of (|z| - sqrt(a^2 + offset))^2 for one mode (P, Q)."""
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


# ---------------------------------------------------------------- expectation propagation


@inner
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


@inner
def combine(a: Any, x: Array, b: Any, y: Array) -> None:
    """x <- a x - b y, (P, Q)."""
    for r in range(x.shape[0]):
        u, v = x[r], y[r]
        for c in range(x.shape[1]):
            u[c] = a * u[c] - b * v[c]


@inner
def rician_rows(wave: Array, v0: Any, amplitude: Array, offset: Any, mask: Array, v: Any) -> tuple[Any, float]:
    """`reference.rician` on one frame, in place, for y = sqrt(amplitude^2 + offset): mean variance, sum of noise."""
    s = v0 + TWO * v
    inverse = ONE / s
    base, share = TWO * v0 * v * inverse, TWO * v * inverse
    share2 = share * share
    variance, noise = 0.0, 0.0
    for r in range(amplitude.shape[0]):
        w, a, valid, row, row2 = wave[r], amplitude[r], mask[r], ZERO, ZERO
        for c in range(a.shape[0]):
            y = np.sqrt(a[c] * a[c] + offset)
            r0 = np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
            t = y * inverse
            kappa = TWO * t * r0
            k, beyond = min(kappa, KMAX), KMAX / max(kappa, KMAX)
            ratio = (A0 + k * (A1 + k * (A2 + k * A3))) / (B0 + k * (B1 + k * (B2 + k * (B3 + k * B4)))) * beyond
            rest = (C0 + k * (C1 + k * (C2 + k * C3))) / (D0 + k * (D1 + k * (D2 + k * (D3 + k * D4)))) * beyond
            one_minus_r = rest / (ONE + min(ratio * kappa, ONE))
            ok = f4(valid[c])
            factor = TWO * v0 * y * t * ratio * inverse + share
            q = v0 * t
            row += ok * (base + q * q * rest) + (ONE - ok) * v0
            d = y - r0
            row2 += ok * (share2 * (d * d + TWO * y * r0 * one_minus_r) + base)
            w[c] = w[c] * (ok * factor + (ONE - ok))
        variance += row
        noise += row2
    return f4(variance / amplitude.size), 0.5 * noise


@inner
def laplace_rows(wave: Array, v0: Any, amplitude: Array, offset: Any, mask: Array, v: Any) -> tuple[Any, float]:
    """`reference.laplace` on one frame, in place."""
    inverse = ONE / (v0 + TWO * v)
    base, least = v0 * v * inverse, f4(1e-6) * np.sqrt(v0)
    variance, noise = 0.0, 0.0
    for r in range(amplitude.shape[0]):
        w, a, valid, row, row2 = wave[r], amplitude[r], mask[r], ZERO, ZERO
        for c in range(a.shape[0]):
            y = np.sqrt(a[c] * a[c] + offset)
            r0 = max(np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag), least)
            rho = (v0 * y + TWO * v * r0) * inverse
            ok = f4(valid[c])
            row += ok * (base + v0 * rho / (TWO * r0)) + (ONE - ok) * v0
            d = y - rho
            row2 += ok * (d * d + base)
            w[c] = w[c] * (ok * (rho / r0) + (ONE - ok))
        variance += row
        noise += row2
    return f4(variance / amplitude.size), noise


@inner
def message_update(
    precision: Array, natural: Array, y0: int, x0: int, P: Array, back: Array, psi_c: Array, phi: Array, coefficients: Array
) -> None:
    """phi <- a back - b psi_c + e phi in place, and the change of g |P|^2, g P* phi onto Lambda and eta."""
    a, b, e, g_new, g_old = coefficients
    for r in range(P.shape[0]):
        L, h = precision[y0 + r, x0 : x0 + P.shape[1]], natural[y0 + r, x0 : x0 + P.shape[1]]
        p, w, s, m = P[r], back[r], psi_c[r], phi[r]
        for c in range(P.shape[1]):
            new = a * w[c] - b * s[c] + e * m[c]
            h[c] += p[c].conjugate() * (g_new * new - g_old * m[c])
            L[c] += (g_new - g_old) * (p[c].real * p[c].real + p[c].imag * p[c].imag)
            m[c] = new


@jit
def _message_sums(
    precision: Array, natural: Array, probes: Array, index: Array, corners: Array, g: Array, messages: Array
) -> None:
    q = probes.shape[2]
    for j in range(len(corners)):
        y0, x0, gj = corners[j, 0], corners[j, 1], g[j]
        for r in range(probes.shape[1]):
            L, h = precision[y0 + r, x0 : x0 + q], natural[y0 + r, x0 : x0 + q]
            p, m = probes[index[j], r], messages[j, r]
            for c in range(q):
                L[c] += gj * (p[c].real * p[c].real + p[c].imag * p[c].imag)
                h[c] += gj * (p[c].conjugate() * m[c])


def message_sums(
    precision: Array, natural: Array, probes: Array, index: Array, corners: Array, g: Array, messages: Array
) -> None:
    _message_sums(precision, natural, probes, index, corners, g, messages)


@jit
def _probe_force(
    precision: Array, natural: Array, probes: Array, index: Array, corners: Array, g: Array, messages: Array,
    order: Array, ramps_y: Array, ramps_x: Array, spectrum: Array, den: Array,
) -> None:  # fmt: skip
    """Sums over one shift at a time, so that the way back costs one FFT a distinct shift."""
    p_, q = probes.shape[1], probes.shape[2]
    group = np.zeros((1, p_, q), np.complex64)
    for i in range(len(order)):
        j = order[i]
        y0, x0, gj = corners[j, 0], corners[j, 1], g[j]
        for r in range(p_):
            L, h = precision[y0 + r, x0 : x0 + q], natural[y0 + r, x0 : x0 + q]
            p, m, f, d = probes[index[j], r], messages[j, r], group[0, r], den[r]
            for c in range(q):
                var = ONE / L[c]
                mu = h[c] * var
                f[c] += gj * (mu.conjugate() * (m[c] - mu * p[c]) - var * p[c])
                d[c] += gj * (mu.real * mu.real + mu.imag * mu.imag + var)
        last = i == len(order) - 1
        if last or index[order[i + 1]] != index[j]:
            fft(group, group, True)
            unshift_add(group, ramps_y[index[j]], ramps_x[index[j]], spectrum)
            group[:] = 0
    fft(spectrum, spectrum, False)


def probe_force(
    precision: Array, natural: Array, probes: Array, shifts: Array, index: Array, corners: Array, g: Array, messages: Array
) -> tuple[Array, Array]:
    shape = probes.shape[1:]
    force, den = np.zeros((1, *shape), np.complex64), np.zeros(shape, np.float32)
    order = np.argsort(index, kind="stable")
    ramps_y, ramps_x = separable_ramps(shifts, shape)
    _probe_force(precision, natural, probes, index, corners, g, messages, order, ramps_y, ramps_x, force, den)
    return force, den


def separable_ramps(shifts: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """exp(-2 pi i f s) along y (U, P) and x (U, Q), complex64."""
    y, x = (np.exp(-2j * np.pi * np.outer(shifts[:, i], np.fft.fftfreq(shape[i]))) for i in (0, 1))
    return y.astype(np.complex64), x.astype(np.complex64)


# ---------------------------------------------------------------- table kernels


@jit
def _gather(field: Array, corners: Array, out: Array) -> None:
    for b in range(out.shape[0]):
        y0, x0 = corners[b, 0], corners[b, 1]
        for r in range(out.shape[1]):
            out[b, r] = field[y0 + r, x0 : x0 + out.shape[2]]


def gather(field: Array, corners: Array, shape: tuple[int, int]) -> Array:
    out = np.empty((len(corners), *shape), field.dtype)
    _gather(field, corners, out)
    return out


@jit
def _scatter_add(field: Array, corners: Array, patches: Array) -> None:
    for b in range(patches.shape[0]):
        y0, x0 = corners[b, 0], corners[b, 1]
        for r in range(patches.shape[1]):
            target, source = field[y0 + r, x0 : x0 + patches.shape[2]], patches[b, r]
            for c in range(patches.shape[2]):
                target[c] += source[c]


def scatter_add(field: Array, corners: Array, patches: Array) -> None:
    _scatter_add(field, corners, patches)


@jit
def _modulus_projection(wave: Array, amplitude: Array, mask: Array, misfit: Array) -> None:
    for b in range(wave.shape[0]):
        frame = wave[b]
        before = frame.copy()
        misfit[b] = modulus_change(frame, amplitude[b], mask[b % mask.shape[0]])
        frame += before


def modulus_projection(wave: Array, amplitude: Array, mask: Array) -> tuple[Array, Array]:
    out, misfit = np.array(wave), np.empty(len(wave), wave.real.dtype)
    _modulus_projection(out, amplitude, mask, misfit)
    return out, misfit


@jit
def _bernoulli_gauss(
    mean: Array, variance: Array, log_prior: Any, scale: Any, out: Array, out_variance: Array, out_pi: Array
) -> None:
    for i in range(mean.size):
        m, V = mean[i], variance[i]
        gain = scale / (scale + V)
        power = m.real * m.real + m.imag * m.imag
        odds = log_prior + np.log(V / (V + scale)) + power * gain / V
        pi = HALF * (ONE + np.tanh(HALF * odds))
        out[i] = m * (pi * gain)
        out_variance[i] = pi * V * gain + pi * (ONE - pi) * power * gain * gain
        out_pi[i] = pi


def bernoulli_gauss(mean: Array, variance: Array, density: float, scale: float) -> tuple[Array, Array, Array]:
    real = variance.dtype
    out, out_variance, pi = np.empty_like(mean), np.empty_like(variance), np.empty_like(variance)
    log_prior = real.type(np.log(density / (1 - density)))
    results = out.reshape(-1), out_variance.reshape(-1), pi.reshape(-1)
    _bernoulli_gauss(mean.reshape(-1), variance.reshape(-1), log_prior, real.type(scale), *results)
    return out, out_variance, pi
