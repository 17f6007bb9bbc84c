"""Where the frames of a CXI file lie: the axes of its detector, translations of sample or beam."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..types import FloatArray, PtychonError
from ..units import in_si
from .found import Found
from .nodes import dataset, decimal, table, units

_CUTOFF = "countrate_correction_count_cutoff"
DEFAULT_BASIS = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])


def detector_basis(detector: Any, found: Found) -> FloatArray | None:
    """Vectors of one step down the rows and along the columns, (2, 3) in m, or None."""
    node = dataset(detector, "basis_vectors")
    if node is None or node.dtype.kind not in "uif":
        return None
    basis: Any = np.vectorize(decimal, otypes=[float])(table(node)) if node.size else np.zeros(0)
    if basis.ndim == 3 and len(basis):
        if np.ptp(basis, axis=0).max() > 1e-6 * np.abs(basis).max():
            found.where["basis_vectors"] = (
                "they differ from frame to frame; those of the first frame were used"
            )
        basis = np.asarray(basis[0])
    if basis.shape == (3, 2):
        basis = basis.T
    lengths = [math.hypot(*b) for b in basis] if basis.shape == (2, 3) else [0.0]
    if not (np.isfinite(basis).all() and min(lengths) > 0):
        found.where["basis_vectors"] = (
            f"basis_vectors of shape {node.shape} were not understood and left aside"
        )
        return None
    return np.asarray(basis, np.float64)


def _probe_positions(translation: FloatArray, basis: FloatArray | None) -> FloatArray:
    """Rows and columns (N, 2) of the probe in m, from translations (N, 3) of the sample in m."""
    across = (DEFAULT_BASIS if basis is None else basis)[:, :2]
    directions = np.array([b / math.hypot(*b) if math.hypot(*b) > 0 else b for b in across])
    if not abs(np.linalg.det(directions)) > 0.5:
        raise PtychonError(
            "basis_vectors are parallel to each other or to the beam: positions cannot be "
            "placed on them"
        )
    moved = -translation[:, :2]
    if abs(directions[0] @ directions[1]) < 1e-6:
        return np.asarray(moved @ directions.T + 0.0)
    return np.asarray(np.linalg.solve(directions.T, moved.T).T)


def read_positions(entry: Any, basis: FloatArray | None, frames: int, found: Found) -> None:
    places = ("data_1", "sample_1/geometry_1", "sample_1/geometry", "instrument_1/detector_1")
    node = dataset(entry, *(f"{place}/translation" for place in places))
    if node is None or node.dtype.kind not in "uif":
        return _read_axes(entry, basis, frames, found)
    values = np.asarray(table(node), np.float64)
    values = values.reshape(-1, values.shape[-1]) if values.ndim == 3 else values
    if values.ndim == 2 and values.shape[0] in (2, 3) and values.shape[1] == frames and frames > 3:
        values = values.T
    if values.ndim != 2 or values.shape[1] not in (2, 3):
        raise PtychonError(
            f"{node.name} has shape {node.shape}; sample translations are (frames, 3): x, y, z"
        )
    try:
        _place(in_si(values, units(node), "length", node.name), node.name, basis, found)
    except PtychonError as error:
        found.problems["positions"] = str(error)
    return None


def _read_axes(entry: Any, basis: FloatArray | None, frames: int, found: Found) -> None:
    """Translations as two lists x and y, or as the two axes of a raster (x fast, y slow)."""
    for place in ("data_1", "data"):
        nodes = [dataset(entry, f"{place}/{axis}") for axis in "xy"]
        if any(node is None or node.dtype.kind not in "uif" for node in nodes):
            continue
        try:
            x, y = (in_si(table(node), units(node), "length", node.name) for node in nodes)
        except PtychonError as error:
            found.problems["positions"] = str(error)
            continue
        if x.size != frames and x.ndim == y.ndim == 1 and x.size * y.size == frames:
            x, y = np.meshgrid(x, y)
        if x.size != frames or y.size != frames:
            shapes = f"{nodes[0].shape} and {nodes[1].shape}"
            found.problems["positions"] = (
                f"{place}/x and y have shapes {shapes} for {frames} frames"
            )
            continue
        return _place(
            np.column_stack([x.reshape(-1), y.reshape(-1)]),
            f"{nodes[0].name}, {nodes[1].name}",
            basis,
            found,
        )
    return None


def _place(translation: FloatArray, name: str, basis: FloatArray | None, found: Found) -> None:
    remark = "" if basis is not None else "; no basis_vectors: rows along -y, columns along -x"
    found.add(
        "positions", _probe_positions(translation, basis), f"{name} (motion of the sample{remark})"
    )
    found.unit = found.unit or "m"
