"""Are the bars of measured data true? Two independent halves of the data must differ by as much as
their bars say.

    positions   one of each pair of neighbouring frames goes to either half: other frames of the
                same object
    counts      each count goes to either half with probability 1/2: n -> Binomial(n, 1/2) and the
                rest. Both halves of a
                Poisson variable are Poisson and independent (Kingman, Poisson Processes, Oxford
                (1993)); every position stays

Each half is reconstructed from the start and gets the bars s of the joint posterior. b being laid
on a modulo what the data cannot tell,

    d^2 = |a - b|^2/(c_a s_a^2 + c_b s_b^2)
    mean d^2 = 1,   P(d < t) = 1 - exp(-t^2)    if the bars are right.

Where the data say little both means lean on the prior in the same way, and this part of their
errors is not in a - b. With the prior's spectrum S_k and the posterior's variance V_k two posterior
means differ by 2 V_k (1 - V_k/S_k), so that

    c = sum V_k (1 - V_k/S_k)/sum V_k,   1 where the data decide.

Pixels alone do not see whether coarse structures are as certain as is said: the same is asked of
each octave of periods.

What a wrong model does to both halves alike does not show. Halves of the counts share their
positions, so that a wrong model shows less in them than in halves of the positions; these in turn
have half the overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Backend
from ..checks.half_scans import MAX_SHIFT
from ..data.result import Result
from ..data.slices import HALVES, must_be_thin
from ..engines import make
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import free_shift
from ..metrics.registration import translate
from ..model.problem import Problem
from ..run.progress import Progress, Tell, silent
from ..run.reconstruct import reconstruct
from ..types import BoolArray, ComplexArray, FloatArray, PtychonError
from .free import FREE, USUAL, free_of
from .joint import BURN_IN, EP_PASSES, joint, lit_region
from .spectrum import PERIODS, Spectrum, octaves, rings
from .splitting import halves_of

#: Probabilities at which the shape of the distribution is looked at.
PROBABILITIES = (0.5, 0.683, 0.9, 0.95)
#: Deviation of the mean square from 1, and of the coverage, that passes.
NEAR, SHAPE = 0.2, 0.05
#: Temperature, or its inverse, up to which a model is said to describe the data: bars half or twice
#: as wide as they should be.
HOTTEST = 4.0
#: Misfit of a half from which on its reconstruction is doubted.
POOR = 1.5
#: T of every octave of bars that were widened by another split: at least, and one over it at most.
LEAST = 0.8
#: Factor by which the temperature of an octave of periods may differ from that of all.
EVEN = 2.0
#: Side (px) of the tiles of the chessboard: the temperature of one colour is tried on the other.
TILE = 16


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
    remains : float
        Step to its optimum that was left in a half (rms), in bars, at the octave where it was
        largest; NaN where it is not known. Halves that are far from theirs differ by too little.
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

    @property
    def bars_hold(self) -> bool:
        """Whether bars that were widened by one split hold on another: T of every octave of periods
        is within 0.8 to 1.25.
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

    def _unlike(self, octave: tuple[int, float]) -> float:
        return abs(math.log(octave[1] / self.temperature)) if math.isfinite(octave[1]) else 0.0

    @staticmethod
    def _unlike_one(octave: tuple[int, float]) -> float:
        return abs(math.log(octave[1])) if math.isfinite(octave[1]) else 0.0

    def sentence(self) -> str:
        """For people: the verdict and its numbers."""
        shares = ", ".join(
            f"{c:.0%} for {p:.0%}" for c, p in zip(self.covered, PROBABILITIES, strict=True)
        )
        numbers = (
            f"halves by {self.kind}, mean square {self.mean_square:.2f} of what their bars say, "
            f"inside {shares}"
        )
        factor = f"bars times {self.temperature**0.5:.2f}"
        if self.widened:
            numbers += f"; misfit {max(self.chi2):.3g} of what the noise explains"
            if self.bars_hold:
                return f"widened by one split, the bars hold on another: {numbers}"
            octave, worst = max(enumerate(self.by_period), key=self._unlike_one)
            return (
                f"widened by one split, the bars do not hold on another: at periods above "
                f"{PERIODS[octave + 1]:g} px the mean square is {worst:.2g} ({numbers})"
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


def half_data_test(
    problem: Problem,
    kind: str = "positions",
    *,
    probe: ComplexArray | None = None,
    update: Collection[str] = USUAL,
    engine: str = "",
    options: Mapping[str, Any] | None = None,
    passes: int = 40,
    ep_passes: int = EP_PASSES,
    burn_in: int = BURN_IN,
    draws: int = 8,
    check: bool = False,
    noise_variance: float | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    tell: Tell = silent,
) -> tuple[HalfDataTest, tuple[Result, Result]]:
    """Reconstruct two independent halves of the data, with error bars, and compare their difference
    with these.

    Parameters
    ----------
    problem : Problem
        On the host.
    kind : {"positions", "counts"}
    probe : (K, P, Q) complex array, optional
        First probe of both; default found from the data of each. Its modes are those of the model.
    update : collection of str
        What each half finds for itself: "object", and "probe"; without the probe `probe` is taken
        as known, in both. A probe
        that was found from all of the data and then held is shared, not independent: its error does
        not show.
    engine : str
        That makes the first reconstruction; default "rpie", or "pie" where the probe is known.
    options : mapping, optional
        Of that engine.
    passes : int
        Of that engine.
    ep_passes, burn_in, draws, check, noise_variance
        As for `joint`. With `check` the bars are those after the twin's temperature.
    backend : str or Backend
    seed : int
        Of the split, the shuffling and the draws.
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    (HalfDataTest, (Result, Result))
        What they say, and both reconstructions.

    Raises
    ------
    PtychonError
        Data that cannot be split so, a known probe that is not given, a run that fails.
    """
    must_be_thin(problem, "error bars are tested for", HALVES)
    free_probe = "probe" in free_of(update, who="the test on two halves")
    if not free_probe and probe is None:
        raise PtychonError(
            "a known probe was asked for, but none is given; give probe=, or update the probe too"
        )
    chosen = engine or ("rpie" if free_probe else "pie")
    if not free_probe and make(chosen, **(options or {})).moves_probe:
        raise PtychonError(
            f"engine {chosen!r} moves the probe, which is known; take 'pie', or 'ep' with "
            "probe_updates=0"
        )
    found: list[Result] = []
    for i, half in enumerate(halves_of(problem, kind, seed)):

        def said(what: str, done: int, total: int, number: int = i + 1) -> None:
            tell(f"half {number}: {what}", done, total)

        start = reconstruct(
            half,
            chosen,
            passes=passes,
            probe=probe,
            backend=backend,
            seed=seed + i,
            judge=False,
            **(options or {}),
            callbacks=[_passes(said, passes)],
        )
        found.append(
            joint(
                half,
                start,
                update=update,
                ep_passes=ep_passes,
                burn_in=burn_in,
                draws=draws,
                check=check,
                noise_variance=noise_variance,
                backend=backend,
                seed=seed + i,
                tell=said,
            )[0]
        )
    one, two = found
    region = lit_region(problem, one) & lit_region(problem, two)
    verdict = compared(one, two, region, kind=kind, update=update, near_field=problem.near_field)
    return verdict, (one, two)


def compared(
    one: Result,
    two: Result,
    region: BoolArray,
    *,
    kind: str,
    update: Collection[str],
    near_field: bool = False,
) -> HalfDataTest:
    """Lay the second half on the first and compare their difference with their bars.

    Parameters
    ----------
    one, two : Result
        Of the joint posterior, on the same grid, with bars and draws.
    region : (H, W) bool
        What is compared.
    kind : {"positions", "counts"}
    update : collection of str
        With the probe, positions or doses free factor, ramp and translation are, else the phase
        alone.
    near_field : bool
        Whether the data tell translations, so that one between the halves counts.

    Raises
    ------
    PtychonError
        If a half has no bars or no draws, or the region is empty.
    """
    free = free_of(update, FREE)
    free_probe = not {"probe", "positions", "log_scale"}.isdisjoint(free)
    if one.object_std is None or two.object_std is None or one.draws is None or two.draws is None:
        raise PtychonError(
            "both halves need error bars and draws; reconstruct them with engine 'joint'"
        )
    first, second = one.object.astype(np.complex128), two.object
    stds = [one.object_std.astype(float), two.object_std.astype(float)]
    if free_probe:
        most = free_shift(near_field, free_probe, MAX_SHIFT)
        laid = align(second, first, region=region, max_shift=most, subpixel=True)
        second = laid.estimate
        # a bar is smooth: the nearest pixel will do
        near = round(laid.shift[0]), round(laid.shift[1])
        stds[1] = np.asarray(np.abs(translate(stds[1], near))) / abs(laid.scale)
    else:
        second = phase_align(second, first, region)
    region = region & (np.abs(second) > 0) & (stds[1] > 0)
    if not region.any():
        raise PtychonError("the two halves have no lit pixel in common")
    uncertain = [Spectrum.of(half, region) for half in (one, two)]
    shares = [float(u.visible.sum() / u.variance.sum()) for u in uncertain]
    variance = sum(c * s**2 for c, s in zip(shares, stds, strict=True))
    square = np.abs(first - second)[region] ** 2 / np.asarray(variance)[region]
    T = float(square.mean())
    black = chessboard(region.shape)[region]
    after = (
        float(square[black].mean() / square[~black].mean())
        if black.any() and not black.all()
        else math.nan
    )
    power = float((np.abs(first[region]) ** 2).sum() / (np.abs(first - second)[region] ** 2).sum())
    return HalfDataTest(
        kind=kind,
        mean_square=T,
        covered=inside(square),
        covered_after=inside(square / T),
        mean_square_after=after,
        by_period=octaves(
            rings(first - second, region), uncertain[0].visible + uncertain[1].visible, region
        ),
        independent=float(np.mean(shares)),
        difference_db=10 * math.log10(power),
        chi2=(_chi2(one), _chi2(two)),
        pixels=int(square.size),
        modes=len(one.probe),
        update=free,
    )


def inside(square: FloatArray) -> tuple[float, ...]:
    """Share of d^2 below -ln(1 - p) for each of the probabilities."""
    return tuple(float(np.mean(square < -math.log1p(-p))) for p in PROBABILITIES)


def chessboard(shape: tuple[int, ...]) -> BoolArray:
    """Tiles of `TILE` px, one colour True."""
    y, x = np.indices(shape) // TILE
    return np.asarray((y + x) % 2 == 0)


def _passes(tell: Tell, passes: int) -> Callable[[Progress], None]:
    def told(progress: Progress) -> None:
        tell("pass", progress.passes, passes)

    return told


def _chi2(half: Result) -> float:
    return float(half.history["chi2"][-1])
