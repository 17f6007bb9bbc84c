r"""Priors of the object for Ptycho-EP: messages CN(h/g, 1/g) per pixel, in natural parameters (g,
h).

Gaussian         O(r) ~ CN(0, S):  g = 1/S, h = 0, for ever.
Bernoulli-Gauss  O(r) ~ (1 - rho) delta_0 + rho CN(0, S): the message is the moment-matched belief
divided by what came in,
                 g = 1/var - 1/V, h = mean/var - m/V (Vila & Schniter, IEEE Trans. Signal Process.
                 61, 4658 (2013)). Where the division gives no positive precision, g is a small
                 fraction of 1/V and h keeps the matched mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..types import Array

#: Least precision of a prior message relative to the incoming one, and least variance of a belief
#: relative to that of a pixel known not to be zero.
FLOOR = 1e-4


@dataclass(frozen=True)
class Gaussian:
    """CN(0, variance)."""

    variance: Any = 1.0

    def message(self, shape: tuple[int, int], xp: Any) -> tuple[Array, Array]:
        """Precision (H, W) float32 and precision times mean (H, W) complex64."""
        return xp.full(shape, 1 / self.variance, "float32"), xp.zeros(shape, "complex64")


@dataclass(frozen=True)
class BernoulliGauss:
    """(1 - density) delta_0 + density CN(0, variance)."""

    density: float = 0.1
    variance: float = 1.0

    def message(self, precision: Array, natural: Array, k: Any, xp: Any) -> tuple[Array, Array]:
        """New prior message for what the data say: incoming `precision` (H, W) > 0 and `natural` =
        precision * mean.
        """
        V = 1 / precision
        m = natural * V
        mean, variance, _ = k.bernoulli_gauss(m, V, self.density, self.variance)
        variance = xp.maximum(variance, FLOOR * V * self.variance / (V + self.variance))
        g = xp.maximum(1 / variance - precision, V.dtype.type(FLOOR) * precision)
        return g, (precision + g) * mean - natural
