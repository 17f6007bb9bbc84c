"""Starting object and probe, from the data alone.

Object: constant, |O|^2 = mean_j ||y_j||^2/||P||^2, so that the first model has the right total
intensity. A constant start keeps the whole field in one phase domain; random starts nucleate many,
which take long to merge.

Probe, far field: the mean frame is about |F P|^2 behind a weakly scattering object, so its root is
the pupil. Its phase is unknown; a focused probe would be smaller than the scan step wherever the
microscope was defocused to make frames overlap, so a quadratic phase is added until the probe is
`SPREAD` steps wide. A defocus D moves a ray of frequency f by D f pixels (see
`ptychon.simulation.probes`): beyond |D| = n/(2 f) it leaves a window of n pixels, and the phase,
which is then sampled too coarsely, folds the probe into copies in the corners. So D stays below
that for 95 % of the light. Probe, near field: the root of the mean frame, propagated back.
"""

from __future__ import annotations

import math

import numpy as np

from ..backends.base import Backend
from ..data.position_table import nearest
from ..model.batch import Batch
from ..model.problem import Problem
from ..types import Array, ComplexArray, FloatArray, PtychonError

#: Width of the first probe in median nearest-neighbour steps.
SPREAD = 3.0
#: Standard deviation (px) of the Gaussian that smooths the mean frame before the edge of the pupil
#: is sought.
SMOOTH = 1.5


def mean_power(problem: Problem) -> float:
    """mean_j ||y_j||^2, the mean counts of a frame over valid pixels; `problem` on the host."""
    # not a BLAS product: its sum depends on threads and alignment, and a sequential engine
    # amplifies the last bit
    return float(
        sum(float((y * y).sum(dtype=np.float64)) for y in problem.amplitude) / len(problem)
    )


def wave_power(problem: Problem) -> float:
    """The same without bias where there is a background: the clipped amplitude has
    too much of it.
    """
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
    """A first probe from the mean frame, (1, P, Q) complex64 with sum |P|^2 = mean power. `problem`
    on the host.
    """
    if problem.propagator.transfer is None:
        return focused(problem)
    local, root = problem.to(backend), _root(problem)
    wave = backend.to_host(Batch.nowhere(local, backend).back(backend.asarray(root[None])))
    return scaled_probe(wave, wave_power(problem))


def focused(problem: Problem, width: float = 1.0, sign: int = 1) -> ComplexArray:
    """The root of the mean frame, defocused until it is `width` times `SPREAD` steps wide, (1, P,
    Q) complex64.

    Parameters
    ----------
    problem : Problem
        In the far field, on the host.
    width : float
    sign : {1, -1}
        Which way: 1 is behind the focus, as a positive defocus in `probes`.
    """
    root, ratio = _root(problem), aspect(problem)
    # bisection in a bracket whose end is where the chirp wraps; the width grows with the defocus up
    # to there
    low, high = 0.0, 0.5 * min(root.shape) / _extent(root)
    target = min(width * SPREAD * _median_step(problem), min(root.shape) / 3)
    if _width(defocused(root, 0.0)[0]) < target:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (
                (middle, high)
                if _width(defocused(root, sign * middle, ratio)[0]) < target
                else (low, middle)
            )
    return scaled_probe(defocused(root, sign * low, ratio), wave_power(problem))


def defocused(
    pupil: Array, defocus: float, ratio: tuple[float, float] = (1.0, 1.0)
) -> ComplexArray:
    """The probe of a pupil at a distance from the focus, (1, P, Q) complex64, centred at [P//2,
    Q//2].

    Parameters
    ----------
    pupil : (P, Q) array
        Zero frequency at [0, 0].
    defocus : float
        D = wavelength * distance / pixel area; > 0 is behind the focus.
    ratio : (float, float)
        Height and width of an object pixel over the root of its area.
    """
    fy, fx = (np.fft.fftfreq(n) / r for n, r in zip(pupil.shape, ratio, strict=True))
    chirp = np.exp(-1j * np.pi * defocus * (fy[:, None] ** 2 + fx[None, :] ** 2))
    return np.asarray(np.fft.fftshift(np.fft.ifft2(pupil * chirp))[None], np.complex64)


def aspect(problem: Problem) -> tuple[float, float]:
    """Height and width of an object pixel over the root of its area; 1, 1 where the scale is not
    known.
    """
    if problem.pixel_size is None:
        return 1.0, 1.0
    dy, dx = problem.pixel_size
    return math.sqrt(dy / dx), math.sqrt(dx / dy)


def sharp_pupil(problem: Problem) -> ComplexArray:
    """The root of the mean frame without what the object scatters beside the pupil, (P, Q)
    complex64.

    The mean frame is smoothed; where it is below half of what most of the light has, the edge of
    the pupil is taken to be.
    """
    seen = problem.mask.any(axis=0).astype(np.float64)
    light = np.abs(_root(problem).astype(np.complex128)) ** 2
    # rounding of transforms leaves less than nothing where it is dark
    mean = np.maximum(_smoothed(light, SMOOTH), 0) / np.maximum(_smoothed(seen, SMOOTH), 0.05)
    order = np.sort(mean, axis=None)[::-1]
    level = order[np.searchsorted(np.cumsum(order), 0.5 * order.sum())]
    return np.asarray(np.clip(2 * mean / level - 0.5, 0, 1) * np.sqrt(mean), np.complex64)


def _smoothed(picture: FloatArray, sigma: float) -> FloatArray:
    """A periodic picture convolved with a Gaussian, as `scipy.ndimage.gaussian_filter` does, whose
    import takes longer than the search for a probe.
    """
    near = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weight = np.exp(-((near / sigma) ** 2) / 2)
    for axis, n in enumerate(picture.shape):
        kernel = np.bincount(near % n, weight / weight.sum(), n)
        spectrum = np.fft.fft(picture, axis=axis).T * np.fft.fft(kernel)[(...,) + (None,) * axis]
        picture = np.fft.ifft(spectrum.T, axis=axis).real
    return picture


def centred(probe: ComplexArray) -> ComplexArray:
    """The probe moved by whole pixels so that its light is in the middle of its window, (K, P, Q).

    The window is periodic: a probe in its corners is whole again in the middle. The centre is that
    of the circular mean, the angle of sum |P|^2 exp(2 pi i y/n).
    """
    light = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    shift = []
    for axis, n in enumerate(light.shape):
        moment = (light.sum(axis=1 - axis) * np.exp(2j * np.pi * np.arange(n) / n)).sum()
        # light spread evenly over the window has no centre
        known = abs(moment) > 1e-3 * light.sum()
        shift.append(round(n // 2 - np.angle(moment) * n / (2 * np.pi)) if known else 0)
    return np.roll(probe, shift, axis=(-2, -1))


def _root(problem: Problem) -> ComplexArray:
    """Root of the mean frame (P, Q); a pixel's mean is over the frames in which it is valid."""
    power, valid = (
        wave_power(problem),
        np.maximum(problem.mask.mean(axis=0, dtype=np.float64), 1 / len(problem)),
    )
    intensity = np.mean(np.square(problem.amplitude, dtype=np.float32), axis=0)
    if problem.counts is not None:
        dark = (problem.mask * np.asarray(problem.background)).mean(axis=0)
        intensity = np.maximum(np.mean(problem.counts, axis=0) - dark, 0)
    if power <= 0:
        raise PtychonError(
            "all frames are zero in every valid pixel: there is nothing to start from"
        )
    return np.asarray(np.sqrt(intensity / valid), np.complex64)


def _extent(root: ComplexArray) -> float:
    """Frequency within which 95 % of the light is, cycles/px, at most 0.5."""
    f = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in root.shape), indexing="ij")).ravel()
    order = np.argsort(f, kind="stable")
    inside = np.cumsum(np.abs(root.ravel()[order].astype(np.complex128)) ** 2)
    return float(
        np.clip(f[order[np.searchsorted(inside, 0.95 * inside[-1])]], 0.5 / min(root.shape), 0.5)
    )


def _width(wave: ComplexArray) -> float:
    """sqrt(2/pi) times the root of the area (sum I)^2/sum I^2, in pixels: as the rms diameter of a
    disc, but deaf to the faint tails that noise in the frames leaves everywhere."""
    intensity = np.abs(wave.astype(np.complex128)) ** 2
    return float(np.sqrt(2 / np.pi * intensity.sum() ** 2 / (intensity**2).sum()))


def _median_step(problem: Problem) -> float:
    """Median distance to the nearest other position, object pixels."""
    centres = np.unique(
        problem.corners + problem.shifts[problem.shift_index].astype(np.float64), axis=0
    )
    places = np.asarray(centres, np.float64)
    return float(np.median(nearest(places, len(places)))) if len(places) > 1 else 1.0
