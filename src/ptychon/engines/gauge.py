r"""What no ptychographic measurement can know, taken out of a small change of the object.

    O e^{i a}                              global phase, always
    O (1 + s),  O e^{i k.r},  O(r - t)     with an unknown probe also scale, linear phase and translation, which it compensates

The tangents of these at O are i O, O, i y O, i x O, dO/dy, dO/dx. A change x of the object is replaced by x - sum_n a_n t_n
with real a_n that make the rest smallest on the lit region: what `alignment.align` does to an estimate before it is compared.
"""

from __future__ import annotations

from typing import Any

from ..types import Array


def without_gauge(change: Array, object: Array, weight: Array, phase_only: bool, backend: Any) -> Array:
    """`change` (H, W) complex64 of `object` without what cannot be measured.

    Parameters
    ----------
    weight : (H, W) float32
        Where the object is lit.
    phase_only : bool
        The probe is known: only the global phase is free.
    """
    xp = backend.xp
    tangents = [1j * object]
    if not phase_only:
        h, w = object.shape
        y, x = (xp.arange(h) - h / 2)[:, None] / h, (xp.arange(w) - w / 2)[None] / w
        dy = (xp.roll(object, -1, 0) - xp.roll(object, 1, 0)) / 2
        dx = (xp.roll(object, -1, 1) - xp.roll(object, 1, 1)) / 2
        tangents += [object, 1j * y * object, 1j * x * object, dy, dx]
    basis = xp.stack([t.astype("complex64").reshape(-1) for t in tangents])
    lit = weight.reshape(-1)
    products = ((basis * lit) @ basis.conj().T).real.astype("float64")
    found = ((basis.conj() * lit) @ change.reshape(-1)).real.astype("float64")
    scale = xp.sqrt(xp.maximum(xp.diagonal(products), 1e-30))
    matrix = products / (scale[:, None] * scale[None]) + 1e-9 * xp.eye(len(tangents))
    factors = xp.linalg.solve(matrix, found / scale) / scale
    return (change.reshape(-1) - factors.astype("float32") @ basis).reshape(change.shape).astype("complex64")
