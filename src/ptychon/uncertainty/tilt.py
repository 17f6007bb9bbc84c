r"""The mean of a posterior whose waves are products of unknowns.

A Gaussian N(x, C) is nearest to a posterior where the gradient of -log posterior is 0 on average
over the Gaussian, not where it is 0 in the middle (Opper & Archambeau, Neural Comput. 21, 786
(2009)). Averages over uncertain waves (see `curvature`) hold what follows from waves that move with
their unknowns in proportion. But a wave is a product, F[(P + p)(O + o)]: its mean has F[E po], and
how far it moves depends on where object and probe are. With z the waves, T = dz/dx and A their
information at x,

    <gradient> = gradient + c,      c = E T(x + d)* A ( z(x + d) - z(x) ),     d ~ N(0, C)

from draws d, each taken with both signs. It is the volume of the posterior that pulls: where the
data hold object and probe loosely together, as the light of a second mode and the contrast of fine
details, the deepest point lies to one side of what is probable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model.unknowns import Unknowns

if TYPE_CHECKING:
    from .curvature import Curvature


@dataclass(frozen=True)
class Tilt:
    """c, as a part of -log posterior that is linear in the unknowns.

    Attributes
    ----------
    slope : Unknowns
    at : Unknowns
        Where it is taken to be 0.
    """

    slope: Unknowns
    at: Unknowns

    @classmethod
    def of(cls, point: Curvature, draws: Sequence[Unknowns]) -> Tilt:
        """At a point whose gauge is held, from draws of the error about it."""
        assert point.untold is not None
        total = point.x.zeros(point.update)
        for d in draws:
            told = point.untold.told(d)
            for sign in (1.0, -1.0):
                total = total.axpy(1, point.H.pulled(told.times(sign)))
        return cls(total.times(0.5 / len(draws)), point.x.only(point.update))

    def energy(self, x: Unknowns) -> float:
        """What it adds to -log posterior of some unknowns."""
        return float(self.slope.dot(x.only(self.slope.names).axpy(-1, self.at)))
