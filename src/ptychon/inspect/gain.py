"""Dark level, read noise and gain of an integrating detector, from the frames themselves.

    dark level  where the values of the darkest pixels gather; their spread below it is the read
    noise, since what comes on
                top of it comes from the wave
    gain        the distance of the peaks that zero, one, two electrons (or photons) make, where the
                noise leaves them apart;
                else from variance = noise^2 + gain (mean - level) + (what the scan changes)^2 of
                dim pixels

They are estimates, to be suggested and not to be applied unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import BoolArray, FloatArray

#: Share of the pixels that are taken to be dark, the darkest ones.
DARKEST = 0.1
#: Values that make a peak.
EVENTS = 200
#: Mean cosine of the phases of values between peaks, above which there are peaks: noise below an
#: eighth of the gain.
PEAKED = 0.5
#: Groups of pixels of about the same brightness.
_GROUPS = 8


@dataclass(frozen=True)
class Levels:
    """What an integrating detector shows.

    Attributes
    ----------
    dark : float
        Units of the detector in pixels without signal.
    noise : float
        Standard deviation about it, units of the detector.
    gain : float or None
        Units of the detector per electron or photon.
    peaks : bool
        Whether the gain is the distance of peaks, rather than variance over mean.
    """

    dark: float
    noise: float
    gain: float | None = None
    peaks: bool = False


def find_levels(frames: Any, valid: BoolArray | None = None) -> Levels | None:
    """Dark level, read noise and gain; None where no pixels are dark or they have no noise.

    Parameters
    ----------
    frames : (S, P, Q) array
        In the far field, as neighbouring frames of near-field images have no dark pixels.
    valid : (S, P, Q) or (P, Q) bool array, optional
        True where a value is a measurement.
    """
    values = np.asarray(frames, np.float64)
    if valid is not None:
        values = np.where(valid, values, np.nan)
    values = values.reshape(len(values), -1)
    values = values[:, np.isfinite(values).all(axis=0)]
    if len(values) < 8 or values.shape[1] < 100:
        return None
    # pixels are chosen by one half of the frames and measured in the other, so that the choice
    # shifts nothing
    chosen, measured = values[::2].mean(axis=0), values[1::2]
    order = np.argsort(chosen)
    found = _dark_level(measured[:, order[: max(20, int(DARKEST * len(order)))]])
    if found is None:
        return None
    level, noise = found
    gain = _from_peaks(values[:, order[: max(20, len(order) // 2)]], level, noise)
    if gain is not None:
        return Levels(level, noise, gain, True)
    return Levels(level, noise, _from_variance(chosen, measured, level, noise))


def _dark_level(dark: FloatArray) -> tuple[float, float] | None:
    """Level and noise of dark values (S, M), if the values below the level are those of Gaussian
    noise.
    """
    flat = dark.ravel()
    whole = bool((flat == np.rint(flat)).all())
    if whole:  # half of the values at the level lie below it
        flat = flat + np.random.default_rng(0).uniform(-0.5, 0.5, flat.size)
    level = float(np.median(flat))
    noise = level - float(np.quantile(flat, 0.1587))
    for _ in range(10):
        if not noise > 0:
            return None
        near = flat[np.abs(flat - level) < 1.5 * noise]
        below = flat[(flat < level) & (flat > level - 5 * noise)]
        if len(near) < 50 or len(below) < 50:
            return None
        level, noise = float(near.mean()), float(np.sqrt(np.mean((below - level) ** 2)))
    under = level - flat[flat < level]
    share = len(under) / len(flat)
    # of Gaussian noise 32 % and 5 % lie beyond one and two standard deviations; a hard edge at zero
    # has none beyond
    beyond = float(np.mean(under > noise)), float(np.mean(under > 2 * noise))
    if not (0.1 < share < 0.65 and 0.2 < beyond[0] < 0.45 and 0.02 < beyond[1] < 0.1):
        return None
    return level, float(np.sqrt(max(noise**2 - whole / 12, 0))) or noise


def _from_peaks(values: FloatArray, level: float, noise: float) -> float | None:
    """Distance of the peaks of few electrons: where the phases 2 pi (value - level)/gain agree."""
    above = values[values > level + 4 * noise] - level
    if len(above) < EVENTS:
        return None
    candidates = np.geomspace(8 * noise, max(float(np.quantile(above, 0.95)), 8.1 * noise), 1200)
    agreement = np.full(len(candidates), -1.0)
    for k, gain in enumerate(candidates):
        few = above[(above > 0.5 * gain) & (above < 4.5 * gain)]
        if len(few) > max(EVENTS, 0.3 * len(above)):
            agreement[k] = np.cos(2 * np.pi * few / gain).mean()
    if agreement.max() < PEAKED:
        return None
    best = np.flatnonzero(agreement > 0.9 * agreement.max())[
        -1
    ]  # a half and a third of the distance agree as well
    low = max(0, best - 40)
    gain = float(candidates[low + np.argmax(agreement[low : best + 1])])
    few = above[(above > 0.5 * gain) & (above < 4.5 * gain)]
    number = np.rint(few / gain)
    return float((few @ number) / (number @ number))


def _from_variance(
    chosen: FloatArray, measured: FloatArray, level: float, noise: float
) -> float | None:
    """Gain from variance = noise^2 + gain e + c e^2 of the mean e above the level, in groups of
    pixels.
    """
    lit = np.flatnonzero(chosen > level + 5 * noise / np.sqrt(len(measured)))
    if len(lit) < 20 * _GROUPS:
        return None
    lit = lit[np.argsort(chosen[lit])]
    excess, ratio, error = [], [], []
    for group in np.array_split(lit[: int(0.9 * len(lit))], _GROUPS):
        e = measured[:, group].mean(axis=0) - level
        v = measured[:, group].var(axis=0, ddof=1) - noise**2
        if not e.mean() > 0:
            return None
        excess.append(e.mean())
        ratio.append(v.mean() / e.mean())
        error.append(v.std() / np.sqrt(len(group)) / e.mean())
    weight = 1 / np.maximum(error, 1e-3 * np.abs(ratio).max() + 1e-12)
    design = np.column_stack([np.ones(_GROUPS), excess])
    inverse = np.linalg.inv((design * weight[:, None] ** 2).T @ design)
    gain = float((inverse @ (design * weight[:, None] ** 2).T @ ratio)[0])
    return gain if gain > 4 * float(np.sqrt(inverse[0, 0])) else None
