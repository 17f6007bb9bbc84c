r"""Frames that are lost: looked for with the part of the object that only they see.

A frame at the rim of a scan has a part of the object for itself, which adapts to wherever the frame
is put. With the object as it is, every other place then fits worse, and neither a step nor a look
around with the object held still leaves that optimum. Here each frame has a window of its own, W,
that the other frames hold where they see it, and the frame takes along what only it sees:

    min_W   -log p_j(W, t)  +  1/2 sum_r D(r) |W(r) - O(t + r)|^2
    from    W = (1 - a) O(t + r) + a O(s_j + r)

for each place t tried, by three Gauss-Newton steps that move t too, in roots of counts; D is what
the others say of the object (their share of the diagonal of the Gauss-Newton operator), a the share
of frame j where it is now. Where a frame belongs the others agree with it, so that the least cost
is told by what is shared. A frame moves there, with its window, if that lowers the whole cost.

Places are those around where frames are and, of frames that have gone from there, around where they
are expected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..types import Array, FloatArray, IntArray
from .fit import Cost, Fit
from .gauss_newton import GaussNewton
from .grid import windows
from .unknowns import Unknowns

#: Most frames that are looked for at a time, the worst; how far from where they are, whole px.
MOST, AROUND = 6, 4
#: Beyond how many px from where they are expected they are looked for there, too; as far as so many
#: spreads of the positions, but no further than so many px.
SAME, SPREADS, FAR = 1.0, 3.5, 8
#: Products of a step, steps, and the spread of a move in a step, px.
PRODUCTS, STEPS, SLIGHT = 8, 3, 0.5
#: By how much of its cost at least a frame must fit better elsewhere.
GAIN = 0.1
#: Weak hold of pixels that nobody sees, as a share of the largest diagonal element.
HELD = 1e-3


@dataclass
class Windows:
    """The worst frames, each on an object of its own: one below the other on a common canvas.

    Attributes
    ----------
    fit : Fit
        Of the frames `of` alone, in roots of counts.
    x : Unknowns
        The estimate with the rows of these frames.
    object, diagonal : (H, W) arrays
        Of all frames.
    of : (B,) int
    now : (B, 2) int
        Corners of their windows.
    own : (B, P, Q) float
        Their share of the diagonal.
    """

    fit: Fit
    x: Unknowns
    object: Array
    diagonal: Array
    of: IntArray
    now: IntArray
    own: Array

    @classmethod
    def made(cls, fit: Fit, x: Unknowns, of: IntArray, diagonal: Array) -> Windows:
        problem, noise = fit.problem.select(of), fit.likelihood.noise.at(of)
        detector = fit.model.detector
        mask = detector.mask
        if mask is not None and len(mask) == len(fit.problem):
            detector = replace(detector, mask=mask[of])
        now, shape = fit.model.corners[of], x.probe.shape[-2:]
        alone = replace(
            fit,
            model=replace(fit.model, corners=stacked(len(of), shape[0]), detector=detector),
            problem=problem,
            likelihood=replace(fit.likelihood, problem=problem, noise=noise, roots=True),
            prior=Unknowns(),
            middle=Unknowns(),
            between=0.0,
            rough=None,
        )
        found = cls(alone, x.select(of), x.object[0], diagonal, of, now, diagonal)
        H = GaussNewton(
            *(alone.model, found.placed(now, found.places(x)), ("object",), ()),
            alone.likelihood.information,
        )
        found.own = found.split(H.diagonal().object)
        return found

    def places(self, x: Unknowns) -> FloatArray:
        host = self.fit.model.backend.to_host
        return np.asarray(host(x.positions))[self.of]

    def cut(self, corners: IntArray, field: Array) -> Array:
        """Windows of a field, (B, P, Q)."""
        p, q = (int(n) for n in self.x.probe.shape[-2:])
        xp = self.fit.model.backend.xp
        return xp.stack([field[y : y + p, c : c + q] for y, c in corners])

    def split(self, canvas: Array) -> Array:
        return canvas.reshape(len(self.of), *self.x.probe.shape[-2:])

    def placed(self, corners: IntArray, places: FloatArray, object: Array = None) -> Unknowns:
        """The estimate on the canvas: windows cut at `corners`, or `object` (B, P, Q), and probes
        shifted by as much of a pixel as `places` are from them.
        """
        shape, backend = self.x.probe.shape[-2:], self.fit.model.backend
        cut = self.cut(corners, self.object) if object is None else object
        off = places - corners + self.fit.model.corners
        return replace(self.x, object=cut.reshape(1, -1, shape[1]), positions=backend.asarray(off))

    def others(self, corners: IntArray) -> Array:
        """What the other frames say of windows, (B, P, Q)."""
        found, (p, q) = [], (int(n) for n in self.x.probe.shape[-2:])
        for own, (y, c), corner in zip(self.own, self.now, corners, strict=True):
            left = self.diagonal.copy()
            left[y : y + p, c : c + q] -= own
            found.append(left[corner[0] : corner[0] + p, corner[1] : corner[1] + q])
        return self.fit.model.backend.xp.stack(found).clip(0, None)

    def tried(
        self, corners: IntArray, places: FloatArray
    ) -> tuple[FloatArray, FloatArray, Array, Array]:
        """Frames about other places: least cost (B,), where it is (B, 2), windows and how much of
        them is their own, (B, P, Q) each.
        """
        xp, host = self.fit.model.backend.xp, self.fit.model.backend.to_host
        shared, here = self.cut(corners, self.object), self.cut(self.now, self.object)
        others = self.others(corners) + HELD * self.diagonal.max()
        own = self.own / self.cut(self.now, self.diagonal).clip(self.own.max() * 1e-6, None)
        begun = shared + own.clip(0, 1) * (here - shared)
        x = self.placed(corners, places, begun)
        canvas = x.object.shape
        prior = Unknowns(object=others.reshape(canvas))
        fit = replace(self.fit, prior=prior, middle=Unknowns(object=shared.reshape(canvas)))
        for _ in range(STEPS):
            H = GaussNewton(
                *(fit.model, x, ("object",), ("positions",), fit.likelihood.information),
                prior=replace(prior, positions=xp.full(2, SLIGHT**-2)),
            )
            d = H.step(H.gradient(fit.likelihood.score, fit.pull(x)), 1e-2, PRODUCTS)
            x = x.axpy(1, replace(d, positions=d.positions.clip(-1, 1)))
        window = self.split(x.object)
        pull = 0.5 * (others * abs(window - shared) ** 2).sum(axis=(1, 2), dtype="float64")
        cost = np.asarray(host(fit.cost(x).frames + pull))
        there = np.asarray(host(x.positions) - self.fit.model.corners + corners, float)
        return cost, there, window, self.own / (self.own + others)


def stacked(count: int, height: int) -> IntArray:
    """Corners of windows one below the other."""
    return np.stack([height * np.arange(count), np.zeros(count, int)], axis=1).astype(np.int32)


def around(reach: int = AROUND) -> FloatArray:
    """Whole pixels up to `reach` from 0, 0 itself first."""
    side = np.arange(-reach, reach + 1.0)
    steps = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    steps = steps[np.hypot(*steps.T) <= reach]
    return np.asarray(steps[np.argsort(np.hypot(*steps.T), kind="stable")])


def found_again(fit: Fit, x: Unknowns, cost: Cost, diagonal: Array) -> tuple[int, Cost]:
    """Look for frames that fit much worse than the others, and move those that belong elsewhere in
    `x`, with their part of its object.

    Parameters
    ----------
    fit : Fit
    x : Unknowns
        Of a thin object, with positions.
    cost : Cost
        Its cost.
    diagonal : (H, W) array
        That of the Gauss-Newton operator, of the object.

    Returns
    -------
    int, Cost
        How many have moved, and the cost then.
    """
    worst = fit.worst(np.asarray(fit.model.backend.to_host(cost.frames)))[:MOST]
    if not len(worst) or len(x.object) > 1:
        return 0, cost
    looked = Windows.made(fit, x, worst, diagonal)
    places, moved = looked.places(x), 0
    shape = int(x.object.shape[-2]), int(x.object.shape[-1])
    best: list[Any] = [None] * len(worst)
    least = np.full(len(worst), np.inf)
    given = np.asarray(fit.model.backend.to_host(fit.middle.positions))[worst]
    tried = [places + step for step in around()]
    if (np.hypot(*(given - places).T) > SAME).any():
        spread = float(fit.prior.positions.min()) ** -0.5
        tried += [given + step for step in around(min(max(AROUND, round(SPREADS * spread)), FAR))]
    for number, at in enumerate(tried):
        corners = windows(at, x.probe.shape[-2:], object_shape=shape)
        costs, there, window, own = looked.tried(corners, at)
        costs = costs + fit.pulled(worst, there, places)
        if not number:
            least = (1 - GAIN) * costs
        for j in np.flatnonzero(costs < least):
            least[j], best[j] = costs[j], (there[j], corners[j], window[j], own[j])
    for j, found in zip(worst, best, strict=True):
        if found is None:
            continue
        trial = x.copy()
        place, (y, c), window, own = found
        trial.positions[j] = fit.model.backend.asarray(place)
        part = trial.object[0, y : y + len(window), c : c + window.shape[1]]
        part += (own * (window - part)).astype(part.dtype)
        after = replace(fit, model=fit.model.follow(trial)).cost(trial)
        if after.total < cost.total:
            x.positions, x.object, cost, moved = trial.positions, trial.object, after, moved + 1
    return moved, cost
