"""How a reconstruction is made: stages of engines, one after the other.

    Recipe.parse("dm:60, rpie:100, ep:400")

A stage begins with the object, the probe and the positions that the one before has left. It ends
after its passes or by a rule (`until`), and may name stages that take its place if it fails
(`rescue`). A result stores the recipe it was made by (`Recipe.of`), so that it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..engines import make, split, updated
from ..engines.base import OPTION_OF
from ..engines.update import Update
from ..types import PtychonError
from .constraints import Constraint
from .refine import Refine
from .stage import Stage, parsed

if TYPE_CHECKING:
    from ..data.result import Result


@dataclass(frozen=True)
class Recipe:
    """Stages, one after the other.

    Parameters
    ----------
    stages : sequence of Stage

    Raises
    ------
    PtychonError
        If there is none that counts.
    """

    stages: tuple[Stage, ...]

    def __init__(self, *stages: Stage | Iterable[Stage]) -> None:
        flat: list[Stage] = []
        for stage in stages:
            flat.extend([stage] if isinstance(stage, Stage) else stage)
        object.__setattr__(self, "stages", tuple(flat))
        if not self.counted:
            raise PtychonError("a recipe needs a stage that counts; it has none but those aside")

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """From text such as "dm:60, rpie:100, ep:400": engines and their passes.

        Raises
        ------
        PtychonError
            If it is not that.
        """
        return cls(parsed(text))

    @classmethod
    def read(cls, values: Any) -> Recipe:
        """From text, from the stages that a settings file lists, or from what `stored` gives.

        Raises
        ------
        PtychonError
            If it is no recipe.
        """
        if isinstance(values, Recipe):
            return values
        if isinstance(values, Stage):
            return cls(values)
        if isinstance(values, str):
            return cls.parse(values)
        if not isinstance(values, Sequence) or not values:
            raise PtychonError(
                f"the recipe is {values!r}; write text such as 'dm:60, rpie:100', or a list of "
                "stages"
            )
        return cls(Stage.read(stage) for stage in values)

    @classmethod
    def of(cls, result: Result) -> Recipe:
        """The recipe by which a result was made.

        Raises
        ------
        PtychonError
            If it does not store one: it comes from another package, or from an older version.
        """
        stored = result.settings.get("recipe")
        if stored is not None:
            return cls.read(stored)
        if not result.engine or not result.passes:
            raise PtychonError("the result does not store how it was made; start from the scan")
        return cls(Stage(make(result.engine, **result.options), result.passes))

    def stored(self) -> list[dict[str, Any]]:
        """As plain values, from which `Recipe.read` makes it again."""
        return [stage.stored() for stage in self.stages]

    def __str__(self) -> str:
        return ", ".join(f"{stage.name}:{stage.passes}" for stage in self.stages)

    @property
    def counted(self) -> tuple[Stage, ...]:
        """The stages whose passes count: all but those that make the first guess."""
        return tuple(stage for stage in self.stages if not stage.aside)

    @property
    def passes(self) -> int:
        """Passes that count."""
        return sum(stage.passes for stage in self.counted)

    @property
    def main(self) -> Stage:
        """The stage after which a result is named: the last one, or the one that it finishes."""
        *before, last = self.counted
        if before and before[-1].made().finished_by == last.name:
            return before[-1]
        return last

    def updating(self, update: Update, refine: Any = None) -> Recipe:
        """The same, each stage moving those of the unknowns that its engine can. What none moves is
        refined between the passes of those that it may change between, as `refine` says.

        Raises
        ------
        PtychonError
            For an unknown that no stage can move.
        """
        if not update and not refine:
            return self
        stages, left = list(self.stages), dict(update)
        for kind in ("moves", "follows"):
            for i, stage in enumerate(stages):
                able_to: frozenset[str] = getattr(stage.made(), kind)
                names = {OPTION_OF.get(name, name) for name in able_to} | able_to
                own = {name: when for name, when in left.items() if name in names}
                stages[i] = replace(stage, update={**stage.update, **own})
            done = {n for stage in stages for n in stage.update}
            left = {name: when for name, when in left.items() if name not in done}
        for name in sorted(left):
            updated(self.main.made(), {name: update[name]})
        if refine:
            how = Refine.read(refine)
            stages = [replace(s, refine=how) if split(s.made(), s.update)[1] else s for s in stages]
        return Recipe(stages)

    def constrained(self, constraints: Sequence[Constraint]) -> Recipe:
        """The same with constraints on the stages whose engines take them.

        Raises
        ------
        PtychonError
            If none does.
        """
        if not constraints:
            return self
        takes = [not s.aside and "constraints" in s.made().copes for s in self.stages]
        if not any(takes):
            replace(self.main, constraints=tuple(constraints))
        return Recipe(
            replace(s, constraints=(*s.constraints, *constraints)) if able_to else s
            for s, able_to in zip(self.stages, takes, strict=True)
        )

    def without_guess(self) -> Recipe:
        """The same for an object and a probe that are no first guess."""
        return Recipe(self.counted)

    def scaled(self, passes: int) -> Recipe:
        """The same with so many passes in all, each stage with its share, at least one.

        Where there are fewer passes than stages, the last stages go.
        """
        total = self.passes
        if passes == total:
            return self
        left, stages, rest = passes, [], min(len(self.counted), passes)
        for stage in self.stages:
            if stage.aside:
                stages.append(stage)
            elif rest:
                rest -= 1  # stages after this one, of which each needs a pass
                share = min(left - rest, max(1, round(stage.passes * passes / total)))
                stages.append(replace(stage, passes=share if rest else left))
                left -= share
        return Recipe(stages)

    def reaching(self, passes: int, stage: int, done: int) -> Recipe:
        """The same with so many passes in all, for a run that was stopped in one of its stages.

        Parameters
        ----------
        passes : int
            More than were done.
        stage : int
            The stage, counted from 0. It makes or leaves out the difference; what it has done
            already is taken from the stages after it.
        done : int
            Passes that it has done.
        """
        before, here, after = self.stages[:stage], self.stages[stage], self.stages[stage + 1 :]
        left = passes - sum(s.passes for s in before if not s.aside)
        own = max(left - sum(s.passes for s in after if not s.aside), done, 1)
        if not after or left <= own:
            return Recipe(before, replace(here, passes=own))
        return Recipe(before, replace(here, passes=own), Recipe(after).scaled(left - own).stages)


__all__ = ["Recipe", "Stage"]
