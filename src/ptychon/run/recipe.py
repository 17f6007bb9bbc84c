"""What Ptycho-EP starts from, where nothing else is said: some passes of an engine that finds its
way from a constant.

With the probe unknown: the difference map, since EM steps find a probe only slowly, and from a poor
one they end in a wrong optimum. It stops where its R has settled. In the near field, where the
difference map is easily lost: rPIE.

With the probe known: PIE. Most runs end in the same optimum without it; with a sparse object,
behind a beam stop and where measurements are few, some do not. At fewer than 2.7 measurements for
each lit pixel PIE is lost, and what it leaves is worse than a constant.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.result import Result
from ..engines import Engine
from ..engines.ptycho_ep import NEAR_LIMIT
from ..metrics.residual import sampling_ratio
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError, PtychonWarning
from .observers import Interrupt

if TYPE_CHECKING:
    from .progress import Callback, Progress

#: Passes with the probe unknown, at most, and with it known.
UNKNOWN_PASSES, KNOWN_PASSES = 60, 20
#: Passes of PIE before a second attempt with a known probe, where the first one failed.
AGAIN_PASSES = 50
#: The difference map has settled when its R fell by less than this share since it was last
#: measured, five passes before.
SETTLED = 0.005


@dataclass(frozen=True)
class WarmStart:
    """Passes of an engine that come first.

    Attributes
    ----------
    engine : str
    epochs : int
    settle : bool
        Whether fewer will do, if R settles before.
    instead : str
        Engine that makes it where this one runs away; "" for none.
    dispensable : bool
        Whether the run begins from a constant where this one fails.
    """

    engine: str
    epochs: int
    settle: bool = False
    instead: str = ""
    dispensable: bool = False

    def run(
        self, problem: Problem, callbacks: Sequence[Callback] = (), **way: Any
    ) -> Result | None:
        """The first guess of object and probe. Where the difference map runs away, rPIE makes it;
        where PIE does, none does.

        Parameters
        ----------
        problem : Problem
        callbacks : sequence of callables
            Of the run. Only Ctrl-C is listened to: an `Interrupt` among them ends these passes too.
        **way
            Of `reconstruct`: first object and probe, backend, seed, say.
        """
        from .reconstruct import reconstruct

        way["judge"] = False
        interrupts = [callback for callback in callbacks if isinstance(callback, Interrupt)]
        watching: list[Callback] = [*interrupts, *([Settled()] if self.settle else [])]
        try:
            found = reconstruct(
                problem, self.engine, epochs=self.epochs, callbacks=watching, finish=0, **way
            )
        except PtychonError as error:
            if self.dispensable:
                warnings.warn(
                    f"{error}: beginning from a constant instead", PtychonWarning, stacklevel=3
                )
                return None
            if not self.instead:
                raise
            warnings.warn(
                f"{error}: beginning with {self.instead} instead", PtychonWarning, stacklevel=3
            )
            found = reconstruct(
                problem, self.instead, epochs=self.epochs, callbacks=interrupts, **way
            )
        if any(interrupt.pressed for interrupt in interrupts):
            done = f"stopped after {found.epochs} of the passes that make the first guess"
            warnings.warn(
                f"{done}: begin again rather than go on from it", PtychonWarning, stacklevel=3
            )
        return found


class Settled:
    """A callback that ends a run when its R has settled."""

    def __init__(self) -> None:
        self.before = math.inf

    def __call__(self, progress: Progress) -> bool:
        if math.isnan(progress.error):
            return False
        before, self.before = self.before, progress.error
        # a rise is no end: the difference map may climb out of a wrong optimum
        return math.isfinite(before) and before * (1 - SETTLED) < progress.error < before * (
            1 + SETTLED
        )


def warm_start(
    problem: Problem,
    engine: Engine,
    probe: ComplexArray,
    asked: int | None = None,
    given: bool = False,
) -> WarmStart | None:
    """What comes before an engine; None where it begins by itself.

    Parameters
    ----------
    problem : Problem
    engine : Engine
    probe : (K, P, Q) complex array
    asked : int, optional
        Passes that somebody wants; 0 for none.
    given : bool
        Whether an object to start from was given.

    Raises
    ------
    PtychonError
        For a negative number of passes.
    """
    if asked is not None and asked < 0:
        raise PtychonError(f"warm_start is {asked}; it must be 0 or more passes")
    if asked == 0 or (asked is None and (not engine.needs_guess or given)):
        return None
    if engine.begins_with is not None:
        name, passes = engine.begins_with if engine.moves_probe else ("pie", KNOWN_PASSES)
        return WarmStart(name, asked or passes)
    if engine.moves_probe:
        if problem.near_field:
            return WarmStart("rpie", asked or UNKNOWN_PASSES)
        return WarmStart("dm", asked or UNKNOWN_PASSES, settle=asked is None, instead="rpie")
    if asked is None and sampling_ratio(problem, probe) < NEAR_LIMIT:
        return None
    return WarmStart("pie", asked or KNOWN_PASSES, dispensable=True)
