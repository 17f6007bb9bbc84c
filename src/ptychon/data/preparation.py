"""What is to be done to frames before a reconstruction, as a record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..types import PtychonError


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be done to a scan before it is reconstructed; the default is nothing.

    Attributes
    ----------
    frames : slice, optional
        Which frames of the scan.
    dark : (P, Q) array or float, optional
        Subtracted, in units of the detector before `flat` and `gain`: what it shows without
        counting anything.
    background : (P, Q) array or float, optional
        Mean counts a pixel (after `flat` and `gain`) that do not come from the wave. They stay in
        the patterns.
    read_noise : float, optional
        Standard deviation, in counts (after `gain`), of the noise of the detector's electronics.
    blur : float, optional
        Standard deviation of the detector's point spread, pixels of the frames that are left.
    pad : int
        Detector pixels of unknown value added at each side, which make the pixels of the object
        finer. Far field only.
    upsample : int
        The wave is finer than the detector's pixels by so much along each axis, and a pixel counts
        what falls on all of it: for a probe that is larger than the window. Far field only.
    flat : (P, Q) array, optional
        Relative sensitivity; its mean does not matter, and pixels where it is 0 become invalid.
    gain : float, optional
        Units of the detector per photon or electron. With it the patterns are counts, 1 too.
    bad_pixels : bool
        Find hot and dead pixels, saturated ones (those that reach `saturation` or the end of the
        range of an integer type in any frame) and those without a measurement in any frame, and
        mask them in all frames.
    saturation : float, optional
        Value in the file from which a pixel is saturated; a pixel that reaches it in any frame is
        masked in all.
    crop : (P', Q'), optional
        Pixels of the window, before binning.
    centre : (row, column) or "auto", optional
        Of the window in the file; "auto" is the centre of mass of the mean frame. Default: the
        middle [P//2, Q//2].
    bin : int
        Pixels along each axis that become one.
    scan_rotation : float
        Positions are turned by this angle (rad): (row, col) -> (row cos - col sin, row sin + col
        cos).
    scan_sign : (+-1, +-1)
        Factors of rows and columns of the positions, before the rotation.
    """

    frames: slice | None = None
    dark: Any = None
    background: Any = None
    read_noise: float | None = None
    blur: float | None = None
    pad: int = 0
    upsample: int = 1
    flat: Any = None
    gain: float | None = None
    bad_pixels: bool = False
    saturation: float | None = None
    crop: tuple[int, int] | None = None
    centre: tuple[float, float] | Literal["auto"] | None = None
    bin: int = 1
    scan_rotation: float = 0.0
    scan_sign: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.gain is not None and not (math.isfinite(self.gain) and self.gain > 0):
            raise PtychonError(f"the gain is {self.gain}; it must be a positive number")
        for name in ("bin", "upsample"):
            if getattr(self, name) < 1:
                raise PtychonError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.pad < 0:
            raise PtychonError(f"pad is {self.pad}; it must be at least 0")
        if any(abs(sign) != 1 for sign in self.scan_sign):
            raise PtychonError(
                f"scan sign is {self.scan_sign}; give + or - for rows and columns, for example +-"
            )

    @property
    def corrects(self) -> bool:
        """Whether values of counts change."""
        return any(part is not None for part in (self.dark, self.flat)) or self.gain not in (
            None,
            1,
        )
