"""The product of the joint Gauss-Newton matrix with all that a thin object may come with: free
space behind it, variations of the probe, and a background.

    M_j d  = D_j[ P_j dO_j + e_j S_j ( dP + delta_k0 sum_l c_jl dV_l ) O_j ]
             D_j: F, or F^-1[ H exp(2 pi i q.f_j) F . ] in the near field
    v      = Re sum_k rho_k* (M d)_k + sqrt(W) db        W the information of a pixel on its light
    v     <- v - sum_n b_n <b_n, v>                      b: what the frame's own unknowns explain
    product: sum_j M_j* (rho v),  of db: sum_j sqrt(W) v

`kernels.joint` is the same in the far field, for object and probe alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..types import Array
from .reference import gather, namespace, scatter_add

__all__ = ["extended_product"]


class Changes(NamedTuple):
    """object (H, W), probe (K, P, Q), variations (M, P, Q) and background (P, Q); all but the
    object may be None.
    """

    object: Array
    probe: Array | None
    variations: Array | None
    background: Array | None


class Frames(NamedTuple):
    """What a product takes of B frames.

    Attributes
    ----------
    lit : (B, K, P, Q) complex64
        P_j.
    object : (H, W) complex64
    ramps_y : (B, P) complex64 and ramps_x : (B, Q) complex64
        Of the shift of each frame, in the order of an FFT.
    strength : (B,) float32
        e_j.
    weights : (B, M) float32 or None
        c_j, where there are variations.
    transfer : (P, Q) complex64 or None
        H; None in the far field.
    corners : (B, 2) int32, on the host
    radial : (B, K, P, Q) complex64
        rho.
    own : (B, n, P, Q) float32
        b.
    root : (B, P, Q) float32 or None
        sqrt(W), where there is a background.
    """

    lit: Array
    object: Array
    ramps_y: Array
    ramps_x: Array
    strength: Array
    weights: Array | None
    transfer: Array | None
    corners: Array
    radial: Array
    own: Array
    root: Array | None


def extended_product(change: Changes, frames: Frames, out: Changes, threads: int = 1) -> None:
    """Add the product of some frames to `out`, which has the same fields as `change`.

    Parameters
    ----------
    change : Changes
    frames : Frames
    out : Changes
    threads : int
        The sum may be taken in as many parts.
    """
    f, xp, shape = frames, namespace(change.object), frames.lit.shape[-2:]
    O = gather(f.object, f.corners, shape)[:, None]
    psi = f.lit * gather(change.object, f.corners, shape)[:, None]
    bare = f.ramps_y[:, None, :, None] * f.ramps_x[:, None, None, :]
    ramps = bare * f.strength[:, None, None, None]
    if change.probe is not None:
        psi = psi + O * xp.fft.ifft2(ramps * xp.fft.fft2(change.probe)).astype(psi.dtype)
    if change.variations is not None and f.weights is not None:
        mixed = xp.tensordot(f.weights, change.variations, 1)[:, None]
        psi[:, :1] += O * xp.fft.ifft2(ramps * xp.fft.fft2(mixed)).astype(psi.dtype)
    wave = xp.fft.fft2(psi, norm="ortho")
    if f.transfer is not None:
        wave = xp.fft.ifft2(f.transfer * bare.conj() * wave, norm="ortho")
    wave = wave.astype(psi.dtype)
    along = (f.radial.real * wave.real + f.radial.imag * wave.imag).sum(axis=1)
    if change.background is not None:
        along = along + f.root * change.background
    if f.own.shape[1]:
        found = (f.own * along[:, None]).sum(axis=(2, 3), keepdims=True)
        along = along - (f.own * found).sum(axis=1)
    if out.background is not None:
        out.background[...] += (f.root * along).sum(axis=0)
    back = f.radial * along[:, None]
    if f.transfer is not None:
        back = f.transfer.conj() * bare * xp.fft.fft2(back, norm="ortho")
    psi = xp.fft.ifft2(back, norm="ortho").astype(psi.dtype)
    scatter_add(out.object, f.corners, (f.lit.conj() * psi).sum(axis=1))
    if out.probe is None and out.variations is None:
        return
    asked = ramps.conj() * xp.fft.fft2(O.conj() * psi)
    if out.probe is not None:
        out.probe[...] += xp.fft.ifft2(asked.sum(axis=0)).astype(psi.dtype)
    if out.variations is not None and f.weights is not None:
        first = xp.tensordot(f.weights.T.astype(asked.dtype), asked[:, 0], 1)
        out.variations[...] += xp.fft.ifft2(first).astype(psi.dtype)
