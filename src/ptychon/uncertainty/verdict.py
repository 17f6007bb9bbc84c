"""What a check on simulated data says of error bars: that they hold, that they do not, or that a
scan of this size cannot tell.

For bars that are right, u2, the mean (error/bar)^2 over the lit pixels, is 1 on the average of many
scans, not in a single one. An error x of the posterior N(0, C), in bars and as the 2n real numbers
of n pixels, has

    u2 = |x|^2/n,    E u2 = tr C/n = 1,    Var u2 = 2 tr C^2/n^2 = 2/nu

as the mean of nu independent squares (Satterthwaite, Biometrics Bull. 2, 110 (1946)): nu is 2n for
white errors, and a few tens where errors are as smooth as the object. Two independent draws x, y
tell it, since E (x.y)^2 = tr C^2, with 28 pairs of 8 draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from ..metrics.residual import PROBABILITIES, shares_in_words
from ..types import BoolArray, ComplexArray, FloatArray
from .starts import Starts

#: What a check may say.
HOLD, NOT, UNTOLD = VERDICTS = "hold", "do not hold", "cannot tell"
#: Largest deviation of the twin's coverage, and range of its temperature, for bars that hold.
TOLERANCE, COOL, HOT = 0.05, 0.6, 1.6
#: What the misfit of the data, relative to that of the twin's, may be above 1: so much, or so many
#: of its standard deviations.
MISFIT, SIGMAS = 0.03, 3.0
#: Largest share of the variance that may be the prior's alone.
ASSUMED = 0.5
#: Standard deviations of a temperature that are taken for chance: what draws tell of it is half of
#: what was measured, which has the scatter of learned spectra too.
SURE = 2.0
#: What may remain of the step to the optimum, in bars at any octave of spatial frequency, before it
#: is said, and before bars do not hold.
SAID, FAR = 0.1, 0.3
#: Mean (error/bar)^2 of bars that are right, and the foretold chance of lying outside from which a
#: scan cannot tell: half of what was seen in 1280 scans.
RIGHT, TOO_LIKELY = (0.85, 1.2), 0.04
#: Standard deviation of log u2 between kinds of scans, at least: of the means of cells of the table
#: in docs/uncertainty.md it is 0.04 where the probe is known, 0.07 where it is learned.
BETWEEN = 0.05
#: Share of log temperature by which the data may be off the twin, one standard deviation: of those
#: cells with the probe known 0.34 for temperatures of 1.2 to 1.3 and nothing below; with a learned
#: one the likelihood of 68 realisations is largest at 0.35, of 136 at 0.3.
SHARED = 0.35
#: What no twin tells of a scan whose probe was learned, over its chance: with few counts such a
#: posterior is no Gaussian. Hamiltonian Monte Carlo finds 1.1 to 1.4 times the variance; u2 of
#: scans of 24 x 24 scatters by 0.09 where draws foretell 0.045, of 64 x 64 by 0.03 for 0.011.
UNTWINNED = 1.0


def scatter(
    draws: ComplexArray, std: FloatArray, region: BoolArray, offset: ComplexArray | None = None
) -> float:
    """Standard deviation of the mean (error/bar)^2 of one scan by chance, over that mean.

    Parameters
    ----------
    draws : (S, H, W) complex array
        Of the error about the mean of the posterior.
    std : (H, W) float array
    region : (H, W) bool array
    offset : (H, W) complex array, optional
        Of the object that has the bars, from that mean.
    """
    if len(draws) < 2:
        return 0.0
    wide = np.maximum(std[region].astype(np.float64), 1e-30)
    z, n = draws[:, region] / wide, float(region.sum())
    gram = (z @ z.conj().T).real / n
    mean = float(gram.diagonal().mean())
    variance = 2 * float((gram[np.triu_indices(len(z), 1)] ** 2).mean())
    if offset is not None:
        away = offset[region] / wide
        mean += float((np.abs(away) ** 2).sum()) / n
        variance += 4 * float((((z @ away.conj()).real / n) ** 2).mean())
    return math.sqrt(variance) / max(mean, 1e-30)


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
    misfit_chance : float
        Its standard deviation by chance, where that is known.
    modes : int
        Of the probe, if it was learned, else 0: a twin does not see all that is wrong with them.
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
    misfit_chance: float = 0.0
    modes: int = 0

    @property
    def factor(self) -> float:
        """What variances are multiplied by: the temperature less what may be chance (as James &
        Stein shrink a mean, Proc. Fourth Berkeley Symp. 1, 361 (1961)).
        """
        off = self.temperature - 1
        return 1 + off * max(0.0, 1 - (SURE * self.chance / off) ** 2) if off else 1.0

    @property
    def variance(self) -> float:
        """Of log u2 of these bars, on these data, after `factor`: the chance of one scan, what that
        of the twin leaves unknown of the temperature, that data and twin may not share what is
        wrong with bars that need correction, and what no twin tells of a learned probe.
        """
        return sum(self._variances())

    def _variances(self) -> tuple[float, float]:
        """That by chance, and that of the correction."""
        own, seen = self.chance**2, math.log(max(self.temperature, 1e-30))
        apart = max(BETWEEN**2, seen**2 - own)
        told = apart / (apart + own)
        untold = UNTWINNED**2 * own if self.modes else 0.0
        return own + told * own + untold, (SHARED * told * seen) ** 2

    def inside(self, low: float, high: float) -> float:
        """Chance that u2 of these bars, on these data, lies between two numbers: of the mean of
        independent squares.
        """
        shape = 1 / max(self.variance, 1e-12)
        ends = gammainc(shape, shape * np.array([low, high]))
        return float(ends[1] - ends[0])

    @property
    def outside(self) -> float:
        """Chance that it lies outside `RIGHT`."""
        return 1 - self.inside(*RIGHT)

    @property
    def span(self) -> tuple[float, float]:
        """Where it lies with 95 %."""
        width = 1.96 * math.sqrt(self.variance)
        return math.exp(-width), math.exp(width)

    @property
    def verdict(self) -> str:
        """Whether bars made in this way, here, are to be trusted: "hold", "do not hold" or "cannot
        tell".
        """
        return self._judged()[0]

    @property
    def reason(self) -> str:
        """Why, where they are not."""
        return self._judged()[1]

    @property
    def holds(self) -> bool:
        """Whether they are."""
        return self.verdict == HOLD

    def _judged(self) -> tuple[str, str]:
        if self.starts is not None and not self.starts.agree:
            return NOT, "more than one optimum, do not rely on them"
        if self.remains > FAR:
            return NOT, "not converged, do not rely on them"
        if self.misfit > 1 + max(MISFIT, SIGMAS * self.misfit_chance):
            return NOT, (
                f"do not rely on them: the data fit {self.misfit:.2f} times worse than the twin's "
                "(not converged, a wrong optimum, or a wrong model)"
            )
        if self.assumed > ASSUMED:
            return NOT, (
                f"{self.assumed:.0%} of the variance is at spatial frequencies that the data "
                "hardly determine (too little light): there the bars are those of an assumed "
                "prior, often too wide"
            )
        off = max(abs(c - p) for c, p in zip(self.covered, PROBABILITIES, strict=True))
        if off > TOLERANCE or not COOL <= self.temperature <= HOT:
            return NOT, "do not rely on them here (too little light, or too little overlap)"
        if self.modes > 1:
            return UNTOLD, (
                "right on simulated data, which does not tell all of several learned modes: where "
                "the truth was known and light was in a second one, the mean (error/bar)^2 was "
                "0.7 to 1.6, the most at the finest details"
            )
        if self.outside > TOO_LIKELY:
            low, high = self.span
            small, corrected = self._variances()
            why = "this scan is too small to tell"
            if corrected > small:
                why = f"only after a factor of {self.factor**0.5:.2f}, which may not fit these data"
            return UNTOLD, (
                f"right on the average, but {why}: the mean (error/bar)^2 of one like it lies "
                f"between {low:.2f} and {high:.2f}"
            )
        return HOLD, ""

    def sentence(self) -> str:
        """For a report."""
        shares = shares_in_words(self.covered)
        said = (
            f"on a twin of these data, {'begun anew' if self.anew else 'begun at its truth'}, the "
            f"bars, times {self.temperature**0.5:.2f}, covered {shares}"
        )
        if abs(self.factor - self.temperature) > SAID:
            said += f" (here they are times {self.factor**0.5:.2f}, the rest may be chance)"
        if self.remains > SAID:
            said += f"; the mean may be {self.remains:.2f} bars from its optimum"
        if self.starts is not None:
            said += f"; {self.starts.sentence()}"
        return f"{said}: {self.reason}" if self.reason else said
