"""Whole sweeps of Ptycho-EP in one compiled loop; the mathematics is that of `engines.ptycho_ep`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array
from ._numba import ONE, belief, combine, f4, jit, laplace_rows, message_update, misfits, propagate, rician_rows
from .reference import CAVITY_FLOOR, EXTRINSIC_GAIN, VARIANCE_FLOOR

_CAVITY, _GAIN, _LEAST = np.float32(CAVITY_FLOOR), np.float32(1 + EXTRINSIC_GAIN), np.float32(VARIANCE_FLOOR)


@jit
def ep_visit(
    j: int, seen_precision: Array, seen_natural: Array, precision: Array, natural: Array, messages: Array, g: Array,
    P: Array, y0: int, x0: int, amplitude: Array, mask: Array, offset: Any, v: Any, laplace: bool, damping: Any,
    transfer: Array, near: bool, measure: bool, psi: Array, wave: Array, sums: Array,
) -> None:  # fmt: skip
    """One factor update: beliefs are read from `seen_*`, changes go to `precision` and `natural`.

    sums (4,) float64 collects misfit, stabilised misfit, noise and skips.
    """
    variance = belief(seen_precision, seen_natural, y0, x0, P, psi[0])
    if measure:
        propagate(psi, wave, transfer, near, True)
        plain, stabilised = misfits(wave[0], amplitude, mask, offset)
        sums[0] += plain
        sums[1] += stabilised
    g_b, g_j = ONE / variance, g[j]
    g_c = max(g_b - g_j, _CAVITY * g_b)
    combine(g_b / g_c, psi[0], g_j / g_c, messages[j])
    propagate(psi, wave, transfer, near, True)
    if laplace:
        v_hat, noise = laplace_rows(wave[0], ONE / g_c, amplitude, offset, mask, v)
    else:
        v_hat, noise = rician_rows(wave[0], ONE / g_c, amplitude, offset, mask, v)
    sums[2] += noise
    g_hat = ONE / max(v_hat, _LEAST / g_c)
    if not g_hat > _GAIN * g_c:
        sums[3] += 1
        return
    propagate(wave, wave, transfer, near, False)
    g_n = g_hat - g_c
    keep = ONE - damping
    root = damping / np.sqrt(g_n) + keep / np.sqrt(g_j)
    g_new = ONE / (root * root)
    coefficients = (damping * g_hat / g_n, damping * g_c / g_n, keep, g_new, g_j)
    message_update(precision, natural, y0, x0, P, wave[0], psi[0], messages[j], coefficients)
    g[j] = g_new


@jit
def ep_sweep(
    precision: Array, natural: Array, messages: Array, g: Array, probes: Array, index: Array, corners: Array,
    amplitude: Array, mask: Array, order: Array, bounds: Array, together: bool, offset: Any, v: Any, laplace: bool,
    damping: Any, transfer: Array, near: bool, measure: bool,
) -> Array:  # fmt: skip
    """One pass. `order` (N,) is cut into batches at `bounds`; with `together` all frames of a batch see the same belief.

    Returns (4,) float64: misfit, stabilised misfit, noise, skips.
    """
    psi = np.empty((1, probes.shape[1], probes.shape[2]), np.complex64)
    wave = np.empty_like(psi)
    sums = np.zeros(4)
    seen_precision, seen_natural = precision, natural
    if together:
        seen_precision, seen_natural = precision.copy(), natural.copy()
    for batch in range(len(bounds) - 1):
        for i in range(bounds[batch], bounds[batch + 1]):
            j = order[i]
            ep_visit(
                j, seen_precision, seen_natural, precision, natural, messages, g, probes[index[j]], corners[j, 0],
                corners[j, 1], amplitude[j], mask[j % len(mask)], offset, v, laplace, damping, transfer, near, measure,
                psi, wave, sums,
            )  # fmt: skip
        if together and batch + 1 < len(bounds) - 1:
            seen_precision[:] = precision
            seen_natural[:] = natural
    return sums


def float32(x: Any) -> Any:
    """A scalar or 0-d array as a NumPy float32, which keeps compiled arithmetic in single precision."""
    return f4(x)
