"""An earlier result on the grid of other data: another part, crop or binning of the scan, or other
units of its counts.

The object goes where its origin says and is resampled to the pixel of the new grid; where it was
not lit it is a constant. The probe keeps its centre. What comes out is scaled so that its model has
the power of the new data. A result on the very grid of the data is left as it is, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..io.hdf5 import PathLike
from ..io.probe import read_probe
from ..model.problem import Problem
from ..model.simulated import model_of
from ..types import ComplexArray, FloatArray, PtychonError
from .guess import wave_power

#: Formats of other packages that store positions without their origin.
_WITHOUT_ORIGIN = ("PtyLab", "fold_slice")
#: Pixels by which places may differ and still be the same.
SAME = 0.02
#: Share of the brightest light below which an object is not known.
DIM = 0.01
#: Amplitude of the model against that of the data within which nothing is rescaled: the mean of a
#: posterior is weaker than what was measured, by 1.4 at 0.02 counts a pixel, and that is no unit.
RESCALED = 2.0
#: Where the zero frequency may lie beside its pixel: binning by 2, 3, 4 puts it there by 1/4, 1/3,
#: 3/8 of a pixel.
MIDDLES = (0.0, -0.25, 0.25, -0.36, 0.36, -0.5, 0.5)
#: Frames from which these are judged.
FRAMES = 32


@dataclass(frozen=True)
class Placed:
    """An earlier result on another grid.

    Attributes
    ----------
    object : (H, W) or (S, H, W) complex64
    probe : (K, P, Q) complex64
    covered : float
        Share of the new light that falls where the earlier object is known.
    said : str
        What was done, for people; empty where nothing was.
    """

    object: ComplexArray
    probe: ComplexArray
    covered: float = 1.0
    said: str = ""


@dataclass(frozen=True)
class _Grids:
    """Pixel k of the new grid is pixel `offset` + k `ratio` of the old one, along each axis."""

    offset: FloatArray
    ratio: FloatArray

    @property
    def whole(self) -> bool:
        return bool(
            np.all(self.ratio == 1) and np.all(np.abs(self.offset - np.rint(self.offset)) < SAME)
        )


def placed(start: Result, problem: Problem) -> Placed:
    """Object and probe of an earlier result on the grid of a problem.

    Parameters
    ----------
    start : Result
    problem : Problem
        On the host.

    Raises
    ------
    PtychonError
        If its scale and that of the data cannot be compared, or they have no place in common.
    """
    problem = replace(problem, slices=None)
    if start.object.ndim == 3:
        each = [placed(replace(start, object=layer), problem) for layer in start.object]
        return replace(each[0], object=np.stack([one.object for one in each]))
    same_probe = start.probe.shape[-2:] == problem.frame_shape
    grids = _grids(start, problem, same_probe)
    if (
        grids.whole
        and not grids.offset.any()
        and same_probe
        and start.object.shape == problem.object_shape
    ):
        return Placed(start.object, start.probe)
    object, known = _object(start, problem, grids)
    probe = fitted_probe(start.probe, grids.ratio, problem.frame_shape)
    light, (p, q) = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64), problem.frame_shape
    covered = float(
        np.mean([(light * known[y : y + p, x : x + q]).sum() for y, x in problem.corners.tolist()])
        / light.sum()
    )
    if covered < DIM:
        raise PtychonError(
            f"the result to start from lies elsewhere: {_extent(start.object.shape, start)}, "
            "these data "
            f"{_extent(problem.object_shape, problem)}; start without it, or give positions "
            "with the same origin"
        )
    said = f"the result to start from covers {covered:.0%} of what is lit"
    if grids.offset.any():
        said += ", moved by {:.4g}, {:.4g} px".format(*(-grids.offset / grids.ratio))
    if np.any(grids.ratio != 1):
        said += f", resampled to pixels {math.sqrt(grids.ratio.prod()):.4g} times as large"
    if not same_probe and problem.propagator.transfer is None:
        probe = _centred(problem, object, probe)
    return Placed(object, probe, covered, said)


def _grids(start: Result, problem: Problem, same_probe: bool) -> _Grids:
    old, new = start.pixel_size, problem.pixel_size
    ratio: FloatArray = np.ones(2)
    if old is not None and new is not None:
        ratio = _ratio(old, new, problem.object_shape)
    elif not same_probe:
        raise PtychonError(
            f"the result to start from has a probe of {_size(start.probe.shape[-2:])} px and "
            "these frames are "
            f"{_size(problem.frame_shape)}, and {_whose(old, new)} pixel size is known: give "
            "--pixel-size, or crop as it was"
        )
    if (
        start.settings.get("format") in _WITHOUT_ORIGIN
        and (moved := _same_scan(start, problem, ratio)) is not None
    ):
        return _Grids(moved, ratio)
    if (old is None) != (new is None):
        moved = _same_scan(start, problem, ratio)
        if moved is None and start.object.shape == problem.object_shape:
            moved = np.zeros(2)
        if moved is None:
            raise PtychonError(
                f"the result to start from has an object of {_size(start.object.shape)} px and "
                "these data need "
                f"{_size(problem.object_shape)}, and {_whose(old, new)} pixel size is known: "
                "give --pixel-size"
            )
        return _Grids(moved, ratio)
    if (
        not len(start.positions)
        and start.origin == (0.0, 0.0)
        and start.object.shape == problem.object_shape
    ):
        return _Grids(np.zeros(2), ratio)  # it says nothing of where it lies
    offset = (np.array(problem.origin) - np.array(start.origin)) / (
        1.0 if old is None else np.array(old)
    )
    near = np.abs(offset - np.rint(offset)) < SAME
    return _Grids(np.where(near & (ratio == 1), np.rint(offset), offset), ratio)


def _same_scan(start: Result, problem: Problem, ratio: FloatArray) -> FloatArray | None:
    """The offset between the grids if both have the same positions, frame by frame; None if they
    have not.
    """
    if len(start.positions) != len(problem):
        return None
    centres = (
        problem.corners
        + np.array(problem.frame_shape) // 2
        + problem.shifts[problem.shift_index].astype(float)
    )
    apart = start.positions - centres * ratio
    offset: FloatArray = np.median(apart, axis=0)
    if np.median(np.abs(apart - offset)) > 1:
        return None
    # the middles of positions that were rounded differently
    return np.where(np.abs(offset - np.rint(offset)) < 0.1, np.rint(offset), offset)


def _object(start: Result, problem: Problem, grids: _Grids) -> tuple[ComplexArray, Any]:
    """The object on the new grid, and where it is known."""
    old, shape = np.asarray(start.object), problem.object_shape
    lit = np.ones(old.shape, bool)
    if len(start.positions):
        light = start.illumination
        lit = light > DIM * light.max()
    bright = old[start.illuminated] if len(start.positions) and start.illuminated.any() else old
    mean = complex(bright.mean())
    rest = float(np.median(np.abs(bright))) * (mean / abs(mean) if abs(mean) > 0 else 1)
    if grids.whole:
        moved, known = np.full(shape, rest, np.complex64), np.zeros(shape, bool)
        (y, x), (h, w) = np.rint(grids.offset).astype(int).tolist(), old.shape
        into = (
            slice(max(-y, 0), max(min(h - y, shape[0]), 0)),
            slice(max(-x, 0), max(min(w - x, shape[1]), 0)),
        )
        out = slice(into[0].start + y, into[0].stop + y), slice(into[1].start + x, into[1].stop + x)
        if into[0].start < into[0].stop and into[1].start < into[1].stop:
            known[into] = lit[out]
            moved[into] = np.where(lit[out], old[out], np.complex64(rest))
        return moved, known
    from scipy.ndimage import map_coordinates

    axes = [grids.offset[k] + np.arange(shape[k]) * grids.ratio[k] for k in (0, 1)]
    where = np.meshgrid(*axes, indexing="ij")
    known = map_coordinates(lit.astype(np.float32), where, order=1, cval=0.0) > 0.99
    found = _resampled(np.where(lit, old, np.complex64(rest)), where, grids.ratio, mode="nearest")
    return np.where(known, found, np.complex64(rest)).astype(np.complex64), known


def _resampled(field: ComplexArray, where: Any, ratio: FloatArray, mode: str) -> ComplexArray:
    """A field at other places, by cubic splines; averaged first where its new pixels are larger."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    wide = 0.42 * np.sqrt(np.maximum(ratio**2 - 1, 0))  # standard deviation of a pixel so wide
    parts = [np.ascontiguousarray(part, np.float64) for part in (field.real, field.imag)]
    if wide.any():
        parts = [gaussian_filter(part, wide, mode=mode) for part in parts]
    real, imag = (map_coordinates(part, where, order=3, mode=mode, cval=0.0) for part in parts)
    return np.asarray(real + 1j * imag, np.complex64)


def fitted_probe(probe: ComplexArray, ratio: FloatArray, shape: tuple[int, int]) -> ComplexArray:
    """A probe (K, P, Q) about its centre on windows of another shape, whose pixels are `ratio`
    times as large.

    The light is kept, but for what falls outside. Where the window stays as wide as it was, as with
    a crop of the detector, its Fourier coefficients are cut or padded, which is exact; else it is
    interpolated.
    """
    old = np.array(probe.shape[-2:])
    if np.all(ratio == 1):
        return _cut(probe, shape)
    if np.all(np.abs(np.array(shape) * ratio - old) < SAME * ratio):
        spectrum = np.fft.fftshift(
            np.fft.fft2(np.fft.ifftshift(probe, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
        )
        waves = np.fft.ifft2(np.fft.ifftshift(_cut(spectrum, shape), axes=(-2, -1)), norm="ortho")
        return np.asarray(np.fft.fftshift(waves, axes=(-2, -1)), np.complex64)
    axes = [old[k] // 2 + (np.arange(shape[k]) - shape[k] // 2) * ratio[k] for k in (0, 1)]
    where = np.meshgrid(*axes, indexing="ij")
    modes = [_resampled(mode, where, ratio, mode="constant") for mode in probe]
    return np.asarray(np.stack(modes) * math.sqrt(ratio.prod()), np.complex64)


def probe_for(data: Dataset, path: PathLike) -> ComplexArray:
    """The probe in a file on the windows of a data set: resampled about its centre where it was
    found with other pixels.

    Parameters
    ----------
    data : Dataset
    path : path
        As `io.probe.read_probe` takes it.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or holds no probe.
    """
    probe, size = read_probe(path)
    if size is None or data.pixel_size is None:
        return probe  # whoever takes it says whether it fits
    return fitted_probe(probe, _ratio(size, data.pixel_size, data.frame_shape), data.frame_shape)


def _ratio(old: Any, new: Any, shape: tuple[int, int]) -> FloatArray:
    """New pixel size over old; 1 where the difference moves nothing on a grid of that shape."""
    ratio = np.array(new) / np.array(old)
    return np.where(np.abs(ratio - 1) * max(shape) < SAME, 1.0, ratio)


def _cut(field: ComplexArray, shape: tuple[int, int]) -> ComplexArray:
    """Cut or padded with zeros about the centre [P//2, Q//2]."""
    out = np.zeros((*field.shape[:-2], *shape), field.dtype)
    into, source = [], []
    for n, m in zip(field.shape[-2:], shape, strict=True):
        low = n // 2 - m // 2  # where the first pixel of the new window is in the old
        into.append(slice(max(-low, 0), min(n - low, m)))
        source.append(slice(max(low, 0), min(n, m + low)))
    out[..., into[0], into[1]] = field[..., source[0], source[1]]
    return out


def rescaling(problem: Problem, object: ComplexArray, probe: ComplexArray) -> float:
    """What brings the amplitude of a model to that of the data; 1 where it is not far from it.

    Parameters
    ----------
    problem : Problem
        On the host. Some of its frames are compared in their valid pixels.
    object : (H, W) complex
    probe : (K, P, Q) complex
    """
    part, model = _some(problem), 0.0
    for j in range(len(part)):
        one = slice(j, j + 1)
        waves = model_of(part, object, probe, one, get_backend("reference"))
        model += float((np.square(waves) * part.mask_of(one)).sum(dtype=np.float64))
    factor = math.sqrt(wave_power(part) * len(part) / model) if model > 0 else 1.0
    return (
        factor
        if not 1 / RESCALED < factor < RESCALED and math.isfinite(factor) and factor > 0
        else 1.0
    )


def _centred(problem: Problem, object: ComplexArray, probe: ComplexArray) -> ComplexArray:
    """The probe with the ramp that brings the zero frequency of its model where the frames have it.

    Binning puts it between pixels.
    """
    part = _some(problem)
    p, q = part.frame_shape
    y, x = (np.arange(n) - n // 2 for n in (p, q))
    valid = np.broadcast_to(part.mask_of(slice(None)), part.amplitude.shape)
    best, least = probe, math.inf
    for dy in MIDDLES:
        for dx in MIDDLES:
            ramp = np.exp(2j * np.pi * (dy * y[:, None] / p + dx * x[None] / q))
            trial = np.asarray(probe * ramp, np.complex64)
            left = 0.0
            for j in range(len(part)):
                one = slice(j, j + 1)
                model = model_of(part, object, trial, one, get_backend("reference"))
                left += float(
                    (np.square(model - part.amplitude[one]) * valid[one]).sum(dtype=np.float64)
                )
            if left < least:
                best, least = trial, left
    return best


def _some(problem: Problem) -> Problem:
    """At most `FRAMES` frames, from the whole scan; how the probe varies has the scale of another
    probe than that which is compared.
    """
    some = problem.select(np.unique(np.linspace(0, len(problem) - 1, FRAMES).astype(int)))
    return replace(some, variations=None, weights=None)


def _size(shape: Any) -> str:
    return f"{shape[0]} x {shape[1]}"


def _whose(old: Any, new: Any) -> str:
    return "neither" if old is None and new is None else "only one"


def _extent(shape: Any, grid: Result | Problem) -> str:
    """Rows and columns that a grid spans, in the units of its origin."""
    unit, scale = ("px", (1.0, 1.0)) if grid.pixel_size is None else ("um", grid.pixel_size)
    factor = 1.0 if grid.pixel_size is None else 1e6
    rows, columns = (
        f"{grid.origin[k] * factor:.4g} to "
        f"{(grid.origin[k] + (shape[k] - 1) * scale[k]) * factor:.4g} {unit}"
        for k in (0, 1)
    )
    return f"rows {rows} and columns {columns}"
