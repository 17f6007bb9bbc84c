"""What one detector pixel says of its wave, compiled, in double precision; the mathematics is that
of `likelihoods`.

Each likelihood takes |z_c|, what was measured, the cavity's variance v0 and the number of modes K,
and returns rho, Var along, Var across and E(y - |z|)^2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import types

from ..likelihoods import (
    ANSCOMBE,
    ASYMPTOTIC,
    BRIGHT,
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
from .linked import linked, uniform
from .rows import OPTIONS, inner

_FOUR: Any = uniform(types.float64, 4)
_NODES, _WEIGHTS = np.array(NODES), np.array(WEIGHTS)
_SMALL, _LARGE, _SERIES = np.array(I0_SMALL), np.array(I0_LARGE), np.array(SERIES)
_ERFCX = np.array(ERFCX)
#: I1(x)/x for x < 3.75 and sqrt(x) exp(-x) I1(x) beyond (Abramowitz & Stegun 9.8.3 and 9.8.4, to
#: 3e-7).
_I1_SMALL = np.array((0.5, 0.87890594, 0.51498869, 0.15084934, 0.02658733, 0.00301532, 0.00032411))
_I1_LARGE = np.array(
    (
        0.39894228,
        -0.03988024,
        -0.00362018,
        0.00163801,
        -0.01031555,
        0.02282967,
        -0.02895312,
        0.01787654,
        -0.00420059,
    )
)


@linked(types.float64(types.float64, types.intp), **OPTIONS)
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


@linked(_FOUR(*[types.float64] * 4, types.intp), **OPTIONS)
def rician(r0: float, y: float, v0: float, v: float, K: int) -> tuple[float, float, float, float]:
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


@linked(_FOUR(*[types.float64] * 4, types.intp), **OPTIONS)
def normal(r0: float, y: float, v0: float, v: float, K: int) -> tuple[float, float, float, float]:
    s2 = v0 * v / (v0 + 2 * v)
    deviation = math.sqrt(s2)
    peak = (v0 * y + 2 * v * r0) / (v0 + 2 * v)
    beta = 2 * r0 / v0
    if y > 0 and peak > BRIGHT * deviation and beta * peak > BRIGHT * BRIGHT:
        # p(r) ~ r^(K - 1/2) exp(-(r - peak)^2/2 s^2) there, with I_K/I_{K-1} = 1 - (K - 1/2)/(beta
        # r)
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


@linked(_FOUR(*[types.float64] * 3, types.intp), **OPTIONS)
def counts(r0: float, n: float, v0: float, K: int) -> tuple[float, float, float, float]:
    if n > FEW_COUNTS:
        rho, along, across, _ = rician(
            r0, math.sqrt(n + ANSCOMBE + 0.5 * (K - 1)), v0, ROOT_VARIANCE, K
        )
        return rho, along, across, ROOT_VARIANCE
    x = max(r0 * r0 / (v0 * (1 + v0)), 1e-8)
    q = K + x
    for m in range(1, int(n) + 1):
        q = (2 * m + K + x - (m + K - 1) / q) / (m + 1)
    gain, power = ((n + 1) * q - n - K) / (x * (1 + v0)), (n + 1) * q * v0 / (1 + v0)
    across = 0.5 * v0 * gain
    return (
        gain * r0,
        max(power - (gain * r0) ** 2 - (2 * K - 1) * across, 1e-6 * v0),
        across,
        ROOT_VARIANCE,
    )


@inner
def _over(x: float) -> float:
    """I1(x)/(x I0(x)): the quotient without its continued fraction."""
    above, below = 0.0, 0.0
    if x > ASYMPTOTIC:
        return float(_quotient(x, 1) / x)
    if x < 3.75:
        t = (x / 3.75) ** 2
        for i in range(6, -1, -1):
            above, below = above * t + _I1_SMALL[i], below * t + _SMALL[i]
        return above / below
    t = 3.75 / x
    for i in range(8, -1, -1):
        above, below = above * t + _I1_LARGE[i], below * t + _LARGE[i]
    return above / (below * x)


@linked(types.float64(*[types.float64] * 4, types.intp), **OPTIONS)
def _mode(r0: float, n: float, v0: float, B: float, K: int) -> float:
    a, beta2, c = 1 + 1 / v0, (2 * r0 / v0) ** 2, 2 * K - 1.0
    q = c + 2 * n - 2 * a * B
    root = math.sqrt(q * q + 8 * a * c * B)
    u = (q + root) / (4 * a) if q > 0 else 2 * c * B / max(root - q, 1e-300)
    u = max(u, c / (2 * a), (r0 / (a * v0)) ** 2)
    left = n * u / (u + B)
    u = max(
        u, ((math.sqrt(beta2) + math.sqrt(beta2 + 8 * a * (K - 0.5 + 2 * left))) / (4 * a)) ** 2
    )
    for _ in range(NEWTON):
        s = math.sqrt((K + 0.5) ** 2 + beta2 * u)
        w = 1 / (K - 0.5 + s)
        value = c / u + beta2 * w + 2 * n / (u + B) - 2 * a
        slope = c / u**2 + 0.5 * beta2 * beta2 * w * w / s + 2 * n / (u + B) ** 2
        u = max(u + value / slope, 0.1 * u)
    return u


@linked(uniform(types.float64, 3)(*[types.float64] * 5, types.intp), **OPTIONS)
def _density(
    r: float, r0: float, n: float, v0: float, B: float, K: int
) -> tuple[float, float, float]:
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
    return float(max(top - exponent - math.log(factor), 0.1))


@linked(_FOUR(*[types.float64] * 4, types.intp), **OPTIONS)
def shifted(r0: float, N: float, v0: float, B: float, K: int) -> tuple[float, float, float, float]:
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
