"""Communication between processes: the sums over patterns that a formula asks for."""

from __future__ import annotations

from typing import Protocol

from ..types import Array


class Comm(Protocol):
    """What an engine may ask of the other processes."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def sum(self, x: Array) -> Array:
        """Sum of `x` over all processes, the same on each."""
        ...


class Serial:
    """One process: every sum over processes is the value itself."""

    rank = 0
    size = 1

    def sum(self, x: Array) -> Array:
        return x
