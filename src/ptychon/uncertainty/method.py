"""What methods that give a result its error bars have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..backends import get_backend
from ..model.noise import told
from ..model.problem import Problem
from ..types import PtychonError
from .free import USUAL, free_in, free_of

if TYPE_CHECKING:
    from ..data.result import Result
    from .posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the methods have in common; an option out of range is refused when one is made.

    Parameters
    ----------
    noise_variance : float, optional
        Variance of the amplitude noise; default what the data say, or learned.
    background : float or (P, Q) array, optional
        Mean background counts per pixel, if the data do not state it; in the order of
        `Problem.amplitude`.
    seed : int
        Seed of the random numbers.
    update : tuple of str
        Unknowns that are free: "object", and any of those that the method can free; empty for
        object and, if it was learned, probe.
    """

    name: ClassVar[str] = ""
    #: Least values of options that count something.
    least: ClassVar[Mapping[str, int]] = {}
    #: Unknowns that it can free.
    able: ClassVar[tuple[str, ...]] = USUAL

    noise_variance: float | None = None
    background: Any = None
    seed: int = 0
    update: tuple[str, ...] = ()

    @property
    def keeps_object(self) -> bool:
        """Whether the bars are those of the object that was given."""
        return False

    def __post_init__(self) -> None:
        for option, least in {"seed": 0, **self.least}.items():
            value = getattr(self, option)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise PtychonError(f"{option} is {value!r}; it must be a whole number")
            if value < least:
                raise PtychonError(
                    f"{option} is {value}; method {self.name!r} of error bars needs at least "
                    f"{least}"
                )
        variance = self.noise_variance
        if variance is not None and not 0 < variance < math.inf:
            raise PtychonError(f"noise_variance is {variance}; it must be positive, or None")
        if self.update:
            free_of(self.update, self.able, f"method {self.name!r} of error bars")

    def free(self, found: Result) -> tuple[str, ...]:
        """The unknowns that are free, of a result."""
        return free_of(self.update, self.able) if self.update else free_in(found, {})

    def at_grid(self, problem: Problem, found: Result, backend: Any, tell: Any) -> Result:
        """A result whose probe was learned, where the grid of the data is (see `centre`)."""
        from .centre import centred, movable

        if "probe" not in self.free(found) or not movable(problem, found):
            return found
        whole = told(problem, self.background, variance=self.noise_variance)
        known = {} if self.noise_variance is None else {"noise_variance": self.noise_variance}
        return centred(whole, found, known, get_backend(backend), self.seed, tell)[0]

    def to_optimum(self) -> Method:
        """The same, with bars of what it finds itself, not of the object that was given."""
        return self

    def within(self, share: float) -> Method:
        """The same in a share of the time that it may take, where that is limited."""
        return self

    def checks(self, problem: Problem) -> bool:
        """Whether the bars of `run` are to be tried on simulated data afterwards."""
        return False

    def unchecked(self) -> Method:
        """The same without that, and with nothing beside bars and draws."""
        return self

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """A result and its posterior, about the optimum where the object of the result stays."""
        raise NotImplementedError


def assumed_variance(result: Result) -> float | None:
    """The variance of the object that the engine assumed, if it did."""
    options = result.options
    given = options.get("object_variance") if options.get("prior") == "gaussian" else None
    return float(given) if given else None
