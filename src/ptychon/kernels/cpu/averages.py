"""Numba version of the kernel `uncertain_counts`: a pixel at a time, one look into the table for
all that depends on it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ...types import Array
from ..averages import FAR, LEAST, table
from ..reference import TINY
from .rows import inner, jit
from .threads import run_all

__all__ = ["uncertain_counts"]

DARK = float(TINY) ** 2
#: Pixels of a thread.
LEAST_OF_THREAD = 100_000


@inner
def _place(s: Any, last: Any) -> tuple[Any, Any]:
    """Entry of the table below s, and how far beyond it."""
    x = s / (1.0 + s) * last
    i = min(int(x), last - 1)
    return i, x - i


@jit
def _uncertain_counts(
    wave: Array,
    root: Array,
    mask: Array,
    spread: Array,
    background: Array,
    rows: Array,
    energy: Array,
    pull: Array,
    radial: Array,
    across: Array,
) -> None:
    last, level = len(rows) - 1, background.size == 1
    power = np.empty(wave.shape[3], np.float32)
    for b in range(wave.shape[0]):
        V, total, counted = float(spread[b]), 0.0, 0.0
        inverse, seen = 1.0 / V, mask[b if len(mask) > 1 else 0]
        for r in range(wave.shape[2]):
            power[:] = 0
            for k in range(wave.shape[1]):
                w = wave[b, k, r]
                for c in range(len(power)):
                    power[c] += w[c].real * w[c].real + w[c].imag * w[c].imag
            for c in range(len(power)):
                if not seen[r, c]:
                    pull[b, r, c] = radial[b, r, c] = across[b, r, c] = np.float32(0)
                    continue
                p, a = float(power[c]), float(root[b, r, c])
                n, dark = a * abs(a), float(background[0, 0 if level else r, 0 if level else c])
                mean = max(p + dark, LEAST * V)
                s = mean * inverse
                i, f = _place(s, last)
                low, high = rows[i], rows[i + 1]
                total += mean
                if s < FAR:
                    if n != 0.0:
                        total -= n * (low[0] + f * (high[0] - low[0]) + math.log(1.0 + s))
                    lost = (low[1] + f * (high[1] - low[1])) * inverse
                else:
                    total -= n * math.log(s)
                    lost = 1.0 / mean
                counted += n
                pull[b, r, c] = np.float32(2.0 * (1.0 - n * lost))
                full = 4.0
                if dark != 0.0:
                    i, f = _place(p * inverse, last)
                    low, high = rows[i], rows[i + 1]
                    full = 4.0 * p / mean
                along = 0.0
                if p > DARK:
                    along = math.sqrt(full * (low[2] + f * (high[2] - low[2])) / p)
                radial[b, r, c] = np.float32(along)
                across[b, r, c] = np.float32(full * (low[3] + f * (high[3] - low[3])))
        energy[b] = total - counted * math.log(V)


def uncertain_counts(
    wave: Array, root: Array, mask: Array, spread: Array, background: Array, threads: int = 1
) -> tuple[Array, Array, Array, Array]:
    energy = np.empty(len(wave))
    pull, radial, across = (np.empty(root.shape, np.float32) for _ in range(3))
    wave, spread = np.ascontiguousarray(wave), np.asarray(spread, np.float32)
    # fewer frames than this are done before a thread begins
    few = -(-len(wave) * root[0].size // LEAST_OF_THREAD)
    edges = np.linspace(0, len(wave), min(threads, len(wave), few) + 1).astype(int)
    calls = []
    for b in (slice(i, j) for i, j in pairwise(edges)):
        seen = mask if len(mask) == 1 else mask[b]
        own = (energy[b], pull[b], radial[b], across[b])
        calls.append((wave[b], root[b], seen, spread[b], background, table(), *own))
    run_all(_uncertain_counts, calls, threads)
    return energy, pull, radial, across
