"""What each kernel means, in plain array code that runs on NumPy and CuPy arrays alike: the specification.

Shapes: object (H, W), probe (K, P, Q), patches (B, P, Q), waves (B, K, P, Q); corners are host integers (B, 2).
All arithmetic stays in complex64/float32 if that is what comes in (and in complex128/float64 likewise).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array

__all__ = [
    "abs2",
    "gather",
    "scatter_add",
    "shift",
]


def namespace(array: Array) -> Any:
    """The module (numpy or cupy) an array belongs to."""
    return array.__array_namespace__() if isinstance(array, np.ndarray) else _foreign_namespace(array)


def _foreign_namespace(array: Array) -> Any:
    import sys

    return sys.modules[type(array).__module__.split(".")[0]]


def abs2(x: Array) -> Array:
    """|x|^2, real."""
    return x.real**2 + x.imag**2


def gather(field: Array, corners: Array, shape: tuple[int, int]) -> Array:
    """Cut windows of (P, Q) = `shape` out of `field` (H, W): (B, P, Q)."""
    p, q = shape
    xp = namespace(field)
    return xp.stack([field[y : y + p, x : x + q] for y, x in corners.tolist()])


def scatter_add(field: Array, corners: Array, patches: Array) -> None:
    """Adjoint of `gather`, in place: field[window b] += patches[b] for every b."""
    p, q = patches.shape[-2:]
    for (y, x), patch in zip(corners.tolist(), patches, strict=True):
        field[y : y + p, x : x + q] += patch


def shift(probe: Array, shifts: Array, sign: int = 1) -> Array:
    """Move images by fractions of a pixel with the Fourier shift theorem; unitary, so sign = -1 is inverse and adjoint.

    Parameters
    ----------
    probe : (K, P, Q) complex, the same for every shift, or (B, K, P, Q)
    shifts : (B, 2) float on the host, pixels (y, x)

    Returns
    -------
    (B, K, P, Q) complex
        S_s P (r) = P(r - s); whole `probe` where all shifts are zero (a view, not to be written to).
    """
    xp = namespace(probe)
    shifts = np.asarray(shifts)
    if not shifts.any():
        return xp.broadcast_to(probe, (len(shifts), *probe.shape[-3:]))
    ramps = xp.asarray(shift_ramps(shifts, probe.shape[-2:], sign).astype(probe.dtype))
    return xp.fft.ifft2(xp.fft.fft2(probe) * ramps[:, None]).astype(probe.dtype, copy=False)


def shift_ramps(shifts: Any, shape: tuple[int, ...], sign: int = 1) -> Any:
    """exp(-2 pi i f.s), (B, P, Q) complex128 on the host, zero frequency at [0, 0]."""
    s = sign * np.asarray(shifts, float)
    y = np.exp(-2j * np.pi * np.outer(s[:, 0], np.fft.fftfreq(shape[0])))
    x = np.exp(-2j * np.pi * np.outer(s[:, 1], np.fft.fftfreq(shape[1])))
    return y[:, :, None] * x[:, None, :]
