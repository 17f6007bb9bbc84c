"""Error bars of whatever is computed from an object: profiles, differences, ratios. (For its
resolution see `resolution`.)

    f(m) is the value, f(m + x_s) - f(m) its error in draw s,    std^2 = mean_s [f(m + x_s) -
                                                                 f(m)]^2

m is the object and x_s are draws of its posterior error (`Result.draws`), which have the
correlations between pixels that variances have not: neighbours share their error, and a mean over n
pixels is less sure than std/sqrt n. A bar is std times Student's t for S draws, so that it holds
68.3 % however few there are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.stats import t as student

from ..data.result import Result
from ..data.slices import HALVES, must_be_thin
from ..types import BoolArray, ComplexArray, FloatArray, PtychonError, PtychonWarning

#: Share of all cases in which the truth lies within a bar.
CONFIDENCE = 0.683
#: Draws made of a standard deviation alone.
INDEPENDENT = 64

#: A disc (y, x, radius), in object pixels from pixel [0, 0], or any pixels as (H, W) bool.
Disc: TypeAlias = "tuple[float, float, float] | BoolArray"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value and its error bar.

    Attributes
    ----------
    value : (...) float64
        Of the object itself.
    std : (...) float64
        Root mean square error over the draws.
    bar : (...) float64
        value +- bar holds the truth in 68.3 % of cases.
    deviations : (S, ...) float64
        Error in each draw: for the correlations of several values.
    correlated : bool
        Whether the draws have the correlations between pixels; if not, bars of sums and means are
        too small or too large.
    """

    value: FloatArray
    std: FloatArray
    bar: FloatArray
    deviations: FloatArray
    correlated: bool

    @property
    def precision(self) -> float:
        """Relative standard error of `std` itself, from the number of draws."""
        return 1 / math.sqrt(2 * len(self.deviations))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Amplitude and phase along a straight line.

    Attributes
    ----------
    points : (M, 2) float64
        Object pixels (y, x) from pixel [0, 0].
    distance : (M,) float64
        From the first point, in `unit`.
    amplitude : Spread of (M,)
    phase : Spread of (M,)
        rad, unwrapped along the line.
    unit : {"px", "m"}
    """

    points: FloatArray
    distance: FloatArray
    amplitude: Spread
    phase: Spread
    unit: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two regions of an object.

    Attributes
    ----------
    phase : Spread
        arg <O>_a - arg <O>_b, rad, in (-pi, pi]; the bar is that of a circular difference, at most
        pi/sqrt 3 before Student.
    ratio : Spread
        <|O|>_a/<|O|>_b.
    first, second : Spread
        <|O|> of each.
    pixels : (int, int)
    """

    phase: Spread
    ratio: Spread
    first: Spread
    second: Spread
    pixels: tuple[int, int]


def draws_of(result: Result, seed: int = 0) -> tuple[ComplexArray, bool]:
    """Draws of the error of an object, and whether they have the correlations between pixels.

    Parameters
    ----------
    result : Result
        With `draws`, or with `object_std` alone: then every pixel has an error of its own, and a
        warning says so.
    seed : int
        Of the latter.

    Returns
    -------
    ((S, H, W) complex64, bool)

    Raises
    ------
    PtychonError
        If the result has no error bars at all.
    """
    must_be_thin(result, "there are error bars for", HALVES)
    draws = result.draws
    if draws is not None and len(draws):
        return draws, True
    if result.object_std is None:
        raise PtychonError(
            f"the result of engine {result.engine!r} has no error bars; ptychon error_bars "
            "RESULT --method joint makes them"
        )
    warnings.warn(
        "the result has a standard deviation of each pixel but no draws of the posterior: "
        "errors of pixels are taken as "
        "independent, which they are not; bars of means and of slow changes may be much too small "
        "(ptychon error_bars RESULT --method joint makes draws)",
        PtychonWarning,
        stacklevel=3,
    )
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((INDEPENDENT, *result.object.shape, 2), np.float32)
    white = parts.view(np.complex64)[..., 0] * np.float32(math.sqrt(0.5))
    return white * result.object_std, False


def spread(
    result: Result,
    function: Callable[[ComplexArray], Any],
    *,
    circular: bool = False,
    draws: tuple[ComplexArray, bool] | None = None,
) -> Spread:
    """The error bar of anything that is computed from the object.

    Parameters
    ----------
    result : Result
        With error bars.
    function : callable
        From an object (H, W) complex to a real number or array.
    circular : bool
        The values are angles (rad): differences are taken around the circle.
    draws : ((S, H, W) complex, bool), optional
        From `draws_of`, to make them once for several functions.

    Returns
    -------
    Spread

    Raises
    ------
    PtychonError
        If the result has no error bars, or the function's values are complex or not finite.

    Examples
    --------
    The mean amplitude of a rectangle, with its bar::

        found = spread(result, lambda O: abs(O[40:60, 30:50]).mean())
        print(found.value, found.bar)
    """
    errors, correlated = draws_of(result) if draws is None else draws
    value = _real(function(result.object))
    rows = np.stack([_real(function(result.object + x)) for x in errors]) - value
    if circular:
        rows = np.angle(np.exp(1j * rows))
    return spread_of(value, rows, correlated)


def profile(
    result: Result,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    points: int | None = None,
    draws: tuple[ComplexArray, bool] | None = None,
) -> Profile:
    """Amplitude and phase along a line, between pixels by cubic splines of the complex object.

    Parameters
    ----------
    result : Result
    start, end : (y, x) float
        Object pixels from pixel [0, 0]; `pixels` turns metres into them.
    points : int, optional
        Points on the line; default one a pixel.
    draws
        As in `spread`.

    Raises
    ------
    PtychonError
        If the line leaves the object or has no length, or there are no error bars.
    """
    ends = np.array([start, end], float)
    (h, w), (y0, x0, y1, x1) = result.object.shape, ends.ravel().tolist()
    if not (np.isfinite(ends).all() and (ends >= 0).all() and (ends <= (h - 1, w - 1)).all()):
        raise PtychonError(
            f"the line from {y0:g},{x0:g} to {y1:g},{x1:g} px leaves the object of {h}x{w} px"
        )
    length = float(np.hypot(*(ends[1] - ends[0])))
    if length == 0 or (points is not None and points < 2):
        raise PtychonError(
            f"the line is {length:g} px long with {points} points; it needs a length and at "
            "least 2 points"
        )
    share = np.linspace(0, 1, max(2, round(length) + 1) if points is None else points)
    where = ends[0] + share[:, None] * (ends[1] - ends[0])
    dy, dx = result.pixel_size or (1.0, 1.0)
    chosen = draws_of(result) if draws is None else draws

    def along(field: ComplexArray) -> ComplexArray:
        return np.asarray(map_coordinates(field, where.T, order=3, mode="nearest"))

    phase = spread(result, lambda field: np.angle(along(field)), circular=True, draws=chosen)
    return Profile(
        points=where,
        distance=share * float(np.hypot(*((ends[1] - ends[0]) * (dy, dx)))),
        amplitude=spread(result, lambda field: np.abs(along(field)), draws=chosen),
        phase=Spread(
            value=np.unwrap(phase.value),
            std=phase.std,
            bar=phase.bar,
            deviations=phase.deviations,
            correlated=chosen[1],
        ),
        unit="px" if result.pixel_size is None else "m",
    )


def compare_regions(
    result: Result, first: Disc, second: Disc, *, draws: tuple[ComplexArray, bool] | None = None
) -> Comparison:
    """Phase difference and ratio of amplitudes of two regions, with what their errors have in
    common.

    Parameters
    ----------
    result : Result
    first, second : (y, x, radius) in object pixels, or (H, W) bool
    draws
        As in `spread`.

    Raises
    ------
    PtychonError
        If a region is empty or leaves the object, or there are no error bars.
    """
    a, b = (region_of(result, disc) for disc in (first, second))
    chosen = draws_of(result) if draws is None else draws

    def size(inside: BoolArray) -> Spread:
        return spread(result, lambda field: np.abs(field[inside]).mean(), draws=chosen)

    return Comparison(
        phase=spread(
            result,
            lambda f: np.angle(f[a].mean() * f[b].mean().conj()),
            circular=True,
            draws=chosen,
        ),
        ratio=spread(result, lambda f: np.abs(f[a]).mean() / np.abs(f[b]).mean(), draws=chosen),
        first=size(a),
        second=size(b),
        pixels=(int(a.sum()), int(b.sum())),
    )


def region_of(result: Result, disc: Disc) -> BoolArray:
    """Pixels of a disc (y, x, radius), (H, W) bool; a boolean array is checked and given back."""
    must_be_thin(result, "regions are compared of", HALVES)
    shape = result.object.shape
    if isinstance(disc, np.ndarray):
        if disc.shape != shape or disc.dtype != bool or not disc.any():
            raise PtychonError(
                f"a region of shape {disc.shape} and type {disc.dtype} for an object of "
                f"{shape}; give (H, W) bool"
            )
        return disc
    y, x, radius = (float(v) for v in disc)
    if not radius > 0 or not (
        radius <= y <= shape[0] - 1 - radius and radius <= x <= shape[1] - 1 - radius
    ):
        raise PtychonError(
            f"the disc of radius {radius:g} px at ({y:g}, {x:g}) leaves the object of "
            f"{shape[0]}x{shape[1]} px"
        )
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = np.hypot(rows - y, columns - x) <= radius
    if not inside.any():
        raise PtychonError(
            f"the disc of radius {radius:g} px at ({y:g}, {x:g}) holds no pixel; make it larger"
        )
    return np.asarray(inside)


def pixels(result: Result, y: float, x: float) -> tuple[float, float]:
    """Object pixels (y, x) of coordinates in metres, those of the axes of pictures and of the
    positions of the scan.

    Raises
    ------
    PtychonError
        If the result has no pixel size.
    """
    if result.pixel_size is None:
        raise PtychonError(
            "the result has no pixel size; give object pixels instead of lengths in metres"
        )
    (dy, dx), (oy, ox) = result.pixel_size, result.origin
    return (y - oy) / dy, (x - ox) / dx


def _real(value: Any) -> FloatArray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise PtychonError(
            f"the function gave {array.dtype}; take a real number of it: its modulus, angle or "
            "real part"
        )
    if not np.isfinite(array).all():
        raise PtychonError(
            f"the function gave {int((~np.isfinite(array)).sum())} values that are not finite"
        )
    return np.asarray(array, np.float64)


def factor(draws: int) -> float:
    """Half width of the 68.3 % interval in root mean squares of so many draws."""
    return float(student.ppf(0.5 + CONFIDENCE / 2, draws))


def spread_of(value: FloatArray, rows: FloatArray, correlated: bool) -> Spread:
    """A value with its error in each draw."""
    std = np.sqrt((rows**2).mean(axis=0))
    return Spread(
        value=value, std=std, bar=factor(len(rows)) * std, deviations=rows, correlated=correlated
    )
