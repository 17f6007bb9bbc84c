"""What an operator has beside the data: priors in which pixels hold each other, and the stiffness
of directions that no data tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ..types import Array
from .unknowns import Unknowns


class FieldPrior(Protocol):
    """A Gaussian prior of a field, (1, H, W) or (K, P, Q), in which pixels hold each other."""

    @property
    def diagonal(self) -> Any:
        """Of its precision, for each real number: a number or an array that broadcasts."""

    def __call__(self, field: Array) -> Array:
        """Its precision times a change."""

    def noise(self, rng: np.random.Generator) -> Array:
        """A draw of N(0, precision)."""

    def inverse(self, field: Array, light: float) -> Array:
        """Near (precision + light)^-1 of a field."""


Together = Mapping[str, FieldPrior]


def bound(out: Unknowns, d: Unknowns, priors: Together) -> Unknowns:
    """out += precision of each prior times a change."""
    for name, prior in priors.items():
        field = getattr(out, name)
        field += prior(getattr(d, name))
    return out


def bound_noise(out: Unknowns, priors: Together, rng: np.random.Generator) -> Unknowns:
    """out += a draw of each prior."""
    for name, prior in priors.items():
        field = getattr(out, name)
        field += prior.noise(rng)
    return out


def bound_diagonal(out: Unknowns, priors: Together) -> Unknowns:
    """out += the diagonal of each prior."""
    for name, prior in priors.items():
        field = getattr(out, name)
        field += prior.diagonal
    return out


def pressed(prior: Unknowns | Callable[[Unknowns], Unknowns], d: Unknowns) -> Unknowns:
    """Precision of a prior times a change."""
    return d.times(prior) if isinstance(prior, Unknowns) else prior(d)


def held(out: Unknowns, d: Unknowns, gauge: Unknowns | None, stiffness: float) -> Unknowns:
    """out += stiffness sum_g g <g, d>, for directions that lie along a first axis of each field."""
    if gauge is None:
        return out
    parts = [(reals(g), name) for name, g in gauge.each()]
    found = stiffness * sum(g @ reals(getattr(d, name)[None])[0] for g, name in parts)
    for g, name in parts:
        field = getattr(out, name)
        field += (found.astype(g.dtype, copy=False) @ g).view(field.dtype).reshape(field.shape)
    return out


def gauge_noise(
    out: Unknowns, gauge: Unknowns | None, stiffness: float, rng: np.random.Generator
) -> Unknowns:
    """out + stiffness^1/2 sum_g g eps."""
    if gauge is None:
        return out
    for i in range(len(next(gauge.each())[1])):
        one = Unknowns(**{name: array[i] for name, array in gauge.each()})
        out = out.axpy(stiffness**0.5 * float(rng.standard_normal()), one)
    return out


def reals(rows: Array) -> Array:
    """Changes along a first axis (m, ...) as real rows (m, n), real and imaginary parts in turn."""
    flat = rows.reshape(len(rows), -1)
    if flat.dtype.kind != "c":
        return flat
    return flat.view("float32" if flat.dtype == "complex64" else "float64")


def held_diagonal(out: Unknowns, gauge: Unknowns | None, stiffness: float) -> Unknowns:
    """A diagonal with the share of a gauge."""
    if gauge is None:
        return out
    return out.axpy(stiffness / 2, gauge.map(lambda array: (abs(array) ** 2).sum(axis=0)))
