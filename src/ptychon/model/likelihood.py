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

    roots        -log p = 2 (sqrt(lambda) - sqrt(N))^2

These are `model.noise.Noise` as functions of lambda instead of the modulus of one wave, so that a
point spread, an unknown background and modes make no difference. The softening of the Poisson
likelihood at few counts is the same as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.reference import namespace
from ..types import Array
from .noise import Noise
from .problem import Problem

#: Counts below which lambda is nothing: 1/lambda stays finite.
TINY = 1e-20


@dataclass(frozen=True)
class Likelihood:
    """The noise of a problem, for `GaussNewton(information=...)` and its `gradient(score)`.

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
        if self._by_roots:
            return 1 / light.clip(TINY, None)
        scale = 1.0 if self.noise.kind == "poisson" else 1 / (4 * self.noise.variance)
        return scale / light.clip(TINY, None)

    def score(self, light: Array, frames: Any) -> Array:
        """Derivative of -log p by lambda, (B, R, C)."""
        if self._by_roots:
            return 2 * (1 - self._roots(light, frames) / light.clip(TINY, None) ** 0.5)
        if self.noise.kind == "poisson":
            counts, extra = self._counts(light, frames)
            return 1 - (counts + extra) / (light + extra).clip(TINY, None)
        return (1 - self._amplitude(light, frames) / light.clip(TINY, None) ** 0.5) / (
            2 * self.noise.variance
        )

    def energy(self, light: Array, frames: Any) -> Array:
        """-log p less a constant, (B, R, C): 0 where the model says what was counted."""
        if self._by_roots:
            return 2 * (light.clip(0, None) ** 0.5 - self._roots(light, frames)) ** 2
        if self.noise.kind == "poisson":
            xp = namespace(light)
            counts, extra = self._counts(light, frames)
            mean, seen = (light + extra).clip(TINY, None), counts + extra
            return mean - seen - seen * xp.log(mean / seen.clip(TINY, None))
        return (light.clip(0, None) ** 0.5 - self._amplitude(light, frames)) ** 2 / (
            2 * self.noise.variance
        )

    @property
    def _by_roots(self) -> bool:
        return self.roots and self.noise.kind == "poisson"

    def _roots(self, light: Array, frames: Any) -> Array:
        """sqrt(N); read noise makes counts below 0."""
        return self._counts(light, frames)[0].clip(0, None) ** 0.5

    def _counts(self, light: Array, frames: Any) -> tuple[Array, Array]:
        """N, and the softening that data and model both get."""
        problem, xp = self.problem, namespace(light)
        counts = (
            problem.amplitude[frames] ** 2 if problem.counts is None else problem.counts[frames]
        )
        return counts.astype(light.dtype, copy=False), xp.asarray(self.noise.extra, light.dtype)

    def _amplitude(self, light: Array, frames: Any) -> Array:
        amplitude = self.problem.amplitude[frames].astype(light.dtype, copy=False)
        return (amplitude**2 + self.noise.offset) ** 0.5
