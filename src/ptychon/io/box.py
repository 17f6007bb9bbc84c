"""Named arrays of a file, whatever kind of file it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.lazy import Frames
from ..types import PtychonError
from ..units import states_nothing
from .hdf5 import PathLike
from .nodes import plain

_LARGEST_TABLE = 10**8


@dataclass
class Box:
    """Named arrays in a file, whatever kind of file it is."""

    path: PathLike
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    read: Callable[[str], Any]
    frames: Callable[[str], Frames]
    #: name -> (value, where it stood)
    numbers: dict[str, tuple[Any, str]] = field(default_factory=dict)
    #: a stack whose frames are along its last axes
    last: Callable[[str], Frames] | None = None
    #: array or number -> the unit that stands beside it
    units: dict[str, str] = field(default_factory=dict)

    def find(self, names: tuple[str, ...], ndims: tuple[int, ...], kinds: str) -> str | None:
        """The first array with one of these names, dimensions and kinds of dtype."""
        for name in names:
            for key, (shape, dtype) in self.arrays.items():
                if last_name(key) == name and len(shape) in ndims and dtype.kind in kinds:
                    return key
        return None

    def unit_of(self, key: str) -> str:
        """The unit that the file states for an array or a number; empty if it states none."""
        beside = (
            self.numbers.get(f"{last_name(key)}_{word}", ("",))[0] for word in ("units", "unit")
        )
        texts = (
            self.units.get(key, ""),
            *(plain(np.asarray(text).reshape(-1)[0]) for text in beside if np.size(text)),
        )
        return next((text for text in texts if not states_nothing(text)), "")

    def table(self, key: str) -> Any:
        """A small array, whole."""
        if math.prod(self.arrays[key][0]) > _LARGEST_TABLE:
            raise PtychonError(
                f"{key} of {self.path} has shape {self.arrays[key][0]}: too large for what its "
                "name says"
            )
        return self.read(key)


def last_name(key: str) -> str:
    """The name of an array without its groups, in small letters."""
    return key.rsplit("/", 1)[-1].lower()
