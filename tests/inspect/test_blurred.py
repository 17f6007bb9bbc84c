"""A blur of the detector is named from the frames alone, and none where there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychon import propose
from ptychon.__main__ import main
from ptychon.inspect.blurred import find_blur, remark, spread_light, spread_noise
from ptychon.io import write_dataset
from ptychon.model.spread import blur
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("sketched")

SIDE = 32


def frames(seed=1, counts=3e5, radius=4.5, defocus=5, modes=0.0, **how):
    """49 frames of a phase object; with a second mode of such a share of the light."""
    places = scan.raster(7, step=3, jitter=0.75, whole=False, seed=seed)
    size = int(np.ptp(places, axis=0).max()) + SIDE + 12
    field = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), seed + 1), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=radius, defocus=defocus)
    if modes:
        x = (np.arange(SIDE) - SIDE // 2) / radius
        second = beam * np.exp(1.5j * x) * (1 + x[:, None])
        second *= np.linalg.norm(beam) / np.linalg.norm(second)
        beam = np.stack([np.sqrt(1 - modes) * beam, np.sqrt(modes) * second])
    made = simulate(
        field, beam, places, noise="poisson", mean_counts=counts, seed=seed, **how
    ).dataset
    return replace(made, blur=None, object_shape=field.shape)


@pytest.mark.parametrize("width", [0.5, 0.8])
@pytest.mark.parametrize("seed", [1, 2])
def test_light_that_is_spread_is_found(width, seed):
    found = find_blur(frames(seed, blur=width))
    assert found.kind == "light"
    assert found.width == pytest.approx(width, abs=0.06)
    assert f"(--blur {found.width:.2g})" in remark(found)
    assert "(--modes 3)" in remark(found)


@pytest.mark.parametrize("width", [0.5, 0.8])
def test_noise_that_is_spread_is_found(width):
    """Values that were spread after they were counted."""
    sharp = frames(3)
    spread = blur((SIDE, SIDE), width).forward(np.asarray(sharp.patterns, np.float64))
    found = find_blur(replace(sharp, patterns=spread.astype(np.float32)))
    assert found.kind == "noise"
    assert found.width == pytest.approx(width, abs=0.05)
    assert f"add --blur {found.width:.2g}" in remark(found)


@pytest.mark.parametrize("counts", [3e3, 3e4, 3e5])
@pytest.mark.parametrize("beam", [(4.5, 5), (6, 10)])
def test_sharp_frames_show_none(counts, beam):
    """Of 108 such scans (seeds, doses, beams and objects) none was flagged."""
    for seed in (4, 5, 6):
        found = find_blur(frames(seed, counts, *beam))
        assert found is None


def test_counts_in_another_unit_and_a_background_are_no_blur():
    plain = np.asarray(frames(7).patterns, np.float64)
    rng = np.random.default_rng(0)
    dark = rng.poisson(20, plain.shape)
    for values in (
        0.4 * plain,
        3 * plain,
        plain + dark,
        plain * (1 + 0.3 * rng.random(len(plain)))[:, None, None],
    ):
        assert spread_noise(values) is None
    assert spread_light(plain * 3) is None


def test_frames_that_cannot_tell_say_nothing():
    wide = frames(8, radius=9, defocus=14, blur=0.8)  # its autocorrelation fills the frame
    assert find_blur(wide) is None
    blurred = frames(1, blur=0.5)
    assert find_blur(replace(blurred, blur=0.5)) is None
    assert find_blur(replace(blurred, counting=False)) is None
    assert find_blur(blurred.select(np.arange(5))) is None
    few = frames(1, counts=1e3, blur=0.5)
    assert find_blur(few) is None


def test_inspect_names_it(tmp_path, capsys):
    write_dataset(tmp_path / "scan.cxi", frames(1, blur=0.5))
    assert main(["inspect", str(tmp_path / "scan.cxi"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["frames"]["blur"]["width"] == pytest.approx(0.5, abs=0.05)
    assert any("filled as by a point spread of 0.4" in line for line in about["advice"])


@pytest.mark.parametrize(("how", "expected"), [({"blur": 0.8}, "blur"), ({"modes": 0.3}, "modes")])
def test_a_proposal_tells_a_blur_from_modes(how, expected, monkeypatch):
    """By what foretells pixels that were held out: both fill the zeros of speckles."""
    monkeypatch.setattr("ptychon.inspect.proposal.FREE", {})
    monkeypatch.setattr("ptychon.inspect.proposal.MODES", 3)
    found = propose(frames(1, 1e6, **how), backend="numpy")
    kept = [gain.name for gain in found.gains if gain.kept]
    assert all(name.startswith(expected) for name in kept)
    assert kept
    assert {gain.name.partition("=")[0] for gain in found.gains} == {"blur", "modes"}
    if expected == "blur":
        assert found.blur == pytest.approx(0.8, abs=0.06)
        assert found.modes == 1
        assert f"blur: {found.blur:.2f}" in found.settings("scan.cxi")
    else:
        assert found.blur is None
        assert found.modes == 2
