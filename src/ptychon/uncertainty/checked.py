"""The check of any method of error bars on simulated data (`twin`)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import get_backend
from ..data.result import Result
from ..model.found import with_found
from ..model.noise import Noise, noise_of, told
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Tell
from ..types import COMPLEX, BoolArray
from .joint import lit_region
from .starts import MISFIT, Starts, begun_otherwise, differ
from .twin import on_twin
from .verdict import Twin

if TYPE_CHECKING:
    from .method import Method
    from .posterior import Posterior


def check(
    problem: Problem,
    found: Result,
    method: Method,
    posterior: Posterior,
    *,
    backend: Any = "auto",
    tell: Tell,
    place: Path,
) -> Twin:
    """What a twin says of the error bars of a method that makes draws.

    Parameters
    ----------
    problem : Problem
        On the host.
    found : Result
        From which the bars began.
    method : Method
    posterior : Posterior
        Its bars, about the object of the result if the method keeps that, with draws of the error.
    backend : str or Backend
    tell : callable
    place : Path
        Beside which the method may keep what it needs.
    """
    assert posterior.draws is not None
    here = get_backend(backend)
    data = told(problem, method.background, variance=method.noise_variance)
    # the twin is made of a draw: its own draws are others
    own = replace(method.unchecked(), seed=method.seed + 1)

    def made(data: Problem, begun: Result, how: Method = own) -> Posterior:
        def said(what: str, done: int, total: int) -> None:
            tell(f"checking: {what}", done, total)

        # frames are where a run from the beginning has found them
        data = data if begun.positions_given is None else with_found(data, begun)
        _, bars = how.run(data, begun, here, said, place)
        if bars.stopped:
            # bars that were cut off are no check of those that were not
            raise KeyboardInterrupt
        return bars

    def again(twin: Problem, begun: Result) -> Result:
        bars = made(twin, begun)
        if not own.keeps_object:
            return as_result(begun, bars, None)
        return as_result(begun, bars.about(begun.object, begun.probe), bars.offset)

    offset = posterior.offset if method.keeps_object else None
    drawn = posterior.sample
    if drawn is None:
        first = posterior.draws[0] + (posterior.object if offset is None else _mean(posterior))
        drawn = Unknowns(object=first.astype(COMPLEX)[None])
    seen = as_result(found, posterior, offset)
    lit, free = lit_region(data, found), method.free(found)
    twin = on_twin(
        data,
        seen,
        drawn,
        found,
        again,
        noise=noise_for(data, method, posterior),
        region=lit,
        free_probe="probe" in free,
        backend=here,
        seed=method.seed,
        tell=tell,
        near=None if method.keeps_object else replace(seen, passes=0),
        offset=offset,
    )
    # with doses and the probe free no data tell a slope of log amplitude
    if "probe" in free and "log_scale" not in free:
        tell("a second start", 0, 1)
        other = begun_otherwise(data, found, here)
        if other is not None:
            mean = seen if offset is None else replace(seen, object=_mean(posterior))
            starts = apart(data, mean, as_result(other, made(data, other), None), lit)
            if method.keeps_object and not starts.agree:
                # engines leave a result anywhere between the pixels, and no step leads back: what
                # two optima are apart by counts where they have been moved to the grid of the data
                moved = own.to_optimum()
                one, two = (as_result(r, made(data, r, moved), None) for r in (found, other))
                starts = min(starts, apart(data, one, two, lit), key=lambda s: s.worst)
            twin = replace(twin, starts=starts.in_bars(twin.factor**0.5))
    left = [r for r in posterior.remains if math.isfinite(r)]
    chance = math.sqrt(2) * (posterior.chi2_error or 0.0)
    modes = len(found.probe) if "probe" in free else 0
    return replace(twin, remains=max(left, default=0.0), misfit_chance=chance, modes=modes)


def _mean(posterior: Posterior) -> Any:
    """Of the posterior, where its object is one that was given."""
    return posterior.object - posterior.offset


def apart(problem: Problem, one: Result, two: Result, region: BoolArray) -> Starts:
    """How far apart two optima of the same data are that began with different engines: what the
    first run has ended in may be one that only it reaches, and a twin, whose truth lies there,
    would not see it.
    """
    first, second = (float(each.history["chi2"][-1]) for each in (one, two))
    better = second < first
    return Starts(
        apart=differ(one, two, region, problem.near_field),
        # the misfit is twice -log likelihood
        gain=(first - second) * problem.amplitude.size / 2,
        kept="second" if better else "first",
        poor=not better and second > MISFIT * first,
    )


def as_result(start: Result, posterior: Posterior, offset: Any) -> Result:
    """A result with bars, draws about the mean of the posterior, and its misfit."""
    assert posterior.draws is not None
    draws = posterior.draws if offset is None else (posterior.draws + offset).astype(COMPLEX)
    chi2 = 1.0 if posterior.chi2 is None else posterior.chi2
    return replace(
        start,
        object=posterior.object,
        probe=posterior.probe,
        object_std=posterior.object_std,
        draws=draws,
        history=dict(start.history) | {"chi2": np.array([chi2])},
    )


def noise_for(problem: Problem, method: Method, posterior: Posterior) -> Noise:
    """What the bars rest on."""
    noise = noise_of(problem, "auto", method.noise_variance)
    if posterior.read_noise is not None:
        more = posterior.read_noise**2 - problem.read_noise**2
        noise = replace(noise, background=noise.background + more, read_noise=posterior.read_noise)
    learned = posterior.noise_variance
    return noise.fitted(learned) if noise.learned and learned is not None else noise
