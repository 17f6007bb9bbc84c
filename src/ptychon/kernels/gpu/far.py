"""Arrays with an entry for each frame that stay on the host because the device has no room, and
their way there and back.

    send group 0
    for each group i:  send group i + 1 | work on group i | bring group i back where it is written

Two places on the device, so that group i + 1 arrives and group i - 1 leaves while i is worked on. A
frame is in one group of a sweep only, and a sweep ends when everything is back, so that whoever
reads the host afterwards reads what is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...types import Array, IntArray


class Far:
    """An array on the host of which a device sees only what it asks for: ``a[i]`` is copied there,
    ``a[i] = b`` back.

    Parameters
    ----------
    host : (N, ...) array
    up, down : callables
        To the device and back.
    pinned : bool
        Whether the host memory is page-locked, so that copies need no other.
    """

    def __init__(
        self,
        host: Any,
        up: Callable[[Any], Array],
        down: Callable[[Array], Any],
        pinned: bool = False,
    ) -> None:
        self.host, self.pinned, self._up, self._down = host, pinned, up, down
        self.shape, self.dtype, self.ndim, self.nbytes = (
            host.shape,
            host.dtype,
            host.ndim,
            host.nbytes,
        )

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> Array:
        return self._up(np.ascontiguousarray(self.host[_on_host(index)]))

    def __setitem__(self, index: Any, value: Array) -> None:
        self.host[_on_host(index)] = self._down(value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.host if dtype is None else self.host.astype(dtype, copy=False)


def _on_host(index: Any) -> Any:
    return index.get() if hasattr(index, "get") else index


def host_of(array: Any) -> Any:
    """The array on the host of a `Far`, or what is already one."""
    return array.host if isinstance(array, Far) else array


@dataclass(frozen=True)
class Stream:
    """Rows of an array on the host that a sweep needs, and whether it writes them."""

    name: str
    source: Any
    written: bool = False


class Copier(Protocol):
    """The part of a launcher that copies; `pairs` are (array on the host, array on the device for
    some of its rows).
    """

    def send(self, pairs: list[tuple[Any, Array]], rows: IntArray, slot: int) -> None:
        """Start copying rows to the device, once what was launched before `used(slot)` is done and
        `fetch` has left.
        """
        ...

    def arrived(self, slot: int) -> None:
        """What is launched from now on finds what was sent."""
        ...

    def used(self, slot: int) -> None:
        """What was launched until now is all that works on this slot."""
        ...

    def fetch(self, pairs: list[tuple[Any, Array]], rows: IntArray, slot: int) -> None:
        """Start copying back, after `used(slot)`."""
        ...

    def drain(self) -> None:
        """Returns when all that was fetched is on the host."""
        ...


def in_groups(
    copier: Copier,
    streams: Sequence[Stream],
    groups: Sequence[IntArray],
    room: Callable[[str, tuple[int, ...], str], Array],
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Slot (0 or 1) and arrays on the device, by name, of each group of rows in turn, while the
    next one is on its way.

    Parameters
    ----------
    copier : Copier
    streams : sequence of Stream
    groups : sequence of (n,) int arrays
        Rows of each group; no row is in two.
    room : callable
        ``room(name, shape, dtype)``: the array of that name, always the same.
    """
    size = max(map(len, groups))
    places = []
    for slot in (0, 1):
        names = {s.name: f"{s.name} {slot}" for s in streams}
        places.append(
            {
                s.name: room(names[s.name], (size, *s.source.shape[1:]), str(s.source.dtype))
                for s in streams
            }
        )
    pairs = [[(s.source, place[s.name]) for s in streams] for place in places]
    back = [[(s.source, place[s.name]) for s in streams if s.written] for place in places]
    copier.send(pairs[0], groups[0], 0)
    for i, rows in enumerate(groups):
        slot = i % 2
        if i + 1 < len(groups):
            copier.send(pairs[1 - slot], groups[i + 1], 1 - slot)
        copier.arrived(slot)
        yield slot, places[slot]
        copier.used(slot)
        if back[slot]:
            copier.fetch(back[slot], rows, slot)
    if back[0]:
        copier.drain()


def group_frames(group_bytes: int, pixels: int, modes: int, masks: bool) -> int:
    """Frames of a group: the amplitude, a wave where an engine keeps one for each, and then a mask
    where each has one.
    """
    return max(1, group_bytes // (pixels * (4 + 8 * modes + (1 if masks and modes else 0))))
