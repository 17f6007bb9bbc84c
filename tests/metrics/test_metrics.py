"""Errors modulo the ambiguities, ring correlation, coverage, residual: each against a case whose
answer is known.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ptychon import kernels
from ptychon.backends.base import Backend
from ptychon.data.dataset import Dataset
from ptychon.kernels import reference
from ptychon.metrics import residual as metrics
from ptychon.model.problem import Problem
from ptychon.types import PtychonError

N = 96
CROP = (slice(20, 76), slice(22, 74))
Y, X = np.mgrid[:N, :N] - N // 2


def numpy_backend() -> Backend:
    return Backend(
        name="plain",
        xp=np,
        fft2=lambda a: np.fft.fft2(a, norm="ortho"),
        ifft2=lambda a: np.fft.ifft2(a, norm="ortho"),
        kernels=kernels.build(),
    )


def texture(seed: int, blur: float = 1.5) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(N, N)), blur, mode="wrap")
    return field / field.std()


def complex_object(kind: str, seed: int = 0) -> np.ndarray:
    a, b = texture(2 * seed), texture(2 * seed + 1)
    return {
        "both": (1 + 0.15 * a) * np.exp(0.5j * b),
        "phase": np.exp(0.6j * b),
        "strong phase": np.exp(2j * b),
        "amplitude": 1 + 0.3 * a + 0j,
        "binary": np.where(b > 0, 1.0, -1.0) + 0j,
    }[kind]


def noise(seed: int, size: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return size * (rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))) / math.sqrt(2)


def disguised(
    truth: np.ndarray, shift: tuple[int, int], ramp: tuple[float, float], scale: complex
) -> np.ndarray:
    plane = np.exp(1j * (ramp[0] * (Y - shift[0]) + ramp[1] * (X - shift[1])))
    return scale * plane * np.roll(truth, shift, (0, 1))


# --------------------------------------------------------------------------------------------- pmse


@given(st.floats(-10, 10))
def test_pmse_does_not_see_a_global_phase(phi: float) -> None:
    truth = complex_object("both")
    estimate = truth + noise(5, 0.1)
    assert metrics.pmse(estimate * np.exp(1j * phi), truth, CROP) == pytest.approx(
        metrics.pmse(estimate, truth, CROP)
    )


def test_pmse_is_the_published_formula() -> None:
    truth = complex_object("both")
    assert metrics.pmse(1.1 * truth, truth) == pytest.approx(20)
    assert metrics.pmse(truth, truth) == math.inf
    assert metrics.pmse(truth + noise(1, 0.1) * np.abs(truth), truth) == pytest.approx(20, abs=0.2)
    outside = truth.copy()
    outside[0, 0] = 100
    assert metrics.pmse(outside, truth, CROP) == math.inf
    mask = np.zeros(truth.shape, bool)
    mask[CROP] = True
    estimate = truth + noise(1, 0.1)
    assert metrics.pmse(estimate, truth, mask) == pytest.approx(metrics.pmse(estimate, truth, CROP))


def test_phase_align_removes_the_phase_only() -> None:
    truth = complex_object("both")
    np.testing.assert_allclose(metrics.phase_align(2j * truth, truth, CROP), 2 * truth, atol=1e-12)


# -------------------------------------------------------------------------------------------- align


@pytest.mark.parametrize("kind", ["both", "phase", "strong phase", "amplitude", "binary"])
def test_align_undoes_shift_ramp_and_scale_together(kind: str) -> None:
    truth = complex_object(kind)
    estimate = disguised(truth, (3, -5), (0.21, -0.4), 0.3 - 1.7j)
    found = metrics.align(estimate, truth, region=CROP)
    assert found.shift == (3, -5)
    np.testing.assert_allclose(found.ramp, (0.21, -0.4), atol=1e-6)
    assert found.scale == pytest.approx(0.3 - 1.7j, rel=1e-4)
    assert found.error_db > 90
    np.testing.assert_allclose(found.estimate[CROP], truth[CROP], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 3),
    st.tuples(st.integers(-16, 16), st.integers(-16, 16)),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    st.floats(0.01, 100),
    st.floats(-3, 3),
)
def test_align_recovers_random_ambiguities_in_noise(
    seed: int, shift: tuple[int, int], ramp: tuple[float, float], size: float, phi: float
) -> None:
    truth = complex_object("both", seed)
    estimate = disguised(truth + noise(seed + 50, 0.3), shift, ramp, size * np.exp(1j * phi))
    found = metrics.align(estimate, truth, region=CROP)
    best = metrics.pmse((truth + noise(seed + 50, 0.3)) / 1.09, truth, CROP)
    assert found.shift == shift
    assert found.error_db == pytest.approx(best, abs=0.3)


def test_align_finds_fractions_of_a_pixel() -> None:
    truth = np.exp(0.6j * texture(3, 2.5))
    s = (2.37, -4.61)
    f = [np.fft.fftfreq(N)] * 2
    ramps = np.exp(-2j * np.pi * (f[0][:, None] * s[0] + f[1] * s[1]))
    moved = np.fft.ifft2(np.fft.fft2(truth) * ramps) * np.exp(1j * (0.1 * Y - 0.05 * X))
    whole = metrics.align(moved, truth, region=CROP)
    found = metrics.align(moved, truth, region=CROP, subpixel=True)
    np.testing.assert_allclose(found.shift, s, atol=2e-3)
    np.testing.assert_allclose(found.ramp, (0.1, -0.05), atol=1e-4)
    assert found.error_db > max(40, whole.error_db + 15)


def test_align_leaves_alone_what_it_is_told_to() -> None:
    truth = complex_object("both")
    estimate = disguised(truth, (3, 1), (0.1, 0.0), 2j)
    found = metrics.align(estimate, truth, region=CROP, max_shift=0, ramp=False, scale=False)
    assert found.shift == (0, 0)
    assert found.ramp == (0, 0)
    assert abs(found.scale) == pytest.approx(1)
    assert found.error_db == pytest.approx(metrics.pmse(estimate, truth, CROP))


def test_align_compares_only_what_the_shifted_estimate_knows() -> None:
    truth = complex_object("both")
    estimate = np.zeros_like(truth)
    estimate[6:, :-4] = truth[:-6, 4:]
    found = metrics.align(estimate, truth)
    assert found.shift == (6, -4)
    assert found.error_db > 90


def test_a_transformed_probe_goes_with_its_object() -> None:
    rng = np.random.default_rng(0)
    truth, p = complex_object("both"), 32
    probe = np.zeros((2, p, p), complex)
    probe[:, 10:22, 10:22] = rng.normal(size=(2, 12, 12)) + 1j * rng.normal(size=(2, 12, 12))
    estimate = disguised(truth, (3, -5), (0.2, 0.1), 1.5j)
    found = metrics.align(estimate, truth, region=CROP)
    new = found.apply_probe(probe)
    np.testing.assert_allclose(found.apply(estimate), found.estimate)
    for y, x in ((30, 34), (41, 28)):
        window = (slice(y, y + p), slice(x, x + p))
        before = np.abs(np.fft.fft2(probe * estimate[window]))
        np.testing.assert_allclose(
            np.abs(np.fft.fft2(new * found.estimate[window])), before, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize(
    ("estimate", "truth", "region", "message"),
    [
        (np.ones((4, 4)), np.ones((4, 5)), None, "shapes"),
        (np.ones((4, 4)), np.ones((4, 4)), np.zeros((4, 4), bool), "no pixel"),
        (np.ones((4, 4)), np.ones((4, 4)), np.ones((3, 4), bool), "region"),
        (np.ones((4, 4)), np.zeros((4, 4)), None, "zero"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), None, "finite"),
        (np.zeros((4, 4)), np.ones((4, 4)), None, "nothing in common"),
    ],
)
def test_align_refuses(
    estimate: np.ndarray, truth: np.ndarray, region: np.ndarray | None, message: str
) -> None:
    with pytest.raises(PtychonError, match=message):
        metrics.align(estimate, truth, region=region)


# ---------------------------------------------------------------------------------------------- frc


def test_ring_correlation_finds_where_the_signal_ends() -> None:
    n, limit = 256, 0.2
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    rng = np.random.default_rng(0)
    white = np.fft.fft2(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))
    signal = np.fft.ifft2(np.where(f < limit, white, 0))
    halves = [
        signal + 0.5 * (rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))) for _ in range(2)
    ]
    found = metrics.frc(*halves)
    assert found.resolution == pytest.approx(1 / limit, rel=0.04)
    assert found.resolution <= found.resolution_one_bit
    assert not found.nyquist_limited
    assert found.correlation[found.frequency < 0.18].min() > 0.6
    assert abs(found.correlation[found.frequency > 0.25].mean()) < 0.05
    metres = metrics.frc(*halves, pixel_size=(2e-9, 2e-9))
    assert metres.resolution == pytest.approx(2e-9 * found.resolution)
    assert (found.unit, metres.unit) == ("px", "m")


def test_ring_correlation_of_equal_and_of_unrelated_pictures() -> None:
    a, b = complex_object("both", 1), complex_object("both", 2)
    same = metrics.frc(a, a, region=CROP)
    np.testing.assert_allclose(same.correlation, 1)
    assert same.nyquist_limited
    assert same.resolution == pytest.approx(2, rel=0.05)
    other = metrics.frc(a, b)
    scatter = np.std(other.correlation * np.sqrt(2 * other.samples))
    assert 0.6 < scatter < 1.6, "complex pictures: 2 n independent real samples a ring"
    mask = np.hypot(Y, X) < 40
    wrong = np.where(mask, a, 1e3)
    np.testing.assert_allclose(metrics.frc(wrong, a, region=mask).correlation, 1)


def test_ring_thresholds_are_those_of_van_heel_and_schatz() -> None:
    found = metrics.frc(texture(0), texture(1), taper=0)
    n = found.samples[10]
    assert found.half_bit[10] == pytest.approx(
        (0.2071 + 1.9102 / math.sqrt(n)) / (1.2071 + 0.9102 / math.sqrt(n))
    )
    assert n == pytest.approx(2 * math.pi * 11, rel=0.1)
    assert found.half_bit[-1] == pytest.approx(0.2071 / 1.2071, abs=0.12)
    assert (found.one_bit > found.half_bit).all()


@pytest.mark.parametrize(
    "bad", [{"taper": 0.7}, {"pixel_size": -1.0}, {"region": (slice(0, 4), slice(0, 9))}]
)
def test_ring_correlation_refuses(bad: dict) -> None:
    with pytest.raises(PtychonError):
        metrics.frc(texture(0), texture(1), **bad)
    with pytest.raises(PtychonError, match="flat"):
        metrics.frc(np.ones((16, 16)), np.ones((16, 16)))


# ----------------------------------------------------------------------------------------- coverage


def test_coverage_of_right_and_of_small_error_bars() -> None:
    truth = complex_object("both")
    sigma = 0.05 * (1 + np.abs(texture(7)))
    estimate = (truth + noise(9, 1.0) * sigma) * np.exp(1j)
    right = metrics.coverage(estimate, truth, sigma)
    np.testing.assert_allclose(right.covered, right.probability, atol=0.02)
    assert right.mean_square == pytest.approx(1, abs=0.04)
    assert right.median == pytest.approx(0.8326, abs=0.02)
    assert right.within_factor_two == pytest.approx(0.7605, abs=0.015)
    small = metrics.coverage(estimate, truth, sigma / 2)
    assert small.mean_square == pytest.approx(4 * right.mean_square, rel=1e-6)
    assert small.covered[2] < 0.5
    with pytest.raises(PtychonError, match="positive"):
        metrics.coverage(estimate, truth, 0 * sigma)


# ----------------------------------------------------------------------------------------- residual


def problem(geometry: str = "far", modes: int = 2) -> tuple[Problem, np.ndarray, np.ndarray]:
    """A scan of sub-pixel positions with exact amplitudes, written out frame by frame."""
    rng = np.random.default_rng(4)
    p, q, n = 20, 16, 12
    obj = complex_object("both")[:48, :44].astype(np.complex64)
    window = np.exp(-((np.arange(p)[:, None] - p / 2) ** 2 + (np.arange(q) - q / 2) ** 2) / 18)
    probe = np.stack(
        [(1 + k) * window * np.exp(1j * k * np.arange(q)) for k in range(modes)]
    ).astype(np.complex64)
    positions = np.round(rng.uniform(-12, 12, (n, 2)) * 16) / 16
    extra = (
        {"wavelength": 1e-10, "distance": 1e-3, "pixel_size": 1e-8} if geometry == "near" else {}
    )
    scale = 1e-8 if geometry == "near" else 1.0
    data = Dataset(
        patterns=np.ones((n, p, q), np.float32),
        positions=positions * scale,
        object_shape=(48, 44),
        geometry=geometry,
        mask=rng.uniform(size=(p, q)) < 0.9,
        **extra,
    )
    empty = Problem.from_dataset(data)
    amplitude = np.empty((n, p, q), np.float32)
    for j in range(n):
        y, x = empty.corners[j]
        moved = reference.shift(probe.astype(complex), empty.shifts[empty.shift_index[j]][None])[0]
        exit_wave, index = (moved * obj[y : y + p, x : x + q])[None], empty.shift_index[j : j + 1]
        wave = empty.propagator.forward(exit_wave, index, numpy_backend())[0]
        amplitude[j] = np.sqrt((np.abs(wave) ** 2).sum(axis=0)) * empty.mask[0]
    from dataclasses import replace

    return replace(empty, amplitude=amplitude), obj, probe


@pytest.mark.parametrize("geometry", ["far", "near"])
def test_residual_of_the_truth_is_zero_and_of_nothing_one(
    geometry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, obj, probe = problem(geometry)
    assert exact.subpixel
    monkeypatch.setattr(metrics, "BLOCK_BYTES", 5 * 20 * 16 * 8 * 2)
    backend = numpy_backend()
    assert metrics.residual(exact, obj, probe, backend) < 1e-6
    assert metrics.residual(exact, 0 * obj, probe, backend) == pytest.approx(1)
    assert metrics.residual(exact, 1.25 * obj, probe, backend) == pytest.approx(0.25, rel=1e-5)
    assert metrics.residual(exact, obj, probe[:1], backend) > 0.1
    frames = metrics.residual_per_frame(exact, 1.25 * obj, probe, backend)
    np.testing.assert_allclose(frames, 0.25, rtol=1e-5)
    assert metrics.residual(exact, obj, probe) < 1e-5, "the default backend"


def test_residual_ignores_masked_pixels_and_honours_shifts() -> None:
    exact, obj, probe = problem()
    exact.amplitude[:, ~exact.mask[0]] = 1e6
    assert metrics.residual(exact, obj, probe, numpy_backend()) < 1e-6
    from dataclasses import replace

    rounded = replace(exact, shifts=0 * exact.shifts)
    assert metrics.residual(rounded, obj, probe, numpy_backend()) > 0.01


def test_residual_refuses_what_does_not_fit() -> None:
    exact, obj, probe = problem()
    with pytest.raises(PtychonError, match="object"):
        metrics.residual(exact, obj[1:], probe, numpy_backend())
    with pytest.raises(PtychonError, match="probe"):
        metrics.residual(exact, obj, probe[:, 1:], numpy_backend())


def test_sampling_ratio_counts_lit_pixels() -> None:
    data = Dataset(
        patterns=np.ones((2, 8, 8), np.float32),
        positions=np.array([[0, 0], [0, 6]]),
        object_shape=(20, 30),
    )
    two = Problem.from_dataset(data)
    probe = np.zeros((1, 8, 8), complex)
    probe[0, 2:6, 2:6] = 2
    light = metrics.illumination(two, probe)
    assert light.sum() == pytest.approx(2 * 16 * 4)
    assert light.max() == pytest.approx(4)
    assert metrics.illuminated(two, probe).sum() == 32
    assert metrics.sampling_ratio(two, probe) == pytest.approx(2 * 64 / 32)
    probe[0, 3, 3] = 20
    assert metrics.sampling_ratio(two, probe) == pytest.approx(2 * 64 / 2), "10 % of the maximum"
