"""What object and probe are made to fulfil after each pass.

Only engines whose next pass begins with nothing but object and probe take constraints (see
`Engine.copes`). A message-passing engine holds beliefs that a change of the mean would contradict,
and the difference map makes its object from its waves; their means of saying the same are priors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engines import Context, State
from ..model.slices import share
from ..types import Array
from .depth import Depth
from .modes import orthogonal
from .words import record_of


class Constraint(Protocol):
    """What a constraint is: a frozen record that changes object and probe of a state."""

    def apply(self, state: State, ctx: Context) -> None:
        """Replace `state.object` or `state.probe` by arrays that fulfil it."""


@dataclass(frozen=True)
class Support:
    """No probe outside a circle about the centre of its window.

    The power that is cut off is not given back.

    Parameters
    ----------
    radius : float
        Pixels.
    """

    radius: float

    def apply(self, state: State, ctx: Context) -> None:
        p, q = state.probe.shape[-2:]
        y, x = np.ogrid[:p, :q]
        inside = np.hypot(y - p // 2, x - q // 2) <= self.radius
        state.probe = state.probe * ctx.backend.asarray(inside.astype(np.float32))


@dataclass(frozen=True)
class Power:
    """The probe keeps this power, sum |P|^2 over all modes: mean counts of a frame without object.

    Parameters
    ----------
    counts : float
    """

    counts: float

    def apply(self, state: State, ctx: Context) -> None:
        xp = ctx.backend.xp
        power = (abs(state.probe) ** 2).sum(dtype="float64")
        factor = xp.sqrt(self.counts / power).astype("float32")
        state.probe = state.probe * factor
        state.object = state.object / share(factor, state.object)


@dataclass(frozen=True)
class Transmission:
    """No object pixel transmits more than this amplitude; its phase stays.

    Parameters
    ----------
    high : float
    """

    high: float = 1.0

    def apply(self, state: State, ctx: Context) -> None:
        xp = ctx.backend.xp
        size = abs(state.object)
        state.object = state.object * xp.minimum(1, self.high / xp.maximum(size, 1e-20))


@dataclass(frozen=True)
class Smooth:
    """The object loses spatial frequencies by exp(-2 pi^2 sigma^2 q^2): a Gaussian blur.

    Parameters
    ----------
    sigma : float
        Pixels, of the Gaussian.
    """

    sigma: float

    def apply(self, state: State, ctx: Context) -> None:
        h, w = state.object.shape[-2:]
        q2 = np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None] ** 2
        filter = ctx.backend.asarray(np.exp(-2 * np.pi**2 * self.sigma**2 * q2).astype(np.float32))
        blurred: Array = ctx.backend.ifft2(ctx.backend.fft2(state.object) * filter)
        state.object = blurred.astype("complex64")


@dataclass(frozen=True)
class OrthogonalModes:
    """The probe's modes are orthogonal, the strongest first; no intensity changes."""

    def apply(self, state: State, ctx: Context) -> None:
        state.probe = ctx.backend.asarray(orthogonal(ctx.backend.to_host(state.probe)))


CONSTRAINTS: dict[str, Any] = {
    "support": Support,
    "power": Power,
    "transmission": Transmission,
    "smooth": Smooth,
    "orthogonal_modes": OrthogonalModes,
    "depth": Depth,
}


def constraint_of(text: Any) -> Constraint:
    """A constraint from text such as "support:radius=20", "transmission" or "smooth:0.5".

    Raises
    ------
    PtychonError
        If it is none.
    """
    constraint: Constraint = record_of(text, CONSTRAINTS, "apply", "the constraint")
    return constraint


__all__ = [
    "CONSTRAINTS",
    "Constraint",
    "Depth",
    "OrthogonalModes",
    "Power",
    "Smooth",
    "Support",
    "Transmission",
    "constraint_of",
]
