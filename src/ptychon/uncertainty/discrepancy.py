r"""Bars of measured data, widened by what halves of the data disagree by.

No likelihood knows what is wrong with the model of a measurement. Two halves of the data show it:
each gets an object x and draws e of its error by the same method as the whole, and in each octave b
of periods

    T_b = sum |F (x_1 - x_2)|^2 / sum ( |F e_1|^2 + |F e_2|^2 )

says how many times the variance must be what the bars say (`half_data`). The whole is then taken to
have the same discrepancy: the errors of its draws are filtered,

    e  <-  F^-1 sqrt(T_b(k)) F e,

and its bars grow by as much as the power of these draws does, locally. It is a statement about
errors that differ between the halves. What is wrong in both alike stays unseen.

T of one split is a matter of chance where an octave has few independent coefficients
(`spectrum.by_chance`), so that it is the mean of 2 to 4 splits, as many as it takes to know it to 8
%. Frames go to the halves by orthogonal signs: with g_j what frame j pulls the object by, the
difference of the halves of split m is about D_m = sum_j s_mj g_j, and

    sum_j s_mj s_lj = 0    =>    E D_m D_l^* = 0   for errors of frames that are independent.

One of each pair of neighbours in the scan goes to either half, by lot, so that both have the same
local density; split m turns the pairs round at which the Walsh function of m is -1. Further splits
of the same family, which tell nothing of these, are what `validate` tries the bars on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.problem import Problem
from ..run.progress import Tell, silent
from ..types import BoolArray, ComplexArray, PtychonError
from .half_data import compared
from .half_data_record import HalfDataTest, together
from .posterior import Posterior
from .splitting import halves_of, ways
from .widening import factors_of, filled, widened

if TYPE_CHECKING:
    from ..data.result import Result
    from .method import Method

#: Corrections of the factors by what they do to the splits that they are from.
ROUNDS = 3
#: Splits that T is learned from, at least and at most; the relative error of T in each octave that
#: is enough.
SPLITS, KNOWN = (2, 4), 0.08


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Two halves of the data, each with an optimum and bars.

    Attributes
    ----------
    kind : {"positions", "counts"}
    number : int
        Of the split.
    posteriors : (Posterior, Posterior)
        With draws.
    results : (Result, Result)
        Where both began, with rows of their own frames.
    region : (H, W) bool
        What is compared.
    before : (draws, draws)
        Of each, before bars were widened; None where they were not.
    """

    kind: str
    number: int
    posteriors: tuple[Posterior, Posterior]
    results: tuple[Result, Result]
    region: BoolArray
    before: tuple[ComplexArray | None, ComplexArray | None] = (None, None)

    def wider(self, factors: Sequence[float]) -> Halves:
        """With bars that are widened by the factors of the octaves."""
        one, two = (widened(each, factors) for each in self.posteriors)
        first, second = self.posteriors
        return replace(self, posteriors=(one, two), before=(first.draws, second.draws))

    def compared(self, update: Collection[str], near_field: bool = False) -> HalfDataTest:
        """How far they differ, in bars."""
        one, two = (
            replace(
                result,
                object=posterior.object,
                probe=posterior.probe,
                object_std=posterior.object_std,
                draws=posterior.draws,
                history=dict(result.history) | {"chi2": np.array([posterior.chi2])},
            )
            for result, posterior in zip(self.results, self.posteriors, strict=True)
        )
        test = compared(
            *(one, two, self.region),
            kind=self.kind,
            update=update,
            near_field=near_field,
            before=self.before,
        )
        left = [r for each in self.posteriors for r in each.remains if np.isfinite(r)]
        return replace(test, remains=max(left, default=math.nan))


def both_halves(
    problem: Problem,
    found: Result,
    method: Method,
    kind: str = "positions",
    *,
    seed: int = 0,
    number: int = 0,
    backend: Any = "auto",
    tell: Tell = silent,
    place: Path | None = None,
) -> Halves:
    """Give two halves of the data an optimum and error bars as a result has them.

    Parameters
    ----------
    problem, found, method, kind, backend, tell, place
        As for `halves_disagree`.
    seed, number : int
        Of the split (`halves_of`).

    Raises
    ------
    PtychonError
        A method without draws, or data that cannot be split so.
    """
    own = method.to_optimum()
    made: list[tuple[Result, Posterior]] = []
    for which, half in enumerate(halves_of(problem, kind, seed, number)):

        def said(what: str, done: int, total: int, which: int = which) -> None:
            tell(f"split {number + 1}, half {which + 1}: {what}", done, total)

        start = _of_half(found, problem, half)
        made.append(own.run(half, start, backend, said, place or Path("half")))
        if made[-1][1].stopped and getattr(own, "limit", None) is None:
            # halves that were cut off differ by more than their data
            raise KeyboardInterrupt
        if made[-1][1].draws is None:
            raise PtychonError(
                f"method {method.name!r} of error bars makes no draws, which halves of the data "
                "are compared by; take laplace or joint"
            )
    (one, first), (two, second) = made
    region = first.region & second.region
    light = found.illumination
    region &= light > 0.5 * light[region].mean()
    return Halves(
        kind=kind, number=number, posteriors=(first, second), results=(one, two), region=region
    )


def halves_disagree(
    problem: Problem,
    found: Result,
    method: Method,
    kind: str = "positions",
    *,
    seed: int = 0,
    numbers: Sequence[int] = (),
    factors: Sequence[float] = (),
    backend: Any = "auto",
    tell: Tell = silent,
    place: Path | None = None,
) -> HalfDataTest:
    """Split the data in two in several ways, give all halves error bars as a result has them, and
    compare these with how far the two halves of each split differ.

    Parameters
    ----------
    problem : Problem
        The whole, on the host.
    found : Result
        Where all halves begin.
    method : Method
        One that leads to the optimum of each half and draws from its posterior.
    kind : {"positions", "counts"}
    seed : int
        Of the splits.
    numbers : sequence of int, optional
        Of the splits (`halves_of`); default as many, from the first on, as it takes to know T of
        each octave to 8 %, 2 to 4, but no more than half of those that there are.
    factors : sequence of float, optional
        T of each octave of periods, from other splits: bars are widened by them before they are
        compared.
    backend : str or Backend
    tell : callable
        Called with what is being done, how much of it is done, and of how much.
    place : Path, optional
        Beside which a method may keep what it needs.

    Returns
    -------
    HalfDataTest
        `HalfDataTest.by_period` has T, the mean of all splits.

    Raises
    ------
    PtychonError
        A method without draws, or data that cannot be split so.
    """
    tests: list[HalfDataTest] = []
    splits: list[Halves] = []
    most = min(SPLITS[1], max(ways(problem, kind) // 2, 1))
    for number in numbers or range(most):
        halves = both_halves(
            *(problem, found, method, kind),
            seed=seed,
            number=number,
            backend=backend,
            tell=tell,
            place=place,
        )
        if factors:
            halves = halves.wider(factors)
        else:
            splits.append(halves)
        tests.append(halves.compared(method.free(found), problem.near_field))
        so_far = together(tests)
        told = np.isfinite(so_far.by_period)
        enough = not np.max(np.array(so_far.chance)[told], initial=0.0) > KNOWN
        if not numbers and len(tests) >= SPLITS[0] and enough:
            break
    said = together(tests)
    if factors:
        return replace(said, widened=filled(factors))
    return replace(said, factors=learned(splits, said, problem.near_field))


def learned(splits: Sequence[Halves], said: HalfDataTest, near_field: bool) -> tuple[float, ...]:
    """T of each octave by which bars are to be widened, so that those of these splits come out
    right.

    Octaves are not apart: under the window of a region that is lit, coarse errors show in finer
    octaves too, and so do those that are widened, which may be coarser than the errors were. What
    is first taken is the T that was seen; then each octave that tells something is corrected by
    what T is after bars were widened.

    Parameters
    ----------
    splits : sequence of Halves
    said : HalfDataTest
        Of these.
    near_field : bool

    Raises
    ------
    PtychonError
        If no octave tells anything.
    """
    factors = np.array(factors_of(said))
    told = np.isfinite(said.by_period)
    for _ in range(ROUNDS if told.any() else 0):
        wider = [each.wider(factors.tolist()) for each in splits]
        after = together([each.compared(said.update, near_field) for each in wider])
        factors[told] *= np.array(after.by_period)[told]
    return tuple(factors.tolist())


def tried_again(
    problem: Problem,
    found: Result,
    kind: str = "positions",
    *,
    noise_variance: float | None = None,
    backend: Any = "auto",
    seed: int = 0,
    tell: Tell = silent,
) -> HalfDataTest:
    """The bars that a result has by `laplace`, tried on halves of its data: on as many other splits
    as those that widened them, where some did.

    Parameters
    ----------
    problem : Problem
        Its data, on the host.
    found : Result
        With the settings that `error_bars` leaves.
    kind : {"positions", "counts"}
    noise_variance : float, optional
        As its bars were made with.
    backend : str or Backend
    seed : int
    tell : callable
    """
    from .methods import Laplace

    how = dict(found.settings)["error_bars"]
    method = Laplace(update=tuple(how["update"]), noise_variance=noise_variance, seed=seed)
    factors = tuple(how.get("widened") or ())
    learned = int(how.get("splits", 1))
    return halves_disagree(
        *(problem, found, method, kind),
        seed=how["seed"] if factors else seed,
        numbers=range(learned, 2 * learned) if factors else (0,),
        factors=factors,
        backend=backend,
        tell=tell,
    )


def _of_half(found: Result, whole: Problem, half: Problem) -> Result:
    """A result with the rows of the frames of a half, where these are some of the whole's."""
    if len(half) == len(whole):
        return found
    places = {tuple(p): j for j, p in enumerate(np.asarray(whole.positions).tolist())}
    rows = [places[tuple(p)] for p in np.asarray(half.positions).tolist()]
    few: dict[str, Any] = {}
    for name in (
        *("positions", "corners", "positions_given", "log_scale", "weights"),
        "noise_variances",
    ):
        value = getattr(found, name)
        few[name] = None if value is None else value[rows]
    return replace(found, **few)
