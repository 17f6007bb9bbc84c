"""Two half-scans and the resolution at which they agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import PtychonError, Stage
from ptychon.checks.half_scans import agreement, belongs, half_scans, interval, split, tagged
from ptychon.model.problem import Problem


@pytest.fixture(scope="module")
def halves():
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    shape = (120, 120)
    truth = phantoms.complex_object(
        phantoms.cell(shape), phantoms.siemens_star(shape), phase_range=(0.0, 1.0)
    )
    probe = probes.defocused_aperture((32, 32), radius=7, defocus=8)
    made = simulate(
        truth,
        probe,
        raster(14, 4, jitter=1, whole=False),
        noise="poisson",
        mean_counts=1e6,
        pixel_size=1e-8,
    )
    problem = Problem.from_dataset(made.dataset)
    return half_scans(problem, Stage("rpie", 15), probe=made.probe)


def test_split():
    for n in (4, 9, 100):
        first = split(n)
        assert first.sum() == n // 2
        assert all(first[i] != first[i + 1] for i in range(0, n - n % 2, 2))
    assert (split(100, 1) != split(100, 2)).any()
    with pytest.raises(PtychonError, match="at least 4"):
        split(3)


def test_they_agree(halves):
    found = agreement(*halves)
    assert found.rings.unit == "m"
    assert 2e-8 <= found.rings.resolution < 8e-8
    low, high = found.interval
    assert low <= found.rings.resolution <= high < 2 * low
    assert found.rings.resolution <= found.rings.resolution_one_bit
    assert 0 < found.phase_error < 0.2
    one, two = halves
    assert len(one.positions) + len(two.positions) == 196
    # what cannot be known is taken off: another factor and another ramp change nothing
    y, x = np.indices(two.object.shape)
    turned = replace(
        two, object=(1.7j * two.object * np.exp(0.03j * y - 0.05j * x)).astype(np.complex64)
    )
    assert agreement(one, turned).rings.resolution == pytest.approx(
        found.rings.resolution, rel=0.02
    )


def test_a_translation_between_halves_is_taken_off_in_the_far_field_alone(halves):
    """Two pixels: the data of the near field say where the object is."""
    one, two = halves
    moved = replace(two, object=np.roll(two.object, (2, -1), axis=(0, 1)))
    far, near = agreement(one, moved), agreement(one, moved, near_field=True)
    assert far.rings.resolution == pytest.approx(agreement(*halves).rings.resolution, rel=0.05)
    assert near.alignment.shift == (0.0, 0.0)
    assert near.rings.resolution > 1.5 * far.rings.resolution


def test_noise_does_not(halves):
    random = np.random.default_rng(0)
    shape = halves[0].object.shape
    noise = [
        replace(
            h,
            object=(random.normal(size=shape) + 1j * random.normal(size=shape)).astype(
                np.complex64
            ),
        )
        for h in halves
    ]
    found = agreement(*noise)
    assert found.rings.resolution == np.inf or found.rings.resolution > 2e-7
    with pytest.raises(PtychonError, match="shapes"):
        agreement(halves[0], replace(halves[1], object=np.ones((3, 3), np.complex64)))


def test_the_interval_covers():
    """Rings drawn from a known correlation: the 95 % interval holds the true crossing about as
    often.
    """
    from ptychon.metrics.frc import RingCorrelation, crossing

    frequency = np.arange(1, 41) / 80
    truth = 1 / (1 + (frequency / 0.25) ** 8)
    n = 2 * np.pi * np.arange(1, 41) * 0.5
    threshold = np.full(40, 0.35)
    right = 1 / crossing(frequency, truth, threshold)
    random = np.random.default_rng(3)
    inside = []
    for seed in range(60):
        seen = np.tanh(
            np.arctanh(truth) + random.standard_normal(40) / np.sqrt(np.maximum(n, 4) - 3)
        )
        rings = RingCorrelation(
            frequency=frequency,
            correlation=seen,
            samples=n,
            half_bit=threshold,
            one_bit=threshold,
            resolution=1.0,
            resolution_one_bit=1.0,
            nyquist_limited=False,
            unit="px",
        )
        low, high = interval(rings, threshold, seed)
        inside.append(low <= right <= high)
    assert np.mean(inside) > 0.8


def test_halves_know_their_whole(halves):
    half = tagged(halves[0], 1, halves[1])
    assert belongs(half, halves[1])
    assert not belongs(half, halves[0])
    assert not belongs(halves[0], halves[1])
