"""What each kernel means, in plain array code that runs on NumPy and CuPy arrays alike: the
specification.

Shapes: object (H, W), probe (K, P, Q), patches (B, P, Q), waves (B, K, P, Q); corners are host
integers (B, 2). All arithmetic stays in complex64/float32 if that is what comes in (and in
complex128/float64 likewise).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array

__all__ = [
    "abs2",
    "batch_sum",
    "bernoulli_gauss",
    "cavity",
    "damped_message",
    "gather",
    "laplace",
    "message_sums",
    "modulus_projection",
    "probe_force",
    "quotient",
    "rician",
    "scatter_add",
    "shift",
]

#: Moduli below this are zero: their phase is rounding, and its square is still a normal float32.
TINY = 1e-18
#: Relative guards of expectation propagation; none of them depends on the scale of the data. A
#: frame of a scan that measures every pixel a thousand times adds a thousandth to what is known:
#: the least gain is far below that, far above rounding.
CAVITY_FLOOR = 1e-3
EXTRINSIC_GAIN = 1e-4
VARIANCE_FLOOR = 1e-6
#: I1(k)/I0(k) = k A(k)/B(k) to 1.3e-4 and 1 - (I1/I0)^2 = C(k)/D(k) to 6.7e-4, relative, for all k
#: >= 0 (rational least-squares fits; the second is its own fit because 1 - R^2 by subtraction has
#: no digits left in float32 at large k).
BESSEL_A = (0.49993662, 0.23901914, 0.08853111, 0.03700171)
BESSEL_B = (1.0, 0.47430503, 0.31906998, 0.10621296, 0.03700631)
BESSEL_C = (0.99932833, 0.24235761, 0.03239556, 0.09187582)
BESSEL_D = (1.0, 0.2235314, 0.36507308, 0.02509676, 0.09193639)
#: Fourth powers must stay in float32. Beyond, R/k and 1 - R^2 fall as 1/k: one of a bright pixel's
#: 1e7 counts has such a k.
KAPPA_MAX = 1e7


def namespace(array: Array) -> Any:
    """The module (numpy or cupy) an array belongs to."""
    return (
        array.__array_namespace__() if isinstance(array, np.ndarray) else _foreign_namespace(array)
    )


def _foreign_namespace(array: Array) -> Any:
    import sys

    return sys.modules[type(array).__module__.split(".")[0]]


def abs2(x: Array) -> Array:
    """|x|^2, real."""
    return x.real**2 + x.imag**2


def gather(field: Array, corners: Array, shape: tuple[int, int]) -> Array:
    """Cut windows of (P, Q) = `shape` out of `field` (H, W): (B, P, Q)."""
    p, q = shape
    xp = namespace(field)
    return xp.stack([field[y : y + p, x : x + q] for y, x in corners.tolist()])


def scatter_add(field: Array, corners: Array, patches: Array) -> None:
    """Adjoint of `gather`, in place: field[window b] += patches[b] for every b."""
    p, q = patches.shape[-2:]
    for (y, x), patch in zip(corners.tolist(), patches, strict=True):
        field[y : y + p, x : x + q] += patch


def shift(probe: Array, shifts: Array, sign: int = 1) -> Array:
    """Move images by fractions of a pixel with the Fourier shift theorem; unitary, so sign = -1 is
    inverse and adjoint.

    Parameters
    ----------
    probe : (K, P, Q) complex, the same for every shift, or (B, K, P, Q)
    shifts : (B, 2) float on the host, pixels (y, x)

    Returns
    -------
    (B, K, P, Q) complex
        S_s P (r) = P(r - s); whole `probe` where all shifts are zero (a view, not to be written
        to).
    """
    xp = namespace(probe)
    shifts = np.asarray(shifts)
    if not shifts.any():
        return xp.broadcast_to(probe, (len(shifts), *probe.shape[-3:]))
    ramps = xp.asarray(shift_ramps(shifts, probe.shape[-2:], sign).astype(probe.dtype))
    return xp.fft.ifft2(xp.fft.fft2(probe) * ramps[:, None]).astype(probe.dtype, copy=False)


def shift_ramps(shifts: Any, shape: tuple[int, ...], sign: int = 1) -> Any:
    """exp(-2 pi i f.s), (B, P, Q) complex128 on the host, zero frequency at [0, 0]."""
    s = sign * np.asarray(shifts, float)
    y = np.exp(-2j * np.pi * np.outer(s[:, 0], np.fft.fftfreq(shape[0])))
    x = np.exp(-2j * np.pi * np.outer(s[:, 1], np.fft.fftfreq(shape[1])))
    return y[:, :, None] * x[:, None, :]


def batch_sum(patches: Array, corners: Array) -> Array:
    """For each window the sum, on the object, of all patches of the batch: (B, P, Q) real, as
    `patches`.

    What a batch needs to stay normalised where its windows overlap; with one window it is the patch
    itself.
    """
    if len(patches) == 1:
        return patches
    xp = namespace(patches)
    low = corners.min(axis=0)
    extent = (corners.max(axis=0) - low + np.array(patches.shape[-2:])).tolist()
    total = xp.zeros(extent, patches.dtype)
    scatter_add(total, corners - low, patches)
    return gather(total, corners - low, patches.shape[-2:])


def modulus_projection(wave: Array, amplitude: Array, mask: Array) -> tuple[Array, Array]:
    """Keep the phase of a detector wave, take its modulus from the measurement: z y/|z|; zero and
    masked pixels stay.

    Parameters
    ----------
    wave : (B, K, P, Q) complex; the modulus is sqrt(sum_k |z_k|^2)
    amplitude : (B, P, Q) float
    mask : (1 or B, P, Q) bool

    Returns
    -------
    projected : (B, K, P, Q) complex
    misfit : (B,) float
        sum over valid pixels of (|z| - y)^2.
    """
    xp = namespace(wave)
    modulus = xp.sqrt(abs2(wave).sum(axis=1))
    misfit = xp.where(mask, modulus - amplitude, 0) ** 2
    factor = xp.where(
        mask & (modulus > TINY), amplitude / xp.maximum(modulus, wave.real.dtype.type(TINY)), 1
    )
    return wave * factor[:, None].astype(wave.real.dtype), misfit.sum(axis=(-2, -1))


def cavity(belief: Array, variance: Array, message: Array, precision: Array) -> tuple[Array, Array]:
    """Take a frame's own message out of its belief: CN(belief, variance)/CN(message, 1/precision).

    Parameters
    ----------
    belief, message : (B, P, Q) complex
    variance, precision : (B,) float

    Returns
    -------
    mean (B, P, Q), precision (B,); the precision is kept above 1e-3 of the belief's.
    """
    g_b = 1 / variance
    g_c = namespace(belief).maximum(g_b - precision, g_b.dtype.type(CAVITY_FLOOR) * g_b)
    return belief * (g_b / g_c)[:, None, None] - message * (precision / g_c)[:, None, None], g_c


def rician(
    wave: Array, v0: Array, amplitude: Array, mask: Array, v: Array
) -> tuple[Array, Array, Array]:
    """Posterior of a detector wave with y = |z + w|, w ~ CN(0, 2v), cavity z ~ CN(z_c, v0).

    Given the phase theta of z + w the posterior is Gaussian, and theta - arg z_c is von Mises with
    concentration kappa = 2 y |z_c|/(v0 + 2v). With R = I1(kappa)/I0(kappa)

        E z   = z_c (v0 y R/|z_c| + 2v)/(v0 + 2v)
        Var z = 2 v0 v/(v0 + 2v) + (v0 y/(v0 + 2v))^2 (1 - R^2)

    Parameters
    ----------
    wave : (B, P, Q) complex; v0 : (B,); amplitude : (B, P, Q), negative values count as 0; mask :
    (1 or B, P, Q)
    v : (B,) or scalar

    Returns
    -------
    mean : (B, P, Q) complex; z_c where masked
    variance : (B,) float
        Mean over all pixels of Var z (v0 where masked).
    noise : (B,) float
        Sum over valid pixels of E|y e^{i theta} - z|^2/2, whose mean is the next estimate of v.
    """
    xp = namespace(wave)
    v0, v = v0[:, None, None], v[:, None, None] if getattr(v, "ndim", 0) else v
    y = xp.maximum(amplitude, 0)
    s = v0 + 2 * v
    r0 = xp.sqrt(abs2(wave))
    t = y / s
    kappa, top = 2 * t * r0, r0.dtype.type(KAPPA_MAX)
    k, beyond = xp.minimum(kappa, top), top / xp.maximum(kappa, top)
    ratio = _polynomial(BESSEL_A, k) / _polynomial(BESSEL_B, k) * beyond
    rest = _polynomial(BESSEL_C, k) / _polynomial(BESSEL_D, k) * beyond
    mean = wave * ((2 * v0 * y * t * ratio + 2 * v) / s)
    variance = 2 * v0 * v / s + (v0 * t) ** 2 * rest
    one_minus_r = rest / (1 + xp.minimum(ratio * kappa, 1))
    noise = (2 * v / s) ** 2 * ((y - r0) ** 2 + 2 * y * r0 * one_minus_r) + 2 * v0 * v / s
    return (
        xp.where(mask, mean, wave),
        xp.where(mask, variance, v0).mean(axis=(-2, -1)),
        xp.where(mask, noise / 2, 0).sum(axis=(-2, -1)),
    )


def laplace(
    wave: Array, v0: Array, amplitude: Array, mask: Array, v: Array
) -> tuple[Array, Array, Array]:
    """Laplace approximation of the same posterior, noise after the modulus: y = |z| + w, w ~ N(0,
    v).

        rho   = (v0 y + 2 v |z_c|)/(v0 + 2v),   E z = rho z_c/|z_c|
        Var z = v0 v/(v0 + 2v) + v0 rho/(2 |z_c|)          (Shastri & Schniter 2024)

    Same arguments and results as `rician`. Diverges as 1/|z_c|, which is cut at 1e-6 of sqrt(v0).
    """
    xp = namespace(wave)
    v0, v = v0[:, None, None], v[:, None, None] if getattr(v, "ndim", 0) else v
    s = v0 + 2 * v
    r0 = xp.maximum(xp.sqrt(abs2(wave)), wave.real.dtype.type(1e-6) * xp.sqrt(v0))
    rho = (v0 * xp.maximum(amplitude, 0) + 2 * v * r0) / s
    variance = v0 * v / s + v0 * rho / (2 * r0)
    noise = (xp.maximum(amplitude, 0) - rho) ** 2 + v0 * v / s
    return (
        xp.where(mask, wave * (rho / r0), wave),
        xp.where(mask, variance, v0).mean(axis=(-2, -1)),
        xp.where(mask, noise, 0).sum(axis=(-2, -1)),
    )


def damped_message(
    posterior: Array,
    variance: Array,
    cavity_mean: Array,
    g_c: Array,
    message: Array,
    precision: Array,
    damping: float,
) -> tuple[Array, Array, Array]:
    """Divide the cavity out of a posterior and damp the new message.

        g_n = 1/variance - g_c,   phi_n = (posterior/variance - g_c cavity)/g_n
        phi <- d phi_n + (1 - d) phi,   g^{-1/2} <- d g_n^{-1/2} + (1 - d) g^{-1/2}

    A frame whose data taught nothing (1/variance <= 1.0001 g_c) keeps its old message.

    Returns
    -------
    message (B, P, Q), precision (B,), skipped (B,) bool
    """
    xp = namespace(posterior)
    one = g_c.dtype.type(1)
    g_hat = 1 / xp.maximum(variance, one * VARIANCE_FLOOR / g_c)
    skipped = ~(g_hat > (one + one.dtype.type(EXTRINSIC_GAIN)) * g_c)
    g_n = xp.where(skipped, precision, g_hat - g_c)
    phi_n = (posterior * (g_hat / g_n)[:, None, None]) - cavity_mean * (g_c / g_n)[:, None, None]
    root = damping / xp.sqrt(g_n) + (1 - damping) / xp.sqrt(precision)
    new = damping * phi_n + (1 - damping) * message
    keep = skipped[:, None, None]
    return (
        xp.where(keep, message, new),
        xp.where(skipped, precision, (1 / root**2).astype(g_c.dtype)),
        skipped,
    )


def message_sums(
    precision: Array,
    natural: Array,
    probes: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
) -> None:
    """Lambda += sum_j g_j |P_j|^2 and eta += sum_j g_j P_j* phi_j, in place, each term at its
    window.

    Parameters
    ----------
    precision, natural : (H, W) float and complex
    probes : (U, P, Q) complex; index : (N,) int on the host, which one each frame has
    corners : (N, 2); g : (N,); messages : (N, P, Q)
    """
    for b in _blocks(len(corners)):
        P, weight = probes[index[b]], g[b][:, None, None]
        scatter_add(precision, corners[b], weight * abs2(P))
        scatter_add(natural, corners[b], weight * P.conj() * messages[b])


def probe_force(
    precision: Array,
    natural: Array,
    probes: Array,
    shifts: Array,
    index: Array,
    corners: Array,
    g: Array,
    messages: Array,
) -> tuple[Array, Array]:
    """What pulls the probe, sum_j S_j^-1 g_j [mu* (phi_j - mu P_j) - P_j/Lambda], and its weight.

    The weight is sum_j g_j (|mu|^2 + 1/Lambda); mu = eta/Lambda is the belief, S_j^-1 the shift
    back to the probe grid.

    Returns
    -------
    force (1, P, Q) complex, on the grid of the unshifted probe; weight (P, Q) float
    """
    xp = namespace(precision)
    shape = probes.shape[-2:]
    force, weight = xp.zeros((1, *shape), probes.dtype), xp.zeros(shape, precision.dtype)
    for b in _blocks(len(corners)):
        variance = 1 / gather(precision, corners[b], shape)
        mu = gather(natural, corners[b], shape) * variance
        P, gain = probes[index[b]], g[b][:, None, None]
        pull = gain * (mu.conj() * (messages[b] - mu * P) - variance * P)
        force += shift(pull[:, None], shifts[index[b]], -1).sum(axis=0)
        weight += (gain * (abs2(mu) + variance)).sum(axis=0)
    return force, weight


def quotient(num: Array, den: Array, old: Array) -> tuple[Array, Array]:
    """num/den, and how far that is from `old`: ||num/den - old||/||num/den||.

    Parameters
    ----------
    num, old : (H, W) complex; den : (H, W) float

    Returns
    -------
    (H, W) complex, 0-d float
    """
    new = num / den
    return new, namespace(new).sqrt(abs2(new - old).sum() / abs2(new).sum())


def _blocks(n: int, size: int = 16) -> list[slice]:
    """All n positions in slices of at most `size`: for sums in which the order does not matter."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def bernoulli_gauss(
    mean: Array, variance: Array, density: float, scale: float
) -> tuple[Array, Array, Array]:
    """Posterior of x with prior (1 - density) delta_0 + density CN(0, scale) and incoming message
    CN(mean, variance).

        log odds = log(density/(1-density)) + log(V/(V+S)) + |m|^2 (1/V - 1/(V+S))

    Returns
    -------
    mean, variance, probability of being non-zero; shapes as `mean`
    """
    xp = namespace(mean)
    gain = scale / (scale + variance)
    odds = (
        float(np.log(density / (1 - density)))
        + xp.log(variance / (variance + scale))
        + abs2(mean) * gain / variance
    )
    pi = 0.5 * (1 + xp.tanh(0.5 * odds))
    m1, v1 = mean * gain, variance * gain
    return pi * m1, pi * v1 + pi * (1 - pi) * abs2(m1), pi


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = x.dtype.type(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + x.dtype.type(c)
    return value
