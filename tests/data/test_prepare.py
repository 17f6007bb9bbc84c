"""Crop, bin, corrections, bad pixels: what becomes of frames, mask, scale and probe."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from ptychon import Dataset, PtychonError
from ptychon.data.lazy import Derived, Frames, Selected, Stacked, transposed
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import parse_slice, prepare
from ptychon.data.survey import cell_area, centre_of_mass, electron_dose, find_bad_pixels, survey
from ptychon.io import load, write_dataset

rng = np.random.default_rng(0)
PLACES = rng.uniform(-20, 20, (6, 2))


def scan(frames, **more):
    return Dataset(
        patterns=frames, positions=PLACES * (1e-6 if "wavelength" in more else 1), **more
    )


def test_lazy_stacks_index_like_arrays():
    stack = rng.integers(0, 9, (6, 5, 7)).astype("u2")
    index = np.array([4, 4, 0, 5])
    for lazy, plain in (
        (Selected(stack, index), stack[index]),
        (Stacked([stack[:2], stack[2:3], stack]), np.concatenate([stack[:3], stack])),
        (Derived(stack, transposed, (7, 5), "u2"), stack.swapaxes(1, 2)),
    ):
        assert isinstance(lazy, Frames)
        for key in (
            0,
            -1,
            slice(1, 4),
            slice(None, None, 2),
            np.array([2, 0]),
            (slice(0, 2), 1),
            slice(3, 3),
        ):
            assert np.array_equal(lazy[key], plain[key])
        assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(lazy))), plain)
    with pytest.raises(PtychonError, match="different shapes"):
        Stacked([stack, stack[:, 1:]])


def test_bin_sums_counts_and_masks_strictly():
    frames = rng.integers(0, 200, (6, 12, 16)).astype("u1")
    mask = np.ones((12, 16), bool)
    mask[5, 5] = False
    data = scan(frames, mask=mask, wavelength=1e-10, distance=2.0, detector_pixel_size=(1e-4, 2e-4))
    small = prepare(data, Preparation(bin=2))
    assert np.array_equal(
        np.asarray(small.patterns), frames.reshape(6, 6, 2, 8, 2).sum(axis=(2, 4))
    )
    assert small.patterns.dtype == np.uint32
    assert np.array_equal(np.argwhere(~small.mask), [[2, 2]])
    assert small.detector_pixel_size == (2e-4, 4e-4)
    assert small.pixel_size == pytest.approx(data.pixel_size)
    # the pixel of the object that is derived from the new detector is the same
    again = Dataset(
        patterns=small.patterns,
        positions=small.positions,
        wavelength=1e-10,
        distance=2.0,
        detector_pixel_size=small.detector_pixel_size,
    )
    assert again.pixel_size == pytest.approx(small.pixel_size)
    assert small.notes["prepared"]["bin"] == 2


def test_crop_changes_the_scale_and_pads_with_masked_pixels():
    frames = rng.integers(0, 200, (6, 12, 16)).astype("u2")
    data = scan(frames, wavelength=1e-10, distance=2.0, detector_pixel_size=1e-4)
    cut = prepare(data, Preparation(crop=(6, 8)))
    assert np.array_equal(np.asarray(cut.patterns), frames[:, 3:9, 4:12])
    assert cut.pixel_size == pytest.approx((data.pixel_size[0] * 2, data.pixel_size[1] * 2))
    assert cut.mask is None
    off = prepare(data, Preparation(centre=(2, 8)))
    assert np.array_equal(np.asarray(off.patterns)[:, 6, 8], frames[:, 2, 8])
    assert np.array_equal(off.mask.any(axis=1), np.arange(12) >= 4)
    assert (np.asarray(off.patterns)[:, ~off.mask] == 0).all()
    pixels = prepare(scan(frames), Preparation(crop=(6, 8)))
    assert np.allclose(pixels.positions, PLACES / 2)
    near = prepare(scan(frames, geometry="near", pixel_size=1e-6), Preparation(crop=(8, 8), bin=2))
    assert near.pixel_size == (2e-6, 2e-6)
    for wrong in (
        {"crop": (99, 99)},
        {"bin": 5},
        {"centre": (100, 100), "crop": (4, 4)},
        {"crop": (3, 3)},
    ):
        with pytest.raises(PtychonError):
            prepare(data, Preparation(**wrong))


def test_the_centre_is_found():
    rows, columns = np.indices((32, 32))
    blob = 100 * np.exp(-((rows - 12.3) ** 2 + (columns - 20.1) ** 2) / 8)
    data = scan(rng.poisson(blob + 2, (6, 32, 32)))
    assert centre_of_mass(survey(data).mean) == pytest.approx((12.3, 20.1), abs=0.4)
    cut = prepare(data, Preparation(centre="auto", crop=(16, 16)))
    assert np.unravel_index(np.asarray(cut.patterns).sum(axis=0).argmax(), (16, 16)) == (8, 8)
    with pytest.raises(PtychonError, match="no centre of mass"):
        centre_of_mass(np.ones((8, 8)))


def test_the_first_probe_follows():
    rows, columns = np.indices((32, 32)) - 16
    probe = np.exp(-(rows**2 + columns**2) / 20 + 0.3j * rows).astype("c8")
    frames = np.broadcast_to((np.abs(np.fft.fftshift(np.fft.fft2(probe))) ** 2), (6, 32, 32))
    for options, extent in (
        ({"crop": (16, 16)}, 16),
        ({"bin": 2}, 16),
        ({"crop": (24, 24), "bin": 2}, 12),
    ):
        new = prepare(scan(frames, probe=probe), Preparation(**options))
        assert new.probe.shape == (1, extent, extent)
        model = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(new.probe[0])))) ** 2
        measured = np.asarray(new.patterns[0])
        assert np.corrcoef(model.ravel(), measured.ravel())[0, 1] > 0.98
        assert np.sum(np.abs(new.probe) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2), rel=1e-4)


def test_corrections():
    frames = rng.integers(10, 200, (6, 8, 8)).astype("u2")
    dark, flat = rng.uniform(0, 9, (8, 8)), rng.uniform(0.5, 2, (8, 8))
    flat[0, 0] = 0
    data = prepare(scan(frames), Preparation(dark=dark, flat=flat, background=1.0, gain=2.0))
    inside = flat > 0
    relative = np.where(inside, flat / flat[inside].mean(), 1)
    expected = (frames - dark) / relative / 2
    assert data.background == 1.0  # told, not subtracted
    plain = prepare(replace(scan(frames), counting=False), Preparation(dark=dark, background=1.0))
    assert plain.background is None
    assert np.allclose(np.asarray(plain.patterns), frames - dark - 1, rtol=1e-5, atol=1e-5)
    assert np.allclose(np.asarray(data.patterns)[:, inside], expected[:, inside], rtol=1e-5)
    assert np.array_equal(data.mask, inside)
    assert data.patterns.dtype == np.float32
    with pytest.raises(PtychonError, match=r"the dark has shape \(4, 4\)"):
        prepare(scan(frames), Preparation(dark=np.ones((4, 4))))


def test_bad_pixels_are_found_and_light_is_not_taken_for_one():
    rows, columns = np.indices((24, 24)) - 12
    mean = 50 * np.exp(-(rows**2 + columns**2) / 18) + 2
    frames = rng.poisson(mean, (60, 24, 24)).astype("u2")
    frames[:, 3, 4] = 400
    frames[:, 12, 10] = 0
    frames[7, 20, 20] = 65535
    data = Dataset(patterns=frames, positions=rng.uniform(0, 30, (60, 2)))
    found = prepare(data, Preparation(bad_pixels=True))
    assert found.notes["prepared"]["bad_pixels"] == {
        "hot": 1,
        "dead": 1,
        "saturated": 1,
        "marked": 0,
    }
    assert np.array_equal(np.argwhere(~found.mask), [[3, 4], [12, 10], [20, 20]])
    clean = frames.copy()
    clean[:, 3, 4], clean[:, 12, 10], clean[7, 20, 20] = 2, 40, 3
    untouched = prepare(
        Dataset(patterns=clean, positions=data.positions), Preparation(bad_pixels=True)
    )
    assert untouched.mask is None
    focused = np.zeros((24, 24))
    focused[12, 12], focused[11:14, 11:14] = 900, 300
    assert not find_bad_pixels(focused, focused, None).any.any()


def test_positions_are_turned_and_frames_chosen():
    frames = rng.integers(0, 9, (6, 8, 8)).astype("u1")
    turned = prepare(scan(frames), Preparation(scan_rotation=np.pi / 2, scan_sign=(1, -1)))
    assert np.allclose(turned.positions, np.column_stack([PLACES[:, 1], PLACES[:, 0]]))
    some = prepare(scan(frames), Preparation(frames=parse_slice("1::2")))
    assert np.array_equal(some.patterns, frames[1::2])
    assert np.array_equal(some.positions, PLACES[1::2])
    for wrong in ("a", "1:2:3:4", "::0"):
        with pytest.raises(PtychonError, match="first:last"):
            parse_slice(wrong)
    with pytest.raises(PtychonError, match="leave 1"):
        prepare(scan(frames), Preparation(frames=slice(0, 1)))


def test_dose():
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(5), indexing="ij"), -1).reshape(-1, 2) * 3.0
    assert cell_area(grid) == pytest.approx(9)
    assert cell_area(grid[:5]) == 0
    electrons = Dataset(
        patterns=np.ones((35, 8, 8), "u1"),
        positions=grid * 1e-10,
        wavelength=2e-12,
        pixel_size=1e-10,
    )
    assert electron_dose(electrons, 64.0) == pytest.approx(64 / 9)
    assert electron_dose(scan(np.ones((6, 8, 8)), wavelength=1e-10, pixel_size=1e-9), 64.0) is None


def test_load_prepares_and_records(tmp_path):
    frames = rng.integers(0, 200, (6, 12, 16)).astype("u2")
    write_dataset(tmp_path / "a.cxi", scan(frames, pixel_size=1e-7, wavelength=1e-10))
    np.save(tmp_path / "dark.npy", np.full((3, 12, 16), 2.0))
    options = {
        "crop": "8x8",
        "bin": "2",
        "dark": str(tmp_path / "dark.npy"),
        "centre": "6,8",
        "frames": "0:4",
        "scan_rotation": "90deg",
        "scan_sign": "-+",
        "bad_pixels": True,
        "saturation": "60000",
    }
    data = load(tmp_path / "a.cxi", **options)
    assert data.patterns.shape == (4, 4, 4)
    expected = (frames[:4, 2:10, 4:12] - 2.0).reshape(4, 4, 2, 4, 2).sum(axis=(2, 4))
    assert np.allclose(np.asarray(data.patterns), expected)
    assert data.notes["prepared"]["crop"] == [8, 8]
    write_dataset(tmp_path / "b.cxi", data)
    again = load(tmp_path / "b.cxi")
    assert again.notes == data.notes
    assert np.array_equal(np.asarray(again.patterns), np.asarray(data.patterns))
    for wrong in (
        {"crop": "x"},
        {"bin": 1.5},
        {"centre": "1"},
        {"frames": "a"},
        {"scan_sign": "?"},
        {"bad_pixels": 3},
        {"dark": "no such file"},
        {"gain": -1},
        {"scan_rotation": 90},
    ):
        with pytest.raises(PtychonError):
            load(tmp_path / "a.cxi", **wrong)
