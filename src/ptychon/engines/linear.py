r"""The Gaussian belief over object and probe: the Gauss-Newton operator with weights of classes and
a prior in Fourier space, and its systems solved in a fixed number of iterations.

A change x = (dO, dP) of object and probe changes the detector waves by A x = F[ P dO + dP O ] (dP =
0 where the probe is known), and the belief's precision is H = A* W A + C^-1 on the object and a
little ridge on the probe (see `model.thin`). W weighs each detector pixel by its class: alike in
all directions, or with one weight along the wave and one across it. C is the prior's covariance,
diagonal in the object's Fourier space (see `spectral_prior`). Nothing here looks at a number, so
that a device never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.curvature import ByClass
from ..model.problem import Problem
from ..model.solve import solve
from ..model.thin import Scan, Thin
from ..model.unknowns import Unknowns
from ..types import COMPLEX, Array
from .base import Context

#: Ridge on the probe, relative to the mean of its own precision.
PROBE_RIDGE = 1e-3


@dataclass(frozen=True)
class Stationary:
    """The prior, and an easily inverted likeness of H: the lit region everywhere, no coupling of
    object and probe.

    Attributes
    ----------
    backend : Backend
    inverse_spectrum : (H, W) float32
        1/C in Fourier space.
    data_precision : 0-d float32
        Mean over the lit object of the diagonal of A* W A.
    probe_precision : (P, Q) float32 or None
        Diagonal of the probe's block of H; None where the probe is known.
    """

    backend: Any
    inverse_spectrum: Array
    data_precision: Array
    probe_precision: Array | None

    def __call__(self, d: Unknowns) -> Unknowns:
        """The precision times a change."""
        return Unknowns(
            object=self.filtered(d.object, self.inverse_spectrum),
            probe=None
            if d.probe is None or self.probe_precision is None
            else PROBE_RIDGE * self.probe_precision.mean() * d.probe,
        )

    def precondition(self, r: Unknowns) -> Unknowns:
        """About H^-1 r."""
        return Unknowns(
            object=self.filtered(r.object, 1 / (self.inverse_spectrum + self.data_precision)),
            probe=None
            if r.probe is None or self.probe_precision is None
            else r.probe / self.probe_precision,
        )

    def filtered(self, field: Array, transfer: Array) -> Array:
        """A field times a real transfer function in Fourier space."""
        return self.backend.ifft2(transfer * self.backend.fft2(field)).astype(COMPLEX)


@dataclass(frozen=True)
class Linear:
    """H, and what is solved with it."""

    H: Thin
    prior: Stationary

    @classmethod
    def of(
        cls,
        problem: Problem,
        ctx: Context,
        object: Array,
        probes: Array,
        weights: ByClass,
        prior: Stationary,
    ) -> Linear:
        """At an object (H, W) and the probe at each distinct shift (U, K, P, Q)."""
        free, backend = prior.probe_precision is not None, ctx.backend
        scan = Scan(problem, backend, object, probes)
        return cls(Thin(scan, weights, free, prior, comm=ctx.comm, threads=backend.threads), prior)

    def solve(self, b: Unknowns, start: Unknowns | None, iterations: int) -> Unknowns:
        """H x = b after a fixed number of iterations."""
        return solve(self.H, b, self.prior.precondition, None, iterations, start).x
