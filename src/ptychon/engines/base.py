"""What every engine is: a frozen record of hyper-parameters that takes a state one pass further."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from ..backends.base import Backend
from ..distributed.comm import Comm, Serial
from ..model.problem import Problem
from ..types import Array


@dataclass(frozen=True)
class Context:
    """Where a step runs: the backend and the other processes."""

    backend: Backend
    comm: Comm = field(default_factory=Serial)


@dataclass(slots=True)
class State:
    """What changes from pass to pass.

    Attributes
    ----------
    object : (H, W) complex64
    probe : (K, P, Q) complex64
    epoch : int
        Passes done.
    """

    object: Array
    probe: Array
    epoch: int = 0


@dataclass(frozen=True)
class Estimate:
    """object (H, W), probe (K, P, Q) and, where the engine has them, the posterior standard deviation (H, W), draws of the
    posterior error (S, H, W) and the noise variance of each frame (N,)."""

    object: Array
    probe: Array
    object_std: Array | None = None
    draws: Array | None = None
    noise_variances: Array | None = None


@dataclass(frozen=True)
class Report:
    """What one pass found, still on the device.

    misfit : 0-d, sum of (|model| - amplitude)^2 over valid pixels, or None where this pass did not measure it
    extra : other numbers for the history
    """

    misfit: Array | None
    extra: dict[str, Array] = field(default_factory=dict)


class Remedy(NamedTuple):
    """What an engine proposes after a pass that shows that the run will fail: a safer engine, and what is wrong."""

    engine: Any
    because: str


class Engine(Protocol):
    """A reconstruction algorithm. Instances are frozen dataclasses whose fields are the options a user may set."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    moves_probe: ClassVar[bool]
    schedule: ClassVar[str]
    takes_background: ClassVar[bool]

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> State:
        """First state; copies, so that a caller's array never changes."""
        ...

    def step(self, state: State, problem: Problem, batches: list[Any], ctx: Context) -> tuple[State, Report]:
        """One pass over the data. Never looks at a number on the device."""
        ...

    def estimate(self, state: State, ctx: Context) -> Estimate:
        """What the state says of object and probe."""
        ...


def check_range(name: str, value: float, low: float, high: float, open_low: bool = True) -> None:
    """Refuse an option outside its range, naming both."""
    from ..types import PtychonError

    if not (low < value or (value == low and not open_low)) or not value <= high:
        bracket = "(" if open_low else "["
        raise PtychonError(f"{name} is {value}; it must lie in {bracket}{low:g}, {high:g}]")


def blocks(n: int, size: int = 16) -> list[slice]:
    """All n positions in slices of at most `size`: for sums in which the order does not matter."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
