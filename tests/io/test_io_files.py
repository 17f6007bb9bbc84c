"""Frames in other files, in many files, and in files that are not understood."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import tifffile

from ptychon import PtychonError, load
from ptychon.__main__ import main
from ptychon.io import load_result
from ptychon.io.places import natural, sha256_of, stem_of
from ptychon.request.inputs import find_data

pytestmark = pytest.mark.usefixtures("sketched")

r = np.random.default_rng(0)
FRAMES = r.poisson(30.0, (12, 16, 18)).astype(np.int32)
PLACES = np.stack(np.mgrid[:3, :4], -1).reshape(-1, 2) * 3.0


def parts_of_a_scan(folder, name="entry/data/data", **compression):
    """Two files with half of the frames each, and a virtual dataset over both."""
    for number, part in enumerate((FRAMES[:6], FRAMES[6:]), 1):
        with h5py.File(folder / f"d{number}.h5", "w") as file:
            file.create_dataset(name, data=part, chunks=(1, 16, 18), **compression)
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    for number in (1, 2):
        layout[6 * number - 6 : 6 * number] = h5py.VirtualSource(f"d{number}.h5", name, (6, 16, 18))
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_virtual_dataset("frames", layout)
        file["positions_px"] = PLACES
    return folder / "scan.h5"


def test_a_virtual_dataset_over_compressed_files(tmp_path):
    """In a process of its own: in this one the plugin may be loaded already."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = parts_of_a_scan(tmp_path, **hdf5plugin.Bitshuffle(cname="lz4"))
    code = (
        "import ptychon, numpy; "
        f"print(int(numpy.asarray(ptychon.load({str(path)!r}).patterns).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(FRAMES.sum()), done.stderr


def test_files_that_a_virtual_dataset_is_made_of(tmp_path, monkeypatch):
    path = parts_of_a_scan(tmp_path)
    assert np.array_equal(np.asarray(load(path).patterns), FRAMES)
    moved = (tmp_path / "d2.h5").rename(tmp_path / "other.h5")
    with pytest.raises(
        PtychonError, match=r"1 of 2 files \(first: d2.h5\).*missing; put it.*beside"
    ):
        load(path)
    (tmp_path / "d1.h5").unlink()
    with pytest.raises(PtychonError, match=r"2 of 2 files \(first: d1.h5\).*are missing; put them"):
        load(path)
    parts_of_a_scan(tmp_path, name="elsewhere")
    layout = h5py.VirtualLayout((6, 16, 18), "i4")
    layout[:] = h5py.VirtualSource(str(moved), "gone", (6, 16, 18))
    with h5py.File(path, "r+") as file:
        del file["frames"], file["positions_px"]
        file.create_virtual_dataset("frames", layout)
        file["positions_px"] = PLACES[:6]
    with pytest.raises(PtychonError, match=r"made of gone of .*other.h5, which is not there"):
        load(path)
    # an absolute name whose folder has moved: the file is looked for beside, as the HDF5 library
    # does
    layout = h5py.VirtualLayout((6, 16, 18), "i4")
    layout[:] = h5py.VirtualSource("/somewhere/else/other.h5", "entry/data/data", (6, 16, 18))
    with h5py.File(path, "r+") as file:
        del file["frames"]
        file.create_virtual_dataset("frames", layout)
    monkeypatch.chdir("/")
    assert np.array_equal(np.asarray(load(path).patterns), FRAMES[6:])


def test_a_filter_that_nobody_has(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 16, 18))
        plist.set_filter(60000, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(
            file.id, b"frames", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((12, 16, 18)), plist
        )
        file["positions_px"] = PLACES
    with pytest.raises(PtychonError, match=r"plugin that is not there \(filter 60000.*hdf5plugin"):
        load(tmp_path / "a.h5")


def test_raw_files_that_are_missing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "frames", (12, 16, 18), "i4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)]
        )
        file["positions_px"] = PLACES
    with pytest.raises(PtychonError, match=r"the file raw.bin that .* is missing"):
        load(tmp_path / "a.h5")


def hdf5(path, frame):
    with h5py.File(path, "w") as file:
        file["entry/data"] = frame


def fabio_image(kind, path, frame):
    fabio = pytest.importorskip("fabio")
    getattr(getattr(fabio, f"{kind}image"), f"{kind.capitalize()}Image")(data=frame).write(
        str(path)
    )


WRITERS = {
    "tif": tifffile.imwrite,
    "npy": np.save,
    "h5": hdf5,
    "cbf": partial(fabio_image, "cbf"),
    "edf": partial(fabio_image, "edf"),
}


def folder_of(path, kind, table=True):
    path.mkdir()
    for number, frame in enumerate(FRAMES):
        WRITERS[kind](path / f"frame_{number}.{kind}", frame)
    if table:
        np.savetxt(path / "positions.csv", PLACES, delimiter=",")
        (path / "log.txt").write_text("started at noon\n")
        WRITERS[kind](path / f"dark.{kind}", FRAMES[0])
    return path


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_with_a_file_for_each_frame(tmp_path, kind):
    folder = folder_of(tmp_path / "scan", kind)
    data = load(folder)
    assert np.array_equal(np.asarray(data.patterns), FRAMES)  # frame_2 before frame_10
    assert np.array_equal(data.positions, PLACES)
    assert np.array_equal(data.patterns[[7, 2]], FRAMES[[7, 2]])
    assert f"dark.{kind}" in data.notes["read"]["patterns"]
    picked = load(
        folder / f"frame_?.{kind}", positions_path=str(folder / "positions.csv"), frames="0:10"
    )
    assert np.array_equal(np.asarray(picked.patterns), FRAMES[:10])
    WRITERS[kind](folder / f"frame_3.{kind}", FRAMES[0, :9])
    with pytest.raises(PtychonError, match=r"frame_3.*shape \(9, 18\)"):
        np.asarray(load(folder).patterns)


@pytest.mark.parametrize("kind", ["tif", "npy", "h5"])
def test_a_folder_of_stacks(tmp_path, kind):
    for number, part in enumerate((FRAMES[:5], FRAMES[5:10], FRAMES[10:])):
        WRITERS[kind](tmp_path / f"part{number + 9}.{kind}", part)
    np.save(tmp_path / "places.npy", PLACES)
    data = load(tmp_path, positions_path="places.npy")
    assert np.array_equal(np.asarray(data.patterns), FRAMES)
    assert np.array_equal(data.positions, PLACES)


def test_folders_that_are_refused(tmp_path):
    folder = folder_of(tmp_path / "a", "npy", table=False)
    for number in range(9):
        np.save(folder / f"mean{number}.npy", FRAMES[0])
    with pytest.raises(PtychonError, match=r"12 like frame_0.npy, 9 like mean0.npy.*frame_\*.npy"):
        load(folder)
    empty = tmp_path / "b"
    empty.mkdir()
    with pytest.raises(PtychonError, match="no files"):
        load(empty)
    with pytest.raises(PtychonError, match="no such files"):
        load(folder / "scan*.tif")
    (empty / "notes.md").write_text("x")
    with pytest.raises(PtychonError, match=r"none of its 1 files holds frames"):
        load(empty)
    (empty / ".zgroup").write_text("{}")
    with pytest.raises(PtychonError, match="Zarr store"):
        load(empty)
    (folder / "frame_5.npy").write_bytes(b"")
    with pytest.raises(PtychonError, match="npy is empty"):
        np.asarray(load(folder / "frame_*.npy", positions=PLACES).patterns)


def test_a_result_finds_its_folder_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "scan.1", "tif")
    assert main(["inspect", "scan.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"]["count"] == 12
    assert main(["reconstruct", "scan.1", "-n", "2", "-q"]) == 0
    result = load_result(tmp_path / "scan.1_rpie.h5")
    assert result.provenance["input_sha256"] == sha256_of(tmp_path / "scan.1")
    data, place, changed = find_data(result, tmp_path / "scan.1_rpie.h5")
    assert (len(data), place, changed) == (12, tmp_path / "scan.1", False)
    tifffile.imwrite("scan.1/frame_4.tif", FRAMES[0])
    assert find_data(result, tmp_path / "scan.1_rpie.h5")[2]
    assert stem_of("scan.1/frame_*.tif") == "frame"


def test_names_are_sorted_as_people_count():
    names = ["b1", "a10", "a2", "a02b", "a", "A3"]
    assert sorted(names, key=natural) == ["a", "a02b", "a2", "A3", "a10", "b1"]


def test_what_is_not_recognised_is_listed_with_flags(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("a.h5", "w") as file:
        file["ref"], file["raw"], file["xy"], file["cal"], file["obj"] = (
            FRAMES[:5],
            FRAMES,
            PLACES,
            PLACES[:5],
            FRAMES[0] + 0j,
        )
    expected = (
        r"--data-path raw \(12, 16, 18\) int32, --data-path ref .*--positions-path xy \(12, 2\) "
        r"float64, .*cal.*obj"
    )
    with pytest.raises(PtychonError, match=expected):
        load("a.h5")
    assert len(load("a.h5", data_path="raw", positions_path="xy")) == 12
    np.savez("b.npz", q=PLACES, temperature=np.arange(4))
    with pytest.raises(PtychonError, match=r"no stack.*--positions-path q .*temperature \(4,\)"):
        load("b.npz")
    with h5py.File("c.h5", "w") as file:
        file["only"], file["where"], file["other"] = FRAMES, PLACES, PLACES[:7]
    assert main(["inspect", "c.h5", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["found"]}
    assert rows["positions"]["problem"] == "they may be --positions-path where (12, 2) float64"
    np.save("d.npy", PLACES)
    np.save("e.npy", FRAMES[0])
    np.savetxt("f.csv", PLACES, delimiter=",", header="y,x", comments="")
    (tmp_path / "g.txt").write_text("hello\nyou\nthere\n")
    tifffile.imwrite("h.tif", FRAMES[0])
    for name, part in {
        "d.npy": "--positions-path",
        "e.npy": "name their folder",
        "f.csv": "13 lines and 2 columns.*--positions-path",
        "g.txt": "of no kind that can be read",
        "h.tif": "name their folder",
    }.items():
        with pytest.raises(PtychonError, match=part):
            load(name)
