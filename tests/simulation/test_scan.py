"""Scan patterns against their formulas, and the table reader against files people really have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychon.data.dataset import Dataset
from ptychon.model.problem import Problem
from ptychon.simulation import scan
from ptychon.types import PtychonError


@given(m=st.integers(1, 9), n=st.integers(1, 9), step=st.integers(1, 7), length=st.integers(64, 67))
def test_raster_is_centred_as_published(m: int, n: int, step: int, length: int) -> None:
    start = [length // 2 - ((k - 1) * step) // 2 for k in (m, n)]
    expected = [(start[0] + a * step, start[1] + b * step) for a in range(m) for b in range(n)]
    np.testing.assert_array_equal(scan.raster((m, n), step) + length // 2, expected)


def test_raster_jitter_is_whole_bounded_and_seeded() -> None:
    still, moved = scan.raster(30, 5), scan.raster(30, 5, jitter=2, seed=1)
    np.testing.assert_array_equal(np.unique(moved - still), [-2, -1, 0, 1, 2])
    np.testing.assert_array_equal(moved, scan.raster(30, 5, jitter=2, seed=1))
    assert np.any(moved != scan.raster(30, 5, jitter=2, seed=2))


def test_raster_between_pixels() -> None:
    positions = scan.raster((4, 3), (2.5, 1.5), whole=False)
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.unique(np.diff(positions.reshape(4, 3, 2)[:, 0, 0])), 2.5)
    jitter = scan.raster((40, 30), (2.5, 1.5), whole=False, jitter=0.4) - scan.raster(
        (40, 30), (2.5, 1.5), whole=False
    )
    assert 0.38 < np.abs(jitter).max() <= 0.4


def test_spiral_is_the_published_formula() -> None:
    i = np.arange(200)
    y, x = 5 * np.sqrt(i) * np.sin(2.399967 * i), 5 * np.sqrt(i) * np.cos(2.399967 * i)
    np.testing.assert_allclose(scan.fermat_spiral(200, 5), np.stack([y, x], axis=1), atol=1e-12)
    whole = scan.fermat_spiral(200, 5, whole=True)
    # the published code truncates centre + offset towards zero
    np.testing.assert_array_equal(whole + 256, np.trunc(np.stack([256 + y, 256 + x], axis=1)))
    np.testing.assert_allclose((whole - scan.fermat_spiral(200, 5)).mean(axis=0), -0.5, atol=0.05)


def test_spiral_neighbours_are_where_the_docstring_says() -> None:
    distance = (1 - scan.overlap(scan.fermat_spiral(400, 3.0), 100.0)) * 100 / 3
    assert 1.67 < distance < 1.70


@given(
    shape=st.tuples(st.integers(20, 41), st.integers(20, 41)),
    frame=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    step=st.floats(0.7, 3.0),
)
def test_fit_keeps_what_problem_accepts_and_nothing_else(
    shape: tuple[int, int], frame: tuple[int, int], step: float
) -> None:
    positions = scan.fermat_spiral(150, step)
    kept = scan.fit(positions, shape, frame)
    ones = np.ones((len(kept), *frame), np.float32)
    Problem.from_dataset(Dataset(patterns=ones, positions=kept, object_shape=shape))
    outside = positions[~scan.inside(positions, shape, frame)]
    assert len(kept) + len(outside) == len(positions)
    for p in outside[:3]:
        bad = Dataset(patterns=ones[:2], positions=np.stack([kept[0], p]), object_shape=shape)
        with pytest.raises(PtychonError, match="outside the object"):
            Problem.from_dataset(bad)


def test_fit_with_nothing_left() -> None:
    with pytest.raises(PtychonError, match="none of 3 windows"):
        scan.fit(np.full((3, 2), 100.0), (64, 64), (16, 16))


def test_overlap() -> None:
    assert scan.overlap(scan.raster(5, 4), 16.0) == pytest.approx(0.75)
    assert scan.overlap(scan.raster(5, 40), 16.0) == 0.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "y,x\n1.5,2\n-3,4e-1\n"),
        ("a.csv", "\ufeff1.5; 2\r\n-3; 0.4\r\n"),
        ("a.txt", "# position file\n1.5   2  # first\n\n  -3\t0.4\n"),
    ],
)
def test_tables_from_text(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(scan.from_table(path), [[1.5, 2], [-3, 0.4]])


def test_tables_from_arrays(tmp_path: Path) -> None:
    table = np.array([[0.0, 7.0, 1.5], [1.0, 8.0, 2.5]])
    np.save(tmp_path / "a.npy", table)
    np.testing.assert_array_equal(
        scan.from_table(str(tmp_path / "a.npy"), columns=(2, 1)), [[1.5, 7], [2.5, 8]]
    )
    copy = scan.from_table(table[:, :2])
    copy[...] = 9
    assert table[0, 0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3 oops\n", "line 2 .* not numbers"),
        ("1 2\n3\n", "line 2 .* has 1 columns"),
        ("# nothing\n", "holds no positions"),
        ("1 2 3\n", "3 columns"),
        ("1 nan\n", "not finite"),
    ],
)
def test_bad_tables_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(PtychonError, match=message):
        scan.from_table(path)
    with pytest.raises(PtychonError, match="cannot read positions"):
        scan.from_table(tmp_path / "missing.txt")


def test_bad_scans() -> None:
    with pytest.raises(PtychonError, match="not whole pixels"):
        scan.raster(3, 2.5)
    with pytest.raises(PtychonError, match="at least one"):
        scan.fermat_spiral(0, 5)
    with pytest.raises(PtychonError, match="must be a positive"):
        scan.raster(3, 0)
    with pytest.raises(PtychonError, match=r"shape \(3,\)"):
        scan.fit(np.zeros(3), (64, 64), (8, 8))


def test_the_step_is_the_same_with_and_without_a_tree(monkeypatch):
    from ptychon.data import position_table

    places = np.random.default_rng(1).uniform(0, 100, (400, 2))
    alone = position_table.step_of(places)
    every = position_table.nearest(places)
    monkeypatch.setattr(position_table, "_FEW", 10)
    assert position_table.step_of(places) == pytest.approx(alone, rel=1e-12)
    np.testing.assert_allclose(position_table.nearest(places), every)
    assert len(position_table.nearest(places, 100)) == 100
    assert position_table.step_of(np.stack(np.mgrid[:5, :5], -1).reshape(-1, 2) * 2.5) == 2.5
