"""Fused steps on a GPU: which plan serves which state, and what a pass costs in memory. The
counterpart of `fused`.

An engine's `step` stays the specification; the plans of `gpu_waves` do the same for every schedule.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..engines import difference_map
from ..engines.base import Report
from ..engines.pie import ITERATIVE
from ..engines.ptycho_ep import PtychoEP
from ..kernels.gpu.far import Far
from ..kernels.gpu.geometry import Launcher
from ..kernels.gpu.plan import Plan
from ..types import Array, PtychonError
from .gpu_ep import Expectation
from .gpu_waves import DifferenceMap, Iterative
from .memory import Memory, Shapes, largest_block, planned, work

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
    _anchor: ClassVar[dict[type[Any], str]] = {
        difference_map.DifferenceMap: "waves",
        PtychoEP: "messages",
    }

    def __init__(self, launcher: Launcher, free_bytes: Callable[[], int]) -> None:
        self._launcher, self._free = launcher, free_bytes
        self._plans: dict[int, list[Plan]] = {}

    def find(self, engine: Any, problem: Any, batches: Any) -> Step | None:
        """The fused step of `engine`, or None where only the engine's own will do."""
        kind = type(engine)  # a subclass may compute something else
        if kind is PtychoEP:
            return partial(self._ep, engine)
        if kind is difference_map.DifferenceMap:
            return partial(self._difference_map, engine)
        return partial(self._iterative, engine) if kind in ITERATIVE else None

    def _iterative(
        self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any
    ) -> tuple[Any, Any]:
        misfit = self._plan(Iterative, engine, state, problem).step(engine, state, batches)
        state.epoch += 1
        return state, Report(ctx.comm.sum(misfit))

    def _ep(self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any) -> tuple[Any, Any]:
        engine.update_prior(state, ctx)
        found = self._plan(Expectation, engine, state, problem).step(
            engine, state, problem, batches
        )
        done: tuple[Any, Any] = engine.finish(state, problem, ctx, *found)
        return done

    def _difference_map(
        self, engine: Any, state: Any, problem: Any, batches: Any, ctx: Any
    ) -> tuple[Any, Any]:
        if isinstance(problem.amplitude, Far) and (ctx.comm.size > 1 or engine.beta != 1):
            raise PtychonError(
                f"{problem.amplitude.nbytes / 1e9:.2f} GB of frames do not fit on the GPU, and "
                "the difference map over several "
                "processes, or with a beta other than 1, needs them there; use one process and "
                "beta=1, or crop or bin them"
            )
        if ctx.comm.size > 1:
            # its sums over all processes stand in the middle of a pass
            done: tuple[Any, Any] = engine.step(state, problem, batches, ctx)
            return done
        misfit: Array | None = self._plan(DifferenceMap, engine, state, problem).step(
            engine, state, problem
        )
        done = engine.finish(state, misfit, problem, ctx)
        return done

    def _plan(self, kind: type[Any], engine: Any, state: Any, problem: Any) -> Any:
        """The plan that works on the arrays of `state`, made now if there is none."""
        if id(problem) not in self._plans:
            self._plans[id(problem)] = []
            weakref.finalize(problem, self._plans.pop, id(problem), None)
        plans, anchor = self._plans[id(problem)], self._anchor.get(type(engine), "object")
        for plan in plans:
            if isinstance(plan, kind) and plan.bound.get(anchor) is getattr(state, anchor):
                return plan
        del plans[: max(0, len(plans) + 1 - PLANS)]
        block = block_that_fits(self._launcher, engine, problem, len(state.probe), self._free())
        plans.append(kind(self._launcher, problem, len(state.probe), block))
        return plans[-1]


def memory(launcher: Launcher, problem: Any, engine: Any, modes: int, free: int) -> Memory:
    """How a run of `engine` on a problem that is still on the host fits on the device.

    Raises
    ------
    PtychonError
        Where it does not.
    """
    sizes = {"block_bytes": launcher.block_bytes, "group_bytes": launcher.group_bytes}
    return planned(engine, Shapes.of(problem, modes), free, **sizes)


def workspace(engine: Any, problem: Any, modes: int, block: int, far: bool = False) -> int:
    """Bytes that a plan takes beside the problem and the state, with blocks of `block` frames;
    rather too many.
    """
    shapes = Shapes.of(problem, modes)
    # a second stack of waves is made in the pass
    second: int = max(0, engine.stacks - 1) * engine.keeps.stack_bytes * modes * shapes.frames
    return work(engine, shapes, block, far) + second * shapes.frame[0] * shapes.frame[1]


def block_that_fits(launcher: Launcher, engine: Any, problem: Any, modes: int, free: int) -> int:
    """Frames of a block: what the cache holds, or fewer where memory is short.

    Raises
    ------
    PtychonError
        Where not even one frame at a time fits.
    """
    p, q = problem.frame_shape
    far = launcher.is_far(problem.amplitude)
    if far:
        # two groups, of the sweep and, after one of Ptycho-EP, of its sums
        free -= (4 if engine.keeps.sums_apart else 2) * max(
            launcher.group_bytes, (4 + 8 * modes) * p * q
        )
    block = largest_block(Shapes.of(problem, modes), launcher.block_bytes)
    while block > 1 and workspace(engine, problem, modes, block, far) > free:
        block //= 2
    need = workspace(engine, problem, modes, block, far)
    if need > free:
        raise PtychonError(
            f"engine {engine.name!r} needs {need / 1e9:.2f} GB on the GPU beside the data and "
            "its state, and only "
            f"{free / 1e9:.2f} GB are free; use fewer or smaller frames (a crop or a binning), "
            "fewer modes, "
            f"subpixel=False, or --backend numpy"
        )
    return block
