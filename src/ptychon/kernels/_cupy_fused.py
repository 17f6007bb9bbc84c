"""Fused steps on a GPU: which plan serves which state, and what a pass costs in memory. The counterpart of `fused`.

An engine's `step` stays the specification; the plans of `_cupy_sweeps` do the same for every schedule.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..types import Array, PtychonError
from . import _cupy_lists as lists
from ._cupy_sweeps import GRID_ROWS, DifferenceMap, Expectation, Iterative, Launcher, Plan

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
#: States of one problem that may take turns before a plan is made anew.
PLANS = 2


class Plans:
    """Plans for the states of problems, kept as long as the problem lives.

    Parameters
    ----------
    launcher : Launcher
    free_bytes : callable
        Memory that could be had now.
    """

    #: The array of a state that no engine ever replaces, by which its plan is found.
    _anchor: ClassVar[dict[str, str]] = {"dm": "waves", "ep": "messages"}

    def __init__(self, launcher: Launcher, free_bytes: Callable[[], int]) -> None:
        self._launcher, self._free = launcher, free_bytes
        self._plans: dict[int, list[Plan]] = {}

    def find(self, engine: Any, problem: Any, batches: Any) -> Step | None:
        """The fused step of `engine`, or None where only the engine's own will do."""
        if engine.name == "ep":
            return partial(self._ep, engine)
        if engine.name == "dm":
            return partial(self._difference_map, engine) if engine.beta == 1 else None
        return partial(self._iterative, engine) if engine.name in ("pie", "epie", "rpie") else None

    def _iterative(self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any) -> tuple[Any, Any]:
        from ..engines.base import Report

        misfit = self._plan(Iterative, engine, state, problem).step(engine, state, batches)
        state.epoch += 1
        return state, Report(ctx.comm.sum(misfit))

    def _ep(self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any) -> tuple[Any, Any]:
        engine.update_prior(state, ctx)
        found = self._plan(Expectation, engine, state, problem).step(engine, state, problem, batches)
        done: tuple[Any, Any] = engine.finish(state, problem, ctx, *found)
        return done

    def _difference_map(self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any) -> tuple[Any, Any]:
        from ..engines.base import Report

        if ctx.comm.size > 1:
            # its sums over all processes stand in the middle of a pass
            done: tuple[Any, Any] = engine.step(state, problem, batches, ctx)
            return done
        misfit: Array | None = self._plan(DifferenceMap, engine, state, problem).step(engine, state, problem)
        state.epoch += 1
        return state, Report(None if misfit is None else ctx.comm.sum(misfit))

    def _plan(self, kind: type[Any], engine: Any, state: Any, problem: Any) -> Any:
        """The plan that works on the arrays of `state`, made now if there is none."""
        if kind is not Iterative and self._launcher.is_far(problem.amplitude):
            raise PtychonError(
                f"{problem.amplitude.nbytes / 1e9:.2f} GB of frames do not fit on the GPU, and engine {engine.name!r} holds a "
                f"wave of twice that for each; crop or bin the frames, or use 'rpie', whose frames can stay on the host"
            )
        if id(problem) not in self._plans:
            self._plans[id(problem)] = []
            weakref.finalize(problem, self._plans.pop, id(problem), None)
        plans, anchor = self._plans[id(problem)], self._anchor.get(engine.name, "object")
        for plan in plans:
            if isinstance(plan, kind) and plan.bound.get(anchor) is getattr(state, anchor):
                return plan
        del plans[: max(0, len(plans) + 1 - PLANS)]
        block = block_that_fits(self._launcher, engine, problem, len(state.probe), self._free())
        plans.append(kind(self._launcher, problem, len(state.probe), block))
        return plans[-1]


def workspace(engine: Any, problem: Any, modes: int, block: int) -> int:
    """Bytes that a plan takes beside the problem and the state, with blocks of `block` frames; rather too many."""
    (p, q), (h, w) = problem.frame_shape, problem.object_shape
    n: int = len(problem)
    wave, shifts = 8 * modes * p * q, len(problem.shifts)
    # two arrays of waves and as much again for the FFTs; shifted probes and their spectrum
    total: int = 4 * block * wave + (shifts + 3) * wave
    # sums, or beliefs kept for a batch, on the object; lists of what reaches its tiles; errors of frames
    total += 12 * h * w + 4 * n * (lists.tiles_of_frame((p, q)) + 1) + 5 * 8 * 64 * n
    if engine.moves_probe:
        segments = shifts * lists.segments_per_shift(shifts, n)
        total += segments * (wave + 4 * p * q)
    return total


def block_that_fits(launcher: Launcher, engine: Any, problem: Any, modes: int, free: int) -> int:
    """Frames of a block: what the cache holds, or fewer where memory is short.

    Raises
    ------
    PtychonError
        Where not even one frame at a time fits.
    """
    p, q = problem.frame_shape
    if launcher.is_far(problem.amplitude):
        free -= 2 * max(launcher.group_bytes, 4 * p * q)
    block: int = max(1, min(len(problem), GRID_ROWS, launcher.block_bytes // (8 * modes * p * q)))
    while block > 1 and workspace(engine, problem, modes, block) > free:
        block //= 2
    need = workspace(engine, problem, modes, block)
    if need > free:
        raise PtychonError(
            f"engine {engine.name!r} needs {need / 1e9:.2f} GB on the GPU beside the data and its state, and only "
            f"{free / 1e9:.2f} GB are free; use fewer or smaller frames (a crop or a binning), fewer modes, "
            f"subpixel=False, or --backend numpy"
        )
    return block
