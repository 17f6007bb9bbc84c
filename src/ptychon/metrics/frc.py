"""Fourier ring correlation: down to which detail two independent pictures of the same object agree.

    FRC(q) = Re sum A(f) B*(f) / sqrt(sum |A(f)|^2 sum |B(f)|^2),    sums over the ring |f| ~ q,

A and B being the spectra of the two pictures, apodised softly. It is compared with the curves that
a signal-to-noise ratio of 0.2071 (half a bit of information a pixel in the mean of both) or 0.5
(one bit) gives on a ring of n samples:

    half bit  (0.2071 + 1.9102/sqrt n)/(1.2071 + 0.9102/sqrt n)
    one bit   (0.5 + 2.4142/sqrt n)/(1.5 + 1.4142/sqrt n)

(van Heel & Schatz, J. Struct. Biol. 151, 250 (2005)). n is the number of samples of a ring times
(sum w^2)^2/(M sum w^4), the share of them that the window w, on a crop of M pixels, leaves
independent. The resolution is the period 1/q at which the correlation falls below its curve for the
first time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ..types import ComplexArray, FloatArray, PtychonError
from .alignment import Region, inside_region
from .registration import bounding_box

#: Distance (px) up to which shifting arrays measures it in less time than importing ndimage takes.
NEAR = 32


@dataclass(frozen=True, kw_only=True)
class RingCorrelation:
    """Fourier ring correlation of two pictures.

    Attributes
    ----------
    frequency : (R,) float64
        Cycles a pixel, or a metre if a pixel size was given; up to Nyquist.
    correlation : (R,) float64
        In [-1, 1]; NaN on a ring without power.
    samples : (R,) float64
        Independent Fourier samples of each ring.
    half_bit, one_bit : (R,) float64
        Threshold curves.
    resolution, resolution_one_bit : float
        Full period (px or m) at which the correlation falls below the curve; inf where it is
        nowhere above it.
    nyquist_limited : bool
        True where the correlation stays above the half-bit curve: the resolution is then the two
        pixels of Nyquist.
    unit : {"px", "m"}
    """

    frequency: FloatArray
    correlation: FloatArray
    samples: FloatArray
    half_bit: FloatArray
    one_bit: FloatArray
    resolution: float
    resolution_one_bit: float
    nyquist_limited: bool
    unit: str


def frc(
    a: ComplexArray | FloatArray,
    b: ComplexArray | FloatArray,
    pixel_size: float | tuple[float, float] | None = None,
    region: Region = None,
    taper: float = 0.1,
) -> RingCorrelation:
    """Fourier ring correlation of two pictures that lie on each other (see `align`, with
    ``subpixel=True``).

    Parameters
    ----------
    a, b : (H, W) complex or real
        Reconstructions from two halves of the data, say, or their phases.
    pixel_size : float or (dy, dx), optional
        Metres; frequencies are in cycles a pixel without it.
    region : pair of slices or (H, W) bool array, optional
        A boolean region is cut out at its bounding box and fades softly inside its own outline.
    taper : float
        Width of the soft edge as a share of the shorter side of the region, 0 (hard) to 0.5 (no
        flat part left).

    Returns
    -------
    RingCorrelation

    Raises
    ------
    PtychonError
        If shapes disagree, numbers are not finite, the region is narrower than 8 pixels, or a
        picture is flat.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 2 or first.shape != second.shape:
        raise PtychonError(
            f"cannot correlate pictures of shapes {first.shape} and {second.shape}: both must "
            "be (H, W)"
        )
    if not 0 <= taper <= 0.5:
        raise PtychonError(f"taper is {taper}; it must lie between 0 and 0.5 of the shorter side")
    inside = inside_region(region, first.shape)
    box = bounding_box(inside)
    window = soft_window(inside[box], taper)
    H, W = window.shape
    if min(H, W) < 8:
        raise PtychonError(f"the region is {H}x{W} px; a ring correlation needs at least 8x8")
    A, B = _spectrum(first[box], window), _spectrum(second[box], window)
    dy, dx = np.broadcast_to(
        np.asarray(1.0 if pixel_size is None else pixel_size, float), (2,)
    ).tolist()
    if not (min(dy, dx) > 0 and math.isfinite(dy * dx)):
        raise PtychonError(f"the pixel size is {pixel_size}; it must be positive")
    f = np.hypot(np.fft.fftfreq(H, dy)[:, None], np.fft.fftfreq(W, dx))
    width = max(1 / (H * dy), 1 / (W * dx))
    rings = int(0.5 / max(dy, dx) / width + 1e-9)
    ring = np.rint(f / width).astype(int).ravel()

    def total(x: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(ring, x.ravel())[1 : rings + 1])

    power = np.sqrt(total(np.abs(A) ** 2) * total(np.abs(B) ** 2))
    correlation = np.full(rings, np.nan)
    np.divide(total((A * B.conj()).real), power, out=correlation, where=power > 0)
    independent = float((window**2).sum()) ** 2 / (window.size * float((window**4).sum()))
    samples = np.maximum(total(np.ones(f.shape)) * independent, 1.0)
    root = 1 / np.sqrt(samples)
    half_bit = (0.2071 + 1.9102 * root) / (1.2071 + 0.9102 * root)
    one_bit = (0.5 + 2.4142 * root) / (1.5 + 1.4142 * root)
    frequency = width * np.arange(1, rings + 1)
    cross = crossing(frequency, correlation, half_bit)
    cross_one = crossing(frequency, correlation, one_bit)
    return RingCorrelation(
        frequency=frequency,
        correlation=correlation,
        samples=samples,
        half_bit=half_bit,
        one_bit=one_bit,
        resolution=1 / cross if cross else math.inf,
        resolution_one_bit=1 / cross_one if cross_one else math.inf,
        nyquist_limited=cross == frequency[-1],
        unit="px" if pixel_size is None else "m",
    )


def crossing(frequency: FloatArray, correlation: FloatArray, threshold: FloatArray) -> float:
    """Frequency at which a curve, once above its threshold, first falls below it; interpolated
    between two rings.

    The last frequency where it never falls; 0 where it never rises above. The first rings, of a few
    samples each, may lie below: slow phase variations are the least certain part of a
    reconstruction.
    """
    above = np.nan_to_num(correlation - threshold, nan=-1.0)
    first = int(np.argmax(above > 0))
    if above[first] <= 0:
        return 0.0
    below = np.flatnonzero(above[first:] <= 0)
    if not below.size:
        return float(frequency[-1])
    i = first + int(below[0])
    share = above[i - 1] / (above[i - 1] - above[i])
    return float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))


def soft_window(inside: Any, taper: float) -> FloatArray:
    """1 deep inside a boolean region (H, W), a raised cosine over its outermost `taper` of the
    shorter side.
    """
    edge = taper * min(inside.shape)
    if edge < 1:
        return np.asarray(inside, float)
    depth = _depth(np.pad(inside, 1), math.ceil(edge) + 1)[1:-1, 1:-1] - 0.5
    return np.where(inside, 0.5 - 0.5 * np.cos(np.pi * np.clip(depth / edge, 0, 1)), 0.0)


def _depth(inside: Any, most: int) -> FloatArray:
    """Distance (px) of each pixel of a region (H, W) to the nearest outside it; where it is more
    than `most`, at least that.
    """
    if most > NEAR:
        return np.asarray(scipy.ndimage.distance_transform_edt(inside))
    # along the columns, then across them; within so few pixels no slower than SciPy's import
    square = np.where(inside, float(most) ** 2, 0.0)
    for axis in (0, 1):
        square, before = square.copy(), np.moveaxis(square, axis, 0)
        after = np.moveaxis(square, axis, 0)
        for step in range(1, most + 1):
            np.minimum(after[step:], before[:-step] + step**2, out=after[step:])
            np.minimum(after[:-step], before[step:] + step**2, out=after[:-step])
    return np.sqrt(square)


def _spectrum(picture: Any, window: FloatArray) -> ComplexArray:
    lit = window > 0
    if not np.isfinite(picture[lit]).all():
        raise PtychonError("a picture to be correlated has values that are not finite")
    picture = np.where(lit, picture, 0)
    # without its mean, so that the window's own spectrum does not correlate the first rings
    picture = (picture - (window * picture).sum() / window.sum()) * window
    if float(np.abs(picture).max()) == 0:
        raise PtychonError("a picture to be correlated is flat")
    spectrum: ComplexArray = scipy.fft.fft2(picture)
    return spectrum
