r"""A Gaussian prior of a probe that was learned: dark where it is dark, in its window and in its
far field.

A beam lights a part of its window, and its far field a part of the detector. What a fit finds in
the rest is noise: with few counts it is a reference wave that the data have not had, and the error
of the finest details of the object grows by half. The precision of each real number is

    diag(2 p) + F* diag(2 q) F

with p of the pixels of the window and q of those of the far field. Both are learned as spectra of
the object are (see `prior`), from the powers m of an optimum P and V of draws of its error, each
the mean over a few pixels (and modes, so that it does not matter which of them has what):

    known = 1 - p V,    N = V/known,    Y = m/known^2,    S = max(Y - N, LEAST N)
    p  <-  max(1/S - 1/(BRIGHT N), 0)

as variances of Gaussian priors are learned from what they left (MacKay, Neural Comput. 4, 415
(1992)). Where there is light, Y > (1 + BRIGHT) N, the prior says nothing: it would pull at what
object and probe can trade, which the data hardly hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from ..backends import Backend
from ..model.thin import normal
from ..types import COMPLEX, REAL, Array, ComplexArray, FloatArray
from .prior import without_prior

#: Radius (standard deviation, px) over which powers are averaged.
NEAR = 1.5
#: Least variance, and the one from which on the prior says nothing, over that of the noise.
LEAST, BRIGHT = 0.1, 10.0


@dataclass(frozen=True)
class Plane:
    """The probe in its window or in its far field.

    Attributes
    ----------
    precision : (P, Q) float64
        p or q.
    noise, measured : (P, Q) float64
        N and Y, where they were last seen.
    """

    precision: FloatArray
    noise: FloatArray
    measured: FloatArray

    @classmethod
    def learned(cls, m: FloatArray, V: FloatArray, before: Plane | None) -> Plane:
        """From the powers of an optimum and of draws about it, under the prior before."""
        if before is None:
            N, Y = V, m
        else:
            N, Y = without_prior(m, V, before.precision, before.noise, before.measured)
        N = np.maximum(N, np.finfo(REAL).tiny)
        S = np.maximum(Y - N, LEAST * N)
        return cls(np.maximum(1 / S - 1 / (BRIGHT * N), 0), N, Y)


@dataclass(frozen=True)
class ProbePrior:
    """Precision of a probe by two planes.

    Attributes
    ----------
    backend : Backend
    window, far : Plane
        The latter in the order of an FFT.
    modes : int
    """

    backend: Backend
    window: Plane
    far: Plane
    modes: int

    @classmethod
    def learned(
        cls,
        backend: Backend,
        probe: ComplexArray,
        errors: list[ComplexArray],
        before: ProbePrior | None = None,
    ) -> ProbePrior:
        """From the optimum (K, P, Q) under the prior before, and draws of its error."""
        drawn = np.concatenate(errors)
        window = Plane.learned(
            power(probe, "nearest"),
            power(drawn, "nearest"),
            None if before is None else before.window,
        )
        far = Plane.learned(
            power(spectrum(probe), "wrap"),
            power(spectrum(drawn), "wrap"),
            None if before is None else before.far,
        )
        return cls(backend, window, far, len(probe))

    @cached_property
    def near(self) -> Array:
        """2 p, (P, Q) float32 on the device."""
        return self.backend.asarray((2 * self.window.precision).astype(REAL))

    @cached_property
    def transfer(self) -> Array:
        """2 q."""
        return self.backend.asarray((2 * self.far.precision).astype(REAL))

    @property
    def diagonal(self) -> Array:
        """Of the precision, (P, Q)."""
        return self.near + self.transfer.mean()

    def __call__(self, field: Array) -> Array:
        """Precision of real and imaginary parts times a change (K, P, Q)."""
        return (self.near * field + self._filtered(self.transfer, field)).astype(COMPLEX)

    def noise(self, rng: np.random.Generator) -> Array:
        """A draw of N(0, precision), (K, P, Q)."""
        xp, move = self.backend.xp, self.backend.asarray
        shape = (self.modes, *self.window.precision.shape)
        one, two = (move(normal(rng, shape)) for _ in range(2))
        wide = xp.sqrt(self.near) * one + self._filtered(xp.sqrt(self.transfer), two)
        return wide.astype(COMPLEX)

    def inverse(self, field: Array, light: float) -> Array:
        """Near (precision + light)^-1 of a field (K, P, Q): the far field as if the window were as
        bright everywhere.
        """
        root = self.backend.xp.sqrt(1 / (REAL.type(light) + self.near))
        even = (root**4).sum() / (root**2).sum()
        return root * self._filtered(1 / (1 + self.transfer * even), root * field)

    def _filtered(self, transfer: Array, field: Array) -> Array:
        return self.backend.ifft2(transfer * self.backend.fft2(field))

    def sentence(self) -> str:
        """For a list of what bars are conditional on."""
        window, far = (float((p.precision * p.noise > 1).mean()) for p in (self.window, self.far))
        return (
            f"prior of the probe: as dark as it was found in {window:.0%} of its window and in "
            f"{far:.0%} of its far field"
        )


def power(fields: ComplexArray, mode: str) -> FloatArray:
    """Mean power of fields (n, P, Q) over a few pixels."""
    square = (abs(fields).astype(np.float64) ** 2).mean(axis=0)
    return np.asarray(gaussian_filter(square, NEAR, mode=mode))


def spectrum(field: ComplexArray) -> ComplexArray:
    """In the far field, all power kept."""
    return np.asarray(scipy.fft.fft2(field, norm="ortho"))
