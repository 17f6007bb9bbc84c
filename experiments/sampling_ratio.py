"""Error against sampling ratio: PIE and Ptycho-EP, on a dense and on a sparse object, with the
probe known.

The set-up of Ueda, Katakami & Okada (arXiv:2504.05668): a circular aperture on a Fermat spiral
whose step decides how many amplitudes are measured for each lit object pixel, amplitude noise at
about 30 dB whose variance is known, 400 passes, error on the middle half of the object with the
global phase removed. Both engines start from a constant object.

    python experiments/sampling_ratio.py --images FOLDER --trials 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import common
from common import Row

from ptychon import Problem, PtychonError
from ptychon.metrics.residual import pmse, sampling_ratio

#: Steps of the spiral, px: sampling ratios 4.0, 3.5, 3.0, 2.7, 2.6, 2.4, 2.2 and 2.1 on an object
#: of 512 px.
STEPS = (16.93, 18.1, 19.78, 20.8, 21.5, 22.45, 23.4, 24.2)
#: Object, name, engine, options.
METHODS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("dense", "PIE", "pie", {}),
    ("dense", "EP", "ep", {"probe_updates": 0}),
    ("sparse", "PIE", "pie", {}),
    ("sparse", "EP", "ep", {"probe_updates": 0}),
    ("sparse", "EP, sparse prior", "ep", {"probe_updates": 0, "prior": "sparse"}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "sampling_ratio", trials=10, passes=400)
    options.add_argument(
        "--steps", type=float, nargs="+", default=STEPS, help="steps of the spiral, px"
    )
    given = options.parse_args(arguments)
    common.start(given)
    table, every = measure(given)
    common.finish(given, draw(table), ("table.csv", table), ("trials.csv", every))


def measure(given: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Statistics of each case, and every trial."""
    table: list[Row] = []
    every: list[Row] = []
    truths = {kind: common.sample(kind, given.images, given.size) for kind in ("dense", "sparse")}
    for kind, name, engine, settings in METHODS:
        truth = truths[kind]
        region = common.middle(truth.shape, 0.5)
        for step in sorted(given.steps):
            positions = common.spiral(truth.shape, step)
            if len(positions) < 2:
                raise PtychonError(
                    f"a spiral of step {step:g} px has no two positions on {truth.shape[0]} px; "
                    "make it smaller"
                )
            errors, restarts, failed, seconds = [], 0, 0, 0.0
            for trial in range(given.trials):
                data = common.at_30_db(truth, kind, positions, given.images is not None, seed=trial)
                done = common.run(
                    data,
                    engine,
                    probe=common.aperture(),
                    passes=given.passes,
                    backend=given.backend,
                    **settings,
                )
                # an empty picture has an error of 0 dB: that is what a run without a result is
                # worth
                errors.append(
                    pmse(done.result.object, truth, region) if done.result is not None else 0.0
                )
                restarts, failed = restarts + done.restarts, failed + (done.result is None)
                seconds += done.result.seconds if done.result is not None else 0.0
                every.append(
                    {
                        "object": kind,
                        "method": name,
                        "step": step,
                        "trial": trial,
                        "error_db": round(errors[-1], 3),
                    }
                )
            ratio = round(sampling_ratio(Problem.from_dataset(data), common.aperture()), 3)
            row = {
                "object": kind,
                "method": name,
                "step": step,
                "frames": len(positions),
                "ratio": ratio,
            }
            row |= {
                "trials": given.trials,
                **common.spread(errors),
                "restarts": restarts,
                "failed": failed,
            }
            table.append(row | {"seconds": round(seconds / given.trials, 1)})
            common.say(
                f"{kind}, {name}, ratio {ratio:.2f}: median {row['median']} dB, worst "
                f"{row['worst']} dB"
            )
    return table, every


def draw(table: Sequence[Row]) -> Any:
    """Two panels, one an object."""
    picture = common.figure(9, 4.3)
    panels = picture.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("dense", "sparse"), strict=True):
        names = [name for k, name, *_ in METHODS if k == kind]
        for name, colour, marker in zip(
            names, common.COLOURS[1::-1] + common.COLOURS[2:], "sod", strict=False
        ):
            rows = [row for row in table if row["object"] == kind and row["method"] == name]
            common.band(axes, (row["ratio"] for row in rows), rows, colour, name, marker)
        axes.set(title=f"{kind} object", xlabel="measured amplitudes / lit object pixels")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("error of the object, dB (larger is better)")
    picture.legend(
        *panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    picture.suptitle("median, quartiles (band) and worst trial (open)", fontsize=9)
    return picture


if __name__ == "__main__":
    common.command(main)
