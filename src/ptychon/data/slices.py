"""Where the slices of a thick specimen lie: the record of it, in SI units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import FloatArray, PtychonError
from ..units import pretty

#: Slices that anybody can mean; a larger number is a slip.
MOST = 1000
#: What tells something of a thick specimen instead of error bars.
HALVES = "two half-scans tell how far a result repeats itself (ptychon report --half-scans)"
#: Largest tilt, rad: beyond it slices are no longer a picture of the specimen.
STEEPEST = 0.5


@dataclass(frozen=True)
class Slices:
    """The free space between the slices of a specimen; one gap fewer than slices.

    Attributes
    ----------
    gaps : tuple of float
        Distance from each slice to the next, m, in the direction of the light.
    wavelength : float
        m.
    pixel_size : (dy, dx)
        Of the object, m.
    tilt : (y, x)
        Angle of the beam against what stands straight in the specimen, rad.
    """

    gaps: tuple[float, ...]
    wavelength: float
    pixel_size: tuple[float, float]
    tilt: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(
        cls,
        count: int,
        spacing: Any,
        *,
        wavelength: float | None,
        pixel_size: tuple[float, float] | None,
        tilt: Any = None,
    ) -> Slices | None:
        """So many slices at equal distances, or at those given; None for one, the thin object.

        Parameters
        ----------
        count : int
        spacing : float, (count - 1,) floats, or None
            m.
        wavelength, pixel_size
            m; of the data.
        tilt : float or (y, x), optional
            rad; one number is along y.

        Raises
        ------
        PtychonError
            For numbers that are impossible, or missing.
        """
        if isinstance(count, bool) or int(count) != count or not 1 <= count <= MOST:
            raise PtychonError(f"slices is {count}; give a whole number from 1 to {MOST}")
        count = int(count)
        if count == 1:
            if spacing is not None or tilt is not None:
                raise PtychonError(
                    "a spacing or a tilt is there for several slices, and slices is 1; give more "
                    "slices, or leave them out"
                )
            return None
        if spacing is None:
            raise PtychonError(
                f"{count} slices need their distance; give spacing (--slice-spacing), such as 10nm"
            )
        gaps = [float(d) for d in np.atleast_1d(np.asarray(spacing, float)).reshape(-1)]
        gaps = gaps * (count - 1) if len(gaps) == 1 else gaps
        if len(gaps) != count - 1:
            raise PtychonError(
                f"{count} slices have {count - 1} gaps, but {len(gaps)} spacings are given; give "
                f"one, or {count - 1}"
            )
        if not all(math.isfinite(d) and d > 0 for d in gaps):
            raise PtychonError(f"the spacing of the slices is {spacing} m; it must be positive")
        angle = np.zeros(2) if tilt is None else np.asarray(tilt, float).reshape(-1)
        angle = np.array([angle[0], 0.0]) if len(angle) == 1 else angle
        if len(angle) != 2 or not (np.abs(angle) <= STEEPEST).all():
            raise PtychonError(
                f"the tilt is {tilt} rad; give one angle or two (along y, along x) of at most "
                f"{STEEPEST} rad"
            )
        if wavelength is None:
            raise PtychonError(
                "slices need the wavelength, which the data do not state; give --wavelength, "
                "--energy or --voltage"
            )
        if pixel_size is None:
            raise PtychonError(
                "slices need the pixel size of the object, which the data do not state; give "
                "--pixel-size"
            )
        size = float(pixel_size[0]), float(pixel_size[1])
        return cls(tuple(gaps), float(wavelength), size, (float(angle[0]), float(angle[1])))

    def __len__(self) -> int:
        """How many slices."""
        return len(self.gaps) + 1

    def __str__(self) -> str:
        total = pretty(sum(self.gaps), "length")
        even = len(set(self.gaps)) == 1
        apart = f"{pretty(self.gaps[0], 'length')} apart" if even else f"over {total}"
        tilted = any(self.tilt)
        angles = " and ".join(f"{1e3 * a:.3g}" for a in self.tilt)
        return f"{len(self)} slices {apart}" + (f", tilted by {angles} mrad" if tilted else "")

    @property
    def depths(self) -> FloatArray:
        """z of each slice, m, the first at 0: (S,) float64."""
        return np.concatenate([[0.0], np.cumsum(self.gaps)])

    def each(self, count: int) -> Slices | None:
        """Another number of slices through the same thickness; None for one."""
        if count == 1:
            return None
        thick = sum(self.gaps) * (1 + 1 / len(self.gaps))  # half a gap above and below
        gaps = (thick / count,) * (count - 1)
        return Slices(gaps, self.wavelength, self.pixel_size, self.tilt)


def must_be_thin(of: Any, what: str, instead: str) -> None:
    """Refuse a result, or a problem, of several slices.

    Parameters
    ----------
    of : Result or Problem
    what : str
        That is not there for it.
    instead : str
        Something that helps.

    Raises
    ------
    PtychonError
    """
    if of.slices is not None:
        raise PtychonError(
            f"{what} thin objects only, and this one has {len(of.slices)} slices; {instead}"
        )
