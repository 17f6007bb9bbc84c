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
        Of the residual, |r|_{1/D}/|b|_{1/D}, whatever the start. None takes all the iterations and
        looks at no number, so that a device never waits.
    iterations : int
        At most. The result's `residual` is above `tolerance` where they did not suffice.
    start : Unknowns, optional
        Default 0.
    """
    precondition = _division(preconditioner, b)
    real = "float32" if b.precision == "single" else "float64"
    # arrays of its own, changed in place: on small scans the steps between two products tell
    x = b.zeros() if start is None else start.copy()
    r = b.copy() if start is None else b.axpy(-1, operator(start))
    z = precondition(r)
    p, rz = z.copy(), r.dot(z)
    anew = start is None or tolerance is None
    first, done = rz if anew else b.dot(precondition(b)), 0
    while done < iterations and (tolerance is None or rz > tolerance**2 * first):
        Hp = operator(p)
        length = _quotient(rz, p.dot(Hp), real)
        x.add(length, p)
        r.add(-length, Hp)
        z = precondition(r)
        old, rz = rz, r.dot(z)
        p.turn(_quotient(rz, old, real), z)
        done += 1
    if tolerance is None:
        return Solved(x, done, (rz / _floored(first)) ** 0.5)
    return Solved(x, done, float(rz / first) ** 0.5 if first > 0 else 0.0)


def _division(preconditioner: Unknowns | Operator, b: Unknowns) -> Operator:
    """By a diagonal, in the types of b, so that none is converted in a product; what is an operator
    already stays.
    """
    if not isinstance(preconditioner, Unknowns):
        return preconditioner
    own = {name: array.dtype for name, array in b.each()}
    inverse = Unknowns(
        **{name: (1 / d).astype(own[name]) for name, d in preconditioner.each() if name in own}
    )
    return lambda r: r.times(inverse)


def _floored(number: Array) -> Array:
    return np.maximum(number, LEAST)


def _quotient(above: Array, below: Array, real: str) -> Array:
    """As a 0-d array of the precision of the unknowns, so that it does not widen them."""
    return np.divide(above, _floored(below)).astype(real)
