"""Classes of detector pixels that learn alike: rings of the detector times octaves of brightness;
masked pixels are the last.

Brightness is |z|^2 over the variance v of the noise. Where a background B is counted with the wave
it is |z|^2/(1 + B/|z|^2), the square of the signal over its noise, which is the same without one.
Where each frame has a variance of its own,
frames of about the same variance (half octaves about the first mean of all, `level`) have classes
of their own as well.
"""

from __future__ import annotations

from typing import Any

from ..model.noise.moments import stabilised
from ..model.problem import Problem
from ..types import Array

#: Rings of the detector, and octaves of brightness from 1/16 of the noise up, that make the classes
#: of pixels.
RINGS, OCTAVES, FIRST_OCTAVE = 10, 14, -4
#: Half octaves of the noise of a frame, and how many of them are below the first mean.
BANDS, BELOW = 24, 14
#: Least variance of a class relative to the noise.
LEAST_VARIANCE = 1e-4


def number(per_frame: bool) -> int:
    """How many classes there are, that of masked pixels (the last) included."""
    return RINGS * OCTAVES * (BANDS if per_frame else 1) + 1


def band_variances(level: Array, per_frame: bool, xp: Any) -> Array:
    """The variance that each class but the last stands for, (C - 1,)."""
    bands = xp.exp2(0.5 * (xp.arange(BANDS) - BELOW)) if per_frame else xp.ones(1)
    return xp.repeat(level * bands, RINGS * OCTAVES)


def classify(problem: Problem, b: slice, power: Array, v: Array, level: Array, xp: Any) -> Array:
    """Class of each pixel of a block, by ring (one, in the near field), octave of the brightness,
    and noise of the frame.

    Parameters
    ----------
    problem : Problem
    b : slice
        Frames of the block.
    power : (B, P, Q) float32
        |z|^2.
    v : 0-d or (B,) float32
        Variance of the amplitude's noise, of all frames or of each of the block.
    level : 0-d float32
        What bands of variances are relative to.
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
    per_frame = v.ndim > 0
    if per_frame:
        band = xp.clip(xp.rint(2 * xp.log2(v / level)) + BELOW, 0, BANDS - 1).astype("int32")
        ring, v = band[:, None, None] * RINGS + ring, v[:, None, None]
    octave = xp.clip(
        xp.floor(xp.log2(xp.maximum(power / (2 * v), 1e-9))) - FIRST_OCTAVE, 0, OCTAVES - 1
    ).astype("int32")
    return xp.where(problem.mask_of(b), ring * OCTAVES + octave, number(per_frame) - 1)


def change(g: Array, old: Array, new: Array, xp: Any) -> Array:
    """By what to multiply natural messages so that their means stay when pixels take the precision
    g (C,) of another class.
    """
    return xp.where(new < len(g) - 1, g[new] / xp.maximum(g[old], 1e-30), 1).astype("float32")


def smooth(total: Array, count: Array, v: Array, xp: Any) -> Array:
    """Mean per class; a class with few pixels leans on its ring, a ring with few on all. Masked
    pixels get that of all.
    """
    least = LEAST_VARIANCE * v
    everything = total[:-1].sum() / count[:-1].sum()
    t, n = total[:-1].reshape(-1, OCTAVES), count[:-1].reshape(-1, OCTAVES)
    ring = (t.sum(axis=1) + 10 * everything) / (n.sum(axis=1) + 10)
    mean = (t + 30 * ring[:, None]) / (n + 30)
    return xp.maximum(xp.concatenate([mean.reshape(-1), everything[None]]), least).astype("float32")


def misfits(
    problem: Problem, b: slice, power: Array, shifted: bool, xp: Any
) -> tuple[Array, Array]:
    """For each frame of a block the squared misfit of the amplitude, and of what has the variance
    v: the same, or where a background is `shifted` into the counts that of the root of all counts.
    (B,) float64 each, for |z|^2 = `power` (B, P, Q).
    """
    valid = problem.mask_of(b)
    plain = (xp.where(valid, xp.sqrt(power) - problem.amplitude[b], 0) ** 2).sum(
        axis=(1, 2), dtype="float64"
    )
    if not shifted or problem.counts is None:
        return plain, plain
    counts, mean = (stabilised(x) for x in (problem.counts[b], power + problem.background))
    return plain, (xp.where(valid, mean - counts, 0) ** 2).sum(axis=(1, 2), dtype="float64")
