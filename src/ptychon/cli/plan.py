"""``ptychon plan``: where more frames would help most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import output_options
from .results import PLOT, RESULT, beside, check_places, check_suffix, show_rows

if TYPE_CHECKING:
    from ..data.result import Result
    from ..uncertainty.plan import Plan


@click.command(
    epilog="""\b
Examples
  ptychon plan scan_posterior.h5 -n 20
  ptychon plan scan_posterior.h5 -n 20 --exposure 4 -o next.csv --map gain.npz --plot plan.png

Positions are written one a line, y and x, in the units and with the origin of those of the scan, as
--positions-path reads them. Where frames were turned (--orient), they are in the orientation of the
result.
"""
)
@RESULT
@click.option(
    "-n", "--frames", "count", type=int, default=10, show_default=True, help="How many to add."
)
@click.option(
    "--exposure",
    type=float,
    default=1.0,
    show_default=True,
    help="Of each, relative to those of the scan.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Table of positions, .csv; default RESULT_plan.csv, beside it.",
)
@click.option(
    "--map",
    "store",
    type=click.Path(),
    help="Gain at every place and error bars after, .npz or .h5.",
)
@PLOT
@output_options("Say nothing.")
def plan(
    result: str,
    count: int,
    exposure: float,
    output: str | None,
    store: str | None,
    plot: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Choose the next positions so that the error bars of RESULT become as small as they can, each
    after those before.
    """
    from ..io import load_result
    from ..uncertainty.plan import plan as choose

    place = Path(output) if output is not None else beside(result, "_plan.csv")
    check_suffix("table", place, ".csv")
    check_suffix("map", store, ".npz", ".h5")
    check_places(place, store, plot)
    found = load_result(result)
    made = choose(found, count, exposure=exposure)
    write_positions(place, made, Path(result).name)
    if store is not None:
        _write_map(store, made)
    if plot is not None:
        from ..plots.bars import plan as draw

        draw(found, made, plot)
    if as_json:
        click.echo(json.dumps(_numbers(made) | {"positions_file": str(place)}))
    elif not quiet:
        _show(found, made, exposure)
        show_rows([("positions", place), ("map", store), ("picture", plot)])
    return 0


def write_positions(path: Path, made: Plan, of: str) -> None:
    """A table that `scan.from_table` and --positions-path read."""
    from ..io.hdf5 import write_aside

    lines = [
        f"# {len(made.coordinates)} positions planned from {of}, in {made.unit}, the most "
        "useful first"
    ]
    lines += [f"y_{made.unit},x_{made.unit}"]
    lines += [f"{y:.12g},{x:.12g}" for y, x in made.coordinates.tolist()]
    with write_aside(path) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_map(path: str, made: Plan) -> None:
    import numpy as np

    from ..io.hdf5 import create, put_array, write_aside

    arrays: dict[str, Any] = {
        "gain": made.map,
        "std": made.std,
        "field": made.field,
        "positions": made.coordinates,
    }
    if Path(path).suffix.lower() == ".npz":
        with write_aside(path) as aside, aside.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        return
    with create(path) as file:
        for name, array in arrays.items():
            put_array(file, name, array)
        file["positions"].attrs["unit"] = made.unit


def _numbers(made: Plan) -> dict[str, Any]:
    return {
        "unit": made.unit,
        "positions": made.coordinates.tolist(),
        "pixels": made.positions.tolist(),
        "gain": made.gain.tolist(),
        "before": made.before,
        "after": made.after,
    }


def _show(found: Result, made: Plan, exposure: float) -> None:
    n = len(made.positions)
    share = 1 - (made.after / made.before) ** 2
    alike = n * exposure / len(found.positions)
    click.echo(
        f"{'error bar':<10} {made.before:.4g} now, {made.after:.4g} with {n} more frames (rms "
        f"over {made.field.sum()} px)"
    )
    click.echo(f"{'variance':<10} falls by {share:.1%} for {alike:.1%} more dose")
    click.echo(f"{'first':<10} takes off {made.gain[0]:.2%}, the last {made.gain[-1]:.2%}")
