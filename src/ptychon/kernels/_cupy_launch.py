"""Launches on an NVIDIA GPU through CuPy: one module compiled at first use, FFT plans that are kept, CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np

from ..types import Array, IntArray, PtychonWarning
from ._cupy_source import check, source
from ._cupy_sweeps import MOST_JOBS, Jobs

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

    The first sweep of a kind runs launch by launch, which compiles the kernels and makes the FFT plans; the second is
    captured; it and all later ones are launched as graphs, on whatever stream is current.

    Parameters
    ----------
    device : int
    graphs : bool
        False launches one by one for ever: what graphs are compared with.
    """

    def __init__(self, device: int = 0, graphs: bool = True) -> None:
        import cupy
        from cupy.cuda import cufft

        self._cupy, self._cufft = cupy, cufft
        self.device = cupy.cuda.Device(device)
        self.threads = 256
        self.block_bytes = max(LEAST_BLOCK, int(self.device.attributes.get("L2CacheSize", 0)) // 2)
        self.group_bytes = GROUP
        self.graphs = graphs
        self._stream = cupy.cuda.Stream(non_blocking=True)
        # CuPy keeps the binary on disk, by source, options and device
        self._module = cupy.RawModule(code=source(), options=("-std=c++17",))
        self._kernels: dict[str, Any] = {}
        self._plans: dict[tuple[int, int, int], Any] = {}
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._pinned: dict[int, Any] = {}
        event = cupy.cuda.Event
        self._sent, self._used = ([event(disable_timing=True) for _ in range(2)] for _ in range(2))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self._cupy.empty(shape, dtype)

    def upload(self, host: Any) -> Array:
        return self._cupy.ascontiguousarray(self._cupy.asarray(host))

    def write(self, target: Array, host: Any) -> None:
        target.reshape(-1)[: host.size].set(host.reshape(-1))

    def launch(self, name: str, grid: tuple[int, int], *args: Any) -> None:
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self._module.get_function(name)
        kernel(grid, (self.threads,), tuple(check(name, args)))

    def fft(self, a: Array, out: Array, inverse: bool) -> None:
        p, q = a.shape[-2:]
        key = a.size // (p * q), p, q
        plan, cufft = self._plans.get(key), self._cufft
        if plan is None:
            size = p, q
            plan = cufft.PlanNd(size, size, 1, p * q, size, 1, p * q, cufft.CUFFT_C2C, key[0], "C", 1, None)
            self._plans[key] = plan
        plan.fft(a, out, cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD)

    def is_far(self, frames: Array) -> bool:
        return isinstance(frames, np.ndarray)

    def send(self, frames: Any, rows: IntArray, target: Array, slot: int) -> None:
        import cupyx

        if slot not in self._pinned or self._pinned[slot].shape != target.shape:
            self._sent[slot].synchronize()
            self._pinned[slot] = cupyx.empty_pinned(target.shape, target.dtype)
        room = self._pinned[slot][: len(rows)]
        # the last copy out of this memory must be done; the other slot's is under way meanwhile, and so are the kernels
        self._sent[slot].synchronize()
        np.take(frames, rows, axis=0, out=room, mode="clip")
        self._copies.wait_event(self._used[slot])
        target[: len(rows)].set(room, stream=self._copies)
        self._sent[slot].record(self._copies)

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
        except Exception as error:  # whatever it is, the same launches one by one either work or say it again
            warnings.warn(
                f"a sweep could not be captured as a CUDA graph and runs slower ({error})", PtychonWarning, stacklevel=2
            )
            return "eager"
        return done
