"""Zarr stores on disk: a folder that is one array, or a group of them under the names that plain
arrays have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.lazy import Frames
from ..types import PtychonError
from .box import Box, last_name
from .entries import understand
from .found import Found
from .hdf5 import PathLike
from .nodes import plain


class ZarrFrames(Frames):
    """Frames of an array (..., P, Q) in a store; leading axes are taken in C order.

    Parameters
    ----------
    path : path of the store
    name : str
        Of the array in it; empty where the store is the array.
    """

    def __init__(self, path: PathLike, name: str) -> None:
        self._path, self._name = path, name
        array = self._array()
        self._full = tuple(int(n) for n in array.shape)
        super().__init__(self._full, array.dtype, f"{name or 'the array'} of {path}")

    def _array(self) -> Any:
        node = _open(self._path)
        return node[self._name] if self._name else node

    def _read(self, first: int, last: int) -> Any:
        array = self._array()
        if len(self._full) == 3:
            return np.asarray(array[first:last], self.dtype)
        inner = math.prod(self._full[1:-2])
        top, bottom = first // inner, -(-last // inner)
        block = np.asarray(array[top:bottom], self.dtype).reshape(-1, *self._full[-2:])
        return block[first - top * inner : last - top * inner]


def read(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a Zarr store says; `given` may name its arrays with ``data_path`` and
    ``positions_path``.

    Raises
    ------
    PtychonError
        If it is damaged, zarr is not installed, or nothing in it is a stack of frames.
    """
    node = _open(path)
    alone, found = hasattr(node, "shape"), {}
    if alone:
        found["patterns"] = node
    else:
        _walk(node, "", found)
    box = Box(
        path,
        {name: (tuple(array.shape), np.dtype(array.dtype)) for name, array in found.items()},
        lambda key: np.asarray(found[key][...]),
        lambda key: ZarrFrames(path, "" if alone else key),
    )
    for name, array in found.items():
        unit = plain(array.attrs.get("units", ""))
        if unit:
            box.units[name] = str(unit)
        if math.prod(array.shape) <= 2 and np.dtype(array.dtype).kind in "buifUS":
            box.numbers[last_name(name)] = (np.asarray(array[...]), name)
    return understand(box, "Zarr store", given)


def _open(path: PathLike) -> Any:
    try:
        import zarr
    except ImportError:
        raise PtychonError(
            f"{path} is a Zarr store: install its reader with 'pip install zarr'"
        ) from None
    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # every version has errors of its own
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise PtychonError(f"{path} is a damaged Zarr store: {reason}") from error


def _walk(group: Any, before: str, found: dict[str, Any]) -> None:
    for name, array in group.arrays():
        found[before + name] = array
    for name, inner in group.groups():
        _walk(inner, f"{before}{name}/", found)
