"""The forward model has one owner: nobody else cuts windows, moves the probe by the fraction of a
pixel or takes waves to the detector. Engines, checks, error bars, planning and simulation ask
`ptychon.model`.
"""

from __future__ import annotations

import ast

import pytest

from _sources import owners

#: Whose matter it is: the model, the kernels it is made of, and passes compiled for an engine,
#: which other tests hold to the engine.
OWNERS = ("model", "kernels", "sweeps")
#: The exact information of small problems, which the others are judged by, is not to share their
#: faults.
JUDGES = {"uncertainty/bound.py"}
#: What the model is made of: kernels, and the two ways of a propagator.
STEPS = {"gather", "scatter_add", "shift", "shift_ramps"}
WAYS = {"forward", "backward"}
LAWS = {"kernels", "k", "reference", "kernel"}


def word(node):
    """The last name of `a.b.c`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def takes_a_step(node):
    """`kernels.gather`, or `gather` imported from kernels."""
    if isinstance(node, ast.ImportFrom):
        return "kernels" in (node.module or "") and any(a.name in STEPS for a in node.names)
    return isinstance(node, ast.Attribute) and node.attr in STEPS and word(node.value) in LAWS


def goes_to_the_detector(node):
    """`propagator.forward` and what hides the same: `of(...).to(...).forward`."""
    if not (isinstance(node, ast.Attribute) and node.attr in WAYS):
        return False
    return any("propagat" in word(part) for part in ast.walk(node.value))


def multiplies_by_a_window(node):
    """`probe * object[y : y + p, x : x + q]`."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return False
    return any(
        isinstance(side, ast.Subscript)
        and word(side.value) in {"object", "O"}
        and isinstance(side.slice, ast.Tuple)
        and all(isinstance(axis, ast.Slice) for axis in side.slice.elts)
        for side in (node.left, node.right)
    )


SIGNS = (takes_a_step, goes_to_the_detector, multiplies_by_a_window)


@pytest.mark.parametrize("sign", SIGNS)
def test_only_the_model_writes_the_model(sign):
    others = {path for path in owners(sign) if path.split("/")[0] not in OWNERS}
    assert others - JUDGES == set()


def test_the_model_has_one_place_for_each_step():
    """Within the model, too: products in `specimen`, the ways in `propagators`, windows and shifts
    in the two modules that know which frames they are of.
    """
    inside = {path for path in owners(takes_a_step) if path.startswith("model/")}
    assert inside == {
        "model/batch.py",
        "model/diagonal.py",  # which adds light up
        "model/marginal_diagonal.py",  # its diagonal, and the images of what is eliminated
        "model/propagators.py",  # the ramps of a near field
        "model/specimen.py",
    }
    assert {p for p in owners(goes_to_the_detector) if p.startswith("model/")} == {"model/batch.py"}


ENGINE = """
def step(state, problem, batch, backend):
    k, propagate = backend.kernels, problem.propagator
    wave = k.shift(state.probe, problem.shifts) * k.gather(state.object, problem.corners)
    return propagate.forward(wave, None, backend)
"""


def test_a_second_owner_is_found(tmp_path):
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "check.py").write_text("from ..kernels.reference import gather, shift\n")
    (tmp_path / "other.py").write_text("wave = problem.propagator.to(backend).forward(psi, i, b)\n")
    (tmp_path / "plan.py").write_text("psi = probe * object[y : y + p, x : x + q]\n")
    (tmp_path / "fine.py").write_text(
        "from .kernels.reference import abs2\n"
        "moved = scipy.ndimage.shift(image, s)\n"
        "wave = frames.onward(psi)\n"
        "row = object[3, 4:5]\n"
    )
    assert owners(takes_a_step, tmp_path) == {"engine.py", "check.py"}
    assert owners(goes_to_the_detector, tmp_path) == {"engine.py", "other.py"}
    assert owners(multiplies_by_a_window, tmp_path) == {"plan.py"}
