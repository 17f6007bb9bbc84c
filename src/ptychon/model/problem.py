"""A data set on a pixel grid. No units beyond this point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.slices import Slices
from ..types import REAL, Array, ComplexArray, FloatArray, IntArray, PtychonError
from ..units import pretty_pair
from .grid import check_windows, pair, placed, windows
from .measured import measured
from .noise import counted, frame_variances, mean_variance, subtracted, with_background
from .propagators import FarField, NearField, Propagator, spectrum_phase
from .spread import Spread, spread_of

#: Sub-pixel shifts are rounded to 1/16 px, so that shifted probes can be kept: at most 256
#: different ones.
SHIFTS_PER_PIXEL = 16


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
    spread : Spread or None
        How light that falls on the detector is spread over its pixels; None where a pixel counts
        what falls on it.
    origin : (2,) float
        Position of object pixel [0, 0], in the units of `Dataset.positions`.
    pixel_size : (dy, dx) m or None
    measured : (N, 2) float64 or None, on the host
        Positions as the data state them, object pixels, where `corners` and `shifts` are refined
        ones; else None.
    log_scale : (N,) float32 or None, on the host
        Logarithm of the dose of each frame, as an amplitude, where an earlier run has found it.
    noise_scale : (N,) float32 or None, on the host
        By how much the noise of each frame is scaled up, as a variance: of amplitudes whose doses
        have been taken off.
    variations : (M, P, Q) complex64 and weights : (N, M) float32, or None, on the host
        How the first mode of the probe varies from frame to frame, likewise.
    slices : Slices or None
        Of a thick specimen, whose object is then (S, H, W); None is the thin one.
    wavelength : float, m, or None
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
    spread: Spread | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    pixel_size: tuple[float, float] | None = None
    measured: FloatArray | None = None
    log_scale: FloatArray | None = None
    noise_scale: FloatArray | None = None
    variations: ComplexArray | None = None
    weights: FloatArray | None = None
    slices: Slices | None = None
    wavelength: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "propagator", self.propagator.at(self.shifts))

    def __len__(self) -> int:
        return len(self.corners)

    def __repr__(self) -> str:
        (p, q), (h, w), place = self.frame_shape, self.object_shape, type(self.amplitude).__module__
        field = "near" if self.near_field else "far"
        kind = "counts" if self.counting else "intensities"
        shifts = "between pixels" if self.subpixel else "on whole pixels"
        valid = 100 * float(self.mask.mean())
        thick = "" if self.slices is None else f", {self.slices}"
        return (
            f"Problem: {len(self)} frames of {p}x{q} pixels, {field} field, roots of {kind}\n"
            f"  object {h}x{w} pixels, pixel {pretty_pair(self.pixel_size)}, positions {shifts}"
            f"{thick}\n"
            f"  mask keeps {valid:.3g} % of the pixels; arrays of {place.split('.')[0]}"
        )

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(P, Q)."""
        return int(self.amplitude.shape[1]), int(self.amplitude.shape[2])

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Of an object: (H, W), or (S, H, W) with slices."""
        return self.object_shape if self.slices is None else (len(self.slices), *self.object_shape)

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
        """Mean variance of the amplitude noise (see `noise.mean_variance`)."""
        return mean_variance(self)

    @cached_property
    def noise_shares(self) -> FloatArray | None:
        """Mean variance of the noise of each frame over that of all, (N,) float32 on the host;
        None where frames are alike.
        """
        if self.noise_scale is None:
            return None
        each: FloatArray = frame_variances(self) / max(self.noise_level, 1e-300)
        return each.astype(np.float32)

    @property
    def longer(self) -> float:
        """How many times as long as stated the distance to the detector is; 1 in the far field."""
        return float(getattr(self.propagator, "factor", 1.0))

    @cached_property
    def path(self) -> float | None:
        """Distance to the detector that the data state, m; that of the parallel beam which a cone
        beam amounts to (see `propagators`). None in the far field, or where it is not known.
        """
        phase = getattr(self.propagator, "phase", None)
        if phase is None or self.pixel_size is None or self.wavelength is None:
            return None
        metre = spectrum_phase(self.frame_shape, self.pixel_size, self.wavelength, 1.0)
        at = np.unravel_index(np.abs(metre).argmax(), metre.shape)
        return float(phase[at] / metre[at])

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
            noise_scale=None if self.noise_scale is None else self.noise_scale[index],
            weights=None if self.weights is None else self.weights[index],
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
            spread=None if self.spread is None else self.spread.to(backend),
            **moved,
        )

    def subtracted(self) -> Problem:
        """The same for engines that know amplitudes only (see `noise.subtracted`)."""
        return subtracted(self)

    def counted(self, pattern: Array, b: slice) -> tuple[Array, Array]:
        """`amplitude` and `counts` of measured patterns (see `noise.counted`)."""
        return counted(self, pattern, b)

    def with_background(self, background: Any, instead: bool = False) -> Problem:
        """The same counts, of which so many are no part of the wave, `instead` of those that are
        known already (see `noise.with_background`).
        """
        return with_background(self, background, instead)

    def with_distance(self, factor: float) -> Problem:
        """The same frames in the near field of a distance `factor` times as long as the data state
        (see `NearField.longer`).
        """
        assert isinstance(self.propagator, NearField)
        return replace(self, propagator=self.propagator.longer(factor))

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
        frames = measured(data)
        if len(frames.kept) < len(data):
            data = data.select(frames.kept)
        centres, shape, origin = placed(data, object_shape or data.object_shape)
        whole = np.rint(centres).astype(np.int32)
        fraction = (
            np.rint((centres - whole) * SHIFTS_PER_PIXEL) / SHIFTS_PER_PIXEL
            if subpixel
            else 0 * centres
        )
        shifts, index = np.unique(fraction.astype(REAL), axis=0, return_inverse=True)
        corners = whole - np.array([n // 2 for n in data.frame_shape], np.int32)
        check_windows(corners, data.frame_shape, shape)
        return cls(
            amplitude=frames.amplitude,
            mask=frames.mask,
            corners=np.ascontiguousarray(corners),
            shifts=shifts,
            shift_index=index.reshape(-1).astype(np.int32),
            object_shape=shape,
            propagator=_propagator(data),
            counting=data.counting and data.noise_variance is None,
            noise_variance=data.noise_variance,
            counts=frames.counts,
            background=frames.background,
            read_noise=data.read_noise or 0.0,
            spread=spread_of(data.frame_shape, data.blur, data.upsample),
            origin=origin,
            pixel_size=None if data.pixel_size is None else pair(data.pixel_size),
            wavelength=data.wavelength,
        )


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
    return NearField.through(
        spectrum_phase(data.frame_shape, pair(data.pixel_size), wavelength, distance)
    )
