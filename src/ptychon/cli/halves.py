"""``ptychon halves``: are the error bars right? Two halves of the measured data say, without a
truth.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..types import PtychonError
from .options import BACKEND, at_least, output_options, seed_option
from .results import KNOWN_PROBE, NOISE_VARIANCE, RESULT, Bar, place_for, problem_of, show_rows

if TYPE_CHECKING:
    pass


@click.command(
    epilog="""\b
Examples
  ptychon halves scan_rpie.h5
  ptychon halves scan_rpie.h5 --by counts
  ptychon halves scan_pie.h5 --known-probe --json

positions: one of each pair of neighbouring frames goes to either half. counts: each count goes to
either half by lot, and every position stays; such halves cannot see what is wrong with positions
and beam. Each half is reconstructed from the start and gets the error bars of the joint posterior.
Exit code 1 if the model does not describe the data.
"""
)
@RESULT
@click.option("--by", "kind", default="positions", show_default=True, help="positions or counts.")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Copy of RESULT with what was found; default RESULT_halves.h5.",
)
@click.option(
    "--engine", default="", help="That makes each half; default rpie, or pie with a known probe."
)
@click.option(
    "-n",
    "--epochs",
    type=int,
    default=40,
    show_default=True,
    callback=at_least(1),
    help="Passes of that engine.",
)
@KNOWN_PROBE
@NOISE_VARIANCE
@BACKEND
@seed_option("Of the split and the draws.")
@output_options("No progress, no summary.", "The numbers for machines.")
def halves(
    result: str,
    kind: str,
    output: str | None,
    engine: str,
    epochs: int,
    known_probe: bool | None,
    noise_variance: float | None,
    backend: str,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compare two independent halves of the data of RESULT with what their error bars say.

    Prints by how much the bars have to be widened, over all and by the size of structures, and
    writes it into a copy of RESULT.
    """
    from ..io import load_result
    from ..uncertainty.half_data import KINDS, halves_numbers, halves_rows
    from ..uncertainty.half_data import halves as compare
    from ..uncertainty.saved import save_halves

    if kind not in KINDS:
        raise PtychonError(f"--by is {kind!r}; choose one of {', '.join(KINDS)}")
    found = load_result(result)
    place = place_for(output, result, "_halves.h5")
    problem = problem_of(result, found)
    from ..engines import moves_probe

    free = moves_probe(found) if known_probe is None else not known_probe
    # each half finds a free probe from its own frames; several modes have no other beginning than
    # those of the result
    first = None if free and len(found.probe) == 1 else found.probe
    with Bar(quiet or as_json) as tell:
        said, _ = compare(
            problem,
            kind,
            probe=first,
            free_probe=free,
            engine=engine,
            epochs=epochs,
            noise_variance=noise_variance,
            backend=backend,
            seed=seed,
            tell=tell,
        )
    save_halves(place, result, said)
    if as_json:
        click.echo(json.dumps(halves_numbers(said) | {"result": str(place)}))
    elif not quiet:
        show_rows([*halves_rows(said), ("result", place)], 11)
    return 0 if said.describes else 1
