"""Where the window of each frame lies, on whole pixels of the object."""

from __future__ import annotations

import numpy as np

from ..types import FloatArray, IntArray

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
