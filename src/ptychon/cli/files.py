"""``ptychon inspect`` and ``ptychon convert``: show what is in a file, and write it in another
format.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import complete
from .options import data_options, given_data
from .results import FORCE, unused


@click.command(
    epilog="""\b
Examples
  ptychon inspect scan.cxi
  ptychon inspect frames.h5 --data-path dp --scan-shape 40x40 --step 31.25A --pixel-size 9.3A
  ptychon inspect scan.cxi --near-field --focus-distance 3.65mm --json
  ptychon inspect scan.cxi --propose settings.yaml

Missing quantities are listed with the option that supplies them; ptychon reconstruct takes the same
options.
"""
)
@click.argument("file", type=click.Path())
@data_options
@click.option(
    "--propose",
    "proposal",
    type=click.Path(),
    metavar="YAML",
    help="Find by short runs which unknowns the data call for (modes, doses, positions, a varying "
    "probe), and write a settings file with them.",
)
@FORCE
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def inspect(file: str, proposal: str | None, force: bool, as_json: bool, **stated: Any) -> int:
    """Show what is in FILE, what is missing, and what follows from it: dose, overlap, sampling,
    time and memory.
    """
    given = given_data(stated)
    if proposal is not None:
        return _propose(file, unused(Path(proposal), True, force), given, as_json)

    from ..io.guard import check_finding, in_copy
    from ..io.recognise import find

    def work() -> Any:
        from ..inspect.file import inspect as look

        return look(file, **given)

    check_finding(file, lambda: find(file, {}))
    about = in_copy(file, work, patience=300)
    if as_json:
        click.echo(json.dumps(about))
    else:
        from .inspect_table import show

        show(about)
    return 0


def _propose(file: str, target: Path, given: dict[str, Any], as_json: bool) -> int:
    """Write the settings that a scan asks for, and say what was tried."""
    from ..inspect.proposal import propose
    from ..io import load
    from ..io.hdf5 import check_writable, write_aside

    check_writable(target)
    tell = (lambda text: click.echo(text, err=True)) if as_json else click.echo
    found = propose(load(file, **given), say=tell)
    path = os.path.relpath(Path(file).resolve(), target.resolve().parent)
    with write_aside(target) as draft:
        draft.write_text(found.settings(path, given), encoding="utf-8")
    if as_json:
        gains = [asdict(gain) | {"share": gain.share} for gain in found.gains]
        about = {"modes": found.modes, "free": list(found.free), "excess": found.excess}
        about |= {} if found.blur is None else {"blur": found.blur}
        click.echo(json.dumps(about | {"gains": gains, "settings": str(target)}))
    else:
        click.echo(found.lines()[0])
        click.echo(f"{target}: {found.lines()[-1]}; run it with ptychon reconstruct {target}")
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
    shell_complete=complete.of(complete.formats),
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

    from ..io.guard import check_finding, in_copy
    from ..io.hdf5 import check_writable
    from ..io.places import check_there
    from ..io.recognise import find

    check_there(source)
    check_writable(unused(Path(target), True, force))

    def work() -> Any:
        from dataclasses import asdict

        from ..io import convert as write

        return asdict(write(source, target, format_name, **given))

    check_finding(source, lambda: find(source, {}))
    done = in_copy(source, work)
    if as_json:
        click.echo(json.dumps(done))
    elif not quiet:
        click.echo(f"{done['kind']} written as {done['format']}: {', '.join(done['files'])}")
        for item in done["lost"]:
            click.echo(f"  lost: {item}")
    return 0
