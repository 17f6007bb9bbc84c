"""One engine, how long it runs, what it updates, and what happens before and after its passes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engines import Engine, able, make, split, updated
from ..engines.update import After, Update
from ..types import PtychonError
from .constraints import CONSTRAINTS, Constraint, constraint_of
from .refine import Refine, Turns
from .schedule import Schedule
from .until import RULES, Until, rule_of
from .update import when_of
from .words import text_of

#: Where a stage may begin.
STARTS = ("last", "first", "again")


@dataclass(frozen=True)
class Stage:
    """Passes of one engine.

    Parameters
    ----------
    engine : str or Engine
        A name, or a ready engine.
    passes : int
        Passes, at most.
    options : mapping
        Of an engine that is given by its name.
    start : {"last", "first", "again"}
        Begin with what the stage before has left, or with the first guess of the recipe; "again" is
        the first object and probe with the positions, doses and background that were found since.
    update : mapping of str to bool or After
        What moves and when, such as {"probe": After(2), "positions": After(20, every=5)}; what is
        not named moves as the engine does by itself. What the engine does not move, but may change
        between its passes, is refined there.
    refine : Refine, mapping or str
        How; see `ptychon.run.refine`.
    constraints : sequence of Constraint
        What object and probe are made to fulfil after its passes, text such as "support:20" or
        records; see `ptychon.run.constraints`.
    until : sequence of rules
        End the stage before its passes are over; see `ptychon.run.until`.
    rescue : sequence of Stage, optional
        Take its place if it fails; an empty sequence goes on without it, None ends the run with the
        error.
    more : sequence of Stage
        Follow where no rule of `until` has ended the stage.
    schedule : Schedule or str, optional
        How a pass is cut into batches; default what the engine asks for.
    aside : bool
        Only make the first guess: passes that the result does not count and callbacks do not see.

    Raises
    ------
    PtychonError
        For an unknown engine or option, an unknown that the engine cannot move, or passes fewer
        than 1.
    """

    engine: str | Engine
    passes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    start: str = "last"
    update: Update = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    until: tuple[Until, ...] = ()
    rescue: tuple[Stage, ...] | None = None
    more: tuple[Stage, ...] = ()
    schedule: Schedule | str | None = None
    aside: bool = False
    refine: Refine | Mapping[str, Any] | str = field(default_factory=Refine)

    def __post_init__(self) -> None:
        object.__setattr__(self, "until", tuple(self.until))
        asked = tuple(map(constraint_of, _listed(self.constraints)))
        object.__setattr__(self, "constraints", asked)
        if self.rescue is not None:
            object.__setattr__(self, "rescue", tuple(self.rescue))
        object.__setattr__(self, "more", tuple(self.more))
        object.__setattr__(self, "refine", Refine.read(self.refine))
        if isinstance(self.passes, bool) or not isinstance(self.passes, int) or self.passes < 1:
            raise PtychonError(f"passes is {self.passes}; at least 1 pass is needed")
        if self.start not in STARTS:
            raise PtychonError(f"start is {self.start!r}; choose one of {', '.join(STARTS)}")
        if isinstance(self.engine, Engine) and self.options:
            raise PtychonError(
                f"options {', '.join(self.options)} were given beside a ready engine; set them on "
                "the engine"
            )
        made = self.made()
        if self.constraints and "constraints" not in made.copes:
            raise PtychonError(
                f"engine {made.name!r} takes no constraints after its passes: what it knows of the "
                f"object is more than an object; {made.instead or 'leave them out'}; these take "
                f"them: {able('constraints')}"
            )
        if not isinstance(self.schedule, Schedule) and self.schedule is not None:
            Schedule(kind=self.schedule)

    @property
    def name(self) -> str:
        """Of the engine."""
        return self.engine.name if isinstance(self.engine, Engine) else self.engine

    def made(self) -> Engine:
        """The engine with its options, moving what is to move."""
        engine = self.engine
        ready = engine if isinstance(engine, Engine) else make(engine, **self.options)
        return updated(ready, self.update)

    def turns(self, engine: Engine, seed: int) -> Turns | None:
        """What is refined between the passes of its engine as it is used.

        Raises
        ------
        PtychonError
            If it is said how, but not what.
        """
        how = Refine.read(self.refine)
        turns = Turns.of(split(engine, self.update)[1], how, self.passes, seed)
        if turns is None and how.stored():
            raise PtychonError(
                f"refine is {how.stored()}, but nothing is refined between the passes of engine "
                f"{self.name!r}; name it in update, such as positions"
            )
        return turns

    def scheduled(self, engine: Engine, seed: int) -> Schedule:
        """How its passes are cut into batches."""
        if isinstance(self.schedule, Schedule):
            return self.schedule
        return Schedule(kind=self.schedule or engine.schedule, shuffle=engine.shuffle, seed=seed)

    def stored(self) -> dict[str, Any]:
        """As plain values, from which `Stage.read` makes it again."""
        engine = self.engine
        found: dict[str, Any] = {
            "engine": self.name,
            "passes": self.passes,
            "options": asdict(engine) if isinstance(engine, Engine) else dict(self.options),
            "start": self.start,
            "update": {name: _when(when) for name, when in self.update.items()},
            "constraints": [text_of(c, CONSTRAINTS) for c in self.constraints],
            "until": [text_of(rule, RULES) for rule in self.until],
            "rescue": None if self.rescue is None else [stage.stored() for stage in self.rescue],
            "more": [stage.stored() for stage in self.more],
            "schedule": (
                asdict(self.schedule) if isinstance(self.schedule, Schedule) else self.schedule
            ),
            "aside": self.aside,
            "refine": Refine.read(self.refine).stored(),
        }
        # what is as usual goes without saying
        return {
            name: value
            for name, value in found.items()
            if name in ("engine", "passes")
            or value not in (None, {}, [], "last", False)
            or (name == "rescue" and value is not None)
        }

    @classmethod
    def read(cls, values: Mapping[str, Any] | str | Stage) -> Stage:
        """A stage from plain values, a stage of a settings file say, or from "rpie:100".

        Raises
        ------
        PtychonError
            For values that are no stage.
        """
        if isinstance(values, Stage):
            return values
        if isinstance(values, str):
            (stage,) = parsed(values)
            return stage
        if not isinstance(values, Mapping):
            raise PtychonError(f"a stage is {values!r}; write engine: rpie and passes: 100, say")
        known = cls.__dataclass_fields__
        for name in values:
            if name not in known:
                raise PtychonError(f"a stage has no {name!r}; it has {', '.join(known)}")
        if "engine" not in values or "passes" not in values:
            raise PtychonError("a stage needs an engine and its passes, such as rpie and 100")
        found = dict(values)
        schedule = found.get("schedule")
        if isinstance(schedule, Mapping):
            found["schedule"] = Schedule(**schedule)
        found["update"] = {n: when_of(n, w) for n, w in (found.get("update") or {}).items()}
        found["constraints"] = tuple(map(constraint_of, _listed(found.get("constraints"))))
        found["until"] = tuple(map(rule_of, _listed(found.get("until"))))
        rescue = found.get("rescue")
        if rescue is not None:
            rescue = parsed(rescue) if isinstance(rescue, str) else rescue
            found["rescue"] = tuple(map(cls.read, rescue))
        more = found.get("more") or ()
        found["more"] = tuple(map(cls.read, parsed(more) if isinstance(more, str) else more))
        return cls(**found)


def parsed(text: str) -> tuple[Stage, ...]:
    """Stages from text such as "dm:60, rpie:100, ep:400": engines and their passes.

    Raises
    ------
    PtychonError
        If it is not that.
    """
    stages = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*:\s*(\d+)\s*", part)
        if match is None:
            raise PtychonError(
                f"the recipe {text!r} has {part.strip()!r}; write engines and their passes, "
                "such as 'dm:60, rpie:100'"
            )
        stages.append(Stage(match[1], int(match[2])))
    return tuple(stages)


def _when(when: bool | After) -> bool | str:
    return when if isinstance(when, bool) else str(when)


def _listed(values: Any) -> Sequence[Any]:
    return () if values is None else values if isinstance(values, (list, tuple)) else [values]
