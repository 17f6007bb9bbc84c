r"""The Gauss-Newton operator of object, probe and background, with the unknowns of single frames
eliminated, for waves that may be uncertain: what error bars need.

    A (w, db)  = rho v + C w,  sigma v,       v = Re sum_k rho_k* w_k + sigma db
    H          = M* A M + prior + gauge,      M as in `kernels.marginal`, M db = (0, db)

With theta_j all numbers that frame j has of its own (position, dose, weights of a probe that
varies), T_j = (d z_j/d theta_j, 0) and Sigma^-1 their prior, their block of the normal matrix of
everything is G_j, one small matrix a frame, and what is left for the others is

    G_j      = Re T_j* A T_j + Sigma^-1 = L L^T
    A_j      becomes  A_j - sum_n E_n E_n*,   E = L^-1 A T_j
    theta_j  = G_j^-1 ( g_j - Re T_j* A M x )

for the solution x of H x = g - M* A T G^-1 g_theta. With g drawn from N(0, normal matrix), which
`noise` does, x and theta are draws of the error of all in Laplace's approximation, and G_j^-1 g_j
and the rest of theta are independent of each other.

The distance to the detector is one number. The column of H that belongs to it is kept, and borders
what the product gives.

`frames` is the same for known waves and any weights; `thin` without unknowns of frames. The
background may be an image, or coefficients of few images (`columns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..kernels.marginal import Seen, marginal
from ..kernels.reference import abs2
from ..types import Array
from .forward import Model
from .frames import components, put_rows, rows
from .gauss_newton import GaussNewton
from .marginal_diagonal import diagonal
from .pulls import Together, bound, bound_noise, gauge_noise, held
from .unknowns import Unknowns
from .view import View


@dataclass
class Marginal:
    """H at one estimate, of a thin object.

    Attributes
    ----------
    model : Model
    x : Unknowns
        On the model's backend. Its background, if it is free, is that of `columns`.
    update : sequence of str
        What H acts on: "object", "probe", "variations" (with the probe), "background", "distance".
    eliminate : sequence of str
        Unknowns of single frames that are free.
    radial : (N, K, P, Q) complex
        rho, 0 where there are no data.
    across : (N, P, Q) float or None
        C.
    root : (N, P, Q) float or None
        sigma, where the background is free.
    prior : Unknowns
        Precision of each real number, as arrays that broadcast to the fields.
    columns : (n, P, Q) float or None
        Images whose coefficients are `Unknowns.background`, (1, n); None where that is an image.
    gauge : Unknowns, optional
        Orthonormal directions along a first axis of each field; each gets the stiffness
        `stiffness`.
    threads : int
        Of a product.
    parts : int
        In which it is summed, whatever the number of threads; 0 for one of each.
    between : mapping of str to FieldPrior
        What holds pixels of a field together, by its name.
    """

    model: Model
    x: Unknowns
    update: Sequence[str]
    eliminate: Sequence[str]
    radial: Array
    across: Array | None = None
    root: Array | None = None
    prior: Unknowns = field(default_factory=Unknowns)
    columns: Array | None = None
    gauge: Unknowns | None = None
    stiffness: float = 0.0
    threads: int = 1
    parts: int = 0
    between: Together = field(default_factory=dict)

    def __post_init__(self) -> None:
        xp, real, n = self.model.backend.xp, self.radial.real.dtype, len(self._components)
        frames, waves = len(self.model), self.radial.shape[1:]
        self.lower_inverse = xp.zeros((frames, n, n))
        own = xp.zeros((frames, n, *waves), self.radial.dtype)
        images = None if self.root is None else xp.zeros((frames, n, *waves[1:]), real)
        lit = xp.empty((frames, *waves), self.radial.dtype)
        weights = rows(self._filled_prior(), self.eliminate, slice(None), xp) if n else None
        for b in self.blocks():
            view = self.model.view(self.x, b)
            lit[b] = view.incident[0]
            if weights is None:
                continue
            T = self._derivatives(view)
            along = self._along(b, T)
            AT = self._weighed(b, T, along)
            G = xp.einsum("bnkpq,bmkpq->bnm", T.real, AT.real, optimize=True).astype("float64")
            G += xp.einsum("bnkpq,bmkpq->bnm", T.imag, AT.imag, optimize=True)
            index = xp.arange(n)
            G = (G + G.swapaxes(1, 2)) / 2
            G[:, index, index] += weights[b]
            # numbers of different units: brought to one scale, so that no digits are lost
            size = 1 / xp.sqrt(xp.maximum(G[:, index, index], 1e-300))
            half = xp.linalg.cholesky(G * size[:, :, None] * size[:, None, :])
            self.lower_inverse[b] = xp.linalg.inv(half) * size[:, None, :]
            small = self.lower_inverse[b].astype(real)
            own[b] = xp.einsum("bnm,bmkpq->bnkpq", small, AT, optimize=True)
            if images is not None:
                e = self.root[b][:, None] * along  # type: ignore[index]
                images[b] = xp.einsum("bnm,bmpq->bnpq", small, e, optimize=True)
        ramps = self._ramps(lit.dtype)
        varies = "variations" in self.update
        self.seen = Seen(
            *(lit, *ramps, self.model.corners, self.radial, self.across, self.root, own, images),
            xp.ascontiguousarray(self.x.weights.astype(real)) if varies else None,
            self._transfer(lit.dtype),
        )
        #: H of a distance that is longer by 1, in the units of the one that is stated.
        self.border: Unknowns | None = None
        if "distance" in self.update:
            self.border = self._border()

    @cached_property
    def _components(self) -> list[tuple[str, int]]:
        return components(self.x, self.eliminate)

    def _filled_prior(self) -> Unknowns:
        names = [n for n in self.eliminate if n in self.prior.names]
        return self.x.zeros(self.eliminate).axpy(1, self.prior.only(names))

    def blocks(self) -> list[slice]:
        """Frames in slices."""
        return self.slices(self.x, len(self.model))

    slices = staticmethod(GaussNewton.slices)

    # ------------------------------------------------------------ of frames

    def _derivatives(self, view: View) -> Array:
        """T, (B, n, K, P, Q)."""
        found = []
        for name, c in self._components:
            unit = self.model.zeros(view.x, [name])
            column = getattr(unit, name)
            column[... if column.ndim == 1 else (slice(None), c)] = 1
            found.append(self.model.tangent(view, unit))
        return self.model.backend.xp.stack(found, axis=1)

    def _along(self, b: slice, T: Array) -> Array:
        """Re sum_k rho_k* T_k, (B, n, P, Q), for waves (B, n, K, P, Q)."""
        radial = self.radial[b][:, None]
        return (radial.real * T.real + radial.imag * T.imag).sum(axis=2)

    def _weighed(self, b: slice, T: Array, along: Array) -> Array:
        """A T."""
        out = self.radial[b][:, None] * along[:, :, None]
        return out if self.across is None else out + self.across[b][:, None, None] * T

    def _ramps(self, dtype: Any) -> tuple[Array, Array]:
        """Ramps of the shifts of all frames along y and x, the dose in the first."""
        xp, x, (p, q) = self.model.backend.xp, self.x, self.radial.shape[-2:]
        n = len(self.model)
        if x.positions is None:
            y, r = xp.ones((n, p), dtype), xp.ones((n, q), dtype)
        else:
            view = self.model.placed(x, slice(0, n))
            y, r = view.ramps  # type: ignore[misc]
        if x.log_scale is not None:
            y = y * xp.exp(x.log_scale)[:, None]
        return xp.ascontiguousarray(y.astype(dtype)), xp.ascontiguousarray(r.astype(dtype))

    def _border(self) -> Unknowns:
        """The column of the distance, without its prior."""
        xp, out = self.model.backend.xp, self.zeros()
        unit = Unknowns(distance=xp.ones_like(self.x.distance))
        for b in self.blocks():
            view, own = self.model.view(self.x, b), self.seen.own[b]
            wave = self.model.tangent(view, unit)
            along = self._along(b, wave[:, None])
            back = self._weighed(b, wave[:, None], along)[:, 0]
            c = xp.einsum("bnkpq,bkpq->bn", own.real, wave.real, optimize=True)
            c += xp.einsum("bnkpq,bkpq->bn", own.imag, wave.imag, optimize=True)
            self.model.adjoint(view, back - xp.einsum("bn,bnkpq->bkpq", c, own), out)
            if out.background is not None and self.root is not None:
                image = (self.root[b] * along[:, 0]).sum(axis=0)
                if self.seen.own_images is not None:
                    image = image - xp.einsum("bn,bnpq->pq", c, self.seen.own_images[b])
                out.background += self.asked(image)
        return out

    def _transfer(self, dtype: Any) -> Array | None:
        """H_f of all frames."""
        free, xp = self.model.detector.free(self.x), self.model.backend.xp
        if free is None:
            return None
        if self.x.positions is None:
            return free[None].astype(dtype)
        y, r = self.model.placed(self.x, slice(0, len(self.model))).ramps  # type: ignore[misc]
        return xp.ascontiguousarray(
            (free[None] * y.conj()[:, :, None] * r.conj()[:, None, :]).astype(dtype)
        )

    # ------------------------------------------------------------ the background

    def image(self, coefficients: Array) -> Array:
        """The background (P, Q) of its unknowns."""
        if self.columns is None:
            return coefficients
        return self.model.backend.xp.tensordot(coefficients[0], self.columns, 1)

    def asked(self, image: Array) -> Array:
        """The adjoint of `image`."""
        if self.columns is None:
            return image
        xp = self.model.backend.xp
        return xp.tensordot(self.columns, image, 2)[None].astype(image.dtype)

    # ------------------------------------------------------------ products

    def __call__(self, d: Unknowns) -> Unknowns:
        """H d."""
        dark = None if d.background is None else self.image(d.background)
        # those of a backend are made for single precision
        product = self.model.backend.kernels.marginal if self.x.precision == "single" else marginal
        probes, K, varies = d.probe, self.radial.shape[1], d.variations is not None
        if varies:
            probes = self.model.backend.xp.concatenate([d.probe, d.variations])
        how = (self.threads, self.parts)
        O, P, b = product(d.object[0], probes, dark, self.x.object[0], self.seen, *how)
        out = Unknowns(
            object=O[None],
            probe=P[:K] if varies else P,  # type: ignore[index]
            variations=P[K:] if varies else None,  # type: ignore[index]
            background=None if b is None else self.asked(b),
            distance=None if d.distance is None else self.model.backend.xp.zeros_like(d.distance),
        )
        if self.border is not None:
            own = self.border.dot(d)
            out.add(d.distance[0], self.border)
            out.distance[0] = own
        out.add(1, d.times(self.prior))
        bound(out, d, self.between)
        return held(out, d, self.gauge, self.stiffness)

    def zeros(self) -> Unknowns:
        """No change of what H acts on."""
        return self.model.zeros(self.x, self.update)

    # ------------------------------------------------------------ of one block

    def waves(self, b: slice) -> Array:
        """Detector waves, (B, K, P, Q)."""
        return self.model.view(self.x, b).waves

    def tangent(self, b: slice, d: Unknowns) -> Array:
        """How they change with object, probe, and the unknowns of frames that `d` has."""
        names = [name for name in d.names if name != "background"]
        return self.model.tangent(self.model.view(self.x, b), d.only(names))

    def adjoint(self, b: slice, wave: Array, out: Unknowns) -> None:
        """out += M* wave."""
        self.model.adjoint(self.model.view(self.x, b), wave, out)

    def pulled(self, d: Unknowns) -> Unknowns:
        """T(x + d)* A (z(x + d) - z(x)) by everything that is free: what the waves of this point
        ask for after a change.
        """
        x, out = self.x.axpy(1, d), self.model.zeros(self.x, (*self.update, *self.eliminate))
        for b in self.blocks():
            view = self.model.view(x, b)
            wave = (view.waves - self.waves(b))[:, None]
            along = self._along(b, wave)
            if d.background is not None and self.root is not None:
                along = along + (self.root[b] * self.image(d.background))[:, None]
                out.background += self.asked((self.root[b] * along[:, 0]).sum(axis=0))
            self.model.adjoint(view, self._weighed(b, wave, along)[:, 0], out)
        return out

    def taken(self, b: slice, wave: Array, d: Unknowns | None = None) -> Array:
        """Information of each pixel on a change of its wave and, of `d`, of the background: (B, P,
        Q).
        """
        v = self._along(b, wave[:, None])[:, 0]
        if d is not None and d.background is not None and self.root is not None:
            v = v + self.root[b] * self.image(d.background)
        return v**2 if self.across is None else v**2 + self.across[b] * abs2(wave).sum(axis=1)

    # ------------------------------------------------------------ steps and draws

    def reduced(self, gradient: Unknowns) -> tuple[Unknowns, Array]:
        """g - M* A T G^-1 g_theta of a gradient by everything, the right-hand side of H, and L^-1
        g_theta, (N, n) float64.
        """
        xp, out = self.model.backend.xp, gradient.only(self.update).copy()
        if not self.eliminate:
            return out, xp.zeros((len(self.model), 0))
        own = rows(gradient, self.eliminate, slice(None), xp)
        u = (self.lower_inverse @ own[..., None])[..., 0]
        real = self.radial.real.dtype
        for b in self.blocks():
            few = u[b].astype(real)
            self.adjoint(b, -xp.einsum("bn,bnkpq->bkpq", few, self.seen.own[b]), out)
            if self.seen.own_images is not None:
                image = -xp.einsum("bn,bnpq->pq", few, self.seen.own_images[b])
                out.background += self.asked(image)
        return out, u

    def frames(self, x: Unknowns, u: Array) -> tuple[Unknowns, Unknowns]:
        """theta of a solution x, and the part of it that x has a share in: theta less G^-1 g_theta,
        u being L^-1 g_theta.
        """
        xp, found, rest = self.model.backend.xp, *(self.x.zeros(self.eliminate) for _ in "ab")
        if not self.eliminate:
            return found, rest
        for b in self.blocks():
            wave, E = self.tangent(b, x), self.seen.own[b]
            c = xp.einsum("bnkpq,bkpq->bn", E.real, wave.real, optimize=True).astype("float64")
            c += xp.einsum("bnkpq,bkpq->bn", E.imag, wave.imag, optimize=True)
            if x.background is not None and self.seen.own_images is not None:
                c += (self.seen.own_images[b] * self.image(x.background)).sum(axis=(2, 3))
            upper = self.lower_inverse[b].swapaxes(1, 2)
            put_rows((upper @ (u[b] - c)[..., None])[..., 0], self.eliminate, b, found)
            put_rows((upper @ -c[..., None])[..., 0], self.eliminate, b, rest)
        return found, rest

    def variances(self) -> Unknowns:
        """Diagonal of G^-1: of each number of a frame where all others are known."""
        out = self.x.zeros(self.eliminate)
        if self.eliminate:
            diagonal = (self.lower_inverse**2).sum(axis=1)
            put_rows(diagonal, self.eliminate, slice(None), out)
        return out

    def noise(self, rng: np.random.Generator) -> Unknowns:
        """A gradient by everything drawn from N(0, whole normal matrix)."""
        xp, move = self.model.backend.xp, self.model.backend.asarray
        real = self.radial.real.dtype
        out = self.model.zeros(self.x, (*self.update, *self.eliminate))
        for b in self.blocks():
            radial = self.radial[b]
            random = move(rng.standard_normal((len(radial), *radial.shape[2:])).astype(real))
            wave = radial * random[:, None]
            if self.across is not None:
                both = rng.standard_normal(radial.shape) + 1j * rng.standard_normal(radial.shape)
                wave = wave + xp.sqrt(self.across[b])[:, None] * move(both.astype(radial.dtype))
            if out.background is not None and self.root is not None:
                out.background += self.asked((self.root[b] * random).sum(axis=0))
            self.adjoint(b, wave, out)
        drawn = {}
        for name, precision in self.prior.each():
            like = dict(out.each())[name]
            random = rng.standard_normal(like.shape)
            if like.dtype.kind == "c":
                random = random + 1j * rng.standard_normal(like.shape)
            drawn[name] = move(random.astype(like.dtype)) * precision**0.5
        out = out.axpy(1, Unknowns(**drawn))
        bound_noise(out, self.between, rng)
        return gauge_noise(out, self.gauge, self.stiffness, rng)

    def diagonal(self) -> Unknowns:
        """See `marginal_diagonal`."""
        return diagonal(self)
