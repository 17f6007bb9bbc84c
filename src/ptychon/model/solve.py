"""H x = b by conjugate gradients, preconditioned (Hestenes & Stiefel, J. Res. NBS 49, 409 (1952)):
the one solver of engines and error bars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import Array
from .unknowns import Unknowns

#: Denominators are at least this. They are forms of -log posterior, numbers without a unit.
LEAST = 1e-30

Operator = Callable[[Unknowns], Unknowns]


@dataclass(frozen=True)
class Solved:
    """Solution, iterations, and the residual left, relative to the right-hand side in the
    preconditioner's norm: 0-d where no tolerance was given.
    """

    x: Unknowns
    iterations: int
    residual: Any


def solve(
    operator: Operator,
    b: Unknowns,
    preconditioner: Unknowns | Operator,
    tolerance: float | None = 1e-2,
    iterations: int = 300,
    start: Unknowns | None = None,
) -> Solved:
    """Solve H x = b for a symmetric positive H.

    Parameters
    ----------
    operator : callable
        H.
    b : Unknowns
        Right-hand side.
    preconditioner : Unknowns or callable
        About the diagonal D of H, or what is like H^-1 and is easily applied.
    tolerance : float or None
        Of the residual, |r|_{1/D}/|b|_{1/D}. None takes all the iterations and looks at no number,
        so that a device never waits.
    iterations : int
        At most. The result's `residual` is above `tolerance` where they did not suffice.
    start : Unknowns, optional
        Default 0.
    """
    precondition = _division(preconditioner)
    real = "float32" if b.precision == "single" else "float64"
    x = b.zeros() if start is None else start
    r = b if start is None else b.axpy(-1, operator(start))
    z = precondition(r)
    p, rz = z, r.dot(z)
    first, done = rz, 0
    while done < iterations and (tolerance is None or rz > tolerance**2 * first):
        Hp = operator(p)
        length = _quotient(rz, p.dot(Hp), real)
        x, r = x.axpy(length, p), r.axpy(-length, Hp)
        z = precondition(r)
        old, rz = rz, r.dot(z)
        p = z.axpy(_quotient(rz, old, real), p)
        done += 1
    if tolerance is None:
        return Solved(x, done, (rz / _floored(first)) ** 0.5)
    return Solved(x, done, float(rz / first) ** 0.5 if first > 0 else 0.0)


def _division(preconditioner: Unknowns | Operator) -> Operator:
    """By a diagonal; what is an operator already stays."""
    if not isinstance(preconditioner, Unknowns):
        return preconditioner
    inverse = preconditioner.map(lambda array: 1 / array)
    return lambda r: r.times(inverse)


def _floored(number: Array) -> Array:
    return number.clip(LEAST, None)


def _quotient(above: Array, below: Array, real: str) -> Array:
    """As a 0-d array of the precision of the unknowns, so that it does not widen them."""
    return np.divide(above, _floored(below)).astype(real)
