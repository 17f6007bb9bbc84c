"""Small records as text and back: "still:1e-4", "support:radius=20,after=5"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..engines import After
from ..types import PtychonError
from .update import WORDS, when_of


def record_of(text: Any, kinds: Mapping[str, Any], has: str, what: str) -> Any:
    """A record from its name and its numbers, by their order or their names, and from when it holds
    where it has a field `when`. Numbers of records that do not check theirs are positive.

    Parameters
    ----------
    text : str, or a record
        A record, which is what has the method `has`, is given back.
    kinds : mapping of str to dataclass
    has : str
    what : str
        For messages.

    Raises
    ------
    PtychonError
        If it is none of them.
    """
    if hasattr(text, has):
        return text
    name, _, rest = str(text).partition(":")
    kind = kinds.get(name.strip())
    if kind is None:
        known_ones = ", ".join(_usage(name, kind) for name, kind in kinds.items())
        raise PtychonError(f"{what} is {text!r}; there are {known_ones}")
    types, timed = _types(kind), _timed(kind)
    parts = [part.strip() for part in rest.split(",")] if rest.strip() else []
    when = [p for p in parts if timed and p.partition("=")[0].strip() in WORDS]
    parts = [part for part in parts if part not in when]
    values: dict[str, Any] = {}
    own = {"when": when_of(name, ",".join(when))} if when else {}
    try:
        for place, part in zip(types, parts, strict=False):
            key, equals, number = part.partition("=")
            key, number = (key.strip(), number) if equals else (place, part)
            values[key] = types[key](number)
        checks = hasattr(kind, "__post_init__")
        if len(values) < len(parts) or not (checks or all(v > 0 for v in values.values())):
            raise ValueError
        return kind(**values, **own)
    except PtychonError as error:  # a record that checks its numbers names them
        raise PtychonError(f"{what} {text!r}: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise PtychonError(f"{what} is {text!r}; write {_usage(name.strip(), kind)}") from None


def text_of(record: Any, kinds: Mapping[str, Any]) -> str:
    """What `record_of` reads.

    Raises
    ------
    PtychonError
        For a record that is none of them: it cannot be stored.
    """
    name = next((name for name, kind in kinds.items() if type(record) is kind), None)
    if name is None:
        raise PtychonError(
            f"{type(record).__name__} cannot be stored in a recipe, which knows "
            f"{', '.join(kinds)}; it can be a callback"
        )
    values = {n: getattr(record, n) for n in _types(record)}
    types = _types(record)
    words = [f"{n}={types[n](value)!r}" for n, value in values.items() if value is not None]
    if _timed(record) and record.when != After():
        words.append(str(record.when))
    numbers = ",".join(words)
    return f"{name}:{numbers}" if numbers else name


def _types(record: Any) -> dict[str, Any]:
    """Names of the numbers of a record, or of its class, and their types."""
    return {
        f.name: int if str(f.type).startswith("int") else float
        for f in fields(record)
        if f.name != "when"
    }


def _timed(record: Any) -> bool:
    """Whether it says when it holds."""
    return any(f.name == "when" for f in fields(record))


def _usage(name: str, kind: Any) -> str:
    """As it is written, such as "support:radius=NUMBER"."""
    numbers = ",".join(f"{n}=NUMBER" for n in _types(kind))
    return f"{name}:{numbers}" if numbers else name


__all__ = ["record_of", "text_of"]
