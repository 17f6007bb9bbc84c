r"""Defocus from how frames move: out of focus each frame is a shadow image, which travels when the
probe does.

Far enough from the focus a ray of frequency f meets the object D f pixels from the middle of the
probe, so that

    I_j(f) ~ |A(f)|^2 h(s_j + D f),

h being something of the object and s_j the position: the frame is an image of the object, magnified
by 1/D (an in-line hologram; Gabor, Nature 161, 777 (1948)), and moves by -s_j/D. With G_j(q) the
Fourier transform of the contrast of frame j, the sum

    S(D) = sum_q |sum_j G_j(q) exp(-2 pi i q s_j/D)|^2 / sum_q sum_j |G_j(q)|^2 - 1

is largest where the shift that is undone is the true one, and about 0 elsewhere. It has a sign,
needs no phase, and costs a few passes. A flat wavefront casts no shadow image: S has then no
maximum inside the range.
"""

from __future__ import annotations

import numpy as np

from ..model.problem import Problem
from ..types import FloatArray
from .guess import aspect

#: Range of |D| in sides of the frame, and how many values each sign has in it.
RANGE, VALUES = (0.125, 8.0), 36
#: Frequencies of the frames that are compared: the lowest this many each way.
LOWEST = 32
#: A maximum counts when S is above this, and above this share of the largest.
LEAST, SHARE = 0.5, 0.4


def shadow_motion(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """S for a range of defocus of both signs: D ascending in 1/D, and S(D), each (2 * `VALUES`,)
    float64.

    Parameters
    ----------
    problem : Problem
        In the far field, on the host.
    """
    p, q = problem.frame_shape
    ratio, side = aspect(problem), min(p, q)
    rows, columns = (np.fft.fftfreq(n, 1 / n) for n in (p, q))
    low = np.flatnonzero(np.abs(rows) <= LOWEST), np.flatnonzero(np.abs(columns) <= LOWEST)
    contrast = _contrast(problem)[:, low[0]][:, :, low[1]]
    place = problem.corners + problem.shifts[problem.shift_index].astype(np.float64)
    place = (place - place.mean(axis=0)) * np.square(ratio)
    total = max(float((np.abs(contrast) ** 2).sum(dtype=np.float64)), 1e-300)
    size = np.geomspace(*RANGE, VALUES) * side
    values = np.concatenate([-size, size[::-1]])
    found = np.empty(len(values))
    for i, value in enumerate(values):
        y, x = (
            np.exp(-2j * np.pi * place[:, k, None] * f / value).astype(np.complex64)
            for k, f in enumerate((rows[low[0]], columns[low[1]]))
        )
        aligned = ((contrast * y[:, :, None]) * x[:, None, :]).sum(axis=0)
        found[i] = float((np.abs(aligned) ** 2).sum(dtype=np.float64)) / total - 1
    return values, found


def shadow_defocus(problem: Problem, most: int = 2) -> list[float]:
    """The likeliest values of the defocus, the best first; none where frames do not move with the
    probe.

    Parameters
    ----------
    problem : Problem
        In the far field, on the host.
    most : int
        How many at most.

    Returns
    -------
    list of float
        D = wavelength * distance / pixel area, > 0 behind the focus.
    """
    values, found = shadow_motion(problem)
    ends = {0, VALUES - 1, VALUES, 2 * VALUES - 1}
    least = max(LEAST, SHARE * float(found.max()))
    tops = [
        i
        for i in range(len(found))
        if i not in ends and found[i] >= max(found[i - 1], found[i + 1]) and found[i] > least
    ]
    tops.sort(key=lambda i: -found[i])
    out = []
    for i in tops[:most]:
        left, top, right = found[i - 1 : i + 2]
        # the vertex of a parabola in log |D|
        offset = 0.5 * (left - right) / min(left - 2 * top + right, -1e-12)
        out.append(float(values[i] * abs(values[i + 1] / values[i]) ** offset))
    return out


def _contrast(problem: Problem) -> FloatArray:
    """Fourier transform over the detector of what frames have above their mean, in units of its
    noise, (N, P, Q) complex64.
    """
    intensity = np.square(problem.amplitude, dtype=np.float32)
    seen = np.maximum(problem.mask.mean(axis=0, dtype=np.float32), 1 / len(problem))
    mean = intensity.mean(axis=0) / seen
    above = problem.mask * (intensity - mean) / np.sqrt(mean + 0.02 * mean.max())
    return np.asarray(np.fft.fft2(above), np.complex64)
