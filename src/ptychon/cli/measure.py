"""``ptychon measure``: values with error bars, from a result that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import output_options
from .results import PICTURE, RESULT, check_places, check_suffix

if TYPE_CHECKING:
    from ..data.result import Result
    from ..uncertainty.measure import Comparison, Profile, Spread
    from ..uncertainty.resolution import Resolution

    Table = dict[str, Any]


@click.command(
    epilog="""\b
Examples
  ptychon reconstruct scan.cxi --engine joint --start scan_rpie.h5 --passes 32
  ptychon measure scan_joint.h5 --line 40,30,40,90
  ptychon measure scan_joint.h5 --line 40,30,40,90 -o profile.csv --picture profile.png
  ptychon measure scan_joint.h5 --regions 60,40,6 60,80,6
  ptychon measure scan_joint.h5 --regions 0.2um,-1um,80nm 0.2um,1um,80nm --json
  ptychon measure scan_joint.h5 --resolution --picture resolution.png

Plain numbers are object pixels from pixel 0,0; with units they are coordinates as on the axes of
the pictures. An error bar contains the truth in 68 % of cases, if the assumptions of the result's
error bars hold. Posterior draws, which engine "joint" stores, include the correlations between
pixels; a standard deviation alone does not.
"""
)
@RESULT
@click.option("--line", metavar="Y0,X0,Y1,X1", help="Measure amplitude and phase along this line.")
@click.option(
    "--regions",
    nargs=2,
    metavar="Y,X,R Y,X,R",
    help="Measure phase difference and amplitude ratio of two discs.",
)
@click.option(
    "--resolution",
    "resolve",
    is_flag=True,
    help="Estimate the resolution: expected Fourier ring correlation with the truth.",
)
@click.option("--samples", type=int, help="Number of points on the line; default one per pixel.")
@click.option("-o", "--output", type=click.Path(), help="Write the table to .csv or .json.")
@PICTURE
@output_options("Print no table.")
def measure(
    result: str,
    line: str | None,
    regions: tuple[str, str] | None,
    resolve: bool,
    samples: int | None,
    output: str | None,
    picture: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compute values and their error bars from the object of RESULT."""
    if (line is not None) + (regions is not None) + resolve != 1:
        raise PtychonError(
            "choose what to measure, one of --line Y0,X0,Y1,X1, --regions Y,X,R Y,X,R, --resolution"
        )
    if samples is not None and line is None:
        raise PtychonError("--samples belongs to --line")
    check_suffix("table", output, ".csv", ".json")

    from ..io import load_result
    from ..uncertainty import measure as measures

    check_places(output, picture)
    found = load_result(result)
    measured: Any
    show: Any
    if line is not None:
        y0, x0, y1, x1 = places(found, line, 4)
        measured = measures.profile(found, (y0, x0), (y1, x1), points=samples)
        table, show = _profile(measured), _show_profile
    elif regions is not None:
        first, second = (_disc(found, text) for text in regions)
        measured = measures.compare_regions(found, first, second)
        table, show = _comparison(measured), _show_comparison
    else:
        from ..uncertainty.resolution import resolution

        measured = resolution(found)
        table, show = _resolution(measured), _show_resolution
    table["given"] = given(found)
    if output is not None:
        write_table(output, table)
    if picture is not None:
        from ..plots import bars as plot_bars

        if line is not None:
            plot_bars.profile(measured, picture)
        elif regions is not None:
            plot_bars.regions(found, (first, second), measured, picture)
        else:
            plot_bars.resolution(measured, picture)
    if as_json:
        click.echo(json.dumps(table))
    elif not quiet:
        show(measured, table)
        click.echo(f"{'given':<12} {'; '.join(table['given'])}")
    return 0


def places(result: Result, text: str, count: int) -> list[float]:
    """Coordinates ``y,x,...`` in object pixels; quantities with a unit are turned into them,
    alternating between y and x.

    Raises
    ------
    PtychonError
        If there are not `count` of them, or they are not numbers.
    """
    from ..uncertainty.measure import pixels
    from ..units import parse

    words = [word.strip() for word in text.split(",")]
    if len(words) != count:
        raise PtychonError(
            f"{text!r} has {len(words)} numbers; {count} are needed, with commas between them"
        )
    values = []
    for i, word in enumerate(words):
        try:
            values.append(float(word))
        except ValueError:
            length = parse(word, "length", f"number {i + 1} of {text!r}")
            values.append(pixels(result, length, length)[i % 2])
    return values


def _disc(result: Result, text: str) -> tuple[float, float, float]:
    *centre, radius = (word.strip() for word in text.split(","))
    if len(centre) != 2:
        raise PtychonError(f"{text!r} is no region: give y,x,radius")
    y, x = places(result, ",".join(centre), 2)
    try:
        return y, x, float(radius)
    except ValueError:
        from ..units import parse

        if result.pixel_size is None:
            raise PtychonError(
                f"the result has no pixel size; give the radius {radius} in pixels, as a plain "
                "number"
            ) from None
        return y, x, parse(radius, "length", "the radius") / max(result.pixel_size)


def given(result: Result) -> list[str]:
    """What the bars take for granted, in a few words."""
    from ..engines import moves_probe

    draws, free = result.draws, moves_probe(result)
    said = [
        f"{len(draws)} draws of the posterior"
        if draws is not None and len(draws)
        else "independent errors of the pixels"
    ]
    said.append(
        "after alignment of factor, phase ramp and translation"
        if free
        else "after alignment of the global phase"
    )
    how = dict(result.settings).get("error_bars")
    how = how if isinstance(how, dict) else {}
    held = "positions and model are right"
    if "positions" in how.get("update", ()):
        held = "the model is right"
    if how.get("widened"):
        held = f"widened by what halves of the data, by {how['halves']}, disagree by"
    return [*said, held]


def write_table(path: str, table: Table) -> None:
    """The columns of a table as .csv, or all of it as .json; the file appears when it
    is complete.
    """
    from ..io.hdf5 import write_aside

    if Path(path).suffix.lower() == ".json":
        text = json.dumps(table, indent=1)
    else:
        rows = zip(*table["columns"].values(), strict=True)
        lines = [",".join(table["columns"]), *(",".join(_cell(v) for v in row) for row in rows)]
        text = "\n".join(lines)
    with write_aside(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"


def _precision(spread: Spread) -> dict[str, Any]:
    return {
        "draws": len(spread.deviations),
        "correlated": spread.correlated,
        "precision": spread.precision,
    }


def _profile(found: Profile) -> Table:
    columns = {
        "y_px": found.points[:, 0],
        "x_px": found.points[:, 1],
        f"distance_{found.unit}": found.distance,
        "amplitude": found.amplitude.value,
        "amplitude_bar": found.amplitude.bar,
        "phase_rad": found.phase.value,
        "phase_bar_rad": found.phase.bar,
    }
    return {
        "measured": "line",
        **_precision(found.phase),
        "columns": {k: v.tolist() for k, v in columns.items()},
    }


def _comparison(found: Comparison) -> Table:
    rows = {
        "phase_difference_rad": found.phase,
        "amplitude_ratio": found.ratio,
        "amplitude_first": found.first,
        "amplitude_second": found.second,
    }
    columns = {
        "quantity": list(rows),
        "value": [float(s.value) for s in rows.values()],
        "bar": [float(s.bar) for s in rows.values()],
    }
    return {
        "measured": "regions",
        "pixels": list(found.pixels),
        **_precision(found.phase),
        "columns": columns,
    }


def _resolution(found: Resolution) -> Table:
    from ..reports.page import plain

    names = ("half", "half_interval", "one_bit", "one_bit_interval", "nyquist_limited", "unit")
    spread = found.correlation
    columns = {
        f"frequency_per_{found.unit}": found.frequency,
        "correlation": spread.value,
        "bar": spread.bar,
    }
    whole = {
        "measured": "resolution",
        **{n: getattr(found, n) for n in names},
        **_precision(spread),
        "columns": columns,
    }
    made: Table = plain(whole)
    return made


def _show_profile(found: Profile, table: Table) -> None:
    from ..units import pretty

    click.echo(f"{'distance':>12} {'amplitude':>20} {'phase (rad)':>20}")
    for i, where in enumerate(found.distance):
        distance = pretty(float(where), "length") if found.unit == "m" else f"{where:.1f} px"
        click.echo(f"{distance:>12} {pm(found.amplitude, i):>20} {pm(found.phase, i):>20}")


def _show_comparison(found: Comparison, table: Table) -> None:
    click.echo(f"{'phase':<12} {pm(found.phase)} rad (first less second, 68 %)")
    click.echo(f"{'amplitude':<12} {pm(found.ratio)} (first over second)")
    for name, one, count in (
        ("first", found.first, found.pixels[0]),
        ("second", found.second, found.pixels[1]),
    ):
        click.echo(f"{name:<12} {pm(one)} (mean amplitude of {count} pixels)")


def _show_resolution(found: Resolution, table: Table) -> None:
    from ..reports.verdict import resolution

    rows = [
        ("FRC 1/2", found.half, found.half_interval),
        ("one bit", found.one_bit, found.one_bit_interval),
    ]
    for name, value, interval in rows:
        limited = value == 1 / found.frequency[-1]
        click.echo(f"{name:<12} {resolution(value, interval, found.unit, limited, '68 %')}")


def pm(spread: Spread, i: int | None = None) -> str:
    """Value and bar, the bar to two digits and the value as far."""
    import math

    value, bar = (float(a if i is None else a[i]) for a in (spread.value, spread.bar))
    digits = 3 if not bar > 0 else max(0, 1 - math.floor(math.log10(bar)))
    return f"{value:.{digits}f} ± {bar:.{digits}f}"
