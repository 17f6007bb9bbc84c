r"""Gauss-Newton steps from the joint posterior to the optimum, with the draws that belong to it.

The messages of expectation propagation hold the phase of each wave, which the data do not know. So
passes move the mean slowly along directions that the data hold loosely by the phases of all pixels
together: coarse structures, and what object and probe can trade. Here the phase is free. With g and
H of -log posterior (see `curvature`; information along each wave, averaged where waves are
uncertain) and the learned stationary prior,

    [d, x_1 .. x_S] = H^-1 [-g, t_1 .. t_S],    t_s ~ N(0, H)
    (O, P) <- (O, P) + d,   S_k <- learned spectrum,   V <- spread of each wave, of x_1 .. x_S

until d is small against the draws at every octave of spatial frequency, or after `ROUNDS`. All
systems are solved together (see `model.block_solve`), each round from the draws of the last one,
which keep their noise. With a known probe the passes have the last word: nothing is soft there but
coarse structures, and at few counts the moments of each pixel are better than these averages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..data.result import Result
from ..engines import spectral_prior as stationary
from ..engines.joint_posterior import SMOOTH
from ..metrics.ambiguities import gauge_of, unseen, without_unseen
from ..metrics.residual import illumination, residual
from ..model.block_solve import solve_together
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.thin import normal
from ..model.unknowns import Unknowns
from ..run.progress import Tell
from ..types import COMPLEX, REAL, Array, FloatArray
from .curvature import Curvature

#: Rounds at most, iterations of the first and of each later one at most.
ROUNDS, FIRST, LATER = 4, 15, 10
#: What may remain of the step, in bars, rms of an octave.
CONVERGED = 0.1
#: Shortest step that is tried, in Gauss-Newton steps.
SHORTEST = 1 / 8
#: Draws from which the spread of waves is taken.
PILOT = 4
#: Floor of the probe's own precision in the preconditioner, relative to its maximum.
FLOOR = 1e-2
#: Updates of the spectrum for each new mean.
UPDATES = 4
#: Periods (px) that bound the octaves.
PERIODS = (math.inf, 32.0, 16.0, 8.0, 4.0, 2.0)


@dataclass(frozen=True)
class Remains:
    """What remains to the optimum.

    Attributes
    ----------
    octaves : tuple of float
        rms of the next step in units of the bars, foretold from the last two, by octaves of periods
        `PERIODS`; NaN of one that has no frequency.
    rounds, products : int
        Gauss-Newton steps made, and products with H.
    """

    octaves: tuple[float, ...]
    rounds: int
    products: int

    @property
    def worst(self) -> float:
        """The largest."""
        return float(np.nanmax(self.octaves))

    def sentence(self) -> str:
        """For a report."""
        state = "converged" if self.worst <= CONVERGED else "not converged"
        return (
            f"{state}: the next step of the mean is about {self.worst:.2f} of the bars (rms) "
            "at the octave of spatial frequency where it is largest"
        )


@dataclass
class _Prior:
    """Precision of the real and imaginary parts: 2/S_k of the object, a ridge on the probe."""

    backend: Backend
    inverse: Array
    ridge: float

    def __call__(self, d: Unknowns) -> Unknowns:
        object = self.filtered(d.object, 2 * self.inverse)
        probe = None if d.probe is None else (REAL.type(self.ridge) * d.probe).astype(COMPLEX)
        return Unknowns(object=object, probe=probe)

    def filtered(self, field: Array, transfer: Array) -> Array:
        return self.backend.ifft2(transfer * self.backend.fft2(field)).astype(COMPLEX)


class _Work:
    """What stays the same from round to round, and what is learned."""

    def __init__(
        self, problem: Problem, found: Result, free_probe: bool, noise: Noise, backend: Backend
    ) -> None:
        self.backend, self.noise, self.free_probe = backend, noise, free_probe
        self.local = get_backend("numpy")
        self.names = unseen(problem.near_field, free_probe)
        self.host, self.problem = problem, problem.to(backend)
        light = illumination(problem, found.probe).astype(REAL)
        self.touched = light > 0
        self.taper = stationary.taper_of(light, np)
        self.rings, self.size = stationary.rings_of(found.object.shape, np)
        frequency = np.arange(len(self.size)) / min(found.object.shape)
        self.octaves = [
            (frequency > 1 / long) & (frequency <= 1 / short) for long, short in pairwise(PERIODS)
        ]
        self.light = light
        self.spectrum: FloatArray

    def power(self, field: Array) -> FloatArray:
        """By rings, of the lit part."""
        found = stationary.by_rings(
            np.asarray(self.backend.to_host(field), COMPLEX),
            self.taper,
            self.rings,
            self.size,
            self.local,
        )
        return np.asarray(found)

    def seen(self, change: Any, object: Any) -> Any:
        """A change on the host, without what no measurement can know."""
        return without_unseen(change, object, self.taper, self.names, self.local)

    def bands(self, power: FloatArray) -> FloatArray:
        return np.array([(power * self.size)[k].sum() for k in self.octaves])

    def learn(self, mean: FloatArray, variance: FloatArray) -> None:
        """The spectrum for a mean and draws."""
        for _ in range(UPDATES):
            self.spectrum = stationary.learned(self.spectrum, mean, variance, self.size, np)

    def at(self, x: Unknowns, spread: Any) -> tuple[Curvature, _Prior, Any]:
        """The curvature, the prior, and the directions that no data tell."""
        xp, host = self.backend.xp, self.backend.to_host
        free = ("object", "probe") if self.free_probe else ("object",)
        none = xp.asarray(0, REAL)
        point = Curvature(
            self.problem,
            x,
            self.noise,
            self.backend,
            free,
            Unknowns(object=none, probe=none if self.free_probe else None),
            None if spread is None else self.backend.asarray(spread),
        )
        O, P = host(x.object[0]), host(x.probe)
        gauge = gauge_of(self.host, O, P, self.free_probe, self.taper > 0, self.touched)
        point.hold(gauge.orthonormal(self.free_probe))
        ridge = 2 / float((abs(x.probe) ** 2).sum(axis=0).max())
        inverse = self.backend.asarray((1 / self.spectrum).astype(REAL)[self.rings])
        point.H.prior = prior = _Prior(self.backend, inverse, ridge)
        return point, prior, point.H.gauge

    def spread(self, point: Curvature, draws: list[Unknowns]) -> FloatArray:
        """V of each frame."""
        found = np.zeros(len(self.problem))
        for b in point.blocks():
            for d in draws:
                wave = point.H.tangent(b, d)
                light = (wave.real**2 + wave.imag**2).sum(axis=1).mean(axis=(-2, -1))
                found[b] += self.backend.to_host(light) / len(draws)
        return np.maximum(found, 1e-30).astype(REAL)


def converged(
    problem: Problem,
    found: Result,
    *,
    free_probe: bool,
    noise: Noise,
    draws: int,
    backend: Backend,
    seed: int,
    tell: Tell,
) -> tuple[Result, Remains]:
    """The result of the joint posterior at its optimum, with new draws and bars.

    Parameters
    ----------
    problem : Problem
        On the host.
    found : Result
        Of engine `joint`, with draws.
    free_probe : bool
    noise : Noise
    draws : int
    backend : Backend
    seed : int
    tell : callable

    Returns
    -------
    (Result, Remains)
    """
    assert found.draws is not None
    work = _Work(problem, found, free_probe, noise, backend)
    move, host = backend.asarray, backend.to_host
    mean, variance = (
        work.power(found.object),
        np.mean([work.power(x) for x in found.draws], axis=0),
    )
    work.spectrum = np.maximum(mean + variance, 1e-6 * mean.max()).astype(REAL)
    work.learn(mean, variance)
    x = Unknowns(
        object=move(np.array(found.object[None], COMPLEX)),
        probe=move(np.array(found.probe, COMPLEX)),
    )
    pilot = [Unknowns(object=move(np.array(d[None], COMPLEX))) for d in found.draws[:PILOT]]
    point, prior, gauge = work.at(x, None)
    spread = work.spread(point, pilot)
    samples: list[Unknowns] | None = None
    products, rounds, last = 0, 0, None
    remains: FloatArray = np.full(len(PERIODS) - 1, math.inf)
    for number in range(ROUNDS):
        tell("step to the optimum", number, ROUNDS)
        point, prior, gauge = work.at(x, spread)
        slope = _free_of(point.gradient().axpy(1, prior(x.only(point.update))), gauge)
        right = [slope.times(-1), *(_noise(point, prior, seed, s) for s in range(draws))]
        start = None if samples is None else [slope.zeros(), *samples]
        limit = FIRST if samples is None else LATER
        (step, *samples), used = solve_together(
            point.H, right, _preconditioner(work, point, prior), limit, start
        )
        products, rounds = products + used, rounds + 1
        x = _moved(point, prior, x, step)
        object = host(x.object[0])
        seen = [work.seen(host(s.object[0]), object) for s in samples]
        variance = np.mean([work.power(s) for s in seen], axis=0)
        bars = work.bands(variance)
        size = np.sqrt(
            work.bands(work.power(work.seen(host(step.object[0]), object)))
            / np.where(bars > 0, bars, math.nan)
        )
        # the step after this one, if steps go on to fall as they did
        ratio = np.ones_like(size) if last is None else np.clip(size / last, 0.2, 1)
        remains, last = size * ratio, size
        if number > 0 and np.nanmax(remains) < CONVERGED:
            break
        spread = work.spread(point, samples[:PILOT])
        work.learn(work.power(object), variance)
    made = np.asarray(seen, COMPLEX)
    probe = host(x.probe)
    std = _std(work, point, made)
    found = replace(
        found,
        object=np.asarray(object, COMPLEX),
        probe=np.asarray(probe, COMPLEX),
        object_std=std,
        draws=made,
        final_error=residual(problem, object, probe, backend),
    )
    return found, Remains(tuple(float(r) for r in remains), rounds, products)


def _free_of(slope: Unknowns, gauge: Any) -> Unknowns:
    """A gradient without its share in directions that only the prior holds."""
    out = slope.copy()
    for i in range(len(next(gauge.each())[1])):
        one = Unknowns(**{name: array[i] for name, array in gauge.each()})
        out = out.axpy(-out.dot(one), one)
    return out


def _noise(point: Curvature, prior: _Prior, seed: int, number: int) -> Unknowns:
    """A draw of N(0, H): the same numbers in every round."""
    rng, move = np.random.default_rng([seed, 7, number]), point.backend.asarray
    # the prior of each number is 0 here, its noise is added in Fourier space
    H = point.H
    kept, H.prior = H.prior, point.prior
    try:
        out = H.noise(rng)
    finally:
        H.prior = kept
    white = move(normal(rng, tuple(point.x.object.shape)))
    root = (2 * prior.inverse) ** 0.5
    return out.axpy(1, Unknowns(object=prior.filtered(white, root)))


def _preconditioner(work: _Work, point: Curvature, prior: _Prior) -> Any:
    """The lit region everywhere, no coupling of object and probe."""
    light = point.diagonal.object[0]
    lit = work.backend.asarray(work.taper)
    full = (light * lit).sum() / lit.sum()
    object = 1 / (2 * prior.inverse + full.astype(REAL))
    own = point.diagonal.probe
    probe = None if own is None else 1 / (own + FLOOR * own.max())

    def precondition(r: Unknowns) -> Unknowns:
        return Unknowns(
            object=prior.filtered(r.object, object),
            probe=None if r.probe is None else (r.probe * probe).astype(COMPLEX),
        )

    return precondition


def _moved(point: Curvature, prior: _Prior, x: Unknowns, step: Unknowns) -> Unknowns:
    """After the step, halved while it leads uphill; the probe keeps its power."""

    def energy(at: Unknowns) -> float:
        off = at.only(point.update)
        return point.energy(at) + 0.5 * float(off.dot(prior(off)))

    best, length = energy(x), 1.0
    new, cost = x.axpy(1.0, step), 0.0
    while (cost := energy(new)) > best and length > SHORTEST:
        length /= 2
        new = x.axpy(length, step)
    if cost > best:
        return x
    if step.probe is not None:
        factor = (abs(x.probe) ** 2).sum() / (abs(new.probe) ** 2).sum()
        scale = (factor**0.5).astype(REAL)
        new = replace(new, probe=new.probe * scale, object=new.object / scale)
    return new


def _std(work: _Work, point: Curvature, draws: Any) -> FloatArray:
    """Bars from draws: a smooth factor times what white data of the same dose would leave."""
    host, backend = work.backend.to_host, work.local
    variance = (np.abs(draws) ** 2).mean(axis=0)
    dose = np.maximum(host(point.diagonal.object[0]) / 2, 0).astype(REAL)
    shape = stationary.variance_left(dose, work.spectrum, work.size, np)
    lit = work.taper > 0
    above, below = (stationary.blurred(lit * f, SMOOTH, backend) for f in (variance, shape))
    factor = np.where(lit, above / np.maximum(below, 1e-30), 1)
    return np.asarray(np.sqrt(np.maximum(factor, 1e-6) * shape), REAL)
