"""``ptychon validate``: is what a file says right? The mistakes of a settings file, before a run;
the error bars of a result, on two halves of the measured data.
"""

from __future__ import annotations

import json

import click

from ..model.grid import pair
from ..types import PtychonError
from .options import BACKEND, output_options, passes_option, seed_option
from .results import FORCE, NOISE_VARIANCE, UPDATE, Bar, place_for, problem_of, show_rows


@click.command(
    epilog="""\b
Examples
  ptychon validate settings.yaml              settings: every mistake, and what would run
  ptychon validate scan_rpie.h5               a result: its error bars
  ptychon validate scan_rpie.h5 --by counts
  ptychon validate scan_pie.h5 --update probe:no --json
\b
Ways to split
  positions  assign one frame of each pair of neighbouring frames to either half
  counts     assign each count to either half at random (binomial thinning); every position stays,
             so that errors of positions and illumination are not seen

Each half is reconstructed from the start and gets the error bars of the joint posterior. Where the
result has error bars by laplace, each half gets those, starting from the result. Bars that were
widened by halves (ptychon error_bars --halves) are tested with bars widened in the same way, on
other splits. T is the difference between the halves over what their error bars predict, by size of
structures (period), with its own uncertainty: 1 is right. Widened bars hold if T is between 0.8 and
1.25 for all sizes. Errors that both halves share are not seen.
Exit code 1 if the model does not describe the data, or widened bars do
not hold; 2 if settings have a mistake.
"""
)
@click.argument("file", type=click.Path())
@click.option(
    "--by",
    "kind",
    default="positions",
    show_default=True,
    help="Split the data by positions or by counts.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Copy of RESULT with the outcome; default RESULT_validated.h5, beside RESULT.",
)
@click.option(
    "--engine",
    default="",
    help="Engine that reconstructs each half; default rpie, or pie with a known probe.",
)
@passes_option("Passes of that engine.", default=40)
@UPDATE
@NOISE_VARIANCE
@BACKEND
@seed_option("Seed for the split and the draws.")
@FORCE
@output_options()
def validate(
    file: str,
    kind: str,
    output: str | None,
    engine: str,
    passes: int,
    updates: tuple[str, ...],
    noise_variance: float | None,
    backend: str,
    seed: int,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Validate FILE: settings (.yaml) for mistakes, or the error bars of a result on two halves of
    its data.

    Of settings, prints every mistake, or what would run; nothing is computed. Of a result, prints
    by how much its error bars have to be widened, over all and by the size of structures, and
    writes it into a copy.
    """
    from .reconstruct import is_own

    if is_own(file) == "settings":
        return _settings(file, quiet, as_json)
    result = file
    from ..io import load_result
    from ..run.update import updates_of
    from ..uncertainty.free import free_in
    from ..uncertainty.half_data import half_data_test
    from ..uncertainty.half_data_table import half_data_numbers, half_data_rows
    from ..uncertainty.saved import save_half_data_test
    from ..uncertainty.splitting import KINDS

    if kind not in KINDS:
        raise PtychonError(f"--by is {kind!r}; choose one of {', '.join(KINDS)}")
    found = load_result(result)
    place = place_for(output, result, "_validated.h5", force)
    problem = problem_of(result, found)
    free = free_in(found, updates_of(updates))
    # each half finds a free probe from its own frames; several modes have no other beginning than
    # those of the result
    first = None if "probe" in free and len(found.probe) == 1 else found.probe
    how = dict(found.settings).get("error_bars")
    own = isinstance(how, dict) and how.get("method") == "laplace" and not updates and not engine
    with Bar(quiet or as_json) as tell:
        if own:
            from ..uncertainty.discrepancy import tried_again

            said = tried_again(
                problem,
                found,
                kind,
                noise_variance=noise_variance,
                backend=backend,
                seed=seed,
                tell=tell,
            )
        else:
            said, _ = half_data_test(
                problem,
                kind,
                probe=first,
                update=free,
                engine=engine,
                passes=passes,
                noise_variance=noise_variance,
                backend=backend,
                seed=seed,
                tell=tell,
            )
    save_half_data_test(place, result, said)
    if as_json:
        click.echo(json.dumps(half_data_numbers(said) | {"result": str(place)}))
    elif not quiet:
        show_rows([*half_data_rows(said), ("result", place)], 11)
    return 0 if (said.bars_hold if said.widened else said.describes) else 1


def _settings(file: str, quiet: bool, as_json: bool) -> int:
    """What the settings of a file would run, after all that can be checked without computing."""
    from ..io.places import check_there
    from ..request.inputs import open_data, read_settings
    from ..request.settings import validated

    settings = validated(read_settings(file), file)
    for name in ("input", "probe", "start"):
        place = getattr(settings, name)
        if place is not None:
            check_there(place)
    data = open_data(settings)
    p, q = data.frame_shape
    numbers = {
        "settings": file,
        "input": settings.input,
        "frames": [len(data), p, q],
        "geometry": data.geometry,
        "pixel_size": None if data.pixel_size is None else list(pair(data.pixel_size)),
        "engine": settings.engine,
        "passes": settings.passes,
    }
    if as_json:
        click.echo(json.dumps(numbers))
    elif not quiet:
        from ..units import pretty_pair

        show_rows(
            [
                ("settings", f"{file}: no mistakes"),
                (
                    "scan",
                    f"{settings.input}: {len(data)} frames of {p} x {q}, {data.geometry} field",
                ),
                ("pixel", pretty_pair(data.pixel_size)),
                ("run", f"{settings.engine}, {settings.passes} passes"),
                ("next", f"ptychon reconstruct {file}"),
            ]
        )
    return 0
