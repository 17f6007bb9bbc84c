"""Bars of amplitude and phase where an object is no brighter than its error."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.uncertainty.amplitude import NOTHING, bars

DRAWS = 40_000


def covered(size, along, across):
    """How often |truth| and its phase lie within the bars of a mean, truth ~ N(mean, ...)."""
    rng = np.random.default_rng(3)
    e = along**0.5 * rng.standard_normal(DRAWS) + 1j * across**0.5 * rng.standard_normal(DRAWS)
    made = bars(*(np.full((1, 1), v) for v in (along, across)), np.full((1, 1), size + 0j))
    truth = size + e
    off = abs(abs(truth) - size), abs(np.angle(truth))
    stds = made["amplitude_std"], made["phase_std"]
    return [float(np.mean(d < s)) for d, s in zip(off, stds, strict=True)]


@pytest.mark.parametrize("above", [0.0, 0.1, 0.4, 1.0, 1.7, 2.5, 4.0, 5.9, 6.1, 40.0])
def test_bars_hold_however_dark_it_is(above):
    """Linear ones hold 42 % of amplitudes and 59 % of phases next to 0."""
    for share in covered(0.2 * above, 0.04, 0.04):
        assert share == pytest.approx(0.683, abs=0.012)


@pytest.mark.parametrize("above", [0.3, 1.5, 3.0])
def test_bars_hold_where_errors_lean_one_way(above):
    """Of twice the variance across the mean."""
    for share in covered(0.2 * above, 0.03, 0.06):
        assert share == pytest.approx(0.683, abs=0.06)


def test_far_from_darkness_they_are_those_of_a_small_error():
    along, across, mean = (np.full((2, 2), v) for v in (0.01, 0.02, 4 + 3j))
    made = bars(along, across, mean)
    assert np.allclose(made["object_std"], 0.03**0.5)
    assert np.allclose(made["amplitude_std"], 0.1)
    assert np.allclose(made["phase_std"], 0.02**0.5 / 5)


def test_a_phase_of_which_nothing_is_known_is_within_its_share_of_the_circle():
    zero = np.zeros((1, 1))
    assert bars(zero + 1, zero + 1, zero.astype(complex))["phase_std"] == pytest.approx(
        NOTHING, rel=0.01
    )
