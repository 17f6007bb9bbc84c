"""``ptychon init``: a folder to start from."""

from __future__ import annotations

import click

from .results import FORCE


@click.command(
    epilog="""\b
Examples
  ptychon init run1 --kind beamline --input /data/scan_0042.cxi
  ptychon init run2 --kind electron
\b
Kinds
  beamline    far-field X-rays at a synchrotron
  electron    4D-STEM
  optical     visible light, a camera without a lens
  near-field  near-field X-rays, cone or parallel beam
\b
Files
  settings.yaml   commented settings: ptychon reconstruct settings.yaml
  reconstruct.py  the same from Python
  job.sh          the same as a batch job of Slurm
"""
)
@click.argument("folder", default=".", type=click.Path(file_okay=False))
@click.option(
    "--kind",
    type=click.Choice(["beamline", "electron", "optical", "near-field"]),
    default="beamline",
    show_default=True,
    help="Choose the kind of experiment.",
)
@click.option(
    "--input",
    "scan",
    type=click.Path(),
    help="Name the file with the scan; default a name that you change.",
)
@FORCE
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def init(folder: str, kind: str, scan: str | None, force: bool, quiet: bool) -> int:
    """Write a settings file with comments, a script and a batch job into FOLDER."""
    from pathlib import Path

    from ..request.starter import write_starter

    given = None if scan is None else str(Path(scan).resolve())
    made = write_starter(folder, kind, given, force)
    if not quiet:
        for place in made:
            click.echo(str(place))
        settings = made[0]
        click.echo(f"edit {settings}, then: ptychon validate {settings}")
    return 0
