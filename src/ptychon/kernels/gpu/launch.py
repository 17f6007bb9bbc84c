"""Launches on an NVIDIA GPU through CuPy: one module compiled at first use, FFT plans that are
kept, CUDA graphs.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np

from ...types import Array, IntArray, PtychonWarning
from .far import Far, host_of
from .geometry import MOST_JOBS, Jobs
from .source import check, source

#: Jobs of one graph: a longer sweep becomes several, launched one after another.
GRAPH_JOBS = 2048
#: Sweeps of one plan that are remembered.
GRAPHS = 16
#: Bytes of waves worked on together: half of the second-level cache, not below this.
LEAST_BLOCK = 8 * 2**20
#: Bytes of frames that are sent at a time where not all fit on the device.
GROUP = 256 * 2**20


class CupyLauncher:
    """Runs the kernels of cuda/*.cu on one device.

    The first sweep of a kind runs launch by launch, which compiles the kernels and makes the FFT
    plans; the second is captured; it and all later ones are launched as graphs, on whatever stream
    is current.

    Parameters
    ----------
    device : int
    graphs : bool
        False launches one by one for ever: what graphs are compared with.
    lines : bool
        Use kernels that have the transforms inside, where they know the frames.
    """

    def __init__(self, device: int = 0, graphs: bool = True, lines: bool = False) -> None:
        import cupy
        from cupy.cuda import cufft

        self._cupy, self._cufft = cupy, cufft
        self.device = cupy.cuda.Device(device)
        self.threads = 256
        self.block_bytes = max(LEAST_BLOCK, int(self.device.attributes.get("L2CacheSize", 0)) // 2)
        self.group_bytes = GROUP
        self.graphs, self.lines = graphs, lines
        self._stream = cupy.cuda.Stream(non_blocking=True)
        # CuPy keeps the binary on disk, by source, options and device
        self._module = cupy.RawModule(code=source(), options=("-std=c++17",))
        self._kernels: dict[str, Any] = {}
        self._plans: dict[tuple[int, int, int], Any] = {}
        # one way and the other at once
        self._copies, self._returns = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        self._pinned: dict[tuple[str, int, str], Any] = {}
        self._landing: dict[int, list[tuple[Any, IntArray, Any]]] = {0: [], 1: []}
        event = cupy.cuda.Event
        self._sent, self._used, self._back = (
            [event(disable_timing=True) for _ in range(2)] for _ in range(3)
        )

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self._cupy.empty(shape, dtype)

    def upload(self, host: Any) -> Array:
        return self._cupy.ascontiguousarray(self._cupy.asarray(host))

    def write(self, target: Array, host: Any) -> None:
        target.reshape(-1)[: host.size].set(host.reshape(-1))

    def launch(
        self, name: str, grid: tuple[int, int], *args: Any, threads: int = 0, shared: int = 0
    ) -> None:
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self._module.get_function(name)
        kernel(grid, (threads or self.threads,), tuple(check(name, args)), shared_mem=shared)

    def fft(self, a: Array, out: Array, inverse: bool) -> None:
        p, q = a.shape[-2:]
        key = a.size // (p * q), p, q
        plan, cufft = self._plans.get(key), self._cufft
        if plan is None:
            size = p, q
            plan = cufft.PlanNd(
                size, size, 1, p * q, size, 1, p * q, cufft.CUFFT_C2C, key[0], "C", 1, None
            )
            self._plans[key] = plan
        plan.fft(a, out, cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD)

    def is_far(self, frames: Array) -> bool:
        return isinstance(frames, (np.ndarray, Far))

    def send(self, pairs: list[tuple[Any, Array]], rows: IntArray, slot: int) -> None:
        # the last copies out of our pinned memory must be done; the other slot's are under way
        # meanwhile, and so are kernels
        self._sent[slot].synchronize()
        ready = [self._outgoing(array, target, rows, slot) for array, target in pairs]
        self._copies.wait_event(self._used[slot])
        self._copies.wait_event(self._back[slot])
        for (_, target), values in zip(pairs, ready, strict=True):
            target[: len(rows)].set(values, stream=self._copies)
        self._sent[slot].record(self._copies)

    def _outgoing(self, array: Any, target: Array, rows: IntArray, slot: int) -> Any:
        """Rows of an array in page-locked memory: a part of it where it can be, else a copy."""
        direct = _run_of(array, rows)
        if direct is not None:
            return direct
        room = self._page_locked("out", slot, target, len(rows))
        np.take(host_of(array), rows, axis=0, out=room, mode="clip")
        return room

    def _page_locked(self, way: str, slot: int, like: Array, rows: int) -> Any:
        """Our own page-locked memory for some rows of an array: one piece for each way, slot and
        type.
        """
        import cupyx

        key, each = (way, slot, str(like.dtype)), like.size // len(like)
        if key not in self._pinned or self._pinned[key].size < like.size:
            self._pinned[key] = cupyx.empty_pinned((like.size,), like.dtype)
        return self._pinned[key][: rows * each].reshape(rows, *like.shape[1:])

    def fetch(self, pairs: list[tuple[Any, Array]], rows: IntArray, slot: int) -> None:
        self._land(slot)
        self._returns.wait_event(self._used[slot])
        for array, target in pairs:
            place = _run_of(array, rows)
            if place is None:
                place = self._page_locked("in", slot, target, len(rows))
                self._landing[slot].append((host_of(array), rows, place))
            target[: len(rows)].get(stream=self._returns, out=place, blocking=False)
        self._back[slot].record(self._returns)

    def _land(self, slot: int) -> None:
        """What came back into our own memory, to its rows."""
        self._back[slot].synchronize()
        for host, rows, values in self._landing[slot]:
            host[rows] = values
        self._landing[slot].clear()

    def drain(self) -> None:
        for slot in (0, 1):
            self._land(slot)

    def arrived(self, slot: int) -> None:
        self._cupy.cuda.get_current_stream().wait_event(self._sent[slot])

    def used(self, slot: int) -> None:
        self._used[slot].record(self._cupy.cuda.get_current_stream())

    def run(self, graphs: dict[Hashable, Any], key: Hashable, jobs: Jobs) -> None:
        known = graphs.get(key)
        if known == "seen" and self.graphs:
            known = graphs[key] = self._capture(jobs)
        if isinstance(known, list):
            for graph in known:
                graph.launch()
            return
        for job in jobs():
            job()
        if known is None:
            while len(graphs) >= GRAPHS:
                del graphs[next(iter(graphs))]
            graphs[key] = "seen"

    def _capture(self, jobs: Jobs) -> list[Any] | str:
        """Graphs of all jobs, or "eager" where capturing fails."""
        todo, done, stream = list(jobs()), [], self._stream
        if len(todo) > MOST_JOBS:
            return "eager"
        try:
            for first in range(0, len(todo), GRAPH_JOBS):
                with stream:
                    stream.begin_capture()
                    try:
                        for job in todo[first : first + GRAPH_JOBS]:
                            job()
                    finally:
                        # also ends a capture that failed, which would otherwise block the stream
                        graph = stream.end_capture()
                graph.upload()
                done.append(graph)
        except (
            Exception
        ) as error:  # whatever it is, the same launches one by one either work or say it again
            warnings.warn(
                f"a sweep could not be captured as a CUDA graph and runs slower ({error})",
                PtychonWarning,
                stacklevel=2,
            )
            return "eager"
        return done


def _run_of(array: Any, rows: IntArray) -> Any:
    """Consecutive rows of page-locked memory, in place; None where they have to be collected."""
    if (
        not (isinstance(array, Far) and array.pinned)
        or int(rows[-1]) - int(rows[0]) != len(rows) - 1
    ):
        return None
    return (
        array.host[int(rows[0]) : int(rows[-1]) + 1] if bool((np.diff(rows) == 1).all()) else None
    )
