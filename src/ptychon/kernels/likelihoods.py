"""What one detector pixel says of its wave, when what is known without it is CN(z_c, v0): kernel
`site_moments`.

By symmetry the posterior mean is rho along z_c, and the posterior variance has one value along z_c
and one across:

    E z = rho z_c/|z_c|,   Var across = v0 rho/(2 |z_c|),   Var along = (v0/2) d rho/d|z_c| = E|z|^2
                                                            - rho^2 - Var across

(derivatives of the log evidence in z_c; real variances of one component; K modes have one direction
along and 2K - 1 across).

    "rician"   y = |z + w|, w ~ CN(0, 2v): with kappa = 2 y |z_c|/(v0 + 2v) and A =
               I_K(kappa)/I_{K-1}(kappa),
               rho = (v0 y A + 2 v |z_c|)/(v0 + 2v),  Var along = v0 v/(v0 + 2v) + (v0 y/(v0 +
               2v))^2 dA/dkappa
    "normal"   y = max(|z| + w, 0), w ~ N(0, v) real: by quadrature over r = |z|, whose density
               without the data is
               r^K I_{K-1}(2 r |z_c|/v0) exp(-(r^2 + |z_c|^2)/v0); of r, I_K/I_{K-1} lies along z_c
    "counts"   n ~ Poisson(|z|^2): with x = |z_c|^2/(v0 (1 + v0)) and the Laguerre ratio q_n =
               L_{n+1}(-x)/L_n(-x), L_n of the
               order K - 1,  rho = |z_c| [(n + 1) q_n - n - K]/(x (1 + v0)),  E|z|^2 = (n + 1) q_n
               v0/(1 + v0); above 16 counts "rician" with y^2 = n + 3/8 + (K - 1)/2, v = 1/4
               (Anscombe 1948; w has K components there)
    "shifted"  N ~ Poisson(|z|^2 + B), N real, any number of modes: by quadrature over r = |z|. With
    a = 1 + 1/v0 and
               x = 2 r |z_c|/v0,

               p(r) ~ r^K I_{K-1}(x) exp(-a r^2) (r^2 + B)^N,
               Var across = E r^2 A(x)/x,   rho = 2 |z_c| (Var across)/v0

               For N < 0, which read noise makes of a dark pixel, exp(N r^2/B) stands for (r^2 +
               B)^N: the same slope at r = 0, so that the mean of the score stays 0 there, and p(z)
               stays Gaussian.

log p as a function of r^2 is concave for N >= 0, so there is one mode; it is found from below by
Newton's method.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Array
from .reference import abs2, namespace

__all__ = ["site_moments"]

#: Least precision of a cavity, relative to the belief's.
CAVITY_SHARE = 0.02
#: Counts up to which the recursion is used, and Anscombe's constant and variance above.
FEW_COUNTS, ANSCOMBE, ROOT_VARIANCE = 16, 3 / 8, 1 / 4
#: Gauss-Legendre nodes over what can be seen of |z|: 16 reach 1e-4 of the mean and the variances.
NODES, WEIGHTS = (tuple(float(x) for x in part) for part in np.polynomial.legendre.leggauss(16))
#: Half the width of that range in standard deviations; brighter than this many, nothing of the edge
#: at |z| = 0 is seen.
RANGE, BRIGHT = 4.5, 12.0
#: Steps of Newton's method to the mode of "shifted", and of the search for where log p has fallen
#: by `FALL` on either side.
NEWTON, ENDS, FALL = 4, 2, 11.0
#: The range begins at 0 where the parabola's half width exceeds this share of the mode.
NEAR_ZERO = 0.7
#: Concentration beyond which dA/dkappa is its asymptote.
CONCENTRATED = 12.0
#: Argument beyond which I1/I0 is its asymptotic series in 1/x.
ASYMPTOTIC, SERIES = 20.0, (1.0, -0.5, -0.125, -0.125, -25 / 128, -13 / 32)
PI = 3.141592653589793
#: exp(t^2) erfc(t) in powers of 1/(1 + 0.3275911 t), to 1e-6 where it is used.
ERFCX = (0.0, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
#: I0(x) for x < 3.75 and sqrt(x) exp(-x) I0(x) beyond (Abramowitz & Stegun 9.8.1 and 9.8.2, to
#: 2e-7).
I0_SMALL = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
I0_LARGE = (
    *(0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281),
    *(-0.02057706, 0.02635537, -0.01647633, 0.00392377),
)


def site_moments(
    wave: Array,
    natural: Array,
    index: Array,
    table: Array,
    data: Array,
    v: Any,
    kind: str,
    background: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Take each pixel's own message out of the belief of its wave, and put its likelihood in.

    Parameters
    ----------
    wave : (B, K, P, Q) complex64
        Mean of the belief of the detector wave.
    natural : (B, K, P, Q) complex64
        The pixel's message, as precision times mean.
    index : (B, P, Q) uint8 or uint16
        Class of each pixel; the last class is that of masked pixels.
    table : (2, C) float32
        Per class the belief's variance E|z - wave|^2 of one mode, and the message's precision.
    data : (B, P, Q) float32
        sqrt(pattern); for "shifted" N.
    v : (B,) or 0-d float
        Variance of the amplitude noise, of each frame or of all; "counts" and "shifted" have their
        own.
    kind : {"rician", "normal", "counts", "shifted"}
    background : (1 or B, P, Q) float32, optional
        B of "shifted".

    Returns
    -------
    ratio : (B, P, Q) float32
        E z = ratio z_c with z_c = (wave/V - natural)/g_c, g_c = max(1/V - g, 0.02/V); 1 where
        masked.
    sums : (4, C) float64
        Per class the number of pixels and the sums of Var along, Var across, and E w^2 = E(y -
        |z|)^2 (for "rician" E|y e^{i theta} - z|^2/2; v for "counts" and "shifted").
    noise : (B,) float64
        The last of these sums by frames, over valid pixels.
    """
    xp = namespace(wave)
    K, C = wave.shape[1], table.shape[1]
    V, g = (t.astype("float64")[index] for t in table)
    g_c = xp.maximum(1 / V - g, CAVITY_SHARE / V)
    z_c = (wave.astype("complex128") / V[:, None] - natural) / g_c[:, None]
    r0, v0, v = xp.sqrt(abs2(z_c).sum(axis=1)), 1 / g_c, xp.asarray(v, "float64").reshape(-1, 1, 1)
    a = data.astype("float64")
    if kind == "shifted":
        rho, along, across, noise = _shifted(xp, r0, a, v0, background.astype("float64"), K)  # type: ignore[union-attr]
    elif kind == "counts":
        rho, along, across, noise = _counts(xp, r0, xp.rint(a * a), v0, K)
    elif kind == "normal":
        rho, along, across, noise = _normal(xp, r0, a, v0, v, K)
    else:
        rho, along, across, noise = _rician(xp, r0, a, v0, v, K)
    masked = index == C - 1
    ratio = xp.where(masked, 1, rho / xp.maximum(r0, 1e-30))
    columns = [xp.ones_like(r0), along, across, noise]
    sums = xp.stack(
        [xp.bincount(index.reshape(-1), weights=c.reshape(-1), minlength=C) for c in columns]
    )
    return ratio.astype("float32"), sums, xp.where(masked, 0, noise).sum(axis=(1, 2))


def bessel_quotient(xp: Any, kappa: Array, order: int) -> Array:
    """I_n(kappa)/I_{n-1}(kappa) for n = `order`, to 1e-6: the continued fraction from an accurate
    bound for a high order down; beyond a concentration of 20 the asymptotic series of the first
    order, and recurrence upwards.
    """
    m = order + 12
    ratio = kappa / (m - 0.5 + xp.sqrt((m + 0.5) ** 2 + kappa**2))
    for n in range(m - 1, order - 1, -1):
        ratio = kappa / (2 * n + kappa * ratio)
    t = 1 / xp.maximum(kappa, ASYMPTOTIC)
    large = _horner(SERIES, t)
    for n in range(1, order):
        large = 1 / large - 2 * n * t
    return xp.where(kappa > ASYMPTOTIC, large, ratio)


def _rician(
    xp: Any, r0: Array, y: Array, v0: Array, v: Any, K: int
) -> tuple[Array, Array, Array, Array]:
    y = xp.maximum(y, 0)
    s = v0 + 2 * v
    kappa = xp.maximum(2 * y * r0 / s, 1e-12)
    A = bessel_quotient(xp, kappa, K)
    slope = 1 - A * A - (2 * K - 1) * A / kappa
    slope = xp.where(kappa > CONCENTRATED * K, (2 * K - 1) / (2 * kappa**2), slope)
    rho, base, square = (v0 * y * A + 2 * v * r0) / s, v0 * v / s, (v0 * y / s) ** 2
    total = 2 * K * base + square * (slope + (2 * K - 1) * A / kappa)
    noise = 0.5 * (y * y - 2 * y * (v0 * y + 2 * v * r0 * A) / s + total + rho * rho)
    return rho, base + square * slope, base + square * A / kappa, noise


def _normal(
    xp: Any, r0: Array, y: Array, v0: Array, v: Any, K: int
) -> tuple[Array, Array, Array, Array]:
    deviation = xp.sqrt(v0 * v / (v0 + 2 * v))
    peak = (v0 * y + 2 * v * r0) / (v0 + 2 * v)
    low = xp.maximum(peak - RANGE * deviation, 0)
    # r^(2K - 1) moves what counts upwards where the peak is near zero
    width = xp.maximum(peak, 0) + (RANGE + 0.5 * (K - 1)) * deviation - low
    beta = 2 * r0 / v0
    total, first, second, distance = (xp.zeros_like(r0) for _ in range(4))
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        r = low + width * (0.5 + 0.5 * node)
        # relative to the value at the peak, and at zero where the peak is below
        log = 0.5 * (xp.minimum(peak, 0) ** 2 - (r - peak) ** 2) / deviation**2
        x = xp.maximum(beta * r, 1e-12)
        p = weight * r**K * xp.exp(log) * _i0e(xp, x)
        for order in range(1, K):
            p = p * bessel_quotient(xp, x, order)
        # an amplitude of 0 was 0 or anything below: erfc(t) in place of exp(-t^2), t = r/(2v)^1/2
        # (Abramowitz & Stegun 7.1.26), and E w^2 of all w < -r in place of r^2
        tail = _horner(ERFCX, 1 / (1 + 0.3275911 * r / (2 * v) ** 0.5))
        p = xp.where(y > 0, p, p * tail)
        square = xp.where(y > 0, (y - r) ** 2, v + r * (2 * v / PI) ** 0.5 / tail)
        total += p
        first += p * r * bessel_quotient(xp, x, K)
        second += p * r * r
        distance += p * square
    rho, power = first / total, second / total
    across = xp.where(
        r0 > 1e-6 * xp.sqrt(v0), 0.5 * v0 * rho / xp.maximum(r0, 1e-30), 0.5 * power / K
    )
    return (
        rho,
        xp.maximum(power - rho**2 - (2 * K - 1) * across, 1e-6 * v0),
        across,
        distance / total,
    )


def _i0e(xp: Any, x: Array) -> Array:
    t = xp.minimum(x / 3.75, 1) ** 2
    u = 3.75 / xp.maximum(x, 3.75)
    large = _horner(I0_LARGE, u) / xp.sqrt(xp.maximum(x, 3.75))
    return xp.where(x < 3.75, _horner(I0_SMALL, t) * xp.exp(-xp.minimum(x, 3.75)), large)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    value = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def _counts(xp: Any, r0: Array, n: Array, v0: Array, K: int) -> tuple[Array, Array, Array, Array]:
    rho, along, across, _ = _rician(
        xp, r0, xp.sqrt(n + ANSCOMBE + 0.5 * (K - 1)), v0, ROOT_VARIANCE, K
    )
    noise = xp.full_like(r0, ROOT_VARIANCE)
    x = xp.maximum(r0 * r0 / (v0 * (1 + v0)), 1e-8)
    q = K + x
    found = xp.array(q)
    for m in range(1, FEW_COUNTS + 1):
        q = (2 * m + K + x - (m + K - 1) / q) / (m + 1)
        found = xp.where(n == m, q, found)
    gain, power = ((n + 1) * found - n - K) / (x * (1 + v0)), (n + 1) * found * v0 / (1 + v0)
    few = n <= FEW_COUNTS
    sideways = 0.5 * v0 * gain
    forward = xp.maximum(power - (gain * r0) ** 2 - (2 * K - 1) * sideways, 1e-6 * v0)
    return (
        xp.where(few, gain * r0, rho),
        xp.where(few, forward, along),
        xp.where(few, sideways, across),
        noise,
    )


def _mode(xp: Any, r0: Array, N: Array, v0: Array, B: Array, K: int) -> Array:
    """Square of the mode of p(r) of "shifted", nearly: the zero of the convex, falling function

    (2K - 1)/u + (2 r0/v0)^2 A(x)/x + 2N/(u + B) - 2a,
    A(x)/x >= 1/(K - 1/2 + sqrt((K + 1/2)^2 + x^2))   (Amos 1974)
    """
    a, beta2, c = 1 + 1 / v0, (2 * r0 / v0) ** 2, 2 * K - 1.0
    # two lower bounds: without the prior's wave, and without the counts
    q = c + 2 * N - 2 * a * B
    root = xp.sqrt(q * q + 8 * a * c * B)
    u = xp.where(q > 0, (q + root) / (4 * a), 2 * c * B / xp.maximum(root - q, 1e-300))
    u = xp.maximum(u, xp.maximum(c / (2 * a), (r0 / (a * v0)) ** 2))
    # a better one: brighter waves are x - (2K - 1)/2 of x A
    n = N * u / (u + B)
    u = xp.maximum(
        u, ((xp.sqrt(beta2) + xp.sqrt(beta2 + 8 * a * (K - 0.5 + 2 * n))) / (4 * a)) ** 2
    )
    for _ in range(NEWTON):
        s = xp.sqrt((K + 0.5) ** 2 + beta2 * u)
        w = 1 / (K - 0.5 + s)
        value = c / u + beta2 * w + 2 * N / (u + B) - 2 * a
        slope = c / u**2 + 0.5 * beta2 * beta2 * w * w / s + 2 * N / (u + B) ** 2
        u = xp.maximum(u + value / slope, 0.1 * u)
    return u


def _log_density(
    xp: Any, r: Array, r0: Array, N: Array, v0: Array, B: Array, K: int
) -> tuple[Array, Array]:
    """log p(r) of "shifted" but for a constant, and A(x)/x."""
    x, u = 2 * r0 * r / v0, r * r
    first = xp.maximum(x, 1e-12)
    q = bessel_quotient(xp, first, K) / first
    log = (2 * K - 1) * xp.log(r) + xp.log(_i0e(xp, x)) - (r - r0) ** 2 / v0 - u + N * xp.log(u + B)
    other = q
    for n in range(K - 1, 0, -1):
        other = 1 / (2 * n + x * x * other)
        log = log + xp.log(other)
    return log, q


def _shifted(
    xp: Any, r0: Array, N: Array, v0: Array, B: Array, K: int
) -> tuple[Array, Array, Array, Array]:
    B = xp.maximum(B, 1e-6)
    n = xp.maximum(N, 0)
    u = _mode(xp, r0, n, v0, B, K)
    peak = xp.sqrt(u)
    top, q = _log_density(xp, peak, r0, n, v0, B, K)
    # curvature in r, then where log p has fallen by FALL: parabolas through the peak
    bend = (2 * K - 1) / u + (2 * r0 / v0) ** 2 * ((2 * K) * q - 1 + 4 * (r0 / v0) ** 2 * u * q * q)
    bend = xp.maximum(bend + 2 * (1 + 1 / v0) - 2 * n * (B - u) / (u + B) ** 2, 1 + 1 / v0)
    ends, wide = [], xp.sqrt(2 * FALL / bend)
    for side in (-1, 1):
        reach = wide
        for _ in range(ENDS):
            r = xp.maximum(peak + side * reach, 1e-3 * peak)
            fallen = xp.maximum(top - _log_density(xp, r, r0, n, v0, B, K)[0], 0.1)
            reach = xp.minimum(reach * xp.sqrt(FALL / fallen), 3 * reach)
        ends.append(xp.maximum(peak + side * reach, 0))
    # towards 0 a parabola tells little
    low = xp.where(wide < NEAR_ZERO * peak, ends[0], 0)
    width = ends[1] - low
    total, across, power = (xp.zeros_like(r0) for _ in range(3))
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        r = low + width * (0.5 + 0.5 * node)
        log, q = _log_density(xp, r, r0, n, v0, B, K)
        p = weight * xp.exp(log - top)
        total += p
        power += p * r * r
        across += p * r * r * q
    across, power = across / total, power / total
    # a negative N: Gaussian
    narrow = 1 / (1 / v0 + 1 + xp.maximum(-N, 0) / B)
    below = N < 0
    across = xp.where(below, 0.5 * narrow, across)
    rho = 2 * r0 * across / v0
    along = xp.where(below, across, xp.maximum(power - rho**2 - (2 * K - 1) * across, 1e-6 * v0))
    return rho, along, across, xp.full_like(r0, ROOT_VARIANCE)
