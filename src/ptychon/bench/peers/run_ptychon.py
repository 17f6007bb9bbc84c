"""Ptychon itself, under the same clock: its numpy backend, with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import numpy as np
from _adapter import THREADS, Run, main
from _adapter import Problem as Given

from ptychon.backends import get_backend
from ptychon.data.dataset import Dataset
from ptychon.engines import Context, make
from ptychon.model.problem import Problem
from ptychon.run.compile import warm_up
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.run.usual import UNKNOWN_PASSES

#: Passes of the first engine where an algorithm is called "first, then last".
FIRST_PASSES = 40


def start(problem: Given, algorithm: str, passes: int) -> Run:
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


if __name__ == "__main__":
    main(start)
