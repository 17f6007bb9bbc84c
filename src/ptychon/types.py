"""Array aliases, shape letters and the errors every room may raise.

Shape letters used in all docstrings: N scan positions, B positions of one batch, K probe modes, (P,
Q) pixels of a frame and of the probe, (H, W) pixels of the object, U distinct sub-pixel shifts.
"""

from __future__ import annotations

import os
from tokenize import TokenError
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

PathLike: TypeAlias = str | os.PathLike[str]
#: An array of the backend in use (numpy.ndarray or cupy.ndarray).
Array: TypeAlias = Any
#: Arrays that are always on the host.
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
ComplexArray: TypeAlias = npt.NDArray[np.complexfloating[Any, Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

REAL = np.dtype(np.float32)
COMPLEX = np.dtype(np.complex64)

#: What `numpy.load` raises of a file that holds no array; its tokenizer has an error of its own.
NO_ARRAY = (OSError, ValueError, EOFError, SyntaxError, TokenError)


class PtychonError(ValueError):
    """Bad input or a failed run, said in one sentence: the thing, the numbers, the remedy."""


class PtychonWarning(UserWarning):
    """Something the user should know, though the run goes on."""
