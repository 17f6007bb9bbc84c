"""The illumination: the wave that meets the first slice, for each frame.

    P_jk = exp(a_j) S_{f_j} ( P_k + delta_k0 sum_l c_jl V_l ),        S_f P (r) = P(r - f) by the
                                                                      Fourier shift theorem

The window of frame j lies on whole pixels and f_j is the rest of its position (see `fractions`).
S_f multiplies by the ramp exp(-2 pi i q.f), so its derivative by the position is -2 pi i q in
Fourier space, exactly.

References: Thibault & Menzel, Nature 494, 68 (2013) (modes); Odstrcil et al., Opt. Express 24, 8360
(2016) (a probe that varies); Guizar-Sicairos & Fienup, Opt. Express 16, 7264 (2008) (positions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..types import Array, IntArray
from .unknowns import KINDS, Unknowns
from .view import View, frequencies


@dataclass(frozen=True)
class Illumination:
    """Modes, variations of the first, positions between pixels, and dose."""

    owns: ClassVar[frozenset[str]] = frozenset(
        {"probe", "positions", "log_scale", "variations", "weights"}
    )

    def to(self, backend: Any) -> Illumination:
        """The same on a backend's device."""
        return self

    def forward(self, view: View, wave: Array = None) -> Array:
        """P_jk, (B, K, P, Q)."""
        x, xp = view.x, view.backend.xp
        P = x.probe[None]
        if x.variations is not None and x.weights is not None:
            P = xp.broadcast_to(P, (len(view.corners), *x.probe.shape)).copy()
            P[:, 0] += _mixed(x.weights[view.frames], x.variations)
        wave = self._placed(view, P)
        view.incident = [xp.broadcast_to(wave, (len(view.corners), *x.probe.shape))]
        return view.incident[0]

    def tangent(self, view: View, d: Unknowns, change: Array = 0) -> Array:
        """Sum over the unknowns of their change times the derivative of P_jk."""
        x, b, incident = view.x, view.frames, view.incident[0]
        total = view.backend.xp.zeros(incident.shape, incident.dtype)
        if d.probe is not None:
            total += d.probe[None]
        if d.weights is not None:
            total[:, 0] += _mixed(d.weights[b], x.variations)
        if d.variations is not None:
            total[:, 0] += _mixed(x.weights[b], d.variations)
        if {"probe", "weights", "variations"} & set(d.names):
            total = self._placed(view, total)
        if d.log_scale is not None:
            total = total + _column(d.log_scale[b], incident) * incident
        if d.positions is not None:
            total = total - view.backend.ifft2(
                slopes(view, d.positions[b]) * view.backend.fft2(incident)
            )
        return total

    def adjoint(self, view: View, change: Array, out: Unknowns) -> None:
        """Adds to `out` what `change` (B, K, P, Q) of P_jk asks of each unknown."""
        x, b, fft2 = view.x, view.frames, view.backend.fft2
        if out.log_scale is not None:
            out.log_scale[b] += (view.incident[0].conj() * change).real.sum(axis=(1, 2, 3))
        moved = {"probe", "variations", "weights"} & set(out.names)
        # by Parseval all inner products can be taken in Fourier space, where shifts are ramps
        shifted = view.ramps is not None
        spectrum = fft2(change) if shifted or out.positions is not None else change
        if out.positions is not None:
            out.positions[b] -= position_pull(view, fft2(view.incident[0]), spectrum)
        if not moved:
            return
        if x.log_scale is not None:
            spectrum = spectrum * _scale(view, spectrum)
        if view.ramps is not None:
            y, r = view.ramps
            spectrum = spectrum * y.conj()[:, None, :, None] * r.conj()[:, None, None, :]
        back = view.backend.ifft2 if shifted else _unchanged
        if out.probe is not None:
            out.probe += back(spectrum.sum(axis=0))
        if out.variations is not None:
            weights = x.weights[b].astype(change.real.dtype, copy=False)
            out.variations += back((weights[:, :, None, None] * spectrum[:, :1]).sum(axis=0))
        if out.weights is not None:
            variations = fft2(x.variations) if shifted else x.variations
            out.weights[b] += (variations.conj()[None] * spectrum[:, :1]).real.sum(axis=(2, 3))

    def _placed(self, view: View, P: Array) -> Array:
        """exp(a_j) S_f P for probes (1 or B, K, P, Q)."""
        if view.ramps is not None:
            y, r = view.ramps
            P = view.backend.ifft2(view.backend.fft2(P) * y[:, None, :, None] * r[:, None, None, :])
        return P if view.x.log_scale is None else P * _scale(view, P)


def fractions(positions: Array, corners: IntArray, shape: tuple[int, int], xp: Any) -> Array:
    """What is left of positions (B, 2) over the middles of their windows: (B, 2)
    float64, pixels.
    """
    return positions - xp.asarray(
        np.asarray(corners) + np.array([n // 2 for n in shape]), "float64"
    )


def ramps(fraction: Array, shape: tuple[int, int], precision: str, xp: Any) -> tuple[Array, Array]:
    """exp(-2 pi i q f), (B, P) along y and (B, Q) along x, for fractions (B, 2) float64."""
    complex_type = KINDS["complex"][precision]
    waves = [
        xp.exp(-2j * np.pi * fraction[:, i, None] * frequencies(n, xp)[None])
        for i, n in enumerate(shape)
    ]
    return waves[0].astype(complex_type), waves[1].astype(complex_type)


def slopes(view: View, step: Array) -> Array:
    """2 pi i q.step, (B, 1, P, Q), for steps (B, 2): what a shift by -step multiplies a spectrum
    by, to first order.
    """
    xp, (p, q) = view.backend.xp, view.shape
    total = step[:, 0, None, None] * frequencies(p, xp)[:, None] + step[
        :, 1, None, None
    ] * frequencies(q, xp)
    return (2j * np.pi * total)[:, None].astype(KINDS["complex"][view.x.precision])


def position_pull(view: View, spectrum: Array, change: Array) -> Array:
    """Re <2 pi i q spectrum, change>, (B, 2) float64, for spectra (B, K, P, Q): the adjoint of
    `slopes` times a spectrum.
    """
    xp, (p, q) = view.backend.xp, view.shape
    rate = 2 * np.pi * (spectrum.conj() * change).imag.sum(axis=1).astype("float64")
    return xp.stack(
        [rate.sum(axis=2) @ frequencies(p, xp), rate.sum(axis=1) @ frequencies(q, xp)], axis=1
    )


def _scale(view: View, like: Array) -> Array:
    """exp(a_j) (B, 1, 1, 1)."""
    return _column(view.backend.xp.exp(view.x.log_scale[view.frames]), like)


def _column(numbers: Array, like: Array) -> Array:
    return numbers[:, None, None, None].astype(like.real.dtype, copy=False)


def _mixed(weights: Array, variations: Array) -> Array:
    """sum_l c_jl V_l, (B, P, Q)."""
    real = variations.real.dtype
    return (weights.astype(real, copy=False)[:, :, None, None] * variations[None]).sum(axis=1)


def _unchanged(a: Array) -> Array:
    return a
