"""Small records as text and back: "still:1e-4", "support:radius=20"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..types import PtychonError


def record_of(text: Any, kinds: Mapping[str, Any], has: str, what: str) -> Any:
    """A record from its name and its positive numbers, by their order or their names.

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
    types = _types(kind)
    parts = [part.strip() for part in rest.split(",")] if rest.strip() else []
    values: dict[str, Any] = {}
    try:
        for place, part in zip(types, parts, strict=False):
            key, equals, number = part.partition("=")
            key, number = (key.strip(), number) if equals else (place, part)
            values[key] = types[key](number)
        if len(values) < len(parts) or not all(value > 0 for value in values.values()):
            raise ValueError
        return kind(**values)
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
    numbers = ",".join(f"{n}={kind(getattr(record, n))!r}" for n, kind in _types(record).items())
    return f"{name}:{numbers}" if numbers else name


def _types(record: Any) -> dict[str, Any]:
    """Names of the numbers of a record, or of its class, and their types."""
    return {f.name: int if f.type == "int" else float for f in fields(record)}


def _usage(name: str, kind: Any) -> str:
    """As it is written, such as "support:radius=NUMBER"."""
    numbers = ",".join(f"{f.name}=NUMBER" for f in fields(kind))
    return f"{name}:{numbers}" if numbers else name


__all__ = ["record_of", "text_of"]
