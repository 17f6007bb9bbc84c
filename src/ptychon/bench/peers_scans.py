"""The simulated scans that packages are compared on, and how far what they find is from the truth.

plain      known positions on whole pixels, one mode, many counts
measured   what measured data are like: three modes of 70, 20 and 10 %, positions between pixels
           that are stated wrongly, fewer counts
thick      a specimen of two slices, known positions

Everyone starts from the same object, probe and stated positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.slices import Slices
from ..metrics.alignment import align
from ..metrics.residual import illuminated, residual
from ..model.problem import Problem
from ..run.guess import initial_object, mean_power, scaled_probe
from ..run.modes import started
from ..simulation import phantoms, probes, scan
from ..simulation.simulate import simulate
from ..types import Array, BoolArray, ComplexArray, FloatArray, PtychonError

#: Shares of the light of the modes of the scan "measured".
POWERS = (0.7, 0.2, 0.1)
#: Room around the windows of the scan "measured", px: positions that are refined move them.
MARGIN = 12
#: Of the scan "thick": wavelength times distance over the area of an object pixel.
GAP = 20.0
#: Wavelength and side of an object pixel that adapters are told, m.
WAVELENGTH, PIXEL = 1e-9, 1e-8


@dataclass(frozen=True)
class Bench:
    """The scan, what is true of it, and where everyone starts: object (H, W) or (S, H, W), probes
    (K, P, Q), lit (H, W), and positions (N, 2), of the middles of the windows in object pixels,
    where these are to be found; `places` are the true ones.
    """

    data: Dataset
    problem: Problem
    truth: ComplexArray
    object: ComplexArray
    probe: ComplexArray
    lit: BoolArray
    about: str
    name: str = "plain"
    places: FloatArray | None = None

    @property
    def positions(self) -> FloatArray | None:
        """Where they are stated."""
        return None if self.places is None else self.problem.positions

    def file(self) -> dict[str, Any]:
        """What adapters get, as arrays."""
        patterns = np.asarray(self.data.patterns, np.float32)
        probe = self.probe[0] if len(self.probe) == 1 else self.probe
        given: dict[str, Any] = {"patterns": patterns, "corners": self.problem.corners}
        given |= {"object": self.object, "probe": probe}
        if self.positions is not None:
            given["positions"] = self.positions
        if self.problem.slices is not None:
            given["gaps"] = np.array(self.problem.slices.gaps)
        return given

    def quality(
        self, found: ComplexArray, probe: ComplexArray, positions: Array = None
    ) -> tuple[float | None, float | None, float | None]:
        """Error of the object, R, and rms error of the positions, px; None for what is not finite
        or not there.
        """
        if not all(np.isfinite(a).all() for a in (found, probe)):
            return None, None, None
        try:
            error = self._error(found)
        except PtychonError:
            return None, None, None
        problem, off = self.problem, None
        if positions is not None and self.places is not None:
            off = _spread(positions - self.places)
            places = positions - positions.mean(axis=0) + self.places.mean(axis=0)
            try:
                problem = problem.with_positions(places)
            except PtychonError:
                return error, None, off
        with np.errstate(over="ignore"):
            R = residual(problem, found, probe if probe.ndim == 3 else probe[None])
        return error, R if np.isfinite(R) else None, off

    def _error(self, found: ComplexArray) -> float:
        """Relative, ||c E - T||/||T||, the mean over slices; translation, phase ramp and factor of
        each slice taken out.
        """
        layers, truths = (a if a.ndim == 3 else a[None] for a in (found, self.truth))
        errors = [
            10 ** (-align(E, T, region=self.lit, subpixel=True).error_db / 20)
            for E, T in zip(layers, truths, strict=True)
        ]
        return float(np.mean(errors))


def _spread(off: FloatArray) -> float:
    """Rms length of errors of positions, their mean taken off: it is a translation."""
    return float(np.sqrt(((off - off.mean(axis=0)) ** 2).sum(axis=1).mean()))


def make_bench(
    *, side: int = 14, step: int = 12, frame: int = 128, mean_counts: float = 1e6, seed: int = 0
) -> Bench:
    """A raster of `side` x `side` whole-pixel positions with two pixels of jitter, Poisson counts.

    Parameters
    ----------
    side, step, frame : int
        Positions a side; step and side of the frames, px.
    mean_counts : float
        Of a frame.
    seed : int
    """
    probe, first, positions, size = _on_pixels(side, step, frame, seed)
    truth = _specimen(size, seed, (0.2, 1.0))
    made = simulate(truth, probe, positions, noise="poisson", mean_counts=mean_counts, seed=seed)
    problem = Problem.from_dataset(made.dataset)
    power = mean_power(problem)
    start = scaled_probe(first[None], power)
    about = (
        f"{len(problem)} positions of {frame}x{frame} px, {step} px apart, on an object of "
        f"{size}x{size} px; Poisson noise, "
        f"{mean_counts:g} counts a frame; R of the true object is "
        f"{residual(problem, truth, made.probe):.4f}"
    )
    lit = illuminated(problem, made.probe)
    first_object = initial_object(problem, start, power)
    return Bench(made.dataset, problem, truth, first_object, start, lit, about)


def make_measured(
    *,
    side: int = 11,
    step: float = 6.0,
    frame: int = 64,
    mean_counts: float = 1e5,
    error: float = 1.0,
    seed: int = 0,
) -> Bench:
    """A raster with 1.5 px of jitter, three modes, and stated positions that are `error` px off,
    rms, in random directions.

    Parameters
    ----------
    side : int
        Positions a side.
    step : float
        Between them, px.
    frame : int
        Side of the frames, px.
    mean_counts : float
        Of a frame.
    error : float
    seed : int
    """
    probe, first = _probes(frame)
    modes = started(probe[None], 3)
    modes *= np.sqrt(np.array(POWERS) / (np.abs(modes) ** 2).sum(axis=(1, 2)))[:, None, None]
    positions = scan.raster(side, step, jitter=1.5, whole=False, seed=seed)
    size = _size(positions, frame, MARGIN)
    truth = _specimen(size, seed, (0.6, 1.0))
    made = simulate(truth, modes, positions, noise="poisson", mean_counts=mean_counts, seed=seed)
    off = np.random.default_rng([seed, 1]).normal(0, error / np.sqrt(2), positions.shape)
    true = Problem.from_dataset(made.dataset)
    problem = Problem.from_dataset(replace(made.dataset, positions=made.dataset.positions + off))
    power = mean_power(problem)
    start = scaled_probe(started(first[None], 3), power)
    about = (
        f"{len(problem)} positions of {frame}x{frame} px, {step:g} px apart, on an object of "
        f"{size}x{size} px; modes of {', '.join(f'{100 * p:g}' for p in POWERS)} % of the light, "
        f"stated positions {_spread(off):.2f} px off (rms); Poisson noise, {mean_counts:g} counts "
        f"a frame; R of the true object is {residual(true, truth, made.probe):.4f}"
    )
    lit = illuminated(true, made.probe)
    first_object = initial_object(problem, start, power)
    return Bench(
        made.dataset, problem, truth, first_object, start, lit, about, "measured", true.positions
    )


def make_thick(
    *,
    side: int = 10,
    step: int = 6,
    frame: int = 64,
    mean_counts: float = 1e6,
    gap: float = GAP,
    seed: int = 0,
) -> Bench:
    """A raster of whole-pixel positions over two slices, from a probe that is nearly right.

    Parameters
    ----------
    side, step, frame : int
        Positions a side; step and side of the frames, px.
    mean_counts : float
        Of a frame.
    gap : float
        Wavelength times the distance of the slices over the area of an object pixel.
    seed : int
    """
    probe, first, positions, size = _on_pixels(side, step, frame, seed)
    truth = np.stack([_specimen(size, seed + 2 * s, (0.8, 1.0), np.pi / 4) for s in range(2)])
    distance = gap * PIXEL**2 / WAVELENGTH
    more: dict[str, Any] = {"wavelength": WAVELENGTH, "pixel_size": PIXEL, "spacing": distance}
    made = simulate(
        truth, probe, positions, noise="poisson", mean_counts=mean_counts, seed=seed, **more
    )
    slices = Slices((distance,), WAVELENGTH, (PIXEL, PIXEL))
    problem = replace(Problem.from_dataset(made.dataset), slices=slices)
    power = mean_power(problem)
    start = scaled_probe(first[None], power)
    lit = illuminated(replace(problem, slices=None), made.probe)
    about = (
        f"{len(problem)} positions of {frame}x{frame} px, {step} px apart, on two slices of "
        f"{size}x{size} px, {gap:g} px^2/wavelength apart; Poisson noise, {mean_counts:g} counts a "
        f"frame; R of the true object is {residual(problem, truth, made.probe):.4f}"
    )
    one = initial_object(problem, start, power)
    return Bench(made.dataset, problem, truth, np.stack([one**0.5] * 2), start, lit, about, "thick")


#: What makes each scan.
SCANS: dict[str, Callable[..., Bench]] = {
    "plain": make_bench,
    "measured": make_measured,
    "thick": make_thick,
}


def _on_pixels(
    side: int, step: int, frame: int, seed: int
) -> tuple[ComplexArray, ComplexArray, FloatArray, int]:
    """The true probe and the first guess, positions on whole pixels with two of jitter, and the
    side of an object that holds their windows.
    """
    positions = np.rint(scan.raster(side, step, jitter=2, seed=seed))
    return *_probes(frame), positions, _size(positions, frame, 4)


def _probes(frame: int) -> tuple[ComplexArray, ComplexArray]:
    """The true one and the first guess, (P, P)."""
    return (
        probes.defocused_aperture((frame, frame), 0.16 * frame, 0.75 * frame),
        probes.defocused_aperture((frame, frame), 0.15 * frame, 0.7 * frame),
    )


def _size(positions: FloatArray, frame: int, margin: int) -> int:
    return 2 * (-(-int(np.abs(positions).max() * 2 + frame + 2 * margin) // 2))


def _specimen(
    size: int, seed: int, amplitude: tuple[float, float], phase: float = np.pi / 2
) -> ComplexArray:
    shape = (size, size)
    picture, other = phantoms.texture(shape, seed), phantoms.texture(shape, seed + 1)
    return phantoms.complex_object(
        picture, other, amplitude_range=amplitude, phase_range=(0.0, phase)
    )
