"""``ptychon orient``: find the orientation of the detector and the sign of the positions."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import BACKEND, data_options, given_data, output_options, seed_option

if TYPE_CHECKING:
    from ..inspect.orientation import Ranking

#: Options of this command that ptychon reconstruct does not have, or that mean something else
#: there.
_OWN = ("max_frames", "seed", "backend", "quiet", "as_json")


class _Command(click.Command):
    """Keeps the arguments as they were typed, for the command that follows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["typed"] = list(args)
        return super().parse_args(ctx, args)


@click.command(
    cls=_Command,
    epilog="""\b
Examples
  ptychon orient scan.cxi
  ptychon orient frames.h5 --scan-shape 40x40 --step 31.25A --pixel-size 9.3A --voltage 300kV
  ptychon orient scan.npz --probe probe.npy --max-frames 400 --json
  ptychon reconstruct scan.cxi --orient auto
  ptychon reconstruct scan.cxi --orient transpose+flip-rows

An orientation is as-is, or some of transpose, flip-rows, flip-columns (of every frame, in this
order) and negate (the sign of the positions), joined by +. The last line printed is the command to
run next, with the same options. Exit code: 0 if the data decide, 1 if they do not.
""",
)
@click.argument("file", type=click.Path())
@data_options
@click.option(
    "--probe",
    type=click.Path(),
    help="First probe: .npy, .npz or a result file; default the probe in FILE.",
)
@click.option(
    "--max-frames",
    type=int,
    metavar="N",
    help="Use at most so many frames, around the middle of the scan; default 240.",
)
@BACKEND
@seed_option("Seed for the choice of held-out frames.")
@output_options("Print the answer alone.", "Print the table as JSON.")
def orient(
    file: str,
    probe: str | None,
    max_frames: int | None,
    backend: str,
    seed: int,
    quiet: bool,
    as_json: bool,
    **stated: Any,
) -> int:
    """Find how the detector of the scan in FILE was mounted, and the sign of its positions.

    Tries the eight orientations of a detector and both signs of the positions, by short
    reconstructions from frames around the middle of the scan. Each is scored by how well it
    predicts frames that were held out.
    """
    if max_frames is not None and max_frames < 10:
        raise PtychonError(f"--max-frames is {max_frames}; at least 10 are needed")

    from ..inspect.orientation import find
    from ..inspect.trials import FRAMES
    from ..io import load

    data = load(file, **given_data(stated))
    if probe is not None:
        from ..run.placing import probe_for

        data = replace(data, probe=probe_for(data, probe))
    shown = not (quiet or as_json) and sys.stderr.isatty()

    def say(text: str) -> None:
        click.echo(f"\r{text}\033[K", nl=False, err=True)

    ranking = find(
        data, backend=backend, frames=max_frames or FRAMES, seed=seed, say=say if shown else None
    )
    if shown:
        click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps(as_dict(ranking)))
    elif quiet:
        click.echo(str(ranking.best.orientation) if ranking.decided else "undecided")
    else:
        context = click.get_current_context()
        show(ranking, file, carried(context.meta["typed"], context.command), len(data))
    return 0 if ranking.decided else 1


def as_dict(ranking: Ranking) -> dict[str, Any]:
    """The ranking for machines."""
    return {
        "decided": ranking.decided,
        "orientation": str(ranking.best.orientation),
        "margin": ranking.margin,
        "geometry": ranking.geometry,
        "frames": ranking.frames,
        "held_out": ranking.held_out,
        "seconds": ranking.seconds,
        "classes": [
            {
                "orientation": str(trial.orientation),
                "equivalents": [str(o) for o in trial.equivalents],
                "first_probe": trial.probe,
                "explained": trial.explained,
                "behind": trial.behind,
                "passes": trial.passes,
            }
            for trial in ranking.trials
        ],
    }


def carried(typed: Sequence[str], command: click.Command) -> list[str]:
    """The arguments of this command that the next one takes too, as they were typed: all but the
    file and `_OWN`.
    """
    options = {
        name: option for option in command.params for name in (*option.opts, *option.secondary_opts)
    }
    kept: list[str] = []
    words = iter(typed)
    for word in words:
        name = word.split("=", 1)[0]
        if not word.startswith("-") or name not in options:
            continue
        option = options[name]
        alone = "=" in word or getattr(option, "is_flag", False)
        part = [word] if alone else [word, next(words, "")]
        if option.name not in _OWN:
            kept += part
    return kept


def show(ranking: Ranking, file: str, options: Sequence[str] = (), frames: int = 0) -> None:
    """The table and what follows from it, for people; the last line is a command.

    Parameters
    ----------
    ranking : Ranking
    file : str
    options : sequence of str
        What else the command needs that follows.
    frames : int
        Frames of the whole scan.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("orientation", "explained", "behind", "first probe"):
        table.add_column(
            title, justify="right" if title in ("explained", "behind") else "left", no_wrap=True
        )
    for trial in ranking.trials:
        behind = "" if trial is ranking.best else f"{trial.behind:.1f} s.e."
        table.add_row(str(trial.orientation), f"{trial.explained:.2%}", behind, trial.probe)
    Console(highlight=False).print(table)
    best = ranking.best.orientation
    click.echo(
        f"\n{ranking.frames} frames, {ranking.held_out} of them held out, {ranking.geometry} "
        f"field, {ranking.seconds:.0f} s\n"
        "explained: share of the difference between a held-out frame and the mean frame that is "
        "predicted\nbehind: how much less than the first, in standard errors"
    )
    others = [str(other) for other in ranking.best.equivalents if other != best]
    click.echo(f"No reconstruction with a free probe can tell {best} from {', '.join(others)}.")
    more = min(2 * ranking.frames, frames)
    if not ranking.decided:
        click.echo(
            f"The data do not decide: {best} leads by {ranking.margin:.1f} standard errors. "
            "Give a first probe (--probe, or "
            f"--semi-angle and --defocus of electrons)"
            + (", or use more frames:" if more > ranking.frames else "; or look at its picture:")
        )
        if more > ranking.frames:
            click.echo(shlex.join(["ptychon", "orient", file, *options, "--max-frames", str(more)]))
            return
    elif best == type(best)():
        click.echo("The orientation of the frames is right; nothing needs turning.")
    click.echo(shlex.join(["ptychon", "reconstruct", file, *options, "--orient", str(best)]))
