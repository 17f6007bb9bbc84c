"""What a run says after each pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engines import Engine, State
from .refine import Found


@dataclass(frozen=True)
class Plan:
    """Where a recipe is, for a checkpoint.

    Attributes
    ----------
    recipe : list of dict
        The stages as they run, as `Recipe.stored` gives them; a stage that was rescued is replaced.
    stage : int
        The stage that is running, counted from 0.
    ran : list of [engine, passes, whether aside]
        The stages that are done.
    begun : mapping of str to array
        What they have refined, as `Found.stored` gives it.
    """

    recipe: list[dict[str, Any]]
    stage: int
    ran: list[list[Any]]
    begun: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What `iterate` yields after each pass.

    Attributes
    ----------
    passes : int
        Passes done, earlier runs included.
    planned : int or None
        Passes planned.
    error : float
        R of this pass; NaN where it was not measured.
    extra : dict of str to float
    state : State
        On the device; changes in the next pass.
    seconds : float
        Since the first pass began.
    engine : Engine
        The engine that made it; after a restart not the one that was asked for.
    plan : Plan or None
        Of a run by a recipe.
    found : Found or None
        What is refined between the passes.
    others : tuple of Progress
        Of the further scans, where several of them with probes of their own take turns.
    """

    passes: int
    planned: int | None
    error: float
    state: State
    seconds: float
    extra: dict[str, float] = field(default_factory=dict)
    engine: Engine | None = None
    plan: Plan | None = None
    found: Found | None = None
    others: tuple[Progress, ...] = ()


Callback = Callable[[Progress], "bool | None"]
#: How far a long computation is: what is being done, how much of it is done, and of how much.
Tell = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A `Tell` that nobody hears."""


def described(ran: Sequence[Sequence[Any]]) -> str:
    """For people: "27 of dm, then 13 of rpie"; empty where one engine made all."""
    counted = [part for part in ran if len(part) < 3 or not part[2]]
    if len(counted) < 2:
        return ""
    return ", then ".join(f"{part[1]} of {part[0]}" for part in counted)
