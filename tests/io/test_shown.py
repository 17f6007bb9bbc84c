"""What other programs show of our files: silx, h5web, ImageJ, napari, and the formats of electron
microscopy; the packages where they are installed.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import yaml

import ptychon
from ptychon import Dataset, PtychonError, Result
from ptychon.io import convert, load, load_result, save_result, write_result, write_scan
from ptychon.units import voltage_of_electrons, wavelength_of_electrons

pytestmark = pytest.mark.usefixtures("sketched")

rng = np.random.default_rng(9)
FRAMES = rng.poisson(6.0, (12, 16, 20)).astype(np.uint16)
#: The step of a raster of 3 x 4 by y and x, m.
STEP = (3e-6, 2e-6)


def scan(even=True, **more):
    places = np.stack(np.mgrid[:3, :4], -1).reshape(-1, 2) * STEP
    if not even:
        places = places + rng.uniform(-1e-6, 1e-6, places.shape)
    known = {"wavelength": 1e-9, "distance": 0.5, "detector_pixel_size": 5e-5, "name": "mine"}
    return Dataset(patterns=FRAMES, positions=places, **known | more)


def electrons():
    return replace(
        scan(),
        wavelength=wavelength_of_electrons(2e5),
        distance=None,
        detector_pixel_size=None,
        pixel_size=(2e-11, 2e-11),
        positions=np.stack(np.mgrid[:3, :4], -1).reshape(-1, 2) * 1e-10,
    )


def result(std=True):
    return Result(
        object=(rng.standard_normal((40, 44)) + 1j).astype("c8"),
        probe=(rng.standard_normal((2, 16, 20)) + 1j).astype("c8"),
        object_std=rng.uniform(0.1, 0.2, (40, 44)).astype("f4") if std else None,
        errors=np.array([0.5, 0.4], "f4"),
        final_error=0.3,
        positions=rng.uniform(10, 30, (12, 2)),
        engine="ep",
        passes=2,
        pixel_size=(2e-9, 4e-9),
        origin=(-6e-8, -5e-8),
    )


def shown_first(path):
    """The picture that NeXus says is the default: signal and axes, by following the attributes."""
    with h5py.File(path) as file:
        group, seen = file, []
        while "default" in group.attrs:
            group = group[group.attrs["default"]]
            seen.append(group.attrs["NX_class"])
        axes = [str(name) for name in group.attrs["axes"]]
        signal = group[group.attrs["signal"]]
        values = {
            name: (group[name][()], group[name].attrs["units"]) for name in axes if name != "."
        }
        return seen, signal[()], axes, values


@pytest.mark.parametrize("std", [True, False])
def test_a_result_opens_on_the_object(tmp_path, std):
    one = result(std)
    save_result(tmp_path / "r.h5", one)
    classes, signal, axes, values = shown_first(tmp_path / "r.h5")
    assert classes == ["NXentry", "NXdata"]
    assert np.array_equal(signal, one.object)
    assert axes == ["y", "x"]
    np.testing.assert_allclose(values["y"][0], -6e-8 + 2e-9 * np.arange(40))
    np.testing.assert_allclose(values["x"][0], -5e-8 + 4e-9 * np.arange(44))
    assert values["x"][1] == "m"
    with h5py.File(tmp_path / "r.h5") as file:
        assert ("object_std" in file["entry_1"]) is std
        if std:
            beside = file["entry_1/object_std"]
            assert beside.attrs["NX_class"] == "NXdata"
            assert np.array_equal(beside["data"], one.object_std)
    back = load_result(tmp_path / "r.h5")
    assert np.array_equal(back.object, one.object)


def test_a_scan_opens_on_its_frames(tmp_path):
    data = scan(mask=FRAMES[0] < 12)
    for name in ("s.cxi", "s.nxs"):
        write_scan(tmp_path / name, data)
        classes, signal, axes, values = shown_first(tmp_path / name)
        assert classes == ["NXentry", "NXdata"]
        assert np.array_equal(signal, FRAMES)
        assert axes == [".", "y", "x"]
        np.testing.assert_allclose(values["x"][0], 5e-5 * np.arange(20))
    unknown = Dataset(patterns=FRAMES, positions=scan().positions * 1e6)
    write_scan(tmp_path / "px.cxi", unknown)
    assert shown_first(tmp_path / "px.cxi")[3]["y"][1] == "px"


def test_silx_opens_on_the_picture(tmp_path):
    nxdata = pytest.importorskip("silx.io.nxdata")
    save_result(tmp_path / "r.h5", result())
    write_scan(tmp_path / "s.cxi", scan())
    with h5py.File(tmp_path / "r.h5") as file:
        found = nxdata.get_default(file)
        assert found.is_valid
        assert found.is_image
        assert found.signal.shape == (40, 44)
        assert found.axes_names == ["y (m)", "x (m)"]
        assert nxdata.NXdata(file["entry_1/object_std"]).is_valid
    with h5py.File(tmp_path / "s.cxi") as file:
        found = nxdata.get_default(file)
        assert found.is_valid
        assert found.signal.shape == FRAMES.shape
        assert found.interpretation == "image"


def test_nexusformat_opens_what_is_written_for_nexus(tmp_path):
    nexus = pytest.importorskip("nexusformat.nexus")
    write_scan(tmp_path / "s.nxs", scan())
    root = nexus.nxload(str(tmp_path / "s.nxs"))
    assert np.array_equal(root.entry_1.data_1.nxsignal.nxvalue, FRAMES)
    assert root.entry_1.definition.nxvalue == "NXptycho"
    assert root.entry_1.instrument_1.detector_1.distance.attrs["units"] == "m"


@pytest.mark.parametrize("name", ["s.nxs", "s.ptyd"])
@pytest.mark.parametrize("masked", [False, True])
def test_scans_come_back(tmp_path, name, masked):
    data = scan(mask=FRAMES[0] < 12) if masked else scan()
    lost = write_scan(tmp_path / name, data)
    back = load(tmp_path / name)
    assert np.array_equal(np.asarray(back.patterns), FRAMES)
    assert (back.mask is None) is not masked
    if masked:
        assert np.array_equal(back.mask, data.mask)
    for field in ("wavelength", "distance", "detector_pixel_size", "pixel_size"):
        assert getattr(back, field) == pytest.approx(getattr(data, field), rel=1e-6)
    np.testing.assert_allclose(back.positions, data.positions, atol=1e-12)
    assert lost == []
    with pytest.raises(PtychonError, match="pixel size of the object is not known"):
        write_scan(tmp_path / name, Dataset(patterns=FRAMES, positions=data.positions * 1e6))
    with pytest.raises(PtychonError, match="holds a scan, and this is a reconstruction"):
        write_result(tmp_path / name, result())


@pytest.mark.parametrize("suffix", ["hspy", "zspy"])
@pytest.mark.parametrize("even", [True, False])
def test_hyperspy_reads_our_scans(tmp_path, suffix, even):
    reader = _rosetta(suffix)
    data = scan(even, mask=FRAMES[0] < 12)
    path = tmp_path / f"s.{suffix}"
    for _ in range(2):  # once more over what is there
        write_scan(path, data)
    (signal,) = reader(str(path))
    axes = {axis["name"]: axis for axis in signal["axes"]}
    if even:
        assert signal["data"].shape == (3, 4, 16, 20)
        assert axes["y"]["scale"] == pytest.approx(3000)
        assert axes["x"]["scale"] == pytest.approx(2000)
        assert axes["x"]["units"] == "nm"
        assert axes["x"]["navigate"]
    assert np.array_equal(np.asarray(signal["data"]).reshape(FRAMES.shape), FRAMES)
    # 1/(20 pixels of the object)
    assert axes["kx"]["scale"] == pytest.approx(1e-9 / (20 * data.pixel_size[1]))
    back = load(path)
    assert np.array_equal(np.asarray(back.patterns), FRAMES)
    np.testing.assert_allclose(back.positions, data.positions)
    assert np.array_equal(back.mask, data.mask)
    assert back.wavelength == data.wavelength
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_hyperspy_reads_our_results(tmp_path):
    reader = _rosetta("hspy")
    one = result()
    write_result(tmp_path / "r.hspy", one)
    (signal,) = reader(str(tmp_path / "r.hspy"))
    assert np.array_equal(signal["data"], one.object)
    assert [axis["scale"] for axis in signal["axes"]] == pytest.approx([2.0, 4.0])
    beside = signal["original_metadata"]["ptychon"]
    assert np.array_equal(beside["object_std"], one.object_std)


def _rosetta(suffix):
    pytest.importorskip("rsciio")
    if suffix == "zspy":
        zarr = pytest.importorskip("zarr")
        if not hasattr(zarr.storage, "NestedDirectoryStore"):
            pytest.skip("RosettaSciIO writes .zspy with zarr 2")
    return import_module(f"rsciio.{suffix}").file_reader


def test_scans_on_disk_go_to_hyperspy_in_blocks(tmp_path):
    _rosetta("hspy")
    write_scan(tmp_path / "s.cxi", scan())
    done = convert(tmp_path / "s.cxi", tmp_path / "s.hspy")
    assert done.format == "hyperspy"
    assert np.array_equal(np.asarray(load(tmp_path / "s.hspy").patterns), FRAMES)


def test_a_datacube_keeps_the_numbers_of_the_detector(tmp_path):
    known = {"blur": 0.7, "read_noise": 0.5, "background": 0.1}
    place = tmp_path / "a.emd"
    assert write_scan(place, replace(electrons(), **known)) == []
    back = load(place, voltage=2e5)
    assert {field: getattr(back, field) for field in known} == known
    with h5py.File(place, "r+") as file:
        file.attrs["ptychon_blur"] = "wide"
    with pytest.raises(PtychonError, match="ptychon_blur is 'wide', not a number"):
        load(place, voltage=2e5)


def test_a_datacube_of_py4dstem(tmp_path):
    data = electrons()
    lost = write_scan(tmp_path / "s.emd", data)
    assert lost == []
    back = load(tmp_path / "s.emd", voltage=2e5)
    assert np.array_equal(np.asarray(back.patterns), FRAMES)
    np.testing.assert_allclose(
        np.diff(back.positions, axis=0), np.diff(data.positions, axis=0), atol=1e-15
    )
    assert back.pixel_size[0] == pytest.approx(2e-11)
    with h5py.File(tmp_path / "s.emd") as file:
        assert file.attrs["emd_group_type"] == "file"
        cube = file["ptychon_root/datacube"]
        assert cube.attrs["python_class"] == "DataCube"
        assert cube["data"].shape == (3, 4, 16, 20)
        scale = file["ptychon_root/metadatabundle/calibration"]
        assert scale["R_pixel_size"][()] == pytest.approx(1.0)
        assert scale["Q_pixel_size"][()] == pytest.approx(1 / (16 * 0.2))
        assert scale["voltage"][()] == pytest.approx(2e5, rel=1e-6)
    with pytest.raises(PtychonError, match="a DataCube is a raster"):
        write_scan(tmp_path / "t.emd", scan(even=False))


def test_emdfile_reads_our_arrays(tmp_path):
    emdfile = pytest.importorskip("emdfile")
    one = result()
    write_result(tmp_path / "r.emd", one)
    tree = emdfile.read(str(tmp_path / "r.emd"), tree=True)
    found = tree.tree("object")
    assert np.array_equal(found.data, one.object)
    assert found.dims[0][1] == pytest.approx(20.0)
    assert found.dim_units[0] == "A"


@pytest.mark.parametrize("voltage", [3e4, 2e5, 3e5])
def test_a_voltage_is_that_of_its_wavelength(voltage):
    assert voltage_of_electrons(wavelength_of_electrons(voltage)) == pytest.approx(
        voltage, rel=1e-9
    )


def test_imagej_knows_the_unit(tmp_path):
    write_result(tmp_path / "r.tif", result())
    with tifffile.TiffFile(tmp_path / "r.tif") as file:
        assert file.is_imagej
        assert file.imagej_metadata["unit"] == "nm"
        assert file.imagej_metadata["Labels"] == ["amplitude", "phase (rad)", "standard deviation"]
        across, up = (file.pages[0].tags[n].value for n in ("XResolution", "YResolution"))
        assert across[0] / across[1] == pytest.approx(1 / 4)  # pixels a nm
        assert up[0] / up[1] == pytest.approx(1 / 2)
        assert file.series[0].shape == (3, 40, 44)
    unknown = replace(result(), pixel_size=None)
    write_result(tmp_path / "u.tif", unknown)
    with tifffile.TiffFile(tmp_path / "u.tif") as file:
        assert "unit" not in file.imagej_metadata


def test_napari_gets_layers(tmp_path):
    manifest = yaml.safe_load((Path(ptychon.__file__).parent / "napari.yaml").read_text())
    (command,) = manifest["contributions"]["commands"]
    (reader,) = manifest["contributions"]["readers"]
    assert reader["command"] == command["id"]
    module, name = command["python_name"].split(":")
    read = getattr(import_module(module), name)
    one = result()
    save_result(tmp_path / "r.h5", one)
    write_scan(tmp_path / "s.cxi", scan())
    (tmp_path / "other.h5").write_bytes(b"nothing")
    assert read(str(tmp_path / "other.h5")) is None
    layers = read(str(tmp_path / "r.h5"))(str(tmp_path / "r.h5"))
    names = [more["name"] for _, more, kind in layers if kind == "image"]
    assert names == ["probe", "standard deviation", "object phase", "object amplitude"]
    assert layers[-1][1]["scale"] == pytest.approx((2e-3, 4e-3))
    ((frames, more, kind),) = read([str(tmp_path / "s.cxi")])([str(tmp_path / "s.cxi")])
    assert kind == "image"
    assert more["name"] == "mine"
    assert np.array_equal(frames[3], FRAMES[3])


def test_a_report_knows_sample_and_date_of_a_nexus_file(tmp_path):
    from ptychon.reports.page import title_of

    write_scan(tmp_path / "scan_7.nxs", scan())
    with h5py.File(tmp_path / "scan_7.nxs", "r+") as file:
        file.require_group("entry_1/sample_1")["name"] = "butterfly wing"
        file["entry_1/start_time"] = "2024-05-17T08:30:00"
    data = load(tmp_path / "scan_7.nxs")
    one = replace(
        result(), settings={"notes": dict(data.notes), "input": "scan_7.nxs", "name": data.name}
    )
    assert (
        title_of(one, "r.h5", "2026-01-01")
        == "butterfly wing, scan scan_7.nxs, measured 2024-05-17"
    )
    assert title_of(result(), "r.h5", "2026-01-01") == "scan r.h5, reconstructed 2026-01-01"
