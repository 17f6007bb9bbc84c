"""``ptychon report``: a page to send to a colleague."""

from __future__ import annotations

import json

import click

from .options import BACKEND, output_options, seed_option
from .results import show_rows


@click.command(
    epilog="""\b
Examples
  ptychon report scan_rpie.h5
  ptychon report scan_rpie.h5 --half-scans              with the resolution
  ptychon report rpie.h5 ep.h5 dm.h5 -o comparison.html
  ptychon reconstruct scan.cxi --report                 reconstruct, then report

The page needs no network and no other file. The data are read from the file that the result names,
or from the folder of the result; if they are missing, the page omits what needs them and says so.
"""
)
@click.argument("results", nargs=-1, required=True, type=click.Path(), metavar="RESULT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Write the page here; default RESULT_report.html, beside the first result.",
)
@click.option(
    "--half-scans/--no-half-scans",
    default=None,
    help="Reconstruct two independent half-scans, for the resolution. They are kept beside the "
    "result and used again.",
)
@BACKEND
@seed_option("Seed for the split into half-scans.")
@output_options()
def report(
    results: tuple[str, ...],
    output: str | None,
    half_scans: bool | None,
    backend: str,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write a report of one or several RESULTs: a page (HTML), its pictures (PNG) and its numbers
    (JSON).

    It shows object, probe, error bars, convergence, resolution from two half-scans, the fit of
    every frame and of every detector pixel, settings and provenance. It begins with a verdict in
    plain words and its reasons.
    """
    from ..reports.write import write_report

    def say(text: str) -> None:
        if not (quiet or as_json):
            click.echo(text, err=True)

    written = write_report(
        results, output=output, half_scans=half_scans, backend=backend, seed=seed, say=say
    )
    found = json.loads(written.numbers.read_text())
    if as_json:
        click.echo(
            json.dumps(found | {"page": str(written.page), "pictures": str(written.pictures)})
        )
    elif not quiet:
        for name, numbers in found["results"].items():
            click.echo(f"{name}: {numbers['verdict']['headline']}")
            for reason in numbers["verdict"]["reasons"]:
                click.echo(f"  {_MARKS[reason['level']]} {reason['text']}")
        show_rows(
            [
                ("report", written.page),
                ("numbers", written.numbers),
                ("pictures", f"{written.pictures}/"),
            ]
        )
    return 0


_MARKS = {"good": "+", "note": ".", "care": "!", "bad": "x"}
