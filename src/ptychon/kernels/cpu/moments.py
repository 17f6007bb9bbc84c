"""Output functions of expectation propagation as row loops, in place on one detector wave."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from ..reference import BESSEL_A, BESSEL_B, BESSEL_C, BESSEL_D, KAPPA_MAX
from .linked import FLOATS, KEPT_FRAME, KEPT_MASK, WAVE, linked, mixed
from .rows import ONE, OPTIONS, TWO, ZERO, f4, inner

A0, A1, A2, A3 = (np.float32(c) for c in BESSEL_A)
B0, B1, B2, B3, B4 = (np.float32(c) for c in BESSEL_B)
C0, C1, C2, C3 = (np.float32(c) for c in BESSEL_C)
D0, D1, D2, D3, D4 = (np.float32(c) for c in BESSEL_D)
KMAX = np.float32(KAPPA_MAX)


@inner
def bessel(kappa: Any) -> tuple[Any, Any]:
    """I1/I0 and 1 - (I1/I0)^2; what lies beyond KMAX goes into the denominators, because divisions
    are what costs.
    """
    k, over = min(kappa, KMAX), max(kappa * (ONE / KMAX), ONE)
    ratio = (A0 + k * (A1 + k * (A2 + k * A3))) / (
        (B0 + k * (B1 + k * (B2 + k * (B3 + k * B4)))) * over
    )
    return ratio, (C0 + k * (C1 + k * (C2 + k * C3))) / (
        (D0 + k * (D1 + k * (D2 + k * (D3 + k * D4)))) * over
    )


@linked(
    mixed((types.float32, types.float64))(
        *(WAVE, types.float32, KEPT_FRAME, types.float32, KEPT_MASK, types.float32),
        *(types.boolean, FLOATS),
    ),
    **OPTIONS,
)
def rician_rows(
    wave: Array,
    v0: Any,
    amplitude: Array,
    offset: Any,
    mask: Array,
    v: Any,
    learn: bool,
    root: Array,
) -> tuple[Any, float]:
    """`reference.rician` on one frame, in place, for y = sqrt(amplitude^2 + offset): mean variance,
    sum of noise if `learn`.

    `root` (Q,) is room for y |z|, which takes one square root.
    """
    inverse = ONE / (v0 + TWO * v)
    base, share, twice = TWO * v0 * v * inverse, TWO * v * inverse, TWO * inverse
    gain, square, part = twice * v0 * inverse, v0 * inverse * v0 * inverse, share * share
    variance, noise = 0.0, 0.0
    for r in range(amplitude.shape[0]):
        w, a, valid, row, row2 = wave[r], amplitude[r], mask[r], ZERO, ZERO
        if offset > 0:
            for c in range(a.shape[0]):
                root[c] = np.sqrt(
                    (a[c] * a[c] + offset) * (w[c].real * w[c].real + w[c].imag * w[c].imag)
                )
        else:
            for c in range(a.shape[0]):
                root[c] = a[c] * np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
        if learn:
            for c in range(a.shape[0]):
                y2, ok = a[c] * a[c] + offset, f4(valid[c])
                ratio, rest = bessel(twice * root[c])
                d = np.sqrt(y2) - np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag)
                one_minus_r = rest / (ONE + min(ratio * (twice * root[c]), ONE))
                row += ok * (square * y2 * rest + base) + (ONE - ok) * v0
                row2 += ok * (part * (d * d + TWO * root[c] * one_minus_r) + base)
                w[c] = w[c] * (ok * (gain * y2 * ratio + share) + (ONE - ok))
        else:
            for c in range(a.shape[0]):
                y2, ok = a[c] * a[c] + offset, f4(valid[c])
                ratio, rest = bessel(twice * root[c])
                row += ok * (square * y2 * rest + base) + (ONE - ok) * v0
                w[c] = w[c] * (ok * (gain * y2 * ratio + share) + (ONE - ok))
        variance += row
        noise += row2
    return f4(variance / amplitude.size), 0.5 * noise


@linked(
    mixed((types.float32, types.float64))(
        WAVE, types.float32, KEPT_FRAME, types.float32, KEPT_MASK, types.float32
    ),
    **OPTIONS,
)
def laplace_rows(
    wave: Array, v0: Any, amplitude: Array, offset: Any, mask: Array, v: Any
) -> tuple[Any, float]:
    """`reference.laplace` on one frame, in place."""
    inverse = ONE / (v0 + TWO * v)
    base, least = v0 * v * inverse, f4(1e-6) * np.sqrt(v0)
    variance, noise = 0.0, 0.0
    for r in range(amplitude.shape[0]):
        w, a, valid, row, row2 = wave[r], amplitude[r], mask[r], ZERO, ZERO
        for c in range(a.shape[0]):
            y = np.sqrt(a[c] * a[c] + offset)
            r0 = max(np.sqrt(w[c].real * w[c].real + w[c].imag * w[c].imag), least)
            rho = (v0 * y + TWO * v * r0) * inverse
            ok = f4(valid[c])
            row += ok * (base + v0 * rho / (TWO * r0)) + (ONE - ok) * v0
            d = y - rho
            row2 += ok * (d * d + base)
            w[c] = w[c] * (ok * (rho / r0) + (ONE - ok))
        variance += row
        noise += row2
    return f4(variance / amplitude.size), noise
