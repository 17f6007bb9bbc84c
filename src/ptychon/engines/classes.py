"""Classes of detector pixels that learn alike: rings of the detector times octaves of brightness; masked pixels are the last.

Brightness is |z|^2 over the variance v of the noise. Where a background B is counted with the wave it is |z|^2/(1 + B/|z|^2),
the square of the signal over its noise, which is the same without one.
"""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from ..types import Array

#: Rings of the detector, and octaves of brightness from 1/16 of the noise up, that make the classes of pixels.
RINGS, OCTAVES, FIRST_OCTAVE = 10, 14, -4
#: All classes of valid pixels; that of masked ones has this number.
MASKED = RINGS * OCTAVES
#: Least variance of a class relative to the noise.
LEAST_VARIANCE = 1e-4


def classify(problem: Problem, b: slice, power: Array, v: Array, xp: Any) -> Array:
    """Class of each pixel of a block, by ring (one, in the near field) and octave of the brightness.

    Parameters
    ----------
    problem : Problem
    b : slice
        Frames of the block.
    power : (B, P, Q) float32
        |z|^2.
    v : 0-d float32
        Variance of the amplitude's noise.
    xp : module

    Returns
    -------
    (B, P, Q) int32
    """
    p, q = problem.frame_shape
    y, x = xp.fft.fftfreq(p)[:, None], xp.fft.fftfreq(q)[None]
    ring = xp.minimum(2 * RINGS * xp.sqrt(y * y + x * x), RINGS - 1).astype("int32")
    if problem.propagator.transfer is not None:
        ring = xp.zeros_like(ring)
    if problem.background is not None:
        power = power * power / xp.maximum(power + problem.background, 1e-30)
    octave = xp.clip(xp.floor(xp.log2(xp.maximum(power / (2 * v), 1e-9))) - FIRST_OCTAVE, 0, OCTAVES - 1).astype("int32")
    return xp.where(problem.mask_of(b), ring * OCTAVES + octave, MASKED)


def smooth(total: Array, count: Array, v: Array, xp: Any) -> Array:
    """Mean per class; a class with few pixels leans on its ring, a ring with few on all. Masked pixels get that of all."""
    least = LEAST_VARIANCE * v
    everything = total[:-1].sum() / count[:-1].sum()
    t, n = total[:-1].reshape(RINGS, OCTAVES), count[:-1].reshape(RINGS, OCTAVES)
    ring = (t.sum(axis=1) + 10 * everything) / (n.sum(axis=1) + 10)
    mean = (t + 30 * ring[:, None]) / (n + 30)
    return xp.maximum(xp.concatenate([mean.reshape(-1), everything[None]]), least).astype("float32")
