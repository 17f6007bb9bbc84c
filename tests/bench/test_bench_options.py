"""What options cost: each is run as a run makes it, and what an engine lacks is left out."""

from __future__ import annotations

import json

import pytest

from ptychon.bench.options import OPTIONS, PLAIN, Scene, costs, table
from ptychon.run.constraints import constraint_of
from ptychon.types import PtychonError

SOME = (PLAIN, "3 modes", "positions", "background", "2 slices", "upsample 2", "constraint smooth")


def test_options_are_timed_beside_a_plain_pass():
    scene = Scene.made(side=3, frame=32, step=4.0, counts=1e4)
    some = {name: OPTIONS[name] for name in SOME}
    report = costs(["rpie"], 1, passes=1, scene=scene, options=some)
    json.loads(json.dumps(report, allow_nan=False))
    rows = report["engines"]["rpie"]
    assert rows[PLAIN]["ratio"] == 1
    assert all(rows[name]["ms"] > 0 for name in SOME)
    text = table(report)
    assert "| 3 modes | " in text
    assert f"| {PLAIN} | 1 (" in text


def test_what_an_engine_lacks_has_no_number():
    scene = Scene.made(side=3, frame=32, step=4.0, counts=1e4)
    some = {name: OPTIONS[name] for name in (PLAIN, "a probe that varies (1)")}
    report = costs(["dm"], 1, passes=1, scene=scene, options=some)
    assert report["engines"]["dm"]["a probe that varies (1)"] is None
    assert "| a probe that varies (1) | - |" in table(report)


def test_impossible_orders_are_refused():
    with pytest.raises(PtychonError, match="did you mean"):
        costs(["rpi"])
    with pytest.raises(PtychonError, match="at least 1"):
        costs(["rpie"], 0)


def test_every_constraint_that_is_timed_exists():
    """A wrong word would look like an engine without it."""
    for option in OPTIONS.values():
        for text in option.constraints:
            constraint_of(text)
