"""A scan whose scale, rotation or shear is stated wrongly, found by trying.

For each value a few passes are made from nothing on a quarter of the frames, those around the
middle, and their R is compared. R has one basin in each of the three, some per cent or degrees
wide, so that a golden section per parameter, one after the other, finds its bottom. What is left,
and what is not affine, is for refinement: engine `ml`, or positions in turn with any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..types import FloatArray, PtychonError
from .trials import FRAMES, subset

#: Passes of a trial, least frames of one, and how often each parameter is tried.
PASSES, LEAST, TRIALS = 12, 49, 12
#: How far each is sought, and how finely: shares of 1, degrees, and shares of 1.
RANGES = {"scale": (0.1, 2e-3), "rotation": (10.0, 0.1), "shear": (0.1, 2e-3)}
#: R must fall by this share for positions to be changed at all.
GAIN = 0.01


@dataclass(frozen=True, kw_only=True)
class Affine:
    """What the positions of a scan are multiplied by, about their mean.

    Attributes
    ----------
    scale : float
        1.02 is a scan that is 2 % larger than stated.
    rotation : float
        Degrees, from x towards y.
    shear : float
        By how much x grows with y, and y with x.
    """

    scale: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        if not (0.2 <= self.scale <= 5 and abs(self.rotation) <= 180 and abs(self.shear) < 0.9):
            raise PtychonError(
                f"the affine {self} is out of range: scale from 0.2 to 5, rotation up to 180 "
                "degrees, shear below 0.9"
            )

    def __str__(self) -> str:
        return f"scale={self.scale:.5g},rotation={self.rotation:.4g},shear={self.shear:.4g}"

    @classmethod
    def parse(cls, text: str) -> Affine:
        """From a text such as "scale=1.02,rotation=-0.5".

        Raises
        ------
        PtychonError
            If it is none.
        """
        try:
            parts = dict(part.split("=") for part in text.split(",") if part.strip())
            return cls(**{name.strip(): float(value) for name, value in parts.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, PtychonError):
                raise
            raise PtychonError(
                f"the affine is {text!r}; write search, search:scale,rotation, or numbers such as "
                "scale=1.02,rotation=-0.5,shear=0.01"
            ) from None

    @property
    def matrix(self) -> FloatArray:
        """(2, 2), for columns (y, x)."""
        a = math.radians(self.rotation)
        turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
        return np.asarray(self.scale * turn @ np.array([[1, self.shear], [self.shear, 1]]))

    def moved(self, positions: FloatArray) -> FloatArray:
        """Positions (N, 2) after it."""
        middle = positions.mean(axis=0)
        return np.asarray(middle + (positions - middle) @ self.matrix.T)

    def apply(self, data: Dataset) -> Dataset:
        """The data set with such positions."""
        if self == Affine():
            return data
        positions = self.moved(np.asarray(data.positions, float))
        notes = {**data.notes, "affine": str(self)}
        return replace(data, positions=positions, object_shape=None, notes=notes)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Attributes
    ----------
    affine : Affine
        The best; none where R hardly falls.
    before, after : float
        R of the trials with the positions as they are stated, and with the best ones.
    frames, trials : int
    seconds : float
    """

    affine: Affine
    before: float
    after: float
    frames: int
    trials: int
    seconds: float

    def sentence(self) -> str:
        """For people."""
        fall = f"R of {PASSES} passes on {self.frames} frames {self.before:.4f} before"
        if self.affine == Affine():
            return f"as stated ({fall}, {self.after:.4f} at best)"
        return f"{self.affine} ({fall}, {self.after:.4f} after; {self.seconds:.0f} s)"

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def asked(text: str | None) -> tuple[str, ...]:
    """What "search" or "search:scale,rotation" asks for; nothing for numbers.

    Raises
    ------
    PtychonError
        For what cannot be sought.
    """
    word, _, names = (text or "").partition(":")
    if word.strip() != "search":
        return ()
    found = tuple(name.strip() for name in names.split(",") if name.strip()) or tuple(RANGES)
    for name in found:
        if name not in RANGES:
            raise PtychonError(f"{name!r} cannot be sought; these can: {', '.join(RANGES)}")
    return found


def search(
    data: Dataset,
    names: Sequence[str] = tuple(RANGES),
    *,
    backend: Any = "numpy",
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Search:
    """Find scale, rotation and shear of a scan.

    Parameters
    ----------
    data : Dataset
    names : sequence of str
        Of "scale", "rotation" and "shear", sought in this order.
    backend : str or Backend
    seed : int
    say : callable, optional
        Told what is going on, after each trial.

    Raises
    ------
    PtychonError
        If there are too few frames, or no trial leads to a reconstruction.
    """
    from scipy.optimize import minimize_scalar

    from ..backends import get_backend
    from ..model.problem import Problem
    from ..run.guess import initial_probe

    start = time.perf_counter()
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    count = min(FRAMES, max(LEAST, len(data) // 4))
    part = subset(data, count, seed)[0]
    probe = part.probe
    if probe is None:
        probe = initial_probe(Problem.from_dataset(part), chosen)
    tried: dict[Affine, float] = {}

    def measure(affine: Affine) -> float:
        if affine not in tried:
            tried[affine] = _trial(affine.apply(part), probe, chosen, seed)
            if say is not None:
                say(f"{affine}: R {tried[affine]:.4f}")
        return tried[affine]

    stated = Affine()
    best, before = stated, measure(stated)
    for name in names:
        wide, fine = RANGES[name]
        middle, now = getattr(best, name), best

        def at(value: float, name: str = name, now: Affine = now) -> float:
            return measure(replace(now, **{name: float(f"{value:.6g}")}))

        minimize_scalar(
            at,
            bounds=(middle - wide, middle + wide),
            method="bounded",
            options={"xatol": fine, "maxiter": TRIALS},
        )
        best = min(tried, key=lambda affine: tried[affine])
    if not math.isfinite(tried[best]):
        raise PtychonError(
            "no scale or rotation led to a reconstruction; look at frames and positions first"
        )
    after = tried[best]
    if after > (1 - GAIN) * before:
        best = stated
    return Search(
        affine=best,
        before=before,
        after=after,
        frames=len(part),
        trials=len(tried),
        seconds=time.perf_counter() - start,
    )


def _trial(data: Dataset, probe: Any, backend: Any, seed: int) -> float:
    """R after a few passes from nothing; infinite where they diverge."""
    from ..run.recipe import Stage
    from ..run.reconstruct import reconstruct

    try:
        found = reconstruct(
            data,
            Stage("rpie", PASSES),
            backend=backend,
            probe=probe,
            seed=seed,
            say=None,
            judge=False,
        )
    except PtychonError:
        return math.inf
    return found.final_error


__all__ = ["Affine", "Search", "asked", "search"]
