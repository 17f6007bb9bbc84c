"""Averages over a wave z' ~ CN(z, V) that is not known, in closed form (see `record`)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...types import FloatArray

#: m^2/V up to which shares of the information are kept, and how many of them.
BRIGHT, PLACES = 1e5, 4096


def shares(s: FloatArray, modes: int = 1) -> tuple[FloatArray, FloatArray]:
    """1 - R R'' and 1 - R R'/m: the shares of the information that are left along a wave of so many
    modes and across it, s = m^2/V.
    """
    from scipy.special import i0e, i1e

    if modes > 1:
        places, along, across = of_modes(modes)
        s = np.log1p(s)
        return np.interp(s, places, along), np.interp(s, places, across)
    a, b = i0e(s / 2), i1e(s / 2)
    mean = np.pi / 4 * ((1 + s) * a + s * b)
    return np.clip(1 - mean * (a - b), 0, 1), np.clip(1 - mean * (a + b), 0, 1)


@cache
def of_modes(modes: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """log(1 + s), and 1 - R R'' and 1 - R R'/m there, of K modes: read off where s is large, since
    hypergeometric functions of each pixel would cost more than its transforms.
    """
    from scipy.special import gammaln, hyp1f1

    places = np.linspace(0, math.log1p(BRIGHT), PLACES)
    x, K = modes * np.expm1(places), modes
    square = math.exp(2 * (gammaln(K + 0.5) - gammaln(K)))
    first = hyp1f1(0.5, K + 1, -x) / (2 * K)
    second = -hyp1f1(1.5, K + 2, -x) / (4 * K * (K + 1))
    R = 2 * square * hyp1f1(-0.5, K, -x)
    along, across = 1 - R * (first + 2 * x * second), 1 - R * first
    return places, np.clip(along, 0, 1), np.clip(across, 0, 1)


def resultant(m: FloatArray, spread: FloatArray) -> FloatArray:
    """E z'/|z'| along z: sqrt(pi s)/2 exp(-s/2) (I0(s/2) + I1(s/2)), s = m^2/V."""
    from scipy.special import i0e, i1e

    s = m**2 / spread[:, None, None]
    return np.asarray(np.sqrt(np.pi * s) / 2 * (i0e(s / 2) + i1e(s / 2)))


def mean_modulus(m: FloatArray, spread: FloatArray) -> FloatArray:
    """E|z'|, the mean of a Rice distribution."""
    from scipy.special import i0e, i1e

    V = spread[:, None, None]
    s = m**2 / V
    return np.asarray(np.sqrt(np.pi * V) / 2 * ((1 + s) * i0e(s / 2) + s * i1e(s / 2)))


def damped(s: FloatArray) -> FloatArray:
    """(1 - exp(-s))/s: V E z'/|z'|^2 along z, over m."""
    small = s < 1e-6
    return np.asarray(np.where(small, 1 - s / 2, -np.expm1(-s) / np.where(small, 1, s)))
