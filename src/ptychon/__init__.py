"""Ptychon: ptychographic reconstruction with an honest error bar on every pixel."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .dataset import Dataset
from .problem import Problem
from .result import Result
from .types import PtychonError, PtychonWarning

if TYPE_CHECKING:
    from .io import load
    from .reconstruct import iterate, reconstruct

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Problem",
    "PtychonError",
    "PtychonWarning",
    "Result",
    "__version__",
    "iterate",
    "load",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    """`load`, `iterate` and `reconstruct` come when first used: they bring h5py and Numba, which take a second to import."""
    if name == "load":
        from .io import load

        return load
    if name in ("iterate", "reconstruct"):
        from importlib import import_module

        return getattr(import_module(".reconstruct", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """`ptychon.reconstruct` stays the function when the module of that name is imported, which would take its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "reconstruct" and isinstance(value, ModuleType):
            value = value.reconstruct
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
