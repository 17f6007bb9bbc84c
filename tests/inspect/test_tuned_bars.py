"""The value of a number of the scan, with its error, from trials about the best one."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.cli.tune import told
from ptychon.inspect.tuned_bars import Value, parabola, pattern, polish
from ptychon.inspect.tuning import Trial, Tuned

FRAMES = 40


def frames_of(rng, best, curve=400.0, noise=1.0):
    """Gain of each frame around a best place, each with a slope of its own."""
    slopes = noise * rng.standard_normal((FRAMES, len(best)))

    def gains(place):
        away = np.asarray(place) - best
        return (-curve * (away**2).sum() + slopes @ away) / FRAMES

    return gains, slopes


@pytest.mark.parametrize("count", [1, 2])
def test_a_parabola_gives_the_best_place_and_its_error(count):
    """The error is that which slopes of single frames make: 200 draws, its scatter within 15 %."""
    best, off, errors = np.full(count, 0.4), [], []
    for seed in range(200):
        gains, slopes = frames_of(np.random.default_rng(seed), best)
        places = 0.5 + pattern(count, np.full(count, 0.05))
        found = parabola(places, np.stack([gains(place) for place in places]))
        exact = best + slopes.sum(axis=0) / (2 * 400 * FRAMES)
        np.testing.assert_allclose(found.place, exact, atol=1e-7)
        off.append((found.place - best) / np.sqrt(np.diag(found.covariance)))
        errors.append(np.sqrt(np.diag(found.covariance)))
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(1, abs=0.15)
    assert np.mean(errors) == pytest.approx(np.sqrt(FRAMES) / (2 * 400 * FRAMES), rel=0.1)


def test_trials_that_scatter_widen_the_error():
    gains, _ = frames_of(np.random.default_rng(0), np.array([0.5]), noise=0.0)
    places = 0.5 + pattern(1, np.array([0.05]))
    even = np.stack([gains(place) for place in places])
    rough = even + 0.05 * np.array([1, -1, 1, -1, 1])[:, None] / FRAMES
    assert parabola(places, rough).covariance[0, 0] > 1e-7
    assert parabola(places, even).covariance[0, 0] < 1e-12


def test_a_minimum_is_no_value():
    gains, _ = frames_of(np.random.default_rng(0), np.array([0.5]), curve=-400)
    places = 0.5 + pattern(1, np.array([0.05]))
    assert not parabola(places, np.stack([gains(place) for place in places])).concave


def test_more_passes_are_made_until_the_value_stays():
    """The best place of few passes is 0.2 off, and nears the true one as 30/passes."""

    def gains(place, passes):
        best = np.array([0.4 + 0.2 * 30 / passes])
        return frames_of(np.random.default_rng(0), best, noise=10.0)[0](place)

    place, error, concave, moved, passes = polish(gains, np.array([0.6]), ["distance"], 30)
    assert concave
    assert passes == 810
    assert moved[0] > 1
    assert abs(place[0] - 0.4) < 3 * error[0]
    still = polish(lambda place, _: gains(place, 10**6), np.array([0.6]), ["distance"], 30)
    assert still[4] == 270
    assert still[3][0] < 1
    assert still[0][0] == pytest.approx(0.4, abs=3 * still[1][0])


def test_a_score_that_tells_nothing_is_said_to():
    noise = np.random.default_rng(1)
    place, error, concave, _, _ = polish(
        lambda place, _: 1e-3 * noise.standard_normal(FRAMES), np.array([0.5]), ["distance"], 30
    )
    assert not concave or error[0] > 0.25 or not 0 < place[0] - error[0] < place[0] + error[0] < 1


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Value("distance", 1.0, 0.002, True, 0.3, 270), "distance: 1 m +- 2 mm (270 passes)"),
        (Value("distance", 1.0, 0.002, True, 3.0, 810), "it still moves with more passes"),
        (Value("distance", 1.0, 0.2, False, 0.3, 270), "do not tell it in this range (1 m +- 200"),
        (Value("distance", 1.0, float("inf"), False, 3.0, 810), "predicted alike, or best at an"),
        (Value("distance", 1.0, 0.03, False, 0.3, 270, True), "(-e ml --update distance)"),
    ],
)
def test_what_the_data_say_is_told(value, line):
    trial = Trial({"distance": 1.0}, 0.9, np.zeros(3))
    (said,) = told(Tuned((trial,), "frames", 10, 1.0, (value,)))
    assert line in said
