"""The resolution that an object is expected to have, from its error bars.

It is the ring correlation (`metrics.frc`) of the object with the truth. Under a posterior with a
learned spectrum the truth is m + x, and what is expected is the correlation of m with m + x_s over
draws x_s, ring by ring of spatial frequency:

    FRC_k = Re sum m_k* (m_k + x_k)/sqrt(sum |m_k|^2 sum |m_k + x_k|^2) ~ sqrt(1 - V_k/S_k)
    S_k = |m_k|^2 + V_k

Objects found without such a prior hold their noise in full, |m_k|^2 = S_k + V_k, and FRC_k = sqrt(1
- V_k/|m_k|^2). Information is log2(1 + SNR) bits a Fourier coefficient (Shannon 1949) and FRC^2 =
  SNR/(1 + SNR): one bit is FRC = sqrt(1/2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..data.result import Result
from ..engines import Engine, registry
from ..engines.joint_posterior import Joint
from ..metrics.frc import crossing, frc, soft_window
from ..metrics.registration import bounding_box
from ..types import BoolArray, ComplexArray, FloatArray
from .measure import Spread, draws_of, factor, spread_of

#: Correlations at which a resolution is stated.
HALF, ONE_BIT = 0.5, math.sqrt(0.5)
#: Width of the soft edge for spectra, as a share of the shorter side.
TAPER = 0.1


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How far the object is expected to agree with the truth.

    Attributes
    ----------
    frequency : (R,) float64
        Cycles a pixel, or a metre where the scale is known; up to Nyquist.
    correlation : Spread of (R,)
        With the truth; 1 is perfect.
    half, one_bit : float
        Full period (px or m) at which the correlation falls below 1/2, and below sqrt(1/2): one bit
        of information in each Fourier coefficient, as much error as signal. inf where it is nowhere
        above.
    half_interval, one_bit_interval : (low, high) float
        From the scatter of the draws, 68.3 % of them; what the learned spectrum has wrong is not in
        it.
    nyquist_limited : bool
        Whether the correlation stays above 1/2: the two pixels of Nyquist are then the limit.
    unit : {"px", "m"}
    """

    frequency: FloatArray
    correlation: Spread
    half: float
    half_interval: tuple[float, float]
    one_bit: float
    one_bit_interval: tuple[float, float]
    nyquist_limited: bool
    unit: str


def resolution(result: Result, *, draws: tuple[ComplexArray, bool] | None = None) -> Resolution:
    """The expected ring correlation of the object with the truth, on the illuminated region.

    Parameters
    ----------
    result : Result
    draws
        As in `spread`.

    Raises
    ------
    PtychonError
        If there are no error bars, or the illuminated region is narrower than 8 pixels.
    """
    errors, correlated = draws_of(result) if draws is None else draws
    lit, size = result.illuminated, result.pixel_size
    # only the joint posterior learns a spectrum, and only its draws know of it
    joint = issubclass(registry.get(result.engine, Engine), Joint)
    learned = correlated and joint and result.options.get("prior") == "spectral"
    if learned:
        rings = [frc(result.object, result.object + x, size, lit, TAPER) for x in errors]
        frequency, rows = rings[0].frequency, np.array([r.correlation for r in rings])
    else:
        whole = frc(result.object, result.object, size, lit, TAPER)
        frequency = whole.frequency
        power = _rings(result.object, lit, size, len(frequency))
        share = [_rings(x, lit, size, len(frequency)) / np.maximum(power, 1e-300) for x in errors]
        rows = np.sqrt(np.clip(1 - np.array(share), 0, 1))
    rows = np.nan_to_num(rows)
    mean = rows.mean(axis=0)
    found = [_crossings(frequency, mean, rows, level) for level in (HALF, ONE_BIT)]
    return Resolution(
        frequency=frequency,
        correlation=spread_of(mean, rows - mean, correlated),
        half=found[0][0],
        half_interval=found[0][1],
        one_bit=found[1][0],
        one_bit_interval=found[1][1],
        nyquist_limited=bool(found[0][0] == 1 / frequency[-1]),
        unit="px" if size is None else "m",
    )


def _crossings(
    frequency: FloatArray, mean: FloatArray, rows: FloatArray, level: float
) -> tuple[float, tuple[float, float]]:
    """Period at which the mean curve falls below a level, and the interval from the scatter of the
    draws.
    """
    threshold = np.full(len(frequency), level)
    centre = crossing(frequency, mean, threshold)
    others = np.array([crossing(frequency, row, threshold) for row in rows])
    bar = factor(len(rows)) * math.sqrt(float(((others - centre) ** 2).mean()))
    low, high = min(centre + bar, float(frequency[-1])), max(centre - bar, 0.0)
    return _period(centre), (_period(low), _period(high))


def _period(frequency: float) -> float:
    return 1 / frequency if frequency > 0 else math.inf


def _rings(
    field: ComplexArray, lit: BoolArray, size: tuple[float, float] | None, rings: int
) -> FloatArray:
    """Power by rings, windowed as `frc` does it."""
    box = bounding_box(lit)
    window = soft_window(lit[box], TAPER)
    picture = np.where(window > 0, field[box], 0)
    picture = (picture - (window * picture).sum() / window.sum()) * window
    (h, w), (dy, dx) = picture.shape, size or (1.0, 1.0)
    f = np.hypot(np.fft.fftfreq(h, dy)[:, None], np.fft.fftfreq(w, dx))
    ring = np.rint(f / max(1 / (h * dy), 1 / (w * dx))).astype(int).ravel()
    return np.asarray(np.bincount(ring, (np.abs(np.fft.fft2(picture)) ** 2).ravel())[1 : rings + 1])
