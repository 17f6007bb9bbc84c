"""Ptychon beside other packages: the same simulated scan, the same clock, each package in an
environment of its own.

    error  ||c E - T||/||T|| over the lit object, after translation, phase ramp and factor are taken
           out (`alignment.align`)
    R      of `metrics.residual`, with the package's object and probe

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

from ..engines import nearest
from ..types import PtychonError
from .clock import machine
from .peers_scans import SCANS, Bench, make_bench

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
    measured, thick : tuples of str
        Those that it runs on the scans of these names; each has what the scan asks for.
    installs : tuple of tuples of str
        Arguments of each ``pip install``, in order; none where the environment that runs this has
        the package.
    """

    algorithms: tuple[str, ...]
    installs: tuple[tuple[str, ...], ...] = ()
    measured: tuple[str, ...] = ()
    thick: tuple[str, ...] = ()

    def on(self, scan: str) -> tuple[str, ...]:
        """Algorithms for a scan."""
        return self.algorithms if scan == "plain" else getattr(self, scan)  # type: ignore[no-any-return]


#: PyTorch first and pinned: of this version there are builds without CUDA.
_TORCH = ("torch==2.13.0",)
PEERS: dict[str, Peer] = {
    "ptychon": Peer(
        ("epie", "rpie", "dm", "dm, then rpie", "ep"),
        measured=("rpie", "lsqml", "ml"),
        thick=("rpie", "lsqml", "ml"),
    ),
    "ptychi": Peer(
        ("epie", "epie, one by one", "rpie", "lsqml", "dm", "autodiff"),
        (_TORCH, (*_TORCH, "ptychi")),
        measured=("lsqml", "rpie"),
        thick=("lsqml", "rpie"),
    ),
    "ptylab": Peer(("epie", "mpie"), (("ptylab",),), measured=("mpie",), thick=("e3pie",)),
    "phaserem": Peer(
        ("epie", "epie, tuned", "lsqml", "gradient"),
        (("phaserem[jax]",),),
        measured=("lsqml", "gradient"),
        thick=("lsqml", "gradient"),
    ),
    "cdtools": Peer(
        ("adam, fancy", "adam, simple"),
        (_TORCH, (*_TORCH, "cdtools-py")),
        measured=("adam, fancy",),
    ),
}


def chosen(wanted: Sequence[str], scan: str = "plain") -> list[tuple[str, str]]:
    """(package, algorithm) pairs for a scan that a list such as ("ptychon", "ptychi:dm") names; all
    for an empty list.

    Raises
    ------
    PtychonError
        A name that is neither a package nor ``package:algorithm``.
    """
    pairs = [(name, algorithm) for name, peer in PEERS.items() for algorithm in peer.on(scan)]
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
        stored, `objects` (S, H, W) and `probes` (S, P, Q), with an axis of slices or modes where
        there are several; `positions` (S, N, 2) where they are found; `facts`, JSON.

    Returns
    -------
    dict
        The first pass, in which some packages compile once more, counts as a median one, unless
        the adapter says that it is steady.
        `versions`, `settings`, `passes`; `us` and `cpu_us`, median of a position and pass, wall and
        processor; `curve`, dicts of pass, wall_s, cpu_s, error, R (None where a state is not
        finite), and `off`, rms error of the positions, px; `reached`, for each of `TARGETS` the
        (wall, processor) seconds of the first stored state below it, or None; `error` and `R` at
        the end.
    """
    facts = json.loads(str(answer["facts"]))
    wall, cpu = (np.asarray(answer[name], float) for name in ("wall", "cpu"))
    each = slice(min(int(facts["uncounted"]), len(wall) - 1), None)
    if not facts.get("steady"):
        for times in (wall, cpu):
            times[0] = np.median(times[each])
    curve = []
    places = answer["positions"] if "positions" in answer else [None] * len(answer["passes"])
    for count, found, probe, where in zip(
        answer["passes"].tolist(), answer["objects"], answer["probes"], places, strict=True
    ):
        error, R, off = bench.quality(found, probe, where)
        until = float(wall[:count].sum()), float(cpu[:count].sum())
        point = {"pass": count, "wall_s": until[0], "cpu_s": until[1], "error": error, "R": R}
        curve.append(point | ({} if off is None else {"off": off}))
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
    } | ({"off": curve[-1]["off"]} if "off" in curve[-1] else {})


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
    scan: str = "plain",
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
    scan : str
        Of `peers_scans.SCANS`.
    bench : Bench, optional
        In place of what makes that scan.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Ready for JSON: `about`, `machine`, `passes`, `seconds`, and `rows`: package, algorithm,
        threads, and what `measure` found or `failed`, a sentence.
    """
    pairs, place = chosen(wanted, scan), Path(folder).resolve()
    bench = bench or SCANS[scan]()
    pythons: dict[str, Path | str] = {}
    for name in dict.fromkeys(name for name, _ in pairs):
        try:
            pythons[name] = install(name, place, say)
        except PtychonError as error:
            pythons[name] = str(error)
    rows = []
    with tempfile.TemporaryDirectory() as there:
        problem = Path(there) / "problem.npz"
        np.savez(problem, **bench.file())
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
        "scan": scan,
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


__all__ = ["PEERS", "Bench", "Peer", "chosen", "compare", "install", "make_bench", "measure"]
