"""Which noise is in force: what the data state, what a person gives, what a run has learned; and
the variance that a misfit tells where nobody knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.result import Result
from ...kernels.reference import namespace
from ...types import FloatArray, PtychonError
from .background import with_background
from .moments import ANSCOMBE, COUNT_VARIANCE
from .record import KINDS, Noise

if TYPE_CHECKING:
    from ..problem import Problem


def told(
    problem: Problem, background: Any, kind: str = "auto", variance: float | None = None
) -> Problem:
    """The problem, for error bars, with a background that its data do not state; None and 0 leave
    it as it is.

    Raises
    ------
    PtychonError
        If the noise model is not that of counts, or the data state a background of their own; or if
        pixels share light, which no error bars know of.
    """
    if problem.spread is not None:
        raise PtychonError(
            "error bars know of no light that pixels share; reconstruct again without --blur and "
            "--upsample for them (--recipe rpie:60 takes none from the data), and widen them by "
            "--halves positions, since without it they are too small at fine details"
        )
    if background is None or not np.any(background):
        return problem
    if kind == "amplitude" or variance:
        mean = float(np.mean(background))
        raise PtychonError(
            f"a background of {mean:g} counts belongs to Poisson noise; the model is amplitude"
        )
    return with_background(problem, background)


def noise_of(
    problem: Problem, kind: str = "auto", variance: float | None = None, learn: bool = False
) -> Noise:
    """The noise model of a problem.

    Parameters
    ----------
    problem : Problem
    kind : {"auto", "amplitude", "poisson"}
        "auto" is "poisson" for counts, else "amplitude".
    variance : float, optional
        Of the amplitude; overrides what the problem says, and makes counts an amplitude with that
        variance.
    learn : bool
        The misfit has the last word, whatever is known: counts are amplitudes then, and the
        variance is where learning starts.

    Returns
    -------
    Noise
        Its variance is None where it has to be learned from nothing but the misfit.

    Raises
    ------
    PtychonError
        A Poisson model for data that are not counts, or numbers out of range.
    """
    if kind not in ("auto", *KINDS):
        raise PtychonError(f"the noise model is {kind!r}; choose auto, amplitude or poisson")
    if kind == "auto":
        kind = "poisson" if problem.counting and variance is None and not learn else "amplitude"
    if kind == "poisson" and not problem.counting:
        raise PtychonError(
            "the data are not counts, so their noise is not Poisson's; use the model amplitude"
        )
    if kind == "poisson" and problem.background is not None:
        return Noise("poisson", background=problem.background, read_noise=problem.read_noise)
    if kind == "poisson":
        return Noise("poisson")
    if variance is not None:
        return Noise("amplitude", variance, learned=learn)
    if problem.counting:
        return Noise("amplitude", COUNT_VARIANCE, ANSCOMBE, learned=learn)
    return Noise("amplitude", problem.noise_variance, learned=learn)


def noise_in(problem: Problem, result: Result, variance: float | None = None) -> Noise:
    """The noise model that a result rests on: with the options of its run, and what it has learned.

    Parameters
    ----------
    problem : Problem
    result : Result
        Of these data.
    variance : float, optional
        Overrides all of it.

    Returns
    -------
    Noise
        Its variance is (N,) where the run has learned one for each frame, and None where the run
        has left no word of it.
    """
    if variance is not None:
        return noise_of(problem, "auto", variance)
    if result.noise_variances is not None:
        return Noise("amplitude", result.noise_variances, learned=True)
    options = result.options
    learn = bool(options.get("learn_noise") or options.get("noise_per_frame"))
    noise = noise_of(problem, "auto", options.get("noise_variance"), learn)
    if not noise.learned:
        return noise
    history = result.history.get("noise_variance")
    last = np.nan if history is None or not len(history) else float(history[-1])
    return Noise("amplitude", last if np.isfinite(last) and last > 0 else None, learned=True)


def learned_variance(
    misfit: float, pixels: float, taken: float = 0.0, *, left: float = 0.25, least: float = 0.0
) -> float:
    """Variance of the amplitude, where nobody knows it: the squared misfit of all that was
    measured, less what the fit has taken of it.

    Parameters
    ----------
    misfit : float
        Sum of (y - m)^2.
    pixels : float
        How many were measured.
    taken : float
        How many numbers were fitted to them.
    left : float
        Share of the pixels that are counted at least.
    least : float
        Least misfit, for a fit without any.
    """
    return max(misfit, least) / max(pixels - taken, left * pixels)


def frame_variances(problem: Problem) -> FloatArray:
    """`mean_variance` of each frame by itself, (N,) float64, of a problem that has a
    `noise_scale`.
    """
    assert problem.noise_scale is not None
    scale = problem.noise_scale.astype(float)
    if not problem.counting:
        return scale * (problem.noise_variance or 0.0)
    xp = namespace(problem.amplitude)
    most, found = xp.asarray(COUNT_VARIANCE * problem.noise_scale)[:, None, None], []
    for i in range(0, len(problem), 64):
        part = xp.minimum(problem.amplitude[i : i + 64] ** 2, most[i : i + 64])
        valid = problem.mask_of(slice(i, i + 64)).sum(axis=(1, 2))
        found.append(part.sum(axis=(1, 2), dtype="float64") / xp.maximum(valid, 1))
    whole = xp.concatenate(found)
    return whole.get() if hasattr(whole, "get") else whole  # type: ignore[no-any-return]


def mean_variance(problem: Problem) -> float:
    """Variance of the amplitude noise, averaged over valid pixels: what is known, 0 where nothing
    is.

    Counts have 1/4 where they are not small; a pixel that counted nothing can hardly be wrong by
    that much and takes 0, a lower bound (in a scan with mostly empty pixels 1/4 everywhere would
    excuse any misfit).
    """
    if problem.noise_scale is not None:
        return float(frame_variances(problem).mean())
    if not problem.counting:
        return problem.noise_variance or 0.0
    total = sum(
        float((problem.amplitude[i : i + 64] ** 2).clip(0, COUNT_VARIANCE).sum())
        for i in range(0, len(problem), 64)
    )
    valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
    return total / valid
