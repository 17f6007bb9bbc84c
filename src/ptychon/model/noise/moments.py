r"""The data of a detector pixel as numbers whose spread does not depend on them, what their squared
misfit is expected to be, however few the counts, and when a sum of them is too much.

    counts      q = 4 (sqrt(n + 3/8) - sqrt(m + 3/8))^2,  n ~ Poisson(m)
    with read noise r  n = k + r w + r^2,  k ~ Poisson(m - r^2),  w ~ N(0, 1): the N of `Problem`,
                of mean and variance m
    amplitude   q = (y - a)^2/v,  y = max(0, a + w),  w ~ N(0, v)

With many counts q is the square of a normal number (Anscombe, Biometrika 35, 246 (1948)). With few
it is not, and its first three cumulants are taken from tables computed by summing over n. Pearson's
(n - m)^2/m has the mean 1 for any m, but the variance 2 + 1/m: at 0.01 counts one photon outweighs
50 pixels. The cumulants of a sum are the sums of the cumulants, and a sum with the skewness g is
made normal as a gamma variable is (Wilson & Hilferty, PNAS 17, 684 (1931)):

    z -> 6/g ((1 + g z/2)^{1/3} - 1) + g/6
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ...kernels.likelihoods import ANSCOMBE
from ...kernels.likelihoods import ROOT_VARIANCE as COUNT_VARIANCE
from ...kernels.reference import namespace
from ...types import BoolArray, FloatArray

__all__ = [
    "ANSCOMBE",
    "COUNT_VARIANCE",
    "amplitude_cumulants",
    "counting_noise",
    "cumulants",
    "deviate",
    "expected_misfit",
    "expected_root",
    "misfit",
    "normalised",
    "square",
    "stabilised",
    "subtracted_noise",
]

#: Means that the table of counts spans: below it cumulants are proportional to the mean, above it
#: those of a normal number.
LEAST, MOST = 1e-6, 400.0
#: Standard deviations up to which a chance is computed from the distribution itself.
FAR = 6.0


def stabilised(count: Any) -> Any:
    """sqrt(n + 3/8), whose variance is 1/4 for all but few counts; on any device."""
    xp = namespace(count)
    return xp.sqrt(xp.maximum(count + ANSCOMBE, 0))


def misfit(count: FloatArray, mean: FloatArray) -> FloatArray:
    """q of counts, 0 where both agree."""
    return np.asarray((stabilised(count) - stabilised(mean)) ** 2 / COUNT_VARIANCE)


def cumulants(
    mean: FloatArray, read_noise: float = 0.0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, variance and third cumulant of `misfit` for counts with this mean, the square of the
    read noise included.
    """
    one, two, three = (
        _looked_up(mean, read_noise, ANSCOMBE, row, limit) for row, limit in enumerate((1, 2, 8))
    )
    return one, two, three


def expected_misfit(mean: FloatArray, read_noise: float = 0.0) -> FloatArray:
    """The first of them alone."""
    return _looked_up(mean, read_noise, ANSCOMBE, 0, 1)


def _looked_up(
    mean: FloatArray, read_noise: float, shift: float, row: int, limit: float
) -> FloatArray:
    """A row of the table: proportional to the mean below it, its limit above it."""
    grid, table = _table(float(read_noise), shift)
    counted = mean - read_noise**2
    x = np.log(np.clip(counted, LEAST, MOST))
    few = np.minimum(mean / LEAST, 1)
    return np.asarray(np.where(counted > MOST, limit, np.interp(x, grid, table[row]) * few))


@cache
def _table(read_noise: float, shift: float) -> tuple[FloatArray, FloatArray]:
    """log of the mean, and cumulants of 4 (sqrt(n + shift) - sqrt(mean + shift))^2, (3, M)."""
    from scipy.special import gammaln

    mean = np.geomspace(LEAST, MOST, 321)
    k = np.arange(0, 700.0)
    w, share = np.polynomial.hermite_e.hermegauss(32) if read_noise else (np.zeros(1), np.ones(1))
    extra = read_noise**2
    n, share = k[:, None] + read_noise * w + extra, share / share.sum()
    root = np.sqrt(np.maximum(n + shift, 0))
    rows = []
    for m in mean:
        chance = np.exp(k * np.log(m) - m - gammaln(k + 1))[:, None] * share
        q = (root - np.sqrt(m + extra + shift)) ** 2 / COUNT_VARIANCE
        first = float((chance * q).sum())
        rows.append([first, *(float((chance * (q - first) ** k).sum()) for k in (2, 3))])
    return np.log(mean), np.array(rows).T


def amplitude_cumulants(level: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same of the amplitude's q, for the level a/sqrt(v): less than those of a normal number
    where y is cut off at 0.
    """
    grid, table = _clipped()
    one, two, three = (np.interp(level, grid, row) for row in table)
    return one, two, three


@cache
def _clipped() -> tuple[FloatArray, FloatArray]:
    from scipy.stats import norm

    level = np.linspace(0, 6, 121)
    w = np.linspace(-9, 9, 7201)
    chance = norm.pdf(w) * (w[1] - w[0])
    q = (np.maximum(level[:, None] + w, 0) - level[:, None]) ** 2
    first = (chance * q).sum(axis=1)
    rest = [(chance * (q - first[:, None]) ** k).sum(axis=1) for k in (2, 3)]
    return level, np.array([first, *rest])


def square(level: FloatArray) -> FloatArray:
    """E max(a + w, 0)^2 of a normal number w, for the level a."""
    from scipy.stats import norm

    return np.asarray((level**2 + 1) * norm.cdf(level) + level * norm.pdf(level))


def normalised(
    total: FloatArray, mean: FloatArray, variance: FloatArray, third: FloatArray
) -> FloatArray:
    """Sums with these cumulants as numbers that are normal where the sums are what is expected; 0
    where nothing is.
    """
    safe = np.maximum(variance, 1e-30)
    z, skew = (total - mean) / np.sqrt(safe), np.maximum(third / safe**1.5, 1e-6)
    w = 6 / skew * (np.cbrt(np.maximum(1 + skew * z / 2, 0)) - 1) + skew / 6
    return np.asarray(np.where(variance > 0, w, 0.0))


def deviate(count: FloatArray, mean: FloatArray) -> FloatArray:
    """The normal number as improbable as at least (above the mean), or at most (below), so many
    Poisson counts.
    """
    from scipy.stats import norm, poisson

    high = count > mean
    safe = np.maximum(mean, 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(count > 0, count * np.log(np.maximum(count, 1e-12) / safe), 0.0)
    root = np.sqrt(2 * np.maximum(log - count + safe, 0))
    chance = np.where(high, poisson.sf(count - 1, safe), poisson.cdf(count, safe))
    near: BoolArray = root < FAR
    size = np.where(near, np.maximum(norm.isf(np.clip(chance, 1e-30, 1 - 1e-15)), 0), root)
    return np.asarray(
        np.where(mean > 0, np.where(high, size, -size), np.where(count > 0, np.inf, 0.0))
    )


def counting_noise(mean: FloatArray) -> FloatArray:
    """E (sqrt n - sqrt m)^2 of n ~ Poisson(m): 2 m for few counts, 1/4 for many."""
    return np.asarray(COUNT_VARIANCE * _looked_up(mean, 0.0, 0.0, 0, 1))


def expected_root(model: FloatArray) -> FloatArray:
    """E sqrt n of n ~ Poisson(model^2), from E (sqrt n - model)^2; below `model` where counts are
    few.
    """
    mean = model**2
    return np.divide(
        2 * mean - counting_noise(mean), 2 * model, out=np.zeros_like(model), where=model > 1e-6
    )


def subtracted_noise(model: FloatArray, background: FloatArray) -> tuple[FloatArray, FloatArray]:
    """E (y - m)^2 and E y of y = sqrt(max(n - b, 0)), n - b being N(m^2, m^2 + B): with a
    background (and read noise) B.
    """
    deviation, nodes = np.sqrt(model**2 + background), _normal_nodes()
    square, root = np.zeros_like(model), np.zeros_like(model)
    for t, weight in zip(*nodes, strict=True):
        y = np.sqrt(np.maximum(model**2 + t * deviation, 0))
        square += weight * (y - model) ** 2
        root += weight * y
    return square, root


@cache
def _normal_nodes() -> tuple[FloatArray, FloatArray]:
    t, weight = np.polynomial.hermite_e.hermegauss(24)
    return t, weight / weight.sum()
