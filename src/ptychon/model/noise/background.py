"""Counts that are not the wave's, and read noise: what is counted, and the amplitude that is left
when they are taken off.

    n ~ Poisson(|z|^2 + b) + N(0, r^2)              the pattern
    N = n + r^2,  B = b + r^2                       N ~ Poisson(|z|^2 + B) has its mean and its
                                                    variance, exact where r = 0 (Snyder et al., J.
                                                    Opt. Soc. Am. A 10, 1014 (1993))
    y = sqrt(max(n - b, 0))                         for engines that know amplitudes only
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...kernels.reference import namespace
from ...types import REAL, Array, FloatArray, PtychonError
from .moments import subtracted_noise

if TYPE_CHECKING:
    from ..problem import Problem

#: Frames from which the variance of subtracted amplitudes is estimated.
NOISE_FRAMES = 16


def shifted(pattern: Array, dark: Any, read_noise: float) -> tuple[Array, Array]:
    """max(n - b, 0) and N of patterns n, float64."""
    return np.maximum(pattern - dark, 0), pattern + read_noise * read_noise


def counts_of(problem: Problem, b: Any, dtype: Any = None) -> Array:
    """What was counted in a block of frames, (B, P, Q), where the problem is: N, or the square of
    the amplitude. Its mean is |z|^2 plus the background, if any.
    """
    data = problem.amplitude[b] if problem.counts is None else problem.counts[b]
    data = data if dtype is None else data.astype(dtype, copy=False)
    return data**2 if problem.counts is None else data


def counted(problem: Problem, pattern: Array, b: slice) -> tuple[Array, Array]:
    """`Problem.amplitude` and `counts` of measured patterns (B, P, Q), float, in the order of the
    amplitude; on the host.
    """
    assert problem.background is not None
    dark = np.asarray(problem.background, np.float64) - problem.read_noise**2
    wave, counts = shifted(pattern, dark, problem.read_noise)
    valid = problem.mask_of(b)
    return np.where(valid, np.sqrt(wave), 0).astype(REAL), np.where(valid, counts, 0).astype(REAL)


def with_background(problem: Problem, background: Any, instead: bool = False) -> Problem:
    """The same counts, of which so many a pixel (a number, or (P, Q) in the order of the amplitude)
    are no part of the wave; `instead` of the background that is known already, read noise staying.

    Raises
    ------
    PtychonError
        If the data are not counts, a background is known already, or it is negative.
    """
    if not problem.counting:
        raise PtychonError(
            "a background in counts belongs to Poisson noise; these data are not counts"
        )
    if problem.counts is not None and not instead:
        raise PtychonError("the data state their background already; do not give another")
    b = np.asarray(background, np.float64)
    if b.shape not in ((), problem.frame_shape) or not (np.isfinite(b) & (b >= 0)).all():
        what = f"a number of counts, or {problem.frame_shape}, not negative"
        raise PtychonError(f"the background is {background}; it must be {what}")
    extra = problem.read_noise**2
    whole = (np.broadcast_to(b, (1, *problem.frame_shape)) + extra).astype(REAL)
    known = replace(problem, background=whole)
    if problem.counts is None:
        pattern = np.square(problem.amplitude, dtype=np.float64)
    else:
        pattern = problem.counts.astype(np.float64) - extra
    amplitude, counts = counted(known, pattern, slice(0, len(problem)))
    return replace(known, amplitude=amplitude, counts=counts)


def with_read_noise(problem: Problem, read_noise: float) -> Problem:
    """The same patterns with another read noise, of a problem that keeps its counts. Where the
    problem is.
    """
    assert problem.counts is not None
    assert problem.background is not None
    more = REAL.type(read_noise**2 - problem.read_noise**2)
    xp = namespace(problem.counts)
    counts = xp.where(problem.mask, problem.counts + more, 0).astype(REAL)
    background = (problem.background + more).clip(0, None)
    return replace(problem, counts=counts, background=background, read_noise=read_noise)


def whole(problem: Problem) -> Problem:
    """The problem as if nobody knew its background: all that was counted is the wave's, but for
    what stands for read noise. Where the problem is.
    """
    if problem.counts is None or problem.background is None:
        return problem
    extra, xp = problem.read_noise**2, namespace(problem.counts)
    pattern = (problem.counts - REAL.type(extra)).clip(0, None)
    amplitude = xp.where(problem.mask, xp.sqrt(pattern), 0).astype(REAL)
    if not extra:
        return replace(problem, amplitude=amplitude, counts=None, background=None)
    return replace(
        problem, amplitude=amplitude, background=0 * problem.background + REAL.type(extra)
    )


def dark_of(problem: Problem) -> FloatArray:
    """The background of a problem in counts, without what stands for read noise, as frames are
    measured: (P, Q) float32.
    """
    assert problem.background is not None
    dark = np.asarray(problem.background, np.float64)[0] - problem.read_noise**2
    return np.asarray(dark if problem.near_field else np.fft.fftshift(dark), REAL)


def with_dark(problem: Problem, dark: FloatArray) -> Problem:
    """The problem with what `dark_of` gives in place of the background that it has."""
    ordered = dark if problem.near_field else np.fft.ifftshift(dark)
    return with_background(problem, np.maximum(ordered, 0), instead=True)


def subtracted(problem: Problem) -> Problem:
    """The same for engines that know amplitudes only, with the mean of their variance, which is not
    that of counts.
    """
    if problem.counts is None or problem.background is None:
        return problem
    every = slice(None, None, max(1, len(problem) // NOISE_FRAMES))
    amplitude = problem.amplitude[every].astype(np.float64)
    valid: FloatArray = np.broadcast_to(problem.mask_of(every), amplitude.shape)
    square, mean = subtracted_noise(amplitude, np.asarray(problem.background, np.float64))
    variance = square - (mean - amplitude) ** 2
    return replace(
        problem,
        counts=None,
        background=None,
        read_noise=0.0,
        counting=False,
        noise_variance=float(variance[valid].mean()),
    )
