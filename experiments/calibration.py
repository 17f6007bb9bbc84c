"""Do the error bars cover? One factor varied at a time: dose, overlap, noise, masks, kind of
object, probe known or not.

Every cell is simulated several times with fresh noise and reconstructed from the data alone:
Ptycho-EP (the probe given, or learned from a first guess made of the frames), then the joint
posterior and its check on a twin (`ptychon.uncertainty.joint`). Errors are compared on pixels with
at least half of the mean illumination, after alignment: of the global phase where the probe is
known, of scale, phase ramp and translation where it is not. Ptycho-EP takes no beam of several
modes: PIE (modes known), or the difference map and rPIE (learned, from the same guess and a weak
second mode), stand in for it. Learned modes come out mixed, which no data can tell and the object
does not see. With u = |error|/bar true bars have

    P(u < sqrt(-ln(1 - p))) = p,   mean u^2 = 1,

and amplitude and phase errors (of pixels brighter than three bars) fall inside z bars as often as a
Gaussian. "holds" is the share of runs of which the twin said that their bars hold: where it is not
100 % the package says so itself.

    python experiments/calibration.py --trials 5
    python experiments/calibration.py --trials 20 --write docs/uncertainty.md

Trials are kept in the output folder: a run that was stopped goes on from them. Empty the folder
after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool as ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from common import COLOURS, Row, command, figure, say, show, write
from scipy.stats import norm

from ptychon import Problem, PtychonError, PtychonWarning, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.data.result import Result
from ptychon.metrics.alignment import align, phase_align
from ptychon.metrics.residual import PROBABILITIES
from ptychon.run.first_probe import find_probe
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import Simulation, beam_stop, simulate
from ptychon.types import ComplexArray
from ptychon.uncertainty.joint import joint, lit_region

FRAME, APERTURE = 48, 0.45
#: Share of the light of a second mode, and that of the first guess of it.
SECOND, GUESSED = 0.2, 0.1
SWEEPS_KNOWN, SWEEPS_BLIND, WARM, PASSES_MODES = 100, 200, 200, 800
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"


@dataclass(frozen=True)
class Cell:
    """One cell of the table; `dose` is counts a frame, or None for Gaussian amplitude noise at
    `snr` dB.

    With two `modes` the second has a fifth of the light. `background` and `read_noise` are counts a
    pixel; they are stated with the data unless `told` is false: then what is negative is cut off.
    """

    name: str
    dose: float | None = 1e5
    snr: float = 30.0
    overlap: float = 0.8
    sample: str = "dense"
    masked: bool = False
    known: bool = True
    modes: int = 1
    background: float | None = None
    read_noise: float | None = None
    told: bool = True

    @property
    def title(self) -> str:
        """The name, and whether the probe is known."""
        return f"{self.name} ({'known' if self.known else 'learned'})"


def cells() -> list[Cell]:
    """The base case and one change at a time, with the probe known, then unknown."""
    known = [
        Cell("base: 1e5 counts a frame, overlap 80 %, dense"),
        *(
            Cell(f"{dose:.0e} counts".replace("e+0", "e"), dose=dose)
            for dose in (1e2, 1e3, 1e4, 1e6)
        ),
        *(Cell(f"overlap {100 * share:.0f} %", overlap=share) for share in (0.6, 0.7, 0.9)),
        Cell("beam stop and 2 % bad pixels", masked=True),
        Cell("sparse object", sample="sparse"),
        Cell("speckle (white) object", sample="white"),
        Cell("Gaussian noise, 30 dB", dose=None),
        Cell("Gaussian noise, 10 dB", dose=None, snr=10.0),
        Cell("two modes, 80 and 20 %", modes=2),
        Cell("1e6 counts a pixel", dose=1e6 * FRAME**2),
        Cell("background 2, read noise 1.5", background=2.0, read_noise=1.5),
        Cell("1e4 counts, background 2, read noise 1.5", dose=1e4, background=2.0, read_noise=1.5),
        Cell("background 2, read noise 1.5, not told", background=2.0, read_noise=1.5, told=False),
    ]
    unknown = [
        Cell("base", known=False),
        *(
            Cell(f"{dose:.0e} counts".replace("e+0", "e"), dose=dose, known=False)
            for dose in (1e3, 1e4, 1e6)
        ),
        *(Cell(f"overlap {100 * share:.0f} %", overlap=share, known=False) for share in (0.7, 0.9)),
        Cell("beam stop and 2 % bad pixels", masked=True, known=False),
        Cell("sparse object", sample="sparse", known=False),
        Cell("Gaussian noise, 30 dB", dose=None, known=False),
        Cell("two modes, 80 and 20 %", modes=2, known=False),
        Cell("1e6 counts a pixel", dose=1e6 * FRAME**2, known=False),
        Cell("background 2, read noise 1.5", background=2.0, read_noise=1.5, known=False),
    ]
    return known + unknown


def simulated(cell: Cell, seed: int) -> Simulation:
    """The data of a cell: a jittered raster of about 64 positions (fewer where they overlap less)
    on 128 pixels and more.
    """
    step = round((1 - cell.overlap) * 2 * APERTURE * FRAME)
    side = max(5, min(11, round(69 / step)))
    size = (side - 1) * step + FRAME + 10
    rng = np.random.default_rng(10_000 + seed)
    if cell.sample == "white":
        noise_like = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
        sample = (noise_like / 2**0.5 + 0.5).astype(np.complex64)
    else:
        make, low = (phantoms.texture, 0.1) if cell.sample == "dense" else (phantoms.blobs, 0.0)
        parts = make((size, size), 2 * seed + 1), phantoms.texture((size, size), 2 * seed + 2)
        sample = phantoms.complex_object(
            *parts, amplitude_range=(low, 1.0), phase_range=(0.0, np.pi / 2)
        )
    light = probes.circular_aperture((FRAME, FRAME), APERTURE * FRAME)[None]
    if cell.modes == 2:
        light = with_second(light, SECOND, (0.0, 1.0))
    where = scan.raster(side, step, jitter=2, seed=seed)
    mask = None
    if cell.masked:
        mask = beam_stop((FRAME, FRAME), 3.0, 1.0) & (rng.random((FRAME, FRAME)) > 0.02)
    noise: dict[str, Any] = {"noise": "poisson", "mean_counts": cell.dose}
    if cell.dose is None:
        noise = {"noise": "gaussian", "snr_db": cell.snr}
    if cell.background is not None or cell.read_noise is not None:
        noise |= {"background": cell.background, "read_noise": cell.read_noise}
    made = simulate(sample, light, where, mask=mask, subpixel=False, seed=seed, **noise)
    if not cell.told:
        frames = np.maximum(made.dataset.patterns, 0)
        made = replace(
            made, dataset=replace(made.dataset, patterns=frames, background=None, read_noise=None)
        )
    return made


def with_second(beam: ComplexArray, share: float, direction: tuple[float, float]) -> ComplexArray:
    """(2, P, Q): a beam (1, P, Q), and the same times a coordinate with that share of the light:
    that of a source which is a little wide in this direction."""
    y, x = np.indices(beam.shape[1:]) - np.array(beam.shape[1:])[:, None, None] // 2
    second = beam[0] * (direction[0] * y + direction[1] * x)
    second *= np.sqrt(share / (1 - share)) * np.linalg.norm(beam) / np.linalg.norm(second)
    return np.stack([beam[0], second]).astype(np.complex64)


def begun(cell: Cell, made: Simulation, problem: Problem, seed: int) -> Result:
    """What the joint posterior starts from, made of the data (and of the probe, where
    it is known).
    """
    if cell.known and cell.modes == 1:
        return reconstruct(
            problem, "ep", passes=SWEEPS_KNOWN, probe=made.probe, probe_updates=0, backend="numpy"
        )
    if cell.known:
        return reconstruct(problem, "pie", passes=SWEEPS_KNOWN, probe=made.probe, backend="numpy")
    if cell.modes == 1:
        recipe = Recipe(Stage("dm", WARM, aside=True), Stage("ep", SWEEPS_BLIND))
        return reconstruct(made.dataset, recipe, backend="numpy")
    guess = with_second(find_probe(problem, get_backend("numpy")), GUESSED, (1.0, 1.0))
    found = reconstruct(problem, "dm", passes=PASSES_MODES, probe=guess, backend="numpy")
    return reconstruct(
        problem, "rpie", passes=PASSES_MODES, start=found, seed=seed, backend="numpy"
    )


def trial(task: tuple[Cell, int]) -> Row | None:
    """One realisation of a cell; None where every attempt failed."""
    cell, seed = task
    made, began = simulated(cell, seed), time.perf_counter()
    problem = Problem.from_dataset(made.dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PtychonWarning)
        try:
            start = begun(cell, made, problem, seed)
            found, posterior, twin = joint(
                problem,
                start,
                update=("object",) if cell.known else ("object", "probe"),
                backend="numpy",
                seed=seed,
            )
        except PtychonError as error:
            say(f"  {cell.name}, seed {seed}: {error}")
            return None
    lit, truth = lit_region(problem, found), made.object
    assert twin is not None
    scale = 1.0
    if cell.known:
        estimate: Any = phase_align(found.object, truth, lit)
    else:
        laid = align(found.object, truth, region=lit, max_shift=8, subpixel=True)
        estimate, scale = laid.estimate, 1 / abs(laid.scale)
    inside = lit & (np.abs(estimate) > 0)
    error, size = (estimate - truth)[inside], np.abs(estimate[inside])
    turned = error * (estimate[inside].conj() / size)
    u = np.abs(error) / (found.object_std[inside] * scale)
    amplitude = np.abs(turned.real) / (posterior.amplitude_std[inside] * scale)
    phase = np.abs(np.angle(estimate[inside] * truth[inside].conj())) / posterior.phase_std[inside]
    row: Row = {"u2": float(np.mean(u**2)), "holds": twin.holds, "temperature": twin.temperature}
    row |= {"misfit": twin.misfit, "assumed": twin.assumed}
    row |= {f"p{p}": float(np.mean(u < np.sqrt(-np.log1p(-p)))) for p in PROBABILITIES}
    bright = size > 3 * found.object_std[inside] * scale
    for name, v in (("a", amplitude), ("f", phase)):
        row |= {
            f"{name}{p}": float(np.mean(v[bright] < norm.ppf(0.5 + p / 2))) for p in (0.683, 0.95)
        }
    row["dB"] = 10 * float(
        np.log10(np.sum(np.abs(truth[inside]) ** 2) / np.sum(np.abs(error) ** 2))
    )
    row["seconds"] = time.perf_counter() - began
    return row


def table(results: Sequence[tuple[Cell, list[Row]]], trials: int) -> list[Row]:
    """Means over realisations, in percent."""
    rows = []
    for cell, found in results:
        row: Row = {
            "probe": "known" if cell.known else "learned",
            "cell": cell.name,
            "runs": f"{len(found)}/{trials}",
        }
        if found:
            mean = {key: float(np.mean([r[key] for r in found])) for key in found[0]}
            row |= {"dB": round(mean["dB"], 1)}
            row |= {f"{100 * p:g} %": round(100 * mean[f"p{p}"], 1) for p in PROBABILITIES}
            row |= {"mean u2": round(mean["u2"], 2), "ampl. 68.3 %": round(100 * mean["a0.683"], 1)}
            row |= {
                "phase 68.3 %": round(100 * mean["f0.683"], 1),
                "twin T": round(mean["temperature"], 2),
            }
            row |= {"misfit": round(mean["misfit"], 2), "assumed %": round(100 * mean["assumed"])}
            row |= {"holds %": round(100 * mean["holds"])}
        rows.append(row)
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table as it stands in the documentation."""
    names = list(max(rows, key=len))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(
        [*lines, *("| " + " | ".join(str(row.get(n, "")) for n in names) + " |" for row in rows)]
    )


def picture(results: Sequence[tuple[Cell, list[Row]]]) -> Any:
    """What is covered against what should be, a line a cell."""
    canvas = figure(9, 6.4)
    for number, known in enumerate((True, False)):
        axes = canvas.add_subplot(1, 2, number + 1)
        axes.plot([0.4, 1], [0.4, 1], color="0.6", linewidth=1)
        for cell, found in results:
            if cell.known == known and found:
                trusted = np.mean([r["holds"] for r in found]) > 0.5
                y = [np.mean([r[f"p{p}"] for r in found]) for p in PROBABILITIES]
                index = [c for c, _ in results if c.known == known].index(cell)
                style: dict[str, Any] = {
                    "color": COLOURS[index % len(COLOURS)],
                    "linewidth": 1,
                    "markersize": 4,
                }
                axes.plot(PROBABILITIES, y, "o-" if trusted else "x:", label=cell.name, **style)
        axes.set(
            title=f"probe {'known' if known else 'learned'}",
            xlabel="stated probability",
            ylabel="pixels covered",
        )
        axes.set(xlim=(0.45, 1), ylim=(0.3, 1.02))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                fontsize=6, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False
            )
    return canvas


def pool_of(processes: int) -> Any:
    """Processes that each begin anew."""
    return multiprocessing.get_context("spawn").Pool(processes)


def put(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """The table between its marks in a page."""
    page = path.read_text("utf-8")
    if begin not in page or end not in page:
        raise PtychonError(f"{path} lacks the marks {begin} and {end} between which the table goes")
    head, tail = page.split(begin)[0], page.split(end)[1]
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", "utf-8")


def read(journal: Path) -> dict[tuple[str, int], Row | None]:
    """Trials that an earlier run left in its folder, by title of the cell and seed."""
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return {(entry["cell"], entry["seed"]): entry["row"] for entry in entries}


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--trials", type=int, default=20, help="noise realisations a cell (default %(default)s)"
    )
    options.add_argument("--cells", help="only those whose name contains this")
    options.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="default: all cores"
    )
    options.add_argument(
        "--write",
        type=Path,
        metavar="PAGE",
        help="put the table into this page, the picture beside it",
    )
    folder = Path("experiment_calibration")
    options.add_argument(
        "-o", "--output", type=Path, default=folder, help="folder (default ./%(default)s)"
    )
    given = options.parse_args(arguments)
    if given.trials < 1:
        raise PtychonError(f"--trials is {given.trials}; at least 1 is needed")
    chosen = [cell for cell in cells() if not given.cells or given.cells in cell.name]
    if not chosen:
        raise PtychonError(f"no cell's name contains {given.cells!r}")
    given.output.mkdir(parents=True, exist_ok=True)
    journal = given.output / "trials.jsonl"
    done = read(journal)
    # seed by seed, so that a run that is stopped has as many of every cell
    tasks = [
        (cell, seed)
        for seed in range(given.trials)
        for cell in chosen
        if (cell.title, seed) not in done
    ]
    with pool_of(given.processes) as pool, journal.open("a", encoding="utf-8") as file:
        for (cell, seed), row in zip(tasks, pool.imap(trial, tasks), strict=True):
            done[cell.title, seed] = row
            print(
                json.dumps({"cell": cell.title, "seed": seed, "row": row}, default=float),
                file=file,
                flush=True,
            )
            if row is not None:
                say(f"{cell.title}, {seed}: {row['dB']:.1f} dB, u2 {row['u2']:.2f}")
    of_cell = {cell: [done[cell.title, seed] for seed in range(given.trials)] for cell in chosen}
    found = [(cell, [row for row in rows if row is not None]) for cell, rows in of_cell.items()]
    rows = table(found, given.trials)
    picture(found).savefig(given.output / "figure.png", dpi=150)
    write(
        [{n: row.get(n, "") for n in max(rows, key=len)} for row in rows],
        given.output / "calibration.csv",
    )
    show([{n: row.get(n, "") for n in max(rows, key=len)} for row in rows])
    if given.write is not None:
        put(given.write, markdown(rows))
        (given.write.parent / "images").mkdir(exist_ok=True)
        picture(found).savefig(given.write.parent / "images" / "coverage.png", dpi=110)


if __name__ == "__main__":
    command(main)
