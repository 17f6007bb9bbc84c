"""Positions that are in a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..types import PtychonError
from .frames import npz_headers, read_npz
from .hdf5 import PathLike, opened
from .nodes import dataset, table

_NAMES: tuple[tuple[str, Literal["m", "px"] | None], ...] = (
    ("positions_px", "px"), ("positions_m", "m"), ("positions", None), ("encoder", "m"),
)  # fmt: skip


def positions_from(path: PathLike) -> tuple[Any, Literal["m", "px"] | None, str]:
    """Rows and columns of the probe from a text table, .npy, .npz or HDF5 file; their unit if it says; where they stood.

    HDF5 files and archives may be products of Ptychodus, position files of fold_slice (ppX, ppY in m), or hold
    positions, positions_px or positions_m.

    Raises
    ------
    PtychonError
        If the file is damaged or holds no positions.
    """
    from .ptychodus import is_product, read_product

    with open(path, "rb") as stream:
        head = stream.read(8)
    if head.startswith(b"PK"):
        headers = npz_headers(path)
        if is_product(headers):
            return read_product(path).positions, "m", f"{path} (product)"
        for name, unit in _NAMES:
            if name in headers:
                return read_npz(path, name), unit, f"{name} of {path}"
        raise PtychonError(f"{path} holds no positions, but {', '.join(headers)}; call them positions_px or positions_m")
    if head == b"\x89HDF\r\n\x1a\n" or Path(path).suffix.lower() in (".h5", ".hdf5", ".cxi", ".mat"):
        with opened(path) as file:
            if is_product(file):
                return read_product(path).positions, "m", f"{path} (product)"
            x, y = dataset(file, "ppX"), dataset(file, "ppY")
            if x is not None and y is not None:
                columns = [np.asarray(table(node, "uif"), np.float64).reshape(-1) for node in (y, x)]
                if len(columns[0]) != len(columns[1]):
                    raise PtychonError(f"ppX and ppY of {path} have {len(columns[1])} and {len(columns[0])} elements")
                return np.column_stack(columns), "m", f"ppY, ppX of {path}"
            for name, unit in _NAMES:
                node = dataset(file, name)
                if node is not None:
                    return table(node), unit, f"{name} of {path}"
            raise PtychonError(f"{path} holds no positions; call them positions_px or positions_m, or name its dataset")
    from ..simulation.scan import from_table

    return from_table(path), None, str(path)
