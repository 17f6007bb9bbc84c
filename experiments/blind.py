"""Object and probe unknown: ePIE, rPIE, difference map and Ptycho-EP with EM, against the step of
the scan.

The set-up of Ueda, Katakami & Okada (arXiv:2504.05668): an 11x11 raster with a jitter of 2 px, a
structured probe of 128 px, and a first guess of it that is a quarter wrong. Noise is Poisson's, n ~
Poisson(3000 |z|^2), or Gaussian on the square root of counts with the variance 1/4 that bright
counts have too. Every engine starts from its own copy of the first probe and takes the same number
of passes; Ptycho-EP has 20 of rPIE before them (not with --textbook).

The error is that of the object in its middle, after removing what the data cannot tell: a complex
factor, a phase ramp and a common translation (whole pixels). R of the true object and probe is
given beside R of the results: a smaller one fits the noise, and is no merit.

    python experiments/blind.py --images FOLDER --trials 5
    python experiments/blind.py --images FOLDER --textbook   # as first published
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Dataset, Problem, PtychonError, Recipe, Stage
from ptychon.metrics.residual import align, residual
from ptychon.run.progress import Progress
from ptychon.simulation import probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import ComplexArray

#: Error and aligned object of each engine.
Objects = dict[str, tuple[float, ComplexArray]]
#: Expected counts where |z|^2 = 1, and the frame of the phantom's probe (px).
DOSE, FRAME = 3000, 128
#: Largest translation looked for, px: that of object and probe together is free, and the difference
#: map drifts.
SHIFT = 32
#: Of the engines in the order of METHODS; the package's own is blue in all figures.
COLOURS = (common.COLOURS[1], common.COLOURS[2], common.COLOURS[3], common.COLOURS[0])
#: Part of the object that is compared: 192 of 512 px.
SHARE = 0.375
NOISES = ("poisson", "gaussian")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "ePIE": ("epie", {}),
    "rPIE": ("rpie", {}),
    "DM": ("dm", {}),
    "EP + EM": ("ep", {}),
}
#: No smaller steps towards the end, no noise in the modulus constraint, no rPIE before Ptycho-EP.
TEXTBOOK: dict[str, dict[str, Any]] = {
    "ePIE": {"object_step": 1.0, "probe_step": 1.0, "cool_from": 10**6},
    "rPIE": {
        "object_step": 1.0,
        "probe_step": 1.0,
        "object_reg": 0.25,
        "probe_reg": 0.5,
        "cool_from": 10**6,
    },
    "DM": {"power_bound": 0.0},
    "EP + EM": {},
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "blind", trials=5, passes=200)
    options.add_argument(
        "--steps", type=int, nargs="+", default=[12, 15, 18], help="steps of the raster, px"
    )
    options.add_argument(
        "--points", type=int, default=11, help="points along each axis (default %(default)s)"
    )
    options.add_argument("--noise", nargs="+", choices=NOISES, default=NOISES)
    options.add_argument(
        "--frame",
        type=int,
        default=FRAME,
        help="frame of the phantom's probe, px (default %(default)s)",
    )
    options.add_argument(
        "--textbook", action="store_true", help="options as first published instead of the defaults"
    )
    given = options.parse_args(arguments)
    common.start(given)
    truth = common.sample("dense", given.images, given.size)
    table, every, objects = measure(given, truth)
    common.finish(
        given, draw(table, truth, objects, given), ("table.csv", table), ("trials.csv", every)
    )


def illumination(given: argparse.Namespace) -> tuple[ComplexArray, ComplexArray]:
    """The true probe and the first guess, (P, P) complex64, in units of the square
    root of counts.
    """
    if given.images is not None:
        pair: list[Any] = [
            common.photograph(given.images / f"{name}.png") for name in ("probe", "probe_init")
        ]
    else:
        shape, n = (given.frame, given.frame), given.frame
        pair = [probes.defocused_aperture(shape, n / r, d * n) for r, d in ((6, 0.12), (5, 0.08))]
    true, first = (np.asarray(p * np.sqrt(DOSE), np.complex64) for p in pair)
    return true, first


def scanned(
    truth: ComplexArray,
    probe: ComplexArray,
    given: argparse.Namespace,
    step: int,
    noise: str,
    trial: int,
) -> Dataset:
    """The measurement. What the probe is stays behind."""
    positions = scan.raster(given.points, step, jitter=2, seed=90)
    level: dict[str, Any] = {"variance": 0.25} if noise == "gaussian" else {}
    return simulate(truth, probe, positions, noise=noise, seed=9 + trial, **level).dataset  # type: ignore[arg-type]


def measure(given: argparse.Namespace, truth: ComplexArray) -> tuple[list[Row], list[Row], Objects]:
    """Statistics of each case, every trial, and the aligned objects of the first trial at the
    largest step.
    """
    table: list[Row] = []
    every: list[Row] = []
    objects: Objects = {}
    probe, first = illumination(given)
    region = common.middle(truth.shape, SHARE)
    for noise in given.noise:
        for step in sorted(given.steps):
            scans = [
                scanned(truth, probe, given, step, noise, trial) for trial in range(given.trials)
            ]
            floor = residual(Problem.from_dataset(scans[0]), truth, probe)
            for name, (engine, settings) in METHODS.items():
                # a recipe runs as it is written: no first guess, no other engine at the end
                literal = Recipe(Stage(engine, given.passes, TEXTBOOK.get(name, {})))
                errors, halfway, residuals, seconds = [], [], [], 0.0
                for trial, data in enumerate(scans):
                    half = Halfway(given.passes // 2, truth, region)
                    shared = {"probe": first.copy(), "backend": given.backend, "callbacks": [half]}
                    if given.textbook:
                        done = common.run(data, literal, **shared)
                    else:
                        done = common.run(data, engine, passes=given.passes, **shared, **settings)
                    if done.result is None:
                        raise PtychonError(
                            f"{name} failed at step {step}, trial {trial}: see above"
                        )
                    found = align(done.result.object, truth, region=region, max_shift=limit(truth))
                    errors.append(found.error_db)
                    halfway.append(half.error_db)
                    residuals.append(done.result.final_error)
                    seconds += done.result.seconds
                    every.append({"noise": noise, "step": step, "method": name, "trial": trial})
                    every[-1] |= {
                        "error_db": round(found.error_db, 3),
                        "halfway_db": round(half.error_db, 3),
                    }
                    every[-1] |= {
                        "residual": round(residuals[-1], 5),
                        "shift": f"{found.shift[0]:g},{found.shift[1]:g}",
                    }
                    if noise == given.noise[0] and step == max(given.steps) and trial == 0:
                        objects[name] = found.error_db, found.estimate
                row = {
                    "noise": noise,
                    "step": step,
                    "method": name,
                    "trials": given.trials,
                    **common.spread(errors),
                }
                row |= {
                    "halfway": round(float(np.median(halfway)), 2),
                    "residual": round(float(np.median(residuals)), 4),
                }
                table.append(
                    row
                    | {"R of truth": round(floor, 4), "seconds": round(seconds / given.trials, 1)}
                )
                common.say(
                    f"{noise}, step {step}, {name}: median {row['median']} dB, worst "
                    f"{row['worst']} dB"
                )
    return table, every, objects


def limit(truth: ComplexArray) -> int:
    """Largest translation looked for: what the margin around the region allows."""
    return int(min(SHIFT, min(truth.shape) * (1 - SHARE) / 2))


class Halfway:
    """Takes the error after half of the passes."""

    def __init__(self, passes: int, truth: ComplexArray, region: common.Region) -> None:
        self.passes, self.truth, self.region, self.error_db = passes, truth, region, float("nan")

    def __call__(self, progress: Progress) -> None:
        if progress.passes == self.passes:
            found = progress.state.object
            found = found.get() if hasattr(found, "get") else found
            self.error_db = align(
                found, self.truth, region=self.region, max_shift=limit(self.truth)
            ).error_db


def draw(
    table: Sequence[Row], truth: ComplexArray, objects: Objects, given: argparse.Namespace
) -> Any:
    """Error against step, a panel a noise; below, the objects of one trial."""
    picture = common.figure(12, 7)
    above, below = picture.subfigures(2, 1, height_ratios=[1.3, 1])
    panels = np.atleast_1d(above.subplots(1, len(given.noise), sharey=True))
    for axes, noise in zip(panels, given.noise, strict=True):
        for name, colour, marker in zip(METHODS, COLOURS, "svDo", strict=True):
            rows = [row for row in table if row["noise"] == noise and row["method"] == name]
            common.band(axes, (row["step"] for row in rows), rows, colour, name, marker)
        axes.set(
            title=f"{noise.capitalize()} noise",
            xlabel="step of the scan, px",
            xticks=sorted(given.steps),
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("error of the object, dB (larger is better)")
    panels[0].legend(frameon=False)
    above.suptitle(
        f"{given.passes} passes: median, quartiles (band) and worst trial (open)", fontsize=9
    )
    y, x = common.middle(truth.shape, SHARE)
    panels = below.subplots(1, 1 + len(objects))
    shown = panels[0].imshow(np.angle(truth[y, x]), vmin=0, vmax=np.pi / 2)
    panels[0].set_title("truth", fontsize=10)
    for axes, (name, (error, field)) in zip(panels[1:], objects.items(), strict=True):
        axes.imshow(np.angle(field[y, x]), vmin=0, vmax=np.pi / 2)
        axes.set_title(f"{name}, {error:.1f} dB", fontsize=10)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    below.colorbar(shown, ax=panels, shrink=0.8, label="phase, rad")
    below.suptitle(
        f"{given.noise[0].capitalize()} noise, step {max(given.steps)} px, first trial", fontsize=9
    )
    return picture


if __name__ == "__main__":
    common.command(main)
