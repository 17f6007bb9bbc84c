"""Bars that are widened octave by octave: factors as smooth as what is known of them allows, and
draws that are filtered by these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from ..types import COMPLEX, REAL, FloatArray, PtychonError
from .amplitude import NOTHING
from .half_data_record import HalfDataTest
from .posterior import Posterior
from .spectrum import PERIODS

#: Standard deviation (px) of the window over which powers of draws are compared.
LOCAL = 8.0
#: Standard deviation of second differences of ln T by octaves.
BEND = 0.7
#: Bars, over those of 95 % of the lit pixels, above which errors are not filtered.
LARGEST = 1.5


def factors_of(test: HalfDataTest) -> tuple[float, ...]:
    """T of each octave, as smooth as what is known of it allows.

    ln T is fitted by least squares, each octave with the scatter of T by chance, with second
    differences that have a standard deviation of `BEND`: octaves of few frequencies lean on a power
    law through their neighbours. An octave without any has that of the next finer one.

    Raises
    ------
    PtychonError
        If there is none at all.
    """
    T, chance = np.array(test.rough), np.array(test.chance)
    known = np.isfinite(T) & (T > 0) & np.isfinite(chance) & (chance > 0)
    n = int(known.sum())
    if n < 3:
        return filled(test.by_period)
    bend = np.diff(np.eye(n), 2, axis=0) / BEND
    weights = 1 / chance[known]
    rows = np.concatenate([np.diag(weights), bend])
    wanted = np.concatenate([weights * np.log(T[known]), np.zeros(n - 2)])
    smooth = np.full(len(T), np.nan)
    smooth[known] = np.exp(np.linalg.lstsq(rows, wanted)[0])
    return filled(smooth.tolist())


def filled(factors: Sequence[float]) -> tuple[float, ...]:
    """T of each octave, those that are not told being that of the next finer one that is.

    Raises
    ------
    PtychonError
        If none is told.
    """
    known = [T for T in factors if np.isfinite(T) and T > 0]
    if not known:
        raise PtychonError(
            "halves of the data tell of no octave of periods how far they differ: the lit region "
            "is too small"
        )
    out: list[float] = []
    for T in reversed(list(factors)):
        out.append(float(T) if np.isfinite(T) and T > 0 else (out[-1] if out else known[-1]))
    return tuple(reversed(out))


def gains(shape: tuple[int, int], factors: Sequence[float]) -> FloatArray:
    """sqrt T of each spatial frequency of a picture, (H, W)."""
    y, x = (np.fft.fftfreq(n) for n in shape)
    k = np.hypot(y[:, None], x)
    edges = [1 / period for period in PERIODS[1:-1]]
    return np.asarray(np.sqrt(np.asarray(filled(factors))[np.digitize(k, edges, right=True)]))


def widened(posterior: Posterior, by: HalfDataTest | Sequence[float]) -> Posterior:
    """A posterior about its optimum with the discrepancy of each octave of periods.

    Parameters
    ----------
    posterior : Posterior
        With draws of the error.
    by : HalfDataTest or sequence of float
        T of the octaves of `PERIODS`; NaN where it is not told.

    Raises
    ------
    PtychonError
        Without draws, or without any factor.
    """
    draws = posterior.draws
    factors = by.factors or factors_of(by) if isinstance(by, HalfDataTest) else filled(by)
    if draws is None:
        raise PtychonError("error bars without draws cannot be widened by spatial frequency")
    gain = gains(draws.shape[1:], factors)
    # where there is next to no light, errors are what the prior allows; they are not let into what
    # is lit
    most = LARGEST * float(np.quantile(posterior.object_std[posterior.region], 0.95))
    share = np.minimum(1, most / np.maximum(posterior.object_std, 1e-30))
    rest = float(np.sqrt(np.mean(gain**2)))
    new = np.empty_like(draws)
    for s, draw in enumerate(draws):
        filtered = scipy.fft.ifft2(gain * scipy.fft.fft2(share * draw))
        new[s] = (filtered + rest * (1 - share) * draw).astype(COMPLEX)
    before, after = (_power(d, posterior.region) for d in (draws, new))
    ratio = np.sqrt(after / np.maximum(before, 1e-30))
    stds = {
        name: (getattr(posterior, name) * ratio).astype(REAL)
        for name in ("object_std", "amplitude_std", "phase_std")
    }
    stds["phase_std"] = np.minimum(stds["phase_std"], REAL.type(NOTHING))
    facts = posterior.conditional
    if isinstance(by, HalfDataTest):
        facts = (*facts, fact(by))
    return replace(posterior, draws=new, widened=tuple(factors), conditional=facts, **stds)


def _power(draws: Any, region: Any) -> FloatArray:
    """Power of draws, smooth over a few pixels of the region."""
    power = np.zeros(region.shape)
    for draw in draws:
        power += np.abs(draw).astype(np.float64) ** 2
    inside = gaussian_filter(np.where(region, power, 0.0), LOCAL)
    weight = gaussian_filter(region.astype(np.float64), LOCAL)
    found = inside / np.maximum(weight, 1e-6)
    mean = float(power[region].mean())
    return np.asarray(np.where(weight > 1e-3, found, mean))


def fact(test: HalfDataTest) -> str:
    """What a reader has to know of bars that are widened by a test."""
    periods = ["above 32 px", "32 to 16", "16 to 8", "8 to 4", "4 to 2"]
    parts = [
        f"{T**0.5:.2g} ({name})"
        for T, name in zip(test.factors or factors_of(test), periods, strict=True)
    ]
    how = f"{test.splits} splits of the data in two" if test.splits > 1 else "two halves"
    return f"bars times {', '.join(parts)}: the disagreement of {how} by {test.kind}"
