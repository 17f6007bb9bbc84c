"""A data set on a pixel grid. No units beyond this point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from .dataset import Dataset, check_patterns, check_totals
from .forward import FarField, NearField, Propagator, angular_spectrum
from .types import REAL, Array, BoolArray, FloatArray, IntArray, PtychonError

#: Sub-pixel shifts are rounded to 1/16 px, so that shifted probes can be kept: at most 256 different ones.
SHIFTS_PER_PIXEL = 16
#: Variance of the square root of a Poisson count (Anscombe 1948).
COUNT_VARIANCE = 1 / 4
#: Bytes of frames that are read from disk at a time.
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an engine sees: amplitudes, windows, propagator.

    Attributes
    ----------
    amplitude : (N, P, Q) float32
        sqrt(pattern); in the far field zero frequency is at [0, 0]. Masked pixels are 0.
    mask : (1 or N, P, Q) bool
        True where a pixel is valid, ordered as `amplitude`.
    corners : (N, 2) int32, always on the host
        Top-left object pixel of each window: round(centre) - (P//2, Q//2).
    shifts : (U, 2) float32 and shift_index : (N,) int32, on the host
        The distinct sub-pixel shifts (y, x) in [-1/2, 1/2] and which one each position has.
    object_shape : (H, W)
    propagator : Propagator
    counting : bool
        Whether `amplitude` is the square root of Poisson counts.
    noise_variance : float or None
        Known variance of Gaussian amplitude noise.
    origin : (2,) float
        Position of object pixel [0, 0], in the units of `Dataset.positions`.
    pixel_size : (dy, dx) m or None
    """

    amplitude: Array
    mask: Array
    corners: IntArray
    shifts: FloatArray
    shift_index: IntArray
    object_shape: tuple[int, int]
    propagator: Propagator = field(default_factory=FarField)
    counting: bool = True
    noise_variance: float | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    pixel_size: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(P, Q)."""
        return int(self.amplitude.shape[1]), int(self.amplitude.shape[2])

    @property
    def subpixel(self) -> bool:
        """Whether any position lies between pixels."""
        return bool(np.any(self.shifts))

    @cached_property
    def noise_level(self) -> float:
        """Variance of the amplitude noise, averaged over valid pixels: what is known, 0 where nothing is.

        Counts have 1/4 where they are not small; a pixel that counted nothing can hardly be wrong by that much and takes 0,
        a lower bound (in a scan with mostly empty pixels 1/4 everywhere would excuse any misfit).
        """
        if not self.counting:
            return self.noise_variance or 0.0
        block = range(0, len(self), 64)
        total = sum(float((self.amplitude[i : i + 64] ** 2).clip(0, COUNT_VARIANCE).sum()) for i in block)
        valid = float(self.mask.sum()) * (len(self) // len(self.mask))
        return total / valid

    def mask_of(self, batch: Any) -> Array:
        """Masks of a batch, broadcastable to (B, P, Q)."""
        return self.mask if len(self.mask) == 1 else self.mask[batch]

    def select(self, index: Any) -> Problem:
        """The same problem with only some of the positions (an index array, slice or boolean array)."""
        return replace(
            self,
            amplitude=self.amplitude[index],
            mask=self.mask if len(self.mask) == 1 else self.mask[index],
            corners=self.corners[index],
            shift_index=self.shift_index[index],
        )

    def shard(self, rank: int, size: int) -> Problem:
        """The part of process `rank` of `size`: contiguous positions, as equal as can be."""
        return self.select(np.array_split(np.arange(len(self)), size)[rank])

    def to(self, backend: Any, frames: Any = None) -> Problem:
        """A copy whose large arrays live on the backend's device; with `frames` in place of amplitudes that stay elsewhere."""
        move = backend.asarray
        propagator = self.propagator
        if propagator.transfer is not None:
            propagator = NearField(move(propagator.transfer))
        amplitude = move(self.amplitude) if frames is None else frames
        return replace(self, amplitude=amplitude, mask=move(self.mask), propagator=propagator)

    def placed(self, backend: Any, engine: Any, modes: int) -> Problem:
        """The same for a run of an engine with so many probe modes: frames may stay on the host if the device is too small."""
        found: Problem | None = backend.place(self, engine, modes)
        return self.to(backend) if found is None else found

    @classmethod
    def from_dataset(
        cls, data: Dataset, *, subpixel: bool = True, object_shape: tuple[int, int] | None = None
    ) -> Problem:
        """Put a data set on a pixel grid.

        Parameters
        ----------
        data : Dataset
        subpixel : bool
            Honour fractions of a pixel (rounded to 1/16 px); False rounds positions to whole pixels.
        object_shape : (H, W), optional
            Overrides ``data.object_shape``. Without either, the smallest grid that holds every window.

        Raises
        ------
        PtychonError
            Windows outside the object, a probe larger than the object, NaN or negative counts, all frames empty.
        """
        shape = object_shape or data.object_shape
        centres, shape, origin = _place(data, shape)
        whole = np.rint(centres).astype(np.int32)
        fraction = np.rint((centres - whole) * SHIFTS_PER_PIXEL) / SHIFTS_PER_PIXEL if subpixel else 0 * centres
        shifts, index = np.unique(fraction.astype(REAL), axis=0, return_inverse=True)
        corners = whole - np.array([n // 2 for n in data.frame_shape], np.int32)
        _check_windows(corners, data.frame_shape, shape)
        amplitude, mask = _amplitude(data)
        return cls(
            amplitude=amplitude,
            mask=mask,
            corners=np.ascontiguousarray(corners),
            shifts=shifts,
            shift_index=index.reshape(-1).astype(np.int32),
            object_shape=shape,
            propagator=_propagator(data),
            counting=data.counting and data.noise_variance is None,
            noise_variance=data.noise_variance,
            origin=origin,
            pixel_size=None if data.pixel_size is None else _pair(data.pixel_size),
        )


def _pair(value: Any) -> tuple[float, float]:
    y, x = np.broadcast_to(np.asarray(value, float), (2,))
    return float(y), float(x)


def _place(
    data: Dataset, shape: tuple[int, int] | None
) -> tuple[FloatArray, tuple[int, int], tuple[float, float]]:
    """Probe centres in object pixels (N, 2), the object's shape, and the position of its pixel [0, 0]."""
    scale = np.ones(2) if data.pixel_size is None else np.array(_pair(data.pixel_size))
    pixels = data.positions / scale
    frame = np.array(data.frame_shape)
    if shape is None:
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        extent = np.ceil(high - low).astype(int) + frame
        if np.prod(extent.astype(float)) > 2**31:
            unit = "px" if data.pixel_size is None else "m"
            raise PtychonError(
                f"the scan spans {extent[0]} x {extent[1]} object pixels ({np.ptp(data.positions, axis=0)} {unit}): "
                f"are the positions in {unit}, and is the pixel size right?"
            )
        # a whole-pixel offset keeps whole-pixel scans whole
        offset = frame // 2 - np.floor(low)
        extent = np.rint(high + offset).astype(int) - frame // 2 + frame
        shape = int(extent[0]), int(extent[1])
    else:
        shape = int(shape[0]), int(shape[1])
        if (np.array(shape) < frame).any():
            raise PtychonError(f"the probe is {frame[0]}x{frame[1]} px, larger than the object of {shape[0]}x{shape[1]}")
        offset = np.array(shape) // 2
    origin = -offset * scale
    return pixels + offset, shape, (float(origin[0]), float(origin[1]))


def _check_windows(corners: IntArray, frame: tuple[int, int], shape: tuple[int, int]) -> None:
    outside = (corners < 0).any(axis=1) | (corners + frame > shape).any(axis=1)
    if outside.any():
        j = int(np.flatnonzero(outside)[0])
        (y, x), (p, q) = corners[j], frame
        raise PtychonError(
            f"{int(outside.sum())} of {len(corners)} positions put the {p}x{q} window outside the object of "
            f"{shape[0]}x{shape[1]} px (first: position {j}, rows {y}..{y + p - 1}, columns {x}..{x + q - 1}); "
            f"enlarge object_shape or leave it out"
        )


def _amplitude(data: Dataset) -> tuple[FloatArray, BoolArray]:
    """sqrt(patterns) in float32 and the mask, both with zero frequency at [0, 0] in the far field."""
    far = data.geometry == "far"

    def order(a: Any) -> Any:
        return np.fft.ifftshift(a, axes=(-2, -1)) if far else a

    n, (p, q) = len(data), data.frame_shape
    amplitude = np.empty((n, p, q), REAL)
    totals = np.empty(n)
    step = max(1, BLOCK_BYTES // (p * q * 4))
    for first in range(0, n, step):
        block = np.asarray(data.patterns[first : first + step])
        mask = data.mask if data.mask is None or data.mask.ndim == 2 else data.mask[first : first + step]
        check_patterns(block, first, mask)
        if mask is not None:
            block = np.where(mask, block, 0)
        totals[first : first + step] = block.sum(axis=(1, 2), dtype=np.float64)
        amplitude[first : first + step] = order(np.sqrt(block, dtype=REAL if block.dtype.kind != "f" else None))
    check_totals(totals)
    mask = np.ones((1, p, q), bool) if data.mask is None else np.ascontiguousarray(order(data.mask)).reshape(-1, p, q)
    return amplitude, mask


def _propagator(data: Dataset) -> Propagator:
    if data.geometry == "far":
        return FarField()
    missing = [n for n in ("wavelength", "distance", "pixel_size") if getattr(data, n) is None]
    if missing:
        raise PtychonError(f"near-field data need {', '.join(missing)}: give --{missing[0].replace('_', '-')}")
    wavelength, distance = float(data.wavelength or 0), float(data.distance or 0) / data.magnification
    return NearField(angular_spectrum(data.frame_shape, _pair(data.pixel_size), wavelength, distance))
