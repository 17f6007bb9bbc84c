"""Engines that give error bars say what these take for granted, and who does not."""

from __future__ import annotations

import warnings

import pytest

from _problems import make_case
from ptychon import PtychonError, reconstruct
from ptychon.engines import After


def run(case, **more):
    """Three passes of Ptycho-EP with the probe known."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = reconstruct(
            case.problem,
            "ep",
            passes=3,
            probe=case.probe,
            probe_updates=0,
            object=case.object,
            backend="numpy",
            say=None,
            **more,
        )
    return result, [str(w.message) for w in said if "error bars" in str(w.message)]


def test_bars_with_refined_positions_hand_over():
    case = make_case()
    plain, said = run(case)
    assert plain.object_std is not None
    assert said == []
    refined, (text,) = run(case, update={"positions": After(1)})
    assert refined.positions_given is not None
    assert "'ep' gives take the refined positions as exact" in text
    assert "--update positions" in text
    assert run(case, update={"positions": After(1)}, judge=False)[1] == []


def test_several_modes_are_refused_with_those_that_take_them():
    case = make_case()
    with pytest.raises(PtychonError, match="engine 'ep' takes one; these take several: "):
        reconstruct(case.problem, "ep", passes=2, modes=2, backend="numpy", say=None)
