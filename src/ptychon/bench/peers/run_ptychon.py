"""Ptychon itself, under the same clock: its numpy backend, with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import numpy as np
from _adapter import PIXEL, THREADS, WAVELENGTH, Run, main
from _adapter import Problem as Given

from ptychon.backends import get_backend
from ptychon.data.dataset import Dataset
from ptychon.data.slices import Slices
from ptychon.engines import After, Context, make
from ptychon.model.problem import Problem
from ptychon.run.compile import warm_up
from ptychon.run.iterate import iterate
from ptychon.run.recipe import Recipe, Stage
from ptychon.run.schedule import Schedule
from ptychon.run.stages import run_recipe
from ptychon.run.usual import UNKNOWN_PASSES, usual

#: Passes of the first engine where an algorithm is called "first, then last".
FIRST_PASSES = 40


def start(problem: Given, algorithm: str, passes: int) -> Run:
    if problem.positions is not None or problem.gaps is not None:
        return by_recipe(problem, algorithm, passes)
    data = Dataset(
        patterns=problem.patterns,
        positions=problem.corners
        + np.array(problem.probe.shape) // 2
        - np.array(problem.object.shape) // 2,
        object_shape=problem.object.shape,
    )
    local = Problem.from_dataset(data)
    ctx = Context(get_backend("numpy", threads=THREADS))
    found: dict[str, Any] = {"object": problem.object, "probe": problem.probe[None]}

    def some(name: str, count: int, after: Callable[[], None]) -> None:
        engine = made(name, count)
        schedule = Schedule(kind=engine.schedule, shuffle=name in ("epie", "rpie"))
        steps = iterate(local, engine, found["object"], found["probe"], ctx=ctx, schedule=schedule)
        for progress in islice(steps, count):
            found["estimate"] = engine.estimate(progress.state, ctx)
            after()
        found["object"], found["probe"] = found["estimate"].object, found["estimate"].probe

    def made(name: str, count: int) -> Any:
        engine = make(name)
        # as `reconstruct` does
        return (
            replace(engine, cool_from=-(-2 * count // 3))
            if hasattr(engine, "cool_from")
            else engine
        )

    first, _, last = algorithm.rpartition(", then ")
    warm = min(FIRST_PASSES, passes - 1) if first else 0
    if (
        last == "ep"
    ):  # as `reconstruct` does, which may stop it earlier: EM finds an unknown probe only slowly
        first, warm = "dm", min(UNKNOWN_PASSES, passes - 1)

    for name in {first, last} - {""}:
        warm_up(local, made(name, passes), ctx)

    def loop(after: Callable[[], None]) -> None:
        if warm:
            some(first, warm, after)
        some(last, passes - warm, after)

    def state() -> tuple[Any, Any]:
        return found["estimate"].object, found["estimate"].probe[0]

    settings = {
        name: value
        for name, value in asdict(made(last, passes)).items()
        if isinstance(value, (int, float, str))
    }
    if warm:
        settings[f"passes of {first} first"] = warm
    return Run(loop, state, settings, ("ptychon", "numba", "rocket-fft"), warm)


def by_recipe(problem: Given, algorithm: str, passes: int) -> Run:
    """What `reconstruct` runs around an engine that moves positions, or of a thick specimen; passes
    that make a first guess count here.
    """
    shape = problem.object.shape[-2:]
    half, middle = np.array(problem.probe.shape[-2:]) // 2, np.array(shape) // 2
    places = problem.corners + half if problem.positions is None else problem.positions
    data = Dataset(
        patterns=problem.patterns, positions=places - middle, object_shape=problem.object.shape[-2:]
    )
    local, update = Problem.from_dataset(data), {}
    if problem.gaps is not None:
        local = replace(local, slices=Slices(tuple(problem.gaps), WAVELENGTH, (PIXEL, PIXEL)))
    else:
        update = {"positions": True if algorithm == "ml" else After(min(8, passes // 2))}
    ctx = Context(get_backend("numpy", threads=THREADS))

    def recipe(short: bool) -> Recipe:
        # a step of `ml` is as dear as some tens of passes
        count = max(1, passes // 4) if algorithm == "ml" else passes
        stage = Stage(algorithm, count, update=update)
        whole = usual(stage, local, problem.modes)
        few = (lambda n: min(n, 1)) if short else (lambda n: n)
        return Recipe(replace(s, passes=few(s.passes), aside=False) for s in whole.stages)

    found: dict[str, Any] = {}
    long = recipe(False)
    run_recipe(recipe(True), local, problem.object, problem.modes, ctx, (), seed=0)

    def loop(after: Callable[[], None]) -> None:
        def see(progress: Any) -> None:
            found["now"] = progress
            after()

        run_recipe(long, local, problem.object, problem.modes, ctx, (see,), seed=0)

    def state() -> tuple[Any, ...]:
        now = found["now"]
        estimate = now.engine.estimate(now.state, ctx)
        if problem.gaps is not None:
            return estimate.object, estimate.probe[0]
        own = estimate.positions
        if own is None and now.found is not None:
            own = now.found.positions
        # an engine that leaves positions alone works with those that were found before it
        found["places"] = found.get("places", places) if own is None else np.asarray(own)
        return estimate.object, estimate.probe, found["places"]

    settings = {"recipe": str(long), "positions": str(update.get("positions", "known"))}
    before = sum(stage.passes for stage in long.stages[:-1])
    packages = "ptychon", "numba", "rocket-fft"
    return Run(loop, state, settings, packages, before, steady=True)


if __name__ == "__main__":
    main(start)
