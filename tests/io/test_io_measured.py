"""The measured sets, where they are at hand: PTYCHON_TEST_DATA names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem
from ptychon.io import load, write_dataset

FOLDER = Path(os.environ.get("PTYCHON_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="PTYCHON_TEST_DATA names no folder")


def test_siemens_star_far_field_in_pixels():
    data = load(FOLDER / "siemens_star_xray" / "siemens_star.npz")
    assert data.patterns.shape == (516, 128, 128)
    assert data.patterns.dtype == np.uint16
    assert data.pixel_size is None
    assert data.wavelength is None
    assert data.probe.shape == (1, 128, 128)
    assert np.allclose(data.positions[0], (167.57963562, -159.73396301))
    assert Problem.from_dataset(data).object_shape == (461, 458)


def test_siemens_star_near_field(tmp_path):
    (path,) = (FOLDER / "siemens_star_nearfield").glob("*.cxi")
    data = load(path, geometry="near", focus_distance="3.65mm")
    assert data.patterns.shape == (200, 100, 100)
    assert data.magnification == pytest.approx(307.85, rel=1e-5)
    assert data.pixel_size == pytest.approx((178.66e-9,) * 2, rel=1e-4)
    assert data.wavelength == pytest.approx(0.9794912e-10)
    assert data.distance == 1.12
    assert int((~data.mask).sum()) == 5
    # rows follow +y and columns +x of the translations
    assert np.allclose(data.positions[0], (-3.8399612e-05, -5.3400032e-05))
    assert np.ptp(data.positions, axis=0) == pytest.approx((1.9047e-5, 2.0158e-5), rel=1e-4)
    write_dataset(tmp_path / "copy.cxi", data)
    copy = load(tmp_path / "copy.cxi")
    assert copy.pixel_size == data.pixel_size
    assert np.array_equal(copy.positions, data.positions)
    assert np.array_equal(copy.patterns[7], data.patterns[7])


def test_electrons():
    (path,) = (FOLDER / "rotavirus_electron").glob("*.h5")
    flags = {
        "scan_shape": "40x40",
        "step": "31.25A",
        "rotation": "-126deg",
        "voltage": "300kV",
        "semi_angle": "1.03mrad",
        "defocus": "13.5um",
    }
    for given in ({}, flags):
        data = load(path, **given)
        assert data.patterns.shape == (1600, 128, 128)
        assert data.pixel_size == (9.3e-10, 9.3e-10)
        assert data.wavelength == pytest.approx(1.96875e-12, rel=1e-5)
        t, step = np.deg2rad(-126), 31.25e-10
        for j, (s, f) in ((1, (0, 1)), (40, (1, 0)), (1599, (39, 39))):
            row, col = (
                step * (s * np.cos(t) - f * np.sin(t)),
                step * (s * np.sin(t) + f * np.cos(t)),
            )
            assert np.allclose(data.positions[j], (row, col), atol=1e-18)
        # first probe: aperture(k) exp(-i pi |k|^2 C1/wavelength), C1 = -13.5 um, k in radians
        k = (np.arange(128) - 64) * 1.96875e-12 / (128 * 9.3e-10)
        k2 = k[:, None] ** 2 + k[None, :] ** 2
        pupil = (k2 <= 1.03e-3**2) * np.exp(1j * np.pi * k2 * 13.5e-6 / 1.96875e-12)
        probe = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(pupil)))
        overlap = (
            abs(np.vdot(probe, data.probe[0]))
            / np.linalg.norm(probe)
            / np.linalg.norm(data.probe[0])
        )
        assert overlap > 0.95
