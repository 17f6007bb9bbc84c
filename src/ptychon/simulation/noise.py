"""The noise of simulated frames."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np

from ..model.noise import Noise as NoiseModel
from ..types import BoolArray, FloatArray, PtychonError

Noise = Literal["none", "gaussian", "poisson"]
#: Working memory of a block of frames.
BLOCK_BYTES = 64 * 2**20


def check_noise(
    noise: str, variance: float | None, snr_db: float | None, mean_counts: float | None
) -> None:
    if noise not in ("none", "gaussian", "poisson"):
        raise PtychonError(f"noise is {noise!r}; it must be 'none', 'gaussian' or 'poisson'")
    given = (variance is not None) + (snr_db is not None)
    if noise == "gaussian" and given != 1:
        raise PtychonError(
            "Gaussian noise needs either variance or snr_db, not both and not neither"
        )
    if noise != "gaussian" and given:
        raise PtychonError(f"variance and snr_db belong to Gaussian noise; noise is {noise!r}")
    for name, value in (("variance", variance), ("mean_counts", mean_counts)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise PtychonError(f"{name} is {value}; it must be a positive number")
    if snr_db is not None and not np.isfinite(snr_db):
        raise PtychonError(f"snr_db is {snr_db}; it must be a finite number of decibels")


def blocks(n: int, size: int) -> list[slice]:
    """Slices that cover n >= 2 frames, about `size` each and at least 2."""
    count = max(1, min(n // 2, -(-n // max(size, 1))))
    edges = [n * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def add_noise(
    patterns: FloatArray,
    mask: BoolArray | None,
    noise: str,
    variance: float | None,
    rng: np.random.Generator,
    read: float,
) -> Any:
    """Noise in place where the type allows; masked pixels become 0."""
    out: Any = patterns
    model: NoiseModel | None = None if variance is None else NoiseModel("amplitude", variance)
    if noise == "poisson":
        # the patterns hold the background already
        model = NoiseModel("poisson", background=read * read, read_noise=read)
        top = float(patterns.max())
        # far beyond the largest of any number of draws
        top += 12 * np.sqrt(top) + 50
        if top > np.iinfo(np.uint32).max:
            raise PtychonError(
                f"a pixel expects {patterns.max():.3g} counts, too many to store; lower mean_counts"
            )
        if not read:
            out = np.empty(
                patterns.shape, np.uint16 if top <= np.iinfo(np.uint16).max else np.uint32
            )
    for part in blocks(len(patterns), BLOCK_BYTES // (32 * patterns[0].size)):
        block: Any = patterns[part].astype(np.float64)
        if model is not None:
            block = model.draw(rng, block)
        if mask is not None:
            block = np.where(mask if mask.ndim == 2 else mask[part], block, 0)
        out[part] = block
    return out
