"""H x = b by conjugate gradients, preconditioned with the diagonal (Hestenes & Stiefel, J. Res. NBS
49, 409 (1952)).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import REAL, Array
from .curvature import Curvature


@dataclass(frozen=True)
class Solved:
    """Solution (flat), iterations, and the residual left, relative to b, both measured with the
    preconditioner.
    """

    x: Array
    iterations: int
    residual: float


def solve(curvature: Curvature, b: Array, tolerance: float = 1e-2, iterations: int = 300) -> Solved:
    """Solve H x = b from x = 0.

    Parameters
    ----------
    curvature : Curvature
    b : flat complex64
    tolerance : float
        Of the residual, |r|_{1/D}/|b|_{1/D} with the diagonal D.
    iterations : int
        At most.

    Returns
    -------
    Solved
        Its `residual` is above `tolerance` where the iterations did not suffice.
    """
    inverse, dot = 1 / curvature.diagonal, curvature.dot
    x, r = b * REAL.type(0), b
    z = inverse * r
    p, rz = z, dot(r, z)
    first, done = rz, 0
    while done < iterations and rz > tolerance**2 * first:
        Hp = curvature.product(p)
        step = rz / dot(p, Hp)
        x, r = x + REAL.type(step) * p, r - REAL.type(step) * Hp
        z = inverse * r
        old, rz = rz, dot(r, z)
        p = z + REAL.type(rz / old) * p
        done += 1
    return Solved(x, done, (rz / first) ** 0.5 if first > 0 else 0.0)
