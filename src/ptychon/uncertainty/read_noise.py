r"""The read noise among what error bars learn: its variance s = r^2 from the residuals of all
pixels, best from the dim ones.

With mu the expected counts of a pixel, background included, v = mu + s the variance of what is
counted and h the share of its information that the fit has taken (see `pilot_of`), the residual d =
n - mu has

    E d^2 = (1 - h) v,      Var d^2 = 2 v^2 + mu

(Poisson counts have the fourth cumulant mu), so that by generalised least squares, which are
maximum likelihood where v is the same for all,

    s = sum w (d^2 - (1 - h) mu) / sum w (1 - h),   w = 1/(2 v^2 + mu),   Var s = 1/sum w (1 - h)

The score of the wave, 2 m (mu - n)/v, has the mean 0 whatever s is: the information between s and
all else vanishes on average, and what is not known of s moves no optimum to first order. It scales
the bars: those of a wave go with v^1/2.

References: Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993) (counts with read noise); Aitken,
Proc. R. Soc. Edinburgh 55, 42 (1936) (generalised least squares).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..model.noise import Noise, with_read_noise
from ..types import FloatArray
from .curvature import Curvature

if TYPE_CHECKING:
    from .optimum import Drawn, Work

#: Rounds in which the weights follow; relative change of the read noise at which it has settled,
#: and digits that it is taken with.
ROUNDS, SETTLED, DIGITS = 4, 0.02, 3
#: Least variance of a squared residual: of pixels that expect nothing.
LEAST = 1e-3


class ReadNoise(NamedTuple):
    """A read noise, counts rms, and its standard deviation; where its square is not told from 0,
    how large it may be.
    """

    value: float
    std: float

    def near(self, other: float) -> bool:
        """Whether another is as good."""
        return abs(self.value - other) <= max(SETTLED * other, self.std / 2)


def read_noise_of(work: Work, point: Curvature, draws: list[Drawn]) -> ReadNoise:
    """From the residuals at a point, and draws that tell what the fit has taken of each pixel."""
    host, problem = work.backend.to_host, point.problem
    stated, share = problem.read_noise**2, 1 / len(draws)
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    assert problem.counts is not None
    for b in point.blocks():
        m = host(point.modulus(point.H.waves(b))).astype(np.float64)
        mean = np.maximum(m**2 + np.asarray(point.at_x.background) - stated, 0)
        valid = np.broadcast_to(host(problem.mask_of(b)), mean.shape)
        square = (host(problem.counts[b]).astype(np.float64) - stated - mean) ** 2
        taken = share * sum(host(point.change(b, d.x)[1]).astype(np.float64) for d in draws)
        parts.append((square[valid], mean[valid], 1 - taken[valid]))
    square, mean, left = (np.concatenate(part) for part in zip(*parts, strict=True))
    s, w = stated, np.ones(0)
    for _ in range(ROUNDS):
        w = 1 / np.maximum(2 * (mean + s) ** 2 + mean, LEAST)
        s = max(float((w * (square - left * mean)).sum() / (w * left).sum()), 0.0)
    r, error = math.sqrt(s), float((w * left).sum()) ** -0.5
    return ReadNoise(r, error / (2 * r) if s > error else math.sqrt(s + error) - r)


def reread(work: Work, noise: Noise, found: ReadNoise) -> Noise:
    """The noise with another read noise, which goes into the problem of `work` too."""
    before, value = work.problem.read_noise, float(f"{found.value:.{DIGITS}g}")
    work.problem = with_read_noise(work.problem, value)
    background = np.asarray(noise.background) + (value**2 - before**2)
    return replace(noise, background=np.maximum(background, 0), read_noise=value)
