"""Phantoms: any size, in range, from a seed, and each with the property it is there for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychon.simulation import phantoms
from ptychon.types import PtychonError


@settings(max_examples=12, deadline=None)
@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("name", phantoms.NAMES)
def test_any_size_and_seed(name: str, shape: tuple[int, int], seed: int) -> None:
    image = phantoms.make(name, shape, seed)
    assert image.shape == shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("name", phantoms.NAMES)
def test_seeds_and_contrast(name: str) -> None:
    first = phantoms.make(name, (128, 96), 1)
    np.testing.assert_array_equal(first, phantoms.make(name, (128, 96), 1))
    assert np.abs(first - phantoms.make(name, (128, 96), 2)).mean() > 0.01
    assert first.max() > 0.95
    assert first.std() > 0.07


def test_star_has_its_spokes() -> None:
    image = phantoms.siemens_star((401, 401), spokes=24)
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    ring = image[
        np.rint(200 + 120 * np.sin(angle)).astype(int),
        np.rint(200 + 120 * np.cos(angle)).astype(int),
    ]
    spectrum = np.abs(np.fft.rfft(ring - ring.mean()))
    assert spectrum.argmax() == 24
    assert image[200, 200] == 0


def test_sparse_and_dense() -> None:
    blobs = phantoms.blobs((256, 256))
    assert 0.8 < np.mean(blobs == 0) < 0.97
    field = phantoms.complex_object(blobs, phantoms.texture((256, 256)), amplitude_range=(0, 1))
    np.testing.assert_array_equal(field == 0, blobs == 0)
    assert np.mean(phantoms.texture((256, 256)) == 0) < 0.01


def test_texture_has_the_spectrum_of_natural_images() -> None:
    image = np.mean(
        [np.abs(np.fft.fft2(phantoms.texture((256, 256), s) - 0.5)) ** 2 for s in range(3)], axis=0
    )
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    edges = np.geomspace(4 / 256, 0.4, 9)
    power = [image[(f >= a) & (f < b)].mean() for a, b in pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(power), 1)[0]
    assert -3.2 < slope < -1.5


def test_complex_object_maps_ranges() -> None:
    a, b = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    field = phantoms.complex_object(a, b, amplitude_range=(0.25, 0.75), phase_range=(-0.5, 1.5))
    assert field.dtype == np.complex64
    np.testing.assert_allclose(np.abs(field), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(np.angle(field), [[1.5, -0.5]], rtol=1e-6)


def test_bad_phantoms() -> None:
    with pytest.raises(PtychonError, match="did you mean 'siemens_star'"):
        phantoms.make("siemens-star", (8, 8))
    with pytest.raises(PtychonError, match="Known: siemens_star, cell"):
        phantoms.make("zzz", (8, 8))
    with pytest.raises(PtychonError, match="scale it to"):
        phantoms.complex_object(np.full((2, 2), 200.0), np.zeros((2, 2)))
    with pytest.raises(PtychonError, match="scale it to"):
        phantoms.complex_object(np.zeros((2, 2)), np.full((2, 2), np.nan))
    with pytest.raises(PtychonError, match="the same"):
        phantoms.complex_object(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(PtychonError, match="rows, columns"):
        phantoms.cell((0, 5))
