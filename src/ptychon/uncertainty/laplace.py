"""A Gaussian posterior for the result of any engine: Laplace's approximation, its variances by
sampling.

About the optimum of the posterior, which a few Gauss-Newton steps reach from the engine's result,
the posterior is N(0, H^-1) with the curvature H of `curvature`. Samples are exact and cost one
linear system each (Papandreou & Yuille, NIPS 2010):

    x = H^-1 t,   t = M^H A^(1/2) eps_1 + prior^(1/2) eps_2 ~ N(0, H)    =>    x ~ N(0, H^-1)

and their average is sharpened by what is known of the diagonal D of H without any sample (Siden et
al., J. Comput. Graph. Stat. 27, 898 (2018)): for each unknown Var x = 1/D + E (x - t/D)^2, where
the second term alone is left to chance. What the data cannot tell is removed from every sample (see
`metrics.ambiguities`).
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.ambiguities import Gauge, gauge_of
from ..metrics.residual import illuminated, illumination, variance_left
from ..model.noise import Noise, learned_variance, noise_of, told
from ..model.problem import Problem
from ..model.solve import solve
from ..model.unknowns import Unknowns
from ..run.progress import Tell, silent
from ..types import COMPLEX, REAL, Array, BoolArray, ComplexArray, FloatArray, PtychonError
from .curvature import Curvature
from .free import FREE, USUAL, free_of
from .posterior import Posterior, Sums

#: Samples of a pilot round, rounds at most, and the relative change of V at which they end.
PILOT, ROUNDS, SETTLED = 4, 4, 0.1
#: Shortest Gauss-Newton step that is tried, and the decrement, in units of an unknown's variance,
#: of the last one.
SHORTEST, STILL = 1 / 64, 1e-3
#: Standard deviations of the priors of positions (px) and of the logarithm of doses (of the
#: amplitude), about what was measured: much wider than what data leave.
POSITION_SPREAD, DOSE_SPREAD = 2.0, 0.5


def laplace(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = USUAL,
    noise: str = "auto",
    noise_variance: float | None = None,
    background: Any = None,
    object_variance: float | None = None,
    draws: int = 32,
    refine: int = 5,
    averaged: bool = True,
    region: BoolArray | None = None,
    tolerance: float = 3e-3,
    iterations: int = 300,
    backend: str | Backend = "auto",
    seed: int = 0,
    keep: bool = False,
    tell: Tell = silent,
) -> Posterior:
    """Error bars of an object, and of a probe that was learned with it, from the curvature of the
    posterior.

    Parameters
    ----------
    problem : Problem
        On the host.
    object : (H, W) complex array
    probe : (K, P, Q) or (P, Q) complex array
        What some engine found.
    update : collection of str
        What is free: "object", and any of "probe", "positions" and "dose" (or "log_scale"). The
        error of a probe that was learned is then part of the object's. Errors of positions and
        doses widen the object's bars too and have bars of their own; products cost more, they go
        through the derivatives of the model.
    noise : {"auto", "amplitude", "poisson"}
        See `noise`; "auto" is Poisson's for counts, else Gaussian on the amplitude.
    noise_variance : float, optional
        Of the amplitude. Where nothing is known it is learned from the misfit, less what the fit
        has taken of it.
    background : float or (P, Q) array, optional
        Counts a pixel that do not come from the wave (Poisson noise), in the order of
        `Problem.amplitude`, where the problem does not state them itself.
    object_variance : float, optional
        S of the prior CN(0, S); default mean |O|^2 where there is light.
    draws : int
        Number of posterior draws; the relative error of the bars is about 1/(2 sqrt(draws)),
        which the result states.
    refine : int
        Gauss-Newton steps towards the optimum, at most.
    averaged : bool
        Average the information over the directions that an uncertain wave may have (see
        `curvature`); False takes that of the solution, as if it were known.
    region : (H, W) bool array, optional
        Where errors are compared after alignment; default the illuminated pixels.
    tolerance : float
        Of the linear systems.
    iterations : int
        At most, for each of them.
    backend : str or Backend
    seed : int
        The result does not depend on the number of threads.
    keep : bool
        Keep the samples, (samples, H, W) complex64, each the optimum plus an error, aligned.
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    Posterior

    Raises
    ------
    PtychonError
        Arrays that do not fit the problem, numbers out of range, unknowns that cannot be free, or a
        noise model that the data cannot have.
    """
    if draws < 2:
        raise PtychonError(f"{draws} posterior draws give no variance; at least 2 are needed")
    free = free_of(update, FREE)
    probe = np.asarray(probe)[None] if np.ndim(probe) == 2 else np.asarray(probe)
    checked(problem, object, probe)
    chosen = get_backend(backend)
    lit = illuminated(problem, probe) if region is None else region
    touched = illumination(problem, probe) > 0
    S = object_variance if object_variance is not None else float(np.mean(np.abs(object[lit]) ** 2))
    if not (np.isfinite(S) and S > 0):
        raise PtychonError(f"the variance of the object's prior is {S}; it must be positive")
    problem = told(problem, background, noise, noise_variance)
    model = noise_of(problem, noise, noise_variance)
    work = _Work(problem.to(chosen), chosen, free, S, lit, touched, tolerance, iterations, seed)
    if model.learned:
        # as if every lit pixel had taken its two numbers of the misfit
        taken = 2 * float(lit.sum())
        model = model.fitted(variance_left(problem, object, probe, chosen, taken))
    point = work.at(work.start(object, probe), model)
    pilot = _Pilot()
    for number in range(ROUNDS):
        tell("optimum", number, ROUNDS)
        before, pilot = pilot.spread, _pilot(work, point, number)
        model = pilot.fitted(point.noise) if model.learned else point.noise
        spread = chosen.asarray(pilot.spread) if averaged else None
        point, moved = _refined(work, work.at(point.x, model, spread), refine)
        settled = len(before) and np.median(np.abs(pilot.spread / before - 1)) < SETTLED
        if settled and not moved:
            break
    pilot = _pilot(work, point, ROUNDS)
    sums = Sums(work.gauge, chosen.to_host(point.x.object[0]), keep)
    worst = _sample(work, point, draws, sums, tell)
    return sums.posterior(
        point=point,
        given=np.asarray(object, np.complex128),
        prior_variance=S,
        pilot=pilot,
        unsolved=worst,
        learned=model.learned,
    )


class _Work:
    """What stays the same while the point of expansion moves."""

    def __init__(
        self,
        problem: Problem,
        backend: Backend,
        free: tuple[str, ...],
        S: float,
        lit: BoolArray,
        touched: BoolArray,
        tolerance: float,
        iterations: int,
        seed: int,
    ) -> None:
        self.problem, self.backend, self.free, self.S = problem, backend, free, S
        self.lit, self.touched, self.tolerance, self.iterations, self.seed = (
            lit,
            touched,
            tolerance,
            iterations,
            seed,
        )
        self.gauge: Gauge

    def start(self, object: Any, probe: Any) -> Unknowns:
        """Everything at the start; positions only where they are free or doses known, doses where
        either is.
        """
        problem, move = self.problem, self.backend.asarray
        O, P = (move(np.ascontiguousarray(a, COMPLEX)) for a in (object, probe))
        dose = problem.log_scale
        if dose is None and "log_scale" in self.free:
            dose = np.zeros(len(problem), REAL)
        dose = None if dose is None else move(dose)
        between = "positions" in self.free or (dose is not None and problem.subpixel)
        positions = move(problem.positions) if between else None
        return Unknowns(object=O[None], probe=P, positions=positions, log_scale=dose)

    def at(self, x: Unknowns, noise: Noise, spread: Array | None = None) -> Curvature:
        """The curvature at some unknowns, its gauge held."""
        host, xp, free, problem = self.backend.to_host, self.backend.xp, self.free, self.problem
        ridge = 2 / float((xp.abs(x.probe) ** 2).sum(axis=0).max())
        prior = Unknowns(
            object=xp.asarray(2 / self.S, REAL),
            probe=xp.asarray(ridge, REAL) if "probe" in free else None,
            positions=xp.asarray(POSITION_SPREAD**-2) if "positions" in free else None,
            log_scale=xp.asarray(DOSE_SPREAD**-2, REAL) if "log_scale" in free else None,
        )
        measured = problem.positions if problem.measured is None else problem.measured
        mean = Unknowns(positions=self.backend.asarray(measured) if "positions" in free else None)
        point = Curvature(problem, x, noise, self.backend, free, prior, spread, mean)
        O, P = host(x.object[0]), host(x.probe)
        moves = "positions" in free, "log_scale" in free
        self.gauge = gauge_of(problem, O, P, "probe" in free, self.lit, self.touched, *moves)
        point.hold(self.gauge.orthonormal("probe" in free))
        return point

    def generator(self, *key: int) -> np.random.Generator:
        """Random numbers of their own for every sample, so that threads may take them
        in any order.
        """
        return np.random.default_rng([self.seed, *key])


def checked(problem: Problem, object: Any, probe: Any) -> None:
    """Refuse an object and a probe that do not belong to the problem."""
    if (
        np.shape(object) != tuple(problem.object_shape)
        or probe.ndim != 3
        or probe.shape[1:] != problem.frame_shape
    ):
        raise PtychonError(
            f"object {np.shape(object)} and probe {probe.shape} do not belong to these data, "
            "which need an object of "
            f"{tuple(problem.object_shape)} and frames of {problem.frame_shape}: "
            "give the data as the result read them (frames, crop, bin)"
        )
    if not (
        np.isfinite(object).all() and np.isfinite(probe).all() and np.any(object) and np.any(probe)
    ):
        raise PtychonError(
            "object and probe must be finite and not zero everywhere; reconstruct first"
        )


def _refined(work: _Work, point: Curvature, steps: int) -> tuple[Curvature, bool]:
    """Gauss-Newton steps, halved while they lead uphill, until one would change next to nothing;
    and whether any was made.
    """
    energy = point.energy()
    for number in range(steps):
        gradient = point.gradient()
        found = solve(point.H, gradient, point.diagonal, work.tolerance, work.iterations)
        decrement, length = float(gradient.dot(found.x)), 1.0
        if decrement < STILL * float(work.lit.sum()):
            return point, number > 0
        while length >= SHORTEST:
            x = point.x.axpy(-length, found.x)
            new = point.energy(x)
            if new < energy:
                break
            length /= 2
        else:
            return point, number > 0
        point, energy = work.at(x, point.noise, point.spread), new
    return point, True


class _Pilot:
    """What a few samples say of the waves: see `_pilot`."""

    spread: FloatArray = np.zeros(0)
    parameters = expected = misfit = measured = 0.0

    def fitted(self, noise: Noise) -> Noise:
        """The noise with its variance from the misfit, less what the fit has taken of it."""
        misfit = self.misfit * noise.variance
        return noise.fitted(learned_variance(misfit, self.measured, self.parameters, left=0.05))


def _pilot(work: _Work, point: Curvature, number: int) -> _Pilot:
    """V of each frame, the number of parameters the data determine, and the misfit with what is
    expected of it.
    """
    problem, found = work.problem, _Pilot()
    spread, host = np.zeros(len(problem)), work.backend.to_host
    draws = _solved(work, point, [(1, number, s) for s in range(PILOT)])
    for b in point.blocks():
        valid, m = problem.mask_of(b), point.modulus(point.H.waves(b))
        expect = np.where(host(valid), point.noise.expected_surprise(host(m)), 0)
        found.misfit += float(
            np.where(
                host(valid), point.noise.surprise(host(m), host(point.noise.root(problem, b))), 0
            ).sum()
        )
        found.expected += float(expect.sum())
        found.measured += float(host(valid).sum()) * (len(expect) / len(valid))
        for d, _, _ in draws:
            wave = point.H.tangent(b, d)
            power = (wave.real**2 + wave.imag**2).sum(axis=1)
            spread[b] += host(power.mean(axis=(-2, -1))) / PILOT
            taken = host(point.H.taken(b, wave))
            found.parameters += float(taken.sum()) / PILOT
            found.expected -= float((expect * taken).sum()) / PILOT
    found.spread = np.maximum(spread, 1e-30).astype(REAL)
    return found


def _solved(
    work: _Work, point: Curvature, keys: list[tuple[int, ...]]
) -> list[tuple[Unknowns, Unknowns, float]]:
    """A sample x = H^-1 t for each key: x, t, and the residual left."""

    def one(key: tuple[int, ...]) -> tuple[Unknowns, Unknowns, float]:
        t = point.H.noise(work.generator(*key))
        found = solve(point.H, t, point.diagonal, work.tolerance, work.iterations)
        return found.x, t, found.residual

    if work.backend.threads == 1 or work.backend.name != "numpy":
        return [one(key) for key in keys]
    with ThreadPoolExecutor(work.backend.threads) as pool:
        return list(pool.map(one, keys))


def _sample(work: _Work, point: Curvature, samples: int, sums: Sums, tell: Tell) -> float:
    """Adds samples to the sums; the largest residual left."""
    worst, host = 0.0, work.backend.to_host
    own = [name for name in point.update if name not in ("object", "probe")]
    inverse = point.diagonal.only(["object", *own]).map(lambda array: 1 / array)
    sums.known = host(inverse.object[0]).astype(np.float64)
    sums.known_frames = inverse.only(own).on_host(work.backend)
    group = max(1, work.backend.threads)
    for first in range(0, samples, group):
        tell("sampling", first, samples)
        for x, t, left in _solved(
            work, point, [(0, s) for s in range(first, min(first + group, samples))]
        ):
            rest = x.only(inverse.names).axpy(-1, t.times(inverse)).on_host(work.backend)
            x = x.on_host(work.backend)
            sums.add(x.object[0], rest.object[0], x.probe)
            sums.add_frames(x.only(own), rest.only(own))
            worst = max(worst, left)
    tell("sampling", samples, samples)
    return worst
