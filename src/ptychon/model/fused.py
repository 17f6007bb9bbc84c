"""Products of the Gauss-Newton operator as one kernel: what `kernels.joint` and `kernels.extended`
take of the frames of a view, and how they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels.extended import Changes, Frames
from ..types import Array
from .frames import Eliminated
from .unknowns import Unknowns
from .view import View

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton

#: Unknowns that a kernel has derivatives for.
FUSED = frozenset({"object", "probe", "variations", "background"})


def fused(view: View, frames: Eliminated) -> tuple[Array, Array, Array, Array]:
    """What `kernels.joint` takes of some frames: ramps along y and x with the dose in them, rho,
    and the images of what is eliminated, orthonormal.
    """
    x, xp = view.x, view.backend.xp
    y, r = _ramps(view)
    if x.log_scale is not None:
        y = (y * xp.exp(x.log_scale[view.frames])[:, None]).astype(view.waves.dtype)
    root = xp.sqrt(frames.weight)
    return y, r, 2 * root[:, None] * view.waves, _own(frames, root, xp)


def extended(H: GaussNewton, view: View, frames: Eliminated) -> Frames:
    """What `kernels.extended` takes of them."""
    x, xp = view.x, view.backend.xp
    root, strength = xp.sqrt(frames.weight), xp.ones(len(view.corners), view.waves.real.dtype)
    if x.log_scale is not None:
        strength = xp.exp(x.log_scale[view.frames]).astype(strength.dtype)
    transfer = H.model.detector.free(x)
    return Frames(
        # one probe for all frames is a view without a memory of its own, which no kernel reads
        xp.ascontiguousarray(view.incident[0]),
        x.object[0],
        *_ramps(view),
        strength,
        x.weights[view.frames] if "variations" in H.update else None,
        None if transfer is None else transfer.astype(view.waves.dtype, copy=False),
        view.corners,
        2 * root[:, None] * view.waves,
        _own(frames, root, xp),
        root if "background" in H.update else None,
    )


def extended_product(H: GaussNewton, d: Unknowns, out: Unknowns) -> None:
    """out += J* W J d."""
    backend, detector = H.model.backend, H.model.detector
    still = H.x.object[0] if d.object is None else d.object[0]
    change = still * 0 if d.object is None else still
    total = change * 0 if out.object is None else out.object[0]
    dark = detector.dark(d.background)
    dark = None if dark is None else dark.astype(change.real.dtype, copy=False)
    changes = Changes(change, d.probe, d.variations, dark)
    back = Changes(total, out.probe, out.variations, None if dark is None else 0 * dark)
    for i, (view, frames) in enumerate(H.views()):
        if i not in H.kept or not H.keep:
            H.kept[i] = extended(H, view, frames)
        backend.kernels.extended_product(changes, H.kept[i], back, backend.threads or 1)
    if back.background is not None:
        out.background += detector.undark(back.background)


def _ramps(view: View) -> tuple[Array, Array]:
    xp = view.backend.xp
    if view.ramps is not None:
        return view.ramps
    y, r = (xp.ones((len(view.corners), n), view.waves.dtype) for n in view.shape)
    return y, r


def _own(frames: Eliminated, root: Array, xp: Array) -> Array:
    """Images of what is eliminated, orthonormal: (B, n, P, Q)."""
    if frames.images is None:
        return xp.zeros((len(root), 0, *root.shape[1:]), root.dtype)
    half = xp.linalg.cholesky(frames.inverse).swapaxes(1, 2).astype(root.dtype)
    images = (frames.images * root[:, None]).reshape(*half.shape[:2], -1)
    return (half @ images).reshape(*half.shape[:2], *root.shape[1:])
