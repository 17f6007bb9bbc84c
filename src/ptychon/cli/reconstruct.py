"""``ptychon reconstruct`` and ``ptychon resume``: from a file, or from where a run was stopped, to
a result and a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..types import PtychonError
from .options import data_options, engine_options, given_data


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of everything that runs an engine and writes a result."""
    options = (
        click.option("--backend", help="auto (default), numpy, cupy (GPU) or reference."),
        click.option(
            "-o", "--output", type=click.Path(), help="Result file; default FILE_ENGINE.h5, here."
        ),
        click.option(
            "--picture", type=click.Path(), help="Picture; default beside the result, .png."
        ),
        click.option(
            "--checkpoint-every",
            type=int,
            metavar="PASSES",
            help="Leave a checkpoint beside the result now and then.",
        ),
        click.option(
            "--bars",
            metavar="METHOD",
            help="Error bars too: laplace, ep, ... (see ptychon uncertainty --help).",
        ),
        click.option(
            "--report/--no-report",
            default=None,
            help="Write a report as well (see ptychon report --help).",
        ),
        click.option(
            "--half-split/--no-half-split",
            default=None,
            help="Two half-scans for the report's resolution (default).",
        ),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no summary."),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            help="Progress also where there is no terminal; where values came from.",
        ),
        click.option("--json", "as_json", is_flag=True, help="The summary for machines."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples
\b
A file that knows everything; and a report for colleagues:
  ptychon reconstruct scan.cxi --report
\b
Near field; the distance from focus to sample is not in the file:
  ptychon reconstruct scan.cxi --near-field --focus-distance 3.65mm --epochs 60
\b
Electrons; the file holds nothing but frames:
  ptychon reconstruct frames.h5 --data-path dp --scan-shape 40x40 --step 31.25A --pixel-size 9.3A
          --rotation -126deg --voltage 300kV --semi-angle 1.03mrad --defocus 13.5um
\b
Nobody knows how the detector was mounted:
  ptychon reconstruct scan.cxi --orient auto
\b
Tune, then go on with error bars from Ptycho-EP:
  ptychon reconstruct scan.npz --set object_step=0.8 --set object_reg=0.1 -o first.h5
  ptychon reconstruct scan.npz --engine ep --epochs 40 --start first.h5
\b
Engines one after the other; positions refined at the end:
  ptychon reconstruct scan.cxi --recipe "dm:60, rpie:100"
  ptychon reconstruct scan.cxi --recipe "rpie:40, ml:15" --update positions
\b
A beam that is not quite coherent:
  ptychon reconstruct scan.cxi --modes 3
\b
A long run; the settings in a file; the same again:
  ptychon reconstruct scan.cxi --epochs 2000 --checkpoint-every 100
  ptychon reconstruct scan.cxi --bars laplace --report
  ptychon reconstruct settings.yaml
  ptychon reconstruct scan_rpie.h5

A settings file has lines such as "input: scan.cxi", "engine: rpie", "epochs: 60", "options:
{object_step: 0.8}" and "data: {focus_distance: 3.65mm}"; paths in it are relative to its folder.
Quantities take units (m mm um nm A pm, keV eV, kV V, deg mrad rad); plain numbers are SI. What is
given here wins over the file. Exit code: 0; 2 for bad input; 130 after Ctrl-C.
"""
)
@click.argument("file", type=click.Path())
@click.option("-e", "--engine", help="Algorithm: pie, epie, rpie (default), dm or ep.")
@click.option("-n", "--epochs", type=int, help="Passes over the data; default 40.")
@click.option(
    "-s",
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the engine (repeatable).",
)
@click.option(
    "--recipe",
    metavar="STAGES",
    help="Engines one after the other with their passes, in place of -e and -n: 'dm:60, rpie:100'.",
)
@click.option(
    "--update",
    "updates",
    multiple=True,
    metavar="NAME[:WHEN]",
    help="Refine this too, or say when: positions, positions:after=20,every=5, probe:no "
    "(repeatable).",
)
@click.option("--seed", type=int, help="Of everything random; default 0.")
@data_options
@click.option(
    "--orient",
    metavar="WAY",
    help="auto, or how to turn frames and positions (see ptychon orient --help).",
)
@click.option("--probe", type=click.Path(), help="First probe: .npy, .npz, or a result.")
@click.option(
    "--modes",
    type=int,
    metavar="N",
    help="Incoherent modes of the probe; default those of the first probe: one.",
)
@click.option("--start", type=click.Path(), help="Result to go on from.")
@click.option("--no-subpixel", is_flag=True, help="Round positions to whole pixels.")
@run_options
def reconstruct(
    file: str,
    assignments: tuple[str, ...],
    updates: tuple[str, ...],
    no_subpixel: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **stated: Any,
) -> int:
    """Reconstruct object and probe from FILE: a scan, a settings file (.yaml), or a result that is
    to be repeated.

    Writes a result file and a picture, and prints R, the mismatch sqrt(sum (|model| -
    sqrt(counts))^2 / sum counts): as accumulated during the last pass, and of the final object and
    probe held still. Ctrl-C ends after the pass that is going on, keeps what was found and leaves a
    checkpoint to resume from.
    """
    if stated["epochs"] is not None and stated["epochs"] < 1:
        raise PtychonError(f"--epochs is {stated['epochs']}; at least 1 pass is needed")
    if stated["modes"] is not None and stated["modes"] < 1:
        raise PtychonError(f"--modes is {stated['modes']}; at least 1 is needed")
    given = given_data(stated)
    stated = {name: value for name, value in stated.items() if value is not None}
    if no_subpixel:
        stated["subpixel"] = False
    if stated.get("engine") is not None or not is_own(file):
        engine_options(
            stated.get("engine") or "rpie", ()
        )  # an unknown name is said before anything else

    from ..request.settings import input_hash, validated

    values, default, sha256 = _base(file)
    if stated.get("engine", values.get("engine")) != values.get("engine"):
        values["options"] = {}  # they belong to another engine
    if "recipe" in stated:
        for name in ("engine", "epochs", "options"):
            values.pop(name, None)
    elif "engine" in stated or "epochs" in stated:
        values["recipe"] = None
    if updates:
        from ..run.update import update_of

        stated["update"] = {**(values.get("update") or {}), **dict(map(update_of, updates))}
    engine = stated.get("engine") or values.get("engine") or "rpie"
    if assignments:
        options, run = engine_options(engine, assignments)
        stated["options"] = {**(values.get("options") or {}), **options, **run}
    if given:
        values["data"] = _overlaid(values.get("data") or {}, given)
    settings = validated({**values, **stated}, file)

    from ..io.places import stem_of
    from .run import Places, Voice, execute

    places = Places.of(settings, default.format(stem=stem_of(file), engine=settings.engine))
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
    )


def is_own(path: str) -> str:
    """What FILE is, if it is no scan: "settings", "result", "checkpoint"; otherwise empty."""
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        return "settings"
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("ptychon", ""))
    except (OSError, RuntimeError, ValueError):
        return ""  # the reader says what is wrong with it


def _base(file: str) -> tuple[dict[str, Any], str, str | None]:
    """Settings that FILE brings, the name of the result if none is given, and the hash the input
    had.
    """
    from ..request.settings import find_input, read_settings, request_of

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


@click.command(
    epilog="""\b
Examples
  ptychon resume scan_rpie.checkpoint.h5
  ptychon resume scan_rpie.checkpoint.h5 --epochs 200 -o longer.h5
"""
)
@click.argument("checkpoint", type=click.Path())
@click.option(
    "-n",
    "--epochs",
    type=int,
    help="Passes in all, those done included; default as it was planned.",
)
@run_options
def resume(
    checkpoint: str,
    epochs: int | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    backend: str | None,
    **stated: Any,
) -> int:
    """Go on from a CHECKPOINT, bit for bit as if the run had never stopped.

    The data must be where they were, or beside the checkpoint, and must not have changed.
    """
    from ..request.settings import find_input, request_of, validated
    from ..run.checkpoint import load_checkpoint

    found = load_checkpoint(checkpoint)
    kept = found.settings
    values = request_of(kept, checkpoint)
    sha256 = kept.get("input_sha256")
    source, state = find_input(values, checkpoint, sha256)
    if state == "changed":
        raise PtychonError(
            f"{source} has changed since {checkpoint} was written: the run cannot go on; start "
            "it again"
        )
    values |= {"input": str(source), "output": kept.get("result"), "picture": kept.get("picture")}
    if stated["output"] is not None:
        values["picture"] = None
    values |= {name: value for name, value in stated.items() if value is not None}
    done = len(found.errors)
    # passes are counted from the beginning of this run; an earlier one that it started from is not
    # repeated
    values["epochs"] = values["epochs"] if epochs is None else epochs - (found.epoch - done)
    if values.get("recipe"):
        from ..run.recipe import Recipe

        kept_recipe = Recipe.read(found.recipe).reaching(values["epochs"], found.stage)
        values["recipe"] = kept_recipe.stored()
    if values["epochs"] <= done:
        raise PtychonError(
            f"{checkpoint} has done {found.epoch} passes already; give a larger number with "
            "--epochs"
        )
    settings = validated(values, checkpoint)

    from .run import Places, Voice, execute

    places = Places.of(settings, "")
    voice = Voice(quiet=quiet, verbose=verbose, as_json=as_json)
    voice.say(f"going on after pass {found.epoch} of {found.epoch - done + settings.epochs}")
    given = {} if sha256 is None else {"input_sha256": sha256}
    return execute(
        settings,
        places,
        voice,
        backend=backend or str(kept.get("backend", "auto")),
        given=given,
        resume=found,
    )
