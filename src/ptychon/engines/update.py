"""What a run moves, and from which pass on: `update={"positions": After(20, every=5)}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from ..types import PtychonError


@dataclass(frozen=True)
class After:
    """Move an unknown after so many passes.

    Parameters
    ----------
    passes : int
        Passes that leave it as it is; 0 moves it from the first on.
    every : int
        Move it in one of so many passes from there on.
    before : int, optional
        Stop moving it after this pass, counted from the first of all.

    Examples
    --------
    >>> [epoch for epoch in range(12) if After(4, every=3).moves(epoch)]
    [4, 7, 10]
    """

    passes: int = 0
    every: int = 1
    before: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("after", self.passes, 0),
            ("every", self.every, 1),
            ("before", self.passes + 1 if self.before is None else self.before, self.passes + 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise PtychonError(f"{name} is {value}; it must be a whole number from {least} up")

    def moves(self, epoch: int) -> bool:
        """Whether it moves in pass `epoch`, counted from 0."""
        ended = self.before is not None and epoch >= self.before
        return epoch >= self.passes and (epoch - self.passes) % self.every == 0 and not ended

    def __str__(self) -> str:
        text = f"after={self.passes}" + (f",every={self.every}" if self.every > 1 else "")
        return text + (f",before={self.before}" if self.before is not None else "")


#: Names of unknowns (fields of `Unknowns`), and whether or when each moves.
Update = Mapping[str, "bool | After"]

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
    known = {"after": "passes"} | {f.name: f.name for f in fields(After) if f.name != "passes"}
    values: dict[str, int] = {}
    for part in words.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+)\s*", part)
        if match is None or match[1] not in known:
            raise PtychonError(
                f"update of {name} is {text!r}; write yes, no, or after=PASSES with every=PASSES "
                "and before=PASSES, such as after=20,every=5"
            )
        values[known[match[1]]] = int(match[2])
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


__all__ = ["After", "Update", "update_of", "when_of"]
