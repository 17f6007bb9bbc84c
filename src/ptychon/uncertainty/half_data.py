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
from collections.abc import Callable, Collection, Mapping, Sequence
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
from .half_data_record import PROBABILITIES, HalfDataTest
from .joint import BURN_IN, EP_PASSES, joint, lit_region
from .spectrum import SOME, Spectrum, by_chance, octaves, rings
from .splitting import halves_of

#: Side (px) of the tiles of the chessboard: the temperature of one colour is tried on the other.
TILE = 16


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
    before: Sequence[ComplexArray | None] = (None, None),
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
    before : (draws, draws), optional
        Of each half, before its bars were widened.

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
    uncertain = [Spectrum.of(*each) for each in zip((one, two), (region,) * 2, before, strict=True)]
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
    powers = rings(first - second, region), uncertain[0].visible + uncertain[1].visible
    return HalfDataTest(
        kind=kind,
        mean_square=T,
        covered=inside(square),
        covered_after=inside(square / T),
        mean_square_after=after,
        by_period=octaves(*powers, region),
        rough=octaves(*powers, region, SOME),
        chance=by_chance(first - second, region),
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
