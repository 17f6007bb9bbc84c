"""Numba versions of the kernels of the joint posterior: `site_moments` in double precision, a pixel at a time; `curvature` a
frame at a time, on threads that each have their own sums."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..types import Array
from ._numba import ZERO, fft, inner, jit, propagate, separable_ramps, shift_rows, unshift_add
from .sites import (
    ANSCOMBE,
    ASYMPTOTIC,
    BRIGHT,
    CAVITY_SHARE,
    CONCENTRATED,
    ENDS,
    ERFCX,
    FALL,
    FEW_COUNTS,
    I0_LARGE,
    I0_SMALL,
    NEAR_ZERO,
    NEWTON,
    NODES,
    RANGE,
    ROOT_VARIANCE,
    SERIES,
    WEIGHTS,
)

__all__ = ["curvature", "site_moments"]

_NODES, _WEIGHTS = np.array(NODES), np.array(WEIGHTS)
_SMALL, _LARGE, _SERIES = np.array(I0_SMALL), np.array(I0_LARGE), np.array(SERIES)
_ERFCX = np.array(ERFCX)
#: I1(x)/x for x < 3.75 and sqrt(x) exp(-x) I1(x) beyond (Abramowitz & Stegun 9.8.3 and 9.8.4, to 3e-7).
_I1_SMALL = np.array((0.5, 0.87890594, 0.51498869, 0.15084934, 0.02658733, 0.00301532, 0.00032411))
_I1_LARGE = np.array(
    (0.39894228, -0.03988024, -0.00362018, 0.00163801, -0.01031555, 0.02282967, -0.02895312, 0.01787654, -0.00420059)
)
_KINDS = {"rician": 0, "normal": 1, "counts": 2, "shifted": 3}


@inner
def _quotient(kappa: float, order: int) -> float:
    if kappa > ASYMPTOTIC:
        t, ratio = 1 / kappa, 0.0
        for i in range(5, -1, -1):
            ratio = ratio * t + _SERIES[i]
        for n in range(1, order):
            ratio = 1 / ratio - 2 * n * t
        return ratio
    m = order + 12
    ratio = kappa / (m - 0.5 + math.sqrt((m + 0.5) ** 2 + kappa * kappa))
    for n in range(m - 1, order - 1, -1):
        ratio = kappa / (2 * n + kappa * ratio)
    return ratio


@inner
def _i0e(x: float) -> float:
    value = 0.0
    if x < 3.75:
        t = (x / 3.75) ** 2
        for i in range(6, -1, -1):
            value = value * t + _SMALL[i]
        return value * math.exp(-x)
    t = 3.75 / x
    for i in range(8, -1, -1):
        value = value * t + _LARGE[i]
    return value / math.sqrt(x)


@inner
def _rician(r0: float, y: float, v0: float, v: float, K: int) -> tuple[float, float, float, float]:
    y = max(y, 0.0)
    s = v0 + 2 * v
    kappa = max(2 * y * r0 / s, 1e-12)
    A = _quotient(kappa, K)
    side = (2 * K - 1) * A / kappa
    slope = 1 - A * A - side
    if kappa > CONCENTRATED * K:
        slope = (2 * K - 1) / (2 * kappa * kappa)
    rho, base, square = (v0 * y * A + 2 * v * r0) / s, v0 * v / s, (v0 * y / s) ** 2
    total = 2 * K * base + square * (slope + side)
    noise = 0.5 * (y * y - 2 * y * (v0 * y + 2 * v * r0 * A) / s + total + rho * rho)
    return rho, base + square * slope, base + square * A / kappa, noise


@inner
def _normal(r0: float, y: float, v0: float, v: float, K: int) -> tuple[float, float, float, float]:
    s2 = v0 * v / (v0 + 2 * v)
    deviation = math.sqrt(s2)
    peak = (v0 * y + 2 * v * r0) / (v0 + 2 * v)
    beta = 2 * r0 / v0
    if y > 0 and peak > BRIGHT * deviation and beta * peak > BRIGHT * BRIGHT:
        # p(r) ~ r^(K - 1/2) exp(-(r - peak)^2/2 s^2) there, with I_K/I_{K-1} = 1 - (K - 1/2)/(beta r)
        mean = peak + (K - 0.5) * s2 / peak
        rho = mean - (K - 0.5) / beta
        across = 0.5 * v0 * rho / r0
        distance = (y - mean) ** 2 + s2
        return rho, s2, across, distance
    low = max(peak - RANGE * deviation, 0.0)
    width = max(peak, 0.0) + (RANGE + 0.5 * (K - 1)) * deviation - low
    below = min(peak, 0.0) ** 2
    total, first, second, distance = 0.0, 0.0, 0.0, 0.0
    for i in range(16):
        r = low + width * (0.5 + 0.5 * _NODES[i])
        x = max(beta * r, 1e-12)
        p = _WEIGHTS[i] * r * math.exp(0.5 * (below - (r - peak) ** 2) / s2) * _i0e(x)
        for order in range(1, K):
            p *= r * _quotient(x, order)
        square = (y - r) ** 2
        if y <= 0:
            t, factor = 1 / (1 + 0.3275911 * r / math.sqrt(2 * v)), 0.0
            for j in range(5, -1, -1):
                factor = factor * t + _ERFCX[j]
            p *= factor
            square = v + r * math.sqrt(2 * v / math.pi) / factor
        total += p
        first += p * r * _quotient(x, K)
        second += p * r * r
        distance += p * square
    rho, power = first / total, second / total
    across = 0.5 * v0 * rho / r0 if r0 > 1e-6 * math.sqrt(v0) else 0.5 * power / K
    return rho, max(power - rho * rho - (2 * K - 1) * across, 1e-6 * v0), across, distance / total


@inner
def _counts(r0: float, n: float, v0: float, K: int) -> tuple[float, float, float, float]:
    if n > FEW_COUNTS:
        rho, along, across, _ = _rician(r0, math.sqrt(n + ANSCOMBE + 0.5 * (K - 1)), v0, ROOT_VARIANCE, K)
        return rho, along, across, ROOT_VARIANCE
    x = max(r0 * r0 / (v0 * (1 + v0)), 1e-8)
    q = K + x
    for m in range(1, int(n) + 1):
        q = (2 * m + K + x - (m + K - 1) / q) / (m + 1)
    gain, power = ((n + 1) * q - n - K) / (x * (1 + v0)), (n + 1) * q * v0 / (1 + v0)
    across = 0.5 * v0 * gain
    return gain * r0, max(power - (gain * r0) ** 2 - (2 * K - 1) * across, 1e-6 * v0), across, ROOT_VARIANCE


@inner
def _over(x: float) -> float:
    """I1(x)/(x I0(x)): the quotient without its continued fraction."""
    above, below = 0.0, 0.0
    if x > ASYMPTOTIC:
        return _quotient(x, 1) / x
    if x < 3.75:
        t = (x / 3.75) ** 2
        for i in range(6, -1, -1):
            above, below = above * t + _I1_SMALL[i], below * t + _SMALL[i]
        return above / below
    t = 3.75 / x
    for i in range(8, -1, -1):
        above, below = above * t + _I1_LARGE[i], below * t + _LARGE[i]
    return above / (below * x)


@inner
def _mode(r0: float, n: float, v0: float, B: float, K: int) -> float:
    a, beta2, c = 1 + 1 / v0, (2 * r0 / v0) ** 2, 2 * K - 1.0
    q = c + 2 * n - 2 * a * B
    root = math.sqrt(q * q + 8 * a * c * B)
    u = (q + root) / (4 * a) if q > 0 else 2 * c * B / max(root - q, 1e-300)
    u = max(u, c / (2 * a), (r0 / (a * v0)) ** 2)
    left = n * u / (u + B)
    u = max(u, ((math.sqrt(beta2) + math.sqrt(beta2 + 8 * a * (K - 0.5 + 2 * left))) / (4 * a)) ** 2)
    for _ in range(NEWTON):
        s = math.sqrt((K + 0.5) ** 2 + beta2 * u)
        w = 1 / (K - 0.5 + s)
        value = c / u + beta2 * w + 2 * n / (u + B) - 2 * a
        slope = c / u**2 + 0.5 * beta2 * beta2 * w * w / s + 2 * n / (u + B) ** 2
        u = max(u + value / slope, 0.1 * u)
    return u


@inner
def _density(r: float, r0: float, n: float, v0: float, B: float, K: int) -> tuple[float, float, float]:
    """p(r) as factor and exponent, and A(x)/x for K > 1 (it is part of p only there)."""
    x, u, q = 2 * r0 * r / v0, r * r, 0.0
    factor, exponent = r * _i0e(x), -(r - r0) * (r - r0) / v0 - u
    if n > 0:
        exponent += n * math.log(u + B)
    if K > 1:
        q = _quotient(max(x, 1e-12), K) / max(x, 1e-12)
        other = q
        for m in range(K - 1, 0, -1):
            other = 1 / (2 * m + x * x * other)
            factor *= u * other
    return factor, exponent, q


@inner
def _fallen(r: float, top: float, r0: float, n: float, v0: float, B: float, K: int) -> float:
    factor, exponent, _ = _density(r, r0, n, v0, B, K)
    return max(top - exponent - math.log(factor), 0.1)


@inner
def _shifted(r0: float, N: float, v0: float, B: float, K: int) -> tuple[float, float, float, float]:
    B = max(B, 1e-6)
    if N < 0:
        across = 0.5 / (1 / v0 + 1 - N / B)
        return 2 * r0 * across / v0, across, across, ROOT_VARIANCE
    u = _mode(r0, N, v0, B, K)
    peak = math.sqrt(u)
    factor, top, q = _density(peak, r0, N, v0, B, K)
    top += math.log(factor)
    x = max(2 * r0 * peak / v0, 1e-12)
    q = _quotient(x, K) / x
    bend = (2 * K - 1) / u + (2 * r0 / v0) ** 2 * (2 * K * q - 1 + 4 * (r0 / v0) ** 2 * u * q * q)
    bend = max(bend + 2 * (1 + 1 / v0) - 2 * N * (B - u) / (u + B) ** 2, 1 + 1 / v0)
    wide = math.sqrt(2 * FALL / bend)
    low, high = 0.0, 0.0
    for side in (-1, 1):
        if side < 0 and wide >= NEAR_ZERO * peak:
            continue
        reach = wide
        for _ in range(ENDS):
            r = max(peak + side * reach, 1e-3 * peak)
            reach = min(reach * math.sqrt(FALL / _fallen(r, top, r0, N, v0, B, K)), 3 * reach)
        if side < 0:
            low = max(peak - reach, 0.0)
        else:
            high = peak + reach
    total, across, power = 0.0, 0.0, 0.0
    for i in range(16):
        r = low + (high - low) * (0.5 + 0.5 * _NODES[i])
        factor, exponent, q = _density(r, r0, N, v0, B, K)
        p = _WEIGHTS[i] * factor * math.exp(exponent - top)
        if K == 1:
            q = _over(2 * r0 * r / v0)
        total += p
        power += p * r * r
        across += p * r * r * q
    across, power = across / total, power / total
    rho = 2 * r0 * across / v0
    return rho, max(power - rho * rho - (2 * K - 1) * across, 1e-6 * v0), across, ROOT_VARIANCE


@jit
def _site_moments(
    wave: Array, natural: Array, index: Array, table: Array, data: Array, v: Array, kind: int, background: Array,
    ratio: Array, sums: Array, frames: Array,
) -> None:  # fmt: skip
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
                    rho, along, across, noise = _shifted(r0, a, v0, np.float64(background[b if many else 0, r, c]), K)
                elif kind == 2:
                    rho, along, across, noise = _counts(r0, np.rint(a * a), v0, K)
                elif kind == 1:
                    rho, along, across, noise = _normal(r0, a, v0, v[b], K)
                else:
                    rho, along, across, noise = _rician(r0, a, v0, v[b], K)
                ratio[b, r, c] = rho / max(r0, 1e-30)
                sums[0, i] += 1
                sums[1, i] += along
                sums[2, i] += across
                sums[3, i] += noise
                frames[b] += noise


def site_moments(
    wave: Array, natural: Array, index: Array, table: Array, data: Array, v: Any, kind: str, background: Array | None = None
) -> tuple[Array, Array, Array]:
    ratio, sums, frames = np.empty(index.shape, np.float32), np.zeros((4, table.shape[1])), np.zeros(len(index))
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
    order: Array, change: Array, spectrum: Array, joint: bool, probes: Array, object: Array, ramps_y: Array, ramps_x: Array,
    index: Array, corners: Array, classes: Array, weights: Array, waves: Array, directed: bool, transfer: Array, near: bool,
    out: Array, out_spectrum: Array,
) -> None:  # fmt: skip
    """Frames of `order`, sorted by shift; `spectrum` is the FFT of the probe's change, `out_spectrum` receives the sum's."""
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
        propagate(psi, wave, transfer, near, True)
        _weigh(wave, classes[j], weights, waves[j], directed)
        propagate(wave, psi, transfer, near, False)
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
    change: Array, probe_change: Array | None, probes: Array, object: Array | None, shifts: Array, index: Array,
    corners: Array, classes: Array, weights: Array, waves: Array | None, transfer: Array | None, threads: int,
) -> tuple[Array, Array | None]:  # fmt: skip
    joint = probe_change is not None
    spectrum = np.zeros(probes.shape[1:], np.complex64) if probe_change is None else np.array(probe_change)
    _transform(spectrum, True)
    ramps = separable_ramps(shifts, probes.shape[-2:])
    # sorted by shift, so that the probe's way there and back costs one FFT a distinct shift
    parts = [p for p in np.array_split(np.argsort(index, kind="stable"), threads) if len(p)]
    out = np.zeros((len(parts), *change.shape), np.complex64)
    back = np.zeros((len(parts), *probes.shape[1:]), np.complex64)
    common = (
        *(np.ascontiguousarray(change), spectrum, joint, probes, change if object is None else object, *ramps),
        *(index, corners, classes, np.ascontiguousarray(weights, np.float32)),
        *(probes if waves is None else waves, waves is not None),
        *(np.zeros((1, 1), np.complex64) if transfer is None else transfer, transfer is not None),
    )
    if len(parts) == 1:
        _curvature(parts[0], *common, out[0], back[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            jobs = [pool.submit(_curvature, part, *common, out[i], back[i]) for i, part in enumerate(parts)]
            for job in jobs:
                job.result()
    if not joint:
        return out.sum(axis=0), None
    total = back.sum(axis=0)
    _transform(total, False)
    return out.sum(axis=0), total
