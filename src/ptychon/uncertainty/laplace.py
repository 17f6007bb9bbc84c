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

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.ambiguities import Gauge, gauge_of
from ..metrics.residual import illuminated, illumination, variance_left
from ..model.marginal import Marginal
from ..model.noise import Noise, learned_variance, noise_of, told
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Tell, silent
from ..types import COMPLEX, REAL, Array, BoolArray, ComplexArray, FloatArray, PtychonError
from .background import SMOOTH, columns_of
from .curvature import Curvature
from .free import FREE, USUAL, free_of
from .posterior import Posterior, Sums

#: Samples of a pilot round (half as many where so many pixels are lit), rounds at most, and the
#: relative change of V at which they end; the tolerance of these samples and of steps.
PILOT, LARGE, ROUNDS, SETTLED, ROUGH = 4, 10_000, 4, 0.1, 3e-2
#: Draws at a time; at least and at most, where their number is not given; and the relative error
#: of the bars that is enough then.
GROUP, FEWEST, MOST, ENOUGH = 4, 8, 32, 0.03
#: Shortest Gauss-Newton step that is tried, and the decrement, in units of an unknown's variance,
#: of the last one.
SHORTEST, STILL = 1 / 64, 1e-3
#: Standard deviations of the priors of positions (px) and of the logarithm of doses (of the
#: amplitude), about what was measured: much wider than what data leave.
POSITION_SPREAD, DOSE_SPREAD = 2.0, 0.5
#: The same of weights, in their own root mean square, and at least.
WEIGHT_SPREAD, LEAST_WEIGHT = 3.0, 1e-3


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
    background_form: str = SMOOTH,
    draws: int | None = None,
    refine: int = 5,
    averaged: bool = True,
    region: BoolArray | None = None,
    tolerance: float = 1e-2,
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
        What is free: "object", and any of "probe", "positions", "dose" (or "log_scale"),
        "weights" (of a probe that varies) and "background". The error of all that is free is part
        of the object's; positions, doses, weights and background have bars of their own.
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
    background_form : {"smooth", "level", "pixels"}
        What a free background may be: smooth on the detector, the same in all pixels, or anything.
    draws : int, optional
        Number of posterior draws; default as many as it takes to know the bars to 3 %, 8 to 32.
        How well they are known the result states. Ctrl-C ends with those that there are.
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
    if draws is not None and draws < 2:
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
    work = _Work(
        *(problem.to(chosen), chosen, free, S, lit, touched, tolerance, iterations, seed),
        background_form,
    )
    if model.learned:
        # as if every lit pixel had taken its two numbers of the misfit
        taken = 2 * float(lit.sum())
        model = model.fitted(variance_left(problem, object, probe, chosen, taken))
    point = work.at(work.start(object, probe), model)
    pilot = _Pilot()
    few = PILOT if lit.sum() < LARGE else PILOT // 2
    for number in range(ROUNDS):
        tell("optimum", number, ROUNDS)
        rough = _solved(work, point, [(1, number, s) for s in range(few)], ROUGH)
        before, pilot = pilot.spread, _pilot(work, point, rough)
        model = pilot.fitted(point.noise) if model.learned else point.noise
        spread = chosen.asarray(pilot.spread) if averaged else None
        point, moved = _refined(work, work.at(point.x, model, spread), refine)
        settled = len(before) and np.median(np.abs(pilot.spread / before - 1)) < SETTLED
        if settled and not moved:
            break
    sums = Sums(work.gauge, chosen.to_host(point.x.object[0]), keep)
    worst, pilot = _sample(work, point, draws, sums, tell)
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
        tolerance: float = 1e-2,
        iterations: int = 300,
        seed: int = 0,
        form: str = SMOOTH,
    ) -> None:
        self.problem, self.backend, self.free, self.S = problem, backend, free, S
        self.lit, self.touched, self.tolerance, self.iterations, self.seed = (
            lit,
            touched,
            tolerance,
            iterations,
            seed,
        )
        images = (
            columns_of(form, problem.frame_shape, problem.near_field)
            if "background" in free
            else None
        )
        self.columns = None if images is None else backend.asarray(images)
        self.gauge: Gauge

    def start(self, object: Any, probe: Any) -> Unknowns:
        """Everything at the start; positions only where they are free or frames differ in their
        probe, doses where they are free or known, variations where the problem has them.
        """
        problem, move = self.problem, self.backend.asarray
        O, P = (move(np.ascontiguousarray(a, COMPLEX)) for a in (object, probe))
        dose = problem.log_scale
        if dose is None and "log_scale" in self.free:
            dose = np.zeros(len(problem), REAL)
        varies = problem.variations is not None and problem.weights is not None
        apart = dose is not None or varies or "background" in self.free
        between = "positions" in self.free or (apart and problem.subpixel)
        background = None
        if "background" in self.free:
            shape = problem.frame_shape if self.columns is None else (1, len(self.columns))
            background = move(np.zeros(shape, REAL))
        return Unknowns(
            object=O[None],
            probe=P,
            positions=move(problem.positions) if between else None,
            log_scale=None if dose is None else move(np.asarray(dose, REAL)),
            variations=move(np.asarray(problem.variations, COMPLEX)) if varies else None,
            weights=move(np.asarray(problem.weights, REAL)) if varies else None,
            background=background,
        )

    def at(self, x: Unknowns, noise: Noise, spread: Array | None = None) -> Curvature:
        """The curvature at some unknowns, its gauge held."""
        host, xp, free, problem = self.backend.to_host, self.backend.xp, self.free, self.problem
        ridge = 2 / float((xp.abs(x.probe) ** 2).sum(axis=0).max())
        weights = problem.weights
        prior = Unknowns(
            object=xp.asarray(2 / self.S, REAL),
            probe=xp.asarray(ridge, REAL) if "probe" in free else None,
            positions=xp.asarray(POSITION_SPREAD**-2) if "positions" in free else None,
            log_scale=xp.asarray(DOSE_SPREAD**-2, REAL) if "log_scale" in free else None,
            weights=xp.asarray(weight_spread(weights) ** -2, REAL) if "weights" in free else None,
            background=xp.asarray(self.light**-2, REAL) if "background" in free else None,
        )
        measured = problem.positions if problem.measured is None else problem.measured
        mean = Unknowns(positions=self.backend.asarray(measured) if "positions" in free else None)
        if "weights" in free and weights is not None:
            mean.weights = self.backend.asarray(np.asarray(weights, REAL))
        point = Curvature(problem, x, noise, self.backend, free, prior, spread, mean, self.columns)
        O, P = host(x.object[0]), host(x.probe)
        moves = "positions" in free, "log_scale" in free
        varied = None if x.variations is None else host(x.variations)
        probe_free = "probe" in free
        self.gauge = gauge_of(
            *(problem, O, P, probe_free, self.lit, self.touched, *moves),
            *(varied, "weights" in free),
        )
        point.hold(self.gauge.orthonormal(probe_free))
        return point

    @cached_property
    def light(self) -> float:
        """Counts of a pixel on average: a background is not expected to be more."""
        power = self.backend.to_host((self.problem.amplitude**2).mean(dtype="float64"))
        return float(power)

    def generator(self, *key: int) -> np.random.Generator:
        """Random numbers of their own for every sample, so that threads may take them
        in any order.
        """
        return np.random.default_rng([self.seed, *key])


def weight_spread(weights: FloatArray | None) -> FloatArray:
    """Standard deviation of the prior of the weights of each variation, (M,)."""
    assert weights is not None
    found = np.sqrt((np.asarray(weights, np.float64) ** 2).mean(axis=0))
    return np.asarray(WEIGHT_SPREAD * np.maximum(found, LEAST_WEIGHT))


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
        d = point.solved(gradient, max(ROUGH, work.tolerance), work.iterations).x
        decrement, length = float(gradient.dot(d)), 1.0
        if decrement < STILL * float(work.lit.sum()):
            return point, number > 0
        while length >= SHORTEST:
            x = point.x.axpy(-length, d)
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


def _pilot(work: _Work, point: Curvature, draws: list[Drawn]) -> _Pilot:
    """V of each frame, the number of parameters the data determine, and the misfit with what is
    expected of it.
    """
    problem, found, noise = work.problem, _Pilot(), point.at_x
    spread, host, share = np.zeros(len(problem)), work.backend.to_host, 1 / len(draws)
    for b in point.blocks():
        valid, m = problem.mask_of(b), point.modulus(point.H.waves(b))
        expect = np.where(host(valid), noise.expected_surprise(host(m)), 0)
        found.misfit += float(
            np.where(host(valid), noise.surprise(host(m), host(noise.root(problem, b))), 0).sum()
        )
        found.expected += float(expect.sum())
        found.measured += float(host(valid).sum()) * (len(expect) / len(valid))
        for d in draws:
            wave, information = point.change(b, d.x)
            power = (wave.real**2 + wave.imag**2).sum(axis=1)
            spread[b] += host(power.mean(axis=(-2, -1))) * share
            taken = host(information)
            found.parameters += float(taken.sum()) * share
            found.expected -= float((expect * taken).sum()) * share
    found.spread = np.maximum(spread, 1e-30).astype(REAL)
    return found


class Drawn(NamedTuple):
    """A draw x of the error, the right-hand side t that it solves, the part of the unknowns of
    frames that is not known without samples, and the residual left.
    """

    x: Unknowns
    t: Unknowns
    rest: Unknowns
    left: float


def _solved(
    work: _Work, point: Curvature, keys: list[tuple[int, ...]], tolerance: float
) -> list[Drawn]:
    """A sample for each key."""

    def one(key: tuple[int, ...]) -> Drawn:
        noise = point.H.noise(work.generator(*key))
        found = point.solved(noise, tolerance, work.iterations)
        return Drawn(found.x, found.rhs, found.rest, found.residual)

    if work.backend.threads == 1 or work.backend.name != "numpy":
        return [one(key) for key in keys]
    with ThreadPoolExecutor(work.backend.threads) as pool:
        return list(pool.map(one, keys))


def _sample(
    work: _Work, point: Curvature, draws: int | None, sums: Sums, tell: Tell
) -> tuple[float, _Pilot]:
    """Adds samples to the sums until there are as many as wanted, or enough, or somebody stops it;
    the largest residual left, and what the first of them say.
    """
    worst, host, pilot = 0.0, work.backend.to_host, _Pilot()
    inverse = point.diagonal.only(["object"]).map(lambda array: 1 / array)
    sums.known = host(inverse.object[0]).astype(np.float64)
    if isinstance(point.H, Marginal):
        sums.known_frames = point.H.variances().on_host(work.backend)
        sums.shared = frame_gauge(work, point)
    most, began, what = MOST if draws is None else draws, time.monotonic(), "sampling"
    try:
        for first in range(0, most, GROUP):
            tell(what, first, most)
            keys: list[tuple[int, ...]] = [(0, s) for s in range(first, min(first + GROUP, most))]
            drawn = _solved(work, point, keys, work.tolerance)
            pilot = pilot if first else _pilot(work, point, drawn)
            for d in drawn:
                rest = d.x.only(["object"]).axpy(-1, d.t.times(inverse)).on_host(work.backend)
                x = d.x.on_host(work.backend)
                sums.add(x.object[0], rest.object[0], x.probe)
                sums.add_frames(d.rest.on_host(work.backend))
                sums.add_background(x.background)
                worst = max(worst, d.left)
            if not first:
                groups = -(-most // GROUP)
                what = f"sampling, {longest(groups * (time.monotonic() - began))} in all"
            if draws is None and sums.count >= FEWEST and sums.variances()[2] < ENOUGH:
                break
    except KeyboardInterrupt:
        if sums.count < 2:
            raise
        sums.stopped = True
    tell("sampling", sums.count, sums.count)
    return worst, pilot


def frame_gauge(work: _Work, point: Curvature) -> Unknowns:
    """What unknowns of frames may do in common, as columns (N, m) of each: object and probe make up
    for it.
    """
    n, free_probe, own = len(work.problem), "probe" in work.free, {}
    for name in point.own:
        own[name] = np.ones((n, 1))
        if name == "weights" and not free_probe:
            own[name] = np.zeros((n, 0))
        if name == "log_scale" and free_probe:
            places = work.problem.positions
            own[name] = np.concatenate([own[name], places - places.mean(axis=0)], axis=1)
    return Unknowns(**own)


def longest(seconds: float) -> str:
    """About how long something will take."""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
