"""Data sets and problems: where windows lie, what amplitudes are, and one sentence for every bad
input.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, PtychonWarning
from ptychon.metrics import residual as metrics
from ptychon.model.problem import SHIFTS_PER_PIXEL
from ptychon.simulation import phantoms, probes
from ptychon.simulation.simulate import simulate

N, P, Q = 6, 8, 10
HALF, FAR = np.array([P // 2, Q // 2]), np.array([1000, -77])
POSITIONS = np.array([[0, 0], [3, 1], [5, -4], [-2, 6], [1, 1], [4, 4]], float)


def patterns(seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).poisson(20, (N, P, Q)).astype(dtype)


def dataset(**changes):
    return Dataset(**({"patterns": patterns(), "positions": POSITIONS} | changes))


# ---------------------------------------------------------------- placing


@pytest.mark.parametrize("shape", [(8, 10), (9, 7), (8, 8)])
def test_corner_is_the_rounded_centre_less_half_a_frame(shape):
    """On a given grid positions count from its centre pixel [H//2, W//2]; odd and even
    sizes alike.
    """
    data = Dataset(
        patterns=np.ones((N, *shape)),
        positions=POSITIONS + np.array([0.3, -0.2]),
        object_shape=(41, 40),
    )
    problem = Problem.from_dataset(data)
    expected = np.rint(POSITIONS + np.array([0.3, -0.2])) + 20 - np.array(shape) // 2
    assert np.array_equal(problem.corners, expected)
    assert problem.object_shape == (41, 40)
    assert problem.origin == (-20, -20)


def test_smallest_grid_without_a_shape():
    """Just holds every window, and whole-pixel scans stay whole wherever they begin."""
    problem = Problem.from_dataset(dataset(positions=POSITIONS + FAR))
    assert problem.corners.min(axis=0).tolist() == [0, 0]
    assert np.array_equal(problem.corners.max(axis=0) + np.array((P, Q)), problem.object_shape)
    assert not problem.subpixel
    assert np.array_equal(problem.corners - problem.corners[0], POSITIONS - POSITIONS[0])
    # position of object pixel [0, 0] + centre of a window = position of the probe
    centres = problem.corners + HALF + np.array(problem.origin)
    assert np.allclose(centres, POSITIONS + FAR)


def test_fractions_are_kept_to_a_sixteenth():
    rng = np.random.default_rng(1)
    positions = POSITIONS + rng.uniform(0, 1, POSITIONS.shape)
    problem = Problem.from_dataset(dataset(positions=positions))
    shifts = problem.shifts[problem.shift_index]
    assert np.abs(shifts).max() <= 0.5
    assert np.array_equal(shifts * SHIFTS_PER_PIXEL, np.rint(shifts * SHIFTS_PER_PIXEL))
    centres = problem.corners + HALF + np.array(problem.origin) + shifts
    assert np.abs(centres - positions).max() <= 0.5 / SHIFTS_PER_PIXEL + 1e-6
    assert len(np.unique(problem.shifts, axis=0)) == len(problem.shifts)
    rounded = Problem.from_dataset(dataset(positions=positions), subpixel=False)
    assert not rounded.subpixel
    assert np.array_equal(rounded.corners, problem.corners)


def test_positions_in_metres():
    """Divided by the pixel of the object, rows and columns each by their own."""
    scale = np.array([2e-9, 3e-9])
    a = Problem.from_dataset(dataset())
    b = Problem.from_dataset(dataset(positions=POSITIONS * scale, pixel_size=tuple(scale)))
    assert np.array_equal(a.corners, b.corners)
    assert b.origin == pytest.approx(np.array(a.origin) * scale)
    assert b.pixel_size == (2e-9, 3e-9)


def test_pixel_size_of_the_object_is_derived():
    """Far field: wavelength times distance over the width of the detector. Near field: detector
    pixel over magnification.
    """
    far = dataset(wavelength=1e-10, distance=2.0, detector_pixel_size=(50e-6, 75e-6))
    assert far.pixel_size == pytest.approx((1e-10 * 2 / (P * 50e-6), 1e-10 * 2 / (Q * 75e-6)))
    near = dataset(
        wavelength=1e-10,
        distance=1.12,
        detector_pixel_size=55e-6,
        geometry="near",
        focus_distance=3.65e-3,
    )
    assert near.magnification == pytest.approx(307.849, rel=1e-5)
    assert near.pixel_size == pytest.approx((178.66e-9,) * 2, rel=1e-4)
    assert dataset(wavelength=1e-10).pixel_size is None
    assert dataset(
        pixel_size=1e-9, wavelength=1e-10, distance=2.0, detector_pixel_size=5e-5
    ).pixel_size == (1e-9, 1e-9)


@pytest.mark.parametrize("subpixel", [False, True])
def test_the_model_is_the_simulated_one(subpixel):
    """Data without noise fit the truth to rounding: windows, fractions, propagator and order of the
    amplitudes all agree.
    """
    truth = phantoms.complex_object(phantoms.texture((48, 44), 1), phantoms.cell((48, 44), 2))
    probe = probes.structured((16, 14), 10, 3, seed=2)
    positions = np.random.default_rng(0).uniform(-12, 12, (20, 2))
    physical = {"wavelength": 1e-10, "distance": 1e-3, "pixel_size": 1e-7}
    for options in ({}, {"geometry": "near", **physical}):
        s = simulate(truth, probe, positions, subpixel=subpixel, **options)
        assert metrics.residual(Problem.from_dataset(s.dataset), s.object, s.probe) < 2e-6
    moved = replace(s.dataset, positions=s.dataset.positions + 1e-7)
    assert metrics.residual(Problem.from_dataset(moved), s.object, s.probe) > 0.1


# ---------------------------------------------------------------- amplitudes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
def test_amplitudes_are_roots_with_zero_frequency_first(dtype):
    data = dataset(patterns=patterns(dtype=dtype))
    problem = Problem.from_dataset(data)
    assert problem.amplitude.dtype == np.float32
    assert np.allclose(
        problem.amplitude,
        np.fft.ifftshift(np.sqrt(data.patterns.astype(float)), axes=(1, 2)),
        rtol=1e-6,
    )
    assert problem.amplitude[2, 0, 0] == np.float32(
        np.sqrt(float(data.patterns[2, P // 2, Q // 2]))
    )


def test_zero_frequency_of_odd_frames():
    """[P//2, Q//2] goes to [0, 0], for odd sizes too, in amplitudes and masks."""
    frames, mask = np.zeros((2, 7, 9)), np.ones((7, 9), bool)
    frames[:, 3, 4] = 4
    mask[3, 5] = False
    problem = Problem.from_dataset(Dataset(patterns=frames, positions=np.zeros((2, 2)), mask=mask))
    assert (problem.amplitude[:, 0, 0] == 2).all()
    assert problem.amplitude.sum() == 4
    assert not problem.mask[0, 0, 1]
    assert (~problem.mask).sum() == 1


def test_near_field_frames_are_images_and_stay():
    setting = {"wavelength": 1e-10, "distance": 0.01, "pixel_size": 1e-7}
    problem = Problem.from_dataset(dataset(positions=POSITIONS * 1e-7, geometry="near", **setting))
    assert np.allclose(problem.amplitude, np.sqrt(patterns()), rtol=1e-6)
    assert np.allclose(np.abs(problem.propagator.transfer), 1, atol=1e-6)


def test_masks_follow_the_frames():
    """Shared or one a frame, shifted with the amplitudes; what they hide is zero, NaN and negative
    counts included.
    """
    rng = np.random.default_rng(3)
    for mask in (rng.random((P, Q)) > 0.3, rng.random((N, P, Q)) > 0.3):
        rubbish = np.where(
            np.broadcast_to(mask, (N, P, Q)),
            patterns().astype(float),
            rng.choice([np.nan, -5, np.inf], (N, P, Q)),
        )
        problem = Problem.from_dataset(dataset(patterns=rubbish, mask=mask))
        shifted = np.fft.ifftshift(mask, axes=(-2, -1)).reshape(-1, P, Q)
        assert np.array_equal(problem.mask, shifted)
        assert not problem.amplitude[np.broadcast_to(~shifted, (N, P, Q))].any()
        expected = np.fft.ifftshift(np.sqrt(patterns()), axes=(1, 2))
        assert np.allclose(np.where(shifted, problem.amplitude - expected, 0), 0, atol=1e-5)
        assert np.array_equal(
            np.broadcast_to(problem.mask_of([1, 4]), (2, P, Q)),
            np.broadcast_to(shifted, (N, P, Q))[[1, 4]],
        )


def test_noise_that_is_known():
    assert Problem.from_dataset(dataset()).counting
    known = Problem.from_dataset(dataset(counting=False, noise_variance=0.5))
    assert (known.counting, known.noise_variance) == (False, 0.5)
    # a stated Gaussian variance is believed before the claim that data are counts
    assert not Problem.from_dataset(dataset(noise_variance=0.5)).counting


def test_noise_level():
    """1/4 for a pixel that counted something, 0 for one that did not or is masked; or the known
    variance; or 0.
    """
    counts, mask = np.zeros((2, 4, 4), np.uint16), np.ones((4, 4), bool)
    counts[:, 0, :3], counts[1, 3, 3] = 7, 9
    mask[0, 0] = False
    problem = Problem.from_dataset(Dataset(patterns=counts, positions=np.zeros((2, 2)), mask=mask))
    assert problem.noise_level == pytest.approx(0.25 * 5 / 30)
    assert Problem.from_dataset(dataset(noise_variance=0.3)).noise_level == 0.3
    assert Problem.from_dataset(dataset(counting=False)).noise_level == 0


class Lazy:
    """Frames on disk: sliced a block at a time, never as a whole."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.asked = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        self.asked.append(key)
        return self.array[key]


def test_frames_are_read_in_blocks(monkeypatch):
    monkeypatch.setattr("ptychon.data.lazy.BLOCK_BYTES", 2 * P * Q * 4)
    lazy = Lazy(patterns())
    problem = Problem.from_dataset(dataset(patterns=lazy))
    assert np.array_equal(problem.amplitude, Problem.from_dataset(dataset()).amplitude)
    assert len(lazy.asked) == 3
    assert all(isinstance(k, slice) and k.stop - k.start == 2 for k in lazy.asked)


def test_parts_of_a_problem():
    """Shards are contiguous, together everything, and carry their own masks and shifts."""
    mask = np.random.default_rng(4).random((N, P, Q)) > 0.2
    whole = Problem.from_dataset(
        dataset(mask=mask, positions=POSITIONS + np.random.default_rng(5).random((N, 2)))
    )
    parts = [whole.shard(rank, 4) for rank in range(4)]
    assert [len(p) for p in parts] == [2, 2, 1, 1]
    for name in ("amplitude", "mask", "corners", "shift_index"):
        assert np.array_equal(
            np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name)
        )
    assert all(p.object_shape == whole.object_shape and p.shifts is whole.shifts for p in parts)
    chosen = whole.select([4, 0])
    assert np.array_equal(chosen.corners, whole.corners[[4, 0]])
    assert np.array_equal(chosen.mask[1], whole.mask[0])


# -------------------------------------------------------- bad input: one sentence, with the numbers


def refusal(make, *words):
    with pytest.raises(PtychonError) as error:
        make()
    message = str(error.value)
    assert "\n" not in message
    assert [w for w in words if w not in message] == [], message


def test_shapes_that_disagree():
    refusal(lambda: dataset(positions=POSITIONS[:4]), "4 positions", "6 frames")
    refusal(lambda: dataset(positions=np.zeros((N, 3))), "(6, 3)", "(frames, 2)")
    refusal(lambda: dataset(patterns=np.ones((P, Q))), "(8, 10)", "frames, rows, columns")
    refusal(lambda: dataset(patterns=np.ones((N, 3, Q))), "3x10", "4x4")
    refusal(lambda: dataset(mask=np.ones((Q, P), bool)), "(10, 8)", "(8, 10)")
    refusal(lambda: dataset(probe=np.ones((P, P), complex)), "(8, 8)", "(8, 10)")
    refusal(lambda: dataset(patterns=np.ones((N, P, Q), complex)), "complex128", "real")
    refusal(lambda: dataset(positions=POSITIONS.astype(str)), "dtype", "real numbers")


def test_fewer_than_two_positions():
    refusal(
        lambda: dataset(patterns=patterns()[:1], positions=POSITIONS[:1]),
        "1 position",
        "at least 2",
    )


def test_values_that_are_not_finite():
    bad = patterns(dtype=float)
    bad[3, 2, 5] = np.nan
    bad[4, 0, 0] = np.inf
    with pytest.warns(
        PtychonWarning,
        match=r"2 in 2 of 6 frames \(2 values\) are bad and masked there: .* not finite",
    ):
        problem = Problem.from_dataset(dataset(patterns=bad))
    expected = np.ones((N, P, Q), bool)
    expected[3, 2, 5] = expected[4, 0, 0] = False
    assert np.array_equal(problem.mask, np.fft.ifftshift(expected, axes=(1, 2)))
    assert np.isfinite(problem.amplitude).all()
    refusal(
        lambda: Problem.from_dataset(dataset(patterns=np.full((N, P, Q), np.nan))),
        "no valid pixel",
        "not finite",
    )
    where = POSITIONS.copy()
    where[2, 0] = np.nan
    refusal(lambda: dataset(positions=where), "1 of 6 positions", "frame 2")
    refusal(lambda: dataset(probe=np.full((P, Q), np.nan + 0j)), "probe", "not finite")


def test_negative_counts():
    bad = patterns(dtype=np.int32)
    bad[5, 1, 2] = -7
    with pytest.warns(
        PtychonWarning, match=r"1 in 1 of 6 frames \(1 values\).*negative values \(-7\)"
    ):
        problem = Problem.from_dataset(dataset(patterns=bad))
    assert np.argwhere(~np.fft.fftshift(problem.mask, axes=(1, 2))).tolist() == [[5, 1, 2]]


@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
def test_block_by_block_the_same_is_masked(monkeypatch):
    bad = patterns(dtype=np.int32)
    bad[5, 1, 2], bad[:, 3, 3] = -7, -1
    whole = Problem.from_dataset(dataset(patterns=bad))
    monkeypatch.setattr("ptychon.data.lazy.BLOCK_BYTES", 2 * P * Q * 4)
    parts = Problem.from_dataset(dataset(patterns=bad))
    assert np.array_equal(whole.mask, parts.mask)
    assert np.array_equal(whole.amplitude, parts.amplitude)
    assert (~whole.mask).sum() == N + 1


def test_empty_frames():
    """Some: they are left out with a warning that counts them. All: an error."""
    some, masked = patterns(), np.ones((P, Q), bool)
    some[2] = some[4] = 0
    with pytest.warns(
        PtychonWarning, match=r"2 of 6 frames are empty \(first: frame 2\).*left out"
    ):
        problem = Problem.from_dataset(dataset(patterns=some))
    kept = [0, 1, 3, 5]
    assert np.array_equal(
        np.fft.fftshift(problem.amplitude, axes=(1, 2)), np.sqrt(some[kept].astype(np.float32))
    )
    assert np.array_equal(problem.corners - problem.corners[0], POSITIONS[kept] - POSITIONS[0])
    refusal(lambda: Problem.from_dataset(dataset(patterns=0 * some)), "all 6 frames")
    # light only where the mask is False is no light
    only, masked[:] = np.zeros_like(some), False
    masked[0, 0] = True
    only[:, 5, 5] = 9
    refusal(
        lambda: Problem.from_dataset(dataset(patterns=only, mask=masked)), "all 6 frames", "mask"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Problem.from_dataset(dataset())


def test_windows_off_the_object():
    small = dataset(object_shape=(18, 18))
    refusal(
        lambda: Problem.from_dataset(small),
        "of 6",
        "8x10",
        "18x18",
        "position ",
        "rows ",
        "columns ",
    )
    refusal(lambda: Problem.from_dataset(dataset(object_shape=(7, 40))), "8x10", "7x40", "larger")
    refusal(lambda: Problem.from_dataset(dataset(), object_shape=(40, 9)), "8x10", "40x9")


def test_positions_in_the_wrong_unit():
    """Pixels taken for metres would need an object of astronomical size."""
    refusal(
        lambda: Problem.from_dataset(dataset(pixel_size=1e-9)), "object pixels", "m", "pixel size"
    )


def test_impossible_numbers():
    refusal(lambda: dataset(wavelength=-1e-10), "wavelength", "-1e-10", "positive")
    refusal(lambda: dataset(distance=0.0), "distance", "0.0")
    refusal(lambda: dataset(focus_distance=np.nan), "focus distance", "nan")
    refusal(lambda: dataset(noise_variance=-1.0), "noise variance", "-1.0")
    refusal(lambda: dataset(pixel_size=(1e-9, 0.0)), "pixel size", "0.0")
    refusal(lambda: dataset(geometry="middle"), "'middle'", "'far'", "'near'")
    refusal(lambda: dataset(mask=np.zeros((P, Q), bool)), "no valid pixel", "inverted")
    refusal(lambda: dataset(mask=np.ones((P, Q))), "float64", "boolean")


def test_near_field_needs_its_geometry():
    refusal(
        lambda: Problem.from_dataset(dataset(geometry="near")),
        "wavelength",
        "distance",
        "pixel_size",
        "--wavelength",
    )
    refusal(
        lambda: Problem.from_dataset(dataset(geometry="near", wavelength=1e-10, pixel_size=1.0)),
        "distance",
        "--distance",
    )


def test_a_dataset_cannot_be_changed():
    data = dataset()
    with pytest.raises(AttributeError):
        data.wavelength = 1e-10
    positions = POSITIONS.copy()
    data = dataset(positions=positions)
    positions += 5
    assert np.array_equal(data.positions, POSITIONS)
