"""What the data of a scan leave undetermined between object, probe and frames, and where it goes.

None of it changes a frame: a gradient of the doses across the scan is one of the transparency of
the object and a probe that leans the other way. Beside it, the scan that a scan is expected to be
where only its scale, rotation and shear are wrong.
"""

from __future__ import annotations

from typing import Any

from ..kernels.reference import namespace
from ..types import Array


def affine(places: Array, to: Array) -> Array:
    """Places (N, 2) scaled, turned, sheared and moved to lie as near to others as they can."""
    xp = namespace(places)
    off = places - places.mean(axis=0)
    # a scan along a line tells no more than its length and direction
    map = xp.linalg.pinv(off.T @ off, rcond=1e-6) @ (off.T @ (to - to.mean(axis=0)))
    along = off @ xp.linalg.pinv(off, rcond=1e-3) @ off
    return to.mean(axis=0) + off @ map + (off - along)


def level(state: Any, xp: Any) -> None:
    """Take the gradient across the scan out of the doses, and put it where it changes no frame: as
    exp(g.r) into the object, and exp(-g.u) into the probe.

    `state` has the fields `object`, `probe`, `variations`, `positions` and `log_scale`.
    """
    middle = state.positions.mean(axis=0)
    places, dose = state.positions - middle, state.log_scale.astype("float64")
    spread = places.T @ places
    # a scan along a line has no gradient across it
    g = xp.linalg.pinv(spread, rcond=1e-6) @ (places.T @ (dose - dose.mean()))
    state.log_scale = (dose - places @ g).astype("float32")
    leans = tilt(g, state.object.shape[-2:], middle, xp)
    if state.object.ndim == 2:
        state.object = state.object * leans
    else:  # where the illumination meets it
        state.object = xp.concatenate([state.object[:1] * leans, state.object[1:]])
    window = state.probe.shape[-2:]
    leaning = tilt(-g, window, [n // 2 for n in window], xp)
    illuminate(state, lambda P: P * leaning)


def illuminate(state: Any, change: Any) -> None:
    """Change the probe and its variations alike, by a function of waves (K, P, Q)."""
    state.probe = change(state.probe)
    if state.variations is not None:
        state.variations = change(state.variations)


def tilt(g: Array, shape: tuple[int, int], middle: Any, xp: Any) -> Array:
    """exp(g.(r - middle)) on a grid, float32."""
    y, x = (
        xp.exp(g[i] * (xp.arange(shape[i], dtype="float64") - middle[i])).astype("float32")
        for i in (0, 1)
    )
    return y[:, None] * x
