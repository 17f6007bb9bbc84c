"""What measured frames say of lambda, the expected counts: information, score and energy of each
pixel.

    poisson      -log p = lambda - N log lambda                     N the counts, lambda with all
                                                                    its background (`Problem`)
    amplitude    -log p = (sqrt(lambda) - y)^2/(2 v)                y the measured amplitude, v its
                                                                    variance

    score        d(-log p)/d lambda:       1 - N/lambda,            (1 - y/sqrt(lambda))/(2 v)
    information  its mean slope:           1/lambda,                1/(4 v lambda)

Far from a solution the likelihood of counts is steep where few were expected and many counted.
Their roots have a variance that does not depend on them, and pull more evenly (Anscombe, Biometrika
35, 246 (1948)); at a solution they say nearly the same:

    roots        -log p = 2 (sqrt(lambda) - sqrt(N))^2              amplitude with v = 1/4

`Noise` says the same by the modulus m of one wave, lambda = m^2 + b, so that its energies are
these, its pulls 2 m times the score and its information 4 m^2 times that of lambda. By lambda a
point spread, an unknown background and modes make no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...kernels.reference import namespace
from ...types import Array
from .background import counts_of
from .moments import COUNT_VARIANCE

if TYPE_CHECKING:
    from ..problem import Problem
    from .record import Noise

#: Counts below which lambda is nothing: 1/lambda stays finite.
TINY = 1e-20


def count_energy(mean: Array, seen: Array) -> Array:
    """-log p of counts that were seen where `mean` is expected; 0 where both agree."""
    xp = namespace(mean)
    return mean - seen - seen * xp.log(mean / seen.clip(TINY, None))


def count_score(mean: Array, seen: Array) -> Array:
    """Its derivative by the mean; that of roots by the mean is 1/(2 v) of the same of roots."""
    return 1 - seen / mean


def count_information(mean: Array, scale: Any = 1.0) -> Array:
    """The mean slope of that, times a scale."""
    return scale / mean.clip(TINY, None)


def root_energy(root: Array, y: Array, variance: Any) -> Array:
    """-log p of amplitudes y of this variance where `root` is expected."""
    return (root - y) ** 2 / (2 * variance)


def root_score(root: Array, y: Array, variance: Any) -> Array:
    """Its derivative by the root."""
    return (root - y) / variance


@dataclass(frozen=True)
class Likelihood:
    """The noise of a problem, for `GaussNewton(information=...)` and its `gradient(score)`. Masked
    pixels say nothing: all of it is 0 there.

    Attributes
    ----------
    problem : Problem
        On the backend of the model.
    noise : Noise
        As `noise_of` finds it.
    roots : bool
        Compare roots of counts; without effect where the noise is that of the amplitude.
    """

    problem: Problem
    noise: Noise
    roots: bool = False

    def information(self, light: Array, frames: Any) -> Array:
        """Fisher information of lambda, (B, R, C)."""
        scale = 1.0 if self._by_counts else 1 / (4 * self._variance(light, frames))
        return self._seen(count_information(light, scale), frames)

    def score(self, light: Array, frames: Any) -> Array:
        """Derivative of -log p by lambda, (B, R, C)."""
        if self._by_counts:
            counts, extra = self._counts(light, frames)
            pull = count_score((light + extra).clip(TINY, None), counts + extra)
            return self._seen(pull, frames)
        root = light.clip(TINY, None) ** 0.5
        slope = count_score(root, self._root(light, frames))
        return self._seen(slope / (2 * self._variance(light, frames)), frames)

    def energy(self, light: Array, frames: Any) -> Array:
        """-log p less a constant, (B, R, C): 0 where the model says what was counted."""
        if self._by_counts:
            counts, extra = self._counts(light, frames)
            cost = count_energy((light + extra).clip(TINY, None), counts + extra)
            return self._seen(cost, frames)
        root = light.clip(0, None) ** 0.5
        cost = root_energy(root, self._root(light, frames), self._variance(light, frames))
        return self._seen(cost, frames)

    def _seen(self, values: Array, frames: Any) -> Array:
        """The same, 0 where nothing was measured."""
        return namespace(values).where(self.problem.mask_of(frames), values, 0)

    @property
    def _by_counts(self) -> bool:
        return self.noise.kind == "poisson" and not self.roots

    def _variance(self, light: Array, frames: Any) -> Any:
        if self.noise.kind == "poisson":
            return COUNT_VARIANCE
        v = self.noise.at(frames).per_pixel
        return v if np.ndim(v) == 0 else namespace(light).asarray(v, light.dtype)

    def _counts(self, light: Array, frames: Any) -> tuple[Array, Array]:
        """N, and the softening that data and model both get."""
        counts, xp = counts_of(self.problem, frames), namespace(light)
        return counts.astype(light.dtype, copy=False), xp.asarray(self.noise.extra, light.dtype)

    def _root(self, light: Array, frames: Any) -> Array:
        """y, or sqrt(N); read noise makes counts below 0."""
        if self.noise.kind == "poisson":
            counts = counts_of(self.problem, frames).astype(light.dtype, copy=False)
            return counts.clip(0, None) ** 0.5
        amplitude = self.problem.amplitude[frames].astype(light.dtype, copy=False)
        return self.noise.measured(amplitude)
