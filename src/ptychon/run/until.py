"""Rules that end a stage before its passes are over.

Each is a frozen record; `watch()` gives a fresh observer of passes, since a stage may begin again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .progress import Progress
from .words import record_of


class Until(Protocol):
    """What a rule is."""

    def watch(self) -> Callable[[Progress], bool]:
        """A function that is called after each pass and says whether the stage has ended."""


@dataclass(frozen=True)
class Still:
    """The object changes by less than a share of itself for some passes in a row.

    Parameters
    ----------
    change : float
        Relative change of the object in a pass. Engines that do not report it never end by this.
    passes : int
    """

    change: float
    passes: int = 5

    def watch(self) -> Callable[[Progress], bool]:
        row = 0

        def ended(progress: Progress) -> bool:
            nonlocal row
            row = row + 1 if progress.extra.get("change", math.inf) < self.change else 0
            return row >= self.passes

        return ended


@dataclass(frozen=True)
class Settled:
    """R differs by less than a share of itself from when it was last measured.

    A rise by more is no end: the difference map may climb out of a wrong optimum.

    Parameters
    ----------
    share : float
    """

    share: float = 0.005

    def watch(self) -> Callable[[Progress], bool]:
        before = math.inf

        def ended(progress: Progress) -> bool:
            nonlocal before
            if math.isnan(progress.error):
                return False
            last, before = before, progress.error
            return math.isfinite(last) and abs(progress.error / last - 1) < self.share

        return ended


@dataclass(frozen=True)
class Below:
    """R is at or below a number.

    Parameters
    ----------
    error : float
    """

    error: float

    def watch(self) -> Callable[[Progress], bool]:
        return lambda progress: progress.error <= self.error


@dataclass(frozen=True)
class Placed:
    """Positions move by less than so much in a pass, and no frame fits much worse than the others:
    parts of a scan that have locked to each other a detail apart do not move either.

    Parameters
    ----------
    move : float
        Root mean square length of the moves of a pass less their mean, px. Engines that do not
        report it never end by this.
    passes : int
        From which pass on it is looked at.
    worst : float
        Largest -log p of a frame allowed, in units of the median.
    """

    move: float
    passes: int = 3
    worst: float = 1.2

    def watch(self) -> Callable[[Progress], bool]:
        done = 0

        def ended(progress: Progress) -> bool:
            nonlocal done
            done += 1
            still = progress.extra.get("move", math.inf) < self.move
            alike = progress.extra.get("worst", math.inf) < self.worst
            return done >= self.passes and still and alike

        return ended


RULES: dict[str, Any] = {"still": Still, "settled": Settled, "below": Below, "placed": Placed}


def rule_of(text: Any) -> Until:
    """A rule from text such as "still:1e-4", "settled" or "below:0.1".

    Raises
    ------
    PtychonError
        If it is none.
    """
    rule: Until = record_of(text, RULES, "watch", "the rule that ends a stage")
    return rule


__all__ = ["RULES", "Below", "Placed", "Settled", "Still", "Until", "rule_of"]
