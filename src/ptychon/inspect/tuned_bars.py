r"""The value of a number that describes a scan, with its error, from what trials around the best
one predict.

With the gain g_j(u) of each held-out frame j at values u of the numbers, each frame has a parabola

    g_j(u) = a_j + b_j.u + u.Q_j.u,        the best u = -Q^-1 b/2,   b, Q the sums over frames

by least squares over the trials, so that trials are compared frame by frame. What frame j does to
the best value is -Q^-1 (b_j + 2 Q_j u)/2, and the covariance is the sum of the squares over frames
(jackknife: Efron & Stein, Ann. Statist. 9, 586 (1981)), and that of the least squares, for the
trials' own scatter.

A run of few passes prefers a value at which it converges fast, so trials go on with three times the
passes, as often as the best value moves by more than its error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..types import FloatArray

#: Trials along one number, in steps from the best one, and steps in units of the error.
ALONG, STEP = (-2, -1, 0, 1, 2), 2.0
#: Shares of a range of the first step, of the least and of the largest.
FIRST, LEAST, MOST = 0.04, 2e-4, 0.2
#: Times that trials are made at most, the later ones where the maximum is beside the first.
AGAIN = 3
#: Standard errors by which the score must bend down for there to be a maximum.
CLEAR = 3.0
#: Each time the passes are so many times as many, at most so often.
LONGER, LEVELS = 3, 3
#: Share of the last move that is still to come where a value was still moving. Measured in the near
#: field behind a rough beam, 64 frames of 32 x 32: moves of 0.8 to 1.7 % left errors of 0.1 to
#: 0.3 %.
LEFT = 0.25
#: Frames from which their scatter is an error; and share of the range that it may be of a value
#: that the data tell.
FRAMES, TELLS = 6, 0.25
#: Largest share of its value that the error of a near-field number may be. Runs of rPIE prefer
#: distances that are too long where object and probe can follow: behind a smooth beam the best one
#: of 64 frames was 4 to 9 % too long with errors of 2 to 8 %; behind a rough one it was right to
#: 0.1 to 0.3 % with errors of 0.1 to 0.5 %.
NEAR = 0.01


@dataclass(frozen=True)
class Value:
    """What the trials say of a number.

    Attributes
    ----------
    name : str
    value, error : float
        Of the best value in the range, and one standard error; in the units of the number. Where
        the value was still moving, a quarter of the last move is in the error.
    told : bool
        Whether the data tell it: the score has a maximum inside the range, and the error is below a
        quarter of the range, and in the near field below 1 % of the value.
    moved : float
        By how much it moved in standard errors when the trials had three times the passes; more
        than 1 where it was still moving.
    passes : int
        Of the trials that gave it.
    near : bool
        Whether this is near field.
    """

    name: str
    value: float
    error: float
    told: bool
    moved: float
    passes: int
    near: bool = False


@dataclass(frozen=True)
class Parabola:
    """The best place and its covariance, in shares of the ranges; concave where there is one."""

    place: FloatArray
    covariance: FloatArray
    concave: bool


def pattern(count: int, steps: FloatArray) -> FloatArray:
    """Places of trials around one, (T, count), for a parabola in `count` numbers."""
    places = [np.zeros(count)]
    for i, k in itertools.product(range(count), ALONG):
        if k:
            places.append(k * steps[i] * np.eye(count)[i])
    for i, j in itertools.combinations(range(count), 2):
        places += [s * (steps * (np.eye(count)[i] + np.eye(count)[j])) for s in (1, -1)]
    return np.stack(places)


def parabola(places: FloatArray, gains: FloatArray) -> Parabola:
    """Through the gains (T, M) of M frames at places (T, d).

    Parameters
    ----------
    places : (T, d) float64
    gains : (T, M) float64
    """
    d = places.shape[1]
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    middle = places.mean(axis=0)
    scale = np.maximum(np.ptp(places, axis=0), 1e-12) / 2
    x = (places - middle) / scale
    design = np.column_stack([np.ones(len(x)), x, *(x[:, i] * x[:, j] for i, j in pairs)])
    inverse = np.linalg.pinv(design)
    each = inverse @ gains
    total = np.zeros((d, d))
    for (i, j), row in zip(pairs, each[1 + d :].sum(axis=1), strict=True):
        total[i, j] += row / 2
        total[j, i] += row / 2
    square = [each[1 + d + pairs.index((i, i))] for i in range(d)]
    clear = [row.sum() < -CLEAR * row.std() * math.sqrt(len(row)) for row in square]
    if not all(clear) or not (np.linalg.eigvalsh(total) < 0).all():
        return Parabola(middle, np.full((d, d), math.inf), False)
    curve = np.linalg.inv(total)
    place = -curve @ each[1 : 1 + d].sum(axis=1) / 2
    # the gradient there, as a sum over the coefficients
    gradient = np.zeros((d, design.shape[1]))
    gradient[:, 1 : 1 + d] = np.eye(d)
    for k, (i, j) in enumerate(pairs, 1 + d):
        gradient[i, k] += place[j]
        gradient[j, k] += place[i]
    frames = gains.shape[1]
    pulls = gradient @ each
    pulls -= pulls.mean(axis=1, keepdims=True)
    spread = pulls @ pulls.T * (frames / max(frames - 1, 1))
    # the trials' own scatter about the parabola
    rest = gains.sum(axis=1) - design @ each.sum(axis=1)
    freedom = len(x) - design.shape[1]
    if freedom > 0:
        turn = gradient @ inverse
        spread = spread + turn @ turn.T * float(rest @ rest) / freedom
    covariance = curve @ spread @ curve / 4
    return Parabola(middle + scale * place, covariance * np.outer(scale, scale), True)


def polish(
    gains: Callable[[FloatArray, int], FloatArray],
    first: FloatArray,
    names: Sequence[str],
    passes: int,
) -> tuple[FloatArray, FloatArray, bool, FloatArray, int]:
    """The best place near a first one, and its errors.

    Parameters
    ----------
    gains : callable
        Of a place (shares of the ranges, within 0 and 1) and a number of passes: the gain of each
        held-out frame, (M,).
    first : (d,) float64
    names : sequence of str
        Of the numbers.
    passes : int
        Of the trials that led to the first place.

    Returns
    -------
    place, error : (d,) float64
        Shares of the ranges; the error is inf where there is no maximum.
    concave : bool
    moved : (d,) float64
        In errors, at the last rise of the passes.
    passes : int
    """
    d = len(names)
    steps = np.full(d, FIRST)
    centre, before = np.clip(first, 0.0, 1.0), None
    error, moved, concave, done = np.full(d, math.inf), np.full(d, math.inf), False, passes
    for level in range(1, LEVELS + 1):
        done = passes * LONGER**level
        for _ in range(AGAIN):
            places = np.clip(centre + pattern(d, steps), 0.0, 1.0)
            places = np.unique(places.round(7), axis=0)
            found = parabola(places, np.stack([gains(place, done) for place in places]))
            error = np.sqrt(np.maximum(np.diag(found.covariance), 0))
            concave = found.concave
            reach = ALONG[-1] * steps
            there = found.place if concave else centre
            off = np.abs(there - centre)
            centre = np.clip(there, np.maximum(centre - reach, 0), np.minimum(centre + reach, 1))
            if concave and (off <= reach / 2).all():
                steps = np.clip(STEP * error, np.maximum(steps / 4, LEAST), MOST)
                break
            # the maximum is beside the trials, or there is none yet
            steps = np.clip(np.maximum(off, steps if concave else 2 * steps), LEAST, MOST)
        if before is not None and concave:
            moved = np.abs(centre - before) / np.maximum(error, 1e-12)
            if (moved < 1).all():
                break
            if level == LEVELS:
                error = np.hypot(error, LEFT * np.abs(centre - before))
        before = centre
    return centre, error, concave, moved, done


__all__ = ["Value", "parabola", "polish"]
