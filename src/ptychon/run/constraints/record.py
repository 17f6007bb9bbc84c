"""What a constraint is, when it holds, and how much light falls where."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...engines import After, Context, State
from ...engines.base import blocks
from ...model.problem import Problem
from ...model.specimen import light_up
from ...types import Array, PtychonError

#: Where light is less than so much of its largest, an object says nothing.
LIT = 0.1


@dataclass(frozen=True)
class Constraint:
    """What object and probe are made to fulfil after a pass: a frozen record.

    Objects are (H, W), or (S, H, W) where they have slices; probes (K, P, Q).

    Parameters
    ----------
    when : After
        After which passes; default after each.

    Attributes
    ----------
    holds_scale : bool
        Whether it says something of the scale between object and probe. A result is then left as it
        is, and not rescaled to the power that its probe began with.
    """

    when: After = field(default=After(), kw_only=True)
    holds_scale: ClassVar[bool] = False

    def check(self, problem: Problem) -> None:
        """Refuse a scan for which it makes no sense.

        Raises
        ------
        PtychonError
        """

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        """Replace `state.object` or `state.probe` by arrays that fulfil it.

        Parameters
        ----------
        state : State
            On the device.
        problem : Problem
            The scan as the stage began with it, on the host.
        ctx : Context
        """
        raise TypeError(f"{type(self).__name__} does nothing")


def illuminate(state: Any, change: Callable[[Array], Array]) -> None:
    """Change all modes of the probe alike, and its variations, where it has some."""
    state.probe = change(state.probe)
    if getattr(state, "variations", None) is not None:
        state.variations = change(state.variations)


def first_slice(state: State, change: Callable[[Array], Array]) -> None:
    """Change the object where the probe meets it: all of it, or the first of its slices."""
    if state.object.ndim == 2:
        state.object = change(state.object)
        return
    slices = state.object.copy()
    slices[0] = change(slices[0])
    state.object = slices


def light_on(state: State, problem: Problem, ctx: Context) -> Array:
    """Sum over all frames of |P|^2, (H, W) float32 on the device."""
    k, xp = ctx.backend.kernels, ctx.backend.xp
    power = k.abs2(state.probe).sum(axis=0)
    light = xp.zeros(state.object.shape[-2:], "float32")
    for block in blocks(len(problem)):
        corners = problem.corners[block]
        light_up(light, xp.repeat(power[None], len(corners), axis=0), corners, k)
    return light


def check_number(name: str, value: Any, low: float, high: float, open_low: bool = False) -> None:
    """Refuse a number outside [low, high], or (low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or math.isnan(value) or not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise PtychonError(f"{name} is {value}; it must lie in {bracket}{low:g}, {high:g}]")


def check_one(given: dict[str, float | None]) -> None:
    """Refuse none, or more than one, of several ways to say the same."""
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        raise PtychonError(
            f"{' and '.join(said) or 'nothing'} is given; give one of {', '.join(given)}"
        )
