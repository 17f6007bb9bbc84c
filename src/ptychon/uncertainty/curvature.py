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
that is 2/S on each real part; positions, doses and distance about those that were stated.

For object and probe alone the operator is `model.thin.Thin`, with its compiled product; with
unknowns of single frames, which are eliminated, a background, a distance, or a probe that frames
see with a dose or a variation of their own it is `model.marginal.Marginal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..backends.base import Backend
from ..kernels.curvature import ByPixel
from ..kernels.reference import TINY
from ..model.batch import shifted_probes
from ..model.detector import Detector
from ..model.forward import Model
from ..model.marginal import Marginal
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.pulls import Together, held_diagonal
from ..model.solve import solve
from ..model.thin import Scan, Thin
from ..model.unknowns import Unknowns, declared
from ..types import COMPLEX, REAL, Array, ComplexArray, FloatArray
from .orbit import Orbit
from .tilt import Tilt

#: What the compiled product of a fixed scan moves.
THIN = frozenset({"object", "probe"})
#: Counts below which the information on a background stays finite, and moduli below which its
#: score is taken at this one.
DARK, SMALL = 1e-6, 1e-3
#: Measured numbers from which a product is worth threads, and parts of its sum, so that it does not
#: depend on how many there are.
WORTH, PARTS = 500_000, 4


class Solution(NamedTuple):
    """H x = g solved for all unknowns.

    Attributes
    ----------
    x : Unknowns
        Those of single frames among them.
    rhs : Unknowns
        What was solved for, without these.
    rest : Unknowns
        Of the unknowns of frames, the part that x has a share in.
    residual : float
    iterations : int
    """

    x: Unknowns
    rhs: Unknowns
    rest: Unknowns
    residual: float
    iterations: int


@dataclass
class Curvature:
    """-log posterior at one point, and H there.

    Attributes
    ----------
    problem : Problem
        On the backend's device.
    x : Unknowns
        The point: object (1, H, W) and probe (K, P, Q) complex64; positions, doses, variations
        and weights where they are free or frames differ in them; background where it is free, what
        it is more than that of `noise`; distance where it is free.
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
    columns : (n, P, Q) float32 or None
        Of the background (see `Marginal`).
    between : mapping of str to FieldPrior
        Priors that hold pixels of a field together, beside `prior`, by its name.
    tilt : Tilt, optional
        What a mean of the posterior has beside the deepest point.
    equal, untold : Orbit, optional
        Along which no step is to move; and what no data tell.
    """

    problem: Problem
    x: Unknowns
    noise: Noise
    backend: Backend
    update: Sequence[str]
    prior: Unknowns
    spread: Array | None = None
    mean: Unknowns = field(default_factory=Unknowns)
    columns: Array | None = None
    between: Together = field(default_factory=dict)
    tilt: Tilt | None = None
    equal: Orbit | None = field(default=None, init=False)
    untold: Orbit | None = field(default=None, init=False)
    #: What the data tell of each real part of a field, on average where it is lit.
    even: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        x, problem = self.x, self.problem
        apart = (x.log_scale, x.variations, x.background, x.distance)
        self.thin = set(self.update) <= THIN and all(a is None for a in apart)
        self.own = [name for name in self.update if declared()[name].per_frame]
        self.at_x = self.noise_at(x)
        if not self.thin:
            detector = Detector(problem.propagator, mask=problem.mask)
            self.model = Model.of(problem, self.backend, detector=detector)
        weights = self._weights()
        self.H: Thin | Marginal
        if self.thin:
            free = "probe" in self.update
            self.H = Thin(self._scan(x), ByPixel(*weights[:2]), free, self.prior)
        else:
            shared = [name for name in self.update if name not in self.own]
            self.H = Marginal(
                *(self.model, x, shared, self.own, *weights, self.prior, self.columns)
            )
        self.H.between = self.between
        if problem.amplitude.size >= WORTH:
            self.H.threads, self.H.parts = self.backend.threads, PARTS
        self.diagonal = self.H.diagonal()

    def _weights(self) -> tuple[Array, Array | None, Array | None]:
        """rho, the information across waves, and the root of that on the background."""
        xp, problem = self.backend.xp, self.problem
        shape = (len(problem), *problem.frame_shape)
        radial = xp.empty((len(problem), *self.x.probe.shape), COMPLEX)
        across = None if self.spread is None else xp.empty(shape, REAL)
        root = xp.empty(shape, REAL) if "background" in self.update else None
        for b, wave in self._all_waves(self.x):
            # the kernel knows the information on the wave of one mode
            if self._compiled and across is not None and root is None and wave.shape[1] == 1:
                _, _, factor, across[b] = self._of_counts(wave, b, self.at_x)
                radial[b] = wave * factor[:, None]
                continue
            m, valid = self.modulus(wave), problem.mask_of(b)
            along, share = self._information(m, b)
            strength = xp.sqrt(xp.where(valid, along, 0))
            factor = xp.where(m > TINY, strength / xp.maximum(m, REAL.type(TINY)), 0)
            radial[b] = wave * factor[:, None].astype(REAL)
            if across is not None:
                across[b] = xp.where(valid, share, 0)
            if root is not None:
                light = m**2 + xp.asarray(self.at_x.background, REAL)
                light = light if self.spread is None else light + self.spread[b][:, None, None]
                root[b] = xp.where(valid, 1 / xp.sqrt(xp.maximum(light, DARK)), 0)
        return radial, across, root

    @property
    def _compiled(self) -> bool:
        """Whether averages over uncertain waves are those of a kernel: of counts."""
        counts = self.noise.kind == "poisson" and self.x.precision == "single"
        return counts and self.spread is not None

    def _of_counts(self, wave: Array, b: slice, noise: Noise) -> tuple[Array, Array, Array, Array]:
        """-log p of the frames of a block, its pull over m, and the information along over m and
        across.
        """
        problem, move = self.problem, self.backend.asarray
        dark = move(np.asarray(noise.background, REAL))
        kernel = self.backend.kernels.uncertain_counts
        found: tuple[Array, Array, Array, Array] = kernel(
            *(wave, noise.root(problem, b), problem.mask_of(b), self.spread[b]),  # type: ignore[index]
            dark if dark.ndim else dark.reshape(1, 1, 1),
            self.backend.threads,
        )
        return found

    def noise_at(self, x: Unknowns) -> Noise:
        """The noise with the background of an estimate, which is never less than none."""
        whole = self._background(x)
        return self.noise if whole is None else replace(self.noise, background=np.maximum(whole, 0))

    def _background(self, x: Unknowns) -> FloatArray | None:
        """All of the background of an estimate where it is free, (1, P, Q) on the host; it may be
        negative.
        """
        if x.background is None:
            return None
        image = x.background
        if self.columns is not None:
            image = self.backend.xp.tensordot(x.background[0], self.columns, 1)
        whole = np.asarray(self.noise.background) + self.backend.to_host(image)[None]
        return np.asarray(whole, REAL)

    def _scan(self, x: Unknowns) -> Scan:
        probes = shifted_probes(x.probe, self.problem, self.backend.kernels)
        probes = self.backend.xp.ascontiguousarray(probes)
        return Scan(self.problem, self.backend, x.object[0], probes)

    def _all_waves(self, x: Unknowns) -> Any:
        """Blocks of frames with their waves, at any unknowns."""
        if self.thin:
            scan = self._scan(x)
            return ((b, scan.waves(b)) for b in scan.blocks())
        blocks = Marginal.slices(x, len(self.problem))
        return ((b, self.model.view(x, b).waves) for b in blocks)

    def _information(self, m: Array, b: slice) -> tuple[Array, Array | None]:
        """Information along the wave beyond that across it, and that across it, (B, P, Q)."""
        if self.spread is None:
            return self.at_x.at(b).information(m), None
        host = self.backend.to_host
        modes = len(self.x.probe)
        both = self.at_x.at(b).averaged_information(host(m), host(self.spread[b]), modes)
        along, across = (self.backend.asarray(a) for a in both)
        return along - across, across

    def hold(self, gauge: ComplexArray) -> None:
        """Give directions of object, probe and variations (m, n), independent in real and
        imaginary parts, a stiffness.

        With M^-1 what systems are preconditioned by, H gains M G (G^T M G)^-1 G^T M, to the
        preconditioned system m eigenvalues of 1. The same stiffness for all numbers would be
        thousands of times that of those which the data hardly tell, and conjugate gradients in
        single precision find such an eigenvalue again and again.
        """
        self.even = {name: self.even_light(name) for name in ("object", *self.between)}
        self.H.stiffness = self.even["object"]
        directions = self._directions(gauge)
        self.untold = Orbit(directions, self._heavy(directions), self.backend)
        self.H.gauge = self.untold.rows(self.H.stiffness)
        self.diagonal = held_diagonal(self.diagonal, self.H.gauge, self.H.stiffness)

    def keep_off(self, directions: Unknowns) -> None:
        """Let no step move along directions (n, ...) in which all data are equal, by what these
        tell of object, probe and variations. Before `hold`.
        """
        lit = self.diagonal.only([n for n in ("probe", "variations") if n in self.diagonal.names])
        lit.object = self.light
        own = directions.only([name for name in directions.names if name in self.update])
        self.equal = Orbit(own, own.times(lit), self.backend)

    def _heavy(self, rows: Unknowns) -> Unknowns:
        """M times changes along a first axis of each field, M^-1 being `_near` or the diagonal."""
        found = rows.times(self.diagonal)
        for name, prior in self.between.items():
            light = REAL.type(self.even[name])
            for own, heavy in zip(getattr(rows, name), getattr(found, name), strict=True):
                heavy[:] = prior(own) + light * own
        return found

    @property
    def light(self) -> Array:
        """What the data tell of each real part of the object, (1, H, W), and what its prior tells
        of each pixel alone.
        """
        return self._light("object")

    def _light(self, name: str) -> Array:
        prior = self.between.get(name)
        own = 0.0 if prior is None else prior.diagonal
        return getattr(self.diagonal, name) - self.backend.xp.asarray(own, REAL)

    def even_light(self, name: str) -> float:
        """What the data tell of each real part of a field, on average where it is lit."""
        light = self._light(name)
        return float(light[light > 0.1 * light.max()].mean())

    def _directions(self, rows: ComplexArray) -> Unknowns:
        found, first = {}, 0
        for name in ("object", "probe", "variations"):
            if name in self.update:
                like = getattr(self.x, name)
                part = np.ascontiguousarray(rows[:, first : first + like.size], COMPLEX)
                found[name] = self.backend.asarray(part).reshape(len(rows), *like.shape)
                first += like.size
        return Unknowns(**found)

    # ------------------------------------------------------------ waves

    def blocks(self) -> list[slice]:
        """Frames in slices."""
        return self.H.blocks()

    def modulus(self, wave: Array) -> Array:
        """m (B, P, Q)."""
        return self.backend.xp.sqrt((wave.real**2 + wave.imag**2).sum(axis=1))

    def change(self, b: slice, d: Unknowns) -> tuple[Array, Array]:
        """How the waves of a block change, (B, K, P, Q), and the information on all of the change,
        (B, P, Q).
        """
        wave = self.H.tangent(b, d)
        if isinstance(self.H, Marginal):
            return wave, self.H.taken(b, wave, d)
        return wave, self.H.taken(b, wave)

    # ------------------------------------------------------------ linear systems

    def solved(
        self, gradient: Unknowns, tolerance: float, iterations: int, start: Unknowns | None = None
    ) -> Solution:
        """(normal matrix of all)^-1 gradient, the tolerance being that of a start from 0."""
        if start is not None:
            start = start.only([name for name in start.names if name not in self.own])
        near = self._near if self.between else self.diagonal
        if isinstance(self.H, Thin):
            found = solve(self.H, gradient, near, tolerance, iterations, start)
            return Solution(found.x, gradient, Unknowns(), found.residual, found.iterations)
        rhs, u = self.H.reduced(gradient)
        found = solve(self.H, rhs, near, tolerance, iterations, start)
        own, rest = self.H.frames(found.x, u)
        return Solution(found.x.axpy(1, own), rhs, rest, found.residual, found.iterations)

    def _near(self, r: Unknowns) -> Unknowns:
        """Near H^-1 r: where a prior holds pixels together as if they were lit evenly, of the rest
        by its diagonal.
        """
        rest = r.only([name for name in r.names if name not in self.between])
        found = {
            name: prior.inverse(getattr(r, name), self.even[name])
            for name, prior in self.between.items()
        }
        return rest.times(self.diagonal.map(lambda array: 1 / array)).axpy(1, Unknowns(**found))

    # ------------------------------------------------------------ -log posterior

    def gradient(self) -> Unknowns:
        """Gradient of -log posterior here, in real and imaginary parts, by all that is free."""
        xp, problem, H = self.backend.xp, self.problem, self.H
        out = self.x.zeros(self.update)
        # where a background would be negative it is none, and does not change
        whole = self._background(self.x)
        there = None if whole is None else self.backend.asarray(whole >= 0)
        for b, wave in self._all_waves(self.x):
            if self._compiled and out.background is None:
                H.adjoint(b, wave * self._of_counts(wave, b, self.at_x)[1][:, None], out)
                continue
            m, valid = self.modulus(wave), problem.mask_of(b)
            pull = xp.where(valid, self._pull(m, b), 0)
            factor = xp.where(m > TINY, pull / xp.maximum(m, REAL.type(TINY)), 0).astype(REAL)
            if out.background is not None and there is not None and isinstance(H, Marginal):
                bright = xp.maximum(m, REAL.type(SMALL))
                score = xp.where(valid & there, self._pull(bright, b) / (2 * bright), 0)
                out.background += H.asked(score.sum(axis=0))
            H.adjoint(b, wave * factor[:, None], out)
        out = out.axpy(1, self.pressed(self._off(self.x)))
        return out if self.tilt is None else out.axpy(1, self.tilt.slope)

    def pressed(self, d: Unknowns) -> Unknowns:
        """Precision of the prior times a change."""
        own = {name: prior(getattr(d, name)) for name, prior in self.between.items()}
        return d.times(self.prior).axpy(1, Unknowns(**own))

    def _pull(self, m: Array, b: slice) -> Array:
        return self.backend.asarray(self.at_x.at(b).pull(*self._host(m, b)))

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
        total, x = 0.0, self.x if x is None else x
        noise = self.noise_at(x)
        for b, wave in self._all_waves(x):
            if self._compiled:
                total += float(self._of_counts(wave, b, noise)[0].sum())
                continue
            each = noise.at(b).energy(*self._host(self.modulus(wave), b))
            valid = self.backend.to_host(self.problem.mask_of(b))
            total += float(np.where(valid, each, 0).sum())
        off = self._off(x)
        total += 0.5 * float(off.dot(self.pressed(off)))
        return total if self.tilt is None else total + self.tilt.energy(x)

    def moved(self, length: float, d: Unknowns) -> Unknowns:
        """The point after a step."""
        return self.x.axpy(length, d)
