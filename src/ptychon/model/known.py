"""How much of what a frame sees the other frames see too, at places where it might be.

Where a frame alone puts light, the object adapts to it, or is still what it began with: that it
fits there says nothing of its place.
"""

from __future__ import annotations

import numpy as np

from ..types import FloatArray, IntArray


def known(
    light: FloatArray,
    places: FloatArray,
    frames: IntArray,
    tried: FloatArray,
    shape: tuple[int, int],
) -> FloatArray:
    """Share of the light of frames that falls where others put theirs: (T, B) from 0 to 1.

    Parameters
    ----------
    light : (P, Q) float
        |probe|^2, all modes together.
    places : (N, 2) float
        Of all frames, object pixels.
    frames : (B,) int
        Those that are tried elsewhere.
    tried : (T, B, 2) float
        Where; beyond the object nobody knows anything.
    shape : (H, W)
        Of the object.
    """
    p, q = light.shape
    half, window_size, size = np.array([p // 2, q // 2]), np.array([p, q]), np.array(shape)
    total = np.zeros((size[0] + 2 * p, size[1] + 2 * q))

    def window(place: FloatArray) -> tuple[slice, slice]:
        y, x = np.clip(np.rint(place).astype(int) - half + window_size, 0, size + window_size)
        return slice(y, y + p), slice(x, x + q)

    for place in places:
        total[window(place)] += light
    found = np.empty(tried.shape[:2])
    for b, j in enumerate(frames):
        own = window(places[j])
        total[own] -= light
        for t, place in enumerate(tried[:, b]):
            others = total[window(place)].clip(0, None)
            found[t, b] = (light * others / (others + light + 1e-30)).sum()
        total[own] += light
    return found / max(float(light.sum()), 1e-30)
