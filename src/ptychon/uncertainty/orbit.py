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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..backends.base import Backend
from ..model.pulls import reals
from ..model.unknowns import Unknowns
from ..types import REAL, FloatArray

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

    def rows(self, stiffness: float) -> Unknowns:
        """G along a first axis of each field with stiffness G^T G = M Q (Q^T M Q)^-1 Q^T M, for
        directions that are independent in real and imaginary parts.
        """
        pairs = [(reals(q), reals(getattr(self.heavy, n))) for n, q in self.directions.each()]
        weight = self.backend.to_host(sum(q @ h.T for q, h in pairs))
        lower = np.linalg.cholesky(weight.astype(np.float64))
        mixed = self.backend.asarray((np.linalg.inv(lower) * stiffness**-0.5).astype(REAL))
        return self.heavy.map(lambda h: (mixed @ reals(h)).view(h.dtype).reshape(h.shape))

    def told(self, d: Unknowns) -> Unknowns:
        """A change less what it has of the directions, so that Q^T M d = 0."""
        return self.without(d, [self.direction(i) for i in range(len(self))])

    def without(self, d: Unknowns, answers: Sequence[Unknowns]) -> Unknowns:
        """A Newton step H^-1 g under that constraint, d being the one without, and answers H^-1
        heavy: d less the combination of these that moves along them as d does.
        """
        for factor, h in zip(self.pull(d, answers), answers, strict=True):
            d = d.axpy(-float(factor), h)
        return d

    def pull(self, d: Unknowns, answers: Sequence[Unknowns]) -> FloatArray:
        """a of the constraint for H^-1 g = d, (n,)."""
        matrix = np.array([self.along(h) for h in answers]).T
        return np.asarray(np.linalg.solve(matrix, self.along(d)))

    def less(self, gradient: Unknowns, pull: FloatArray) -> Unknowns:
        """g - M Q a, which is nothing at an optimum under the constraint, where g is not."""
        for i, a in enumerate(pull):
            gradient = gradient.axpy(-float(a), self.row(i))
        return gradient


@dataclass(frozen=True)
class Pull:
    """a, which at an optimum under the constraint is all that there is of the gradient, M Q a; it
    changes little from step to step.

    Attributes
    ----------
    factors : (n,) float64
    """

    factors: FloatArray = field(default_factory=lambda: np.zeros(0))

    def more(self, factors: FloatArray) -> Pull:
        """With what a step has shown."""
        return Pull(self.factors + factors if len(self.factors) else factors)

    def left(self, point: Curvature, gradient: Unknowns) -> Unknowns:
        """A gradient less that."""
        if point.equal is None or not len(self.factors):
            return gradient
        return point.equal.less(gradient, self.factors)


def answers(
    point: Curvature, tolerance: float, iterations: int, before: Sequence[Unknowns] = ()
) -> list[Unknowns]:
    """H^-1 M Q at a point, a change for each direction; begun at those of a point before."""
    assert point.equal is not None
    nothing, orbit = point.x.zeros(point.update), point.equal
    found = []
    for i in range(len(orbit)):
        row, near = (nothing.axpy(1, part(i)) for part in (orbit.row, orbit.direction))
        begin = before[i] if before else near
        found.append(point.solved(row, tolerance, iterations, begin).x)
    return found
