"""Scans that packages are compared on: the truth is judged right, what is off by a known amount is
judged so, and adapters get what they need.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.bench import peers_run
from ptychon.bench.peers_run import PEERS, chosen, compare
from ptychon.bench.peers_scans import POWERS, make_measured, make_thick
from ptychon.data.slices import Slices

SMALL = {"side": 4, "frame": 32, "mean_counts": 1e4}


@pytest.fixture(scope="module")
def measured():
    return make_measured(step=4.0, **SMALL)


def test_the_measured_scan_is_what_it_says(measured):
    off = measured.positions - measured.places
    assert np.hypot(*(off - off.mean(axis=0)).T).mean() == pytest.approx(0.9, rel=0.3)
    assert measured.probe.shape == (3, 32, 32)
    given = measured.file()
    assert given["probe"].shape == (3, 32, 32)
    np.testing.assert_array_equal(given["positions"], measured.positions)
    # windows begin where the positions say, to half a pixel
    assert np.abs(given["positions"] - given["corners"] - 16).max() <= 0.5 + 1e-6
    assert sum(POWERS) == pytest.approx(1)


def test_positions_are_judged_up_to_a_translation(measured):
    moved = measured.places + np.array([3.0, -2.0])
    error, _, off = measured.quality(1j * measured.truth, measured.probe, moved)
    assert error < 1e-3
    assert off < 1e-9
    moved[0] += [0.0, 1.6]
    assert measured.quality(measured.truth, measured.probe, moved)[2] == pytest.approx(
        1.6 * np.sqrt(1 / 16 - 1 / 256), rel=1e-6
    )
    broken = np.full_like(measured.truth, np.nan)
    assert measured.quality(broken, measured.probe) == (None, None, None)


def test_slices_are_judged_each_by_itself():
    bench = make_thick(step=4, **SMALL)
    assert isinstance(bench.problem.slices, Slices)
    assert bench.file()["gaps"].shape == (1,)
    factors = np.array([2.0, 0.5j])[:, None, None]
    assert bench.quality(factors * bench.truth, bench.probe[0])[0] < 1e-3
    same = np.stack([bench.truth[0]] * 2)
    assert bench.quality(same, bench.probe[0])[0] > 0.05


def test_ptychon_itself_runs_on_the_measured_scan(measured, tmp_path, monkeypatch):
    """Its adapter, in a process of its own as those of the others."""
    assert ("ptychon", "ml") in chosen(["ptychon"], "measured")
    assert chosen(["cdtools"], "thick" if PEERS["cdtools"].thick else "measured")
    monkeypatch.setattr(peers_run, "PEERS", {"ptychon": replace(PEERS["ptychon"])})
    assert not PEERS["ptychon"].installs
    report = compare(["ptychon:rpie"], [1], tmp_path, passes=12, seconds=60, bench=measured,
                     scan="measured")  # fmt: skip
    (row,) = report["rows"]
    assert "failed" not in row, row
    assert row["passes"] == 12
    assert row["off"] < row["curve"][0]["off"]
    assert row["error"] < row["curve"][0]["error"]
