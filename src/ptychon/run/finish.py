"""How a run of the difference map ends: with passes of rPIE.

The difference map finds its way from far, but its solution wanders about a fixed point that noise
and positions of finite accuracy leave nowhere to be found. Some passes of rPIE from there settle
it. Measured on 64 frames with 1e5 counts each: 40 passes of the difference map alone came within
23.1 dB of the truth, with the last 10 of rPIE 26.0 dB; 100 passes 23.3 and 26.3 dB. With 1e7
counts, where 40 passes had not found the object yet, a quarter of them cost 2 dB (half of them 4.5
dB), and a quarter of 100 gained 1 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.result import Result
from ..engines import Context, Engine, make, registry
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError
from .attempts import Passes, passes, restored
from .checkpoint import Checkpoint
from .progress import Callback
from .schedule import Schedule

#: Share of the passes that another engine ends, where one does.
SHARE = 1 / 4


def finishing_passes(engine: Engine, asked: int | None, epochs: int) -> int:
    """Passes of rPIE at the end of a run.

    Parameters
    ----------
    engine : Engine
    asked : int or None
        None is a quarter of the passes for the difference map, and none for other engines.
    epochs : int
        Of the whole run.

    Raises
    ------
    PtychonError
        For a number that is negative, leaves the engine no pass, or is asked of an engine that is
        not finished so.
    """
    if asked is None:
        return int(epochs * SHARE) if engine.finished_by else 0
    if asked and not engine.finished_by:
        ended = " and ".join(
            f"{cls.finished_by} ends {name}" for name, cls in registry.items() if cls.finished_by
        )
        raise PtychonError(
            f"finish is {asked}, but a run of {engine.name} does not end with another engine "
            f"({ended}): leave it out"
        )
    if not 0 <= asked < epochs:
        raise PtychonError(
            f"finish is {asked} of {epochs} passes; it must be 0 or more, and leave "
            f"{engine.name} at least one"
        )
    return asked


@dataclass(frozen=True)
class Plan:
    """Passes of one engine, and of another after it.

    Attributes
    ----------
    engine, schedule
        Of the first.
    epochs : int
        In all.
    finish : int
        Those of the second, from the end.
    second, second_schedule
    """

    engine: Engine
    schedule: Schedule
    epochs: int
    finish: int
    second: Engine
    second_schedule: Schedule

    def run(
        self,
        problem: Problem,
        object: ComplexArray,
        probe: ComplexArray,
        ctx: Context,
        callbacks: Sequence[Callback],
        tolerance: float | None,
        before: int,
        resume: Checkpoint | None = None,
    ) -> tuple[Passes, list[tuple[str, int]]]:
        """All the passes as one, and which engine made how many of them."""
        total, here = before + self.epochs, 0.0
        ending = resume is not None and resume.engine == self.second.name != self.engine.name
        earlier = 0.0 if resume is None or ending else resume.seconds
        if resume is not None and ending:
            rows, state = resume.rows()[: len(resume.errors) - int(resume.state["epoch"])], None
        elif resume is not None and len(resume.errors) >= self.epochs - self.finish:
            rows, state = resume.rows(), restored(resume, problem, self.engine, object, probe, ctx)
        else:
            one = passes(
                problem,
                self.engine,
                object,
                probe,
                ctx,
                self.schedule,
                self.epochs - self.finish,
                callbacks,
                tolerance,
                before,
                resume,
                total=total,
            )
            rows, state, here = one.rows, one.state, one.seconds - earlier
            if one.asked or not self.finish:
                return one, [(one.engine.name, len(one.rows))]
        second = self.second
        if resume is not None and ending:
            second = make(resume.engine, **resume.options)
        if state is not None:
            found = self.engine.estimate(state, ctx)
            object, probe = ctx.backend.to_host(found.object), ctx.backend.to_host(found.probe)
            del state, found  # the waves of all frames
        two = passes(
            problem,
            second,
            object,
            probe,
            ctx,
            self.second_schedule,
            self.epochs - len(rows),
            callbacks,
            tolerance,
            before + len(rows),
            resume if ending else None,
            total=total,
            done=len(rows),
            spent=here,
        )
        ran = [(self.engine.name, len(rows)), (two.engine.name, len(two.rows))]
        return Passes(
            [*rows, *two.rows], two.state, earlier + here + two.seconds, two.engine, two.asked
        ), ran


def described(ran: Sequence[Sequence[object]]) -> str:
    """For people: "27 of dm, then 13 of rpie"; empty where one engine made all."""
    return ", then ".join(f"{number} of {name}" for name, number in ran) if len(ran) > 1 else ""


def as_finished(result: Result, epochs: int) -> int | None:
    """What `finish` must be for so many passes to end as those of a result did: as many, a share of
    fewer, or none.
    """
    asked = int(result.settings.get("finish") or 0)
    return asked if asked < epochs else None


__all__ = ["Plan", "as_finished", "described", "finishing_passes"]
