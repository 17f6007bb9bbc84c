"""What runs through the frames of a `predictive` check: drifts, and what the share that was fitted
explains of a misfit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ..types import FloatArray, IntArray

#: Fewest frames for a drift, and for a standard deviation.
FEWEST = 8


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A quantity against the number of the frame.

    Attributes
    ----------
    name : str
        "chi2", "dose", "shift_y" or "shift_x".
    change, error : float
        From the first frame to the last, and its standard error; relative, or object pixels.
    chance : float
        Of as much or more without a drift.
    """

    name: str
    change: float
    error: float
    chance: float


def explained(fitted: FloatArray, variance: FloatArray | None) -> FloatArray:
    """Columns 1, h, h^2 of every frame; where frames have their own noise, these for any noise:
    times its logarithm too.

    Parameters
    ----------
    fitted : (N,) float64
        Share h of each frame that was fitted.
    variance : (N,) float64 or None
        Of the noise of each.

    Returns
    -------
    (N, K) float64
    """

    def scaled(x: FloatArray) -> FloatArray:
        span = float(np.ptp(x))
        return (x - x.min()) / span if span > 1e-6 else np.zeros_like(x)

    h = scaled(fitted)
    columns = [np.ones_like(h), h, h**2]
    if variance is not None:
        # a frame that does not fit is far off in its noise, and is to have no say in what others'
        # explains
        noise = np.log(variance)
        columns += [
            scaled(np.clip(noise, *np.quantile(noise, (0.1, 0.9)))) * column for column in columns
        ]
    return np.stack([c for i, c in enumerate(columns) if i == 0 or np.ptp(c) > 0], axis=1)


def least_absolute(design: FloatArray, y: FloatArray) -> FloatArray:
    """What the columns say of y, with the least absolute deviations."""
    weight = np.ones_like(y)
    fit: FloatArray = np.zeros(design.shape[1])
    for _ in range(30):
        by = design * weight[:, None]
        fit = np.linalg.lstsq(by.T @ design, by.T @ y, rcond=None)[0]
        weight = 1 / (np.abs(y - design @ fit) + 0.05)
    return np.asarray(design @ fit)


def trends_of(
    quantities: dict[str, FloatArray], columns: FloatArray, bad: IntArray
) -> tuple[Trend, ...]:
    """Slopes against the frame's number, bad frames left out; what the columns of `explained`
    explain is taken off.
    """
    keep = np.ones(len(columns), bool)
    keep[bad] = False
    n = int(keep.sum())
    if n < FEWEST:
        return ()
    place = np.linspace(0, 1, len(columns))[keep]
    design: FloatArray = np.column_stack([np.ones(n), place, columns[keep, 1:]])
    inverse = np.linalg.pinv(design.T @ design)
    found = []
    for name, values in quantities.items():
        y: FloatArray = values[keep]
        middle = float(np.median(y))
        scale = 1.4826 * float(np.median(np.abs(y - middle))) or float(y.std()) or 1.0
        y = np.clip(y, middle - 4 * scale, middle + 4 * scale)
        solved = inverse @ (design.T @ y)
        rest = y - design @ solved
        power = float((rest**2).sum())
        neighbours = max(0.0, float((rest[1:] * rest[:-1]).sum()) / power) if power > 0 else 0.0
        freedom = max(2.0, (n - design.shape[1]) * (1 - neighbours) / (1 + neighbours))
        error = math.sqrt(max(float(inverse[1, 1]), 0) * power / max(freedom, 1)) or 1e-300
        chance = 2 * float(student.sf(abs(solved[1]) / error, freedom))
        found.append(Trend(name=name, change=float(solved[1]), error=error, chance=chance))
    return tuple(found)


def deviation(x: Sequence[float] | FloatArray) -> float:
    """Standard deviation of normal numbers from the middle of them; 0 of too few."""
    x = np.asarray(x)[np.isfinite(x)]
    return 1.4826 * float(np.median(np.abs(x - np.median(x)))) if len(x) >= FEWEST else 0.0
