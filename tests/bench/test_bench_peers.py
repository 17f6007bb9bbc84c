"""The comparison with other packages, with a package that is none: an adapter script made here.
Nothing is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon.bench import peers_run
from ptychon.bench.command import command
from ptychon.bench.peers_run import Peer, chosen, compare, install, last_error, make_bench, measure
from ptychon.bench.peers_table import table
from ptychon.bench.shell import main
from ptychon.types import PtychonError

#: Comes nearer to a "truth" in its own file by a fixed factor a pass; "wrong" fails as a package
#: would.
FAKE = """
import sys, os
sys.path.insert(0, {folder!r})
import numpy as np
from _adapter import THREADS, Run, main

truth = np.load({truth!r})

def start(problem, algorithm, passes):
    if algorithm == "wrong":
        print("noise on stderr", file=sys.stderr)
        raise ValueError("no such algorithm here")
    now = {{"object": problem.object.copy(), "passes": 0}}

    def loop(after):
        for _ in range(passes):
            now["object"] = truth["object"] + {factor} * (now["object"] - truth["object"])
            now["passes"] += 1
            if algorithm == "explodes" and now["passes"] == 2:
                now["object"] = now["object"] * np.nan
            sum(range(20000))
            after()

    def state():
        return 3j * now["object"], truth["probe"] / 3j

    about = {{"threads": THREADS, "ours": os.environ.get("PYTHONPATH", "none")}}
    return Run(loop, state, about, ("numpy",), 1)

main(start)
"""


@pytest.fixture
def bench():
    return make_bench(side=3, step=4, frame=16, mean_counts=1e4)


@pytest.fixture
def fake(bench, tmp_path, monkeypatch):
    """A package "fake" whose adapter halves the error of the object every pass."""
    truth = tmp_path / "truth.npz"
    known = truth_of(bench)
    np.savez(truth, object=known[0], probe=known[1])
    code = FAKE.format(folder=str(peers_run.ADAPTERS), truth=str(truth), factor=0.5)
    (tmp_path / "run_fake.py").write_text(code)
    monkeypatch.setattr(peers_run, "ADAPTERS", tmp_path)
    monkeypatch.setattr(peers_run, "PEERS", {"fake": Peer(("right", "explodes", "wrong"))})
    return tmp_path


def truth_of(bench):
    """Object and a probe that explains the counts behind it."""
    return bench.truth, bench.probe[0]


def test_a_peer_is_timed_and_its_error_followed(fake, bench):
    report = compare(["fake:right"], [1, 2], fake, passes=9, seconds=60, bench=bench)
    json.loads(json.dumps(report, allow_nan=False))
    assert [row["threads"] for row in report["rows"]] == [1, 2]
    for row in report["rows"]:
        # held to its cores, with the variables set and, as its environment is ours here, with our
        # path
        assert row["settings"]["threads"] == row["threads"]
        assert row["versions"] == {"numpy": np.__version__}
        assert row["passes"] == 9
        assert row["curve"][-1]["pass"] == 9
        errors = [point["error"] for point in row["curve"]]
        # a factor of the object is ambiguous and taken out; the error halves with every pass
        assert errors[-1] / errors[-2] == pytest.approx(0.5, rel=0.02)
        assert errors[-1] < 1e-2
        assert row["us"] > 0
        assert row["cpu_us"] > 0
        below = next(point for point in row["curve"] if point["error"] <= 0.05)
        assert row["reached"]["0.05"] == (below["wall_s"], below["cpu_s"])
        assert row["reached"]["0.1"][1] <= row["reached"]["0.05"][1]


def test_a_peer_that_fails_is_reported_as_such(fake, bench):
    report = compare(["fake:wrong", "fake:explodes"], [1], fake, passes=3, seconds=60, bench=bench)
    explodes, wrong = report["rows"]
    assert wrong["failed"] == "fake: wrong failed: ValueError: no such algorithm here"
    assert "us" not in wrong
    assert explodes["error"] is None
    assert explodes["curve"][0]["error"] is not None
    text = table(report)
    assert "| fake | wrong | failed | - |" in text
    assert "diverged" in text
    assert wrong["failed"] in text


def test_seconds_end_a_run(fake, bench):
    report = compare(["fake:right"], [1], fake, passes=10**6, seconds=0.02, bench=bench)
    assert 1 < report["rows"][0]["passes"] < 10**4


def answer(bench, wall, errors, passes, uncounted=0):
    """What an adapter would write, its object off the truth by these relative errors."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(bench.truth.shape) + 1j * rng.standard_normal(bench.truth.shape)
    noise *= np.linalg.norm(bench.truth[bench.lit]) / np.linalg.norm(noise[bench.lit])
    objects = np.stack([bench.truth + e * noise for e in errors]).astype(np.complex64)
    facts = {"versions": {"x": "1"}, "settings": {}, "uncounted": uncounted, "warm_up_s": 0.0}
    return {
        "facts": json.dumps(facts),
        "wall": np.array(wall),
        "cpu": 2 * np.array(wall),
        "passes": np.array(passes),
        "objects": objects,
        "probes": np.repeat(bench.probe, len(errors), 0),
    }


def test_times_and_errors_of_an_answer(bench):
    """The first pass counts as a median one, passes of another kind are left out, and targets are
    reached when first seen.
    """
    row = measure(
        bench, answer(bench, [9, 9, 1.0, 3.0, 2.0], [0.3, 0.08, 0.02], [1, 3, 5], uncounted=2)
    )
    n = len(bench.problem)
    assert row["us"] == pytest.approx(2e6 / n)
    assert row["cpu_us"] == pytest.approx(4e6 / n)
    assert [point["wall_s"] for point in row["curve"]] == pytest.approx([2, 12, 17])
    assert [point["error"] for point in row["curve"]] == pytest.approx([0.3, 0.08, 0.02], rel=0.06)
    assert row["reached"]["0.1"] == pytest.approx((12, 24))
    assert row["reached"]["0.05"] == row["reached"]["0.03"] == pytest.approx((17, 34))
    never = measure(bench, answer(bench, [1.0, 1.0], [0.3, 0.2], [1, 2]))
    assert never["reached"] == {"0.1": None, "0.05": None, "0.03": None}


def test_table_has_ratios_and_says_who_is_quicker(bench):
    quick = measure(bench, answer(bench, [1.0, 1.0], [0.2, 0.04], [1, 2]))
    rows = [
        {"package": "ptychon", "algorithm": "rpie", "threads": 1, **quick},
        {"package": "other", "algorithm": "dm", "threads": 1, **replace_times(quick, 0.5)},
    ]
    machine = {"processor": "a processor", "cores": 2, "load": [1.0]}
    lines = table(
        {"about": "a scan", "machine": machine, "passes": 2, "seconds": 1.0, "rows": rows}
    ).splitlines()
    assert lines[0] == "a scan"
    assert any(
        line.startswith("| ptychon | rpie |") and "| 1.0 | 4 | 4 | - | 2 | 4.0 % |" in line
        for line in lines
    )
    assert any(line.startswith("| other | dm |") and " | 0.5 | " in line for line in lines)
    assert "versions: x 1" in lines


def replace_times(row, factor):
    return row | {"us": factor * row["us"], "cpu_us": factor * row["cpu_us"]}


def test_names_of_peers():
    every = chosen([])
    assert ("ptychi", "lsqml") in every
    assert {name for name, _ in every} == {"ptychon", "ptychi", "ptylab", "phaserem", "cdtools"}
    own = [("ptychon", algorithm) for algorithm in peers_run.PEERS["ptychon"].algorithms]
    assert chosen(["ptychon", "ptychi:dm"]) == [*own, ("ptychi", "dm")]
    with pytest.raises(PtychonError, match="did you mean 'ptychi'"):
        chosen(["ptychy"])


def test_every_peer_has_its_adapter_and_none_is_imported_by_the_package():
    scripts = {path.stem.removeprefix("run_") for path in peers_run.ADAPTERS.glob("run_*.py")}
    assert scripts == set(peers_run.PEERS)
    code = (
        "import sys, ptychon.bench.peers_run; print([m for m in sys.modules if '.peers.' in m "
        "or m in ('torch', 'jax')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_installing_never_touches_our_environment(tmp_path, monkeypatch):
    """pip is that of the new environment, the first failure ends it, and only a whole installation
    is remembered.
    """
    ran = []

    def run(command, what, threads, limit=0.0, here=None):
        ran.append(command)
        if "second" in command and len(ran) < 5:
            raise PtychonError(f"{what} failed: no matching distribution")

    monkeypatch.setattr(peers_run, "_run", run)
    monkeypatch.setattr(
        peers_run, "PEERS", {"x": Peer(("a",), (("first",), ("second",))), "own": Peer(("a",))}
    )
    said = []
    with pytest.raises(PtychonError, match="no matching distribution"):
        install("x", tmp_path, said.append)
    (tmp_path / "x").mkdir()
    python = install("x", tmp_path, said.append)
    assert python.is_relative_to(tmp_path / "x")
    assert [command[0] for command in ran] == [sys.executable, str(python), str(python)] * 2
    assert ran[0][1:] == ["-m", "venv", "--clear", str(tmp_path / "x")]
    assert ran[1][-1] == "first"
    assert any("pip install second" in text for text in said)
    # the second time there is nothing to do
    assert install("x", tmp_path, said.append) == python
    assert len(ran) == 6
    assert install("own", tmp_path, said.append) == Path(sys.executable)
    assert len(ran) == 6


def test_a_peer_that_does_not_install_is_a_row(fake, bench, monkeypatch):
    def refuse(name, folder, say):
        raise PtychonError("fake: pip install failed: ERROR: No matching distribution found")

    monkeypatch.setattr(peers_run, "install", refuse)
    report = compare(["fake:right"], [1], fake, passes=3, seconds=1, bench=bench)
    assert report["rows"] == [
        {
            "package": "fake",
            "algorithm": "right",
            "threads": 1,
            "failed": "fake: pip install failed: ERROR: No matching distribution found",
        }
    ]


def test_last_error_line():
    assert (
        last_error("Traceback\n  File x\nValueError: bad\n\n[notice] a new pip\n")
        == "ValueError: bad"
    )
    assert last_error("\n") == "no message"
    assert len(last_error("x" * 900)) == 200


def test_scan_is_what_it_says(bench):
    assert len(bench.problem) == 9
    assert not bench.problem.subpixel
    assert bench.problem.counting
    assert bench.data.patterns.sum() / 9 == pytest.approx(1e4, rel=0.05)
    assert replace(bench, about="").problem is bench.problem
    assert "9 positions of 16x16 px, 4 px apart" in bench.about


@pytest.mark.slow
def test_ptychon_runs_under_the_same_clock(bench, tmp_path):
    """Its adapter, as it is run beside the others."""
    report = compare(
        ["ptychon:rpie", "ptychon:ep", "ptychon:dm, then rpie"],
        [1],
        tmp_path,
        passes=64,
        seconds=60,
        bench=bench,
    )
    for row in report["rows"]:
        assert "failed" not in row, row.get("failed")
        assert row["passes"] == 64
        assert row["R"] < 0.3
    assert [row["settings"].get("passes of dm first") for row in report["rows"]] == [None, 40, 60]


def test_command(fake, bench, monkeypatch, capsys):
    monkeypatch.setitem(peers_run.SCANS, "plain", lambda: bench)
    options = ["--peers", "--peers-dir", str(fake), "--peer-passes", "3", "-e", "fake:right"]
    assert main(command, "ptychon bench", [*options, "-o", str(fake / "all.json")]) == 0
    captured = capsys.readouterr()
    assert "| fake | right |" in captured.out
    assert "fake: right, 1 thread" in captured.err
    assert json.loads((fake / "all.json").read_text())["rows"][0]["passes"] == 3
    assert main(command, "ptychon bench", ["default", "--peers"]) == 2
    assert "scan of its own" in capsys.readouterr().err
