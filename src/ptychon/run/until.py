"""Rules that end a stage before its passes are over.

Each is a frozen record; `watch()` gives a fresh observer of passes, since a stage may begin again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from ..types import PtychonError
from .progress import Progress


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


RULES: dict[str, Any] = {"still": Still, "settled": Settled, "below": Below}


def rule_of(text: Any) -> Until:
    """A rule from text such as "still:1e-4", "settled" or "below:0.1".

    Raises
    ------
    PtychonError
        If it is none.
    """
    if not isinstance(text, str):
        if hasattr(text, "watch"):
            rule: Until = text
            return rule
        raise PtychonError(f"a rule that ends a stage is {text!r}; write still:1e-4, say")
    name, _, rest = text.partition(":")
    kind = RULES.get(name.strip())
    try:
        numbers = [float(part) for part in rest.split(",")] if rest.strip() else []
        if kind is not None and len(numbers) == 2:
            numbers[1] = int(numbers[1])
        if kind is None or not all(number > 0 for number in numbers):
            raise ValueError
        made: Until = kind(*numbers)
        return made
    except (TypeError, ValueError):
        raise PtychonError(
            f"the rule {text!r} that ends a stage is not known; write still:CHANGE, "
            "settled:SHARE or below:R, such as still:1e-4"
        ) from None


def rule_text(rule: Until) -> str:
    """What `rule_of` reads.

    Raises
    ------
    PtychonError
        For a rule that is not one of ours: it cannot be stored.
    """
    name = next((name for name, kind in RULES.items() if type(rule) is kind), None)
    if name is None:
        raise PtychonError(
            f"{type(rule).__name__} cannot be stored in a recipe; use still, settled or below, or "
            "a callback"
        )
    return f"{name}:{','.join(f'{getattr(rule, f.name):g}' for f in fields(rule))}"  # type: ignore[arg-type]


__all__ = ["Below", "Settled", "Still", "Until", "rule_of", "rule_text"]
