"""Records, arrays and plain values as groups and datasets of HDF5, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from ..types import PtychonError

#: Groups within groups that are read at most.
_DEEPEST = 32

#: Arrays smaller than this are stored as they are: a chunk index would cost more than compression
#: saves.
_COMPRESS_FROM = 4096

#: Bytes from which a dataset must be stored to be believed, and how much smaller compression can
#: make it.
_LARGE, _BEST_COMPRESSION = 2**28, 2000


def _escape(key: str) -> str:
    name = key.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return name.replace(".", "%2E") if name in (".", "..") else name or "%"


def _unescape(name: str) -> str:
    if name == "%":
        return ""
    return name.replace("%2E", ".").replace("%00", "\0").replace("%2F", "/").replace("%25", "%")


def put(group: Any, name: str, value: Any, *, lenient: bool = False) -> Any:
    """Store a plain value as the node `name` of an open group.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Any text; a slash does not make a subgroup.
    value : None, bool, int, float, complex, str, path, array, list, tuple, mapping with str keys,
    or dataclass
    lenient : bool
        Store the text of anything else instead of refusing it.

    Returns
    -------
    h5py.Group or h5py.Dataset

    Raises
    ------
    PtychonError
        If the value has no form in HDF5.
    """
    key = _escape(name)
    if isinstance(value, np.generic) and value.dtype.kind in "biufcU":
        value = value.item()
    if isinstance(value, PurePath):
        value = str(value)
    kind: str
    if value is None:
        node, kind = group.create_group(key), "none"
    elif isinstance(value, str):
        try:
            plain = "\0" not in value and bool(value.encode())
        except UnicodeEncodeError:  # a file name that is not UTF-8
            plain = False
        data: Any = (
            value if plain else np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8)
        )
        node, kind = group.create_dataset(key, data=data), "str"
    elif isinstance(value, (bool, int, float, complex)):
        whole = isinstance(value, int) and not -(2**63) <= value < 2**63
        node, kind = (
            group.create_dataset(key, data=str(value) if whole else value),
            type(value).__name__,
        )
    elif isinstance(value, Mapping):
        node, kind = group.create_group(key, track_order=True), "map"
        for inner, item in value.items():
            if not isinstance(inner, str) and not lenient:
                raise PtychonError(f"cannot store {name!r}: its key {inner!r} is not text")
            put(node, str(inner), item, lenient=lenient)
    elif isinstance(value, (list, tuple)):
        node, kind = group.create_group(key), "tuple" if isinstance(value, tuple) else "list"
        for index, item in enumerate(value):
            put(node, str(index), item, lenient=lenient)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        node, kind = group.create_group(key, track_order=True), "record"
        node.attrs["class"] = type(value).__name__
        for item in dataclasses.fields(value):
            put(node, item.name, getattr(value, item.name), lenient=lenient)
    elif hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biufc":
        node, kind = put_array(group, key, np.asarray(value)), "array"
    elif hasattr(value, "__array__") and np.asarray(value).dtype.kind in "US":
        return put(group, name, np.asarray(value).astype(str).tolist())
    elif lenient:
        node, kind = put(group, name, repr(value)), "repr"
    else:
        raise PtychonError(f"cannot store {name!r}: a {type(value).__name__} has no form in HDF5")
    node.attrs["type"] = kind
    return node


def put_array(group: Any, name: str, array: Any, dtype: Any = None) -> Any:
    """A dataset, compressed where that pays. `array` may be lazy: a long stack is copied in blocks
    of frames.
    """
    shape, dtype = tuple(array.shape), np.dtype(dtype or array.dtype)
    large = int(np.prod(shape)) * dtype.itemsize >= _COMPRESS_FROM
    if not large or 0 in shape:
        return group.create_dataset(name, data=np.asarray(array, dtype))
    chunks = (1, *shape[1:]) if len(shape) == 3 else True
    node = group.create_dataset(
        name,
        shape,
        dtype,
        chunks=chunks,
        compression="gzip",
        compression_opts=1,
        shuffle=dtype.itemsize > 1,
    )
    step = max(1, int(2**26 // max(1, np.prod(shape[1:]) * dtype.itemsize)))
    for first in range(0, shape[0], step):
        node[first : first + step] = np.asarray(array[first : first + step], dtype)
    return node


def check_size(node: Any) -> None:
    """Refuse a dataset of absurd shape before it is read: one of a gigabyte of which next to
    nothing is stored.

    Raises
    ------
    PtychonError
        If its shape must be damaged.
    """
    size = math.prod(node.shape or (0,)) * node.dtype.itemsize
    stored = int(node.id.get_storage_size()) if size > _LARGE else size
    if size > _LARGE and stored * _BEST_COMPRESSION < size:
        raise PtychonError(
            f"{node.name} says its shape is {node.shape}, but only {stored} bytes are stored: "
            "it is damaged"
        )


def get(node: Any, _depth: int = 0) -> Any:
    """The value that `put` stored. Dataclasses come back as mappings of their fields.

    Raises
    ------
    PtychonError
        If the node was not written by `put`.
    """
    kind = node.attrs.get("type")
    if _depth > _DEEPEST:
        raise PtychonError(
            f"{node.name} is nested more than {_DEEPEST} deep: not written by this package"
        )
    if kind == "none":
        return None
    if hasattr(node, "dtype"):
        check_size(node)
    if kind in ("map", "record"):
        return {_unescape(name): get(node[name], _depth + 1) for name in node}
    if kind in ("list", "tuple"):
        items = [get(node[str(index)], _depth + 1) for index in range(len(node))]
        return tuple(items) if kind == "tuple" else items
    if kind in ("str", "repr"):
        value = node[()]
        data: bytes = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        return data.decode("utf-8", "surrogatepass")
    if kind in ("bool", "int", "float", "complex"):
        value = node[()]
        return {"bool": bool, "int": int, "float": float, "complex": complex}[kind](value)
    if kind == "array":
        return node[()]
    raise PtychonError(
        f"{node.name} in {node.file.filename} has the type {kind!r}: not written by this package"
    )
