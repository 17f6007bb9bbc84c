"""Several systems solved together: against the dense inverse, and what one gains from another."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.model.block_solve import basis, solve_together, stacked
from ptychon.model.solve import solve
from ptychon.model.unknowns import Unknowns

SIZE, SOFT = 60, 5
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def soft():
    """An operator on real and imaginary parts that is soft in five directions, and eight right-hand
    sides.
    """
    turn = np.linalg.qr(RNG.standard_normal((2 * SIZE, 2 * SIZE)))[0]
    values = np.concatenate([np.logspace(-4, -3, SOFT), RNG.uniform(0.5, 1.5, 2 * SIZE - SOFT)])
    matrix = (turn * values) @ turn.T
    right = [made(RNG.standard_normal(2 * SIZE)) for _ in range(8)]
    return matrix, right


def made(row):
    return Unknowns(object=row.astype(np.float32).view(np.complex64).reshape(1, 6, 10))


def operator(matrix):
    return lambda d: made(matrix @ stacked([d])[0])


def same(r):
    return r


def test_solutions_are_those_of_the_dense_inverse(soft):
    matrix, right = soft
    found, products = solve_together(operator(matrix), right, same, 40)
    exact = np.linalg.solve(matrix, stacked(right).T).T
    assert np.linalg.norm(stacked(found) - exact) < 1e-2 * np.linalg.norm(exact)
    assert products <= 40 * len(right)


def test_soft_directions_are_found_sooner_together(soft):
    """The error after as many products as each system would get by itself."""
    matrix, right = soft
    exact = np.linalg.solve(matrix, stacked(right).T).T
    together = stacked(solve_together(operator(matrix), right, same, 10)[0])
    alone = stacked([solve(operator(matrix), b, same, None, 10).x for b in right])
    error = [np.linalg.norm(x - exact) / np.linalg.norm(exact) for x in (together, alone)]
    assert error[0] < 0.05 < 0.5 < error[1]


def test_a_start_is_gone_on_from_and_the_same_right_side_twice_does_no_harm(soft):
    matrix, right = soft
    first, _ = solve_together(operator(matrix), right, same, 4)
    both, _ = solve_together(operator(matrix), [*right, right[0]], same, 12, [*first, first[0]])
    exact = np.linalg.solve(matrix, stacked(right).T).T
    assert np.linalg.norm(stacked(both[:-1]) - exact) < 0.05 * np.linalg.norm(exact)
    assert np.allclose(stacked(both[:1]), stacked(both[-1:]), rtol=1e-2, atol=1e-1)


def test_alike_rows_leave_the_basis():
    rows = RNG.standard_normal((3, 20)).astype(np.float32)
    assert len(basis(np.stack([*rows, rows[0] + 1e-7 * rows[1]]))) == 3
