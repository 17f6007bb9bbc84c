r"""What else should be free: the score test of Rao (Proc. Camb. Phil. Soc. 44, 50 (1948)).

Let u be unknowns that the bars hold fixed, positions say, and g the gradient of -log p by u at the
solution. Were they free, with all that is free already,

    gain = g^T [H^-1]_uu g/2

is by how much the likelihood would rise, to second order: one linear system. With n numbers in u
and a true model it is n/2 on average, with a standard deviation of (n/2)^1/2; where the misfit is c
times what the noise explains, c times as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..engines.base import OPTION_OF
from ..model.noise import Noise
from ..model.unknowns import Unknowns
from ..types import Array
from .curvature import Curvature

if TYPE_CHECKING:
    from .optimum import Work

#: What is tried, as `Unknowns` names it.
TRIED = ("positions", "log_scale", "background", "distance")
#: Tolerance of the linear system; a gain is proposed above so many standard deviations and times
#: what is expected, and from this share of the largest gain on.
ROUGH, SIGMAS, TIMES, SHARE = 0.1, 5.0, 1.5, 0.1
#: Share of the light from which on a background is one: pixels with hardly a count, whose waves are
#: far from certain, pull at it where there is none (3e-7 of the light, by nine times of chance).
SEEN = 1e-3
#: Spread of the doses, as an amplitude, from which on they differ: on a faultless scan of 169
#: frames with 1e6 counts each it came out as 0.3 %, with twice the gain of chance.
DIFFER = 5e-3
#: Times what chance gives, from which on a distance is wrong: it trades with a learned probe, and
#: on four faultless scans of 49 frames of 32 x 32 the gain was 2 to 16 times that of chance.
CERTAIN = 30.0


@dataclass(frozen=True)
class Gain:
    """By how much the likelihood would rise with something free.

    Attributes
    ----------
    name : str
        As for ``update``: "positions", "dose", "background" or "distance".
    gain, expected, spread : float
        Of log p; what chance alone gives, and its standard deviation.
    numbers : int
        How many unknowns these are.
    least : float
        A share of the largest gain there is.
    light : float, optional
        Of a background, its share of the light, to second order.
    differ : float, optional
        Of doses, their spread (rms) as an amplitude, likewise.
    longer : float, optional
        Of a distance, how much longer it is as a share, likewise.
    """

    name: str
    gain: float
    expected: float
    spread: float
    numbers: int
    least: float = 0.0
    light: float | None = None
    differ: float | None = None
    longer: float | None = None

    @property
    def proposed(self) -> bool:
        """Whether it is more than chance."""
        least = max(self.expected + SIGMAS * self.spread, TIMES * self.expected, self.least)
        if self.longer is not None:
            least = max(least, CERTAIN * self.expected)
        large = (self.light is None or self.light >= SEEN) and (
            self.differ is None or self.differ >= DIFFER
        )
        return self.gain > least and large

    def sentence(self) -> str:
        """For people."""
        said = (
            f"freeing {self.name} ({self.numbers} numbers) would raise the log likelihood by "
            f"{self.gain:.3g}, {self.expected:.3g} by chance"
        )
        if self.light is not None:
            said += f", with {100 * self.light:.1g} % of the light"
        if self.differ is not None:
            said += f", with a spread of {100 * self.differ:.1g} %"
        if self.longer is not None:
            said += f", with {100 * self.longer:+.2g} % of the distance"
        return f"{said}: free it (--update {self.name})" if self.proposed else said


def gains(work: Work, point: Curvature, noise: Noise, chi2: float) -> tuple[Gain, ...]:
    """The gain of each of `TRIED` that is not free, at a point, for a misfit of `chi2` times what
    the noise explains.
    """
    found = []
    for name in TRIED:
        if name in work.free or not _there(name, work, noise):
            continue
        wider = work.with_free(name)
        # of the solution itself: averages over uncertain waves are not exact for a background
        here = wider.at(wider.start_at(point.x), point.noise)
        gradient = here.gradient()
        only = gradient.zeros().axpy(1, _told(gradient.only([name]), wider, here))
        d = here.solved(only, ROUGH, work.iterations).x
        array: Array = getattr(gradient, name)
        numbers = int(array.size) - _untold(name, "probe" in work.free)
        scale = max(chi2, 1.0)
        found.append(
            Gain(
                name=OPTION_OF.get(name, name),
                gain=0.5 * float(only.dot(d)),
                expected=0.5 * numbers * scale,
                spread=math.sqrt(0.5 * numbers) * scale,
                numbers=numbers,
                light=_share_of_light(d, work) if name == "background" else None,
                differ=_spread_of_doses(d, work) if name == "log_scale" else None,
                longer=-float(d.distance[0]) if name == "distance" else None,
            )
        )
    # what is wrong elsewhere leaves a trace in everything
    least = SHARE * max((gain.gain for gain in found), default=0.0)
    return tuple(replace(gain, least=least) for gain in found)


def _there(name: str, work: Work, noise: Noise) -> bool:
    """Whether these data have such a thing."""
    if name == "distance":
        return getattr(work.problem.propagator, "phase", None) is not None
    return name != "background" or noise.kind == "poisson"


def _share_of_light(step: Unknowns, work: Work) -> float:
    """What a step from no background at all says of its light."""
    return float(np.abs(work.backend.to_host(step.background)).mean()) / work.light


def _spread_of_doses(step: Unknowns, work: Work) -> float:
    """What a step from equal doses says of their spread, as an amplitude."""
    return float(np.std(work.backend.to_host(step.log_scale)))


def frame_gauge(work: Work, point: Curvature) -> Unknowns:
    """What unknowns of frames may do in common, as columns (N, m) of each: object and probe make up
    for it.
    """
    n, free_probe, own = len(work.problem), "probe" in work.free, {}
    for name in point.own:
        own[name] = np.ones((n, 1))
        if name == "weights" and not free_probe:
            own[name] = np.zeros((n, 0))
        if name == "weights" and "variations" in work.free:
            # what a mixing of the variations makes up for
            own[name] = np.concatenate([own[name], work.backend.to_host(point.x.weights)], axis=1)
        if name == "log_scale" and free_probe:
            places = work.problem.positions
            own[name] = np.concatenate([own[name], places - places.mean(axis=0)], axis=1)
    return Unknowns(**own)


def _told(gradient: Unknowns, work: Work, point: Curvature) -> Unknowns:
    """Without what unknowns of frames may do in common, where the object's prior alone pulls."""
    for name, B in frame_gauge(work, point).each():
        if getattr(gradient, name) is not None:
            rows = work.backend.to_host(getattr(gradient, name)).astype(np.float64)
            told = rows - B @ (np.linalg.pinv(B) @ rows)
            dtype = getattr(gradient, name).dtype
            gradient = Unknowns(**{name: work.backend.asarray(told.astype(dtype))})
    return gradient


def _untold(name: str, free_probe: bool) -> int:
    """Numbers that nobody can tell: a mean, and of doses a gradient, too."""
    if name == "positions":
        return 2
    return (3 if free_probe else 1) if name == "log_scale" else 0
