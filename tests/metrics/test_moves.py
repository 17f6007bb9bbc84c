"""What refined positions tell of a scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import Result
from ptychon.metrics.moves import at_rim, moves_of, refined, rim_sentence, sentence


def rows(side=9, step=5.0, snake=True):
    """Rows along x, every second one backwards; or all the same way."""
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    x = np.where((y % 2 == 1) & snake, side - 1 - x, x)
    way = np.where(y % 2 == 1, -1, 1)
    way[1:, 0] *= -1  # a frame that a step to the next row reached, as the one before
    return step * np.stack([y, x], axis=-1).reshape(-1, 2), way.ravel()


def test_each_part_is_told():
    given, way = rows()
    x = given - given.mean(axis=0)
    A = np.array([[0.010, 0.004], [-0.002, 0.030]])
    own = 0.05 * np.random.default_rng(0).standard_normal(given.shape)
    found = given + x @ A.T + np.array([0.0, 0.2]) * way[:, None] + own + [3.0, -1.0]
    moves = moves_of(given, found)
    assert moves.scale == pytest.approx((0.010, 0.030), abs=1e-3)
    assert moves.rotation == pytest.approx(0.003, abs=1e-3)
    assert moves.shear == pytest.approx(0.001, abs=1e-3)
    assert moves.backlash == pytest.approx((0.0, 0.4), abs=0.06)
    assert moves.rest == pytest.approx(0.05 * np.sqrt(2), rel=0.15)
    text = sentence(moves, given)
    assert "scale +3." in text or "scale +2.9" in text
    assert "backlash +0.4" in text or "backlash +0.3" in text
    assert "along x" in text


def test_a_rotation_has_the_sign_of_the_turn_from_x_towards_y():
    given, _ = rows()
    x, a = given - given.mean(axis=0), np.deg2rad(0.5)
    found = x @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]).T
    moves = moves_of(given, found)
    assert moves.rotation == pytest.approx(a, rel=1e-3)
    assert "rotation +0.50 degrees" in sentence(moves, given)


@pytest.mark.parametrize("kind", ["one way", "random"])
def test_no_backlash_without_rows_to_and_fro(kind):
    given, _ = rows(snake=False)
    if kind == "random":
        given = np.random.default_rng(1).permutation(rows()[0])
    moves = moves_of(given, given + 0.1)
    assert moves.backlash is None
    assert moves.rms < 1e-9


def test_a_scan_along_a_line_has_no_scale_across_it():
    given = np.stack([np.zeros(20), np.arange(20.0)], axis=1)
    moves = moves_of(given, given * 1.01)
    assert moves.scale == pytest.approx((0.0, 0.01), abs=1e-9)


def test_a_result_tells_what_was_refined():
    given, _ = rows(4)
    plain = Result(
        object=np.ones((4, 4), "c8"),
        probe=np.ones((1, 2, 2), "c8"),
        errors=np.ones(1, "f4"),
        final_error=0.1,
        positions=given * 1.02,
        engine="rpie",
        passes=1,
    )
    assert refined(plain) == []
    found = replace(
        plain,
        positions_given=given,
        log_scale=np.repeat([0.03, -0.03], 8),
        background=np.full((2, 2), 1.5),
        history={"background": np.array([0.2, 0.019, np.nan])},
    )
    texts = dict(refined(found))
    assert "scale +2.00 % along y" in texts["positions"]
    assert texts["doses"] == "differ by 3 % rms, as an amplitude"
    assert texts["background"].startswith("1.5 counts a pixel, 1.9 % of all light")
    assert "weak modes" in texts["background"]


def test_frames_at_the_rim_are_listed():
    """Of a jittered raster of 9 x 9 the 32 outermost, of a ring all, of two frames both."""
    given, _ = rows()
    places = given + np.random.default_rng(2).uniform(-0.8, 0.8, given.shape)
    outer = ((given == given.min()) | (given == given.max())).any(axis=1)
    np.testing.assert_array_equal(at_rim(places), np.flatnonzero(outer))
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    assert len(at_rim(9 * np.stack([np.sin(angle), np.cos(angle)], axis=1))) == 12
    assert len(at_rim(given[:2])) == 2
    assert moves_of(given, places).rim == tuple(np.flatnonzero(outer))
    text = rim_sentence(tuple(range(14)))
    assert text.startswith("14 frames at the rim of the scan")
    assert text.endswith("10, 11 and 2 more")
