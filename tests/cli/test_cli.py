"""The command line, end to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from ptychon import Dataset, __version__
from ptychon.__main__ import main
from ptychon.cli.main import cli
from ptychon.io import load, load_result, write_dataset
from ptychon.request.inputs import input_hash

FAST = ["--backend", "reference", "--passes", "3"]

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture(scope="module")
def scan():
    """A small scan, simulated: 16 frames of 16x16 px, in pixels."""
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    shape = (40, 40)
    truth = phantoms.complex_object(phantoms.texture(shape), phantoms.texture(shape, 1))
    probe = probes.defocused_aperture((16, 16), radius=5, defocus=4)
    return simulate(truth, probe, raster(4, 4, jitter=1), noise="poisson", mean_counts=1e5).dataset


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Everything happens in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files():
    return sorted(p.name for p in Path().iterdir())


def refused(capsys, *arguments):
    """The message of a run that must fail: one line, exit code 2, no traceback."""
    before = files()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("ptychon: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("ptychon: ")
    assert files() == before, "something was left behind"
    return lines[0]


@pytest.mark.pictures
def test_from_a_file_to_a_result_and_a_picture(scan, capsys):
    write_dataset("scan.cxi", scan)
    # where nothing is compiled yet, a run says so
    assert main(["reconstruct", "scan.cxi", *FAST, "-q", "-o", "compiled.h5"]) == 0
    Path("compiled.h5").unlink(), Path("compiled.png").unlink()
    assert main(["reconstruct", "scan.cxi", *FAST]) == 0
    out, err = capsys.readouterr()
    assert files() == ["scan.cxi", "scan_rpie.h5", "scan_rpie.png"]
    assert "R final" in out
    assert err == ""
    result = load_result("scan_rpie.h5")
    assert (result.engine, result.passes, len(result.errors)) == ("rpie", 3, 3)
    assert np.isfinite(result.errors).all()
    assert result.settings["input"] == "scan.cxi"
    assert len(result.provenance["input_sha256"]) == 64
    assert (
        main(["reconstruct", "scan.cxi", *FAST, "--start", "scan_rpie.h5", "-o", "more.h5", "-q"])
        == 0
    )
    assert load_result("more.h5").passes == 6
    assert capsys.readouterr() == ("", "")


def test_a_recipe_from_the_command_line(scan, capsys):
    """Its stages run, the summary names them, and the result repeats them."""
    write_dataset("scan.cxi", scan)
    quick = ["--backend", "reference"]
    asked = ["--recipe", "rpie:3, ml:2", "--update", "positions:after=1", "--json"]
    assert main(["reconstruct", "scan.cxi", *quick, *asked]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["ran"] == [["rpie", 3], ["ml", 2]]
    found = load_result("scan_ml.h5")
    assert (found.engine, found.passes) == ("ml", 5)
    assert (found.options["positions"], found.options["positions_start"]) == (True, 1)
    assert found.positions_given is not None
    assert main(["reconstruct", "scan_ml.h5", *quick]) == 0
    assert "5 passes (3 of rpie, then 2 of ml)" in capsys.readouterr().out.replace(
        "passes", "passes"
    )
    assert np.array_equal(load_result("scan_ml_again.h5").object, found.object)
    beside = ["--recipe", "rpie:3, pie:2"]
    said = refused(capsys, "reconstruct", "scan.cxi", *beside, "--engine", "ep")
    assert "engine is 'ep' beside a recipe, rpie:3, pie:2: give one" in said
    said = refused(capsys, "reconstruct", "scan.cxi", "-e", "dm", "--update", "variations")
    assert "engine 'dm' does not move 'variations'; these do: " in said
    said = refused(capsys, "reconstruct", "scan.cxi", *beside, "--update", "probe:soon")
    assert "update of probe is 'soon'; write yes, no, or after=PASSES" in said


def test_options_reach_the_engine(scan, capsys):
    np.savez("scan.npz", patterns=scan.patterns, positions_px=scan.positions)
    np.save("probe.npy", np.ones((16, 16), complex))
    arguments = [
        "--set",
        "object_step=0.5",
        "--set",
        "probe_start=2",
        "--set",
        "schedule=minibatch",
        "--set",
    ]
    arguments += [
        "batch_size=4",
        "--set",
        "shuffle=no",
        "--seed",
        "7",
        "--no-subpixel",
        "--probe",
        "probe.npy",
        "--json",
    ]
    assert (
        main(["reconstruct", "scan.npz", *FAST, *arguments, "-o", "a.h5", "--picture", "b.png"])
        == 0
    )
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["result"] == "a.h5"
    assert 0 < numbers["error_final"] < 1
    result = load_result("a.h5")
    assert result.options["object_step"] == 0.5
    assert result.options["probe_start"] == 2
    assert result.settings["schedule"] == {
        "kind": "minibatch",
        "size": 4,
        "shuffle": False,
        "seed": 7,
    }
    assert result.settings["subpixel"] is False
    assert files() == ["a.h5", "b.png", "probe.npy", "scan.npz"]


def test_verbose_tells_where_values_came_from(scan, capsys):
    np.savez("scan.npz", patterns=scan.patterns, positions_px=scan.positions)
    assert main(["reconstruct", "scan.npz", *FAST, "-v", "--pixel-size", "5nm"]) == 0
    out, err = capsys.readouterr()
    assert "file: positions from positions_px" in err
    assert "given: pixel_size = 5e-09" in err
    assert "rpie pass 3/3" in err
    assert "pixel 5 nm" in out
    assert load("scan.npz", pixel_size="5nm").pixel_size == load_result("scan_rpie.h5").pixel_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"patterns": d.patterns[:, 0]}, "no stack of diffraction patterns"),
        (lambda d: {"patterns": d.patterns[:5]}, "5 frames for 16 positions"),
        (lambda d: {"positions_px": d.positions[:, :1]}, "positions are (frames, 2)"),
        (lambda d: {"positions_px": np.where(d.positions > 5, np.nan, d.positions)}, "not finite"),
        (
            lambda d: {"patterns": np.where(d.patterns >= 0, np.nan, d.patterns)},
            "no valid pixel is left",
        ),
        (lambda d: {"patterns": -1 - d.patterns.astype(int)}, "no valid pixel is left"),
        (lambda d: {"patterns": 0 * d.patterns}, "zero in every valid pixel"),
        (lambda d: {"patterns": d.patterns[:1], "positions_px": d.positions[:1]}, "1 position"),
        (lambda d: {"mask": np.zeros((16, 16), bool)}, "no valid pixel"),
        (lambda d: {"mask": np.ones((5, 5), bool)}, "mask has shape (5, 5)"),
        (lambda d: {"positions_px": 1e6 * d.positions}, "object pixels"),
    ],
)
def test_bad_scans(scan, capsys, change, message):
    arrays = {"patterns": scan.patterns, "positions_px": scan.positions} | change(scan)
    np.savez("scan.npz", **arrays)
    assert message in refused(capsys, "reconstruct", "scan.npz", *FAST)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"object_shape": (24, 24)}, "outside the object"),
        ({"object_shape": (8, 8)}, "larger than the object"),
        ({"geometry": "near"}, "near-field data need"),
    ],
)
def test_scans_that_do_not_fit(scan, capsys, known, message):
    write_dataset("scan.cxi", Dataset(patterns=scan.patterns, positions=scan.positions, **known))
    assert message in refused(capsys, "reconstruct", "scan.cxi", *FAST)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "rpei"], "did you mean 'rpie'"),
        (["--set", "objet_step=1"], "did you mean 'object_step'"),
        (["--set", "object_step=high"], "must be a number"),
        (["--set", "object_step=9"], "must lie in"),
        (["--set", "probe_start=1.5"], "whole number"),
        (["--set", "shuffle=perhaps"], "true or false"),
        (["--set", "schedule=zigzag"], "choose one of"),
        (["--set", "until=quiet"], "there are still:change=NUMBER"),
        (["--set", "until=still:0"], "write still:change=NUMBER"),
        (["--set", "object_step"], "name=value"),
        (["--set", "object_step=1", "--set", "object-step=1"], "given twice"),
        (["--backend", "cupi"], "did you mean 'cupy'"),
        (["--passes", "0"], "at least 1"),
        (["--energy", "12kev"], "did you mean keV"),
        (["--rotation", "-126"], "more than a turn"),
        (["--scan-shape", "40"], "rows x columns"),
        (["--wavelength", "1A", "--energy", "1keV"], "state the same thing"),
        (["--bogus"], "No such option"),
        (["-o", "no/a.h5"], "folder does not exist"),
        (["-o", "scan.npz/a.h5"], "not a folder"),
        (["-o", "/proc/a.h5"], "cannot write"),
        (["-o", "a.png"], "must be named"),
        (["--picture", "a.doc"], "must be named"),
        (["--picture", "no/a.png"], "folder does not exist"),
        (["--start", "none.h5"], "no such file"),
        (["--start", "scan.npz"], "no reconstruction"),
        (["--probe", "small.npy"], "they must agree"),
        (["--probe", "scan.npz"], "no array called probe"),
        (["--orient", "sideways"], "none of as-is"),
        (["--checkpoint-every", "0"], "greater than or equal to 1"),
        (["--orient", "auto"], "cannot decide"),
        (["--positions-path", "none"], "neither a file nor a dataset"),
        (["--data-path", "none"], "no dataset 'none'"),
    ],
)
def test_bad_requests(scan, capsys, arguments, message):
    np.savez("scan.npz", patterns=scan.patterns, positions_px=scan.positions)
    np.save("small.npy", np.ones((4, 4), complex))
    fast = [a for a in FAST if a not in ("--passes", "3")] if "--passes" in arguments else FAST
    assert message in refused(capsys, "reconstruct", "scan.npz", *fast, *arguments)


def test_other_bad_requests(scan, capsys):
    assert "no such file" in refused(capsys, "reconstruct", "none.cxi")
    assert "no files in this folder" in refused(capsys, "reconstruct", ".")
    assert "Missing argument" in refused(capsys, "reconstruct")
    assert "Did you mean 'reconstruct'" in refused(capsys, "reconstrukt")
    assert "unknown engine" in refused(capsys, "engines", "nix")
    assert "cannot make the folder" in refused(capsys, "demo", "/proc/here")
    write_dataset("scan_rpie.h5", scan)
    assert "the file with the data" in refused(
        capsys, "reconstruct", "scan_rpie.h5", *FAST, "-o", "scan_rpie.h5"
    )


def test_an_existing_result_survives_a_failure(scan, capsys):
    np.savez("scan.npz", patterns=scan.patterns * 0, positions_px=scan.positions)
    Path("out.h5").write_text("precious")
    assert "zero" in refused(capsys, "reconstruct", "scan.npz", *FAST, "-o", "out.h5", "--force")
    assert Path("out.h5").read_text() == "precious"


def test_a_warning_is_one_line(scan, capsys):
    patterns = scan.patterns.copy()
    patterns[3] = 0
    np.savez("scan.npz", patterns=patterns, positions_px=scan.positions)
    assert main(["reconstruct", "scan.npz", *FAST, "-q"]) == 0
    expected = "1 of 16 frames are empty (first: frame 3): they and their positions are left out"
    assert capsys.readouterr().err == f"ptychon: warning: {expected}\n"


def test_engines_help_and_version(capsys):
    from ptychon.engines import options, registry

    assert main(["engines"]) == 0
    shown = capsys.readouterr().out
    for name, cls in registry.items():
        assert name in shown
        assert all(option in shown for option in options(cls))
    assert main(["engines", "rpie", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rpie": options(registry["rpie"])}
    for arguments, words in (
        (["--version"], __version__),
        (["--help"], "Examples"),
        ([], "Examples"),
        (["reconstruct", "--help"], "--focus-distance 3.65mm"),
        (["demo", "--help"], "ptychon_demo"),
    ):
        assert main(arguments) == 0
        assert words in capsys.readouterr().out


def test_an_existing_result_is_not_written_over(scan, capsys):
    """A name that was asked for is refused, another is numbered, and --force writes over it."""
    write_dataset("scan.cxi", scan)
    for name in ("scan_rpie.h5", "scan_rpie_2.h5", "scan_rpie_3.h5"):
        assert main(["reconstruct", "scan.cxi", *FAST, "-q"]) == 0
        assert Path(name).exists()
        assert Path(name).with_suffix(".png").exists()
    before = Path("scan_rpie.h5").read_bytes()
    stated = ["scan.cxi", *FAST, "-q", "-o", "scan_rpie.h5"]
    said = refused(capsys, "reconstruct", *stated)
    assert "scan_rpie.h5 exists already: write over it with --force, or give another" in said
    assert "exists already" in refused(capsys, "convert", "scan_rpie.h5", "scan.cxi")
    assert "exists already" in refused(capsys, "simulate", "scan.cxi")
    assert Path("scan_rpie.h5").read_bytes() == before
    assert main(["reconstruct", *stated, "--seed", "5", "--force"]) == 0
    assert load_result("scan_rpie.h5").settings["seed"] == 5


def test_help_groups_commands_and_cuts_no_sentence(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    titles = ["Data:", "Reconstruction:", "Results and their error bars:", "About:"]
    assert [line for line in out.splitlines() if line in titles] == titles
    assert "..." not in out.split("Data:")[1]
    for name, command in (
        (name, cli.get_command(click.Context(cli), name))
        for name in cli.list_commands(click.Context(cli))
    ):
        assert re.search(rf"^  {name} ", out, re.MULTILINE), name
        assert command.get_short_help_str(400).split()[-1] in out


def test_info_tells_machine_and_versions(capsys, tmp_path):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ptychon"] == __version__
    assert found["packages"]["numpy"] == np.__version__
    assert re.search(r", [1-9]\d* threads? for this process$", found["processor"])
    if Path("/proc/meminfo").exists():
        kilobytes = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1]
        said = float(found["free memory"].removesuffix(" GB"))
        assert said == pytest.approx(int(kilobytes) * 1024 / 1e9, rel=0.3)
    folder = re.fullmatch(r"\d+ in (.+), [\d.]+ MB", found["compiled kernels"])[1]
    assert Path(folder).name.startswith("cpu") or Path(folder).name == "__pycache__"
    assert main(["info"]) == 0
    assert "compiled kernels" in capsys.readouterr().out


def test_start_up_is_light():
    """Help must not wait for compilers and plotting."""
    code = (
        "import sys; from ptychon.__main__ import main; main(['--help']); "
        "print([m for m in ('numba', 'matplotlib', 'h5py', 'scipy', 'cupy', 'pydantic') if m in "
        "sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_keeps_what_was_found(scan):
    write_dataset("scan.cxi", scan)
    command = [
        sys.executable,
        "-m",
        "ptychon",
        "reconstruct",
        "scan.cxi",
        "-v",
        "--backend",
        "reference",
        "-n",
        "100000",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if " pass " in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "scan_rpie.h5" in out
    done = load_result("scan_rpie.h5").passes
    assert 0 < done < 100000
    assert (
        f"stopped after pass {done} of 100000; go on with: ptychon resume scan_rpie.checkpoint.h5"
        in err
    )


@pytest.fixture
def stop_at(monkeypatch):
    """A function that has Ctrl-C pressed in a pass of this number."""
    from ptychon.run.observers import Interrupt

    def set_pass(number):
        def pressed(self, progress):
            self.pressed = progress.passes == number
            return self.pressed

        monkeypatch.setattr(Interrupt, "__call__", pressed)

    return set_pass


def test_stopped_and_resumed_is_the_same(scan, capsys, stop_at):
    from ptychon.run.checkpoint import load_checkpoint, save_checkpoint

    write_dataset("scan.cxi", scan)
    fast = ["--backend", "reference", "-q"]
    assert main(["reconstruct", "scan.cxi", "-n", "6", "-o", "whole.h5", *fast]) == 0
    stop_at(4)
    assert main(["reconstruct", "scan.cxi", "-n", "6", "-o", "part.h5", *fast]) == 130
    assert "go on with: ptychon resume part.checkpoint.h5" in capsys.readouterr().err
    assert load_result("part.h5").passes == 4
    assert main(["resume", "part.checkpoint.h5", "-q", "--checkpoint-every", "3"]) == 0
    whole, part = load_result("whole.h5"), load_result("part.h5")
    np.testing.assert_array_equal(part.object, whole.object)
    np.testing.assert_array_equal(part.errors, whole.errors)
    assert part.passes == 6
    assert capsys.readouterr() == ("", "")
    assert "6 passes already" in refused(capsys, "resume", "part.checkpoint.h5")
    assert "is a checkpoint" in refused(capsys, "reconstruct", "part.checkpoint.h5")
    assert "is a result" in refused(capsys, "resume", "part.h5")
    checkpoint = load_checkpoint("part.checkpoint.h5")
    save_checkpoint("api.h5", type(checkpoint)(**{**vars(checkpoint), "settings": {}}))
    assert "does not say from which file" in refused(capsys, "resume", "api.h5")
    write_dataset("scan.cxi", Dataset(patterns=scan.patterns + 1, positions=scan.positions))
    assert "has changed since" in refused(capsys, "resume", "part.checkpoint.h5", "-n", "9")
    Path("scan.cxi").unlink()
    assert "are not found" in refused(capsys, "resume", "part.checkpoint.h5", "-n", "9")


def test_resumed_after_an_earlier_result(scan, capsys, stop_at):
    write_dataset("scan.cxi", scan)
    fast = ["--backend", "reference", "-q"]
    assert main(["reconstruct", "scan.cxi", "-n", "2", "-o", "first.h5", *fast]) == 0
    start = ["reconstruct", "scan.cxi", "--start", "first.h5", *fast]
    assert main([*start, "-n", "4", "-o", "whole.h5"]) == 0
    stop_at(5)
    assert main([*start, "-n", "4", "-o", "part.h5"]) == 130
    assert main(["resume", "part.checkpoint.h5", "-q"]) == 0
    whole, part = load_result("whole.h5"), load_result("part.h5")
    assert part.passes == whole.passes == 6
    np.testing.assert_array_equal(part.object, whole.object)
    np.testing.assert_array_equal(part.errors, whole.errors)


@pytest.mark.slow
def test_demo(capsys):
    assert main(["demo", "made", "--seed", "1"]) == 0
    assert sorted(os.listdir("made")) == ["ep.h5", "ep.png", "rpie.h5", "rpie.png", "scan.cxi"]
    out = capsys.readouterr().out
    assert "dB from the truth" in out
    first, second = load_result("made/rpie.h5"), load_result("made/ep.h5")
    assert second.final_error < first.final_error < 0.06
    assert second.object_std is not None
    data = load("made/scan.cxi")
    assert data.pixel_size == pytest.approx((20e-9, 20e-9), rel=1e-3)


def test_results_of_the_demo_name_their_scan(capsys, monkeypatch):
    """Of 16 frames of 64 x 64: what works on a result finds the scan, also where the folder was
    moved, and the run can be repeated.
    """
    from ptychon.cli import demo as cli_demo

    monkeypatch.setattr(cli_demo, "_POINTS", 4)
    monkeypatch.setattr(cli_demo, "_FRAME", 64)
    monkeypatch.setattr(cli_demo, "_STEP", 8)
    monkeypatch.setattr(cli_demo, "_PASSES", (20, 20))
    assert main(["demo", "made", "-q", "--backend", "numpy"]) == 0
    result = load_result("made/ep.h5")
    assert result.provenance["input_sha256"] == input_hash("made/scan.cxi")
    assert result.settings["request"]["options"]["until"] == "still:1e-4"
    assert result.settings["request"]["start"] == str(Path("made/rpie.h5").resolve())
    Path("made").rename("moved")
    os.chdir("moved")
    assert main(["check", "ep.h5", "--json", "--backend", "numpy"]) in (0, 1)
    assert (
        json.loads(capsys.readouterr().out)["level"] > 0
    )  # far above 1: too few frames for so few passes
    assert main(["error_bars", "rpie.h5", "--draws", "2", "-q", "--backend", "numpy"]) == 0
    assert load_result("rpie_laplace.h5").object_std is not None
    assert (
        main(["reconstruct", "rpie.h5", "-n", "1", "-q", "-o", "again.h5", "--backend", "numpy"])
        == 0
    )
    assert refused(capsys, "demo", "other", "--seed", "-1").endswith(
        "--seed is -1; it must be at least 0"
    )
    assert capsys.readouterr() == ("", "")


def test_simulate(capsys):
    from ptychon.inspect.orientation import Orientation

    assert (
        main(
            [
                "simulate",
                "a.cxi",
                "--frame",
                "32",
                "--points",
                "5",
                "--modes",
                "3",
                "--counts",
                "1e5",
            ]
        )
        == 0
    )
    assert "25 frames of 32 x 32 px" in capsys.readouterr().out
    data = load("a.cxi")
    assert data.pixel_size is None
    assert data.patterns[:].sum(axis=(1, 2)).mean() == pytest.approx(1e5, rel=0.02)
    with np.load("a.truth.npz") as truth:
        assert truth["probe"].shape == (3, 32, 32)
    more = [
        "--scan",
        "spiral",
        "--points",
        "30",
        "--wavelength",
        "1.55A",
        "--distance",
        "1m",
        "--detector-pixel-size",
        "75um",
    ]
    assert (
        main(["simulate", "b.npz", "--frame", "32", *more, "--orient", "transpose", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["shape"] == [30, 32, 32]
    assert main(["simulate", "c.cxi", "--frame", "32", *more, "-q"]) == 0
    np.testing.assert_array_equal(
        load("b.npz").patterns[:], Orientation(transpose=True).apply(load("c.cxi")).patterns[:]
    )
    assert capsys.readouterr() == ("", "")
    for arguments, message in (
        (["--amplitude", "siemens"], "did you mean 'siemens_star'"),
        (["--frame", "4"], "at least 8"),
        (["--step-px", "1e9"], "fewer points"),
        (["--orient", "sideways"], "none of as-is"),
        (["--scan", "snake"], "is not one of"),
    ):
        assert message in refused(capsys, "simulate", "d.cxi", *arguments)


def test_completion_and_names():
    """What shells ask for names, click answers."""
    environment = os.environ | {
        "_PTYCHON_COMPLETE": "bash_complete",
        "COMP_WORDS": "ptychon re",
        "COMP_CWORD": "1",
    }
    code = "from ptychon.__main__ import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == {
        "reconstruct",
        "resume",
        "report",
    }


@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        "orient",
        "reconstruct",
        "resume",
        "report",
        "convert",
        "simulate",
        "demo",
        "engines",
        "info",
        "bench",
    ],
)
def test_every_command_teaches_by_example(capsys, command):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples" in out
    assert f"ptychon {command}" in out.split("Examples")[1]
