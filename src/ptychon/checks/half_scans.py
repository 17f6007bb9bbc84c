"""Two independent half-scans, and the resolution at which they agree.

Frames are taken in pairs, in the order of the scan, and one of each pair goes to either half, by
lot: both halves cover the whole field with half the dose. They are reconstructed from the start
with the settings of the whole, laid on each other modulo what the data cannot tell (factor, phase
ramp, and in the far field translation), and correlated ring by ring (see `ptychon.metrics.frc`).

The resolution of the whole scan is better than that of its halves; the number stated is that of the
halves. Its interval is from the scatter of the rings: the correlation of n independent samples has,
after Fisher's transform artanh, a standard deviation of 1/sqrt(n - 3). Many sets of rings are drawn
so, and the central 95 % of the crossings are stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.alignment import Alignment, align
from ..metrics.ambiguities import free_shift
from ..metrics.frc import RingCorrelation, crossing, frc
from ..model.problem import Problem
from ..run.progress import Callback
from ..run.recipe import Recipe, Stage
from ..run.reconstruct import reconstruct
from ..types import BoolArray, ComplexArray, FloatArray, PtychonError

#: Drawn sets of rings, and the share of them inside the interval.
DRAWS, CONFIDENCE = 1000, 0.95
#: Largest translation between the halves (px).
MAX_SHIFT = 16


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two half-scans agree.

    Attributes
    ----------
    rings : RingCorrelation
    interval, interval_one_bit : (low, high) float
        Of the resolutions (px or m), 95 %; inf where the curve may nowhere rise above its
        threshold.
    alignment : Alignment
        Of the second half on the first.
    region : (H, W) bool
        What was compared: where both are illuminated.
    phase_error : float
        Standard deviation (rad) of the phase of one half, from the difference of the two in that
        region.
    """

    rings: RingCorrelation
    interval: tuple[float, float]
    interval_one_bit: tuple[float, float]
    alignment: Alignment
    region: BoolArray
    phase_error: float


def split(n: int, seed: int = 0) -> BoolArray:
    """Which of n frames go to the first half: one of each pair of neighbours in the scan, by lot.

    Raises
    ------
    PtychonError
        If a half would have fewer than two frames.
    """
    if n < 4:
        raise PtychonError(f"{n} frames cannot be split into two half-scans; at least 4 are needed")
    chosen = np.zeros(n, bool)
    pairs = np.arange(0, n - n % 2, 2)
    chosen[pairs + np.random.default_rng(seed).integers(0, 2, len(pairs))] = True
    return chosen


def half_scans(
    problem: Problem,
    recipe: Stage | Recipe,
    *,
    backend: Any = "auto",
    probe: ComplexArray | None = None,
    modes: int | None = None,
    seed: int = 0,
    order: int = 0,
    callbacks: Sequence[Callback] = (),
) -> tuple[Result, Result]:
    """Reconstruct two halves of a scan independently, on the same object grid.

    Parameters
    ----------
    problem : Problem
    recipe : Stage or Recipe
        That of the whole scan: `Recipe.of(result)`.
    backend : str or Backend
    probe : (K, P, Q) complex array, optional
        First probe of both; default found from the data of each.
    modes : int, optional
        Of the probe, as in `reconstruct`.
    seed, order : int
        Seeds of the split, and of the frame order of the reconstructions.
    callbacks : sequence of callables

    Returns
    -------
    (Result, Result)
    """
    first = split(len(problem), seed)
    way: dict[str, Any] = {
        "backend": backend,
        "probe": probe,
        "modes": modes,
        "seed": order,
        "callbacks": callbacks,
    }
    one, two = (
        reconstruct(problem.select(half), recipe, judge=False, **way) for half in (first, ~first)
    )
    return one, two


def agreement(one: Result, two: Result, seed: int = 0, *, near_field: bool = False) -> Agreement:
    """Compare two half-scans of the same object grid.

    Parameters
    ----------
    one, two : Result
    seed : int
        Of the intervals.
    near_field : bool
        Whether the data tell translations, so that one between the halves is a disagreement.

    Raises
    ------
    PtychonError
        If they do not overlap, or have nothing in common at all.
    """
    if one.object.shape != two.object.shape:
        raise PtychonError(
            f"the halves have objects of shapes {one.object.shape} and {two.object.shape}"
        )
    region = one.illuminated & two.illuminated
    if not region.any():
        raise PtychonError("the two half-scans do not overlap anywhere")
    most = free_shift(near_field, True, MAX_SHIFT)
    found = align(two.projection, one.projection, region=region, max_shift=most, subpixel=True)
    rings = frc(one.projection, found.estimate, one.pixel_size, region)
    ratio = one.projection[region] * found.estimate[region].conj()
    return Agreement(
        rings=rings,
        interval=interval(rings, rings.half_bit, seed),
        interval_one_bit=interval(rings, rings.one_bit, seed),
        alignment=found,
        region=region,
        phase_error=float(np.sqrt(np.median(np.angle(ratio) ** 2)) / 0.6745 / math.sqrt(2)),
    )


def interval(rings: RingCorrelation, threshold: FloatArray, seed: int = 0) -> tuple[float, float]:
    """95 % interval (low, high) of the resolution at which a ring correlation falls below a
    threshold, px or m.
    """
    random = np.random.default_rng(seed)
    known = np.nan_to_num(rings.correlation)
    spread = 1 / np.sqrt(np.maximum(rings.samples, 4) - 3)
    drawn = np.tanh(
        np.arctanh(np.clip(known, -0.999999, 0.999999))
        + spread * random.standard_normal((DRAWS, len(known)))
    )
    # slow variations of the phase are uncertain in both halves: what counts is the fall after the
    # clearest ring
    clearest = int(np.argmax(known - threshold))
    frequency, limit = rings.frequency[clearest:], threshold[clearest:]
    crossings = [crossing(frequency, row[clearest:], limit) for row in drawn]
    resolutions = np.sort([1 / f if f > 0 else math.inf for f in crossings])
    tail = (1 - CONFIDENCE) / 2
    return float(resolutions[int(tail * DRAWS)]), float(
        resolutions[math.ceil((1 - tail) * DRAWS) - 1]
    )


def tagged(half: Result, number: int, whole: Result) -> Result:
    """A half that says of which result it is one."""
    return replace(
        half, settings=dict(half.settings) | {"half": {"number": number, "of": fingerprint(whole)}}
    )


def belongs(half: Result, whole: Result) -> bool:
    """Whether a stored half is one of this very result."""
    mark = half.settings.get("half")
    return isinstance(mark, dict) and mark.get("of") == fingerprint(whole)


def fingerprint(result: Result) -> str:
    """SHA-256 of the object."""
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(result.object).tobytes()).hexdigest()
