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
from .refine import FIRST, Refine
from .until import Placed, Settled

#: Passes that make a first guess: with the probe unknown, at most, and with it known.
UNKNOWN_PASSES, KNOWN_PASSES = 60, 20
#: Passes of PIE before a second attempt with a known probe, where the first one failed.
AGAIN_PASSES = 50
#: Where positions are to be found: steps after which it is looked whether they are near, since they
#: move by less than so many pixels (rms) in the last of them, and no frame fits much worse than the
#: others (`Placed`). Measured on 121 frames of 64 x 64 and 49 of 32 x 32, positions refined in turn
#: before: 0.005 to 0.026 px where they are near, 0.05 to 1 px after a drift, a scale of 6 % and 6
#: degrees, or errors of 2 px at random; the worst frame 1.07 to 1.18 times the median. After a
#: drift that left two halves of a scan locked 0.7 px apart, 0.008 px and 1.4.
LOOK, NEAR = 3, 0.04
#: Where they are not: inner parts of the detector that they are refined with, for how many steps
#: each and with how many products, and the passes of the engine that begins after each. Six steps
#: of 40 products take twice the time and bring them no nearer.
INNER, INNER_STEPS, INNER_PRODUCTS, AFTER_INNER = (0.3, 0.5), 3, 15, 10
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
        if not isinstance(engine, ML):
            return (first,)
        turns: Update = {"positions": After(FIRST["positions"])} if far(engine, problem) else {}
        first = replace(first, update=turns)
        if engine.background and engine.detector == 1:
            darker = replace(first, update={**turns, "background": True})
            dark = dark_first(engine, replace(darker, passes=DARK_PASSES), first)
            return (*dark, *coarse(engine, problem, darker))
        return (first, *coarse(engine, problem, first))
    if engine.moves_probe:
        rpie = Stage("rpie", UNKNOWN_PASSES, aside=True)
        if problem.near_field:
            return (rpie,)
        return (Stage("dm", UNKNOWN_PASSES, aside=True, until=(Settled(),), rescue=(rpie,)),)
    if engine.begins_with is None and sampling_ratio(problem, probe) < NEAR_LIMIT:
        return ()
    return (Stage("pie", KNOWN_PASSES, aside=True, rescue=()),)


def dark_first(engine: ML, first: Stage, without: Stage) -> tuple[Stage, ...]:
    """Stages that find a background, and an object that has never been without it: by the engine
    that begins, which refines it in turn and then leaves it as it is.
    """
    alone = replace(
        engine, positions=False, dose=False, variations=0, probe_start=0, background_start=0
    )
    again = replace(without, passes=AGAIN, start="again")
    return first, Stage(alone, DARK_STEPS, aside=True), again


def far(engine: ML, problem: Problem) -> bool:
    """Whether positions may be far off, and the inner part of the detector brings them near."""
    if not engine.positions or engine.detector < 1:
        return False
    return not problem.near_field and problem.measured is None


def coarse(engine: ML, problem: Problem, first: Stage) -> tuple[Stage, ...]:
    """Stages that bring wrong positions near: none where they stay, or are refined already.

    Errors at random are gone when the engine that begins has moved positions in turn. Those that
    are soft, drifts, scales and rotations, are not, which steps with the whole detector show:
    positions go on moving. The inner part of the detector follows then. The object that it leaves
    has adapted to the positions, and has no fine details; a few more passes of the engine that
    begins take that back.
    """
    if not far(engine, problem):
        return ()
    at_once: Update = {name: True if name != "positions" else After() for name in first.update}
    engine = replace(engine, positions_start=0, positions_every=1)
    stages = []
    for part in INNER:
        inner = replace(engine, detector=part, iterations=min(engine.iterations, INNER_PRODUCTS))
        stages.append(Stage(inner, INNER_STEPS, aside=True))
        stages.append(replace(first, passes=AFTER_INNER, update=at_once))
    near = Placed(NEAR, LOOK)
    return (Stage(engine, LOOK, aside=True, until=(near,), more=tuple(stages)),)


__all__ = ["first_guess", "usual"]
