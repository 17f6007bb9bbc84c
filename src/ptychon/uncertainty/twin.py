"""Are the bars true? The question put to a twin: data simulated from a draw of the posterior, where the truth is known.

If the posterior is right, a draw of it is as good a truth as any, and bars made from the twin's data in the same way must cover
it (Cook, Gelman & Rubin, J. Comput. Graph. Stat. 15, 675 (2006)). Their mean (error/bar)^2 is the temperature by which the
variances of the result itself are multiplied; what they cover after that says whether the bars can be trusted at all. What the
model of the data has wrong, the twin has not: `chi2` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..alignment import align, phase_align
from ..backends import Backend
from ..metrics import PROBABILITIES, Coverage, coverage
from ..problem import Problem
from ..result import Result
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray
from .bootstrap import simulated
from .noise import noise_of

#: Largest deviation of the twin's coverage, and range of its temperature, for bars that hold.
TOLERANCE, COOL, HOT = 0.05, 0.6, 1.6
#: Largest translation (px) between the twin's reconstruction and its truth.
MAX_SHIFT = 4


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What the twin said.

    Attributes
    ----------
    temperature : float
        Mean (error/bar)^2 of the twin's bars as they were made.
    covered : tuple of float
        Share of its lit pixels inside its bars times sqrt(temperature), for the probabilities `metrics.PROBABILITIES`.
    error_db : float
        Of the twin's reconstruction.
    """

    temperature: float
    covered: tuple[float, ...]
    error_db: float

    @property
    def holds(self) -> bool:
        """Whether bars made in this way, here, are to be trusted."""
        off = max(abs(c - p) for c, p in zip(self.covered, PROBABILITIES, strict=True))
        return off <= TOLERANCE and COOL <= self.temperature <= HOT

    def sentence(self) -> str:
        """For a report."""
        shares = ", ".join(f"{c:.0%} for {p:.0%}" for c, p in zip(self.covered, PROBABILITIES, strict=True))
        start = f"on a twin of these data the bars, times {self.temperature**0.5:.2f}, covered {shares}"
        return start if self.holds else f"{start}: do not rely on them here (too little light, or too little overlap)"


def twin_data(problem: Problem, result: Result, truth: ComplexArray, backend: Backend, seed: int) -> Problem:
    """The same scan of another object, with noise of the same kind."""
    v = float(result.history["noise_variance"][-1]) if not problem.counting or result.options.get("learn_noise") else None
    noise = noise_of(problem, "auto", v, 0.0)
    assert noise is not None
    return simulated(problem, replace(result, object=truth.astype(COMPLEX)), noise, backend, np.random.default_rng([seed, 1]))


def judge(found: Result, truth: ComplexArray, region: BoolArray, free_probe: bool) -> Twin:
    """Compare a twin's reconstruction with its truth."""
    std = found.object_std
    assert std is not None
    estimate: Any = found.object
    if free_probe:
        laid = align(found.object, truth, region=region, max_shift=MAX_SHIFT, subpixel=True)
        estimate, std = laid.estimate, np.asarray(std / abs(laid.scale), REAL)
    raw = measured(estimate, truth, std, region)
    cooled = measured(estimate, truth, np.asarray(std * raw.mean_square**0.5, REAL), region)
    error = phase_align(estimate, truth, region)[region] - truth[region]
    power = float((np.abs(truth[region]) ** 2).sum() / (np.abs(error) ** 2).sum())
    return Twin(temperature=raw.mean_square, covered=cooled.covered, error_db=10 * float(np.log10(power)))


def measured(estimate: ComplexArray, truth: ComplexArray, std: FloatArray, region: BoolArray) -> Coverage:
    """`metrics.coverage` on the pixels that both know."""
    return coverage(estimate, truth, std, region & (np.abs(estimate) > 0))
