"""Reading and writing scans and results."""

from __future__ import annotations

import dataclasses
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptychon import Dataset, PtychonError, Result
from ptychon.io import load, load_result, save_result, write_dataset
from ptychon.io.frames import Hdf5Frames, NpzFrames
from ptychon.units import wavelength_of_photons

rng = np.random.default_rng(0)
COUNTS = rng.poisson(3.0, (6, 8, 10)).astype(np.uint16)
PLACES = rng.uniform(-20, 20, (6, 2))


def assert_same(a, b):
    """Every field equal to the last bit, and of the same type."""
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if hasattr(x, "__array__"):
            assert np.asarray(x).dtype == np.asarray(y).dtype, field.name
            assert np.array_equal(
                np.asarray(x), np.asarray(y), equal_nan=np.asarray(x).dtype.kind in "fc"
            ), field.name
        elif field.name == "history":
            assert {k: v.tolist() for k, v in x.items()} == {k: v.tolist() for k, v in y.items()}
        else:
            assert x == y, field.name
            assert type(x) is type(y), field.name


sizes = st.floats(1e-9, 1e-3)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    known=st.fixed_dictionaries(
        {},
        optional={
            "pixel_size": sizes | st.tuples(sizes, sizes),
            "detector_pixel_size": sizes | st.tuples(sizes, sizes),
            "wavelength": st.floats(1e-12, 1e-8),
            "distance": sizes,
            "focus_distance": sizes,
            "geometry": st.sampled_from(["far", "near"]),
            "counting": st.booleans(),
            "noise_variance": sizes,
            "object_shape": st.tuples(st.integers(60, 99), st.integers(60, 99)),
            "name": st.text(st.characters(codec="utf-8"), max_size=5),
            "notes": st.dictionaries(
                st.text(st.characters(codec="utf-8"), max_size=3), st.none() | sizes, max_size=2
            ),
            "mask": st.sampled_from([COUNTS[0] < 5, COUNTS < 5]),
            "probe": st.sampled_from(
                [np.ones((8, 10), "c8"), np.arange(160).reshape(2, 8, 10) * 1j]
            ),
        },
    ),
    dtype=st.sampled_from(["u1", "u2", "i4", "f4", "f8"]),
    scale=st.sampled_from([1.0, 1e-6]),
)
@example(known={"name": "\x00"}, dtype="u1", scale=1.0)  # which no title may hold
def test_a_data_set_round_trips(tmp_path, known, dtype, scale):
    data = Dataset(patterns=COUNTS.astype(dtype), positions=PLACES * scale, **known)
    write_dataset(tmp_path / "scan.cxi", data)
    assert_same(data, load(tmp_path / "scan.cxi"))


def test_frames_stay_on_disk_and_index_like_an_array(tmp_path):
    stack = rng.integers(0, 9, (4, 5, 6, 7)).astype(">u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("dp", data=stack, chunks=(1, 2, 6, 7), compression="gzip")
    np.savez(tmp_path / "a.npz", dp=stack)
    flat = stack.reshape(20, 6, 7)
    for frames in (Hdf5Frames(tmp_path / "a.h5", "dp"), NpzFrames(tmp_path / "a.npz", "dp")):
        assert frames.shape == (20, 6, 7)
        assert frames.dtype == np.dtype("u2")
        keys = [
            3,
            -1,
            slice(3, 17),
            slice(0, 20, 7),
            slice(9, 2),
            np.array([5, 3, 3, 19]),
            np.arange(20) % 3 == 0,
            (slice(2, 9), slice(1, 3)),
            (4, slice(0, 3)),
            np.array([], int),
            np.array([[1, 2], [3, -4]]),
            (..., 3),
        ]
        for key in keys:
            assert np.array_equal(frames[key], flat[key])
            assert frames[key].shape == flat[key].shape
        assert np.array_equal(pickle.loads(pickle.dumps(frames))[2], flat[2])
        for wrong in (20, -21, np.ones(3, bool), "x", 1.5):
            with pytest.raises(IndexError):
                frames[wrong]


def test_a_file_that_changes_under_us_is_noticed(tmp_path):
    write_dataset(tmp_path / "a.cxi", Dataset(patterns=COUNTS, positions=PLACES))
    data = load(tmp_path / "a.cxi")
    write_dataset(tmp_path / "a.cxi", Dataset(patterns=COUNTS[:4], positions=PLACES[:4]))
    with pytest.raises(PtychonError, match="changed"):
        data.patterns[0]


def foreign_cxi(path, basis=None, mask=None, **numbers):
    """A CXI file as other programs write it; returns its translations."""
    translation = np.column_stack([rng.uniform(-1e-6, 1e-6, (6, 2)), np.zeros(6)])
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = COUNTS
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        detector["distance"] = np.float32(1.5)
        detector["x_pixel_size"], detector["y_pixel_size"] = np.float32(55e-6), np.float32(75e-6)
        file["entry_1/sample_1/geometry_1/translation"] = translation
        file["entry_1/instrument_1/source_1/energy"] = numbers.pop("energy", 1.6e-15)
        if basis is not None:
            detector["basis_vectors"] = basis
        if mask is not None:
            detector["mask"] = mask
    return translation


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ((0, -1, 0), (-1, 0, 0), lambda x, y: (y, x)),
        ((0, 1, 0), (1, 0, 0), lambda x, y: (-y, -x)),
        ((1, 0, 0), (0, -1, 0), lambda x, y: (-x, y)),
        ((0, -3, 0), (-2, 0, 0), lambda x, y: (y, x)),
        ((0.6, -0.8, 0), (-0.8, -0.6, 0), lambda x, y: (-0.6 * x + 0.8 * y, 0.8 * x + 0.6 * y)),
    ],
)
@pytest.mark.parametrize("layout", ["2x3", "3x2", "frames"])
def test_the_probe_moves_against_the_sample_on_the_axes_of_the_detector(
    tmp_path, rows, columns, expected, layout
):
    basis = 5e-5 * np.array([rows, columns], float)
    stored = {"2x3": basis, "3x2": basis.T, "frames": np.repeat(basis[None], 6, axis=0)}[layout]
    t = foreign_cxi(tmp_path / "a.cxi", stored)
    data = load(tmp_path / "a.cxi")
    assert np.allclose(data.positions, np.column_stack(expected(t[:, 0], t[:, 1])), atol=1e-15)
    assert data.detector_pixel_size == pytest.approx(5e-5 * np.linalg.norm([rows, columns], axis=1))


def test_a_foreign_cxi_file(tmp_path):
    mask = np.zeros((8, 10), np.uint32)
    mask[0, 0], mask[1, 1], mask[2, 2] = 0x1000, 1, 0x1001
    t = foreign_cxi(tmp_path / "a.cxi", mask=mask)
    data = load(tmp_path / "a.cxi")
    assert np.array_equal(np.argwhere(~data.mask), [[1, 1], [2, 2]])
    assert np.array_equal(data.positions, t[:, 1::-1])  # rows along -y, columns along -x
    assert data.detector_pixel_size == (75e-6, 55e-6)
    assert data.wavelength == pytest.approx(wavelength_of_photons(1.6e-15))
    assert data.pixel_size == pytest.approx(
        (data.wavelength * 1.5 / (8 * 75e-6), data.wavelength * 1.5 / (10 * 55e-6))
    )
    assert "translation" in data.notes["read"]["positions"]
    given = load(tmp_path / "a.cxi", distance="3m", energy="10keV")
    assert given.distance == 3
    assert given.wavelength == pytest.approx(1.2398e-10, rel=1e-4)
    assert given.notes["given"] == {"distance": 3.0, "energy": pytest.approx(1.602e-15, rel=1e-3)}


def test_darks_are_subtracted_lazily_and_units_honoured(tmp_path):
    foreign_cxi(tmp_path / "a.cxi")
    dark = rng.uniform(0, 4, (3, 8, 10))
    with h5py.File(tmp_path / "a.cxi", "r+") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        detector["data_dark"] = dark
        detector["distance"].attrs["units"] = "mm"
        file["entry_1/instrument_1/source_1/energy"][()] = 12.0
        file["entry_1/instrument_1/source_1/energy"].attrs["units"] = "keV"
        file["entry_1/sample_1/geometry_1/translation"].attrs["units"] = "um"
    data = load(tmp_path / "a.cxi")
    assert np.allclose(np.asarray(data.patterns), COUNTS - dark.mean(axis=0), atol=1e-5)
    assert data.patterns.dtype == np.float32
    assert data.distance == 1.5e-3
    assert data.wavelength == pytest.approx(1.0332e-10, rel=1e-4)
    assert np.abs(data.positions).max() < 1e-11


def test_what_is_missing_is_named_with_its_flag(tmp_path):
    foreign_cxi(tmp_path / "a.cxi", energy=12.0)
    with pytest.raises(PtychonError, match=r"unit must be wrong.*--energy"):
        load(tmp_path / "a.cxi")
    assert load(tmp_path / "a.cxi", energy="12keV").pixel_size is not None
    with h5py.File(tmp_path / "a.cxi", "r+") as file:
        del file["entry_1/instrument_1/source_1"], file["entry_1/instrument_1/detector_1/distance"]
    with pytest.raises(PtychonError, match="--pixel-size, or --energy or --wavelength, --distance"):
        load(tmp_path / "a.cxi")
    assert load(tmp_path / "a.cxi", pixel_size="20nm").pixel_size == (20e-9, 20e-9)
    with h5py.File(tmp_path / "a.cxi", "r+") as file:
        del file["entry_1/sample_1"]
    with pytest.raises(PtychonError, match=r"--scan-shape 40x40, --step 31\.25A, --pixel-size"):
        load(tmp_path / "a.cxi")


def test_archives(tmp_path):
    probe = (rng.standard_normal((8, 10)) + 1j).astype("c8")
    np.savez_compressed(
        tmp_path / "a.npz", dp=COUNTS, positions_px=PLACES, probe=probe, mask=COUNTS[0] < 9
    )
    data = load(tmp_path / "a.npz")
    assert data.pixel_size is None
    assert np.array_equal(data.positions, PLACES)
    assert np.array_equal(data.probe[0], probe)
    assert np.array_equal(np.asarray(data.patterns), COUNTS)
    metres = load(tmp_path / "a.npz", pixel_size="2nm,3nm")
    assert np.allclose(metres.positions, PLACES * [2e-9, 3e-9])
    np.savez(
        tmp_path / "b.npz",
        data=COUNTS,
        positions=PLACES * 1e-9,
        wavelength_A=1.24,
        distance=2.0,
        detector_pixel_size_um=np.array([75.0, 55.0]),
    )
    data = load(tmp_path / "b.npz")
    assert data.wavelength == pytest.approx(1.24e-10)
    assert data.detector_pixel_size == pytest.approx((75e-6, 55e-6))
    assert np.allclose(data.positions, PLACES * 1e-9)
    np.savez(tmp_path / "c.npz", stuff=COUNTS, more=COUNTS)
    with pytest.raises(PtychonError, match="--data-path"):
        load(tmp_path / "c.npz")
    with pytest.raises(PtychonError, match="no positions"):
        load(tmp_path / "c.npz", data_path="more")
    np.savetxt(tmp_path / "places.csv", PLACES, delimiter=",")
    data = load(tmp_path / "c.npz", data_path="more", positions_path=str(tmp_path / "places.csv"))
    assert np.allclose(data.positions, PLACES)
    np.save(tmp_path / "d.npy", COUNTS)
    assert np.allclose(
        load(tmp_path / "d.npy", positions_path=str(tmp_path / "places.csv")).positions, PLACES
    )


def test_nothing_is_unpickled(tmp_path):
    evil = np.array([{"a": 1}] * 6, object)
    np.savez(tmp_path / "a.npz", patterns=COUNTS, positions=evil)
    np.save(tmp_path / "a.npy", evil)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(PtychonError, match="pickled"):
            load(tmp_path / name)


def test_a_raster_that_is_described_but_not_listed(tmp_path):
    frames = rng.poisson(2.0, (2, 3, 8, 10)).astype("u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/dp"] = frames
    data = load(tmp_path / "a.h5", step="4nm", pixel_size="1nm", rotation="90deg")
    # the fast axis runs up (row = -f), the slow one to the right
    expected = [(-f * 4e-9, s * 4e-9) for s in range(2) for f in range(3)]
    assert np.allclose(data.positions, expected, atol=1e-20)
    assert np.array_equal(np.asarray(data.patterns), frames.reshape(6, 8, 10))
    uneven = load(tmp_path / "a.h5", step="4nm,5nm", pixel_size="1nm", scan_shape="3x2")
    assert np.allclose(uneven.positions, [(s * 4e-9, f * 5e-9) for s in range(3) for f in range(2)])
    with pytest.raises(PtychonError, match="4x2 is 8 points, but there are 6 frames"):
        load(tmp_path / "a.h5", step="4nm", pixel_size="1nm", scan_shape="4x2")
    with pytest.raises(PtychonError, match="has no dataset 'dp2'; stacks of frames in it: scan/dp"):
        load(tmp_path / "a.h5", data_path="dp2")


def test_attributes_with_units_and_an_electron_probe(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dp"] = rng.poisson(2.0, (2, 3, 16, 16)).astype("u1")
        file["dp"].attrs.update(
            voltage_kV=300, scan_step_A=40.0, semiangle_mrad=1.0, defocus_nm=-900.0
        )
        file["dp"].attrs["detector_pixel_mrad"] = 0.2
        file.attrs["something"] = "else"
    data = load(tmp_path / "a.h5")
    assert data.wavelength == pytest.approx(1.96875e-12, rel=1e-5)
    assert data.pixel_size == pytest.approx((data.wavelength / (16 * 2e-4),) * 2)
    # the probe in the convention of the file: C1 = -900 nm, chi = pi alpha^2 C1/wavelength, P =
    # F^-1[A exp(-i chi)]
    k = np.fft.fftfreq(16, data.pixel_size[0]) * data.wavelength
    alpha2 = k[:, None] ** 2 + k[None, :] ** 2
    aperture = (alpha2 <= 1e-6) * np.exp(-1j * np.pi * alpha2 * -900e-9 / data.wavelength)
    expected = np.fft.fftshift(np.fft.ifft2(aperture))
    overlap = (
        abs(np.vdot(expected, data.probe[0]))
        / np.linalg.norm(expected)
        / np.linalg.norm(data.probe[0])
    )
    assert overlap > 0.95
    wrong = abs(np.vdot(expected, load(tmp_path / "a.h5", defocus=-900e-9).probe[0]))
    assert overlap > 1.2 * wrong / np.linalg.norm(expected) / np.linalg.norm(data.probe[0])


def test_what_the_caller_states_is_checked(tmp_path):
    np.savez(tmp_path / "a.npz", patterns=COUNTS, positions_px=PLACES)
    for stated, message in (
        ({"wavelenght": 1e-10}, "did you mean 'wavelength'"),
        ({"wavelength": 1e-10, "energy": 1e-15}, "state the same thing"),
        ({"rotation": -126}, "more than a turn"),
        ({"semi_angle": 3.0}, "give its unit"),
        ({"distance": "3kg"}, "not a unit of length"),
        ({"distance": -1.0}, "must be a positive number"),
        ({"scan_shape": "4"}, "rows x columns"),
        ({"semi_angle": 1e-3}, "--voltage"),
    ):
        with pytest.raises(PtychonError, match=message):
            load(tmp_path / "a.npz", **stated)


def test_files_that_are_no_scan(tmp_path):
    write_dataset(tmp_path / "good.cxi", Dataset(patterns=COUNTS, positions=PLACES))
    np.savez(tmp_path / "good.npz", patterns=COUNTS, positions_px=PLACES)
    np.save(tmp_path / "good.npy", COUNTS)
    for suffix in ("cxi", "npz", "npy"):
        content = (tmp_path / f"good.{suffix}").read_bytes()
        for share in (0, 0.01, 0.3, 0.6, 0.95):
            path = tmp_path / f"bad.{suffix}"
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(PtychonError, match="bad"):
                np.asarray(load(path).patterns)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(PtychonError, match="of no kind that can be read"):
        load(tmp_path / "a.txt")
    with h5py.File(tmp_path / "flat.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.ones((5, 5))
    with pytest.raises(PtychonError, match=r"a scan is \(frames, rows, columns\)"):
        load(tmp_path / "flat.cxi")
    with h5py.File(tmp_path / "image.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.ones((5, 5, 5), complex)
    with pytest.raises(PtychonError, match="complex images"):
        load(tmp_path / "image.cxi")


def result(**changes):
    values = {
        "object": (rng.standard_normal((90, 80)) + 1j).astype("c8"),
        "probe": (rng.standard_normal((2, 8, 10)) + 1j).astype("c8"),
        "object_std": rng.random((90, 80)).astype("f4"),
        "errors": np.array([0.5, np.nan, 0.25], "f4"),
        "final_error": 0.2,
        "positions": PLACES + 40,
        "origin": (-1e-6, 2e-6),
        "pixel_size": (1e-9, 2e-9),
        "engine": "ep",
        "backend": "numpy",
        "passes": 3,
        "options": {"a": 1, "b": None, "c": (1, "x"), "d": True},
        "history": {"change": np.array([1.0, 2.0], "f4")},
        "settings": {"schedule": {"kind": "sequential"}, "input": "a.cxi"},
        "provenance": {"ptychon": "0"},
        "seconds": 1.5,
    }
    return Result(**values | changes)


def test_results_round_trip_and_look_like_cxi(tmp_path):
    path = tmp_path / "r.h5"
    for one in (result(), result(object_std=None, pixel_size=None, origin=(0.0, 0.0), history={})):
        save_result(path, one)
        assert_same(one, load_result(path))
        with h5py.File(path) as file:
            assert file.attrs["ptychon"] == "result"
            assert np.array_equal(file["entry_1/data_1/data"][()], one.object)
            assert np.array_equal(file["entry_1/instrument_1/illumination"][()], one.probe)
            assert ("data_error" in file["entry_1/image_1"]) == (one.object_std is not None)
    with pytest.raises(PtychonError, match="--start"):
        load(path)


def test_what_is_no_result(tmp_path):
    write_dataset(tmp_path / "a.cxi", Dataset(patterns=COUNTS, positions=PLACES))
    with pytest.raises(PtychonError, match="not a result"):
        load_result(tmp_path / "a.cxi")
    save_result(tmp_path / "r.h5", result())
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        del file["ptychon/result/probe"]
    with pytest.raises(PtychonError, match="lacks probe"):
        load_result(tmp_path / "r.h5")
    save_result(tmp_path / "r.h5", result())
    content = (tmp_path / "r.h5").read_bytes()
    (tmp_path / "r.h5").write_bytes(content[:3000])
    with pytest.raises(PtychonError, match="truncated"):
        load_result(tmp_path / "r.h5")
