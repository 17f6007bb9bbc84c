"""Backends: where arrays live and what computes on them.

>>> from ptychon.backends import get_backend
>>> get_backend("numpy").name
'numpy'
"""

from __future__ import annotations

import difflib
from typing import Any

from ..types import PtychonError
from .base import Backend

__all__ = ["NAMES", "Backend", "get_backend"]

NAMES = ("auto", "numpy", "cupy", "reference")


def get_backend(name: str | Backend = "auto", **options: Any) -> Backend:
    """A backend by name: a value, made afresh at every call, so any number can be alive at once.

    Parameters
    ----------
    name : {"auto", "numpy", "cupy", "reference"} or Backend
        "auto" is "cupy" where an NVIDIA driver finds a device and CuPy is installed, else "numpy".
    **options
        ``threads`` for "numpy", ``device`` for "cupy".
    """
    if isinstance(name, Backend):
        return name
    if name == "auto":
        from .gpu import driver_found

        name = "cupy" if driver_found() and _installed("cupy") else "numpy"
    if name == "numpy":
        from .cpu import numpy_backend

        return numpy_backend(**options)
    if name == "reference":
        from .cpu import reference_backend

        return reference_backend(**options)
    if name == "cupy":
        from .gpu import cupy_backend

        return cupy_backend(**options)
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise PtychonError(f"unknown backend {name!r}; choose one of {', '.join(NAMES)}{hint}")


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
