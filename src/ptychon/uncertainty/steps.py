"""Steps to the optimum of a posterior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model.unknowns import Unknowns
from .curvature import Curvature
from .optimum import ROUGH, Drawn, Remains, Work
from .orbit import answers

#: Tolerances of the first steps of a way to the optimum, whose far end is not where the curvature
#: at its beginning says, and of those after them: what the data hold loosely is the last to come.
LOOSE: tuple[float, ...] = (0.1, 0.3, 0.1, 0.1, 0.1, 0.03)
CLOSER = 1e-2
#: Shortest Gauss-Newton step that is tried, and the decrement, in units of an unknown's variance,
#: of the last one.
SHORTEST, STILL = 1 / 64, 1e-2
#: The same where draws tell the bars, what may remain of the step in bars at an octave of spatial
#: frequency, and the steps that are remembered.
TINY, ENOUGH, MEMORY = 1e-5, 0.05, 6
#: Curvature along a step over that of the model which the step was taken by, at least.
LEAST_CURVED = 0.2


def refined(
    work: Work,
    point: Curvature,
    steps: int,
    drawn: list[Drawn] | None = None,
    loose: Sequence[float] = LOOSE,
) -> tuple[Curvature, Remains]:
    """Gauss-Newton steps, bent by what the gradient did along the last ones (L-BFGS with H for its
    first matrix; Nocedal, Math. Comput. 35, 773 (1980)) and halved while they lead uphill, until
    one would change next to nothing: next to the bars at every octave of spatial frequency, where
    draws tell them. The first are solved to the tolerances `loose`. None moves along an orbit: of a
    gradient that priors pull along one, a step is solved for the rest.
    """
    energy, gradient = point.energy(), work.pull.left(point, point.gradient())
    pairs: list[tuple[Unknowns, Unknowns]] = []
    remains, last = Remains(), None
    bars = None if drawn is None else work.octaves([d.x for d in drawn])
    held: list[Unknowns] = []
    held_at = point
    for number in range(steps):
        if number and work.late():
            break
        tolerance = max(CLOSER if number >= len(loose) else loose[number], work.tolerance)
        d = _direction(work, point, gradient, pairs, tolerance)
        if point.equal is not None and len(point.equal):
            # loose steps lead far: what was answered before them is no answer after them
            if not held or number == len(loose) > 1:
                held, held_at = answers(point, ROUGH, work.iterations, held), point
            more = point.equal.pull(d, held)
            d = point.equal.without(d, held)
            if number >= len(loose):
                # the next step is solved for what is left beside that
                work.pull, gradient = work.pull.more(more), point.equal.less(gradient, more)
        decrement, length = float(gradient.dot(d)), 1.0
        if bars is not None:
            size = np.sqrt(work.octaves([d]) / np.where(bars > 0, bars, np.nan))
            ratio = np.ones_like(size) if last is None else np.clip(size / last, 0.2, 1)
            remains = Remains(tuple(float(r) for r in size * ratio), number + 1)
            last = size
            if number and remains.worst < ENOUGH and tolerance <= ROUGH:
                break
        if decrement < (STILL if bars is None else TINY) * float(work.lit.sum()):
            if decrement >= 0 or (not pairs and held_at is point):
                break
            # uphill: neither what the last steps have shown nor these answers belong to this point
            pairs, held = [], []
            continue
        while length >= SHORTEST:
            x = point.x.axpy(-length, d)
            new = point.energy(x)
            if new < energy:
                break
            length /= 2
        else:
            if not pairs:
                break
            # what the last steps have shown leads nowhere from here
            pairs = []
            continue
        before, point, energy = gradient, work.at(x, point.noise, point.spread), new
        gradient = work.pull.left(point, point.gradient())
        step, change = d.times(-length), gradient.axpy(-1, before)
        pairs = [*pairs[-MEMORY + 1 :], (step, damped(step, change, before.times(-length)))]
    return point, remains


def damped(step: Unknowns, change: Unknowns, foretold: Unknowns) -> Unknowns:
    """The change of a gradient along a step, drawn towards the one that was foretold until its
    curvature is `LEAST_CURVED` of that (Powell, Lect. Notes Math. 630, 144 (1978)): one next to 0
    makes of the next step a hundred.
    """
    seen, expected = float(step.dot(change)), float(step.dot(foretold))
    if seen >= LEAST_CURVED * expected:
        return change
    share = (1 - LEAST_CURVED) * expected / (expected - seen)
    return change.times(share).axpy(1 - share, foretold)


def _direction(
    work: Work,
    point: Curvature,
    gradient: Unknowns,
    pairs: list[tuple[Unknowns, Unknowns]],
    tolerance: float,
) -> Unknowns:
    """H^-1 gradient, with the curvature that steps and changes of the gradient have shown."""
    kept = [(s, y, float(s.dot(y))) for s, y in pairs]
    kept = [pair for pair in kept if pair[2] > 0]
    q, factors = gradient, []
    for s, y, both in reversed(kept):
        factors.append(float(s.dot(q)) / both)
        q = q.axpy(-factors[-1], y)
    d = point.solved(q, tolerance, work.iterations).x
    for (s, y, both), factor in zip(kept, reversed(factors), strict=True):
        d = d.axpy(factor - float(y.dot(d)) / both, s)
    return d
