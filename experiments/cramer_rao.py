"""How close to what is possible? Error of Ptycho-EP over many noise realisations, its error bars,
and the Cramer-Rao bound.

The probe is known, the object small enough for the exact Fisher information. For each case the same
scan is simulated with many realisations of the noise. With sigma(r) the bound, e(r) an error, s(r)
an error bar, and <> over lit pixels and realisations:

    actual/bound = sqrt<|e|^2/sigma^2>,   stated/actual = sqrt(<s^2/sigma^2>/<|e|^2/sigma^2>)

for Ptycho-EP with its own bars, and for the mean and the bars of `ptychon.uncertainty.laplace` from
there. The bound has the prior in it and is taken at the true object. Whether it can be attained at
all is told by `ptychon.uncertainty.sample`: its chains wander through the posterior itself, whose
mean no estimate surpasses on average. Chains from the truth know more than any estimate does; those
from Ptycho-EP know what it knows. If both are long enough they come to the same.

    python experiments/cramer_rao.py --trials 20
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Problem, PtychonError
from ptychon.metrics.residual import illuminated, phase_align, sampling_ratio
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import BoolArray, ComplexArray, FloatArray
from ptychon.uncertainty import cramer_rao, laplace, sample


@dataclass(frozen=True)
class Case:
    """A noise, the step of the scan in px where the object has 64, and the passes of chains."""

    name: str
    step: float
    noise: dict[str, Any] = field(default_factory=dict)
    passes: int = 20_000


CASES = (
    Case("30 dB", 3.5, {"noise": "gaussian", "snr_db": 30}),
    Case("30 dB", 5.0, {"noise": "gaussian", "snr_db": 30}, 400_000),
    Case("50 dB", 3.5, {"noise": "gaussian", "snr_db": 50}),
    Case("10000 counts a pixel", 3.5, {"noise": "poisson", "mean_counts": 1e4}),
    Case("1000 counts a pixel", 3.5, {"noise": "poisson", "mean_counts": 1e3}),
    Case("100 counts a pixel", 3.5, {"noise": "poisson", "mean_counts": 1e2}),
)
#: Least share of the brightest light of a pixel that counts.
LIT = 0.3


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "cramer_rao", trials=20, passes=500)
    options.set_defaults(size=64)
    options.add_argument(
        "--draws", type=int, default=16, help="of the posterior, for laplace (default %(default)s)"
    )
    options.add_argument(
        "--sampled",
        type=int,
        default=4,
        help="realisations that chains see too (default %(default)s)",
    )
    options.add_argument(
        "--shorter",
        type=float,
        default=1.0,
        help="factor of the passes of chains (default %(default)s)",
    )
    given = options.parse_args(arguments)
    common.start(given)
    table, maps = measure(given)
    common.finish(given, draw(maps), ("table.csv", table))


def measure(given: Any) -> tuple[list[Row], dict[str, tuple[FloatArray, ...]]]:
    """The table; and bound, actual error and error bars of the lit pixels of each case."""
    frame, n = given.size // 4, given.size
    shape = (n, n)
    truth = phantoms.complex_object(
        phantoms.texture(shape, 1), phantoms.texture(shape, 2), phase_range=(0.0, np.pi / 2)
    )
    beam = probes.defocused_aperture((frame, frame), 0.36 * frame, 0.6 * frame)
    table: list[Row] = []
    maps: dict[str, tuple[FloatArray, ...]] = {}
    for case in CASES:
        positions = scan.fit(
            scan.fermat_spiral(2000, case.step * n / 64, whole=True), shape, beam.shape
        )
        noise = dict(case.noise)
        if "mean_counts" in noise:
            noise["mean_counts"] *= frame**2
        bound, squares, misfits, chains = None, [], [], []
        for trial in range(given.trials):
            s = simulate(truth, beam, positions, seed=trial, **noise)
            problem = Problem.from_dataset(s.dataset)
            if bound is None:
                lit = illuminated(problem, s.probe, LIT)
                bound = cramer_rao(
                    problem, s.object, s.probe, object_variance=1.0, region=lit
                ).object_std[lit]
            options = {
                "probe": s.probe,
                "probe_updates": 0,
                "passes": given.passes,
                "until": "still:1e-6",
            }
            found = common.run(s.dataset, "ep", backend=given.backend, **options).result
            if found is None or found.object_std is None:
                raise PtychonError(f"no result for {case.name!r}, trial {trial}: see above")
            more = {
                "update": ("object",),
                "object_variance": 1.0,
                "draws": given.draws,
                "region": lit,
            }
            other = laplace(problem, found.object, s.probe, backend=given.backend, **more)
            squares.append(squared((found, other), s.object, lit))
            misfits.append(other.chi2)
            if trial < given.sampled:
                more |= {
                    "passes": max(640, int(given.shorter * case.passes)),
                    "backend": given.backend,
                    "seed": trial,
                }
                del more["draws"]
                both = [sample(problem, o, s.probe, **more) for o in (found.object, s.object)]
                chains.append((squared(both, s.object, lit), both[0].agreement))
        mean = np.mean(squares, axis=0)
        each = [float(np.sqrt(np.mean(a[0] / bound**2))) for a in squares]
        ratio = round(sampling_ratio(problem, s.probe), 1)
        maps[f"{case.name}, ratio {ratio}"] = (bound, *np.sqrt(mean))
        ep, optimum, bars, others = (float(np.sqrt(np.mean(m / bound**2))) for m in mean)
        power = float(np.mean(np.abs(truth[lit]) ** 2))
        row: Row = {
            "case": case.name,
            "ratio": ratio,
            "frames": len(problem),
            "trials": given.trials,
        }
        row |= {"EP dB": round(float(10 * np.log10(power / np.mean(mean[0]))), 2)}
        row |= {"bound dB": round(float(10 * np.log10(power / np.mean(bound**2))), 2)}
        row |= {
            "EP/bound": round(ep, 3),
            "median trial": round(float(np.median(each)), 3),
            "worst": round(max(each), 3),
        }
        row |= {"EP bar/actual": round(bars / ep, 3)}
        row |= {
            "Laplace/bound": round(optimum, 3),
            "Laplace bar/actual": round(others / optimum, 3),
        }
        row |= {"misfit": round(float(np.median(misfits)), 2)}
        if chains:
            parts = np.mean([c for c, _ in chains], axis=0)
            sampled, nearest, wide, least = (float(np.sqrt(np.mean(m / bound**2))) for m in parts)
            row |= {
                "sample/bound": round(sampled, 3),
                "sample bar/actual": round(wide / sampled, 3),
            }
            row |= {
                "from truth/bound": round(nearest, 3),
                "from truth bar/actual": round(least / nearest, 3),
            }
            row |= {
                "R^": round(max(r for _, r in chains if r is not None), 3),
                "sampled": len(chains),
            }
            maps[f"{case.name}, ratio {ratio}"] += tuple(np.sqrt(parts[[0, 2]]))
        table.append(row)
        common.say(
            f"{case.name}: actual/bound {row['EP/bound']}, stated/actual {row['EP bar/actual']}"
        )
    return table, maps


def squared(estimates: Sequence[Any], truth: ComplexArray, lit: BoolArray) -> list[FloatArray]:
    """Squares of the errors of some estimates on lit pixels, then of their bars."""
    miss = [np.abs(phase_align(o.object, truth, lit) - truth)[lit] for o in estimates]
    return [a.astype(float) ** 2 for a in (*miss, *(o.object_std[lit] for o in estimates))]


def draw(maps: dict[str, tuple[FloatArray, ...]]) -> Any:
    """A panel a case: actual error and both bars of a pixel against its bound, median in bins of
    the bound.
    """
    picture = common.figure(12, 7)
    panels = picture.subplots(2, -(-len(maps) // 2)).ravel()
    names = [f"{what}, {who}" for what in ("actual", "stated") for who in ("Ptycho-EP", "Laplace")]
    names += ["actual, chains", "stated, chains"]
    colours = [common.COLOURS[i] for i in (0, 1, 0, 1, 2, 2)]
    for axes, (case, (bound, *values)) in zip(panels, maps.items(), strict=False):
        order = np.array_split(np.argsort(bound), 12)
        x = [float(np.median(bound[i])) for i in order]
        axes.plot(x, x, color="k", linewidth=3, alpha=0.25, label="the bound")
        for name, value, colour, style in zip(
            names, values, colours, ["-", "-", "--", "--", "-", "--"], strict=False
        ):
            axes.plot(
                x,
                [float(np.sqrt(np.mean(value[i] ** 2))) for i in order],
                color=colour,
                linestyle=style,
                label=name,
            )
        axes.set(title=case, xlabel="bound", xscale="log", yscale="log")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("standard deviation of the object")
    picture.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return picture


if __name__ == "__main__":
    common.command(main)
