"""What the commands that work on a result share: options, the data it was made from, places for
what is written, progress.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.meter import Meter
from ..types import PtychonError

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result
    from ..model.problem import Problem

RESULT = click.argument("result", type=click.Path())
UPDATE = click.option(
    "--update",
    "updates",
    multiple=True,
    metavar="NAME[:no]",
    help="Include the uncertainty of this unknown in the error bars, or with :no take it as exact: "
    "positions, dose, background, weights, variations, distance (near field), probe, probe:no; "
    "default as in RESULT (repeatable, or with commas).",
)
NOISE_VARIANCE = click.option(
    "--noise-variance",
    type=float,
    help="Variance of the amplitude noise; default as stored with the scan, or learned.",
)
PICTURE = click.option(
    "--picture", type=click.Path(), help="Draw the outcome to .png, .pdf or .svg."
)


def data_of(path: str, result: Result) -> tuple[Dataset, Path]:
    """What a result was made from, and in which file that is; changed data are said.

    Raises
    ------
    PtychonError
        If they are not found.
    """
    import warnings

    from ..request.inputs import find_data
    from ..types import PtychonWarning

    data, source, changed = find_data(result, path)
    if changed:
        warnings.warn(
            f"{source} has changed since {path} was made from it", PtychonWarning, stacklevel=2
        )
    return data, source


#: The option that lets a command write over a file.
FORCE = click.option("--force", is_flag=True, help="Write over a file of that name.")


def problem_of(path: str, result: Result, background: str | None = None) -> Problem:
    """The data of a result on its grid, from the file named in it.

    Parameters
    ----------
    path : str
        Of the result.
    result : Result
    background : str, optional
        Mean background counts per pixel, a number or a file, which the data do not state.

    Raises
    ------
    PtychonError
        If they are not found or give another grid than that of the result; a background of data
        that state one already, or that are no counts.
    """
    from ..model.found import on_grid
    from ..request.inputs import find_data

    data = data_of(path, result)[0]
    if background is not None:
        if not data.counting:
            raise PtychonError(
                "--background belongs to frames that are counts; those of this scan are not"
            )
        if data.background is not None:
            raise PtychonError("the data state their background already; leave out --background")
        data = find_data(result, path, background=background)[0]
    return on_grid(data, result)


def beside(result: str, ending: str) -> Path:
    """``scan_rpie`` + ending, in the folder of the result ``scan_rpie.h5``."""
    return Path(result).with_name(f"{Path(result).stem}{ending}")


def place_for(output: str | None, result: str, ending: str, force: bool = False) -> Path:
    """Where another result file goes: where it was asked for, or beside the first, but never over
    it.

    Raises
    ------
    PtychonError
        If it cannot be written, is the result itself, or is another file and `force` is not set.
    """
    place = beside(result, ending) if output is None else Path(output)
    refuse_same(place, result, "the result itself; give another name with -o")
    place = unused(place, output is not None, force)
    check_places(place)
    return place


def unused(place: Path, stated: bool, force: bool) -> Path:
    """A place where nothing is yet: a name that was not asked for is numbered, scan_rpie_2.h5.

    Raises
    ------
    PtychonError
        Where there is a file of the name that was asked for, unless `force` is set.
    """
    if force or not place.exists():
        return place
    if stated:
        raise PtychonError(
            f"{place} exists already: write over it with --force, or give another name"
        )
    return next(
        other
        for number in itertools.count(2)
        if not (other := place.with_name(f"{place.stem}_{number}{place.suffix}")).exists()
    )


def refuse_same(place: str | Path, other: str | Path, what: str) -> None:
    """Refuse to write over a file that is read, however it is called."""
    if Path(place).exists() and Path(place).samefile(other):
        raise PtychonError(f"{place} is {what}")


def check_places(*places: str | Path | None) -> None:
    """Refuse places that cannot be written, before anything is computed."""
    from ..io.hdf5 import check_writable

    for place in places:
        if place is not None:
            check_writable(place)


def check_suffix(what: str, place: str | Path | None, *suffixes: str) -> None:
    """Refuse a name that does not say one of these formats."""
    if place is not None and Path(place).suffix.lower() not in suffixes:
        raise PtychonError(f"the {what} {place} must be named {' or '.join(suffixes)}")


def show_rows(rows: Iterable[tuple[str, Any]], width: int = 10) -> None:
    """Names and values on stdout, those that are None left out."""
    for name, value in rows:
        if value is not None:
            click.echo(f"{name:<{width}} {value}")


class Bar:
    """Progress on stderr: a bar on a terminal, which goes when all is done; elsewhere a line every
    half minute.
    """

    def __init__(self, quiet: bool) -> None:
        self._meter = None if quiet else Meter()

    def __enter__(self) -> Any:
        return self._tell

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._meter is not None:
            self._meter.title = what
            self._meter(done, total)

    def __exit__(self, *error: Any) -> None:
        if self._meter is not None:
            self._meter.close(leave=False)
