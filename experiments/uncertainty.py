"""Are the error bars of Ptycho-EP true? Coverage of its standard deviations where the truth is
known.

The probe is known (the set-up of sampling_ratio.py; Ueda, Katakami & Okada, arXiv:2504.05668). With
sigma(r) the standard deviation of the complex object that the engine states, and u = |error|/sigma,
a true sigma means for circular Gaussian errors

    P(u < sqrt(-ln(1 - p))) = p,   mean u^2 = 1,   P(1/2 < u < 2) = 0.7605.

The last, alone, says little: it is near its value for error bars that are wrong in opposite ways.
Statistics are over the middle half of the object, with the global phase removed, and averaged over
trials.

    python experiments/uncertainty.py --images FOLDER --trials 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Dataset, Problem, PtychonError
from ptychon.metrics.residual import PROBABILITIES, coverage, phase_align, pmse, sampling_ratio
from ptychon.simulation.simulate import simulate
from ptychon.types import ComplexArray, FloatArray


@dataclass(frozen=True)
class Case:
    """What is measured, and with which options of the engine."""

    name: str
    kind: str = "dense"
    step: float = 16.93
    noise: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


SPARSE = {"prior": "sparse"}
CASES = (
    Case("dense, 30 dB, ratio 4"),
    Case("sparse, 30 dB, ratio 4", "sparse"),
    Case("sparse prior, 30 dB, ratio 4", "sparse", options=SPARSE),
    Case("dense, 30 dB, ratio 2.4", step=22.45),
    Case("sparse, 30 dB, ratio 2.4", "sparse", step=22.45),
    Case("sparse prior, 30 dB, ratio 2.4", "sparse", step=22.45, options=SPARSE),
    Case("dense, 3.8 dB, ratio 4", noise={"noise": "gaussian", "snr_db": 3.8}),
    Case(
        "dense, 67 counts a pixel", noise={"noise": "poisson", "mean_counts": 67 * common.FRAME**2}
    ),
    Case(
        "dense, 6.7 counts a pixel",
        noise={"noise": "poisson", "mean_counts": 6.7 * common.FRAME**2},
    ),
)
#: Edges of the histogram of u.
EDGES = np.linspace(0, 4, 41)


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "uncertainty", trials=5, passes=400)
    options.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the steps of the scan (default %(default)s)",
    )
    given = options.parse_args(arguments)
    common.start(given)
    table, curves, maps = measure(given)
    common.finish(
        given, draw(curves, maps), ("table.csv", table), ("histograms.csv", histograms(curves))
    )


def scanned(
    case: Case, truth: ComplexArray, given: argparse.Namespace, trial: int
) -> tuple[Dataset, ComplexArray]:
    """The measurement and the probe that belongs to it."""
    positions = common.spiral(truth.shape, case.step * given.scale)
    if not case.noise:
        return common.at_30_db(
            truth, case.kind, positions, given.images is not None, trial
        ), common.aperture()
    simulated = simulate(truth, common.aperture(), positions, seed=trial, **case.noise)
    return simulated.dataset, simulated.probe


def measure(
    given: argparse.Namespace,
) -> tuple[list[Row], dict[str, FloatArray], list[tuple[FloatArray, FloatArray]]]:
    """The table, u of all pixels and trials of each case, and maps of |error| and sigma of the
    first case.
    """
    table: list[Row] = []
    curves: dict[str, FloatArray] = {}
    maps: list[tuple[FloatArray, FloatArray]] = []
    for case in CASES:
        truth = common.sample(case.kind, given.images, given.size)
        region = common.middle(truth.shape, 0.5)
        found, errors, u = [], [], []
        for trial in range(given.trials):
            data, probe = scanned(case, truth, given, trial)
            options = {
                "probe": probe,
                "probe_updates": 0,
                "passes": given.passes,
                "backend": given.backend,
                **case.options,
            }
            result = common.run(data, "ep", **options).result
            if result is None or result.object_std is None:
                raise PtychonError(f"no result for {case.name!r}, trial {trial}: see above")
            found.append(coverage(result.object, truth, result.object_std, region))
            errors.append(pmse(result.object, truth, region))
            miss = np.abs(phase_align(result.object, truth, region) - truth)[region]
            u.append(miss / result.object_std[region])
            if not maps:
                maps.append((miss, result.object_std[region]))
        curves[case.name] = np.concatenate([part.ravel() for part in u])
        ratio = sampling_ratio(Problem.from_dataset(data), probe)
        row: Row = {
            "case": case.name,
            "ratio": round(ratio, 2),
            "trials": given.trials,
            "error_db": _mean(errors, 2),
        }
        row |= {
            f"{100 * p:g} %": _mean([100 * c.covered[i] for c in found], 1)
            for i, p in enumerate(PROBABILITIES)
        }
        row |= {
            "mean u^2": _mean([c.mean_square for c in found], 2),
            "median u": _mean([c.median for c in found], 2),
        }
        table.append(row | {"u in [1/2, 2]": _mean([100 * c.within_factor_two for c in found], 1)})
        common.say(f"{case.name}: {row['error_db']} dB, mean u^2 {row['mean u^2']}")
    ideal: Row = dict.fromkeys(table[0], "") | {"case": "if the error bars were true"}
    ideal |= {f"{100 * p:g} %": 100 * p for p in PROBABILITIES} | {
        "mean u^2": 1.0,
        "median u": 0.83,
        "u in [1/2, 2]": 76.1,
    }
    return [*table, ideal], curves, maps


def _mean(values: Sequence[float], digits: int) -> float:
    return round(float(np.mean(values)), digits)


def histograms(curves: dict[str, FloatArray]) -> list[Row]:
    """Density of u in bins, a column a case; what lies beyond the last edge is missing from it."""
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    columns = {name: density(u) for name, u in curves.items()}
    columns["expected"] = 2 * centres * np.exp(-(centres**2))
    return [
        {"u": round(float(c), 3)} | {name: round(float(d[i]), 4) for name, d in columns.items()}
        for i, c in enumerate(centres)
    ]


def density(u: FloatArray) -> FloatArray:
    """Density of u in the bins."""
    counts, _ = np.histogram(u, EDGES)
    return np.asarray(counts / (len(u) * np.diff(EDGES)))


def draw(curves: dict[str, FloatArray], maps: list[tuple[FloatArray, FloatArray]]) -> Any:
    """Stated against actual coverage, the densities of u, and one picture of error
    and error bar.
    """
    picture = common.figure(12, 8)
    above, below = picture.subfigures(2, 1, height_ratios=[1.2, 1])
    left, right = above.subplots(1, 2)
    p = np.linspace(0, 0.995, 200)
    u = np.linspace(0, 4, 200)
    left.plot([0, 1], [0, 1], color="k", linewidth=3, alpha=0.25)
    right.plot(
        u, 2 * u * np.exp(-(u**2)), color="k", linewidth=3, alpha=0.25, label="true error bars"
    )
    styles = [(colour, style) for style in ("-", "--") for colour in common.COLOURS]
    for (name, values), (colour, style) in zip(curves.items(), styles, strict=False):
        covered = np.searchsorted(np.sort(values), np.sqrt(-np.log1p(-p))) / len(values)
        left.plot(p, covered, color=colour, linestyle=style, linewidth=1.3)
        right.plot(
            (EDGES[1:] + EDGES[:-1]) / 2,
            density(values),
            color=colour,
            linestyle=style,
            linewidth=1.3,
            label=name,
        )
    left.set(
        xlabel="stated probability",
        ylabel="share of pixels inside",
        aspect="equal",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    left.text(0.03, 0.95, "error bars too large", fontsize=8, va="top")
    left.text(0.97, 0.05, "too small", fontsize=8, ha="right")
    right.set(
        xlabel="u = |error| / standard deviation", ylabel="density", xlim=(0, 4), ylim=(0, None)
    )
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    miss, sigma = maps[0]
    top = float(np.percentile(miss, 99.5))
    panels = below.subplots(1, 2)
    for axes, (title, image) in zip(
        panels, (("|error|", miss), ("standard deviation stated", sigma)), strict=True
    ):
        shown = axes.imshow(image, cmap="magma", vmin=0, vmax=top)
        axes.set(title=title, xticks=[], yticks=[])
    below.colorbar(shown, ax=panels, shrink=0.8)
    below.suptitle(f"{next(iter(curves))}, first trial", fontsize=9)
    return picture


if __name__ == "__main__":
    common.command(main)
