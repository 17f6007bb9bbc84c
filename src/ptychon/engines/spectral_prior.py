r"""A stationary Gaussian prior whose spectrum is learned: S_k by rings of spatial frequency.

Objects are smoother than white noise; with a prior that denies it error bars at low dose are
several times too wide. With m the posterior mean, V_k the posterior variance of ring k, and t
between 0 (plain expectation maximisation, slow where the data say little) and 1 (the equation of
its fixed point; MacKay, Neural Comput. 4, 415 (1992)):

    S_k <- [|m_k|^2 + (1-t) V_k]/(1 - t V_k/S_k)

The share that the data know of a ring is 1 - V_k/S_k. Rings of which they know little follow the
power law of the others.
"""

from __future__ import annotations

from typing import Any

from ..types import Array

#: t of the update.
HASTE = 0.8
#: Rings up to this one hold what leaks from the mean. A ring of which the data tell less than the
#: first share follows the power law alone (a message that is 10 % too sure of itself would double
#: the spectrum there), more than the second, itself.
LEAKY, DOUBTED, TRUSTED = 2, 0.4, 0.8
#: Illumination, relative to its maximum, from which an object pixel is lit.
LIT = 0.1
PI = 3.141592653589793


def rings_of(shape: tuple[int, int], xp: Any) -> tuple[Array, Array]:
    """Ring of each spatial frequency, (H, W) int32, and how many each ring has, (R,) float32, R =
    min(H, W)//2 + 1.
    """
    y, x, side = xp.fft.fftfreq(shape[0])[:, None], xp.fft.fftfreq(shape[1])[None], min(shape)
    rings = xp.minimum(xp.rint(xp.sqrt(y * y + x * x) * side).astype("int32"), side // 2)
    return rings, xp.bincount(rings.reshape(-1), minlength=side // 2 + 1).astype("float32")


def taper_of(light: Array, xp: Any) -> Array:
    """A window (H, W) that is 1 where the light is full and 0 where there is next to none."""
    lit = light > LIT * light.max()
    full = (light * lit).sum() / lit.sum()
    return xp.where(lit, xp.minimum(light / full, 1), 0).astype("float32")


def by_rings(field: Array, taper: Array, rings: Array, ring_size: Array, backend: Any) -> Array:
    """Mean power over each ring of a field (H, W) seen through a window: (R,)."""
    xp = backend.xp
    power = backend.kernels.abs2(backend.fft2((taper * field).astype("complex64")))
    total = xp.bincount(rings.reshape(-1), weights=power.reshape(-1), minlength=len(ring_size))
    return total / xp.maximum(ring_size, 1) / (taper**2).mean()


def learned(S: Array, mean: Array, variance: Array, ring_size: Array, xp: Any) -> Array:
    """New spectrum for what one pass has found, half way to it on the logarithmic scale.

    Parameters
    ----------
    S, mean, variance, ring_size : (R,)
        The spectrum so far, |m_k|^2, V_k, and the number of frequencies a ring has.
    """
    ring = xp.arange(len(S))
    known = xp.clip(1 - variance / S, 0.01, 1)
    new = xp.maximum(mean + (1 - HASTE) * variance, 1e-8 * mean.max()) / (1 - HASTE * (1 - known))
    radius, value = xp.log(xp.maximum(ring, 1)), xp.log(new)
    weight = ring_size * known**4 * (ring > LEAKY)
    weight = weight / weight.sum()
    x, y = radius - (weight * radius).sum(), value - (weight * value).sum()
    slope = (weight * x * y).sum() / ((weight * x * x).sum() + 1e-3)
    law = (weight * value).sum() + slope * x
    share = xp.where(ring > LEAKY, xp.clip((known - DOUBTED) / (TRUSTED - DOUBTED), 0, 1), 1)
    return xp.sqrt(S * xp.exp(share * value + (1 - share) * law)).astype("float32")


def variance_left(precision: Array, S: Array, ring_size: Array, xp: Any) -> Array:
    """Posterior variance (H, W) where the data have a `precision` (H, W): the mean over k of
    1/(1/S_k + precision).
    """
    grid = xp.linspace(0, 1, 65) ** 3 * precision.max()
    curve = (ring_size / ring_size.sum() / (1 / S + grid[:, None])).sum(axis=1)
    return xp.interp(precision.reshape(-1), grid, curve).reshape(precision.shape).astype("float32")


def blurred(field: Array, width: float, backend: Any) -> Array:
    """A real field (H, W) smoothed by a Gaussian of that standard deviation in pixels, periodic."""
    xp = backend.xp
    y, x = xp.fft.fftfreq(field.shape[0])[:, None], xp.fft.fftfreq(field.shape[1])[None]
    transfer = xp.exp(-2 * (PI * width) ** 2 * (y * y + x * x)).astype("float32")
    return backend.ifft2(transfer * backend.fft2(field.astype("complex64"))).real
