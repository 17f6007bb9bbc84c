"""The numbers of a report: what the data say of a reconstruction, frame by frame and pixel by
pixel.

    R_j^2  = sum_pixels (|model| - y)^2/sum y^2          of frame j, y = sqrt(counts)
    noise  = sum e(|model|^2)/sum y^2,  e(m) = E (sqrt n - sqrt m)^2 for n ~ Poisson(m)
    flat   = least R^2 of the same probe behind an object without features

R is to be seen between the last two: at the noise nothing is left to explain; near the value
without an object, R tells nothing of the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.residual import residual_without_object
from ..metrics.smoothed import Smoothed
from ..model.noise import noise_of
from ..model.problem import Problem
from ..model.simulated import _blocks, model_of
from ..types import FloatArray, IntArray, PtychonError

#: A frame is bad from this many robust standard deviations and this factor above the median on.
BAD_DEVIATIONS, BAD_FACTOR = 6.0, 1.15


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a result fits its data.

    Attributes
    ----------
    residual : float
        R over all frames.
    per_frame : (N,) float64
        R of each frame; NaN without signal.
    bad : (M,) int
        Frames whose R stands out.
    per_pixel : (P, Q) float64
        sqrt(mean (|model| - y)^2) of each detector pixel, sqrt(counts); NaN where masked. Zero
        frequency in the middle.
    bias : (P, Q) float64
        mean (y - E y), with E sqrt n of counts in place of |model|; positive where the model has
        too little light.
    noise : float or None
        R that counting noise alone would give; None where the data are not counts.
    flat : float
        R of the same probe with no object.
    sampling_ratio : float
        Measurements for each unknown of the object.
    counts : float
        Mean of a frame.
    smooth : float or None
        Share of the misfit by which frames are smoother than the model; None where they are not.
    """

    residual: float
    per_frame: FloatArray
    bad: IntArray
    per_pixel: FloatArray
    bias: FloatArray
    noise: float | None
    flat: float
    sampling_ratio: float
    counts: float
    smooth: float | None = None


def fit(problem: Problem, result: Result, backend: Any) -> Fit:
    """Compare the model of a result with the data, in one pass.

    Parameters
    ----------
    problem : Problem
        On the host.
    result : Result
    backend : Backend

    Raises
    ------
    PtychonError
        If the result is not of these data.
    """
    if len(result.positions) != len(problem) or result.object.shape != tuple(problem.field_shape):
        raise PtychonError(
            f"the data now give {len(problem)} frames on an object of {problem.field_shape}; "
            "the result has "
            f"{len(result.positions)} on {result.object.shape}: "
            "give the data as the result read them (frames, crop, bin)"
        )
    P, Q = problem.frame_shape
    error, bias, seen = np.zeros((P, Q)), np.zeros((P, Q)), np.zeros((P, Q))
    misfit, signal = np.zeros(len(problem)), np.zeros(len(problem))
    statistics, noise, smooth = noise_of(problem), 0.0, Smoothed()
    for part in _blocks(len(problem), len(result.probe) * P * Q):
        model = model_of(problem, result.object, result.probe, part, backend)
        y = np.asarray(problem.amplitude[part], np.float64)
        valid = np.broadcast_to(problem.mask_of(part), y.shape)
        difference = np.where(valid, y - model, 0.0)
        y = np.where(valid, y, 0.0)
        misfit[part], signal[part] = (difference**2).sum(axis=(1, 2)), (y**2).sum(axis=(1, 2))
        smooth.add(np.square(model, dtype=np.float64), y * y, valid)
        error += (difference**2).sum(axis=0)
        seen += valid.sum(axis=0)
        if statistics.kind == "amplitude":
            bias += difference.sum(axis=0)
        else:
            square, root = statistics.root_moments(model)
            bias += np.where(valid, y - root, 0).sum(axis=0)
            noise += float(np.where(valid, square, 0).sum())
    total = float(signal.sum())
    if not total > 0:
        raise PtychonError("the frames hold no signal in their valid pixels")
    per_frame = np.sqrt(
        np.divide(misfit, signal, out=np.full(len(problem), np.nan), where=signal > 0)
    )

    def picture(sums: FloatArray) -> FloatArray:
        mean = np.divide(sums, seen, out=np.full((P, Q), np.nan), where=seen > 0)
        return np.fft.fftshift(mean) if problem.propagator.transfer is None else mean

    return Fit(
        residual=math.sqrt(float(misfit.sum()) / total),
        per_frame=per_frame,
        bad=outliers(per_frame),
        per_pixel=np.sqrt(picture(error)),
        bias=picture(bias),
        noise=math.sqrt(noise / total) if statistics.kind == "poisson" else None,
        flat=residual_without_object(problem, result.probe, backend),
        sampling_ratio=len(problem) * P * Q / max(1, int(result.illuminated.sum())),
        counts=total / len(problem),
        smooth=smooth.shares[0] if smooth.tells and problem.weights is None else None,
    )


def outliers(values: FloatArray) -> IntArray:
    """Indices of values far above the others, worst first."""
    good = values[np.isfinite(values)]
    if not good.size:
        return np.zeros(0, int)
    middle = float(np.median(good))
    spread = max(1.4826 * float(np.median(np.abs(good - middle))), 1e-12)
    high = (values > middle + BAD_DEVIATIONS * spread) & (values > BAD_FACTOR * middle)
    index: IntArray = np.flatnonzero(high)
    return index[np.argsort(-values[index], kind="stable")]


def phase_error_bar(result: Result) -> FloatArray | None:
    """Error bar of the phase (rad), (H, W): std/(sqrt 2 |O|), half of a circular error being
    tangential; near darkness half the width that holds 68.3 % (see `uncertainty.amplitude`).
    """
    from ..uncertainty.amplitude import bars

    if result.object_std is None:
        return None
    half = np.asarray(result.object_std, np.float64) ** 2 / 2
    return bars(half, half, result.object)["phase_std"]


def power_spectrum(result: Result) -> tuple[FloatArray, FloatArray]:
    """Frequency (cycles/px or /m) and mean |spectrum|^2 of rings, of the illuminated object without
    its mean.
    """
    from ..metrics.frc import soft_window
    from ..metrics.registration import bounding_box
    from ..plots.display import remove_ramp

    lit = result.illuminated
    lit = lit if lit.any() else np.ones(lit.shape, bool)
    box = bounding_box(lit)
    window = soft_window(lit[box], 0.1)
    picture = remove_ramp(result.projection, lit.astype(float))[box]
    picture = (picture - (window * picture).sum() / window.sum()) * window
    spectrum = np.abs(np.fft.fft2(picture)) ** 2 / max(float((window**2).sum()), 1e-300)
    dy, dx = (1.0, 1.0) if result.pixel_size is None else result.pixel_size
    f = np.hypot(
        np.fft.fftfreq(picture.shape[0], dy)[:, None], np.fft.fftfreq(picture.shape[1], dx)
    )
    width = max(1 / (picture.shape[0] * dy), 1 / (picture.shape[1] * dx))
    ring = np.rint(f / width).astype(int).ravel()
    rings = int(0.5 / max(dy, dx) / width + 1e-9)
    sums, samples = (
        np.bincount(ring, w, rings + 1)[1 : rings + 1]
        for w in (spectrum.ravel(), np.ones(ring.size))
    )
    return width * np.arange(1, rings + 1), sums / np.maximum(samples, 1)
