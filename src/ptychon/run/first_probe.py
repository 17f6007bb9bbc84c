"""Where to begin. A first probe where none is given: candidates of several kinds are tried on a few
frames.

Engines that learn the probe find its details from almost anywhere, but not its size or its defocus:
from a probe that is much too small, too wide or on the wrong side of the focus they end in a wrong
optimum. The candidates:

    shadow  the pupil, defocused as the motion of the frames says (`shadow_defocus`): curved beams,
    zone plates, electrons;
            the pupil is the root of the mean frame, or the same without what the object scatters
            (`sharp_pupil`)
    focus   the root of the mean frame, in focus and defocused both ways to several widths
            (`focused`)
    disc    evenly lit discs of several diameters; the best is refined, and tried as a ring

Each has some passes of rPIE over neighbouring frames of the middle of the scan, without a tenth of
the pixels of each frame. What it foretells of those tells the candidates apart; pixels that it has
seen would favour probes that fit anything. The better ones go on, and the best is taken as it is
after its passes, in the middle of its window.

The cost is at most `COST` passes over `FRAMES` frames, whatever the scan: 34 passes over one of 169
frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..engines import Context, make
from ..metrics.residual import CUT_OFF, probe_at_rim, residual
from ..model.problem import Problem
from ..types import ComplexArray, PtychonWarning
from .guess import (
    aspect,
    centred,
    defocused,
    focused,
    initial_object,
    initial_probe,
    scaled_probe,
    sharp_pupil,
    wave_power,
)
from .held_out import split
from .iterate import iterate
from .schedule import Schedule
from .shadow import shadow_defocus

#: Frames of a trial, and the least number that tell candidates apart.
FRAMES, ENOUGH = 49, 8
#: Share of the valid pixels of each frame that is held out.
HELD_OUT = 0.1
#: Passes of all candidates, then of the better ones.
FIRST_PASSES = 4
ROUNDS = ((3, 6), (1, 8))
#: Widths of the defocused candidates in those of the plain one, diameters of the discs in sides of
#: the frame, the factors by which the best disc is changed in the end, and the hole of a ring in
#: its diameters.
WIDTHS = (1.0, 1.7)
DIAMETERS = tuple(0.86**k for k in range(8))
REFINEMENTS = (0.07, 0.035, 0.018)
HOLE = 0.4
#: What the search costs at most, in passes over `FRAMES` frames; looking at pixels that were held
#: out takes half a pass.
COST = (1 + 2 * len(WIDTHS) + len(DIAMETERS) + 2 * len(REFINEMENTS) + 1) * (FIRST_PASSES + 0.5)
COST += sum(keep * (passes + 0.5) for keep, passes in ROUNDS)


def _warn(text: str) -> None:
    warnings.warn(text, PtychonWarning, stacklevel=3)


def find_probe(
    problem: Problem, backend: Backend, doubt: Callable[[str], None] = _warn
) -> ComplexArray:
    """The best of several first probes, (1, P, Q) complex64 with sum |P|^2 = mean power, in the
    middle of its window.

    Where the grid is finer than the detector's pixels, that of the pixels themselves in the middle
    of the larger window: the points between them, which hold no data, would make it a lattice. The
    plain one (`guess.initial_probe`) in the near field and for scans of fewer than 8 frames.

    Parameters
    ----------
    problem : Problem
        On the host.
    backend : Backend
        For the near field's propagation; trials run on one core of the CPU.
    doubt : callable
        Told, in one sentence, if what is found is cut off by its window; default warns.
    """
    factor = lattice(problem)
    if factor > 1:
        whole = np.zeros((1, *problem.frame_shape), np.complex64)
        coarse = on_measured_points(problem, factor)
        found = find_probe(coarse, backend, _unsaid)
        top, left = (n // 2 - m // 2 for n, m in zip(whole.shape[1:], found.shape[1:], strict=True))
        whole[:, top : top + found.shape[1], left : left + found.shape[2]] = found
        return scaled_probe(whole, wave_power(problem))
    plain = initial_probe(problem, backend)
    if problem.propagator.transfer is not None or len(problem) < ENOUGH:
        return plain
    part = middle(problem)
    if len(part) < ENOUGH:
        return plain
    ground = Ground(part)
    trials = [ground.trial(probe, diameter) for probe, diameter in candidates(part, plain)]
    for trial in trials:
        trial.run(FIRST_PASSES)
    best = min(trials, key=_score)
    if best.diameter:
        trials += _refined(ground, best)
    for keep, passes in ROUNDS:
        trials = sorted(trials, key=_score)[:keep]
        for trial in trials:
            trial.run(passes)
    best = min(trials, key=_score)
    if not np.isfinite(best.score):
        return plain
    found = scaled_probe(centred(best.probe), wave_power(problem))
    share = probe_at_rim(found)
    if share > CUT_OFF:
        p, q = problem.frame_shape
        doubt(
            f"the probe found from the data has {share:.0%} of its power in the outermost 5 % "
            f"of its {p} x {q} px and "
            f"may be cut off: leave the detector pixels unbinned, or give a first probe (--probe)"
        )
    return found


def lattice(problem: Problem) -> int:
    """How many points apart, along each axis, the measured ones lie; 1 where the grid is that of
    the detector.
    """
    if problem.spread is None or problem.propagator.transfer is not None:
        return 1
    rows, columns = np.nonzero(problem.mask.any(axis=0))
    apart = int(np.gcd.reduce(np.concatenate([rows, columns, problem.frame_shape])))
    return apart if min(problem.frame_shape) >= 4 * apart else 1


def on_measured_points(problem: Problem, factor: int) -> Problem:
    """The frames on the grid of the detector's pixels, each of which counts what falls on it."""
    every = (slice(None), slice(None, None, factor), slice(None, None, factor))
    shape = np.array(problem.frame_shape)
    inside = (shape // 2 - shape // factor // 2).astype(np.int32)
    counts = problem.counts
    return replace(
        problem,
        amplitude=np.ascontiguousarray(problem.amplitude[every]),
        mask=np.ascontiguousarray(problem.mask[every]),
        counts=None if counts is None else np.ascontiguousarray(counts[every]),
        background=None if problem.background is None else problem.background[every],
        corners=problem.corners + inside,
        spread=None,
    )


def _unsaid(text: str) -> None:
    """A probe that its window cuts off has more room in the larger one."""


class Ground:
    """Where trials are made: a part of a scan, without some pixels of each frame.

    Attributes
    ----------
    seen, unseen : Problem
        The same frames with the pixels that trials learn from, and with those that were held out.
    power : float
        Mean power of a frame.
    """

    def __init__(self, problem: Problem) -> None:
        self.power, self.ratio = wave_power(problem), aspect(problem)
        self.seen, self.unseen = split(problem, HELD_OUT)

    def trial(self, probe: ComplexArray, diameter: float = 0.0) -> Trial:
        return Trial(self, scaled_probe(probe, self.power), diameter)


class Trial:
    """A short reconstruction from one candidate, that can be continued, and what it foretells.

    Attributes
    ----------
    score : float
        R on the pixels that were held out; infinite before the first pass and where it diverged.
    diameter : float
        Of a disc, px; 0 for other candidates.
    probe : (1, P, Q) complex64
        As learned so far.
    """

    def __init__(self, ground: Ground, probe: ComplexArray, diameter: float = 0.0) -> None:
        self.score, self.diameter, self.probe = float("inf"), diameter, probe
        self._unseen, self._context = ground.unseen, Context(get_backend("numpy", threads=1))
        first = initial_object(ground.seen, probe, ground.power)
        order = Schedule(kind="sequential", shuffle=True, seed=0)
        self._steps = iterate(
            ground.seen,
            make("rpie", cool_from=10**6),
            first,
            probe,
            ctx=self._context,
            schedule=order,
        )

    def run(self, passes: int) -> None:
        """So many passes more."""
        *_, last = islice(self._steps, passes)
        self.probe, self.score = np.array(last.state.probe), float("inf")
        if np.isfinite(last.error):
            self.score = residual(
                self._unseen, last.state.object, self.probe, self._context.backend
            )


def candidates(problem: Problem, plain: ComplexArray) -> Iterator[tuple[ComplexArray, float]]:
    """First probes to be tried, (1, P, Q) each, and for discs their diameter (px), else 0."""
    root, ratio = np.abs(np.fft.fft2(np.fft.ifftshift(plain[0]))), aspect(problem)
    shadows = shadow_defocus(problem)
    for i, defocus in enumerate(shadows):
        yield defocused(root, defocus, ratio), 0.0
        if i == 0:
            yield defocused(sharp_pupil(problem), defocus, ratio), 0.0
    yield defocused(root, 0.0), 0.0
    for width in WIDTHS[:1] if shadows else WIDTHS:
        for sign in (1, -1):
            yield focused(problem, width, sign), 0.0
    side = min(problem.frame_shape)
    for share in DIAMETERS:
        yield disc(problem.frame_shape, share * side, ratio), share * side


def middle(problem: Problem, frames: int = FRAMES) -> Problem:
    """At most so many frames next to the middle one, on an object cut down to their windows; none
    is dark, or ten times brighter or darker than most."""
    light = np.array([float((y * y).sum(dtype=np.float64)) for y in problem.amplitude])
    lit = light > 0
    usual = np.flatnonzero(
        lit & (np.abs(np.log10(np.where(lit, light, 1) / np.median(light[lit]))) < 1)
    )
    distance = ((problem.corners[usual] - np.median(problem.corners, axis=0)) ** 2).sum(axis=1)
    part = problem.select(np.sort(usual[np.argsort(distance, kind="stable")[:frames]]))
    low = part.corners.min(axis=0)
    height, width = (part.corners.max(axis=0) - low + problem.frame_shape).tolist()
    return replace(
        part, corners=np.ascontiguousarray(part.corners - low), object_shape=(height, width)
    )


def disc(
    shape: tuple[int, int], diameter: float, ratio: tuple[float, float] = (1.0, 1.0)
) -> ComplexArray:
    """An evenly lit disc with a soft edge of a pixel about (P//2, Q//2), (1, P, Q) complex64.

    Parameters
    ----------
    shape : (P, Q)
    diameter : float
        px, in pixels of the same area that are square.
    ratio : (float, float)
        Height and width of an object pixel over the root of its area: discs are round on the
        sample.
    """
    y, x = ((np.arange(n) - n // 2) * r for n, r in zip(shape, ratio, strict=True))
    distance = np.hypot(y[:, None], x[None, :])
    return np.asarray(np.clip(diameter / 2 - distance + 0.5, 0, 1)[None], np.complex64)


def _refined(ground: Ground, best: Trial) -> list[Trial]:
    """Discs of nearly the diameter of the best one, and a ring of that which turns out best, after
    their first passes.
    """
    shape, new = ground.seen.frame_shape, []

    def tried(probe: ComplexArray, diameter: float) -> Trial:
        new.append(ground.trial(probe, diameter))
        new[-1].run(FIRST_PASSES)
        return new[-1]

    for change in REFINEMENTS:
        for diameter in (best.diameter * (1 - change), best.diameter * (1 + change)):
            best = min(best, tried(disc(shape, diameter, ground.ratio), diameter), key=_score)
    tried(
        disc(shape, best.diameter, ground.ratio) - disc(shape, HOLE * best.diameter, ground.ratio),
        0.0,
    )
    return new


def _score(trial: Trial) -> float:
    return trial.score
