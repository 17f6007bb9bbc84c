"""Where frames lie on the object: positions in its pixels, and the window of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..types import FloatArray, IntArray, PtychonError

#: How far beyond half a pixel a position may drift before its window follows: a position that
#: trembles moves no window.
SLACK = 0.25


def windows(
    positions: FloatArray,
    shape: tuple[int, int],
    corners: IntArray | None = None,
    object_shape: tuple[int, int] | None = None,
) -> IntArray:
    """Corners (N, 2) int32 of windows of `shape` about positions (N, 2), on the host; those that
    are near enough stay.

    Parameters
    ----------
    positions : (N, 2) float, object pixels
    shape : (P, Q)
    corners : (N, 2) int, optional
        Where they were. A window moves only if its position has left its middle by more than 1/2 +
        1/4 px.
    object_shape : (H, W), optional
        Windows stay inside it. A position near the rim is then further from the middle of its
        window, and the probe is shifted by that much: right as long as the probe fades towards the
        edges of its window.
    """
    half = np.array([n // 2 for n in shape])
    nearest = np.asarray(np.rint(positions) - half, np.int32)
    if corners is not None:
        stays = (np.abs(positions - half - corners) <= 0.5 + SLACK).all(axis=1, keepdims=True)
        nearest = np.where(stays, corners, nearest)
    if object_shape is not None:
        nearest = np.clip(nearest, 0, np.array(object_shape) - np.array(shape))
    return np.asarray(nearest, np.int32)


def pair(value: Any) -> tuple[float, float]:
    y, x = np.broadcast_to(np.asarray(value, float), (2,))
    return float(y), float(x)


def placed(
    data: Dataset, shape: tuple[int, int] | None
) -> tuple[FloatArray, tuple[int, int], tuple[float, float]]:
    """Probe centres in object pixels (N, 2), the object's shape, and the position of its pixel [0,
    0].
    """
    scale = np.ones(2) if data.pixel_size is None else np.array(pair(data.pixel_size))
    pixels = data.positions / scale
    frame = np.array(data.frame_shape)
    if shape is None:
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        extent = np.ceil(high - low).astype(int) + frame
        if np.prod(extent.astype(float)) > 2**31:
            unit = "px" if data.pixel_size is None else "m"
            raise PtychonError(
                f"the scan spans {extent[0]} x {extent[1]} object pixels "
                f"({np.ptp(data.positions, axis=0)} {unit}): "
                f"are the positions in {unit}, and is the pixel size right?"
            )
        # a whole-pixel offset keeps whole-pixel scans whole
        offset = frame // 2 - np.floor(low)
        extent = np.rint(high + offset).astype(int) - frame // 2 + frame
        shape = int(extent[0]), int(extent[1])
    else:
        shape = int(shape[0]), int(shape[1])
        if (np.array(shape) < frame).any():
            raise PtychonError(
                f"the probe is {frame[0]}x{frame[1]} px, larger than the object of "
                f"{shape[0]}x{shape[1]}"
            )
        offset = np.array(shape) // 2
    origin = -offset * scale
    return pixels + offset, shape, (float(origin[0]), float(origin[1]))


def check_windows(corners: IntArray, frame: tuple[int, int], shape: tuple[int, int]) -> None:
    outside = (corners < 0).any(axis=1) | (corners + frame > shape).any(axis=1)
    if outside.any():
        j = int(np.flatnonzero(outside)[0])
        (y, x), (p, q) = corners[j], frame
        raise PtychonError(
            f"{int(outside.sum())} of {len(corners)} positions put the {p}x{q} window outside "
            "the object of "
            f"{shape[0]}x{shape[1]} px (first: position {j}, rows {y}..{y + p - 1}, columns "
            f"{x}..{x + q - 1}); "
            f"enlarge object_shape or leave it out"
        )
