"""Chains of Hamiltonian Monte Carlo, and whether they agree (see `sampling`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from ..run.progress import Tell
from ..types import COMPLEX, Array, ComplexArray, FloatArray, PtychonError
from .potential import Potential
from .prior import Spectral

#: Steps of a trajectory on average, share of the passes that warm up, and what share of
#: trajectories should be accepted.
STEPS, WARM, ACCEPTED = 32, 0.25, 0.8
#: Averages of a chain in a row, from which its precision is told, and how many there have to be of
#: one that ends early.
BATCHES, LEAST = 10, 4

Lay = Callable[[ComplexArray, ComplexArray], ComplexArray]


@dataclass(frozen=True)
class Mass:
    """M of the momenta: the nearer it is to the curvature, the faster all directions move.

    Attributes
    ----------
    diagonal : (n,) float32
        Of each real part.
    between : Spectral, optional
        Of the object instead: the precision of its stationary prior plus `light`, diagonal in
        Fourier space. That of details which a prior rules out is 1e9 times that of coarse ones,
        which would hardly move otherwise.
    light : float
        What the data tell of each real part of a lit pixel.
    shape : (H, W)
        Of the object.
    """

    diagonal: Array
    between: Spectral | None = None
    light: float = 0.0
    shape: tuple[int, int] = (0, 0)

    def draw(self, rng: np.random.Generator, move: Callable[[Any], Array]) -> Array:
        """N(0, M)."""
        white = rng.standard_normal((self.diagonal.size, 2), np.float32).view(np.complex64)[:, 0]
        p = move(white) * self.diagonal**0.5
        if self.between is not None:
            n = math.prod(self.shape)
            p[:n] = move(white[:n] * np.float32(self.light**0.5))
            p[:n] += Spectral.noise(self.between, rng).reshape(-1)
        return p

    def velocity(self, p: Array) -> Array:
        """M^-1 p."""
        v = p / self.diagonal
        if self.between is not None:
            n = math.prod(self.shape)
            field = p[:n].reshape(1, *self.shape)
            v[:n] = Spectral.inverse(self.between, field, self.light).reshape(-1)
        return v


@dataclass
class Chain:
    """One chain: where it is, and sums over where it was.

    Parameters
    ----------
    potential : Potential
    mass : Mass
    x : (n,) complex64
        The start.
    rng : numpy.random.Generator
    lay : callable
        Aligns an object (H, W), given the probe (K, P, Q) that was drawn with it.
    keep : int
        Draws that are kept.
    learn : bool
        Draw the noise variance too.
    stop : threading.Event
        Once set, the chain ends with an error.
    hurry : threading.Event
        Once set, it ends with the averages that it has, as soon as they are enough.
    """

    potential: Potential
    mass: Mass
    x: Array
    rng: np.random.Generator
    lay: Lay
    keep: int
    learn: bool = False
    stop: Event = field(default_factory=Event)
    hurry: Event = field(default_factory=Event)
    accepted: int = 0
    means: list[ComplexArray] = field(default_factory=list)
    total: Any = 0.0
    power: Any = 0.0
    square: Any = 0.0
    count: int = 0
    misfit: Any = 0.0
    variances: list[float] = field(default_factory=list)
    kept: list[ComplexArray] = field(default_factory=list)

    def run(self, passes: int, tell: Tell) -> Chain:
        """Warm up, then wander."""
        here, warm, done, step = self.potential(self.x), int(WARM * passes), 0, _Step()
        while done < warm:
            here, length, chance = self._trajectory(here, step.now)
            step.fit(chance)
            done += length
            tell("warming up", min(done, passes), passes)
        self.accepted, rest = 0, (passes - done) / BATCHES
        marks = [done + (passes - done) * (i + 0.5) / self.keep for i in range(self.keep)]
        for batch in range(1, BATCHES + 1):
            total: Any = 0.0
            power: Any = 0.0
            square: Any = 0.0
            members = 0
            while not members or done < passes - (BATCHES - batch) * rest:
                if self.hurry.is_set() and self.enough:
                    return self
                here, length, _ = self._trajectory(here, step.settled)
                done, members = done + length, members + 1
                drawn = self.lay(
                    *map(self.potential.backend.to_host, self.potential.unpack(self.x))
                ).astype(np.complex128)
                total, power = total + drawn, power + np.abs(drawn) ** 2
                square = square + drawn**2
                self.variances.append(self.potential.noise.variance)
                if len(self.kept) < self.keep and done >= marks[len(self.kept)]:
                    self.kept.append(drawn.astype(COMPLEX))
                    self.misfit = self.misfit + np.array(self.potential.misfit(self.x))
                tell("sampling", min(done, passes), passes)
            self.means.append((total / members).astype(COMPLEX))
            self.total, self.power = self.total + total, self.power + power
            self.square, self.count = self.square + square, self.count + members
        return self

    @property
    def enough(self) -> bool:
        """Whether there is something to tell if it ends now."""
        return len(self.means) >= LEAST

    def _trajectory(
        self, here: tuple[float, Array], e: float
    ) -> tuple[tuple[float, Array], int, float]:
        """One trajectory from here (U and its gradient): where it ended, its gradients, its chance
        of being accepted.
        """
        rng, move = self.rng, self.potential.backend.asarray
        length, e = int(rng.integers(STEPS // 2, 3 * STEPS // 2 + 1)), e * rng.uniform(0.8, 1.2)
        p = self.mass.draw(rng, move)
        x, (U, force) = self.x, here
        before = U + self._kinetic(p)
        for _ in range(length):
            if self.stop.is_set():
                raise PtychonError("the chain was stopped")
            p = p - np.float32(0.5 * e) * force
            x = x + np.float32(e) * self.mass.velocity(p)
            new, force = self.potential(x)
            p = p - np.float32(0.5 * e) * force
            if not math.isfinite(new):
                break
        change = before - new - self._kinetic(p)
        chance = math.exp(min(0.0, change)) if math.isfinite(change) else 0.0
        if rng.random() < chance:
            self.x, here = x, (new, force)
            self.accepted += 1
        if self.learn:
            here = self.potential.draw_variance(self.x, here, rng)
        return here, length, chance

    def _kinetic(self, p: Array) -> float:
        v = self.mass.velocity(p)
        return 0.5 * float((p.real * v.real + p.imag * v.imag).sum(dtype="float64"))


class _Step:
    """The step, its logarithm moved towards the share that should be accepted by ever smaller
    amounts.
    """

    def __init__(self) -> None:
        self.logs = [math.log(0.1)]

    @property
    def now(self) -> float:
        return math.exp(self.logs[-1])

    @property
    def settled(self) -> float:
        """Its mean over the second half of what was tried."""
        return math.exp(float(np.mean(self.logs[len(self.logs) // 2 :])))

    def fit(self, chance: float) -> None:
        self.logs.append(self.logs[-1] + (chance - ACCEPTED) / math.sqrt(len(self.logs)))


def agreement_of(
    means: FloatArray | ComplexArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """R^ of half chains, and the number of independent draws, of each pixel.

    Parameters
    ----------
    means : (chains, batches, H, W) complex
    variance : (H, W) float
        Over everything that was drawn.
    """
    half = means.shape[1] // 2
    halves = np.stack([means[:, :half].mean(axis=1), means[:, half:].mean(axis=1)])
    halves = halves.reshape(-1, *variance.shape)
    between = (np.abs(halves - halves.mean(axis=0)) ** 2).sum(axis=0) / (len(halves) - 1)
    within = np.maximum(variance - between * (1 - 1 / len(halves)), 1e-3 * variance)
    batches = means.reshape(-1, *variance.shape)
    scatter = (np.abs(batches - batches.mean(axis=0)) ** 2).sum(axis=0) / (len(batches) - 1)
    return np.sqrt(1 + between / within), len(batches) * variance / np.maximum(scatter, 1e-30)
