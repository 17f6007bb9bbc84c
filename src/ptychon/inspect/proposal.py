"""Which unknowns a scan asks for, and the recipe that follows: a blur of the detector, modes of the
probe, doses, positions, a probe that varies.

Part of the scan is reconstructed without some pixels of the detector. An unknown is proposed where
it foretells these pixels better: what has been fitted always fits better, but an unknown that the
experiment does not have adapts to noise and foretells worse.

    blur      where frames show one (`blurred`), rPIE goes on with it; it is taken instead of modes
              where it foretells better than they do
    modes     rPIE goes on with 1, 2, 3, ... modes, as long as each lowers the misfit there by 2 %
    others    steps of the joint engine with each of them, against as many steps without

The order in which they are switched on is that of the recipe: object and probe, modes, then the
joint steps with all others.

References: Thibault & Menzel, Nature 494, 68 (2013) (modes); Odstrcil et al., Opt. Express 24, 8360
(2016) (a probe that varies).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..metrics.residual import misfit_over_noise
from ..model.problem import Problem
from ..run.first_probe import ENOUGH, find_probe, middle
from ..run.held_out import HeldOut, split
from ..run.recipe import Recipe, Stage
from ..run.reconstruct import reconstruct
from ..types import ComplexArray, PtychonError
from .blurred import Blur, find_blur, with_blur

#: Frames that are tried, and the share of their pixels that is held out.
FRAMES, SHARE = 100, 0.05
#: Share of the held-out misfit by which an unknown must lower it; another mode costs as much time
#: as the first and must give more.
GAIN, GAIN_OF_MODE = 0.01, 0.02
#: Misfit in units of the noise up to which nothing is missing.
ENOUGH_SAID = 1.1
#: Passes of rPIE with one mode from which all begin, passes of a trial, modes that are tried at
#: most, steps of the joint engine, and products in each.
FIRST, PASSES, MODES, STEPS, PRODUCTS = 40, 30, 8, 4, 15
#: Modes beside which the other unknowns are tried, at most.
FEW = 3
#: Passes without a blur that one with it takes as long as.
BLURRED = 8
#: Unknowns of single frames, in the order in which they are tried: name in a recipe, what it is.
FREE = {
    "dose": "the dose of each frame",
    "positions": "the position of each frame",
    "variations": "a probe that varies",
}
#: Passes of the recipe, and the passes of rPIE that a joint step takes as long as.
RPIE, JOINT, STEP = 40, 6, 40


@dataclass(frozen=True)
class Gain:
    """What an unknown does for pixels that were held out.

    Attributes
    ----------
    name : str
        "modes=2", or the name of an unknown.
    before, after : float
        R on the pixels that were held out, without it and with it.
    kept : bool
    """

    name: str
    before: float
    after: float
    kept: bool

    @property
    def share(self) -> float:
        """Share of the misfit that goes."""
        return 1 - (self.after / self.before) ** 2

    def __str__(self) -> str:
        change = f"{abs(100 * self.share):.2g} % {'less' if self.share >= 0 else 'more'}"
        verdict = "taken" if self.kept else "left out"
        return (
            f"{self.name}: held-out R {self.before:.4f} -> {self.after:.4f}, misfit {change}: "
            f"{verdict}"
        )


@dataclass(frozen=True)
class Proposal:
    """Unknowns that a scan asks for.

    Attributes
    ----------
    modes : int
    free : tuple of str
        Of "dose", "positions", "variations".
    gains : tuple of Gain
        All that was tried.
    excess : float
        Misfit over that of the noise, of one mode and nothing else; NaN where the noise is not
        known.
    frames : int
        That were tried.
    blur : float or None
        Width of the point spread of the detector, px, where the frames show one and it foretells
        them best.
    """

    modes: int
    free: tuple[str, ...]
    gains: tuple[Gain, ...]
    excess: float
    frames: int
    blur: float | None = None

    @property
    def recipe(self) -> Recipe:
        """rPIE, and joint steps where there is more than object and probe."""
        stages = [Stage("rpie", RPIE)]
        if self.free:
            stages.append(Stage("ml", JOINT, update=dict.fromkeys(self.free, True)))
        return Recipe(stages)

    @property
    def cost(self) -> float:
        """Of the recipe, in passes of rPIE with one mode."""
        passes = self.modes * (RPIE + (JOINT * STEP if self.free else 0))
        return passes * (1 if self.blur is None else BLURRED)

    def lines(self) -> list[str]:
        """What was tried and what follows, one sentence each."""
        noise = (
            f"with one mode the misfit is {self.excess:.3g} times that of the noise"
            if np.isfinite(self.excess)
            else "the noise is not known"
        )
        head = f"{noise} ({self.frames} frames)"
        tried = [str(gain) for gain in self.gains] or ["nothing is missing"]
        blur = "" if self.blur is None else f", blur: {self.blur:.2g}"
        return [head, *tried, f"recipe: {self.recipe}, modes: {self.modes}{blur}"]

    def settings(self, path: str, data: dict[str, Any] | None = None) -> str:
        """A settings file for `ptychon reconstruct`, with a comment for each number.

        Parameters
        ----------
        path : str
            Of the scan.
        data : dict, optional
            What the file does not say, as `ptychon.load` takes it.
        """
        import yaml

        data = {**(data or {}), **({} if self.blur is None else {"blur": self.blur})}
        known = {"input": str(path)} | ({"data": data} if data else {})
        text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
        said = "".join(f"# {line}\n" for line in self.lines()[:-1])
        stages = [f"  - {{engine: rpie, passes: {RPIE}}}"]
        if self.free:
            free = ", ".join(f"{name}: true" for name in self.free)
            stages.append(f"  - {{engine: ml, passes: {JOINT}, update: {{{free}}}}}")
        listed = "\n".join(stages)
        return (
            "# Proposed from the data; change what you know better.\n"
            f"# Run it: ptychon reconstruct THIS_FILE\n{said}"
            f"{text}modes: {self.modes}  # incoherent modes of the probe\nrecipe:\n{listed}\n"
        )


def propose(
    data: Dataset | Problem,
    *,
    backend: str | Backend = "auto",
    say: Callable[[str], None] | None = None,
    frames: int = FRAMES,
) -> Proposal:
    """Find which unknowns a scan asks for.

    Parameters
    ----------
    data : Dataset or Problem
    backend : {"auto", "numpy", "cupy", "reference"} or Backend
    say : callable, optional
        Told each trial, in one line.
    frames : int
        How many frames around the middle of the scan are tried.

    Returns
    -------
    Proposal
        Its `recipe` is what `ptychon.reconstruct` takes, with `modes`.

    Raises
    ------
    PtychonError
        If there are fewer than 8 frames with light.
    """
    problem = Problem.from_dataset(data) if isinstance(data, Dataset) else data
    probe = data.probe if isinstance(data, Dataset) else None
    blurred = find_blur(data) if isinstance(data, Dataset) else None
    part = middle(problem, frames)
    if len(part) < ENOUGH:
        raise PtychonError(
            f"the scan has {len(part)} frames with light; at least {ENOUGH} are needed to propose "
            "unknowns"
        )
    if probe is None:
        probe = find_probe(problem, get_backend("numpy"))
    trials = _Trials(split(part, SHARE), np.asarray(probe), get_backend(backend), say)
    result, excess = trials.modes(part, blurred)
    free = trials.others(result) if trials.gains else ()
    blur = trials.blur
    return Proposal(len(result.probe), free, tuple(trials.gains), excess, len(part), blur)


class _Trials:
    """Runs without the pixels that were held out, and what they foretell."""

    def __init__(
        self,
        held: HeldOut,
        probe: ComplexArray,
        backend: Backend,
        say: Callable[[str], None] | None,
    ) -> None:
        self.held, self.probe, self.backend, self.say = held, probe, backend, say
        self.gains: list[Gain] = []
        self.blur: float | None = None

    def modes(self, part: Problem, blurred: Blur | None) -> tuple[Result, float]:
        """The run with as many modes, or with the blur, that foretell best, and the misfit of one
        mode over the noise.
        """
        first = self.run("rpie", FIRST, probe=self.probe, modes=1)
        # from where object and probe are found, so that all have the same way to go
        best = self.run("rpie", PASSES, start=first)
        score = self.held.score(best, self.backend)
        excess = misfit_over_noise(self.held.seen, best.object, best.probe, self.backend)
        if excess <= ENOUGH_SAID:
            return best, excess
        one, sharp, spread = score, self.held, None
        if blurred is not None:
            self.held = HeldOut(*(with_blur(side, blurred.width) for side in sharp))
            spread = self.run("rpie", PASSES, start=first)
            told = self.held.score(spread, self.backend)
            if not self.tell(f"blur={blurred.width:.2g}", one, told, GAIN_OF_MODE):
                spread = None
            blurring, self.held = self.held, sharp
        for count in range(2, MODES + 1):
            more = self.run("rpie", PASSES, start=first, modes=count)
            found = self.held.score(more, self.backend)
            if not self.tell(f"modes={count}", score, found, GAIN_OF_MODE):
                break
            best, score = more, found
        if spread is None or blurred is None:
            return best, excess
        instead = f"blur={blurred.width:.2g} instead of {len(best.probe)} modes"
        if len(best.probe) > 1 and not self.tell(instead, score, told, -GAIN_OF_MODE):
            self.drop("blur=")
            return best, excess
        self.drop("modes=")
        self.held, self.blur = blurring, round(blurred.width, 2)
        return spread, excess

    def drop(self, kind: str) -> None:
        """Leave out what something else has taken the place of."""
        self.gains = [
            replace(gain, kept=False) if gain.name.startswith(kind) else gain for gain in self.gains
        ]

    def others(self, start: Result) -> tuple[str, ...]:
        """The unknowns of frames that foretell better than steps without them."""
        plain = self.held.score(self.joint(start, ()), self.backend)
        alone = {name: self.held.score(self.joint(start, (name,)), self.backend) for name in FREE}
        free = tuple(name for name, score in alone.items() if self.tell(name, plain, score))
        if len(free) < 2:
            return free
        together = self.held.score(self.joint(start, free), self.backend)
        best = min(free, key=lambda name: alone[name])
        if not self.tell(" and ".join(free), alone[best], together, least=0.0):
            return (best,)
        return free

    def joint(self, start: Result, free: tuple[str, ...]) -> Result:
        """Joint steps from a result, by the roots of counts as they are scored."""
        how: dict[str, Any] = {"iterations": PRODUCTS, "likelihood": "roots"}
        return self.run(
            "ml",
            STEPS,
            start=start,
            update=dict.fromkeys(free, True),
            modes=self.fewer(start),
            **how,
        )

    @staticmethod
    def fewer(start: Result) -> int:
        """Modes that suffice to tell other unknowns apart; joint steps cost as many times more."""
        return min(len(start.probe), FEW)

    def run(self, engine: str, passes: int, **how: Any) -> Result:
        return reconstruct(
            self.held.seen,
            engine,
            passes=passes,
            backend=self.backend,
            say=None,
            judge=False,
            **how,
        )

    def tell(self, name: str, before: float, after: float, least: float = GAIN) -> bool:
        """Keep what a trial has given; whether its unknown is taken."""
        gain = Gain(name, before, after, False)
        gain = replace(gain, kept=bool(gain.share > least))
        self.gains.append(gain)
        if self.say is not None:
            self.say(str(gain))
        return gain.kept


__all__ = ["Gain", "Proposal", "propose"]
