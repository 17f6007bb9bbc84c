"""Do error bars cover what they should, and does their check refuse those that do not? A table of
many cells by two simulators: objects, probes that fill 30 to 100 % of the window, starts, and what
the model of the data lacks (positions, doses, background, a second mode), held and free.

Scans are small, 36 frames of 24 x 24 with 22 500 counts each, so that a realisation takes one to
three seconds of processor time. Each is a line of a CSV file with its cell, its seed and the commit
of the code; a run that is stopped goes on from there, and several parts may run at once:

    python experiments/coverage_cells.py --runs 20 --part 1/2 -o coverage.csv
    python experiments/coverage_cells.py --runs 20 --part 2/2 -o coverage.csv
    python experiments/coverage_cells.py --runs 0 --write docs/uncertainty.md -o coverage.csv

Bars are those of the optimum (`laplace`) or of the posterior mean (`joint`), errors those of it
after alignment, on pixels with at least half of the mean illumination. "holds", "cannot tell" and
why: what the check on simulated data says of them; "outside" is the chance of a mean u2 outside
0.85 to 1.2 that it foretells.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from calibration import put
from second_simulator import SHARE, Wave, made_object, made_probe, scanned, score, second_mode

FRAME, SIDE, DOSE = 24, 6, 22_500.0
FAULTS = ("positions", "dose", "background", "modes")
PASSES = {"rpie": 300, "dm": 200, "ep": 200}
COLUMNS = ("group", "cell", "seed", "commit", "p50", "p68", "p90", "p95", "p99", "u2")
COLUMNS += ("amplitude", "phase", "dB", "temperature", "factor", "chance", "outside", "verdict")
COLUMNS += ("reason", "holds", "remains", "chi2", "seconds")
WORDS = ("group", "cell", "commit", "verdict", "reason")
#: Mean u2 of bars that are right, by the table's own measure.
LOW, HIGH = 0.85, 1.2
#: What the check may say.
SAID = ("hold", "cannot tell", "do not hold")
BEGIN, END = "<!-- cells: begin -->", "<!-- cells: end -->"


@dataclass(frozen=True)
class Case:
    """One cell: `start` is an engine, or "known" where the probe is; `fill` the diameter of the
    probe over that of the window; a `fault` of the data is `free` in the bars or is not.
    """

    group: str
    kind: str
    start: str
    method: str = "joint"
    fill: float = 0.72
    fault: str = ""
    free: str = ""
    own: bool = False

    @property
    def title(self) -> str:
        """All of it, in words."""
        parts = [self.kind, "probe known" if self.start == "known" else f"learned by {self.start}"]
        if self.fill != 0.72:
            parts.append(f"fills {100 * self.fill:.0f} %")
        if self.fault:
            parts.append(f"{self.fault} off")
        if self.free:
            parts.append(f"{self.free} free")
        elif self.fault:
            parts.append("not free")
        return ", ".join([*parts, self.method, "package" if self.own else "second"])


def cases() -> list[Case]:
    """All cells."""
    kinds = ["power-1", "power-1.5", "power-2", "power-2.5", "smooth-2", "smooth-3.5"]
    kinds += ["pieces", "sparse"]
    own = ["texture", "cell", "circuit", "blobs"]
    found = [Case("objects", kind, start) for kind in kinds for start in ("known", "rpie")]
    found += [Case("objects", kind, start, own=True) for kind in own for start in ("known", "rpie")]
    for start in ("dm", "ep"):
        found += [
            Case("starts", kind, start) for kind in ("power-1.5", "smooth-3.5", "pieces", "sparse")
        ]
        found.append(Case("starts", "texture", start, own=True))
    for fill in (0.3, 0.5, 1.0):
        for start in ("known", "rpie"):
            found.append(Case("probes", "power-1.5", start, fill=fill))
            found.append(Case("probes", "texture", start, fill=fill, own=True))
    by = "laplace, learned prior"
    for fault in FAULTS:
        freed = "two modes" if fault == "modes" else fault
        for start in ("known", "rpie"):
            for more in ((fault, ""), (fault, freed), ("", freed)):
                found.append(Case("nuisances", "power-1.5", start, by, 0.72, *more))
        if fault != "modes":
            found.append(Case("nuisances", "texture", "rpie", by, 0.72, fault, freed, own=True))
    for kind in ("power-1.5", "power-2.5", "smooth-3.5", "pieces", "sparse"):
        for start in ("known", "rpie", "dm", "ep"):
            for prior in ("white", "learned"):
                found.append(Case("laplace", kind, start, f"laplace, {prior} prior"))
    for start in ("known", "rpie"):
        for prior in ("white", "learned"):
            found.append(Case("laplace", "texture", start, f"laplace, {prior} prior", own=True))
    by = "laplace, local prior"
    for start in ("known", "rpie"):
        for kind in ("pieces", "sparse", "power-1.5", "smooth-3.5"):
            found.append(Case("local", kind, start, by))
        for kind in ("blobs", "circuit", "texture"):
            found.append(Case("local", kind, start, by, own=True))
    return found


def principal(case: Case) -> bool:
    """Whether it is one of the 64 cells that alone are worth all realisations."""
    return {
        "objects": True,
        "starts": case.kind in ("power-1.5", "smooth-3.5"),
        "probes": case.kind == "power-1.5" and case.fill != 0.5,
        "nuisances": not case.own,
        "laplace": case.kind in ("power-2.5", "smooth-3.5")
        and case.start in ("known", "rpie")
        and "learned prior" in case.method,
        "local": case.kind in ("pieces", "blobs"),
    }[case.group]


# ---------------------------------------------------------------- data


def scan_of(case: Case, seed: int) -> tuple[Any, Wave, Wave]:
    """Data, and object and probe that they are of."""
    from ptychon import Dataset

    step = 0.2 * case.fill * FRAME
    size = round(FRAME + (SIDE - 1) * step) + 6
    jitter = min(1.5, 0.4 * step)
    if case.own:
        counts, corners, truth, probe = of_package(case, seed, size, step, jitter)
    else:
        truth = made_object(case.kind, size, seed)
        beam = made_probe(FRAME, case.fill / 2)
        counts, corners, probe = scanned(
            truth, beam, SIDE, step, DOSE, seed, jitter=jitter, fault=case.fault
        )
    data = Dataset(
        patterns=counts.astype(np.uint32),
        positions=(corners + FRAME // 2 - size // 2).astype(float),
        counting=True,
        object_shape=(size, size),
    )
    return data, truth, probe


def of_package(
    case: Case, seed: int, size: int, step: float, jitter: float
) -> tuple[Any, Any, Wave, Wave]:
    """Counts, corners, object and probe by the simulator of the package."""
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.simulate import simulate

    rng = np.random.default_rng([79, seed])
    truth = phantoms.complex_object(
        phantoms.make(case.kind, (size, size), 2 * seed + 1),
        phantoms.texture((size, size), 2 * seed + 2),
        amplitude_range=(0.0 if case.kind == "blobs" else 0.2, 1.0),
        phase_range=(0.0, np.pi / 2),
    )
    beam = probes.defocused_aperture((FRAME, FRAME), radius=case.fill / 2 * FRAME, defocus=12)
    grid = (np.arange(SIDE) - (SIDE - 1) / 2) * step + (size - FRAME) / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    moved = rng.uniform(-jitter, jitter, (SIDE**2, 2))
    corners = np.rint(np.stack([y, x], -1).reshape(-1, 2) + moved)
    corners = np.clip(corners, 0, size - FRAME).astype(int)
    places = (corners + FRAME // 2 - size // 2).astype(float)
    if case.fault == "positions":
        places += 0.3 * rng.standard_normal(places.shape)
    made = simulate(truth, beam, places, noise="none")
    light = np.asarray(made.dataset.patterns, np.float64)
    scale = DOSE / light.sum(axis=(1, 2)).mean()
    light *= scale
    if case.fault == "dose":
        light *= np.exp(0.1 * rng.standard_normal(SIDE**2))[:, None, None]
    if case.fault == "background":
        light += 0.1 * DOSE / FRAME**2
    return rng.poisson(light), corners, truth, np.asarray(made.probe[0] * scale**0.5)


# ---------------------------------------------------------------- bars


def begun(case: Case, data: Any, probe: Wave) -> Any:
    """The result that bars are made for; two modes where they are free. A probe that is learned
    beside positions, doses or a background is learned with them, in turn and by 20 steps of `ml`.
    """
    from ptychon import Recipe, Stage, reconstruct

    two = case.free == "two modes"
    if case.start == "known":
        light = np.asarray(probe[None], np.complex64)
        if not two:
            held: dict[str, Any] = {"probe": light, "probe_updates": 0}
            return reconstruct(data, "ep", passes=80, backend="numpy", **held)
        second = second_mode(light[0]) * (SHARE / (1 - SHARE)) ** 0.5
        if not case.fault:
            second *= 0.01
        both = np.stack([light[0], second]).astype(np.complex64)
        return reconstruct(data, "pie", passes=200, probe=both, backend="numpy")
    more: dict[str, Any] = {"modes": 2} if two else {}
    passes = PASSES[case.start]
    if case.free not in FAULTS:
        return reconstruct(data, case.start, passes=passes, backend="numpy", **more)
    # whoever frees it in the bars has let the run look for it
    free: dict[str, Any] = {"update": {"probe": True, case.free: True}}
    way = Recipe(Stage(case.start, passes, **free), Stage("ml", 20, **free))
    return reconstruct(data, way, backend="numpy")


def trial(case: Case, seed: int) -> dict[str, Any]:
    """A row of the file: one realisation of a cell."""
    from ptychon.model.found import on_grid
    from ptychon.uncertainty.joint import joint, lit_region

    began = time.process_time()
    data, truth, probe = scan_of(case, seed)
    start = begun(case, data, probe)
    problem = on_grid(data, start)
    update = ["object"] if case.start == "known" else ["object", "probe"]
    row: dict[str, Any] = {"group": case.group, "cell": case.title, "seed": seed}
    if case.method == "joint":
        found, bars, twin = joint(problem, start, update=update, backend="numpy", seed=seed)
    else:
        if case.free in FAULTS:
            update.append(case.free)
        prior = case.method.split()[1] if "," in case.method else "learned"
        bars, twin = of_laplace(problem, start, tuple(update), prior, seed)
        found = bars
    assert twin is not None
    row |= {n: getattr(twin, n) for n in ("temperature", "factor", "chance", "outside", "remains")}
    row |= {"verdict": twin.verdict, "reason": twin.reason, "holds": int(twin.holds)}
    row |= {"chi2": twin.misfit}
    moves = case.start != "known" or case.free in ("positions", "dose")
    if case.free == "dose" and case.start != "known":
        found = bars = without_slope(found, truth, lit_region(problem, start))
    made = score(lit_region(problem, start), found, bars, truth, free=moves)
    row |= dict(zip(COLUMNS[4:9], made["covered"], strict=True))
    row |= {"u2": made["u2"], "amplitude": made["amplitude_68"], "phase": made["phase_68"]}
    row |= {"dB": made["dB"], "seconds": time.process_time() - began}
    return row


def of_laplace(
    problem: Any, start: Any, update: tuple[str, ...], prior: str, seed: int
) -> tuple[Any, Any]:
    """Bars of the optimum, corrected by a twin, and what that says."""
    from ptychon.uncertainty.checked import check
    from ptychon.uncertainty.methods import Laplace

    way = Laplace(update=update, prior=prior, refine=True, propose=False, draws=8, seed=seed)
    aside: dict[str, Any] = {"tell": lambda *_: None, "place": Path("coverage")}
    _, bars = way.run(problem, start, "numpy", *aside.values())
    twin = check(problem, start, way, bars, backend="numpy", **aside)
    return bars.checked(twin), twin


def without_slope(bars: Any, truth: Wave, lit: Any) -> Any:
    """Laid on the truth, less a slope of log amplitude: with doses and the probe free no data tell
    it.
    """
    from ptychon.metrics.alignment import align

    laid = align(bars.object, truth.astype(np.complex64), region=lit, max_shift=8, subpixel=True)
    estimate, scale = laid.estimate.astype(complex), abs(laid.scale)
    y, x = np.mgrid[: lit.shape[0], : lit.shape[1]] - lit.shape[0] // 2
    for _ in range(3):
        modes = np.array([(estimate * part)[lit] for part in (np.ones(lit.shape), y, x)])
        off = (estimate - truth)[lit]
        left = np.concatenate([modes.real, modes.imag], 1).T
        slope = np.linalg.lstsq(left, np.concatenate([off.real, off.imag]), rcond=None)[0]
        estimate = estimate * np.exp(-(slope[0] + slope[1] * y + slope[2] * x))
    stds = {n: getattr(bars, n) / scale for n in ("object_std", "amplitude_std")}
    return replace(bars, object=estimate.astype(np.complex64), draws=None, **stds)


# ---------------------------------------------------------------- the file and the table


def read(path: Path) -> list[dict[str, Any]]:
    """Rows that there are, numbers as such; a line that was cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [r for r in csv.DictReader(file) if r["seconds"]]
    return [{n: v if n in WORDS else float(v) for n, v in r.items()} for r in rows]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over the realisations of each cell, in Markdown."""
    head = "| cell | runs | 50 % | 68.3 % | 90 % | 95 % | 99 % | mean u2 | least, most "
    head += "| ampl. 68.3 % | phase 68.3 % | dB | holds | cannot tell | of outside |"
    lines = [head, "|" + "---|" * 15]
    for case in cases():
        own = [row for row in rows if row["cell"] == case.title]
        if not own:
            continue
        at = {n: np.array([row[n] for row in own]) for n in COLUMNS if n not in WORDS}
        outside = (at["u2"] < LOW) | (at["u2"] > HIGH)
        untold = np.array([row["verdict"] == "cannot tell" for row in own])
        refused = int((outside & (at["holds"] == 0)).sum())
        said = f"{refused - int((outside & untold).sum())} + {int((outside & untold).sum())}"
        said = f"{said}/{int(outside.sum())}" if outside.any() else "-"
        shares = [f"{100 * at[n].mean():.1f}" for n in COLUMNS[4:9]]
        u2 = at["u2"]
        shares += [f"{u2.mean():.2f}", f"{u2.min():.2f}, {u2.max():.2f}"]
        shares += [f"{100 * np.nanmean(at[n]):.1f}" for n in ("amplitude", "phase")]
        shares += [f"{at['dB'].mean():.1f}", f"{int(at['holds'].sum())}/{len(own)}"]
        shares += [f"{int(untold.sum())}", said]
        lines.append(f"| {case.title} | {len(own)} | {' | '.join(shares)} |")
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """What the check said of single realisations that are right and of those that are not."""
    u2 = np.array([row["u2"] for row in rows])
    outside, said = (u2 < LOW) | (u2 > HIGH), np.array([row["verdict"] for row in rows])
    lines = []
    for name, part in (("inside", ~outside), ("outside", outside)):
        counts = [int((part & (said == what)).sum()) for what in SAID]
        shares = ", ".join(f"{n} {what}" for n, what in zip(counts, SAID, strict=True))
        lines.append(f"{int(part.sum())} {name} {LOW} to {HIGH}: {shares}")
    held = [row for row in rows if row["verdict"] == SAID[0]]
    foretold = sum(row["outside"] for row in held)
    right = sum(LOW <= row["u2"] <= HIGH for row in held)
    lines.append(
        f"of {len(held)} that hold {len(held) - right} are outside, {foretold:.1f} were foretold"
    )
    return "\n".join(lines)


def commit() -> str:
    """Of the code that runs."""
    where = Path(__file__).parent
    asked = ["git", "-C", str(where), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    from ptychon import PtychonError, PtychonWarning

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=20, help="realisations (default %(default)s)")
    options.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    options.add_argument("--cells", default="", help="only those whose group or title has this")
    options.add_argument("--principal", action="store_true", help="only those of `principal`")
    options.add_argument("--part", default="1/1", help="of the work, 1/2 say")
    options.add_argument("-o", "--output", type=Path, default=Path("coverage_cells.csv"))
    options.add_argument("--table", action="store_true", help="print the table of what there is")
    options.add_argument("--write", type=Path, metavar="PAGE", help="put it into this page")
    given = options.parse_args(arguments)
    if given.table:
        print(table(read(given.output)))
        print(summary(read(given.output)))
        return
    warnings.simplefilter("ignore", PtychonWarning)
    chosen = [c for c in cases() if given.cells in c.title or given.cells == c.group]
    if given.principal:
        chosen = [c for c in chosen if principal(c)]
    number, parts = (int(n) for n in given.part.split("/"))
    # two realisations of every cell, then two more
    last = given.first + given.runs
    tasks = [
        (c, s)
        for pair in range(given.first, last, 2)
        for c in chosen
        for s in (pair, pair + 1)
        if s < last
    ]
    done = {(row["cell"], int(row["seed"])) for row in read(given.output)}
    code = commit()
    if not given.output.exists():
        given.output.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for case, seed in tasks[number - 1 :: parts]:
        if (case.title, seed) in done:
            continue
        try:
            row = trial(case, seed)
        except PtychonError as error:
            print(f"{case.title}, {seed}: {error}", flush=True)
            continue
        with given.output.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow({"commit": code} | row)
        said = f"u2 {row['u2']:.2f}, {row['verdict']}, {row['dB']:.1f} dB, {row['seconds']:.1f} s"
        print(f"{case.title}, {seed}: {said}", flush=True)
    if given.write is not None:
        put(given.write, table(read(given.output)), BEGIN, END)


if __name__ == "__main__":
    main()
