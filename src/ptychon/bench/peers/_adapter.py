"""What every adapter shares: the problem from a file, a clock beside each pass, and the answer into
a file.

An adapter runs in an environment of its own, without ptychon. It gives `main` a function
``start(problem, algorithm, passes)`` that returns a `Run`, made afresh at every call; the first is
thrown away after a few passes, so that no compilation is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

#: Threads to use; libraries that do not ask the environment (JAX) are held to as many cores.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])


@dataclass(frozen=True)
class Problem:
    """patterns (N, P, P) float32 counts, zero frequency in the middle; corners (N, 2), first object
    pixel of each window; object (H, W), or (S, H, W) with slices, and probe (P, P), or (K, P, P)
    with modes, complex64, where everyone starts; positions (N, 2), middles of the windows in object
    pixels, where they are to be refined; gaps (S - 1,) between slices, m, at `WAVELENGTH` and
    object pixels of `PIXEL` m."""

    patterns: Any
    corners: Any
    object: Any
    probe: Any
    positions: Any = None
    gaps: Any = None

    @property
    def modes(self) -> Any:
        """The probe as (K, P, P)."""
        return self.probe.reshape(-1, *self.probe.shape[-2:])

    @property
    def layers(self) -> Any:
        """The object as (S, H, W)."""
        return self.object.reshape(-1, *self.object.shape[-2:])


#: What the geometry is said to be, m.
WAVELENGTH, PIXEL = 1e-9, 1e-8


@dataclass(frozen=True)
class Run:
    """loop : calls its argument after every pass; state : object and probe now, as the problem has
    them, and positions where these are refined; settings : for the record;
    packages : whose versions count; uncounted : first passes of another kind, left out of the time
    of a pass; steady : whether the first pass costs no more than the others of its kind.
    """

    loop: Callable[[Callable[[], None]], None]
    state: Callable[[], tuple[Any, ...]]
    settings: dict[str, Any]
    packages: tuple[str, ...]
    uncounted: int = 0
    steady: bool = False


#: Passes of the run that is thrown away: some things begin only with the second, positions later.
WARM_UP, LATER = 3, 8


class Done(Exception):
    """Enough passes or seconds."""


@dataclass
class Recorder:
    """Wall and processor seconds of every pass, and the state after some: 1, 2, 3, 4 and then a
    fifth more each time.
    """

    state: Callable[[], tuple[Any, ...]]
    passes: int
    limit: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)
    probes: list[Any] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self) -> None:
        self.wall.append(time.perf_counter() - self._wall)
        self.cpu.append(time.process_time() - self._cpu)
        count = len(self.wall)
        last = count >= self.passes or sum(self.cpu) >= self.limit
        if last or not self.seen or count >= max(self.seen[-1] + 1, 1.2 * self.seen[-1]):
            found, probe, *places = self.state()
            self.seen.append(count)
            self.objects.append(np.array(found, np.complex64))
            self.probes.append(np.array(probe, np.complex64))
            self.positions += [np.array(place, float) for place in places]
        if last:
            raise Done
        # what was stored is not part of the next pass
        self.start()


def read(path: str) -> Problem:
    with np.load(path) as file:
        return Problem(**{name: file[name] for name in file.files})


def run_once(
    start: Callable[[Problem, str, int], Run],
    problem: Problem,
    algorithm: str,
    passes: int,
    limit: float,
) -> Any:
    """A `Run` from its beginning until it has done its passes or used its seconds; the run and what
    was recorded.
    """
    run = start(problem, algorithm, passes)
    recorder = Recorder(run.state, passes, limit)
    recorder.start()
    with suppress(Done):
        run.loop(recorder)
    return run, recorder


def main(start: Callable[[Problem, str, int], Run]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("problem")
    parser.add_argument("answer")
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--passes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    problem = read(args.problem)
    begin = time.perf_counter()
    first = WARM_UP if problem.positions is None else LATER
    run_once(start, problem, args.algorithm, first, np.inf)
    warm = time.perf_counter() - begin
    run, record = run_once(start, problem, args.algorithm, args.passes, args.seconds)
    facts = {
        "versions": {name: version(name) for name in run.packages},
        "settings": run.settings,
        "uncounted": run.uncounted,
        "steady": run.steady,
        "warm_up_s": warm,
    }
    np.savez(
        Path(args.answer),
        facts=json.dumps(facts),
        wall=record.wall,
        cpu=record.cpu,
        passes=record.seen,
        objects=np.stack(record.objects),
        probes=np.stack(record.probes),
        **({"positions": np.stack(record.positions)} if record.positions else {}),
    )
