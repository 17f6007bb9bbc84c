"""Propagators: what happens to the exit wave between the object and the detector. All are unitary.

Far field   z = F psi, the orthonormal discrete Fourier transform with kernel exp(-2 pi i).
Near field  z = F^-1[ H F psi ], H = exp(2 pi i d (sqrt(1/lambda^2 - f^2) - 1/lambda)), the angular spectrum without its
            constant phase (Goodman, Introduction to Fourier Optics, section 3.10). A cone beam from a focus at distance f1
            before the sample is a parallel beam with d = distance/M and pixels smaller by M (Fresnel scaling theorem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..types import Array, ComplexArray


class Propagator(Protocol):
    """From exit waves (..., P, Q) to detector waves and back; `transfer` is None where one FFT is all there is."""

    @property
    def transfer(self) -> Array | None: ...
    def forward(self, wave: Array, backend: Any) -> Array: ...
    def backward(self, wave: Array, backend: Any) -> Array: ...


@dataclass(frozen=True)
class FarField:
    """One orthonormal FFT; detector pixel [0, 0] is zero frequency."""

    transfer: None = None

    def forward(self, wave: Array, backend: Any) -> Array:
        return backend.fft2(wave)

    def backward(self, wave: Array, backend: Any) -> Array:
        return backend.ifft2(wave)


@dataclass(frozen=True)
class NearField:
    """Angular spectrum; `transfer` (P, Q) complex64 is H with zero frequency at [0, 0]."""

    transfer: Array

    def forward(self, wave: Array, backend: Any) -> Array:
        return backend.ifft2(self.transfer * backend.fft2(wave))

    def backward(self, wave: Array, backend: Any) -> Array:
        return backend.ifft2(self.transfer.conj() * backend.fft2(wave))


def angular_spectrum(
    shape: tuple[int, int], pixel_size: tuple[float, float], wavelength: float, distance: float
) -> ComplexArray:
    """Transfer function of free space, (P, Q) complex64, zero frequency at [0, 0].

    Parameters
    ----------
    shape : (P, Q)
    pixel_size : (dy, dx) in m, of the plane the wave lives in
    wavelength, distance : m; a negative distance propagates backwards

    Notes
    -----
    Evanescent components (f > 1/wavelength) would decay; their phase is kept at that of f = 1/wavelength so that H stays
    unitary. No practical pixel reaches them.
    """
    fy = np.fft.fftfreq(shape[0], pixel_size[0])[:, None]
    fx = np.fft.fftfreq(shape[1], pixel_size[1])[None, :]
    f2 = (fy**2 + fx**2) * wavelength**2
    # sqrt(1 - f2) - 1 without the cancellation that costs all digits at small angles
    cosine = -f2 / (1 + np.sqrt(np.clip(1 - f2, 0, None)))
    phase = 2 * np.pi * distance / wavelength * cosine
    return np.asarray(np.exp(1j * phase), np.complex64)
