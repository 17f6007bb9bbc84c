"""Pictures: what they show is tested where it is a number; they are saved as a whole
or not at all.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychon.data.result import Result
from ptychon.plots import result as plot
from ptychon.plots.display import phase_cut
from ptychon.types import PtychonError

N, P = 72, 24
Y, X = np.mgrid[:N, :N] - N // 2
#: Distance from the middle of a disc that lies to one side.
R = np.hypot(Y - 6, X + 5)


def result(
    modes: int = 1, std: bool = True, pixel_size: float | None = 5e-9, phase: float = 0.8
) -> Result:
    rng = np.random.default_rng(0)
    grain = (1 - 0.2 * (R < 11)) * np.exp(1j * phase * (R < 11))
    obj = grain * np.exp(1j * (0.3 * Y - 0.11 * X + 2)) + 0.01 * rng.normal(size=(N, N))
    v, u = np.mgrid[:P, :P] - P // 2
    probe = np.stack(
        [(np.hypot(v, u) < 9) * np.exp(0.02j * (u**2 + v**2)) * (u + 1) ** k for k in range(modes)]
    )
    errors = np.array([0.9, 0.5, np.nan, 0.2, 0.12], np.float32)
    return Result(
        object=obj.astype(np.complex64),
        probe=probe.astype(np.complex64),
        errors=errors,
        final_error=0.11,
        positions=N // 2 + rng.uniform(-22, 22, (60, 2)),
        engine="rpie",
        backend="numpy",
        passes=5,
        seconds=1.5,
        object_std=np.full((N, N), 0.1, np.float32) if std else None,
        pixel_size=None if pixel_size is None else (pixel_size, pixel_size),
    )


def axes_of(figure: plot.Figure) -> dict[str, object]:
    return {ax.get_title(): ax for ax in figure.axes if ax.get_title()}


def test_picture_shows_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    figure = plot.picture(result(modes=3), path, title="hello")
    shown = axes_of(figure)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert os.listdir(tmp_path) == ["a.png"]
    for name in (
        "object amplitude",
        "object phase",
        "standard deviation of the object",
        "convergence",
    ):
        assert name in shown
    assert sum(name.startswith(("mode", "complex probe")) for name in shown) == 3
    assert shown["object phase"].get_xlabel() == "x (nm)"
    assert figure.get_suptitle() == "hello"


def test_picture_does_not_touch_global_state() -> None:
    plot.picture(result())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_phase_is_shown_without_ramp_and_offset_on_the_lit_region() -> None:
    res = result()
    _, phase, wraps = plot.shown(res)
    assert not wraps
    assert np.array_equal(np.isfinite(phase), res.illuminated)
    inside = R < 10
    outside = res.illuminated & (R > 12)
    assert np.nanmedian(phase[inside]) - np.nanmedian(phase[outside]) == pytest.approx(
        0.8, abs=0.02
    )
    assert np.nanstd(phase[outside]) < 0.03
    image = axes_of(plot.picture(res))["object phase"].images[0]
    assert image.get_cmap().name == "gray"
    low, high = image.get_clim()
    assert 0.7 < high - low < 1.0


def test_a_phase_that_wraps_gets_a_cyclic_map() -> None:
    wrapping = replace(result(), object=np.exp(0.02j * (X**2 + Y**2)).astype(np.complex64))
    image = axes_of(plot.picture(wrapping))["object phase"].images[0]
    assert image.get_cmap().name == "twilight"
    assert image.get_clim() == pytest.approx((-np.pi, np.pi))


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
def test_remove_ramp_removes_any_ramp(ky: float, kx: float, phi: float) -> None:
    grain = 1 + 0.3 * np.exp(1j * X) * (np.hypot(X, Y) < 20)
    flat = plot.remove_ramp(grain)
    np.testing.assert_allclose(
        plot.remove_ramp(grain * np.exp(1j * (ky * Y + kx * X + phi))), flat, atol=1e-3
    )


@given(st.floats(-3.1, 3.1))
def test_phase_cut_lies_opposite_to_the_phases(centre: float) -> None:
    phases = np.angle(np.exp(1j * (centre + np.linspace(-1, 1, 500))))
    offset, wraps = phase_cut(phases)
    assert not wraps
    assert abs(np.angle(np.exp(1j * (offset - centre)))) < 0.2
    assert phase_cut(np.linspace(-np.pi, np.pi, 1000))[1]


def test_complex_colours_have_the_amplitude_as_lightness() -> None:
    hues = np.exp(1j * np.linspace(-np.pi, np.pi, 64))
    bright, dim = plot.complex_rgb(hues[None], top=1.0), plot.complex_rgb(0.5 * hues[None], top=1.0)
    assert bright.shape == (1, 64, 3)
    assert bright.min() > 0
    assert bright.max() < 1, "no hue is clipped"

    def luminance(rgb: np.ndarray) -> np.ndarray:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    # a luminance of Y is a lightness of 116 Y^(1/3) - 16
    spread = np.ptp(116 * np.cbrt(luminance(bright)) - 16)
    assert spread < 8
    np.testing.assert_allclose(luminance(dim), luminance(bright) / 8, rtol=1e-6)
    np.testing.assert_allclose(bright[:, 0], bright[:, -1], atol=1e-6)
    assert not plot.complex_rgb(np.zeros((2, 2), complex)).any()


def test_convergence_skips_what_was_not_measured_and_counts_earlier_passes() -> None:
    later = replace(result(), passes=25)
    line, final = axes_of(plot.picture(later))["convergence"].lines
    assert line.get_xdata().tolist() == [21, 22, 24, 25]
    assert final.get_ydata()[0] == pytest.approx(0.11)
    blank = replace(result(), errors=np.full(3, np.nan, np.float32), final_error=float("nan"))
    assert not axes_of(plot.picture(blank))["convergence"].lines


def test_coordinates_are_those_of_the_result() -> None:
    res = replace(result(pixel_size=None), origin=(100.0, -50.0))
    ax = axes_of(plot.picture(res))["object amplitude"]
    assert ax.get_xlabel() == "x (px)"
    rows, cols = np.nonzero(res.illuminated)
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right) == (-50 + cols.min() - 0.5, -50 + cols.max() + 0.5)
    assert (top, bottom) == (100 + rows.min() - 0.5, 100 + rows.max() + 0.5)


def test_compare_puts_results_on_one_scale(tmp_path: Path) -> None:
    figure = plot.compare(
        [result(), replace(result(phase=0.4), engine="dm")], path=tmp_path / "c.pdf"
    )
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert images[0].get_clim() == images[1].get_clim()
    assert (tmp_path / "c.pdf").stat().st_size > 1000
    with pytest.raises(PtychonError, match="2 names"):
        plot.compare([result()], ["a", "b"])


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    figure = plot.picture(result(std=False))
    with pytest.raises(PtychonError, match="suffix"):
        plot.save(figure, tmp_path / "a.bmpx")
    with pytest.raises(PtychonError, match="cannot write"):
        plot.save(figure, tmp_path / "missing" / "a.png")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(PtychonError, match="cannot write"):
        plot.save(figure, file / "a.png")
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_save_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, path = plot.picture(result(std=False)), tmp_path / "a.png"
    path.write_bytes(b"old")

    def half(name: Path, **_: object) -> None:
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot.save(figure, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]
