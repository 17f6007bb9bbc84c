"""Numba versions of reference kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...types import Array
from .. import reference
from .rows import (
    HALF,
    ONE,
    ZERO,
    ask_row,
    fft,
    jit,
    modulus_change,
    scan_box,
    separable_ramps,
    shift_rows,
    unshift_add,
)
from .vectors import clear

__all__ = [
    "bernoulli_gauss",
    "gather",
    "message_sums",
    "modulus_projection",
    "probe_force",
    "quotient",
    "scatter_add",
    "shift",
]


@jit
def _message_sums(
    precision: Array,
    natural: Array,
    probes: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
) -> None:
    q = probes.shape[2]
    for j in range(len(corners)):
        y0, x0, gj, soon = corners[j, 0], corners[j, 1], g[j], min(j + 1, len(corners) - 1)
        for r in range(probes.shape[1]):
            ask_row(messages[soon, r])
            L, h = precision[y0 + r, x0 : x0 + q], natural[y0 + r, x0 : x0 + q]
            p, m = probes[index[j], r], messages[j, r]
            for c in range(q):
                L[c] += gj * (p[c].real * p[c].real + p[c].imag * p[c].imag)
                h[c] += gj * (p[c].conjugate() * m[c])


def message_sums(
    precision: Array,
    natural: Array,
    probes: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
) -> None:
    _message_sums(precision, natural, probes, index, corners, g, messages)


@jit
def _probe_force(
    mean: Array,
    power: Array,
    probes: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
    order: Array,
    ramps_y: Array,
    ramps_x: Array,
    spectrum: Array,
    den: Array,
) -> None:
    """Sums over one shift at a time, so that the way back costs one FFT a distinct shift, and its
    probe is taken once: sum_j g [mu* (phi - mu P) - P/Lambda] = sum_j g mu* phi - P sum_j g (|mu|^2
    + 1/Lambda)."""
    p_, q = probes.shape[1], probes.shape[2]
    group, weight = np.zeros((1, p_, q), np.complex64), np.zeros((p_, q), np.float32)
    for i in range(len(order)):
        j, soon = order[i], order[min(i + 1, len(order) - 1)]
        y0, x0, gj = corners[j, 0], corners[j, 1], g[j]
        for r in range(p_):
            ask_row(messages[soon, r])
            mu, m, f = mean[y0 + r, x0 : x0 + q], messages[j, r], group[0, r]
            for c in range(q):
                f[c] += gj * (mu[c].conjugate() * m[c])
            u, d = power[y0 + r, x0 : x0 + q], weight[r]
            for c in range(q):
                d[c] += gj * u[c]
        if i == len(order) - 1 or index[order[i + 1]] != index[j]:
            for r in range(p_):
                p, f, d, total = probes[index[j], r], group[0, r], weight[r], den[r]
                for c in range(q):
                    f[c] -= d[c] * p[c]
                    total[c] += d[c]
            fft(group, group, True)
            unshift_add(group, ramps_y[index[j]], ramps_x[index[j]], spectrum)
            clear(group)
            clear(weight)
    fft(spectrum, spectrum, False)


@jit
def _moments(precision: Array, natural: Array, y0: int, x0: int, mean: Array, power: Array) -> None:
    """mu = eta/Lambda and |mu|^2 + 1/Lambda in a box whose first pixel is (y0, x0)."""
    width = mean.shape[1]
    for r in range(mean.shape[0]):
        L, h, m, p = (
            precision[y0 + r, x0 : x0 + width],
            natural[y0 + r, x0 : x0 + width],
            mean[r],
            power[r],
        )
        for c in range(width):
            variance = ONE / L[c]
            mu = h[c] * variance
            m[c] = mu
            p[c] = mu.real * mu.real + mu.imag * mu.imag + variance


def probe_force(
    precision: Array,
    natural: Array,
    probes: Array,
    shifts: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
) -> tuple[Array, Array]:
    shape = probes.shape[1:]
    low, size = scan_box(corners, shape)
    mean, power = np.empty(size, np.complex64), np.empty(size, np.float32)
    _moments(precision, natural, low[0], low[1], mean, power)
    force, den = np.zeros((1, *shape), np.complex64), np.zeros(shape, np.float32)
    order = np.argsort(index, kind="stable")
    ramps_y, ramps_x = separable_ramps(shifts, shape)
    _probe_force(
        mean, power, probes, index, corners - low, g, messages, order, ramps_y, ramps_x, force, den
    )
    return force, den


@jit
def _quotient(num: Array, den: Array, old: Array, out: Array) -> tuple[float, float]:
    change, size = 0.0, 0.0
    for r in range(num.shape[0]):
        n, d, o, new, row, row2 = num[r], den[r], old[r], out[r], ZERO, ZERO
        for c in range(num.shape[1]):
            z = n[c] * (ONE / d[c])
            moved = z - o[c]
            row += moved.real * moved.real + moved.imag * moved.imag
            row2 += z.real * z.real + z.imag * z.imag
            new[c] = z
        change += row
        size += row2
    return change, size


def quotient(num: Array, den: Array, old: Array) -> tuple[Array, Array]:
    out = np.empty_like(num)
    change, size = _quotient(num, den, old, out)
    return out, np.sqrt(np.float64(change) / size)


@jit
def _gather(field: Array, corners: Array, out: Array) -> None:
    for b in range(out.shape[0]):
        y0, x0 = corners[b, 0], corners[b, 1]
        for r in range(out.shape[1]):
            source, target = field[y0 + r, x0 : x0 + out.shape[2]], out[b, r]
            for c in range(out.shape[2]):
                target[c] = source[c]


def gather(field: Array, corners: Array, shape: tuple[int, int]) -> Array:
    out = np.empty((len(corners), *shape), field.dtype)
    _gather(field, corners, out)
    return out


@jit
def _shift(probe: Array, ramps_y: Array, ramps_x: Array, out: Array) -> None:
    spectrum = np.empty_like(probe)
    fft(probe, spectrum, True)
    for u in range(len(out)):
        shift_rows(spectrum, ramps_y[u], ramps_x[u], out[u])
        fft(out[u], out[u], False)


@jit
def _shift_each(probes: Array, ramps_y: Array, ramps_x: Array, out: Array) -> None:
    for u in range(len(out)):
        fft(probes[u], out[u], True)
        shift_rows(out[u], ramps_y[u], ramps_x[u], out[u])
        fft(out[u], out[u], False)


@lru_cache(maxsize=2048)
def _ramps_of_one(y: float, x: float, p: int, q: int) -> tuple[Array, Array]:
    """Those of one frame: passes that go frame by frame ask again and again."""
    return separable_ramps(np.array([[y, x]]), (p, q))


def shift(probe: Array, shifts: Array, sign: int = 1) -> Array:
    shifts, shape = np.asarray(shifts), probe.shape[-3:]
    if probe.dtype != np.complex64 or not shifts.any():
        return reference.shift(probe, shifts, sign)
    probe, out = np.ascontiguousarray(probe), np.empty((len(shifts), *shape), np.complex64)
    if len(shifts) == 1:
        ramps = _ramps_of_one(*(sign * shifts[0]).tolist(), *shape[1:])
    else:
        ramps = separable_ramps(sign * shifts, shape[1:])
    (_shift if probe.ndim == 3 else _shift_each)(probe, *ramps, out)
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
    mean: Array,
    variance: Array,
    log_prior: Any,
    scale: Any,
    out: Array,
    out_variance: Array,
    out_pi: Array,
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


def bernoulli_gauss(
    mean: Array, variance: Array, density: float, scale: float
) -> tuple[Array, Array, Array]:
    real = variance.dtype
    out, out_variance, pi = np.empty_like(mean), np.empty_like(variance), np.empty_like(variance)
    log_prior = real.type(np.log(density / (1 - density)))
    results = out.reshape(-1), out_variance.reshape(-1), pi.reshape(-1)
    _bernoulli_gauss(mean.reshape(-1), variance.reshape(-1), log_prior, real.type(scale), *results)
    return out, out_variance, pi
