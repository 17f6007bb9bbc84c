"""Propagators: what happens to the exit wave between the object and the detector. All are unitary.

Far field   z = F psi, the orthonormal discrete Fourier transform with kernel exp(-2 pi i).
Near field  z = F^-1[ H F psi ], H = exp(2 pi i d (sqrt(1/lambda^2 - f^2) - 1/lambda)), the angular
spectrum without its
            constant phase (Goodman, Introduction to Fourier Optics, section 3.10). A cone beam from
            a focus at distance f1 before the sample is a parallel beam with d = distance/M and
            pixels smaller by M (Fresnel scaling theorem).

Windows of the object lie on whole pixels, and the probe takes the fraction f of a position. The
exit wave in its window is then that of the unshifted probe, moved by f. In the far field this is a
phase ramp that no detector sees. In the near field the pattern would move with it, but the detector
stays where it is: a frame with the fraction f has

    H_f(q) = H(q) exp(2 pi i q.f),   q in cycles a pixel

The phase of H grows with the distance d: at (1 + e) d it is H exp(i e phi), phi the phase of H.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..kernels.reference import namespace, shift_ramps
from ..types import COMPLEX, REAL, Array, ComplexArray, FloatArray, IntArray, PtychonError


class Propagator(Protocol):
    """From the exit waves of frames, (B, P, Q) or (B, K, P, Q), to their detector waves and back.

    `index` (B,), on the host, is the `shift_index` of these frames.
    """

    @property
    def free(self) -> Array | None:
        """H of a wave that stands in the middle of its window, (P, Q); None in the far field."""
        ...

    @property
    def transfer(self) -> Array | None:
        """H_f of every distinct shift, (U, P, Q) complex64; None where one FFT is all there is."""
        ...

    def at(self, shifts: FloatArray) -> Propagator:
        """The same for a scan with these distinct shifts (U, 2)."""
        ...

    def to(self, backend: Any) -> Propagator:
        """The same on the device of a backend."""
        ...

    def forward(self, wave: Array, index: IntArray | None, backend: Any) -> Array: ...
    def backward(self, wave: Array, index: IntArray | None, backend: Any) -> Array: ...


@dataclass(frozen=True)
class FarField:
    """One orthonormal FFT; detector pixel [0, 0] is zero frequency. Shifts do not matter."""

    free: None = None
    transfer: None = None

    def at(self, shifts: FloatArray) -> FarField:
        return self

    def to(self, backend: Any) -> FarField:
        return self

    def forward(self, wave: Array, index: IntArray | None, backend: Any) -> Array:
        return through(None, wave, backend)

    def backward(self, wave: Array, index: IntArray | None, backend: Any) -> Array:
        return backend.ifft2(wave)


@dataclass(frozen=True)
class NearField:
    """Angular spectrum.

    Attributes
    ----------
    free : (P, Q) complex64
        H, zero frequency at [0, 0].
    shifts : (U, 2) float32, on the host
        The distinct shifts of the probe. A `Problem` puts its own here.
    phase : (P, Q) float64 or None
        phi of the distance that is stated, not wrapped; None where it is not known.
    factor : float
        How many times as long as stated the distance of `free` is.
    """

    free: Array
    shifts: FloatArray = field(default_factory=lambda: np.zeros((1, 2), REAL))
    phase: Array | None = None
    factor: float = 1.0

    @classmethod
    def through(cls, phase: Array, factor: float = 1.0) -> NearField:
        """Of a phase phi of the distance that is stated, and of a distance `factor` times as
        long.
        """
        xp = namespace(phase)
        return cls(xp.exp(1j * factor * phase).astype(COMPLEX), phase=phase, factor=factor)

    def longer(self, factor: float) -> NearField:
        """The same for a distance `factor` times as long as stated.

        Raises
        ------
        PtychonError
            If only H is known, and not its phase.
        """
        if factor == self.factor:
            return self
        if self.phase is None:
            raise PtychonError(
                "this propagator does not say how its phase grows with the distance; make it with "
                "NearField.through"
            )
        return replace(self.through(self.phase, factor), shifts=self.shifts)

    @cached_property
    def transfer(self) -> Array:
        """H_f of every distinct shift, (U, P, Q) complex64."""
        if not np.any(self.shifts):
            return self.free[None]
        xp, shape = namespace(self.free), self.free.shape
        table = xp.empty((len(self.shifts), *shape), COMPLEX)
        for u in range(len(table)):
            # minus: back to where the detector is
            table[u] = self.free * xp.asarray(shift_ramps(self.shifts[u : u + 1], shape, -1)[0])
        return table

    def at(self, shifts: FloatArray) -> NearField:
        return self if np.array_equal(shifts, self.shifts) else replace(self, shifts=shifts)

    def to(self, backend: Any) -> NearField:
        free = backend.asarray(self.free)
        if free is self.free:
            return self
        phase = None if self.phase is None else backend.asarray(self.phase)
        return replace(self, free=free, phase=phase)

    def rows(self, index: IntArray | None) -> Array:
        """H_f of frames, (1 or B, P, Q); of waves that no fraction has moved where
        `index` is None.
        """
        if index is None:
            return self.free[None]
        return self.transfer if len(self.transfer) == 1 else self.transfer[index]

    def forward(self, wave: Array, index: IntArray | None, backend: Any) -> Array:
        return through(self._of(wave, index), wave, backend)

    def backward(self, wave: Array, index: IntArray | None, backend: Any) -> Array:
        return through(self._of(wave, index).conj(), wave, backend)

    def _of(self, wave: Array, index: IntArray | None) -> Array:
        """`rows`, for waves with or without an axis of modes."""
        rows = self.rows(index)
        return rows[:, None] if wave.ndim == 4 else rows


def through(transfer: Array | None, wave: Array, backend: Any) -> Array:
    """Waves through free space, F^-1[ H F psi ]; into the far field, F psi, where H is None."""
    spectrum = backend.fft2(wave)
    return spectrum if transfer is None else backend.ifft2(transfer * spectrum)


def angular_spectrum(
    shape: tuple[int, int], pixel_size: tuple[float, float], wavelength: float, distance: float
) -> ComplexArray:
    """Transfer function of free space, (P, Q) complex64, zero frequency at [0, 0]; of
    `spectrum_phase`.
    """
    phase = spectrum_phase(shape, pixel_size, wavelength, distance)
    return np.asarray(np.exp(1j * phase), np.complex64)


def spectrum_phase(
    shape: tuple[int, int], pixel_size: tuple[float, float], wavelength: float, distance: float
) -> FloatArray:
    """Phase of the transfer function of free space, (P, Q) float64, zero frequency at [0, 0].

    Parameters
    ----------
    shape : (P, Q)
    pixel_size : (dy, dx) in m, of the plane the wave lives in
    wavelength, distance : m; a negative distance propagates backwards

    Notes
    -----
    Evanescent components (f > 1/wavelength) would decay; their phase is kept at that of f =
    1/wavelength so that H stays unitary. No practical pixel reaches them.
    """
    fy = np.fft.fftfreq(shape[0], pixel_size[0])[:, None]
    fx = np.fft.fftfreq(shape[1], pixel_size[1])[None, :]
    f2 = (fy**2 + fx**2) * wavelength**2
    # sqrt(1 - f2) - 1 without the cancellation that costs all digits at small angles
    cosine = -f2 / (1 + np.sqrt(np.clip(1 - f2, 0, None)))
    return np.asarray(2 * np.pi * distance / wavelength * cosine)
