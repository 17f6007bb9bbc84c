"""Where to begin. A first probe where none is given: candidates are tried on a few frames, and the best explains them best.

Engines that learn the probe find its details from almost anywhere, but not always its size: from a probe that is much too small
or too wide they end in a wrong optimum, above all with little overlap, behind a beam stop or with a sparse object. So a
family of candidates is tried, each with some passes of rPIE over neighbouring frames of the middle of the scan:

    focus   the root of the mean frame, defocused one way and the other to several widths (`guess.initial_probe`)
    disc    evenly lit discs of several diameters

and the best of the discs is refined. What is left over after the same passes tells them apart: with 70 % overlap and a disc
of 43 px, R was 0.10 from a disc of the right size, 0.13 from one of 48 px, and 0.17 to 0.23 from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..engines import Context, make
from ..model.problem import Problem
from ..types import ComplexArray
from .guess import focused, initial_object, initial_probe, scaled_probe, wave_power

#: Frames and passes of a trial.
FRAMES, PASSES = 49, 10
#: Least number of frames that tell candidates apart.
ENOUGH = 8
#: Widths of the defocused candidates in those of the plain one, diameters of the discs in sides of the frame, and the factors
#: by which the best disc is changed in the end.
WIDTHS = (0.5, 1.0, 1.6)
DIAMETERS = tuple(0.86**k for k in range(8))
REFINEMENTS = (0.07, 0.035, 0.018)
#: What a candidate must gain over the plain one: below that they are the same.
GAIN = 0.97


def find_probe(problem: Problem, backend: Backend) -> ComplexArray:
    """The best of several first probes, (1, P, Q) complex64 with sum |P|^2 = mean power.

    The plain one (`guess.initial_probe`) in the near field and for scans of fewer than 8 frames.

    Parameters
    ----------
    problem : Problem
        On the host.
    backend : Backend
        For the near field's propagation; trials run on one core of the CPU.
    """
    plain = initial_probe(problem, backend)
    if problem.propagator.transfer is not None or len(problem) < ENOUGH:
        return plain
    part, power = middle(problem), wave_power(problem)
    if len(part) < ENOUGH:
        return plain
    best, least = plain, GAIN * remainder(part, plain)
    for candidate in _others(problem, plain):
        left = remainder(part, candidate)
        if left < least:
            best, least = candidate, left
    side, found = min(problem.frame_shape), 0.0
    for diameter in DIAMETERS:
        left = remainder(part, disc(problem.frame_shape, diameter * side))
        if left < least:
            found, least = diameter, left
    for change in REFINEMENTS if found else ():
        for diameter in (found * (1 - change), found * (1 + change)):
            left = remainder(part, disc(problem.frame_shape, diameter * side))
            if left < least:
                found, least = diameter, left
    return scaled_probe(disc(problem.frame_shape, found * side) if found else best, power)


def middle(problem: Problem) -> Problem:
    """At most `FRAMES` frames next to the middle one, on an object cut down to their windows; none is ten times brighter or
    darker than most."""
    light = np.array([float((y * y).sum(dtype=np.float64)) for y in problem.amplitude])
    usual = np.flatnonzero(np.abs(np.log10(np.maximum(light, 1e-30) / max(np.median(light), 1e-30))) < 1)
    distance = ((problem.corners[usual] - np.median(problem.corners, axis=0)) ** 2).sum(axis=1)
    part = problem.select(np.sort(usual[np.argsort(distance, kind="stable")[:FRAMES]]))
    low = part.corners.min(axis=0)
    height, width = (part.corners.max(axis=0) - low + problem.frame_shape).tolist()
    return replace(part, corners=np.ascontiguousarray(part.corners - low), object_shape=(height, width))


def remainder(problem: Problem, probe: ComplexArray) -> float:
    """R during the last of `PASSES` passes of rPIE from this probe and a constant object; infinite if it diverged."""
    from .iterate import iterate

    power = wave_power(problem)
    probe = scaled_probe(probe, power)
    engine, ctx = make("rpie", cool_from=PASSES), Context(get_backend("numpy", threads=1))
    steps = iterate(problem, engine, initial_object(problem, probe, power), probe, ctx=ctx)
    *_, last = islice(steps, PASSES)
    return last.error if np.isfinite(last.error) else float("inf")


def disc(shape: tuple[int, int], diameter: float) -> ComplexArray:
    """An evenly lit disc with a soft edge of a pixel about (P//2, Q//2), (1, P, Q) complex64."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    distance = np.hypot(y[:, None], x[None, :])
    return np.clip(diameter / 2 - distance + 0.5, 0, 1).astype(np.complex64)[None]


def _others(problem: Problem, plain: ComplexArray) -> Iterator[ComplexArray]:
    """Those that are defocused otherwise than the plain one; none where it is wide enough in focus."""
    for width in WIDTHS:
        for sign in (1, -1):
            candidate = focused(problem, width, sign)
            if not np.allclose(candidate, plain, atol=1e-3 * float(np.abs(plain).max())):
                yield candidate
