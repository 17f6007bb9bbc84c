"""Are the bars true? The question put to a twin: data simulated from a draw of the posterior, where
the truth is known.

If the posterior is right, a draw of it is as good a truth as any, and bars made from the twin's
data in the same way must cover it (Cook, Gelman & Rubin, J. Comput. Graph. Stat. 15, 675 (2006)).
Their mean (error/bar)^2 is the temperature by which the variances of the result itself are
multiplied; what they cover after that says whether the bars can be trusted at all. What the model
of the data, or the optimum, has wrong, the twin has not: then the data fit worse than the twin's
do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..data.result import Result
from ..engines import spectral_prior as stationary
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import free_shift
from ..metrics.residual import PROBABILITIES, Coverage, coverage
from ..model.noise import noise_in
from ..model.problem import Problem
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray
from .bootstrap import simulated
from .starts import Starts

#: Largest deviation of the twin's coverage, range of its temperature, and largest misfit of the
#: data relative to that of the twin's, for bars that hold.
TOLERANCE, COOL, HOT, MISFIT = 0.05, 0.6, 1.6, 1.05
#: Largest share of the variance that may be the prior's alone.
ASSUMED = 0.5
#: Standard deviations of a temperature that are taken for chance: what draws tell of it is half of
#: what was measured, which has the scatter of learned spectra too.
SURE = 2.0
#: Largest translation (px) between the twin's reconstruction and its truth.
MAX_SHIFT = 8
#: What may remain of the step to the optimum, in bars at any octave of spatial frequency, before it
#: is said, and before bars do not hold.
SAID, FAR = 0.1, 0.3


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What the twin said.

    Attributes
    ----------
    temperature : float
        Mean (error/bar)^2 of the twin's bars as they were made.
    chance : float
        Its standard deviation by chance, from draws: few numbers make up a smooth object.
    covered : tuple of float
        Share of its lit pixels inside its bars times sqrt(temperature), for the probabilities
        `metrics.PROBABILITIES`.
    misfit : float
        chi^2 of the data over that of the twin's: 1 where model and optimum are right.
    assumed : float
        Share of the variance at spatial frequencies of which the data tell less than 40 %: there
        the bars are the prior's.
    error_db : float
        Of the twin's reconstruction.
    remains : float
        Step from the posterior mean of the data to its optimum that remains, in bars: the largest
        rms of an octave of spatial frequency.
    anew : bool
        Whether the twin was begun from nothing, by the recipe of the result; else next to its
        truth.
    starts : Starts, optional
        Where a second start of the data themselves has led.
    """

    temperature: float
    covered: tuple[float, ...]
    misfit: float
    assumed: float
    error_db: float
    remains: float = 0.0
    anew: bool = False
    starts: Starts | None = None
    chance: float = 0.0

    @property
    def factor(self) -> float:
        """What variances are multiplied by: the temperature less what may be chance (as James &
        Stein shrink a mean, Proc. Fourth Berkeley Symp. 1, 361 (1961)).
        """
        off = self.temperature - 1
        return 1 + off * max(0.0, 1 - (SURE * self.chance / off) ** 2) if off else 1.0

    @property
    def holds(self) -> bool:
        """Whether bars made in this way, here, are to be trusted."""
        off = max(abs(c - p) for c, p in zip(self.covered, PROBABILITIES, strict=True))
        return (
            off <= TOLERANCE
            and COOL <= self.temperature <= HOT
            and self.misfit <= MISFIT
            and self.assumed <= ASSUMED
            and self.remains <= FAR
            and (self.starts is None or self.starts.agree)
        )

    def sentence(self) -> str:
        """For a report."""
        shares = ", ".join(
            f"{c:.0%} for {p:.0%}" for c, p in zip(self.covered, PROBABILITIES, strict=True)
        )
        start = (
            f"on a twin of these data, {'begun anew' if self.anew else 'begun at its truth'}, the "
            f"bars, times {self.temperature**0.5:.2f}, covered {shares}"
        )
        if abs(self.factor - self.temperature) > SAID:
            start += f" (here they are times {self.factor**0.5:.2f}, the rest may be chance)"
        if self.remains > SAID:
            start += f"; the mean may be {self.remains:.2f} bars from its optimum"
        if self.starts is not None:
            start += f"; {self.starts.sentence()}"
            if not self.starts.agree:
                return f"{start}: more than one optimum, do not rely on them"
        if self.remains > FAR:
            return f"{start}: not converged, do not rely on them"
        if self.misfit > MISFIT:
            worse = f"the data fit {self.misfit:.2f} times worse than the twin's"
            return (
                f"{start}; but do not rely on them: {worse} (not converged, a wrong optimum, or "
                "a wrong model)"
            )
        if self.assumed > ASSUMED:
            share = (
                f"{self.assumed:.0%} of the variance is at spatial frequencies that the data "
                "hardly determine"
            )
            return (
                f"{start}; but {share} (too little light): there the bars are an assumed power "
                "law's, often too wide"
            )
        return (
            start
            if self.holds
            else f"{start}: do not rely on them here (too little light, or too little overlap)"
        )


def twin_data(
    problem: Problem, result: Result, truth: ComplexArray, backend: Backend, seed: int
) -> Problem:
    """The same scan of another object, with noise of the same kind."""
    return simulated(
        problem,
        replace(result, object=truth.astype(COMPLEX)),
        noise_in(problem, result),
        backend,
        np.random.default_rng([seed, 1]),
    )


def judge(
    found: Result,
    truth: ComplexArray,
    region: BoolArray,
    free_probe: bool,
    first: Result,
    near_field: bool = False,
) -> Twin:
    """Compare a twin's reconstruction with its truth, and its misfit with that of the `first` one,
    of the data; a translation is an error in the near field.
    """
    std = found.object_std
    assert std is not None
    estimate: Any = found.object
    if free_probe:
        most = free_shift(near_field, free_probe, MAX_SHIFT)
        laid = align(found.object, truth, region=region, max_shift=most, subpixel=True)
        estimate, std = laid.estimate, np.asarray(std / abs(laid.scale), REAL)
    raw = measured(estimate, truth, std, region)
    cooled = measured(estimate, truth, np.asarray(std * raw.mean_square**0.5, REAL), region)
    error = phase_align(estimate, truth, region)[region] - truth[region]
    power = float((np.abs(truth[region]) ** 2).sum() / (np.abs(error) ** 2).sum())
    return Twin(
        temperature=raw.mean_square,
        covered=cooled.covered,
        misfit=float(first.history["chi2"][-1] / found.history["chi2"][-1]),
        assumed=assumed_share(first, region),
        error_db=10 * float(np.log10(power)),
        chance=scatter(found, region),
    )


def scatter(found: Result, region: BoolArray) -> float:
    """Standard deviation of the mean (error/bar)^2 over a region, from draws of the error."""
    assert found.draws is not None
    assert found.object_std is not None
    square = np.abs(found.draws[:, region]) ** 2 / found.object_std[region] ** 2
    means = square.mean(axis=1)
    return float(means.std(ddof=1) / means.mean()) if len(means) > 1 else 0.0


def measured(
    estimate: ComplexArray, truth: ComplexArray, std: FloatArray, region: BoolArray
) -> Coverage:
    """`metrics.coverage` on the pixels that both know."""
    return coverage(estimate, truth, std, region & (np.abs(estimate) > 0))


def assumed_share(found: Result, region: BoolArray) -> float:
    """Share of the posterior variance in rings of spatial frequency of which the data tell less
    than `stationary.DOUBTED`.
    """
    assert found.draws is not None
    backend = get_backend("numpy")
    taper = region.astype(REAL)
    rings, size = stationary.rings_of(found.object.shape, np)

    def power(field: ComplexArray) -> FloatArray:
        return np.asarray(stationary.by_rings(field, taper, rings, size, backend))

    variance, mean = np.mean([power(x) for x in found.draws], axis=0), power(found.object)
    hardly = variance > (1 - stationary.DOUBTED) * (variance + mean)
    return float((variance * size)[hardly].sum() / (variance * size).sum())
