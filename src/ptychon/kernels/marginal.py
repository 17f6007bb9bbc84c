"""The product of the normal matrix of object, probe and background, unknowns of single frames taken
out of it, where waves may be uncertain.

    M_j (dO, dP) = F[ P_j dO_j + e_j S_j dP O_j ]          P_j the illumination, S_j its shift, e_j
                                                           its dose as an amplitude; of mode 0 also
                                                           sum_l c_jl dV_l in dP
    v            = Re sum_k rho_k* w_k + sigma db          w = M d; rho sigma: the root of the
                                                           information along a wave and on the
                                                           background
    A (w, db)    = rho v + C w,  sigma v                   C: information in all directions alike
    less           sum_n (E_n, e_n) ( Re <E_n, w> + <e_n, db> )
                                                           E, e: what the frame's own unknowns
                                                           explain, A times their derivatives,
                                                           orthonormal for their own matrix

and back by M*. `kernels.joint` is the same for known waves, in the far field, without a background;
`kernels.curvature` without unknowns of frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..types import Array
from .reference import gather, namespace, scatter_add

__all__ = ["marginal"]

#: Frames at a time.
CHUNK = 16


class Seen(NamedTuple):
    """What a product takes of N frames; all but `corners` on the device.

    Attributes
    ----------
    lit : (N, K, P, Q) complex
        P_j.
    ramps_y : (N, P) and ramps_x : (N, Q) complex
        Of the shift of each frame, in the order of an FFT; their product holds the dose.
    corners : (N, 2) int32, on the host
    radial : (N, K, P, Q) complex
        rho.
    across : (N, P, Q) float or None
        C; None where it is 0.
    root : (N, P, Q) float or None
        sigma; None where no background is free.
    own : (N, n, K, P, Q) complex
        E.
    own_images : (N, n, P, Q) float or None
        e; None where no background is free.
    weights : (N, M) float or None
        c, of the M variations of the probe that are free.
    transfer : (1 or N, P, Q) complex or None
        Of the near field.
    """

    lit: Array
    ramps_y: Array
    ramps_x: Array
    corners: Array
    radial: Array
    across: Array | None
    root: Array | None
    own: Array
    own_images: Array | None
    weights: Array | None
    transfer: Array | None

    def of(self, b: slice) -> Seen:
        """Those of some frames."""
        shared = self.transfer is None or len(self.transfer) == 1
        rows: Any = [None if a is None else a[b] for a in self[:-1]]
        rows.append(self.transfer if shared else self.transfer[b])  # type: ignore[index]
        return Seen(*rows)


def marginal(
    change: Array,
    probe_change: Array | None,
    background_change: Array | None,
    object: Array,
    seen: Seen,
    threads: int = 1,
    parts: int = 0,
) -> tuple[Array, Array | None, Array | None]:
    """The product with a change of the object, and of probe and background where these are free.

    Parameters
    ----------
    change, object : (H, W) complex
    probe_change : (K + M, P, Q) complex or None
        Of the modes and of the variations that are free.
    background_change : (P, Q) float or None
    seen : Seen
    threads : int
    parts : int
        In which the sum may be taken, whatever the number of threads; 0 for one of each.

    Returns
    -------
    (H, W) complex, (K + M, P, Q) complex or None, (P, Q) float or None
    """
    xp, K, shape = namespace(change), seen.lit.shape[1], seen.lit.shape[-2:]
    out = xp.zeros_like(change)
    out_probe = None if probe_change is None else xp.zeros_like(probe_change)
    out_background = None if background_change is None else xp.zeros_like(background_change)
    for first in range(0, len(seen.corners), CHUNK):
        s = seen.of(slice(first, min(first + CHUNK, len(seen.corners))))
        psi = s.lit * gather(change, s.corners, shape)[:, None]
        ramps = s.ramps_y[:, None, :, None] * s.ramps_x[:, None, None, :]
        if probe_change is not None:
            O = gather(object, s.corners, shape)[:, None]
            spectrum = xp.fft.fft2(probe_change)
            modes = xp.broadcast_to(spectrum[:K], (len(O), *spectrum[:K].shape)).copy()
            if s.weights is not None:
                modes[:, 0] += xp.tensordot(s.weights, spectrum[K:], 1)
            psi = psi + O * xp.fft.ifft2(ramps * modes).astype(psi.dtype)
        wave = _propagated(xp, psi, s.transfer, True)
        v = (s.radial.real * wave.real + s.radial.imag * wave.imag).sum(axis=1)
        found = (s.own.real * wave[:, None].real + s.own.imag * wave[:, None].imag).sum(
            axis=(2, 3, 4)
        )
        if background_change is not None:
            v = v + s.root * background_change
            found = found + (s.own_images * background_change).sum(axis=(2, 3))
        back = s.radial * v[:, None]
        if s.across is not None:
            back = back + s.across[:, None] * wave
        back = back - (s.own * found[:, :, None, None, None]).sum(axis=1)
        if out_background is not None:
            own = (s.own_images * found[:, :, None, None]).sum(axis=(0, 1))
            out_background += (s.root * v).sum(axis=0) - own
        psi = _propagated(xp, back, s.transfer, False)
        scatter_add(out, s.corners, (s.lit.conj() * psi).sum(axis=1))
        if out_probe is not None:
            asked = ramps.conj() * xp.fft.fft2(O.conj() * psi)
            out_probe[:K] += xp.fft.ifft2(asked.sum(axis=0)).astype(psi.dtype)
            if s.weights is not None:
                varied = xp.tensordot(s.weights.T, asked[:, 0], 1)
                out_probe[K:] += xp.fft.ifft2(varied).astype(psi.dtype)
    return out, out_probe, out_background


def _propagated(xp: Array, wave: Array, transfer: Array | None, forward: bool) -> Array:
    if transfer is None:
        move = xp.fft.fft2 if forward else xp.fft.ifft2
        return move(wave, norm="ortho").astype(wave.dtype, copy=False)
    factor = (transfer if forward else transfer.conj())[:, None]
    return xp.fft.ifft2(factor * xp.fft.fft2(wave)).astype(wave.dtype, copy=False)
