"""Values that the shell completes: engines, their options, methods, backends, orientations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def of(names: Callable[[], dict[str, str]]) -> Complete:
    """Completion among names, each with a line of help; asked for when the shell does."""

    def found(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
        return [
            CompletionItem(name, help=text or None)
            for name, text in names().items()
            if name.startswith(begun)
        ]

    return found


def engines() -> dict[str, str]:
    """Names of the engines."""
    from ..engines import registry

    return {name: cls.title for name, cls in registry.items()}


def methods() -> dict[str, str]:
    """Methods of error bars."""
    from ..uncertainty.methods import AUTO, registry

    return dict.fromkeys((AUTO, *registry), "")


def backends() -> dict[str, str]:
    """What computes."""
    return {"auto": "", "numpy": "the processor", "cupy": "a GPU", "reference": "slow, plain"}


def orientations() -> dict[str, str]:
    """Ways that a detector is mounted."""
    import itertools

    from ..inspect.orientation import Orientation

    turns = [
        Orientation(transpose=t, flip_rows=r, flip_columns=c, negate=n)
        for t, r, c, n in itertools.product((False, True), repeat=4)
    ]
    return {"auto": "found from the data", **{str(turn): "" for turn in turns}}


def constraints() -> dict[str, str]:
    """What object and probe can be made to fulfil."""
    from ..run.constraints import CONSTRAINTS

    return {name: str(kind.__doc__).splitlines()[0] for name, kind in CONSTRAINTS.items()}


def formats() -> dict[str, str]:
    """Formats that can be written."""
    from ..io.export import FORMATS

    return {name: " ".join(suffixes) for name, suffixes in FORMATS.items()}


def settings(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Options of the engine that was named, as ``name=``; and values where they are few."""
    from ..engines import kinds, options, registry
    from ..request.options import RUN_OPTIONS

    engine: Any = context.params.get("engine") or "rpie"
    if engine not in registry:
        return []
    name, equals, value = begun.partition("=")
    types = {**kinds(registry[engine]), **{n: kind for n, (kind, _, _) in RUN_OPTIONS.items()}}
    if equals:
        values = ["yes", "no"] if types.get(name) is bool else []
        return [CompletionItem(f"{name}={v}") for v in values if v.startswith(value)]
    names = [*options(registry[engine]), *RUN_OPTIONS]
    return [CompletionItem(f"{n}=") for n in names if n.startswith(name)]
