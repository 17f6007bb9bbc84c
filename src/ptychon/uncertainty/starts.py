"""Where error bars begin: the passes that lead from any result to the joint posterior, the recipe
of a result followed anew on other data, and a second start by another recipe, which tells whether
the first has ended in an optimum that only it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import Backend
from ..data.result import Result
from ..engines import Engine, registry
from ..engines.joint_posterior import Joint
from ..engines.update import Update
from ..metrics.alignment import align
from ..metrics.ambiguities import free_shift
from ..model.noise import Noise
from ..model.problem import Problem
from ..run.modes import orthogonal
from ..run.recipe import Recipe, Stage
from ..run.reconstruct import reconstruct
from ..types import BoolArray, ComplexArray, PtychonError
from .centre import energy, moved
from .spectrum import octaves, rings

#: Passes of a second start, by the engine that the first has not begun with.
OTHER = {"rpie": 300, "dm": 200}
#: Steps after that of a start with one mode more.
POLISHED = 20
#: Largest translation (px) between two starts, and the difference, in bars (rms) of an octave of
#: spatial frequency, up to which they have ended in the same optimum.
MAX_SHIFT, SAME = 8, 0.4
#: Misfit of a start over that of a better one from which it tells nothing.
MISFIT = 1.05


def recipe_of(
    start: Result,
    free_probe: bool,
    ep_passes: int,
    burn_in: int,
    draws: int,
    options: Mapping[str, Any],
    careful: Mapping[str, Any],
) -> Recipe:
    """Ptycho-EP, where it knows the modes and has not been at work already, then the joint
    posterior, with `options` of both and what the latter has beside.
    """
    free: Update = {"probe": free_probe}
    last = {"burn_in": burn_in, "draws": draws, **careful, **options}
    stages = [Stage("joint", burn_in + draws, last, update=free)]
    done = issubclass(registry.get(start.engine, Engine), Joint)
    if ep_passes and not done and len(start.probe) == 1:
        stages.insert(0, Stage("ep", ep_passes, options, update=free))
    return Recipe(stages)


def begun_anew(data: Problem, result: Result, free_probe: bool, backend: Backend) -> Result | None:
    """The result that the recipe of another one makes of other data; None where that one does not
    tell how it began: from an earlier result, say, from an object that was given, or with a
    background of its own. Where the first probe was given, it begins with that of the result.
    """
    try:
        recipe = Recipe.of(result)
    except PtychonError:
        return None
    engine = registry.get(result.engine, Engine)
    if issubclass(engine, Joint) or recipe.passes != result.passes:
        return None
    if result.variations is not None or result.background is not None:
        return None
    if result.positions_given is not None:
        # where the data had them, before the run moved them
        data = replace(data.with_positions(result.positions_given), measured=None)
    if result.log_scale is not None:
        data = replace(data, log_scale=None)
    given = result.settings.get("given", ())
    if "object" in given:
        return None
    # a first probe that was given is not kept; that which became of it is the nearest to it
    held = not free_probe or "probe" in given
    first: dict[str, Any] = {"probe": result.probe} if held else {"modes": len(result.probe)}
    try:
        return reconstruct(
            data,
            recipe,
            backend=backend,
            seed=int(result.settings.get("seed") or 0),
            judge=False,
            **first,
        )
    except PtychonError:
        return None


def begun_near(data: Problem, result: Result, backend: Backend) -> Result:
    """What the passes of a result make of other data from where it is; itself where it does not
    tell them.
    """
    try:
        recipe = Recipe.of(result).without_guess()
        return reconstruct(
            data,
            recipe,
            backend=backend,
            start=replace(result, passes=0),
            seed=int(result.settings.get("seed") or 0),
            judge=False,
            say=None,
        )
    except PtychonError:
        return result


def translated(truth: ComplexArray, found: Result, seed: int) -> tuple[ComplexArray, Result]:
    """A truth moved by a random fraction of a pixel, and the result with its probe moved alike.

    No data tell a translation of both, so a draw holds it as it is; but what begins anew begins
    somewhere, and a twin that lies where the first run has ended would not see what that costs:
    structures near the highest frequencies, which a grid of pixels moves only nearly.
    """
    move = np.random.default_rng([seed, 2]).uniform(-0.5, 0.5, 2)
    both = moved(replace(found, object=truth), (float(move[0]), float(move[1])))
    return both.object, replace(found, probe=both.probe)


def begun_otherwise(data: Problem, result: Result, backend: Backend) -> Result | None:
    """A result of the same data by another engine than the first began with, from the first guess
    of all; of several modes, by one mode more, which leads round optima of too few and is dropped
    at the end (Burer & Monteiro, Math. Program. 95, 329 (2003)). None where that fails.
    """
    own: dict[str, Any] = {"backend": backend, "judge": False, "say": None}
    count = len(result.probe)
    try:
        if count > 1:
            stages = Stage("rpie", OTHER["rpie"]), Stage("ml", POLISHED)
            found = reconstruct(data, Recipe(*stages), modes=count + 1, **own)
            return replace(found, probe=orthogonal(found.probe)[:count])
    except PtychonError:
        return None
    try:
        first = str(getattr(Recipe.of(result).stages[0].engine, "name", result.engine))
    except PtychonError:
        first = result.engine
    other = "rpie" if first == "dm" else "dm"
    try:
        return reconstruct(data, other, passes=OTHER[other], modes=count, **own)
    except PtychonError:
        return None


@dataclass(frozen=True)
class Starts:
    """Where two starts have led.

    Attributes
    ----------
    apart : tuple of float
        Difference of the two objects, rms in bars, by octaves of periods (`spectrum.PERIODS`); NaN
        in one that is too small.
    gain : float
        -log likelihood of the first less that of the second.
    kept : {"first", "second"}
        Which has the lower one.
    poor : bool
        Whether the other fits the data visibly worse, so that it tells nothing.
    """

    apart: tuple[float, ...]
    gain: float
    kept: str
    poor: bool = False

    @property
    def worst(self) -> float:
        """Largest difference of an octave, in bars."""
        return float(np.nanmax(self.apart))

    @property
    def agree(self) -> bool:
        """Whether nothing speaks against their being the same optimum."""
        return self.poor or self.worst <= SAME

    def in_bars(self, wider: float) -> Starts:
        """The same in bars that are so many times wider."""
        return replace(self, apart=tuple(a / wider for a in self.apart))

    def sentence(self) -> str:
        """For a report."""
        if self.poor:
            return "a second start by another engine fits the data worse, and tells nothing"
        what = f"two starts by different engines end {self.worst:.2f} bars (rms) apart at most"
        if self.agree:
            return what
        return f"{what}; the {self.kept} fits by {abs(self.gain):.0f} units of -log p better"


def differ(one: Result, two: Result, region: BoolArray, near_field: bool) -> tuple[float, ...]:
    """rms of the difference of two objects over the bars of the first, by octaves of periods, after
    alignment.
    """
    assert one.draws is not None
    most = free_shift(near_field, True, MAX_SHIFT)
    laid = align(two.object, one.object, region=region, max_shift=most, subpixel=True).estimate
    expected = np.mean([rings(draw, region) for draw in one.draws], axis=0)
    gap = rings(laid - one.object, region)
    square = octaves(gap, expected, region)
    if not np.isfinite(square).any():
        # a region too small for octaves: all frequencies together
        square = (*square[:-1], float(gap.sum() / expected.sum()))
    return tuple(math.sqrt(q) for q in square)


def compared(
    problem: Problem, one: Result, two: Result, region: BoolArray, noise: Noise, backend: Backend
) -> Starts:
    """Two results of the same data that began otherwise, each with its bars and draws."""
    gain = energy(problem, one, noise, backend) - energy(problem, two, noise, backend)
    best, rest = (two, one) if gain > 0 else (one, two)
    worse = rest.history["chi2"][-1] / best.history["chi2"][-1]
    return Starts(
        apart=differ(best, rest, region, problem.near_field),
        gain=gain,
        kept="second" if gain > 0 else "first",
        poor=bool(worse > MISFIT),
    )
