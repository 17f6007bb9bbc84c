r"""H X = B for several right-hand sides by block conjugate gradients (O'Leary, Linear Algebra Appl.
29, 293 (1980)), preconditioned by M:

    P   <- orthonormal basis of span(M R + P beta)
    X   <- X + P a,     R <- R - H P a,     a = (P* H P)^-1 P* R
    beta = -(P* H P)^-1 (H P)* M R

All s systems search in the space of all s residuals, so that directions in which H is soft, which
a few right-hand sides have in common, are found s at a time. A step costs s products, as s systems
by themselves do. Residuals that have become alike leave the basis (Ji & Li, BIT 57, 379 (2017)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..kernels.reference import namespace
from ..types import REAL, Array
from .solve import Operator
from .unknowns import Unknowns

#: Share of a direction that may lie in those of the others, squared, before it is left out.
ALIKE = 1e-6


def solve_together(
    operator: Operator,
    right: Sequence[Unknowns],
    precondition: Operator,
    iterations: int,
    start: Sequence[Unknowns] | None = None,
    enough: Callable[[int, list[Unknowns]], bool] | None = None,
) -> tuple[list[Unknowns], int]:
    """Solve H x = b for each of several b, H symmetric and positive.

    Parameters
    ----------
    operator, precondition : callable
        H, and what is like its inverse.
    right : sequence of Unknowns
        Complex fields in single precision.
    iterations : int
        At most; each costs a product with H for each right-hand side.
    start : sequence of Unknowns, optional
        Default 0.
    enough : callable, optional
        Told the iterations done and the solutions after each; True ends.

    Returns
    -------
    (list of Unknowns, int)
        Solutions, and the products that they took.
    """
    like = right[0]

    def applied(function: Operator, rows: Array) -> Array:
        return stacked([function(record(row, like)) for row in rows])

    R = stacked(right)
    products = 0
    if start is None:
        X = 0 * R
    else:
        X = stacked(start)
        R = R - applied(operator, X)
        products += len(X)
    P = basis(applied(precondition, R))
    for done in range(1, iterations + 1):
        if not len(P):
            break
        HP = applied(operator, P)
        products += len(P)
        form = inner(P, HP)
        form = (form + form.T) / 2
        length = np.linalg.solve(form, inner(P, R)).T.astype(REAL)
        X, R = X + _times(length, P), R - _times(length, HP)
        if enough is not None and enough(done, [record(x, like) for x in X]):
            break
        Z = applied(precondition, R)
        P = basis(Z - _times(np.linalg.solve(form, inner(HP, Z)).T.astype(REAL), P))
    return [record(x, like) for x in X], products


def basis(rows: Array) -> Array:
    """Orthonormal rows with the same span, but for what is hardly more than rounding."""
    gram = inner(rows, rows)
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    values, vectors = np.linalg.eigh(gram / np.outer(size, size))
    kept = (values > ALIKE) & (values > 0)
    turn = (vectors[:, kept] / np.sqrt(values[kept])).T / size
    return _times(turn.astype(REAL), rows)


def inner(a: Array, b: Array) -> Any:
    """a b^T on the host, float64."""
    found = a @ b.T
    return np.asarray(found.get() if hasattr(found, "get") else found, np.float64)


def _times(small: Any, rows: Array) -> Array:
    return namespace(rows).asarray(small) @ rows


def stacked(records: Sequence[Unknowns]) -> Array:
    """Real numbers of each record in a row, (s, n) float32."""
    xp = namespace(next(records[0].each())[1])
    return xp.stack(
        [xp.concatenate([a.reshape(-1).view(REAL) for _, a in u.each()]) for u in records]
    )


def record(row: Array, like: Unknowns) -> Unknowns:
    """The record of such a row, without a copy."""
    found, first = {}, 0
    for name, array in like.each():
        part = row[first : first + 2 * array.size]
        found[name] = part.view(array.dtype).reshape(array.shape)
        first += 2 * array.size
    return Unknowns(**found)
