"""Positions that are in a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.position_table import axis_of, read_table
from ..types import PtychonError
from .frames import npz_headers, read_npz
from .hdf5 import PathLike, check_readable, opened
from .nodes import dataset, table, units

__all__ = ["axis_of", "positions_from"]

_NAMES: tuple[tuple[str, str], ...] = (
    ("positions_px", "px"),
    ("positions_m", "m"),
    ("positions", ""),
    ("encoder", "m"),
)


def positions_from(path: PathLike) -> tuple[Any, str, str]:
    """Rows and columns of the probe from a text table, .npy, .npz or HDF5 file; their unit, empty
    if none; where they stood.

    HDF5 files and archives may be products of Ptychodus, position files of fold_slice (ppX, ppY in
    m), or hold positions, positions_px or positions_m. Behind a colon may stand a dataset
    (``scan.h5:entry/positions``), or the columns of a table that hold y and x
    (``scan.csv:y_encoder,x_encoder`` or ``scan.csv:2,1``, counted from 0).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PtychonError
        If the file is damaged or holds no positions.
    """
    from .ptychodus import is_product, read_product

    name, inner = str(path), ""
    if not Path(name).is_file():
        name, _, inner = name.rpartition(":")
        if not Path(name).is_file():
            raise FileNotFoundError(str(path))
    check_readable(name)
    with open(name, "rb") as stream:
        head = stream.read(8)
    if head.startswith(b"PK"):
        headers = npz_headers(name)
        if is_product(headers):
            return read_product(name).positions, "m", f"{name} (product)"
        for member, unit in ((inner, ""),) if inner else _NAMES:
            if member in headers:
                return read_npz(name, member), unit, f"{member} of {name}"
        raise PtychonError(
            f"{name} holds no positions, but {', '.join(headers)}; name them behind a colon: "
            f"{name}:NAME"
        )
    if head == b"\x89HDF\r\n\x1a\n" or Path(name).suffix.lower() in (
        ".h5",
        ".hdf5",
        ".cxi",
        ".mat",
    ):
        with opened(name) as file:
            if is_product(file):
                return read_product(name).positions, "m", f"{name} (product)"
            x, y = dataset(file, "ppX"), dataset(file, "ppY")
            if x is not None and y is not None and not inner:
                columns = [
                    np.asarray(table(node, "uif"), np.float64).reshape(-1) for node in (y, x)
                ]
                if len(columns[0]) != len(columns[1]):
                    raise PtychonError(
                        f"ppX and ppY of {name} have {len(columns[1])} and {len(columns[0])} "
                        "elements"
                    )
                return np.column_stack(columns), "m", f"ppY, ppX of {name}"
            for member, unit in ((inner, ""),) if inner else _NAMES:
                node = dataset(file, member)
                if node is not None:
                    return table(node), units(node) or unit, f"{member} of {name}"
            if inner:
                raise PtychonError(f"{name} has no dataset {inner!r}")
            raise PtychonError(
                f"{name} holds no positions; name their dataset behind a colon: {name}:NAME"
            )
    found = read_table(name, [part.strip() for part in inner.split(",")] if inner else None)
    return found.positions, found.unit, f"{name} ({found.how})"
