r"""Constraints on the object: its amplitude, its phase, how smooth it is.

Total variation is the proximal step of J. Math. Imaging Vis. 20, 89 (2004) (Chambolle),

    O <- argmin_u  1/2 sum |u - O|^2 + weight sum_r sqrt(|d_y u|^2 + |d_x u|^2),    u = O - weight
    div p,
    p <- (p + tau g)/(1 + tau |g|),  g = grad(div p - O/weight),    tau = 1/8

of complex u: edges stay where they are and plains become flat. A linear phase is no plain; `ramp`
takes it out before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...engines import Context, State
from ...metrics.unwrap import unwrap
from ...model.problem import Problem
from ...model.roughness import divergence, gradient
from ...types import Array, ComplexArray, FloatArray
from .record import LIT, Constraint, check_number, light_on

#: Step of the dual variable: converges for this and less.
TAU = 0.125


@dataclass(frozen=True)
class AmplitudeRange(Constraint):
    """O <- O (1 - relax + relax clip(|O|, lo, hi)/|O|): amplitudes in a range; phases stay.

    The scale of O is that of its probe: with the probe's power as it begins, the mean counts of a
    frame, the mean of |O|^2 over the light is 1. Say `power` too, where the specimen absorbs.

    Parameters
    ----------
    lo, hi : float
        0.96 and 1.04 hold a thin specimen in electrons near to a phase object; a `hi` of 1.1 keeps
        out what no specimen does to X-rays.
    relax : float in (0, 1]
        Less than 1 goes a part of the way in each pass.
    """

    lo: float = 0.0
    hi: float = math.inf
    relax: float = 1.0
    holds_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("lo", self.lo, 0, math.inf)
        check_number("hi", self.hi, self.lo, math.inf)
        check_number("relax", self.relax, 0, 1, open_low=True)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        xp = ctx.backend.xp
        size = abs(state.object)
        factor = xp.clip(size, self.lo, self.hi) / xp.maximum(size, 1e-20)
        state.object = state.object * (1 - self.relax + self.relax * factor).astype("float32")


@dataclass(frozen=True)
class Transmission(Constraint):
    """No object pixel transmits more than this amplitude; its phase stays.

    Parameters
    ----------
    high : float
    """

    high: float = 1.0
    holds_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("high", self.high, 0, math.inf, open_low=True)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        AmplitudeRange(0.0, self.high).apply(state, problem, ctx)


@dataclass(frozen=True)
class PhaseRange(Constraint):
    """The phase of the lit object, unwrapped and without its plane, is clipped; amplitudes stay.

    The plane has the median slope between pixels half of the lit part apart (Theil, Proc. K. Ned.
    Akad. Wet. A 53, 386 (1950)), which clipping does not change; afterwards it is put back.

    Parameters
    ----------
    lo, hi : float
        Radians; `lo` <= 0 <= `hi`.
    zero : float in [0, 1]
        Which share of the lit pixels lies below zero phase: half of them, or 0.05, say, where the
        specimen stands in vacuum and `lo` is 0 ("positivity").
    """

    lo: float = -math.pi
    hi: float = math.pi
    zero: float = 0.5

    def __post_init__(self) -> None:
        check_number("lo", self.lo, -math.inf, 0)
        check_number("hi", self.hi, 0, math.inf)
        check_number("zero", self.zero, 0, 1)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        light = np.asarray(ctx.backend.to_host(light_on(state, problem, ctx)), float)
        light = light * (light > LIT * light.max())
        field = np.asarray(ctx.backend.to_host(state.object)).copy()
        for one in field.reshape(-1, *field.shape[-2:]):
            phase = flat_phase(one, light, self.zero)
            off = np.clip(phase, self.lo, self.hi) - phase
            one *= np.exp(1j * np.where(light > 0, off, 0)).astype(np.complex64)
        state.object = ctx.backend.asarray(field)


def flat_phase(field: ComplexArray, weights: FloatArray, zero: float) -> FloatArray:
    """The unwrapped phase (H, W) without its median slopes, `zero` of it below 0 where lit."""
    lit = weights > 0
    phase = unwrap(field, weights)
    for axis in (0, 1):
        there = np.flatnonzero(lit.any(axis=1 - axis))
        far = max((there[-1] - there[0] + 1) // 2, 1)
        n = phase.shape[axis]
        near, away = np.arange(n - far), np.arange(far, n)
        both = lit.take(near, axis) & lit.take(away, axis)
        slope = _quantile((phase.take(away, axis) - phase.take(near, axis))[both], 0.5) / far
        phase = phase - slope * np.indices(phase.shape)[axis]
    return np.asarray(phase - _quantile(phase[lit], zero))


def _quantile(values: FloatArray, share: float) -> float:
    """One of the values, which clipping about it leaves as it is; 0 of none."""
    if not len(values):
        return 0.0
    at = min(int(share * len(values)), len(values) - 1)
    return float(np.partition(values, at)[at])


@dataclass(frozen=True)
class Smooth(Constraint):
    """The object loses spatial frequencies by exp(-2 pi^2 sigma^2 q^2): a Gaussian blur.

    Parameters
    ----------
    sigma : float
        Pixels, of the Gaussian.
    """

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0, 1e3, open_low=True)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        h, w = state.object.shape[-2:]
        q2 = np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None] ** 2
        filter = ctx.backend.asarray(np.exp(-2 * np.pi**2 * self.sigma**2 * q2).astype(np.float32))
        blurred: Array = ctx.backend.ifft2(ctx.backend.fft2(state.object) * filter)
        state.object = blurred.astype("complex64")


@dataclass(frozen=True)
class TotalVariation(Constraint):
    """A step towards an object of less total variation: noise goes, edges stay.

    Parameters
    ----------
    weight : float
        In units of |O|: 1e-3 to 1e-2 with an object of about 1, applied after each pass.
    steps : int
        Of the dual variable.
    """

    weight: float
    steps: int = 10

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0, 1e3, open_low=True)
        check_number("steps", self.steps, 1, 10000)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        state.object = less_varied(state.object, self.weight, self.steps, ctx.backend.xp)


def less_varied(O: Array, weight: float, steps: int, xp: Any) -> Array:
    """The proximal step of the total variation of fields (..., H, W) complex64."""
    along = [xp.zeros_like(O), xp.zeros_like(O)]
    target = O / xp.float32(weight)
    for _ in range(steps):
        dy, dx = gradient(divergence(along[0], along[1]) - target)
        size = 1 + TAU * xp.sqrt(abs(dy) ** 2 + abs(dx) ** 2)
        along = [(p + TAU * d) / size for p, d in zip(along, (dy, dx), strict=True)]
    return (O - xp.float32(weight) * divergence(along[0], along[1])).astype("complex64")


__all__ = ["AmplitudeRange", "PhaseRange", "Smooth", "TotalVariation", "Transmission"]
