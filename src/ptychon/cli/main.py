"""The command line: a thin layer over the Python API. Heavy modules are imported by the commands
that need them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import Any

import click

from .. import __version__
from ..distributed.launcher import launch
from ..types import PtychonError

#: Title -> command -> module of this package that has it, in the order of the help.
_GROUPS = {
    "Start": {"init": "cli.init"},
    "Data": {
        "inspect": "cli.files",
        "orient": "cli.orient",
        "tune": "cli.tune",
        "convert": "cli.files",
        "simulate": "cli.simulate",
    },
    "Reconstruction": {
        "reconstruct": "cli.reconstruct",
        "resume": "cli.resume",
        "demo": "cli.demo",
    },
    "Results and their error bars": {
        "report": "cli.report",
        "error_bars": "cli.error_bars",
        "validate": "cli.validate",
        "measure": "cli.measure",
        "check": "cli.check",
        "plan": "cli.plan",
    },
    "About": {"engines": "cli.engines", "info": "cli.info", "bench": "bench.command"},
}
_COMMANDS = {name: module for group in _GROUPS.values() for name, module in group.items()}

#: Commands that compute or write: several processes would each do all of it, and write the same
#: files.
_ALONE = (
    "init",
    "tune",
    "reconstruct",
    "resume",
    "report",
    "error_bars",
    "validate",
    "convert",
    "simulate",
    "demo",
    "bench",
)


#: Commands of earlier versions, and what they are called now.
_RENAMED = {"bars": "error_bars", "uncertainty": "error_bars", "error-bars": "error_bars"}


class _Commands(click.Group):
    """Imports a command when it is needed; those whose module is not there do not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = f"ptychon.{_COMMANDS[cmd_name]}"
        if importlib.util.find_spec(module) is None:
            return None
        found: Any = importlib.import_module(module)
        return next(
            (
                c
                for c in vars(found).values()
                if isinstance(c, click.Command) and c.name == cmd_name
            ),
            None,
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By what they are for, each with its whole first sentence."""
        for title, names in _GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, c.get_short_help_str(400)) for name, c in found if c is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _RENAMED and not ctx.resilient_parsing:
            ctx.fail(f"ptychon {args[0]} is called ptychon {_RENAMED[args[0]]}")
        unknown = args[0] not in _COMMANDS and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(args[0], known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}"
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    epilog="""\b
Examples
  ptychon demo                                          simulate a scan and reconstruct it
  ptychon orient scan.cxi                               find the orientation of the detector
  ptychon reconstruct scan.cxi --report                 reconstruct, and write a report
  ptychon reconstruct scan.npz --engine ep --passes 60  choose another algorithm
  ptychon engines                                       list the algorithms and their options
\b
Completion of names in the shell (bash; also zsh, fish); add to your ~/.bashrc:
  eval "$(_PTYCHON_COMPLETE=bash_source ptychon)"
""",
)
@click.version_option(__version__, prog_name="ptychon")
@click.pass_context
def cli(context: click.Context) -> None:
    """Ptychographic reconstruction with an honest error bar on every pixel."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    if context.invoked_subcommand in _ALONE:
        _refuse_copies(context.invoked_subcommand)


def _refuse_copies(command: str) -> None:
    """Several processes of one launcher would each do the whole of a command."""
    started = launch()
    if started.size > 1:
        once = "srun -n 1" if started.launcher == "srun" else "no launcher"
        raise PtychonError(
            f"{started.launcher} has started {started.size} processes, and each would do the "
            f"whole of ptychon {command} and "
            f"write the same files: start it once, with {once} (ptychon {command} ...); it uses "
            "all cores of its machine "
            f"by itself"
        )
