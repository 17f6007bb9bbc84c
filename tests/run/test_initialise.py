"""First guesses from the data alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import make_case
from ptychon import Problem, PtychonError
from ptychon.backends import get_backend
from ptychon.metrics import residual as metrics
from ptychon.run.guess import SPREAD, initial_object, initial_probe, mean_power, scaled_probe
from ptychon.run.reconstruct import reconstruct
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

CPU = get_backend("reference")


def width(wave):
    """As the rms diameter of a disc: sqrt(2/pi) times the root of the area (sum I)^2/sum I^2."""
    intensity = np.abs(wave[0]) ** 2
    return np.sqrt(2 / np.pi * intensity.sum() ** 2 / (intensity**2).sum())


def scanned(step, geometry="far", **options):
    truth = phantoms.complex_object(
        phantoms.texture((96, 96), 1), phantoms.cell((96, 96), 2), amplitude_range=(0.9, 1)
    )
    probe = probes.defocused_aperture((48, 48), 12, 30.0)
    positions = scan.fit(scan.fermat_spiral(300, step), (96, 96), (48, 48))
    return simulate(truth, probe, positions, geometry=geometry, **options)


def test_power_is_that_of_valid_pixels():
    case = make_case(masks="each")
    expected = (case.problem.amplitude.astype(float) ** 2).sum() / len(case.problem)
    assert mean_power(case.problem) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("modes", [1, 2])
def test_scaling_keeps_the_shape(modes):
    case = make_case(modes=modes)
    scaled = scaled_probe(case.probe, 1234.5)
    assert (np.abs(scaled) ** 2).sum() == pytest.approx(1234.5, rel=1e-5)
    assert np.ptp(np.abs(scaled / case.probe)) < 1e-5 * np.abs(scaled / case.probe).max()
    assert scaled.dtype == np.complex64


def test_constant_object_predicts_the_total_intensity():
    """|O|^2 = mean counts of a frame/||P||^2, whatever the probe's scale."""
    simulation = scanned(4.0)
    problem = Problem.from_dataset(simulation.dataset)
    power = mean_power(problem)
    for factor in (1, 0.01):
        probe = simulation.probe * factor
        first = initial_object(problem, probe, power)
        assert first.shape == problem.object_shape
        assert first.dtype == np.complex64
        assert np.ptp(first.real) == 0
        assert np.abs(first[0, 0]) ** 2 * (np.abs(probe) ** 2).sum() == pytest.approx(
            power, rel=1e-5
        )


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0])
def test_far_field_probe_has_the_mean_pattern_and_overlaps(step):
    """Its far field is the root of the mean frame; it is defocused until it is three scan steps
    wide.
    """
    problem = Problem.from_dataset(scanned(step).dataset)
    probe = initial_probe(problem, CPU)
    assert probe.shape == (1, 48, 48)
    assert (np.abs(probe) ** 2).sum() == pytest.approx(mean_power(problem), rel=1e-5)
    root = np.sqrt((problem.amplitude**2).mean(axis=0))
    assert np.allclose(np.abs(np.fft.fft2(probe[0], norm="ortho")), root, atol=1e-3 * root.max())
    focused = np.fft.fftshift(np.fft.ifft2(root))[None]
    spiral = 1.68 * step  # distance of nearest neighbours
    assert width(probe) == pytest.approx(max(min(SPREAD * spiral, 16), width(focused)), rel=0.1)


def test_near_field_probe_is_the_mean_image_propagated_back():
    setting = {"wavelength": 1e-10, "distance": 8e-4, "pixel_size": 1e-7}
    problem = Problem.from_dataset(scanned(4.0, "near", **setting).dataset)
    probe = initial_probe(problem, CPU)
    image = problem.propagator.forward(probe, None, CPU)[0]
    root = np.sqrt((problem.amplitude**2).mean(axis=0))
    assert np.allclose(image, root, atol=1e-3 * root.max())


def test_a_first_guess_is_a_start():
    """From nothing but the data: rPIE finds a weak object and a defocused probe."""
    simulation = scanned(3.0)
    problem = Problem.from_dataset(simulation.dataset)
    first = initial_object(problem, initial_probe(problem, CPU), mean_power(problem))
    assert metrics.residual(problem, first, initial_probe(problem, CPU)) < 0.8
    result = reconstruct(simulation.dataset, "rpie", passes=40, backend="numpy")
    assert result.final_error < 0.05


def test_no_light_is_an_error():
    case = make_case()
    dark = replace(case.problem, amplitude=0 * case.problem.amplitude)
    with pytest.raises(PtychonError, match="zero"):
        initial_probe(dark, CPU)
