r"""The Gauss-Newton operator of any set of unknowns, and steps and draws by conjugate gradients.

    H = J^T W J + prior,    J = d lambda/d x by `Model.intensity_tangent`, J^T its adjoint, W the
                            information of lambda

Unknowns of single frames may be eliminated (`frames`): H is then the Schur complement of the normal
matrix of all, and they come out of each solution at the cost of n inner products a frame. With g
the gradient of -log posterior by all that is free,

    d = -(normal matrix of all)^-1 g

is the step of a joint Gauss-Newton iteration; with g from N(0, normal matrix), by `noise`, d is a
draw of the error in Laplace's approximation, of positions and doses as well.

Reference: conjugate gradients of Hestenes & Stiefel, J. Res. NBS 49, 409 (1952), preconditioned
with the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..kernels.reference import abs2
from ..types import Array
from .forward import Model
from .frames import Eliminated, columns, put_rows, rows
from .unknowns import Unknowns, declared
from .view import View

#: Bytes of waves computed at a time.
BLOCK_BYTES = 16 * 2**20

#: lambda (B, R, C) and the frames it belongs to -> an image (B, R, C).
Image = Callable[[Array, Any], Array]


def poisson(intensity: Array, frames: Any = None) -> Array:
    """Information of Poisson counts on lambda, 1/lambda."""
    return 1 / intensity.clip(1e-30, None)


@dataclass
class GaussNewton:
    """H at one estimate.

    Attributes
    ----------
    model : Model
    x : Unknowns
        On the model's backend.
    update : sequence of str
        The unknowns that H acts on.
    eliminate : sequence of str
        Unknowns of single frames that are free, too, but eliminated.
    information : callable
        W of (lambda, frames); pixels without data are left out by the model's mask.
    prior : Unknowns
        Precision of each real number, as arrays that broadcast to the fields; a field that is None
        has no prior.
    keep : bool
        Keep all waves, 2 + S times K complex frames for each frame; False computes them again for
        each product.
    products : int
        How many were computed.
    """

    model: Model
    x: Unknowns
    update: Sequence[str]
    eliminate: Sequence[str] = ()
    information: Image = poisson
    prior: Unknowns = field(default_factory=Unknowns)
    keep: bool = True
    products: int = 0
    _views: list[View | None] = field(default_factory=list, repr=False)
    _out: list[Eliminated] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        for b in self.blocks():
            view = self.model.view(self.x, b)
            light = self.model.intensity(view)
            weight, valid = self.information(light, b), self.model.detector.valid(b)
            if valid is not True:
                weight = self.model.backend.xp.where(valid, weight, 0)
            weight = weight.astype(light.dtype, copy=False)
            prior = self._frame_prior(b)
            self._out.append(Eliminated.of(self.model, view, weight, self.eliminate, prior))
            self._views.append(view if self.keep else None)

    def blocks(self) -> list[slice]:
        """Frames in slices of about `BLOCK_BYTES`."""
        return self.slices(self.x, len(self.model))

    @staticmethod
    def slices(x: Unknowns, frames: int) -> list[slice]:
        """So many frames in slices of about `BLOCK_BYTES` of waves."""
        size = max(1, BLOCK_BYTES // (x.probe.dtype.itemsize * x.probe.size))
        return [slice(i, min(i + size, frames)) for i in range(0, frames, size)]

    def views(self) -> list[tuple[View, Eliminated]]:
        """Each block's view and what is eliminated from it."""
        pairs = zip(self.blocks(), self._views, self._out, strict=True)
        return [
            (self.model.view(self.x, b) if view is None else view, out) for b, view, out in pairs
        ]

    # ------------------------------------------------------------ products

    def __call__(self, d: Unknowns) -> Unknowns:
        """H d."""
        self.products += 1
        out = self.model.zeros(self.x, self.update)
        for view, frames in self.views():
            self.model.intensity_adjoint(
                view, frames.weighed(self.model.intensity_tangent(view, d)), out
            )
        return out.axpy(1, d.times(self.prior))

    def diagonal(self) -> Unknowns:
        """About the diagonal of H, half the trace for a complex number: for the preconditioner.

        Nothing is taken off for what is eliminated, modes do not share their information, the light
        is as if it were spread evenly over the detector (exact in the far field), and the probe is
        where its window is.
        """
        out = self.model.zeros(self.x, self.update)
        for view, frames in self.views():
            weight = frames.weight
            spread = self.model.detector.spread
            seen = weight if spread is None else spread.transpose(weight)
            # of each mode of each frame, the information on a unit of its exit wave
            share = (2 * abs2(view.waves) * seen[:, None]).mean(axis=(2, 3))[:, :, None, None]
            through = 1.0
            for s in view.slices_back():
                if out.object is not None:
                    light = (share * abs2(view.incident[s])).sum(axis=1).astype(out.object.dtype)
                    view.kernels.scatter_add(out.object[s], view.corners, light)
                through = through * abs2(view.windows[s])[:, None]
            if self.x.log_scale is not None:
                share = (
                    share
                    * self.model.backend.xp.exp(2 * self.x.log_scale[view.frames])[
                        :, None, None, None
                    ]
                )
            if out.probe is not None:
                out.probe += (share * through).sum(axis=0)
            if out.variations is not None:
                power = (self.x.weights[view.frames] ** 2)[:, :, None, None]
                out.variations += (power * (share * through)[:, :1]).sum(axis=0)
            if out.background is not None:
                out.background += weight.sum(axis=0)
            own = [n for n in self.update if declared()[n].per_frame]
            if own:
                image = columns(self.model, view, own)
                put_rows((image**2 * weight[:, None]).sum(axis=(2, 3)), own, view.frames, out)
        ones = out.map(lambda array: array * 0 + 1)
        return out.axpy(1, ones.times(self.prior)).map(lambda array: array.real.clip(1e-30, None))

    # ------------------------------------------------------------ steps and draws

    def gradient(self, score: Image, pull: Unknowns | None = None) -> Unknowns:
        """Gradient of -log posterior by all free unknowns, those eliminated too.

        Parameters
        ----------
        score : callable
            Derivative of -log p of the data by lambda, of (lambda, frames): 1 - n/lambda for counts
            n.
        pull : Unknowns, optional
            Gradient of the prior: its precision times (x - its mean).
        """
        out = self.model.zeros(self.x, (*self.update, *self.eliminate))
        for view, frames in self.views():
            image = score(self.model.intensity(view), view.frames)
            image = self.model.backend.xp.where(frames.weight > 0, image, 0).astype(
                frames.weight.dtype
            )
            self.model.intensity_adjoint(view, image, out)
        return out if pull is None else out.axpy(1, pull)

    def noise(self, rng: np.random.Generator) -> Unknowns:
        """A gradient drawn from N(0, whole normal matrix): `step(noise(rng))` is a draw of the
        estimate's error.
        """
        move, xp = self.model.backend.asarray, self.model.backend.xp
        out = self.model.zeros(self.x, (*self.update, *self.eliminate))
        for view, frames in self.views():
            random = move(rng.standard_normal(frames.weight.shape).astype(frames.weight.dtype))
            self.model.intensity_adjoint(view, xp.sqrt(frames.weight) * random, out)
        there, drawn = dict(out.each()), {}
        for name, precision in self.prior.each():
            if name in there:
                like = there[name]
                random = rng.standard_normal(like.shape)
                if like.dtype.kind == "c":
                    random = random + 1j * rng.standard_normal(like.shape)
                drawn[name] = move(random.astype(like.dtype)) * precision**0.5
        return out.axpy(1, Unknowns(**drawn))

    def step(
        self,
        gradient: Unknowns,
        tolerance: float = 1e-2,
        iterations: int = 300,
        diagonal: Unknowns | None = None,
    ) -> Unknowns:
        """-(whole normal matrix)^-1 gradient, for the unknowns to update and for those eliminated
        (see `solve`).

        `diagonal` is what the preconditioner divides by, default that of `diagonal()`.
        """
        xp, names = self.model.backend.xp, self.eliminate
        diagonal = self.diagonal() if diagonal is None else diagonal
        rhs = gradient.only(self.update).times(-1)
        if not names:
            return solve(self, rhs, diagonal, tolerance, iterations).x
        for view, frames in self.views():
            image = frames.across(frames.solved(rows(gradient, names, view.frames, xp)))
            self.model.intensity_adjoint(view, image, rhs)
        d = solve(self, rhs, diagonal, tolerance, iterations).x
        own = self.x.zeros(names)
        for view, frames in self.views():
            moved = frames.along(frames.weight * self.model.intensity_tangent(view, d))
            put_rows(
                -frames.solved(rows(gradient, names, view.frames, xp) + moved),
                names,
                view.frames,
                own,
            )
        return d.axpy(1, own)

    def variances(self) -> Unknowns:
        """Diagonal of G^-1: variance of each unknown that is eliminated, where all others are
        known.
        """
        own = self.x.zeros(self.eliminate)
        for b, frames in zip(self.blocks(), self._out, strict=True):
            if frames.inverse is not None:
                index = self.model.backend.xp.arange(frames.inverse.shape[1])
                put_rows(frames.inverse[:, index, index], self.eliminate, b, own)
        return own

    def _frame_prior(self, b: slice) -> Array:
        xp = self.model.backend.xp
        if not self.eliminate or not set(self.eliminate) & set(self.prior.names):
            return 0
        return rows(_filled(self.prior, self.x, self.eliminate), self.eliminate, b, xp)


@dataclass(frozen=True)
class Solved:
    """Solution, iterations, and the residual that is left, relative to the right-hand side in the
    preconditioner's norm.
    """

    x: Unknowns
    iterations: int
    residual: float


def solve(
    operator: Callable[[Unknowns], Unknowns],
    b: Unknowns,
    diagonal: Unknowns,
    tolerance: float = 1e-2,
    iterations: int = 300,
) -> Solved:
    """H x = b from x = 0, for a symmetric positive H.

    Parameters
    ----------
    operator : callable
        H.
    b, diagonal : Unknowns
        Right-hand side, and about the diagonal of H.
    tolerance : float
        Of the residual, |r|_{1/D}/|b|_{1/D} with the diagonal D.
    iterations : int
        At most. The result's `residual` is above `tolerance` where they did not suffice.
    """
    inverse = diagonal.map(lambda array: 1 / array)
    x, r = b.zeros(), b
    z = r.times(inverse)
    p, rz = z, float(r.dot(z))
    first, done = rz, 0
    while done < iterations and rz > tolerance**2 * first:
        Hp = operator(p)
        length = rz / float(p.dot(Hp))
        x, r = x.axpy(length, p), r.axpy(-length, Hp)
        z = r.times(inverse)
        old, rz = rz, float(r.dot(z))
        p = z.axpy(rz / old, p)
        done += 1
    return Solved(x, done, (rz / first) ** 0.5 if first > 0 else 0.0)


def _filled(part: Unknowns, x: Unknowns, names: Sequence[str]) -> Unknowns:
    """Fields of `part` at full size, zeros where it has none."""
    return x.zeros(names).axpy(1, part.only([n for n in names if n in part.names]))
