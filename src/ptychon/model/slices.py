r"""Where the slices of a thick specimen lie, and the free space between them.

    G_s(q) = exp(2 pi i d_s (sqrt(1/lambda^2 - q^2) - 1/lambda)) exp(2 pi i d_s q.tan(tilt))

d_s is the gap below slice s. The second factor moves the wave by -d_s tan(tilt) against the next
slice: what stands straight in the specimen, a column of atoms say, is then straight from slice to
slice though the beam goes through it at an angle.

References: Maiden, Humphry & Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012); Kirkland, Advanced
Computing in Electron Microscopy (2010), section 6.6 (tilt).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ..data.slices import Slices
from ..kernels.reference import namespace
from ..types import Array, ComplexArray
from .propagators import angular_spectrum

__all__ = ["Slices", "layers", "neighbours", "reach", "share", "transfer", "uneven"]


@cache
def transfer(slices: Slices, shape: tuple[int, int]) -> ComplexArray:
    """G_s of each gap, (S-1, P, Q) complex64, zero frequency at [0, 0]."""
    q = [np.fft.fftfreq(n, d) for n, d in zip(shape, slices.pixel_size, strict=True)]
    # cycles for each metre of a gap
    along = q[0][:, None] * math.tan(slices.tilt[0]) + q[1] * math.tan(slices.tilt[1])
    made: dict[float, ComplexArray] = {}
    for d in slices.gaps:
        if d not in made:
            free = angular_spectrum(shape, slices.pixel_size, slices.wavelength, d)
            made[d] = free * np.exp(2j * np.pi * d * along).astype(np.complex64)
    found = np.stack([made[d] for d in slices.gaps])
    found.flags.writeable = False
    return found


def reach(slices: Slices, shape: tuple[int, int]) -> float:
    """The longest gap in units of that at which light of the highest frequency of the window
    crosses half of it; beyond 1 what leaves the window on one side comes in on the other.
    """
    least = min(n * d * d for n, d in zip(shape, slices.pixel_size, strict=True))
    return max(slices.gaps) * slices.wavelength / least


def layers(object: Array) -> Array:
    """An object with its axis of slices, (S, H, W)."""
    return object if object.ndim == 3 else object[None]


def share(factor: Any, object: Array) -> Any:
    """What each slice of an object is multiplied by for the object to transmit `factor` times as
    much.
    """
    if object.ndim == 2:
        return factor
    each = factor ** (1 / len(object))
    return each.astype(factor.dtype) if hasattr(factor, "dtype") else each


def uneven(object: Array) -> Array:
    """Of each slice (S, H, W), by how much it differs from its neighbours, summed over them: the
    gradient of 1/2 sum_s |O_s+1 - O_s|^2.
    """
    xp = namespace(object)
    steps = object[1:] - object[:-1]
    found = xp.zeros_like(object)
    found[1:] += steps
    found[:-1] -= steps
    return found


def neighbours(count: int, xp: Any) -> Array:
    """How many each slice has, (S, 1, 1): the diagonal of `uneven`."""
    found = xp.full((count, 1, 1), 2.0, "float32")
    found[0] -= 1
    found[-1] -= 1
    return found
