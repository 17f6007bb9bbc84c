"""What is said of a reconstruction though R does not show it: of failures that were made, and never
of good ones.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from ptychon import Dataset, PtychonWarning, reconstruct
from ptychon.data.result import Result
from ptychon.metrics.residual import residual_without_object
from ptychon.model.problem import Problem
from ptychon.run.doubts import at_rim, doubts, grid_power, no_better, width


def disc(n, radius):
    y = np.arange(n) - n // 2
    return 1 / (1 + np.exp((np.hypot(y[:, None], y) - radius) / 0.7)) + 0j


def scan(step=5, jitter=1, rows=9, n=64, radius=12, counts=1e6, seed=0, objects=None):
    """Frames, positions, object and probe from NumPy alone: a smooth disc over an object of two
    random patterns.
    """
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(rows) * step] * 2, indexing="ij"), -1).reshape(-1, 2)
    places = grid + random.integers(-jitter, jitter + 1, grid.shape)
    places -= places.min(0)
    height, breadth = places.max(0) + n
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(breadth), indexing="ij"))
    a, b = (
        np.fft.ifft2(np.fft.fft2(random.standard_normal(f.shape)) * np.exp(-((f * s) ** 2))).real
        for s in (8, 10)
    )
    field = (0.8 + 0.2 * np.sign(a)) * np.exp(1j * b / np.abs(b).max())
    field = field if objects is None else objects(*np.indices(f.shape))
    probe = disc(n, radius)
    probe *= np.sqrt(counts / (np.abs(probe) ** 2).sum())
    waves = [
        np.fft.fft2(np.fft.ifftshift(probe * field[y : y + n, x : x + n]), norm="ortho")
        for y, x in places
    ]
    frames = random.poisson(np.fft.fftshift(np.abs(waves) ** 2, axes=(-2, -1)))
    return Dataset(patterns=frames, positions=places.astype(float)), field, probe


def texts(result, far=True):
    return [doubt.text for doubt in doubts(result, far)]


def result_of(object, probe, positions):
    """What a run that ended with these would hand back."""
    probe = np.asarray(probe, np.complex64)
    return Result(
        object=np.asarray(object, np.complex64),
        probe=probe[None],
        errors=np.zeros(1, np.float32),
        final_error=0.1,
        positions=np.asarray(positions, float) + probe.shape[-1] // 2,
        engine="rpie",
        passes=1,
    )


@pytest.mark.parametrize("way", ["jittered", "raster", "crystal", "few counts", "focused"])
def test_nothing_is_said_of_good_ones(way):
    """Reconstructions from the right probe: uneven and even steps, an object that is a lattice
    itself, noise, a small beam.
    """

    def lattice(y, x):
        return np.exp(0.6j * (np.cos(2 * np.pi * y / 7.3) + np.cos(2 * np.pi * x / 7.3)))

    data, _, probe = {
        "jittered": lambda: scan(),
        "raster": lambda: scan(step=6, jitter=0),
        "crystal": lambda: scan(objects=lattice),
        "few counts": lambda: scan(counts=2000),
        "focused": lambda: scan(step=3, radius=5, jitter=1),
    }[way]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", PtychonWarning)
        result = reconstruct(data, "rpie", passes=10, probe=probe, backend="reference")
    assert texts(result) == []


def test_a_probe_at_the_rim_of_its_window():
    data, field, probe = scan()
    moved = result_of(field, np.fft.fftshift(probe), data.positions)
    (doubt,) = doubts(moved)
    assert doubt.level == "bad"
    assert (
        "of the probe's power lies in the outermost 5 % of its window (18% for an even beam)"
        in doubt.text
    )
    # a beam that fills the window evenly is cut off in the far field, and usual in the near field
    even = result_of(field, np.ones((64, 64)), data.positions)
    assert at_rim(even.probe) == pytest.approx((0.179, 0.179), abs=1e-3)  # 1 - (58/64)^2
    assert [doubt.level for doubt in doubts(even)] == ["care"]
    assert doubts(even, far=False) == []


def test_a_probe_that_is_a_lattice_of_spots():
    data, field, _ = scan()
    y = np.arange(64) - 32
    spots = np.exp(-(((y + 4) % 8 - 4) ** 2) / 3)
    (text,) = texts(
        result_of(
            field, np.where(np.hypot(y[:, None], y) < 26, np.outer(spots, spots), 0), data.positions
        )
    )
    assert "repeats itself every 8 px" in text or "window" in text
    # rings and speckle repeat nothing
    r = np.hypot(y[:, None], y)
    rings = np.exp(-((r / 16) ** 2)) * np.cos(r / 2)
    noise = np.random.default_rng(0).standard_normal((2, 64, 64))
    kept = np.exp(-((np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)) * 12) ** 2))
    speckle = np.fft.ifft2(np.fft.fft2(noise[0] + 1j * noise[1]) * kept) * np.exp(-((r / 14) ** 4))
    for probe in (rings, speckle):
        assert texts(result_of(field, probe, data.positions)) == []


def test_steps_wider_than_the_beam():
    data, field, _ = scan(step=12)
    (text,) = texts(result_of(field, disc(64, 4), data.positions))
    assert text.startswith("the step of 11")
    assert f"exceeds the probe's width of {width(disc(64, 4)[None]):.3g} px" in text
    assert width(disc(64, 12)[None]) == pytest.approx(24, rel=0.05)


def test_the_grid_of_the_scan_in_the_object():
    data, field, probe = scan(step=6, jitter=0)
    y, x = np.indices(field.shape)
    for strength, level in ((0.3, ["bad"]), (0.05, ["care"]), (0.0, [])):
        comb = 1 + strength * (np.cos(2 * np.pi * y / 6) + np.cos(2 * np.pi * x / 6))
        # a ramp of the phase is free, and does not hide it
        made = result_of(comb * field * np.exp(0.2j * x), probe, data.positions)
        found = doubts(made)
        assert [doubt.level for doubt in found] == level, (strength, grid_power(made))
        assert all("spatial frequencies of the scan's own grid" in doubt.text for doubt in found)
        assert all("add --constraint grid_notch" in doubt.text for doubt in found)


def test_a_far_too_small_first_probe_ends_in_a_lattice():
    """A raster, blind, from a disc of a third of the beam: R falls, and the object is a lattice of
    spots.
    """
    data, _, _ = scan(step=10, jitter=0, rows=7)
    with pytest.warns(PtychonWarning, match="the scan's own grid") as caught:
        result = reconstruct(data, "rpie", passes=25, probe=disc(64, 3.5), backend="reference")
    assert len(caught) <= 2
    assert result.final_error < residual_without_object(Problem.from_dataset(data), result.probe)


def test_no_better_than_without_an_object():
    data, _, probe = scan(counts=1e5)
    problem = Problem.from_dataset(data)
    # by hand: the least squares of a constant behind the same probe
    model = np.abs(np.fft.fft2(np.fft.ifftshift(probe), norm="ortho"))
    y = problem.amplitude.astype(float)
    c = (model * y).sum() / (len(y) * (model**2).sum())
    expected = np.sqrt(((c * model - y) ** 2).sum() / (y**2).sum())
    assert residual_without_object(problem, probe) == pytest.approx(expected, rel=1e-5)
    doubt = no_better(expected, expected, 0.05)
    assert doubt is not None
    assert (
        f"R is {expected:.4f} and the same probe without any object gives {expected:.4f}"
        in doubt.text
    )
    assert no_better(0.9 * expected, expected, 0.05) is None
    assert (
        no_better(expected, expected, expected) is None
    )  # nothing but noise is there to be explained
    mixed = replace(data, positions=np.random.default_rng(1).permutation(data.positions))
    with pytest.warns(PtychonWarning, match="the same probe without any object gives"):
        reconstruct(mixed, "pie", passes=2, probe=probe, backend="reference", object_step=1e-3)
