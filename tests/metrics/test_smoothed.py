"""Frames that are smoother than the model makes them are told from frames that fit badly
otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.smoothed import Smoothed
from ptychon.model.spread import blur as spread
from ptychon.reports.numbers import fit
from ptychon.run.doubts import all_doubts
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

SIDE = 24


@cache
def scene(blur=None, modes=1):
    """36 frames of 24 x 24, 1e5 counts each, of a phase object; of a blur nobody is told."""
    places = scan.raster(6, step=2.5, jitter=0.8, whole=False, seed=5)
    size = int(np.ptp(places, axis=0).max()) + SIDE + 8
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 8), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=4, defocus=4)
    y = (np.arange(SIDE) - SIDE // 2) / 4
    waves = np.stack([beam, 0.6 * beam * y[:, None], 0.5 * beam * y])[:modes]
    made = simulate(
        truth, waves, places, noise="poisson", mean_counts=1e5, seed=6, blur=blur
    ).dataset
    return Problem.from_dataset(replace(made, blur=None)), beam


def about(problem, beam):
    found = reconstruct(
        problem, "rpie", passes=25, probe=beam, backend="numpy", say=None, judge=False
    )
    share = fit(problem, found, get_backend("numpy", threads=1)).smooth
    said = [d.text for d in all_doubts(found, problem) if d.about == "smooth"]
    assert (share is None) == (not said)
    return said


@pytest.mark.parametrize(("blur", "modes"), [(0.5, 1), (1.0, 1), (None, 3)])
def test_a_blur_and_modes_that_are_missing_are_named(blur, modes):
    (said,) = about(*scene(blur, modes))
    assert "--modes 3" in said
    assert "--blur 1" in said


def test_nothing_is_said_of_other_faults():
    problem, beam = scene()
    assert about(problem, beam) == []
    rng = np.random.default_rng(0)
    off = problem.with_positions(problem.positions + 0.5 * rng.standard_normal((36, 2)))
    assert about(off, beam) == []
    even = rng.poisson(problem.amplitude.astype(float) ** 2 + 20)
    assert about(replace(problem, amplitude=np.sqrt(even).astype(np.float32)), beam) == []


def test_a_model_that_is_too_smooth_tells_the_opposite():
    rng = np.random.default_rng(1)
    sharp = rng.exponential(50, (8, 16, 16))
    soft = spread((16, 16), 0.7).forward(sharp)
    one, other = Smoothed(), Smoothed()
    one.add(sharp, soft, np.ones_like(sharp))
    other.add(soft, sharp, np.ones_like(sharp))
    assert one.shares[0] > 0.1
    assert other.shares[0] == 0
    assert Smoothed().shares == (0.0, 0.0)
    # in parts as in one
    parts = Smoothed()
    for i in range(8):
        parts.add(sharp[i : i + 1], soft[i : i + 1], np.ones((1, 16, 16)))
    assert parts.shares[0] == pytest.approx(one.shares[0], rel=0.02)
