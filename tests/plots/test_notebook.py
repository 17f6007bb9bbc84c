"""What a prompt and a notebook show of scans and results; scans in rows and columns."""

from __future__ import annotations

import base64
import io
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ptychon import Dataset, Problem, PtychonError, Result


def scan(**more):
    frames = np.random.default_rng(0).poisson(3.0, (12, 16, 20))
    places = np.stack(np.meshgrid(np.arange(3) * 5.0, np.arange(4) * 6.0, indexing="ij"), -1)
    return Dataset(patterns=frames, positions=places.reshape(-1, 2), **more)


def result(**more):
    rng = np.random.default_rng(1)
    field = np.exp(1j * rng.random((40, 44))).astype(np.complex64)
    return Result(
        object=field,
        probe=np.ones((2, 16, 20), np.complex64),
        errors=np.array([0.3, 0.2]),
        final_error=0.1234,
        positions=scan().positions + np.array([8, 10]),
        engine="rpie",
        passes=2,
        **more,
    )


def pictures(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), float) for text in found]


def test_a_scan_is_told_in_three_lines():
    metres = scan(
        name="leaf <1>",
        wavelength=1.5e-10,
        distance=2.0,
        detector_pixel_size=(75e-6, 150e-6),
        mask=np.arange(320).reshape(16, 20) > 31,
    )
    lines = repr(metres).split("\n")
    assert len(lines) == 3
    assert lines[0] == "Dataset 'leaf <1>': 12 frames of 16x20 pixels, far field, counts"
    # wavelength x distance / (pixels x pixel size)
    assert "pixel 250 nm x 100 nm, wavelength 150 pm, detector at 2 m" in lines[1]
    assert "mask keeps 90 % of the pixels" in lines[2]
    assert "positions over 10 px x 18 px" in repr(scan())
    page = metres._repr_html_()
    assert "leaf &lt;1&gt;" in page
    assert "<1>" not in page
    (picture,) = pictures(page)
    assert picture[..., :3].std() > 10


def test_of_a_scan_on_disk_one_frame_is_read():
    read = []

    class Watched:
        def __init__(self, frames):
            self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

        def __getitem__(self, key):
            read.extend(np.arange(len(self.frames))[key].reshape(-1).tolist())
            return self.frames[key]

    data = Dataset(patterns=Watched(scan().patterns), positions=scan().positions)
    repr(data)
    assert read == []
    data._repr_html_()
    assert read == [6]


@pytest.mark.parametrize("bars", [False, True])
def test_a_result_is_told_in_three_lines(bars):
    found = result(object_std=np.full((40, 44), 0.05, np.float32) if bars else None)
    lines = repr(found).split("\n")
    assert lines[0] == "Result: rpie after 2 passes, R = 0.1234"
    assert "object 40x44 pixels, pixel of unknown size; probe 16x20, 2 modes; 12" in lines[1]
    assert ("error bars of 5 % of the amplitude" if bars else "error_bars(data") in lines[2]
    assert len(lines) == 3
    assert len(pictures(found._repr_html_())) == 1


def test_a_problem_is_told_in_three_lines():
    lines = repr(Problem.from_dataset(scan())).split("\n")
    assert lines[0] == "Problem: 12 frames of 16x20 pixels, far field, roots of counts"
    assert "on whole pixels" in lines[1]
    assert "arrays of numpy" in lines[2]


def test_show_draws_below_the_cell_of_a_notebook(monkeypatch):
    drawn, python = [], ModuleType("IPython")
    shell = type("ZMQInteractiveShell", (), {})()
    display = ModuleType("IPython.display")
    vars(display).update(Image=lambda png: SimpleNamespace(png=png), display=drawn.append)
    vars(python).update(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert result().show() is None
    assert np.asarray(Image.open(io.BytesIO(drawn[0].png)), float).std() > 10


def test_show_names_a_remedy_where_no_window_opens(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(PtychonError, match=r"(?i)'agg' opens no window; .* ptychon\.plot\(result"):
        result().show()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_scan_in_rows_and_columns(lazy, tmp_path):
    import h5py

    flat = scan()
    grid, places = flat.patterns.reshape(3, 4, 16, 20), flat.positions.reshape(3, 4, 2)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = grid
        data = Dataset(patterns=file["data"] if lazy else grid, positions=places)
        assert len(data) == 12
        assert np.array_equal(data.positions, flat.positions)
        assert isinstance(data.patterns, np.ndarray) is not lazy
        for key in (slice(0, 12), slice(2, 7), slice(5, 6), slice(4, 4), [11, 0, 5], 7):
            assert np.array_equal(data.patterns[key], flat.patterns[key]), key
        mine, wanted = Problem.from_dataset(data), Problem.from_dataset(flat)
        assert np.array_equal(mine.amplitude, wanted.amplitude)
    masked = Dataset(patterns=grid, positions=places, mask=grid < 9)
    assert masked.mask.shape == (12, 16, 20)
    with pytest.raises(PtychonError, match="3 positions for 12 frames"):
        Dataset(patterns=grid, positions=places[:, 0])
