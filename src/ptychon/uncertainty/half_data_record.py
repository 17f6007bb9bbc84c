"""What two halves of the data say of the bars, and the verdict on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..metrics import residual
from ..metrics.residual import shares_in_words
from .spectrum import PERIODS

#: Probabilities at which the shape of the distribution is looked at: halves have too few numbers
#: for the last of `coverage`.
PROBABILITIES = residual.PROBABILITIES[:4]
#: Deviation of the mean square from 1, and of the coverage, that passes.
NEAR, SHAPE = 0.2, 0.05
#: Temperature, or its inverse, up to which a model is said to describe the data: bars half or twice
#: as wide as they should be.
HOTTEST = 4.0
#: Misfit of a half from which on its reconstruction is doubted.
POOR = 1.5
#: T of every octave of bars that were widened by another split: at least, and one over it at most.
LEAST = 0.8
#: Degrees of freedom that the scatter of T counts with that follows from the spectrum.
PRIOR = 2
#: Factor by which the temperature of an octave of periods may differ from that of all.
EVEN = 2.0


@dataclass(frozen=True, kw_only=True)
class HalfDataTest:
    """What two halves say of the bars.

    Attributes
    ----------
    kind : {"positions", "counts"}
    mean_square : float
        Of d; also the temperature T: bars times sqrt(T) would have been right on average.
    covered, covered_after : tuple of float
        Share of pixels with d below sqrt(-ln(1 - p)) for `PROBABILITIES`, with the bars as they are
        and times sqrt(T).
    mean_square_after : float
        Of d on half of the tiles, after the temperature of the other half.
    by_period : tuple of float
        Mean square of the structures with periods above 32, 16 to 32, 8 to 16, 4 to 8 and 2 to 4
        px; NaN where the region is too small to tell.
    independent : float
        Share c of the variance that two halves do not have in common, mean of both.
    difference_db : float
        10 log10(sum |a|^2/sum |a - b|^2).
    chi2 : (float, float)
        Misfit of each half over what the noise explains.
    pixels, modes : int
    update : tuple of str
        What each half had to find: "object", and "probe" or not.
    widened : tuple of float
        Factors by octaves of periods, from another split, by which the variances were multiplied
        before they were compared; empty where they were not.
    factors : tuple of float
        By octaves of periods, by which variances have to be multiplied so that bars come out right
        in all of them (`discrepancy.learned`); empty where nothing was widened by this.
    remains : float
        Step to its optimum that was left in a half (rms), in bars, at the octave where it was
        largest; NaN where it is not known. Halves that are far from theirs differ by too little.
    chance : tuple of float
        Relative standard deviation of each of `rough` by chance (`spectrum.by_chance`).
    rough : tuple of float
        As `by_period`, with octaves in which chance is large; NaN of those that hold next to
        nothing.
    splits : int
        Ways to split the data that all this is the mean of.
    """

    kind: str
    mean_square: float
    covered: tuple[float, ...]
    covered_after: tuple[float, ...]
    mean_square_after: float
    by_period: tuple[float, ...]
    independent: float
    difference_db: float
    chi2: tuple[float, float]
    pixels: int
    modes: int
    update: tuple[str, ...]
    widened: tuple[float, ...] = ()
    remains: float = math.nan
    chance: tuple[float, ...] = ()
    rough: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()
    splits: int = 1

    @property
    def bars_hold(self) -> bool:
        """Whether bars that were widened by some splits hold on others: T of every octave of
        periods is within 0.8 to 1.25.
        """
        known = [T for T in self.by_period if math.isfinite(T)]
        return bool(known) and all(LEAST <= T <= 1 / LEAST for T in known)

    @property
    def temperature(self) -> float:
        """T: the variances of the bars are to be multiplied by it."""
        return self.mean_square

    @property
    def holds(self) -> bool:
        """Whether the bars are right as they are: mean square within 20 % of 1."""
        return abs(self.mean_square - 1) <= NEAR

    @property
    def holds_after(self) -> bool:
        """Whether they are right after the temperature: in shape, at every period, and on the tiles
        that it is not from.
        """
        return self.right_in_pixels and self.even

    @property
    def right_in_pixels(self) -> bool:
        """Whether single pixels are covered after the temperature: in shape, and on the tiles that
        it is not from.
        """
        off = max(abs(c - p) for c, p in zip(self.covered_after, PROBABILITIES, strict=True))
        return abs(self.mean_square_after - 1) <= NEAR and off <= SHAPE

    @property
    def even(self) -> bool:
        """Whether one temperature fits all periods, within a factor of 2."""
        return all(
            1 / EVEN <= T / self.temperature <= EVEN for T in self.by_period if math.isfinite(T)
        )

    @property
    def describes(self) -> bool:
        """Whether the model describes the data, as far as halves can tell: it fits them, and the
        bars hold, or after a temperature up to 4.
        """
        return self.fits and self._agree

    @property
    def fits(self) -> bool:
        """Whether the misfit of both halves is up to 1.5 of what the noise explains. What is wrong
        in both alike leaves their difference small, and shows here.
        """
        return not max(self.chi2) > POOR

    @property
    def _agree(self) -> bool:
        return self.holds or (self.holds_after and 1 / HOTTEST <= self.temperature <= HOTTEST)

    def _several(self) -> str:
        return f", {self.splits} splits" if self.splits > 1 else ""

    def scatter(self, octave: int) -> float:
        """Standard deviation of T of an octave by chance, relative; of bars that were widened by as
        many other splits, with the chance in these. NaN where it is not known.
        """
        chance = self.chance[octave] if self.chance else math.nan
        return chance * math.sqrt(2) if self.widened else chance

    def _by_luck(self, octave: int) -> str:
        """Of an octave that is out of bounds: what chance does to it, which may be all."""
        scatter = self.scatter(octave)
        if not math.isfinite(scatter):
            return ""
        T = self.by_period[octave]
        off = abs(math.log(T))
        may = off - math.log(1 / LEAST) < 2 * scatter and off < 3 * scatter
        verdict = "; that may be chance" if may else ""
        return f" +- {T * scatter:.2g} by chance{verdict}"

    def _unlike(self, octave: tuple[int, float]) -> float:
        return abs(math.log(octave[1] / self.temperature)) if math.isfinite(octave[1]) else 0.0

    @staticmethod
    def _unlike_one(octave: tuple[int, float]) -> float:
        return abs(math.log(octave[1])) if math.isfinite(octave[1]) else 0.0

    def sentence(self) -> str:
        """For people: the verdict and its numbers."""
        shares = shares_in_words(self.covered)
        numbers = (
            f"halves by {self.kind}{self._several()}, mean square {self.mean_square:.2f} of what "
            f"their bars say, inside {shares}"
        )
        factor = f"bars times {self.temperature**0.5:.2f}"
        if self.widened:
            numbers += f"; misfit {max(self.chi2):.3g} of what the noise explains"
            if self.bars_hold:
                return (
                    f"widened by some splits of the data, the bars hold on others: {numbers}; what "
                    "halves have wrong alike is not in them"
                )
            octave, worst = max(enumerate(self.by_period), key=self._unlike_one)
            return (
                f"widened by some splits of the data, the bars do not hold on others: at periods "
                f"above {PERIODS[octave + 1]:g} px the mean square is {worst:.2g}"
                f"{self._by_luck(octave)} ({numbers})"
            )
        if self._agree and not self.fits:
            return (
                f"the model does not describe the data: the misfit is {max(self.chi2):.3g} of what "
                f"the noise explains; it is wrong in both halves alike ({numbers})"
            )
        if self.holds:
            return f"the model describes the data: {numbers}"
        if self.describes:
            return f"the model describes the data with {factor}: {numbers}"
        rest = ""
        if self.right_in_pixels:
            rest = f"; {factor} cover single pixels"
            if not self.even:
                octave, worst = max(enumerate(self.by_period), key=self._unlike)
                rest += (
                    f", but not periods above {PERIODS[octave + 1]:g} px, where the mean square "
                    f"is {worst:.2g}"
                )
        return f"the model does not describe the data: {numbers}{rest}"


def together(tests: Sequence[HalfDataTest]) -> HalfDataTest:
    """Several splits of the same data as one: means, and the worst misfit and remaining step.

    Where few frames are far worse than the others T scatters by more than its spectrum says; what
    splits show of it counts with one degree of freedom each but one, the spectrum with `PRIOR`.
    """
    first = tests[0]
    if len(tests) == 1:
        return first

    def mean(name: str) -> Any:
        values = np.mean([getattr(test, name) for test in tests], axis=0)
        return tuple(values.tolist()) if values.ndim else float(values)

    means = ("mean_square", "covered", "covered_after", "mean_square_after", "by_period", "rough")
    left = [test.remains for test in tests if math.isfinite(test.remains)]
    return replace(
        first,
        **{name: mean(name) for name in (*means, "independent", "difference_db")},
        chi2=max((test.chi2 for test in tests), key=max),
        remains=max(left, default=math.nan),
        chance=_chance(tests),
        splits=sum(test.splits for test in tests),
    )


def _chance(tests: Sequence[HalfDataTest]) -> tuple[float, ...]:
    """Relative standard deviation of the mean T of each octave."""
    T = np.array([test.rough for test in tests])
    told = np.mean(np.square([test.chance for test in tests]), axis=0)
    seen = T.var(axis=0, ddof=1) / T.mean(axis=0) ** 2
    n = len(tests)
    each = (PRIOR * told + (n - 1) * seen) / (PRIOR + n - 1)
    return tuple(np.sqrt(each / n).tolist())
