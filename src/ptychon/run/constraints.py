"""What object and probe are made to fulfil after each pass.

Only engines whose next pass begins with nothing but object and probe take constraints (see
`Engine.copes`). A message-passing engine holds beliefs that a change of the mean would contradict,
and the difference map makes its object from its waves; their means of saying the same are priors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from ..engines import Context, State
from ..types import Array, PtychonError
from .modes import orthogonal


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
        state.probe, state.object = state.probe * factor, state.object / factor


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
        h, w = state.object.shape
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
}


def constraint_of(text: Any) -> Constraint:
    """A constraint from text such as "support:radius=20", "transmission" or "smooth:0.5".

    Raises
    ------
    PtychonError
        If it is none.
    """
    if not isinstance(text, str):
        if hasattr(text, "apply"):
            found: Constraint = text
            return found
        raise PtychonError(f"a constraint is {text!r}; write support:radius=20, say")
    name, _, rest = text.partition(":")
    kind = CONSTRAINTS.get(name.strip())
    if kind is None:
        raise PtychonError(f"there is no constraint {name!r}; there are {', '.join(CONSTRAINTS)}")
    known = [f.name for f in fields(kind)]
    match = re.fullmatch(r"\s*(?:(\w+)\s*=\s*)?([0-9.eE+-]+)\s*", rest) if rest.strip() else None
    try:
        if rest.strip() and (match is None or (match[1] or known[0]) not in known):
            raise ValueError
        number = {} if match is None else {match[1] or known[0]: float(match[2])}
        if any(not value > 0 for value in number.values()):
            raise ValueError
        made: Constraint = kind(**number)
        return made
    except (TypeError, ValueError, IndexError):
        like = f"{name}:{known[0]}=NUMBER" if known else name
        raise PtychonError(f"the constraint {text!r} cannot be read; write {like}") from None


def constraint_text(constraint: Constraint) -> str:
    """What `constraint_of` reads.

    Raises
    ------
    PtychonError
        For a constraint that is not one of ours: it cannot be stored.
    """
    name = next((n for n, kind in CONSTRAINTS.items() if type(constraint) is kind), None)
    if name is None:
        raise PtychonError(
            f"{type(constraint).__name__} cannot be stored in a recipe; it can be a callback"
        )
    own = [f.name for f in fields(constraint)]  # type: ignore[arg-type]
    return name + (f":{own[0]}={getattr(constraint, own[0]):g}" if own else "")


__all__ = [
    "Constraint",
    "OrthogonalModes",
    "Power",
    "Smooth",
    "Support",
    "Transmission",
    "constraint_of",
    "constraint_text",
]
