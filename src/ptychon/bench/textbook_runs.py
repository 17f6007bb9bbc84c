"""The textbook's updates from the start of a problem, a pass at a time, as the bench times them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from ..engines.difference_map import DifferenceMap
from ..engines.pie import EPIE, PIE, RPIE, full
from ..engines.ptycho_ep import PtychoEP
from ..model.problem import Problem
from ..types import Array, ComplexArray, FloatArray, PtychonError
from .textbook import abs2, dm, ep, ep_probe, ep_sums, epie, modulus_change, pie, rpie, windows


@dataclass(frozen=True)
class Textbook:
    """A reconstruction that goes one pass further at each call of `sweep`.

    Attributes
    ----------
    object : (H, W) complex64
    probe : (P, Q) or (K, P, Q) complex64
        Both change in place; for expectation propagation `object` is brought up to date by each
        sweep.
    sweep : callable
        Returns the misfit, as the engine does: in each pass, or in every fifth if it costs an FFT
        (0 in the others).
    """

    object: ComplexArray
    probe: ComplexArray
    sweep: Callable[[], float]


def start(engine: Any, problem: Problem, object: ComplexArray, probe: ComplexArray) -> Textbook:
    """The textbook version of `engine`, with the hyper-parameters of `engine`, from a first object
    and probe.

    Parameters
    ----------
    engine : Engine
        "pie", "epie", "rpie", "dm" (beta 1, no bound) or "ep" (Rician, Gaussian prior, noise
        variance known). The probe moves from the first pass on if it moves at all.
    problem : Problem
        On the host: far field, whole-pixel positions, every detector pixel valid.
    object : (H, W) complex
    probe : (K, P, Q) complex

    Raises
    ------
    PtychonError
        If the textbook lacks what engine or problem ask for.
    """
    if problem.subpixel or problem.propagator.transfer is not None or not problem.mask.all():
        raise PtychonError(
            "the textbook code knows whole-pixel far-field scans without masked pixels only"
        )
    engine = full(engine)
    O, P = object.astype(np.complex64), probe.astype(np.complex64)
    P = P[0] if len(P) == 1 else P
    scan = problem.corners, problem.amplitude
    if isinstance(engine, PIE):
        return Textbook(
            O, P, partial(pie, O, P, *scan, step=engine.object_step, reg=engine.object_reg)
        )
    if isinstance(engine, EPIE | RPIE):
        sweep = partial(epie if isinstance(engine, EPIE) else rpie, O, P, *scan)
        options = {"step": engine.object_step, "probe_step": engine.probe_step}
        if isinstance(engine, RPIE):
            options |= {"reg": engine.object_reg, "probe_reg": engine.probe_reg}
        return Textbook(O, P, partial(sweep, **options))
    if (
        isinstance(engine, DifferenceMap)
        and engine.beta == 1
        and engine.overlap_passes == 1
        and not engine.power_bound
    ):
        return _difference_map(engine, scan, O, P)
    if (
        isinstance(engine, PtychoEP)
        and P.ndim == 2
        and engine.prior == "gaussian"
        and not engine.learns(problem)
    ):
        return _expectation_propagation(engine, problem, O, P)
    raise PtychonError(f"the textbook code has no {engine.name!r} with these options")


def _difference_map(engine: Any, data: tuple[Array, FloatArray], O: Array, P: Array) -> Textbook:
    corners, amplitude = data
    waves = np.empty((len(corners), *P.shape), np.complex64)
    for j, window in enumerate(windows(O, corners, P.shape)):
        psi = P * window
        waves[j] = psi + modulus_change(psi, amplitude[j])[0]
    inertia = {"inertia": engine.object_inertia, "probe_inertia": engine.probe_inertia}
    measure = _every(engine.residual_every)
    return Textbook(
        O, P, lambda: dm(waves, O, P, corners, amplitude, measure=next(measure), **inertia)
    )


def _every(n: int) -> Iterator[bool]:
    """True at the first and every n-th call."""
    return (i % n == 0 for i in count())


def _expectation_propagation(engine: Any, problem: Problem, O: Array, P: Array) -> Textbook:
    corners, offset = problem.corners, np.float32(engine.offset(problem))
    y = np.sqrt(problem.amplitude**2 + offset) if offset else problem.amplitude
    v = float(engine.noise(problem).variance or 0)
    light = np.zeros(O.shape, np.float32)
    for window in windows(light, corners, P.shape):
        window += abs2(P)
    prior = 1 / (
        engine.object_variance or max(1.0, float((light * np.abs(O) ** 2).sum() / light.sum()))
    )
    messages = np.stack([P * window for window in windows(O, corners, P.shape)])
    g = np.full(len(corners), 1 / (y**2).mean(dtype=np.float64), np.float32)
    precision, natural = np.empty(O.shape, np.float32), np.empty_like(O)
    belief = precision, natural, messages, g, P, corners
    ep_sums(*belief, prior)

    measure = _every(engine.residual_every)

    def sweep() -> float:
        total = ep(*belief, y, v, engine.weight, next(measure))
        for _ in range(engine.probe_updates):
            ep_probe(*belief)
        if engine.probe_updates:
            ep_sums(*belief, prior)
        np.divide(natural, precision, out=O)
        return total

    return Textbook(O, P, sweep)
