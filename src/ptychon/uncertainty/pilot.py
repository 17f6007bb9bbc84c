"""What a few draws say of the waves and of the misfit, on the way to the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..model.noise import Noise, learned_variance
from ..types import REAL, FloatArray

if TYPE_CHECKING:
    from .curvature import Curvature
    from .optimum import Drawn, Work

#: Relative change of V and of the misfit at which rounds end.
SETTLED = 0.1


class Pilot:
    """What a few samples say of the waves: see `pilot_of`."""

    spread: FloatArray = np.zeros(0)
    parameters = expected = misfit = measured = 0.0

    def settled(self, before: Pilot) -> bool:
        """Whether V and the misfit are what they were."""
        change = np.median(np.abs(self.spread / before.spread - 1))
        return bool(change < SETTLED and abs(self.misfit / before.misfit - 1) < SETTLED)

    def fitted(self, noise: Noise) -> Noise:
        """The noise with its variance from the misfit, less what the fit has taken of it."""
        misfit = self.misfit * noise.variance
        return noise.fitted(learned_variance(misfit, self.measured, self.parameters, left=0.05))


def pilot_of(work: Work, point: Curvature, draws: Sequence[Drawn]) -> Pilot:
    """V of each frame, the number of parameters the data determine, and the misfit with what is
    expected of it.
    """
    problem, found, noise = work.problem, Pilot(), point.at_x
    spread, host, share = np.zeros(len(problem)), work.backend.to_host, 1 / len(draws)
    for b in point.blocks():
        valid, m = problem.mask_of(b), point.modulus(point.H.waves(b))
        expect = np.where(host(valid), noise.expected_surprise(host(m)), 0)
        found.misfit += float(
            np.where(host(valid), noise.surprise(host(m), host(noise.root(problem, b))), 0).sum()
        )
        found.expected += float(expect.sum())
        found.measured += float(host(valid).sum()) * (len(expect) / len(valid))
        for d in draws:
            wave, information = point.change(b, d.x)
            power = (wave.real**2 + wave.imag**2).sum(axis=1)
            spread[b] += host(power.mean(axis=(-2, -1))) * share
            taken = host(information)
            found.parameters += float(taken.sum()) * share
            found.expected -= float((expect * taken).sum()) * share
    found.spread = np.maximum(spread, 1e-30).astype(REAL)
    return found
