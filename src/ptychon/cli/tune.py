"""``ptychon tune``: search the numbers of a run that matter."""

from __future__ import annotations

import json
import math
import shlex
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from ..units import Dimension, parse, pretty
from .options import (
    BACKEND,
    at_least,
    data_options,
    given_data,
    output_options,
    passes_option,
    seed_option,
)
from .results import FORCE, Bar, check_places, check_suffix, unused

if TYPE_CHECKING:
    from ..inspect.tuning import Knob, Trial, Tuned

#: Rows of the table.
_ROWS = 10
#: What is varied where nobody says it.
_USUAL = ("object_step=0.1..1", "modes=1,2,3")


@click.command(
    epilog="""\b
Examples
  ptychon tune scan.cxi
  ptychon tune scan.cxi --vary distance=5% --vary object_step=0.1..1
  ptychon tune scan.h5 --voltage 300kV --semi-angle 21mrad --vary defocus=10nm..60nm
  ptychon tune scan.cxi --vary modes=1,2,3,4 --by pixels
  ptychon tune scan.cxi --vary orient=as-is,transpose,flip-rows
\b
What can be varied
  object_step, probe_step, object_reg, ...  options of rpie (ptychon engines rpie)
  distance, defocus, step, rotation, ...    what describes the scan, in any unit
  modes, orient                             modes of the probe, orientation of the detector
\b
NAME=LOW..HIGH searches a range, NAME=5% one about the value that the scan states, and NAME=A,B,C
tries values. Without --vary: object_step and modes.

Every trial is a short reconstruction by rpie from frames around the middle of the scan, without
some of the frames (or pixels). The score is the share of what was held out that is predicted.
A number of the scan that was searched in a range gets an error: trials around the best one are
repeated with 3, 9 and 27 times the passes until it stays, which takes longer than the search.
"""
)
@click.argument("file", type=click.Path())
@click.option(
    "--vary",
    "varied",
    multiple=True,
    metavar="NAME=VALUES",
    help="Search this: NAME=LOW..HIGH, NAME=5% or NAME=A,B,C (repeatable).",
)
@click.option(
    "--by",
    type=click.Choice(["frames", "pixels"]),
    default="frames",
    show_default=True,
    help="Hold out frames, or pixels of every frame.",
)
@passes_option("Passes of a trial.", default=30)
@click.option(
    "--trials",
    type=int,
    default=40,
    show_default=True,
    callback=at_least(1),
    help="Number of trials, about.",
)
@click.option(
    "--max-frames",
    type=int,
    default=100,
    show_default=True,
    callback=at_least(10),
    help="Use so many frames around the middle of the scan.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Settings file with the best values; default FILE_tuned.yaml, here, numbered where that "
    "exists.",
)
@data_options
@BACKEND
@seed_option("Seed for what is held out.")
@FORCE
@output_options(numbers="Print the table as JSON.")
def tune(
    file: str,
    varied: tuple[str, ...],
    by: Any,
    passes: int,
    trials: int,
    max_frames: int,
    output: str | None,
    backend: str,
    seed: int,
    force: bool,
    quiet: bool,
    as_json: bool,
    **stated: Any,
) -> int:
    """Search numbers such as steps, defocus, distance, orientation and probe modes for the scan in
    FILE.

    Prints the best trials and writes a settings file with the best one, to be run with ptychon
    reconstruct.
    """
    from pathlib import Path

    import yaml

    from ..inspect.tuning import tune as search
    from ..io import load
    from ..io.hdf5 import write_aside
    from ..io.places import stem_of

    given = given_data(stated)
    check_suffix("settings", output, ".yaml", ".yml")
    place = unused(Path(output or f"{stem_of(file)}_tuned.yaml"), output is not None, force)
    check_places(place)
    data = load(file, **given)
    knobs = [knob_of(text, data, given) for text in varied or _USUAL]
    twice = [k.name for k in knobs if sum(k.name == other.name for other in knobs) > 1]
    if twice:
        raise PtychonError(f"--vary {twice[0]} is given twice; give it once")
    with Bar(quiet or as_json) as tell:
        found = search(
            lambda values: load(file, **{**given, **values}) if values else data,
            knobs,
            by=by,
            passes=passes,
            trials=trials,
            frames=max_frames,
            backend=backend,
            seed=seed,
            tell=tell,
        )
    best = {**found.best.values, **{v.name: v.value for v in found.values if v.told}}
    settings = settings_of(file, given, best, place.parent)
    with write_aside(place) as aside:
        aside.write_text(
            f"# found by ptychon tune: {found.best.explained:.1%} of the {by} held out are "
            f"predicted, {len(found.trials)} trials\n"
            + "".join(f"# {line}\n" for line in told(found))
            + yaml.safe_dump(settings, sort_keys=False),
            encoding="utf-8",
        )
    if as_json:
        click.echo(json.dumps(numbers_of(found) | {"settings": str(place)}))
    elif not quiet:
        show(found)
        click.echo(shlex.join(["ptychon", "reconstruct", str(place)]))
    return 0


def knob_of(text: str, data: Any, given: dict[str, Any]) -> Knob:
    """What ``NAME=VALUES`` asks for.

    Raises
    ------
    PtychonError
        For an unknown name, or values that cannot be read.
    """
    from ..engines import kinds, nearest, options, registry
    from ..inspect.orientation import Orientation
    from ..inspect.tuning import Knob
    from ..request.options import typed

    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.replace("-", "_")
    engine = options(registry["rpie"])
    dimensions = dimensions_of()
    names = [*engine, *dimensions, "modes", "orient"]
    if not (name and equals and values):
        raise PtychonError(
            f"--vary {text!r} is not of the form NAME=LOW..HIGH, NAME=5% or NAME=A,B,C"
        )
    if name not in names:
        raise PtychonError(f"--vary {name!r} is no number of a run; {nearest(name, names)}")

    def number(part: str) -> Any:
        if name == "orient":
            return str(Orientation.parse(part.strip()))
        if name in dimensions:
            return parse(part.strip(), dimensions[name])
        if name == "modes":
            try:
                modes = int(part)
            except ValueError:
                modes = 0
            if modes < 1:
                raise PtychonError(f"--vary modes={part} is no number of modes from 1 on")
            return modes
        return typed(name, part.strip(), kinds(registry["rpie"])[name], engine[name])

    if values.endswith("%"):
        known = given.get(name, getattr(data, name, None))
        known = known[0] if isinstance(known, tuple) else known
        try:
            share = float(values[:-1]) / 100
        except ValueError:
            share = 0.0
        if not isinstance(known, int | float) or not 0 < share < 1:
            why = "its value is not known" if 0 < share < 1 else f"{values} is no share"
            raise PtychonError(f"--vary {text}: {why}; give a range, {name}=LOW..HIGH")
        return Knob(name, range=(known * (1 - share), known * (1 + share)))
    if ".." in values:
        low, _, high = values.partition("..")
        ends = float(number(low)), float(number(high))
        if name in ("modes", "orient") or not ends[0] < ends[1]:
            raise PtychonError(
                f"--vary {text}: a range goes from the smaller to the larger number, and modes and "
                "orient have none"
            )
        return Knob(name, range=ends)
    return Knob(name, tuple(number(part) for part in values.split(",")))


def dimensions_of() -> dict[str, Dimension]:
    """What describes a scan by a number, and what kind of quantity each is."""
    from ..io.given import DIMENSIONS, PAIRS

    lengths: dict[str, Dimension] = dict.fromkeys(PAIRS, "length")
    return {**DIMENSIONS, **lengths}


def settings_of(
    file: str, given: dict[str, Any], values: dict[str, Any], folder: Any
) -> dict[str, Any]:
    """The settings file of a trial, paths relative to its folder where that is possible."""
    import os
    from pathlib import Path

    from ..engines import options, registry
    from ..request.inputs import with_paths

    engine = {n: v for n, v in values.items() if n in options(registry["rpie"])}
    rest = {n: v for n, v in values.items() if n not in engine}
    own = {n: v for n, v in rest.items() if n not in ("modes", "orient")}
    data = with_paths({**given, **own}, Path())
    made: dict[str, Any] = {
        "input": os.path.relpath(Path(file).resolve(), Path(folder).resolve()),
        "engine": "rpie",
        "passes": 200,
    }
    made |= {n: rest[n] for n in ("modes", "orient") if n in rest}
    if engine:
        made["options"] = {
            n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in engine.items()
        }
    if data:
        made["data"] = {n: _plain(v) for n, v in data.items()}
    return made


def _plain(value: Any) -> Any:
    """What YAML writes without tags."""
    if isinstance(value, slice):
        from ..data.prepare import slice_text

        return slice_text(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def numbers_of(found: Tuned) -> dict[str, Any]:
    """The table for machines."""
    return {
        "by": found.by,
        "frames": found.frames,
        "seconds": found.seconds,
        "values": [
            {
                "name": v.name,
                "value": v.value,
                "error": v.error if math.isfinite(v.error) else None,
                "told": v.told,
                "passes": v.passes,
            }
            for v in found.values
        ],
        "trials": [
            {
                "values": {n: _plain(v) for n, v in t.values.items()},
                "explained": t.explained if t.explained > float("-inf") else None,
                "behind": t.behind if t.behind < float("inf") else None,
            }
            for t in found.trials
        ],
    }


def show(found: Tuned) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in found.best.values:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("predicted", justify="right")
    table.add_column("behind", justify="right")
    for trial in found.trials[:_ROWS]:
        behind = "" if trial is found.trials[0] else f"{trial.behind:.1f} s.e."
        failed = trial.explained == float("-inf")
        shown = [said(name, value) for name, value in trial.values.items()]
        score = ("failed", "") if failed else (f"{trial.explained:.2%}", behind)
        table.add_row(*shown, *score)
    Console(highlight=False).print(table)
    alike = close(found)
    click.echo(
        f"\n{found.frames} frames, {len(found.trials)} trials, {found.seconds:.0f} s\n"
        f"predicted: share of the difference between the {found.by} held out and the mean frame\n"
        "behind: how much less than the first, in standard errors"
    )
    for line in told(found):
        click.echo(line)
    named = {value.name for value in found.values}
    if len(alike) > 1:
        spans = []
        for name in found.best.values:
            if name in named:
                continue
            known = [t.values[name] for t in alike]
            if all(isinstance(v, float) for v in known) and min(known) < max(known):
                spans.append(f"{name} from {said(name, min(known))} to {said(name, max(known))}")
            elif len(dict.fromkeys(known)) > 1:
                spans.append(f"{name} {', '.join(dict.fromkeys(said(name, v) for v in known))}")
        if spans:
            click.echo(f"The data do not tell these apart (within 2 s.e.): {'; '.join(spans)}.")


def told(found: Tuned) -> list[str]:
    """What the data say of each number that describes the scan, one sentence each."""
    lines = []
    for v in found.values:
        value, error = said(v.name, v.value), said(v.name, v.error)
        if v.told:
            line = f"{v.name}: {value} +- {error} ({v.passes} passes)"
            if v.moved > 1:
                line += (
                    f"; it still moves with more passes: try --passes {v.passes} and a smaller "
                    "range around it"
                )
        else:
            known = math.isfinite(v.error)
            why = f"{value} +- {error}" if known else "predicted alike, or best at an end"
            remedy = (
                "refine it with object and probe (-e ml --update distance)"
                if v.near and v.name == "distance"
                else "search a wider range"
            )
            line = (
                f"{v.name}: the data do not tell it in this range ({why}); keep what the scan "
                f"states, or {remedy}"
            )
        lines.append(line)
    return lines


def close(found: Tuned) -> list[Trial]:
    """Trials that are not worse than the best by two standard errors."""
    return [t for t in found.trials if t.behind < 2]


def said(name: str, value: Any) -> str:
    """A value for people."""
    dimensions = dimensions_of()
    if isinstance(value, float):
        return pretty(value, dimensions[name], 4) if name in dimensions else f"{value:.4g}"
    return str(value)
