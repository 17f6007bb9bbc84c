"""Scale, rotation and shear of a scan, found by trying."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import PtychonError
from ptychon.inspect.affine import Affine, asked, search
from ptychon.metrics.moves import moves_of
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate


@pytest.fixture(scope="module")
def data():
    """64 frames of 32 x 32 px, a phase object, the right probe."""
    places = scan.raster(8, step=3, jitter=0.8, whole=False, seed=1)
    size = (72, 72)
    truth = phantoms.complex_object(
        np.zeros(size), phantoms.texture(size, 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((32, 32), radius=4.5, defocus=5)
    made = simulate(truth, beam, places, noise="poisson", mean_counts=1e5, seed=1)
    return replace(made.dataset, probe=beam)


def test_a_wrong_scale_and_rotation_are_found(data):
    """5 % and 4 degrees; measured: within 1.1 % and 0.9 degrees of the truth."""
    wrong = Affine(scale=1.05, rotation=4.0)
    found = search(wrong.apply(data), ("scale", "rotation"))
    assert found.affine.scale == pytest.approx(1 / 1.05, abs=0.02)
    assert found.affine.rotation == pytest.approx(-4.0, abs=1.5)
    assert found.affine.shear == 0
    assert found.after < 0.95 * found.before
    assert str(found.affine) in found.sentence()
    corrected = found.affine.moved(wrong.moved(data.positions))
    off = [p - data.positions for p in (wrong.moved(data.positions), corrected)]
    rms = [np.sqrt(((o - o.mean(axis=0)) ** 2).mean()) for o in off]
    assert rms[1] < 0.5 * rms[0]


def test_positions_that_are_right_stay(data):
    found = search(data, ("rotation",))
    assert found.affine == Affine()
    assert found.affine.apply(data) is data
    assert "as stated" in found.sentence()


def test_what_an_affine_does():
    """The same words as the report has for what refined positions tell."""
    places = np.random.default_rng(0).uniform(-50, 50, (40, 2))
    affine = Affine.parse("scale=1.01,rotation=0.5,shear=0.002")
    moves = moves_of(places, affine.moved(places))
    assert np.mean(moves.scale) == pytest.approx(0.01, abs=1e-4)
    assert np.rad2deg(moves.rotation) == pytest.approx(0.5, rel=0.02)
    assert moves.shear == pytest.approx(0.002, rel=0.05)
    assert affine.moved(places).mean(axis=0) == pytest.approx(places.mean(axis=0))
    assert Affine.parse(str(affine)) == affine


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale=big", "write search, search:scale,rotation, or numbers"),
        ("size=2", "write search"),
        ("scale=9", "out of range: scale from 0.2 to 5"),
    ],
)
def test_an_affine_that_is_none_is_refused(text, words):
    with pytest.raises(PtychonError, match=words):
        Affine.parse(text)


def test_what_is_asked_for():
    assert asked("search") == ("scale", "rotation", "shear")
    assert asked("search:rotation") == ("rotation",)
    assert asked("scale=1.02") == asked(None) == ()
    with pytest.raises(PtychonError, match="'size' cannot be sought; these can: scale, rotation"):
        asked("search:size")
