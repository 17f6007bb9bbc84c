"""-log p of the data and its gradient, over a range of positions, compiled; see
`uncertainty.potential`.
"""

from __future__ import annotations

import math

import numpy as np

from ...types import Array
from .rows import jit, propagate
from .vectors import clear


@jit
def energy_gradient(
    O: Array,
    probes: Array,
    index: Array,
    corners: Array,
    data: Array,
    mask: Array,
    soft: Array,
    weight: float,
    counting: bool,
    moves: bool,
    transfer: Array,
    near: bool,
    energy: Array,
    out_O: Array,
    out_P: Array,
) -> None:
    """energy[j] += -log p of frame j, out += its gradient, one position after the other.

    With m^2 = sum_k |z_k|^2: (m - y)^2 w/2, whose gradient by z is w (1 - y/m) z; or, where
    `counting`, m^2 + b - n log(m^2 + b), b = `soft` (1, P, Q), whose gradient is 2 (1 - n/(m^2 +
    b)) z. `data` holds y or n.
    """
    modes, p_, q = probes.shape[1], probes.shape[2], probes.shape[3]
    wave, factor = np.empty_like(probes[0]), np.empty(q, np.float32)
    many = len(mask) > 1
    for j in range(len(corners)):
        y0, x0, u = corners[j, 0], corners[j, 1], index[j]
        seen = mask[j if many else 0]
        for k in range(modes):
            for r in range(p_):
                o, p, w = O[y0 + r, x0 : x0 + q], probes[u, k, r], wave[k, r]
                for c in range(q):
                    w[c] = p[c] * o[c]
        propagate(wave, wave, transfer[u], near, True)
        total = 0.0
        for r in range(p_):
            clear(factor)
            for k in range(modes):
                w = wave[k, r]
                for c in range(q):
                    factor[c] += w[c].real * w[c].real + w[c].imag * w[c].imag
            for c in range(q):
                power, d = float(factor[c]), float(data[j, r, c])
                pull = 0.0
                if seen[r, c]:
                    if counting:
                        mean = power + soft[0, r, c]
                        total += mean - d
                        if d != 0.0:
                            total -= d * math.log(mean / d if d > 0.0 else mean)
                        pull = 2.0 * (1.0 - d / mean)
                    else:
                        m = math.sqrt(power)
                        total += 0.5 * weight * (m - d) * (m - d)
                        if m > 1e-20:
                            pull = weight * (1.0 - d / m)
                factor[c] = np.float32(pull)
            for k in range(modes):
                w = wave[k, r]
                for c in range(q):
                    w[c] = w[c] * factor[c]
        energy[j] += total
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
