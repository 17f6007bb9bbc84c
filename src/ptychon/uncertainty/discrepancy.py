r"""Bars of measured data, widened by what two halves of the data disagree by.

No likelihood knows what is wrong with the model of a measurement. Two halves of the data show it:
each gets an object x and draws e of its error by the same method as the whole, and in each octave b
of periods

    T_b = sum |F (x_1 - x_2)|^2 / sum ( |F e_1|^2 + |F e_2|^2 )

says how many times the variance must be what the bars say (`half_data`). The whole is then taken to
have the same discrepancy: the errors of its draws are filtered,

    e  <-  F^-1 sqrt(T_b(k)) F e,

and its bars grow by as much as the power of these draws does, locally. It is a statement about
errors that differ between the halves. What is wrong in both alike stays unseen.

T is learned from one way to split the data, and can be tried on another: with `other` one of two
frames goes to the other half in every second pair, so that neither split tells of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from ..metrics.frc import soft_window
from ..metrics.registration import bounding_box
from ..model.problem import Problem
from ..run.progress import Tell, silent
from ..types import COMPLEX, REAL, FloatArray, PtychonError
from .half_data import HalfDataTest, compared
from .posterior import Posterior
from .spectrum import PERIODS, TAPER
from .splitting import halves_of

if TYPE_CHECKING:
    from ..data.result import Result
    from .methods import Method

#: Standard deviation (px) of the window over which powers of draws are compared.
LOCAL = 8.0


def halves_disagree(
    problem: Problem,
    found: Result,
    method: Method,
    kind: str = "positions",
    *,
    seed: int = 0,
    other: bool = False,
    factors: Sequence[float] = (),
    backend: Any = "auto",
    tell: Tell = silent,
    place: Path | None = None,
) -> tuple[HalfDataTest, tuple[Result, Result]]:
    """Give two halves of the data error bars as a result has them, and compare these with how far
    the halves differ.

    Parameters
    ----------
    problem : Problem
        The whole, on the host.
    found : Result
        Where both halves begin.
    method : Method
        One that leads to the optimum of each half and draws from its posterior.
    kind : {"positions", "counts"}
    seed : int
        Of the split.
    other : bool
        The split that goes with this seed but has nothing to do with it.
    factors : sequence of float, optional
        T of each octave of periods, from another split: bars are widened by them before they are
        compared.
    backend : str or Backend
    tell : callable
        Called with what is being done, how much of it is done, and of how much.
    place : Path, optional
        Beside which a method may keep what it needs.

    Returns
    -------
    (HalfDataTest, (Result, Result))
        `HalfDataTest.by_period` has T.

    Raises
    ------
    PtychonError
        A method without draws, or data that cannot be split so.
    """
    own = method.to_optimum()
    results: list[Result] = []
    regions, remains = [], [np.nan]
    for number, half in enumerate(halves_of(problem, kind, seed, other)):

        def said(what: str, done: int, total: int, number: int = number) -> None:
            tell(f"half {number + 1}: {what}", done, total)

        whole, posterior = own.run(
            half, _of_half(found, problem, half), backend, said, place or Path("half")
        )
        if posterior.draws is None:
            raise PtychonError(
                f"method {method.name!r} of error bars makes no draws, which halves of the data "
                "are compared by; take laplace or joint"
            )
        if factors:
            posterior = widened(posterior, factors)
        regions.append(posterior.region)
        remains += [r for r in posterior.remains if np.isfinite(r)]
        results.append(
            replace(
                whole,
                object=posterior.object,
                probe=posterior.probe,
                object_std=posterior.object_std,
                draws=posterior.draws,
                history=dict(whole.history) | {"chi2": np.array([posterior.chi2])},
            )
        )
    one, two = results
    light = found.illumination
    region = regions[0] & regions[1]
    region &= light > 0.5 * light[region].mean()
    verdict = compared(
        one, two, region, kind=kind, update=method.free(found), near_field=problem.near_field
    )
    left = float(np.nanmax(remains)) if len(remains) > 1 else np.nan
    wider = filled(factors) if factors else ()
    return replace(verdict, widened=wider, remains=left), (one, two)


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
    """The bars that a result has by `laplace`, tried on two halves of its data: on another split
    than that which widened them, where one did.

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
    draws = None if found.draws is None else len(found.draws)
    method = Laplace(
        update=tuple(how["update"]), noise_variance=noise_variance, draws=draws, seed=seed
    )
    factors = tuple(how.get("widened") or ())
    return halves_disagree(
        *(problem, found, method, kind),
        seed=how["seed"] if factors else seed,
        other=bool(factors),
        factors=factors,
        backend=backend,
        tell=tell,
    )[0]


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


def filled(factors: Sequence[float]) -> tuple[float, ...]:
    """T of each octave, those that are not told being that of the next finer one that is.

    Raises
    ------
    PtychonError
        If none is told.
    """
    known = [T for T in factors if np.isfinite(T) and T > 0]
    if not known:
        raise PtychonError(
            "halves of the data tell of no octave of periods how far they differ: the lit region "
            "is too small"
        )
    out: list[float] = []
    for T in reversed(list(factors)):
        out.append(float(T) if np.isfinite(T) and T > 0 else (out[-1] if out else known[-1]))
    return tuple(reversed(out))


def gains(shape: tuple[int, int], factors: Sequence[float]) -> FloatArray:
    """sqrt T of each spatial frequency of a picture, (H, W)."""
    y, x = (np.fft.fftfreq(n) for n in shape)
    k = np.hypot(y[:, None], x)
    edges = [1 / period for period in PERIODS[1:-1]]
    return np.asarray(np.sqrt(np.asarray(filled(factors))[np.digitize(k, edges, right=True)]))


def widened(posterior: Posterior, by: HalfDataTest | Sequence[float]) -> Posterior:
    """A posterior about its optimum with the discrepancy of each octave of periods.

    Parameters
    ----------
    posterior : Posterior
        With draws of the error.
    by : HalfDataTest or sequence of float
        T of the octaves of `PERIODS`; NaN where it is not told.

    Raises
    ------
    PtychonError
        Without draws, or without any factor.
    """
    draws = posterior.draws
    factors = by.by_period if isinstance(by, HalfDataTest) else by
    if draws is None:
        raise PtychonError("error bars without draws cannot be widened by spatial frequency")
    box = bounding_box(posterior.region)
    window = np.zeros(draws.shape[1:])
    window[box] = soft_window(posterior.region[box], TAPER)
    gain = gains(draws.shape[1:], factors)
    # where there is next to no light, errors are what the prior allows
    rest = float(np.sqrt(np.mean(gain**2)))
    new = np.empty_like(draws)
    for s, draw in enumerate(draws):
        change = scipy.fft.ifft2((gain - rest) * scipy.fft.fft2(window * draw))
        new[s] = (rest * draw + change).astype(COMPLEX)
    before, after = (_power(d, posterior.region) for d in (draws, new))
    ratio = np.sqrt(after / np.maximum(before, 1e-30))
    stds = {
        name: (getattr(posterior, name) * ratio).astype(REAL)
        for name in ("object_std", "amplitude_std", "phase_std")
    }
    stds["phase_std"] = np.minimum(stds["phase_std"], REAL.type(np.pi / np.sqrt(3)))
    facts = posterior.conditional
    if isinstance(by, HalfDataTest):
        facts = (*facts, fact(by))
    return replace(posterior, draws=new, widened=filled(factors), conditional=facts, **stds)


def _power(draws: Any, region: Any) -> FloatArray:
    """Power of draws, smooth over a few pixels of the region."""
    power = np.zeros(region.shape)
    for draw in draws:
        power += np.abs(draw).astype(np.float64) ** 2
    inside = gaussian_filter(np.where(region, power, 0.0), LOCAL)
    weight = gaussian_filter(region.astype(np.float64), LOCAL)
    found = inside / np.maximum(weight, 1e-6)
    mean = float(power[region].mean())
    return np.asarray(np.where(weight > 1e-3, found, mean))


def fact(test: HalfDataTest) -> str:
    """What a reader has to know of bars that are widened by a test."""
    periods = ["above 32 px", "32 to 16", "16 to 8", "8 to 4", "4 to 2"]
    parts = [
        f"{T**0.5:.2g} ({name})" for T, name in zip(filled(test.by_period), periods, strict=True)
    ]
    return f"bars times {', '.join(parts)}: the disagreement of two halves by {test.kind}"
