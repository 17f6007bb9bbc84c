"""Frames from the arrays of other packages, in memory and on disk."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, load
from ptychon.__main__ import main
from ptychon.data.lazy import Frames

rng = np.random.default_rng(2)
FRAMES = rng.poisson(20.0, (12, 16, 20)).astype(np.uint16)
PLACES = np.stack(np.mgrid[:3, :4], -1).reshape(-1, 2) * 3.0


def kind(name, frames, folder):
    if name == "list":
        return list(frames)
    if name == "lists":
        return frames.tolist()
    if name == "memmap":
        np.save(folder / "a.npy", frames)
        return np.load(folder / "a.npy", mmap_mode="r")
    if name == "h5py":
        file = h5py.File(folder / "a.h5", "w")
        file["d"] = frames
        return file["d"]
    module = pytest.importorskip(name)
    if name == "dask":
        array = pytest.importorskip("dask.array")
        return array.from_array(frames, chunks=(2, *frames.shape[1:]))
    if name == "zarr":
        return module.array(frames, chunks=(2, *frames.shape[1:]))
    return module.DataArray(frames)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("name", ["list", "lists", "memmap", "h5py", "dask", "zarr", "xarray"])
def test_every_kind_of_array(tmp_path, name, grid):
    frames = FRAMES.reshape(3, 4, 16, 20) if grid else FRAMES
    data = Dataset(patterns=kind(name, frames, tmp_path), positions=PLACES)
    assert len(data) == 12
    assert data.frame_shape == (16, 20)
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    # in any order, which not all of them can
    order = np.array([7, 0, 11, 0])
    some = data.select(order)
    assert np.array_equal(np.asarray(some.patterns), FRAMES[order])
    amplitude = np.fft.fftshift(Problem.from_dataset(data).amplitude, axes=(1, 2))
    np.testing.assert_allclose(amplitude.astype(float) ** 2, FRAMES, atol=1e-4)
    if name not in ("list", "lists", "memmap"):
        assert isinstance(data.patterns, Frames)  # nothing was read when the data set was made


def store(path, zarr):
    group = zarr.open_group(str(path), mode="w")
    arrays = {
        "scan/patterns": (FRAMES, (2, 16, 20)),
        "scan/positions_um": (PLACES * 0.1, PLACES.shape),
        "pixel_size": (np.array([1e-7, 1e-7]), (2,)),
    }
    for name, (array, chunks) in arrays.items():
        made = group.create_dataset(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
        made[...] = array
    group["pixel_size"].attrs["units"] = "m"
    return path


def test_a_store_on_disk(tmp_path, capsys):
    zarr = pytest.importorskip("zarr")
    path = store(tmp_path / "scan.zarr", zarr)
    data = load(path)
    assert data.notes["format"] == "Zarr store"
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(data.patterns[[9, 1]], FRAMES[[9, 1]])
    np.testing.assert_allclose(data.positions, PLACES * 1e-7)
    assert data.pixel_size == (1e-7, 1e-7)
    again = pickle.loads(pickle.dumps(data.patterns))
    assert np.array_equal(again[3:5], FRAMES[3:5])
    assert np.array_equal(np.asarray(load(path, data_path="scan/patterns").patterns), FRAMES)
    assert main(["inspect", str(path)]) == 0
    assert "Zarr store" in " ".join(capsys.readouterr().out.split())


def test_a_store_that_is_one_array(tmp_path):
    zarr = pytest.importorskip("zarr")
    grid = FRAMES.reshape(3, 4, 16, 20)
    how = {"shape": grid.shape, "dtype": grid.dtype, "chunks": (1, 3, 16, 20)}
    made = zarr.open(str(tmp_path / "a.zarr"), mode="w", **how)
    made[...] = grid
    data = load(tmp_path / "a.zarr", step="1um", pixel_size="100nm")
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(data.patterns[3:9], FRAMES[3:9])
    np.testing.assert_allclose(data.positions, PLACES / 3 * 1e-6)


def test_a_damaged_store_is_one_sentence(tmp_path):
    pytest.importorskip("zarr")
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / ".zarray").write_text("{")
    with pytest.raises(PtychonError, match="damaged Zarr store"):
        load(folder)
