"""The product of the Fisher information with a direction, over a range of positions, compiled; see
`uncertainty.curvature`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...types import Array
from .rows import ZERO, jit, propagate, transfer_table


@jit
def information_product(
    dO: Array,
    dP: Array,
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    radial: Array,
    share: Array,
    spread: bool,
    moves: bool,
    transfer: Array,
    near: bool,
    out_O: Array,
    out_P: Array,
) -> None:
    """out += M^H A M (dO, dP), one position after the other.

    M d = F[P dO + dP O];  A w = radial Re sum_k radial* w, and + share w where `spread`.
    """
    modes, p_, q = probes.shape[1], probes.shape[2], probes.shape[3]
    wave, along = np.empty_like(probes[0]), np.empty(q, np.float32)
    for j in range(len(corners)):
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        for k in range(modes):
            for r in range(p_):
                d, p, w = dO[y0 + r, x0 : x0 + q], probes[u, k, r], wave[k, r]
                if moves:
                    o, e = O[y0 + r, x0 : x0 + q], dP[u, k, r]
                    for c in range(q):
                        w[c] = p[c] * d[c] + e[c] * o[c]
                else:
                    for c in range(q):
                        w[c] = p[c] * d[c]
        propagate(wave, wave, transfer[u], near, True)
        for r in range(p_):
            along[:] = ZERO
            for k in range(modes):
                a, w = radial[j, k, r], wave[k, r]
                for c in range(q):
                    along[c] += a[c].real * w[c].real + a[c].imag * w[c].imag
            for k in range(modes):
                a, w = radial[j, k, r], wave[k, r]
                if spread:
                    s = share[j, r]
                    for c in range(q):
                        w[c] = a[c] * along[c] + s[c] * w[c]
                else:
                    for c in range(q):
                        w[c] = a[c] * along[c]
        propagate(wave, wave, transfer[u], near, False)
        for k in range(modes):
            for r in range(p_):
                t, p, w = out_O[y0 + r, x0 : x0 + q], probes[u, k, r], wave[k, r]
                for c in range(q):
                    t[c] += p[c].conjugate() * w[c]
                if moves:
                    o, e = O[y0 + r, x0 : x0 + q], out_P[u, k, r]
                    for c in range(q):
                        e[c] += o[c].conjugate() * w[c]


def product(dO: Array, dP: Array | None, curvature: Any) -> tuple[Array, Array]:
    """M^H A M of a direction: object (H, W), and probe at every distinct shift (U, K, P, Q), if it
    is free.
    """
    c = curvature
    moves, spread = dP is not None, c.share is not None
    transfer, near = transfer_table(c.transfer, len(c.probes))
    none4, none3 = np.zeros((0, 1, 1, 1), np.complex64), np.zeros((0, 1, 1), np.float32)
    out_O = np.zeros_like(dO)
    out_P = np.zeros_like(c.probes) if moves else none4
    information_product(
        dO,
        dP if moves else none4,
        c.object,
        c.probes,
        c.index,
        c.corners,
        c.radial,
        c.share if spread else none3,
        spread,
        moves,
        transfer,
        near,
        out_O,
        out_P,
    )
    return out_O, out_P
