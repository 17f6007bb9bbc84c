"""What was measured, in SI units, or in object pixels throughout when no scale is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..types import Array, BoolArray, ComplexArray, FloatArray, PtychonError
from ..units import pretty, pretty_pair
from .bad_values import BadValues
from .blank import blank_frames, unmeasured
from .lazy import Frames, Gridded, Selected, Sliced, parts

Geometry = Literal["far", "near"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A ptychographic scan as it was measured. Immutable.

    Parameters
    ----------
    patterns : (N, P, Q) or (rows, columns, P, Q) array of any real dtype
        Intensities; of a scan in rows and columns, row by row. Zero frequency at ``[P//2,
        Q//2]`` in the far field; plain images in the near field. Anything with ``shape``,
        ``dtype`` and slicing along the first axis will do (an open HDF5 dataset, say): it is
        read in blocks. Of a NumPy masked array the mask is taken along. Values that are no
        measurement (NaN, -1 in a gap, the end of the range of an integer type: see
        `ptychon.data.bad_values`) are left out frame by frame when the scan is put on a grid. A
        list or a generator of frames is put into one array.
    positions : (N, 2) or (rows, columns, 2) float array
        Centre of the probe on the object, (y, x): metres where `pixel_size` is known, else object
        pixels. They are relative to the centre pixel ``[H//2, W//2]`` of the object if
        `object_shape` is given, else up to an offset.
    pixel_size : float or (dy, dx), optional
        Pixel of the *object* (m). Derived from wavelength, distance and detector pixel where those
        are known.
    detector_pixel_size : float or (dy, dx), optional
        Pixel of the detector (m).
    wavelength, distance : float, optional
        Wavelength (m) and distance from sample to detector (m).
    focus_distance : float, optional
        Near field only: distance from the focus to the sample (m). It gives the magnification
        M = (focus_distance + distance)/focus_distance; None is a parallel beam (M = 1).
    geometry : {"far", "near"}
    mask : (P, Q) or (N, P, Q) bool array, optional
        True where a detector pixel is valid, in all frames or frame by frame.
    counting : bool
        True if the patterns are counts (Poisson statistics).
    noise_variance : float, optional
        Variance of Gaussian noise on the *amplitude* sqrt(pattern), if it is known and the patterns
        are not counts.
    background : float or (P, Q) array, optional
        Mean counts a pixel that do not come from the wave and are still in the patterns: dark
        counts, scatter.
    read_noise : float, optional
        Standard deviation (counts) of Gaussian noise that the detector's electronics add to each
        pixel; values may then be negative and not whole.
    blur : float, optional
        Standard deviation (pixels) of the Gaussian by which the detector spreads what falls on one
        pixel over others.
    upsample : int
        Only every n-th pixel along each axis holds a measurement, the sum of n x n around it,
        n being this number; see `Preparation.upsample`.
    saturation : float, optional
        Largest value that is a measurement, in the units of the patterns; larger ones are bad.
    object_shape : (H, W), optional
        Size of the object grid (pixels). Without it the smallest grid that holds every window is
        used.
    probe : (P, Q) or (K, P, Q) complex array, optional
        A first guess of the probe in the object plane, centred at ``[P//2, Q//2]``.
    name : str
    notes : mapping
        Anything else worth keeping: how the data were prepared, where they came from.

    Raises
    ------
    PtychonError
        If shapes disagree or a number is impossible; the message names the thing, both numbers and
        the remedy.
    """

    patterns: Array
    positions: FloatArray
    pixel_size: tuple[float, float] | float | None = None
    detector_pixel_size: tuple[float, float] | float | None = None
    wavelength: float | None = None
    distance: float | None = None
    focus_distance: float | None = None
    geometry: Geometry = "far"
    mask: BoolArray | None = None
    counting: bool = True
    noise_variance: float | None = None
    background: FloatArray | float | None = None
    read_noise: float | None = None
    blur: float | None = None
    upsample: int = 1
    saturation: float | None = None
    object_shape: tuple[int, int] | None = None
    probe: ComplexArray | None = None
    name: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (hasattr(self.patterns, "shape") and hasattr(self.patterns, "dtype")):
            self._set("patterns", _stacked(self.patterns))
        self._take_masked_array()
        self._take_grid()
        if len(self.patterns.shape) == 3 and not isinstance(self.patterns, np.ndarray | Frames):
            self._set("patterns", Sliced(self.patterns))
        shape = tuple(self.patterns.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise PtychonError(f"patterns have shape {shape}; they must be (frames, rows, columns)")
        if min(shape[1:]) < 4:
            raise PtychonError(f"frames are {shape[1]}x{shape[2]} pixels; at least 4x4 are needed")
        if np.dtype(self.patterns.dtype).kind not in "uifb":
            raise PtychonError(
                f"patterns have dtype {self.patterns.dtype}; intensities must be real numbers"
            )
        positions = np.asarray(self.positions)
        if positions.dtype.kind not in "uif":
            raise PtychonError(f"positions have dtype {positions.dtype}; they must be real numbers")
        positions = np.array(positions, np.float64)
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise PtychonError(
                f"positions have shape {positions.shape}; they must be (frames, 2), row then column"
            )
        if len(positions) != shape[0]:
            raise PtychonError(
                f"{len(positions)} positions for {shape[0]} frames: give one position a frame"
            )
        if len(positions) < 2:
            raise PtychonError(
                f"{len(positions)} position: ptychography needs at least 2 overlapping ones"
            )
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if bad.size:
            raise PtychonError(
                f"{bad.size} of {len(positions)} positions are not finite (first: frame "
                f"{bad[0]}); drop those frames"
            )
        self._set("positions", positions)
        if self.geometry not in ("far", "near"):
            raise PtychonError(f"geometry is {self.geometry!r}; it must be 'far' or 'near'")
        for name in ("wavelength", "distance", "focus_distance", "noise_variance", "saturation"):
            self._check_positive(name, getattr(self, name))
        for name in ("pixel_size", "detector_pixel_size"):
            value = getattr(self, name)
            if value is not None:
                pair = tuple(float(v) for v in np.broadcast_to(np.asarray(value, float), (2,)))
                self._check_positive(name, min(pair) if np.isfinite(pair).all() else np.nan)
                self._set(name, pair)
        if self.pixel_size is None:
            self._set("pixel_size", self._derived_pixel_size())
        self._check_mask(shape)
        self._check_background(shape)
        if self.blur is not None:
            self._check_positive("blur", float(self.blur))
            self._set("blur", float(self.blur))
        self._check_probe(shape)
        if self.object_shape is not None:
            self._set("object_shape", (int(self.object_shape[0]), int(self.object_shape[1])))

    def __len__(self) -> int:
        return int(self.patterns.shape[0])

    def __repr__(self) -> str:
        p, q = self.frame_shape
        name = f" {self.name!r}" if self.name else ""
        kind = "counts" if self.counting else "intensities"
        facts = [f"pixel {pretty_pair(self.pixel_size)}"]
        if self.wavelength is not None:
            facts.append(f"wavelength {pretty(self.wavelength, 'length')}")
        if self.distance is not None:
            facts.append(f"detector at {pretty(self.distance, 'length')}")
        spans = np.ptp(self.positions, axis=0)
        high, wide = (
            f"{v:.4g} px" if self.pixel_size is None else pretty(v, "length") for v in spans
        )
        more = [f"positions over {high} x {wide}"]
        if self.mask is not None:
            more.append(f"mask keeps {100 * float(np.mean(self.mask)):.3g} % of the pixels")
        if self.probe is not None:
            more.append("with a first guess of the probe")
        return (
            f"Dataset{name}: {len(self)} frames of {p}x{q} pixels, {self.geometry} field, {kind}\n"
            f"  {', '.join(facts)}\n  {', '.join(more)}"
        )

    def _repr_html_(self) -> str:
        from ..plots.notebook import dataset_html

        return dataset_html(self)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(P, Q), pixels of a frame."""
        return int(self.patterns.shape[1]), int(self.patterns.shape[2])

    @property
    def magnification(self) -> float:
        """M of a near-field set-up with a point-like focus; 1 for a parallel beam and in the far
        field.
        """
        if self.geometry == "far" or self.focus_distance is None or self.distance is None:
            return 1.0
        return (self.focus_distance + self.distance) / self.focus_distance

    def select(self, index: Any) -> Dataset:
        """The same with only some of the frames, in any order (an index array, slice or boolean
        array).
        """
        chosen = np.arange(len(self))[index]
        lazy = isinstance(self.patterns, Frames)
        return replace(
            self,
            patterns=Selected(self.patterns, chosen) if lazy else self.patterns[chosen],
            positions=self.positions[chosen],
            mask=self.mask[chosen] if self.mask is not None and self.mask.ndim == 3 else self.mask,
        )

    def measured(self) -> Dataset:
        """The same without frames that were never measured (see `unmeasured`); all frames are read.

        Raises
        ------
        PtychonError
            If fewer than two frames were measured.
        """
        blank, totals = np.empty(len(self), np.int8), np.zeros(len(self))
        rule = BadValues.of(self.patterns, saturation=self.saturation, mask=self.mask)
        for part in parts(self.patterns):
            block = np.asarray(self.patterns[part])
            mask: Any = (
                True if self.mask is None else self.mask if self.mask.ndim == 2 else self.mask[part]
            )
            blank[part] = blank_frames(block, None if mask is True else mask)
            bad = rule.bad(block)
            valid = mask if bad is None else mask & ~bad
            totals[part] = np.where(valid, np.maximum(block, 0), 0).sum(
                axis=(1, 2), dtype=np.float64
            )
        left_out = unmeasured(blank, totals)
        return self.select(~left_out) if left_out.any() else self

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @staticmethod
    def _check_positive(name: str, value: float | None) -> None:
        if value is not None and not (np.isfinite(value) and value > 0):
            raise PtychonError(f"{name.replace('_', ' ')} is {value}; it must be a positive number")

    def _take_grid(self) -> None:
        """A scan in rows and columns as one row of frames; frames on disk stay there."""
        shape, positions = tuple(self.patterns.shape), np.asarray(self.positions)
        if len(shape) != 4:
            return
        known = isinstance(self.patterns, np.ndarray)
        flat = self.patterns.reshape(-1, *shape[2:]) if known else Gridded(self.patterns)
        self._set("patterns", flat)
        if positions.shape == (*shape[:2], 2):
            self._set("positions", positions.reshape(-1, 2))
        if self.mask is not None and np.shape(self.mask) == shape:
            self._set("mask", np.reshape(self.mask, (-1, *shape[2:])))

    def _derived_pixel_size(self) -> tuple[float, float] | None:
        d = self.detector_pixel_size
        if d is None or isinstance(d, float):
            return None
        if self.geometry == "near":
            return d[0] / self.magnification, d[1] / self.magnification
        if self.wavelength is None or self.distance is None:
            return None
        P, Q = self.frame_shape
        return self.wavelength * self.distance / (P * d[0]), self.wavelength * self.distance / (
            Q * d[1]
        )

    def _take_masked_array(self) -> None:
        """Patterns and mask from a NumPy masked array; without it the values behind its mask would
        be taken for data.
        """
        if not isinstance(self.patterns, np.ma.MaskedArray):
            return
        valid, given = ~np.ma.getmaskarray(self.patterns), self.mask
        if len(valid) and (valid == valid[0]).all():
            valid = valid[0]
        if given is not None and np.shape(given) in (self.patterns.shape, self.patterns.shape[1:]):
            valid = valid & np.asarray(given).astype(bool)
        elif given is not None:
            valid = given  # its shape is told below
        self._set("mask", None if np.all(valid) else valid)
        self._set("patterns", np.ma.getdata(self.patterns))

    def _check_mask(self, shape: tuple[int, ...]) -> None:
        if self.mask is None:
            return
        mask = np.asarray(self.mask)
        if mask.shape not in (shape, shape[1:]):
            raise PtychonError(
                f"the mask has shape {mask.shape}; frames are {shape[1:]}: give (rows, columns) "
                "or one a frame"
            )
        if mask.dtype.kind not in "biu":
            raise PtychonError(
                f"the mask has dtype {mask.dtype}; it must be boolean, True where a pixel is valid"
            )
        mask = mask.astype(bool)
        if not mask.any():
            raise PtychonError("the mask leaves no valid pixel (True means valid): is it inverted?")
        self._set("mask", mask)

    def _check_background(self, shape: tuple[int, ...]) -> None:
        given = {"background": self.background, "read noise": self.read_noise}
        for name, value in given.items():
            if value is not None and (not self.counting or self.noise_variance is not None):
                why = (
                    "whose noise is stated by noise_variance"
                    if self.counting
                    else "that are no counts (counting is false)"
                )
                raise PtychonError(
                    f"a {name} belongs to patterns that are counts; it was given with patterns "
                    f"{why}"
                )
        if self.background is not None:
            b = np.asarray(self.background)
            if b.dtype.kind not in "uifb" or b.shape not in ((), shape[1:]):
                raise PtychonError(
                    f"the background has shape {b.shape}; frames are {shape[1:]}: give that "
                    "shape, or a number"
                )
            wrong = ~(np.isfinite(b) & (b >= 0))
            if wrong.any():
                first = b[wrong].flat[0] if b.ndim else b
                where = f"in {int(wrong.sum())} pixels" if b.ndim else "counts"
                raise PtychonError(
                    f"the background is {first:g} {where}; it must be finite and not negative"
                )
            self._set("background", float(b) if b.ndim == 0 else b.astype(np.float32))
        if self.read_noise is not None:
            r = float(self.read_noise)
            if not (np.isfinite(r) and r >= 0):
                raise PtychonError(
                    f"the read noise is {r:g} counts; it must be finite and not negative"
                )
            self._set("read_noise", r)

    def _check_probe(self, shape: tuple[int, ...]) -> None:
        if self.probe is None:
            return
        probe = np.asarray(self.probe)
        if probe.ndim == 2:
            probe = probe[None]
        if probe.ndim != 3 or probe.shape[1:] != shape[1:]:
            raise PtychonError(
                f"the probe has shape {np.shape(self.probe)}; frames are {shape[1:]}: they must "
                "agree"
            )
        if not np.isfinite(probe).all() or not np.any(probe):
            raise PtychonError("the probe has values that are not finite, or is zero everywhere")
        self._set("probe", probe.astype(np.complex64))


def _stacked(frames: Any) -> Array:
    """Frames that came one by one, (N, P, Q)."""
    try:
        parts = [
            np.ma.asarray(frame) if np.ma.isMaskedArray(frame) else np.asarray(frame)
            for frame in frames
        ]
    except TypeError:
        what = f"the patterns are of type {type(frames).__name__}"
        raise PtychonError(
            f"{what}; give an array (frames, rows, columns) or a list of frames"
        ) from None
    shapes = list(dict.fromkeys(part.shape for part in parts))
    if len(shapes) != 1:
        what = f"{shapes[0]} and {shapes[1]}" if shapes else "none at all"
        raise PtychonError(f"frames of one scan must have one shape; the list has {what}")
    return (
        np.ma.stack(parts) if any(np.ma.isMaskedArray(part) for part in parts) else np.stack(parts)
    )
