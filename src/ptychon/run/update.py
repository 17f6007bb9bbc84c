"""What moves and when, as text: "positions:after=20,every=5"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..engines import After
from ..types import PtychonError

#: How a field of `After` is written.
WORDS = {"after": "passes", "every": "every", "before": "before"}
_YES, _NO = ("", "yes", "true", "on"), ("no", "false", "off", "never")


def when_of(name: str, text: str | bool | After) -> bool | After:
    """Whether or when an unknown moves, from text such as "after=20,every=5", "yes" or "no".

    Raises
    ------
    PtychonError
        If it is none of these.
    """
    if isinstance(text, (bool, After)):
        return text
    words = str(text).strip().lower()
    if words in _YES or words in _NO:
        return words in _YES
    values: dict[str, int] = {}
    for part in words.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+)\s*", part)
        if match is None or match[1] not in WORDS:
            raise PtychonError(
                f"update of {name} is {text!r}; write yes, no, or after=PASSES with every=PASSES "
                "and before=PASSES, such as after=20,every=5"
            )
        values[WORDS[match[1]]] = int(match[2])
    return After(**values)


def update_of(text: str) -> tuple[str, bool | After]:
    """An unknown and when it moves, from text such as "positions:after=20,every=5".

    Examples
    --------
    >>> update_of("positions:after=20,every=5")
    ('positions', After(passes=20, every=5, before=None))
    >>> update_of("probe:no")
    ('probe', False)
    """
    name, _, when = text.partition(":")
    return name.strip().replace("-", "_"), when_of(name.strip(), when)


def updates_of(texts: Iterable[str]) -> dict[str, bool | After]:
    """Unknowns and when they move, from texts that name one or, with commas, several.

    Examples
    --------
    >>> updates_of(["positions:after=20,every=5,dose", "probe:no"])
    {'positions': After(passes=20, every=5, before=None), 'dose': True, 'probe': False}
    """
    # a comma before `every=5` goes on with when, any other begins a name
    parts = (part for text in texts for part in re.split(r",(?!\s*\w+\s*=)", text))
    return dict(update_of(part) for part in parts if part.strip())


__all__ = ["WORDS", "update_of", "updates_of", "when_of"]
