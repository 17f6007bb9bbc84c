"""The recipe of an engine where nobody writes one: what makes its first guess, and what ends it.

Ptycho-EP wants a first guess from an engine that finds its way from a constant. With the probe
unknown that is the difference map, until its R has settled, since EM steps find a probe only slowly
and from a poor one end in a wrong optimum; in the near field, where the difference map is easily
lost, rPIE. With the probe known it is PIE: most runs end in the same optimum without it; with a
sparse object, behind a beam stop and where measurements are few, some do not. At fewer than 2.7
measurements for each lit pixel PIE is lost, and what it leaves is worse than a constant.

The difference map itself wanders about a fixed point that noise and positions of finite accuracy
leave nowhere to be found, so that the last quarter of its passes is of rPIE. Measured on 64 frames
with 1e5 counts each: 40 passes of the difference map alone came within 23.1 dB of the truth, with
the last 10 of rPIE 26.0 dB; 100 passes 23.3 and 26.3 dB. With 1e7 counts, where 40 passes had not
found the object yet, a quarter of them cost 2 dB (half of them 4.5 dB), and a quarter of 100 gained
1 dB.
"""

from __future__ import annotations

from dataclasses import replace

from ..engines import ML, After, Engine, Update, split
from ..engines.ptycho_ep import NEAR_LIMIT
from ..metrics.residual import sampling_ratio
from ..model.problem import Problem
from ..types import ComplexArray
from .recipe import Recipe, Stage
from .refine import Refine
from .until import Settled

#: Passes that make a first guess: with the probe unknown, at most, and with it known.
UNKNOWN_PASSES, KNOWN_PASSES = 60, 20
#: Passes of PIE before a second attempt with a known probe, where the first one failed.
AGAIN_PASSES = 50
#: Inner parts of the detector that wrong positions are first refined with, for how many steps each,
#: and the passes of the engine that begins after each.
INNER, INNER_STEPS, AFTER_INNER = (0.3, 0.5), 6, 10
#: Where a background is to be found: passes of the engine that begins, which it refines in turn,
#: steps of `ml`, and passes from the first object and probe with the background found so far. An
#: object that has taken the background for detail stays where it is, though the background has long
#: been found. Measured on 36 frames with 50 % of the light from a background that rises across the
#: detector, after 12 more steps of `ml`: error of the object 1.03 times that with the background
#: known, and 1.38 times after 60 passes in turn alone; from a background of the beam's shape 1.21
#: and 1.9 times.
DARK_PASSES, DARK_STEPS, AGAIN = 40, 6, 20
#: Share of the passes that another engine ends, where one does.
FINISH = 1 / 4


def usual(stage: Stage, problem: Problem, probe: ComplexArray, given: bool = False) -> Recipe:
    """The recipe around one stage.

    Parameters
    ----------
    stage : Stage
    problem : Problem
    probe : (K, P, Q) complex array
        The first one.
    given : bool
        Whether an object to start from was given: then nothing needs to make one.

    Returns
    -------
    Recipe
        Its passes that count are those of the stage.
    """
    engine = stage.made()
    before = () if given else first_guess(engine, problem, probe)
    if engine.needs_guess and not given and not engine.moves_probe:
        again = replace(stage, start="first") if not before else stage
        pie = Stage("pie", AGAIN_PASSES, aside=True, start="first", rescue=())
        stage = replace(stage, rescue=(pie, again)) if stage.rescue is None else stage
    return Recipe(before, finished(stage, engine))


def finished(stage: Stage, engine: Engine) -> tuple[Stage, ...]:
    """The stage, its last passes left to the engine that finishes it, if one does."""
    last = int(stage.passes * FINISH)
    if not engine.finished_by or not last:
        return (stage,)
    goes_on: Update = {
        name: replace(when, passes=0, before=None) if isinstance(when, After) else After()
        for name, when in split(engine, stage.update)[1].items()
        if when is not False and not (isinstance(when, After) and when.before is not None)
    }
    how = replace(Refine.read(stage.refine), trials=0) if goes_on else Refine()
    finish = Stage(engine.finished_by, last, update=goes_on, refine=how)
    return replace(stage, passes=stage.passes - last), finish


def first_guess(engine: Engine, problem: Problem, probe: ComplexArray) -> tuple[Stage, ...]:
    """The stages that make the first guess for an engine; none where it begins by itself."""
    if not engine.needs_guess:
        return ()
    if engine.begins_with is not None and engine.moves_probe:
        first = Stage(*engine.begins_with, aside=True)
        if isinstance(engine, ML) and engine.background and engine.detector == 1:
            turns: Update = {"background": True}
            dark = dark_first(engine, replace(first, passes=DARK_PASSES, update=turns))
            return (*dark, *coarse(engine, problem, replace(first, update=turns)))
        return (first, *coarse(engine, problem, first))
    if engine.moves_probe:
        rpie = Stage("rpie", UNKNOWN_PASSES, aside=True)
        if problem.near_field:
            return (rpie,)
        return (Stage("dm", UNKNOWN_PASSES, aside=True, until=(Settled(),), rescue=(rpie,)),)
    if engine.begins_with is None and sampling_ratio(problem, probe) < NEAR_LIMIT:
        return ()
    return (Stage("pie", KNOWN_PASSES, aside=True, rescue=()),)


def dark_first(engine: ML, first: Stage) -> tuple[Stage, ...]:
    """Stages that find a background, and an object that has never been without it."""
    alone = replace(
        engine, positions=False, dose=False, variations=0, probe_start=0, background_start=0
    )
    again = replace(first, passes=AGAIN, update={}, start="again")
    return first, Stage(alone, DARK_STEPS, aside=True), again


def coarse(engine: Engine, problem: Problem, first: Stage) -> tuple[Stage, ...]:
    """Stages that bring wrong positions near, for an engine that can move them by the inner part of
    the detector; none where they stay, or are refined already.

    The object that each leaves has adapted to them. A few more passes of the engine that begins
    take that back.
    """
    if not isinstance(engine, ML) or not engine.positions or engine.detector < 1:
        return ()
    if problem.near_field or problem.measured is not None:
        return ()
    stages = []
    for part in INNER:
        inner = replace(engine, detector=part, positions_start=0, positions_every=1)
        stages.append(Stage(inner, INNER_STEPS, aside=True))
        stages.append(replace(first, passes=AFTER_INNER))
    return tuple(stages)


__all__ = ["first_guess", "usual"]
