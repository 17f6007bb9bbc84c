"""Orbits of equal data, along which no step of error bars moves.

No data tell the scale between object and probe, nor, with free doses, these and their gradients.
The density of such an orbit has no deepest point on it, but -log posterior as a function has: the
prior pulls along it, and one that is learned of the object follows it, turn by turn, to 0.15 of its
power in eight. With Q the directions (n of them), M what the data tell of object and probe, and g
the gradient, a step is Newton's under a constraint:

    d = H^-1 (g - M Q a),   Q^T M d = 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..backends.base import Backend
from ..model.pulls import reals
from ..model.unknowns import Unknowns
from ..types import FloatArray

if TYPE_CHECKING:
    from .curvature import Curvature


@dataclass(frozen=True)
class Orbit:
    """Directions along which all data are equal, n of them along a first axis.

    Attributes
    ----------
    directions : Unknowns
    heavy : Unknowns
        M Q: the same times what the data tell of object, probe and variations.
    backend : Backend
    """

    directions: Unknowns
    heavy: Unknowns
    backend: Backend

    def __len__(self) -> int:
        return len(self.directions.object)

    def along(self, d: Unknowns) -> FloatArray:
        """Heavy times a step, (n,)."""
        found = sum(reals(h) @ reals(getattr(d, n)[None])[0] for n, h in self.heavy.each())
        return np.asarray(self.backend.to_host(found), np.float64)

    def direction(self, i: int) -> Unknowns:
        """One of them."""
        return self.directions.map(lambda rows: rows[i])

    def row(self, i: int) -> Unknowns:
        """What holds a step from moving along one of them."""
        return self.heavy.map(lambda rows: rows[i])

    def without(self, d: Unknowns, answers: Sequence[Unknowns]) -> Unknowns:
        """A Newton step H^-1 g under that constraint, d being the one without, and answers H^-1
        heavy: d less the combination of these that moves along them as d does.
        """
        matrix = np.array([self.along(h) for h in answers]).T
        for factor, h in zip(np.linalg.solve(matrix, self.along(d)), answers, strict=True):
            d = d.axpy(-float(factor), h)
        return d


def answers(point: Curvature, tolerance: float, iterations: int) -> list[Unknowns]:
    """H^-1 M Q at a point, a change for each direction."""
    assert point.equal is not None
    nothing, orbit = point.x.zeros(point.update), point.equal
    found = []
    for i in range(len(orbit)):
        row, near = (nothing.axpy(1, part(i)) for part in (orbit.row, orbit.direction))
        found.append(point.solved(row, tolerance, iterations, near).x)
    return found
