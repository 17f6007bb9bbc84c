"""Options of everything that runs an engine and writes a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from . import complete
from .results import FORCE

if TYPE_CHECKING:
    pass


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of everything that runs an engine and writes a result."""
    options = (
        click.option(
            "--backend",
            shell_complete=complete.of(complete.backends),
            help="auto (default), numpy, cupy (GPU) or reference.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(),
            help="Write the result here; default FILE_ENGINE.h5 in this folder, numbered if it "
            "exists.",
        ),
        FORCE,
        click.option(
            "--picture",
            type=click.Path(),
            help="Draw the picture here; default beside the result, .png.",
        ),
        click.option(
            "--checkpoint-every",
            type=int,
            metavar="PASSES",
            help="Write a checkpoint beside the result every so many passes.",
        ),
        click.option(
            "--error-bars",
            metavar="METHOD",
            shell_complete=complete.of(complete.methods),
            help="Compute error bars too: auto, laplace, ... (see ptychon error_bars --help).",
        ),
        click.option(
            "--error-bars-prior",
            metavar="white|learned|local",
            help="Choose the prior of the object for --error-bars (auto, laplace).",
        ),
        click.option(
            "--report/--no-report",
            default=None,
            help="Write a report too (see ptychon report --help).",
        ),
        click.option(
            "--half-scans/--no-half-scans",
            default=None,
            help="Reconstruct two half-scans for the resolution in the report, or do not.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print nothing, no progress either."),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            help="Show progress without a terminal too, and where each value came from.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command
