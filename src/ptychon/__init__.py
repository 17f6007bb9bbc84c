"""Ptychon: ptychographic reconstruction with an honest error bar on every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .data.dataset import Dataset
from .data.result import Result
from .model.problem import Problem
from .types import PtychonError, PtychonWarning

if TYPE_CHECKING:
    from .io import load
    from .run.iterate import iterate
    from .run.reconstruct import reconstruct

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
    if name == "iterate":
        from .run.iterate import iterate

        return iterate
    if name == "reconstruct":
        from .run.reconstruct import reconstruct

        return reconstruct
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
