"""The search for a first probe where none is given."""

from __future__ import annotations

import numpy as np
import pytest

from _problems import make_case
from ptychon import Problem, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated
from ptychon.run.first_probe import COST, ENOUGH, FRAMES, Ground, disc, find_probe, middle
from ptychon.run.guess import focused, initial_probe, mean_power, scaled_probe
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import beam_stop, simulate

CPU = get_backend("numpy")


def scanned(overlap=0.7, side=5, mask=None, light=None, seed=0, **options):
    """A jittered raster with a disc of 43 px, the frames being 48 px."""
    step = round((1 - overlap) * 43.2)
    size = (side - 1) * step + 58
    parts = phantoms.texture((size, size), 2 * seed + 1), phantoms.texture((size, size), 2 * seed + 2)
    sample = phantoms.complex_object(*parts, amplitude_range=(0.1, 1.0), phase_range=(0.0, np.pi / 2))
    light = probes.circular_aperture((48, 48), 21.6) if light is None else light
    where = scan.raster(side, step, jitter=2, seed=seed)
    return simulate(sample, light, where, mask=mask, subpixel=False, seed=seed, noise="poisson", mean_counts=1e5, **options)


def decibels(made, problem, result):
    lit = illuminated(problem, made.probe)
    estimate = align(result.object, made.object, region=lit, max_shift=8, subpixel=True).estimate
    return -20 * np.log10(np.linalg.norm((estimate - made.object)[lit]) / np.linalg.norm(made.object[lit]))


@pytest.mark.parametrize("seed", [0, 1])
def test_little_overlap_from_the_data_alone(seed):
    """70 % overlap and an unknown probe: lost from the root of the mean frame, found by the search."""
    made = scanned(seed=seed)
    problem = Problem.from_dataset(made.dataset)
    plain = reconstruct(problem, "rpie", epochs=60, probe=initial_probe(problem, CPU), backend="numpy")
    assert decibels(made, problem, plain) < 11
    assert decibels(made, problem, reconstruct(problem, "rpie", epochs=60, backend="numpy")) > 17


def test_behind_a_beam_stop_from_the_data_alone():
    made = scanned(0.8, 8, mask=beam_stop((48, 48), 3.0, 1.0))
    problem = Problem.from_dataset(made.dataset)
    plain = reconstruct(problem, "dm", epochs=100, finish=0, probe=initial_probe(problem, CPU), backend="numpy")
    assert decibels(made, problem, plain) < 10
    assert decibels(made, problem, reconstruct(problem, "dm", epochs=100, finish=0, backend="numpy")) > 17


def test_size_of_a_disc_is_found():
    """Half the area inside and outside: the diameter within 4 % of 43 px, with the power of a frame."""
    problem = Problem.from_dataset(scanned().dataset)
    found = find_probe(problem, CPU)
    area = (np.abs(found) > np.abs(found).max() / 2).sum()
    assert 2 * np.sqrt(area / np.pi) == pytest.approx(43.2, rel=0.04)
    assert (np.abs(found) ** 2).sum() == pytest.approx(mean_power(problem), rel=1e-5)
    assert found.shape == (1, 48, 48)
    assert found.dtype == np.complex64
    assert np.array_equal(found, find_probe(problem, CPU))


def test_the_other_side_of_the_focus_is_tried():
    """A beam that is defocused the other way than the plain candidate: what is found explains the frames better."""
    far = np.conj(probes.defocused_aperture((48, 48), 12, 30.0))
    problem = Problem.from_dataset(scanned(0.9, 12, light=far).dataset)
    part, plain = middle(problem), initial_probe(problem, CPU)
    ways = [remainder(part, focused(problem, 1.0, sign)) for sign in (1, -1)]
    assert remainder(part, find_probe(problem, CPU)) <= min(ways)
    assert min(ways) < max(ways)
    assert np.allclose(plain, focused(problem))


def test_few_frames_and_the_near_field_keep_the_plain_probe():
    few = Problem.from_dataset(scanned(side=2).dataset)
    assert len(few) < ENOUGH
    near = make_case(near=True).problem
    assert len(near) >= ENOUGH
    for problem in (few, near):
        assert np.array_equal(find_probe(problem, CPU), initial_probe(problem, CPU))


def test_middle_of_a_large_scan():
    """Neighbouring frames only, on an object that their windows just fill; the frames themselves are the same."""
    problem = Problem.from_dataset(scanned(0.8, 12).dataset)
    part = middle(problem)
    assert len(part) == FRAMES < len(problem)
    assert (part.corners.min(axis=0) == 0).all()
    assert tuple((part.corners.max(axis=0) + 48).tolist()) == part.object_shape
    shift = np.median(problem.corners, axis=0) - np.median(part.corners, axis=0)
    chosen = [np.flatnonzero((problem.amplitude == frame).all(axis=(1, 2)))[0] for frame in part.amplitude]
    moved = problem.corners[chosen] - part.corners
    assert (moved == moved[0]).all()
    assert np.abs(moved[0] - shift).max() < 6


def test_a_probe_that_fails_is_not_chosen():
    """What diverges leaves infinitely much over."""
    problem = middle(Problem.from_dataset(scanned().dataset))
    bad = scaled_probe(disc((48, 48), 20.0), 1.0)
    bad[0, 24, 24] = np.nan
    assert remainder(problem, bad) == np.inf
    assert remainder(problem, disc((48, 48), 43.2)) < remainder(problem, disc((48, 48), 30.0))
