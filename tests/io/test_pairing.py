"""Frames and positions that are not equally many, amplitudes, and frames that were
never measured.
"""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest

from ptychon import Dataset, PtychonError, PtychonWarning, load
from ptychon.data.blank import FILL, MEASURED, ZERO, blank_frames
from ptychon.inspect.file import inspect
from ptychon.inspect.trials import subset
from ptychon.model.problem import Problem

r = np.random.default_rng(0)
ROWS, COLUMNS = 5, 6
PLACES = np.stack(np.mgrid[:ROWS, :COLUMNS], -1).reshape(-1, 2) * 3 + r.uniform(-0.4, 0.4, (30, 2))
FRAMES = r.poisson(5.0, (30, 16, 16)).astype(np.uint16)


def saved(tmp_path, frames, places=PLACES, **more):
    np.savez(
        tmp_path / "a.npz",
        frames=frames,
        **({} if places is None else {"positions_px": places}),
        **more,
    )
    return tmp_path / "a.npz"


def test_frames_are_chosen_before_they_are_counted(tmp_path):
    stopped = saved(tmp_path, FRAMES[:20])
    with pytest.raises(PtychonError, match=r"20 frames for 30 positions.*--frames 0:20"):
        load(stopped)
    data = load(stopped, frames="0:20")
    assert np.array_equal(data.positions, PLACES[:20])
    assert np.array_equal(load(stopped, frames="5:9").positions, PLACES[5:9])
    dark = saved(tmp_path, np.concatenate([FRAMES[:1] * 0, FRAMES]))
    with pytest.raises(
        PtychonError, match=r"31 frames for 30 positions; the first frame is dark.*--frames 1:"
    ):
        load(dark)
    data = load(dark, frames="1:")
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(data.positions, PLACES)
    assert data.notes["prepared"]["frames"].startswith("1:")
    with pytest.raises(PtychonError, match=r"last 2 frames are dark.*--frames 0:30"):
        load(saved(tmp_path, np.concatenate([FRAMES, FRAMES[:2] * 0])))
    with pytest.raises(PtychonError, match=r"--frames 3: or the last with --frames 0:30"):
        load(saved(tmp_path, np.concatenate([FRAMES, FRAMES[:3]])))
    with pytest.raises(PtychonError, match=r"leave 1; at least 2"):
        load(stopped, frames="0:1")


def test_a_mask_a_frame_follows(tmp_path):
    mask = np.ones((31, 16, 16), bool)
    mask[4, 2, 2] = False
    data = load(saved(tmp_path, np.concatenate([FRAMES[:1] * 0, FRAMES]), mask=mask), frames="1:")
    assert not data.mask[3, 2, 2]
    assert data.mask.sum() == mask[1:].sum()


@pytest.mark.parametrize("more", [1, 2])
@pytest.mark.parametrize("end", [True, False])
def test_frames_while_the_beam_flies_back(tmp_path, more, end):
    rows = FRAMES.reshape(ROWS, COLUMNS, 16, 16)
    wide = np.concatenate(
        [rows, rows[:, :more] // 2] if end else [rows[:, :more] // 2, rows], axis=1
    )
    drop = more if end else -more
    listed = saved(tmp_path, wide.reshape(-1, 16, 16))
    with pytest.raises(
        PtychonError, match=rf"each of the 5 rows.*--drop-columns {more}.*--drop-columns -{more}"
    ):
        load(listed)
    data = load(listed, drop_columns=drop)
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(data.positions, PLACES)
    raster = {"step": "2nm", "pixel_size": "1nm"}
    block = saved(tmp_path, wide, None)
    with pytest.raises(PtychonError, match=rf"scan shape 5x6 is 30 points.*--drop-columns {more}"):
        load(block, scan_shape="5x6", **raster)
    for shape in ("5x6", None):  # the file knows the shape with those columns
        data = load(block, drop_columns=drop, scan_shape=shape, **raster)
        assert np.array_equal(np.asarray(data.patterns), FRAMES)
        step = np.diff(data.positions.reshape(ROWS, COLUMNS, 2), axis=1)
        assert np.allclose(step, [0, 2e-9])
    with pytest.raises(PtychonError, match="do not fit"):
        load(listed if listed.exists() else block, drop_columns=7, scan_shape="5x6", **raster)


def test_amplitudes(tmp_path):
    for dtype in ("f4", "f8"):
        path = saved(tmp_path, np.sqrt(FRAMES).astype(dtype))
        with pytest.warns(PtychonWarning, match="squares are.*--intensities"):
            data = load(path)
        assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(
        np.asarray(load(path, amplitudes=False).patterns), np.sqrt(FRAMES).astype(dtype)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(load(path, amplitudes=True).patterns), FRAMES)
        for counts in (
            FRAMES,
            FRAMES.astype("f4"),
            FRAMES * 0.7,
            FRAMES + r.normal(0, 0.1, FRAMES.shape),
        ):  # none of them
            assert np.array_equal(np.asarray(load(saved(tmp_path, counts)).patterns), counts)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/magnitude"], file["positions_px"] = np.sqrt(FRAMES) * 0.7, PLACES
    with pytest.warns(PtychonWarning, match="called magnitude.*--amplitudes"):
        load(tmp_path / "a.h5")
    assert np.allclose(
        np.asarray(load(tmp_path / "a.h5", amplitudes=True).patterns), FRAMES * 0.49, rtol=1e-6
    )


def test_which_frames_are_blank():
    block = np.stack(
        [np.full((4, 4), value) for value in (0, 3.0, -1, np.nan, np.inf)] + [np.eye(4)]
    )
    assert blank_frames(block).tolist() == [ZERO, MEASURED, FILL, FILL, FILL, MEASURED]
    counts = np.full((2, 4, 4), 2**32 - 1, np.uint32)
    counts[1, 2, 2] = 7
    assert blank_frames(counts).tolist() == [FILL, MEASURED]
    mask = np.ones((4, 4), bool)
    mask[2, 2] = False
    assert blank_frames(counts, mask).tolist() == [FILL, FILL]
    assert blank_frames(counts, np.stack([mask, ~mask])).tolist() == [FILL, MEASURED]


@pytest.mark.parametrize("fill", [0, 2**16 - 1])
@pytest.mark.parametrize("done", [22, 10])
def test_a_scan_in_progress_is_what_there_is(tmp_path, fill, done):
    frames = FRAMES.copy()
    frames[done:] = fill
    data = load(saved(tmp_path, frames))
    with pytest.warns(
        PtychonWarning, match=rf"{30 - done} of 30 frames are empty \(first: frame {done}\)"
    ):
        problem = Problem.from_dataset(data)
    alone = Problem.from_dataset(Dataset(patterns=FRAMES[:done], positions=PLACES[:done]))
    assert np.array_equal(problem.amplitude, alone.amplitude)
    assert np.array_equal(problem.corners, alone.corners)
    assert problem.object_shape == alone.object_shape
    assert len(data.measured()) == done
    about = inspect(tmp_path / "a.npz")
    assert about["frames"]["empty"] == 30 - done
    assert about["frames"]["counts_mean"] == pytest.approx(FRAMES[:done].sum(axis=(1, 2)).mean())
    assert about["frames"]["saturated"] == 0
    part, held = subset(data)
    assert len(part) == len(held) == done


def test_frames_without_a_count_are_kept_where_counts_are_few():
    few = np.zeros((200, 8, 8), int)
    few.reshape(200, -1)[:, 9] = r.poisson(1.0, 200)  # a third of them have none
    problem = Problem.from_dataset(Dataset(patterns=few, positions=r.uniform(0, 20, (200, 2))))
    assert len(problem) == 200
