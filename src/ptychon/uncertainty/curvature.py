"""The curvature of -log posterior at a solution, as products with a direction that cost two FFTs a
frame.

Unknowns are real and imaginary parts of the object O and, where it was learned, of the probe P.
With z_j = F[P O_j], m = sqrt(sum_k |z_jk|^2) and i(m) the Fisher information of m (see `noise`),
the expected (Fisher) information is

    H = M^H A M + prior,   M (dO, dP) = F[P dO_j + dP O_j],   A w = i(m) z/m Re sum_k (z_k/m)* w_k

i(m) along the wave, nothing across it. The observed curvature across it, i(m)(1 - y/m) for
amplitudes, may be negative and averages to zero. Where a wave is not known well enough to have a
direction, z ~ CN(z^, V), -log p, its gradient and its curvature are averaged over it (see `noise`):
the solution is then the mean, and H the precision, of the best Gaussian approximation of the
posterior (Opper & Archambeau, Neural Comput. 21, 786 (2009)) and not of its deepest point. V is one
number a frame. With V = 0 this is Laplace's approximation. Priors: O ~ CN(0, S), P ~ CN(0, S_P),
that is 2/S on each real part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..kernels.reference import TINY, shift_ramps
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.propagators import NearField
from ..types import COMPLEX, REAL, Array, ComplexArray, FloatArray

#: Bytes of waves computed at a time.
BLOCK_BYTES = 16 * 2**20


@dataclass
class Curvature:
    """H at one object and probe.

    Vectors are flat complex64 arrays, the object's pixels first and then, if it is free, the
    probe's; their real and imaginary parts are the unknowns.

    Attributes
    ----------
    problem : Problem
        On the backend's device.
    object, probe : (H, W) and (K, P, Q) complex64
        Where.
    noise : Noise
    backend : Backend
    free_probe : bool
    prior : flat float32
        2/S, of every unknown complex number.
    spread : (N,) float32 or None
        V of each frame, summed over modes.
    gauge : (m, n) complex64 or None
        Orthonormal directions that get the stiffness `stiffness` each, so that none is left without
        information.
    """

    problem: Problem
    object: Array
    probe: Array
    noise: Noise
    backend: Backend
    free_probe: bool
    prior: Array
    spread: Array | None = None
    gauge: Array | None = None
    stiffness: float = 0.0
    probes: Array = None
    radial: Array = None
    share: Array | None = None
    diagonal: Array = None
    transfer: Array | None = None
    ramps: Array | None = None
    index: Any = field(default=None)
    corners: Any = field(default=None)

    def __post_init__(self) -> None:
        problem = self.problem
        self.index, self.corners, self.transfer = (
            problem.shift_index,
            problem.corners,
            problem.propagator.transfer,
        )
        if self.free_probe and problem.subpixel:
            ramps = shift_ramps(problem.shifts, problem.frame_shape)[:, None].astype(COMPLEX)
            self.ramps = self.backend.asarray(ramps)
        self._linearise()
        self._set_diagonal()

    # ------------------------------------------------------------ vectors

    @property
    def size(self) -> int:
        """Complex unknowns."""
        return int(self.object.size + (self.probe.size if self.free_probe else 0))

    def pack(self, object: Array, probe: Array | None) -> Array:
        """A flat vector of an object and a probe."""
        parts = [object.reshape(-1)] + (
            [probe.reshape(-1)] if self.free_probe and probe is not None else []
        )
        return self.backend.xp.concatenate(parts).astype(COMPLEX, copy=False)

    def unpack(self, vector: Array) -> tuple[Array, Array | None]:
        """Object (H, W) and probe (K, P, Q) of a vector; None where the probe is known."""
        n = self.object.size
        return vector[:n].reshape(self.object.shape), vector[n:].reshape(
            self.probe.shape
        ) if self.free_probe else None

    def dot(self, a: Array, b: Array) -> float:
        """Sum over real and imaginary parts, float64 and in a fixed order."""
        return float((a.real * b.real + a.imag * b.imag).sum(dtype="float64"))

    # ------------------------------------------------------------ set-up

    def blocks(self) -> list[slice]:
        """Frames in slices of `BLOCK_BYTES`."""
        size = max(1, BLOCK_BYTES // (8 * self.probe.size))
        return [
            slice(i, min(i + size, len(self.problem))) for i in range(0, len(self.problem), size)
        ]

    def waves(self, b: slice, object: Array | None = None, probes: Array | None = None) -> Array:
        """Detector waves (B, K, P, Q) of an object and shifted probes, by default those of this
        point.
        """
        k = self.backend.kernels
        patches = k.gather(
            self.object if object is None else object, self.corners[b], self.problem.frame_shape
        )
        P = (self.probes if probes is None else probes)[self.index[b]]
        return self.problem.propagator.forward(P * patches[:, None], self.index[b], self.backend)

    def modulus(self, wave: Array) -> Array:
        """m (B, P, Q)."""
        return self.backend.xp.sqrt((wave.real**2 + wave.imag**2).sum(axis=1))

    def _linearise(self) -> None:
        xp, problem = self.backend.xp, self.problem
        self.probes = xp.ascontiguousarray(self.backend.kernels.shift(self.probe, problem.shifts))
        self.radial = xp.empty((len(problem), *self.probe.shape), COMPLEX)
        self.share = (
            None if self.spread is None else xp.empty((len(problem), *problem.frame_shape), REAL)
        )
        for b in self.blocks():
            wave = self.waves(b)
            m = self.modulus(wave)
            along = self.noise.information(m)
            if self.spread is not None and self.share is not None:
                host = self.noise.averaged_information(
                    self.backend.to_host(m), self.backend.to_host(self.spread[b])
                )
                along, across = (self.backend.asarray(a) for a in host)
                along = along - across
                self.share[b] = xp.where(problem.mask_of(b), across, 0)
            root = xp.sqrt(xp.where(problem.mask_of(b), along, 0))
            factor = xp.where(m > TINY, root / xp.maximum(m, REAL.type(TINY)), 0)
            self.radial[b] = wave * factor[:, None].astype(REAL)

    def _set_diagonal(self) -> None:
        """Half the trace of the 2 x 2 block of every unknown; for the probe without its shifts,
        which is close.
        """
        xp, k, problem = self.backend.xp, self.backend.kernels, self.problem
        light, seen = xp.zeros(problem.object_shape, REAL), xp.zeros(self.probe.shape, REAL)
        modes = range(len(self.probe))
        for b in self.blocks():
            P, O = (
                self.probes[self.index[b]],
                k.gather(self.object, self.corners[b], problem.frame_shape),
            )
            spots = self._spots(b)
            for s in modes:
                for t in modes:
                    weight = 0.5 * self.radial[b, s].conj() * self.radial[b, t]
                    if s == t and self.share is not None:
                        weight = weight + self.share[b]
                    weight = self._smeared(weight, spots)
                    k.scatter_add(
                        light,
                        self.corners[b],
                        (P[:, s] * P[:, t].conj() * weight).real.astype(REAL),
                    )
                    if s == t and self.free_probe:
                        seen[s] += ((O.real**2 + O.imag**2) * weight.real).sum(axis=0)
        parts = [light.reshape(-1)] + ([seen.reshape(-1)] if self.free_probe else [])
        self.diagonal = xp.maximum(xp.concatenate(parts), 0) + self.prior

    def _spots(self, b: slice) -> Array | None:
        """Spectra of |F delta|^2, (1 or B, P, Q): how frames of a block see a point of their
        window. None in the far field.
        """
        propagator = self.problem.propagator
        if not isinstance(propagator, NearField):
            return None
        point = self.backend.ifft2(propagator.rows(self.index[b]))
        spot = (point.real**2 + point.imag**2).astype(COMPLEX)
        return self.backend.fft2(spot / spot.sum(axis=(-2, -1), keepdims=True))

    def _smeared(self, weight: Array, spots: Array | None) -> Array:
        """sum_p |F delta_r|^2(p) weight(p): in the far field the mean of a frame, in the near field
        a correlation.
        """
        xp = self.backend.xp
        if spots is None:
            return xp.broadcast_to(weight.mean(axis=(-2, -1), keepdims=True), weight.shape)
        pixels = weight[0].size
        return self.backend.ifft2(
            self.backend.fft2(weight.astype(COMPLEX)) * spots.conj() * REAL.type(pixels**0.5)
        )

    def hold(self, gauge: Any) -> None:
        """Give directions (m, n), orthonormal in real and imaginary parts, a stiffness like that of
        what the data tell.
        """
        xp, n = self.backend.xp, self.object.size
        lit = self.diagonal[:n] > 0.1 * self.diagonal[:n].max()
        self.stiffness = float(self.diagonal[:n][lit].mean())
        self.gauge = self.backend.asarray(np.ascontiguousarray(gauge, COMPLEX))
        self.diagonal = self.diagonal + REAL.type(self.stiffness / 2) * xp.sum(
            xp.abs(self.gauge) ** 2, axis=0
        ).astype(REAL)

    # ------------------------------------------------------------ products

    def product(self, vector: Array) -> Array:
        """H v."""
        dO, dP = self.unpack(vector)
        shifted = None if dP is None else self.shifted(dP)
        if self.backend.name == "numpy":
            from ..kernels.cpu.fisher import product

            out_O, out_P = product(np.ascontiguousarray(dO), shifted, self)
        else:
            out_O, out_P = self._plain_product(dO, shifted)
        out = self.pack(out_O, None if dP is None else self._unshifted(out_P)) + self.prior * vector
        return self._held(out, vector)

    def _held(self, out: Array, vector: Array) -> Array:
        for g in () if self.gauge is None else self.gauge:
            out = out + REAL.type(self.stiffness * self.dot(g, vector)) * g
        return out

    def _plain_product(self, dO: Array, dP: Array | None) -> tuple[Array, Array]:
        xp = self.backend.xp
        out_O, out_P = xp.zeros_like(dO), xp.zeros_like(self.probes)
        for b in self.blocks():
            wave, radial = self.tangent(b, dO, dP), self.radial[b]
            along = (radial.real * wave.real + radial.imag * wave.imag).sum(axis=1, keepdims=True)
            wave = radial * along + (0 if self.share is None else self.share[b][:, None] * wave)
            self._back(b, wave, out_O, out_P)
        return out_O, out_P

    def tangent(self, b: slice, dO: Array, dP: Array | None) -> Array:
        """M (dO, dP) of a block of frames, dP at every distinct shift (U, K, P, Q):
        (B, K, P, Q).
        """
        k, shape = self.backend.kernels, self.problem.frame_shape
        wave = self.probes[self.index[b]] * k.gather(dO, self.corners[b], shape)[:, None]
        if dP is not None:
            wave = wave + dP[self.index[b]] * k.gather(self.object, self.corners[b], shape)[:, None]
        return self.problem.propagator.forward(wave, self.index[b], self.backend)

    def _back(self, b: slice, wave: Array, out_O: Array, out_P: Array) -> None:
        """Adds M^H of detector waves (B, K, P, Q)."""
        k, shape = self.backend.kernels, self.problem.frame_shape
        back = self.problem.propagator.backward(wave, self.index[b], self.backend).astype(
            COMPLEX, copy=False
        )
        k.scatter_add(
            out_O, self.corners[b], (self.probes[self.index[b]].conj() * back).sum(axis=1)
        )
        if self.free_probe:
            pull = k.gather(self.object, self.corners[b], shape).conj()[:, None] * back
            for j, u in zip(
                range(*b.indices(len(self.problem))), self.index[b].tolist(), strict=True
            ):
                out_P[u] += pull[j - b.start]

    def shifted(self, dP: Array) -> Array:
        """A change of the probe (K, P, Q) at every distinct shift (U, K, P, Q)."""
        if self.ramps is None:
            return self.backend.xp.ascontiguousarray(
                self.backend.xp.broadcast_to(dP, self.probes.shape)
            )
        return self.backend.ifft2(self.backend.fft2(dP)[None] * self.ramps)

    def _unshifted(self, out_P: Array) -> Array:
        """The adjoint of `shifted`."""
        if self.ramps is None:
            return out_P.sum(axis=0)
        return self.backend.ifft2((self.backend.fft2(out_P) * self.ramps.conj()).sum(axis=0))

    def draw(self, rng: np.random.Generator) -> Array:
        """A vector t ~ N(0, H), real and imaginary parts being separate: M^H A^(1/2) eps +
        prior^(1/2) eps.
        """
        xp, move = self.backend.xp, self.backend.asarray
        out_O, out_P = xp.zeros(self.problem.object_shape, COMPLEX), xp.zeros_like(self.probes)
        for b in self.blocks():
            shape = (len(self.index[b]), 1, *self.problem.frame_shape)
            wave = self.radial[b] * move(rng.standard_normal(shape, REAL))
            if self.share is not None:
                wave = wave + xp.sqrt(self.share[b])[:, None] * move(
                    _normal(rng, (shape[0], *self.probe.shape))
                )
            self._back(b, wave, out_O, out_P)
        out = self.pack(out_O, self._unshifted(out_P) if self.free_probe else None)
        out = out + xp.sqrt(self.prior) * move(_normal(rng, (self.size,)))
        for g in () if self.gauge is None else self.gauge:
            out = out + REAL.type(self.stiffness**0.5 * rng.standard_normal()) * g
        return out

    # ------------------------------------------------------------ -log posterior

    def gradient(self) -> Array:
        """Gradient of -log posterior here, in real and imaginary parts."""
        xp, problem = self.backend.xp, self.problem
        out_O, out_P = xp.zeros(problem.object_shape, COMPLEX), xp.zeros_like(self.probes)
        for b in self.blocks():
            wave = self.waves(b)
            m = self.modulus(wave)
            pull = self.backend.asarray(self.noise.pull(*self._host(m, b)))
            pull = xp.where(problem.mask_of(b), pull, 0)
            factor = xp.where(m > TINY, pull / xp.maximum(m, REAL.type(TINY)), 0).astype(REAL)
            self._back(b, wave * factor[:, None], out_O, out_P)
        vector = self.pack(out_O, self._unshifted(out_P) if self.free_probe else None)
        return vector + self.prior * self.pack(self.object, self.probe)

    def _host(self, m: Array, b: slice) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Modulus, measured amplitude and V of a block, on the host: special functions are not on
        every device.
        """
        host = self.backend.to_host
        data = host(self.noise.root(self.problem, b))
        return host(m), data, None if self.spread is None else host(self.spread[b]).astype(float)

    def energy(self, object: Array | None = None, probe: Array | None = None) -> float:
        """-log posterior of an object (H, W) and a probe (K, P, Q), by default those
        of this point.
        """
        problem, total = self.problem, 0.0
        object, probe = (
            self.object if object is None else object,
            self.probe if probe is None else probe,
        )
        probes = self.backend.kernels.shift(probe, problem.shifts)
        for b in self.blocks():
            m = self.modulus(self.waves(b, object, probes))
            each = self.noise.energy(*self._host(m, b))
            total += float(np.where(self.backend.to_host(problem.mask_of(b)), each, 0).sum())
        point = self.pack(object, probe)
        return total + 0.5 * self.dot(self.prior * point, point)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> ComplexArray:
    """Complex numbers whose real and imaginary parts are N(0, 1), complex64."""
    return np.asarray(rng.standard_normal((*shape, 2), REAL).view(COMPLEX)[..., 0])
