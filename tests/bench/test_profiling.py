"""The profiling scripts, on a handful of positions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptychon.bench.profile import main

SCRIPTS = Path(__file__).parents[2] / "profiling"
FEW = ["--num_points", "3", "--niter", "2"]


@pytest.mark.parametrize("engine", ["pie", "ep", "epie", "rpie", "dm"])
def test_time_of_the_loop_alone(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(engine, [*FEW, "--backend", "numpy", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for line in ("compilation ", "reconstruction ", "R "):
        assert f"\n{line}" in out
    assert "3 positions of 128x128 px on an object of 512x512 px, no noise" in out
    assert "us a position and iteration" in out


def test_noise_is_stated_and_ep_takes_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("ep", [*FEW, "--use_noise", "--n_probe_update", "2", "--use_prior"]) == 0
    out = capsys.readouterr().out
    assert "0.001 of the mean squared amplitude" in out
    assert "probe_updates=2 prior=sparse" in out


def test_profile_goes_to_the_screen_sorted_and_limited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("rpie", [*FEW, "--profile", "--sort", "cumulative", "--limit", "3"]) == 0
    out = capsys.readouterr().out
    assert "Ordered by: cumulative time" in out
    assert "due to restriction <3>" in out
    assert "reconstruction " not in out


def test_profile_goes_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.txt"
    assert main("dm", [*FEW, "--profile", "--profile_output", str(file)]) == 0
    assert "Ordered by: internal time" in file.read_text()
    assert str(file) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--niter", "0"], "--niter"),
        (["--num_points", "1"], "--num_points"),
        (["--num_points", "2000"], "outside the object"),
        (["--backend", "cuda"], "--backend"),
        (["--use_prior"], "--use_prior"),
        (["--profile_output", "x.txt"], "--profile"),
        (["--profile", "--profile_output", "/nowhere/x.txt"], "/nowhere/x.txt"),
        (["--backend", "cupy", "--threads", "2"], "--threads"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("pie", arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("engine", ["pie", "ep", "epie", "rpie", "dm"])
def test_scripts_are_a_few_lines(engine: str) -> None:
    assert len((SCRIPTS / f"profile_{engine}.py").read_text().splitlines()) < 15


def test_a_script_runs() -> None:
    command = [sys.executable, str(SCRIPTS / "profile_ep.py"), *FEW, "--n_probe_update", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("profile_ep.py: Invalid value for '--n_probe_update'")
