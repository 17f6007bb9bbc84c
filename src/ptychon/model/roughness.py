r"""How rough an object is, as a prior: smoothness, and total variation, which leaves edges.

    -log p(O) = sum_r s/2 |grad O|^2 + v sqrt(|grad O|^2 + e^2)

grad are differences to the next pixel along y and x, 0 at the rim. About an object O_0 it lies
below, and touches, the quadratic form

    1/2 sum_r w_r |grad O|^2 + const,    w_r = s + v/sqrt(|grad O_0|^2 + e^2)

whose product grad^T w grad d a step of Gauss and Newton takes exactly (iteratively reweighted least
squares: Holland & Welsch, Commun. Stat. A 6, 813 (1977); Vogel & Oman, SIAM J. Sci. Comput. 17, 227
(1996), for total variation). So a step never raises the prior where that form falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..kernels.reference import namespace
from ..types import Array


@dataclass(frozen=True)
class Roughness:
    """The prior, its form about an object, and products with that.

    Attributes
    ----------
    smooth, vary : float
        s and v, counts (-log p) for each |O|^2 and |O|.
    edge : float
        e, in units of |O|: differences below it are smoothed, those above are edges.
    about : (..., H, W) complex
        O_0.
    """

    smooth: float
    vary: float
    edge: float
    about: Array

    def cost(self, O: Array) -> Any:
        """-log p but for a constant, 0-d float64."""
        xp, g = namespace(O), steepness(O).astype("float64")
        own = xp.sqrt(g + self.edge**2) - self.edge
        return (0.5 * self.smooth * g + self.vary * own).sum()

    @cached_property
    def weight(self) -> Array:
        """w_r about O_0."""
        xp = namespace(self.about)
        root = xp.sqrt(steepness(self.about) + self.edge**2)
        return (self.smooth + self.vary / root).astype("float32")

    def __call__(self, d: Array) -> Array:
        """grad^T w grad d."""
        weight = self.weight
        dy, dx = gradient(d)
        return -divergence(weight * dy, weight * dx)

    def drawn(self, random: Array) -> Array:
        """A draw of covariance grad^T w grad, from CN(0, 1) numbers (2, ..., H, W) of each real
        part.
        """
        root = namespace(self.about).sqrt(self.weight)
        return -divergence(root * random[0], root * random[1])

    def diagonal(self) -> Array:
        """Of that product."""
        w = self.weight
        out = w * 0
        for axis in (-2, -1):
            low, high = _halves(axis)
            out[low] += w[low]
            out[high] += w[low]
        return out


def steepness(O: Array) -> Array:
    """|grad O|^2 of each pixel."""
    dy, dx = gradient(O)
    return abs(dy) ** 2 + abs(dx) ** 2


def gradient(u: Array) -> tuple[Array, Array]:
    """Differences to the next pixel along y and x, 0 at the rim."""
    xp, found = namespace(u), []
    for axis in (-2, -1):
        low, high = _halves(axis)
        step = xp.zeros_like(u)
        step[low] = u[high] - u[low]
        found.append(step)
    return found[0], found[1]


def divergence(py: Array, px: Array) -> Array:
    """Minus the adjoint of `gradient`."""
    out = namespace(py).zeros_like(py)
    for axis, p in ((-2, py), (-1, px)):
        low, high = _halves(axis)
        out[low] += p[low]
        out[high] -= p[low]
    return out


def _halves(axis: int) -> tuple[Any, Any]:
    """All but the last, and all but the first, along an axis from the end."""
    rest = (slice(None),) * (-1 - axis)
    return (..., slice(None, -1), *rest), (..., slice(1, None), *rest)


__all__ = ["Roughness", "divergence", "gradient", "steepness"]
