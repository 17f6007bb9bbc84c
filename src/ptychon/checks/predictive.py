r"""Do the data look as the result foretells? Every frame and every detector pixel is asked, at a
stated rate of false alarms.

    chi2_j = sum_l q_jl / sum_l E q_jl                    misfit of frame j over what is foretold
                                                          (`sums`)
    w_j                                                   the same as a normal number
                                                          (`model.noise.moments`)

A frame is bad whose w_j, less what the share h_j that its pixels were fitted explains by a
parabola, over the robust standard deviation of all frames (never below 1), exceeds Student's t of
the chance a/N. A pixel is hot or dead whose total of all frames is as improbable under Poisson, and
noisy whose chi2 is. What drifts is a quantity with a slope against the frame's number (chi2, dose,
translation by y and by x; neighbours correlate, so the number of independent frames is reduced):
chance a/4 each. That is not asked of results without error bars: engines that visit the frames in
turn leave their order behind. Nothing is flagged of a run that has not converged (`convergence`):
its good frames and pixels do not fit either. So a scan without any fault has a bad frame, a bad
pixel and a drift with the chance a each, or less.

Levels of misfit that all pixels of one brightness share are divided out before: they are the
result's own `level`, not a fault of a frame. A drift that is smooth over the object is followed by
the object, as a distortion of it, and cannot be seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from ..data.result import Result
from ..data.slices import must_be_thin
from ..metrics.residual import variance_left
from ..model.noise import Noise, noise_in, noise_of
from ..model.noise.moments import deviate, normalised
from ..model.problem import Problem
from ..types import FloatArray, IntArray, PtychonError
from .convergence import convergence
from .sums import CLASSES, Sums, check_belongs, collect, shared
from .trends import deviation, explained, least_absolute, trends_of
from .verdict import Check

#: Chance of a false alarm in a scan without fault, for frames, for pixels and for drifts.
FALSE_ALARM = 0.05
#: Share of a normal sample's information that its median absolute deviation holds.
EFFICIENCY = 0.37
#: Expected misfit of a class in a frame from which on its level is a median over frames; and counts
#: that hold ratios to 1.
ENOUGH, HOLD = 20.0, 50.0
#: Brightness from which on classes make the level of the whole.
BRIGHT = 1.0
#: Fewest expected counts (or misfit) of a pixel for it to be compared with others.
LEAST = 5.0


def check(
    problem: Problem,
    result: Result,
    *,
    false_alarm: float = FALSE_ALARM,
    noise_variance: float | None = None,
    backend: Any = None,
) -> Check:
    """Compare the data of a result with what it foretells of them.

    Parameters
    ----------
    problem : Problem
        On the host.
    result : Result
        Of these data, with `draws` (best), with `object_std`, or with neither.
    false_alarm : float
        Chance that a scan without fault has a bad frame; the same for pixels, and for drifts.
    noise_variance : float, optional
        Of the amplitude; default what the engine learned for each frame, what the problem says, or
        what the engine learned.
    backend : Backend, optional
        The CPU without it.

    Returns
    -------
    Check

    Raises
    ------
    PtychonError
        If the result is of other data, or a number is out of range.
    """
    if not 0 < false_alarm < 1:
        raise PtychonError(
            f"the rate of false alarms is {false_alarm}; it must lie between 0 and 1"
        )
    if noise_variance is not None and not noise_variance > 0:
        raise PtychonError(
            f"the variance of the amplitude noise is {noise_variance}; it must be positive"
        )
    must_be_thin(result, "single frames and pixels are checked for", "see ptychon report")
    check_belongs(problem, result)
    if problem.spread is not None:
        raise PtychonError(
            "the check knows of no light that pixels share (--blur, --upsample); compare R with "
            "and without them instead"
        )
    if backend is None:
        from ..backends import get_backend

        backend = get_backend("numpy")
    noise = _noise(problem, result, noise_variance)
    variance = np.asarray(noise.variance, np.float64) if noise.per_frame else None
    sums = collect(problem, result, noise, backend)
    foretold = result.object_std is not None or (result.draws is not None and len(result.draws) > 0)
    bright = np.array([math.inf, *CLASSES]) * (1 - 1e-9) >= BRIGHT
    bright[0] = False
    total, heard = float(sums.expected[0][:, bright].sum()), float(sums.misfit[:, bright].sum())
    level = heard / total if total > 0 and foretold and not noise.learned else None
    error = math.sqrt(float(sums.expected[1][:, bright].sum())) / total if total > 0 else math.nan
    levels = _levels(sums)
    fitted = sums.fitted if foretold else shared(problem, result)
    chi2, w = _frames(sums, levels)
    design = explained(fitted, variance)
    rest = w - least_absolute(design, w)
    score = rest / max(1.0, deviation(rest))
    frame_limit = float(
        student.isf(false_alarm / len(problem), max(4.0, EFFICIENCY * len(problem)))
    )
    bad = np.flatnonzero(score > frame_limit)
    bad = bad[np.argsort(-score[bad], kind="stable")]
    kept = sums
    if 0 < len(bad) < len(problem) - 2:
        # what is wrong with a frame is not to be put on pixels
        rest_of = np.setdiff1d(np.arange(len(problem)), bad)
        kept = collect(problem.select(rest_of), result, noise.at(rest_of), backend)
    pixel_chi2, high, signed = _pixels(kept, levels, counting=noise.kind == "poisson")
    asked = max(1, int((sums.seen > 0).sum()))
    pixel_limit = float(norm.isf(false_alarm / (3 * asked)))
    dose = np.divide(
        sums.dose, sums.foretold_dose, out=np.ones(len(problem)), where=sums.foretold_dose > 0
    )
    shift, shift_std = _shifts(sums)
    quantities = {"chi2": chi2, "dose": dose, "shift_y": shift[:, 0], "shift_x": shift[:, 1]}
    if variance is not None:
        del quantities["chi2"]  # every frame has its own measure of it
    trends = trends_of(quantities, design, bad)
    far = problem.propagator.transfer is None

    def picture(x: FloatArray) -> FloatArray:
        x = np.where(sums.seen > 0, x, np.nan)
        return np.fft.fftshift(x) if far else x

    signed, high, pixel_chi2 = (picture(x) for x in (signed, high, pixel_chi2))
    hot, dead = signed > pixel_limit, signed < -pixel_limit
    noisy = (high > pixel_limit) & ~hot & ~dead
    drifts = tuple(t for t in trends if foretold and t.chance < false_alarm / len(trends))
    run = convergence(problem, result, backend)
    if not run.reached:
        hot, dead, noisy = (np.zeros_like(hot) for _ in range(3))
        bad, drifts = bad[:0], ()
    return Check(
        noise=variance,
        level=level,
        level_error=error,
        foretold=foretold,
        chi2=chi2,
        score=score,
        dose=dose,
        shift=shift,
        shift_std=shift_std,
        pixel_chi2=pixel_chi2,
        pixel_score=signed,
        bad_frames=bad,
        worst_frames=_worst(bad, result.positions, problem.frame_shape),
        hot=np.argwhere(hot),
        dead=np.argwhere(dead),
        noisy=np.argwhere(noisy),
        trends=trends,
        drifts=drifts,
        frame_limit=frame_limit,
        pixel_limit=pixel_limit,
        false_alarm=false_alarm,
        convergence=run,
    )


def _worst(bad: IntArray, positions: FloatArray, frame: tuple[int, int]) -> IntArray:
    """Of frames in the order of their misfit, those that are not within half a window of a worse
    one.
    """
    kept: list[int] = []
    for j in bad.tolist():
        if not any((np.abs(positions[j] - positions[k]) < np.array(frame) / 2).all() for k in kept):
            kept.append(j)
    return np.array(kept, int)


def _noise(problem: Problem, result: Result, given: float | None) -> Noise:
    """By which the data are judged. `learned` where it comes from their own misfit."""
    noise = noise_in(problem, result, given)
    if noise.learned and not noise.per_frame and problem.noise_variance is not None:
        return noise_of(problem)  # the better judge: it does not know the result
    if noise.variance is None:
        return noise.fitted(variance_left(problem, result.object, result.probe))
    return noise


def _levels(sums: Sums) -> FloatArray:
    """Misfit over expectation of each class of brightness, from the middle of the frames, (C,)
    float64.
    """
    expected = sums.expected[0]
    ratio = (sums.capped + HOLD) / (expected.sum(axis=0) + HOLD)
    for c in range(expected.shape[1]):
        full = expected[:, c] > ENOUGH
        if full.mean() > 0.5:
            ratio[c] = np.median(sums.misfit[full, c] / expected[full, c])
    return np.asarray(np.maximum(ratio, 1e-6))


def _frames(sums: Sums, levels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """chi2 and normal number of every frame."""
    mean, variance, third = ((sums.expected[i] * levels ** (i + 1)).sum(axis=1) for i in range(3))
    total = sums.misfit.sum(axis=1)
    chi2 = np.divide(total, mean, out=np.ones_like(total), where=mean > 0)
    return chi2, normalised(total, mean, variance, third)


def _pixels(
    sums: Sums, levels: FloatArray, counting: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """chi2 of every pixel, its normal number, and that of its total, each over the robust deviation
    of all pixels.
    """
    weights = levels[:, None, None]
    mean, square, third = (
        (sums.pixel_expected[i] * weights ** (i + 1)).sum(axis=0) for i in range(3)
    )
    chi2 = np.divide(sums.pixel_misfit, mean, out=np.ones_like(mean), where=mean > 0)
    high = np.where(mean > LEAST, normalised(sums.pixel_misfit, mean, square, third), 0.0)
    foretold = sums.foretold.sum(axis=(1, 2))
    ratio = (sums.heard + HOLD) / (foretold + HOLD)
    if counting:
        total, spread = (
            (x * ratio[:, None, None]).sum(axis=0) for x in (sums.foretold, sums.spread)
        )
        left = np.divide(spread, total, out=np.ones_like(total), where=total > 0)
        # a misfit that all have alike makes totals as unsure
        above = (sums.foretold * (ratio * np.maximum(levels, 1))[:, None, None]).sum(axis=0)
        left *= np.divide(above, total, out=np.ones_like(total), where=total > 0)
        signed = deviate(sums.counted, total) / np.sqrt(np.where(total > LEAST, left, 1))
        many = total > LEAST
    else:
        total, spread = (
            (sums.foretold * ratio[:, None, None]).sum(axis=0),
            (sums.spread * weights).sum(axis=0),
        )
        signed = (sums.counted - total) / np.sqrt(np.maximum(spread, 1e-300))
        many = sums.seen > 0
    many &= sums.seen > 0
    enough = (mean > LEAST) & (sums.seen > 0)
    high = (high - (float(np.median(high[enough])) if enough.any() else 0.0)) / max(
        1.0, deviation(high[enough])
    )
    return (
        chi2,
        np.where(enough, high, 0.0),
        np.where(sums.seen > 0, signed / np.where(many, max(1.0, deviation(signed[many])), 1), 0.0),
    )


def _shifts(sums: Sums) -> tuple[FloatArray, FloatArray]:
    """Translation of each frame, and its standard error."""
    ridge = 1e-9 * np.trace(sums.normal, axis1=1, axis2=2)[:, None, None] * np.eye(
        2
    ) + 1e-12 * np.eye(2)
    inverse = np.linalg.inv(sums.normal + ridge)
    return np.einsum("nab,nb->na", inverse, sums.pull), np.sqrt(
        np.maximum(np.einsum("naa->na", inverse), 0)
    )
