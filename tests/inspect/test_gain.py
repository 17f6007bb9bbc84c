"""Dark level, noise and gain of integrating detectors: estimated, suggested, and counts that come
of them.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychon import PtychonError, load
from ptychon.__main__ import main
from ptychon.inspect.gain import find_levels

ROWS, COLUMNS = np.indices((64, 64)) - 32
LIGHT = np.exp(-(ROWS**2 + COLUMNS**2) / (2 * 8**2)) + 1e-3
LIGHT /= LIGHT.sum()


def electrons(dose, frames=64, seed=0):
    rng = np.random.default_rng(seed)
    change = 1 + 0.3 * rng.standard_normal((frames, 1, 1)) * np.exp(-((COLUMNS - 5) ** 2) / 400)
    return rng.poisson(dose * LIGHT * change.clip(0.2))


def measured(counts, dark, noise, gain, seed=1):
    return counts * gain + np.random.default_rng(seed).normal(dark, noise, counts.shape)


@pytest.mark.parametrize("dose", [2e3, 2e4])
@pytest.mark.parametrize(("dark", "noise", "gain"), [(40, 15, 151), (0, 6, 580), (1000, 4, 50)])
def test_peaks_of_single_electrons(dose, dark, noise, gain):
    for frames in (
        measured(electrons(dose), dark, noise, gain),
        np.rint(measured(electrons(dose), dark, noise, gain)),
    ):
        found = find_levels(frames)
        assert found.peaks
        assert found.gain == pytest.approx(gain, rel=0.01)
        assert found.dark == pytest.approx(dark, abs=0.1 * noise)
        assert found.noise == pytest.approx(noise, rel=0.05)


def test_variance_over_mean_where_the_noise_hides_the_peaks():
    for gain, noise in ((10, 3), (2.5, 3)):
        found = find_levels(measured(electrons(2e4), 200, noise, gain))
        assert not found.peaks
        assert found.gain == pytest.approx(gain, rel=0.25)
        assert found.noise == pytest.approx(noise, rel=0.1)


def test_counts_and_noiseless_frames_have_no_levels():
    assert find_levels(electrons(2e4)) is None
    assert find_levels(np.broadcast_to(2e4 * LIGHT, (64, 64, 64))) is None
    assert find_levels(electrons(2e4)[:3]) is None


KNOWN = ["--scan-shape", "8x8", "--step", "80pm", "--pixel-size", "20pm", "--voltage", "300kV"]


@pytest.fixture
def empad(tmp_path, monkeypatch):
    """A file of an EMPAD, and the electrons that are in it."""
    monkeypatch.chdir(tmp_path)
    counts = np.zeros((64, 130, 128))
    counts[:, 32:96, 32:96] = electrons(4e3)
    frames = measured(counts, 40, 15, 151)
    frames.astype("f4").tofile("frames.raw")
    return counts[:, :128]


def test_inspect_suggests_flags_that_make_counts(empad, capsys):
    assert main(["inspect", "frames.raw", *KNOWN, "--json"]) == 0
    advice = next(
        line for line in json.loads(capsys.readouterr().out)["advice"] if "for counts add" in line
    )
    flags = advice.rsplit("for counts add ", 1)[1].split()
    assert flags[::2] == ["--pedestal", "--gain", "--read-noise"]
    assert [float(f) for f in flags[1::2]] == pytest.approx([40, 151, 0.0993], rel=0.02)
    assert main(["inspect", "frames.raw", *KNOWN, *flags, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["frames"]["counts_mean"] == pytest.approx(empad.sum() / 64, rel=0.02)
    assert not any("gain" in line or "read-noise" in line for line in about["advice"])


def test_a_gain_makes_counts_and_no_bias(empad):
    known = {
        "scan_shape": "8x8",
        "step": "80pm",
        "pixel_size": "20pm",
        "pedestal": 40.0,
        "gain": 151.0,
    }
    plain = load("frames.raw", scan_shape="8x8", step="80pm", pixel_size="20pm")
    assert not plain.counting
    for more in ({}, {"read_noise": 0.1}):
        data = load("frames.raw", **known, **more)
        assert data.counting
        total = np.asarray(data.patterns, float).sum() / 64
        assert total == pytest.approx(empad.sum() / 64, abs=5 * 0.1 * 128 / 8)  # 5 standard errors
    assert not load("frames.raw", **known, counting=False).counting
    with pytest.raises(PtychonError, match="no counts"):
        load("frames.raw", **known, read_noise=0.1, counting=False)
    with pytest.raises(PtychonError, match="pedestal and dark"):
        load("frames.raw", **known, dark=3.0)
