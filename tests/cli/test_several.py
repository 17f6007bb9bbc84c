"""Several scans on the command line: a report of all of them, checkpoints, results to start from,
shifts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptychon.__main__ import main
from ptychon.io import load_result
from ptychon.io.cxi_write import write_dataset
from ptychon.reports.write import Written
from ptychon.run.observers import Interrupt
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("sketched")

PIXEL = 1e-8
QUICK = ["-q", "--backend", "numpy"]


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two halves of a scan that overlap, in files of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ptychon.cli.run.drawn", lambda result, places: True)
    rng = np.random.default_rng(0)
    f2 = np.add.outer(np.fft.fftfreq(48) ** 2, np.fft.fftfreq(48) ** 2)
    s = np.fft.ifft2(np.fft.fft2(rng.normal(size=(48, 48))) * np.exp(-f2 / (2 * 0.12**2))).real
    object = np.exp(0.6j * s / s.std())
    y, x = np.indices((16, 16)) - 8
    probe = np.exp(-(y**2 + x**2) / (2 * 2.5**2) + 0.05j * (y**2 + x**2))
    places = raster(6, step=4.0, jitter=0.8, seed=2, whole=False)
    for name, frames in (("a", slice(0, 24)), ("b", slice(12, 36))):
        made = simulate(
            object,
            probe,
            places[frames],
            noise="poisson",
            mean_counts=1e4,
            seed=3,
            pixel_size=PIXEL,
            wavelength=1e-10,
        )
        write_dataset(tmp_path / f"{name}.cxi", made.dataset)
    return tmp_path


@pytest.mark.parametrize("share", ["probe", "object"])
def test_a_run_that_was_stopped_is_resumed(two, share, monkeypatch, capsys):
    """Ctrl-C leaves the results so far and a checkpoint, from which it ends as if it had not been
    stopped.
    """
    asked = ["reconstruct", "a.cxi", "b.cxi", "--share", share, "-n", "6", *QUICK]
    assert main(asked) == 0
    whole = [load_result(two / f"{name}_rpie.h5") for name in "ab"]

    def pressed(self, progress):
        self.pressed = progress.passes == 3
        return self.pressed

    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "__call__", pressed)
        assert main([*asked, "--force"]) == 130
    assert load_result(two / "b_rpie.h5").passes == 3
    said = capsys.readouterr().err
    assert "stopped after pass 3 of 6; go on with: ptychon resume a_rpie.checkpoint.h5" in said
    assert main(["resume", "a_rpie.checkpoint.h5", "--passes", "3", "-q"]) == 2
    assert "has done 3 passes already" in capsys.readouterr().err
    assert main(["resume", "a_rpie.checkpoint.h5", "-q"]) == 0
    for name, one in zip("ab", whole, strict=True):
        found = load_result(two / f"{name}_rpie.h5")
        np.testing.assert_array_equal(found.object, one.object)
        np.testing.assert_array_equal(found.probe, one.probe)
        np.testing.assert_array_equal(found.errors, one.errors)


def test_a_report_is_of_all_scans(two, monkeypatch):
    """One page; what it shows of several results is tested with reports."""
    asked = ["reconstruct", "a.cxi", "b.cxi", "--share", "both", "--report", "-n", "2", *QUICK]
    told = []

    def written(paths, **how):
        told.extend(paths)
        return Written(page=Path("page.html"), numbers=Path(), pictures=Path())

    monkeypatch.setattr("ptychon.reports.write.write_report", written)
    assert main(asked) == 0
    assert [path.name for path in told] == ["a_rpie.h5", "b_rpie.h5"]
    assert all(load_result(path).passes == 2 for path in told)


def test_results_are_started_from_and_shifts_are_said(two, capsys):
    asked = ["reconstruct", "a.cxi", "b.cxi", "--share", "object", *QUICK]
    assert main([*asked, "-n", "5"]) == 0
    more = ["--start", "a_rpie.h5", "--start", "b_rpie.h5", "-n", "3"]
    assert main([*asked, *more]) == 0
    found = load_result(two / "a_rpie_2.h5")
    assert found.passes == 8
    assert found.settings["request"]["start"].endswith("a_rpie.h5")
    assert load_result(two / "b_rpie_2.h5").settings["request"]["start"].endswith("b_rpie.h5")
    assert main([*asked, "--shift", "20nm,-10nm", "-n", "2", "--force"]) == 0
    moved = load_result(two / "b_rpie.h5")
    assert moved.settings["shared"]["shift"] == pytest.approx([2e-8, -1e-8])
    for wrong, why in (
        ([*asked, "--start", "a_rpie.h5"], "give --start once for each"),
        ([*asked, "--shift", "20nm"], "--shift is '20nm'; give search, or dy,dx"),
        (["reconstruct", "a.cxi", "--shift", "search", *QUICK], "--shift is for several scans"),
        ([*asked, "--error-bars", "laplace"], "--error-bars is for one scan, and 2 are given"),
    ):
        assert main([*wrong, "-n", "2"]) == 2
        assert why in capsys.readouterr().err
