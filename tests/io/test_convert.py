"""Round trips through the formats of others, and what each of them cannot hold."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import h5py
import numpy as np
import pytest
from test_io_formats import COUNTS, PLACES, assert_same, result

from ptychon import Dataset, PtychonError, Result
from ptychon.io import (
    convert,
    load,
    load_result,
    save_result,
    write_dataset,
    write_result,
    write_scan,
)

rng = np.random.default_rng(1)
SQUARE = rng.poisson(3.0, (6, 8, 8)).astype(np.uint16)


def scan(**more):
    known = {
        "wavelength": 1e-10,
        "distance": 2.0,
        "detector_pixel_size": 1e-4,
        "mask": SQUARE[0] < 6,
    } | more
    return Dataset(patterns=SQUARE, positions=PLACES * 1e-6, **known)


@pytest.mark.parametrize("suffix", ["cxi", "h5", "npz", "mat", "hdf5", "npy", "tif"])
def test_scans_survive(tmp_path, suffix):
    data = scan(probe=(rng.standard_normal((2, 8, 8)) + 1j).astype("c8"))
    write_dataset(tmp_path / "a.cxi", data)
    done = convert(tmp_path / "a.cxi", tmp_path / f"b.{suffix}")
    assert done.kind == "scan"
    assert done.files[0].endswith(suffix)
    given = {}
    if suffix in ("npy", "tif"):
        given = {
            "positions_path": done.files[1],
            "wavelength": 1e-10,
            "distance": 2.0,
            "detector_pixel_size": 1e-4,
        }
    back = load(tmp_path / f"b.{suffix}", **given)
    assert np.array_equal(np.asarray(back.patterns), SQUARE)
    assert back.patterns.dtype == np.uint16
    shift = back.positions - data.positions
    assert np.allclose(shift, shift[0], atol=1e-18)
    assert back.pixel_size == pytest.approx(data.pixel_size)
    for name in ("mask", "probe"):
        same = np.array_equal(getattr(back, name), getattr(data, name))
        assert same or name in done.lost, name
    assert done.lost == [] or suffix not in ("cxi", "h5")


def test_a_scan_in_pixels_and_near_field_survive(tmp_path):
    pixels = Dataset(patterns=COUNTS, positions=PLACES, object_shape=(70, 80), counting=False)
    near = scan(geometry="near", focus_distance=0.1)
    for suffix in ("npz", "mat", "cxi"):
        for k, data in enumerate((pixels, near)):
            path = tmp_path / f"{k}.{suffix}"
            write_scan(path, data)
            back = load(path)
            assert np.allclose(back.positions, data.positions)
            for name in ("geometry", "object_shape", "counting", "pixel_size", "focus_distance"):
                assert getattr(back, name) == pytest.approx(getattr(data, name)) or getattr(
                    back, name
                ) == getattr(data, name)
    with pytest.raises(PtychonError, match="PtyLab needs wavelength"):
        write_scan(tmp_path / "a.hdf5", pixels)
    with pytest.raises(PtychonError, match="a reconstruction, and this is a scan"):
        write_scan(tmp_path / "a.ptyr", pixels)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("b.ptyr", None),
        ("b.hdf5", "ptylab"),
        ("b.h5", "ptychodus"),
        ("b.npz", "ptychodus"),
        ("b.npz", None),
        ("b.mat", None),
    ],
)
def test_results_survive(tmp_path, name, format):
    known = {"wavelength": 1e-10, "distance": 2.0, "name": "x"}
    one = result(pixel_size=(2e-9, 2e-9), settings=known, errors=np.array([0.5, 0.25], "f4"))
    save_result(tmp_path / "a.h5", one)
    done = convert(tmp_path / "a.h5", tmp_path / name, format)
    assert done.kind == "reconstruction"
    assert any("settings" in item for item in done.lost)
    back = load_result(tmp_path / name)
    assert np.array_equal(back.object, one.object)
    assert np.array_equal(back.probe, one.probe)
    assert np.allclose(back.positions, one.positions, atol=1e-5)
    assert back.pixel_size == pytest.approx(one.pixel_size)
    if not any("origin" in item for item in done.lost):
        assert back.origin == pytest.approx(one.origin)
    if format is not None or name.endswith("ptyr"):
        assert back.settings["wavelength"] == pytest.approx(1e-10)
    convert(tmp_path / name, tmp_path / "c.h5")
    again = load_result(tmp_path / "c.h5")
    assert_same(
        dataclasses.replace(again, final_error=0.0), dataclasses.replace(back, final_error=0.0)
    )
    with pytest.raises(PtychonError, match=r"reconstruction|product|no frames"):
        load(tmp_path / name)


def test_an_odd_object_keeps_its_place_in_a_product(tmp_path):
    one = result(object=np.ones((91, 80), "c8"), pixel_size=None, origin=(0.0, 0.0))
    assert any("scale" in item for item in write_result(tmp_path / "a.h5", one, "ptychodus"))
    with h5py.File(tmp_path / "a.h5") as file:
        y = (file["probe_position_y_m"][()] - file["object"].attrs["center_y_m"]) + 91 / 2
    assert np.allclose(y - 8 / 2, one.positions[:, 0] - 8 // 2)  # the corner of the window


def test_pictures(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    one = result()
    save_result(tmp_path / "a.h5", one)
    assert any("probe" in item for item in convert(tmp_path / "a.h5", tmp_path / "b.tif").lost)
    pages = tifffile.imread(tmp_path / "b.tif")
    assert pages.shape == (3, 90, 80)
    assert np.allclose(pages[0], np.abs(one.object))


def test_products_and_their_frames_are_joined_on_the_index(tmp_path):
    one = result(
        positions=PLACES + 40,
        pixel_size=(1e-9, 1e-9),
        settings={"wavelength": 1e-10, "distance": 1.0},
    )
    order = np.array([4, 2, 9, 0, 3])
    for suffix in ("h5", "npz"):
        product, frames = tmp_path / f"product.{suffix}", tmp_path / f"frames.{suffix}"
        write_result(product, one, "ptychodus")
        bad = np.zeros((8, 10), bool)
        bad[1, 2] = True
        if suffix == "h5":
            with h5py.File(frames, "w") as file:
                file["patterns"], file["indexes"], file["bad_pixels"] = COUNTS[:5], order, bad
        else:
            np.savez(frames, patterns=COUNTS[:5], indexes=order, bad_pixels=bad)
        with pytest.raises(PtychonError, match="--data-path"):
            load(product)
        with pytest.raises(PtychonError, match="--positions-path"):
            load(frames)
        for data in (
            load(product, data_path=str(frames)),
            load(frames, positions_path=str(product)),
        ):
            assert np.array_equal(
                np.asarray(data.patterns), COUNTS[[3, 1, 4, 0]]
            )  # of the indexes 0, 2, 3, 4
            whole = (PLACES + 40) * 1e-9 + one.origin
            assert np.allclose(data.positions, whole[[0, 2, 3, 4]])
            assert np.array_equal(~data.mask, bad)
            assert data.wavelength == pytest.approx(1e-10)


def test_what_cannot_be_converted(tmp_path):
    write_dataset(tmp_path / "a.cxi", scan())
    save_result(tmp_path / "r.h5", result())
    for source, target, options, message in (
        ("a.cxi", "a.cxi", {}, "overwrite"),
        ("a.cxi", "b.xyz", {}, "says no format"),
        ("a.cxi", "b.npz", {"format": "ptypy"}, "must be named .ptyr"),
        ("a.cxi", "b.npz", {"format": "x"}, "is none of"),
        ("r.h5", "b.npz", {"crop": "8x8"}, "can only be said of a scan"),
        ("none.h5", "b.npz", {}, "no such file"),
        ("r.h5", "no/b.npz", {}, "folder does not exist"),
    ):
        with pytest.raises(PtychonError, match=message):
            convert(tmp_path / source, tmp_path / target, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.cxi", "r.h5"]


SETTINGS = {"blur": 0.7, "upsample": 2, "saturation": 4e4, "read_noise": 0.5}


@pytest.mark.parametrize(
    "name", ["a.cxi", "a.npz", "a.mat", "a.hspy", "a.ptyd", "a.nxs", "a.tif", "a.npy", "a.hdf5"]
)
def test_settings_of_the_detector_are_kept_or_said_to_be_lost(tmp_path, name):
    if name == "a.hspy":
        pytest.importorskip("rsciio")
    data = scan(**SETTINGS)
    lost = write_scan(tmp_path / name, data)
    if name in ("a.tif", "a.npy"):
        assert set(SETTINGS) <= set(lost)
    else:
        back = load(tmp_path / name)
        # PtyLab has no mask, without which the points between those measured cannot be told
        kept = dict(SETTINGS, upsample=1) if name == "a.hdf5" else SETTINGS
        assert {field: getattr(back, field) for field in SETTINGS} == kept
        assert set(SETTINGS) & set(lost) == ({"upsample"} if name == "a.hdf5" else set())
    plain = scan()
    assert not set(SETTINGS) & set(write_scan(tmp_path / f"plain_{name}", plain))


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_frames_for_ptychodus_keep_the_settings_of_the_detector(tmp_path, suffix):
    place, product = tmp_path / f"a.{suffix}", tmp_path / f"p.{suffix}"
    data = scan(**SETTINGS)
    lost = write_scan(place, data, "ptychodus")
    assert not set(SETTINGS) & set(lost)
    n = len(data)
    made = Result(
        object=np.ones((80, 80), "c8"),
        probe=np.ones((1, 8, 8), "c8"),
        errors=np.ones(2),
        final_error=0.1,
        positions=5 * np.arange(2.0 * n).reshape(n, 2) + 5,
        engine="rpie",
        passes=2,
        pixel_size=(1e-8, 1e-8),
    )
    write_result(product, made, "ptychodus")
    back = load(product, data_path=str(place))
    assert {field: getattr(back, field) for field in SETTINGS} == SETTINGS


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.ptyr", "a.hdf5", "a.tif", "a.emd"])
def test_what_a_result_knows_of_its_frames_is_kept_or_said_to_be_lost(tmp_path, name):
    plain = Result(
        object=np.ones((20, 20), "c8"),
        probe=np.ones((1, 8, 8), "c8"),
        errors=np.ones(2),
        final_error=0.1,
        positions=np.full((5, 2), 10.0),
        engine="rpie",
        passes=2,
        pixel_size=(1e-8, 1e-8),
    )
    known = {
        "variations": np.ones((1, 8, 8), "c8"),
        "weights": np.arange(5, dtype="f4")[:, None],
        "log_scale": np.linspace(-0.1, 0.1, 5, dtype="f4"),
    }
    lost = write_result(tmp_path / name, replace(plain, **known))
    before = write_result(tmp_path / f"plain_{name}", plain)
    new = [words for words in lost if words not in before]
    if name == "a.npz":
        assert not new
        with np.load(tmp_path / name) as file:
            for field, value in known.items():
                np.testing.assert_array_equal(file[field], value)
    else:
        assert new == ["how the probe varies (variations, weights)", "the doses of the frames"]
