"""What a look at some of the frames shows: mean frame, counts, drift, bad pixels, dose."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..types import BoolArray, FloatArray, IntArray, PtychonError
from .bad_values import BadValues, Tally
from .blank import FILL, blank_frames, unmeasured
from .dataset import Dataset

#: Frames, and bytes of frames in float32, that `survey` looks at.
SURVEY_FRAMES, SURVEY_BYTES = 200, 2**27
#: A hot pixel has more than this many times the counts of the second brightest of its neighbours.
HOT = 8.0
#: Radius of the direct beam, as a share of the frame.
BEAM = 0.03
#: Counts in all frames together that the neighbours of a dead pixel have at least, and a hot pixel
#: too.
EXPECTED = 300.0


@dataclass(frozen=True)
class BadPixels:
    """Masks (P, Q), True where a pixel is bad."""

    hot: BoolArray
    dead: BoolArray
    saturated: BoolArray
    marked: BoolArray

    @property
    def any(self) -> BoolArray:
        """All of them together."""
        return self.hot | self.dead | self.saturated | self.marked


def find_bad_pixels(
    total: FloatArray,
    largest: FloatArray,
    saturation: float | None,
    valid: BoolArray | None = None,
    far: bool = True,
) -> BadPixels:
    """Bad pixels from the sum and the maximum over frames.

    Hot: more than `HOT` times the second brightest of the eight neighbours (light that is sampled
    well enough for ptychography spreads over neighbours). Dead: never counted although all but one
    of the neighbours have more than `EXPECTED` counts. Saturated: reached `saturation` in any
    frame.

    Parameters
    ----------
    total, largest : (P, Q) arrays
    saturation : float or None
    valid : (P, Q) bool array, optional
        Pixels known to be bad count for nothing.
    far : bool
        Whether a direct beam may be focused into one pixel: none within `BEAM` of the centre of
        mass is called hot.
    """
    known = np.ones(total.shape, bool) if valid is None else valid
    padded = np.pad(np.where(known, total, np.nan), 1, constant_values=np.nan)
    p, q = total.shape
    shifts = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    around = np.sort(
        np.nan_to_num(np.stack([padded[dy : dy + p, dx : dx + q] for dy, dx in shifts]), nan=0.0),
        axis=0,
    )
    hot = known & (total > HOT * around[-2] + EXPECTED)
    if far and hot.any() and total[known & ~hot].sum() > 0:
        quiet = np.where(known & ~hot, total, 0.0)
        rows, columns = np.indices(total.shape)
        row, column = ((axis * quiet).sum() / quiet.sum() for axis in (rows, columns))
        hot &= np.hypot(rows - row, columns - column) > max(4.0, BEAM * max(p, q))
    dead = known & (largest <= 0) & (around[1] > EXPECTED)
    saturated = (
        known & (largest >= saturation) if saturation is not None else np.zeros(total.shape, bool)
    )
    return BadPixels(hot, dead, saturated, np.zeros(total.shape, bool))


@dataclass
class Sums:
    """Sums over frames, without values that are no measurement, and what these are.

    Attributes
    ----------
    tally : Tally
    total, largest : (P, Q) float64
        Sum of measurements, and the largest finite value; -inf where there is none.
    seen : (P, Q) int
        Frames with a measurement.
    """

    tally: Tally
    total: FloatArray
    largest: FloatArray
    seen: IntArray

    @classmethod
    def new(cls, rule: BadValues, shape: tuple[int, int]) -> Sums:
        return cls(
            Tally.new(rule, shape),
            np.zeros(shape),
            np.full(shape, -np.inf),
            np.zeros(shape, np.int64),
        )

    def add(self, block: Any, valid: BoolArray | None = None) -> Any:
        """The measurements of a block (B, P, Q), 0 where there is none; bad values are counted
        where `valid`.
        """
        bad, finite = self.tally.rule.bad(block), block
        if block.dtype.kind == "f":
            finite = np.where(np.isfinite(block), block, block.dtype.type(-np.inf))
        self.tally.add(block, valid)
        self.largest = np.maximum(self.largest, finite.max(axis=0))
        self.seen += len(block) if bad is None else (~bad).sum(axis=0)
        good = block if bad is None else np.where(bad, block.dtype.type(0), block)
        self.total += good.sum(axis=0, dtype=np.float64)
        return good

    def bad_pixels(
        self, saturation: float | None, valid: BoolArray | None = None, far: bool = True
    ) -> BadPixels:
        """Bad pixels of the frames that were added; see `find_bad_pixels`. Marked: without a
        measurement in any of them.
        """
        known = np.ones(self.total.shape, bool) if valid is None else valid
        marked = known & (self.seen == 0)
        limit = self.tally.rule.saturation
        found = find_bad_pixels(self.total, self.largest, saturation, known & ~marked, far=far)
        saturated = (
            known & (self.largest >= saturation) if saturation is not None else found.saturated
        )
        saturated = saturated if limit is None else saturated | (known & (self.largest > limit))
        return replace(found, saturated=saturated, marked=marked & ~saturated)


def saturation_of(dtype: Any) -> float | None:
    """The largest value of an integer type of at least 8 bits, where detectors put saturated and
    broken pixels.
    """
    kind = np.dtype(dtype)
    return float(np.iinfo(kind).max) if kind.kind in "ui" else None


@dataclass(frozen=True)
class Survey:
    """What a sample of the frames shows.

    Attributes
    ----------
    index : (S,) int array
        The frames looked at, spread evenly, as far as they were measured.
    mean, total, largest : (P, Q) float64
        Mean, sum and maximum over those frames.
    counts : (S,) float64
        Sums of those frames over valid pixels.
    centres : (S, 2) float64
        Their centres of mass (row, column), px; NaN where a frame is empty.
    tally : Tally
        Of values in valid pixels that are no measurement; they are in none of the above but
        `largest`.
    bad : BadPixels
        Of valid pixels.
    empty : int
        Frames looked at that were never measured (see `ptychon.data.dataset.unmeasured`).
    """

    index: Any
    mean: FloatArray
    total: FloatArray
    largest: FloatArray
    counts: FloatArray
    centres: FloatArray
    tally: Tally
    bad: BadPixels
    empty: int


def survey(data: Dataset, frames: int = SURVEY_FRAMES) -> Survey:
    """Look at a sample of the frames, in bounded time and memory.

    Parameters
    ----------
    data : Dataset
    frames : int
        At most; fewer where frames are large.
    """
    p, q = data.frame_shape
    count = max(1, min(frames, len(data), SURVEY_BYTES // (4 * p * q)))
    index = np.unique(np.linspace(0, len(data) - 1, count).round().astype(int))
    sums = Sums.new(BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask), (p, q))
    counts, centres = np.zeros(len(index)), np.full((len(index), 2), np.nan)
    rows, columns = np.arange(p), np.arange(q)
    block = np.asarray(data.patterns[index])  # together: frames of one chunk are read once
    masks = data.mask if data.mask is None or data.mask.ndim == 2 else data.mask[index]
    blank = blank_frames(block, masks)
    for k in np.flatnonzero(blank != FILL):
        valid = masks if masks is None or masks.ndim == 2 else masks[k]
        good = sums.add(block[k][None], valid)[0].astype(np.float64)
        seen = good if valid is None else np.where(valid, good, 0.0)
        counts[k] = seen.sum()
        if counts[k] > 0:
            centres[k] = seen.sum(axis=1) @ rows / counts[k], seen.sum(axis=0) @ columns / counts[k]
    try:
        there = ~unmeasured(blank, counts)
    except PtychonError:
        there = np.ones(len(index), bool)  # a sample without any: whoever reads all frames says so
    unwritten = int((~there & (blank != FILL)).sum())
    mean = sums.total / np.maximum(sums.seen - unwritten, 1)
    known: Any = (
        None if data.mask is None else data.mask if data.mask.ndim == 2 else data.mask.any(axis=0)
    )
    bad = sums.bad_pixels(saturation_of(data.patterns.dtype), known, far=data.geometry == "far")
    empty = int((~there).sum())
    return Survey(
        index[there],
        mean,
        sums.total,
        sums.largest,
        counts[there],
        centres[there],
        sums.tally,
        bad,
        empty,
    )


def centre_of_mass(mean: FloatArray, mask: BoolArray | None = None) -> tuple[float, float]:
    """Centre of mass (row, column) of a mean frame above its background, px.

    Raises
    ------
    PtychonError
        If there is nothing above it.
    """
    valid = (
        np.ones(mean.shape, bool) if mask is None else mask if mask.ndim == 2 else mask.all(axis=0)
    )
    values = np.where(valid, mean, 0.0)
    level = float(np.median(values[valid])) if valid.any() else 0.0
    level += 0.05 * (float(np.percentile(values[valid], 99.9)) - level) if valid.any() else 0.0
    weight = np.where(valid, np.maximum(values - level, 0.0), 0.0)
    total = float(weight.sum())
    if not (math.isfinite(total) and total > 0):
        raise PtychonError(
            "the mean frame is flat or empty: it has no centre of mass; give --centre ROW,COLUMN"
        )
    rows, columns = np.indices(mean.shape)
    return float((rows * weight).sum() / total), float((columns * weight).sum() / total)


def cell_area(positions: FloatArray) -> float:
    """Area that belongs to one position, in the square of their unit; exact for a raster. 0 if they
    lie on a line.

    From hull area A, perimeter L and number N of points, s^2 with N = A/s^2 + L/(2 s) + 1.
    """
    from scipy.spatial import ConvexHull, QhullError

    n = len(positions)
    try:
        hull = ConvexHull(positions)
    except (QhullError, ValueError):
        return 0.0
    length, area = float(hull.area), float(hull.volume)
    step = (length / 2 + math.sqrt(length**2 / 4 + 4 * (n - 1) * area)) / (2 * (n - 1))
    return step**2


def electron_dose(data: Dataset, counts: float) -> float | None:
    """Dose in electrons per square Angstrom, from the mean counts of a frame; None for anything but
    electrons in counts.
    """
    if (
        data.wavelength is None
        or data.wavelength > 1.3e-11
        or data.pixel_size is None
        or not data.counting
    ):
        return None
    area = cell_area(data.positions)
    return counts / (area * 1e20) if area > 0 else None
