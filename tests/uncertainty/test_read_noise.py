"""A read noise that error bars learn from the residuals of dim pixels."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from _problems import forward64, make_case
from ptychon import PtychonError
from ptychon.metrics.alignment import phase_align
from ptychon.metrics.residual import illuminated
from ptychon.model.noise import with_read_noise
from ptychon.uncertainty import laplace
from ptychon.uncertainty.choose import _chosen

READ, DARK = 1.5, 0.7


@functools.cache
def scene(stated):
    """49 frames of 16 x 16 with 70 counts in a mean pixel, a background that is told and a read
    noise of 1.5 counts, of which the data state something else.
    """
    case, rng = make_case(side=7, frame=(16, 16)), np.random.default_rng(2)
    y, x = (a.ravel() for a in np.mgrid[:7, :7])
    corners = np.stack([3 * y, 3 * x], axis=1) + rng.integers(0, 2, (49, 2))
    O, P = case.true_object[:36, :36], 2 * case.true_probe
    seen = [P * O[y : y + 16, x : x + 16] for y, x in corners]
    light = np.array([np.abs(forward64(w, None, np.zeros(2))[0]) ** 2 for w in seen])
    pattern = rng.poisson(light + DARK) + READ * rng.standard_normal(light.shape)
    problem = replace(
        case.problem,
        corners=corners.astype(np.int32),
        object_shape=(36, 36),
        amplitude=np.sqrt(np.maximum(pattern - DARK, 0)).astype(np.float32),
        counts=(pattern + stated**2).astype(np.float32),
        background=np.full((1, 16, 16), DARK + stated**2, np.float32),
        read_noise=stated,
        counting=True,
        noise_variance=None,
    )
    return problem, O, P


@functools.cache
def bars(stated, learned=True):
    problem, O, P = scene(stated)
    update = ("object", "read_noise") if learned else ("object",)
    return laplace(problem, O, P, update=update, draws=8, backend="numpy")


@pytest.mark.parametrize("stated", [0.5, 4.0])
def test_it_is_found_with_its_bar_from_wherever_it_begins(stated):
    found = bars(stated)
    assert abs(found.read_noise - READ) < 4 * found.read_noise_std
    assert 0.01 < found.read_noise_std < 0.05
    assert found.chi2 == pytest.approx(1, abs=0.06)
    assert abs(bars(stated, False).chi2 - 1) > 0.3
    assert "read noise of 1." in found.conditional[0]
    assert "learned from the residuals" in found.conditional[0]


def test_bars_are_those_of_the_true_one():
    """As if it had been stated, up to what the draws know of them."""
    lit = illuminated(scene(0.5)[0], scene(0.5)[2])
    true = bars(READ, False)
    for stated in (0.5, 4.0):
        ratio = np.median((bars(stated).object_std / true.object_std)[lit])
        assert ratio == pytest.approx(1, abs=0.02)
    ratio = np.median((bars(4.0, False).object_std / true.object_std)[lit])
    assert ratio > 1.1


def test_what_is_not_known_of_it_moves_the_object_by_little():
    """A read noise that is a tenth larger, four of its bars: less than a tenth of a bar."""
    lit = illuminated(scene(READ)[0], scene(READ)[2])
    one, two = bars(READ, False), bars(1.1 * READ, False)
    moved = phase_align(two.object, one.object, lit) - one.object
    assert np.sqrt(np.mean(np.abs(moved / one.object_std)[lit] ** 2)) < 0.1
    assert one.read_noise is one.read_noise_std is None


def test_patterns_stay_as_they_are():
    problem = scene(0.5)[0]
    other = with_read_noise(problem, 2.0)
    assert other.read_noise == 2.0
    both = [p.counts.astype(float) - p.read_noise**2 for p in (problem, other)]
    np.testing.assert_allclose(*both, atol=1e-4)
    dark = [p.background.astype(float) - p.read_noise**2 for p in (problem, other)]
    np.testing.assert_allclose(*dark, atol=1e-5)


def test_data_that_are_cut_off_at_0_tell_none():
    problem, O, P = scene(0.5)
    cut = replace(problem, counts=None, background=None, read_noise=0.0)
    with pytest.raises(PtychonError, match="state one to begin with"):
        laplace(cut, O, P, update=("object", "read_noise"))
    with pytest.raises(PtychonError, match="a read noise belongs to counts"):
        laplace(problem, O, P, update=("object", "read_noise"), noise_variance=0.3)
    name, why = _chosen(problem, None, ("object", "read_noise"), None)
    assert name == "laplace"
    assert why.startswith("read_noise is free")
