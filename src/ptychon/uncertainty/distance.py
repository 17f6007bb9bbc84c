r"""The distance to the detector among the unknowns of error bars: one number, which trades with the
focus of object and probe, so that a few rough steps leave it behind.

With e the distance, c = H^-1 1_e the column of the inverse that belongs to it and g the gradient of
-log p,

    Var e = c_e,     what is left of its step = c.g,     x <- x - c (c.g)/c_e

moves the distance by what is left, and all else as the data want it to follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .curvature import Curvature

if TYPE_CHECKING:
    from .optimum import Work

#: Tolerance of the linear system; its iterations, in those of others; moves at most, and the share
#: of the bar below which none is made.
FINE, TIMES, MOVES, ENOUGH = 1e-3, 2, 2, 0.1


def focused(work: Work, point: Curvature, moves: int = MOVES) -> tuple[Curvature, float | None]:
    """The point where the distance has no step left, while that leads downhill, and the variance of
    the distance there; itself and None where the distance is not free.
    """
    if "distance" not in work.free:
        return point, None
    unit = point.x.zeros(work.free)
    unit.distance = unit.distance + 1
    for number in range(moves + 1):
        c = point.solved(unit, FINE, TIMES * work.iterations).x
        variance = float(c.distance[0])
        left = float(point.gradient().dot(c))
        if number == moves or work.late() or abs(left) < ENOUGH * variance**0.5:
            break
        x = point.x.axpy(-left / variance, c)
        if not point.energy(x) < point.energy():
            break
        point = work.at(x, point.noise, point.spread)
    return point, variance
