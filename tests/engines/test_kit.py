"""Our own engines pass the tests that engines inherit, and the tests find what is wrong with an
engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import ClassVar

import numpy as np
import pytest

import ptychon.engines as engines
from ptychon import PtychonError, PtychonWarning, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import (
    EPIE,
    MPIE,
    PIE,
    RAAR,
    RPIE,
    DifferenceMap,
    Engine,
    Joint,
    PtychoEP,
    Registry,
    make,
)
from ptychon.engines.pie import Iterative
from ptychon.testing import EngineTests
from ptychon.testing.scans import small_scan


class TestPIE(EngineTests):
    engine = PIE


class TestEPIE(EngineTests):
    engine = EPIE


class TestRPIE(EngineTests):
    engine = RPIE


class TestMPIE(EngineTests):
    """Momentum in the middle of a pass, and with frames left over for the next."""

    engine = MPIE
    options: ClassVar = {"every": 20}


class TestRAAR(EngineTests):
    engine = RAAR
    passes = 40


class TestDifferenceMap(EngineTests):
    engine = DifferenceMap
    passes = 40


class TestPtychoEP(EngineTests):
    engine = PtychoEP
    passes = 30


class TestJoint(EngineTests):
    """It is to be started from the result of another engine."""

    engine = Joint
    options: ClassVar = {"burn_in": 2, "draws": 2, "draw_iterations": 4}
    gain = 1.0

    def start(self, scan):
        rng = np.random.default_rng(1)
        noise = rng.standard_normal((2, *scan.object.shape))
        return (scan.object + 0.05 * (noise[0] + 1j * noise[1])).astype(np.complex64), scan.probe


@dataclass(frozen=True, kw_only=True)
class Mine(EPIE):
    """ePIE by another name."""

    name: ClassVar[str] = "mine"
    title: ClassVar[str] = "ePIE by another name"


class TestMine(EngineTests):
    engine = Mine


@dataclass(frozen=True, kw_only=True)
class Careless(Iterative):
    """Forgets what it depends on, and changes what it was given."""

    name: ClassVar[str] = "careless"
    undocumented: float = 1.0

    def init(self, problem, object, probe, ctx):
        return engines.State(object, probe)

    def object_weight(self, p2, corners, k):
        return 0.0 * p2

    def probe_weight(self, o2):
        return 0.0 * o2


class Kit(EngineTests):
    engine = Careless


@pytest.mark.parametrize(
    ("test", "what"),
    [
        ("test_it_is_an_engine", "has no title"),
        ("test_options_are_documented", "undocumented"),
        ("test_the_misfit_falls", "R went from"),
    ],
)
def test_the_kit_finds_what_is_wrong(test, what):
    with pytest.raises(AssertionError, match=what):
        getattr(Kit(), test)()


@dataclass(frozen=True, kw_only=True)
class Blind(RPIE):
    """Takes masked pixels for dark ones, in frames that have masks of their own."""

    name: ClassVar[str] = "blind"
    title: ClassVar[str] = "rPIE that forgets masks"
    everywhere: bool = False

    def step(self, state, problem, batches, ctx):
        if self.everywhere or len(problem.mask) > 1:
            problem = replace(problem, mask=np.ones_like(problem.mask[:1]))
        return super().step(state, problem, batches, ctx)


@pytest.mark.parametrize(("everywhere", "where"), [(True, "all frames alike"), (False, "each")])
def test_the_kit_finds_an_engine_that_forgets_masks(everywhere, where):
    class Masks(EngineTests):
        engine = Blind
        options: ClassVar = {"everywhere": everywhere}

        def backends(self):
            return (get_backend("reference"),)

    with pytest.raises(AssertionError, match=f"masked pixels, in {where}.*mask_of"):
        Masks().test_masked_pixels_hold_no_data()


def test_an_unknown_that_an_engine_cannot_hold_is_refused_with_those_that_can():
    with pytest.raises(
        PtychonError, match=r"'stubborn' always moves 'probe'; these can hold .*pie"
    ):
        engines.updated(Stubborn(), {"probe": False})


@dataclass(frozen=True, kw_only=True)
class Stubborn(Engine):
    """Has no option for the probe."""

    name: ClassVar[str] = "stubborn"


def test_an_engine_that_nobody_knows_runs_from_the_front_door():
    """A subclass of ePIE with another name: memory, compiling, schedule and result ask what it
    declares. It runs on the table of kernels; the same bits as ePIE's own step."""
    scan = small_scan()
    way = {"passes": 3, "object": np.ones_like(scan.object), "probe": scan.probe, "seed": 1}
    found = reconstruct(scan.problem, Mine(), backend="reference", **way)
    wanted = reconstruct(scan.problem, "epie", backend="reference", **way)
    assert found.engine == "mine"
    assert np.array_equal(found.object, wanted.object)
    fast = reconstruct(scan.problem, Mine(), backend="numpy", **way)
    assert np.linalg.norm(fast.object - wanted.object) < 1e-4 * np.linalg.norm(wanted.object)


def test_what_an_engine_does_not_take_is_refused_with_those_that_do():
    @dataclass(frozen=True, kw_only=True)
    class Simple(EPIE):
        name: ClassVar[str] = "simple"
        copes: ClassVar[frozenset[str]] = frozenset()

    for kind, what in (
        ({"near_field": True}, "near-field frames"),
        ({"masked": True}, "masked pixels"),
    ):
        scan = small_scan(**kind)
        with pytest.raises(
            PtychonError, match=f"engine 'simple' does not take {what}; these do: .*rpie"
        ):
            reconstruct(scan.problem, Simple(), passes=1, probe=scan.probe, backend="reference")


def test_it_is_said_where_nothing_is_compiled_for_an_engine():
    scan, told = small_scan(), []
    way = {
        "passes": 1,
        "probe": scan.probe,
        "backend": "numpy",
        "details": told.append,
        "judge": False,
    }
    reconstruct(scan.problem, Mine(), **way)
    assert any(
        "engine 'mine' has no compiled pass" in line and "pie, epie, rpie, dm, ep" in line
        for line in told
    )
    told.clear()
    reconstruct(scan.problem, "epie", **way)
    assert not any("compiled pass" in line for line in told)


def test_engines_of_other_packages(monkeypatch):
    """Found by their entry point; what is no engine, does not load or takes a name of ours is left
    out, and said.
    """
    points = [
        EntryPoint("mine", f"{__name__}:Mine", engines.GROUP),
        EntryPoint("rpie", f"{__name__}:Mine", engines.GROUP),
        EntryPoint("broken", f"{__name__}:nothing", engines.GROUP),
        EntryPoint("scan", f"{__name__}:small_scan", engines.GROUP),
    ]
    monkeypatch.setattr(engines, "entry_points", lambda group: points)
    known = Registry(RPIE)
    with pytest.warns(PtychonWarning) as told:
        assert list(known) == ["rpie", "mine"]
    said = sorted(str(w.message) for w in told)
    assert [text.partition(" is left out: ")[0].split(" of ")[0] for text in said] == [
        "engine 'broken'",
        "engine 'rpie'",
        "engine 'scan'",
    ]
    assert "the name 'rpie' is taken" in said[1]
    assert "is not a subclass of ptychon.engines.Engine" in said[2]
    assert known["mine"] is Mine
    monkeypatch.setattr(engines, "registry", known)
    assert make("mine", probe_step=0.25) == Mine(probe_step=0.25)


def test_what_is_no_engine_is_refused():
    class Plain:
        name = "plain"

    @dataclass
    class Open(Engine):
        name: ClassVar[str] = "open"

    @dataclass(frozen=True)
    class Nameless(Engine):
        pass

    @dataclass(frozen=True)
    class Same(RPIE):
        pass

    known = Registry(RPIE)
    for cls, what in (
        (Plain, "not a subclass"),
        (Open, "not a frozen dataclass"),
        (Nameless, "has no name"),
        (Same, "has the name of its parent, 'rpie'"),
    ):
        with pytest.raises(PtychonError, match=what):
            known.add(cls)
    assert known.add(Mine) is Mine
    with pytest.raises(PtychonError, match="there is an engine 'mine' already"):
        known.add(dataclass(frozen=True)(type("Other", (EPIE,), {"name": "mine"})))
