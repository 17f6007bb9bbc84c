"""The product of the joint Gauss-Newton matrix of object and probe, unknowns of single frames taken
out of it.

    M_j (dO, dP) = F[ P_j dO_j + e_j S_j dP O_j ]          P_j the illumination, S_j its shift, e_j
                                                           its dose as an amplitude
    v            = Re sum_k rho_k* (M d)_k                 rho: the wave times twice the root of the
                                                           information of a pixel on its light
    v           <- v - sum_n b_n <b_n, v>                  b: what the frame's own unknowns explain
    product      = sum_j M_j* (rho v)
"""

from __future__ import annotations

from ..types import Array
from .reference import gather, namespace, scatter_add

__all__ = ["joint_product"]


def joint_product(
    change: Array,
    probe_change: Array | None,
    lit: Array,
    object: Array,
    ramps_y: Array,
    ramps_x: Array,
    corners: Array,
    radial: Array,
    own: Array,
    out: Array,
    out_probe: Array | None,
    threads: int = 1,
) -> None:
    """Add the product of some frames to `out` and `out_probe`; of the far field.

    Parameters
    ----------
    change : (H, W) complex64 and probe_change : (K, P, Q) complex64 or None
    lit : (B, K, P, Q) complex64
        P_j.
    object : (H, W) complex64
    ramps_y : (B, P) complex64 and ramps_x : (B, Q) complex64
        Of the shift of each frame, in the order of an FFT; their product holds the dose.
    corners : (B, 2) int32, on the host
    radial : (B, K, P, Q) complex64
        rho.
    own : (B, n, P, Q) float32
        b: orthonormal where their prior is weak, shorter where it is not.
    out : (H, W) complex64 and out_probe : (K, P, Q) complex64 or None
    threads : int
        The sum may be taken in as many parts.
    """
    xp, shape = namespace(change), lit.shape[-2:]
    O = gather(object, corners, shape)[:, None]
    psi = lit * gather(change, corners, shape)[:, None]
    ramps = ramps_y[:, None, :, None] * ramps_x[:, None, None, :]
    if probe_change is not None:
        psi = psi + O * xp.fft.ifft2(ramps * xp.fft.fft2(probe_change)).astype(psi.dtype)
    wave = xp.fft.fft2(psi, norm="ortho").astype(psi.dtype)
    along = (radial.real * wave.real + radial.imag * wave.imag).sum(axis=1)
    if own.shape[1]:
        found = (own * along[:, None]).sum(axis=(2, 3), keepdims=True)
        along = along - (own * found).sum(axis=1)
    psi = xp.fft.ifft2(radial * along[:, None], norm="ortho").astype(psi.dtype)
    scatter_add(out, corners, (lit.conj() * psi).sum(axis=1))
    if out_probe is not None:
        back = (ramps.conj() * xp.fft.fft2(O.conj() * psi)).sum(axis=0)
        out_probe += xp.fft.ifft2(back).astype(psi.dtype)
