"""Measured frames as a problem takes them: amplitudes in the order of the FFT, the mask without bad
values, and what people must know of both.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.bad_values import ROUNDING, BadValues, Tally
from ..data.blank import FILL, blank_frames, unmeasured, warn_unmeasured
from ..data.dataset import Dataset
from ..data.lazy import parts
from ..types import REAL, BoolArray, FloatArray, IntArray, PtychonError, PtychonWarning
from .noise.background import shifted as shifted_counts


@dataclass(frozen=True)
class Measured:
    """Frames as a problem takes them, with zero frequency at [0, 0] in the far field.

    Attributes
    ----------
    amplitude : (N, P, Q) float32
    mask : (1 or N, P, Q) bool
    counts, background : (N, P, Q) and (1, P, Q) float32, or None
        N and B (see `noise.background`), where there is a background or read noise.
    kept : (N,) int
        The numbers of the frames that were measured; the others are left out.
    """

    amplitude: FloatArray
    mask: BoolArray
    counts: FloatArray | None
    background: FloatArray | None
    kept: IntArray


def measured(data: Dataset) -> Measured:
    """The frames of a data set; bad values, frames that were not measured and negative values are
    told of.
    """
    far = data.geometry == "far"

    def order(a: Any) -> Any:
        return np.fft.ifftshift(a, axes=(-2, -1)) if far else a

    n, (p, q) = len(data), data.frame_shape
    amplitude = np.empty((n, p, q), REAL)
    totals, blank = np.empty(n), np.empty(n, np.int8)
    r = data.read_noise or 0.0
    dark = np.zeros((), REAL) if data.background is None else np.asarray(data.background, REAL)
    counts = np.empty((n, p, q), REAL) if r > 0 or bool(dark.any()) else None
    rule = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask)
    tally, below = Tally.new(rule, (p, q)), 0.0
    for part in parts(data.patterns):
        block = np.asarray(data.patterns[part])
        mask = data.mask if data.mask is None or data.mask.ndim == 2 else data.mask[part]
        blank[part] = blank_frames(block, mask)
        if (
            blank[part] == FILL
        ).any():  # left out below, and no bad values of frames that were measured
            block = np.where((blank[part] == FILL)[:, None, None], block.dtype.type(0), block)
        bad = tally.add(block, mask)
        valid: Any = mask if bad is None else ~bad if mask is None else mask & ~bad
        if valid is not None:
            block = np.where(valid, block, 0)
        if counts is not None:
            wave, shifted = shifted_counts(block.astype(np.float64), dark, r)
            valid = True if valid is None else valid
            counts[part] = order(np.where(valid, shifted, 0))
            block = np.where(valid, wave, 0).astype(REAL)
        elif rule.noise:
            below += float(np.minimum(block, 0).sum(dtype=np.float64))
            block = np.maximum(block, 0)
        totals[part] = block.sum(axis=(1, 2), dtype=np.float64)
        root = order(np.sqrt(block, dtype=REAL if block.dtype.kind != "f" else None))
        amplitude[part] = root if bad is None else np.where(order(bad), np.nan, root)
    valid = (
        np.ones((1, p, q), bool)
        if data.mask is None
        else np.ascontiguousarray(order(data.mask)).reshape(-1, p, q)
    )
    valid = _told(tally, amplitude, valid, order(~tally.ever))
    left_out = unmeasured(blank, totals)
    warn_unmeasured(left_out)
    if -below > ROUNDING * totals.sum():
        _tell_noise(rule, data)
    kept = np.flatnonzero(~left_out)
    if left_out.any():
        amplitude, counts = (
            _closed_up(amplitude, kept),
            None if counts is None else _closed_up(counts, kept),
        )
        valid = valid if len(valid) == 1 else valid[kept]
    background = None
    if counts is not None:
        whole = np.broadcast_to(dark + REAL.type(r * r), (1, p, q))
        background = np.ascontiguousarray(order(whole))
    return Measured(amplitude, valid, counts, background, kept)


def _told(tally: Tally, amplitude: FloatArray, mask: BoolArray, good: BoolArray) -> BoolArray:
    """The mask without bad values, which are NaN in `amplitude` and become 0; they are told of.

    A frame has a mask of its own only where the bad pixels are not the same in all of them.
    """
    if not tally.ever.any():
        return mask
    whole = mask & good if tally.still else np.array(np.broadcast_to(mask, amplitude.shape))
    for part in range(0, len(amplitude), 64):
        block = amplitude[part : part + 64]
        bad = np.isnan(block)
        block[bad] = 0
        if not tally.still:
            whole[part : part + 64] &= ~bad
    if not whole.any():
        raise PtychonError(
            f"no valid pixel is left, as {tally.sentence}: wrong dataset, or a mask inverted?"
        )
    warnings.warn(tally.sentence, PtychonWarning, stacklevel=5)
    return np.ascontiguousarray(whole)


def _tell_noise(rule: BadValues, data: Dataset) -> None:
    if data.counting and data.noise_variance is None:
        remedy, unit = f"give --read-noise {rule.noise:.2g} (which engine ep uses)", " counts"
    else:
        remedy, unit = "give --gain, the units per photon or electron, and --read-noise", ""
    warnings.warn(
        f"{rule.share:.2g} of the values are negative by noise of {rule.noise:.3g}{unit} (rms) "
        "and are taken as 0, which makes "
        f"dark pixels too bright; to keep them {remedy}",
        PtychonWarning,
        stacklevel=5,
    )


def _closed_up(stack: FloatArray, which: IntArray) -> FloatArray:
    """Some frames of a stack, ascending, moved to its beginning, so that no second
    stack is needed.
    """
    for to, at in enumerate(which):
        stack[to] = stack[at]
    return stack[: len(which)]
