"""Unwrapping: the smooth phase whose wrapped differences between neighbours are those measured.

Least squares with weights, (D^T W D) phi = D^T W wrap(D psi), by conjugate gradients preconditioned
with the same equation without weights, which a cosine transform solves (Ghiglia & Romero, J. Opt.
Soc. Am. A 11, 107 (1994)). The result is made congruent with the wrapped phase: every pixel differs
from it by a whole number of turns.
"""

from __future__ import annotations

import numpy as np
import scipy

from ..types import ComplexArray, FloatArray

#: Steps of conjugate gradients, and the relative residual at which they end.
STEPS, ENOUGH = 100, 1e-4


def unwrap(field: ComplexArray, weights: FloatArray) -> FloatArray:
    """The unwrapped phase of a field (H, W).

    Parameters
    ----------
    field : (H, W) complex
    weights : (H, W) float >= 0
        How much each pixel counts; 0 leaves it to its neighbours.

    Returns
    -------
    (H, W) float64
        Radians; its weighted median lies within half a turn of zero.
    """
    phase = np.angle(field)
    w = np.asarray(weights, float) / max(float(np.max(weights)), 1e-300)
    wy, wx = np.minimum(w[1:], w[:-1]) ** 2, np.minimum(w[:, 1:], w[:, :-1]) ** 2
    target = _divergence(wy * _wrap(np.diff(phase, axis=0)), wx * _wrap(np.diff(phase, axis=1)))
    solution = np.zeros_like(phase)
    rest = target.copy()
    z = _poisson(rest)
    direction, rho = z, float((rest * z).sum())
    for _ in range(STEPS):
        if rho <= 0:
            break
        image = _divergence(wy * np.diff(direction, axis=0), wx * np.diff(direction, axis=1))
        step = rho / max(float((direction * image).sum()), 1e-300)
        solution += step * direction
        rest -= step * image
        if np.linalg.norm(rest) <= ENOUGH * np.linalg.norm(target):
            break
        z = _poisson(rest)
        rho, before = float((rest * z).sum()), rho
        direction = z + rho / before * direction
    inside = w > 0
    offset = float(np.angle(np.exp(1j * (phase - solution))[inside].sum())) if inside.any() else 0.0
    whole = phase + 2 * np.pi * np.rint((solution + offset - phase) / (2 * np.pi))
    middle = float(np.median(whole[inside])) if inside.any() else 0.0
    return np.asarray(whole - 2 * np.pi * np.rint(middle / (2 * np.pi)))


def level(phase: FloatArray, weights: FloatArray) -> FloatArray:
    """A phase (H, W) without the plane that deviates least from it in absolute value, where weights
    are positive.
    """
    inside = weights > 0
    rows, columns = np.nonzero(inside)
    if len(rows) < 4:
        return phase
    origin = rows.mean(), columns.mean()
    plane = np.stack([rows - origin[0], columns - origin[1], np.ones(len(rows))], axis=1)
    values, weight = phase[inside], weights[inside].astype(float)
    found = np.zeros(3)
    for _ in range(20):
        by = plane * weight[:, None]
        found = np.linalg.lstsq(by.T @ plane, by.T @ values, rcond=None)[0]
        weight = weights[inside] / (np.abs(values - plane @ found) + 0.02)
    y, x = np.indices(phase.shape)
    return np.asarray(phase - found[0] * (y - origin[0]) - found[1] * (x - origin[1]) - found[2])


def _wrap(phase: FloatArray) -> FloatArray:
    return np.asarray(np.pi - (np.pi - phase) % (2 * np.pi))


def _divergence(dy: FloatArray, dx: FloatArray) -> FloatArray:
    """D^T of differences along y (H-1, W) and x (H, W-1)."""
    out = np.zeros((dx.shape[0], dy.shape[1]))
    out[1:] += dy
    out[:-1] -= dy
    out[:, 1:] += dx
    out[:, :-1] -= dx
    return out


def _poisson(right: FloatArray) -> FloatArray:
    """The solution of D^T D phi = right, of mean zero."""
    h, w = right.shape
    spectrum = scipy.fft.dctn(right, norm="ortho")
    y, x = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in (h, w))
    scale = y[:, None] + x
    scale[0, 0] = 1
    spectrum = spectrum / scale
    spectrum[0, 0] = 0
    return np.asarray(scipy.fft.idctn(spectrum, norm="ortho"))
