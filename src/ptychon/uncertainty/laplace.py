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

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.ambiguities import Gauge, gauge_of
from ..metrics.residual import illuminated, illumination, residual
from ..model.noise import Noise, noise_of, told
from ..model.problem import Problem
from ..types import COMPLEX, REAL, Array, BoolArray, ComplexArray, FloatArray, PtychonError
from .curvature import Curvature
from .posterior import Posterior, Sums
from .solve import solve

#: Samples of a pilot round, rounds at most, and the relative change of V at which they end.
PILOT, ROUNDS, SETTLED = 4, 4, 0.1
#: Shortest Gauss-Newton step that is tried, and the decrement, in units of an unknown's variance,
#: of the last one.
SHORTEST, STILL = 1 / 64, 1e-3

Tell = Callable[[str, int, int], None]


def laplace(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    free_probe: bool = True,
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
    tell: Tell = lambda what, done, total: None,
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
    free_probe : bool
        Whether the probe was learned too; its error is then part of the object's.
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
        Arrays that do not fit the problem, numbers out of range, or a noise model that the data
        cannot have.
    """
    if draws < 2:
        raise PtychonError(f"{draws} posterior draws give no variance; at least 2 are needed")
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
    work = _Work(
        problem.to(chosen), chosen, free_probe, S, lit, touched, tolerance, iterations, seed
    )
    learned = model is None
    point = work.at(
        object,
        probe,
        model or Noise("amplitude", first_variance(problem, chosen, object, probe, lit)),
    )
    pilot = _Pilot()
    for number in range(ROUNDS):
        tell("optimum", number, ROUNDS)
        before, pilot = pilot.spread, _pilot(work, point, number)
        model = _learned(pilot, point.noise) if learned else point.noise
        spread = chosen.asarray(pilot.spread) if averaged else None
        point, moved = _refined(work, work.at(point.object, point.probe, model, spread), refine)
        settled = len(before) and np.median(np.abs(pilot.spread / before - 1)) < SETTLED
        if settled and not moved:
            break
    pilot = _pilot(work, point, ROUNDS)
    sums = Sums(work.gauge, chosen.to_host(point.object), keep)
    worst = _sample(work, point, draws, sums, tell)
    return sums.posterior(
        point=point,
        given=np.asarray(object, np.complex128),
        prior_variance=S,
        pilot=pilot,
        unsolved=worst,
        learned=learned,
    )


class _Work:
    """What stays the same while the point of expansion moves."""

    def __init__(
        self,
        problem: Problem,
        backend: Backend,
        free: bool,
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

    def at(
        self, object: Array, probe: Array, noise: Noise, spread: Array | None = None
    ) -> Curvature:
        """The curvature at an object and a probe, its gauge held."""
        b, xp = self.backend, self.backend.xp
        O, P = (b.asarray(np.ascontiguousarray(b.to_host(a), COMPLEX)) for a in (object, probe))
        prior = xp.full(O.size + (P.size if self.free else 0), 2 / self.S, REAL)
        prior[O.size :] = 2 / float((xp.abs(P) ** 2).sum(axis=0).max())
        point = Curvature(self.problem, O, P, noise, b, self.free, prior, spread)
        self.gauge = gauge_of(
            self.problem, b.to_host(O), b.to_host(P), self.free, self.lit, self.touched
        )
        point.hold(self.gauge.orthonormal(self.free))
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


def first_variance(
    problem: Problem, backend: Backend, object: Any, probe: Any, lit: BoolArray
) -> float:
    """Variance of the amplitude from the misfit, as if every lit pixel had taken its two numbers of
    it.
    """
    power = float((problem.amplitude**2).sum(dtype="float64"))
    valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
    surprise = residual(problem, object, probe, backend) ** 2 * power
    return max(surprise, 1e-20 * valid) / max(valid - 2 * float(lit.sum()), 0.25 * valid)


def _learned(pilot: _Pilot, noise: Noise) -> Noise:
    """The noise with its variance from the misfit, less what the fit has taken of it."""
    return Noise(
        "amplitude",
        pilot.misfit
        * noise.variance
        / max(pilot.measured - pilot.parameters, 0.05 * pilot.measured),
    )


def _refined(work: _Work, point: Curvature, steps: int) -> tuple[Curvature, bool]:
    """Gauss-Newton steps, halved while they lead uphill, until one would change next to nothing;
    and whether any was made.
    """
    energy = point.energy()
    for number in range(steps):
        gradient = point.gradient()
        found = solve(point, gradient, work.tolerance, work.iterations)
        decrement, length = point.dot(gradient, found.x), 1.0
        if decrement < STILL * float(work.lit.sum()):
            return point, number > 0
        while length >= SHORTEST:
            dO, dP = point.unpack(found.x)
            O = point.object - REAL.type(length) * dO
            P = point.probe if dP is None else point.probe - REAL.type(length) * dP
            new = point.energy(O, P)
            if new < energy:
                break
            length /= 2
        else:
            return point, number > 0
        point, energy = work.at(O, P, point.noise, point.spread), new
    return point, True


class _Pilot:
    """What a few samples say of the waves: see `_pilot`."""

    spread: FloatArray = np.zeros(0)
    parameters = expected = misfit = measured = 0.0


def _pilot(work: _Work, point: Curvature, number: int) -> _Pilot:
    """V of each frame, the number of parameters the data determine, and the misfit with what is
    expected of it.
    """
    problem, found = work.problem, _Pilot()
    spread, host = np.zeros(len(problem)), work.backend.to_host
    draws = _solved(work, point, [(1, number, s) for s in range(PILOT)])
    directions = [point.unpack(x) for x, _, _ in draws]
    shifted = [None if dP is None else point.shifted(dP) for _, dP in directions]
    for b in point.blocks():
        valid, m = problem.mask_of(b), point.modulus(point.waves(b))
        expect = np.where(host(valid), point.noise.expected_surprise(host(m)), 0)
        found.misfit += float(
            np.where(
                host(valid), point.noise.surprise(host(m), host(point.noise.root(problem, b))), 0
            ).sum()
        )
        found.expected += float(expect.sum())
        found.measured += float(host(valid).sum()) * (len(expect) / len(valid))
        for (dO, _), dP in zip(directions, shifted, strict=True):
            wave, radial = point.tangent(b, dO, dP), point.radial[b]
            power = (wave.real**2 + wave.imag**2).sum(axis=1)
            spread[b] += host(power.mean(axis=(-2, -1))) / PILOT
            taken = (radial.real * wave.real + radial.imag * wave.imag).sum(axis=1) ** 2
            taken = host(taken + (0 if point.share is None else point.share[b] * power))
            found.parameters += float(taken.sum()) / PILOT
            found.expected -= float((expect * taken).sum()) / PILOT
    found.spread = np.maximum(spread, 1e-30).astype(REAL)
    return found


def _solved(
    work: _Work, point: Curvature, keys: list[tuple[int, ...]]
) -> list[tuple[Array, Array, float]]:
    """A sample x = H^-1 t for each key: x, t, and the residual left."""

    def one(key: tuple[int, ...]) -> tuple[Array, Array, float]:
        t = point.draw(work.generator(*key))
        found = solve(point, t, work.tolerance, work.iterations)
        return found.x, t, found.residual

    if work.backend.threads == 1 or work.backend.name != "numpy":
        return [one(key) for key in keys]
    with ThreadPoolExecutor(work.backend.threads) as pool:
        return list(pool.map(one, keys))


def _sample(work: _Work, point: Curvature, samples: int, sums: Sums, tell: Tell) -> float:
    """Adds samples to the sums; the largest residual left."""
    n, worst, host = point.object.size, 0.0, work.backend.to_host
    inverse = 1 / point.diagonal[:n].reshape(point.object.shape)
    sums.known = host(inverse).astype(np.float64)
    group = max(1, work.backend.threads)
    for first in range(0, samples, group):
        tell("sampling", first, samples)
        for x, t, left in _solved(
            work, point, [(0, s) for s in range(first, min(first + group, samples))]
        ):
            (dO, dP), (tO, _) = point.unpack(x), point.unpack(t)
            sums.add(host(dO), host(dO - inverse * tO), None if dP is None else host(dP))
            worst = max(worst, left)
    tell("sampling", samples, samples)
    return worst
