"""Frames on a grid that is finer or larger than the detector's.

Finer: a pixel counts what falls on all of it.

The window of the object is the inverse of a pixel of the detector. A probe that is larger needs
waves on n times as many points; what a pixel has counted stands at the point in its middle, and the
points between hold no data (Batey et al., Phys. Rev. A 89, 043812 (2014)). That each one measured
is the sum of n x n is the matter of the forward model.

Larger: pixels of unknown value are added around the detector. A pixel of the object is the inverse
of the whole detector, and so becomes finer; what lies beyond the measured angles is known only as
far as overlapping frames say it together (Maiden et al., J. Opt. Soc. Am. A 28, 604 (2011)).
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


def padded(data: Dataset, by: int) -> Dataset:
    """The same measurements with `by` pixels without data at each side of the detector; a first
    probe comes along, on the finer pixels of the object.

    Parameters
    ----------
    data : Dataset
    by : int

    Raises
    ------
    PtychonError
        In the near field, where a larger frame is a larger part of the object; or after frames were
        made finer.
    """
    if data.geometry == "near" or data.upsample > 1:
        why = (
            "these are of the near field"
            if data.geometry == "near"
            else "their grid was made finer already; pad before"
        )
        raise PtychonError(
            f"pad {by} makes object pixels of far-field frames finer, and {why}; leave it out"
        )
    shape = np.array(data.frame_shape)
    # the middle [P//2, Q//2] stays in the middle
    before = (shape + 2 * by) // 2 - shape // 2
    sides = [(int(b), int(2 * by - b)) for b in before]

    def around(frames: Array, empty: Any) -> Array:
        axes = [(0, 0)] * (frames.ndim - 2) + sides
        return np.pad(frames, axes, constant_values=empty)

    ratio = (shape + 2 * by) / shape
    mask = np.ones(data.frame_shape, bool) if data.mask is None else data.mask
    changes: dict[str, Any] = {}
    if isinstance(data.background, np.ndarray):
        changes["background"] = around(data.background, 0)
    if data.pixel_size is not None:
        changes["pixel_size"] = tuple(np.asarray(data.pixel_size) / ratio)
    else:
        changes["positions"] = data.positions * ratio
    if data.probe is not None:
        changes["probe"] = _on_finer_pixels(np.asarray(data.probe), around)
    return replace(
        data,
        patterns=around(np.asarray(data.patterns[:]), 0),
        mask=around(mask, False),
        object_shape=None,
        **changes,
    )


def _on_finer_pixels(probe: Array, around: Any) -> Array:
    """A probe on the pixels of a padded detector, with the same power and the same spectrum."""
    both = (-2, -1)
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, both), norm="ortho"), both)
    near = np.fft.ifft2(np.fft.ifftshift(around(far, 0), both), norm="ortho")
    return np.asarray(np.fft.fftshift(near, both), probe.dtype)
