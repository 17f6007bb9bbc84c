"""Probes: formulas, units, signs, centring."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from ptychon.model.propagators import NearField, angular_spectrum
from ptychon.simulation import probes
from ptychon.types import ComplexArray, PtychonError

FFT = SimpleNamespace(fft2=np.fft.fft2, ifft2=np.fft.ifft2)
SHAPES = [(32, 32), (33, 47), (48, 31)]
MAKERS: dict[str, Callable[[tuple[int, int]], ComplexArray]] = {
    "circular": lambda s: probes.circular_aperture(s, 9.0),
    "defocused": lambda s: probes.defocused_aperture(s, 7.0, 12.0),
    "gaussian": lambda s: probes.gaussian(s, 8.0, 0.01),
    "structured": lambda s: probes.structured(s, 18.0, 4.0, 1.0, 3),
    "zone plate": lambda s: probes.zone_plate(s, 0.3, 0.1, 20.0),
    "electron": lambda s: probes.electron(s, 2e-11, voltage=3e5, semi_angle=0.02, defocus=5e-9),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MAKERS)
def test_every_probe_has_its_shape_its_scale_and_its_centre(
    name: str, shape: tuple[int, int]
) -> None:
    probe = MAKERS[name](shape)
    assert probe.shape == shape
    assert probe.dtype == np.complex64
    assert np.abs(probe).max() == pytest.approx(1, abs=1e-6)
    if name == "structured":
        return
    # symmetric about the centre pixel: row 0 of an even axis has no partner
    odd = probe[1 - shape[0] % 2 :, 1 - shape[1] % 2 :]
    np.testing.assert_allclose(odd, odd[::-1, ::-1], atol=2e-6)
    assert odd.shape[0] // 2 + 1 - shape[0] % 2 == shape[0] // 2


def test_circular_aperture_is_the_published_one() -> None:
    y, x = np.mgrid[-32:32, -32:32]
    np.testing.assert_array_equal(
        probes.circular_aperture((64, 64), 0.47 * 64), np.sqrt(x**2 + y**2) <= 0.47 * 64
    )


def test_defocus_is_propagation_downstream() -> None:
    wavelength, pixel, distance = 1e-10, 1e-7, 2e-3
    start = probes.defocused_aperture((64, 64), 14.0, 0.0)
    near = NearField(angular_spectrum((64, 64), (pixel, pixel), wavelength, distance))
    there = near.forward(start[None], None, FFT)[0]
    probe = probes.defocused_aperture((64, 64), 14.0, wavelength * distance / pixel**2)
    np.testing.assert_allclose(probe, there / np.abs(there).max(), atol=1e-5)


def test_hard_and_soft_edges() -> None:
    hard = probes.defocused_aperture((64, 64), 14.0, 0.0, edge=0)
    np.testing.assert_allclose(hard, probes.circular_aperture((64, 64), 14.0), atol=1e-6)
    soft = np.abs(probes.defocused_aperture((64, 64), 14.0, 0.0, edge=6.0))[32, 32:]
    np.testing.assert_allclose(soft[[10, 14, 18]], [1, 0.5, 0], atol=1e-6)


def test_gaussian_width_and_curvature() -> None:
    probe = probes.gaussian((64, 64), 20.0, 1 / 200)
    assert np.abs(probe[32, 42]) ** 2 == pytest.approx(0.5, rel=1e-5)
    assert np.angle(probe[32, 42]) == pytest.approx(np.pi / 2, rel=1e-5)


@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_structured_has_features_of_its_length_and_no_vortex(strength: float) -> None:
    probe = probes.structured((128, 128), 90.0, 8.0, strength, seed=2)
    centre = probe[40:88, 40:88]
    assert np.abs(centre).min() > 0.1
    if strength < 1:
        phase = np.angle(centre)
        phase = phase - phase.mean()
        correlation = (phase[:, 8:] * phase[:, :-8]).mean() / (phase**2).mean()
        assert correlation == pytest.approx(np.exp(-1), abs=0.2)
        assert phase.std() == pytest.approx(strength, rel=0.3)
    np.testing.assert_array_equal(probe, probes.structured((128, 128), 90.0, 8.0, strength, seed=2))
    assert np.any(probe != probes.structured((128, 128), 90.0, 8.0, strength, seed=3))


def test_zone_plate_pupil_and_ring() -> None:
    probe = probes.zone_plate((128, 128), 0.3, 0.15, 120.0)
    pupil = np.abs(np.fft.fft2(probe))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    lit = (f > 0.16) & (f < 0.29)
    dark = (f < 0.14) | (f > 0.31)
    assert pupil[dark].max() < 1e-3 * pupil[lit].min()
    np.testing.assert_allclose(pupil[lit], pupil[lit][0], rtol=1e-3)
    power, r = np.abs(probe) ** 2, np.hypot(*np.mgrid[-64:64, -64:64])
    # geometrically 18 to 36 px, widened by diffraction of about sqrt(D)/2
    assert power[(r > 12) & (r < 42)].sum() > 0.93 * power.sum()


def test_electron_wavelength() -> None:
    for voltage, picometres in ((300e3, 1.96875), (200e3, 2.50793), (80e3, 4.17572)):
        assert probes.electron_wavelength(voltage) == pytest.approx(picometres * 1e-12, rel=1e-5)


def test_electron_defocus_is_propagation_downstream_of_the_focus() -> None:
    pixel, lam = 2e-11, probes.electron_wavelength(3e5)
    focus = probes.electron((64, 64), pixel, voltage=3e5, semi_angle=0.015)
    near = NearField(angular_spectrum((64, 64), (pixel, pixel), lam, 15e-9))
    there = near.forward(focus[None], None, FFT)[0]
    probe = probes.electron((64, 64), pixel, wavelength=lam, semi_angle=0.015, defocus=15e-9)
    np.testing.assert_allclose(probe, there / np.abs(there).max(), atol=5e-3)


def test_electron_far_field_is_the_pupil_with_its_aberrations() -> None:
    shape, pixel, lam = (64, 48), (2e-11, 2.4e-11), 2e-12
    options = {
        "defocus": 3e-9,
        "cs": 2e-5,
        "astigmatism": 4e-9,
        "astigmatism_angle": 0.4,
        "coma": 3e-7,
        "coma_angle": 2.0,
    }
    probe = probes.electron(shape, pixel, wavelength=lam, semi_angle=0.02, **options)
    wave = np.fft.fft2(np.fft.ifftshift(probe))
    y, x = np.meshgrid(
        *(lam * np.fft.fftfreq(n, d) for n, d in zip(shape, pixel, strict=True)), indexing="ij"
    )
    # the same polynomial in Cartesian form
    a2, b = y**2 + x**2, (np.cos(2.0) * x + np.sin(2.0) * y) * 3e-7 / 3
    axis = 4e-9 / 2 * (np.cos(0.8) * (x**2 - y**2) + np.sin(0.8) * 2 * x * y)
    chi = 2 * np.pi / lam * (3e-9 * a2 / 2 + axis + b * a2 + 2e-5 * a2**2 / 4)
    inside = a2 < 0.018**2
    ratio = wave[inside] / np.exp(-1j * chi[inside])
    np.testing.assert_allclose(ratio / ratio[0], 1, atol=1e-4)
    assert np.abs(wave[a2 > 0.0215**2]).max() < 1e-3 * np.abs(wave).max()


def test_normalise() -> None:
    modes = np.stack(
        [probes.gaussian((16, 16), 5.0), 0.3 * probes.circular_aperture((16, 16), 4.0)]
    )
    before = modes.copy()
    out = probes.normalise(modes, 1e6)
    assert (np.abs(out.astype(complex)) ** 2).sum() == pytest.approx(1e6, rel=1e-6)
    assert out.dtype == np.complex64
    np.testing.assert_array_equal(modes, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: probes.circular_aperture((8, 8), -1), "must not be negative"),
        (lambda: probes.gaussian((8, 8), 0), "positive"),
        (lambda: probes.zone_plate((8, 8), 0.2, 0.3, 1), "stop < outer"),
        (lambda: probes.electron((8, 8), 1e-11, semi_angle=0.01), "either voltage or wavelength"),
        (lambda: probes.electron((8, 8), 1e-10, semi_angle=0.02, voltage=3e5), "smaller pixels"),
        (lambda: probes.normalise(np.zeros((4, 4)), 5), "not zero everywhere"),
        (lambda: probes.circular_aperture((8, 8, 8), 2), "rows, columns"),
    ],
)
def test_bad_probes(call: Callable[[], ComplexArray], message: str) -> None:
    with pytest.raises(PtychonError, match=message):
        call()
