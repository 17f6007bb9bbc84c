"""Error bars by sampling the posterior itself: Hamiltonian Monte Carlo (Duane et al., Phys. Lett. B
195, 216 (1987)).

No Gaussian is assumed. Where waves have lost their phase (few measurements, few counts) the
posterior is no Gaussian about one optimum, and this is what the other methods are judged by. With U
= -log posterior (`potential`) and momenta p ~ N(0, M),

    p <- p - e/2 dU,   x <- x + e p/M,   p <- p - e/2 dU      L times; accepted with the chance
                                                              min(1, exp -(change of energy))

M is the diagonal of the Fisher information at the start (and that of a learned prior in Fourier
space), e is fitted to 80 % accepted while the
chain warms up (Hoffman & Gelman, J. Mach. Learn. Res. 15, 1593 (2014)), and both e and L vary from
one trajectory to the next, so that no period is met. A prior that is learned is that of `laplace`,
from whose optimum the chains begin then: without it they hold that every pixel is of its own, and
bars of smooth objects at few counts are too wide. A noise variance that nobody knows is drawn as
well, given the misfit. Chains that do not agree with each other, or with themselves, have not seen
the whole posterior: R^ (Gelman & Rubin, Stat. Sci. 7, 457 (1992)) of half chains says so.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from copy import copy
from dataclasses import replace
from itertools import zip_longest
from threading import Event
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import free_shift, gauge_of
from ..metrics.residual import illuminated, illumination, variance_left
from ..model.noise import noise_of, told
from ..model.problem import Problem
from ..model.pulls import Together
from ..model.unknowns import Unknowns
from ..run.progress import Tell, silent
from ..types import COMPLEX, Array, BoolArray, ComplexArray, PtychonError
from .amplitude import bars
from .chains import STEPS, Chain, Lay, Mass, agreement_of
from .conditions import of_priors
from .curvature import Curvature
from .free import USUAL, free_of
from .laplace import laplace
from .optimum import checked
from .posterior import Posterior, in_bars
from .potential import Potential
from .prior import PRIORS, WHITE, Spectral

#: Gradients of a chain where their number is not given, with a white and with a learned prior: what
#: pixels share is slow to move (with 8000 mean u2 of scans of 24 x 24 was 1.1 to 1.25, with 20 000
#: 0.9 to 1).
PASSES, SLOWER = 8000, 20_000
#: Draws of the way to a learned prior.
FEW = 4
#: R^ above which chains do not agree.
AGREE = 1.05
#: Largest translation (px) of a draw against the start, where the probe is free.
MAX_SHIFT = 2


def sample(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = USUAL,
    passes: int | None = None,
    chains: int = 2,
    draws: int = 8,
    noise: str = "auto",
    noise_variance: float | None = None,
    background: Any = None,
    object_variance: float | None = None,
    prior: str = WHITE,
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
        What some engine found; every chain starts there, or, with a learned prior, at the optimum
        that `laplace` finds from there.
    update : collection of str
        What is free: "object", and "probe" where it was learned too; its error is then part of the
        object's.
    passes : int, optional
        Gradients of each chain, a quarter of them to warm up; default 8000, with a learned prior
        20 000. Each costs a pass of PIE.
    chains : int
        At least 2; on the CPU they run side by side. The result does not depend on the number of
        threads.
    draws : int
        Of the error, kept in `Posterior.draws`.
    noise, noise_variance, background, object_variance
        As in `laplace`; a variance that is not known is drawn with the rest.
    prior : {"white", "learned", "local"}
        Of the object, as in `laplace`, which learns it.
    region : (H, W) bool array, optional
        Where errors are compared after alignment; default the illuminated pixels.
    backend : str or Backend
    seed : int
    tell : callable
        Called with what is being done, how much of it is done, and of how much. Ctrl-C ends with
        what the chains have once 4 of their 10 averages are there.

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
    if prior not in PRIORS:
        raise PtychonError(f"prior is {prior!r}; choose one of {', '.join(PRIORS)}")
    if passes is None:
        passes = PASSES if prior == WHITE else SLOWER
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
    given, begun = np.asarray(object), probe
    between: Together = {}
    if prior != WHITE:
        stated: dict[str, Any] = {"noise_variance": noise_variance, "background": background}
        stated |= {"region": region, "backend": chosen, "seed": seed, "tell": tell}
        optimum = laplace(
            *(problem, object, probe), update=update, noise=noise, prior=prior, draws=FEW, **stated
        )
        if optimum.stopped:
            raise KeyboardInterrupt
        object, probe, between = optimum.object, optimum.probe, optimum.field_priors
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
    potential = Potential(local, P, model, chosen, free_probe, S, between)
    mass = _mass(potential, O, P)
    if free_probe:
        # 4 K/|P|^2 along P is what is told of a number on average, where there is light
        light = chosen.xp.abs(P.reshape(-1)) ** 2
        mean = (light * mass.diagonal[O.size :]).sum(dtype="float64") / light.sum(dtype="float64")
        potential.held = potential.power * float(mean) / 4

    stop, hurry, kept = Event(), Event(), -(-draws // chains)
    x = chosen.xp.concatenate([O.reshape(-1), P.reshape(-1)]) if free_probe else O.reshape(-1)
    lay = _aligner(np.asarray(object, COMPLEX), probe, lit, free_probe, problem.near_field)
    all_of = [
        Chain(
            *(copy(potential), mass, x, np.random.default_rng([seed, number]), lay),
            *(kept, learned, stop, hurry),
        )
        for number in range(chains)
    ]
    found, stopped = run_all_of(all_of, passes, chosen, tell)
    whole = np.asarray(given, np.complex128)
    made = _posterior(problem, whole, begun, probe, found, lit, free_probe, S, learned, draws)
    return replace(made, stopped=stopped)


def run_all_of(
    chains: list[Chain], passes: int, backend: Backend, tell: Tell
) -> tuple[list[Chain], bool]:
    """The chains after their passes, or, stopped with Ctrl-C, with what they have; and whether they
    were.
    """

    def one(number: int) -> Chain:
        say = tell if number == 0 else lambda what, done, total: None
        return chains[number].run(passes, say)

    if backend.sweeps != "cpu" or backend.threads == 1:
        try:
            return [one(number) for number in range(len(chains))], False
        except KeyboardInterrupt:
            if not all(chain.enough for chain in chains):
                raise
            return chains, True
    stopped = False
    with ThreadPoolExecutor(min(len(chains), backend.threads)) as pool:
        jobs = [pool.submit(one, number) for number in range(len(chains))]
        try:
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
        except KeyboardInterrupt:
            enough = [chain.enough for chain in chains]
            # one that runs beside another and lags behind it is soon there too
            beside = len(chains) <= backend.threads and any(enough)
            if not (beside or all(enough)):
                raise
            stopped = True
            chains[0].hurry.set()
            wait(jobs)
        finally:
            # an error ends the other chains too, which the pool would wait for
            chains[0].stop.set()
    return [job.result() for job in jobs], stopped


def _mass(potential: Potential, O: Array, P: Array) -> Mass:
    """From the diagonal of the curvature, and a stationary prior where one was learned."""
    n, free, prior = O.size, potential.free_probe, potential.prior
    probe = prior[n:].reshape(P.shape) if free else None
    own = Unknowns(object=prior[:n].reshape(1, *O.shape), probe=probe)
    point = Curvature(
        *(potential.problem, Unknowns(object=O[None], probe=P), potential.noise),
        *(potential.backend, USUAL if free else USUAL[:1], own),
        between=potential.between,
    )
    arrays = [array.reshape(-1) for _, array in point.diagonal.each()]
    diagonal = potential.backend.xp.concatenate(arrays)
    prior = potential.between.get("object")
    if not isinstance(prior, Spectral):
        return Mass(diagonal)
    return Mass(diagonal, prior, point.even_light("object"), O.shape)


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


def _posterior(
    problem: Problem,
    given: ComplexArray,
    begun: ComplexArray,
    probe: ComplexArray,
    chains: list[Chain],
    lit: BoolArray,
    free: bool,
    S: float,
    learned: bool,
    draws: int,
) -> Posterior:
    """What the chains say together; an object was `given`, `begun` with its probe."""
    if not all(chain.accepted for chain in chains):
        raise PtychonError(
            "no step of a chain was accepted: the start is far from any solution, or the noise "
            "is far too small"
        )
    batches = min(len(chain.means) for chain in chains)
    means = np.stack([chain.means[:batches] for chain in chains])
    count = sum(chain.count for chain in chains)
    mean = sum(chain.total for chain in chains) / count
    power = np.maximum(sum(chain.power for chain in chains) / count - np.abs(mean) ** 2, 1e-30)
    square = sum(chain.square for chain in chains) / count - mean**2
    size = np.abs(mean)
    way = np.where(size > 0, mean / np.where(size > 0, size, 1), 1)
    along = np.clip(0.5 * (power + (square * way.conj() ** 2).real), 1e-3 * power, power)
    ratio, independent = agreement_of(means, power)
    agreement = float(np.median(ratio[lit]))
    v = float(np.mean([v for chain in chains for v in chain.variances]))
    noise = replace(chains[0].potential.noise, variance=v)
    touched = illumination(problem, probe) > 0
    gauge = gauge_of(problem, mean, probe, free, lit, touched)
    lay = _aligner(mean.astype(COMPLEX), probe, lit, free, problem.near_field)
    offset = lay(given.astype(COMPLEX), begun) - mean
    surprise, expected = np.sum([chain.misfit for chain in chains], axis=0)
    valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
    in_turn = zip_longest(*(chain.kept for chain in chains))
    kept = np.array([x for drawn in in_turn for x in drawn if x is not None][:draws])
    made = bars(along, power - along, mean)
    drawn, priors = (kept - mean).astype(COMPLEX), chains[0].potential.between
    assumed, whose = of_priors(priors, S, list(drawn))
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
            *whose,
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
        draws=drawn,
        agreement=agreement,
        assumed=assumed,
    )


def sentence(agreement: float) -> str:
    """Whether the chains have seen enough, in words."""
    if agreement <= AGREE:
        return f"they agree (R^ {agreement:.3f})"
    return (
        f"they do not agree (R^ {agreement:.2f}): these bars are too small; more passes (-n) "
        "are needed"
    )
