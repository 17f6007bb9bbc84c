"""-log posterior about a solution: its value, its gradient, and its curvature as a Gauss-Newton
operator with the noise's information for weights.

Unknowns are real and imaginary parts of the object O and, where they were learned too, of the
probe P, positions and doses. With z the waves of a frame at the detector, m = sqrt(sum_k |z_k|^2)
and i(m) the Fisher information of m (see `noise`), the expected (Fisher) information is

    H = T* A T + prior,   T = d z/d x,   A w = i(m) z/m Re sum_k (z_k/m)* w_k

i(m) along the wave, nothing across it. The observed curvature across it, i(m)(1 - y/m) for
amplitudes, may be negative and averages to zero. Where a wave is not known well enough to have a
direction, z ~ CN(z^, V), -log p, its gradient and its curvature are averaged over it (see `noise`):
the solution is then the mean, and H the precision, of the best Gaussian approximation of the
posterior (Opper & Archambeau, Neural Comput. 21, 786 (2009)) and not of its deepest point. V is one
number a frame. With V = 0 this is Laplace's approximation. Priors: O ~ CN(0, S), P ~ CN(0, S_P),
that is 2/S on each real part; positions and doses about those that were measured.

For object and probe alone the operator is `model.thin.Thin`, with its compiled product; any other
unknowns go through `model.gauss_newton.GaussNewton` and the derivatives of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..kernels.curvature import ByPixel
from ..kernels.reference import TINY
from ..model.batch import shifted_probes
from ..model.detector import Detector
from ..model.forward import Model
from ..model.gauss_newton import GaussNewton, held_diagonal
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.thin import Scan, Thin
from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, Array, ComplexArray, FloatArray

#: What the compiled product moves.
THIN = frozenset({"object", "probe"})


@dataclass
class Curvature:
    """-log posterior at one point, and H there.

    Attributes
    ----------
    problem : Problem
        On the backend's device.
    x : Unknowns
        The point: object (1, H, W) and probe (K, P, Q) complex64; positions and doses where they
        are free.
    noise : Noise
    backend : Backend
    update : sequence of str
        What is free.
    prior : Unknowns
        Precision of each real number that is free.
    spread : (N,) float32 or None
        V of each frame, summed over modes.
    mean : Unknowns
        Of the prior, where it is not 0.
    """

    problem: Problem
    x: Unknowns
    noise: Noise
    backend: Backend
    update: Sequence[str]
    prior: Unknowns
    spread: Array | None = None
    mean: Unknowns = field(default_factory=Unknowns)

    def __post_init__(self) -> None:
        self.thin = set(self.update) <= THIN and self.x.log_scale is None
        scan = self._scan(self.x)
        xp, shape = self.backend.xp, (len(self.problem), *self.problem.frame_shape)
        radial = xp.empty((len(self.problem), *self.x.probe.shape), COMPLEX)
        across = None if self.spread is None else xp.empty(shape, REAL)
        self.H: Thin | GaussNewton = Thin(
            scan, ByPixel(radial, across), "probe" in self.update, self.prior
        )
        for b in scan.blocks():
            wave = scan.waves(b)
            m = self.modulus(wave)
            along, share = self._information(m, b)
            root = xp.sqrt(xp.where(self.problem.mask_of(b), along, 0))
            factor = xp.where(m > TINY, root / xp.maximum(m, REAL.type(TINY)), 0)
            radial[b] = wave * factor[:, None].astype(REAL)
            if across is not None:
                across[b] = xp.where(self.problem.mask_of(b), share, 0)
        self.diagonal = self.H.diagonal()
        if not self.thin:
            self._generalise()

    def _generalise(self) -> None:
        """The operator with the model's derivatives; its diagonal for object and probe stays."""
        detector = Detector(self.problem.propagator, mask=self.problem.mask)
        model = Model.of(self.problem, self.backend, detector=detector)

        def along(light: Array, b: Any) -> Array:
            found = self._information(self.backend.xp.sqrt(light), b)[0]
            return found / (4 * light.clip(TINY, None))

        def across(light: Array, b: Any) -> Array:
            return self._information(self.backend.xp.sqrt(light), b)[1]

        self.H = GaussNewton(
            model,
            self.x,
            self.update,
            information=along,
            prior=self.prior,
            across=None if self.spread is None else across,
        )
        own = [name for name in self.update if name not in THIN]
        self.diagonal = self.diagonal.axpy(1, self.H.diagonal().only(own))

    def _scan(self, x: Unknowns) -> Scan:
        probes = shifted_probes(x.probe, self.problem, self.backend.kernels)
        probes = self.backend.xp.ascontiguousarray(probes)
        return Scan(self.problem, self.backend, x.object[0], probes)

    def _information(self, m: Array, b: slice) -> tuple[Array, Array | None]:
        """Information along the wave beyond that across it, and that across it, (B, P, Q)."""
        if self.spread is None:
            return self.noise.at(b).information(m), None
        host = self.backend.to_host
        both = self.noise.at(b).averaged_information(host(m), host(self.spread[b]))
        along, across = (self.backend.asarray(a) for a in both)
        return along - across, across

    def hold(self, gauge: ComplexArray) -> None:
        """Give directions of object and probe (m, n), orthonormal in real and imaginary parts, a
        stiffness like that of what the data tell.
        """
        light = self.diagonal.object
        self.H.stiffness = float(light[light > 0.1 * light.max()].mean())
        self.H.gauge = self._directions(gauge)
        self.diagonal = held_diagonal(self.diagonal, self.H.gauge, self.H.stiffness)

    def _directions(self, rows: ComplexArray) -> Unknowns:
        n, move = self.x.object.size, self.backend.asarray
        parts = {"object": rows[:, :n], "probe": rows[:, n:]}
        return Unknowns(
            **{
                name: move(np.ascontiguousarray(parts[name], COMPLEX)).reshape(
                    len(rows), *getattr(self.x, name).shape
                )
                for name in parts
                if name in self.update
            }
        )

    # ------------------------------------------------------------ waves

    def blocks(self) -> list[slice]:
        """Frames in slices."""
        return self.H.blocks()

    def modulus(self, wave: Array) -> Array:
        """m (B, P, Q)."""
        return self.backend.xp.sqrt((wave.real**2 + wave.imag**2).sum(axis=1))

    # ------------------------------------------------------------ -log posterior

    def gradient(self) -> Unknowns:
        """Gradient of -log posterior here, in real and imaginary parts."""
        xp, problem, out = self.backend.xp, self.problem, self.H.zeros()
        for b in self.blocks():
            wave = self.H.waves(b)
            m = self.modulus(wave)
            pull = self.backend.asarray(self.noise.at(b).pull(*self._host(m, b)))
            pull = xp.where(problem.mask_of(b), pull, 0)
            factor = xp.where(m > TINY, pull / xp.maximum(m, REAL.type(TINY)), 0).astype(REAL)
            self.H.adjoint(b, wave * factor[:, None], out)
        return out.axpy(1, self._off(self.x).times(self.prior))

    def _off(self, x: Unknowns) -> Unknowns:
        """What is free, less the mean of its prior."""
        mean = self.mean.only([name for name in self.mean.names if name in self.update])
        return x.only(self.update).axpy(-1, mean)

    def _host(self, m: Array, b: slice) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Modulus, measured amplitude and V of a block, on the host: special functions are not on
        every device.
        """
        host = self.backend.to_host
        data = host(self.noise.root(self.problem, b))
        return host(m), data, None if self.spread is None else host(self.spread[b]).astype(float)

    def energy(self, x: Unknowns | None = None) -> float:
        """-log posterior of any unknowns, by default those of this point."""
        problem, total = self.problem, 0.0
        x = self.x if x is None else x
        scan = self._scan(x) if self.thin else None
        for b in self.blocks():
            wave = self._waves_at(x, b) if scan is None else scan.waves(b)
            each = self.noise.at(b).energy(*self._host(self.modulus(wave), b))
            total += float(np.where(self.backend.to_host(problem.mask_of(b)), each, 0).sum())
        off = self._off(x)
        return total + 0.5 * float(off.dot(off.times(self.prior)))

    def _waves_at(self, x: Unknowns, b: slice) -> Array:
        assert isinstance(self.H, GaussNewton)
        return self.H.model.view(x, b).waves

    def moved(self, length: float, d: Unknowns) -> Unknowns:
        """The point after a step."""
        return self.x.axpy(length, d)
