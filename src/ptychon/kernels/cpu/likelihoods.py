"""Numba version of the kernel `site_moments`: in double precision, a pixel at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...types import Array
from ..likelihoods import CAVITY_SHARE
from .pixel import counts, normal, rician, shifted
from .rows import jit

__all__ = ["site_moments"]

_KINDS = {"rician": 0, "normal": 1, "counts": 2, "shifted": 3}


@jit
def _site_moments(
    wave: Array,
    natural: Array,
    index: Array,
    table: Array,
    data: Array,
    v: Array,
    kind: int,
    background: Array,
    ratio: Array,
    sums: Array,
    frames: Array,
) -> None:
    K, last, many = wave.shape[1], table.shape[1] - 1, background.shape[0] > 1
    for b in range(wave.shape[0]):
        for r in range(wave.shape[2]):
            for c in range(wave.shape[3]):
                i = index[b, r, c]
                if i == last:
                    ratio[b, r, c] = 1
                    sums[0, i] += 1
                    continue
                V, g = np.float64(table[0, i]), np.float64(table[1, i])
                g_c = max(1 / V - g, CAVITY_SHARE / V)
                power = 0.0
                for k in range(K):
                    x = np.float64(wave[b, k, r, c].real) / V - natural[b, k, r, c].real
                    y = np.float64(wave[b, k, r, c].imag) / V - natural[b, k, r, c].imag
                    power += x * x + y * y
                r0, v0, a = math.sqrt(power) / g_c, 1 / g_c, np.float64(data[b, r, c])
                if kind == 3:
                    rho, along, across, noise = shifted(
                        r0, a, v0, np.float64(background[b if many else 0, r, c]), K
                    )
                elif kind == 2:
                    rho, along, across, noise = counts(r0, np.rint(a * a), v0, K)
                elif kind == 1:
                    rho, along, across, noise = normal(r0, a, v0, v[b], K)
                else:
                    rho, along, across, noise = rician(r0, a, v0, v[b], K)
                ratio[b, r, c] = rho / max(r0, 1e-30)
                sums[0, i] += 1
                sums[1, i] += along
                sums[2, i] += across
                sums[3, i] += noise
                frames[b] += noise


def site_moments(
    wave: Array,
    natural: Array,
    index: Array,
    table: Array,
    data: Array,
    v: Any,
    kind: str,
    background: Array | None = None,
) -> tuple[Array, Array, Array]:
    ratio, sums, frames = (
        np.empty(index.shape, np.float32),
        np.zeros((4, table.shape[1])),
        np.zeros(len(index)),
    )
    each = np.full(len(index), v, np.float64)
    B = np.zeros((1, 1, 1), np.float32) if background is None else background
    _site_moments(wave, natural, index, table, data, each, _KINDS[kind], B, ratio, sums, frames)
    return ratio, sums, frames
