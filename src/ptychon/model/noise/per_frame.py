r"""A noise variance for each frame, held to the common one as far as the frame's own data are few.

With S_j the sum over the n_j valid pixels of frame j of what the noise is expected to be squared, v
= sum S/sum n and d_j = S_j/(n_j v) - 1, a mean of n_j squares scatters by 2/n_j of itself. What the
d_j scatter beyond that is how much frames differ, and decides how much of its own estimate a frame
keeps (empirical Bayes; Efron & Morris, J. Am. Stat. Assoc. 70, 311 (1975)):

    tau^2 = max(0, (sum_j n_j d_j^2 - 2 N)/sum_j n_j)
    w_j = tau^2/(tau^2 + 2/n_j),   v_j = v (1 + w_j d_j)

Frames that are alike get one variance; a frame with few pixels gets nearly the common one.
"""

from __future__ import annotations

from typing import Any

from ...distributed.comm import Comm
from ...types import Array

#: Least variance of a frame relative to the common one.
LEAST = 1e-4


def shrunk(sums: Array, counts: Array, xp: Any, comm: Comm) -> Array:
    """v_j of all frames.

    Parameters
    ----------
    sums : (N,) float64
        S_j.
    counts : (N,) float
        n_j; a frame without valid pixels gets the common variance.
    xp : module
    comm : Comm
        Frames of other processes count for the common variance and tau^2.

    Returns
    -------
    (N,) float64
    """
    n = counts.astype("float64")
    total = comm.sum(n.sum())
    common = comm.sum(sums.sum()) / total
    deviation = xp.where(n > 0, sums / (xp.maximum(n, 1) * common) - 1, 0)
    spread = comm.sum((n * deviation**2).sum() - 2 * (n > 0).sum()) / total
    own = xp.maximum(spread, 0) * n
    return common * xp.maximum(1 + own / (own + 2) * deviation, LEAST)


def valid_pixels(mask: Array, frames: int, xp: Any) -> Array:
    """n_j of all frames, (N,), from masks (1 or N, P, Q)."""
    return xp.broadcast_to(mask.sum(axis=(-2, -1)), (frames,))
