"""Are the bars true? The question put to a twin: data simulated from a draw of the posterior, where
the truth is known.

If the posterior is right, a draw of it is as good a truth as any, and bars made from the twin's
data in the same way must cover it (Cook, Gelman & Rubin, J. Comput. Graph. Stat. 15, 675 (2006)).
Their mean (error/bar)^2 is the temperature by which the variances of the result itself are
multiplied; what they cover after that says whether the bars can be trusted at all. What the model
of the data, or the optimum, has wrong, the twin has not: then the data fit worse than the twin's
do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..data.result import Result
from ..engines import spectral_prior as stationary
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import POSITIONS, Gauge, free_shift, gauge_of
from ..metrics.residual import Coverage, coverage
from ..model.noise import Noise
from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..run.progress import Tell
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray
from .bootstrap import simulated
from .starts import begun_anew, begun_near, translated
from .verdict import Twin, scatter

#: Largest translation (px) between the twin's reconstruction and its truth.
MAX_SHIFT = 8


def on_twin(
    problem: Problem,
    found: Result,
    drawn: Unknowns,
    begun: Result,
    again: Callable[[Problem, Result], Result],
    *,
    noise: Noise,
    region: BoolArray,
    free_probe: bool,
    backend: Backend,
    seed: int,
    tell: Tell,
    near: Result | None = None,
    offset: ComplexArray | None = None,
) -> Twin:
    """Make bars of simulated data as they were made of the data, and compare them with the truth.

    Parameters
    ----------
    problem : Problem
        The data, on the host, with what is known of each frame.
    found : Result
        With bars and draws, and the last of its history's "chi2".
    drawn : Unknowns
        What the twin is simulated from: a draw of the posterior, of all that was free; the rest is
        as in the problem and in `found`. Positions in object pixels, a background (1, P, Q) in the
        order of `Problem.amplitude`.
    begun : Result
        From which the bars of the data began, and by whose recipe the twin begins.
    again : callable
        Makes bars, for data and a result of them.
    noise : Noise
        Of the data.
    region : (H, W) bool array
        Where bars are compared.
    free_probe : bool
    backend : Backend
    seed : int
    tell : callable
    near : Result, optional
        Where the twin begins if `begun` does not tell its recipe; default its passes from `found`.
    offset : (H, W) complex array, optional
        Of the object that has the bars, from the mean of the posterior.
    """
    truth = drawn.object[0].astype(COMPLEX)
    seen = found if drawn.probe is None else replace(found, probe=drawn.probe.astype(COMPLEX))
    if free_probe and not problem.near_field:
        truth, seen = translated(truth, seen, seed)
    data = twin_data(problem, seen, truth, drawn, noise, backend, seed)
    tell("beginning of the twin", 0, 1)
    begin = begun_anew(data, begun, free_probe, backend)
    anew = begin is not None
    if begin is None:
        begin = begun_near(data, begun, backend) if near is None else near
    made = again(data, begin)
    gauge = None
    if {"positions", "log_scale", "weights"} & set(drawn.names):
        gauge = gauge_of(
            *(problem, truth, seen.probe, free_probe, region, region),
            *(drawn.positions is not None, drawn.log_scale is not None),
            variations=problem.variations,
            free_weights=drawn.weights is not None,
            free_variations=drawn.variations is not None,
        )
    twin = judge(made, truth, region, free_probe, found, problem.near_field, offset, gauge)
    return replace(twin, anew=anew)


def twin_data(
    problem: Problem,
    result: Result,
    truth: ComplexArray,
    drawn: Unknowns,
    noise: Noise,
    backend: Backend,
    seed: int,
) -> Problem:
    """The same scan of another object, with noise of the same kind: what was drawn of frames,
    background, variations of the probe and distance is in the data, and not told.
    """
    scan = problem
    if drawn.positions is not None:
        scan = problem.with_positions(drawn.positions, problem.log_scale)
    if drawn.distance is not None:
        scan = scan.with_distance(scan.longer + float(drawn.distance[0]))
    own = {
        name: getattr(drawn, name)
        for name in ("log_scale", "weights", "variations")
        if getattr(drawn, name) is not None
    }
    if drawn.background is not None:
        dark = np.maximum(drawn.background, 0) + noise.read_noise**2
        noise = replace(noise, background=dark.astype(REAL))
    made = simulated(
        replace(scan, **own),
        replace(result, object=truth.astype(COMPLEX)),
        noise,
        backend,
        np.random.default_rng([seed, 1]),
    )
    same = (
        *("corners", "shifts", "shift_index", "measured", "propagator"),
        *("log_scale", "weights", "variations"),
    )
    return replace(made, **{name: getattr(problem, name) for name in same})


def judge(
    found: Result,
    truth: ComplexArray,
    region: BoolArray,
    free_probe: bool,
    first: Result,
    near_field: bool = False,
    offset: ComplexArray | None = None,
    gauge: Gauge | None = None,
) -> Twin:
    """Compare a twin's reconstruction with its truth, and its misfit with that of the `first` one,
    of the data; a translation is an error in the near field. `offset` is that of the first from
    the mean of its posterior, about which its draws are; `gauge` what nobody knows beside what an
    alignment finds.
    """
    std = found.object_std
    assert std is not None
    estimate: Any = found.object
    if free_probe or gauge is not None:
        moves = gauge is not None and POSITIONS[0] in gauge.names
        most = MAX_SHIFT if moves else free_shift(near_field, free_probe, MAX_SHIFT)
        laid = align(found.object, truth, region=region, max_shift=most, subpixel=True)
        estimate, std = laid.estimate, np.asarray(std / abs(laid.scale), REAL)
    if gauge is not None:
        error, _ = gauge.remove((estimate - truth).astype(np.complex128))
        estimate = np.where(estimate != 0, truth + error, 0).astype(COMPLEX)
    raw = measured(estimate, truth, std, region)
    cooled = measured(estimate, truth, np.asarray(std * raw.mean_square**0.5, REAL), region)
    error = phase_align(estimate, truth, region)[region] - truth[region]
    power = float((np.abs(truth[region]) ** 2).sum() / (np.abs(error) ** 2).sum())
    return Twin(
        temperature=raw.mean_square,
        covered=cooled.covered,
        misfit=float(first.history["chi2"][-1] / found.history["chi2"][-1]),
        assumed=assumed_share(first, region),
        error_db=10 * float(np.log10(power)),
        chance=chance_of(first, found, region, offset),
    )


def chance_of(
    first: Result, again: Result, region: BoolArray, offset: ComplexArray | None
) -> float:
    """Of the mean (error/bar)^2 of a scan like these two, from the draws of both."""
    both = []
    for found in (first, again):
        assert found.draws is not None
        assert found.object_std is not None
        both.append(scatter(found.draws, found.object_std, region, offset))
    return float(np.sqrt(np.mean(np.square(both))))


def measured(
    estimate: ComplexArray, truth: ComplexArray, std: FloatArray, region: BoolArray
) -> Coverage:
    """`metrics.coverage` on the pixels that both know."""
    return coverage(estimate, truth, std, region & (np.abs(estimate) > 0))


def assumed_share(found: Result, region: BoolArray) -> float:
    """Share of the posterior variance in rings of spatial frequency of which the data tell less
    than `stationary.DOUBTED`.
    """
    assert found.draws is not None
    backend = get_backend("numpy")
    taper = region.astype(REAL)
    rings, size = stationary.rings_of(found.object.shape, np)

    def power(field: ComplexArray) -> FloatArray:
        return np.asarray(stationary.by_rings(field, taper, rings, size, backend))

    variance, mean = np.mean([power(x) for x in found.draws], axis=0), power(found.object)
    hardly = variance > (1 - stationary.DOUBTED) * (variance + mean)
    return float((variance * size)[hardly].sum() / (variance * size).sum())
