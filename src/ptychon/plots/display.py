"""From complex fields to what an eye can read.

Phases are shown with the ramp and the offset taken off that the data do not determine, O exp(-i(k.r
+ phi)): k is where |sum w O exp(-i k.r)| is greatest, refined by a plane through the phases that
deviates least from them in absolute value (features do not tilt the background), and phi puts the
cut of the phase, +-pi, where their histogram is emptiest. If nothing is there, the phase does not
wrap.

Complex fields are drawn in Oklab (B. Ottosson, 2020): lightness is the amplitude, hue the phase, at
a chroma that all hues reach, so that amplitudes are read rightly in grey and by any eye.
"""

from __future__ import annotations

import math

import numpy as np

from ..metrics.registration import bounding_box, phase_ramp
from ..types import ComplexArray, FloatArray, PtychonError

#: Lightness and chroma of the brightest colour in Oklab; every hue of them lies within sRGB.
LIGHTNESS, CHROMA = 0.75, 0.12


def remove_ramp(object: ComplexArray, weights: FloatArray | None = None) -> ComplexArray:
    """The object without the phase ramp that explains most of it, and with the phase of its
    weighted mean at zero.

    Parameters
    ----------
    object : (H, W) complex
    weights : (H, W) float or bool, optional
        How much each pixel counts.

    Returns
    -------
    (H, W) complex128
    """
    field = np.asarray(object, np.complex128)
    w = np.ones(field.shape) if weights is None else np.asarray(weights, float)
    if w.shape != field.shape:
        raise PtychonError(f"the weights have shape {w.shape}; the object is {field.shape}")
    field = np.where(np.isfinite(field), field, 0)
    if not (field * w).any():
        return field
    box = bounding_box(w != 0)
    ky, kx = phase_ramp((field * w)[box])
    y, x = (np.exp(-1j * k * np.arange(n)) for k, n in zip((ky, kx), field.shape, strict=True))
    field = field * (y[:, None] * x)
    inside = (w > 0) & (field != 0)
    offset, wraps = phase_cut(np.angle(field[inside]))
    if not wraps:
        # a phase of its own that lies to one side drags the ramp with it; least absolute deviations
        # do not see it
        rows, cols = np.nonzero(inside)
        phase = np.angle(field[inside] * np.exp(-1j * offset))
        plane = np.stack([rows - rows.mean(), cols - cols.mean(), np.ones(len(rows))], axis=1)
        weight = w[inside]
        fit = np.zeros(3)
        for _ in range(20):
            by = plane * weight[:, None]
            fit = np.linalg.lstsq(by.T @ plane, by.T @ phase, rcond=None)[0]
            weight = w[inside] / (np.abs(phase - plane @ fit) + 0.02)
        y, x = (np.exp(-1j * k * np.arange(n)) for k, n in zip(fit[:2], field.shape, strict=True))
        field = field * (y[:, None] * x)
    mean = complex((field * w).sum())
    return np.asarray(field * (mean.conjugate() / abs(mean) if mean else 1.0))


def phase_cut(phases: FloatArray) -> tuple[float, bool]:
    """The offset that moves the emptiest stretch of some phases to +-pi, and whether even that is
    inhabited.
    """
    bins, width = 90, 9
    counts = np.histogram(phases, bins, (-np.pi, np.pi))[0].astype(float)
    spread = np.convolve(
        np.concatenate([counts[-(width // 2) :], counts, counts[: width // 2]]),
        np.ones(width),
        "valid",
    )
    # the middle of the emptiest run, which may go around the circle
    empty = spread <= spread.min()
    z = np.exp(2j * np.pi * (np.arange(bins) + 0.5) / bins)
    runs = np.split(np.arange(bins), np.flatnonzero(np.diff(empty.astype(int))) + 1)
    runs = [r for r in runs if empty[r[0]]]
    if len(runs) > 1 and empty[0] and empty[-1]:
        runs = [*runs[1:-1], np.concatenate([runs[-1], runs[0]])]
    longest = max(runs, key=len)
    middle = z[longest[(len(longest) - 1) // 2]]
    wraps = bool(spread.min() > 0.05 * width * counts.mean())
    # exp(2 pi i b/bins) runs from 0, the histogram from -pi: the cut is at angle(middle) - pi, the
    # offset pi further
    return float(np.angle(middle)), wraps


def complex_rgb(field: ComplexArray, top: float | None = None) -> FloatArray:
    """A complex field in colours: lightness is |field|/top, hue its phase.

    Parameters
    ----------
    field : (..., H, W) complex
    top : float, optional
        Amplitude of full lightness; the largest one by default.

    Returns
    -------
    (..., H, W, 3) float64
        sRGB in [0, 1].
    """
    amplitude = np.abs(field)
    top = float(amplitude.max(initial=0)) if top is None else float(top)
    level = np.clip(amplitude / top, 0, 1) if top > 0 else np.zeros(amplitude.shape)
    # zero phase is a warm red-orange, as in most pictures of wave fields
    hue = np.angle(field) + math.radians(30)
    a, b = CHROMA * np.cos(hue), CHROMA * np.sin(hue)
    cone = np.stack(
        [
            LIGHTNESS + 0.3963377774 * a + 0.2158037573 * b,
            LIGHTNESS - 0.1055613458 * a - 0.0638541728 * b,
            LIGHTNESS - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    linear = (cone * level[..., None]) ** 3 @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    linear = np.clip(linear, 0, 1)
    return np.asarray(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )
