"""Ptychon: ptychographic reconstruction with an honest error bar on every pixel."""

from __future__ import annotations

from .dataset import Dataset
from .problem import Problem
from .result import Result
from .types import PtychonError, PtychonWarning

__version__ = "0.1.0"

__all__ = ["Dataset", "Problem", "PtychonError", "PtychonWarning", "Result", "__version__"]
