"""Scans of a thick specimen that share a probe, an object of several slices, or both."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ptychon import PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.engines import able
from ptychon.io import load_result
from ptychon.io.cxi_write import write_dataset
from ptychon.metrics.residual import residual
from ptychon.model.problem import Problem
from ptychon.simulation import probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

PIXEL, WAVE, FRAME = 1e-8, 1e-10, 20
GAP = 16 * PIXEL**2 / WAVE
QUIET = {"judge": False, "progress": False, "say": None, "seed": 0}
THICK = {"slices": 2, "spacing": GAP}
ENGINES = [n for n in able("slices").split(", ") if n != "pie"]


@lru_cache
def world():
    """Two slices, two probes, positions of 25 frames."""
    rng, positions = np.random.default_rng(5), raster(5, 4, jitter=1.0, seed=0, whole=False)
    size = FRAME + 2 * int(np.ceil(np.abs(positions).max() + 1))
    f2 = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    low = np.exp(-f2 / (2 * 0.12**2))
    fields = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * low) for _ in range(2)]
    object = np.exp(0.4j * np.stack([f.real / f.real.std() for f in fields]))
    light = [probes.defocused_aperture((FRAME, FRAME), 5, z) for z in (8, 14)]
    return object, light, positions


def scan(frames, counts=1e6, seed=1, probe=0, gap=GAP):
    object, light, positions = world()
    made = simulate(
        object,
        light[probe],
        positions[frames],
        noise="poisson",
        mean_counts=counts,
        seed=seed,
        pixel_size=PIXEL,
        wavelength=WAVE,
        spacing=gap,
    )
    return replace(made.dataset, object_shape=None)


TOP, BOTTOM = slice(0, 15), slice(10, 25)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("share", ["probe", "object", "both"])
def test_engines_that_know_slices_take_several_scans(engine, share):
    """Each result has slices of its own, and with them R as it says; two slices fit what one
    cannot.
    """
    data = [scan(TOP, 1e6, 1), scan(BOTTOM, 1e5, 2, probe=1 if share == "object" else 0)]
    how = {**QUIET, "share": share, "passes": 6 if engine == "ml" else 9}
    if share == "object" and engine not in able("constraints").split(", "):
        with pytest.raises(PtychonError, match="fits one probe to all frames"):
            reconstruct(data, engine, **how, **THICK)
        return
    found, thin = reconstruct(data, engine, **how, **THICK), reconstruct(data, engine, **how)
    for result, one in zip(found, data, strict=True):
        problem = Problem.from_dataset(one)
        assert result.object.shape == (2, *problem.object_shape)
        assert len(result.slices) == 2
        own = replace(problem, slices=result.slices)
        if result.log_scale is not None:
            own = own.with_positions(result.positions, result.log_scale, corners=result.corners)
        told = residual(own, result.object, result.probe)
        assert result.final_error == pytest.approx(told, rel=1e-5)
    errors = [np.mean([r.final_error for r in results]) for results in (found, thin)]
    assert errors[0] < 0.85 * errors[1], errors
    powers = [float((np.abs(r.probe) ** 2).sum()) for r in found]
    assert powers[0] / powers[1] == pytest.approx(10, rel=0.15)


def test_a_thick_scan_in_two_parts_is_one():
    """Of one dose, by the first passes of rPIE that both make: in turn and together."""
    parts = [scan(slice(0, 13)), scan(slice(13, 25))]
    how = {**QUIET, "passes": 3, "probe": world()[1][0]}
    together = reconstruct(parts, "rpie", share="both", **how, **THICK)
    again = reconstruct(parts, "rpie", share="both", start=together, **{**how, "probe": None})
    assert again[0].slices == together[0].slices
    assert again[0].passes == 6
    assert again[0].final_error < together[0].final_error


def test_scans_of_a_thick_specimen_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, frames in (("a", TOP), ("b", BOTTOM)):
        write_dataset(tmp_path / f"{name}.cxi", scan(frames))
    line = ["reconstruct", "a.cxi", "b.cxi", "--share", "both", "-n", "3", "-q"]
    assert main([*line, "--slices", "2", "--slice-spacing", f"{GAP}m"]) == 0
    found = load_result(tmp_path / "b_rpie.h5")
    assert found.object.ndim == 3
    assert found.slices.gaps == pytest.approx([GAP])
    assert main([*line, "--slice-spacing", "20nm"]) == 2
    assert "not how many slices" in capsys.readouterr().err
