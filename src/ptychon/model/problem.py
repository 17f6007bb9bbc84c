"""A data set on a pixel grid. No units beyond this point."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..data.bad_values import ROUNDING, BadValues, Tally
from ..data.dataset import FILL, Dataset, blank_frames, unmeasured, warn_unmeasured
from ..data.lazy import parts
from ..types import REAL, Array, BoolArray, FloatArray, IntArray, PtychonError, PtychonWarning
from .grid import windows
from .noise_moments import COUNT_VARIANCE, subtracted_noise
from .propagators import FarField, NearField, Propagator, angular_spectrum

#: Sub-pixel shifts are rounded to 1/16 px, so that shifted probes can be kept: at most 256
#: different ones.
SHIFTS_PER_PIXEL = 16
#: Frames from which the variance of subtracted amplitudes is estimated.
NOISE_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an engine sees: amplitudes, windows, propagator.

    Attributes
    ----------
    amplitude : (N, P, Q) float32
        sqrt(pattern); in the far field zero frequency is at [0, 0]. Masked pixels are 0.
    mask : (1 or N, P, Q) bool
        True where a pixel is valid, ordered as `amplitude`: the mask of the data set without the
        values that `ptychon.data.bad_values` finds.
    corners : (N, 2) int32, always on the host
        Top-left object pixel of each window: round(centre) - (P//2, Q//2).
    shifts : (U, 2) float32 and shift_index : (N,) int32, on the host
        The distinct sub-pixel shifts (y, x) in [-1/2, 1/2] and which one each position has.
    object_shape : (H, W)
    propagator : Propagator
        Of this scan: it is given `shifts`.
    counting : bool
        Whether `amplitude` is the square root of Poisson counts.
    noise_variance : float or None
        Known variance of Gaussian amplitude noise.
    counts : (N, P, Q) float32 or None
        N = pattern + r^2, r being the read noise, where there is a background or read noise. N may
        be negative. `amplitude` is then that of the wave alone, sqrt(max(pattern - b, 0)), as
        engines without a likelihood of counts take it.
    background : (1, P, Q) float32 or None
        B = b + r^2, in the order of `amplitude`: N ~ Poisson(|z|^2 + B) has the mean and the
        variance of the pattern. Exact where r = 0; with read noise it is the shifted Poisson model
        (Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993)).
    read_noise : float
        r, counts.
    origin : (2,) float
        Position of object pixel [0, 0], in the units of `Dataset.positions`.
    pixel_size : (dy, dx) m or None
    measured : (N, 2) float64 or None, on the host
        Positions as the data state them, object pixels, where `corners` and `shifts` are refined
        ones; else None.
    log_scale : (N,) float32 or None, on the host
        Logarithm of the dose of each frame, as an amplitude, where an earlier run has found it.
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
    counts: Array | None = None
    background: Array | None = None
    read_noise: float = 0.0
    origin: tuple[float, float] = (0.0, 0.0)
    pixel_size: tuple[float, float] | None = None
    measured: FloatArray | None = None
    log_scale: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "propagator", self.propagator.at(self.shifts))

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(P, Q)."""
        return int(self.amplitude.shape[1]), int(self.amplitude.shape[2])

    @property
    def positions(self) -> FloatArray:
        """Probe centres (N, 2) float64 in object pixels."""
        half = np.array([n // 2 for n in self.frame_shape])
        centres: FloatArray = self.corners + half + self.shifts[self.shift_index].astype(np.float64)
        return centres

    @property
    def subpixel(self) -> bool:
        """Whether any position lies between pixels."""
        return bool(np.any(self.shifts))

    @property
    def near_field(self) -> bool:
        """Whether frames are images, each with a transfer function of its fraction; else they are
        one FFT away.
        """
        return not isinstance(self.propagator, FarField)

    @cached_property
    def noise_level(self) -> float:
        """Variance of the amplitude noise, averaged over valid pixels: what is known, 0 where
        nothing is.

        Counts have 1/4 where they are not small; a pixel that counted nothing can hardly be wrong
        by that much and takes 0, a lower bound (in a scan with mostly empty pixels 1/4 everywhere
        would excuse any misfit).
        """
        if not self.counting:
            return self.noise_variance or 0.0
        block = range(0, len(self), 64)
        total = sum(
            float((self.amplitude[i : i + 64] ** 2).clip(0, COUNT_VARIANCE).sum()) for i in block
        )
        valid = float(self.mask.sum()) * (len(self) // len(self.mask))
        return total / valid

    def mask_of(self, batch: Any) -> Array:
        """Masks of a batch, broadcastable to (B, P, Q)."""
        return self.mask if len(self.mask) == 1 else self.mask[batch]

    def select(self, index: Any) -> Problem:
        """The same problem with only some of the positions (an index array, slice or boolean
        array).
        """
        return replace(
            self,
            amplitude=self.amplitude[index],
            counts=None if self.counts is None else self.counts[index],
            mask=self.mask if len(self.mask) == 1 else self.mask[index],
            corners=self.corners[index],
            shift_index=self.shift_index[index],
            measured=None if self.measured is None else self.measured[index],
            log_scale=None if self.log_scale is None else self.log_scale[index],
        )

    def shard(self, rank: int, size: int) -> Problem:
        """The part of process `rank` of `size`: contiguous positions, as equal as can be."""
        return self.select(np.array_split(np.arange(len(self)), size)[rank])

    def to(self, backend: Any, frames: Any = None) -> Problem:
        """A copy whose large arrays live on the backend's device; with `frames` in place of
        amplitudes that stay elsewhere.
        """
        move = backend.asarray
        amplitude = move(self.amplitude) if frames is None else frames
        moved = (
            {}
            if self.counts is None
            else {"counts": move(self.counts), "background": move(self.background)}
        )
        return replace(
            self,
            amplitude=amplitude,
            mask=move(self.mask),
            propagator=self.propagator.to(backend),
            **moved,
        )

    def subtracted(self) -> Problem:
        """The same for engines that know amplitudes only, with the mean of their variance, which is
        not that of counts.
        """
        if self.counts is None or self.background is None:
            return self
        every = slice(None, None, max(1, len(self) // NOISE_FRAMES))
        amplitude = self.amplitude[every].astype(np.float64)
        valid = np.broadcast_to(self.mask_of(every), amplitude.shape)
        square, mean = subtracted_noise(amplitude, np.asarray(self.background, np.float64))
        variance = square - (mean - amplitude) ** 2
        return replace(
            self,
            counts=None,
            background=None,
            read_noise=0.0,
            counting=False,
            noise_variance=float(variance[valid].mean()),
        )

    def counted(self, pattern: Array, b: slice) -> tuple[Array, Array]:
        """`amplitude` and `counts` of measured patterns (B, P, Q), float, in the order of
        `amplitude`; on the host.
        """
        assert self.background is not None
        shift = self.read_noise**2
        dark = np.asarray(self.background, np.float64) - shift
        valid = self.mask_of(b)
        amplitude = np.where(valid, np.sqrt(np.maximum(pattern - dark, 0)), 0)
        return amplitude.astype(REAL), np.where(valid, pattern + shift, 0).astype(REAL)

    def with_background(self, background: Any) -> Problem:
        """The same counts, of which so many a pixel (a number, or (P, Q) in the order of
        `amplitude`) are no part of the wave.

        Raises
        ------
        PtychonError
            If the data are not counts, a background is known already, or it is negative.
        """
        if not self.counting:
            raise PtychonError(
                "a background in counts belongs to Poisson noise; these data are not counts"
            )
        if self.counts is not None:
            raise PtychonError("the data state their background already; do not give another")
        b = np.asarray(background, np.float64)
        if b.shape not in ((), self.frame_shape) or not (np.isfinite(b) & (b >= 0)).all():
            what = f"a number of counts, or {self.frame_shape}, not negative"
            raise PtychonError(f"the background is {background}; it must be {what}")
        known = replace(self, background=np.broadcast_to(b, (1, *self.frame_shape)).astype(REAL))
        amplitude, counts = known.counted(
            np.square(self.amplitude, dtype=np.float64), slice(0, len(self))
        )
        return replace(known, amplitude=amplitude, counts=counts)

    def with_positions(
        self,
        positions: FloatArray,
        log_scale: FloatArray | None = None,
        *,
        corners: IntArray | None = None,
        per_pixel: int | None = None,
    ) -> Problem:
        """The same frames with refined positions; `measured` keeps what the data state.

        Parameters
        ----------
        positions : (N, 2) float
            Probe centres, object pixels. Where one would put its window over the rim of the object,
            the window stays inside and the probe moves in it.
        log_scale : (N,) float, optional
        corners : (N, 2) int, optional
            Windows that were used with them, which they need not be in the middle of; default the
            nearest.
        per_pixel : int, optional
            Round them to so many parts of a pixel, for engines that keep a probe for each distinct
            shift.

        Raises
        ------
        PtychonError
            If there are not as many positions as frames, or one is not finite.
        """
        centres = np.asarray(positions, np.float64)
        if centres.shape != (len(self), 2) or not np.isfinite(centres).all():
            raise PtychonError(
                f"the refined positions have shape {centres.shape}; give ({len(self)}, 2) "
                "finite numbers"
            )
        if per_pixel is not None:
            centres = np.rint(centres * per_pixel) / per_pixel
        near = windows(centres, self.frame_shape, object_shape=self.object_shape)
        if (
            corners is None
            or np.shape(corners) != near.shape
            or np.abs(np.asarray(corners) - near).max() > 1
        ):
            corners = near
        corners = np.asarray(corners, np.int32)
        half = np.array([n // 2 for n in self.frame_shape])
        shifts, index = np.unique(
            (centres - corners - half).astype(REAL), axis=0, return_inverse=True
        )
        return replace(
            self,
            corners=np.ascontiguousarray(corners),
            shifts=shifts,
            shift_index=index.reshape(-1).astype(np.int32),
            measured=self.positions if self.measured is None else self.measured,
            log_scale=None if log_scale is None else np.asarray(log_scale, REAL),
        )

    @classmethod
    def from_dataset(
        cls, data: Dataset, *, subpixel: bool = True, object_shape: tuple[int, int] | None = None
    ) -> Problem:
        """Put a data set on a pixel grid.

        Parameters
        ----------
        data : Dataset
        subpixel : bool
            Honour fractions of a pixel (rounded to 1/16 px); False rounds positions to whole
            pixels.
        object_shape : (H, W), optional
            Overrides ``data.object_shape``. Without either, the smallest grid that holds every
            window.

        Raises
        ------
        PtychonError
            Windows outside the object, a probe larger than the object, no valid pixel, all frames
            empty.
        """
        amplitude, mask, counts, background, measured = _amplitude(data)
        if len(measured) < len(data):
            data = data.select(measured)
        shape = object_shape or data.object_shape
        centres, shape, origin = _place(data, shape)
        whole = np.rint(centres).astype(np.int32)
        fraction = (
            np.rint((centres - whole) * SHIFTS_PER_PIXEL) / SHIFTS_PER_PIXEL
            if subpixel
            else 0 * centres
        )
        shifts, index = np.unique(fraction.astype(REAL), axis=0, return_inverse=True)
        corners = whole - np.array([n // 2 for n in data.frame_shape], np.int32)
        _check_windows(corners, data.frame_shape, shape)
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
            counts=counts,
            background=background,
            read_noise=data.read_noise or 0.0,
            origin=origin,
            pixel_size=None if data.pixel_size is None else _pair(data.pixel_size),
        )


def _pair(value: Any) -> tuple[float, float]:
    y, x = np.broadcast_to(np.asarray(value, float), (2,))
    return float(y), float(x)


def _place(
    data: Dataset, shape: tuple[int, int] | None
) -> tuple[FloatArray, tuple[int, int], tuple[float, float]]:
    """Probe centres in object pixels (N, 2), the object's shape, and the position of its pixel [0,
    0].
    """
    scale = np.ones(2) if data.pixel_size is None else np.array(_pair(data.pixel_size))
    pixels = data.positions / scale
    frame = np.array(data.frame_shape)
    if shape is None:
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        extent = np.ceil(high - low).astype(int) + frame
        if np.prod(extent.astype(float)) > 2**31:
            unit = "px" if data.pixel_size is None else "m"
            raise PtychonError(
                f"the scan spans {extent[0]} x {extent[1]} object pixels "
                f"({np.ptp(data.positions, axis=0)} {unit}): "
                f"are the positions in {unit}, and is the pixel size right?"
            )
        # a whole-pixel offset keeps whole-pixel scans whole
        offset = frame // 2 - np.floor(low)
        extent = np.rint(high + offset).astype(int) - frame // 2 + frame
        shape = int(extent[0]), int(extent[1])
    else:
        shape = int(shape[0]), int(shape[1])
        if (np.array(shape) < frame).any():
            raise PtychonError(
                f"the probe is {frame[0]}x{frame[1]} px, larger than the object of "
                f"{shape[0]}x{shape[1]}"
            )
        offset = np.array(shape) // 2
    origin = -offset * scale
    return pixels + offset, shape, (float(origin[0]), float(origin[1]))


def _check_windows(corners: IntArray, frame: tuple[int, int], shape: tuple[int, int]) -> None:
    outside = (corners < 0).any(axis=1) | (corners + frame > shape).any(axis=1)
    if outside.any():
        j = int(np.flatnonzero(outside)[0])
        (y, x), (p, q) = corners[j], frame
        raise PtychonError(
            f"{int(outside.sum())} of {len(corners)} positions put the {p}x{q} window outside "
            "the object of "
            f"{shape[0]}x{shape[1]} px (first: position {j}, rows {y}..{y + p - 1}, columns "
            f"{x}..{x + q - 1}); "
            f"enlarge object_shape or leave it out"
        )


def _amplitude(
    data: Dataset,
) -> tuple[FloatArray, BoolArray, FloatArray | None, FloatArray | None, IntArray]:
    """Amplitude in float32, mask, N and B where there are any, all with zero frequency at [0, 0] in
    the far field.

    Last the numbers of the frames that were measured; the others are left out.
    """
    far = data.geometry == "far"

    def order(a: Any) -> Any:
        return np.fft.ifftshift(a, axes=(-2, -1)) if far else a

    n, (p, q) = len(data), data.frame_shape
    amplitude = np.empty((n, p, q), REAL)
    totals, blank = np.empty(n), np.empty(n, np.int8)
    r = data.read_noise or 0.0
    dark = np.zeros((), REAL) if data.background is None else np.asarray(data.background, REAL)
    shifted = r > 0 or bool(dark.any())
    counts = np.empty((n, p, q), REAL) if shifted else None
    rule = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask)
    tally, below = Tally.new(rule, (p, q)), 0.0
    for part in parts(data.patterns):
        block = np.asarray(data.patterns[part])
        mask = data.mask if data.mask is None or data.mask.ndim == 2 else data.mask[part]
        blank[part] = blank_frames(block, mask)
        if (
            blank[part] == FILL
        ).any():  # left out below, and no bad values of frames that were measured
            block = np.where((blank[part] == FILL)[:, None, None], block.dtype.type(0), block)
        bad = tally.add(block, mask)
        valid: Any = mask if bad is None else ~bad if mask is None else mask & ~bad
        if valid is not None:
            block = np.where(valid, block, 0)
        if counts is not None:
            wide = block.astype(np.float64)
            valid = True if valid is None else valid
            counts[part] = order(np.where(valid, wide + r * r, 0))
            block = np.where(valid, np.maximum(wide - dark, 0), 0).astype(REAL)
        elif rule.noise:
            below += float(np.minimum(block, 0).sum(dtype=np.float64))
            block = np.maximum(block, 0)
        totals[part] = block.sum(axis=(1, 2), dtype=np.float64)
        root = order(np.sqrt(block, dtype=REAL if block.dtype.kind != "f" else None))
        amplitude[part] = root if bad is None else np.where(order(bad), np.nan, root)
    valid = (
        np.ones((1, p, q), bool)
        if data.mask is None
        else np.ascontiguousarray(order(data.mask)).reshape(-1, p, q)
    )
    valid = _told(tally, amplitude, valid, order(~tally.ever))
    left_out = unmeasured(blank, totals)
    warn_unmeasured(left_out)
    if -below > ROUNDING * totals.sum():
        _tell_noise(rule, data)
    measured = np.flatnonzero(~left_out)
    if left_out.any():
        amplitude, counts = (
            _closed_up(amplitude, measured),
            None if counts is None else _closed_up(counts, measured),
        )
        valid = valid if len(valid) == 1 else valid[measured]
    if counts is None:
        return amplitude, valid, None, None, measured
    return (
        amplitude,
        valid,
        counts,
        np.ascontiguousarray(order(np.broadcast_to(dark + REAL.type(r * r), (1, p, q)))),
        measured,
    )


def _told(tally: Tally, amplitude: FloatArray, mask: BoolArray, good: BoolArray) -> BoolArray:
    """The mask without bad values, which are NaN in `amplitude` and become 0; they are told of.

    A frame has a mask of its own only where the bad pixels are not the same in all of them.
    """
    if not tally.ever.any():
        return mask
    whole = mask & good if tally.still else np.array(np.broadcast_to(mask, amplitude.shape))
    for part in range(0, len(amplitude), 64):
        block = amplitude[part : part + 64]
        bad = np.isnan(block)
        block[bad] = 0
        if not tally.still:
            whole[part : part + 64] &= ~bad
    if not whole.any():
        raise PtychonError(
            f"no valid pixel is left, as {tally.sentence}: wrong dataset, or a mask inverted?"
        )
    warnings.warn(tally.sentence, PtychonWarning, stacklevel=5)
    return np.ascontiguousarray(whole)


def _tell_noise(rule: BadValues, data: Dataset) -> None:
    if data.counting and data.noise_variance is None:
        remedy, unit = f"give --read-noise {rule.noise:.2g} (which engine ep uses)", " counts"
    else:
        remedy, unit = "give --gain, the units per photon or electron, and --read-noise", ""
    warnings.warn(
        f"{rule.share:.2g} of the values are negative by noise of {rule.noise:.3g}{unit} (rms) "
        "and are taken as 0, which makes "
        f"dark pixels too bright; to keep them {remedy}",
        PtychonWarning,
        stacklevel=5,
    )


def _closed_up(stack: FloatArray, which: IntArray) -> FloatArray:
    """Some frames of a stack, ascending, moved to its beginning, so that no second
    stack is needed.
    """
    for to, at in enumerate(which):
        stack[to] = stack[at]
    return stack[: len(which)]


def _propagator(data: Dataset) -> Propagator:
    if data.geometry == "far":
        return FarField()
    missing = [n for n in ("wavelength", "distance", "pixel_size") if getattr(data, n) is None]
    if missing:
        raise PtychonError(
            f"near-field data need {', '.join(missing)}: give --{missing[0].replace('_', '-')}"
        )
    wavelength, distance = (
        float(data.wavelength or 0),
        float(data.distance or 0) / data.magnification,
    )
    return NearField(
        angular_spectrum(data.frame_shape, _pair(data.pixel_size), wavelength, distance)
    )
