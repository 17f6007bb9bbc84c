"""Where reconstructions succeed: success rate and error of five engines against the sampling ratio
and the dose.

The probe is known to all of them (ePIE, rPIE and the difference map do not move it): a defocused
aperture on a Fermat spiral whose step decides the ratio of measured amplitudes to lit object
pixels. Noise is Poisson's. Every trial has another object and another noise, and every engine
starts from a constant object.

The error is that of the object on its lit pixels after removing a complex factor. A run succeeds if
it comes within 6 dB (twice the error) of what the data allow: the posterior width about the optimum
that is reached from the true object (`ptychon.uncertainty.laplace`). Per engine and dose, the
success of single runs is fitted by

    P(success) = 1/(1 + exp(-(ratio - m)/w)),

m being the transition, where half of the runs succeed. Its interval holds all m whose likelihood,
with the best w for each, is within exp(-1.92) of the largest: 95 % (Wilks, Ann. Math. Stat. 9, 60
(1938)).

    python experiments/transition.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Problem, PtychonError
from ptychon.metrics.residual import align, illuminated, sampling_ratio
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import Simulation, simulate
from ptychon.types import BoolArray, ComplexArray, FloatArray
from ptychon.uncertainty import laplace

#: Steps of the spiral where a frame has 32 px, and mean counts a detector pixel.
STEPS = (6.2, 7.0, 7.6, 8.3, 9.2, 10.2)
DOSES = (1000.0, 30.0)
#: Samples of the posterior for what the data allow.
SAMPLES = 4
#: Largest distance (dB) from what the data allow that is a success.
WITHIN = 6.0
#: Fall of the log-likelihood at the ends of a 95 % interval.
FALL = 1.92
#: A pass that no run reaches: the probe stays as it is.
NEVER = 10**9
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "EP": ("ep", {"probe_updates": 0}),
    "PIE": ("pie", {}),
    "ePIE": ("epie", {"probe_start": NEVER}),
    "rPIE": ("rpie", {"probe_start": NEVER}),
    "DM": ("dm", {"probe_start": NEVER}),
}


@dataclass(frozen=True)
class Transition:
    """Ratio at which half of the runs succeed, with its 95 % interval; infinite where the trials do
    not bound it.
    """

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"below {self.high:.2f}"
        if math.isinf(self.high):
            return f"above {self.low:.2f}"
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "transition", trials=4, passes=200)
    options.set_defaults(size=128)
    options.add_argument(
        "--frame", type=int, default=32, help="side of a frame, px (default %(default)s)"
    )
    options.add_argument(
        "--steps",
        type=float,
        nargs="+",
        default=STEPS,
        help="steps of the spiral, px of a frame of 32",
    )
    options.add_argument(
        "--doses", type=float, nargs="+", default=DOSES, help="mean counts a detector pixel"
    )
    given = options.parse_args(arguments)
    common.start(given)
    table, every = measure(given)
    fits = transitions(every)
    common.finish(
        given,
        draw(table, fits),
        ("table.csv", table),
        ("transitions.csv", fits),
        ("trials.csv", every),
    )
    print()
    common.show(fits)


def measure(given: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Statistics of each dose, engine and ratio; and every trial."""
    table: list[Row] = []
    every: list[Row] = []
    probe = probes.defocused_aperture(
        (given.frame, given.frame), 0.36 * given.frame, 0.6 * given.frame
    )
    for dose in sorted(given.doses, reverse=True):
        for step in sorted(given.steps):
            found: dict[str, list[float]] = {name: [] for name in METHODS}
            best, ratio = [], 0.0
            for trial in range(given.trials):
                truth = (
                    common.sample("dense", given.images, given.size)
                    if given.images
                    else sample(given.size, trial)
                )
                made = scanned(truth, probe, step * given.frame / 32, dose, trial)
                problem = Problem.from_dataset(made.dataset)
                ratio, lit = sampling_ratio(problem, made.probe), illuminated(problem, made.probe)
                more: dict[str, Any] = {
                    "update": ("object",),
                    "draws": SAMPLES,
                    "region": lit,
                    "backend": given.backend,
                }
                best.append(laplace(problem, made.object, made.probe, **more).decibel())
                for name, (engine, settings) in METHODS.items():
                    found[name].append(error(made, lit, given, engine, settings))
                    row = {"counts": dose, "method": name, "ratio": round(ratio, 3), "trial": trial}
                    row |= {"error_db": round(found[name][-1], 3), "allowed_db": round(best[-1], 3)}
                    every.append(row | {"success": int(found[name][-1] > best[-1] - WITHIN)})
            for name, errors in found.items():
                row = {
                    "method": name,
                    "counts": dose,
                    "ratio": round(ratio, 2),
                    "trials": given.trials,
                }
                row |= {
                    "success": sum(e > b - WITHIN for e, b in zip(errors, best, strict=True)),
                    **common.spread(errors),
                }
                table.append(row | {"allowed": round(float(np.median(best)), 2)})
            shares = ", ".join(
                f"{row['method']} {row['success']}" for row in table[-len(METHODS) :]
            )
            common.say(f"{dose:g} counts, ratio {ratio:.2f}: of {given.trials} succeeded {shares}")
    return table, every


def sample(size: int, trial: int) -> ComplexArray:
    """An object of its own for each trial, (H, W) complex64."""
    pictures = [phantoms.texture((size, size), 2 * trial + i + 1) for i in range(2)]
    return phantoms.complex_object(
        *pictures, amplitude_range=(0.1, 1.0), phase_range=(0.0, np.pi / 2)
    )


def scanned(
    truth: ComplexArray, probe: ComplexArray, step: float, dose: float, trial: int
) -> Simulation:
    """The measurement, and the probe scaled to it."""
    points = scan.fermat_spiral(int((max(truth.shape) / step) ** 2) + 1, step, whole=True)
    positions = scan.fit(points, truth.shape, probe.shape)
    if len(positions) < 2:
        raise PtychonError(
            f"a spiral of step {step:g} px has no two positions on {truth.shape[0]} px; make it "
            "smaller"
        )
    counts = dose * probe.size
    return simulate(truth, probe, positions, noise="poisson", mean_counts=counts, seed=trial)


def error(
    made: Simulation,
    lit: BoolArray,
    given: argparse.Namespace,
    engine: str,
    settings: dict[str, Any],
) -> float:
    """Of a run, dB; 0, that of an empty picture, if it fails."""
    shared: dict[str, Any] = {"probe": made.probe, "passes": given.passes, "backend": given.backend}
    result = common.run(made.dataset, engine, **shared, **settings).result
    if result is None or not np.any(result.object[lit]):
        return 0.0
    return align(result.object, made.object, region=lit, max_shift=0, ramp=False).error_db


def transitions(every: Sequence[Row]) -> list[Row]:
    """A fit for each dose and engine."""
    fits: list[Row] = []
    for dose in dict.fromkeys(row["counts"] for row in every):
        for name in METHODS:
            rows = [row for row in every if row["counts"] == dose and row["method"] == name]
            found = transition(
                [row["ratio"] for row in rows], [bool(row["success"]) for row in rows]
            )
            fits.append({"counts": dose, "method": name, "transition": str(found)})
            fits[-1] |= {
                "middle": round(found.middle, 3),
                "low": round(found.low, 3),
                "high": round(found.high, 3),
            }
    return fits


def transition(ratios: Sequence[float], successes: Sequence[bool]) -> Transition:
    """Fit P = 1/(1 + exp(-(ratio - m)/w)) to single runs, w > 0, by maximum likelihood on a grid.

    Where no ratio has both, the likelihood is flat between the last failure and the first success:
    m is its middle.
    """
    x, y = np.asarray(ratios, float), np.asarray(successes, bool)
    span = max(float(np.ptp(x)), 1e-3)
    # beyond the ratios that were tried the likelihood goes on: an interval that reaches the end of
    # the grid is open
    middles = np.linspace(x.min() - span, x.max() + span, 1201)
    widths = span * np.logspace(-3, 0, 41)
    profile = np.max([likelihood(x, y, middles, w) for w in widths], axis=0)
    top = middles[profile > profile.max() - 1e-3]
    inside = middles[profile > profile.max() - FALL]
    low = -math.inf if inside[0] == middles[0] else float(inside[0])
    high = math.inf if inside[-1] == middles[-1] else float(inside[-1])
    return Transition(float((top[0] + top[-1]) / 2), low, high)


def likelihood(x: FloatArray, y: BoolArray, middles: FloatArray, width: float) -> FloatArray:
    """Logarithm of the likelihood of successes y at ratios x, for each middle (M,)."""
    return np.asarray(
        -np.logaddexp(0, np.where(y, -1, 1) * (x - middles[:, None]) / width).sum(axis=1)
    )


def draw(table: Sequence[Row], fits: Sequence[Row]) -> Any:
    """A column a dose: success above, error below; lines at the transitions."""
    doses = list(dict.fromkeys(row["counts"] for row in table))
    picture = common.figure(max(7, 4 * len(doses) + 1), 7)
    panels = picture.subplots(2, len(doses), sharex=True, sharey="row", squeeze=False)
    for (above, below), dose in zip(panels.T, doses, strict=True):
        for name, colour in zip(METHODS, common.COLOURS, strict=False):
            rows = [row for row in table if row["counts"] == dose and row["method"] == name]
            ratios = [row["ratio"] for row in rows]
            above.plot(
                ratios,
                [row["success"] / row["trials"] for row in rows],
                color=colour,
                marker="o",
                label=name,
            )
            common.band(below, ratios, rows, colour, name)
            middle = next(
                fit["middle"] for fit in fits if fit["counts"] == dose and fit["method"] == name
            )
            if min(ratios) < middle < max(ratios):
                above.axvline(middle, color=colour, linestyle=":")
        rows = [row for row in table if row["counts"] == dose and row["method"] == "EP"]
        below.plot(
            [row["ratio"] for row in rows],
            [row["allowed"] for row in rows],
            "k--",
            label="what the data allow",
        )
        above.set(title=f"{dose:g} counts a pixel", ylim=(-0.05, 1.05))
        below.set(xlabel="measured amplitudes / lit object pixels")
        for axes in (above, below):
            axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("share of runs that succeed")
    panels[1, 0].set_ylabel("error of the object, dB (larger is better)")
    picture.legend(
        *panels[1, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
    )
    return picture


if __name__ == "__main__":
    common.command(main)
