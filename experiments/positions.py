"""Positions that are wrong: what rPIE makes of them, alone and with positions refined in turn, and
what the joint Gauss-Newton engine ("ml") finds.

One scene with 1e5 counts a frame; a probe with a wrong first defocus. The positions that are given
differ from the true ones by nothing, at random, by a smooth drift, or by a wrong scale, rotation
and shear of the scan. For each, from nothing: 80 passes of rPIE; with positions refined between the
passes from pass 8 on; with annealing too (4 places a frame and pass); after a search for scale,
rotation and shear; and steps of "ml" with positions after its usual first guess. Errors of
positions are root mean squares of a coordinate, less the mean, which the object takes up; errors of
the object are relative to its norm, where it is lit, the ambiguities removed.

    python experiments/positions.py
    python experiments/positions.py --points 7 --frame 32 --cases none drift --steps 10

A case that is in the table already is not run again.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import common
import numpy as np
from common import Row

from ptychon import Dataset, Problem, Refine, Result, reconstruct
from ptychon.engines import After
from ptychon.inspect.affine import search
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import ComplexArray, FloatArray

#: What is wrong with the positions.
CASES = {
    "none": "nothing",
    "random 0.5": "random, 0.5 px",
    "random 1": "random, 1 px",
    "random 2": "random, 2 px",
    "drift": "drift, smooth, 1 px",
    "affine 3": "3 % scale, 2 deg, shear 0.02",
    "affine 6": "6 % scale, 6 deg",
}
#: Passes of rPIE, and those before positions are refined in turn.
PASSES, AFTER = 80, 8
#: What is compared; "affine" is refined in turn after a search.
WAYS = {
    "plain": "rPIE",
    "refined": "refined in turn",
    "annealed": "and annealed",
    "affine": "and affine search",
    "ml": "ml",
}


@dataclass(frozen=True)
class Scene:
    """A scan with wrong positions, and the truth."""

    problem: Problem
    object: ComplexArray
    positions: FloatArray
    probe: ComplexArray


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "positions", trials=1, passes=PASSES)
    options.set_defaults(size=96)
    options.add_argument(
        "--points", type=int, default=11, help="frames along a side (default %(default)s)"
    )
    options.add_argument(
        "--frame", type=int, default=64, help="side of a frame, px (default %(default)s)"
    )
    options.add_argument("--steps", type=int, default=20, help="steps of ml (default %(default)s)")
    options.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=list(CASES),
        help="what is wrong (default: all)",
    )
    options.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what to compare (default: all)"
    )
    given = options.parse_args(arguments)
    common.start(given)
    path = given.output / "table.csv"
    rows: list[Row] = []
    if path.exists():
        with path.open() as file:
            rows = list(csv.DictReader(file))
    for case in given.cases:
        if any(row["positions"] == CASES[case] for row in rows):
            continue
        common.say(case)
        made = scene(case, given.points, given.frame)
        row, refined = measure(made, case, given)
        rows.append(row)
        common.write(rows, path)
        np.savez(
            file_of(given, case), true=made.positions, given=made.problem.positions, found=refined
        )
    arrows = {c: np.load(file_of(given, c)) for c in given.cases if file_of(given, c).exists()}
    common.finish(given, draw(arrows), ("table.csv", rows))


def file_of(given: argparse.Namespace, case: str) -> common.Path:
    """Where the positions of a case are kept."""
    return common.Path(given.output / f"{case.replace(' ', '_')}.npz")


def scene(case: str, points: int, frame: int, seed: int = 1) -> Scene:
    """A phase object under a defocused aperture, steps of a tenth of the frame and an aperture of a
    seventh.
    """
    unit = frame / 64
    true = scan.raster(points, step=6 * unit, jitter=1.5 * unit, whole=False, seed=seed)
    size = int(np.ptp(true, axis=0).max()) + frame + 12
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((frame, frame), radius=9 * unit, defocus=10 * unit)
    made = simulate(truth, beam, true, noise="poisson", mean_counts=1e5, seed=seed)
    problem = Problem.from_dataset(made.dataset, object_shape=truth.shape)
    start = probes.defocused_aperture((frame, frame), radius=9 * unit, defocus=13 * unit)
    wrong = problem.positions + errors(case, problem.positions, np.random.default_rng(seed))
    return Scene(
        replace(problem.with_positions(wrong), measured=None), made.object, problem.positions, start
    )


def errors(case: str, positions: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What is added to the true positions, (N, 2) px."""
    kind, _, size = case.partition(" ")
    x = positions - positions.mean(axis=0)
    if kind == "random":
        return float(size) * rng.standard_normal(x.shape)
    if kind == "drift":
        t = np.linspace(0, 1, len(x))
        drift = np.stack([np.sin(2 * np.pi * t) + t, np.cos(3 * np.pi * t) - 0.5 * t], axis=1)
        drift -= drift.mean(axis=0)
        return np.asarray(drift / np.sqrt((drift**2).mean()))
    if kind == "affine":
        scale, angle, shear = {"3": (0.03, 2.0, 0.02), "6": (0.06, 6.0, 0.0)}[size]
        a = np.deg2rad(angle)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.array(
            [[1, shear], [0, 1]]
        )
        return np.asarray(x @ ((1 + scale) * turn - np.eye(2)).T)
    return np.zeros(x.shape)


def measure(made: Scene, case: str, given: argparse.Namespace) -> tuple[Row, FloatArray]:
    """One row of the table, and the positions that the last way has found."""
    row: Row = {"positions": CASES[case], "given, px": round(off(made.problem.positions, made), 3)}
    found = made.problem.positions
    for way in given.ways:
        began = time.perf_counter()
        result = run(made, way, given)
        if way != "plain":
            found = result.positions
            row[f"{WAYS[way]}, px"] = round(off(found, made), 3)
        row[f"{WAYS[way]}, object %"] = round(100 * wrong(result, made), 1)
        row[f"{WAYS[way]}, R"] = round(result.final_error, 4)
        row[f"{WAYS[way]}, s"] = round(time.perf_counter() - began, 1)
    return row, found


def run(made: Scene, way: str, given: argparse.Namespace) -> Result:
    """One way, from nothing."""
    common_to_all = {"probe": made.probe, "backend": given.backend, "seed": 0, "say": None}
    if way == "ml":
        return reconstruct(made.problem, "ml", passes=given.steps, positions=True, **common_to_all)
    problem, more = made.problem, {}
    if way == "affine":
        problem = searched(made, given)
    if way != "plain":
        more = {"update": {"positions": After(AFTER)}}
    if way == "annealed":
        more["refine"] = Refine(trials=4)
    return reconstruct(problem, "rpie", passes=given.passes, **more, **common_to_all)


def searched(made: Scene, given: argparse.Namespace) -> Problem:
    """The problem with the scale, rotation and shear that a search finds."""
    problem = made.problem
    data = Dataset(
        patterns=np.fft.fftshift(problem.amplitude**2, (1, 2)),
        positions=problem.positions,
        probe=made.probe,
    )
    affine = search(data, backend=given.backend).affine
    return replace(problem.with_positions(affine.moved(problem.positions)), measured=None)


def off(positions: FloatArray, made: Scene) -> float:
    """Root mean square error of a coordinate, px."""
    error = positions - made.positions
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).mean()))


def wrong(result: Result, made: Scene) -> float:
    """Relative error of the object."""
    region = illuminated(made.problem, result.probe, 0.3)
    found = align(result.object, made.object, region=region, subpixel=True)
    return float(10 ** (-found.error_db / 20))


def draw(arrows: dict[str, dict[str, FloatArray]]) -> object:
    """Where positions were wrong and where they are after: arrows from the true ones, twice as
    long.
    """
    picture = common.figure(4 * max(1, len(arrows)), 8)
    axes = picture.subplots(2, max(1, len(arrows)), squeeze=False)
    for column, (case, of) in enumerate(arrows.items()):
        for row, (name, text) in enumerate((("given", "given"), ("found", "found"))):
            error = of[name] - of["true"]
            error = error - error.mean(axis=0)
            axis = axes[row, column]
            axis.plot(of["true"][:, 1], of["true"][:, 0], ".", color="0.7", markersize=3)
            axis.quiver(
                of["true"][:, 1],
                of["true"][:, 0],
                error[:, 1],
                error[:, 0],
                angles="xy",
                scale_units="xy",
                scale=0.5,
                color=common.COLOURS[row],
                width=0.004,
            )
            axis.set_title(
                f"{CASES[case]}\n{text}: {np.sqrt((error**2).mean()):.2f} px", fontsize=10
            )
            # arrows that leave the scan, too
            ends = of["true"] + 2 * (of["given"] - of["true"])
            places = np.concatenate([of["true"], ends])
            low, high = places.min(axis=0), places.max(axis=0)
            margin = 0.04 * (high - low).max()
            axis.set_xlim(low[1] - margin, high[1] + margin)
            axis.set_ylim(low[0] - margin, high[0] + margin)
            axis.set_aspect("equal")
            axis.invert_yaxis()
            axis.set_xticks([])
            axis.set_yticks([])
    return picture


if __name__ == "__main__":
    common.command(main)
