"""Where an object of several slices begins.

A thin object O becomes S slices O^(1/S), of its unwrapped phase: each does a part of what the thin
one does, and all of them are alike. The other way, and between numbers of slices, slices that lie
within a new one are multiplied, those that it cuts are taken to the power of the part within. So a
specimen of many slices may grow: 1, S/4, S.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..data.slices import Slices
from ..metrics.unwrap import unwrap
from ..model.problem import Problem
from ..model.slices import reach
from ..types import ComplexArray, FloatArray, PtychonError

#: Slices beyond which a run from nothing begins with fewer, and the part of them it goes on with.
MANY, PART = 10, 4
#: Passes with each of those.
GROW_PASSES = 10


def with_slices(
    problem: Problem,
    data: Dataset | Problem,
    count: int | None,
    spacing: Any,
    tilt: Any,
    start: Result | None = None,
) -> Problem:
    """The problem with the slices that are asked for, or else those of the result to start from.

    Parameters
    ----------
    problem : Problem
    data : Dataset or Problem
        What it was made from; a problem has its slices already.
    count, spacing, tilt
        As `reconstruct` takes them.
    start : Result, optional

    Raises
    ------
    PtychonError
        For numbers that are impossible, or missing.
    """
    if isinstance(data, Problem):
        if count is not None or spacing is not None or tilt is not None:
            raise PtychonError(
                "slices, spacing and tilt are said of data; a Problem has its own: give "
                "replace(problem, slices=Slices.of(...))"
            )
        return problem
    if count is None and spacing is None and tilt is None:
        if start is None or start.slices is None:
            return problem
        count, spacing, tilt = len(start.slices), start.slices.gaps, start.slices.tilt
    if count is None:
        raise PtychonError(
            "a spacing or a tilt is given, but not how many slices there are; give slices "
            "(--slices)"
        )
    slices = Slices.of(
        count, spacing, wavelength=data.wavelength, pixel_size=problem.pixel_size, tilt=tilt
    )
    if slices is not None and (far := reach(slices, problem.frame_shape)) > 1:
        raise PtychonError(
            f"a gap of {max(slices.gaps):.4g} m is {far:.3g} times as long as a window of "
            f"{problem.frame_shape[0]} x {problem.frame_shape[1]} px can hold: light would leave "
            "it and come in on the other side; give more slices at a smaller spacing, or larger "
            "frames"
        )
    return replace(problem, slices=slices)


def in_slices(
    object: ComplexArray, slices: Slices | None, light: FloatArray | None = None
) -> ComplexArray:
    """An object (H, W) or (T, H, W) as S slices (S, H, W), or as a thin one where there are none.

    Parameters
    ----------
    object : array
        Itself where it has as many slices already.
    slices : Slices or None
    light : (H, W) float, optional
        Where phases count when they are unwrapped.
    """
    count = 1 if slices is None else len(slices)
    old = object[None] if object.ndim == 2 else object
    if len(old) != count or object.ndim == 2 != (slices is None):
        old = _parts(old, count, np.ones(old.shape[-2:]) if light is None else light)
    return np.ascontiguousarray(old[0] if slices is None else old, np.complex64)


def _parts(old: ComplexArray, count: int, light: FloatArray) -> ComplexArray:
    """As so many slices of equal thickness."""
    if count == len(old):
        return old
    amplitude = np.log(np.maximum(np.abs(old), 1e-6))
    logs = [a + 1j * unwrap(O, light) for a, O in zip(amplitude, old, strict=True)]
    # slice t of the old ones covers t to t + 1 of their number
    edges = np.linspace(0, len(old), count + 1)
    found = np.zeros((count, *old.shape[-2:]), complex)
    for s in range(count):
        for t, field in enumerate(logs):
            share = min(edges[s + 1], t + 1) - max(edges[s], t)
            if share > 1e-9:
                found[s] += share * field
    return np.exp(found).astype(np.complex64)


def growing(slices: Slices | None) -> list[Slices | None]:
    """With how few slices a run from nothing begins: none where there are not many."""
    if slices is None or len(slices) <= MANY:
        return []
    return [None, slices.each(max(2, round(len(slices) / PART)))]


Grow = Callable[[Problem, ComplexArray, ComplexArray], tuple[ComplexArray, ComplexArray]]


def grown(
    problem: Problem, object: ComplexArray, probe: ComplexArray, run: Grow
) -> tuple[ComplexArray, ComplexArray]:
    """Object and probe after passes with fewer slices, cut into as many as the problem has.

    Parameters
    ----------
    problem : Problem
    object : (S, H, W) complex
    probe : (K, P, Q) complex
    run : callable
        Passes over a problem, from an object and a probe to what they become.
    """
    for fewer in growing(problem.slices):
        object = in_slices(object, fewer)
        object, probe = run(replace(problem, slices=fewer), object, probe)
    return in_slices(object, problem.slices), probe


__all__ = ["GROW_PASSES", "growing", "grown", "in_slices", "with_slices"]
