"""Time on the device where the work is done, and what the machine is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from ..backends import Backend

T = TypeVar("T")


def timed(backend: Backend, work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns and the seconds it took: `time.perf_counter`, or CUDA events where the
    backend is a GPU.

    Events stand in the stream itself, so what was queued before is not counted and the launches
    are; both clocks wait for the work to be done.
    """
    backend.synchronise()
    if backend.name != "cupy":
        begin = time.perf_counter()
        value = work()
        return value, time.perf_counter() - begin
    xp: Any = backend.xp
    cuda = xp.cuda
    start, stop = cuda.Event(), cuda.Event()
    start.record()
    value = work()
    stop.record()
    stop.synchronize()
    return value, float(cuda.get_elapsed_time(start, stop)) / 1e3


def machine() -> dict[str, Any]:
    """Processor, cores, versions and how busy it was, for the record; no names of
    hosts or users.
    """
    versions = {
        name: _version(name) for name in ("numpy", "scipy", "numba", "rocket-fft", "ptychon")
    }
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
