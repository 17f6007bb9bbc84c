"""The product M* A M with a change of object and probe, and the two ways its weights are held.

    M_j (dO, dP) = F[ P_j dO_j + dP_j O_j ]
    A w          = across w + (along - across) u Re <u, w>/|u|^2

A weighs each detector pixel along the direction u of its wave, over all modes, and across it. Both
numbers may belong to a class of alike pixels, or to each pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..types import Array
from .reference import abs2, gather, namespace, scatter_add, shift

__all__ = ["curvature", "weigh"]


class ByClass(NamedTuple):
    """Weights of classes of pixels.

    Attributes
    ----------
    classes : (N, P, Q) uint8 or uint16
    table : (2, C) float32
        Along and across, per class.
    waves : (N, K, P, Q) complex64 or None
        u; None where the two rows of `table` are the same.
    """

    classes: Array
    table: Array
    waves: Array | None

    def of(self, b: Any) -> ByClass:
        """Those of some frames."""
        return ByClass(self.classes[b], self.table, None if self.waves is None else self.waves[b])

    def root(self) -> ByClass:
        """Of A^1/2."""
        return self._replace(table=namespace(self.table).sqrt(self.table))


class ByPixel(NamedTuple):
    """Weights of single pixels, 0 where there are no data.

    Attributes
    ----------
    radial : (N, K, P, Q) complex64
        u/|u| (along - across)^1/2.
    across : (N, P, Q) float32 or None
        None where it is 0 everywhere.
    """

    radial: Array
    across: Array | None = None

    def of(self, b: Any) -> ByPixel:
        """Those of some frames."""
        return ByPixel(self.radial[b], None if self.across is None else self.across[b])


Weights = ByClass | ByPixel


def curvature(
    change: Array,
    probe_change: Array | None,
    probes: Array,
    object: Array | None,
    shifts: Array,
    index: Array,
    corners: Array,
    weights: Weights,
    transfer: Array | None,
    threads: int,
    parts: int = 0,
) -> tuple[Array, Array | None]:
    """sum_j M_j* A_j M_j x for a change of the object, and of the probe.

    Parameters
    ----------
    change : (H, W) complex64 and probe_change : (K, P, Q) complex64 or None
    probes : (U, K, P, Q) complex64
        The probe at each distinct shift.
    object : (H, W) complex64 or None
        Needed where the probe changes.
    shifts : (U, 2) and index : (N,) and corners : (N, 2), on the host
    weights : ByClass or ByPixel
    transfer : (U, P, Q) complex64 or None
        Of the near field, at each distinct shift.
    threads : int
    parts : int
        In which the sum is taken, whatever the number of threads; 0 for one of each.

    Returns
    -------
    (H, W) complex64, and (K, P, Q) complex64 or None
    """
    xp = namespace(change)
    shape = probes.shape[-2:]
    out = xp.zeros_like(change)
    out_probe = None if probe_change is None else xp.zeros_like(probe_change)
    for first in range(0, len(corners), 16):
        b = slice(first, min(first + 16, len(corners)))
        P = probes[index[b]]
        psi = P * gather(change, corners[b], shape)[:, None]
        if probe_change is not None and object is not None:
            O = gather(object, corners[b], shape)[:, None]
            psi = psi + shift(probe_change, shifts[index[b]]) * O
        factor = None if transfer is None else transfer[index[b]][:, None]
        z = weigh(_propagate(xp, psi, factor, True), weights.of(b))
        psi = _propagate(xp, z, factor, False)
        scatter_add(out, corners[b], (P.conj() * psi).sum(axis=1))
        if out_probe is not None:
            out_probe += shift(O.conj() * psi, shifts[index[b]], -1).sum(axis=0)
    return out, out_probe


def weigh(wave: Array, weights: Weights) -> Array:
    """A wave, for the frames that the weights are of, (B, K, P, Q)."""
    if isinstance(weights, ByPixel):
        radial = weights.radial
        along = (radial.real * wave.real + radial.imag * wave.imag).sum(axis=1, keepdims=True)
        if weights.across is None:
            return radial * along
        return radial * along + weights.across[:, None] * wave
    classes, table, directions = weights
    across = table[1][classes][:, None]
    if directions is None:
        return across * wave
    power = abs2(directions).sum(axis=1, keepdims=True)
    along = (directions.conj() * wave).real.sum(axis=1, keepdims=True) / namespace(wave).maximum(
        power, 1e-30
    )
    return across * wave + ((table[0] - table[1])[classes][:, None] * along) * directions


def _propagate(xp: Any, wave: Array, factor: Array | None, forward: bool) -> Array:
    """To the detector or back; `factor` (B, 1, P, Q) is the transfer function of each frame in the
    near field.
    """
    if factor is None:
        move = xp.fft.fft2 if forward else xp.fft.ifft2
        return move(wave, norm="ortho").astype(wave.dtype, copy=False)
    factor = factor if forward else factor.conj()
    return xp.fft.ifft2(factor * xp.fft.fft2(wave)).astype(wave.dtype, copy=False)
