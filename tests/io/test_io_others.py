"""Files as other programs write them: units, axes, signs and traps."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychon import PtychonError, PtychonWarning
from ptychon.io import load, load_result
from ptychon.units import wavelength_of_electrons, wavelength_of_photons

rng = np.random.default_rng(2)
FRAMES = rng.poisson(4.0, (6, 8, 10)).astype(np.uint16)
PLACES = rng.uniform(-5e-6, 5e-6, (6, 2))
ELEMENTARY_CHARGE = 1.602176634e-19


def same(data, frames=FRAMES):
    return np.array_equal(np.asarray(data.patterns), frames)


def nexus(path, units=True, **where):
    """NXcxi_ptycho; returns nothing. `where` overrides values (None leaves them out)."""
    values = {
        "instrument_1/beam_1/energy": (9.0, "keV"),
        "instrument_1/source_1/energy": (3.0, "GeV"),
        "instrument_1/detector_1/distance": (1500.0, "mm"),
        "instrument_1/detector_1/x_pixel_size": (55.0, "um"),
        "instrument_1/detector_1/y_pixel_size": (75.0, "um"),
        "data_1/translation": (np.c_[PLACES * 1e6, PLACES[:, 0]], "um"),
    } | where
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry["definition"] = "NXptycho"
        file["cxi_version"] = ""
        entry["data_1/data"] = FRAMES
        for name, value in values.items():
            if value is not None:
                entry[name] = value[0]
                if units:
                    entry[name].attrs["units"] = value[1]


def test_nxcxi_ptycho_honours_units_and_ignores_the_machine_energy(tmp_path):
    nexus(tmp_path / "a.nxs")
    data = load(tmp_path / "a.nxs")
    assert data.notes["format"] == "NXcxi_ptycho"
    assert data.wavelength == pytest.approx(wavelength_of_photons(9e3 * ELEMENTARY_CHARGE))
    assert data.distance == 1.5
    assert data.detector_pixel_size == (75e-6, 55e-6)
    assert np.allclose(data.positions, PLACES[:, ::-1])  # rows along -y and the sample moves
    nexus(tmp_path / "b.nxs", **{"instrument_1/beam_1/energy": (9.0, "meV")})
    with pytest.raises(PtychonError, match=r"outside 0.1 eV to 10 MeV.*--energy"):
        load(tmp_path / "b.nxs")
    nexus(tmp_path / "c.nxs", **{"instrument_1/detector_1/distance": (3, "kg")})
    with pytest.raises(PtychonError, match=r"not a unit of length.*--distance"):
        load(tmp_path / "c.nxs")
    assert load(tmp_path / "c.nxs", distance=3).distance == 3
    nexus(tmp_path / "d.nxs", **{"instrument_1/detector_1/distance": (1.5e9, "mm")})
    with pytest.warns(
        PtychonWarning, match=r"distance is 1.5e\+06 m \(detector_1/distance\).*--distance"
    ):
        load(tmp_path / "d.nxs")


def test_diamond_raster_with_dark_and_flat(tmp_path):
    raster = rng.poisson(9.0, (2, 3, 8, 10)).astype(np.uint16)
    dark, flat = rng.uniform(0, 2, (8, 10)), rng.uniform(0.5, 2, (4, 8, 10))
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        entry = file.create_group("entry_1")
        entry["data/data"] = raster
        entry["data/x"], entry["data/y"] = np.array([1.0, 2, 3]), np.array([5.0, 7])
        for axis in "xy":
            entry[f"data/{axis}"].attrs["units"] = "um"
        detector = entry.create_group("instrument_1/detector_1")
        detector["darkfield"], detector["flatfield"] = dark, flat
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 1.0, 5e-5, 5e-5
        entry["instrument_1/beam_1/incident_energy"] = 8.0
        entry["instrument_1/beam_1/incident_energy"].attrs["units"] = "keV"
        entry["instrument_1/monitor/data"] = np.array([1.0, 1.1, 0.9, 1, 1, 1])
    data = load(tmp_path / "a.nxs")
    assert data.notes["format"] == "NeXus (Diamond)"
    assert np.allclose(data.positions, [(y * 1e-6, x * 1e-6) for y in (5, 7) for x in (1, 2, 3)])
    mean = flat.mean(axis=0)
    expected = (raster.reshape(6, 8, 10) - dark) / (mean / mean.mean())
    assert np.allclose(np.asarray(data.patterns), expected, rtol=1e-5, atol=1e-5)
    assert "varies" in data.notes["read"]["monitor"]


def ptyd(path, chunks=((0, 4), (4, 6)), meta=None, link=False):
    meta = {
        "energy": 8.0,
        "distance": 2.0,
        "psize": np.array([1e-4, 2e-4]),
        "propagation": "farfield",
        **(meta or {}),
    }
    with h5py.File(path, "w") as file:
        for name, value in meta.items():
            file[f"meta/{name}"] = np.zeros(1) if value is None else value
            file[f"meta/{name}"].attrs["type"] = (
                "None" if value is None else "pickle" if isinstance(value, bytes) else "scalar"
            )
        for k, (first, last) in enumerate(chunks):
            home = h5py.File(f"{path}.part{k:03d}", "w") if link else file
            chunk = home.create_group(f"chunks/{k}")
            for name, value in (
                ("data", FRAMES),
                ("positions", PLACES),
                ("weights", FRAMES != 3),
                ("indices", np.arange(6)),
            ):
                chunk[name] = value[first:last]
                chunk[name].attrs["type"] = "array"
            if link:
                home.close()
                file[f"chunks/{k}"] = h5py.ExternalLink(f"{path.name}.part{k:03d}", f"chunks/{k}")


def test_ptyd(tmp_path):
    for link in (False, True):
        path = tmp_path / f"{link}.ptyd"
        ptyd(path, link=link)
        data = load(path)
        assert same(data)
        assert np.allclose(data.positions, PLACES)
        assert np.array_equal(data.mask, FRAMES != 3)
        assert data.detector_pixel_size == (1e-4, 2e-4)
        assert data.wavelength == pytest.approx(wavelength_of_photons(8e3 * ELEMENTARY_CHARGE))
    (tmp_path / "True.ptyd.part001").unlink()
    with pytest.raises(PtychonError, match="another file that is not there"):
        load(tmp_path / "True.ptyd")
    ptyd(tmp_path / "none.ptyd", meta={"energy": None})  # None is stored as zeros(1)
    with pytest.raises(PtychonError, match="--energy"):
        load(tmp_path / "none.ptyd")
    ptyd(tmp_path / "evil.ptyd", meta={"distance": b"evil"})
    with pytest.raises(PtychonError, match="pickle, which is never loaded"):
        load(tmp_path / "evil.ptyd")


def test_ptylab(tmp_path):
    square = FRAMES[:, :, :8]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["ptychogram"], file["encoder"] = square, PLACES.T
        file["wavelength"], file["dxd"], file["zo"] = [[1e-9]], [[1e-5]], [[0.1]]
        file["orientation"] = 5
    data = load(tmp_path / "a.hdf5")
    assert same(data, square.swapaxes(1, 2)[:, :, ::-1])
    assert np.allclose(data.positions, PLACES - PLACES.mean(axis=0))
    assert data.pixel_size == pytest.approx((1e-9 * 0.1 / (8 * 1e-5),) * 2)


def test_fold_slice(tmp_path):
    import scipy.io

    with h5py.File(tmp_path / "data_roi0_dp.hdf5", "w") as file:
        file["dp"] = FRAMES
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "w") as file:
        file["ppX"], file["ppY"] = PLACES[:, 1][None], PLACES[:, 0][None]
    data = load(
        tmp_path / "data_roi0_dp.hdf5",
        positions_path=str(tmp_path / "data_roi0_para.hdf5"),
        pixel_size="1nm",
    )
    assert same(data)
    assert np.allclose(data.positions, PLACES)
    scipy.io.savemat(
        tmp_path / "dp.mat",
        {"dp": np.moveaxis(FRAMES, 0, -1), "positions_m": PLACES, "pixel_size_nm": 2.0},
    )
    data = load(tmp_path / "dp.mat")
    assert same(data)
    assert data.pixel_size == (2e-9, 2e-9)
    raster = np.moveaxis(FRAMES.reshape(2, 3, 8, 10), (0, 1), (2, 3))  # row, column, slow, fast
    scipy.io.savemat(tmp_path / "raster.mat", {"dp": raster})
    assert same(load(tmp_path / "raster.mat", step="3nm", pixel_size="1nm"))
    # version 7.3: HDF5 with the axes of every array reversed
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["dp"], file["positions_m"], file["pixel_size"] = (
            FRAMES.swapaxes(1, 2),
            PLACES.T,
            [[1e-9]],
        )
        file["cube"] = raster.T
        probe = rng.standard_normal((8, 10)) + 1j
        compound = np.zeros((10, 8), [("real", "f8"), ("imag", "f8")])
        compound["real"], compound["imag"] = probe.real.T, probe.imag.T
        file["probe"] = compound
    with (tmp_path / "v73.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    data = load(tmp_path / "v73.mat")
    assert same(data)
    assert np.allclose(data.positions, PLACES)
    assert np.allclose(data.probe[0], probe)
    with h5py.File(tmp_path / "v73.mat", "r+") as file:
        del file["dp"]
    assert same(load(tmp_path / "v73.mat"))


def test_emd(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["emd_group_type"], file.attrs["version_major"] = "file", 1
        cube = file.create_group("root/some/datacube")
        cube.attrs["python_class"] = "DataCube"
        cube["data"] = FRAMES.reshape(2, 3, 8, 10)
        calibration = file.create_group("root/metadatabundle/calibration")
        for name, value in (
            ("R_pixel_size", 2.0),
            ("R_pixel_units", "A"),
            ("Q_pixel_size", 0.05),
            ("Q_pixel_units", "A^-1"),
        ):
            calibration[name] = value
        calibration["QR_flip"] = False
    data = load(tmp_path / "a.h5", voltage="300kV")
    assert same(data)
    assert data.wavelength == pytest.approx(wavelength_of_electrons(300e3))
    assert data.pixel_size == pytest.approx((1e-10 / (0.05 * 8), 1e-10 / (0.05 * 10)))
    assert np.allclose(data.positions, [(s * 2e-10, f * 2e-10) for s in range(2) for f in range(3)])
    assert data.notes["dose_e_per_A2"] == pytest.approx(
        FRAMES.sum(axis=(1, 2)).mean() / 4, rel=1e-3
    )
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        calibration = file["root/metadatabundle/calibration"]
        for name, value in (
            ("Q_pixel_units", "mrad"),
            ("QR_flip", True),
            ("QR_rotation", np.pi / 2),
        ):
            calibration.pop(name, None)
            calibration[name] = value
    data = load(tmp_path / "a.h5", voltage="300kV")
    assert same(data, FRAMES.swapaxes(1, 2))
    assert data.pixel_size == pytest.approx([data.wavelength / (n * 5e-5) for n in (10, 8)])
    # py4DSTEM: a vector (x, y) = (row, column) of the scan lies at (x cos + y sin, -x sin + y cos)
    # on the detector
    assert np.allclose(data.positions[1], (2e-10, 0), atol=1e-20)
    assert np.allclose(data.positions[3], (0, -2e-10), atol=1e-20)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["root/metadatabundle"]
    with pytest.raises(PtychonError, match="--step"):
        load(tmp_path / "a.h5")


def test_empad(tmp_path):
    records = rng.random((4, 130, 128)).astype("f4")
    records.tofile(tmp_path / "scan.raw")
    data = load(tmp_path / "scan.raw", step="1A", pixel_size="0.2A")
    assert np.array_equal(np.asarray(data.patterns), records[:, :128])
    assert len(data.positions) == 4
    (tmp_path / "b.raw").write_bytes(b"x" * 1000)
    with pytest.raises(PtychonError, match="of no kind that can be read"):
        load(tmp_path / "b.raw")


def test_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    np.savetxt(tmp_path / "places.txt", PLACES * 1e6, header="y x")
    for name, options in (
        ("a.tif", {}),
        ("b.tif", {"compression": "zlib"}),
        ("c.tif", {"bigtiff": True, "byteorder": ">"}),
    ):
        tifffile.imwrite(tmp_path / name, FRAMES, photometric="minisblack", **options)
        data = load(tmp_path / name, positions_path=str(tmp_path / "places.txt"))
        assert same(data)
        assert np.array_equal(data.patterns[2:4], FRAMES[2:4])
    tifffile.imwrite(tmp_path / "d.tif", FRAMES[0])
    with pytest.raises(PtychonError, match="stack of pages"):
        load(tmp_path / "d.tif")


def test_compressed_frames_as_an_eiger_writes_them(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "data", data=FRAMES, chunks=(1, 8, 10), **hdf5plugin.Bitshuffle(cname="lz4")
        )
    np.save(tmp_path / "p.npy", PLACES)
    assert same(load(tmp_path / "a.h5", positions_path=str(tmp_path / "p.npy"), pixel_size="1nm"))


def test_samples_of_other_programs_open_or_are_refused_with_the_reason(measured):
    folder = measured / "format_samples"
    with pytest.warns(PtychonWarning, match="positions span 99.8 m"):
        listed = load(folder / "example_nxptycho_cxi_compatible.nxs", energy="9keV")
    assert listed.patterns.shape == (100, 32, 32)
    with pytest.warns(PtychonWarning, match="positions span 9 m"):
        raster = load(folder / "example_nxptycho_cxi_compatible_raster.nxs")
    assert raster.wavelength == pytest.approx(1.3776e-10, rel=1e-4)
    for name, message in (
        ("cxidb_minimal.cxi", r"has shape \(50, 100\)"),
        ("example_nxptycho_cxi_compatible.nxs", r"outside 0\.1 eV to 10 MeV.*--energy"),
        ("DLS_scan_scan1.ptyr", "reconstruction by ptypy.*--start"),
        ("ptychi_metadata_250_truePos.hdf5", "no frames.*--data-path"),
    ):
        with pytest.raises(PtychonError, match=message):
            load(folder / name)
    ptypy = load_result(folder / "DLS_scan_scan1.ptyr")
    assert ptypy.object.shape == (402, 416)
    assert ptypy.pixel_size == pytest.approx((6.35820101e-08,) * 2)
    inside = ptypy.positions - np.array(ptypy.probe.shape[1:]) // 2
    assert inside.min() >= 0
    assert (inside.max(axis=0) + 128 <= np.array(ptypy.object.shape)).all()
    product = load_result(folder / "ptychi_metadata_250_truePos.hdf5")
    corners = np.rint(product.positions).astype(int) - 128
    assert corners.min() >= 0
    assert (
        corners.max(axis=0) + 256 <= np.array(product.object.shape)
    ).all()  # in the file windows hang over the edge
    assert product.probe.shape == (2, 256, 256)


def test_our_ptyr_is_made_like_one_of_ptypy(measured, tmp_path):
    from ptychon.io import write_result

    path = measured / "format_samples" / "DLS_scan_scan1.ptyr"
    theirs = load_result(path)
    write_result(tmp_path / "a.ptyr", theirs)
    with h5py.File(tmp_path / "a.ptyr") as ours, h5py.File(path) as file:
        for name in (
            "header",
            "header/kind",
            "content",
            "content/obj",
            "content/probe",
            "content/positions",
            "content/pars",
            "content/runtime",
            "content/runtime/iter_info",
        ):
            assert ours[name].attrs["type"] == file[name].attrs["type"], name
        for kind in ("obj", "probe"):
            for name, node in ours[f"content/{kind}/SMFG00"].items():
                other = file[f"content/{kind}/SMFG00/{name}"]
                assert name == "shape" or node.attrs["type"] == other.attrs["type"], name
                if (
                    hasattr(node, "shape")
                    and hasattr(other, "shape")
                    and name not in ("fill_value", "padding")
                ):
                    assert (
                        np.allclose(node[()], other[()])
                        if node.dtype.kind in "ifc"
                        else node[()] == other[()]
                    ), name
    back = load_result(tmp_path / "a.ptyr")
    assert np.array_equal(back.object, theirs.object)
    assert np.allclose(back.positions, theirs.positions)
