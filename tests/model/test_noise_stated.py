"""The noise that a result rests on (`noise_in`); data drawn from a noise model (`Noise.draw`)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from _problems import make_case
from ptychon.model.noise import Noise, noise_in


def result(options=None, history=None, variances=None):
    """What `noise_in` asks of a result."""
    return SimpleNamespace(options=options or {}, history=history or {}, noise_variances=variances)


def amplitudes():
    return replace(make_case().problem, counting=False, noise_variance=0.04)


def counts():
    return replace(make_case().problem, counting=True, noise_variance=None)


def test_what_the_data_state_where_the_run_says_nothing():
    assert noise_in(counts(), result()).kind == "poisson"
    stated = noise_in(amplitudes(), result())
    assert (stated.kind, stated.variance, stated.learned) == ("amplitude", 0.04, False)


def test_the_option_of_the_run_comes_before_the_data_and_the_caller_before_all():
    made = result({"noise_variance": 0.5}, variances=np.full(9, 0.1, np.float32))
    assert noise_in(amplitudes(), result({"noise_variance": 0.5})).variance == 0.5
    called = noise_in(amplitudes(), made, 0.3)
    assert (called.variance, called.learned) == (0.3, False)
    # counts become an amplitude with the variance that is said
    assert noise_in(counts(), made, 0.3).kind == "amplitude"


def test_variances_of_frames_come_before_the_options():
    each = np.linspace(0.1, 0.9, 9).astype(np.float32)
    found = noise_in(counts(), result({"noise_variance": 0.5}, variances=each))
    assert found.kind == "amplitude"
    assert found.learned
    assert np.array_equal(found.variance, each)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"noise_variance": np.array([np.nan, 0.3, 0.2], np.float32)}, 0.2),
        ({"noise_variance": np.array([0.3, np.nan], np.float32)}, None),
        ({"noise_variance": np.array([0.0], np.float32)}, None),
        ({"noise_variance": np.zeros(0, np.float32)}, None),
        ({}, None),
    ],
)
def test_a_variance_that_was_learned_is_the_last_of_the_run(history, expected):
    for options in ({"learn_noise": True}, {"noise_per_frame": True}):
        for problem in (counts(), amplitudes()):
            found = noise_in(problem, result(options, history))
            assert (found.kind, found.learned) == ("amplitude", True)
            assert found.variance == (expected and pytest.approx(expected))


# ---------------------------------------------------------------- data drawn from it

#: Expected counts of a wave: dark, faint and bright.
EXPECTED = np.broadcast_to(np.array([0.0, 0.3, 4.0, 900.0]), (40_000, 1, 4))


def moments(noise, seed=0):
    drawn = noise.draw(np.random.default_rng(seed), EXPECTED)
    assert drawn.shape == EXPECTED.shape
    return drawn, drawn.mean(axis=(0, 1)), drawn.var(axis=(0, 1))


def within(found, expected, spread, number=40_000):
    """Within five standard errors of a mean of so many."""
    assert np.all(np.abs(found - expected) <= 5 * np.sqrt(spread / number) + 1e-12)


def test_counts_have_the_mean_and_variance_of_poisson():
    drawn, mean, variance = moments(Noise("poisson"))
    rate = EXPECTED[0, 0]
    assert drawn.dtype == np.int64
    within(mean, rate, rate)
    within(variance, rate, rate + 2 * rate**2)  # the variance of a variance: mu_4 - mu_2^2
    assert not drawn[..., 0].any()


def test_background_and_read_noise_add_to_both():
    """N ~ Poisson(|z|^2 + b) + r eps: mean |z|^2 + b, variance |z|^2 + b + r^2."""
    r, b = 1.5, 2.0
    plain = Noise("poisson", background=np.full((1, 1, 4), b))
    read = Noise("poisson", background=np.full((1, 1, 4), b + r**2), read_noise=r)
    rate = EXPECTED[0, 0] + b
    drawn, mean, variance = moments(plain)
    assert drawn.dtype == np.int64
    within(mean, rate, rate)
    drawn, mean, variance = moments(read)
    total = rate + r**2
    assert drawn.dtype == np.float64
    assert drawn.min() < 0
    within(mean, rate, total)
    within(variance, total, rate + 2 * total**2)


def test_amplitudes_have_their_variance_and_are_cut_off_at_zero():
    drawn, *_ = moments(Noise("amplitude", 0.04))
    root = np.sqrt(drawn)[..., 2:]  # far from 0
    within(root.mean(axis=(0, 1)), np.sqrt(EXPECTED[0, 0, 2:]), 0.04)
    within(root.var(axis=(0, 1)), 0.04, 2 * 0.04**2)
    assert drawn.min() == 0
    assert (drawn[..., 0] == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_each_frame_has_its_own_variance():
    each = np.linspace(0.01, 0.09, len(EXPECTED))
    drawn, *_ = moments(Noise("amplitude", each, learned=True))
    off = np.sqrt(drawn[..., 3]).ravel() - 30
    for half in (slice(0, 20_000), slice(20_000, None)):
        within(off[half].var(), each[half].mean(), 2 * (each[half] ** 2).mean(), 20_000)


def test_roots_with_an_offset_come_back_as_counts():
    """y = sqrt(n + 3/8): what is drawn is n."""
    _, mean, _ = moments(Noise("amplitude", 0.25, 3 / 8))
    # y^2 - 3/8 has the mean |z|^2 + v - 3/8 where nothing is cut off, |z|^2 being that of y
    within(mean[3], 900 + 0.25 - 3 / 8, 4 * 900 * 0.25)


def test_a_seed_draws_the_same():
    for noise in (Noise("poisson"), Noise("amplitude", 0.04)):
        one, two = (moments(noise, seed=3)[0] for _ in range(2))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, moments(noise, seed=4)[0])
