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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import scipy.fft

from ..engines.difference_map import DifferenceMap
from ..engines.pie import EPIE, PIE, RPIE, full
from ..engines.ptycho_ep import PtychoEP
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
from ..model.problem import Problem
from ..types import Array, ComplexArray, FloatArray, PtychonError

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


@dataclass(frozen=True)
class Textbook:
    """A reconstruction that goes one pass further at each call of `sweep`.

    Attributes
    ----------
    object : (H, W) complex64
    probe : (P, Q) or (K, P, Q) complex64
        Both change in place; for expectation propagation `object` is brought up to date by each
        sweep.
    sweep : callable
        Returns the misfit, as the engine does: in each pass, or in every fifth if it costs an FFT
        (0 in the others).
    """

    object: ComplexArray
    probe: ComplexArray
    sweep: Callable[[], float]


def start(engine: Any, problem: Problem, object: ComplexArray, probe: ComplexArray) -> Textbook:
    """The textbook version of `engine`, with the hyper-parameters of `engine`, from a first object
    and probe.

    Parameters
    ----------
    engine : Engine
        "pie", "epie", "rpie", "dm" (beta 1, no bound) or "ep" (Rician, Gaussian prior, noise
        variance known). The probe moves from the first pass on if it moves at all.
    problem : Problem
        On the host: far field, whole-pixel positions, every detector pixel valid.
    object : (H, W) complex
    probe : (K, P, Q) complex

    Raises
    ------
    PtychonError
        If the textbook lacks what engine or problem ask for.
    """
    if problem.subpixel or problem.propagator.transfer is not None or not problem.mask.all():
        raise PtychonError(
            "the textbook code knows whole-pixel far-field scans without masked pixels only"
        )
    engine = full(engine)
    O, P = object.astype(np.complex64), probe.astype(np.complex64)
    P = P[0] if len(P) == 1 else P
    scan = problem.corners, problem.amplitude
    if isinstance(engine, PIE):
        return Textbook(
            O, P, partial(pie, O, P, *scan, step=engine.object_step, reg=engine.object_reg)
        )
    if isinstance(engine, EPIE | RPIE):
        sweep = partial(epie if isinstance(engine, EPIE) else rpie, O, P, *scan)
        options = {"step": engine.object_step, "probe_step": engine.probe_step}
        if isinstance(engine, RPIE):
            options |= {"reg": engine.object_reg, "probe_reg": engine.probe_reg}
        return Textbook(O, P, partial(sweep, **options))
    if (
        isinstance(engine, DifferenceMap)
        and engine.beta == 1
        and engine.overlap_passes == 1
        and not engine.power_bound
    ):
        return _difference_map(engine, scan, O, P)
    if (
        isinstance(engine, PtychoEP)
        and P.ndim == 2
        and engine.prior == "gaussian"
        and not engine.learns(problem)
    ):
        return _expectation_propagation(engine, problem, O, P)
    raise PtychonError(f"the textbook code has no {engine.name!r} with these options")


def _difference_map(engine: Any, data: tuple[Array, FloatArray], O: Array, P: Array) -> Textbook:
    corners, amplitude = data
    waves = np.empty((len(corners), *P.shape), np.complex64)
    for j, window in enumerate(windows(O, corners, P.shape)):
        psi = P * window
        waves[j] = psi + modulus_change(psi, amplitude[j])[0]
    inertia = {"inertia": engine.object_inertia, "probe_inertia": engine.probe_inertia}
    measure = _every(engine.residual_every)
    return Textbook(
        O, P, lambda: dm(waves, O, P, corners, amplitude, measure=next(measure), **inertia)
    )


def _every(n: int) -> Iterator[bool]:
    """True at the first and every n-th call."""
    return (i % n == 0 for i in count())


def _expectation_propagation(engine: Any, problem: Problem, O: Array, P: Array) -> Textbook:
    corners, offset = problem.corners, np.float32(engine.offset(problem))
    y = np.sqrt(problem.amplitude**2 + offset) if offset else problem.amplitude
    v = float(engine.noise(problem).variance or 0)
    light = np.zeros(O.shape, np.float32)
    for window in windows(light, corners, P.shape):
        window += abs2(P)
    prior = 1 / (
        engine.object_variance or max(1.0, float((light * np.abs(O) ** 2).sum() / light.sum()))
    )
    messages = np.stack([P * window for window in windows(O, corners, P.shape)])
    g = np.full(len(corners), 1 / (y**2).mean(dtype=np.float64), np.float32)
    precision, natural = np.empty(O.shape, np.float32), np.empty_like(O)
    belief = precision, natural, messages, g, P, corners
    ep_sums(*belief, prior)

    measure = _every(engine.residual_every)

    def sweep() -> float:
        total = ep(*belief, y, v, engine.weight, next(measure))
        for _ in range(engine.probe_updates):
            ep_probe(*belief)
        if engine.probe_updates:
            ep_sums(*belief, prior)
        np.divide(natural, precision, out=O)
        return total

    return Textbook(O, P, sweep)
