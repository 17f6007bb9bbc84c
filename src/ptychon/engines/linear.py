r"""The model linearised about a probe and an object, and the Gaussian belief it gives: H x = b by
conjugate gradients.

A change x = (dO, dP) of object and probe changes the detector waves by

    A x = F[ P dO + dP O ]        (dP = 0 where the probe is known)

and the belief's precision is H = A* W A + C^-1 on the object and a little ridge on the probe. W
weighs each detector pixel by its class: alike in all directions, or with one weight along the wave
and one across it. C is the prior's covariance, diagonal in the object's Fourier space (see
`stationary`). Nothing here looks at a number, so that a device never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.problem import Problem
from ..types import Array
from .base import Context

#: Ridge on the probe, relative to the mean of its own precision.
PROBE_RIDGE = 1e-3

Change = tuple[Array, Array | None]


@dataclass(frozen=True)
class Linear:
    """Everything H is made of.

    Attributes
    ----------
    probes : (U, K, P, Q) complex64
        The probe at each distinct sub-pixel shift.
    object : (H, W) complex64 or None
        None where the probe is known.
    classes : (N, P, Q) uint8
        Of each detector pixel.
    weights : (2, C) float32
        Precision along the wave and across it, per class, of the complex kind (1/E|error|^2 where
        all directions are alike).
    waves : (N, K, P, Q) complex64 or None
        Whose directions these are; None where the two weights are the same.
    inverse_spectrum : (H, W) float32
        1/C in Fourier space.
    data_precision : 0-d float32
        Mean over the lit object of the diagonal of A* W A: for the preconditioner.
    probe_precision : (P, Q) float32 or None
        Diagonal of the probe's block of H.
    """

    problem: Problem
    ctx: Context
    probes: Array
    object: Array | None
    classes: Array
    weights: Array
    waves: Array | None
    inverse_spectrum: Array
    data_precision: Array
    probe_precision: Array | None

    def forward(self, b: slice, x: Change) -> Array:
        """A x for the frames of a block, (B, K, P, Q)."""
        k, problem = self.ctx.backend.kernels, self.problem
        shape, corners, which = problem.frame_shape, problem.corners[b], problem.shift_index[b]
        psi = self.probes[which] * k.gather(x[0], corners, shape)[:, None]
        if x[1] is not None and self.object is not None:
            moved = k.shift(x[1], problem.shifts[which])
            psi = psi + moved * k.gather(self.object, corners, shape)[:, None]
        return problem.propagator.forward(psi, which, self.ctx.backend)

    def pull(self, b: slice, wave: Array, out: Change) -> None:
        """out += A* wave, for the frames of a block."""
        k, problem = self.ctx.backend.kernels, self.problem
        corners, which = problem.corners[b], problem.shift_index[b]
        psi = problem.propagator.backward(wave, which, self.ctx.backend)
        k.scatter_add(out[0], corners, (self.probes[which].conj() * psi).sum(axis=1))
        if out[1] is not None and self.object is not None:
            pulled = k.gather(self.object, corners, problem.frame_shape).conj()[:, None] * psi
            out[1][:] += k.shift(pulled, problem.shifts[which], -1).sum(axis=0)

    def weigh(self, b: slice, wave: Array, root: bool = False) -> Array:
        """W wave, or W^1/2 wave."""
        weights = self.ctx.backend.xp.sqrt(self.weights) if root else self.weights
        return self.ctx.backend.kernels.weigh(
            wave, self.classes[b], weights, None if self.waves is None else self.waves[b]
        )

    def zeros(self) -> Change:
        """No change."""
        xp = self.ctx.backend.xp
        probe = None if self.object is None else xp.zeros(self.probes.shape[1:], "complex64")
        return xp.zeros(self.inverse_spectrum.shape, "complex64"), probe

    def hessian(self, x: Change) -> Change:
        """H x."""
        problem, backend = self.problem, self.ctx.backend
        scan = problem.shifts, problem.shift_index, problem.corners
        data = self.classes, self.weights, self.waves, problem.propagator.transfer, backend.threads
        return self.summed(backend.kernels.curvature(*x, self.probes, self.object, *scan, *data), x)

    def summed(self, out: Change, x: Change) -> Change:
        """The parts of all processes, and the prior's share of H x."""
        comm = self.ctx.comm
        O = comm.sum(out[0]) + self.filtered(x[0], self.inverse_spectrum)
        if out[1] is None or x[1] is None or self.probe_precision is None:
            return O, None
        return O, comm.sum(out[1]) + PROBE_RIDGE * self.probe_precision.mean() * x[1]

    def filtered(self, field: Array, transfer: Array) -> Array:
        """A field times a real transfer function in Fourier space."""
        backend = self.ctx.backend
        return backend.ifft2(transfer * backend.fft2(field)).astype("complex64")

    def precondition(self, r: Change) -> Change:
        """An easily inverted likeness of H^-1: the lit region everywhere, no coupling of object and
        probe.
        """
        O = self.filtered(r[0], 1 / (self.inverse_spectrum + self.data_precision))
        return O, None if r[1] is None or self.probe_precision is None else r[
            1
        ] / self.probe_precision

    def solve(self, b: Change, start: Change | None, iterations: int) -> Change:
        """H x = b after a fixed number of iterations."""
        xp = self.ctx.backend.xp
        x = self.zeros() if start is None else start
        r = b if start is None else _add(b, -1, self.hessian(start))
        z = self.precondition(r)
        p, rz = z, _dot(r, z, xp)
        for _ in range(iterations):
            q = self.hessian(p)
            step = (rz / xp.maximum(_dot(p, q, xp), 1e-30)).astype("float32")
            x, r = _add(x, step, p), _add(r, -step, q)
            z = self.precondition(r)
            new = _dot(r, z, xp)
            p, rz = _add(z, (new / xp.maximum(rz, 1e-30)).astype("float32"), p), new
        return x


def _add(a: Change, factor: Any, b: Change) -> Change:
    return a[0] + factor * b[0], None if a[1] is None or b[1] is None else a[1] + factor * b[1]


def _dot(a: Change, b: Change, xp: Any) -> Array:
    """Re <a, b>, in double precision."""
    total = xp.zeros((), "float64")
    for one, other in zip(a, b, strict=True):
        if one is not None and other is not None:
            total = total + (one.conj() * other).real.sum(dtype="float64")
    return total
