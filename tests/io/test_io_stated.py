"""What files state of units, axes and signs is honoured; what they do not state is
called a guess.
"""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
import scipy.io

from ptychon import load
from ptychon.inspect.file import inspect
from ptychon.io.raw import _usual_order
from ptychon.types import PtychonError, PtychonWarning

rng = np.random.default_rng(7)
N, P, Q = 12, 16, 20
FRAMES = rng.poisson(20.0, (N, P, Q)).astype("u2")
#: Rows and columns in m, steps of about 10 nm on pixels of about 2.6 nm.
PLACES = np.stack(np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij"), -1).reshape(-1, 2) * [
    9e-9,
    11e-9,
]
WAVELENGTH, DISTANCE, PIXEL = 1.24e-10, 0.05, 150e-6
SIZE = (WAVELENGTH * DISTANCE / (P * PIXEL), WAVELENGTH * DISTANCE / (Q * PIXEL))
NUMBERS = {"wavelength": WAVELENGTH, "distance": DISTANCE, "detector_pixel_size": PIXEL}


def write(path, numbers=NUMBERS, units=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, value in ({"frames": FRAMES} | arrays | dict(numbers)).items():
            file[f"entry/{name}"] = value
            if units and name in units:
                file[f"entry/{name}"].attrs["units"] = units[name]
    return path


def placed(data, places=PLACES):
    return np.allclose(data.positions - data.positions[0], places - places[0], atol=1e-12)


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1e6), ("nm", 1e9), ("Angstrom", 1e10), ("mm", 1e3), ("m", 1.0)]
)
def test_positions_in_the_unit_that_the_file_states(tmp_path, unit, factor):
    data = load(write(tmp_path / "a.h5", positions=PLACES * factor, units={"positions": unit}))
    assert placed(data)
    assert "guess" not in data.notes["read"]["positions"]
    assert placed(load(write(tmp_path / "b.h5", **{f"positions_{unit}": PLACES * factor})))
    np.savez(
        tmp_path / "c.npz", data=FRAMES, positions=PLACES * factor, positions_units=unit, **NUMBERS
    )
    assert placed(load(tmp_path / "c.npz"))
    y, x = PLACES.T * factor
    assert placed(load(write(tmp_path / "d.h5", **{f"x_{unit}": x, f"y_{unit}": y})))
    named = load(
        write(tmp_path / "e.h5", encoder=PLACES * factor, units={"encoder": unit}),
        positions_path="entry/encoder",
    )
    assert placed(named)


def test_numbers_in_the_unit_that_the_file_states(tmp_path):
    stated = {"energy": 9.9987, "distance": 50.0, "detector_pixel_size": 150.0}
    units = {
        "energy": "keV",
        "distance": "millimeters",
        "detector_pixel_size": "microns",
        "positions": "m",
    }
    data = load(write(tmp_path / "a.h5", stated, units, positions=PLACES))
    assert data.pixel_size == pytest.approx(SIZE, rel=1e-4)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["frames"], file["positions_m"] = FRAMES, PLACES
        file.attrs.update(
            {
                "distance": 50.0,
                "distance_units": "mm",
                "detector_pixel_size": 150.0,
                "wavelength_nm": 0.124,
            }
        )
        file.attrs["detector_pixel_size_unit"] = "um"
    assert load(tmp_path / "b.h5").pixel_size == pytest.approx(SIZE)
    write(
        tmp_path / "c.h5",
        stated | {"distance": 1.0},
        units | {"distance": "furlong"},
        positions=PLACES,
    )
    with pytest.raises(
        PtychonError, match=r"distance is in 'furlong', which is not a unit of length.*--distance"
    ):
        load(tmp_path / "c.h5")
    write(tmp_path / "d.h5", NUMBERS, {"positions": "counts"}, positions=PLACES)
    with pytest.raises(
        PtychonError, match="in 'counts', which is no length; give --position-units"
    ):
        load(tmp_path / "d.h5")
    assert placed(load(tmp_path / "d.h5", position_units="m"))


def test_what_is_not_stated_is_called_a_guess_and_doubted_where_it_cannot_be(tmp_path):
    path = write(tmp_path / "a.h5", positions=PLACES * 1e9)
    assert placed(load(path, position_units="nm"))
    with pytest.warns(
        PtychonWarning,
        match=r"longer than the window of 41\.33 nm.*\(guessed\) with --position-units",
    ):
        load(write(tmp_path / "b.h5", positions=PLACES * 1e10))
    about = inspect(path)
    where = {row["name"]: row["where"] for row in about["found"]}
    assert "guess: px, for no unit is stated and they span 33" in where["positions"]
    assert "guess: m, for no unit is stated" in where["distance"]
    short = inspect(write(tmp_path / "c.h5", positions=PLACES * 1e-3, units={"positions": "m"}))
    doubt = next(line for line in short["advice"] if "step of the scan" in line)
    assert "9 pm is 0.0035 of a pixel of the object of 2.583 nm, 4593 steps a window" in doubt
    assert (
        "steps a window, which can hardly be true; state the unit of the positions (read as m) "
        "with --position"
    ) in doubt
    with pytest.raises(PtychonError, match="give px, or a unit of length"):
        load(path, position_units="mrad")


@pytest.mark.parametrize(
    ("head", "columns", "unit"),
    [
        ("x_m,y_m", "xy", 1.0),
        ("x_um,y_um", "xy", 1e6),
        ("y_um,x_um", "yx", 1e6),
        ("# x [m]  y [m]", "xy", 1.0),
        ("index,x_m,y_m", "ixy", 1.0),
        ("# frame; pos_y (nm); pos_x (nm)", "iyx", 1e9),
        ("ppX/mm,ppY/mm", "xy", 1e3),
        ("row_nm col_nm", "yx", 1e9),
        ("samx (µm), samy (µm)", "xy", 1e6),
        ("x,y\num,um", "xy", 1e6),
        ("# unit: um\ny,x", "yx", 1e6),
        ("y_m,x_um", "yx", (1.0, 1e6)),
        ("x_m,x_err,y_m,y_err", "xiyi", 1.0),
    ],
)
def test_columns_of_tables_are_what_their_names_say(tmp_path, head, columns, unit):
    units = dict(zip("yx", np.broadcast_to(unit, 2), strict=True))
    lists = {"y": PLACES[:, 0] * units["y"], "x": PLACES[:, 1] * units["x"], "i": np.arange(N)}
    rows = zip(*(lists[c] for c in columns), strict=True)
    (tmp_path / "p.csv").write_text(
        "\n".join([head, *(",".join(f"{v:.12g}" for v in row) for row in rows)])
    )
    write(tmp_path / "a.h5")
    assert placed(load(tmp_path / "a.h5", positions_path=str(tmp_path / "p.csv")))


def test_columns_that_cannot_be_told_apart_are_named(tmp_path):
    path = write(tmp_path / "a.h5")
    table = np.column_stack([np.arange(N), PLACES[:, 1], PLACES[:, 0]])
    np.savetxt(tmp_path / "p.txt", table)
    with pytest.raises(
        PtychonError,
        match=r"3 columns \(no names, numbered 0 to 2\).*--positions-path .*p\.txt:Y,X",
    ):
        load(path, positions_path=str(tmp_path / "p.txt"))
    assert placed(load(path, positions_path=f"{tmp_path / 'p.txt'}:2,1"))
    (tmp_path / "q.csv").write_text(
        "x_set,y_set,x_read,y_read\n" + "\n".join(f"{k},{k},{x},{y}" for k, x, y in table)
    )
    with pytest.raises(PtychonError, match="x_set, y_set, x_read, y_read"):
        load(path, positions_path=str(tmp_path / "q.csv"))
    assert placed(load(path, positions_path=f"{tmp_path / 'q.csv'}:y_read,x_read"))
    fields = np.array([tuple(row[1:]) for row in table], [("x_m", "f8"), ("y_m", "f8")])
    np.save(tmp_path / "r.npy", fields)
    assert placed(load(path, positions_path=str(tmp_path / "r.npy")))
    np.savetxt(tmp_path / "s.txt", PLACES)
    data = load(path, positions_path=str(tmp_path / "s.txt"))
    assert placed(data)
    assert "guess: first column y, second x" in data.notes["read"]["positions"]


def test_naming_the_frames_keeps_what_the_format_says(tmp_path):
    bad = np.zeros((P, Q), "u4")
    bad[3, 4], bad[5] = 1, 0x1000
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["cxi_version"] = 150
        detector = file.create_group("entry_1/instrument_1/detector_1")
        sizes = {"x_pixel_size": PIXEL, "y_pixel_size": PIXEL}
        for name, value in ({"data": FRAMES, "mask": bad, "distance": DISTANCE} | sizes).items():
            detector[name] = value
        file["entry_1/instrument_1/source_1/wavelength"] = WAVELENGTH
        file["entry_1/data_1/translation"] = np.c_[PLACES[:, ::-1], np.zeros(N)]
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/other"] = FRAMES[:, ::-1]
    usual = load(tmp_path / "a.cxi")
    named = load(tmp_path / "a.cxi", data_path="entry_1/instrument_1/detector_1/data")
    assert np.array_equal(usual.mask, (bad & 0xFFF) == 0)
    assert np.array_equal(named.mask, usual.mask)
    assert np.array_equal(named.positions, usual.positions)
    assert placed(
        usual
    )  # rows along -y and columns along -x, and the probe moves against the sample
    other = load(tmp_path / "a.cxi", data_path="entry_1/other")
    assert np.array_equal(np.asarray(other.patterns), FRAMES[:, ::-1])
    np.savetxt(tmp_path / "p.csv", PLACES[::-1], delimiter=",", header="y_m,x_m")
    table = load(tmp_path / "a.cxi", positions_path=str(tmp_path / "p.csv"))
    assert placed(table, PLACES[::-1])
    with pytest.raises(
        PtychonError, match="has no dataset 'nowhere'; frames are at /entry_1/data_1/data"
    ):
        load(tmp_path / "a.cxi", data_path="nowhere")


def test_masks_by_the_meaning_of_their_names(tmp_path):
    bad = np.zeros((P, Q), "u4")
    bad[2, 3] = 1
    for name, values in (
        ("bad_pixels", bad),
        ("pixel_mask", bad << 31),
        ("valid", 1 - bad),
        ("mask", 1 - bad),
    ):
        data = load(write(tmp_path / "a.h5", positions_m=PLACES, **{name: values}))
        assert np.array_equal(data.mask, bad == 0), name
    with pytest.warns(
        PtychonWarning,
        match=r"mask of .*a\.h5 leaves 0\.3% of the pixels valid if nonzero means valid",
    ):
        load(write(tmp_path / "a.h5", positions_m=PLACES, mask=bad))


@pytest.fixture
def master(tmp_path):
    with h5py.File(tmp_path / "scan_master.h5", "w") as file:
        file["entry/definition"] = "NXmx"
        for k, part in enumerate((FRAMES[:5], FRAMES[5:]), 1):
            with h5py.File(tmp_path / f"scan_data_{k:06d}.h5", "w") as other:
                other["entry/data/data"] = part.astype("u4")
            file[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(
                f"scan_data_{k:06d}.h5", "/entry/data/data"
            )
        detector, beam = (
            file.create_group(f"entry/instrument/{name}") for name in ("detector", "beam")
        )
        for group, name, value, unit in (
            (detector, "x_pixel_size", PIXEL, "m"),
            (detector, "y_pixel_size", PIXEL, "m"),
            (detector, "detector_distance", DISTANCE * 1e3, "mm"),
            (beam, "incident_wavelength", 1.24, "angstrom"),
        ):
            group[name] = value
            group[name].attrs["units"] = unit
        mask = np.zeros((P, Q), "u4")
        mask[4] = 1 << 8
        detector["detectorSpecific/pixel_mask"] = mask
        detector["detectorSpecific/ntrigger"], detector["detectorSpecific/nimages"] = 3, 4
    return tmp_path / "scan_master.h5"


def test_master_files_of_dectris(master, tmp_path):
    np.savetxt(tmp_path / "p.txt", PLACES, header="y [m] x [m]")
    data = load(master, positions_path=str(tmp_path / "p.txt"))
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert data.pixel_size == pytest.approx(SIZE)
    assert placed(data)
    assert not data.mask[4].any()
    assert data.mask.sum() == (P - 1) * Q
    raster = load(master, step="9nm,11nm")
    assert placed(raster)
    part = load(master, data_path="entry/data/data_000001", positions=PLACES[:5])
    assert np.array_equal(np.asarray(part.patterns), FRAMES[:5])
    assert part.pixel_size == pytest.approx(SIZE)


def test_energies_of_electrons_in_a_master_file(master):
    with h5py.File(master, "r+") as file:
        del file["entry/instrument/beam/incident_wavelength"]
        file["entry/instrument/beam/incident_energy"] = 200e3
        file["entry/instrument/detector/description"] = "Dectris ARINA Si"
    data = load(master, positions=PLACES, pixel_size="2.6nm,2nm")
    assert data.wavelength == pytest.approx(2.508e-12, rel=1e-3)  # relativistic, of 200 kV


def test_links_that_lead_nowhere_name_the_file(master, tmp_path):
    (tmp_path / "scan_data_000002.h5").unlink()
    with pytest.raises(
        PtychonError,
        match=r"data_000002 of .* leads to the file scan_data_000002\.h5, which is missing",
    ):
        load(master, positions=PLACES)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["some/frames"] = h5py.ExternalLink("gone.h5", "/data")
    with pytest.raises(
        PtychonError, match=r"/some/frames of .*b\.h5 leads to the file gone\.h5, which is missing"
    ):
        load(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.cxi", "w") as file:
        file["cxi_version"], file["entry_1/data_1/data"] = (
            150,
            h5py.ExternalLink("gone.h5", "/data"),
        )
    with pytest.raises(PtychonError, match=r"leads to the file gone\.h5"):
        load(tmp_path / "c.cxi")


@pytest.mark.parametrize(
    ("name", "extent", "said"),
    [
        ("scan_x6_y2.raw", (1e-10, 5e-10), "name of the file: 2 rows of 6"),
        ("gold_2x6_01.raw", (1e-10, 5e-10), "name of the file: 2 rows of 6"),
    ],
)
def test_the_name_of_an_empad_file_states_the_raster(tmp_path, name, extent, said):
    np.zeros((12, 130, 128), "f4").tofile(tmp_path / name)
    data = load(tmp_path / name, step="1A", pixel_size="20pm")
    assert np.ptp(data.positions, axis=0) == pytest.approx(extent)
    assert said in data.notes["read"]["scan_shape"]


def test_a_raster_that_the_name_contradicts_is_a_guess(tmp_path):
    np.zeros((16, 130, 128), "f4").tofile(tmp_path / "scan_x8_y8.raw")
    said = load(tmp_path / "scan_x8_y8.raw", step="1A", pixel_size="20pm").notes["read"][
        "scan_shape"
    ]
    assert (
        said
        == "guess: a square raster, since there are 16 frames; its name says 8 x 8, which is 64"
    )


def test_a_pixel_size_belongs_to_the_frames_as_stored_and_says_so(tmp_path):
    path = write(tmp_path / "a.h5", {}, positions_m=PLACES)
    with pytest.warns(
        PtychonWarning,
        match=r"before crop and bin: 2 nm, now 4 nm x 5 nm; .* give --pixel-size 1nm,0\.8nm",
    ):
        data = load(path, pixel_size="2nm", crop="8x8")
    assert data.pixel_size == pytest.approx((4e-9, 5e-9))
    with pytest.warns(PtychonWarning):
        assert load(path, pixel_size="1nm,0.8nm", crop="8x8").pixel_size == pytest.approx(
            (2e-9, 2e-9)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path, pixel_size="2nm", bin=2).pixel_size == (
            2e-9,
            2e-9,
        )  # far field: binning changes the window
    row = next(
        r for r in inspect(path, pixel_size="2nm", crop="8x8")["found"] if r["name"] == "pixel_size"
    )
    assert (row["value"], row["where"]) == (
        "4 nm x 5 nm",
        "given; 2 nm, now 4 nm x 5 nm after crop and bin",
    )


SQUARE = rng.poisson(20.0, (N, P, P)).astype("u2")


def test_frames_along_the_last_axes(tmp_path):
    last = np.moveaxis(SQUARE, 0, -1)
    data = load(write(tmp_path / "a.h5", frames=last), positions=PLACES)
    assert np.array_equal(np.asarray(data.patterns), SQUARE)
    assert "guess: frames along the last axis" in data.notes["read"]["patterns"]
    assert np.array_equal(np.asarray(data.patterns[[7, 2]]), SQUARE[[7, 2]])
    uneven = load(write(tmp_path / "b.h5", frames=np.moveaxis(FRAMES, 0, -1), positions_m=PLACES))
    assert np.array_equal(np.asarray(uneven.patterns), FRAMES)
    raster = FRAMES.reshape(3, 4, P, Q)
    detector_first = load(
        write(tmp_path / "c.h5", frames=raster.transpose(2, 3, 0, 1), positions_m=PLACES)
    )
    assert np.array_equal(np.asarray(detector_first.patterns), FRAMES)
    np.savez(tmp_path / "d.npz", dp=raster.transpose(2, 3, 0, 1), **NUMBERS)
    assert np.array_equal(
        np.asarray(load(tmp_path / "d.npz", scan_shape="3x4", step="9nm,11nm").patterns), FRAMES
    )
    np.save(tmp_path / "e.npy", raster[None])
    data = load(tmp_path / "e.npy", step="9nm,11nm", pixel_size="2nm")
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert placed(data)
    np.save(tmp_path / "f.npy", last)
    assert np.array_equal(
        np.asarray(load(tmp_path / "f.npy", positions=PLACES, pixel_size="2nm").patterns), SQUARE
    )


@pytest.mark.parametrize("order", ["frames last", "frames first"])
def test_stacks_of_matlab(tmp_path, order):
    stack = np.moveaxis(FRAMES, 0, -1) if order == "frames last" else FRAMES
    scipy.io.savemat(tmp_path / "v5.mat", {"dp": stack, "positions_m": PLACES, **NUMBERS})
    assert np.array_equal(np.asarray(load(tmp_path / "v5.mat").patterns), FRAMES)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        for name, value in {"dp": stack, "positions_m": PLACES, **NUMBERS}.items():
            file[name] = np.asarray(value).T
    with open(tmp_path / "v73.mat", "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    data = load(tmp_path / "v73.mat")
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert placed(data)


def axes(*kinds):
    return [
        {"index_in_array": k, "size": 1, "scale": scale, "units": unit, "navigate": navigate}
        for k, (scale, unit, navigate) in enumerate(kinds)
    ]


def test_axes_of_microscope_files_are_told_apart_by_their_units():
    raster = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    scan, detector = (
        [(2.0, "nm", True), (2.0, "nm", True)],
        [(0.1, "1/nm", False), (0.2, "1/nm", False)],
    )
    for data, kinds in (
        (raster, scan + detector),
        (
            raster.transpose(2, 3, 0, 1),
            [(s, u, True) for s, u, _ in detector] + [(s, u, False) for s, u, _ in scan],
        ),
        (raster[None], [(1.0, "", True), *scan, *detector]),
    ):
        turned, order = _usual_order({"data": data, "axes": axes(*kinds)})
        assert np.array_equal(turned, raster)
        assert [axis["scale"] for axis in order] == [2.0, 2.0, 0.1, 0.2]
    unnamed = axes((1.0, "", False), (1.0, "", False), (1.0, "", True), (1.0, "", True))
    assert np.array_equal(
        _usual_order({"data": raster.transpose(2, 3, 0, 1), "axes": unnamed})[0], raster
    )


def test_unequal_pixels_of_a_hyperspy_file(tmp_path):
    writer = pytest.importorskip("rsciio.hspy")
    raster = FRAMES.reshape(3, 4, P, Q)
    listed = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": 0.0,
            "units": unit,
            "navigate": navigate,
            "index_in_array": k,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for k, (name, size, scale, unit, navigate) in enumerate(
            (
                ("y", 3, 9.0, "nm", True),
                ("x", 4, 11.0, "nm", True),
                ("ky", P, 0.02, "1/nm", False),
                ("kx", Q, 0.03, "1/nm", False),
            )
        )
    ]
    metadata = {"General": {"title": ""}, "Signal": {"signal_type": ""}}
    signal = {"data": raster, "axes": listed, "metadata": metadata, "original_metadata": {}}
    signal |= {
        "attributes": {"_lazy": False, "ragged": False},
        "tmp_parameters": {},
        "learning_results": {},
        "models": {},
    }
    signal |= {
        "package": "x",
        "package_version": "1",
        "package_info": {"package": "x", "package_version": "1"},
    }
    writer.file_writer(str(tmp_path / "a.hspy"), signal)
    data = load(tmp_path / "a.hspy", voltage="300kV")
    assert data.pixel_size == pytest.approx((1e-9 / (0.02 * P), 1e-9 / (0.03 * Q)))
    assert placed(data)


def test_an_emd_file_keeps_its_calibration_when_its_cube_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["emd_group_type"] = "file"
        file.create_group("root/cube").attrs["python_class"] = "DataCube"
        file["root/cube/data"] = FRAMES.reshape(3, 4, P, Q)
        for name, value in (
            ("R_pixel_size", 1.0),
            ("R_pixel_units", "nm"),
            ("Q_pixel_size", 0.01),
            ("Q_pixel_units", "1/Å"),
            ("QR_rotation_degrees", 30.0),
            ("QR_rotation", np.pi / 6),
            ("QR_flip", False),
        ):
            file[f"root/metadatabundle/calibration/{name}"] = value
    data = load(tmp_path / "a.h5", voltage="300kV", data_path="root/cube/data")
    assert data.pixel_size == pytest.approx((1e-10 / (0.01 * P), 1e-10 / (0.01 * Q)))
    slow, fast = np.mgrid[:3, :4].reshape(2, -1) * 1e-9
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    # real space is turned counterclockwise against diffraction space: (x, y) lies at (x cos + y
    # sin, -x sin + y cos)
    np.testing.assert_allclose(
        data.positions, np.c_[slow * cos + fast * sin, -slow * sin + fast * cos], atol=1e-20
    )
