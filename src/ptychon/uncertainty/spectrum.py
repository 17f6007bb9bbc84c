"""How certain an object is at each spatial frequency, from draws of its posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft

from ..data.result import Result
from ..engines.spectral_prior import rings_of
from ..metrics.frc import soft_window
from ..metrics.registration import bounding_box
from ..types import BoolArray, ComplexArray, FloatArray

#: Soft edge of the window under which spectra are taken, as a share of its shorter side.
TAPER = 0.1
#: Periods (px) that bound the octaves, and the fewest frequencies of one that says anything.
PERIODS, FEWEST = (math.inf, 32.0, 16.0, 8.0, 4.0, 2.0), 100
#: The fewest that say something if it is known how little.
SOME = 12


@dataclass(frozen=True)
class Spectrum:
    """Posterior variance of an object by rings of spatial frequency.

    Attributes
    ----------
    variance : (R,) float64
        V_k, from the draws.
    visible : (R,) float64
        V_k (1 - V_k/S_k), with S_k - V_k from the object: the part that two halves do not have in
        common.
    """

    variance: FloatArray
    visible: FloatArray

    @classmethod
    def of(cls, half: Result, region: BoolArray, before: ComplexArray | None = None) -> Spectrum:
        """On a region (H, W). Draws `before` they were widened tell how much of the variance shows:
        what a wrong model adds leans on no prior.
        """
        assert half.draws is not None
        V, plain = (
            np.mean([rings(draw, region) for draw in draws], axis=0)
            for draws in (half.draws, half.draws if before is None else before)
        )
        mean = rings(half.object, region)
        return cls(V, V * mean / np.maximum(mean + plain, 1e-300))


def rings(field: ComplexArray, region: BoolArray) -> FloatArray:
    """Power of a picture (H, W) by rings of spatial frequency, under a soft window: (R,)."""
    box = bounding_box(region)
    window = soft_window(region[box], TAPER)
    ring, size = rings_of(window.shape, np)
    # without its mean, which would leak into every ring
    field = (field[box] - (window * field[box]).sum() / window.sum()) * window
    return np.asarray(
        np.bincount(ring.ravel(), np.abs(scipy.fft.fft2(field)).ravel() ** 2, len(size))
    )


def octaves(
    difference: FloatArray, expected: FloatArray, region: BoolArray, fewest: int = FEWEST
) -> tuple[float, ...]:
    """Quotient of two powers by rings (R,) of a region, in each octave of periods; NaN in one of
    fewer than `fewest` frequencies.
    """
    shape = region[bounding_box(region)].shape
    frequency, size, found = np.arange(len(difference)) / min(shape), rings_of(shape, np)[1], []
    for longest, shortest in pairwise(PERIODS):
        there = (frequency > 1 / longest) & (frequency <= 1 / shortest)
        enough = size[there].sum() >= fewest
        found.append(float(difference[there].sum() / expected[there].sum()) if enough else math.nan)
    return tuple(found)


def by_chance(field: ComplexArray, region: BoolArray) -> tuple[float, ...]:
    r"""Relative standard deviation, by chance, of the power of a random picture in each octave of
    periods; NaN in one of fewer than `SOME` frequencies.

    Of n independent Fourier coefficients with variances E_k, sum |c_k|^2 scatters by sqrt(sum
    E_k^2)/sum E_k. Under a window w, and where errors are larger in some places than in others,
    fewer are independent,

        times sqrt( n max( sum w^4/(sum w^2)^2, sum |d|^4/(2 (sum |d|^2)^2) ) )

    d being the windowed picture with the octave alone: |d|^4 has the mean 2 (mean |d|^2)^2 where
    errors are Gaussian and the same everywhere.

    Parameters
    ----------
    field : (H, W) complex array
        The difference of two halves.
    region : (H, W) bool array
    """
    box = bounding_box(region)
    window = soft_window(region[box], TAPER)
    ring, size = rings_of(window.shape, np)
    picture = field[box] - (window * field[box]).sum() / window.sum()
    spectrum = scipy.fft.fft2(picture * window)
    mean = np.bincount(ring.ravel(), np.abs(spectrum).ravel() ** 2, len(size)) / size
    frequency, found = ring / min(window.shape), []
    spread = float((window**4).sum() / (window**2).sum() ** 2)
    for longest, shortest in pairwise(PERIODS):
        there = (frequency > 1 / longest) & (frequency <= 1 / shortest)
        power = mean[ring[there]]
        if there.sum() < SOME or not power.any():
            found.append(math.nan)
            continue
        local = np.abs(scipy.fft.ifft2(np.where(there, spectrum, 0))) ** 2
        uneven = float((local**2).sum() / (2 * local.sum() ** 2))
        few = window.size * max(spread, uneven)
        found.append(float(np.sqrt(few * (power**2).sum()) / power.sum()))
    return tuple(found)
