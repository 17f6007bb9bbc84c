"""What a run moves, and from which pass on: `update={"positions": After(20, every=5)}`."""

from __future__ import annotations

from dataclasses import dataclass

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
Update = dict[str, "bool | After"]


__all__ = ["After", "Update"]
