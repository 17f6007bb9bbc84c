"""Where a result lies on the grid of its data, to a fraction of a pixel.

Object and probe may be translated together without a change of the intensities, but only where the
exit wave, their product on a grid, is not undersampled. What of it lies beyond the grid's highest
frequency is folded back, and a translation turns the phase of what was folded, k - 1 instead of k,
the other way. So the highest frequencies of an object tell where the grid of the data is: a third
of a pixel off costs some hundred units of -log posterior and much of these frequencies.

No step finds the way back: the frequencies that are folded have been fitted where the result lay,
and hold it there. A move of both, followed by a few passes that fit them anew, gets over it. The
misfit is periodic in the move, nearly

    U(s) = a - b cos 2 pi (s_y - c_y) - d cos 2 pi (s_x - c_x)

and five moves tell c.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import Backend
from ..data.result import Result
from ..metrics.registration import translate
from ..metrics.residual import illuminated, variance_left
from ..model.noise import Noise, noise_of
from ..model.problem import Problem
from ..run.progress import Tell
from ..run.recipe import Recipe, Stage
from ..run.reconstruct import reconstruct
from ..types import COMPLEX, ComplexArray
from .potential import Potential

#: Passes after each move, of Ptycho-EP or, where there are several modes, of rPIE.
EP_PASSES, RPIE_PASSES = 20, 30
#: Moves (px) that are tried along each axis: thirds of the period.
THIRD = 1 / 3
#: Least gain of -log posterior for which a result is moved along an axis.
LEAST = 10.0


@dataclass(frozen=True)
class Centre:
    """What the moves told.

    Attributes
    ----------
    move : (y, x) float
        Pixels by which object and probe were moved, see `translate`.
    gain : float
        What -log posterior falls by, as the sinusoids have it.
    """

    move: tuple[float, float]
    gain: float


def movable(problem: Problem, found: Result) -> bool:
    """Whether passes after a move know all that the data of a result hold: the far field, with
    nothing learned a frame and no light that pixels share.
    """
    own = (found.log_scale, found.weights, found.background)
    more = (problem.log_scale, problem.weights, problem.spread, problem.slices)
    return not problem.near_field and all(v is None for v in (*own, *more))


def moved(result: Result, step: tuple[float, float]) -> Result:
    """A result with object and probe translated: x(r) becomes x(r + step)."""

    def one(field: ComplexArray) -> ComplexArray:
        return translate(field.astype(np.complex128), step).astype(COMPLEX)

    return replace(result, object=one(result.object), probe=np.stack([*map(one, result.probe)]))


def centred(
    problem: Problem,
    start: Result,
    options: dict[str, Any],
    backend: Backend,
    seed: int,
    tell: Tell,
) -> tuple[Result, Centre]:
    """A result moved to where the grid of the data is.

    Parameters
    ----------
    problem : Problem
        On the host; of the far field, since the near field tells translations at once.
    start : Result
        With a probe that was learned.
    options : dict
        Of Ptycho-EP: what is known of the noise.
    backend : Backend
    seed : int
    tell : callable
    """
    one = len(start.probe) == 1
    stage = Stage("ep", EP_PASSES, options) if one else Stage("rpie", RPIE_PASSES, {})
    recipe = Recipe([replace(stage, update={"probe": True})])
    noise = noise_of(problem, "auto", options.get("noise_variance"))
    if noise.learned:
        lit = illuminated(problem, start.probe)
        left = variance_left(problem, start.object, start.probe, backend, 2.0 * float(lit.sum()))
        noise = noise.fitted(left)

    def misfit(step: tuple[float, float], number: int) -> float:
        tell("finding the grid of the data", number, 5)
        tried = moved(start, step)
        found = reconstruct(
            *(problem, recipe), start=tried, backend=backend, seed=seed, judge=False, say=None
        )
        return energy(problem, found, noise, backend)

    here, gain, move = misfit((0.0, 0.0), 0), 0.0, [0.0, 0.0]
    for axis in (0, 1):
        values = [here]
        for i, step in enumerate((THIRD, -THIRD)):
            both = (step, 0.0) if axis == 0 else (0.0, step)
            values.append(misfit(both, 1 + 2 * axis + i))
        where, fall = bottom(values)
        if fall > LEAST:
            move[axis], gain = where, gain + fall
    best = move[0], move[1]
    return moved(start, best), Centre(best, gain)


def energy(problem: Problem, found: Result, noise: Noise, backend: Backend) -> float:
    """-log likelihood of a result, beside a white prior of its object."""
    O, P = (backend.asarray(np.ascontiguousarray(a, COMPLEX)) for a in (found.object, found.probe))
    power = float(np.mean(np.abs(found.object) ** 2))
    return Potential(problem.to(backend), P, noise, backend, False, power)(O.reshape(-1))[0]


def bottom(values: list[float]) -> tuple[float, float]:
    """Where the sinusoid of period 1 through the values at 0, 1/3 and -1/3 is lowest, in (-1/2,
    1/2], and by how much less than at 0.
    """
    turn = cmath.exp(2j * math.pi * THIRD)
    wave = (values[0] + values[1] * turn + values[2] / turn) / 1.5
    where = cmath.phase(-wave) / (2 * math.pi)
    return where, abs(wave) * (1 - math.cos(2 * math.pi * where))
