"""The noise has one owner: nobody else writes its constants or draws its counts."""

from __future__ import annotations

import ast

from _sources import ROOT, owners
from ptychon.kernels import likelihoods
from ptychon.model.noise import ANSCOMBE, COUNT_VARIANCE

#: Who writes Anscombe's constant: kernels know no model, and the noise takes it from them.
CONSTANT = {"kernels/likelihoods.py"}
#: Who draws counts.
DRAWS = {"model/noise/record.py"}


def writes_the_constant(node):
    if isinstance(node, ast.Constant):
        return node.value == 0.375
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and all(isinstance(part, ast.Constant) for part in (node.left, node.right))
        and (node.left.value, node.right.value) == (3, 8)
    )


def draws_counts(node):
    """`x.poisson(...)` with numbers of a generator, not the distribution of SciPy or a kernel."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "poisson"
    )


def test_one_file_writes_the_constant():
    assert owners(writes_the_constant) == CONSTANT
    assert ANSCOMBE is likelihoods.ANSCOMBE
    assert COUNT_VARIANCE is likelihoods.ROOT_VARIANCE


def test_compiled_code_gets_it_as_a_constant():
    sources = [p for end in ("*.cu", "*.cuh", "*.h") for p in ROOT.rglob(end)]
    assert sources
    assert [p.name for p in sources if "0.375" in p.read_text("utf-8")] == []


def test_one_file_draws_counts():
    assert owners(draws_counts) == DRAWS


def test_a_second_owner_is_found(tmp_path):
    (tmp_path / "a.py").write_text("ROOT = 3.0 / 8\nn = rng.poisson(m)\n")
    (tmp_path / "b.py").write_text("ROOT = 0.375\n")
    (tmp_path / "c.py").write_text("x = 3 / 7\nd = poisson.sf(n, m)\n")
    assert owners(writes_the_constant, tmp_path) == {"a.py", "b.py"}
    assert owners(draws_counts, tmp_path) == {"a.py"}
