"""What the noise of a detector pixel says of the modulus m = |z| of its wave.

    amplitude   y = m + w, w ~ N(0, v); counts n as y = sqrt(n + 3/8), v = 1/4 (Anscombe, Biometrika
                35, 246 (1948))
                -log p = (m - y)^2/(2 v),                   Fisher information of m: 1/v
    poisson     n ~ Poisson(m^2 + b), b counts of background
                -log p = m^2 + b - n log(m^2 + b),          Fisher information of m: 4 m^2/(m^2 + b)
                with read noise r the same of n + r^2 and b + r^2 (see `background`)

Both are about m alone: the information of the phase of z is 0, and the other pixels have to supply
it. Averages over an uncertain wave z' ~ CN(z, V) are in closed form, with s = m^2/V:

    E|z'| = R = sqrt(pi V)/2 exp(-s/2) ((1 + s) I0(s/2) + s I1(s/2)),   E log|z'|^2 = log m^2 +
                                                                        E1(s)

    curvature of E (y - |z'|)^2/(2 v) for y = R:  (1 - R R'')/v along z and (1 - R R'/m)/v across

The last serves counts as well, with i(m) in place of 1/v: it is that of their square root. K modes
are one wave of 2 K real numbers, each of the variance V/2K: with x = K s,

    R = sqrt(V/K) G 1F1(-1/2; K; -x),   G = gamma(K + 1/2)/gamma(K)

of which the dark ones know less along each: (1 - G^2/K)/v, 0.21/v of one mode and 0.12/v of two.
With a background E log(|z'|^2 + b) is taken as that of m^2 + b, which is right where b or V is
small.

What a pixel measured against what is expected of it, in units of the noise, has the mean square 1
but for few counts (`moments`):

    standardised    2 sqrt(n + 3/8) - 2 sqrt(m^2 + b + 3/8),            (y - m)/sqrt(v)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...kernels.reference import namespace
from ...types import REAL, Array, FloatArray, PtychonError
from . import moments
from .averages import damped, mean_modulus, resultant, shares
from .likelihood import count_energy, count_information, count_score, root_energy, root_score
from .moments import ANSCOMBE, COUNT_VARIANCE

if TYPE_CHECKING:
    from ..problem import Problem

#: Noise models.
KINDS = ("amplitude", "poisson")
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
    variance : float, (N,) float array or None
        v of "amplitude", in counts: of all frames, or of each; None where nobody knows it yet.
    offset : float
        y = sqrt(amplitude^2 + offset).
    background : float or (1, P, Q) float array
        b of "poisson", counts a pixel; the square of the read noise included.
    read_noise : float
        r that is in it.
    learned : bool
        Whether the misfit has the last word on the variance; always where it is None.

    Where data are asked for as an amplitude a, the count is a |a|: counts less than nothing, which
    read noise makes, have a negative root (see `root`).
    """

    kind: str = "amplitude"
    variance: Any = COUNT_VARIANCE
    offset: float = 0.0
    background: Any = 0.0
    read_noise: float = 0.0
    learned: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PtychonError(
                f"the noise model is {self.kind!r}; it must be 'amplitude' or 'poisson'"
            )
        if self.variance is None:
            object.__setattr__(self, "learned", True)
        elif not (np.isfinite(self.variance) & (np.asarray(self.variance) > 0)).all():
            raise PtychonError(
                f"the variance of the amplitude noise is {self.variance}; it must be positive"
            )
        # that of a problem on a device was looked at on the host
        b = self.background
        on_host = isinstance(b, (int, float, np.ndarray, np.generic))
        if on_host and not (np.isfinite(b) & (np.asarray(b) >= 0)).all():
            raise PtychonError(
                f"the background is {self.background} counts a pixel; it must not be negative"
            )

    # ------------------------------------------------------------ the variance

    @property
    def per_frame(self) -> bool:
        """Whether each frame has a variance of its own."""
        return np.ndim(self.variance) > 0

    @property
    def per_pixel(self) -> Any:
        """The variance as it goes with (B, P, Q): a number, or (B, 1, 1)."""
        if self.variance is None:
            raise PtychonError(
                "the variance of the amplitude noise is not known; give noise_variance"
            )
        return self.variance[:, None, None] if self.per_frame else self.variance

    @property
    def amplitude_variance(self) -> float | None:
        """For a record of what was assumed: the mean variance of the amplitude; None for counts."""
        if self.kind == "poisson" or self.variance is None:
            return None
        return float(np.mean(self.variance))

    def at(self, b: Any) -> Noise:
        """That of a block of frames."""
        return replace(self, variance=self.variance[b]) if self.per_frame else self

    def fitted(self, variance: Any) -> Noise:
        """The same with a variance that was learned."""
        return replace(self, variance=variance)

    def describe(self) -> str:
        """In words."""
        if self.kind == "amplitude" and self.per_frame:
            v = self.variance
            return (
                f"Gaussian noise of the amplitude, variance learned for each frame: "
                f"{np.mean(v):.4g}, from {np.min(v):.2g} to {np.max(v):.2g}"
            )
        if self.kind == "amplitude":
            known = "not known" if self.variance is None else f"{self.variance:.4g}"
            return f"Gaussian noise of the amplitude, variance {known}"
        mean = float(np.mean(self.background)) - self.read_noise**2
        parts = (
            [f"a background of {mean:.4g} counts a pixel"]
            if mean > 1e-6 * (1 + self.read_noise**2)
            else []
        )
        parts += [f"a read noise of {self.read_noise:.4g} counts"] if self.read_noise else []
        return f"Poisson noise{' with ' if parts else ''}{' and '.join(parts)}"

    # ------------------------------------------------------------ data

    def root(self, problem: Problem, b: slice) -> Array:
        """The data of a block of frames as the methods take them, (B, P, Q), where
        the problem is.
        """
        if self.kind == "amplitude" or problem.counts is None:
            return problem.amplitude[b]
        counts = problem.counts[b]
        xp = namespace(counts)
        return xp.sign(counts) * xp.sqrt(abs(counts))

    def measured(self, amplitude: Array) -> Array:
        """y of the amplitude model."""
        return (amplitude**2 + self.offset) ** 0.5 if self.offset else amplitude

    def draw(self, rng: np.random.Generator, expected: FloatArray) -> Any:
        """Patterns, where so many counts (or so much intensity) of the wave are expected.

        Parameters
        ----------
        rng : Generator
            It is asked for counts first, and then for normal numbers, of all pixels in turn.
        expected : (B, P, Q) float

        Returns
        -------
        (B, P, Q) int64, or float64 with read noise, which may make them negative, and for the noise
        of the amplitude, whose root is cut off at 0.
        """
        if self.kind == "poisson":
            dark = np.maximum(self.background - self.read_noise * self.read_noise, 0)
            counts = rng.poisson(expected + dark)
            if not self.read_noise:
                return counts
            return counts + self.read_noise * rng.standard_normal(counts.shape)
        noise = np.sqrt(self.per_pixel) * rng.standard_normal(expected.shape)
        pattern = np.maximum(np.sqrt(expected) + noise, 0) ** 2
        return np.maximum(pattern - self.offset, 0) if self.offset else pattern

    # ------------------------------------------------------------ likelihood

    @property
    def soft(self) -> Any:
        """Background in the likelihood, the softening included."""
        return np.maximum(self.background, SOFT)

    @property
    def extra(self) -> Any:
        """Counts added to the data so that the softening leaves the mean of the score at the truth
        0.
        """
        return self.soft - self.background

    def information(self, modulus: Array) -> Array:
        """Fisher information of the modulus, as `modulus` (float)."""
        xp = namespace(modulus)
        if self.kind == "amplitude":
            return modulus * 0 + xp.asarray(1 / self.per_pixel, modulus.dtype)
        if not np.any(self.background):
            return modulus * 0 + modulus.dtype.type(4.0)
        power = modulus**2
        mean = power + xp.asarray(self.background, modulus.dtype)
        return count_information(mean, 4 * power)

    def averaged_information(
        self, modulus: FloatArray, spread: FloatArray, modes: int = 1
    ) -> tuple[FloatArray, FloatArray]:
        """Curvature of -log p along and across the wave, averaged over z' ~ CN(z, V) and the data
        expected of it.

        Parameters
        ----------
        modulus : (B, P, Q) float
        spread : (B,) float, V
        modes : int
            Modes that V is shared by.

        Returns
        -------
        (along, across) : (B, P, Q) float32 each, not negative, across <= along
        """
        s = modulus.astype(np.float64) ** 2 / spread[:, None, None]
        full = self.information(modulus)
        along, across = (np.asarray(full * share, REAL) for share in shares(s, modes))
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
            y = y if spread is None else y * resultant(m, spread)
            return np.asarray(root_score(m, y, self.per_pixel), REAL)
        if spread is None:
            score = count_score(m**2 + self.soft, a * abs(a) + self.extra)
            return np.asarray(2 * m * score, REAL)
        mean = m**2 + self.background
        s = mean / spread[:, None, None]
        return np.asarray(2 * m * (1 - a * abs(a) * damped(s) / spread[:, None, None]), REAL)

    def energy(
        self, modulus: FloatArray, amplitude: FloatArray, spread: FloatArray | None
    ) -> FloatArray:
        """-log p of each pixel, averaged likewise, less what does not depend on the modulus: (B, P,
        Q) float64.
        """
        from scipy.special import exp1

        m, a = modulus.astype(np.float64), amplitude.astype(np.float64)
        if self.kind == "amplitude":
            y = self.measured(a)
            v, energy = self.per_pixel, root_energy(m, y, self.per_pixel)
            if spread is None:
                return np.asarray(energy)
            return np.asarray(energy + y * (m - mean_modulus(m, spread)) / v)
        if spread is None:
            return np.asarray(count_energy(m**2 + self.soft, a * abs(a) + self.extra))
        V, count = spread[:, None, None], a * abs(a)
        mean = np.maximum(m**2 + self.background, 1e-12 * V)
        blurred, s = np.zeros(m.shape), mean / V
        near = s < FAR
        blurred[near] = exp1(s[near])
        return np.asarray(count_energy(mean, count) - count * blurred)

    # ------------------------------------------------------------ misfit

    @property
    def counted(self) -> bool:
        """Whether the data are counts, or roots of counts."""
        return self.kind == "poisson" or self.offset > 0

    def standardised(self, data: FloatArray, mean: FloatArray) -> FloatArray:
        """Data less what is expected, in units of the noise.

        Parameters
        ----------
        data : (B, P, Q) float
            Counts (see `counts_of`), or the amplitude where the noise is that of the amplitude.
        mean : (B, P, Q) float
            Expected counts with all their background, or the squared modulus.
        """
        if self.counted:
            return np.asarray(
                (moments.stabilised(data) - moments.stabilised(mean)) / COUNT_VARIANCE**0.5
            )
        return np.asarray((data - np.sqrt(mean)) / np.sqrt(self.per_pixel))

    def sensitivity(self, mean: FloatArray) -> FloatArray:
        """How much of the noise the model is off by if |z| dm is: twice the derivative of what is
        standardised by the mean.
        """
        if self.counted:
            return np.asarray(1 / (COUNT_VARIANCE**0.5 * np.sqrt(mean + ANSCOMBE)))
        return np.asarray(1 / (np.sqrt(self.per_pixel) * np.maximum(np.sqrt(mean), 1e-12)))

    def cumulants(self, mean: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean, variance and third cumulant of the square of what is standardised, of data that are
        not negative.
        """
        if self.counted:
            return moments.cumulants(mean, self.read_noise)
        return moments.amplitude_cumulants(np.sqrt(mean) / np.sqrt(self.per_pixel))

    def root_moments(self, modulus: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E (y - m)^2 and E y of `Problem.amplitude` y, what is not the wave's taken off; one value
        of either for Gaussian noise.
        """
        if self.kind == "amplitude":
            return np.asarray(self.per_pixel), modulus
        if np.any(self.background):
            return moments.subtracted_noise(modulus, self.background)
        return moments.counting_noise(modulus**2), moments.expected_root(modulus)

    def surprise(self, modulus: FloatArray, amplitude: FloatArray) -> FloatArray:
        """Squared misfit of each pixel in units of the noise, for the root `amplitude` of what was
        measured: (y - m)^2/v, or 4 (root of counts - root of mean)^2.
        """
        m, a = modulus.astype(np.float64), amplitude.astype(np.float64)
        if not self.counted:
            return np.asarray(2 * root_energy(m, a, self.per_pixel))
        return self.standardised(a * abs(a), m**2 + self.background) ** 2

    def expected_surprise(self, modulus: FloatArray) -> FloatArray:
        """What `surprise` is on average where the model is true; 1 but for few counts.
        On the host.
        """
        if not self.counted:
            return np.ones_like(modulus)
        mean = np.asarray(modulus, np.float64) ** 2 + self.background
        return moments.expected_misfit(mean, self.read_noise)
