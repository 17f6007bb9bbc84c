"""What the model of a result says the frames are, block by block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..types import COMPLEX, Array, FloatArray
from .batch import Batch
from .forward import Model, unknowns_of
from .problem import Problem

#: Bytes of waves computed at a time.
BLOCK_BYTES = 32 * 2**20


def _blocks(n: int, pixels: int) -> list[slice]:
    size = max(1, BLOCK_BYTES // (pixels * COMPLEX.itemsize))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def model_of(
    problem: Problem, object: Array, probe: Array, part: slice, backend: Any
) -> FloatArray:
    """|model| of a block of frames, (B, P, Q) on the host: roots of the light that pixels count.
    Frames have the doses and the probes that the problem knows.
    """
    O, P = (backend.asarray(np.ascontiguousarray(a)) for a in (object, probe))
    if problem.log_scale is None and problem.weights is None:
        seen = Batch.of(replace(problem, propagator=problem.propagator.to(backend)), backend, part)
        wave = seen.waves(O, P)
    else:
        x = unknowns_of(problem, O, P).to(backend)
        wave = Model.of(problem, backend).view(x, part).waves
    light = (wave.real**2 + wave.imag**2).sum(axis=1)
    if problem.spread is not None:
        light = problem.spread.to(backend).forward(light)
    model: FloatArray = backend.to_host(light**0.5)
    return model.astype(np.float64)
