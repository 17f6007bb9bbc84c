r"""The Gauss-Newton operator of any set of unknowns, and steps and draws by conjugate gradients.

    H = J^T W J + T* C T + prior + gauge + what holds neighbours together

J = d lambda/d x by `Model.intensity_tangent`, J^T its adjoint, W the information of lambda. Where
waves are uncertain, C weighs their changes in all directions alike, T = d z/d x (`across`). Along a
wave z this is 4 |z|^2 W + C, across it C alone. Of a thin object a product is one kernel
(`fused`). `thin.Thin` is the same operator on a fixed scan, with the probe at each distinct
shift.

Unknowns of single frames may be eliminated (`frames`): H is then the Schur complement of the normal
matrix of all, and they come out of each solution at the cost of n inner products a frame. With g
the gradient of -log posterior by all that is free,

    d = -(normal matrix of all)^-1 g

is the step of a joint Gauss-Newton iteration; with g from N(0, normal matrix), by `noise`, d is a
draw of the error in Laplace's approximation, of positions and doses as well.

Linear systems are solved by `solve`, preconditioned with the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..kernels.reference import abs2
from ..types import Array, PtychonError
from .diagonal import diagonal
from .forward import Model
from .frames import Eliminated, put_rows, rows
from .fused import FUSED, extended_product, fused
from .pulls import gauge_noise, held
from .roughness import Roughness
from .slices import uneven
from .solve import solve
from .unknowns import Unknowns
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
    between : float
        Precision of the difference between neighbouring slices of the object, each real number.
    rough : Roughness, optional
        What neighbouring pixels of the object have to do with each other.
    across : callable, optional
        C of (lambda, frames), (B, P, Q). Nothing can be eliminated then.
    gauge : Unknowns, optional
        Orthonormal directions that no data tell, along a first axis of each field; each gets the
        stiffness `stiffness`.
    keep : bool
        Keep all waves, 2 + S times K complex frames for each frame; False computes them again for
        each product.
    products : int
        How many were computed.
    kept : dict
        What the kernel takes of each block.
    """

    model: Model
    x: Unknowns
    update: Sequence[str]
    eliminate: Sequence[str] = ()
    information: Image = poisson
    prior: Unknowns = field(default_factory=Unknowns)
    between: float = 0.0
    rough: Roughness | None = None
    across: Image | None = None
    gauge: Unknowns | None = None
    stiffness: float = 0.0
    keep: bool = True
    products: int = 0
    _views: list[View | None] = field(default_factory=list, repr=False)
    _out: list[Eliminated] = field(default_factory=list, repr=False)
    _across: list[Array] = field(default_factory=list, repr=False)
    kept: dict[int, Any] = field(default_factory=dict, repr=False)
    _column: Unknowns | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.across is not None and (self.eliminate or self.model.detector.spread is not None):
            raise PtychonError(
                "information across uncertain waves is there for sharp pixels and for unknowns "
                "that are not eliminated; leave out the point spread and update all unknowns"
            )
        for b in self.blocks():
            view = self.model.view(self.x, b)
            light = self.model.intensity(view)
            weight = self._valid(self.information(light, b), light, b)
            if self.across is not None:
                self._across.append(self._valid(self.across(light, b), light, b))
            prior = self._frame_prior(b)
            self._out.append(Eliminated.of(self.model, view, weight, self.eliminate, prior))
            self._views.append(view if self.keep else None)

    def _valid(self, image: Array, light: Array, b: slice) -> Array:
        """An image in the precision of the light, 0 where there are no data."""
        valid = self.model.detector.valid(b)
        if valid is not True:
            image = self.model.backend.xp.where(valid, image, 0)
        return image.astype(light.dtype, copy=False)

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

    # ------------------------------------------------------------ of one block

    def waves(self, b: slice) -> Array:
        """Detector waves, (B, K, P, Q)."""
        return self._of(b)[0].waves

    def tangent(self, b: slice, d: Unknowns) -> Array:
        """T d, (B, K, P, Q)."""
        return self.model.tangent(self._of(b)[0], d)

    def adjoint(self, b: slice, wave: Array, out: Unknowns) -> None:
        """out += T* wave."""
        self.model.adjoint(self._of(b)[0], wave, out)

    def taken(self, b: slice, wave: Array) -> Array:
        """Information of each pixel on a change of its wave, Re w* A w: (B, R, C)."""
        view, frames, across = self._of(b)
        light = self.model.detector.intensity_tangent(view, Unknowns(), wave)
        image = light * frames.weighed(light)
        return image if across is None else image + across * abs2(wave).sum(axis=1)

    def _of(self, b: slice) -> tuple[View, Eliminated, Array | None]:
        i = self.blocks().index(b)
        view = self._views[i]
        view = self.model.view(self.x, b) if view is None else view
        return view, self._out[i], self.spreads()[i]

    def zeros(self) -> Unknowns:
        """No change."""
        return self.model.zeros(self.x, self.update)

    # ------------------------------------------------------------ products

    def __call__(self, d: Unknowns) -> Unknowns:
        """H d."""
        self.products += 1
        out = self.model.zeros(self.x, self.update)
        if self.fuses:
            self._product(d, out)
            self._numbers(d, out)
        else:
            self._plainly(d, out)
        self._together(d, out)
        return held(out.axpy(1, d.times(self.prior)), d, self.gauge, self.stiffness)

    def _plainly(self, d: Unknowns, out: Unknowns) -> None:
        """out += (J* W J + T* C T) d, by arrays."""
        for (view, frames), across in zip(self.views(), self.spreads(), strict=True):
            wave = self.model.tangent(view, d)
            light = frames.weighed(self.model.detector.intensity_tangent(view, d, wave))
            back = self.model.detector.intensity_adjoint(view, light, out)
            if across is not None:
                back = back + across[:, None] * wave
            self.model.adjoint(view, back, out)

    def _numbers(self, d: Unknowns, out: Unknowns) -> None:
        """The share of the product that a number all frames share has, the distance: its column of
        the matrix is computed once.
        """
        if out.distance is None or d.distance is None:
            return
        if self._column is None:
            self._column = self.model.zeros(self.x, self.update)
            self._plainly(Unknowns(distance=self.x.distance * 0 + 1), self._column)
        column, others = self._column, d.only([n for n in d.names if n != "distance"])
        out.distance += column.dot(others)
        out.add(d.distance, column)

    def _together(self, d: Unknowns, out: Unknowns) -> None:
        """What holds neighbouring slices and pixels together."""
        if self.between and d.object is not None:
            out.object += (self.between * uneven(d.object)).astype(out.object.dtype, copy=False)
        if self.rough is not None and d.object is not None:
            out.object += self.rough(d.object).astype(out.object.dtype, copy=False)

    @property
    def fuses(self) -> bool:
        """Whether a product is one kernel: of what all frames share, of a thin object, on sharp
        pixels, in single precision.
        """
        x, detector = self.x, self.model.detector
        alike = x.precision == "single" and len(x.object) == 1 and detector.spread is None
        return alike and not self._across and set(self.update) <= FUSED | {"distance"}

    @property
    def _extends(self) -> bool:
        """Whether that is `kernels.extended`; else it is `kernels.joint`."""
        near = self.model.detector.propagator.free is not None
        return near or bool(set(self.update) - {"object", "probe"})

    def _product(self, d: Unknowns, out: Unknowns) -> None:
        """out += J* W J d, by the kernel."""
        x, backend = self.x, self.model.backend
        if self._extends:
            extended_product(self, d, out)
            return
        still = x.object[0] if d.object is None else d.object[0]
        change = still * 0 if d.object is None else still
        total = change * 0 if out.object is None else out.object[0]
        for i, (view, frames) in enumerate(self.views()):
            if i not in self.kept or not self.keep:
                self.kept[i] = fused(view, frames)
            y, r, radial, own = self.kept[i]
            backend.kernels.joint_product(
                *(change, d.probe, view.incident[0], x.object[0], y, r, view.corners, radial, own),
                *(total, out.probe, backend.threads or 1),
            )

    def spreads(self) -> list[Array | None]:
        """C of each block."""
        return list(self._across) if self._across else [None] * len(self._out)

    def diagonal(self) -> Unknowns:
        """About the diagonal of H, for the preconditioner (`model.diagonal`)."""
        return diagonal(self)

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
        for (view, frames), across in zip(self.views(), self.spreads(), strict=True):
            random = move(rng.standard_normal(frames.weight.shape).astype(frames.weight.dtype))
            self.model.intensity_adjoint(view, xp.sqrt(frames.weight) * random, out)
            if across is not None:
                shape = view.waves.shape
                random = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
                wave = move(random.astype(view.waves.dtype))
                self.model.adjoint(view, xp.sqrt(across)[:, None] * wave, out)
        there, drawn = dict(out.each()), {}
        for name, precision in self.prior.each():
            if name in there:
                like = there[name]
                random = rng.standard_normal(like.shape)
                if like.dtype.kind == "c":
                    random = random + 1j * rng.standard_normal(like.shape)
                drawn[name] = move(random.astype(like.dtype)) * precision**0.5
        out = out.axpy(1, Unknowns(**drawn))
        if self.between and out.object is not None:
            shape = out.object[1:].shape
            random = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            step = move((self.between**0.5 * random).astype(out.object.dtype))
            out.object[1:] += step
            out.object[:-1] -= step
        if self.rough is not None and out.object is not None:
            shape = (2, *out.object.shape)
            random = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            out.object += self.rough.drawn(move(random.astype(out.object.dtype)))
        return gauge_noise(out, self.gauge, self.stiffness, rng)

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
        diagonal = self.diagonal() if diagonal is None else diagonal
        rhs = self.eliminated(gradient)
        return self.completed(solve(self, rhs, diagonal, tolerance, iterations).x, gradient)

    def eliminated(self, gradient: Unknowns) -> Unknowns:
        """b of H d = b, for the unknowns to update."""
        xp, names = self.model.backend.xp, self.eliminate
        rhs = gradient.only(self.update).times(-1)
        if names:
            for view, frames in self.views():
                image = frames.across(frames.solved(rows(gradient, names, view.frames, xp)))
                self.model.intensity_adjoint(view, image, rhs)
        return rhs

    def completed(self, d: Unknowns, gradient: Unknowns) -> Unknowns:
        """A step d of the unknowns to update with that of those eliminated."""
        xp, names = self.model.backend.xp, self.eliminate
        if not names:
            return d
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


def _filled(part: Unknowns, x: Unknowns, names: Sequence[str]) -> Unknowns:
    """Fields of `part` at full size, zeros where it has none."""
    return x.zeros(names).axpy(1, part.only([n for n in names if n in part.names]))
