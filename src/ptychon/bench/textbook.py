r"""The five algorithms as a competent programmer writes them in NumPy, for comparison: one pass
each, in place.

Windows are slices (no `ufunc.at`, no index arrays), everything stays in complex64 and float32, what
does not change during a pass is computed before it, and each position takes two calls of scipy.fft,
the fastest transform NumPy users have. What is missing is what the package adds: sub-pixel
positions, masks, near field, cooling, restarts. Formulas are those of the engines, and so is what
they measure on the way.

Shapes: object (H, W), probe (P, Q) or (K, P, Q) modes, corners (N, 2), amplitude (N, P, Q), waves
(N, [K,] P, Q).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.fft

from ..kernels.reference import (
    BESSEL_A,
    BESSEL_B,
    BESSEL_C,
    BESSEL_D,
    CAVITY_FLOOR,
    EXTRINSIC_GAIN,
    KAPPA_MAX,
    VARIANCE_FLOOR,
)
from ..types import Array

#: Moduli below this are zero.
TINY = np.float32(1e-18)
#: Least denominator of the probe update of expectation propagation, relative to its maximum.
PROBE_RIDGE = np.float32(1e-2)


def fft2(a: Array) -> Any:
    """Orthonormal 2-D FFT over the last two axes, one thread."""
    return scipy.fft.fft2(a, norm="ortho")


def ifft2(a: Array) -> Any:
    """Inverse of `fft2`."""
    return scipy.fft.ifft2(a, norm="ortho")


def abs2(x: Array) -> Any:
    """|x|^2, real."""
    return x.real**2 + x.imag**2


def over_modes(x: Array) -> Any:
    """The sum over modes of (K, P, Q); (P, Q) is one mode already."""
    return x if x.ndim == 2 else x.sum(axis=0)


def modulus_change(psi: Array, y: Array) -> tuple[Array, float]:
    """F^-1[y F psi/|F psi|] - psi, and sum (|F psi| - y)^2."""
    wave = fft2(psi)
    modulus = np.abs(wave) if wave.ndim == 2 else np.sqrt(over_modes(abs2(wave)))
    wrong = y - modulus
    wave *= y / np.maximum(modulus, TINY)
    return ifft2(wave) - psi, float((wrong * wrong).sum())


def windows(field: Array, corners: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Views of `field` at each position."""
    p, q = shape[-2:]
    for y, x in corners.tolist():
        yield field[y : y + p, x : x + q]


def pie(
    O: Array, P: Array, corners: Array, amplitude: Array, *, step: float = 1.0, reg: float = 0.1
) -> float:
    """Object with the probe known (Rodenburg & Faulkner 2004); returns the misfit, each frame
    before its update.
    """
    p2 = over_modes(abs2(P))
    weight = (
        np.float32(step) * np.sqrt(p2 / p2.max()) / (p2 + np.float32(reg) * p2.max()) * P.conj()
    )
    total = 0.0
    for window, y in zip(windows(O, corners, P.shape), amplitude, strict=True):
        change, error = modulus_change(P * window, y)
        window += over_modes(weight * change)
        total += error
    return total


def epie(
    O: Array,
    P: Array,
    corners: Array,
    amplitude: Array,
    *,
    step: float = 1.0,
    probe_step: float = 1.0,
) -> float:
    """Object and probe (Maiden & Rodenburg 2009)."""
    total = 0.0
    for window, y in zip(windows(O, corners, P.shape), amplitude, strict=True):
        change, error = modulus_change(P * window, y)
        update = np.float32(probe_step) / abs2(window).max() * window.conj() * change
        window += np.float32(step) / over_modes(abs2(P)).max() * over_modes(P.conj() * change)
        P += update
        total += error
    return total


def rpie(
    O: Array,
    P: Array,
    corners: Array,
    amplitude: Array,
    *,
    step: float = 1.0,
    probe_step: float = 1.0,
    reg: float = 0.25,
    probe_reg: float = 0.5,
) -> float:
    """Object and probe, regularised (Maiden, Johnson & Li 2017)."""
    a, b = np.float32(reg), np.float32(probe_reg)
    total = 0.0
    for window, y in zip(windows(O, corners, P.shape), amplitude, strict=True):
        change, error = modulus_change(P * window, y)
        p2, o2 = over_modes(abs2(P)), abs2(window)
        update = np.float32(probe_step) / ((1 - b) * o2 + b * o2.max()) * window.conj() * change
        window += np.float32(step) / ((1 - a) * p2 + a * p2.max()) * over_modes(P.conj() * change)
        P += update
        total += error
    return total


def misfit(psi: Array, y: Array) -> float:
    """sum (|F psi| - y)^2."""
    wave = fft2(psi)
    wrong = y - (np.abs(wave) if wave.ndim == 2 else np.sqrt(over_modes(abs2(wave))))
    return float((wrong * wrong).sum())


def dm(
    waves: Array,
    O: Array,
    P: Array,
    corners: Array,
    amplitude: Array,
    *,
    inertia: float = 1e-3,
    probe_inertia: float = 1e-3,
    measure: bool = False,
) -> float:
    """Difference map, beta = 1, one object and one probe update (Thibault et al. 2009); the misfit
    of P O if asked.
    """
    num, den = np.zeros_like(O), np.zeros(O.shape, np.float32)
    conjugate, p2 = P.conj(), over_modes(abs2(P))
    shape = P.shape
    for n, d, psi in zip(
        windows(num, corners, shape), windows(den, corners, shape), waves, strict=True
    ):
        n += over_modes(conjugate * psi)
        d += p2
    extra = np.float32(inertia) * den.max()
    O[:] = np.where(den > 1e-10 * den.max(), (num + extra * O) / (den + extra), O)

    num, den = np.zeros_like(P), np.zeros(shape[-2:], np.float32)
    for window, psi in zip(windows(O, corners, shape), waves, strict=True):
        num += window.conj() * psi
        den += abs2(window)
    share = np.float32(probe_inertia)
    P += (num - den * P) / ((1 - share) * den + share * den.max())

    total = 0.0
    for window, psi, y in zip(windows(O, corners, shape), waves, amplitude, strict=True):
        estimate = P * window
        if measure:
            total += misfit(estimate, y)
        reflected = 2 * estimate - psi
        psi[...] = estimate + modulus_change(reflected, y)[0]
    return total


def ep(
    precision: Array,
    natural: Array,
    messages: Array,
    g: Array,
    P: Array,
    corners: Array,
    y: Array,
    v: float,
    damping: float,
    measure: bool = False,
) -> float:
    """Ptycho-EP in natural parameters, Rician (Ueda, Katakami & Okada 2025); the misfit of the
    belief if asked.
    """
    p2, conjugate, d, total = abs2(P), P.conj(), np.float32(damping), 0.0
    beliefs = zip(
        windows(precision, corners, P.shape), windows(natural, corners, P.shape), strict=True
    )
    for j, (Lambda, eta) in enumerate(beliefs):
        phi = messages[j]
        g_b = 1 / (p2 / Lambda).mean()
        g_c = max(g_b - g[j], np.float32(CAVITY_FLOOR) * g_b)
        belief = P * (eta / Lambda)
        if measure:
            total += misfit(belief, y[j])
        psi = (g_b / g_c) * belief - (g[j] / g_c) * phi
        wave, variance = rician(fft2(psi), 1 / g_c, y[j], np.float32(v))
        g_hat = 1 / max(variance, np.float32(VARIANCE_FLOOR) / g_c)
        if not g_hat > np.float32(1 + EXTRINSIC_GAIN) * g_c:
            continue  # the data taught nothing
        g_n = g_hat - g_c
        new = (d * g_hat / g_n) * ifft2(wave) - (d * g_c / g_n) * psi + (1 - d) * phi
        g_new = 1 / (d / np.sqrt(g_n) + (1 - d) / np.sqrt(g[j])) ** 2
        eta += conjugate * (g_new * new - g[j] * phi)
        Lambda += (g_new - g[j]) * p2
        messages[j], g[j] = new, g_new
    return total


def rician(wave: Array, v0: Any, y: Array, v: Any) -> tuple[Array, Any]:
    """Mean of each detector pixel, in place, and the mean variance, of p(y | z) CN(z; wave, v0)."""
    s = v0 + 2 * v
    r0 = np.abs(wave)
    t = y * (1 / s)
    whole = 2 * t * r0
    kappa = np.minimum(whole, np.float32(KAPPA_MAX))
    ratio = polynomial(BESSEL_A, kappa) / polynomial(BESSEL_B, kappa)
    rest = polynomial(BESSEL_C, kappa) / polynomial(BESSEL_D, kappa)
    if whole.max() > KAPPA_MAX:  # bright pixels; there both fall as 1/kappa
        beyond = kappa / np.maximum(whole, np.float32(KAPPA_MAX))
        beyond[whole <= KAPPA_MAX] = 1
        ratio *= beyond
        rest *= beyond
    wave *= (2 * v0 / s) * y * t * ratio + 2 * v / s
    return wave, 2 * v0 * v / s + v0 * v0 * (t * t * rest).mean()


def polynomial(coefficients: tuple[float, ...], x: Array) -> Any:
    """Horner's rule in the precision of `x`, one temporary."""
    value = np.float32(coefficients[-1]) * x
    for c in coefficients[-2:0:-1]:
        value += np.float32(c)
        value *= x
    value += np.float32(coefficients[0])
    return value


def ep_sums(
    precision: Array,
    natural: Array,
    messages: Array,
    g: Array,
    P: Array,
    corners: Array,
    prior: float,
) -> None:
    """Lambda = prior + sum_j g_j |P|^2 and eta = sum_j g_j P* phi_j, in place."""
    precision[:], natural[:] = prior, 0
    p2, conjugate = abs2(P), P.conj()
    beliefs = zip(
        windows(precision, corners, P.shape), windows(natural, corners, P.shape), strict=True
    )
    for (Lambda, eta), gain, phi in zip(beliefs, g, messages, strict=True):
        Lambda += gain * p2
        eta += (gain * conjugate) * phi


def ep_probe(
    precision: Array, natural: Array, messages: Array, g: Array, P: Array, corners: Array
) -> None:
    """One EM update of the probe, sum_j g_j mu_j* phi_j over sum_j g_j (|mu_j|^2 + 1/Lambda)."""
    num, den = np.zeros_like(P), np.zeros(P.shape, np.float32)
    variance = 1 / precision
    mean = natural * variance
    power = abs2(mean) + variance
    terms = zip(
        windows(mean, corners, P.shape), windows(power, corners, P.shape), g, messages, strict=True
    )
    for mu, p, gain, phi in terms:
        num += (gain * mu.conj()) * phi
        den += gain * p
    P += (num - den * P) / np.maximum(den, PROBE_RIDGE * den.max())
