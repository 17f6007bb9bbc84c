"""Engines: one algorithm family a file, found by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from ..types import PtychonError
from .base import Context, Engine, Estimate, Report, State
from .difference_map import DifferenceMap
from .joint_posterior import Posterior
from .pie import EPIE, PIE, RPIE
from .ptycho_ep import PtychoEP

if TYPE_CHECKING:
    from ..data.result import Result

__all__ = ["Context", "Engine", "Estimate", "Report", "State", "make", "moves_probe", "options", "registry"]

registry: Mapping[str, Any] = {cls.name: cls for cls in (PIE, EPIE, RPIE, DifferenceMap, PtychoEP, Posterior)}


def make(name: str, **values: Any) -> Engine:
    """An engine by name with some of its options set.

    Raises
    ------
    PtychonError
        Unknown engine or option, with the nearest valid name; an option out of range.
    """
    if name not in registry:
        raise PtychonError(f"unknown engine {name!r}; {nearest(name, registry)}")
    cls = registry[name]
    known = options(cls)
    for key, value in values.items():
        if key not in known:
            raise PtychonError(f"engine {name!r} has no option {key!r}; {nearest(key, known)}")
        _check_type(key, value, known[key])
    engine: Engine = cls(**values)
    return engine


def options(cls: Any) -> dict[str, Any]:
    """Option names of an engine class and their defaults."""
    return {f.name: None if f.default is MISSING else f.default for f in fields(cls)}


def nearest(name: str, known: Any) -> str:
    """'did you mean ...?' and the list of what is known."""
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}It knows {', '.join(known)}"


def _check_type(key: str, value: Any, default: Any) -> None:
    kind = type(default)
    ok = (
        default is None
        or (kind is bool and isinstance(value, bool))
        or (kind is int and isinstance(value, int) and not isinstance(value, bool))
        or (kind is float and isinstance(value, (int, float)) and not isinstance(value, bool))
        or (kind is str and isinstance(value, str))
    )
    if not ok:
        raise PtychonError(f"option {key!r} is {value!r}; it must be of type {kind.__name__}, like its default {default!r}")


def moves_probe(result: Result) -> bool:
    """Whether the engine of a result learned the probe."""
    return make(result.engine, **result.options).moves_probe
