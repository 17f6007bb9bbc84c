"""Error bars by sampling the posterior itself: Hamiltonian Monte Carlo (Duane et al., Phys. Lett. B
195, 216 (1987)).

No Gaussian is assumed. Where waves have lost their phase (few measurements, few counts) the
posterior is no Gaussian about one optimum, and this is what the other methods are judged by. With U
= -log posterior (`potential`) and momenta p ~ N(0, M),

    p <- p - e/2 dU,   x <- x + e p/M,   p <- p - e/2 dU      L times; accepted with the chance
                                                              min(1, exp -(change of energy))

M is the diagonal of the Fisher information at the start, e is fitted to 80 % accepted while the
chain warms up (Hoffman & Gelman, J. Mach. Learn. Res. 15, 1593 (2014)), and both e and L vary from
one trajectory to the next, so that no period is met. A noise variance that nobody knows is drawn as
well, given the misfit. Chains that do not agree with each other, or with themselves, have not seen
the whole posterior: R^ (Gelman & Rubin, Stat. Sci. 7, 457 (1992)) of half chains says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from threading import Event
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import free_shift, gauge_of
from ..metrics.residual import illuminated, illumination, variance_left
from ..model.noise import Noise, noise_of, told
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Tell, silent
from ..types import COMPLEX, Array, BoolArray, ComplexArray, FloatArray, PtychonError
from .amplitude import bars
from .curvature import Curvature
from .free import USUAL, free_of
from .optimum import checked
from .posterior import Posterior, in_bars
from .potential import Potential

#: Steps of a trajectory on average, share of the passes that warm up, and what share of
#: trajectories should be accepted.
STEPS, WARM, ACCEPTED = 32, 0.25, 0.8
#: Averages of a chain in a row, from which its precision is told.
BATCHES = 10
#: R^ above which chains do not agree.
AGREE = 1.05
#: Largest translation (px) of a draw against the start, where the probe is free.
MAX_SHIFT = 2

Lay = Callable[[ComplexArray, ComplexArray], ComplexArray]


def sample(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = USUAL,
    passes: int = 8000,
    chains: int = 2,
    draws: int = 8,
    noise: str = "auto",
    noise_variance: float | None = None,
    background: Any = None,
    object_variance: float | None = None,
    region: BoolArray | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    tell: Tell = silent,
) -> Posterior:
    """The mean of the posterior and its error bars, by chains that wander through it.

    Parameters
    ----------
    problem : Problem
        On the host.
    object : (H, W) complex array
    probe : (K, P, Q) or (P, Q) complex array
        What some engine found; every chain starts there.
    update : collection of str
        What is free: "object", and "probe" where it was learned too; its error is then part of the
        object's.
    passes : int
        Gradients of each chain, a quarter of them to warm up. Each costs a pass of PIE.
    chains : int
        At least 2; on the CPU they run side by side. The result does not depend on the number of
        threads.
    draws : int
        Of the error, kept in `Posterior.draws`.
    noise, noise_variance, background, object_variance
        As in `laplace`; a variance that is not known is drawn with the rest.
    region : (H, W) bool array, optional
        Where errors are compared after alignment; default the illuminated pixels.
    backend : str or Backend
    seed : int
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    Posterior
        `monte_carlo` is the relative error of its bars; `agreement` is R^, the median over the
        region: up to 1.05 the chains agree. `offset` is that of the object that was given from the
        mean.

    Raises
    ------
    PtychonError
        Arrays that do not fit the problem, numbers out of range, a noise model that the data cannot
        have, or chains in which nothing was accepted.
    """
    free_probe = "probe" in free_of(update, who="sampling")
    for name, value, least in (
        ("passes", passes, 20 * STEPS),
        ("chains", chains, 2),
        ("draws", draws, 1),
    ):
        if value < least:
            raise PtychonError(f"{name} is {value}; at least {least} are needed")
    probe = np.asarray(probe)[None] if np.ndim(probe) == 2 else np.asarray(probe)
    checked(problem, object, probe)
    chosen = get_backend(backend)
    lit = illuminated(problem, probe) if region is None else region
    S = object_variance if object_variance is not None else float(np.mean(np.abs(object[lit]) ** 2))
    if not (np.isfinite(S) and S > 0):
        raise PtychonError(f"the variance of the object's prior is {S}; it must be positive")
    problem = told(problem, background, noise, noise_variance)
    model, local = noise_of(problem, noise, noise_variance), problem.to(chosen)
    learned = model.learned
    if learned:
        measured = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
        if measured <= 2 * lit.sum():
            raise PtychonError(
                f"{measured:.0f} measured amplitudes cannot tell the noise from {2 * lit.sum()} "
                "unknown numbers of the lit "
                f"object; give its variance (noise_variance, --noise-variance)"
            )
        taken = 2 * float(lit.sum())
        model = model.fitted(variance_left(problem, object, probe, chosen, taken))
    O, P = (chosen.asarray(np.ascontiguousarray(a, COMPLEX)) for a in (object, probe))
    potential = Potential(local, P, model, chosen, free_probe, S)
    mass = _mass(local, O, P, model, chosen, free_probe, potential.prior)

    stop = Event()

    def one(number: int) -> Chain:
        way = _aligner(np.asarray(object, COMPLEX), probe, lit, free_probe, problem.near_field)
        begun = (
            O.reshape(-1)
            if not free_probe
            else chosen.xp.concatenate([O.reshape(-1), P.reshape(-1)])
        )
        kept = -(-draws // chains)
        chain = Chain(
            copy(potential),
            mass,
            begun,
            np.random.default_rng([seed, number]),
            way,
            kept,
            learned,
            stop,
        )
        return chain.run(passes, tell if number == 0 else lambda what, done, total: None)

    if chosen.sweeps == "cpu" and chosen.threads > 1:
        with ThreadPoolExecutor(min(chains, chosen.threads)) as pool:
            jobs = [pool.submit(one, number) for number in range(chains)]
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            finally:
                # an error or Ctrl-C ends the other chains too, which the pool would wait for
                stop.set()
        found = [job.result() for job in jobs]
    else:
        found = [one(number) for number in range(chains)]
    return _posterior(
        problem, np.asarray(object, np.complex128), probe, found, lit, free_probe, S, learned, draws
    )


def _mass(
    problem: Problem, O: Array, P: Array, noise: Noise, backend: Backend, free: bool, prior: Array
) -> Array:
    """Diagonal of the curvature, flat."""
    n, names = O.size, ("object", "probe") if free else ("object",)
    probe = prior[n:].reshape(P.shape) if free else None
    own = Unknowns(object=prior[:n].reshape(1, *O.shape), probe=probe)
    point = Curvature(problem, Unknowns(object=O[None], probe=P), noise, backend, names, own)
    arrays = [array.reshape(-1) for _, array in point.diagonal.each()]
    return backend.xp.concatenate(arrays)


def _aligner(
    reference: ComplexArray, probe: ComplexArray, lit: BoolArray, free: bool, near_field: bool
) -> Lay:
    """What lays a draw (object and probe) on the start, as far as the data cannot tell.

    The probe gets the power of the first one: a factor fitted to the object would shrink a noisy
    draw, and its bars.
    """
    if not free:
        return lambda x, _: phase_align(x, reference, lit)
    size = float(np.linalg.norm(probe))
    most = free_shift(near_field, free, MAX_SHIFT)

    def lay(x: ComplexArray, drawn: ComplexArray) -> ComplexArray:
        laid = align(x, reference, region=lit, max_shift=most, scale=False, subpixel=True).estimate
        return np.asarray(laid * (float(np.linalg.norm(drawn)) / size))

    return lay


@dataclass
class Chain:
    """One chain: where it is, and sums over where it was.

    Parameters
    ----------
    potential : Potential
    mass : (n,) float32
        M of each real part.
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
    """

    potential: Potential
    mass: Array
    x: Array
    rng: np.random.Generator
    lay: Lay
    keep: int
    learn: bool = False
    stop: Event = field(default_factory=Event)
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
            members = 0
            while not members or done < passes - (BATCHES - batch) * rest:
                here, length, _ = self._trajectory(here, step.settled)
                done, members = done + length, members + 1
                drawn = self.lay(
                    *map(self.potential.backend.to_host, self.potential.unpack(self.x))
                ).astype(np.complex128)
                total = total + drawn
                self.power = self.power + np.abs(drawn) ** 2
                self.square = self.square + drawn**2
                self.variances.append(self.potential.noise.variance)
                if len(self.kept) < self.keep and done >= marks[len(self.kept)]:
                    self.kept.append(drawn.astype(COMPLEX))
                    self.misfit = self.misfit + np.array(self.potential.misfit(self.x))
                tell("sampling", min(done, passes), passes)
            self.means.append((total / members).astype(COMPLEX))
            self.total = self.total + total
            self.count += members
        return self

    def _trajectory(
        self, here: tuple[float, Array], e: float
    ) -> tuple[tuple[float, Array], int, float]:
        """One trajectory from here (U and its gradient): where it ended, its gradients, its chance
        of being accepted.
        """
        rng, move = self.rng, self.potential.backend.asarray
        length, e = int(rng.integers(STEPS // 2, 3 * STEPS // 2 + 1)), e * rng.uniform(0.8, 1.2)
        noise = rng.standard_normal((self.mass.size, 2), np.float32).view(np.complex64)[:, 0]
        p = move(noise) * self.mass**0.5
        x, (U, force) = self.x, here
        before = U + self._kinetic(p)
        for _ in range(length):
            if self.stop.is_set():
                raise PtychonError("the chain was stopped")
            p = p - np.float32(0.5 * e) * force
            x = x + np.float32(e) * (p / self.mass)
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
        return 0.5 * float(((p.real**2 + p.imag**2) / self.mass).sum(dtype="float64"))


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


def _agreement(
    means: FloatArray | ComplexArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """R^ of half chains, and the number of independent draws, of each pixel.

    Parameters
    ----------
    means : (chains, batches, H, W) complex
    variance : (H, W) float
        Over everything that was drawn.
    """
    halves = np.stack(
        [means[:, : BATCHES // 2].mean(axis=1), means[:, BATCHES // 2 :].mean(axis=1)]
    )
    halves = halves.reshape(-1, *variance.shape)
    between = (np.abs(halves - halves.mean(axis=0)) ** 2).sum(axis=0) / (len(halves) - 1)
    within = np.maximum(variance - between * (1 - 1 / len(halves)), 1e-3 * variance)
    batches = means.reshape(-1, *variance.shape)
    scatter = (np.abs(batches - batches.mean(axis=0)) ** 2).sum(axis=0) / (len(batches) - 1)
    return np.sqrt(1 + between / within), len(batches) * variance / np.maximum(scatter, 1e-30)


def _posterior(
    problem: Problem,
    given: ComplexArray,
    probe: ComplexArray,
    chains: list[Chain],
    lit: BoolArray,
    free: bool,
    S: float,
    learned: bool,
    draws: int,
) -> Posterior:
    """What the chains say together."""
    if not all(chain.accepted for chain in chains):
        raise PtychonError(
            "no step of a chain was accepted: the start is far from any solution, or the noise "
            "is far too small"
        )
    means = np.stack([chain.means for chain in chains])
    count = sum(chain.count for chain in chains)
    mean = sum(chain.total for chain in chains) / count
    power = np.maximum(sum(chain.power for chain in chains) / count - np.abs(mean) ** 2, 1e-30)
    square = sum(chain.square for chain in chains) / count - mean**2
    size = np.abs(mean)
    way = np.where(size > 0, mean / np.where(size > 0, size, 1), 1)
    along = np.clip(0.5 * (power + (square * way.conj() ** 2).real), 1e-3 * power, power)
    ratio, independent = _agreement(means, power)
    agreement = float(np.median(ratio[lit]))
    v = float(np.mean([v for chain in chains for v in chain.variances]))
    noise = replace(chains[0].potential.noise, variance=v)
    touched = illumination(problem, probe) > 0
    gauge = gauge_of(problem, mean, probe, free, lit, touched)
    lay = _aligner(mean.astype(COMPLEX), probe, lit, free, problem.near_field)
    offset = lay(given.astype(COMPLEX), probe) - mean
    surprise, expected = np.sum([chain.misfit for chain in chains], axis=0)
    valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
    in_turn = zip_longest(*(chain.kept for chain in chains))
    kept = np.array([x for drawn in in_turn for x in drawn if x is not None][:draws])
    made = bars(along, power - along, mean)
    return Posterior(
        method="sampling",
        object=mean.astype(COMPLEX),
        probe=probe.astype(COMPLEX),
        **made,
        offset=offset.astype(COMPLEX),
        distance=in_bars(offset, made["object_std"], lit),
        region=lit,
        samples=count,
        monte_carlo=float(np.median(0.5 / np.sqrt(np.maximum(independent[lit], 1)))),
        conditional=(
            noise.describe()
            + (
                f" ({'drawn with the object' if learned else 'given'})"
                if noise.kind == "amplitude"
                else ""
            ),
            f"prior CN(0, {S:.4g}) on every pixel of the object",
            "the probe was learned with the object, prior CN(0, max |P|^2)"
            if free
            else "the probe is known exactly",
            "the positions are known exactly",
            f"after alignment on the lit pixels: {', '.join(gauge.names)}",
            f"{len(chains)} chains: {sentence(agreement)}",
        ),
        chi2=float(surprise / expected),
        chi2_error=math.sqrt(2 / valid),
        noise_variance=v if noise.kind == "amplitude" else None,
        prior_variance=S,
        draws=(kept - mean).astype(COMPLEX),
        agreement=agreement,
    )


def sentence(agreement: float) -> str:
    """Whether the chains have seen enough, in words."""
    if agreement <= AGREE:
        return f"they agree (R^ {agreement:.3f})"
    return (
        f"they do not agree (R^ {agreement:.2f}): these bars are too small; more passes (-n) "
        "are needed"
    )
