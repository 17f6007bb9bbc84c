"""The Gauss-Newton operator where only object and probe move, of a thin object on a scan whose
positions stay: one compiled product.

    H = M* A M + prior + gauge,    M_j (dO, dP) = F[ P_j dO_j + dP_j O_j ]

It is `GaussNewton` of such a model, with the probe at each distinct shift instead of each frame,
and the weights A of `kernels.curvature`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..kernels.curvature import ByClass, ByPixel, Weights, weigh
from ..kernels.reference import abs2
from ..types import COMPLEX, REAL, Array, ComplexArray
from .batch import Batch, exit_wave, shifted_probes, to_object, to_wave
from .gauss_newton import BLOCK_BYTES
from .problem import Problem
from .propagators import NearField
from .pulls import (
    Together,
    bound,
    bound_diagonal,
    bound_noise,
    gauge_noise,
    held,
    held_diagonal,
    pressed,
)
from .unknowns import Unknowns


@dataclass
class Scan:
    """M and its adjoint.

    Attributes
    ----------
    problem : Problem
        On the backend's device.
    backend : Backend
    object : (H, W) complex64
    probes : (U, K, P, Q) complex64
        At each distinct shift.
    """

    problem: Problem
    backend: Backend
    object: Array
    probes: Array

    def blocks(self) -> list[slice]:
        """Frames in slices of about `BLOCK_BYTES` of waves."""
        frames, modes = len(self.problem), self.probes.shape[1]
        p, q = self.problem.frame_shape
        size = max(1, BLOCK_BYTES // (COMPLEX.itemsize * modes * p * q))
        return [slice(i, min(i + size, frames)) for i in range(0, frames, size)]

    def waves(self, b: slice) -> Array:
        """Detector waves of some frames, (B, K, P, Q)."""
        seen = self._batch(b)
        return seen.onward(exit_wave(self.probes[seen.index], seen.window(self.object)))

    def tangent(self, b: slice, d: Unknowns) -> Array:
        """M d for some frames, (B, K, P, Q)."""
        seen = self._batch(b)
        wave = exit_wave(self.probes[seen.index], seen.window(d.object[0]))
        if d.probe is not None:
            wave = wave + exit_wave(seen.probe(d.probe), seen.window(self.object))
        return seen.onward(wave)

    def adjoint(self, b: slice, wave: Array, out: Unknowns) -> None:
        """out += M* wave, for the frames of a block."""
        seen = self._batch(b)
        change = seen.back(wave).astype(COMPLEX, copy=False)
        seen.add(out.object[0], to_object(self.probes[seen.index], change))
        if out.probe is not None:
            out.probe[:] += seen.unshifted(to_wave(seen.window(self.object), change))

    def moved(self, d: Unknowns) -> Scan:
        """The same after a change of object and probe."""
        probes = self.probes
        if d.probe is not None:
            probes = probes + shifted_probes(d.probe, self.problem, self.backend.kernels)
        return Scan(self.problem, self.backend, self.object + d.object[0], probes)

    def _batch(self, b: slice) -> Batch:
        return Batch.of(self.problem, self.backend, b)


@dataclass
class Thin:
    """H at one object and probe.

    Attributes
    ----------
    scan : Scan
    weights : ByPixel or ByClass
        A.
    free_probe : bool
        Whether H acts on the probe, too.
    prior : Unknowns or callable
        Its precision: of each number, or its product with a change.
    gauge : Unknowns, optional
        Orthonormal directions along a first axis of each field, that get the stiffness `stiffness`
        each.
    comm : Comm, optional
        Of the processes that share the frames.
    threads : int
        Of a product.
    parts : int
        In which it is summed, whatever the number of threads; 0 for one of each.
    between : mapping of str to FieldPrior
        What holds pixels of a field together, by its name.
    """

    scan: Scan
    weights: Weights
    free_probe: bool
    prior: Unknowns | Callable[[Unknowns], Unknowns]
    gauge: Unknowns | None = None
    stiffness: float = 0.0
    comm: Any = None
    threads: int = 1
    parts: int = 0
    between: Together = field(default_factory=dict)

    def zeros(self) -> Unknowns:
        """No change."""
        xp, scan = self.scan.backend.xp, self.scan
        probe = xp.zeros(scan.probes.shape[1:], COMPLEX) if self.free_probe else None
        return Unknowns(object=xp.zeros((1, *scan.object.shape), COMPLEX), probe=probe)

    def __call__(self, d: Unknowns) -> Unknowns:
        """H d."""
        scan = self.scan
        problem, kernels = scan.problem, scan.backend.kernels
        where = problem.shifts, problem.shift_index, problem.corners
        O, P = kernels.curvature(
            d.object[0],
            d.probe if self.free_probe else None,
            scan.probes,
            scan.object if self.free_probe else None,
            *where,
            self.weights,
            problem.propagator.transfer,
            *(self.threads, self.parts),
        )
        out = self.summed(Unknowns(object=O[None], probe=P))
        out.add(1, pressed(self.prior, d))
        bound(out, d, self.between)
        return held(out, d, self.gauge, self.stiffness)

    def summed(self, out: Unknowns) -> Unknowns:
        """The sum over all processes."""
        return out if self.comm is None else out.map(self.comm.sum)

    # ------------------------------------------------------------ of one block

    def blocks(self) -> list[slice]:
        """Frames in slices."""
        return self.scan.blocks()

    def waves(self, b: slice) -> Array:
        """Detector waves, (B, K, P, Q)."""
        return self.scan.waves(b)

    def tangent(self, b: slice, d: Unknowns) -> Array:
        """M d, (B, K, P, Q)."""
        return self.scan.tangent(b, d)

    def adjoint(self, b: slice, wave: Array, out: Unknowns) -> None:
        """out += M* wave."""
        self.scan.adjoint(b, wave, out)

    def weigh(self, b: slice, wave: Array, root: bool = False) -> Array:
        """A wave; A^1/2 wave for weights of classes."""
        weights = self.weights.of(b)
        return weigh(wave, weights.root() if root and isinstance(weights, ByClass) else weights)

    def pulled(self, d: Unknowns) -> Unknowns:
        """M(x + d)* A (z(x + d) - z(x)): what the waves of this point ask for after a change."""
        there, out = self.scan.moved(d), self.zeros()
        for b in self.blocks():
            there.adjoint(b, self.weigh(b, there.waves(b) - self.waves(b)), out)
        return out

    def taken(self, b: slice, wave: Array) -> Array:
        """Information of each pixel on a change of its wave, Re w* A w: (B, P, Q)."""
        weights = self.weights.of(b)
        if not isinstance(weights, ByPixel):
            return (wave.conj() * weigh(wave, weights)).real.sum(axis=1)
        radial = weights.radial
        along = (radial.real * wave.real + radial.imag * wave.imag).sum(axis=1) ** 2
        return along if weights.across is None else along + weights.across * abs2(wave).sum(axis=1)

    # ------------------------------------------------------------ for weights of single pixels

    def noise(self, rng: np.random.Generator) -> Unknowns:
        """A draw of N(0, H), real and imaginary parts being separate: M* A^(1/2) eps + prior^(1/2)
        eps; for a prior of each number.
        """
        scan, weights, out = self.scan, self.weights, self.zeros()
        assert isinstance(weights, ByPixel)
        assert isinstance(self.prior, Unknowns)
        xp, move = scan.backend.xp, scan.backend.asarray
        for b in scan.blocks():
            radial, across = weights.of(b)
            wave = radial * move(rng.standard_normal((len(radial), 1, *radial.shape[2:]), REAL))
            if across is not None:
                wave = wave + xp.sqrt(across)[:, None] * move(normal(rng, radial.shape))
            self.adjoint(b, wave, out)
        drawn = out.map(lambda array: move(normal(rng, tuple(array.shape))))
        out = out.axpy(1, drawn.times(self.prior.map(xp.sqrt)))
        bound_noise(out, self.between, rng)
        return gauge_noise(out, self.gauge, self.stiffness, rng)

    def diagonal(self) -> Unknowns:
        """Half the trace of the 2 x 2 block of every unknown; for the probe without its shifts,
        which is close.
        """
        weights, scan, out = self.weights, self.scan, self.zeros().map(lambda array: array.real)
        assert isinstance(weights, ByPixel)
        xp = scan.backend.xp
        modes = range(scan.probes.shape[1])
        for b in scan.blocks():
            seen = Batch.of(scan.problem, scan.backend, b)
            P, O = scan.probes[seen.index], seen.window(scan.object)
            spots = self._spots(b)
            for s in modes:
                for t in modes:
                    weight = 0.5 * weights.radial[b, s].conj() * weights.radial[b, t]
                    if s == t and weights.across is not None:
                        weight = weight + weights.across[b]
                    weight = self._smeared(weight, spots)
                    light = (P[:, s] * P[:, t].conj() * weight).real.astype(REAL)
                    seen.add(out.object[0], light)
                    if s == t and out.probe is not None:
                        out.probe[s] += ((O.real**2 + O.imag**2) * weight.real).sum(axis=0)
        ones = out.map(lambda array: xp.ones_like(array))
        out = out.map(lambda array: xp.maximum(array, 0)).axpy(1, pressed(self.prior, ones))
        bound_diagonal(out, self.between)
        return held_diagonal(out, self.gauge, self.stiffness)

    def _spots(self, b: slice) -> Array | None:
        """Spectra of |F delta|^2, (1 or B, P, Q): how frames of a block see a point of their
        window. None in the far field.
        """
        propagator, backend = self.scan.problem.propagator, self.scan.backend
        if not isinstance(propagator, NearField):
            return None
        point = backend.ifft2(propagator.rows(self.scan.problem.shift_index[b]))
        spot = (point.real**2 + point.imag**2).astype(COMPLEX)
        return backend.fft2(spot / spot.sum(axis=(-2, -1), keepdims=True))

    def _smeared(self, weight: Array, spots: Array | None) -> Array:
        """sum_p |F delta_r|^2(p) weight(p): in the far field the mean of a frame, in the near field
        a correlation.
        """
        backend = self.scan.backend
        if spots is None:
            return backend.xp.broadcast_to(weight.mean(axis=(-2, -1), keepdims=True), weight.shape)
        pixels = weight[0].size
        spectrum = backend.fft2(weight.astype(COMPLEX)) * spots.conj()
        return backend.ifft2(spectrum * REAL.type(pixels**0.5))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> ComplexArray:
    """Complex numbers whose real and imaginary parts are N(0, 1), complex64."""
    return np.asarray(rng.standard_normal((*shape, 2), REAL).view(COMPLEX)[..., 0])
