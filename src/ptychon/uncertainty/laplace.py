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
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.residual import illuminated, illumination, variance_left
from ..model.marginal import Marginal
from ..model.noise import Noise, noise_of, told
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Tell, silent
from ..types import REAL, BoolArray, ComplexArray, PtychonError
from .background import SMOOTH, first_level
from .clock import Clock, longest
from .curvature import Curvature
from .distance import focused
from .free import FREE, READ_NOISE, USUAL, free_of, possible
from .local import Local
from .optimum import CONVERGED, ROUGH, Drawn, Remains, Work, checked, solved
from .pilot import Pilot, pilot_of
from .posterior import Posterior
from .prior import DOUBT, LOCAL, PRIORS, WHITE, Seen, Spectral
from .proposal import Gain, frame_gauge, gains
from .read_noise import read_noise_of, reread
from .steps import LOOSE, refined
from .sums import Sums

#: Samples of a pilot round (half as many where so many pixels are lit), and rounds at most.
PILOT, LARGE, ROUNDS = 4, 10_000, 3
#: Draws at a time; at least and at most, where their number is not given; and the relative error
#: of the bars that is enough then.
GROUP, FEWEST, MOST, ENOUGH = 4, 8, 32, 0.03
#: Steps of further rounds, at most after the last of them where the optimum is not reached, and of
#: each round but the first where the prior is learned on the way; a misfit over what the noise
#: explains from which the last steps follow errors of the model (12 of them made T of halves of the
#: measured star scatter from 5.6 to 9.5, where it is 6.1 to 6.5 without), and at which a closer
#: look at the waves is no use.
MORE, FURTHER, LEARNING, WRONG, POOR = 2, 12, 5, 1.2, 2.0
#: Rounds at most where the prior, or the read noise, is learned, and how many in a row have to
#: change nothing.
TURNS, QUIET = 8, 2


def laplace(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = USUAL,
    noise: str | Noise = "auto",
    noise_variance: float | None = None,
    background: Any = None,
    object_variance: float | None = None,
    background_form: str = SMOOTH,
    prior: str = WHITE,
    draws: int | None = None,
    refine: int = 8,
    averaged: bool = True,
    region: BoolArray | None = None,
    tolerance: float = 1e-2,
    iterations: int = 300,
    backend: str | Backend = "auto",
    seed: int = 0,
    keep: bool = False,
    propose: bool = False,
    limit: float | None = None,
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
        "variations" and "weights" (of a probe that varies), "background", "distance" (of a near
        field) and "read_noise". The error of all that is free is part of the object's, and each
        has bars of its own.
    noise : {"auto", "amplitude", "poisson"} or Noise
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
    prior : {"white", "learned", "local"}
        Of the object: CN(0, S) in each pixel; stationary with spectra that are learned (see
        `prior`); or these with variances that differ from place to place, for edges, where the
        evidence is for them (see `local`). With either of the last two a free probe gets one of its
        own (see `probe_prior`), and the optimum of several modes is that of the mean (see `tilt`).
    draws : int, optional
        Number of posterior draws; default as many as it takes to know the bars to 3 %, 8 to 32.
        How well they are known the result states. Ctrl-C ends with those that there are; on the
        way to the optimum, with 4 draws from where it is.
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
    propose : bool
        Say by how much the likelihood would rise if positions, doses or a background were free,
        where they are not (see `proposal`); not where the optimum is still off, for the step that
        is left would be taken for them.
    limit : float, optional
        Seconds that it may take: from half of them on no further step is made, and draws end when
        the next would not be in time. There are 4 at least.
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
    if prior not in PRIORS:
        raise PtychonError(f"prior is {prior!r}; it must be one of {', '.join(PRIORS)}")
    if isinstance(noise, Noise):
        model = noise
    else:
        problem = told(problem, background, noise, noise_variance)
        model = noise_of(problem, noise, noise_variance)
    if "background" in free and model.kind != "poisson":
        raise PtychonError(
            "a background can be free where the noise is that of counts; that of these data is of "
            "the amplitude: leave background out of update"
        )
    possible(problem, free)
    reads = READ_NOISE in free
    if reads and model.kind != "poisson":
        raise PtychonError(
            "a read noise belongs to counts; the noise of these data is that of the amplitude: "
            "leave read_noise out of update"
        )
    free = tuple(name for name in free if name != READ_NOISE)
    work = Work(
        *(problem.to(chosen), chosen, free, S, lit, touched, tolerance, iterations, seed),
        background_form,
    )
    if prior != WHITE:
        seen = Seen.of(lit)
        doubt = DOUBT if "probe" in free else 1.0
        work.learned = Spectral.first(chosen, seen, np.asarray(object, np.complex128), doubt)
    if "background" in free and not np.any(model.background):
        model = replace(model, background=first_level(work.problem, object, probe, chosen))
    if model.learned:
        # as if every lit pixel had taken its two numbers of the misfit
        taken = 2 * float(lit.sum())
        model = model.fitted(variance_left(problem, object, probe, chosen, taken))
    clock = Clock(limit)
    work.late = clock.half
    point = work.at(work.start(object, probe), model)
    few = PILOT if lit.sum() < LARGE else PILOT // 2
    remains, rough = Remains(), None
    cut, calm, pilot = False, 0, Pilot()
    # spectra that have settled once may have done so by chance of their draws
    turns, quiet = (ROUNDS, 1) if work.learned is None and not reads else (TURNS, QUIET)
    try:
        for number in range(turns):
            if number and clock.half():
                break
            tell("optimum", number, turns)
            rough = solved(work, point, [(1, 0, s) for s in range(few)], ROUGH, rough)
            before, pilot = pilot, pilot_of(work, point, rough)
            model = pilot.fitted(point.noise) if model.learned else point.noise
            still = number > 0 and work.learn(point, rough)
            found_noise = read_noise_of(work, point, rough) if reads else None
            if found_noise is not None:
                still = still and found_noise.near(point.noise.read_noise)
            calm = calm + 1 if number and pilot.settled(before) and still else 0
            if calm >= quiet or (number and pilot.misfit > POOR * pilot.expected):
                break
            if found_noise is not None:
                model = reread(work, model, found_noise)
            spread = chosen.asarray(pilot.spread) if averaged else None
            steps, loose = refine, LOOSE
            # spectra that follow an object on its way to the first optimum hold it up
            if number and work.learned is not None:
                steps, loose = min(refine, LEARNING), LOOSE[:1]
            elif number:
                steps, loose = min(refine, MORE), ()
            point, remains = refined(work, work.at(point.x, model, spread), steps, rough, loose)
        # where the model is wrong, the next optimum is no better than this one
        wrong, newer = pilot.misfit > WRONG * pilot.expected, work.learned is not None
        off = newer or remains.worst > CONVERGED
        if refine and off and not wrong and not clock.half():
            # spectra that were learned last are newer than the point
            begin = work.at(point.x, point.noise, point.spread) if newer else point
            further, left = refined(work, begin, FURTHER, rough, () if newer else LOOSE)
            if newer or left.worst < remains.worst:
                point, remains = further, left
        if prior == LOCAL and work.learned is not None and not clock.half():
            tell("local variances", 0, 1)
            fewer = min(refine, LEARNING)
            point, remains = localised(work, point, fewer, rough) or (point, remains)
    except KeyboardInterrupt:
        clock.hurry()
        cut = True
    # where it ended between a new read noise and the steps that go with it
    work.problem = point.problem
    tell("optimum", turns, turns)
    point, variance = focused(work, point, min(refine, MORE))
    sums = Sums(work.gauge, chosen.to_host(point.x.object[0]), keep)
    sums.stopped = cut
    if variance is not None:
        # one number is known from one linear system, better than from many draws
        sums.longer = problem.longer + float(point.x.distance[0])
        sums.longer_std = variance**0.5
    worst, pilot = _sample(work, point, draws, sums, tell, clock, reads)
    found: tuple[Gain, ...] = ()
    # before the optimum, a step that is left would be taken for what is held
    there = remains.worst <= CONVERGED or pilot.misfit > POOR * pilot.expected
    if propose and there and not sums.stopped:
        try:
            tell("what else to free", 0, 1)
            found = gains(work, point, model, pilot.misfit / max(pilot.expected, 1e-30))
        except KeyboardInterrupt:
            sums.stopped = True
    return sums.posterior(
        point=point,
        given=np.asarray(object, np.complex128),
        prior_variance=S,
        pilot=pilot,
        unsolved=worst,
        learned=model.learned,
        gains=found,
        remains=remains.octaves if remains.rounds else (),
        priors=work.between,
    )


def localised(
    work: Work, point: Curvature, steps: int, drawn: list[Drawn] | None
) -> tuple[Curvature, Remains] | None:
    """The optimum under the prior with local variances, if there is evidence for them."""
    assert work.learned is not None
    host = work.backend.to_host
    light = np.maximum(host(point.light[0]).astype(np.float64), 0)
    found = Local.of(work.learned, host(point.x.object[0]), light)
    work.learned = found
    if not found.variances:
        return None
    # it may lie far from the other: of blobs with a free probe half a bar was left after five
    return refined(work, work.at(point.x, point.noise, point.spread), 2 * steps, drawn, ())


def _sample(
    work: Work,
    point: Curvature,
    draws: int | None,
    sums: Sums,
    tell: Tell,
    clock: Clock,
    reads: bool = False,
) -> tuple[float, Pilot]:
    """Adds samples to the sums until there are as many as wanted, or enough, or somebody stops it;
    the largest residual left, and what the first of them say.
    """
    worst, host, pilot = 0.0, work.backend.to_host, Pilot()
    inverse = point.diagonal.only(["object"]).map(lambda array: 1 / array)
    if work.learned is None:
        sums.known = host(inverse.object[0]).astype(np.float64)
    else:
        sums.shape = work.learned.variance_left(np.maximum(host(point.light[0]), 0))
        sums.near = work.learned.even
    if isinstance(point.H, Marginal):
        sums.known_frames = point.H.variances().on_host(work.backend)
        sums.shared = frame_gauge(work, point)
    most, began, what = MOST if draws is None else draws, time.monotonic(), "sampling"
    try:
        for first in range(0, most, GROUP):
            tell(what, first, most)
            keys: list[tuple[int, ...]] = [(0, s) for s in range(first, min(first + GROUP, most))]
            drawn = solved(work, point, keys, work.tolerance)
            pilot = pilot if first else pilot_of(work, point, drawn)
            if reads and not first:
                sums.read_noise, sums.read_noise_std = read_noise_of(work, point, drawn)
            for d in drawn:
                rest = d.x.only(["object"]).axpy(-1, d.t.times(inverse)).on_host(work.backend)
                x = d.x.on_host(work.backend)
                known = None if work.learned is not None else rest.object[0]
                sums.add(x.object[0], known, x.probe, x.variations)
                sums.add_frames(d.rest.on_host(work.backend))
                sums.add_background(x.background)
                worst = max(worst, d.left)
            if not first:
                sums.whole = everything(work, point, drawn[0].x)
                groups = -(-most // GROUP)
                what = f"sampling, {longest(groups * (time.monotonic() - began))} in all"
            if draws is None and sums.count >= FEWEST and sums.variances()[2] < ENOUGH:
                break
            if sums.count < most and clock.over((time.monotonic() - began) * GROUP / sums.count):
                sums.stopped = True
                break
    except KeyboardInterrupt:
        if sums.count < 2:
            raise
        sums.stopped = True
    tell("sampling", sums.count, sums.count)
    return worst, pilot


def everything(work: Work, point: Curvature, error: Unknowns) -> Unknowns:
    """A draw of all that is free, on the host: the optimum plus an error, a background as counts of
    pixels (1, P, Q).
    """
    x = point.x.only(work.free).axpy(1, error)
    if x.background is not None:
        dark = np.asarray(point.noise_at(x).background)
        x.background = (
            (dark - work.problem.read_noise**2).astype(REAL).reshape(1, *work.problem.frame_shape)
        )
    return x.on_host(work.backend)
