"""Small values in open HDF5 files of others: groups that may be missing, numbers with units, tables
of a sane size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..types import PtychonError
from ..units import Dimension, in_si
from .records import check_size

#: Elements of a table (positions, masks, probes) beyond which its shape is taken for damage.
LARGEST_TABLE = 2**27


def is_dataset(node: Any) -> bool:
    """Whether something is a dataset with a shape (not a group, not empty, not missing)."""
    return node is not None and hasattr(node, "dtype") and getattr(node, "shape", None) is not None


def group(parent: Any, name: str) -> Any:
    """A subgroup, or None."""
    node = parent.get(name) if parent is not None else None
    return node if node is not None and hasattr(node, "keys") else None


def dataset(parent: Any, *names: str) -> Any:
    """The first of some datasets that exists, or None."""
    for name in names:
        node = parent.get(name) if parent is not None else None
        if is_dataset(node):
            return node
    return None


def table(node: Any, kinds: str = "biufc") -> Any:
    """A dataset, whole, as an array.

    Raises
    ------
    PtychonError
        If it is of another kind, or so large that its shape must be damaged.
    """
    shape = tuple(node.shape)
    if node.dtype.kind not in kinds:
        raise PtychonError(
            f"{node.name} holds {node.dtype}, not numbers of the kind that belongs there"
        )
    if math.prod(shape) > LARGEST_TABLE:
        raise PtychonError(f"{node.name} has shape {shape}: too large for what its name says")
    check_size(node)
    return np.asarray(node[()])


def decimal(value: Any) -> float:
    """A number; of a float32 the shortest decimal that it stands for, 5.5e-05 rather than
    5.4999999702e-05.
    """
    value = np.asarray(value).reshape(-1)[0]
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def plain(value: Any) -> str:
    """Text of an attribute or a scalar, bytes decoded; empty for anything that is no text."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def text(parent: Any, name: str) -> str:
    """Text of a scalar dataset; empty if there is none."""
    node = dataset(parent, name)
    return (
        plain(node[()]) if node is not None and node.dtype.kind in "OS" and node.size == 1 else ""
    )


def units(node: Any) -> str:
    """The attribute ``units`` (or ``unit``), empty if there is none."""
    return plain(node.attrs.get("units", "")) or plain(node.attrs.get("unit", ""))


def number(parent: Any, name: str, dimension: Dimension) -> float | None:
    """A scalar dataset in SI, honouring an attribute ``units``; None if it is not there."""
    node = dataset(parent, name)
    if node is None or node.dtype.kind not in "uif" or not 0 < node.size <= 1000:
        return None
    return float(in_si(np.asarray(node[()]).reshape(-1)[0], units(node), dimension, node.name))


def scalar(parent: Any, name: str) -> float | None:
    """A finite scalar, dataset or attribute, as it stands; None if it is not there."""
    node = dataset(parent, name)
    value = parent.attrs.get(name) if node is None else node[()] if 0 < node.size <= 1000 else None
    array = np.asarray(value)
    if value is None or array.dtype.kind not in "uif" or array.size == 0:
        return None
    found = decimal(array)
    return found if math.isfinite(found) else None


def pair(parent: Any, name: str) -> tuple[float, float] | None:
    """One or two positive numbers (y, x); None if they are not there."""
    node = dataset(parent, name)
    if node is None or node.dtype.kind not in "uif" or node.size not in (1, 2):
        return None
    values = [decimal(v) for v in np.asarray(node[()]).reshape(-1)]
    y, x = values * (3 - len(values))
    return (y, x) if all(math.isfinite(v) and v > 0 for v in values) else None
