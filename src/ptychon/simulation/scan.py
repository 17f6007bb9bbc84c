"""Where the probe goes: scan patterns as (N, 2) float64 positions (y, x).

Positions are centres of the probe in object pixels, relative to the centre pixel [H//2, W//2] of an
object (H, W); that is what `ptychon.Dataset` expects where its `object_shape` is given. The window
of a probe of P x Q pixels is

    corner = round(position + [H//2, W//2]) - [P//2, Q//2],    rows corner .. corner + P - 1.

Raster   y_a = start + a step, start = -floor((m - 1) step / 2), for a = 0..m-1 (whole pixels), plus
         jitter in [-j, j].
Spiral   (y_i, x_i) = step sqrt(i) (sin, cos)(2.399967 i): the Fermat spiral of sunflower heads
         (Vogel, Math. Biosci.
         44, 179, 1979; for ptychography Huang et al., Opt. Express 22, 12634, 2014). Uniform
         density without the periods of a raster, which a joint reconstruction of object and probe
         could mistake for structure.
Overlap  o = 1 - d/D, d the distance to the nearest neighbour and D the diameter of the probe (Bunk
et al.,
         Ultramicroscopy 108, 481, 2008); 0.6 to 0.8 is common.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..data.position_table import choose, read_table
from ..types import BoolArray, FloatArray, PtychonError

#: Golden angle (rad) to the digits used in published benchmarks; pi (3 - sqrt(5)) is 2.399963...
GOLDEN_ANGLE = 2.399967


def raster(
    shape: int | tuple[int, int],
    step: float | tuple[float, float],
    *,
    jitter: float = 0.0,
    seed: int = 0,
    whole: bool = True,
) -> FloatArray:
    """Centred raster, row by row, with uniform jitter.

    Parameters
    ----------
    shape : int or (rows, columns)
        Number of points along each axis; one number for both.
    step : float or (dy, dx)
        Spacing, px. Must be whole numbers in whole-pixel mode.
    jitter : float
        Each coordinate moves by a uniform random number in [-jitter, jitter], px (an integer in
        whole-pixel mode, both ends included). Even one pixel breaks the period of the raster.
    seed : int
    whole : bool
        Whole pixels; otherwise the raster is centred exactly and jitter is continuous.

    Returns
    -------
    (rows * columns, 2) float64

    Raises
    ------
    PtychonError
        Fewer than one point, a step that is not positive, a negative jitter, fractions in
        whole-pixel mode.
    """
    rows, columns = (int(n) for n in np.broadcast_to(shape, (2,)))
    steps = np.broadcast_to(np.asarray(step, float), (2,))
    if rows < 1 or columns < 1:
        raise PtychonError(
            f"the raster has {rows}x{columns} points; at least one along each axis is needed"
        )
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise PtychonError(f"the raster step is {step}; it must be a positive number of pixels")
    if not (np.isfinite(jitter) and jitter >= 0):
        raise PtychonError(
            f"the jitter is {jitter}; it must be zero or a positive number of pixels"
        )
    if whole and (np.any(steps % 1) or jitter % 1):
        raise PtychonError(
            f"step {step} and jitter {jitter} are not whole pixels; round them or pass whole=False"
        )
    y, x = (
        np.arange(m) * s - _half((m - 1) * s, whole)
        for m, s in zip((rows, columns), steps, strict=True)
    )
    positions = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    if whole:
        return positions + rng.integers(-int(jitter), int(jitter), positions.shape, endpoint=True)
    return positions + rng.uniform(-jitter, jitter, positions.shape)


def _half(length: float, whole: bool) -> float:
    return float(length // 2) if whole else length / 2


def fermat_spiral(n: int, step: float, *, whole: bool = False) -> FloatArray:
    """Fermat spiral from the centre outwards.

    Parameters
    ----------
    n : int
        Number of points.
    step : float
        Scale, px: point i lies at radius step sqrt(i), and one point covers pi step^2 square
        pixels. The nearest neighbours are about 1.68 step apart.
    whole : bool
        Truncate to whole pixels as published benchmarks do. They truncate centre + offset, a
        positive number, which floors the offset: the positions are then biased by -0.5 px on
        average. Leave it off to keep the spiral centred.

    Returns
    -------
    (n, 2) float64

    Raises
    ------
    PtychonError
        `n` below 1 or `step` not positive.
    """
    if n < 1:
        raise PtychonError(f"the spiral has {n} points; at least one is needed")
    if not (np.isfinite(step) and step > 0):
        raise PtychonError(f"the spiral step is {step}; it must be a positive number of pixels")
    i = np.arange(n)
    radius, angle = step * np.sqrt(i), GOLDEN_ANGLE * i
    positions = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return np.floor(positions) if whole else positions


def from_table(table: Any, *, columns: Sequence[int | str] | None = None) -> FloatArray:
    """Positions from an array or from a file, in the units they have there.

    Parameters
    ----------
    table : (N, M) array-like, or path of a .npy, .csv or .txt file
        Text holds one position a line, numbers separated by commas, semicolons or blanks. Names of
        the columns, in the first line or behind ``#``, say which are y and x; see
        `ptychon.data.position_table`.
    columns : (row column, column column), optional
        Names or numbers (from 0) of the columns that hold y and x; needed where there are more than
        two without names.

    Returns
    -------
    (N, 2) float64, a copy

    Raises
    ------
    PtychonError
        A file that cannot be read, text that is not numbers, columns that cannot be told apart,
        NaN.
    """
    if isinstance(table, (str, Path)):
        return read_table(table, columns).positions
    try:
        values = np.array(table, np.float64)
    except (TypeError, ValueError):
        raise PtychonError(
            "the table of positions is not an array of numbers; give (N, 2), y then x"
        ) from None
    return choose(values, (), (), "the table of positions", columns).positions


def inside(
    positions: FloatArray, object_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> BoolArray:
    """Which windows lie inside the object, (N,) bool.

    Parameters
    ----------
    positions : (N, 2) float, px relative to the centre pixel of the object
    object_shape : (H, W)
    frame_shape : (P, Q)
    """
    size, frame = np.array(object_shape), np.array(frame_shape)
    corners = np.rint(_checked(positions) + size // 2) - frame // 2
    return np.asarray(((corners >= 0) & (corners + frame <= size)).all(axis=1))


def fit(
    positions: FloatArray, object_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> FloatArray:
    """Only those positions whose window lies inside the object, in their order, (M, 2) float64.

    Parameters
    ----------
    positions : (N, 2) float, px relative to the centre pixel of the object
    object_shape : (H, W)
    frame_shape : (P, Q)

    Raises
    ------
    PtychonError
        If no position is left.
    """
    positions = _checked(positions)
    keep = inside(positions, object_shape, frame_shape)
    if not keep.any():
        raise PtychonError(
            f"none of {len(positions)} windows of {frame_shape[0]}x{frame_shape[1]} px lies "
            "inside the object of "
            f"{object_shape[0]}x{object_shape[1]} px; enlarge the object or shrink the scan"
        )
    return positions[keep]


def overlap(positions: FloatArray, probe_diameter: float) -> float:
    """Linear overlap of neighbouring probes, 1 - d/D, at least 0.

    Parameters
    ----------
    positions : (N, 2) float, N >= 2
    probe_diameter : float
        D, in the units of the positions.

    Returns
    -------
    float
        With d the median over positions of the distance to the nearest other one.

    Raises
    ------
    PtychonError
        Fewer than two positions, or a diameter that is not positive.
    """
    positions = _checked(positions)
    if len(positions) < 2:
        raise PtychonError(f"{len(positions)} position has no neighbour; overlap needs at least 2")
    if not (np.isfinite(probe_diameter) and probe_diameter > 0):
        raise PtychonError(f"the probe diameter is {probe_diameter}; it must be a positive number")
    distance, _ = cKDTree(positions).query(positions, k=2)
    return max(0.0, 1.0 - float(np.median(distance[:, 1])) / probe_diameter)


def _checked(positions: Any) -> FloatArray:
    """A float64 copy of finite positions (N, 2)."""
    positions = np.array(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise PtychonError(f"positions have shape {positions.shape}; they must be (N, 2), y then x")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise PtychonError(
            f"{bad.size} of {len(positions)} positions are not finite (first: {bad[0]}); drop them"
        )
    return np.asarray(positions)
