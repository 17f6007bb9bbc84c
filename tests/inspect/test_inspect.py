"""ptychon inspect and convert on the command line."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from ptychon import Dataset, PtychonError, Result
from ptychon.__main__ import main
from ptychon.inspect.file import inspect
from ptychon.io import load, save_result, write_dataset, write_scan

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def scan(n=64, size=32, step=2.0, **more):
    """A well-behaved scan in px: a disc-shaped probe, blobs of light in the middle."""
    side = int(np.sqrt(n))
    places = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2) * step + rng.uniform(
        -0.3, 0.3, (n, 2)
    )
    rows, columns = np.indices((size, size)) - size // 2
    probe = (np.hypot(rows, columns) < size / 5).astype("c8")
    light = np.abs(np.fft.fftshift(np.fft.fft2(probe))) ** 2
    frames = rng.poisson(np.broadcast_to(light / light.sum() * 2e4, (n, size, size))).astype(
        np.uint16
    )
    return Dataset(**{"patterns": frames, "positions": places, "probe": probe} | more)


def test_a_good_scan_has_nothing_to_complain_of():
    write_dataset("a.cxi", scan())
    about = inspect("a.cxi")
    assert about["ready"]
    assert about["advice"][0] == "nothing looks wrong: ptychon reconstruct a.cxi"
    assert len(about["advice"]) == 2
    assert "orientation" not in about["missing"]
    assert about["frames"]["counts_mean"] == pytest.approx(2e4, rel=0.01)
    assert about["scan"]["step"] == pytest.approx(2, rel=0.2)
    assert about["scan"]["beam_diameter"] == pytest.approx(2 * 32 / 5, rel=0.05)
    assert 0.8 < about["scan"]["overlap"] < 0.9
    assert about["scan"]["oversampling"] == pytest.approx(2.5, rel=0.05)
    assert set(about["engines"]) == {"pie", "epie", "rpie", "mpie", "dm", "ep"}


def test_what_is_wrong_is_said():
    frames = np.array(scan().patterns)
    frames[:, 3, 4] = 900
    frames[5] = 0
    frames = np.roll(frames, 5, axis=2)
    write_dataset("a.cxi", scan(step=12.0, patterns=frames))
    advice = " ".join(inspect("a.cxi")["advice"])
    for words in (
        "1 hot",
        "--bad-pixels",
        "--centre auto",
        "1 of 64 frames looked at are",
        "hardly overlap",
        "only; 60 %",
    ):
        assert words in advice
    drifting = np.array(
        [np.roll(frame, k // 8, axis=0) for k, frame in enumerate(np.array(scan().patterns))]
    )
    write_dataset("b.cxi", scan(patterns=drifting))
    about = inspect("b.cxi")
    assert about["frames"]["drift"][0] == pytest.approx(8, abs=1)
    assert any("drifts" in line for line in about["advice"])


def foreign(**more):
    with h5py.File("scan.cxi", "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.asarray(scan().patterns)
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 1.0, 5e-5, 5e-5
        places = np.column_stack([rng.uniform(0, 2e-5, (64, 2)), np.zeros(64)]) * more.get(
            "scale", 1
        )
        file["entry_1/sample_1/geometry_1/translation"] = places
        if "energy" in more:
            file["entry_1/instrument_1/source_1/energy"] = more["energy"]


def test_what_is_missing_is_listed_with_its_flag(capsys):
    foreign()
    about = inspect("scan.cxi")
    assert not about["ready"]
    assert "--energy" in about["missing"]
    assert about["frames"]["counts_mean"] > 1e4
    rows = {row["name"]: row for row in about["found"]}
    assert rows["wavelength"]["value"] is None
    assert "--energy" in rows["wavelength"]["flag"]
    assert rows["distance"]["value"] == "1 m"
    assert main(["inspect", "scan.cxi"]) == 0
    out, err = capsys.readouterr()
    assert "give --energy or --voltage" in out
    assert err == ""
    assert main(["inspect", "scan.cxi", "--energy", "10keV", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["ready"]
    assert about["scan"]["unit"] == "m"


def test_near_field_read_as_far_field_is_suspected():
    foreign(energy=2e-15)
    assert any("near field: give --near-field" in line for line in inspect("scan.cxi")["advice"])
    near = inspect("scan.cxi", geometry="near", focus_distance=1e-2)
    assert not any("near field: give" in line for line in near["advice"])
    foreign(energy=2e-15, scale=1e6)
    assert any("must be wrong" in line for line in inspect("scan.cxi")["advice"])


def test_a_reconstruction(capsys):
    result = Result(
        object=np.ones((40, 50), "c8"),
        probe=np.ones((2, 16, 16), "c8"),
        errors=np.full(3, 0.5, "f4"),
        final_error=0.1,
        positions=rng.uniform(8, 30, (6, 2)),
        engine="ep",
        passes=3,
    )
    save_result("r.h5", result)
    assert main(["inspect", "r.h5"]) == 0
    assert "40 x 50" in capsys.readouterr().out
    assert main(["convert", "r.h5", "r.ptyr"]) == 0
    assert "lost: settings and provenance" in capsys.readouterr().out
    assert inspect("r.ptyr")["format"] == "ptypy"
    assert main(["convert", "r.h5", "p.npz", "--format", "ptychodus", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "reconstruction"
    with pytest.raises(PtychonError, match="no frames"):
        inspect("p.npz", data_path="patterns")


def test_preparation_on_the_command_line(capsys):
    write_dataset("a.cxi", scan())
    arguments = [
        "--crop",
        "16x16",
        "--bin",
        "2",
        "--frames",
        "::2",
        "--bad-pixels",
        "--scan-sign",
        "-+",
    ]
    assert main(["convert", "a.cxi", "b.cxi", *arguments, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    data = load("b.cxi")
    assert data.patterns.shape == (32, 8, 8)
    assert data.notes["prepared"]["bin"] == 2
    assert inspect("b.cxi")["preparation"]["crop"] == [16, 16]
    for wrong in (
        ["--crop", "x"],
        ["--bin", "0"],
        ["--frames", "q"],
        ["--dark", "none.npy"],
        ["--scan-rotation", "90"],
    ):
        assert main(["convert", "a.cxi", "c.cxi", *wrong]) == 2
        err = capsys.readouterr().err
        assert err.startswith("ptychon: ")
        assert err.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        open("c.cxi").close()


def test_files_that_cannot_be_read_are_refused_in_one_line(capsys):
    with open("a.cxi", "wb") as stream:
        stream.write(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    for arguments in (
        ["inspect", "a.cxi"],
        ["inspect", "none.cxi"],
        ["convert", "a.cxi", "b.cxi"],
        ["inspect", "."],
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def _simulated(**scale):
    rng = np.random.default_rng(0)
    return Dataset(
        patterns=rng.poisson(50, (9, 16, 16)),
        positions=np.stack(np.mgrid[:3, :3], -1).reshape(9, 2) * 4e-7,
        **scale,
    )


@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz"])
def test_what_our_own_files_state_has_its_place(tmp_path, name):
    """Nothing that stands in a file is called derived: a place, "computed from ...", or default."""
    data = _simulated(detector_pixel_size=75e-6, wavelength=1e-10, distance=1.0)
    path = tmp_path / name
    write_scan(path, data)
    rows = {row["name"]: row for row in inspect(path)["found"]}
    for quantity in ("wavelength", "distance", "detector_pixel_size", "geometry"):
        assert quantity in rows[quantity]["where"], rows[quantity]
        assert "guess" not in rows[quantity]["where"]
    assert "positions" in rows["positions"]["where"] or "translation" in rows["positions"]["where"]
    assert rows["mask"]["where"] == rows["probe"]["where"] == "default"
    pixel = rows["pixel_size"]["where"]
    assert "pixel_size" in pixel or pixel.startswith("computed from wavelength, distance and")
    given = {row["name"]: row for row in inspect(path, energy="10keV")["found"]}
    assert given["wavelength"]["where"] == "computed from the energy that was given"
    assert load(path).notes == data.notes or name == "scan.npz"
