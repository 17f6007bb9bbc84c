"""Momentum of whole passes: changes that go on from pass to pass are made again.

With u the change of an array in this pass, u_1, u_2 ... those in the passes before, c_i =
Re<u, u_i>/(|u| |u_i|) and s the slope of log c_i over i (and 0 at i = 0):

    v <- (1 - max(0, -s)/2) v + u,   array <- array + gain w v      all c_i > 0, misfit fell
    v <- v/2                                                        else

w, 1 or less, is a weight of each pixel. Slices of an object have one momentum: the correlations are
those of all of them together.

Reference: Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

from typing import Any

from ..kernels.reference import abs2
from ..types import Array

#: What keeps a logarithm and a quotient finite.
TINY = 1e-20


def velocity(
    update: Array, past: Array, v: Array, fell: Array, gain: float, xp: Any
) -> tuple[Array, Array]:
    """The velocity after a pass, and how much of it is added, 0-d.

    Parameters
    ----------
    update : array
        u.
    past : array
        u_1, u_2 ... along a first axis.
    v : array
        The velocity before.
    fell : 0-d bool
        Whether the misfit is less than that of the pass before.
    gain : float
    xp : module
        NumPy or CuPy.
    """
    axes = tuple(range(1, past.ndim))
    dot = (past.conj() * update).real.sum(axis=axes, dtype="float64")
    size = xp.sqrt(abs2(past).sum(axis=axes, dtype="float64") * abs2(update).sum(dtype="float64"))
    c = dot / xp.maximum(size, TINY)
    good = fell & (c > 0).all()
    lag = xp.arange(len(past) + 1) - len(past) / 2
    slope = (lag[1:] * xp.log(xp.maximum(c, TINY))).sum() / (lag**2).sum()
    friction = (xp.maximum(0, -slope) / 2).clip(0, 1)
    kept, real = xp.where(good, 1 - friction, 0.5), v.real.dtype
    new = kept.astype(real) * v + good.astype(real) * update
    return new, xp.where(good, gain, 0).astype(real)
