"""How far an estimate is from the data and its priors, for line searches; and a search for frames
that fit badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..types import Array, FloatArray, IntArray
from .forward import Model, of_waves
from .gauss_newton import GaussNewton
from .grid import windows
from .noise import Likelihood, Noise
from .problem import Problem
from .roughness import Roughness
from .slices import uneven
from .unknowns import Unknowns
from .view import View

#: First step (from 0) after which frames that fit badly are looked for elsewhere: those whose cost
#: is so many times the median, if that lowers it by more than so much of it.
SEARCH_FROM, OUTLIER, GAIN = 2, 1.3, 0.05
#: Where they are looked for: on circles of these radii about where they are, px, and as far as this
#: from where they are expected, at whole pixels.
RADII, REACH = (0.5, 1.0, 2.0, 3.0), 6

#: Precisions below which there is no prior.
TINY = 1e-30


class Cost(NamedTuple):
    """L, the sum of (|model| - amplitude)^2 over valid pixels, and -log p of each frame (N,) on the
    device.
    """

    total: float
    misfit: float
    frames: Array


@dataclass(frozen=True)
class Fit:
    """L of an estimate: what a line search compares.

    Attributes
    ----------
    model : Model
    problem : Problem
    likelihood : Likelihood
    prior : Unknowns
        Precision of each real number, as arrays that broadcast to the fields.
    middle : Unknowns
        Means of the prior; 0 for a field that is None.
    between : float
        Precision of the difference between neighbouring slices of the object.
    rough : Roughness, optional
        What neighbouring pixels of the object have to do with each other.
    """

    model: Model
    problem: Problem
    likelihood: Likelihood
    prior: Unknowns
    middle: Unknowns
    between: float = 0.0
    rough: Roughness | None = None

    def blocks(self, x: Unknowns) -> Iterator[tuple[slice, Any]]:
        """Frames in slices, and what they see."""
        for b in GaussNewton.slices(x, len(self.model)):
            yield b, self.model.view(x, b)

    def pull(self, x: Unknowns) -> Unknowns:
        """Gradient of the prior: (x - its mean)/variance."""
        off = {}
        for name in self.prior.names:
            middle = getattr(self.middle, name)
            off[name] = getattr(x, name) if middle is None else getattr(x, name) - middle
        return Unknowns(**off).times(self.prior)

    def held(self, x: Unknowns) -> Unknowns:
        """Gradient of the whole prior, what holds slices and pixels together included."""
        pull = self.pull(x)
        if self.rough is not None:
            pull = pull.axpy(1, Unknowns(object=self.rough(x.object)))
        if not self.between:
            return pull
        return pull.axpy(1, Unknowns(object=self.between * uneven(x.object)))

    def cost(self, x: Unknowns) -> Cost:
        """L, and what it is made of."""
        parts = []
        for b, view in self.blocks(x):
            parts.append(self._frames(view, b, self.problem.mask_of(b)))
        frames, misfit = (
            self.model.backend.xp.concatenate(part) for part in zip(*parts, strict=True)
        )
        pull = self.pull(x)
        own = 0.5 * pull.dot(pull.times(self.prior.map(lambda array: 1 / array.clip(TINY, None))))
        if self.between:
            steps = x.object[1:] - x.object[:-1]
            own = own + 0.5 * self.between * (abs(steps) ** 2).sum(dtype="float64")
        if self.rough is not None:
            own = own + self.rough.cost(x.object)
        return Cost(float(frames.sum() + own), float(misfit.sum()), frames)

    def _frames(self, view: View, b: Any, valid: Array) -> tuple[Array, Array]:
        """-log p and squared misfit of the amplitude of each frame of a view, (B,) float64 each."""
        xp = self.model.backend.xp
        light, y = self.model.intensity(view), self.problem.amplitude[b]
        of = of_waves(light, self.problem)
        if view.x.background is not None:
            dark = self.model.detector.dark(view.x.background)
            of, y = (of - dark).clip(0, None), xp.sqrt((y * y - dark).clip(0, None))
        off = xp.sqrt(of) - y
        # in double precision: differences between two estimates are small beside their parts
        light = light.astype("float64")
        energy = xp.where(valid, self.likelihood.energy(light, b), 0)
        return energy.sum(axis=(1, 2)), xp.where(valid, off**2, 0).sum(axis=(1, 2), dtype="float64")

    def excess(self, x: Unknowns) -> float:
        """Misfit in units of what the noise makes of it: 1 where the model holds."""
        return excess(self.model, self.problem, x, self.likelihood.noise)

    def search(self, x: Unknowns, cost: Cost) -> int:
        """Look for frames that fit much worse than the others around where they are and where they
        are expected, and leave them in `x` where they fit best.

        A linear step finds a position from about a pixel away; few frames that are further off
        would stay where they are. Returns how many were moved.
        """
        host, move = self.model.backend.to_host, self.model.backend.asarray
        costs = np.asarray(host(cost.frames))
        worst = self.worst(costs)
        if not len(worst):
            return 0
        rows, places = x.select(worst), np.asarray(host(x.positions))[worst]
        best, least = places.copy(), (1 - GAIN) * costs[worst]
        p, q = (int(n) for n in x.probe.shape[-2:])
        shape = int(x.object.shape[-2]), int(x.object.shape[-1])
        given = np.asarray(host(self.middle.positions))[worst]
        for tried in [*(places + step for step in circles()), *(given + step for step in grid())]:
            model = replace(self.model, corners=windows(tried, (p, q), object_shape=shape))
            view = model.view(replace(rows, positions=move(tried)), slice(None))
            found = np.asarray(host(self._frames(view, worst, self.problem.mask_of(worst))[0]))
            found = found + self.pulled(worst, tried, places)
            better = found < least
            best[better], least[better] = tried[better], found[better]
        x.positions[worst] = move(best)
        return int((best != places).any(axis=1).sum())

    def worst(self, costs: FloatArray) -> IntArray:
        """Frames that fit much worse than the others, the worst first: a tenth of them at most."""
        middle = float(np.median(costs))
        spread = 1.48 * float(np.median(np.abs(costs - middle)))
        worst = np.argsort(-costs)[: max(1, len(costs) // 10)]
        return worst[costs[worst] > max(OUTLIER * middle, middle + 5 * spread)]

    def pulled(self, frames: IntArray, places: FloatArray, before: FloatArray) -> FloatArray:
        """By how much the prior of positions likes frames less at other places, (B,)."""
        host = self.model.backend.to_host
        weight = np.asarray(host(self.prior.positions))
        given = np.asarray(host(self.middle.positions))[frames]
        pull = ((places - given) ** 2 - (before - given) ** 2) * weight
        return np.asarray(0.5 * pull.sum(axis=1))


def circles() -> FloatArray:
    """Places about 0 on circles of `RADII`, (32, 2)."""
    angles = np.arange(8) * np.pi / 4
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.asarray(np.concatenate([radius * ring for radius in RADII]))


def grid() -> FloatArray:
    """Whole pixels up to `REACH` from 0, (M, 2)."""
    side = np.arange(-REACH, REACH + 1.0)
    places = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(places[np.hypot(*places.T) <= REACH])


def excess(model: Model, problem: Problem, x: Unknowns, noise: Noise) -> float:
    """Squared misfit of an estimate in units of what the noise makes of it: 1 where the model
    holds, less where the estimate has followed the noise.
    """
    host, seen, expected = model.backend.to_host, 0.0, 0.0
    for b in GaussNewton.slices(x, len(model)):
        modulus = np.sqrt(host(of_waves(model.intensity(model.view(x, b)), problem)))
        valid = np.broadcast_to(host(problem.mask_of(b)), modulus.shape)
        seen += float(noise.surprise(modulus, host(noise.root(problem, b)))[valid].sum())
        expected += float(noise.expected_surprise(modulus)[valid].sum())
    return seen / max(expected, 1e-30)


def line_search(fit: Fit, x: Unknowns, d: Unknowns, before: Cost) -> tuple[float, Unknowns, Cost]:
    """Length of a step along d, the estimate after it and its cost, which is not above the cost
    before.

    The first of 1, 1/2, ... that does not raise it, 0 where none does; where 1 lowers it, 2 and 4
    are tried as well, since steps towards positions that are far off are too short.
    """
    for halvings in range(HALVINGS + 1):
        length = 0.5**halvings
        new = _moved(x, length, d)
        after = fit.cost(new)
        if after.total <= before.total:
            break
    else:
        return 0.0, x.copy(), before
    while 1 <= length < LONGEST:
        longer = _moved(x, 2 * length, d)
        cost = fit.cost(longer)
        if not cost.total < after.total:
            break
        length, new, after = 2 * length, longer, cost
    return length, new, after


def _moved(x: Unknowns, length: float, d: Unknowns) -> Unknowns:
    """x + length d; a background stays above 0."""
    new = x.axpy(length, d)
    if d.background is not None:
        new.background = new.background.clip(0, None)
    return new


#: How often a step is halved, and the longest that is tried.
HALVINGS, LONGEST = 5, 4.0
