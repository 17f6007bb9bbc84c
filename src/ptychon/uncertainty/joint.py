"""Error bars by expectation propagation, from where any engine has come: Ptycho-EP, the joint
posterior, where the probe is free Gauss-Newton steps to its optimum with a prior whose spectra are
learned anew, and its twin.

The messages of expectation propagation hold the phase of each wave, which the data do not know. So
passes move the mean slowly along directions that the data hold loosely by the phases of all pixels
together: coarse structures, and what object and probe can trade. Where the probe is known nothing
but the former is soft, and messages are the better likelihood of dark pixels: the passes have the
last word, unless their spectrum, a power law where the data tell little, is far from that of the
object. That is where the steps foretell an error less by `CLEARLY`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from ..backends import Backend, get_backend
from ..data.result import Result
from ..engines.joint_posterior import SMOOTH
from ..metrics.ambiguities import gauge_of
from ..metrics.residual import illuminated, residual
from ..model.noise import noise_in, noise_of
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Progress, Tell, silent
from ..run.reconstruct import reconstruct
from ..types import COMPLEX, REAL, BoolArray, FloatArray
from .amplitude import bars
from .centre import centred
from .free import USUAL, free_of
from .laplace import laplace
from .optimum import Remains
from .posterior import Posterior, in_bars
from .prior import LOCAL
from .starts import begun_otherwise, compared, recipe_of
from .twin import on_twin
from .verdict import Twin

#: Passes of Ptycho-EP before the joint posterior, its passes before draws are kept, and draws of
#: its own, from which the steps to the optimum begin.
EP_PASSES, BURN_IN, FIRST_DRAWS = 60, 24, 2
#: Conjugate gradients a pass where a probe is learned behind a background, whose dark pixels hold
#: it only loosely: with the engine's 3 the mean (error/bar)^2 of three scans was 1.06 to 1.22, with
#: 12 0.96 to 1.02. Without a background 3 are better.
CAREFUL = 12
#: Decibels by which the error after the steps has to be less than after the passes, as their bars
#: foretell it, for the steps to be taken where the probe is known.
CLEARLY = 1.5
#: Counts of a mean pixel (or what has the same noise) from which they may be. At 39 mean
#: (error/bar)^2 was 0.98 to 1.02 of steep and smooth objects; at 4 up to 1.4.
ENOUGH_COUNTS = 10.0
#: Variance of the amplitude of counts.
COUNTING = 0.25
#: Illumination, relative to the mean over what is lit at all, from which pixels count as
#: illuminated in checks.
FULL = 0.5


def joint(
    problem: Problem,
    result: Result,
    *,
    update: Collection[str] = USUAL,
    ep_passes: int = EP_PASSES,
    burn_in: int = BURN_IN,
    draws: int = 8,
    check: bool = True,
    noise_variance: float | None = None,
    noise_per_frame: bool | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    tell: Tell = silent,
) -> tuple[Result, Posterior, Twin | None]:
    """Error bars that include the correlations between pixels, an unknown probe and a learned
    prior, checked on a twin.

    Parameters
    ----------
    problem : Problem
        On the host.
    result : Result
        Of any engine.
    update : collection of str
        What is free: "object", and "probe" where it is unknown as well.
    ep_passes : int
        Passes of Ptycho-EP first (not with several probe modes, nor where the result is the joint
        posterior's already).
    burn_in, draws : int
        Passes of the joint posterior, and draws it keeps after them.
    check : bool
        Make the same of simulated data, and correct the bars by what is found: doubles the time.
    noise_variance : float, optional
        Of the amplitude; default what the problem says.
    noise_per_frame : bool, optional
        Learn the variance of each frame; default as the result did.
    backend : str or Backend
    seed : int
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    (Result, Posterior, Twin or None)
        The posterior mean with its bars and draws, already multiplied by the root of the twin's
        temperature; the same as a `Posterior`; what the twin said.

    Raises
    ------
    PtychonError
        A run that fails.
    """
    free_probe = "probe" in free_of(update, who="the joint posterior")
    chosen = get_backend(backend)
    options: dict[str, Any] = {} if noise_variance is None else {"noise_variance": noise_variance}
    if result.options.get("noise_per_frame", False) if noise_per_frame is None else noise_per_frame:
        options["noise_per_frame"] = True
    careful: dict[str, Any] = (
        {"iterations": CAREFUL} if free_probe and problem.counts is not None else {}
    )

    def made(
        data: Problem, start: Result, number: int, steps: bool | None
    ) -> tuple[Result, Remains | None]:
        if free_probe and not data.near_field:
            start, _ = centred(data, start, options, chosen, seed, tell)
        own = min(draws, FIRST_DRAWS) if free_probe else draws
        warm = burn_in + draws - own
        recipe = recipe_of(start, free_probe, ep_passes, warm, own, options, careful)
        last = recipe.stages[-1].passes
        before = recipe.passes - last

        def told(p: Progress) -> None:
            done = p.passes - start.passes
            whose = ("", " of the twin", " of the second start")[number]
            if done <= before:
                tell(f"pass of Ptycho-EP{whose}", done, before)
            else:
                tell(f"pass{whose}", done - before, last)

        passed = reconstruct(
            data, recipe, backend=chosen, start=start, seed=seed, judge=False, callbacks=[told]
        )
        if steps is False:
            return passed, None
        stepped = to_optimum(data, passed, draws, chosen, seed, tell, free_probe)
        return stepped if steps or clearer(data, passed, stepped[0]) else (passed, None)

    # bars of the passes hold a variance for each frame, those of the steps one of all
    one_noise = options.get("noise_per_frame") is None
    either = None if one_noise and bright(problem, noise_variance) else False
    begun = result
    found, remains = made(problem, result, 0, True if free_probe else either)
    lit, twin, starts = lit_region(problem, found), None, None
    if check and free_probe:
        tell("a second start", 0, 1)
        other = begun_otherwise(problem, result, chosen)
        if other is not None:
            second, left = made(problem, other, 2, True)
            starts = compared(problem, found, second, lit, noise_in(problem, found), chosen)
            if starts.kept == "second":
                found, remains, begun = second, left, other
    assert found.draws is not None
    assert found.object_std is not None
    if check:
        twin = on_twin(
            problem,
            found,
            Unknowns(object=(found.object + found.draws[0])[None]),
            begun,
            lambda data, begin: made(data, begin, 1, remains is not None)[0],
            noise=noise_in(problem, found),
            region=lit,
            free_probe=free_probe,
            backend=chosen,
            seed=seed,
            tell=tell,
            near=replace(found, engine="", errors=found.errors[:0], history={}, passes=0),
        )
        if starts is not None:
            starts = starts.in_bars(twin.factor**0.5)
        left_over = 0.0 if remains is None else remains.worst
        spare = max(problem.amplitude.size - 2 * int(lit.sum()), 1)
        # of the quotient of two chi^2 over their expectations
        chance = math.sqrt(2 * 2 / spare)
        modes = len(found.probe) if free_probe else 0
        twin = replace(twin, remains=left_over, starts=starts, misfit_chance=chance, modes=modes)
        root = REAL.type(math.sqrt(twin.factor))
        found = replace(found, object_std=found.object_std * root, draws=found.draws * root)
    return found, described(problem, result, found, lit, free_probe, twin, remains), twin


def to_optimum(
    problem: Problem,
    found: Result,
    draws: int,
    backend: Backend,
    seed: int,
    tell: Tell,
    free_probe: bool,
) -> tuple[Result, Remains]:
    """The result of the joint posterior at its optimum, with new draws and bars."""
    made = laplace(
        problem,
        found.object,
        found.probe,
        update=USUAL if free_probe else USUAL[:1],
        noise=noise_in(problem, found),
        prior=LOCAL,
        draws=max(draws, 2),
        backend=backend,
        seed=seed,
        keep=True,
        tell=tell,
    ).with_errors()
    if made.stopped:
        # half a way is no optimum, and a twin that was made so no check
        raise KeyboardInterrupt
    better = replace(
        found,
        object=made.object,
        probe=made.probe,
        object_std=made.object_std,
        draws=made.draws,
        final_error=residual(problem, made.object, made.probe, backend),
    )
    return better, Remains(made.remains or (math.inf,), 1)


def bright(problem: Problem, noise_variance: float | None) -> bool:
    """Whether a mean pixel has counts enough for a curvature, or so little noise of the amplitude;
    not where that is unknown.
    """
    noise = noise_of(problem, "auto", noise_variance)
    variance = COUNTING if noise.kind == "poisson" else noise.variance
    if variance is None:
        return False
    power = float(np.mean(problem.amplitude.astype(np.float64) ** 2))
    return power / (4 * float(np.mean(variance))) > ENOUGH_COUNTS


def clearer(problem: Problem, passed: Result, stepped: Result) -> bool:
    """Whether the bars after the steps foretell an error that is clearly less."""
    lit = lit_region(problem, passed)
    assert passed.object_std is not None
    assert stepped.object_std is not None
    before, after = (
        float((std[lit].astype(np.float64) ** 2).sum())
        for std in (passed.object_std, stepped.object_std)
    )
    return 10 * math.log10(before / after) > CLEARLY


def lit_region(problem: Problem, result: Result) -> BoolArray:
    """Pixels with at least half of the mean illumination of all that are lit."""
    light = result.illumination
    some = illuminated(problem, result.probe)
    return np.asarray(light > FULL * light[some].mean())


def described(
    problem: Problem,
    result: Result,
    found: Result,
    lit: BoolArray,
    free_probe: bool,
    twin: Twin | None,
    remains: Remains | None,
) -> Posterior:
    """The bars as a `Posterior`."""
    assert found.draws is not None
    assert found.object_std is not None
    gauge = gauge_of(problem, found.object, found.probe, free_probe, lit, np.ones(lit.shape, bool))
    moved, _ = gauge.remove(result.object.astype(np.complex128) - found.object)
    share = _share_along(found)
    square = found.object_std.astype(np.float64) ** 2
    noise = noise_in(problem, found)
    conditional = [
        noise.describe(),
        "prior of the object: stationary Gaussian with a learned spectrum",
        "the probe was learned, and its error is part of the bars"
        if free_probe
        else "the probe is known exactly",
        "the positions are known exactly",
        f"after alignment on the lit pixels: {', '.join(gauge.names)}",
        *([] if remains is None else [remains.sentence()]),
        twin.sentence() if twin is not None else "not checked on a twin",
    ]
    made = Posterior(
        method="joint",
        object=found.object,
        probe=found.probe,
        **bars(square * share, square * (1 - share), found.object),
        offset=moved.astype(COMPLEX),
        distance=in_bars(moved, found.object_std, lit),
        region=lit,
        samples=len(found.draws),
        monte_carlo=float(1 / np.sqrt(8 * math.pi * SMOOTH**2 * len(found.draws))),
        chi2=float(found.history["chi2"][-1]),
        noise_variance=noise.amplitude_variance,
        conditional=tuple(conditional),
        draws=found.draws,
    )
    return made if twin is None else made.judged(twin)


def _share_along(found: Result) -> FloatArray:
    """Share of the variance that lies along the object's own direction, smooth over
    a few pixels.
    """
    assert found.draws is not None
    size = np.abs(found.object)
    turned = found.draws * np.where(size > 0, found.object.conj() / np.where(size > 0, size, 1), 1)
    along, both = (
        gaussian_filter((part**2).mean(axis=0), SMOOTH) for part in (turned.real, np.abs(turned))
    )
    return np.asarray(np.clip(along / np.maximum(both, 1e-30), 0.02, 0.98))
