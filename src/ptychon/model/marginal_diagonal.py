"""The diagonal of `Marginal`, what its systems are preconditioned by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels.reference import abs2
from ..types import Array
from .pulls import bound_diagonal, held_diagonal
from .unknowns import Unknowns

if TYPE_CHECKING:
    from .marginal import Marginal


def diagonal(H: Marginal) -> Unknowns:
    """Half the trace of the 2 x 2 block of each complex number: exact for the object; for the
    probe without its shifts, and background without what frames take of it.
    """
    xp = H.model.backend.xp
    kernels = H.model.view(H.x, slice(0, 1)).kernels
    out = H.zeros().map(lambda array: array.real)
    K, shape = H.radial.shape[1], H.radial.shape[-2:]
    seen = H.seen
    for b in H.blocks():
        corners, lit = seen.corners[b], seen.lit[b]
        O = kernels.gather(H.x.object[0], corners, shape)
        dose = abs2(seen.ramps_y[b])[:, 0, None, None]
        for s in range(K):
            for t in range(K):
                weight = 0.5 * H.radial[b, s].conj() * H.radial[b, t]
                if s == t and H.across is not None:
                    weight = weight + H.across[b]
                weight = smeared(H, weight, b)
                light = (lit[:, s] * lit[:, t].conj() * weight).real
                kernels.scatter_add(out.object[0], corners, light.astype(out.object.dtype))
                if s == t and out.probe is not None:
                    light = dose * abs2(O) * weight.real
                    out.probe[s] += light.sum(axis=0)
                    if s == 0 and out.variations is not None:
                        share = (seen.weights[b] ** 2).T  # type: ignore[index]
                        out.variations += xp.tensordot(share, light, 1)
        for n in range(seen.own.shape[1]):
            back = backwards(H, seen.own[b, n], b)
            light = -0.5 * abs2((lit.conj() * back).sum(axis=1))
            kernels.scatter_add(out.object[0], corners, light.astype(out.object.dtype))
            if out.probe is not None:
                light = 0.5 * dose[:, None] * abs2(O[:, None].conj() * back)
                out.probe -= light.sum(axis=0)
                if out.variations is not None:
                    share = (seen.weights[b] ** 2).T  # type: ignore[index]
                    out.variations -= xp.tensordot(share, light[:, 0], 1)
    if H.border is not None:
        out.distance = out.distance + H.border.distance
    if out.background is not None and H.root is not None:
        info = (H.root**2).sum(axis=0)
        images = None if H.columns is None else H.columns**2
        out.background += (
            info if images is None else xp.tensordot(images, info, 2)[None].astype(info.dtype)
        )
    ones = out.map(xp.ones_like)
    out = out.map(lambda array: xp.maximum(array, 0)).axpy(1, ones.times(H.prior))
    bound_diagonal(out, H.between)
    return held_diagonal(out, H.gauge, H.stiffness)


def backwards(H: Marginal, wave: Array, b: slice) -> Array:
    backend, transfer = H.model.backend, H.seen.transfer
    if transfer is None:
        return backend.ifft2(wave)
    part = transfer if len(transfer) == 1 else transfer[b]
    return backend.ifft2(part.conj()[:, None] * backend.fft2(wave))


def smeared(H: Marginal, weight: Array, b: slice) -> Array:
    """sum_p |F delta_r|^2(p) weight(p), (B, P, Q): in the far field the mean of a frame, in the
    near field a correlation with a spot.
    """
    backend, transfer = H.model.backend, H.seen.transfer
    if transfer is None:
        mean = weight.mean(axis=(-2, -1), keepdims=True)
        return backend.xp.broadcast_to(mean, weight.shape)
    point = backend.ifft2(transfer if len(transfer) == 1 else transfer[b])
    spot = abs2(point).astype(weight.dtype if weight.dtype.kind == "c" else point.dtype)
    spot = spot / spot.sum(axis=(-2, -1), keepdims=True)
    spectrum = backend.fft2(weight.astype(spot.dtype)) * backend.fft2(spot).conj()
    return backend.ifft2(spectrum * spot.real.dtype.type(weight[0].size ** 0.5))
