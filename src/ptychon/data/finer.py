"""Frames on a grid that is finer than the detector's: a pixel counts what falls on all of it.

The window of the object is the inverse of a pixel of the detector. A probe that is larger needs
waves on n times as many points; what a pixel has counted stands at the point in its middle, and the
points between hold no data (Batey et al., Phys. Rev. A 89, 043812 (2014)). That each one measured
is the sum of n x n is the matter of the forward model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..types import Array, PtychonError
from .dataset import Dataset


def finer(data: Dataset, factor: int) -> Dataset:
    """The same measurements on a grid of `factor` times as many points along each axis.

    Parameters
    ----------
    data : Dataset
    factor : int

    Raises
    ------
    PtychonError
        In the near field, where a finer grid is one of the object; or where it was done already.
    """
    if data.geometry == "near" or data.upsample > 1:
        why = "these are of the near field" if data.geometry == "near" else "it was done already"
        raise PtychonError(
            f"upsample {factor} makes the grid of far-field frames finer, and {why}; leave it out"
        )
    shape = data.frame_shape
    size = tuple(n * factor for n in shape)
    where = [np.arange(n) * factor - n // 2 * factor + n * factor // 2 for n in shape]

    def spread(frames: Array, empty: Any) -> Array:
        whole = np.full((*frames.shape[:-2], *size), empty, frames.dtype)
        whole[..., where[0][:, None], where[1]] = frames
        return whole

    patterns: Any = np.asarray(data.patterns[:])
    mask = np.ones(shape, bool) if data.mask is None else data.mask
    changes: dict[str, Any] = {}
    if isinstance(data.background, np.ndarray):
        changes["background"] = spread(data.background, 0)
    pixel: Any = data.detector_pixel_size
    if pixel is not None:
        changes["detector_pixel_size"] = tuple(np.asarray(pixel) / factor)
    return replace(
        data,
        patterns=spread(patterns, 0),
        mask=spread(mask, False),
        # a window is as much larger, and so is the object
        probe=None,
        object_shape=None,
        upsample=factor,
        **changes,
    )
