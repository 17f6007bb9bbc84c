"""The point about which a posterior is expanded: what is fixed, what is learned on the way there,
what remains of it, and the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend
from ..metrics.ambiguities import Gauge, gauge_of
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.pulls import FieldPrior, Together
from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, Array, BoolArray, FloatArray, PtychonError
from .background import SMOOTH, columns_of
from .curvature import Curvature
from .free import FREE, free_of
from .orbit import Pull
from .prior import Seen, Spectral
from .probe_prior import ProbePrior
from .tilt import Tilt

#: Tolerance of the draws of a pilot round.
ROUGH = 3e-2
#: What may remain of the step before a result says that it has not converged.
CONVERGED = 0.1
#: Periods (px) that bound the octaves.
PERIODS = (math.inf, 32.0, 16.0, 8.0, 4.0, 2.0)
#: Relative change of the variance that the data leave at which a learned prior has settled.
STILL_PRIOR = 0.02
#: Standard deviations of the priors of positions (px) and of the logarithm of doses (of the
#: amplitude), about what was measured: much wider than what data leave.
POSITION_SPREAD, DOSE_SPREAD = 2.0, 0.5
#: The same of the distance of a near field, as a share of the one that is stated.
DISTANCE_SPREAD = 0.1
#: Least power of a variation that its prior is taken from.
DARKEST = 1e-20
#: The same of weights, in their own root mean square, and at least.
WEIGHT_SPREAD, LEAST_WEIGHT = 3.0, 1e-3


class Work:
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
        learned: Spectral | None = None,
    ) -> None:
        self.learned = learned
        #: Of the probe.
        self.beam: ProbePrior | None = None
        #: Along orbits, as it was last seen.
        self.pull = Pull()
        #: Of the mean.
        self.tilt: Tilt | None = None
        #: Whether steps have to end.
        self.late: Callable[[], bool] = lambda: False
        self.problem, self.backend, self.free, self.S = problem, backend, free, S
        self.lit, self.touched, self.tolerance, self.iterations, self.seed = (
            lit,
            touched,
            tolerance,
            iterations,
            seed,
        )
        self.form, images = form, None
        if "background" in free:
            images = columns_of(form, problem.frame_shape, problem.near_field)
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
            distance=move(np.zeros(1, REAL)) if "distance" in self.free else None,
        )

    def start_at(self, x: Unknowns) -> Unknowns:
        """The unknowns of another point, with a start for those that it lacks."""
        host = self.backend.to_host
        found = self.start(host(x.object[0]), host(x.probe))
        return Unknowns(**(dict(found.each()) | dict(x.each())))

    def with_free(self, name: str) -> Work:
        """The same with one unknown more."""
        free = free_of((*self.free, name), FREE)
        same = self.S, self.lit, self.touched, self.tolerance, self.iterations, self.seed
        wider = Work(self.problem, self.backend, free, *same, self.form, self.learned)
        wider.beam = self.beam
        return wider

    def at(self, x: Unknowns, noise: Noise, spread: Array | None = None) -> Curvature:
        """The curvature at some unknowns, its gauge held."""
        host, xp, free, problem = self.backend.to_host, self.backend.xp, self.free, self.problem
        ridge = 2 / float((xp.abs(x.probe) ** 2).sum(axis=0).max())
        weights = problem.weights
        prior = Unknowns(
            object=xp.asarray(2 / self.S, REAL) if self.learned is None else None,
            probe=xp.asarray(ridge, REAL) if "probe" in free else None,
            positions=xp.asarray(POSITION_SPREAD**-2) if "positions" in free else None,
            log_scale=xp.asarray(DOSE_SPREAD**-2, REAL) if "log_scale" in free else None,
            weights=xp.asarray(weight_spread(weights) ** -2, REAL) if "weights" in free else None,
            background=xp.asarray(self.light**-2, REAL) if "background" in free else None,
            distance=xp.asarray(DISTANCE_SPREAD**-2, REAL) if "distance" in free else None,
        )
        if "variations" in free:
            most = (xp.abs(x.variations) ** 2).max(axis=(1, 2), keepdims=True)
            prior.variations = 2 / xp.maximum(most, xp.asarray(DARKEST, REAL))
        measured = problem.positions if problem.measured is None else problem.measured
        mean = Unknowns(positions=self.backend.asarray(measured) if "positions" in free else None)
        if "weights" in free and weights is not None:
            mean.weights = self.backend.asarray(np.asarray(weights, REAL))
        if "distance" in free:
            mean.distance = xp.full(1, 1 - problem.longer, REAL)
        point = Curvature(
            *(problem, x, noise, self.backend, free, prior, spread, mean, self.columns),
            between=self.between,
            tilt=self.tilt,
        )
        O, P = host(x.object[0]), host(x.probe)
        moves = "positions" in free, "log_scale" in free
        varied = None if x.variations is None else host(x.variations)
        probe_free = "probe" in free
        self.gauge = gauge_of(
            *(problem, O, P, probe_free, self.lit, self.touched, *moves),
            *(varied, "weights" in free, "variations" in free),
        )
        if probe_free or "log_scale" in free:
            places = problem.positions if x.positions is None else x.positions
            rows = self.gauge.brighter(host(places)).astype("single")
            point.keep_off(rows.to(self.backend))
        point.hold(self.gauge.orthonormal(probe_free))
        return point

    @property
    def between(self) -> Together:
        """Priors that are learned."""
        found: dict[str, FieldPrior] = {}
        if self.learned is not None:
            found["object"] = self.learned
        if self.beam is not None and "probe" in self.free:
            found["probe"] = self.beam
        return found

    def learn(self, point: Curvature, drawn: list[Drawn]) -> bool:
        """The prior, if it is learned, from an optimum and draws, and what a mean with several
        modes has beside it; whether the prior has not changed.
        """
        if self.learned is None:
            return True
        if "probe" in self.free and len(point.x.probe) > 1:
            self.tilt = Tilt.of(point, [d.x for d in drawn])
        host = self.backend.to_host
        if "probe" in self.free:
            probes = [host(d.x.probe) for d in drawn]
            probe = host(point.x.probe)
            self.beam = ProbePrior.learned(self.backend, probe, probes, self.beam)
        errors = [self.gauge.remove(host(d.x.object[0]).astype(complex))[0] for d in drawn]
        before, self.learned = (self.learned, self.learned.learned(host(point.x.object[0]), errors))
        light = np.array([[point.H.stiffness]])
        left = [float(prior.variance_left(light)[0, 0]) for prior in (before, self.learned)]
        return bool(abs(left[1] / left[0] - 1) < STILL_PRIOR)

    @cached_property
    def seen(self) -> Seen:
        """Through what spectra are seen."""
        return Seen.of(self.lit)

    def octaves(self, changes: list[Unknowns]) -> FloatArray:
        """Mean power of changes of the object by octaves of spatial frequency, less what cannot be
        told.
        """
        seen, total = self.seen, np.zeros(len(PERIODS) - 1)
        frequency = np.arange(len(seen.size)) / min(self.lit.shape)
        flat = np.ones(self.lit.shape, complex)
        for change in changes:
            error, _ = self.gauge.remove(
                self.backend.to_host(change.object[0]).astype(np.complex128)
            )
            power = seen.power(error, flat).sum(axis=0) * seen.size / len(changes)
            for i, (longest, shortest) in enumerate(pairwise(PERIODS)):
                inside = (frequency > 1 / longest) & (frequency <= 1 / shortest)
                total[i] += power[inside].sum()
        return total

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


@dataclass(frozen=True)
class Remains:
    """What remains to the optimum.

    Attributes
    ----------
    octaves : tuple of float
        rms of the next step in units of the bars, foretold from the last two, by octaves of periods
        `PERIODS`; NaN of one that has no frequency.
    rounds : int
        Steps made.
    """

    octaves: tuple[float, ...] = (math.inf,)
    rounds: int = 0

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


class Drawn(NamedTuple):
    """A draw x of the error, the right-hand side t that it solves, the part of the unknowns of
    frames that is not known without samples, and the residual left.
    """

    x: Unknowns
    t: Unknowns
    rest: Unknowns
    left: float


def solved(
    work: Work,
    point: Curvature,
    keys: list[tuple[int, ...]],
    tolerance: float,
    before: list[Drawn] | None = None,
) -> list[Drawn]:
    """A sample for each key, begun at those of another point that had the same keys."""

    def one(key: tuple[int, ...], start: Unknowns | None) -> Drawn:
        noise = point.H.noise(work.generator(*key))
        found = point.solved(noise, tolerance, work.iterations, start)
        return Drawn(found.x, found.rhs, found.rest, found.residual)

    starts = [None] * len(keys) if before is None else [d.x for d in before]
    if work.backend.threads == 1 or work.backend.name != "numpy":
        return [one(*each) for each in zip(keys, starts, strict=True)]
    with ThreadPoolExecutor(work.backend.threads) as pool:
        return list(pool.map(one, keys, starts))
