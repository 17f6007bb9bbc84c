"""Detectors whose pixels share light: a blur, and pixels that are coarser than the wave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, reconstruct
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated
from ptychon.model.spread import binning, blur, cells, fitted, spread_of
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty import laplace

SIDE = 32


def scene(width=None, side=SIDE, radius=4.5, step=3, seed=2):
    """36 frames, 1e5 counts each, of a phase object."""
    places = scan.raster(6, step=step, jitter=0.8, whole=False, seed=seed)
    size = int(np.ptp(places, axis=0).max()) + side + 8
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 3), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((side, side), radius=radius, defocus=5)
    how = {"noise": "poisson", "mean_counts": 1e5, "seed": seed}
    return simulate(truth, beam, places, blur=width, **how)


def run(data, engine, passes, **more):
    more = {"backend": "numpy", "judge": False, **more}
    return reconstruct(data, engine, passes=passes, say=None, **more)


def error(result, made, problem):
    lit = illuminated(problem, made.probe, 0.3)
    return 10 ** (-align(result.object, made.object, region=lit, subpixel=True).error_db / 20)


def test_a_blur_is_cured():
    """1 px: R within 5 % of that without a blur with `ml`; and what it costs not to."""
    sharp, blurred = scene(), scene(1.0)
    assert blurred.dataset.blur == 1.0
    untold = replace(blurred.dataset, blur=None)
    first = probes.defocused_aperture((SIDE, SIDE), radius=4.5, defocus=5.5)
    problem = Problem.from_dataset(blurred.dataset)
    floor = run(run_of(sharp), "ml", 5, probe=first)
    cured = run(problem, "ml", 5, probe=first)
    not_cured = run(Problem.from_dataset(untold), "ml", 5, probe=first)
    assert cured.final_error < 1.05 * floor.final_error
    assert not_cured.final_error > 1.2 * cured.final_error
    assert error(cured, blurred, problem) < 0.7 * error(not_cured, blurred, problem)
    told = run(problem, "rpie", 30, probe=first)
    left = run(Problem.from_dataset(untold), "rpie", 30, probe=first)
    assert told.final_error == pytest.approx(float(told.errors[-1]), rel=0.05)
    assert told.final_error < 0.8 * left.final_error
    assert error(told, blurred, problem) < 0.8 * error(left, blurred, problem)


def run_of(made):
    return Problem.from_dataset(made.dataset)


def test_the_difference_map_takes_it_and_others_refuse_it():
    made = scene(1.0)
    problem = run_of(made)
    assert run(problem, "dm", 8, probe=made.probe).final_error < 0.4
    with pytest.raises(PtychonError, match=r"pixels that share light.*these do: .*rpie.*ml"):
        run(problem, "ep", 2, probe=made.probe)
    result = run(problem, "rpie", 2, probe=made.probe)
    with pytest.raises(PtychonError, match="error bars know of no light"):
        laplace(problem, result.object, result.probe)


def test_a_finer_grid_holds_a_probe_that_is_larger_than_the_window():
    """Frames of 16 x 16 are sums of 2 x 2 pixels of a wave of 32 x 32, whose probe is wider than 16
    pixels: no probe of 16 x 16 explains them.
    """
    made = scene(side=32, radius=7, step=2.5)
    coarse = binning((32, 32), 2)
    wave = np.fft.ifftshift(made.dataset.patterns.astype(float), axes=(1, 2))
    patterns = np.fft.fftshift(coarse.forward(wave), axes=(1, 2)).astype(np.float32)
    data = Dataset(patterns=patterns, positions=made.dataset.positions)
    fine = prepare(data, Preparation(upsample=2))
    assert (fine.frame_shape, fine.upsample) == ((32, 32), 2)
    assert fine.mask.sum() == 256
    problem = Problem.from_dataset(fine)
    # the light that each pixel expects is the sum that was measured
    light = problem.spread.forward(wave)
    np.testing.assert_allclose(
        light[:, problem.mask[0]], problem.amplitude[:, problem.mask[0]] ** 2, rtol=1e-4
    )
    found = run(problem, "rpie", 60, probe=made.probe)
    plain = run(data, "rpie", 60)
    assert found.object.shape >= made.object.shape or found.object.ndim == 2
    assert found.final_error < 0.5 * plain.final_error
    with pytest.raises(PtychonError, match="done already"):
        prepare(fine, Preparation(upsample=2))


def test_cells_are_bins_between_which_nothing_is_left_out():
    rng = np.random.default_rng(0)
    image = rng.random((2, 12, 9))
    all_ = cells((12, 9), 3).forward(image)
    np.testing.assert_allclose(all_[:, ::3, ::3], binning((12, 9), 3).forward(image))
    both = spread_of((12, 9), 0.5, 3).forward(image)
    np.testing.assert_allclose(both, cells((12, 9), 3).forward(blur((12, 9), 1.5).forward(image)))
    assert spread_of((12, 9), None, 1) is None


def test_a_step_towards_the_counts_lowers_the_cost_and_leaves_what_fits():
    rng = np.random.default_rng(1)
    spread, mask = blur((8, 6), 1.0), rng.random((1, 8, 6)) > 0.2
    wave = (rng.standard_normal((3, 2, 8, 6)) + 1j * rng.standard_normal((3, 2, 8, 6))).astype(
        np.complex64
    )
    light = spread.forward((np.abs(wave) ** 2).sum(axis=1))
    same, none = fitted(wave, spread, np.sqrt(light), mask, np)
    np.testing.assert_allclose(same, wave, rtol=1e-4)
    assert none.max() < 1e-8
    counts = rng.poisson(5 * light)
    y, cost = np.sqrt(counts).astype(np.float32), []
    for _ in range(6):
        expected = spread.forward((np.abs(wave) ** 2).sum(axis=1))
        cost.append(float((mask * (expected - counts * np.log(expected))).sum()))
        wave, _ = fitted(wave, spread, y, mask, np)
    assert (np.diff(cost) < 0).all()


def test_nothing_changes_without_it():
    made = scene()
    assert made.dataset.blur is None
    assert run_of(made).spread is None
