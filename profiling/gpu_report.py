"""What the CUDA backend reaches on this machine: ceilings, checks, times, one Markdown table.

Needs this repository, Python with NumPy and SciPy, CuPy and an NVIDIA GPU, and nothing installed:

    python profiling/gpu_report.py [--output FILE] [--lines]

Takes a few minutes. First what the machine can do at best (copies, FFTs, kernels in a graph), then
whether the results are right (against the reference kernels on the CPU, and graphs against single
launches bit for bit), then the times by CUDA events: medians over repeats, errors read after every
sweep as in a real run, beside the same engines in plain CuPy, that is, with the reference kernels
on CuPy arrays.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ptychon.backends.base import Backend
from ptychon.backends.cpu import reference_backend
from ptychon.backends.gpu import cupy_backend
from ptychon.engines import Context, Engine, make
from ptychon.kernels import build
from ptychon.kernels.gpu.far import Far
from ptychon.model.problem import Problem
from ptychon.run.schedule import Batches, Schedule
from ptychon.sweeps.find import fast_step, placed
from ptychon.types import PtychonError

SWEEPS = 50
#: Seconds for 50 sweeps of the default problem that were aimed at on an H200.
TARGETS = {"pie": 0.16, "epie": 0.20, "rpie": 0.20, "ep": 0.30, "ep+em": 0.35, "dm": 0.015}
#: Least ratio to plain CuPy of engines that visit one frame after another.
RATIO = 20
#: Microseconds a position and sweep for batched rPIE: frame side, modes, target.
BATCHED = ((128, 1, 0.5), (256, 10, 20.0))


@dataclass(frozen=True)
class Sizes:
    """How much is measured; small for a trial."""

    points: int = 200
    frame: int = 128
    size: int = 512
    sweeps: int = SWEEPS
    repeats: int = 7
    copy: int = 2**28
    batches: tuple[int, ...] = (1, 8, 32, 100, 200, 400, 1000)
    nodes: int = 2000
    check_points: int = 24
    batched_points: int = 1000


def spiral(
    points: int, frame: int, size: int, modes: int = 1, step: float = 5.0, seed: int = 0
) -> tuple[Problem, Any, Any]:
    """Whole-pixel Fermat spiral over a random object behind a defocused aperture: problem, object,
    probe.
    """
    rng = np.random.default_rng(seed)
    i = np.arange(points)
    angle, radius = 2.399963 * i, step * np.sqrt(i)
    # a spiral that would leave the object turns back: what is timed does not care
    reach = (size - frame) // 2 - 1
    place = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)
    corners = ((size - frame) // 2 + np.clip(place, -reach, reach)).astype(np.int32)
    f = np.fft.fftfreq(size)
    smooth = np.exp(-((f[:, None] ** 2 + f[None] ** 2) / (2 * 0.05**2)))
    noise = [
        np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * smooth).real for _ in range(2)
    ]
    truth = np.exp(1j * noise[1] / noise[1].std()) * (1 + 0.2 * noise[0] / noise[0].std())
    y = (np.arange(frame) - frame // 2) / frame
    r2 = y[:, None] ** 2 + y[None] ** 2
    spectrum = (np.sqrt(r2) < 0.16) * np.exp(-1j * 40 * np.pi * r2)
    first = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho")) * 10
    probe = np.stack(
        [first * np.roll(1 + k * y[:, None], 3 * k, 1) / (1 + k) for k in range(modes)]
    )
    amplitude = np.empty((points, frame, frame), np.float32)
    for j, (r, c) in enumerate(corners):
        wave = np.fft.fft2(probe * truth[r : r + frame, c : c + frame], norm="ortho")
        amplitude[j] = np.sqrt((np.abs(wave) ** 2).sum(axis=0))
    problem = Problem(
        amplitude=amplitude,
        mask=np.ones((1, frame, frame), bool),
        corners=corners,
        shifts=np.zeros((1, 2), np.float32),
        shift_index=np.zeros(points, np.int32),
        object_shape=(size, size),
        counting=False,
        noise_variance=1e-4 * float((amplitude**2).mean()),
    )
    near = truth * (1 + 0.05 * rng.standard_normal(truth.shape))
    return (
        problem,
        near.astype(np.complex64),
        (probe * (1 + 0.02 * rng.standard_normal(probe.shape))).astype(np.complex64),
    )


def engine(name: str) -> Engine:
    """One that does the same in every sweep."""
    if name == "ep":
        return make("ep", probe_updates=0)
    if name == "ep+em":
        return make("ep", probe_start=0)
    return make(name, **({} if name == "pie" else {"probe_start": 0}))


def plain(backend: Backend) -> Backend:
    """The same arrays and FFTs with the reference kernels and no fused sweeps."""
    return replace(backend, kernels=build(), sweeps="")


def seconds(backend: Backend, work: Callable[[], Any]) -> float:
    """By events in the stream where there is one."""
    backend.synchronise()
    if backend.xp is np:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    cuda: Any = backend.xp.cuda  # type: ignore[attr-defined, unused-ignore]
    start, stop = cuda.Event(), cuda.Event()
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return float(cuda.get_elapsed_time(start, stop)) / 1e3


def median(backend: Backend, work: Callable[[], Any], repeats: int) -> float:
    work()
    return statistics.median(seconds(backend, work) for _ in range(repeats))


class Run:
    """An engine on a backend, sweep by sweep, with its errors read as a real run reads them."""

    def __init__(
        self, name: str, case: tuple[Problem, Any, Any], backend: Backend, kind: str = ""
    ) -> None:
        host, object, probe = case
        self.engine, self.ctx = engine(name), Context(backend)
        self.problem = placed(host, backend, self.engine, len(probe))
        self.batches: Batches = Schedule(kind=kind or self.engine.schedule).batches(host, 0)
        self.state = self.engine.init(
            self.problem, backend.asarray(object), backend.asarray(probe), self.ctx
        )
        fused = fast_step(backend, self.engine, self.problem, self.batches)
        self.step: Callable[..., Any] = fused or self.engine.step

    def sweep(self, count: int = 1) -> None:
        for _ in range(count):
            self.state, report = self.step(self.state, self.problem, self.batches, self.ctx)
            for value in (report.misfit, *report.extra.values()):
                if value is not None:
                    float(self.ctx.backend.to_host(value))

    def arrays(self) -> list[Any]:
        names = ("object", "probe", "messages", "waves")
        return [
            self.ctx.backend.to_host(getattr(self.state, n))
            for n in names
            if hasattr(self.state, n)
        ]


# ---------------------------------------------------------------- the parts of the report


def machine(backend: Backend) -> list[str]:
    facts = backend.describe()
    lines = [f"{facts['device']}, Python {platform.python_version()}, NumPy {np.__version__}"]
    if backend.xp is not np:
        cupy: Any = backend.xp
        runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
        lines += [
            f"CuPy {cupy.__version__}, CUDA runtime {runtime.runtimeGetVersion()}, driver "
            f"{runtime.driverGetVersion()}",
            f"compute capability {device.compute_capability}, "
            f"{device.attributes.get('MultiProcessorCount')} multiprocessors, "
            f"L2 {device.attributes.get('L2CacheSize', 0) / 2**20:.0f} MiB, memory "
            f"{facts['memory'] / 2**30:.0f} GiB",
        ]
    return lines


def ceilings(backend: Backend, launcher: Any, sizes: Sizes) -> list[str]:
    """Copy, FFTs by batch, and what a kernel in a graph costs that does nothing."""
    xp = backend.xp
    a, b = xp.zeros(sizes.copy, "float32"), xp.empty(sizes.copy, "float32")
    t = median(backend, lambda: xp.copyto(b, a), sizes.repeats)
    lines = [
        f"copy of {a.nbytes / 2**20:.0f} MiB: {2 * a.nbytes / t / 1e12:.2f} TB/s read and written"
    ]
    for frame in (sizes.frame, 2 * sizes.frame):
        row = []
        for batch in sizes.batches:
            wave = xp.zeros((batch, frame, frame), "complex64")
            reps = max(1, 200 // batch)

            def transform(wave: Any = wave, reps: int = reps) -> None:
                for _ in range(reps):
                    launcher.fft(wave, wave, False)

            row.append(
                f"{batch}: {1e6 * median(backend, transform, sizes.repeats) / (reps * batch):.3f}"
            )
        lines.append(
            f"FFT {frame}x{frame}, us a transform by batch, launched singly: " + ", ".join(row)
        )
    x: Any = xp.zeros(32, "float32")
    for label, blocks in (("1 block", 1), ("64 blocks", 64)):
        graphs: dict[Any, Any] = {}

        def nothing(blocks: int = blocks) -> Any:
            for _ in range(sizes.nodes):
                yield lambda: launcher.launch("fill", (blocks, 1), x, x.size, 0.0)

        def go(graphs: dict[Any, Any] = graphs, nothing: Any = nothing) -> None:
            launcher.run(graphs, "nothing", nothing)

        go()
        lines.append(
            f"graph of {sizes.nodes} empty kernels of {label}: "
            f"{1e6 * median(backend, go, 5) / sizes.nodes:.2f} us a node"
        )
    return lines


def checks(backend: Backend, eager: Backend, sizes: Sizes) -> list[str]:
    """Against the reference kernels on the CPU, and graphs against single launches. Raises nothing:
    says what it found.
    """
    lines = []
    case = spiral(sizes.check_points, sizes.frame // 2, sizes.size // 2)
    for name in TARGETS:
        runs = [Run(name, case, b) for b in (backend, eager, reference_backend())]
        for run, count in zip(runs, (4, 4, 4), strict=True):
            run.sweep(count)
        found, single, wanted = (run.arrays() for run in runs)
        error = max(
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in zip(found, wanted, strict=True)
        )
        same = all(np.array_equal(a, b) for a, b in zip(found, single, strict=True))
        verdict = "right" if error < 1e-3 and same else "WRONG"
        lines.append(
            f"{name}: {verdict}; {error:.1e} from the reference after 4 sweeps, "
            f"graphs {'equal' if same else 'DIFFER FROM'} single launches"
        )
    return lines


def far_checks(backend: Backend, sizes: Sizes) -> list[str]:
    """Frames, waves and messages on the host, sent in groups of a few, against all of them on the
    device.
    """
    lines = []
    case = spiral(sizes.check_points, sizes.frame // 2, sizes.size // 2)
    launcher = backend.launcher
    whole, launcher.group_bytes = launcher.group_bytes, 12 * case[0].amplitude[0].nbytes

    def stay(frames: Any) -> Far:
        return Far(frames, backend.asarray, backend.to_host)

    for name in ("rpie", "dm", "ep", "ep+em"):
        runs = [
            Run(name, case, b)
            for b in (replace(backend, stay=stay, frames_on_host=True, kept={}), backend)
        ]
        for run in runs:
            run.sweep(4)
        found, wanted = (run.arrays() for run in runs)
        error = max(
            float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))
            for a, b in zip(found, wanted, strict=True)
        )
        verdict = "right" if error < 1e-3 else "WRONG"
        lines.append(
            f"{name}, frames on the host: {verdict}; {error:.1e} from frames on the device"
        )
    launcher.group_bytes = whole
    return lines


def times(backend: Backend, eager: Backend, sizes: Sizes) -> list[str]:
    """The table."""
    case = spiral(sizes.points, sizes.frame, sizes.size)
    lines = [
        f"| engine | {sizes.sweeps} sweeps, s | us a position | target, s | single launches, us "
        "| plain CuPy, us | ratio "
        "| reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, target in TARGETS.items():
        n = len(case[0])
        run = Run(name, case, backend)
        run.sweep(12)  # every kind of sweep twice: launched, then captured
        t = median(backend, lambda run=run: run.sweep(sizes.sweeps), sizes.repeats)  # type: ignore[misc]
        each = []
        for other in (eager, plain(backend)):
            slow = Run(name, case, other)
            slow.sweep(2)
            each.append(median(backend, lambda slow=slow: slow.sweep(5), 3) / 5)  # type: ignore[misc]
            del slow
        ratio = each[1] * sizes.sweeps / t
        ok = t <= target and (ratio >= RATIO or name == "dm")
        us = 1e6 / n
        cells = (
            f"{t:.4f} | {t / sizes.sweeps * us:.2f} | {target} | {each[0] * us:.1f} | "
            f"{each[1] * us:.0f} | {ratio:.0f}"
        )
        lines.append(f"| {name} | {cells} | {'yes' if ok else 'no'} |")
        del run
    lines += [
        "",
        "| batched rPIE | positions | us a position | target, us | reached |",
        "|---|---|---|---|---|",
    ]
    for frame, modes, wanted in BATCHED:
        side = frame * sizes.frame // 128
        case = spiral(max(2, sizes.batched_points * 128 // frame), side, 4 * side, modes)
        run = Run("rpie", case, backend, "parallel")
        run.sweep(3)
        t = median(backend, lambda run=run: run.sweep(5), sizes.repeats) / 5 / len(case[0])  # type: ignore[misc]
        label = f"{side}x{side}, {modes} mode{'s' if modes > 1 else ''}"
        lines.append(
            f"| {label} | {len(case[0])} | {1e6 * t:.3f} | {wanted} | "
            f"{'yes' if 1e6 * t <= wanted else 'no'} |"
        )
        del run
    return lines


def report(
    backend: Backend, eager: Backend, launcher: Any, sizes: Sizes, say: Callable[[str], None]
) -> None:
    """All parts, each said as soon as it is known, so that a run that is cut short has said
    something.
    """
    begin = time.perf_counter()
    parts: list[tuple[str, Callable[[], list[str]]]] = [
        ("Machine", lambda: machine(backend)),
        ("Ceilings", lambda: ceilings(backend, launcher, sizes)),
        ("Checks", lambda: [*checks(backend, eager, sizes), *far_checks(backend, sizes)]),
        (
            f"Times: {sizes.points} positions of {sizes.frame}x{sizes.frame}",
            lambda: times(backend, eager, sizes),
        ),
    ]
    for title, part in parts:
        say(f"\n## {title}\n")
        for line in part():
            say(line if line.startswith("|") or not line else f"- {line}")
    say(f"\nTook {time.perf_counter() - begin:.0f} s.")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see whether it runs")
    parser.add_argument(
        "--lines", action="store_true", help="use the kernels that have the transforms inside"
    )
    args = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if args.output:
            args.output.write_text("\n".join(lines) + "\n")

    sizes = (
        Sizes(points=20, size=256, repeats=3, sweeps=5, copy=2**24, nodes=100, batched_points=50)
        if args.quick
        else Sizes()
    )
    try:
        from ptychon.kernels.gpu.launch import CupyLauncher

        backend = cupy_backend(lines=args.lines)
        eager = cupy_backend(graphs=False, lines=args.lines)
        report(backend, eager, CupyLauncher(), sizes, say)
    except PtychonError as error:
        print(f"gpu_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
