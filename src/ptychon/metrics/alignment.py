"""Comparing two objects modulo the ambiguities of ptychography.

With the probe known, the object is determined up to a constant phase. With the probe unknown, O and
P may become

    c exp(i k.r) O(r - s)   and   (1/c) exp(-i k.r) P(r - s)

without any change of the intensities: a complex factor c, a phase ramp k and a translation s of
both (Guizar-Sicairos & Fienup, Opt. Express 16, 7264 (2008)). `align` undoes the three. In the near
field the data tell s, and `max_shift=0` keeps it in the error. For given s and k the best factor is
a least-squares one and leaves

    ||T||^2 - |A|^2/||E_s||^2,    A(s, k) = sum_r T*(r) E(r + s) exp(-i k.r),

T the truth and E the estimate, all sums over the region compared; see
`ptychon.metrics.registration` for the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy

from ..types import BoolArray, ComplexArray, PtychonError
from .registration import Search, known, plane, translate

__all__ = ["Alignment", "Region", "align", "inside_region", "phase_align", "pmse"]

#: What is compared: a crop, a boolean picture, or (None) everything.
Region: TypeAlias = tuple[slice, slice] | BoolArray | None


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How an estimate lies on a truth: estimate(r) ~ scale exp(i ramp.(r - shift - centre)) truth(r
    - shift).

    Attributes
    ----------
    estimate : (H, W) complex128
        The estimate with all that undone; 0 where it would have to be known outside its grid.
    shift : (y, x) float
        Pixels.
    ramp : (y, x) float
        Radians a pixel, in (-pi, pi].
    scale : complex
    error_db : float
        10 log10(||truth||^2/||aligned - truth||^2) on the region; inf where they are equal.
    """

    estimate: ComplexArray
    shift: tuple[float, float]
    ramp: tuple[float, float]
    scale: complex
    error_db: float

    def apply(self, object: ComplexArray) -> ComplexArray:
        """The same transform of another object (H, W)."""
        moved = translate(object, self.shift)
        return np.asarray(moved * plane(moved.shape, self.ramp, -1) / self.scale)

    def apply_probe(self, probe: ComplexArray) -> ComplexArray:
        """The transform of the probe (K, P, Q) or (P, Q) that goes with it: inverse scale and ramp,
        same shift.

        Object and probe transformed give the intensities they gave before. Probes live on the
        periodic grid of the FFT: what leaves on one side comes in on the other.
        """
        y, x = (
            np.exp(2j * np.pi * np.fft.fftfreq(n) * s)
            for n, s in zip(probe.shape[-2:], self.shift, strict=True)
        )
        if all(float(s).is_integer() for s in self.shift):
            moved = np.roll(probe, [-int(s) for s in self.shift], axis=(-2, -1))
        else:
            moved = scipy.fft.ifft2(scipy.fft.fft2(probe) * (y[:, None] * x))
        return np.asarray(moved * plane(probe.shape[-2:], self.ramp, +1) * self.scale)


def phase_align(estimate: ComplexArray, truth: ComplexArray, region: Region = None) -> ComplexArray:
    """estimate exp(-i phi) with phi = arg <truth, estimate> on the region: only the global phase is
    removed.

    Parameters
    ----------
    estimate, truth : (H, W) complex
    region : pair of slices or (H, W) bool array, optional

    Returns
    -------
    (H, W) complex128
    """
    estimate, truth, inside = _checked(estimate, truth, region)
    inner = complex(np.vdot(truth[inside], estimate[inside]))
    return np.asarray(estimate * (inner.conjugate() / abs(inner) if inner else 1.0))


def pmse(estimate: ComplexArray, truth: ComplexArray, region: Region = None) -> float:
    """Phase-aligned error, dB: 10 log10(||O||^2/||O_hat exp(-i phi) - O||^2), phi = arg <O, O_hat>;
    larger is better.

    Parameters
    ----------
    estimate, truth : (H, W) complex
    region : pair of slices or (H, W) bool array, optional
        Where both are compared; everywhere by default.

    Returns
    -------
    float
        inf where they are equal up to the phase.

    Raises
    ------
    PtychonError
        If shapes disagree, the region is empty, or the truth vanishes on it.
    """
    aligned = phase_align(estimate, truth, region)
    _, truth, inside = _checked(aligned, truth, region)
    return _decibel(aligned[inside], truth[inside])


def align(
    estimate: ComplexArray,
    truth: ComplexArray,
    *,
    region: Region = None,
    max_shift: int = 16,
    ramp: bool = True,
    scale: bool = True,
    subpixel: bool = False,
) -> Alignment:
    """Remove translation, phase ramp and factor from an estimate, as far as the truth tells.

    Parameters
    ----------
    estimate, truth : (H, W) complex
    region : pair of slices or (H, W) bool array, optional
        Pixels of `truth` that are compared, less those that the shifted estimate does not know
        (none, if the region leaves `max_shift` px of margin).
    max_shift : int
        Largest translation looked for in y and in x (px); 0 looks for none. In the near field the
        data tell where the object is, so that a translation is an error: give 0 to see it
        (`metrics.ambiguities.free_shift`).
    ramp : bool
        Remove a phase ramp of any slope.
    scale : bool
        Remove a complex factor; False removes its phase only.
    subpixel : bool
        Refine the translation to a fraction of a pixel, by Fourier interpolation.

    Returns
    -------
    Alignment

    Raises
    ------
    PtychonError
        If shapes disagree, numbers are not finite, the region is empty, or either picture vanishes
        on it.
    """
    estimate, truth, inside = _checked(estimate, truth, region)
    if max_shift < 0:
        raise PtychonError(f"max_shift is {max_shift}; it must be 0 or more pixels")
    search = Search(estimate, truth, inside, int(max_shift), ramp)
    shift, slope = search.whole()
    if subpixel:
        shift, slope = search.fraction(shift, slope)
    moved = translate(estimate, shift) * plane(truth.shape, slope, -1)
    inside = inside & known(truth.shape, shift)
    factor = complex(np.vdot(moved[inside], truth[inside]))
    if factor == 0:
        raise PtychonError(
            "the estimate is zero, or has nothing in common with the truth, on the region compared"
        )
    factor /= float(np.linalg.norm(moved[inside])) ** 2 if scale else abs(factor)
    moved = moved * factor
    return Alignment(
        estimate=moved,
        shift=shift,
        ramp=slope,
        scale=1 / factor,
        error_db=_decibel(moved[inside], truth[inside]),
    )


def inside_region(region: Region, shape: tuple[int, ...]) -> BoolArray:
    """A region as a boolean picture of `shape`; PtychonError if it does not fit or is empty."""
    inside = np.zeros(shape, bool)
    if region is None:
        inside[:] = True
    elif isinstance(region, tuple):
        inside[region] = True
    else:
        mask = np.asarray(region)
        if mask.shape != shape or mask.dtype != bool:
            raise PtychonError(
                f"the region is {mask.dtype} {mask.shape}; it must be two slices or bool {shape}"
            )
        inside = mask
    if not inside.any():
        raise PtychonError(f"the region to compare holds no pixel of a {shape} picture")
    return inside


def _checked(
    estimate: Any, truth: Any, region: Region
) -> tuple[ComplexArray, ComplexArray, BoolArray]:
    estimate, truth = np.asarray(estimate), np.asarray(truth)
    if estimate.ndim != 2 or estimate.shape != truth.shape:
        raise PtychonError(
            f"cannot compare pictures of shapes {estimate.shape} and {truth.shape}: both must "
            "be (H, W)"
        )
    inside = inside_region(region, truth.shape)
    estimate, truth = estimate.astype(np.complex128), truth.astype(np.complex128)
    if not (np.isfinite(estimate).all() and np.isfinite(truth[inside]).all()):
        raise PtychonError("a picture to be compared has values that are not finite")
    if not truth[inside].any():
        raise PtychonError("the truth is zero on the whole region compared")
    return estimate, np.where(np.isfinite(truth), truth, 0), inside


def _decibel(aligned: ComplexArray, truth: ComplexArray) -> float:
    error = float(np.linalg.norm(aligned - truth))
    return 20 * math.log10(float(np.linalg.norm(truth)) / error) if error else math.inf
