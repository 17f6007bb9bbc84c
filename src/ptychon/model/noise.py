"""What the noise of a detector pixel says of the modulus m = |z| of its wave.

    amplitude   y = m + w, w ~ N(0, v); counts n as y = sqrt(n + 3/8), v = 1/4 (Anscombe, Biometrika
                35, 246 (1948))
                -log p = (m - y)^2/(2 v),                   Fisher information of m: 1/v
    poisson     n ~ Poisson(m^2 + b), b counts of background
                -log p = m^2 + b - n log(m^2 + b),          Fisher information of m: 4 m^2/(m^2 + b)
                with read noise r the same of n + r^2 and b + r^2 (Snyder et al., J. Opt. Soc. Am. A
                10, 1014 (1993))

Both are about m alone: the information of the phase of z is 0, and the other pixels have to supply
it. Averages over an uncertain wave z' ~ CN(z, V) are in closed form, with s = m^2/V:

    E|z'| = R = sqrt(pi V)/2 exp(-s/2) ((1 + s) I0(s/2) + s I1(s/2)),   E log|z'|^2 = log m^2 +
                                                                        E1(s)

    curvature of E (y - |z'|)^2/(2 v) for y = R:  (1 - R R'')/v along z and (1 - R R'/m)/v across

The last serves counts as well, with i(m) in place of 1/v: it is that of their square root.
With a background E log(|z'|^2 + b) is taken as that of m^2 + b, which is right where b or V is
small.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import exp1, gammaln, i0e, i1e

from ..kernels.reference import namespace
from ..types import REAL, Array, FloatArray, PtychonError
from .noise_moments import COUNT_VARIANCE, cumulants
from .problem import Problem

#: Anscombe's constant.
ANSCOMBE = 3 / 8
#: Counts added to data and model of the Poisson likelihood, whose pull n/m on an empty model would
#: be infinite.
SOFT = 0.1
#: m^2/V from which on exp(-m^2/V) is nothing.
FAR = 36.0


@dataclass(frozen=True)
class Noise:
    """A noise model.

    Parameters
    ----------
    kind : {"amplitude", "poisson"}
    variance : float
        v of "amplitude", in counts.
    offset : float
        y = sqrt(amplitude^2 + offset).
    background : float or (1, P, Q) float array
        b of "poisson", counts a pixel; the square of the read noise included.
    read_noise : float
        r that is in it.

    Where data are asked for as an amplitude a, the count is a |a|: counts less than nothing, which
    read noise makes, have a negative root (see `root`).
    """

    kind: str = "amplitude"
    variance: float = COUNT_VARIANCE
    offset: float = 0.0
    background: Any = 0.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("amplitude", "poisson"):
            raise PtychonError(
                f"the noise model is {self.kind!r}; it must be 'amplitude' or 'poisson'"
            )
        if not (np.isfinite(self.variance) and self.variance > 0):
            raise PtychonError(
                f"the variance of the amplitude noise is {self.variance}; it must be positive"
            )
        if not (np.isfinite(self.background) & (np.asarray(self.background) >= 0)).all():
            raise PtychonError(
                f"the background is {self.background} counts a pixel; it must not be negative"
            )

    @property
    def soft(self) -> Any:
        """Background in the likelihood, the softening included."""
        return np.maximum(self.background, SOFT)

    def describe(self) -> str:
        """In words."""
        if self.kind == "amplitude":
            return f"Gaussian noise of the amplitude, variance {self.variance:.4g}"
        mean = float(np.mean(self.background)) - self.read_noise**2
        parts = (
            [f"a background of {mean:.4g} counts a pixel"]
            if mean > 1e-6 * (1 + self.read_noise**2)
            else []
        )
        parts += [f"a read noise of {self.read_noise:.4g} counts"] if self.read_noise else []
        return f"Poisson noise{' with ' if parts else ''}{' and '.join(parts)}"

    def root(self, problem: Problem, b: slice) -> Array:
        """The data of a block of frames as the methods take them, (B, P, Q), where
        the problem is.
        """
        if self.kind == "amplitude" or problem.counts is None:
            return problem.amplitude[b]
        counts = problem.counts[b]
        xp = namespace(counts)
        return xp.sign(counts) * xp.sqrt(abs(counts))

    def information(self, modulus: Array) -> Array:
        """Fisher information of the modulus, as `modulus` (float)."""
        if self.kind == "amplitude" or not np.any(self.background):
            return modulus * 0 + modulus.dtype.type(
                4.0 if self.kind == "poisson" else 1 / self.variance
            )
        power = modulus**2
        return 4 * power / (power + namespace(modulus).asarray(self.background, modulus.dtype))

    def averaged_information(
        self, modulus: FloatArray, spread: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Curvature of -log p along and across the wave, averaged over z' ~ CN(z, V) and the data
        expected of it.

        Parameters
        ----------
        modulus : (B, P, Q) float
        spread : (B,) float, V

        Returns
        -------
        (along, across) : (B, P, Q) float32 each, not negative, across <= along
        """
        s = modulus.astype(np.float64) ** 2 / spread[:, None, None]
        a, b = i0e(s / 2), i1e(s / 2)
        mean, full = np.pi / 4 * ((1 + s) * a + s * b), self.information(modulus)
        along, across = (
            np.asarray(full * np.clip(1 - mean * x, 0, 1), REAL) for x in (a - b, a + b)
        )
        return along, across

    def pull(
        self, modulus: FloatArray, amplitude: FloatArray, spread: FloatArray | None
    ) -> FloatArray:
        """Derivative by m of -log p, averaged over z' ~ CN(z, V) where `spread` V is given.

        Parameters
        ----------
        modulus, amplitude : (B, P, Q) float, m and the root of the measured counts or intensity
        spread : (B,) float or None

        Returns
        -------
        (B, P, Q) float32
        """
        m, a = modulus.astype(np.float64), amplitude.astype(np.float64)
        if self.kind == "amplitude":
            y = self.measured(a)
            return np.asarray(
                (m - (y if spread is None else y * _resultant(m, spread))) / self.variance, REAL
            )
        if spread is None:
            return np.asarray(2 * m * (1 - (a * abs(a) + self.extra) / (m**2 + self.soft)), REAL)
        mean = m**2 + self.background
        s = mean / spread[:, None, None]
        return np.asarray(2 * m * (1 - a * abs(a) * _damped(s) / spread[:, None, None]), REAL)

    def energy(
        self, modulus: FloatArray, amplitude: FloatArray, spread: FloatArray | None
    ) -> FloatArray:
        """-log p of each pixel, averaged likewise, less what does not depend on the modulus: (B, P,
        Q) float64.
        """
        m, a = modulus.astype(np.float64), amplitude.astype(np.float64)
        if self.kind == "amplitude":
            y = self.measured(a)
            if spread is None:
                return np.asarray((m - y) ** 2 / (2 * self.variance))
            return np.asarray(
                ((m - y) ** 2 + 2 * y * (m - _mean_modulus(m, spread))) / (2 * self.variance)
            )
        if spread is None:
            mean, count = m**2 + self.soft, a * abs(a) + self.extra
            return np.asarray(mean - count - count * np.log(mean / np.maximum(count, 1e-30)))
        V, count = spread[:, None, None], a * abs(a)
        mean = np.maximum(m**2 + self.background, 1e-12 * V)
        blurred, s = np.zeros(m.shape), mean / V
        near = s < FAR
        blurred[near] = exp1(s[near])
        return np.asarray(
            mean - count - count * (np.log(mean / np.maximum(count, 1e-30)) + blurred)
        )

    @property
    def extra(self) -> Any:
        """Counts added to the data so that the softening leaves the mean of the score at the truth
        0.
        """
        return self.soft - self.background

    def measured(self, amplitude: FloatArray) -> FloatArray:
        """y of the amplitude model."""
        return np.asarray(np.sqrt(amplitude**2 + self.offset))

    def surprise(self, modulus: FloatArray, amplitude: FloatArray) -> FloatArray:
        """Squared misfit of each pixel in units of the noise: (y - m)^2/v, or 4 (root of counts -
        root of mean)^2.
        """
        m, a = modulus.astype(np.float64), amplitude.astype(np.float64)
        if self.kind == "amplitude" and not self.offset:
            return np.asarray((m - a) ** 2 / self.variance)
        count = np.maximum(a * abs(a) + ANSCOMBE, 0)
        return np.asarray(4 * (np.sqrt(count) - np.sqrt(m**2 + self.background + ANSCOMBE)) ** 2)

    def expected_surprise(self, modulus: FloatArray) -> FloatArray:
        """What `surprise` is on average where the model is true; 1 but for few counts.
        On the host.
        """
        if self.kind == "amplitude" and not self.offset:
            return np.ones_like(modulus)
        mean = np.asarray(modulus, np.float64) ** 2 + self.background
        if self.read_noise:
            return cumulants(mean, self.read_noise)[0]
        grid, value = _table()
        few = mean * (value[0] / np.exp(grid[0]))
        return np.asarray(
            np.where(mean < np.exp(grid[0]), few, np.interp(np.log(mean + 1e-300), grid, value))
        )


def _resultant(m: FloatArray, spread: FloatArray) -> FloatArray:
    """E z'/|z'| along z: sqrt(pi s)/2 exp(-s/2) (I0(s/2) + I1(s/2)), s = m^2/V."""
    s = m**2 / spread[:, None, None]
    return np.asarray(np.sqrt(np.pi * s) / 2 * (i0e(s / 2) + i1e(s / 2)))


def _mean_modulus(m: FloatArray, spread: FloatArray) -> FloatArray:
    """E|z'|, the mean of a Rice distribution."""
    V = spread[:, None, None]
    s = m**2 / V
    return np.asarray(np.sqrt(np.pi * V) / 2 * ((1 + s) * i0e(s / 2) + s * i1e(s / 2)))


def _damped(s: FloatArray) -> FloatArray:
    """(1 - exp(-s))/s: V E z'/|z'|^2 along z, over m."""
    small = s < 1e-6
    return np.asarray(np.where(small, 1 - s / 2, -np.expm1(-s) / np.where(small, 1, s)))


@cache
def _table() -> tuple[FloatArray, FloatArray]:
    """log mean and E 4 (sqrt(n + 3/8) - sqrt(mean + 3/8))^2 of Poisson counts n."""
    mean = np.logspace(-4, 2.5, 131)
    n = np.arange(0, 600.0)
    chance = np.exp(n * np.log(mean[:, None]) - mean[:, None] - gammaln(n + 1))
    square = 4 * (np.sqrt(n + ANSCOMBE) - np.sqrt(mean[:, None] + ANSCOMBE)) ** 2
    return np.log(mean), (chance * square).sum(axis=1)


def told(
    problem: Problem, background: Any, kind: str = "auto", variance: float | None = None
) -> Problem:
    """The problem with a background that its data do not state; None and 0 leave it as it is.

    Raises
    ------
    PtychonError
        If the noise model is not that of counts, or the data state a background of their own.
    """
    if background is None or not np.any(background):
        return problem
    if kind == "amplitude" or variance is not None:
        mean = float(np.mean(background))
        raise PtychonError(
            f"a background of {mean:g} counts belongs to Poisson noise; the model is amplitude"
        )
    return problem.with_background(background)


def noise_of(problem: Problem, kind: str = "auto", variance: float | None = None) -> Noise | None:
    """The noise model of a problem; None where its variance has to be learned from the misfit.

    Parameters
    ----------
    problem : Problem
    kind : {"auto", "amplitude", "poisson"}
        "auto" is "poisson" for counts, else "amplitude".
    variance : float, optional
        Of the amplitude; overrides what the problem says, and makes counts an amplitude with that
        variance.

    Raises
    ------
    PtychonError
        A Poisson model for data that are not counts, or numbers out of range.
    """
    if kind not in ("auto", "amplitude", "poisson"):
        raise PtychonError(f"the noise model is {kind!r}; choose auto, amplitude or poisson")
    if kind == "auto":
        kind = "poisson" if problem.counting and variance is None else "amplitude"
    if kind == "poisson" and not problem.counting:
        raise PtychonError(
            "the data are not counts, so their noise is not Poisson's; use the model amplitude"
        )
    if kind == "poisson" and problem.background is not None:
        return Noise("poisson", background=problem.background, read_noise=problem.read_noise)
    if kind == "poisson":
        return Noise("poisson")
    if variance is not None:
        return Noise("amplitude", variance)
    if problem.counting:
        return Noise("amplitude", COUNT_VARIANCE, ANSCOMBE)
    return None if problem.noise_variance is None else Noise("amplitude", problem.noise_variance)
