"""Frames of amplitudes, square roots of what was counted, among which intensities are expected."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np

from ..data.lazy import Derived
from ..types import Array, BoolArray, PtychonWarning

#: Names of arrays that say so.
_NAMES = (
    "amplitude",
    "amplitudes",
    "magnitude",
    "magnitudes",
    "modulus",
    "moduli",
    "sqrt_intensity",
)
#: Frames that are looked at, and values that are not whole of which the squares prove something.
_LOOK, _FEWEST = 3, 50


def intensities(
    patterns: Array, where: str, stated: bool | None, mask: BoolArray | None, source: str
) -> tuple[Array, str]:
    """The frames as intensities, and a remark where they were amplitudes.

    Square roots of counts are recognised: they are not whole, and all their squares are.

    Parameters
    ----------
    patterns : (N, P, Q) array, perhaps lazy
    where : str
        Name of the array, for what it says.
    stated : bool, optional
        What the caller says that they are: amplitudes (True) or intensities (False).
    mask : (P, Q) or (N, P, Q) bool array, optional
        True where a pixel is valid.
    source : str
        Name of the file, for the warning.
    """
    if stated is False or (stated is None and np.dtype(patterns.dtype).kind != "f"):
        return patterns, ""
    whole = np.dtype(patterns.dtype).kind == "f" and roots_of_counts(patterns, mask)
    if stated is None and not whole:
        name = where.rsplit("/", 1)[-1]
        if name.lower() in _NAMES:
            _warn(
                f"{source}: frames called {name} are taken for intensities; if they are "
                "amplitudes, add --amplitudes"
            )
        return patterns, ""
    if stated is None:
        _warn(
            f"{source}: the frames are not whole numbers but their squares are: they are taken "
            "for amplitudes, and squared; if "
            f"they are intensities, add --intensities"
        )
    shape = int(patterns.shape[1]), int(patterns.shape[2])
    return Derived(
        patterns, partial(_squared, whole), shape, np.float32
    ), "squared: they were amplitudes"


def _warn(text: str) -> None:
    warnings.warn(text, PtychonWarning, stacklevel=4)


def roots_of_counts(patterns: Array, mask: BoolArray | None = None) -> bool:
    """Whether frames are square roots of whole numbers, by a look at some of them."""
    index = np.unique(np.linspace(0, len(patterns) - 1, _LOOK).astype(int))
    values = np.asarray(patterns[index])
    if mask is not None:
        values = values[np.broadcast_to(mask if mask.ndim == 2 else mask[index], values.shape)]
    precision = max(
        float(np.finfo(kind).eps) for kind in (values.dtype, np.float32)
    )  # float64 may hold rounded float32
    values = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    if not values.size or values.min() < 0:
        return False
    square = values**2
    error = 4 * precision * square  # of the square of a rounded root
    told = error < 0.05
    odd = told & (np.abs(values - np.rint(values)) > 0.01)
    return bool(
        odd.sum() >= _FEWEST and (np.abs(square - np.rint(square)) <= error + 1e-9)[told].all()
    )


def _squared(whole: bool, block: Any) -> Any:
    square = np.square(block, dtype=np.float64)
    return (np.rint(square) if whole else square).astype(np.float32)
