r"""Constraints on what object and probe may share in several ways: strength, place and slope.

    (O, P) -> (c O, P/c),    (O(r + s), P(u + s)) in the far field,    (e^{-i g.r} O, e^{i g.u} P)

change no frame; noise and the first guess decide between them, and weak forces let them drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...engines import Context, State
from ...model.problem import Problem
from ...model.slices import share
from ...types import Array, PtychonError
from ..guess import wave_power
from .record import Constraint, check_number, first_slice, illuminate, light_on


@dataclass(frozen=True)
class Power(Constraint):
    """The probe keeps this power, sum |P|^2 over all modes; the object changes by the inverse.

    Parameters
    ----------
    counts : float, optional
        Counts of a frame without object; default the mean counts of the frames.
    """

    counts: float | None = None
    holds_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.counts is not None:
            check_number("counts", self.counts, 0, float("inf"), open_low=True)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        xp = ctx.backend.xp
        counts = wave_power(problem) if self.counts is None else self.counts
        power = (abs(state.probe) ** 2).sum(dtype="float64")
        factor = xp.sqrt(counts / power).astype("float32")
        illuminate(state, lambda P: P * factor)
        state.object = state.object / share(factor, state.object)


@dataclass(frozen=True)
class Centre(Constraint):
    """The middle of the probe's light goes to the middle of its window, by whole pixels, and the
    object with it. Far field only: in the near field the data tell where they are.

    The middle is that of a light which goes round the edges of the window: the phase of the first
    Fourier coefficients of sum_k |P_k|^2. Moves by fractions of a pixel would change frames, since
    a product of two sampled waves is not the sampled product.
    """

    def check(self, problem: Problem) -> None:
        if problem.near_field:
            raise PtychonError(
                "centre is for the far field: in the near field the image tells where object and "
                "probe are, and moving them changes every frame; leave it out, and bound the probe "
                "with support:radius=PIXELS"
            )

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        self.check(problem)
        xp = ctx.backend.xp
        power = (abs(state.probe) ** 2).sum(axis=0, dtype="float64")
        move = tuple(-round(off_centre(ctx.backend.to_host(power), axis)) for axis in (0, 1))
        if any(move):
            illuminate(state, lambda P: xp.roll(P, move, axis=(-2, -1)))
            state.object = xp.roll(state.object, move, axis=(-2, -1))


def off_centre(power: Any, axis: int) -> float:
    """How far the middle of the light lies from that of its window, pixels."""
    n = power.shape[axis]
    along = np.exp(2j * np.pi * (np.arange(n) - n // 2) / n)
    return float(np.angle((power.sum(axis=1 - axis) * along).sum()) * n / (2 * np.pi))


@dataclass(frozen=True)
class Ramp(Constraint):
    """The object, or its first slice, has no linear phase; the probe takes it.

    Its slope is the phase of the sum over the lit object of O(r + 1 pixel) O*(r).
    """

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        xp, light = ctx.backend.xp, light_on(state, problem, ctx)
        first = state.object if state.object.ndim == 2 else state.object[0]
        slopes = [slope(first, light, axis, xp) for axis in (0, 1)]
        tilted = linear_phase([-s for s in slopes], first.shape, (0, 0), xp)
        first_slice(state, lambda O: O * tilted)
        p, q = state.probe.shape[-2:]
        onto = linear_phase(slopes, (p, q), (p // 2, q // 2), xp)
        illuminate(state, lambda P: P * onto)


def slope(field: Array, light: Array, axis: int, xp: Any) -> Array:
    """Mean phase from one pixel of a field (H, W) to the next along an axis, 0-d float64."""
    ahead = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
    behind = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
    weight = xp.minimum(light[ahead], light[behind])
    return xp.angle((weight * field[ahead] * field[behind].conj()).sum(dtype="complex128"))


def linear_phase(slopes: Any, shape: tuple[int, int], middle: tuple[int, int], xp: Any) -> Array:
    """exp(i g.(r - middle)) on a grid, complex64."""
    y, x = (
        xp.exp(1j * slopes[i] * (xp.arange(shape[i], dtype="float64") - middle[i])) for i in (0, 1)
    )
    return (y[:, None] * x).astype("complex64")


__all__ = ["Centre", "Power", "Ramp"]
