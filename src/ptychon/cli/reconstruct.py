"""``ptychon reconstruct``: from a file to a result and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from . import complete
from .options import data_options, engine_options, given_data, passes_option
from .run_options import run_options
from .startup import import_for_run

if TYPE_CHECKING:
    from .places import Voice


@click.command(
    epilog="""\b
Examples
\b
A complete file; with a report for colleagues:
  ptychon reconstruct scan.cxi --report
\b
Near field; the file lacks the distance from focus to sample:
  ptychon reconstruct scan.cxi --near-field --focus-distance 3.65mm --passes 60
\b
Electrons; the file holds only frames:
  ptychon reconstruct frames.h5 --data-path dp --scan-shape 40x40 --step 31.25A --pixel-size 9.3A
          --rotation -126deg --voltage 300kV --semi-angle 1.03mrad --defocus 13.5um
\b
Unknown orientation of the detector:
  ptychon reconstruct scan.cxi --orient auto
\b
Tune the steps, then continue with Ptycho-EP, which gives error bars:
  ptychon reconstruct scan.npz --set object_step=0.8 --set object_reg=0.1 -o first.h5
  ptychon reconstruct scan.npz --engine ep --passes 40 --start first.h5
\b
Engines one after the other; positions refined at the end:
  ptychon reconstruct scan.cxi --recipe "dm:60, rpie:100"
  ptychon reconstruct scan.cxi --recipe "rpie:40, ml:15" --update positions
  ptychon reconstruct scan.cxi --update positions:after=8 --update dose --refine trials=4
\b
Few counts; a probe that drifts in its window:
  ptychon reconstruct scan.cxi --constraint tv:weight=2e-3,before=80 --constraint centre:every=10
\b
A partially coherent beam; a thick specimen:
  ptychon reconstruct scan.cxi --modes 3
  ptychon reconstruct scan.cxi --slices 5 --slice-spacing 10nm
\b
Two scans of one beam; of one specimen:
  ptychon reconstruct a.cxi b.cxi --share probe
  ptychon reconstruct a.cxi b.cxi --share object
\b
A long run with checkpoints; error bars and a report; a settings file; a run repeated:
  ptychon reconstruct scan.cxi --passes 2000 --checkpoint-every 100
  ptychon reconstruct scan.cxi --error-bars laplace --report
  ptychon reconstruct settings.yaml
  ptychon reconstruct scan_rpie.h5

A settings file has lines such as "input: scan.cxi", "engine: rpie", "passes: 60", "options:
{object_step: 0.8}" and "data: {focus_distance: 3.65mm}"; paths in it are relative to its folder.
Quantities take units (m mm um nm A pm, keV eV, kV V, deg mrad rad); plain numbers are SI. Options
on the command line override the file. Exit code: 0; 2 for bad input; 130 after Ctrl-C.
"""
)
@click.argument("file", type=click.Path())
@click.argument("more", nargs=-1, type=click.Path())
@click.option(
    "--share",
    type=click.Choice(["probe", "object", "both"]),
    help="Reconstruct FILE and MORE scans together, which share the probe, the object or both.",
)
@click.option(
    "--shift",
    metavar="WAY",
    help="Shift the positions of the second scan by this (--share object or both), such as "
    "2um,-0.5um; of further scans after a semicolon. search: reconstruct each scan, and find the "
    "shift by aligning the objects.",
)
@click.option(
    "-e",
    "--engine",
    shell_complete=complete.of(complete.engines),
    help="Choose the engine (algorithm): rpie (default), or another that ptychon engines lists.",
)
@passes_option("Passes over the data; default 40.")
@click.option(
    "-s",
    "--set",
    "assignments",
    multiple=True,
    shell_complete=complete.settings,
    metavar="NAME=VALUE",
    help="Set an option of the engine (see ptychon engines; repeatable).",
)
@click.option(
    "--recipe",
    metavar="STAGES",
    help="Engines one after the other with their passes, in place of -e and -n: 'dm:60, rpie:100'; "
    "auto: after the first run, continue with the unknowns that the data call for.",
)
@click.option(
    "--update",
    "updates",
    multiple=True,
    metavar="NAME[:WHEN]",
    help="Refine this unknown too, or set from which pass: positions, dose, background, "
    "positions:after=20,every=5, probe:no (repeatable, or with commas).",
)
@click.option(
    "--refine",
    metavar="NAME=NUMBER,...",
    help="Set how --update refines between the passes of an engine: trials=4 tries 4 places for "
    "each frame within radius=3 px; limit and least are the largest step of a position at first "
    "and at the end; momentum; smooth, the width of the smoothing of the background.",
)
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="NAME[:NUMBERS,WHEN]",
    shell_complete=complete.of(complete.constraints),
    help="Apply this constraint to object or probe between passes: amplitude:lo=0.9,hi=1.1, phase, "
    "smooth, tv:weight=1e-3,after=5,before=30, grid_notch, support:radius=PIXELS or :fraction=0.1, "
    "aperture:mrad=21 or :fraction=0.5, centre:every=10, power, ramp, orthogonal_modes, "
    "depth:1, depth_centre (repeatable).",
)
@click.option("--seed", type=int, help="Seed for all random numbers; default 0.")
@data_options
@click.option(
    "--orient",
    metavar="WAY",
    shell_complete=complete.of(complete.orientations),
    help="Set the orientation of the detector: auto, or as ptychon orient --help lists.",
)
@click.option(
    "--affine",
    metavar="WAY",
    help="Scale, rotate and shear the positions: numbers such as scale=1.02,rotation=-0.5, or "
    "search to find them by short reconstructions (search:scale,rotation finds only these).",
)
@click.option(
    "--probe", type=click.Path(), help="Start from this probe: .npy, .npz or a result file."
)
@click.option(
    "--modes",
    type=int,
    metavar="N",
    help="Set the number of incoherent probe modes; default as in the first probe, else one.",
)
@click.option(
    "--slices",
    type=int,
    metavar="N",
    help="Set the number of slices of a thick specimen; default one.",
)
@click.option(
    "--slice-spacing",
    metavar="LENGTH",
    help="Set the distance between slices, such as 10nm; or one for each gap, with commas.",
)
@click.option(
    "--tilt",
    metavar="ANGLE",
    help="Set the angle between beam and specimen, along y or along y,x, such as 5mrad,2mrad.",
)
@click.option(
    "--start",
    "starts",
    type=click.Path(),
    multiple=True,
    help="Start from the object and probe of this result; with several scans once for each.",
)
@click.option("--no-subpixel", is_flag=True, help="Round positions to whole pixels.")
@run_options
def reconstruct(
    file: str,
    more: tuple[str, ...],
    share: str | None,
    shift: str | None,
    assignments: tuple[str, ...],
    updates: tuple[str, ...],
    constraints: tuple[str, ...],
    starts: tuple[str, ...],
    no_subpixel: bool,
    force: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **stated: Any,
) -> int:
    """Reconstruct object and probe from FILE: a scan, a settings file (.yaml), or a result to
    repeat.

    Writes a result file and a picture, and prints R, the mismatch sqrt(sum (|model| -
    sqrt(counts))^2 / sum counts): accumulated during the last pass, and of the final object and
    probe. Ctrl-C ends the run after the current pass, writes the result so far and a checkpoint to
    resume from.

    Without -e, -n, -s, --recipe, --modes, --slices, --update, --constraint and --start, a run whose
    misfit is above the noise continues with the unknowns that the data call for, found as by
    ptychon inspect --propose.
    """
    for name in ("modes", "slices"):
        if stated[name] is not None and stated[name] < 1:
            raise PtychonError(f"--{name} is {stated[name]}; at least 1 is needed")
    import_for_run()
    given = given_data(stated)
    if stated["refine"] is not None:
        from ..run.refine import Refine

        stated["refine"] = Refine.read(stated["refine"]).stored()
    stated = {name: value for name, value in stated.items() if value is not None}
    if starts:
        stated["start"] = starts[0]
    if no_subpixel:
        stated["subpixel"] = False
    if stated.get("engine") is not None or not is_own(file):
        engine_options(
            stated.get("engine") or "rpie", ()
        )  # an unknown name is said before anything else

    from ..request.inputs import input_hash
    from ..request.settings import validated
    from .places import Places, Voice
    from .run import execute

    further = stated.get("recipe") == "auto"
    if further:
        del stated["recipe"]
    chosen = ("engine", "passes", "recipe", "modes", "slices", "start")
    if not (updates or constraints or assignments or any(name in stated for name in chosen)):
        further = further or is_own(file) not in ("settings", "result", "checkpoint")

    values, default, sha256 = _base(file)
    if stated.get("engine", values.get("engine")) != values.get("engine"):
        values["options"] = {}  # they belong to another engine
    if "recipe" in stated:
        for name in ("engine", "passes", "options"):
            values.pop(name, None)
    elif "engine" in stated or "passes" in stated:
        values["recipe"] = None
    if updates:
        from ..run.update import updates_of

        stated["update"] = {**(values.get("update") or {}), **updates_of(updates)}
    if constraints:
        stated["constraints"] = list(constraints)
    engine = stated.get("engine") or values.get("engine") or "rpie"
    if assignments:
        options, run = engine_options(engine, assignments)
        stated["options"] = {**(values.get("options") or {}), **options, **run}
    if given:
        values["data"] = _overlaid(values.get("data") or {}, given)
    settings = validated({**values, **stated}, file)
    if more or share is not None:
        voice = Voice(quiet=quiet, verbose=verbose, as_json=as_json)
        return _together(settings, more, share, shift, starts, default, voice, force)
    if shift is not None or len(starts) > 1:
        what = "--shift" if shift is not None else "more than one --start"
        raise PtychonError(f"{what} is for several scans, and one is given: leave it out")

    from ..io.places import stem_of

    name = default.format(stem=stem_of(file), engine=settings.engine)
    places = Places.of(settings, name, force=force)
    now = input_hash(settings.input)
    if sha256 is not None and now is not None and sha256 != now:
        import warnings

        from ..types import PtychonWarning

        warnings.warn(
            f"{settings.input} has changed since {file} was made from it",
            PtychonWarning,
            stacklevel=2,
        )
    voice = Voice(quiet=quiet, verbose=verbose, as_json=as_json)
    return execute(
        settings,
        places,
        voice,
        backend=settings.backend,
        given={} if now is None else {"input_sha256": now},
        further=further,
    )


def _together(
    settings: Any,
    more: tuple[str, ...],
    share: str | None,
    shift: str | None,
    starts: tuple[str, ...],
    default: str,
    voice: Voice,
    force: bool,
) -> int:
    """Several scans at once."""
    from .several import begun

    count = 1 + len(more)
    if share is None or not more:
        raise PtychonError(
            f"{count} scan{'s are' if more else ' is'} given"
            + (f" with --share {share}: name two or more" if share else "")
            + ("" if share else ": say what they share with --share probe, object or both")
        )
    if starts and len(starts) != count:
        raise PtychonError(
            f"{count} scans are given and {len(starts)} to start from: give --start once for each, "
            "in the order of the scans"
        )
    every = [
        settings.model_copy(update={"input": path, "start": starts[i] if starts else None})
        for i, path in enumerate((settings.input, *more))
    ]
    return begun(every, share, voice, default, shift=shift, force=force)


def is_own(path: str) -> str:
    """What FILE is, if it is no scan: "settings", "result", "checkpoint"; otherwise empty."""
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        return "settings"
    import h5py

    from ..io.guard import check_nodes

    check_nodes(path)
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("ptychon", ""))
    except (OSError, RuntimeError, ValueError):
        return ""  # the reader says what is wrong with it


def _base(file: str) -> tuple[dict[str, Any], str, str | None]:
    """Settings that FILE brings, the name of the result if none is given, and the hash the input
    had.
    """
    from ..request.inputs import find_input, read_settings, request_of

    kind = is_own(file)
    if kind == "settings":
        return read_settings(file), "{stem}.h5", None
    if kind == "checkpoint":
        raise PtychonError(f"{file} is a checkpoint; go on from it with: ptychon resume {file}")
    if kind != "result":
        return {"input": file}, "{stem}_{engine}.h5", None
    from ..io import load_result

    result = load_result(file)
    values = request_of(result.settings, file) | {"output": None, "picture": None}
    sha256 = result.provenance.get("input_sha256")
    values["input"] = str(find_input(values, file, sha256)[0])
    return values, "{stem}_again.h5", sha256


def _overlaid(data: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is known of the scan, with what the command line states in place of what
    says the same.
    """
    same = ("wavelength", "energy", "voltage")
    drop = same if any(name in given for name in same) else ()
    return {name: value for name, value in data.items() if name not in drop} | given
