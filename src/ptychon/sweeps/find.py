"""Which compiled pass serves an engine, where its frames go, and what a run holds.

Compiled passes are found by the type of an engine and by the backend. What has none runs the
engine's own `step` on the table of kernels: slower, and right; `why_slow` says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..engines import Engine
from ..engines.difference_map import RAAR, DifferenceMap
from ..engines.lsqml import LSQML
from ..engines.mpie import MPIE
from ..engines.pie import ITERATIVE, full
from ..engines.ptycho_ep import PtychoEP
from ..model.problem import Problem
from . import gpu
from .memory import Memory, on_host

#: Engines that have a compiled pass, on the CPU and on a GPU.
COMPILED: tuple[type[Any], ...] = (*ITERATIVE, DifferenceMap, PtychoEP)
#: Those that have one on the CPU alone.
ON_CPU: tuple[type[Any], ...] = (MPIE, RAAR, LSQML)
Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def fast_step(backend: Backend, engine: Engine, problem: Problem, batches: Any) -> Step | None:
    """A compiled pass in place of ``engine.step``, with the same arguments and results; None where
    there is none.
    """
    engine = full(engine)
    varies = engine.varies_probe or problem.weights is not None
    if problem.slices is not None or problem.spread is not None or varies:
        return None
    if backend.sweeps == "cpu":
        from . import cpu  # brings Numba

        return cpu.find(
            engine, problem, batches, backend.threads, backend.kept.setdefault("cpu", cpu.Kept())
        )
    if backend.sweeps == "gpu":
        if isinstance(engine, DifferenceMap) and problem.noise_scale is not None:
            return None  # its kernels know one bound
        return plans(backend).find(engine, problem, batches)
    return None


def plans(backend: Backend) -> gpu.Plans:
    """The plans of a GPU, made when they are first asked for."""
    if "plans" not in backend.kept:
        backend.kept["plans"] = gpu.Plans(backend.launcher, backend.free_bytes)
    found: gpu.Plans = backend.kept["plans"]
    return found


def why_slow(backend: Backend, engine: Engine) -> str | None:
    """One sentence where an engine has no compiled pass on a backend that has some; else None."""
    known = COMPILED + ON_CPU if backend.sweeps == "cpu" else COMPILED
    if not backend.sweeps or type(engine) in known:
        return None
    names = ", ".join(cls.name for cls in known)
    return (
        f"engine {engine.name!r} has no compiled pass: it runs on the table of kernels, several "
        f"times slower than {names}, "
        f"which have one"
    )


def memory(backend: Backend, problem: Problem, engine: Engine, modes: int) -> Memory:
    """What a run on a problem that is still on the host would hold.

    Raises
    ------
    PtychonError
        Where it does not fit on the device.
    """
    if backend.sweeps == "gpu":
        return gpu.memory(backend.launcher, problem, engine, modes, backend.free_bytes())
    return on_host(problem, engine, modes)


def placed(problem: Problem, backend: Backend, engine: Engine, modes: int) -> Problem:
    """The problem for a run of an engine with so many probe modes: frames may stay on the host if
    the device is too small.
    """
    problem = problem if "background" in engine.copes else problem.subtracted()
    if backend.stay is None or not isinstance(problem.amplitude, np.ndarray):
        return problem.to(backend)
    if backend.frames_on_host or memory(backend, problem, engine, modes).far:
        return problem.to(backend, backend.stay(problem.amplitude))
    return problem.to(backend)
