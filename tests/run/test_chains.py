"""Engines one after the other: what one has found the next begins with, or refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychon import PtychonError, Recipe, Stage, reconstruct
from ptychon.engines import After
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.stages import refuse_losses
from ptychon.testing.scans import small_scan


def run(recipe, problem, modes=2, **more: Any):
    scan = small_scan(modes=modes)
    how = {"backend": "numpy", "judge": False, "say": None, "probe": scan.probe}
    return reconstruct(problem, recipe, **{**how, **more})


def test_modes_positions_and_doses_go_through_a_chain():
    """Two modes, positions 0.3 px and doses 5 % wrong: refined in the stage of LSQ-ML, and what is
    found stays in the stages after it, whose R it lowers.
    """
    problem, rng = small_scan(modes=2).problem, np.random.default_rng(1)
    true = problem.positions
    wrong = problem.with_positions(true + 0.3 * rng.standard_normal(true.shape))
    left = []
    for update in ({}, {"positions": After(2), "dose": After(2)}):
        stages = [
            Stage("raar", 6),
            Stage("mpie", 4, {"every": 15}),
            Stage("lsqml", 20, update=update),
            Stage("rpie", 4, {"cool_from": 1}),
        ]
        result = run(Recipe(*stages), wrong)
        assert result.probe.shape[0] == 2
        left.append(result.final_error)
    assert [name for name, _ in result.settings["ran"]] == ["raar", "mpie", "lsqml", "rpie"]
    assert left[1] < 0.85 * left[0], left  # 0.81


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_momentum_begins_anew_and_goes_on_bit_for_bit(tmp_path, stop):
    """A run stopped in the middle of the first, the second and the third stage; and a stage after
    another of the same engine is a run of its own.
    """
    path, scan = tmp_path / "c.h5", small_scan()
    recipe = Recipe(
        Stage("mpie", 3, {"every": 10}), Stage("lsqml", 4, {"momentum_start": 1}), Stage("raar", 3)
    )
    run(
        recipe, scan.problem, modes=1, callbacks=[Checkpointer(path, 1), lambda p: p.passes == stop]
    )
    whole = run(recipe, scan.problem, modes=1)
    again = run(recipe, scan.problem, modes=1, resume=load_checkpoint(path))
    assert np.array_equal(whole.object, again.object)
    assert np.array_equal(whole.probe, again.probe)


def test_a_second_stage_of_an_engine_has_no_momentum_yet():
    scan, stage = small_scan(), Stage("mpie", 2, {"every": 10})
    both = run(Recipe(stage, stage), scan.problem, modes=1)
    first = run(Recipe(stage), scan.problem, modes=1)
    then = run(Recipe(stage), scan.problem, modes=1, object=first.object, probe=first.probe)
    assert np.linalg.norm(both.object - then.object) < 1e-5 * np.linalg.norm(then.object)


def test_an_engine_refuses_what_it_would_lose():
    problem = small_scan(modes=2).problem
    with pytest.raises(PtychonError, match=r"'ep' of the recipe .* takes one; these take several"):
        refuse_losses(Recipe.parse("ep:2, rpie:2"), modes=2)
    varied = Recipe(Stage("ml", 1, {"variations": 1}), Stage("lsqml", 2))
    with pytest.raises(PtychonError, match="'lsqml' would lose how the probe varies"):
        run(varied, problem)
