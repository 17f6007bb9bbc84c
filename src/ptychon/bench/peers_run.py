"""Ptychon beside other packages: the same simulated scan, the same clock, each package in an
environment of its own.

    error  ||c E - T||/||T|| over the lit object, after translation, phase ramp and factor are taken
    out (`alignment.align`) R      of `metrics.residual`, with the package's object and probe

Everyone starts from the same object and probe and gets the scan as a file. Adapters (in the folder
`peers` beside this file, never imported here) run a package the way its own documentation does and
store its state after some passes; errors are computed here afterwards, by one code for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..engines import nearest
from ..metrics.alignment import align
from ..metrics.residual import illuminated, residual
from ..model.problem import Problem
from ..run.guess import initial_object, mean_power, scaled_probe
from ..simulation import phantoms, probes, scan
from ..simulation.simulate import simulate
from ..types import BoolArray, ComplexArray, PtychonError
from .clock import machine

#: Where the adapters are.
ADAPTERS = Path(__file__).parent / "peers"
#: Errors of the object whose first reaching is timed.
TARGETS = (0.1, 0.05, 0.03)
#: Wall seconds an installation step, and a run beyond what it is allowed of the processor, may
#: take.
PATIENCE = 1800.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Peer:
    """A package.

    Attributes
    ----------
    algorithms : tuple of str
        What its adapter knows.
    installs : tuple of tuples of str
        Arguments of each ``pip install``, in order; none where the environment that runs this has
        the package.
    """

    algorithms: tuple[str, ...]
    installs: tuple[tuple[str, ...], ...] = ()


#: PyTorch first and pinned: of this version there are builds without CUDA.
_TORCH = ("torch==2.13.0",)
PEERS: dict[str, Peer] = {
    "ptychon": Peer(("epie", "rpie", "dm", "dm, then rpie", "ep")),
    "ptychi": Peer(
        ("epie", "epie, one by one", "rpie", "lsqml", "dm", "autodiff"),
        (_TORCH, (*_TORCH, "ptychi")),
    ),
    "ptylab": Peer(("epie", "mpie"), (("ptylab",),)),
    "phaserem": Peer(("epie", "epie, tuned", "lsqml", "gradient"), (("phaserem[jax]",),)),
    "cdtools": Peer(("adam, fancy", "adam, simple"), (_TORCH, (*_TORCH, "cdtools-py"))),
}


@dataclass(frozen=True)
class Bench:
    """The scan, what is true of it, and where everyone starts: object (H, W), probes (1, P, Q), lit
    (H, W).
    """

    data: Dataset
    problem: Problem
    truth: ComplexArray
    object: ComplexArray
    probe: ComplexArray
    lit: BoolArray
    about: str


def make_bench(
    *, side: int = 14, step: int = 12, frame: int = 128, mean_counts: float = 1e6, seed: int = 0
) -> Bench:
    """A raster of `side` x `side` whole-pixel positions with two pixels of jitter, Poisson counts.

    Parameters
    ----------
    side, step, frame : int
        Positions a side; step and side of the frames, px.
    mean_counts : float
        Of a frame.
    seed : int
    """
    probe = probes.defocused_aperture((frame, frame), 0.16 * frame, 0.75 * frame)
    first = probes.defocused_aperture((frame, frame), 0.15 * frame, 0.7 * frame)
    positions = np.rint(scan.raster(side, step, jitter=2, seed=seed))
    size = 2 * (-(-int(np.abs(positions).max() * 2 + frame + 8) // 2))
    picture, phase = phantoms.texture((size, size), seed), phantoms.texture((size, size), seed + 1)
    truth = phantoms.complex_object(picture, phase, amplitude_range=(0.2, 1.0))
    made = simulate(truth, probe, positions, noise="poisson", mean_counts=mean_counts, seed=seed)
    problem = Problem.from_dataset(made.dataset)
    power = mean_power(problem)
    start = scaled_probe(first[None], power)
    about = (
        f"{len(problem)} positions of {frame}x{frame} px, {step} px apart, on an object of "
        f"{size}x{size} px; Poisson noise, "
        f"{mean_counts:g} counts a frame; R of the true object is "
        f"{residual(problem, truth, made.probe):.4f}"
    )
    lit = illuminated(problem, made.probe)
    return Bench(
        made.dataset, problem, truth, initial_object(problem, start, power), start, lit, about
    )


def chosen(wanted: Sequence[str]) -> list[tuple[str, str]]:
    """(package, algorithm) pairs that a list such as ("ptychon", "ptychi:dm") names; all for an
    empty list.

    Raises
    ------
    PtychonError
        A name that is neither a package nor ``package:algorithm``.
    """
    pairs = [(name, algorithm) for name, peer in PEERS.items() for algorithm in peer.algorithms]
    if not wanted:
        return pairs
    known = [*PEERS, *(":".join(pair) for pair in pairs)]
    for word in wanted:
        if word not in known:
            raise PtychonError(f"unknown peer {word!r}; {nearest(word, known)}")
    return [pair for pair in pairs if pair[0] in wanted or ":".join(pair) in wanted]


def install(name: str, folder: Path, say: Say) -> Path:
    """The interpreter of a package's environment, made in `folder` if it is not there.

    Raises
    ------
    PtychonError
        If the environment cannot be made or a package does not install, with pip's last line.
    """
    peer = PEERS[name]
    if not peer.installs:
        return Path(sys.executable)
    home = folder / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = home / "installed.json"
    if done.exists() and json.loads(done.read_text()) == [list(step) for step in peer.installs]:
        return python
    say(f"{name}: a virtual environment in {home}")
    _run([sys.executable, "-m", "venv", "--clear", str(home)], f"{name}: its environment", 1)
    for step in peer.installs:
        say(f"{name}: pip install {' '.join(step)}")
        _run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step],
            f"{name}: pip install",
            1,
        )
    done.write_text(json.dumps(peer.installs))
    return python


def _run(
    command: list[str], what: str, threads: int, limit: float = PATIENCE, here: Path | None = None
) -> None:
    """Run a command in an environment without ours and with a number of threads; its last error
    line where it fails.
    """
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    clean |= dict.fromkeys(names, count) | {
        "MPLBACKEND": "Agg",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # threads that wait for each other and spin would be charged for other people's work
    clean["OMP_WAIT_POLICY"] = "PASSIVE"
    if command[0] == sys.executable:
        clean["PYTHONPATH"] = str(Path(__file__).parents[2])
    try:
        done = subprocess.run(
            command, env=clean, cwd=here, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise PtychonError(f"{what} did not end within {limit:.0f} s") from None
    if done.returncode:
        raise PtychonError(f"{what} failed: {last_error(done.stderr)}")


def last_error(text: str) -> str:
    """The last line of an error output that says something."""
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("[notice]")
    ]
    return lines[-1][:200] if lines else "no message"


def measure(bench: Bench, answer: Any) -> dict[str, Any]:
    """What an adapter's answer says: times of a pass, errors against seconds.

    Parameters
    ----------
    bench : Bench
    answer : mapping
        `wall` and `cpu` (passes,) seconds of each pass; `passes` (S,) after which a state was
        stored, `objects` (S, H, W) and `probes` (S, P, Q); `facts`, JSON.

    Returns
    -------
    dict
        The first pass, in which some packages compile once more, counts as a median one.
        `versions`, `settings`, `passes`; `us` and `cpu_us`, median of a position and pass, wall and
        processor; `curve`, dicts of pass, wall_s, cpu_s, error, R (None where a state is not
        finite); `reached`, for each of `TARGETS` the (wall, processor) seconds of the first stored
        state below it, or None; `error` and `R` at the end.
    """
    facts = json.loads(str(answer["facts"]))
    wall, cpu = (np.asarray(answer[name], float) for name in ("wall", "cpu"))
    each = slice(min(int(facts["uncounted"]), len(wall) - 1), None)
    for times in (wall, cpu):
        times[0] = np.median(times[each])
    curve = []
    for count, found, probe in zip(
        answer["passes"].tolist(), answer["objects"], answer["probes"], strict=True
    ):
        error, R = _quality(bench, found, probe)
        until = float(wall[:count].sum()), float(cpu[:count].sum())
        curve.append({"pass": count, "wall_s": until[0], "cpu_s": until[1], "error": error, "R": R})
    scale = 1e6 / len(bench.problem)
    return {
        "versions": facts["versions"],
        "settings": facts["settings"],
        "warm_up_s": facts["warm_up_s"],
        "passes": len(wall),
        "us": scale * float(np.median(wall[each])),
        "cpu_us": scale * float(np.median(cpu[each])),
        "curve": curve,
        "reached": {str(target): _first_below(curve, target) for target in TARGETS},
        "error": curve[-1]["error"],
        "R": curve[-1]["R"],
    }


def _quality(
    bench: Bench, found: ComplexArray, probe: ComplexArray
) -> tuple[float | None, float | None]:
    if not (np.isfinite(found).all() and np.isfinite(probe).all()):
        return None, None
    try:
        error = 10 ** (-align(found, bench.truth, region=bench.lit, subpixel=True).error_db / 20)
    except PtychonError:
        return None, None
    with np.errstate(over="ignore"):
        R = residual(bench.problem, found, probe)
    return error, R if np.isfinite(R) else None


def _first_below(curve: list[dict[str, Any]], target: float) -> tuple[float, float] | None:
    return next(
        (
            (row["wall_s"], row["cpu_s"])
            for row in curve
            if row["error"] is not None and row["error"] <= target
        ),
        None,
    )


def compare(
    wanted: Sequence[str] = (),
    threads: Sequence[int] = (1, 2),
    folder: Path | str = "peers",
    *,
    passes: int = 200,
    seconds: float = 60.0,
    bench: Bench | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Install what is missing, then run every algorithm of every package, one after another.

    Parameters
    ----------
    wanted : sequence of str
        Packages, or ``package:algorithm``; all if there are none.
    threads : sequence of int
    folder : path
        For the environments; they are kept.
    passes : int
        Most passes of a run.
    seconds : float
        Most processor seconds of a run.
    bench : Bench, optional
        Default `make_bench`.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Ready for JSON: `about`, `machine`, `passes`, `seconds`, and `rows`: package, algorithm,
        threads, and what `measure` found or `failed`, a sentence.
    """
    pairs, place = chosen(wanted), Path(folder).resolve()
    bench = bench or make_bench()
    pythons: dict[str, Path | str] = {}
    for name in dict.fromkeys(name for name, _ in pairs):
        try:
            pythons[name] = install(name, place, say)
        except PtychonError as error:
            pythons[name] = str(error)
    rows = []
    with tempfile.TemporaryDirectory() as there:
        problem = Path(there) / "problem.npz"
        patterns = np.asarray(bench.data.patterns, np.float32)
        np.savez(
            problem,
            patterns=patterns,
            corners=bench.problem.corners,
            object=bench.object,
            probe=bench.probe[0],
        )
        for count in threads:
            for name, algorithm in pairs:
                say(f"{name}: {algorithm}, {count} thread{'s' if count > 1 else ''}")
                row: dict[str, Any] = {"package": name, "algorithm": algorithm, "threads": count}
                python = pythons[name]
                try:
                    if isinstance(python, str):
                        raise PtychonError(python)
                    row |= _one(bench, python, name, algorithm, count, problem, passes, seconds)
                except PtychonError as error:
                    row["failed"] = str(error)
                rows.append(row)
    return {
        "about": bench.about,
        "machine": machine(),
        "passes": passes,
        "seconds": seconds,
        "rows": rows,
    }


def _one(
    bench: Bench,
    python: Path,
    name: str,
    algorithm: str,
    threads: int,
    problem: Path,
    passes: int,
    seconds: float,
) -> dict[str, Any]:
    answer = problem.with_name("answer.npz")
    answer.unlink(missing_ok=True)
    script = str(ADAPTERS / f"run_{name}.py")
    options = ["--algorithm", algorithm, "--passes", str(passes), "--seconds", str(seconds)]
    command = [str(python), script, str(problem), str(answer), *options]
    _run(command, f"{name}: {algorithm}", threads, PATIENCE + 4 * seconds, problem.parent)
    with np.load(answer) as file:
        return measure(bench, file)
