"""The one call that does everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from ..backends import Backend, get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine, Update, plain
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError
from .begin import first_guess
from .checkpoint import Checkpoint
from .compile import on_stderr
from .constraints import Constraint, constraint_of
from .in_turn import in_turn
from .iterate import iterate
from .one_scan import one_scan, result_of, resumed, watchers
from .positions import carried, without_doses
from .progress import Callback, Progress
from .recipe import Recipe, Stage
from .refine import Refine
from .registered import PASSES, found_shifts, searched, stated
from .scans import Scans, shared_scans
from .scans_start import joined_start, starts_of
from .schedule import Schedule
from .stages import Run
from .thick import with_slices
from .until import Until, rule_of

__all__ = ["Callback", "Progress", "iterate", "reconstruct"]


@overload
def reconstruct(data: Dataset | Problem, *given: Any, **how: Any) -> Result: ...


@overload
def reconstruct(data: Sequence[Dataset | Problem], *given: Any, **how: Any) -> list[Result]: ...


def reconstruct(
    data: Dataset | Problem | Sequence[Dataset | Problem],
    recipe: str | Engine | Stage | Recipe = "rpie",
    *,
    passes: int = 100,
    update: Update | None = None,
    until: Until | str | Sequence[Until] = (),
    schedule: Schedule | str | None = None,
    refine: Refine | Mapping[str, Any] | str | None = None,
    constraints: Constraint | str | Sequence[Constraint | str] = (),
    object: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    modes: int | None = None,
    start: Result | Sequence[Result] | None = None,
    slices: int | None = None,
    spacing: float | Sequence[float] | None = None,
    tilt: float | Sequence[float] | None = None,
    backend: str | Backend = "auto",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    subpixel: bool = True,
    resume: Checkpoint | None = None,
    details: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = on_stderr,
    judge: bool = True,
    progress: bool | None = None,
    live: bool = False,
    share: str | None = None,
    shift: str | Sequence[float] | Sequence[Sequence[float]] | None = None,
    **options: Any,
) -> Result | list[Result]:
    """Reconstruct object and probe from a scan, or from several that share one of them.

    Parameters
    ----------
    data : Dataset or Problem, or a list of them
    recipe : str, Engine, Stage or Recipe
        The name of an engine ("pie", "epie", "rpie", "dm", "ep", "ml", ...), a ready engine, or
        stages such as "dm:60, rpie:100, ep:400". Around a single engine or stage goes what it needs
        (see `ptychon.run.usual`): passes that make a first guess for "ep" and "ml", beside
        `passes`, and a last quarter of "dm" by "rpie". A recipe runs as it is written.
    passes : int
        Passes over the data, where the recipe does not say them.
    update : mapping of str to bool or After, optional
        What moves and when, such as {"positions": After(8)}; see `Stage`.
    until : rule, str or sequence of rules
        End the passes early, such as "still:1e-4" or `Still(1e-4)`; see `ptychon.run.until`.
    schedule : Schedule or str, optional
        How a pass is cut into batches; default what the engine asks for.
    refine : Refine, mapping or str, optional
        How positions and the background are refined between the passes of an engine that does not
        move them itself, such as "trials=4"; see `ptychon.run.refine`.
    constraints : Constraint, str or sequence of them, optional
        What object and probe are made to fulfil after the passes, such as ["support:radius=20",
        "tv:weight=1e-3,after=5"]; see `ptychon.run.constraints`.
    object : (H, W) or (S, H, W) complex array, optional
        First object; default a constant. Never changed. A thin one becomes alike slices.
    probe : (P, Q) or (K, P, Q) complex array, optional
        First probe, or the known one for engines that do not move it; default that of the data set,
        else found from the data. Never changed. Engines that move the probe rescale it to the mean
        counts of a frame.
    modes : int, optional
        Incoherent modes of the probe; default as many as the first probe has. Weak ones are added
        to it (see `ptychon.run.modes`).
    start : Result, optional
        An earlier result to start from: its object, its probe, the positions it has refined, and
        its count of passes. One of another part, crop or binning of the scan is placed by its
        origin and resampled to the pixel size of these data. Where counts have another unit, the
        probe is rescaled.
    slices : int, optional
        Slices of a thick specimen; default one, or as many as the result to start from has. More
        than 10 grow from one and from a quarter of them, where the run starts from nothing.
    spacing : float or (slices - 1,) floats, optional
        Distance between slices, m.
    tilt : float or (y, x), optional
        Angle of the beam against what stands straight in the specimen, rad.
    backend : {"auto", "numpy", "cupy", "reference"} or Backend
    callbacks : sequence of callables
        Called with a `Progress` after each pass; True ends the run.
    seed : int
        Seed of the frame order. The result is a function of seed, backend and thread count.
    subpixel : bool
        Honour fractions of a pixel in the positions.
    resume : Checkpoint, optional
        Go on bit for bit from where a run with these same arguments was stopped; `passes` counts
        its passes too.
    details : callable, optional
        Told in one line each, before anything is computed, what memory the run will hold and how
        much is free, and which steps were chosen and why.
    say : callable, optional
        Told, in one sentence each, where kernels must be compiled first and how a result to start
        from was placed; default prints it on the standard error stream.
    judge : bool
        Warn of what speaks against the result, though R may not show it (see `ptychon.run.doubts`).
    progress : bool, optional
        Show a bar on a terminal and in a notebook, and a line every half minute elsewhere; default
        yes, unless one of `callbacks` is a `ProgressBar`, or `judge` is off (a part of a longer
        computation).
    live : bool
        Redraw object, probe and R every few passes, below the cell of a notebook or in a window.
    share : {"probe", "object", "both"}, optional
        What a list of scans shares; see `ptychon.run.scans`.
    shift : "search", (2,) or (S - 1, 2) floats, optional
        What is added to the positions of each scan but the first, where they share the object and
        do not state their positions in one system of coordinates: m, or pixels where their size is
        not known. "search" reconstructs each scan by itself, and lays one object on the other.
    **options
        Of the engine, as `ptychon engines` lists them.

    Returns
    -------
    Result, or a list with one for each scan
        Its `settings` hold the recipe; `Recipe.of` gives it again.

    Raises
    ------
    PtychonError
        For bad input, unknown names, or a run that fails after its restarts and rescues.
    """
    how = {k: v for k, v in locals().items() if k not in ("data", "share", "options")} | options
    asked = _asked(recipe, passes, options, update or {}, until, schedule, refine, constraints)
    main = (asked if isinstance(asked, Stage) else asked.main).made()
    ctx, seed = Context(get_backend(backend)), plain(seed)
    if isinstance(data, (list, tuple)):
        return _several(data, asked, how | {"share": share}, ctx)
    for name, value in (("share", share), ("shift", shift)):
        if value is not None:
            raise PtychonError(
                f"{name}={value!r} is for several scans, and one is given: give a list"
            )
    assert isinstance(data, Dataset | Problem)
    return one_scan(data, asked, main, ctx, **{**how, "seed": seed})


#: What asks for no slices.
THIN = {"slices": None, "spacing": None, "tilt": None}


def _several(
    data: Sequence[Dataset | Problem], asked: Stage | Recipe, how: dict[str, Any], ctx: Context
) -> list[Result]:
    """Results of scans that share object or probe."""
    if how["share"] is None:
        raise PtychonError(
            f"{len(data)} scans are given; say what they share: share='probe', 'object' or 'both' "
            "(--share)"
        )
    stages = (asked,) if isinstance(asked, Stage) else asked.stages
    seed, main = plain(how["seed"]), (asked if isinstance(asked, Stage) else asked.main).made()
    start, resume, shift = how["start"], how["resume"], how["shift"]
    if shift is not None and how["share"] == "probe":
        raise PtychonError(
            "a shift says how scans lie on one object, and these share the probe only: leave it out"
        )
    if searched(shift):
        moves = found_shifts([_for_shift(one, how, ctx, seed) for one in data], how["say"])
    else:
        moves = stated(shift, len(data))
    scans = Scans.of(data, how["share"], how["subpixel"], moves)
    begun = start[0] if start and not isinstance(start, Result) else None
    thick = how["slices"], how["spacing"], how["tilt"], begun
    cut = [with_slices(p, d, *thick) for p, d in zip(scans.parts, data, strict=True)]
    scans, how = replace(scans, parts=tuple(cut)), how | THIN

    def one(problem: Problem, probe: ComplexArray | None) -> Result:
        for stage in stages:
            if without_doses(problem, stage.made()).log_scale is not problem.log_scale:
                raise PtychonError(
                    f"engine {stage.name!r} knows nothing of doses, and those of the scans differ "
                    "by more than 1 %: share the probe only, or use rpie, dm or ml"
                )
        given = how if how["probe"] is not None else {**how, "probe": probe}
        if start is not None:
            first = joined_start(scans, start, problem)
            given = {**given, "start": first, "probe": how["probe"]}
        return one_scan(problem, asked, main, ctx, **{**given, "seed": seed}, level=scans.level)

    def turns() -> list[Result]:
        moving = next((s.made() for s in stages if s.made().moves_probe), main)
        starts = None if start is None else starts_of(scans, start)

        def first(problem: Problem, i: int) -> tuple[Problem, ComplexArray, ComplexArray]:
            if starts is not None:
                problem = carried(problem, starts[i], main)
                given = (starts[i].object, starts[i].probe, how["modes"], None, how["say"])
            else:
                given = (how["object"], how["probe"], how["modes"], None, how["say"])
            return problem, *first_guess(data[i], problem, moving, ctx, *given, lambda text: None)

        def finish(run: Run, i: int) -> Result:
            result = result_of(run, ctx, None if start is None else start[i], 0.0)
            said = {"passes": run.recipe.passes, "seed": seed, "subpixel": how["subpixel"]}
            return replace(result, settings={**said, **result.settings})

        recipe = Recipe(asked) if isinstance(asked, Stage) else asked
        recipe = recipe if resume is None else resumed(recipe, resume)
        before = 0 if start is None else start[0].passes
        watch = watchers(how["callbacks"], how["progress"], how["judge"], False, main, before, ctx)
        heard = [*how["callbacks"], *watch]
        try:
            return in_turn(scans, recipe, first, finish, ctx, seed, heard, resume, before)
        finally:
            for callback in heard:
                if (close := getattr(callback, "close", None)) is not None:
                    close()

    return shared_scans(scans, data, one, turns)


def _for_shift(data: Dataset | Problem, how: dict[str, Any], ctx: Context, seed: int) -> Result:
    """One of several scans by itself, to see where it lies on the others."""
    near = data.near_field if isinstance(data, Problem) else data.geometry == "near"
    asked = Stage("rpie", PASSES, constraints=() if near else (constraint_of("centre:every=5"),))
    alone = {**how, "start": None, "resume": None, "object": None, "callbacks": (), "seed": seed}
    alone |= THIN | {"judge": False, "progress": False, "details": None, "live": False}
    return one_scan(data, asked, asked.made(), ctx, **alone)


def _asked(
    recipe: str | Engine | Stage | Recipe,
    passes: Any,
    options: dict[str, Any],
    update: Update,
    until: Until | str | Sequence[Until],
    schedule: Schedule | str | None,
    refine: Any,
    constraints: Any,
) -> Stage | Recipe:
    """The stage or the recipe that the arguments of `reconstruct` ask for."""
    if isinstance(recipe, str) and ":" in recipe:
        recipe = Recipe.parse(recipe)
    more = {"update": update, "until": until, "schedule": schedule, "options": options}
    more |= {"refine": refine, "constraints": constraints}
    if isinstance(recipe, (Stage, Recipe)):
        beside = [name for name, value in more.items() if value not in (None, {}, ())]
        if beside:
            raise PtychonError(
                f"{', '.join(beside)} stand beside a recipe; give them to a Stage of it"
            )
        return recipe
    rules = until if isinstance(until, (list, tuple)) else (until,)
    named = constraints if isinstance(constraints, (list, tuple)) else (constraints,)
    return Stage(
        recipe,
        plain(passes),
        options=options,
        update=update,
        until=tuple(map(rule_of, rules)),
        schedule=schedule,
        refine=Refine() if refine is None else refine,
        constraints=tuple(map(constraint_of, named)),
    )
