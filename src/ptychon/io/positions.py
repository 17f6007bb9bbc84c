"""Positions among the named arrays of a file, or in a file of their own."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..types import FloatArray, PtychonError
from ..units import factor_of, in_si, is_pixel
from . import listing
from .box import Box
from .found import Found
from .tables import axis_of, positions_from

#: Names of tables of positions, perhaps followed by their unit.
POSITIONS = re.compile(r"positions(?:_([^_]+))?", re.IGNORECASE)


def add_positions(found: Found, given: Mapping[str, Any], box: Box | None = None) -> None:
    """Add the positions that ``positions_path`` names, a dataset or a file, or that `box` holds
    under a known name.

    Raises
    ------
    PtychonError
        If what is named does not exist, or holds no positions.
    """
    name = given.get("positions_path")
    frames = len(found.fields["patterns"])
    if name:
        key = (
            next((k for k in box.arrays if k.strip("/") == name.strip("/")), None)
            if box is not None
            else None
        )
        if box is None or key is None:
            try:
                table, unit, where = positions_from(name)
            except FileNotFoundError:
                tables = listing.tables_in(box.arrays) if box is not None else []
                raise PtychonError(
                    (
                        f"{name!r} is neither a file nor a dataset of "
                        f"{box.path if box is not None else 'the stack'}"
                    )
                    + (
                        f"; tables in it: {listing.named(box.arrays, tables)}"
                        if box is not None and tables
                        else ""
                    )
                ) from None
            found.add("positions", _two_columns(np.asarray(table), where, frames), where)
            found.unit = unit
            return
    elif box is None:
        return
    else:
        key = _positions_key(box)
        if key is None:
            _add_lists(found, box, frames)
            if "positions" not in found.fields and (
                tables := listing.tables_in(box.arrays, frames)
            ):
                named = listing.named(box.arrays, tables, "--positions-path")
                found.problems.setdefault("positions", f"they may be {named}")
            return
    found.add("positions", _two_columns(np.asarray(box.table(key)), key, frames), key)
    found.unit = box.unit_of(key) or _unit_in(key) or ""


def _positions_key(box: Box) -> str | None:
    """The table of positions; one whose name ends in px or m goes before others."""
    names = [
        k
        for k, (s, d) in box.arrays.items()
        if len(s) in (2, 3) and d.kind in "uif" and _unit_in(k) is not None
    ]
    order = {"px": 0, "m": 1, "": 2}
    return min(names, key=lambda k: order.get(_unit_in(k) or "", 3), default=None)


def _unit_in(key: str) -> str | None:
    """The unit in the name of positions, empty where there is none; None if it is no name of
    positions.
    """
    match = POSITIONS.fullmatch(key.rsplit("/", 1)[-1])
    unit = "" if match is None else match.group(1) or ""
    known = not unit or is_pixel(unit) or factor_of(unit, "length") is not None
    return unit if match is not None and known else None


def _add_lists(found: Found, box: Box, frames: int) -> None:
    """Positions that are two lists, one named for the rows and one for the columns."""
    lists: dict[str, list[tuple[str, str]]] = {"y": [], "x": []}
    for key, (shape, dtype) in box.arrays.items():
        axis = (
            axis_of(key.rsplit("/", 1)[-1])
            if math.prod(shape) == frames and dtype.kind in "uif"
            else None
        )
        if axis is not None:
            lists[axis[0]].append((key, box.unit_of(key) or axis[1]))
    if [len(names) for names in lists.values()] != [1, 1]:
        return
    (y, unit), (x, other) = lists["y"][0], lists["x"][0]
    columns = [np.asarray(box.table(key), np.float64).reshape(-1) for key in (y, x)]
    if unit != other:
        columns = [
            in_si(c, u, "length", key)
            for c, u, key in zip(columns, (unit, other), (y, x), strict=True)
        ]
        unit = "m"
    found.add("positions", np.column_stack(columns), f"{y}, {x}")
    found.unit = unit


def points_of(box: Box, given: Mapping[str, Any]) -> set[int]:
    """Numbers of positions that the scan may have."""
    name = given.get("positions_path")
    named = next((k for k in box.arrays if k.strip("/") == name.strip("/")), None) if name else None
    key = named or _positions_key(box)
    if name and named is None:
        with contextlib.suppress(PtychonError, FileNotFoundError):
            return {len(positions_from(name)[0])}
    if key is None:
        return set()
    shape = box.arrays[key][0]
    return {math.prod(shape) // 2} if 2 in (shape[-1], shape[0]) else set()


def _two_columns(table: Any, name: str, frames: int) -> FloatArray:
    if table.dtype.kind not in "uif":
        raise PtychonError(
            f"{name} holds {table.dtype}; positions are real numbers, row and column"
        )
    if table.ndim == 3 and table.shape[-1] == 2:
        table = table.reshape(-1, 2)
    if table.ndim == 2 and table.shape[0] == 2 and table.shape[1] == frames and frames != 2:
        table = table.T
    if table.ndim != 2 or table.shape[1] != 2:
        raise PtychonError(
            f"{name} has shape {table.shape}; positions are (frames, 2), row then column"
        )
    return np.asarray(table, np.float64)
