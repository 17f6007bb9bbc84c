r"""What each frame says of its own position and dose, while object and probe of a thin object stay.

P_j   = e_j S_j P,   E_j = F[P_j O_j],   D_n = F[-(d_n P_j) O_j]             n: along y, along x
z_j   = E_j  in the far field,   F^-1[ H conj(S_j) E_j ] in the near field, where the image
        stays: D_n + 2 pi i q_n E_j takes the place of D_n
m_j   = sqrt(sum_k |z_jk|^2)
a_n   = Re sum_k z_jk* D_jkn/m_j = d m_j/d s_n,   for the logarithm of the dose  m_j
G_j   = sum_q a a^T,   g_j = sum_q a (m_j - y_j)                         over valid pixels
"""

from __future__ import annotations

from typing import NamedTuple

from ..types import Array
from .reference import TINY, abs2, gather, namespace

__all__ = ["frame_light", "frame_normals"]


class Seen(NamedTuple):
    """What B frames see.

    Attributes
    ----------
    probe : (K, P, Q) complex64
    object : (H, W) complex64
    corners : (B, 2) int32, on the host
    ramps_y : (B, P) complex64 and ramps_x : (B, Q) complex64
        Of the shift of each frame, in the order of an FFT.
    strength : (B,) float32
        e_j.
    transfer : (P, Q) complex64 or None
        H; None in the far field.
    """

    probe: Array
    object: Array
    corners: Array
    ramps_y: Array
    ramps_x: Array
    strength: Array
    transfer: Array | None


class Normals(NamedTuple):
    """misfit (B,): sum of (m - y)^2 over valid pixels; matrix G (B, n, n) and right side g (B, n),
    float64.
    """

    misfit: Array
    matrix: Array
    right: Array


def frame_light(seen: Seen, threads: int = 1) -> Array:
    """sum_k |z_jk|^2, (B, P, Q) float32."""
    return abs2(_waves(seen)[1]).sum(axis=1)


def frame_normals(
    seen: Seen, amplitude: Array, mask: Array, position: bool, dose: bool, threads: int = 1
) -> Normals:
    """Normal equations of each frame.

    Parameters
    ----------
    seen : Seen
    amplitude : (B, P, Q) float32
        y.
    mask : (1 or B, P, Q) bool
    position, dose : bool
        Whether a frame has its own, in this order: n is up to 3.
    threads : int
    """
    xp = namespace(seen.object)
    before, wave = _waves(seen)
    m = xp.sqrt(abs2(wave).sum(axis=1))
    off = xp.where(mask, m - amplitude, 0)
    images = []
    if position:
        P, O = _lit(seen), gather(seen.object, seen.corners, seen.probe.shape[-2:])[:, None]
        for axis in (-2, -1):
            n = P.shape[axis]
            rate = 2j * xp.pi * xp.fft.fftfreq(n)
            rate = (rate[:, None] if axis == -2 else rate[None]).astype(P.dtype)
            slope = xp.fft.ifft2(rate * xp.fft.fft2(P)).astype(P.dtype)
            change = _transform(-slope * O)
            if seen.transfer is not None:
                change = _free(seen, change + rate * before)
            along = (wave.conj() * change).real.sum(axis=1)
            images.append(xp.where(m > TINY, along / xp.maximum(m, m.dtype.type(TINY)), 0))
    if dose:
        images.append(m)
    valid = xp.broadcast_to(mask, m.shape)
    a = xp.stack(images, axis=1) if images else xp.zeros((len(m), 0, *m.shape[1:]), m.dtype)
    a = xp.where(valid[:, None], a, 0).reshape(len(m), a.shape[1], m[0].size)
    flat = off.reshape(len(m), -1, 1)
    matrix = (a @ a.swapaxes(1, 2)).astype("float64")
    right = (a @ flat)[..., 0].astype("float64")
    return Normals((off * off).sum(axis=(1, 2), dtype="float64"), matrix, right)


def _lit(seen: Seen) -> Array:
    """P_j, (B, K, P, Q)."""
    xp, P = namespace(seen.object), seen.probe
    ramps = seen.ramps_y[:, None, :, None] * seen.ramps_x[:, None, None, :]
    ramps = ramps * seen.strength[:, None, None, None]
    return xp.fft.ifft2(ramps * xp.fft.fft2(P)).astype(P.dtype)


def _waves(seen: Seen) -> tuple[Array, Array]:
    """E_j and z_j, (B, K, P, Q)."""
    O = gather(seen.object, seen.corners, seen.probe.shape[-2:])
    before = _transform(_lit(seen) * O[:, None])
    return before, before if seen.transfer is None else _free(seen, before)


def _transform(wave: Array) -> Array:
    return namespace(wave).fft.fft2(wave, norm="ortho").astype(wave.dtype)


def _free(seen: Seen, spectrum: Array) -> Array:
    """F^-1[ H conj(S_j) . ]."""
    ramps = seen.ramps_y[:, None, :, None] * seen.ramps_x[:, None, None, :]
    back = namespace(spectrum).fft.ifft2(seen.transfer * ramps.conj() * spectrum, norm="ortho")
    return back.astype(spectrum.dtype)
