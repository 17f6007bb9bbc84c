"""Frames that were never measured: zero all over, or one value that stands for no value."""

from __future__ import annotations

import warnings

import numpy as np

from ..types import Array, BoolArray, FloatArray, IntArray, PtychonError, PtychonWarning

#: Mean counts of a frame from which one without any was hardly measured: of 30 expected, none come
#: with probability 1e-13.
FEWEST_COUNTS = 30.0
#: What `blank_frames` says of a frame: it varies; it is zero all over; it has a value all over that
#: stands for no value.
MEASURED, ZERO, FILL = 0, 1, 2


def blank_frames(block: Array, mask: BoolArray | None = None) -> IntArray:
    """Which frames are the same all over, as those that were never written are.

    Parameters
    ----------
    block : (B, P, Q) array, as it is in the file
    mask : (P, Q) or (B, P, Q) bool array, optional
        True where a pixel is valid; others do not count.

    Returns
    -------
    (B,) int
        `ZERO`; `FILL` where the value is negative, not finite or the largest of an integer type;
        else `MEASURED`.
    """
    block = np.asarray(block)
    found = np.full(len(block), MEASURED, np.int8)
    flat = block.reshape(len(block), -1)
    valid = None if mask is None else np.broadcast_to(mask, block.shape).reshape(flat.shape)
    first = flat[:, 0] if valid is None else flat[np.arange(len(flat)), valid.argmax(axis=1)]
    same = (flat == first[:, None]) | (
        np.isnan(flat) & np.isnan(first)[:, None] if flat.dtype.kind == "f" else False
    )
    same = (same if valid is None else same | ~valid).all(axis=1)
    top = np.iinfo(flat.dtype).max if flat.dtype.kind in "ui" else np.inf
    found[same & (first == 0)] = ZERO
    found[same & ~((first >= 0) & (first < top))] = FILL
    return found


def unmeasured(blank: IntArray, totals: FloatArray) -> BoolArray:
    """Which frames are to be left out since they were never measured, (N,) bool.

    Those that hold a fill value; and those of zeros, unless the others have so few counts that some
    frames have none.

    Parameters
    ----------
    blank : (N,) int
        From `blank_frames`.
    totals : (N,) float
        Sums over valid pixels.

    Raises
    ------
    PtychonError
        If fewer than two frames were measured.
    """
    measured = (blank == MEASURED) & (
        totals > 0
    )  # a dark frame taken from nothing leaves something below zero
    if not measured.any():
        what = f"all {len(blank)} frames are zero in every valid pixel"
        if not (blank == ZERO).any():
            what = (
                f"no valid pixel is left, as all {len(blank)} frames are negative, not finite "
                "or at the end of the range"
            )
        raise PtychonError(f"{what}: wrong dataset, or a mask inverted?")
    if measured.sum() == 1:
        raise PtychonError(
            f"only frame {int(measured.argmax())} of {len(blank)} is not empty; at least 2 are "
            "needed"
        )
    few = float(totals[measured].mean()) < FEWEST_COUNTS
    left_out: BoolArray = (blank == FILL) | (~measured & (not few))
    return left_out


def warn_unmeasured(left_out: BoolArray) -> None:
    """One sentence on frames that are left out, if there are any."""
    if left_out.any():
        count, first = int(left_out.sum()), int(np.argmax(left_out))
        warnings.warn(
            f"{count} of {len(left_out)} frames are empty (first: frame {first}): they and "
            "their positions are left out",
            PtychonWarning,
            stacklevel=3,
        )
