"""Starting object and probe, from the data alone.

Object: constant, |O|^2 = mean_j ||y_j||^2/||P||^2, so that the first model has the right total intensity. A constant start
keeps the whole field in one phase domain; random starts nucleate many, which take long to merge.

Probe, far field: the mean frame is about |F P|^2 behind a weakly scattering object, so its root is the pupil. Its phase is
unknown; a focused probe would be smaller than the scan step wherever the microscope was defocused to make frames overlap,
so a quadratic phase is added until the probe is `SPREAD` steps wide.
Probe, near field: the root of the mean frame, propagated back.
"""

from __future__ import annotations

import numpy as np

from ..backends.base import Backend
from ..model.problem import Problem
from ..types import ComplexArray, PtychonError

#: Width of the first probe in median nearest-neighbour steps.
SPREAD = 3.0


def mean_power(problem: Problem) -> float:
    """mean_j ||y_j||^2, the mean counts of a frame over valid pixels; `problem` on the host."""
    # not a BLAS product: its sum depends on threads and alignment, and a sequential engine amplifies the last bit
    return float(sum(float((y * y).sum(dtype=np.float64)) for y in problem.amplitude) / len(problem))


def wave_power(problem: Problem) -> float:
    """The same without bias where there is a background: the clipped amplitude has too much of it."""
    if problem.counts is None:
        return mean_power(problem)
    dark = (problem.mask * np.asarray(problem.background)).sum(axis=(1, 2), dtype=np.float64)
    power = float(np.mean([n.sum(dtype=np.float64) for n in problem.counts]) - dark.mean())
    return power if power > 0 else mean_power(problem)


def scaled_probe(probe: ComplexArray, power: float) -> ComplexArray:
    """The probe times the number that makes sum |P|^2 = `power`, (K, P, Q) complex64."""
    norm = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    return np.asarray(probe * np.sqrt(power / norm), np.complex64)


def initial_object(problem: Problem, probe: ComplexArray, power: float) -> ComplexArray:
    """Constant object c with c^2 ||P||^2 = `power`, (H, W) complex64."""
    norm = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    return np.full(problem.object_shape, np.sqrt(power / norm), np.complex64)


def initial_probe(problem: Problem, backend: Backend) -> ComplexArray:
    """A first probe from the mean frame, (1, P, Q) complex64 with sum |P|^2 = mean power. `problem` on the host."""
    if problem.propagator.transfer is None:
        return focused(problem)
    local, root = problem.to(backend), _root(problem)
    wave = backend.to_host(local.propagator.backward(backend.asarray(root[None]), None, backend))
    return scaled_probe(wave, wave_power(problem))


def focused(problem: Problem, width: float = 1.0, sign: int = 1) -> ComplexArray:
    """The root of the mean frame, defocused until it is `width` times `SPREAD` steps wide, (1, P, Q) complex64.

    Parameters
    ----------
    problem : Problem
        In the far field, on the host.
    width : float
    sign : {1, -1}
        Which way: 1 is behind the focus, as a positive defocus in `probes`.
    """
    root = _root(problem)
    target = width * SPREAD * _median_step(problem)
    fy, fx = np.meshgrid(np.fft.fftfreq(root.shape[0]), np.fft.fftfreq(root.shape[1]), indexing="ij")

    def focus(curvature: float) -> ComplexArray:
        wave = np.fft.ifft2(root * np.exp(-1j * np.pi * sign * curvature * (fy**2 + fx**2)))
        return np.fft.fftshift(wave)

    # the width grows with the curvature; bisection in a bracket that reaches half the frame
    low, high = 0.0, float(min(root.shape)) ** 2
    target = min(target, min(root.shape) / 3)
    if _width(focus(0.0)) < target:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if _width(focus(middle)) < target else (low, middle)
    return scaled_probe(focus(low)[None], wave_power(problem))


def _root(problem: Problem) -> ComplexArray:
    """Root of the mean frame (P, Q)."""
    intensity, power = np.mean(np.square(problem.amplitude, dtype=np.float32), axis=0), wave_power(problem)
    if problem.counts is not None:
        dark = (problem.mask * np.asarray(problem.background)).mean(axis=0)
        intensity = np.maximum(np.mean(problem.counts, axis=0) - dark, 0)
    if power <= 0:
        raise PtychonError("all frames are zero in every valid pixel: there is nothing to start from")
    return np.asarray(np.sqrt(intensity), np.complex64)


def _width(wave: ComplexArray) -> float:
    """sqrt(2/pi) times the root of the area (sum I)^2/sum I^2, in pixels: as the rms diameter of a disc, but deaf to the faint
    tails that noise in the frames leaves everywhere."""
    intensity = np.abs(wave.astype(np.complex128)) ** 2
    return float(np.sqrt(2 / np.pi * intensity.sum() ** 2 / (intensity**2).sum()))


def _median_step(problem: Problem) -> float:
    """Median distance to the nearest other position, object pixels."""
    from scipy.spatial import cKDTree

    centres = np.unique(problem.corners + problem.shifts[problem.shift_index].astype(np.float64), axis=0)
    if len(centres) < 2:
        return 1.0
    distance, _neighbour = cKDTree(centres).query(centres, k=2)
    return float(np.median(distance[:, 1]))
