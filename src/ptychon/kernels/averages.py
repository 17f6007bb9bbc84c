r"""What counts say of waves that are not certain, z' ~ CN(z, V): kernel `uncertain_counts`.

With n counts, b of background, m = |z|, M = m^2 + b, s = M/V and u = m^2/V:

    -log p      M - n log M - n E1(s)                                   averaged over z'
    pull        its derivative by m, over m:  2 (1 - n (1 - exp(-s))/(s V))
    curvature   4 m^2/M (1 - R R'') along z and 4 m^2/M (1 - R R'/m) across,
                R = E|z'| = sqrt(pi V)/2 exp(-u/2) ((1 + u) I0(u/2) + u I1(u/2))

(see `model.noise.record`). All that depends on s or u alone is read off a table over s/(1 + s),
straight lines between its entries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..types import Array, FloatArray
from .reference import TINY, abs2, namespace

__all__ = ["uncertain_counts"]

#: Entries of the table, the least s that is told from 0, and from where on exp(-s) is nothing.
ENTRIES, LEAST, FAR = 16384, 1e-12, 36.0


@cache
def table() -> FloatArray:
    """Rows over t = s/(1 + s) from 0 to 1: log(s) + E1(s) - log(1 + s); (1 - exp(-s))/s; the
    curvatures along less across and across, over 4 m^2/M. (ENTRIES, 4) float64.
    """
    from scipy.special import exp1, i0e, i1e

    t = np.linspace(0, 1, ENTRIES)
    s = t[1:-1] / (1 - t[1:-1])
    a, b = i0e(s / 2), i1e(s / 2)
    mean = np.pi / 4 * ((1 + s) * a + s * b)
    along, across = (np.clip(1 - mean * x, 0, 1) for x in (a - b, a + b))
    rows = np.stack([np.log(s) + exp1(s) - np.log1p(s), -np.expm1(-s) / s, along - across, across])
    first = [-np.euler_gamma, 1.0, 0.0, 1 - np.pi / 4]
    return np.ascontiguousarray(np.column_stack([first, rows, [0.0, 0.0, 1.0, 0.0]]).T)


def uncertain_counts(
    wave: Array, root: Array, mask: Array, spread: Array, background: Array, threads: int = 1
) -> tuple[Array, Array, Array, Array]:
    """What the counts of B frames say of their waves, averaged over CN(wave, V).

    Parameters
    ----------
    wave : (B, K, P, Q) complex64
    root : (B, P, Q) float32
        Root of the counts; negative where these are.
    mask : (1 or B, P, Q) bool
        Where there are data; elsewhere all is 0.
    spread : (B,) float32
        V, summed over modes.
    background : (1, P, Q) or (1, 1, 1) float32
        b.
    threads : int
        Frames are shared among them.

    Returns
    -------
    energy : (B,) float64
        -log p, less what does not depend on waves and V.
    pull : (B, P, Q) float32
        Its derivative by m over m.
    radial : (B, P, Q) float32
        Root of the curvature along less that across, over m; 0 where there is no wave.
    across : (B, P, Q) float32
    """
    xp = namespace(wave)
    power = abs2(wave).sum(axis=1).astype("float64")
    V = spread.astype("float64")[:, None, None]
    n = root.astype("float64") * abs(root)
    mean = xp.maximum(power + background, LEAST * V)
    s, u, rows = mean / V, power / V, xp.asarray(table())
    grid = xp.linspace(0, 1, ENTRIES)

    def looked_up(x: Array, column: int) -> Any:
        return xp.interp((x / (1 + x)).reshape(-1), grid, rows[:, column]).reshape(x.shape)

    blurred = xp.where(s < FAR, looked_up(s, 0) + xp.log1p(s), xp.log(s))
    energy = mean - n * (blurred + xp.log(V))
    pull = 2 * (1 - n * xp.where(s < FAR, looked_up(s, 1), 1 / s) / V)
    full = 4 * xp.where(background == 0, 1, power / mean)
    bright = power > float(TINY) ** 2
    root_along = xp.sqrt(full * looked_up(u, 2) / xp.where(bright, power, 1))
    across = full * looked_up(u, 3)
    return (
        xp.where(mask, energy, 0).sum(axis=(1, 2)),
        xp.where(mask, pull, 0).astype("float32"),
        xp.where(mask & bright, root_along, 0).astype("float32"),
        xp.where(mask, across, 0).astype("float32"),
    )
