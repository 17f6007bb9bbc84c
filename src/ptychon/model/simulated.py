"""What the model of a result says the frames are, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import COMPLEX, Array, FloatArray
from .problem import Problem

#: Bytes of waves computed at a time.
BLOCK_BYTES = 32 * 2**20


def _blocks(n: int, pixels: int) -> list[slice]:
    size = max(1, BLOCK_BYTES // (pixels * COMPLEX.itemsize))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def model_of(
    problem: Problem, object: Array, probe: Array, part: slice, backend: Any
) -> FloatArray:
    """|model| of a block of frames, (B, P, Q) on the host."""
    move, k = backend.asarray, backend.kernels
    shifted = k.shift(move(np.ascontiguousarray(probe)), problem.shifts[problem.shift_index[part]])
    patches = k.gather(
        move(np.ascontiguousarray(object)), problem.corners[part], problem.frame_shape
    )
    wave = problem.propagator.to(backend).forward(
        shifted * patches[:, None], problem.shift_index[part], backend
    )
    model: FloatArray = backend.to_host((wave.real**2 + wave.imag**2).sum(axis=1) ** 0.5)
    return model.astype(np.float64)
