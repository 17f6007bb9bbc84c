"""Simulated data: the model Problem inverts, the noise that was promised, the masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychon.model.problem import Problem
from ptychon.model.propagators import NearField
from ptychon.simulation import noise, phantoms, probes, scan
from ptychon.simulation import simulate as module
from ptychon.simulation.simulate import Simulation, bad_pixels, beam_stop, simulate
from ptychon.types import ComplexArray, FloatArray, PtychonError

NEAR = {
    "geometry": "near",
    "wavelength": 1e-10,
    "distance": 0.01,
    "focus_distance": 0.02,
    "detector_pixel_size": 3e-7,
}


def scene(
    shape: tuple[int, int] = (61, 70), frame: tuple[int, int] = (24, 27)
) -> tuple[ComplexArray, ...]:
    amplitude, phase = phantoms.texture(shape, 1), phantoms.cell(shape, 2)
    probe = probes.gaussian(frame, 9.0, 0.01) * 20
    return (
        phantoms.complex_object(amplitude, phase),
        probe,
        scan.fit(scan.fermat_spiral(60, 2.3), shape, frame),
    )


def model(simulation: Simulation, problem: Problem) -> FloatArray:
    """|D[P(r - s) O]| in double precision, written out: ramps, loops, no kernels."""
    p, q = problem.frame_shape
    fy, fx = np.fft.fftfreq(p)[:, None], np.fft.fftfreq(q)[None, :]
    out = np.zeros(problem.amplitude.shape)
    for j, (y, x) in enumerate(problem.corners):
        sy, sx = problem.shifts[problem.shift_index[j]].astype(float)
        for mode in simulation.probe.astype(complex):
            shifted = np.fft.ifft2(np.fft.fft2(mode) * np.exp(-2j * np.pi * (fy * sy + fx * sx)))
            wave = np.fft.fft2(shifted * simulation.object[y : y + p, x : x + q], norm="ortho")
            if isinstance(problem.propagator, NearField):
                # the probe was shifted, the detector was not
                back = np.exp(2j * np.pi * (fy * sy + fx * sx))
                wave = np.fft.ifft2(wave * back * problem.propagator.free, norm="ortho")
            out[j] += np.abs(wave) ** 2
    return np.sqrt(out)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subpixel": False},
        {"pixel_size": (3e-9, 4e-9)},
        {"wavelength": 1e-10, "distance": 1.0, "detector_pixel_size": 75e-6, "mean_counts": 1e5},
        NEAR,
        NEAR | {"subpixel": False, "mean_counts": 1e5},
    ],
)
def test_problem_of_the_data_reproduces_the_model(options: dict[str, Any]) -> None:
    field, probe, positions = scene()
    simulation = simulate(field, probe, positions, **options)
    problem = Problem.from_dataset(simulation.dataset)
    assert problem.object_shape == field.shape
    assert problem.subpixel == options.get("subpixel", True)
    expected = model(simulation, problem)
    np.testing.assert_allclose(problem.amplitude, expected, rtol=1e-5, atol=1e-5 * expected.max())
    # the windows lie where the positions say, to 1/16 px
    centres = (
        problem.corners + np.array(problem.frame_shape) // 2 + problem.shifts[problem.shift_index]
    )
    off = np.abs(centres - np.array(field.shape) // 2 - positions).max()
    assert off <= (1 / 32 if problem.subpixel else 1 / 2) + 1e-6
    assert simulation.dataset.counting is False
    assert simulation.dataset.noise_variance is None
    assert simulation.dataset.patterns.dtype == np.float32
    scale = simulation.dataset.pixel_size or (1.0, 1.0)
    if problem.subpixel:
        np.testing.assert_allclose(simulation.dataset.positions, positions * scale)


def test_incoherent_modes_add() -> None:
    field, probe, positions = scene()
    modes = np.stack([probe, 0.5 * np.roll(probe, 3, axis=0) * 1j])
    simulation = simulate(field, modes, positions, mean_counts=1e4)
    problem = Problem.from_dataset(simulation.dataset)
    np.testing.assert_allclose(problem.amplitude, model(simulation, problem), rtol=1e-5, atol=1e-4)
    each = [simulate(field, m, positions).dataset.patterns for m in simulation.probe]
    np.testing.assert_allclose(simulation.dataset.patterns, each[0] + each[1], rtol=1e-4, atol=1e-3)


def test_patterns_are_centred_in_the_far_field_and_plain_in_the_near_field() -> None:
    field, probe, positions = scene()
    far = simulate(np.ones_like(field), probe, positions)
    assert np.unravel_index(far.dataset.patterns[0].argmax(), (24, 27)) == (12, 13)
    near = simulate(np.ones_like(field), probe, np.zeros((2, 2)), **(NEAR | {"distance": 1e-9}))
    np.testing.assert_allclose(near.dataset.patterns[0], np.abs(probe) ** 2, atol=1e-2)


def test_blocks_do_not_change_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    field, probe, positions = scene()
    options: dict[str, Any] = {"noise": "poisson", "mean_counts": 1e4, "seed": 3}
    whole = simulate(field, probe, positions, **options)
    for where in (module, noise):
        monkeypatch.setattr(where, "BLOCK_BYTES", 1)
    small = simulate(field, probe, positions, **options)
    np.testing.assert_array_equal(whole.dataset.patterns, small.dataset.patterns)
    assert [s.stop - s.start for s in noise.blocks(7, 2)] == [2, 2, 3]


def test_arrays_of_the_caller_stay_and_results_are_copies() -> None:
    field, probe, positions = scene()
    before = [a.copy() for a in (field, probe, positions)]
    simulation = simulate(field, probe, positions, noise="poisson", mean_counts=1e3)
    simulation.object[...] = 0
    simulation.probe[...] = 0
    for now, then in zip((field, probe, positions), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_gaussian_noise_is_on_the_amplitude() -> None:
    field, probe, positions = scene()
    clean = simulate(field, probe * 100, positions).dataset.patterns
    noisy = simulate(field, probe * 100, positions, noise="gaussian", variance=4.0, seed=5).dataset
    assert noisy.noise_variance == 4.0
    assert noisy.counting is False
    bright = clean > 40**2
    error = (np.sqrt(noisy.patterns) - np.sqrt(clean))[bright]
    assert bright.sum() > 2000
    assert error.mean() == pytest.approx(0, abs=5 * 2 / np.sqrt(bright.sum()))
    assert error.var() == pytest.approx(4.0, rel=5 * np.sqrt(2 / bright.sum()))
    # clipped at zero: where there is no light, half the amplitudes are exactly 0
    dark = simulate(field, probe, positions, noise="gaussian", variance=1e8).dataset.patterns
    assert np.mean(dark == 0) == pytest.approx(0.5, abs=0.02)


def test_snr_sets_the_variance_over_valid_pixels() -> None:
    field, probe, positions = scene()
    mask = beam_stop((24, 27), 2.0)
    simulation = simulate(field, probe, positions, noise="gaussian", snr_db=20, mask=mask)
    clean = simulate(field, probe, positions).dataset.patterns[:, mask]
    assert simulation.dataset.noise_variance == pytest.approx(
        clean.mean(dtype=float) / 100, rel=1e-5
    )


def test_poisson_noise() -> None:
    field, probe, positions = scene()
    simulation = simulate(field, probe, positions, noise="poisson", mean_counts=2e4, seed=1)
    counts = simulation.dataset.patterns
    assert counts.dtype == np.uint16
    assert simulation.dataset.counting is True
    total = float(counts.sum())
    assert total / len(counts) == pytest.approx(2e4, abs=5 * np.sqrt(2e4 / len(counts)))
    # the probe that comes back explains the counts: chi^2 per pixel is 1
    expected = simulate(field, simulation.probe, positions).dataset.patterns.astype(float)
    assert expected.sum() / len(counts) == pytest.approx(2e4, rel=1e-5)
    lit = expected > 5
    chi = ((counts - expected) ** 2 / np.maximum(expected, 1e-9))[lit]
    assert chi.mean() == pytest.approx(1, abs=6 * np.sqrt(2.2 / lit.sum()))
    assert (
        simulate(field, probe, positions, noise="poisson", mean_counts=1e8).dataset.patterns.dtype
        == np.uint32
    )
    with pytest.raises(PtychonError, match="lower mean_counts"):
        simulate(field, probe, positions, noise="poisson", mean_counts=1e13)


@pytest.mark.parametrize(
    "noise", [{"noise": "gaussian", "variance": 1.0}, {"noise": "poisson", "mean_counts": 1e4}]
)
def test_seeds(noise: dict[str, Any]) -> None:
    first, again, other = (simulate(*scene(), **noise, seed=s).dataset.patterns for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize(
    "noise", [{}, {"noise": "gaussian", "variance": 1.0}, {"noise": "poisson", "mean_counts": 1e6}]
)
def test_masked_pixels_are_zero(noise: dict[str, Any]) -> None:
    field, probe, positions = scene()
    mask = beam_stop((24, 27), 3.0, 2.0) & bad_pixels((24, 27), 0.1, 4)
    for given in (mask, np.stack([np.roll(mask, j, axis=1) for j in range(len(positions))])):
        data = simulate(field, probe, positions, mask=given, **noise).dataset
        full = np.broadcast_to(given, data.patterns.shape)
        assert not data.patterns[~full].any()
        assert np.mean(data.patterns[full] > 0) > 0.3
        np.testing.assert_array_equal(data.mask, given)
    # a beam stop does not change what reaches the detector elsewhere
    free = simulate(
        field, probe, positions, **{k: v for k, v in noise.items() if k == "mean_counts"}
    ).dataset.patterns
    if "variance" not in noise:
        light = free[full].sum(dtype=float)
        assert data.patterns[full].sum(dtype=float) == pytest.approx(
            light, rel=5 / np.sqrt(light) + 1e-6
        )


def test_mask_shapes() -> None:
    stop = beam_stop((9, 12), 2.0, 1.5)
    assert not stop[4, 6]
    assert not stop[8, 6]
    assert not stop[4, 8]
    assert stop[4, 9]
    assert stop[0, 6]
    assert stop[8, 7]
    assert (~stop).sum() == 13 + 2
    assert beam_stop((9, 12), 0.0).sum() == 107
    dead = bad_pixels((20, 30), 0.05, 1)
    assert (~dead).sum() == 30
    np.testing.assert_array_equal(dead, bad_pixels((20, 30), 0.05, 1))
    assert np.any(dead != bad_pixels((20, 30), 0.05, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "gaussian"}, "either variance or snr_db"),
        ({"noise": "gaussian", "variance": 1.0, "snr_db": 30.0}, "either variance or snr_db"),
        ({"snr_db": 30.0}, "belong to Gaussian"),
        ({"noise": "poisson", "mean_counts": -1.0}, "mean_counts is -1"),
        ({"noise": "pink"}, "'pink'"),
        ({"positions": np.full((3, 2), 99.0)}, "3 of 3 positions .*first: position 0"),
        ({"positions": np.zeros((1, 2))}, "at least 2"),
        ({"positions": np.array([[0, 0], [0, np.nan]])}, "not finite"),
        ({"probe": np.ones((80, 24))}, "larger than the object"),
        ({"probe": np.ones(24)}, "probe has shape"),
        ({"object": np.full((61, 70), np.nan)}, "not finite"),
        ({"probe": np.zeros((24, 27)), "mean_counts": 1.0}, "no light"),
        ({"mask": np.ones((5, 5), bool)}, "mask has shape"),
        ({"geometry": "near"}, "near-field data need wavelength"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    field, probe, positions = scene()
    with pytest.raises(PtychonError, match=message):
        simulate(**({"object": field, "probe": probe, "positions": positions} | change))


def test_bad_masks() -> None:
    with pytest.raises(PtychonError, match="covers the whole frame"):
        beam_stop((8, 8), 99.0)
    with pytest.raises(PtychonError, match="fraction"):
        bad_pixels((8, 8), 1.0)
