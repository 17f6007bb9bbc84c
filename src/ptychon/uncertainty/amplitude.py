"""Bars of amplitude and phase from those of both parts of a complex value, near darkness too."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypedDict

import numpy as np

from ..types import REAL, ComplexArray, FloatArray

#: Probability that a bar holds; a phase of which nothing is known, within that; |O| in standard
#: deviations of its parts, up to which bars of amplitude and phase are of Rice's distribution.
INSIDE = 0.683
NOTHING, ABOVE = INSIDE * math.pi, np.linspace(0, 6, 49)


class Bars(TypedDict):
    """The three fields of a posterior that are error bars."""

    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray


def bars(along: FloatArray, across: FloatArray, mean: ComplexArray) -> Bars:
    """object_std, amplitude_std and phase_std from the variances along and across the mean, (H, W)
    each. Where the mean is not far above its error, |mean + error| has Rice's distribution, and
    both are half the width that holds 68.3 % of it (see `near_darkness`).
    """
    size = np.abs(mean).astype(np.float64)
    even = (along + across) / 2
    above = size / np.maximum(np.sqrt(even), 1e-30)
    # next to 0 there is no direction, and parts along and across the mean are alike
    share = np.minimum(above / 2, 1) ** 2
    a, c = (np.sqrt(even + share * (part - even)) for part in (along, across))
    wider, angle = near_darkness()
    near = np.interp(above, ABOVE, angle) * c / np.maximum(np.sqrt(even), 1e-30)
    phase = np.where(above < ABOVE[-1], near, c / np.maximum(size, 1e-12))
    return Bars(
        object_std=np.sqrt(along + across).astype(REAL),
        amplitude_std=(a * np.interp(above, ABOVE, wider)).astype(REAL),
        phase_std=np.minimum(phase, NOTHING).astype(REAL),
    )


@lru_cache(maxsize=1)
def near_darkness() -> tuple[FloatArray, FloatArray]:
    """Half widths that hold 68.3 % of |a + e| about a, and of the phase of a + e (rad), where both
    parts of e have the variance 1, for a of `ABOVE`.
    """
    # equal shares of the probability: rings of e^2 of an exponential distribution, and angles
    rings, turns = 240, 240
    r = np.sqrt(-2 * np.log(1 - (np.arange(rings) + 0.5) / rings))
    e = np.multiply.outer(r, np.exp(2j * np.pi * (np.arange(turns) + 0.5) / turns)).ravel()
    found = np.empty((2, len(ABOVE)))
    for n, a in enumerate(ABOVE):
        found[0, n] = np.quantile(abs(abs(a + e) - a), INSIDE)
        found[1, n] = np.quantile(abs(np.angle(a + e)), INSIDE)
    # no jump where it goes over into the linear ones
    found[0, -1], found[1, -1] = 1, 1 / ABOVE[-1]
    return found[0], found[1]
