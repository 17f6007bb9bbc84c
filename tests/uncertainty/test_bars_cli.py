"""`ptychon error_bars`: from a scan to a file with error bars and back; and what it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from _problems import sketch
from ptychon import Problem, PtychonError
from ptychon.__main__ import main
from ptychon.io import load_result, save_result, write_dataset
from ptychon.metrics import residual as metrics
from ptychon.uncertainty.laplace import laplace
from ptychon.uncertainty.saved import load_posterior
from ptychon.uncertainty.verdict import VERDICTS

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scan, and results of rPIE (free probe), of PIE (known probe) and of two modes."""
    from ptychon.simulation import phantoms, probes, scan
    from ptychon.simulation.simulate import simulate

    place = tmp_path_factory.mktemp("uncertainty")
    n, L = 16, 48
    truth = phantoms.complex_object(
        phantoms.texture((L, L), 1), phantoms.cell((L, L), 2), amplitude_range=(0.4, 1.0)
    )
    positions = scan.fit(scan.fermat_spiral(400, 3.0, whole=True), (L, L), (n, n))
    probe = probes.defocused_aperture((n, n), 0.36 * n, 8.0)
    s = simulate(truth, probe, positions, noise="poisson", mean_counts=3e5)
    write_dataset(place / "scan.cxi", replace(s.dataset, probe=s.probe))
    np.save(place / "two.npy", np.stack([s.probe[0], 0.2 * s.probe[0] * np.linspace(-1, 1, n)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("ptychon.plots.result.picture", sketch)
        for engine in ("rpie", "pie"):
            assert (
                main(
                    [
                        "reconstruct",
                        "scan.cxi",
                        "-e",
                        engine,
                        "-n",
                        "60",
                        "-q",
                        "--backend",
                        "numpy",
                    ]
                )
                == 0
            )
        more = ["--probe", "two.npy", "-n", "5", "-q", "-o", "modes.h5", "--backend", "numpy"]
        assert main(["reconstruct", "scan.cxi", *more]) == 0
    return place, s


def by_laplace(arguments):
    """Arguments with a method, where they have none."""
    named = {"-m", "--method"} & set(map(str, arguments))
    return [*map(str, arguments), *(() if named else ("-m", "laplace"))]


def run(capsys, *arguments):
    assert main(["error_bars", *by_laplace(arguments)]) == 0
    return capsys.readouterr()


def fails(capsys, *arguments):
    assert main(["error_bars", *by_laplace(arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_result_gets_error_bars(folder, capsys):
    place, s = folder
    before = (place / "scan_rpie.h5").read_bytes()
    out = run(capsys, place / "scan_rpie.h5", "--draws", 8).out
    for word in (
        "error bar",
        "amplitude",
        "phase",
        "as an error",
        "off centre",
        "misfit",
        "Poisson",
        "8 samples",
    ):
        assert word in out
    assert (place / "scan_rpie.h5").read_bytes() == before
    assert not list(place.glob(".*"))
    old, new = load_result(place / "scan_rpie.h5"), load_result(place / "scan_rpie_laplace.h5")
    bars = load_posterior(place / "scan_rpie_laplace.h5")
    assert np.array_equal(new.object, old.object)
    assert np.array_equal(new.probe, old.probe)
    assert np.array_equal(bars.object_std, new.object_std)
    assert new.settings["error_bars"] == {
        "method": "laplace",
        "update": ["object", "probe"],
        "refine": False,
        "of": "scan_rpie.h5",
        "verdict": bars.verdict,
        "reason": bars.reason,
    }
    # a small scan is checked unasked
    assert bars.verdict in VERDICTS
    assert "on simulated data" in " ".join(out.split())
    assert any("on a twin of these data, begun anew" in each for each in bars.conditional)
    assert new.final_error == old.final_error
    assert bars.method == "laplace"
    assert bars.samples == 8
    assert "free, their error in the bars: object, probe" in bars.conditional
    inside = bars.region
    both = np.hypot(bars.amplitude_std, bars.phase_std * np.abs(bars.object))
    np.testing.assert_allclose(both[inside], bars.object_std[inside], rtol=1e-4)
    # bars of the file as it stands, the way from the optimum included, are true
    found = metrics.align(new.object, s.object, region=inside, max_shift=3, subpixel=True)
    u2 = (
        np.abs(found.estimate - s.object)[inside] ** 2
        / (new.object_std / abs(found.scale))[inside] ** 2
    )
    assert np.mean(u2) == pytest.approx(1, abs=0.3)
    assert f"{np.median(new.object_std[inside]):.4g}" in out


def test_the_optimum_instead(folder, capsys):
    place, s = folder
    out = json.loads(
        run(
            capsys,
            place / "scan_rpie.h5",
            "--refine",
            "--no-twin",
            "--json",
            "--draws",
            8,
            "-o",
            place / "refined.h5",
        ).out
    )
    new = load_result(place / "refined.h5")
    kept = json.loads(
        run(
            capsys,
            place / "scan_rpie.h5",
            "--no-twin",
            "--json",
            "--draws",
            8,
            "-o",
            place / "kept.h5",
        ).out
    )
    inside = load_posterior(place / "refined.h5").region

    def decibel(name):
        return metrics.align(
            load_result(place / name).object, s.object, region=inside, max_shift=3, subpixel=True
        ).error_db

    assert decibel("refined.h5") > decibel("kept.h5")
    assert out["object_std"] < kept["object_std"]
    assert out["decibel"] > kept["decibel"]
    # object and probe are moved to the grid of the data before the steps to their optimum
    assert out["distance"] == pytest.approx(kept["distance"], rel=0.1)
    assert out["chi2"] == pytest.approx(1, abs=0.2)
    assert out["earlier"] is None
    assert new.final_error == pytest.approx(
        load_result(place / "scan_rpie.h5").final_error, rel=0.1
    )


def test_a_known_probe_is_known_by_its_engine(folder, capsys):
    place, _ = folder
    known = json.loads(run(capsys, place / "scan_pie.h5", "--json", "--draws", 8).out)
    more = "--update", "probe", "-o", place / "freed.h5"
    freed = json.loads(run(capsys, place / "scan_pie.h5", "--json", "--draws", 8, *more).out)
    assert "taken as exact: probe, positions, doses, background" in known["conditional"]
    assert freed["object_std"] > 1.02 * known["object_std"]
    assert load_posterior(place / "scan_pie_laplace.h5").probe_std is None
    assert load_posterior(place / "freed.h5").probe_std.shape == (1, 16, 16)


def test_bars_of_positions_and_doses_come_back_from_the_file(folder, capsys):
    """What the command frees is what `laplace` frees; every bar is read as it was written."""
    place, s = folder
    found = place / "placed.h5"
    more = "--update", "positions", "--update", "dose", "--backend", "numpy", "-q", "-o", found
    run(capsys, place / "scan_pie.h5", "--draws", 2, *more)
    kept, before = load_posterior(found), load_result(place / "scan_pie.h5")
    wanted = laplace(
        Problem.from_dataset(s.dataset),
        before.object,
        before.probe,
        update=("object", "positions", "dose"),
        draws=2,
        backend="numpy",
    )
    assert kept.positions_std.shape == (len(before.positions), 2)
    assert kept.positions_std.dtype == np.float32
    assert np.all(kept.positions_std > 0)
    assert np.array_equal(kept.positions_std, wanted.positions_std)
    assert np.array_equal(kept.log_scale_std, wanted.log_scale_std)
    assert kept.probe_std is None
    assert "taken as exact: probe, background" in kept.conditional
    assert any("positions (within 2 px)" in text for text in kept.conditional)
    assert "takes positions as known" in fails(
        capsys, place / "scan_pie.h5", "-m", "sampling", "--update", "positions"
    )


def test_modes_are_taken(folder, capsys):
    place, _ = folder
    assert json.loads(run(capsys, place / "modes.h5", "--json", "--draws", 2).out)["object_std"] > 0
    out = run(
        capsys,
        place / "modes.h5",
        "--method",
        "joint",
        "--no-twin",
        "--draws",
        2,
        "-q",
        "-o",
        place / "modes_joint.h5",
    ).out
    assert out == ""
    assert load_result(place / "modes_joint.h5").draws.shape[0] == 2


def test_bootstrap_and_comparison_with_what_was_there(folder, capsys):
    place, _ = folder
    run(capsys, place / "scan_rpie.h5", "--draws", 8, "-q")
    out = json.loads(
        run(
            capsys,
            place / "scan_rpie_laplace.h5",
            "-m",
            "bootstrap",
            "--replicates",
            6,
            "-n",
            30,
            "--json",
        ).out
    )
    assert 0.5 < out["earlier"] < 2
    bars = load_posterior(place / "scan_rpie_laplace_bootstrap.h5")
    assert bars.method == "bootstrap"
    assert bars.samples == 6
    assert not list(place.glob("*.npz"))
    assert "cannot hold or free" in fails(
        capsys, place / "scan_rpie.h5", "-m", "bootstrap", "--update", "probe:no"
    )


def test_ep_goes_on_from_there(folder, capsys):
    place, _ = folder
    out = run(capsys, place / "scan_rpie.h5", "--method", "joint", "-n", 30).out
    assert "off centre" not in out
    assert "on a twin of these data" in " ".join(out.split())
    new = load_result(place / "scan_rpie_joint.h5")
    assert new.engine == "joint"
    old = load_result(place / "scan_rpie.h5")
    assert new.settings["input"] == old.settings["input"]
    assert new.provenance["input_sha256"] == old.provenance["input_sha256"]
    assert new.passes > 60
    assert load_posterior(place / "scan_rpie_joint.h5").method == "joint"
    held = run(
        capsys,
        place / "scan_rpie.h5",
        "-m",
        "joint",
        "-n",
        5,
        "--update",
        "probe:no",
        "--no-twin",
        "-o",
        place / "held.h5",
        "-q",
    )
    assert held.out == ""
    assert np.array_equal(
        load_result(place / "held.h5").probe, load_result(place / "scan_rpie.h5").probe
    )


def test_results_can_be_used_like_any_other(folder, capsys):
    """Repeated, gone on from, reported on."""
    place, _ = folder
    run(capsys, place / "scan_rpie.h5", "--draws", 4, "-q", "-o", place / "used.h5")
    assert (
        main(
            [
                "reconstruct",
                str(place / "used.h5"),
                "-n",
                "2",
                "-q",
                "-o",
                str(place / "repeated.h5"),
            ]
        )
        == 0
    )
    assert load_result(place / "repeated.h5").object_std is None


def test_what_is_refused(folder, capsys, tmp_path):
    place, _ = folder
    result = place / "scan_rpie.h5"
    assert "unknown method of error bars 'laplas'; did you mean 'laplace'?" in fails(
        capsys, result, "-m", "laplas"
    )
    assert "the result itself" in fails(capsys, result, "-o", result)
    assert "draws is 1;" in fails(capsys, result, "--draws", 1)
    assert "no option 'refine'; it belongs to laplace" in fails(
        capsys, result, "-m", "bootstrap", "--refine"
    )
    assert "give one of them" in fails(capsys, result, "--background", 1, "--noise-variance", 2.0)
    assert "nothing.h5" in fails(capsys, place / "nothing.h5")
    shutil.copy(result, tmp_path / "alone.h5")
    stored = load_result(result)
    request = dict(stored.settings["request"]) | {"input": str(tmp_path / "gone.cxi")}
    save_result(
        tmp_path / "alone.h5",
        replace(stored, settings=dict(stored.settings) | {"request": request}),
    )
    assert "are not found" in fails(capsys, tmp_path / "alone.h5")
    save_result(tmp_path / "bare.h5", replace(stored, settings={}))
    assert "does not say from which file" in fails(capsys, tmp_path / "bare.h5")
    with pytest.raises(PtychonError, match="has no error bars of"):
        load_posterior(result)


def test_changed_data_are_said(folder, capsys, tmp_path):
    place, _ = folder
    for name in ("scan.cxi", "scan_rpie.h5"):
        shutil.copy(place / name, tmp_path / name)
    stored = load_result(tmp_path / "scan_rpie.h5")
    request = dict(stored.settings["request"]) | {"input": str(tmp_path / "scan.cxi")}
    provenance = dict(stored.provenance) | {"input_sha256": "0" * 64}
    settings = dict(stored.settings) | {"request": request}
    save_result(
        tmp_path / "scan_rpie.h5", replace(stored, settings=settings, provenance=provenance)
    )
    assert "has changed since" in run(capsys, tmp_path / "scan_rpie.h5", "--draws", 2).err


def test_halves_of_the_data_judge_the_bars(folder, capsys):
    """Table, file and numbers for machines agree; short runs, so that the verdict is whatever they
    give.
    """
    from ptychon.uncertainty.saved import load_half_data_test

    place, _ = folder
    arguments = [
        "validate",
        str(place / "scan_pie.h5"),
        "--by",
        "counts",
        "-n",
        "20",
        "--backend",
        "numpy",
    ]
    code = main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (0 if told["describes"] else 1)
    assert told["result"] == str(place / "scan_pie_validated.h5")
    assert 0.3 < told["temperature"] < 3
    assert told["update"] == ["object"]
    kept = load_half_data_test(told["result"])
    assert kept.sentence() == told["sentence"]
    assert list(kept.covered) == told["covered"]
    assert np.array_equal(
        load_result(told["result"]).object, load_result(place / "scan_pie.h5").object
    )
    assert main(arguments) == code
    out = capsys.readouterr().out
    for word in ("verdict", "T = ", "inside", "T by period", "misfit", "scan_pie_validated_2.h5"):
        assert word in out
    with pytest.raises(PtychonError, match="make it with: ptychon validate"):
        load_half_data_test(place / "scan_pie.h5")


def test_halves_are_refused_in_one_line(folder, tmp_path, capsys):
    place, s = folder
    noisy = replace(s.dataset, counting=False, patterns=s.dataset.patterns * 0.5, probe=s.probe)
    write_dataset(tmp_path / "soft.cxi", noisy)
    run_it = [
        "reconstruct",
        str(tmp_path / "soft.cxi"),
        "-e",
        "pie",
        "-n",
        "3",
        "-q",
        "--backend",
        "numpy",
    ]
    assert main([*run_it, "-o", str(tmp_path / "soft.h5")]) == 0
    capsys.readouterr()
    for arguments, word in (
        ([str(place / "scan_pie.h5"), "--by", "luck"], "positions, counts"),
        ([str(place / "scan_pie.h5"), "-o", str(place / "scan_pie.h5")], "the result itself"),
        ([str(place / "scan_pie.h5"), "-n", "0"], "at least 1"),
        ([str(tmp_path / "soft.h5"), "--by", "counts", "--backend", "numpy"], "not counts"),
    ):
        assert main(["validate", *arguments]) == 2
        said = capsys.readouterr().err
        assert word in said
        assert said.count("\n") == 1


def test_bars_by_sampling(folder, capsys):
    place, s = folder
    out = run(
        capsys,
        place / "scan_pie.h5",
        "--method",
        "sampling",
        "-n",
        1500,
        "--draws",
        4,
        "--backend",
        "numpy",
    ).out
    for word in ("error bar", "Poisson", "probe is known", "chains", "R^", "off centre"):
        assert word in out
    new, bars = (
        load_result(place / "scan_pie_sampling.h5"),
        load_posterior(place / "scan_pie_sampling.h5"),
    )
    assert bars.method == "sampling"
    assert new.draws.shape == (4, *new.object.shape)
    assert bars.agreement == pytest.approx(1, abs=0.2)
    assert new.settings["error_bars"]["method"] == "sampling"
    inside = bars.region
    found = metrics.phase_align(new.object, s.object, inside)
    assert np.mean(
        np.abs(found - s.object)[inside] ** 2 / new.object_std[inside] ** 2
    ) == pytest.approx(1, abs=0.3)
    numbers = json.loads(
        run(capsys, place / "scan_pie.h5", "-m", "sampling", "-n", 700, "--json").out
    )
    assert numbers["agreement"] > 0.9
    assert "640" in fails(capsys, place / "scan_pie.h5", "-m", "sampling", "-n", 30)


@pytest.fixture(scope="module")
def judged():
    """What `ptychon validate` found, made up: the file is what is tested."""
    from ptychon.uncertainty.half_data_record import HalfDataTest

    return HalfDataTest(
        kind="positions",
        mean_square=1.1,
        covered=(0.5, 0.68, 0.9, 0.95),
        covered_after=(0.5, 0.68, 0.9, 0.95),
        mean_square_after=1.0,
        by_period=(float("nan"), 1.0, 1.1, 1.2, 1.0),
        independent=0.9,
        difference_db=20.0,
        chi2=(1.0, 1.0),
        pixels=900,
        modes=1,
        update=("object", "probe"),
    )


def test_a_full_disk_is_one_sentence(folder, judged, tmp_path):
    """Whatever byte it ends at: in the copy, or in what is added to it. Nothing half-written is
    left.
    """
    from ptychon.uncertainty.saved import load_half_data_test, save_half_data_test

    place, _ = folder
    source = place / "scan_rpie.h5"
    save_half_data_test(tmp_path / "whole.h5", source, judged)
    copied, whole = source.stat().st_size, (tmp_path / "whole.h5").stat().st_size
    assert whole > copied + 2000
    assert load_half_data_test(tmp_path / "whole.h5").sentence() == judged.sentence()
    pickled = tmp_path / "said.pickle"
    pickled.write_bytes(pickle.dumps(judged))
    code = """
import pickle, resource, sys
from pathlib import Path
from ptychon import Problem, PtychonError
from ptychon.uncertainty.saved import save_half_data_test
said = pickle.loads(open(sys.argv[2], "rb").read())
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        save_half_data_test("out.h5", sys.argv[1], said)
    except PtychonError as error:
        print(error, *Path().iterdir())
"""
    (tmp_path / "there").mkdir()
    limits = 1000, copied // 2, copied + 100, (copied + whole) // 2, whole - 100
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(pickled), *map(str, limits)],
        cwd=tmp_path / "there",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line = "cannot write out.h5: the file would be larger than allowed\n"
    assert done.stdout == len(limits) * line
    assert done.stderr == ""
    assert not list((tmp_path / "there").iterdir())


def test_halves_are_refused_where_nothing_can_be_written(folder, tmp_path, capsys):
    """Before anything is computed."""
    place, _ = folder
    (tmp_path / "plain").write_text("a file, not a folder")
    for output, word in (
        (tmp_path / "plain" / "x.h5", "part of the path is a file"),
        (tmp_path / "no" / "x.h5", "not exist"),
    ):
        assert main(["validate", str(place / "scan_rpie.h5"), "-o", str(output)]) == 2
        said = capsys.readouterr().err
        assert word in said
        assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]


def test_interrupted_halves_leave_nothing(folder, tmp_path):
    """Ctrl-C once the first half is under way: one sentence, exit code 130, no file."""
    place, _ = folder
    code = """
import os, signal, sys
# a shell's background jobs start without this
signal.signal(signal.SIGINT, signal.default_int_handler)
from ptychon.uncertainty import half_data as halves
joint = halves.joint
def interrupted(*arguments, **more):
    os.kill(os.getpid(), signal.SIGINT)
    return joint(*arguments, **more)
halves.joint = interrupted
from ptychon.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    command = [
        "validate",
        str(place / "scan_pie.h5"),
        "-n",
        "2",
        "--backend",
        "numpy",
        "-o",
        "x.h5",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == "ptychon: stopped"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_group_that_lacks_something_is_said(folder, judged, tmp_path):
    import h5py

    from ptychon.uncertainty.saved import load_half_data_test, save_half_data_test

    place, _ = folder
    save_half_data_test(tmp_path / "torn.h5", place / "scan_rpie.h5", judged)
    with h5py.File(tmp_path / "torn.h5", "r+") as file:
        del file["ptychon/half_data_test/covered"]
    with pytest.raises(PtychonError, match="ptychon/half_data_test lacks covered"):
        load_half_data_test(tmp_path / "torn.h5")


def test_a_reconstruction_with_bars_of_its_own(folder, capsys, monkeypatch, tmp_path):
    """`--error-bars laplace` is the reconstruction, then `ptychon error_bars`; a settings file may
    ask for it too.
    """
    place, _ = folder
    monkeypatch.chdir(tmp_path)
    way = ["-e", "rpie", "-n", "60", "--backend", "numpy", "--no-half-scans"]
    assert (
        main(
            [
                "reconstruct",
                str(place / "scan.cxi"),
                *way,
                "--error-bars",
                "laplace",
                "--report",
                "-o",
                "with.h5",
            ]
        )
        == 0
    )
    assert "error bar" in capsys.readouterr().out
    old, new = load_result(place / "scan_rpie.h5"), load_result("with.h5")
    assert np.array_equal(new.object, old.object)
    run(capsys, place / "scan_rpie.h5", "-o", tmp_path / "later.h5", "--backend", "numpy")
    np.testing.assert_allclose(new.object_std, load_result("later.h5").object_std, rtol=1e-5)
    assert load_posterior("with.h5").method == "laplace"
    assert "error bar" in next(tmp_path.glob("**/*.html")).read_text("utf-8").lower()
    # what it was asked for goes with it
    assert main(["reconstruct", "with.h5", "-o", "again.h5", "-q", "--no-report"]) == 0
    assert np.array_equal(load_result("again.h5").object_std, new.object_std)
    assert main(["reconstruct", str(place / "scan.cxi"), "--error-bars", "magic"]) == 2
    assert "unknown method of error bars 'magic'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(PtychonError("too dark"), 2), (KeyboardInterrupt(), 130)]
)
def test_what_was_found_stays_where_its_bars_fail(
    folder, capsys, monkeypatch, tmp_path, error, code
):
    """With its picture, and the command that makes up for it."""
    import ptychon.uncertainty.call as commands

    def fail(*_, **__):
        raise error

    place, _ = folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "with_bars", fail)
    way = [
        "-e",
        "rpie",
        "-n",
        "60",
        "--backend",
        "numpy",
        "-q",
        "-o",
        "kept.h5",
        "--error-bars",
        "laplace",
    ]
    assert main(["reconstruct", str(place / "scan.cxi"), *way]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (
        "the result without them is in kept.h5; for bars: ptychon error_bars kept.h5 -m laplace"
        in said
    )
    assert (tmp_path / "kept.png").exists()
    assert np.array_equal(load_result("kept.h5").object, load_result(place / "scan_rpie.h5").object)
