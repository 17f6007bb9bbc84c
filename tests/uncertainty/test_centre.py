"""A result is moved to where the grid of its data is, on data of the second simulator."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.alignment import align
from ptychon.run.progress import silent
from ptychon.uncertainty.centre import bottom, centred, moved

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of

CELL = Cell("power-1.5", False, frame=24, side=5, step=3.5, dose=2e5)


def test_the_bottom_of_a_sinusoid():
    for where in (-0.4, 0.0, 0.2, 0.49):
        values = [5 - 3 * math.cos(2 * math.pi * (s - where)) for s in (0, 1 / 3, -1 / 3)]
        found, fall = bottom(values)
        assert found == pytest.approx(where, abs=1e-9)
        assert fall == pytest.approx(values[0] - 2, abs=1e-9)


@pytest.fixture(scope="module")
def scan():
    data, truth, probe = dataset_of(CELL, 5)
    first = np.asarray(probe[None], np.complex64)
    problem = Problem.from_dataset(data)
    start = reconstruct(problem, "rpie", passes=60, probe=first, backend="numpy", judge=False)
    return problem, truth.astype(np.complex64), start


def off(found, truth):
    """Translation from the truth's grid, in fractions of a pixel."""
    inside = found.illumination > 0.5 * found.illumination.max()
    shift = align(found.object, truth, region=inside, max_shift=4, subpixel=True).shift
    return (np.array(shift) + 0.5) % 1 - 0.5


@pytest.mark.parametrize("step", [(0.33, -0.27), (-0.2, 0.45)])
def test_a_result_that_lies_between_the_pixels_is_moved_back(scan, step):
    problem, truth, start = scan
    away = moved(start, step)
    assert np.linalg.norm(off(away, truth)) > 0.35
    found, centre = centred(problem, away, {}, get_backend("numpy"), 0, silent)
    assert np.abs(off(found, truth)).max() < 0.12
    assert centre.gain > 20
    # and only moved: the same numbers again
    again = moved(away, centre.move)
    assert np.array_equal(found.object, again.object)
    assert np.array_equal(found.probe, again.probe)


def test_several_modes_are_moved_by_rpie(scan):
    problem, truth, start = scan
    away = moved(start, (0.3, 0.3))
    weak = 0.01 * np.roll(away.probe, 3, axis=-1)
    away = replace(away, probe=np.concatenate([away.probe, weak]))
    found, _ = centred(problem, away, {}, get_backend("numpy"), 0, silent)
    assert np.abs(off(found, truth)).max() < 0.15
    assert found.probe.shape == away.probe.shape
