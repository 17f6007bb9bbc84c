"""Values that are no measurement: found, left out, told of; and noise below zero that must not be
taken for them.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonWarning, reconstruct
from ptychon.data.bad_values import BadValues
from ptychon.data.lazy import Selected
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.data.survey import survey
from ptychon.inspect.trials import subset

RNG = np.random.default_rng(4)
N, SHAPE = 40, (16, 24)
ROWS, COLUMNS = np.indices(SHAPE)
LIGHT = 400 * np.exp(-((ROWS - 8) ** 2 + (COLUMNS - 12) ** 2) / 18)
COUNTS = RNG.poisson(np.broadcast_to(LIGHT, (N, *SHAPE)))
PLACES = RNG.uniform(0, 20, (N, 2))
GOOD = np.ones(SHAPE, bool)
GOOD[5:7], GOOD[12, 3] = False, False


def scan(frames, **more):
    return Dataset(patterns=frames, positions=PLACES[: len(frames)], **more)


def mask_of(data):
    """Mask as the problem has it, in the order of the frames."""
    return np.fft.fftshift(Problem.from_dataset(data).mask, axes=(1, 2))


MARKED = [
    ("u4", 2**32 - 1, "4294967295"),
    ("u4", 2**32 - 2, "4294967294"),
    ("u2", 2**16 - 1, "65535"),
    ("u2", 2**16 - 2, "65534"),
    ("i4", -1, "-1"),
    ("i4", 2**31 - 1, "2147483647"),
    ("i8", 2**32 - 1, "4294967295"),
    ("i2", -2, "-2"),
    ("f4", np.nan, "not finite"),
    ("f4", -np.inf, "not finite"),
    ("f8", -1, "-1"),
    ("f4", -999.0, "-999"),
    ("f4", 2.0**32 - 1, "4294967296"),
    ("u8", 2**64 - 1, "1.844674407e+19"),
]


@pytest.mark.parametrize(("dtype", "mark", "said"), MARKED)
def test_marks_are_masked_in_all_frames_and_told_of(dtype, mark, said):
    frames = COUNTS.astype(dtype)
    frames[:, ~GOOD] = np.array(mark).astype(dtype)
    with pytest.warns(
        PtychonWarning,
        match=f"49 of 384 pixels are bad in all 40 frames and masked: .*{re.escape(said)}",
    ):
        mask = mask_of(scan(frames))
    assert np.array_equal(mask, GOOD[None])


@pytest.mark.parametrize(("dtype", "mark"), [("u2", 65535), ("i4", -1), ("f4", np.nan)])
def test_marks_in_some_frames_leave_the_others(dtype, mark):
    frames = COUNTS.astype(dtype)
    bad = RNG.random(frames.shape) < 0.0005
    frames[bad] = mark
    frames[:, ~GOOD] = mark
    with pytest.warns(
        PtychonWarning,
        match=r"49 of 384 pixels are bad in all 40 frames, and another \d+ in some of 40 frames",
    ):
        mask = mask_of(scan(frames))
    assert np.array_equal(mask, GOOD & ~bad)


def test_counts_without_marks_are_left_alone(recwarn):
    for dtype in ("u1", "u2", "i4", "f4", "f8", bool):
        assert mask_of(scan(np.minimum(COUNTS, 1 if dtype is bool else 254).astype(dtype))).all()
    assert not recwarn.list


@pytest.mark.parametrize("noise", [0.4, 3.0, 20.0])
@pytest.mark.parametrize("dtype", ["i4", "f4", "f8"])
def test_noise_about_a_dark_level_is_no_mark(noise, dtype):
    frames = COUNTS + RNG.normal(0, noise, COUNTS.shape)
    frames = np.rint(frames).astype(dtype) if dtype == "i4" else frames.astype(dtype)
    with pytest.warns(PtychonWarning, match="are negative by noise of"):
        problem = Problem.from_dataset(scan(frames))
    assert problem.mask.all()
    assert BadValues.of(frames).noise == pytest.approx(
        max(noise, 1 if dtype == "i4" else 0), rel=0.15
    )
    # a gap of -1 among the noise is one still
    frames[:, ~GOOD] = -1
    with pytest.warns(PtychonWarning):
        mask = mask_of(scan(frames))
    assert np.array_equal(mask, GOOD[None]) or (
        noise == 0.4 and dtype == "i4"
    )  # there -1 is a value of the noise


def test_rounding_below_zero_is_nothing_to_speak_of(recwarn):
    frames = LIGHT * np.ones((N, 1, 1)) - 1e-9 * RNG.random((N, *SHAPE))
    assert mask_of(scan(frames)).all()
    assert not recwarn.list


def test_what_the_file_says_is_saturated():
    frames = COUNTS.astype("u2")
    with pytest.warns(PtychonWarning, match="above the saturation at 420"):
        mask = mask_of(scan(frames, saturation=420))
    assert np.array_equal(mask, frames <= 420)
    # a gain does not move it, nor does it come back after it
    data = prepare(scan(frames, saturation=420), Preparation(gain=2.0))
    assert np.array_equal(np.isnan(np.asarray(data.patterns)), frames > 420)


@pytest.mark.parametrize(
    ("dtype", "mark"), [("u2", 65535), ("u4", 2**32 - 1), ("i4", -1), ("f4", np.nan), ("i8", -2)]
)
@pytest.mark.parametrize(
    "how",
    [
        {"bin": 2},
        {"dark": 3.0},
        {"gain": 4.0, "bin": 2},
        {"crop": (12, 12), "bin": 3},
        {"flat": 2.0},
    ],
)
@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
def test_marks_stay_marks_whatever_is_done_to_the_frames(dtype, mark, how):
    frames = COUNTS.astype(dtype)
    frames[:, ~GOOD] = mark
    how = {k: np.full(SHAPE, v) if k == "flat" else v for k, v in how.items()}
    masked = prepare(scan(COUNTS.astype(dtype), mask=GOOD), Preparation(**how))
    found = prepare(scan(frames), Preparation(**how))
    assert np.array_equal(mask_of(found), mask_of(masked))
    valid = mask_of(masked)[0]
    assert np.allclose(np.asarray(found.patterns)[:, valid], np.asarray(masked.patterns)[:, valid])


def test_a_subtracted_number_makes_no_marks(recwarn):
    data = prepare(scan(COUNTS.astype("u2")), Preparation(dark=0.3))
    assert mask_of(data).all()
    assert all("negative by noise" in str(w.message) for w in recwarn.list)
    assert (
        BadValues.of(Selected(data.patterns, np.arange(10))).bad(np.asarray(data.patterns[:10]))
        is None
    )


@pytest.mark.parametrize(("dtype", "mark"), [("i4", -1), ("f4", np.nan), ("u4", 2**32 - 1)])
def test_bad_pixels_are_those_without_a_measurement_and_not_hot_ones(dtype, mark):
    frames = COUNTS.astype(dtype)
    frames[:, ~GOOD] = mark
    found = prepare(scan(frames), Preparation(bad_pixels=True))
    assert np.array_equal(found.mask, GOOD)
    counted = found.notes["prepared"]["bad_pixels"]
    assert counted["hot"] == 0
    assert counted["saturated" if dtype == "u4" else "marked"] == 49


@pytest.mark.parametrize(("dtype", "mark"), [("i4", -1), ("f4", np.nan), ("u4", 2**32 - 1)])
def test_a_look_at_the_frames_leaves_them_out(dtype, mark):
    frames = COUNTS.astype(dtype)
    frames[:, ~GOOD] = mark
    look, clean = survey(scan(frames)), survey(scan(COUNTS, mask=GOOD))
    assert np.allclose(look.counts, clean.counts)
    assert np.allclose(look.centres, clean.centres)
    assert look.tally.sentence.startswith("49 of 384 pixels are bad in all 40 frames")


@pytest.mark.filterwarnings("error::ptychon.PtychonWarning")
def test_trials_of_orientations_are_made_without_them():
    frames = COUNTS.astype("f4")
    frames[:, ~GOOD] = np.nan
    part, _ = subset(scan(frames), frames=20)
    assert np.array_equal(part.mask, GOOD)
    assert np.isfinite(part.patterns).all()
    assert np.array_equal(mask_of(part), GOOD[None])


def test_masked_arrays_keep_their_mask():
    hidden = np.broadcast_to(~GOOD, COUNTS.shape)
    same = scan(np.ma.masked_array(COUNTS, hidden))
    assert np.array_equal(same.mask, GOOD)
    assert not isinstance(same.patterns, np.ma.MaskedArray)
    differs = hidden.copy()
    differs[3, 8, 12] = True
    frames = np.ma.masked_array(np.where(differs, 10**6, COUNTS), differs)
    each = scan(frames)
    assert np.array_equal(each.mask, ~differs)
    assert np.array_equal(mask_of(each), ~differs)
    other = np.ones(SHAPE, bool)
    other[0] = False
    assert np.array_equal(scan(frames, mask=other).mask, ~differs & other)
    assert scan(np.ma.masked_array(COUNTS)).mask is None
    far = Problem.from_dataset(each)
    assert far.amplitude.max() == pytest.approx(np.sqrt(COUNTS[~differs].max()), rel=1e-6)


@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
def test_a_mask_a_frame_goes_through_crop_bin_choice_and_turn():
    mask = RNG.random(COUNTS.shape) > 0.05
    data = prepare(scan(COUNTS, mask=mask), Preparation(frames=slice(4, 20), crop=(12, 16), bin=2))
    expected = mask[4:20, 2:14, 4:20].reshape(16, 6, 2, 8, 2).all(axis=(2, 4))
    assert np.array_equal(data.mask, expected)
    assert np.array_equal(mask_of(data), expected)
    look = survey(data)
    assert look.counts[3] == (np.asarray(data.patterns[3]) * expected[3]).sum()


@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
@pytest.mark.parametrize("engine", ["rpie", "dm", "ep"])
def test_engines_do_as_well_without_them_as_with_a_mask(engine):
    """Marks in a gap, values lost here and there and a frame without any: the object is that of the
    masked scan.
    """
    rng = np.random.default_rng(7)
    places = np.stack(np.mgrid[:7, :7], -1).reshape(-1, 2) * 4.0
    shape = (24 + 24, 24 + 24)
    rows, columns = np.indices(shape)
    truth = (0.8 + 0.2 * np.cos(rows / 3)) * np.exp(0.5j * np.sin(columns / 4))
    y, x = np.indices((24, 24)) - 12
    probe = np.exp(-(y**2 + x**2) / 30 + 0.02j * (y**2 + x**2))
    waves = [probe * truth[int(r) : int(r) + 24, int(c) : int(c) + 24] for r, c in places]
    light = (
        np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(waves, axes=(1, 2))), axes=(1, 2))) ** 2
    )
    counts = rng.poisson(2e4 * light / light.sum(axis=(1, 2)).mean())
    bad = rng.random(counts.shape) < 0.01
    bad[:, 10], bad[20] = True, True
    marked = np.where(bad, np.nan, counts).astype("f4")
    start = {"probe": probe * np.sqrt(2e4 / (np.abs(probe) ** 2).sum())}
    how = {"passes": 6, "backend": "reference", "say": None} | start
    results = [
        reconstruct(Dataset(patterns=frames, positions=places, mask=mask), engine, **how)
        for frames, mask in ((marked, None), (counts, ~bad))
    ]
    assert np.array_equal(results[0].object, results[1].object)
    assert np.isfinite(results[0].object).all()
    assert results[0].final_error < 0.2
