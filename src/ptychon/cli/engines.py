"""``ptychon engines``: list the algorithms with their options."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import click

from ..request.options import RUN_OPTIONS


@click.command(epilog="\b\nExamples\n  ptychon engines\n  ptychon engines rpie\n")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def engines(names: tuple[str, ...], as_json: bool) -> None:
    """List the engines with their options, defaults and meaning.

    Set an option by --set NAME=VALUE; "none" leaves the choice to the engine.
    """
    from ..engines import nearest, options, registry
    from ..types import PtychonError

    for name in names:
        if name not in registry:
            raise PtychonError(f"unknown engine {name!r}; {nearest(name, registry)}")
    chosen = {name: registry[name] for name in names or registry}
    if as_json:
        click.echo(json.dumps({name: options(cls) for name, cls in chosen.items()}))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False, highlight=False)
    for name, cls in chosen.items():
        first, about = documented(cls)
        console.print(f"\n[bold]{name}[/bold]  {cls.title}")
        console.print(f"  {first}", markup=False, style="dim")
        _table(
            console,
            Table,
            [(option, value, about.get(option, "")) for option, value in options(cls).items()],
        )
    console.print("\n[bold]every engine[/bold]  options of the run")
    _table(
        console,
        Table,
        [(key, default, meaning) for key, (_, default, meaning) in RUN_OPTIONS.items()],
    )


def _table(console: Any, table_type: Any, rows: list[tuple[str, Any, str]]) -> None:
    from rich.text import Text

    table = table_type(box=None, show_header=False, padding=(0, 2, 0, 2))
    for column in range(3):
        table.add_column(no_wrap=column < 2, style="dim" if column == 2 else "")
    for option, default, meaning in rows:
        table.add_row(*(Text(str(cell)) for cell in (option, default, meaning)))
    console.print(table)


def documented(cls: Any) -> tuple[str, dict[str, str]]:
    """First line of a class's docstring, and the meaning of each of its parameters, and of those
    that it has from others, in one line.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= _parameters(base.__doc__ or "")
    return (inspect.getdoc(cls) or "").split("\n")[0], found


def _parameters(doc: str) -> dict[str, str]:
    """The meaning of each parameter that a docstring states."""
    text = inspect.cleandoc(doc)
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n[A-Z][a-z]+\n-+|\Z)", text, re.DOTALL)
    kinds: dict[str, str] = {}
    meanings: dict[str, list[str]] = {}
    names: list[str] = []
    for line in (section.group(1) if section else "").splitlines():
        if line and not line.startswith(" "):
            declared, _, kind = line.partition(" : ")
            names = [name.strip() for name in declared.split(",")]
            kinds |= dict.fromkeys(names, kind.strip())
        for name in names if line.startswith(" ") else ():
            meanings.setdefault(name, []).append(line.strip())
    return {
        name: ": ".join(part for part in (kind, " ".join(meanings.get(name, []))) if part)
        for name, kind in kinds.items()
    }
