"""Where in a thick specimen its structure lies.

What is determined of slices one by one is not where all of them are: a probe that is focused a
little further down, with all slices a little further up, gives the same frames. The middle of the
structure tells where a run has put them.
"""

from __future__ import annotations

import numpy as np

from ..types import BoolArray, ComplexArray, FloatArray
from .registration import bounding_box, phase_ramp


def levelled(layer: ComplexArray, lit: BoolArray) -> ComplexArray:
    """A slice (H, W) without the ramp of its phase and over its mean, both where it is lit: what no
    frame, or hardly any, tells of a single slice.
    """
    field = np.where(np.isfinite(layer), layer, 0).astype(np.complex128)
    box = bounding_box(lit)
    ramp = phase_ramp(np.where(lit, field, 0)[box])
    y, x = (np.exp(-1j * k * np.arange(n)) for k, n in zip(ramp, field.shape, strict=True))
    field = field * (y[:, None] * x)
    mean = complex(field[lit].mean())
    return np.asarray(field / mean if mean else field)


def strengths(object: ComplexArray, lit: BoolArray) -> FloatArray:
    """How much structure each slice has, (S,) float64: the root of the mean square of O/mean - 1
    where it is lit.

    Parameters
    ----------
    object : (S, H, W) complex
    lit : (H, W) bool
    """
    parts = [levelled(layer, lit)[lit] - 1 for layer in object]
    return np.array([float(np.sqrt(np.mean(np.abs(part) ** 2))) for part in parts])


def middle(strength: FloatArray, depths: FloatArray) -> float:
    """z of the middle of the structure, m: the mean of the depths, weighted by the squares."""
    weight = np.square(strength)
    return float((weight * depths).sum() / max(float(weight.sum()), 1e-300))
