"""What is refined between the passes of an engine that does not move it itself (see
`Engine.follows`), when and how, and what was found of it. `between` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..engines import After, Update
from ..engines.undetermined import level
from ..model.problem import Problem
from ..types import REAL, ComplexArray, FloatArray, IntArray, PtychonError

#: Passes after which each of them moves where nobody says when.
FIRST = {"positions": 8, "log_scale": 1, "background": 5}
#: Share of the passes over which the limit of a step falls, and those in which trials are made.
FALL, TRIED = 0.7, 0.5


@dataclass(frozen=True, kw_only=True)
class Refine:
    """How positions and the background are refined in turn with an engine.

    Parameters
    ----------
    limit, least : float
        Largest step of a position along an axis, px: in the first pass, and after 70 % of them.
    momentum : float in [0, 1)
        Share of its last move that a position makes again; 0.5 for doses.
    trials : int
        Places at which each frame is tried in a turn (annealing), where it may be off by more than
        about a pixel; 4 are usual.
    radius : float
        Of the disc in which they lie, px: at first; it falls to 0 over half of the passes.
    smooth : float
        Width of the Gaussian that the background is smoothed with, detector pixels; 0 lets each
        pixel have its own.
    """

    limit: float = 1.0
    least: float = 0.1
    momentum: float = 0.8
    trials: int = 0
    radius: float = 3.0
    smooth: float = 3.0

    def __post_init__(self) -> None:
        ranges = {
            "limit": (0.0, 100.0, False),
            "least": (0.0, self.limit, False),
            "momentum": (0.0, 0.99, True),
            "trials": (0, 1000, True),
            "radius": (0.0, 100.0, False),
            "smooth": (0.0, 1000.0, True),
        }
        for name, (low, high, closed) in ranges.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            number = whole or (isinstance(value, float) and name != "trials")
            if not number or not low <= value <= high or (value == low and not closed):
                kind = "a whole number" if name == "trials" else "a number"
                bracket = "[" if closed else "("
                raise PtychonError(
                    f"refine: {name} is {value}; it must be {kind} in {bracket}{low:g}, {high:g}]"
                )

    @classmethod
    def read(cls, values: Any) -> Refine:
        """From text such as "trials=4,radius=3", or a mapping of the same.

        Raises
        ------
        PtychonError
            If it is none of these.
        """
        if isinstance(values, Refine):
            return values
        names = [f.name for f in fields(cls)]
        if isinstance(values, str):
            parts = [part.partition("=") for part in values.split(",") if part.strip()]
            values = {name.strip(): text.strip() for name, _, text in parts}
        if not isinstance(values, Mapping) or not set(values) <= set(names):
            raise PtychonError(
                f"refine is {values!r}; write some of {', '.join(names)}, such as "
                "'trials=4,radius=3'"
            )
        try:
            numbers: dict[str, Any] = {
                n: int(v) if n == "trials" else float(v) for n, v in values.items()
            }
        except (TypeError, ValueError):
            raise PtychonError(
                f"refine is {dict(values)!r}; each of them is a number, such as trials=4"
            ) from None
        return cls(**numbers)

    def stored(self) -> dict[str, Any]:
        """What is not as usual."""
        usual = asdict(Refine())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


@dataclass(frozen=True)
class Turns:
    """What is refined between the passes of one stage, when and how.

    Attributes
    ----------
    how : Refine
    when : mapping of str to After
        By names of fields of `Unknowns`.
    passes : int
        Of the stage: limits fall over them.
    seed : int
        Of the places that are tried.
    """

    how: Refine
    when: Mapping[str, After]
    passes: int
    seed: int = 0

    @classmethod
    def of(cls, update: Update, how: Refine, passes: int, seed: int) -> Turns | None:
        """For what a stage refines between its passes (see `engines.split`); None where that is
        nothing.
        """
        when = {
            name: w if isinstance(w, After) else After(min(FIRST[name], passes // 2))
            for name, w in update.items()
            if w is not False
        }
        return cls(how, when, passes, seed) if when else None

    def due(self, epoch: int) -> tuple[str, ...]:
        """What moves after pass `epoch` (from 0)."""
        return tuple(name for name, when in self.when.items() if when.moves(epoch))

    def limit(self, epoch: int) -> float:
        """The largest step of a position along an axis, px."""
        fallen = min(1.0, epoch / max(FALL * self.passes, 1))
        return self.how.limit + fallen * (self.how.least - self.how.limit)

    def radius(self, epoch: int) -> float:
        """Of the disc in which places are tried, px; 0 where none are."""
        first = self.when["positions"].passes
        part = (epoch - first) / max(TRIED * (self.passes - first), 1)
        return self.how.radius * max(0.0, 1 - part) if self.how.trials else 0.0


@dataclass(frozen=True)
class Found:
    """What of each frame, and of the background, is found so far, on the host; None where it is as
    the data say.

    Attributes
    ----------
    positions, velocity : (N, 2) float64
        Object pixels, and by how much they moved in the last turn.
    corners : (N, 2) int32
        Of the windows; they follow positions with a delay.
    log_scale, dose_velocity : (N,) float64
        Likewise, of doses.
    background : (P, Q) float64
        Counts, in the order of the amplitude.
    variations : (M, P, Q) complex64 and weights : (N, M) float32
        How the probe varies, which engines find by themselves.
    distance : (1,) float64
        How many times as long as stated, likewise.
    """

    positions: FloatArray | None = None
    velocity: FloatArray | None = None
    corners: IntArray | None = None
    log_scale: FloatArray | None = None
    dose_velocity: FloatArray | None = None
    background: FloatArray | None = None
    variations: ComplexArray | None = None
    weights: FloatArray | None = None
    distance: FloatArray | None = None

    @classmethod
    def of(cls, problem: Problem, than: Problem) -> Found:
        """What a problem has found beyond another one of the same data."""
        moved = problem.corners is not than.corners or problem.shifts is not than.shifts
        log_scale = None if problem.log_scale is None else np.asarray(problem.log_scale, float)
        dark = None if problem.background is than.background else problem.background
        return cls(
            positions=problem.positions if moved else None,
            corners=problem.corners if moved else None,
            log_scale=log_scale,
            variations=problem.variations,
            weights=problem.weights,
            distance=None if problem.longer == than.longer else np.array([problem.longer]),
            background=None if dark is None else dark[0].astype(float) - problem.read_noise**2,
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Found:
        """From what `stored` gives."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def stored(self) -> dict[str, Any]:
        """What there is, for a checkpoint."""
        return {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None
        }

    def levelled(
        self, problem: Problem, object: ComplexArray, probe: ComplexArray
    ) -> tuple[Found, ComplexArray, ComplexArray]:
        """The same without a gradient of the doses across the scan, with the object and the probe
        that have taken it, so that no frame changes.
        """
        if self.log_scale is None:
            return self, object, probe
        places = problem.positions if self.positions is None else self.positions
        state = SimpleNamespace(
            object=object, probe=probe, variations=None, positions=places, log_scale=self.log_scale
        )
        level(state, np)
        return replace(self, log_scale=state.log_scale), state.object, state.probe

    def applied(self, problem: Problem) -> Problem:
        """The problem with what was found."""
        if self.positions is not None:
            problem = problem.with_positions(
                self.positions, problem.log_scale, corners=self.corners
            )
        if self.log_scale is not None:
            problem = replace(problem, log_scale=self.log_scale.astype(REAL))
        if self.weights is not None:
            problem = replace(problem, variations=self.variations, weights=self.weights)
        if self.distance is not None:
            problem = problem.with_distance(float(self.distance[0]))
        if self.background is not None:
            problem = problem.with_background(self.background, instead=True)
        return problem


__all__ = ["FIRST", "Found", "Refine", "Turns"]
