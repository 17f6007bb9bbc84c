"""One position for every frame: which frames are taken, and what to do where there are more of one
than of the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.prepare import slice_text
from ..types import Array, FloatArray, IntArray, PtychonError

#: More frames than this at one end of a scan are no dark frames.
_DARK_FRAMES = 20
#: A dark frame has less than this share of the counts of others.
_DARK = 0.1
#: A jump of so many steps begins a new row.
_JUMP = 3.0


def paired(
    patterns: Array,
    positions: Any,
    *,
    which: slice | None = None,
    drop: int | None = None,
    scan_shape: tuple[int, int] | None = None,
    listed: bool = True,
    source: str,
) -> tuple[IntArray | None, Any]:
    """Numbers of the frames that are taken, None for all, and a position for each of them.

    Parameters
    ----------
    patterns : (N, P, Q) array, perhaps lazy
    positions : (M, 2) array
        One a frame of the file, or one a frame that is taken; where M < N is neither, of the first
        M frames.
    which : slice, optional
        Of the frames (after `drop`).
    drop : int, optional
        Frames that are left out at the end of each row of a raster, or if negative at its
        beginning.
    scan_shape : (slow, fast), optional
        Of the raster, with those frames or without.
    listed : bool
        Whether positions are listed, not computed from `scan_shape`.
    source : str
        Name of the file, for messages.

    Raises
    ------
    PtychonError
        If there is not one position a frame; it says with which flag there is.
    """
    count, points = len(patterns), len(positions)
    if which is None and drop is None:
        if points != count:
            raise PtychonError(f"{source}: {_mismatch(patterns, positions, scan_shape, listed)}")
        return None, positions
    index: IntArray = np.arange(count)
    if drop is not None:
        index = _without_columns(
            count, points, drop, scan_shape or (raster_of(positions) if listed else None), source
        )
        if points == count:
            positions = positions[index]
        elif points != len(index) and which is None:
            raise PtychonError(
                f"{source}: without {abs(drop)} of the frames in each row there are "
                f"{len(index)} frames for {points} "
                f"positions; correct --drop-columns or --scan-shape"
            )
    if which is not None:
        chosen = np.arange(len(index))[which]
        text = slice_text(which)
        if len(chosen) < 2:
            raise PtychonError(
                f"frames {text} of {len(index)} leave {len(chosen)}; at least 2 are needed"
            )
        if len(positions) == len(index) or (
            len(positions) != len(chosen) and chosen.max() < len(positions)
        ):
            positions = positions[chosen]
        index = index[chosen]
        if len(positions) != len(index):
            wrong = _mismatch(patterns, positions, scan_shape, listed)
            raise PtychonError(f"{source}: frames {text} are {len(index)}, and {wrong}")
    return index, positions


def _without_columns(
    count: int, points: int, drop: int, shape: tuple[int, int] | None, source: str
) -> IntArray:
    """Numbers of the frames without `drop` of each row."""
    rows = 0
    if drop == 0:
        raise PtychonError(
            "--drop-columns is 0; give the number of frames at the end of each row, or -N for "
            "its beginning"
        )
    if shape is not None and count in (shape[0] * shape[1], shape[0] * (shape[1] + abs(drop))):
        rows = shape[0]
    elif shape is None and points < count and (count - points) % abs(drop) == 0:
        rows = (count - points) // abs(drop)
    if rows == 0 or count % rows != 0:
        known = (
            "the shape of the scan is not known"
            if shape is None
            else f"{count} frames do not fit {shape[0]} rows"
        )
        raise PtychonError(
            f"{source}: {known}, so that frames of each row can be left out; give --scan-shape "
            "ROWSxCOLUMNS"
        )
    columns = count // rows
    if columns - abs(drop) < 1:
        raise PtychonError(
            f"{source}: rows have {columns} frames, so {abs(drop)} cannot be left out of each; "
            "give fewer"
        )
    grid = np.arange(count).reshape(rows, columns)
    return (grid[:, :-drop] if drop > 0 else grid[:, -drop:]).reshape(-1)


def raster_of(positions: FloatArray) -> tuple[int, int] | None:
    """(rows, columns) of positions that jump back at the end of each row of equal length; None
    where they do not.
    """
    places = np.asarray(positions)
    if places.ndim != 2 or len(places) < 4 or places.dtype.kind not in "uif":
        return None
    step = np.hypot(*np.diff(places.astype(np.float64), axis=0).T)
    if not (np.isfinite(step).all() and np.median(step) > 0):
        return None
    ends = np.flatnonzero(step > _JUMP * np.median(step)) + 1
    lengths = np.diff([0, *ends, len(places)])
    return (
        (len(lengths), int(lengths[0]))
        if len(lengths) > 1 and np.ptp(lengths) == 0 and lengths[0] > 1
        else None
    )


def _mismatch(patterns: Array, positions: Any, shape: tuple[int, int] | None, listed: bool) -> str:
    """What is wrong where frames and positions are not equally many, and the flags that mend it."""
    count, points = len(patterns), len(positions)
    if listed or shape is None:
        said, correct = f"there are {count} frames for {points} positions", ""
    else:
        said = f"scan shape {shape[0]}x{shape[1]} is {points} points, but there are {count} frames"
        correct = "; correct it with --scan-shape"
    if points > count:
        said += correct or ", and each needs one"
        return f"{said}; if the scan was stopped early, take the first ones with --frames 0:{count}"
    raster = raster_of(positions) if listed else shape
    if (
        raster is not None
        and count % raster[0] == 0
        and 0 < (more := count // raster[0] - raster[1]) <= max(2, raster[1] // 2)
    ):
        frames = f"{more} frame{'s' * (more > 1)}"
        return (
            f"{said}, {frames} more in each of the {raster[0]} rows: if the beam flies back in "
            "the last of a row, leave them "
            f"out with --drop-columns {more}; if in the first, with --drop-columns -{more}"
        )
    more = count - points
    first, last = _dark_ends(patterns, more)
    plural, them = (f"{more} frames are", "them") if more > 1 else ("frame is", "it")
    if first and not last:
        return f"{said}; the first {plural} dark: leave {them} out with --frames {more}:"
    if last and not first:
        return f"{said}; the last {plural} dark: leave {them} out with --frames 0:{points}"
    return (
        f"{said}{correct}; leave the first out with --frames {more}: or the last with --frames "
        f"0:{points}"
    )


def _dark_ends(patterns: Array, more: int) -> tuple[bool, bool]:
    """Whether so many frames at the beginning, and at the end, are dark beside the others."""
    count = len(patterns)
    if not 0 < more <= min(_DARK_FRAMES, count // 4):
        return False, False
    middle = np.linspace(more, count - more - 1, 5).astype(int)
    sums = np.asarray(patterns[np.r_[0:more, middle, count - more : count]], np.float64).sum(
        axis=(1, 2)
    )
    level = _DARK * float(np.median(sums[more : more + len(middle)]))
    return bool((sums[:more] < level).all()), bool((sums[-more:] < level).all())
