"""docs/model.md: its table is that of the code, its programs run, and its new part passes the tests
it inherits.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from _problems import (
    backward64,
    distance,
    forward64,
    frame_shift,
    free_space,
    make_case,
    shift64,
    window,
)
from ptychon import PtychonError, error_bars, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import registry
from ptychon.metrics.residual import residual
from ptychon.model.forward import Model
from ptychon.model.unknowns import declared
from ptychon.testing import DetectorTests, EngineTests
from ptychon.testing.scans import small_scan

PAGE = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
USE, PASS, ENGINE, PART, RUN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_table_has_every_unknown_with_its_shape():
    rows = re.findall(r"^\| `(\w+)` \| \((.*?)\) \| (yes|no) \|", PAGE, re.MULTILINE)
    assert rows == [
        (n, ", ".join(of.letters), "yes" if of.per_frame else "no") for n, of in declared().items()
    ]


def test_its_lines_run():
    case = make_case(subpixel=True)
    found = {"problem": case.problem, "object": case.object, "probe": case.probe}
    exec(compile(USE, "use", "exec", dont_inherit=True), found)
    assert isinstance(found["model"], Model)
    assert found["expected"].shape == (16, 12, 9)
    assert found["gradient"].names == found["newton"].names == ("object", "positions")
    step = found["newton"].object[0]
    assert np.vdot(case.true_object - case.object, step).real > 0
    assert 0 < distance(case.object + step, case.object) < 1


def test_its_pass_is_the_formula():
    """One frame of a scan between pixels, with two modes, in float64."""
    case, found, j = make_case(subpixel=True, near=True, modes=2), {}, 5
    exec(compile(PASS, "pass", "exec", dont_inherit=True), found)
    object, backend = case.object.copy(), get_backend("reference")
    probe = found["gradient_pass"](
        case.problem, backend, object, case.probe, [slice(j, j + 1)], 0.3, 0.2
    )
    box, way = window(case, j), (free_space(case.problem), frame_shift(case, j))
    P, O = shift64(case.probe, frame_shift(case, j)), case.object[box].astype(complex)
    wave = forward64(P * O, *way)
    wave *= case.problem.amplitude[j] / np.sqrt((np.abs(wave) ** 2).sum(axis=0))
    change = backward64(wave, *way) - P * O
    expected = case.object.astype(complex)
    expected[box] += 0.3 * (P.conj() * change).sum(axis=0)
    assert distance(object, expected) < 1e-6
    expected = case.probe + 0.2 * shift64(O.conj() * change, frame_shift(case, j), -1)
    assert distance(probe, expected) < 1e-6


def test_its_engine_passes_what_it_inherits(monkeypatch):
    """On array code alone: what kernels compute is tested elsewhere."""
    found = {"__name__": "page"}
    exec(compile(ENGINE, "engine", "exec", dont_inherit=True), found)
    tests = found["TestDescent"]
    assert issubclass(tests, EngineTests)
    monkeypatch.setattr(tests, "backends", lambda self: (get_backend("reference"),))
    names = [name for name in dir(tests) if name.startswith("test_")]
    assert len(names) > 10
    for name in names:
        getattr(tests(), name)()


def test_its_part_passes_what_it_inherits():
    found = {"__name__": "page"}
    exec(compile(PART, "part", "exec", dont_inherit=True), found)
    tests = found["TestChargeSharing"]
    assert issubclass(tests, DetectorTests)
    tests().test_adjoint()
    tests().test_tangent()


def test_a_run_uses_the_part():
    """Counts shared with neighbours: with the part R falls to what the noise leaves, without it
    stays above. Error bars are refused.
    """
    found, scan = {"__name__": "page"}, small_scan()
    exec(compile(PART + RUN, "run", "exec", dont_inherit=True), found)
    counts = scan.problem.amplitude**2
    around = sum(np.roll(counts, step, axis) for axis in (1, 2) for step in (1, -1))
    shared = replace(scan.problem, amplitude=np.sqrt(0.8 * counts + 0.05 * around))
    way = {"passes": 4, "probe": scan.probe, "object": scan.object, "backend": "reference"}
    own, usual = (reconstruct(shared, engine, **way) for engine in (found["Sharing"](), "ml"))
    noise = residual(scan.problem, scan.object, scan.probe)
    assert own.engine == "sharing"
    assert own.final_error < 1.1 * noise
    assert own.errors[-1] == pytest.approx(own.final_error, rel=1e-3)
    assert usual.final_error > 2 * noise
    registry.add(found["Sharing"])
    try:
        with pytest.raises(PtychonError, match="'sharing' has a forward model of its own"):
            error_bars(shared, own, backend="reference")
    finally:
        del registry._own["sharing"]


def test_the_model_fits_on_a_screen():
    """A newcomer reads it at once."""
    assert len(inspect.getsource(Model).splitlines()) < 180
