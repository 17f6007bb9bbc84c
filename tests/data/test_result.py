"""Light of a result, and data sets of plain lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import Dataset, PtychonError, reconstruct
from ptychon.model.problem import Problem


@pytest.fixture(scope="module")
def half_way():
    """Positions of which every second lies half-way between pixels once it is rounded to
    sixteenths, the last ones too.
    """
    y = np.arange(16) - 8
    probe = (30 * np.exp(-(y[:, None] ** 2 + y**2) / 8.0)).astype(np.complex64)
    grid = np.stack(np.meshgrid(np.arange(5) * 3.0, np.arange(5) * 3.0, indexing="ij"), -1).reshape(
        -1, 2
    )
    grid[1::2] += 0.52
    grid[-1] += 0.52
    frames = np.random.default_rng(0).poisson(3.0, (len(grid), 16, 16)).astype(np.float32)
    return frames, grid, probe


@pytest.mark.parametrize("shift", [0.0, 1.0, 0.5, 0.02])
def test_light_falls_on_the_windows_that_were_used(half_way, shift):
    frames, grid, probe = half_way
    data = Dataset(patterns=frames, positions=grid + shift)
    found = reconstruct(
        data, "pie", epochs=1, probe=probe, backend="reference", judge=False, say=None
    )
    light = np.zeros(found.object.shape)
    for y, x in Problem.from_dataset(data).corners:
        light[y : y + 16, x : x + 16] += np.abs(probe) ** 2
    np.testing.assert_allclose(found.illumination, light, rtol=1e-4)
    # without the windows, as of an older file: the light is all there
    older = replace(found, corners=None).illumination
    assert older.sum() == pytest.approx(light.sum(), rel=1e-4)


def test_frames_of_a_list_or_a_generator(half_way):
    frames, grid, _ = half_way
    for given in (list(frames), tuple(frames), (frame for frame in frames), frames.tolist()):
        data = Dataset(patterns=given, positions=grid.tolist())
        assert data.patterns.shape == frames.shape
        np.testing.assert_array_equal(data.patterns, frames)


def test_lists_that_are_no_frames(half_way):
    frames, grid, _ = half_way
    for wrong, words in (
        ([frames[0], frames[1, :8]], r"one shape; the list has \(16, 16\) and \(8, 16\)"),
        ([], "none at all"),
        (7, "of type int; give an array"),
    ):
        with pytest.raises(PtychonError, match=words):
            Dataset(patterns=wrong, positions=grid)
