"""``ptychon inspect`` and ``ptychon convert``: show what is in a file, and write it in another
format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import data_options, given_data
from .results import FORCE, unused


@click.command(
    epilog="""\b
Examples
  ptychon inspect scan.cxi
  ptychon inspect frames.h5 --data-path dp --scan-shape 40x40 --step 31.25A --pixel-size 9.3A
  ptychon inspect scan.cxi --near-field --focus-distance 3.65mm --json

Missing quantities are listed with the option that supplies them; ptychon reconstruct takes the same
options.
"""
)
@click.argument("file", type=click.Path())
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def inspect(file: str, as_json: bool, **stated: Any) -> int:
    """Show what is in FILE, what is missing, and what follows from it: dose, overlap, sampling,
    time and memory.
    """
    given = given_data(stated)

    from ..io.guard import in_copy

    def work() -> Any:
        from ..inspect.file import inspect as look

        return look(file, **given)

    about = in_copy(file, work, patience=300)
    if as_json:
        click.echo(json.dumps(about))
    else:
        from .inspect_table import show

        show(about)
    return 0


@click.command(
    epilog="""\b
Examples
  ptychon convert scan.cxi scan.npz
  ptychon convert big.cxi small.cxi --centre auto --crop 512x512 --bin 2 --bad-pixels
  ptychon convert result.h5 result.ptyr
  ptychon convert result.h5 product.h5 --format ptychodus
\b
Scans go to .cxi .h5 (ours), .nxs (NXcxi_ptycho), .ptyd (ptypy), .hdf5 (PtyLab), .hspy .zspy
(HyperSpy), .emd (py4DSTEM), .npz .npy .mat .tif, .h5 .npz (--format ptychodus); reconstructions to
.h5 (ours), .ptyr (ptypy), .hdf5 (PtyLab), .hspy .zspy .emd, .npz .mat .tif, .h5 .npz (--format
ptychodus).
"""
)
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    help="Choose the format: ptychon, nexus, ptypy, ptylab, ptychodus, hyperspy, emd, numpy, "
    "matlab or tiff.",
)
@data_options
@FORCE
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def convert(
    source: str,
    target: str,
    format_name: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **stated: Any,
) -> int:
    """Write SOURCE to TARGET in the format of its suffix, and list what that cannot hold."""
    given = given_data(stated)

    from ..io.guard import in_copy
    from ..io.hdf5 import check_writable
    from ..io.places import check_there

    check_there(source)
    check_writable(unused(Path(target), True, force))

    def work() -> Any:
        from dataclasses import asdict

        from ..io import convert as write

        return asdict(write(source, target, format_name, **given))

    done = in_copy(source, work)
    if as_json:
        click.echo(json.dumps(done))
    elif not quiet:
        click.echo(f"{done['kind']} written as {done['format']}: {', '.join(done['files'])}")
        for item in done["lost"]:
            click.echo(f"  lost: {item}")
    return 0
