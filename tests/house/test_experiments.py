"""The numerical experiments, each on a few small frames: that they run, and what they write."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ptychon.types import PtychonError
from ptychon.uncertainty.half_data_record import HalfDataTest

FOLDER = Path(__file__).parents[2] / "experiments"
#: Enough of each to reach every line.
SMALL = {
    "sampling_ratio": "--size 112 --steps 16 20",
    "blind": "--size 64 --frame 16 --points 3 --steps 3 4",
    "uncertainty": "--size 112 --trials 1",
    "cramer_rao": "--size 20 --draws 4 --sampled 1 --shorter 0.001 --passes 4",
    "positions": "--points 4 --frame 24 --steps 2 --cases random:0.5 --trials 1",
    "transition": "--size 32 --frame 12 --steps 5 8 --doses 100",
}
#: Cases that differ in kind: few measurements, much light, little light; a prior, counts.
FEWER = {"cramer_rao": (1, 2, 5), "uncertainty": (0, 5, 6, 8)}


class Sketch(Figure):
    """A figure drawn coarsely and not laid out, which would take longer than what it shows."""

    def savefig(self, *where: Any, **more: Any) -> None:
        super().savefig(*where, **more | {"dpi": 20})


@pytest.fixture
def experiment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An experiment as a module; its own folder comes first, as when it is run."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module(request.param)
    for place in (module, importlib.import_module("common")):
        if hasattr(place, "figure"):
            monkeypatch.setattr(place, "figure", lambda w, h: Sketch(figsize=(w, h)))
    return module


def table(path: Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:There are no gridspecs", "ignore:legend")
@pytest.mark.parametrize("experiment", SMALL, indirect=True)
def test_writes_table_and_figure(
    experiment: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if experiment.__name__ in FEWER:
        cases = tuple(experiment.CASES[k] for k in FEWER[experiment.__name__])
        monkeypatch.setattr(experiment, "CASES", cases)
    small = [word.replace(":", " ") for word in SMALL[experiment.__name__].split()]
    common = ["--trials", "2", "--passes", "2", "--backend", "numpy"]
    experiment.main([*common, *small, "-o", str(tmp_path / "new" / "folder")])
    out = capsys.readouterr().out
    assert "No --images: phantoms" in out
    assert (tmp_path / "new/folder/figure.png").read_bytes().startswith(b"\x89PNG")
    rows = table(tmp_path / "new/folder/table.csv")
    printed = [line.split() for line in out.splitlines()]
    for row in rows:
        words = next(iter(row.values())).split()
        assert any(line[: len(words)] == words for line in printed)
    if experiment.__name__ == "sampling_ratio":
        assert len(rows) == 5 * 2
        assert float(rows[0]["ratio"]) > float(rows[1]["ratio"]) > 1
        trials = [
            float(r["error_db"])
            for r in table(tmp_path / "new/folder/trials.csv")
            if r["method"] == "EP"
        ]
        ours = [row for row in rows if row["method"] == "EP"]
        assert [float(row["worst"]) for row in ours] == pytest.approx(
            [min(trials[i : i + 2]) for i in (0, 2, 4, 6)], abs=0.01
        )
    if experiment.__name__ == "blind":
        assert len(rows) == 2 * 2 * 4
        assert {row["method"] for row in rows} == {"ePIE", "rPIE", "DM", "EP + EM"}
        assert all(0 < float(row["R of truth"]) < 1 for row in rows)
    if experiment.__name__ == "cramer_rao":
        assert len(rows) == len(experiment.CASES)
        assert all(
            float(row["EP/bound"]) > 0.7 and float(row["Laplace bar/actual"]) > 0.3 for row in rows
        )
        assert all(float(row["R^"]) >= 1 and float(row["sample bar/actual"]) > 0.2 for row in rows)
    if experiment.__name__ == "transition":
        assert len(rows) == 2 * 5
        assert {row["method"] for row in rows} == set(experiment.METHODS)
        trials = table(tmp_path / "new/folder/trials.csv")
        for trial in trials:
            near = float(trial["error_db"]) > float(trial["allowed_db"]) - experiment.WITHIN
            assert near == (trial["success"] == "1")
        assert sum(int(row["success"]) for row in rows) == sum(
            int(trial["success"]) for trial in trials
        )
        assert len(table(tmp_path / "new/folder/transitions.csv")) == 5
    if experiment.__name__ == "uncertainty":
        assert len(rows) == len(experiment.CASES) + 1
        assert rows[-1]["case"] == "if the error bars were true"
        assert all(0 <= float(row["50 %"]) <= float(row["95 %"]) <= 100 for row in rows)
        assert table(tmp_path / "new/folder/histograms.csv")[0].keys() >= {"u", "expected"}


@pytest.mark.parametrize("experiment", ["halves"], indirect=True)
def test_halves_go_into_a_table(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for each row, and what is written of it; halves themselves are tested by
    tests/uncertainty/test_half_data.py.
    """
    asked = []
    judged = HalfDataTest(
        kind="counts",
        mean_square=1.44,
        covered=(0.4, 0.6, 0.85, 0.92),
        covered_after=(0.5, 0.69, 0.9, 0.95),
        mean_square_after=1.02,
        by_period=(math.nan, 1.4, 1.5, 1.3, 1.4),
        independent=0.9,
        difference_db=20.0,
        chi2=(1.0, 1.1),
        pixels=900,
        modes=1,
        update=("object", "probe"),
    )

    def judge(problem: Any, kind: str, *, probe: Any, **more: Any) -> tuple[HalfDataTest, None]:
        asked.append((kind, probe.shape, np.abs(probe[1:]).sum(axis=(1, 2)) > 0, more))
        return judged, None

    monkeypatch.setattr(experiment, "half_data_test", judge)
    experiment.main(["--modes", "1", "3", "--passes", "7", "-o", str(tmp_path)])
    assert [(kind, shape) for kind, shape, *_ in asked] == [
        (kind, (modes, 32, 32)) for modes in (1, 3) for kind in ("positions", "counts")
    ]
    assert all(lit.all() and more["passes"] == 7 for *_, lit, more in asked)
    rows = table(tmp_path / "table.csv")
    assert [row["modes"] for row in rows] == ["1", "1", "3", "3"]
    assert {(row["mean square"], row["0.5"], row["misfit"]) for row in rows} == {
        ("1.44", "0.4", "1.1")
    }
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PtychonError, match="must be 1, 2 or 3"):
        experiment.main(["--modes", "4"])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["halves"], indirect=True)
def test_halves_of_a_simulated_scan(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = experiment.simulated
    monkeypatch.setattr(experiment, "simulated", lambda size: simulated(72))
    small = ["--modes", "1", "2", "--kinds", "counts", "--passes", "30", "--backend", "numpy", "-o"]
    experiment.main([*small, str(tmp_path)])
    one, two = table(tmp_path / "table.csv")
    assert (one["modes"], two["modes"]) == ("1", "2")
    assert 0.5 < float(one["mean square"]) < 2
    assert float(one["0.5"]) < float(one["0.9"]) < float(one["0.95"]) <= 1
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("experiment", ["transition"], indirect=True)
def test_transition_is_found_where_it_is(experiment: ModuleType) -> None:
    """Runs drawn from a known law: the interval holds its middle about as often as is said."""
    rng, ratios = np.random.default_rng(0), np.repeat(np.linspace(2, 5, 7), 10)
    inside = []
    for _ in range(40):
        found = experiment.transition(
            ratios, rng.random(len(ratios)) < 1 / (1 + np.exp(-(ratios - 3.3) / 0.3))
        )
        inside.append(found.low <= 3.3 <= found.high)
        assert found.low < found.middle < found.high < found.low + 1.5
    assert np.mean(inside) >= 0.85
    clear = experiment.transition([2, 2, 3, 3], [False, False, True, True])
    assert clear.middle == pytest.approx(2.5, abs=0.05)
    assert clear.low < 2.5 < clear.high
    assert str(experiment.transition([2, 3], [True] * 2)).startswith("below")
    assert str(experiment.transition([2, 3], [False] * 2)).startswith("above")


@pytest.mark.parametrize("experiment", ["blind"], indirect=True)
def test_photographs_are_divided_by_their_maximum(experiment: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        name: rng.integers(1, 200, (96, 96)).astype(np.uint8) for name in ("cameraman", "eagle")
    }
    pictures |= {
        name: rng.integers(1, 200, (16, 16)).astype(np.uint8) for name in ("probe", "probe_init")
    }
    for name, picture in pictures.items():
        imsave(tmp_path / f"{name}.png", np.repeat(picture[..., None], 3, axis=-1))
    found = experiment.common.sample("dense", tmp_path, 512)
    amplitude, phase = (pictures[name] / pictures[name].max() for name in ("cameraman", "eagle"))
    np.testing.assert_allclose(found, amplitude * np.exp(0.5j * np.pi * phase), atol=1e-6)
    few = [
        "--steps",
        "6",
        "--points",
        "3",
        "--noise",
        "poisson",
        "--trials",
        "1",
        "--passes",
        "3",
        "--textbook",
    ]
    experiment.main([*few, "--backend", "numpy", "--images", str(tmp_path), "-o", str(tmp_path)])
    assert len(table(tmp_path / "table.csv")) == 4


@pytest.mark.parametrize("experiment", ["sampling_ratio"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--images", "."], "cannot read the picture"),
        (["--size", "64"], "no two positions"),
    ],
)
def test_bad_input_is_one_sentence(
    experiment: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PtychonError, match=message):
        experiment.main(arguments)
    with pytest.raises(SystemExit) as stopped:
        experiment.common.command(lambda: experiment.main(arguments))
    assert stopped.value.code == 2


@pytest.mark.parametrize("experiment", ["calibration"], indirect=True)
def test_calibration_of_a_cell_goes_into_a_page(
    experiment: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One bright cell with the probe known: bars that cover, in the table of a page between its
    marks.
    """
    assert len(experiment.cells()) <= 40
    monkeypatch.setattr(experiment, "FRAME", 24)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{experiment.BEGIN}\nstale\n{experiment.END}\nafter\n")
    monkeypatch.setattr(
        experiment, "cells", lambda: [experiment.Cell("bright", dose=1e6, overlap=0.6)]
    )
    monkeypatch.setattr(experiment, "pool_of", lambda processes: experiment.ThreadPool(processes))
    experiment.main(
        ["--trials", "1", "--processes", "1", "--write", str(page), "-o", str(tmp_path / "out")]
    )
    text = page.read_text()
    assert "stale" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    (row,) = table(tmp_path / "out" / "calibration.csv")
    assert abs(float(row["68.3 %"]) - 68.3) < 5
    assert row["holds %"] == "100"
    assert (tmp_path / "images" / "coverage.png").is_file()
    monkeypatch.setattr(
        experiment, "trial", lambda task: pytest.fail("a trial that was there was made again")
    )
    experiment.main(["--trials", "1", "--processes", "1", "-o", str(tmp_path / "out")])
    assert table(tmp_path / "out" / "calibration.csv") == [row]
    with pytest.raises(PtychonError, match="contains 'nothing'"):
        experiment.main(["--cells", "nothing"])
    capsys.readouterr()


@pytest.mark.parametrize("experiment", ["splits"], indirect=True)
def test_halves_of_splits_are_kept_and_tried_again(
    experiment: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A simulated scan whose positions are wrong: as many pixels as should be are inside bars that
    other splits have widened, fewer before; a second time nothing is reconstructed.
    """
    given = ["sim-positions-power-1.5", "--frames", "36", "--splits", "2", "--folder"]
    experiment.main([*given, str(tmp_path)])
    first = capsys.readouterr().out
    inside = {
        line.split()[0]: int(line.split("inside")[1].split()[0])
        for line in first.splitlines()
        if line.strip().startswith(("before", "after"))
    }
    assert inside["before"] < 45
    assert abs(inside["after"] - 50) < 6
    monkeypatch.setattr(experiment, "both_halves", None)
    monkeypatch.setattr(experiment, "whole", None)
    experiment.main([*given, str(tmp_path)])
    assert capsys.readouterr().out == first
