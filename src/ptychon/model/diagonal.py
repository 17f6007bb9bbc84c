"""About the diagonal of the Gauss-Newton operator, half the trace for a complex number: what the
preconditioner divides by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels.reference import abs2
from ..types import Array
from .frames import components, put_rows
from .pulls import held_diagonal
from .slices import neighbours
from .unknowns import Unknowns, declared
from .view import View

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton


def diagonal(H: GaussNewton) -> Unknowns:
    """About the diagonal of H, half the trace for a complex number: for the preconditioner.

    Nothing is taken off for what is eliminated, modes do not share their information, the light
    is as if it were spread evenly over the detector (exact in the far field), and the probe is
    where its window is.
    """
    out = H.model.zeros(H.x, H.update)
    for (view, frames), across in zip(H.views(), H.spreads(), strict=True):
        weight = frames.weight
        spread = H.model.detector.spread
        seen = weight if spread is None else spread.transpose(weight)
        # of each mode of each frame, the information on a unit of its exit wave
        share = (2 * abs2(view.waves) * seen[:, None]).mean(axis=(2, 3))[:, :, None, None]
        if across is not None:
            share = share + across.mean(axis=(1, 2))[:, None, None, None]
        through = 1.0
        for s in view.slices_back():
            if out.object is not None:
                light = (share * abs2(view.incident[s])).sum(axis=1).astype(out.object.dtype)
                view.kernels.scatter_add(out.object[s], view.corners, light)
            through = through * abs2(view.windows[s])[:, None]
        if H.x.log_scale is not None:
            share = (
                share * H.model.backend.xp.exp(2 * H.x.log_scale[view.frames])[:, None, None, None]
            )
        if out.probe is not None:
            out.probe += (share * through).sum(axis=0)
        if out.variations is not None:
            power = (H.x.weights[view.frames] ** 2)[:, :, None, None]
            out.variations += (power * (share * through)[:, :1]).sum(axis=0)
        if out.background is not None:
            out.background += H.model.detector.dark_diagonal(weight.sum(axis=0))
        _own(H, view, weight, across, out)
    if H.between and out.object is not None:
        out.object += H.between * neighbours(len(out.object), H.model.backend.xp)
    if H.rough is not None and out.object is not None:
        out.object += H.rough.diagonal()
    ones = out.map(lambda array: array * 0 + 1)
    out = out.axpy(1, ones.times(H.prior)).map(lambda array: array.real.clip(1e-30, None))
    return held_diagonal(out, H.gauge, H.stiffness)


def _own(H: GaussNewton, view: View, weight: Array, across: Array | None, out: Unknowns) -> None:
    """The diagonal of the distance and of the unknowns of single frames, exact."""
    if out.distance is not None:
        unit = Unknowns(distance=view.x.distance * 0 + 1)
        wave = H.model.tangent(view, unit)
        image = weight * H.model.detector.intensity_tangent(view, unit, wave) ** 2
        if across is not None:
            image = image + across * abs2(wave).sum(axis=1)
        out.distance += image.sum(dtype="float64")
    own = [n for n in H.update if declared()[n].per_frame]
    parts = []
    for name, c in components(view.x, own):
        unit = H.model.zeros(view.x, [name])
        column = getattr(unit, name)
        column[... if column.ndim == 1 else (slice(None), c)] = 1
        wave = H.model.tangent(view, unit)
        image = weight * H.model.detector.intensity_tangent(view, unit, wave) ** 2
        if across is not None:
            image = image + across * abs2(wave).sum(axis=1)
        parts.append(image.sum(axis=(1, 2)))
    if parts:
        put_rows(H.model.backend.xp.stack(parts, axis=1), own, view.frames, out)
