"""Orientations: how they combine, which are equivalent, and that scrambled scans are put right."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychon import PtychonError, load
from ptychon.__main__ import main
from ptychon.inspect.orientation import Orientation, Ranking, Trial, find
from ptychon.inspect.trials import subset
from ptychon.io import write_dataset

pytestmark = pytest.mark.usefixtures("sketched")

ALL = [
    Orientation(transpose=t, flip_rows=r, flip_columns=c, negate=n)
    for t, r, c, n in itertools.product((False, True), repeat=4)
]


def scrambled(data, way):
    """What another detector would have written, plainly."""

    def turned(a):
        return None if a is None else np.ascontiguousarray(way.frames(np.asarray(a), far=False))

    sign = -1 if way.negate else 1
    return replace(
        data,
        patterns=turned(data.patterns),
        mask=turned(data.mask),
        positions=sign * data.positions,
    )


@pytest.fixture(scope="module")
def scan():
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    shape = (96, 96)
    truth = phantoms.complex_object(
        phantoms.cell(shape), phantoms.siemens_star(shape), phase_range=(0.0, 1.0)
    )
    probe = probes.defocused_aperture((32, 32), radius=7, defocus=8)
    made = simulate(
        truth, probe, raster(11, 4, jitter=1, whole=False), noise="poisson", mean_counts=1e6
    )
    return replace(made.dataset, probe=made.probe)


def test_texts():
    for way in ALL:
        assert Orientation.parse(str(way)) == way
    assert str(Orientation()) == "as-is"
    assert Orientation.parse("negate+Flip_Rows") == Orientation(flip_rows=True, negate=True)
    with pytest.raises(PtychonError, match="'sideways' is none of"):
        Orientation.parse("transpose+sideways")


def test_they_form_a_group():
    frame = np.arange(35.0).reshape(1, 5, 7)
    for first, second in itertools.product(ALL, ALL):
        both = first.then(second)
        np.testing.assert_array_equal(
            both.frames(frame, False), second.frames(first.frames(frame, False), False)
        )
        assert both.negate == (first.negate != second.negate)


def test_classes():
    for geometry, size in (("far", 4), ("near", 2)):
        classes = {way.equivalents(geometry) for way in ALL}
        assert len(classes) == 16 // size
        assert {len(c) for c in classes} == {size}


def test_zero_frequency_stays(scan):
    for way, shape in itertools.product(ALL, ((4, 6), (5, 4))):
        frame = np.zeros((2, *shape))
        frame[:, shape[0] // 2, shape[1] // 2] = 1
        turned = way.frames(frame, far=True)
        assert turned[0, turned.shape[1] // 2, turned.shape[2] // 2] == 1


def test_turned_data_sets(scan):
    wide = replace(
        scan,
        patterns=scan.patterns[:, :, :24],
        probe=scan.probe[:, :, :24],
        pixel_size=(1.0, 2.0),
        mask=np.eye(32, 24, dtype=bool),
    )
    way = Orientation(transpose=True, flip_rows=True, negate=True)
    turned = way.apply(wide)
    assert turned.patterns.shape == (len(scan), 24, 32)
    assert turned.probe.shape == (1, 24, 32)
    assert turned.pixel_size == (2.0, 1.0)
    np.testing.assert_array_equal(turned.positions, -wide.positions)
    np.testing.assert_array_equal(turned.patterns[3:5], way.frames(wide.patterns[3:5], far=True))
    np.testing.assert_array_equal(np.asarray(turned.patterns)[7], turned.patterns[7])
    assert turned.mask.shape == (24, 32)
    assert turned.notes["orientation"] == "transpose+flip-rows+negate"
    assert Orientation().apply(scan) is scan


def test_the_part_that_is_tried(scan):
    part, held = subset(scan, 60)
    assert len(part) == 60
    assert held.sum() == 15
    with pytest.raises(PtychonError, match="at least 10"):
        subset(replace(scan, patterns=scan.patterns[:8], positions=scan.positions[:8]))
    P = 512
    frames = np.zeros((12, P, P), np.float32)
    frames[:, 200:300, 200:300] = 1
    probe = np.exp(-((np.arange(P) - P / 2) ** 2) / 800)
    probe = np.outer(probe, probe).astype(np.complex64)
    big = replace(
        scan, patterns=frames, positions=40.0 * scan.positions[:12], probe=probe, object_shape=None
    )
    part, _ = subset(big)
    assert part.frame_shape == (128, 128)
    np.testing.assert_allclose(part.positions, 10 * scan.positions[:12])
    assert abs(part.probe[0, 64, 64]) == np.abs(part.probe).max()


@pytest.mark.parametrize("way", ["as-is", "transpose+negate", "flip-columns"])
def test_scrambled_scans_are_put_right(scan, way):
    way = Orientation.parse(way)
    said: list[str] = []
    ranking = find(scrambled(scan, way), say=said.append)
    assert ranking.decided
    assert way.then(ranking.best.orientation) in Orientation().equivalents("far")
    assert len(ranking.trials) == 4
    assert [-t.explained for t in ranking.trials] == sorted(-t.explained for t in ranking.trials)
    assert ranking.margin == min(t.behind for t in ranking.trials[1:])
    assert said[-1].startswith("8 of 8")


def test_data_that_cannot_decide(scan):
    from ptychon.simulation.simulate import simulate

    flat = simulate(
        np.ones((80, 80)), scan.probe, scan.positions, noise="poisson", mean_counts=1e5
    ).dataset
    assert not find(flat, frames=40).decided


def test_the_command_that_follows_has_all_that_was_said(monkeypatch, capsys, tmp_path):
    from ptychon.cli.orient import carried, orient, show

    typed = [
        "my scan.h5",
        "--data-path",
        "dp",
        "--step=31.25A",
        "--scan-shape",
        "4x5",
        "--near-field",
        "--rotation",
        "-126deg",
        "--bad-pixels",
        "--seed",
        "3",
        "--sample=40",
        "-q",
        "--probe",
        "a b.npy",
        "--backend",
        "numpy",
        "--json",
        "--crop",
        "8x8",
    ]
    kept = [
        "--data-path",
        "dp",
        "--step=31.25A",
        "--scan-shape",
        "4x5",
        "--near-field",
        "--rotation",
        "-126deg",
        "--bad-pixels",
        "--probe",
        "a b.npy",
        "--crop",
        "8x8",
    ]
    assert carried(typed, orient) == kept
    trials = tuple(
        Trial(
            orientation=Orientation(transpose=t),
            equivalents=(),
            probe="given",
            explained=0.2,
            behind=behind,
            passes=5,
        )
        for t, behind in ((True, 0.0), (False, 9.0))
    )

    def last(*, behind=9.0, best=0, frames=100):
        ordered = (trials[best], replace(trials[1 - best], behind=behind))
        show(
            Ranking(trials=ordered, geometry="far", frames=40, held_out=10, seconds=1.0),
            "my scan.h5",
            kept,
            frames,
        )
        return shlex.split(capsys.readouterr().out.splitlines()[-1])

    assert last() == ["ptychon", "reconstruct", "my scan.h5", *kept, "--orient", "transpose"]
    assert last(best=1) == ["ptychon", "reconstruct", "my scan.h5", *kept, "--orient", "as-is"]
    assert last(behind=1.0) == ["ptychon", "orient", "my scan.h5", *kept, "--max-frames", "80"]
    assert last(behind=1.0, frames=40) == [
        "ptychon",
        "reconstruct",
        "my scan.h5",
        *kept,
        "--orient",
        "transpose",
    ]


def test_a_first_probe_of_another_file(scan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    way = Orientation(transpose=True)
    write_dataset("scan.cxi", replace(scrambled(scan, way), probe=None))
    np.save("probe.npy", scan.probe)
    assert main(["orient", "scan.cxi", "--probe", "probe.npy", "--max-frames", "60", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"][0]["first_probe"] == "given"
    assert way.then(Orientation.parse(found["orientation"])) in Orientation().equivalents("far")
    np.save("probe.npy", scan.probe[:, :8])
    assert main(["orient", "scan.cxi", "--probe", "probe.npy"]) == 2
    assert "probe" in capsys.readouterr().err


def test_nobody_said_which_way_round(scan, tmp_path, monkeypatch, capsys):
    """Said by inspect and reconstruct, with what finds it; not where the file or the user states
    it.
    """
    from ptychon.inspect.file import inspect

    monkeypatch.chdir(tmp_path)
    few = replace(scan, patterns=scan.patterns[:20], positions=scan.positions[:20])
    few = replace(few, notes={})  # it was simulated, which says it too
    write_dataset("pixels.cxi", few)
    scaled = replace(
        few,
        positions=few.positions * 1e-8,
        pixel_size=None,
        wavelength=1e-10,
        distance=1.0,
        detector_pixel_size=1e-10 / 32e-8,
    )
    write_dataset("scaled.cxi", scaled)
    assert (
        "does not say how its detector was mounted" in inspect("scaled.cxi")["advice"][-1]
    )  # still nobody has
    with h5py.File("scaled.cxi", "a") as file:  # as others write it, with basis vectors
        del file["ptychon"], file.attrs["ptychon"]
    advice = inspect("pixels.cxi")["advice"]
    assert "does not say how its detector was mounted" in advice[-1]
    assert advice[-1].endswith("try ptychon orient pixels.cxi")
    row = next(row for row in inspect("scaled.cxi")["found"] if row["name"] == "orientation")
    assert (row["value"], row["where"]) == ("as the file states", "basis_vectors")
    assert not any("mounted" in line for line in inspect("scaled.cxi")["advice"])
    for file, more, said in (
        ("pixels.cxi", [], True),
        ("pixels.cxi", ["--orient", "as-is"], False),
        ("scaled.cxi", [], False),
    ):
        assert main(["reconstruct", file, "-n", "1", "--json", "-o", "r.h5", "--force", *more]) == 0
        assert "mounted" not in capsys.readouterr().err  # --json is for machines
        assert main(["reconstruct", file, "-n", "1", "-o", "r.h5", "--force", *more]) == 0
        assert ("how its detector was mounted" in capsys.readouterr().err) == said


def test_command(scan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    way = Orientation.parse("transpose+flip-rows+flip-columns+negate")
    write_dataset("scan.cxi", scrambled(scan, way))
    assert main(["orient", "scan.cxi"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("orientation ")
    assert "can tell" in out
    # the last line is a command that reconstructs the scan as it stands
    assert main([*shlex.split(out.splitlines()[-1])[1:], "-n", "2", "-q", "-o", "last.h5"]) == 0
    assert main(["orient", "scan.cxi", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decided"]
    assert main(["orient", "scan.cxi", "--json", "--max-frames", "100"]) == 0
    fewer = json.loads(capsys.readouterr().out)
    assert fewer["decided"]
    assert fewer["orientation"] in (found["orientation"], *found["classes"][0]["equivalents"])
    assert f"--orient {found['orientation']}" in out
    arguments = ["reconstruct", "scan.cxi", "-n", "2", "--json"]
    assert main([*arguments, "--orient", "auto", "-o", "a.h5"]) == 0
    assert json.loads(capsys.readouterr().out)["orientation"] == found["orientation"]
    assert main([*arguments, "--orient", found["orientation"], "-o", "b.h5"]) == 0
    from ptychon.io import load_result

    np.testing.assert_array_equal(load_result("a.h5").object, load_result("b.h5").object)
    assert main(["orient", "scan.cxi", "--max-frames", "4"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xray", "near", "electron"])
def test_measured_sets(measured, name):
    data = {
        "xray": lambda: load(measured / "siemens_star_xray/siemens_star.npz"),
        "near": lambda: load(
            measured / "siemens_star_nearfield/PETRAIII_P25_Near_Field_Ptycho.cxi",
            geometry="near",
            focus_distance="3.65mm",
        ),
        "electron": lambda: load(
            measured / "rotavirus_electron/rotavirus_40x40x128x128.h5",
            data_path="dp",
            scan_shape="40x40",
            step="31.25A",
            pixel_size="9.3A",
            rotation="-126deg",
            voltage="300kV",
            semi_angle="1.03mrad",
            defocus="13.5um",
        ),
    }[name]()
    way = ALL[np.random.default_rng(len(name)).integers(16)]
    ranking = find(scrambled(data, way))
    assert ranking.decided
    assert way.then(ranking.best.orientation) in Orientation().equivalents(data.geometry)
