"""The few numbers of a run that matter, searched by what data predict that were held out.

Every trial is a short reconstruction without some of the frames around the middle of the scan, or
without some pixels of each frame. Its score is the share of the deviation of what was held out from
the mean frame that is predicted, which no number can raise by fitting noise. Choices are tried
each; ranges are searched by DIRECT (Jones, Perttunen & Stuckman, J. Optim. Theory Appl. 79, 157
(1993)), which needs no first guess and is not caught by one optimum, and then by Nelder and Mead
about the best, both of SciPy. Numbers that describe the scan get an error and are looked at again
with more passes (`tuned_bars`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..data.dataset import Dataset
from ..types import FloatArray, PtychonError
from .trials import gains, subset
from .tuned_bars import FRAMES as ENOUGH
from .tuned_bars import NEAR, TELLS, Value, polish

#: Frames of a trial, and passes; pixels that are held out of each frame.
FRAMES, PASSES, PIXELS = 100, 30, 0.05
#: Trials in all, the share of them that DIRECT has, and the fewest of a combination of choices.
TRIALS, COARSE, FEWEST = 40, 0.6, 6
#: Size of the first simplex in parts of a range.
SIMPLEX = 0.08
#: Ends of a range of this ratio are searched on a logarithmic scale.
WIDE = 4.0

By = Literal["frames", "pixels"]


@dataclass(frozen=True)
class Knob:
    """What is varied: some values, or a range.

    Attributes
    ----------
    name : str
        An option of the engine, ``modes``, ``orient``, or a keyword of `ptychon.load`.
    choices : tuple
        Values that are tried, each.
    range : (low, high) or None
        Searched instead.
    """

    name: str
    choices: tuple[Any, ...] = ()
    range: tuple[float, float] | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether steps are ratios."""
        return self.range is not None and 0 < WIDE * self.range[0] <= self.range[1]

    def at(self, share: float) -> float:
        """The value at a share, 0 to 1, of the range."""
        assert self.range is not None
        low, high = self.range
        if self.logarithmic:
            return float(low * (high / low) ** share)
        return float(low + (high - low) * share)

    def share(self, value: float) -> float:
        """Where a value stands in the range."""
        assert self.range is not None
        low, high = self.range
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Trial:
    """One of the trials.

    Attributes
    ----------
    values : dict
        Of each knob.
    explained : float
        Share of what was held out that is predicted; -inf where the run failed.
    gain : (M,) float64
        Of each frame.
    behind : float
        How far behind the best, in standard errors of the paired difference.
    """

    values: dict[str, Any]
    explained: float
    gain: FloatArray
    behind: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """What a search found, the best first.

    Attributes
    ----------
    trials : tuple of Trial
    by : {"frames", "pixels"}
    frames : int
        Used, those held out included.
    seconds : float
    values : tuple of Value
        Of the numbers that describe the scan and were searched in a range, with errors.
    """

    trials: tuple[Trial, ...]
    by: By
    frames: int
    seconds: float
    values: tuple[Value, ...] = ()

    @property
    def best(self) -> Trial:
        return self.trials[0]


def tune(
    data: Callable[[Mapping[str, Any]], Dataset],
    knobs: Sequence[Knob],
    *,
    by: By = "frames",
    passes: int = PASSES,
    trials: int = TRIALS,
    frames: int = FRAMES,
    backend: Any = "numpy",
    seed: int = 0,
    tell: Callable[[str, int, int], None] | None = None,
) -> Tuned:
    """Search the values of knobs.

    Parameters
    ----------
    data : callable
        Gives the scan for values of the knobs that belong to it (`ptychon.load` with them).
    knobs : sequence of Knob
    by : {"frames", "pixels"}
        What is held out.
    passes : int
        Of a trial.
    trials : int
        In all, about; every combination of choices has at least `FEWEST` where there are ranges.
    frames : int
        Around the middle of the scan.
    backend : str or Backend
    seed : int
        Of what is held out, and of the runs.
    tell : callable, optional
        Told how far the search is.

    Raises
    ------
    PtychonError
        If there is nothing to vary, too few frames, or every trial failed.
    """
    if not knobs:
        raise PtychonError("nothing is varied; name what is, such as object_step=0.1..1")
    start = time.perf_counter()
    search = _Search(data, by, passes, frames, backend, seed)
    combinations = list(itertools.product(*(k.choices for k in knobs if k.range is None)))
    fixed = [k.name for k in knobs if k.range is None]
    ranges = [k for k in knobs if k.range is not None]
    each = max(FEWEST, trials // len(combinations)) if ranges else 1
    total = each * len(combinations)
    for number, values in enumerate(combinations):
        chosen = dict(zip(fixed, values, strict=True))
        done = number * each

        def at(x: Any, chosen: dict[str, Any] = chosen, done: int = done) -> float:
            shares = np.clip(np.atleast_1d(x), 0, 1)
            found = {k.name: k.at(float(s)) for k, s in zip(ranges, shares, strict=True)}
            score = search({**chosen, **found})
            if tell is not None:
                tell("trial", min(max(done + 1, len(search.made)), total), total)
            return -score if math.isfinite(score) else 1.0

        if ranges:
            _minimise(at, len(ranges), each)
        else:
            at(np.zeros(0))
    made = sorted(search.made.values(), key=lambda t: -t.explained)
    if not math.isfinite(made[0].explained):
        raise PtychonError(
            f"none of {len(made)} trials led to a reconstruction ({search.why}); look at the scan "
            "with ptychon inspect first"
        )
    best = made[0]
    ranked = tuple(replace(t, behind=_behind(best.gain, t.gain)) for t in made)
    values = search.values([k for k in ranges if search.describes(k.name)], best, tell)
    return Tuned(ranked, by, search.frames, time.perf_counter() - start, values)


def _minimise(function: Callable[[Any], float], n: int, budget: int) -> None:
    """DIRECT over the unit cube, then Nelder and Mead about the best."""
    from scipy.optimize import direct, minimize

    coarse = max(3, round(COARSE * budget))
    found = direct(function, [(0.0, 1.0)] * n, maxfun=coarse, locally_biased=False, maxiter=1000)
    first = np.clip(np.asarray(found.x), 0.0, 1.0)
    inward = np.where(first < 0.5, SIMPLEX, -SIMPLEX)
    corners = np.vstack([first, first + np.diag(inward)])
    minimize(
        function,
        first,
        method="Nelder-Mead",
        bounds=[(0.0, 1.0)] * n,
        options={
            "maxfev": max(2, budget - found.nfev),
            "initial_simplex": corners,
            "xatol": 1e-3,
            "fatol": 1e-6,
        },
    )


class _Search:
    """Trials, each made once."""

    def __init__(
        self, data: Any, by: By, passes: int, frames: int, backend: Any, seed: int
    ) -> None:
        from ..backends import get_backend
        from ..engines import options, registry

        self._data, self._by, self._passes, self._seed = data, by, passes, seed
        self._most = frames
        self._backend = get_backend(backend) if isinstance(backend, str) else backend
        self._options = set(options(registry["rpie"]))
        self.made: dict[tuple[Any, ...], Trial] = {}
        self.frames, self.why, self.near_field = 0, "", False

    def __call__(self, values: dict[str, Any]) -> float:
        key = tuple(f"{v:.6g}" if isinstance(v, float) else v for v in values.values())
        if key not in self.made:
            try:
                self.made[key] = self._run(values)
            except PtychonError as error:
                self.why = str(error)
                self.made[key] = Trial(values, -math.inf, np.zeros(1))
        return self.made[key].explained

    def describes(self, name: str) -> bool:
        """Whether a number describes the scan, rather than the run."""
        return name not in {*self._options, "modes", "orient"}

    def values(self, knobs: Sequence[Knob], best: Trial, tell: Any) -> tuple[Value, ...]:
        """Numbers of the scan about the best trial, with errors, from longer runs."""
        if not knobs or len(best.gain) < ENOUGH:
            return ()
        names, count = [k.name for k in knobs], 0

        def at(place: FloatArray, passes: int) -> FloatArray:
            nonlocal count
            count += 1
            if tell is not None:
                tell("longer trial", count, count)
            own = {k.name: k.at(float(s)) for k, s in zip(knobs, place, strict=True)}
            return self._run({**best.values, **own}, passes).gain

        first = np.array([k.share(best.values[k.name]) for k in knobs])
        try:
            place, error, concave, moved, passes = polish(at, first, names, self._passes)
        except PtychonError:
            return ()  # a longer run failed: what is said of the trials stands
        found = []
        for k, u, e, m in zip(knobs, place, error, moved, strict=True):
            value = k.at(float(u))
            low, high = k.at(float(u) - min(float(e), 1)), k.at(float(u) + min(float(e), 1))
            width = (high - low) / 2 if math.isfinite(e) else math.inf
            inside = bool(u - e > 0 and u + e < 1)
            told = concave and inside and bool(e < TELLS)
            told = told and (not self.near_field or width < NEAR * abs(value))
            found.append(Value(k.name, value, width, told, float(m), passes, self.near_field))
        return tuple(found)

    def _run(self, values: dict[str, Any], passes: int | None = None) -> Trial:
        from ..model.problem import Problem
        from ..run.recipe import Stage
        from ..run.reconstruct import reconstruct
        from .orientation import Orientation

        engine = {n: v for n, v in values.items() if n in self._options}
        known = {n: v for n, v in values.items() if n not in {*engine, "modes", "orient"}}
        data = self._data(known)
        if values.get("orient") is not None:
            data = Orientation.parse(values["orient"]).apply(data)
        part, held = subset(data, self._most, self._seed)
        probe = part.probe
        whole = Problem.from_dataset(replace(part, probe=None))
        if self._by == "frames":
            train, test = whole.select(~held), whole.select(held)
        else:
            drawn = np.random.default_rng(self._seed).random(whole.amplitude.shape) < PIXELS
            valid = np.broadcast_to(whole.mask, whole.amplitude.shape)
            train = replace(whole, mask=valid & ~drawn)
            test = replace(whole, mask=valid & drawn)
        self.frames, self.near_field = len(whole), whole.near_field
        mean = np.asarray(train.amplitude.mean(axis=0, dtype=np.float64))
        result = reconstruct(
            train,
            Stage("rpie", passes or self._passes, engine),
            backend=self._backend,
            probe=probe,
            modes=values.get("modes"),
            seed=self._seed,
            judge=False,
            say=None,
        )
        gain, total = gains(test, mean, result, self._backend)
        return Trial(values, float(gain.sum()) / total, gain)


def _behind(best: FloatArray, other: FloatArray) -> float:
    """Mean of the paired differences in standard errors; inf where they cannot be paired."""
    if best is other:
        return 0.0
    if best.shape != other.shape or len(best) < 2:
        return math.inf
    difference = best - other
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return float(difference.mean()) / max(error, 1e-300)
