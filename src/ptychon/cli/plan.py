"""``ptychon plan``: where more frames would help most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import output_options
from .results import PICTURE, RESULT, beside, check_places, check_suffix, show_rows

if TYPE_CHECKING:
    from ..data.result import Result
    from ..uncertainty.plan import Plan


@click.command(
    epilog="""\b
Examples
  ptychon plan scan_joint.h5 --add 20
  ptychon plan scan_joint.h5 --add 20 --exposure 4 -o next.csv --map gain.npz --picture plan.png

Positions are written one per line, y and x, in the units and with the origin of the scan, as
--positions-path reads them. If frames were turned (--orient), positions are in the orientation of
the result.
"""
)
@RESULT
@click.option(
    "--add", "count", type=int, default=10, show_default=True, help="Number of frames to add."
)
@click.option(
    "--exposure",
    type=float,
    default=1.0,
    show_default=True,
    help="Exposure of an added frame, relative to the frames of the scan.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Write the positions to .csv; default RESULT_plan.csv, beside RESULT.",
)
@click.option(
    "--map",
    "store",
    type=click.Path(),
    help="Write the gain at every position and the error bars afterwards to .npz or .h5.",
)
@PICTURE
@output_options()
def plan(
    result: str,
    count: int,
    exposure: float,
    output: str | None,
    store: str | None,
    picture: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Choose positions for further frames that reduce the error bars of RESULT most, one after the
    other.
    """
    from ..io import load_result
    from ..uncertainty.plan import plan as choose

    place = Path(output) if output is not None else beside(result, "_plan.csv")
    check_suffix("table", place, ".csv")
    check_suffix("map", store, ".npz", ".h5")
    check_places(place, store, picture)
    found = load_result(result)
    made = choose(found, count, exposure=exposure)
    write_positions(place, made, Path(result).name)
    if store is not None:
        _write_map(store, made)
    if picture is not None:
        from ..plots.bars import plan as draw

        draw(found, made, picture)
    if as_json:
        click.echo(json.dumps(_numbers(made) | {"positions_file": str(place)}))
    elif not quiet:
        _show(found, made, exposure)
        show_rows([("positions", place), ("map", store), ("picture", picture)])
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

    from ..io.hdf5 import create, write_aside
    from ..io.records import put_array

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
    click.echo(
        f"{'gain':<10} the first frame reduces it by {made.gain[0]:.2%}, the last by "
        f"{made.gain[-1]:.2%}"
    )
