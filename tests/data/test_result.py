"""Light of a result, and data sets of plain lists."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychon import Dataset, PtychonError, Result, reconstruct
from ptychon.model.problem import Problem
from ptychon.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


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
        data, "pie", passes=1, probe=probe, backend="reference", judge=False, say=None
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


@pytest.fixture
def small():
    return Result(
        object=np.full((12, 12), 1 + 2j, np.complex64),
        probe=np.ones((1, 8, 8), np.complex64),
        errors=np.array([0.5, 0.25], np.float32),
        final_error=0.125,
        positions=np.full((4, 2), 5.5),
        engine="rpie",
        passes=2,
        options={"cool_from": None, "object_reg": 0.25},
    )


def test_results_save_and_load_themselves(small, tmp_path):
    small.save(tmp_path / "r.h5")
    again = Result.load(tmp_path / "r.h5")
    assert np.array_equal(again.object, small.object)
    assert (again.engine, again.passes, again.final_error) == ("rpie", 2, 0.125)
    assert dict(again.options) == {"cool_from": None, "object_reg": 0.25}
    with pytest.raises(PtychonError, match=r"nowhere"):
        small.save(tmp_path / "nowhere" / "r.h5")
    with pytest.raises(PtychonError, match="no such file"):
        Result.load(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("number", "which"), [(None, "an earlier"), (1, "an earlier"), (99, "a later")]
)
def test_files_of_another_format_are_refused(small, tmp_path, number, which):
    """Names of engines and options have changed: such a file is no result of this version."""
    path = tmp_path / "old.h5"
    state = {"object": small.object, "probe": small.probe, "epoch": 2}
    checkpoint = Checkpoint(
        engine="rpie", options={}, state=state, errors=small.errors, passes=2, planned=4
    )
    for write, read in (
        (lambda: small.save(path), Result.load),
        (lambda: save_checkpoint(path, checkpoint), load_checkpoint),
    ):
        write()
        read(path)
        with h5py.File(path, "r+") as file:
            if number is None:
                del file.attrs["ptychon_format"]
            else:
                file.attrs["ptychon_format"] = number
        with pytest.raises(
            PtychonError, match=f"written by {which} version .*run the recon"
        ) as error:
            read(path)
        assert str(path) in str(error.value)
