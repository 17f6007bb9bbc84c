"""Our files read by the readers of other packages, and theirs by ours; each test needs its package,
which we never require.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ptychon import Dataset, PtychonError, Result
from ptychon.io import load, save_result, write_dataset, write_result, write_scan

rng = np.random.default_rng(4)
FRAMES = rng.poisson(4.0, (6, 16, 16)).astype(np.uint16)


def scan(**more):
    known = {
        "wavelength": 1e-9,
        "distance": 0.5,
        "detector_pixel_size": 1e-5,
        "mask": FRAMES[0] < 9,
    } | more
    return Dataset(patterns=FRAMES, positions=rng.uniform(-1e-5, 1e-5, (6, 2)), **known)


def result():
    return Result(
        object=(rng.standard_normal((60, 60)) + 1j).astype("c8"),
        probe=(rng.standard_normal((2, 16, 16)) + 1j).astype("c8"),
        errors=np.array([0.5, 0.4], "f4"),
        final_error=0.3,
        positions=rng.uniform(10, 40, (6, 2)),
        engine="rpie",
        passes=2,
        pixel_size=(2e-9, 2e-9),
        origin=(-6e-8, -6e-8),
        settings={"wavelength": 1e-9, "distance": 0.5, "name": "test"},
    )


def test_ptylab_reads_our_scan_and_our_result(tmp_path):
    pytest.importorskip("PtyLab")
    from PtyLab.ExperimentalData.ExperimentalData import ExperimentalData
    from PtyLab.Params.Params import Params
    from PtyLab.Reconstruction.Reconstruction import Reconstruction

    data, one = scan(), result()
    write_scan(tmp_path / "a.hdf5", data)
    theirs = ExperimentalData(str(tmp_path / "a.hdf5"), operationMode="CPM")
    assert np.array_equal(theirs.ptychogram, FRAMES)
    assert np.allclose(np.diff(theirs.encoder, axis=0), np.diff(data.positions, axis=0))
    reconstruction = Reconstruction(theirs, Params())
    assert reconstruction.dxo == pytest.approx(data.pixel_size[0])
    write_result(tmp_path / "r.hdf5", one)
    reconstruction.load(str(tmp_path / "r.hdf5"))
    assert np.array_equal(np.squeeze(reconstruction.object), one.object)
    assert np.array_equal(np.squeeze(reconstruction.probe), one.probe)


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_ptychodus_reads_our_product(tmp_path, suffix):
    pytest.importorskip("ptychodus")
    if suffix == "h5":
        from ptychodus.plugins.h5_product_file import H5ProductFileIO as Reader
    else:
        from ptychodus.plugins.npz_product_file import NPZProductFileIO as Reader
    one = result()
    path = tmp_path / f"p.{suffix}"
    write_result(path, one, "ptychodus")
    product = Reader().read(path)
    obj = product.object_
    assert np.array_equal(obj.get_array()[0], one.object)
    geometry = obj.get_geometry()
    points = list(product.probe_positions)
    x = np.array([p.coordinate_x_m if hasattr(p, "coordinate_x_m") else p.x_m for p in points])
    column = (x - geometry.center_x_m) / geometry.pixel_width_m + geometry.width_px / 2
    assert np.allclose(column, one.positions[:, 1])
    from ptychon.io import load_result

    copy = tmp_path / f"q.{suffix}"
    Reader().write(copy, product)
    back = load_result(copy)
    assert np.array_equal(back.object, one.object)
    assert np.allclose(back.positions, one.positions)
    assert back.origin == pytest.approx(one.origin)


def test_cdtools_reads_our_scan_and_our_result(tmp_path):
    pytest.importorskip("cdtools")
    import h5py
    from cdtools.datasets import Ptycho2DDataset

    data = scan()
    write_dataset(tmp_path / "a.cxi", data)
    theirs = Ptycho2DDataset.from_cxi(str(tmp_path / "a.cxi"))
    assert np.array_equal(theirs.patterns.numpy(), FRAMES)
    assert np.array_equal(theirs.mask.numpy().astype(bool), data.mask)
    assert theirs.wavelength == pytest.approx(1e-9)
    # they keep the motion of the probe, x and y
    assert np.allclose(-theirs.translations.numpy()[:, :2], data.positions[:, ::-1], atol=1e-12)
    theirs.to_cxi(str(tmp_path / "b.cxi"))
    back = load(tmp_path / "b.cxi")
    assert np.array_equal(np.asarray(back.patterns), FRAMES)
    assert np.allclose(back.positions, data.positions, atol=1e-11)
    assert np.array_equal(back.mask, data.mask)
    save_result(tmp_path / "r.h5", result())
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["entry_1/image_1/data"].shape == (60, 60)


def test_ptypy_reads_our_result(tmp_path):
    pytest.importorskip("ptypy")
    from ptypy import io

    one = result()
    write_result(tmp_path / "a.ptyr", one)
    content = io.h5read(str(tmp_path / "a.ptyr"), "content")["content"]
    (obj,) = content["obj"].values()
    assert np.array_equal(obj["data"][0], one.object)
    assert obj["_psize"] == pytest.approx(one.pixel_size)


def test_emdfile_writes_what_we_read(tmp_path):
    emdfile = pytest.importorskip("emdfile")

    root = emdfile.Root(name="root")
    cube = emdfile.Array(name="cube", data=FRAMES.reshape(2, 3, 16, 16))
    root.tree(cube)
    emdfile.save(str(tmp_path / "a.h5"), root, mode="o")
    data = load(tmp_path / "a.h5", step="1A", pixel_size="0.1A")
    assert data.notes["format"] == "EMD 1.0"
    assert np.array_equal(np.asarray(data.patterns), FRAMES)


@pytest.mark.parametrize("name", ["Blockfile", "HSPY"])
def test_rosettasciio(tmp_path, name):
    pytest.importorskip("rsciio")
    if name == "Blockfile":
        from rsciio.blockfile import file_writer

        suffix, dtype = "blo", np.uint8
    else:
        from rsciio.hspy import file_writer

        suffix, dtype = "hspy", np.uint16
    stack = FRAMES.reshape(2, 3, 16, 16).astype(dtype)
    axes = [
        {
            "name": n,
            "size": s,
            "scale": k,
            "offset": 0.0,
            "units": u,
            "navigate": v,
            "index_in_array": i,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for i, (n, s, k, u, v) in enumerate(
            (
                ("y", 2, 2.0, "nm", True),
                ("x", 3, 2.0, "nm", True),
                ("dy", 16, 0.1, "1/nm", False),
                ("dx", 16, 0.1, "1/nm", False),
            )
        )
    ]
    signal = {
        "data": stack,
        "axes": axes,
        "metadata": {"General": {"title": ""}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "package": "x",
        "package_version": "1",
        "attributes": {"_lazy": False, "ragged": False},
        "learning_results": {},
        "models": {},
        "tmp_parameters": {},
        "package_info": {"package": "x", "package_version": "1"},
    }
    path = Path(tmp_path / f"a.{suffix}")
    file_writer(str(path), signal)
    data = load(path, voltage="200kV", step="2nm", pixel_size="1A")
    assert np.array_equal(np.asarray(data.patterns), stack.reshape(6, 16, 16))
    assert "RosettaSciIO" in data.notes["format"]


def test_a_reader_that_needs_more_says_what(tmp_path, monkeypatch):
    """The one for .blo needs scikit-image, which RosettaSciIO alone does not bring."""
    pytest.importorskip("rsciio")
    for name in [name for name in sys.modules if name.startswith("rsciio.blockfile")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    (tmp_path / "a.blo").write_bytes(b"IMGBLO" + bytes(500))
    with pytest.raises(
        PtychonError, match=r"Blockfile of RosettaSciIO.*skimage.*'pip install ptychon\[em\]'"
    ):
        load(tmp_path / "a.blo")
