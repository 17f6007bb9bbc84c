r"""What speaks against a reconstruction and R does not show: a sentence for each, with its numbers
and a remedy.

    window   the probe has its light where its window ends
    spots    the probe repeats itself: its intensity autocorrelation has a second maximum about as
             high as the first
    step     neighbouring beams do not overlap
    grid     the object holds power at the spatial frequencies of the scan positions, and nowhere
             beside them
    depth    the structure of a thick specimen lies where its slices end
    nothing  R is that of the same probe without any object
    top      frames hold the largest value of their integer type
    smooth   frames are smoother than the modes of the probe make them

The grid is found with the structure factor of the positions, S(q) = |sum_j exp(-2 pi i q
r_j)|^2/N^2: where it is large beside q = 0, positions are periodic, and the power of the object
there is compared with that of other frequencies of the same length. Regular scans leave such a
product of a periodic error of the probe and its inverse in the object undetermined (Thibault et
al., Ultramicroscopy 109, 338 (2009)); a specimen has such a lattice only by accident. Twelve good
reconstructions, simulated and measured, gave 0.5 to 2 times the power beside it, lattices of spots
10 to 30.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..backends import get_backend
from ..data.position_table import step_of
from ..data.result import Result
from ..metrics.depth import middle, strengths
from ..metrics.frc import soft_window
from ..metrics.registration import bounding_box, phase_ramp
from ..metrics.residual import CUT_OFF, probe_at_rim, residual_without_object
from ..metrics.smoothed import Smoothed
from ..metrics.smoothed import sentence as smoother
from ..model.forward import Model, unknowns_of
from ..model.problem import Problem
from ..types import FloatArray
from ..units import pretty
from .guess import mean_power

#: Height of a second maximum of the probe's autocorrelation above the valley before it: spots 0.96,
#: beams at most 0.01.
REPEATS = 0.7
#: Structure factor from which positions are periodic; and the power at those frequencies over that
#: beside them, and its share of the whole, from which the grid shows and from which it is most of
#: what shows.
PERIODIC, CONTRAST, SHOWS, RULES = 0.1, 5.0, 0.01, 0.05
#: Part of the thickness at either end where the middle of the structure is not expected.
OUTER = 0.15
#: R over that of the noise from which on something is left to be explained, and the frames that are
#: looked at for it.
FAR_FROM_NOISE, LOOKED_AT = 1.1, 32
#: Passes from which on it is: before, every misfit is that of an object that is not there yet.
SETTLES = 10
#: R this close to that without an object is no better.
NO_BETTER = 0.99
_PROBE = "give another first probe with --probe (or --semi-angle and --defocus for electrons)"


@dataclass(frozen=True)
class Doubt:
    """One sentence, how it weighs ("care" or "bad"), and what it is about, as the head of this
    module names it.
    """

    level: Literal["care", "bad"]
    text: str
    about: str


def doubts(result: Result, far: bool = True) -> list[Doubt]:
    """What speaks against a result, seen without its data.

    Parameters
    ----------
    result : Result
    far : bool
        Whether the data are of the far field.
    """
    return [
        found
        for found in (
            _window(result, far),
            _spots(result),
            _step(result),
            _grid(result),
            _depth(result),
        )
        if found is not None
    ]


def all_doubts(result: Result, problem: Problem) -> list[Doubt]:
    """What speaks against a result, seen with its data; where nothing does, this is empty.

    Parameters
    ----------
    result : Result
    problem : Problem
        On the host.
    """
    noise = None
    if problem.counting:
        pixels = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
        noise = (
            problem.noise_level * pixels / max(mean_power(problem) * len(problem), 1e-300)
        ) ** 0.5
    without = residual_without_object(problem, result.probe)
    found = doubts(result, problem.propagator.transfer is None)
    found += [d for d in (no_better(result.final_error, without, noise),) if d is not None]
    # of a reconstruction that has failed the misfit says nothing
    settled = len(result.errors) >= SETTLES
    if not found and settled and result.final_error > FAR_FROM_NOISE * (noise or np.inf):
        found += [d for d in (too_smooth(result, problem),) if d is not None]
    return found


def too_smooth(result: Result, problem: Problem) -> Doubt | None:
    """Whether frames, some of them, are smoother than the model makes them."""
    every = np.unique(np.linspace(0, len(problem) - 1, LOOKED_AT).round().astype(int))
    smooth = Smoothed()
    model = Model.of(replace(problem, background=None), get_backend("numpy", threads=1))
    x = unknowns_of(problem, result.object, result.probe)
    for frame in every:
        b = slice(int(frame), int(frame) + 1)
        light = np.asarray(model.intensity(model.view(x, b)), np.float64)
        counts = np.square(np.asarray(problem.amplitude[b], np.float64))
        smooth.add(light, counts, np.broadcast_to(problem.mask_of(b), counts.shape))
    if not smooth.tells:
        return None
    return Doubt("care", smoother(smooth.shares[0], len(result.probe)), "smooth")


def no_better(residual: float, without: float, noise: float | None) -> Doubt | None:
    """R beside that of the same probe without an object; None where R is better, or noise leaves
    nothing to be better by.

    Parameters
    ----------
    residual, without : float
    noise : float or None
        R that noise alone gives.
    """
    if residual < NO_BETTER * without or (noise is not None and without < 1.02 * noise):
        return None
    return Doubt(
        "bad",
        f"R is {residual:.4f} and the same probe without any object gives {without:.4f}: the "
        "object explains nothing; check "
        "positions and orientation (ptychon inspect, ptychon orient) and the first probe "
        "(--probe)",
        "nothing",
    )


def at_rim(probe: Any) -> tuple[float, float]:
    """Share of a probe's power (K, P, Q) in the outermost 5 % of its window on each side, and that
    of an even probe.
    """
    return probe_at_rim(probe), probe_at_rim(np.ones(probe.shape[-2:], np.complex64))


def width(probe: Any) -> float:
    """Diameter (px) of the disc of the same area as a probe (K, P, Q): area (sum I)^2/sum I^2."""
    light = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    return float(2 * np.sqrt(light.sum() ** 2 / max(float((light**2).sum()), 1e-300) / np.pi))


def _window(result: Result, far: bool) -> Doubt | None:
    share, even = at_rim(result.probe)
    if share <= (CUT_OFF if far else even):
        return None
    text = (
        f"{share:.0%} of the probe's power lies in the outermost 5 % of its window ({even:.0%} "
        "for an even beam): "
    )
    if far and share > even:
        return Doubt("bad", text + f"the probe is aliased or cut off; {_PROBE}", "window")
    remedy = (
        "do not crop the frames, or bin them less (--bin)"
        if not far
        else f"do not bin the frames, or {_PROBE}"
    )
    return Doubt("care", text + f"the window may cut the beam off; {remedy}", "window")


def _highest(picture: FloatArray, reach: int) -> FloatArray:
    """The highest value within so many rows and columns of each pixel of a periodic picture."""
    for axis in (0, 1):
        near = [np.roll(picture, step, axis) for step in range(-reach, reach + 1)]
        picture = np.max(near, axis=0)
    return picture


def _spots(result: Result) -> Doubt | None:
    light = (np.abs(result.probe) ** 2).sum(axis=0, dtype=np.float64)
    alike = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(light)) ** 2).real)
    centre = np.array(alike.shape) // 2
    alike /= max(float(alike[tuple(centre)]), 1e-300)
    peaks = np.argwhere((alike == _highest(alike, 2)) & (alike > REPEATS))
    distance = np.hypot(*(peaks - centre).T)
    for k in np.argsort(distance, kind="stable")[:64]:
        if distance[k] < 3:
            continue
        along = np.linspace(0, 1, int(2 * distance[k]) + 2)[:, None]
        valley = float(
            alike[tuple(np.rint(centre + along * (peaks[k] - centre)).astype(int).T)].min()
        )
        height = float(alike[tuple(peaks[k])])
        if height - valley > REPEATS:
            return Doubt(
                "bad",
                f"the probe repeats itself every {distance[k]:.0f} px ({height:.0%} alike): it "
                "is a lattice of spots, which a "
                f"first probe curved too strongly for its window leads to; {_PROBE}",
                "spots",
            )
    return None


def _step(result: Result) -> Doubt | None:
    step, beam = _median_step(result.positions), width(result.probe)
    if not step > beam:
        return None
    return Doubt(
        "bad",
        f"the step of {step:.3g} px (median to the nearest neighbour) exceeds the probe's width "
        f"of {beam:.3g} px: neighbouring "
        f"frames share too little light to be joined; check --step and --pixel-size, or {_PROBE}",
        "step",
    )


def _median_step(positions: FloatArray) -> float:
    return step_of(np.round(positions, 3), len(positions))


def _grid(result: Result) -> Doubt | None:
    contrast, share = grid_power(result)
    if contrast < CONTRAST or share < SHOWS:
        return None
    return Doubt(
        "bad" if share > RULES else "care",
        f"{share:.1%} of the object's power lies at the spatial frequencies of the scan's own "
        f"grid, {contrast:.0f} times what "
        "lies beside them: part of the object is a lattice of the scan; add --constraint "
        f"grid_notch, {_PROBE}, or measure with uneven steps",
        "grid",
    )


def _depth(result: Result) -> Doubt | None:
    lit = result.illuminated
    if result.slices is None or len(result.slices) < 3 or not lit.any():
        return None
    depths = result.slices.depths
    at = middle(strengths(result.object, lit), depths)
    share = at / float(depths[-1])
    if OUTER < share < 1 - OUTER:
        return None
    end, way = ("first", "before") if share <= OUTER else ("last", "behind")
    return Doubt(
        "care",
        f"the middle of the structure lies at z = {pretty(at, 'length', 3)}, at the {end} of the "
        f"slices, which end at {pretty(float(depths[-1]), 'length', 3)}: the specimen may go on "
        f"{way} it; give more slices, or a first probe with another defocus",
        "depth",
    )


def grid_power(result: Result) -> tuple[float, float]:
    """Power of the object at the frequencies of the scan's grid over that beside them, and its
    share of the whole.

    (1, 0) where the positions are not periodic.
    """
    lit = result.illuminated
    if not lit.any():
        return 1.0, 0.0
    box = bounding_box(lit)
    window = soft_window(lit[box], 0.1)
    picture = np.where(lit, result.projection, 0)[box].astype(np.complex128)
    # a ramp of the phase, which no data determine, would move the spectrum away from the
    # frequencies of the grid
    y, x = (
        np.exp(-1j * k * np.arange(n))
        for k, n in zip(phase_ramp(picture), picture.shape, strict=True)
    )
    picture *= y[:, None] * x
    picture = (picture - (window * picture).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(picture)) ** 2
    places = result.positions - [box[0].start, box[1].start]
    cells = np.rint(places).astype(int) % power.shape
    comb = np.zeros(power.shape)
    np.add.at(comb, (cells[:, 0], cells[:, 1]), 1 / len(cells))
    periodic = np.abs(np.fft.fft2(comb)) ** 2
    f = np.hypot(np.fft.fftfreq(power.shape[0])[:, None], np.fft.fftfreq(power.shape[1]))
    step = _median_step(places)
    # beside the maximum at zero, which is that of the whole field
    at = (periodic > max(PERIODIC, 5 / len(cells))) & (f > 0.6 / max(step, 1.0))
    if not at.any() or not power.sum() > 0:
        return 1.0, 0.0
    ring = np.rint(f * max(power.shape)).astype(int).ravel()
    beside = (~at).ravel()
    mean = np.bincount(ring, power.ravel() * beside) / np.maximum(np.bincount(ring, beside), 1)
    expected = mean[ring].reshape(power.shape)[at]
    return float(power[at].sum() / max(expected.sum(), 1e-300)), float(
        (power[at] - expected).sum() / power.sum()
    )
