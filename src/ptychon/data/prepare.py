r"""Preparing frames: corrections, bad pixels, crop, bin; block by block, so that frames stay on
disk until they are needed.

In this order, everything in the orientation of the file:

    frames      some of the scan
    correct     y -> (y - dark)/(flat gain); dark and flat/<flat> frames or numbers, gain the
                detector's units per photon or
                electron. Noise about the dark level stays, below zero too: cut off there it would
                brighten dark pixels. What is divided by a gain is counts
    background  of what is counted after that: stated in the data set, for engines that know the
    noise of counts. Where the
                patterns are no counts it is subtracted
    bad pixels  hot, dead and saturated ones leave the mask. Values that are no measurement
    (`ptychon.data.bad_values`) stay so
                through all of this, as NaN or the end of the range of the type
    crop        a window around the centre; what hangs over the edge is masked
    bin         counts of b x b pixels summed; valid where all of them are, in every frame

The pixel of the object follows, whether it was derived or given: what a data set states belongs to
its frames as they are stored. In the far field it is wavelength distance/(width of the detector): a
crop enlarges it, binning does not (the field of view shrinks instead). In the near field binning
enlarges it and a crop does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..types import Array, FloatArray, PtychonError
from ..units import pretty
from .bad_values import BadValues
from .dataset import FILL, Dataset, blank_frames
from .lazy import Derived, parts
from .survey import BadPixels, Sums, centre_of_mass, saturation_of, survey


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be done to a scan before it is reconstructed; the default is nothing.

    Attributes
    ----------
    frames : slice, optional
        Which frames of the scan.
    dark : (P, Q) array or float, optional
        Subtracted, in units of the detector before `flat` and `gain`: what it shows without
        counting anything.
    background : (P, Q) array or float, optional
        Mean counts a pixel (after `flat` and `gain`) that do not come from the wave. They stay in
        the patterns.
    read_noise : float, optional
        Standard deviation, in counts (after `gain`), of the noise of the detector's electronics.
    flat : (P, Q) array, optional
        Relative sensitivity; its mean does not matter, and pixels where it is 0 become invalid.
    gain : float, optional
        Units of the detector per photon or electron. With it the patterns are counts, 1 too.
    bad_pixels : bool
        Find hot and dead pixels, saturated ones (those that reach `saturation` or the end of the
        range of an integer type in any frame) and those without a measurement in any frame, and
        mask them in all frames.
    saturation : float, optional
        Value in the file from which a pixel is saturated; a pixel that reaches it in any frame is
        masked in all.
    crop : (P', Q'), optional
        Pixels of the window, before binning.
    centre : (row, column) or "auto", optional
        Of the window in the file; "auto" is the centre of mass of the mean frame. Default: the
        middle [P//2, Q//2].
    bin : int
        Pixels along each axis that become one.
    scan_rotation : float
        Positions are turned by this angle (rad): (row, col) -> (row cos - col sin, row sin + col
        cos).
    scan_sign : (+-1, +-1)
        Factors of rows and columns of the positions, before the rotation.
    """

    frames: slice | None = None
    dark: Any = None
    background: Any = None
    read_noise: float | None = None
    flat: Any = None
    gain: float | None = None
    bad_pixels: bool = False
    saturation: float | None = None
    crop: tuple[int, int] | None = None
    centre: tuple[float, float] | Literal["auto"] | None = None
    bin: int = 1
    scan_rotation: float = 0.0
    scan_sign: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.gain is not None and not (math.isfinite(self.gain) and self.gain > 0):
            raise PtychonError(f"the gain is {self.gain}; it must be a positive number")
        if self.bin < 1:
            raise PtychonError(f"bin is {self.bin}; it must be at least 1")
        if any(abs(sign) != 1 for sign in self.scan_sign):
            raise PtychonError(
                f"scan sign is {self.scan_sign}; give + or - for rows and columns, for example +-"
            )

    @property
    def corrects(self) -> bool:
        """Whether values of counts change."""
        return any(part is not None for part in (self.dark, self.flat)) or self.gain not in (
            None,
            1,
        )


def prepare(data: Dataset, preparation: Preparation) -> Dataset:
    """A data set with everything done that `preparation` says, listed in ``notes["prepared"]``.

    Parameters
    ----------
    data : Dataset
        Its frames may be on disk, and stay there.
    preparation : Preparation

    Raises
    ------
    PtychonError
        If fields do not fit the frames, or nothing is left.
    """
    done: dict[str, Any] = {}
    p = preparation
    if p.frames is not None:
        data = _some_frames(data, p.frames, done)
    raw, saturation = data.patterns, data.saturation
    if p.gain is not None and not data.counting and data.noise_variance is None:
        data = replace(data, counting=True)
        done["counting"] = "by the gain"
    if p.corrects or (p.background is not None and not _counted(data)):
        data = _corrected(data, p, done)
    if p.read_noise is not None or p.background is not None:
        data = _stated(data, p, done)
    if p.bad_pixels or p.saturation is not None:
        data = _without_bad_pixels(data, raw, saturation, p, done)
    if p.crop is not None or p.centre is not None or p.bin > 1:
        data = _cut(data, p, done)
    if p.scan_rotation or p.scan_sign != (1, 1):
        angle = p.scan_rotation
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        data = replace(data, positions=(data.positions * np.array(p.scan_sign)) @ turn.T)
        done |= {"scan_sign": "".join("+-"[s < 0] for s in p.scan_sign), "scan_rotation": angle}
    return (
        replace(data, notes={**data.notes, "prepared": {**data.notes.get("prepared", {}), **done}})
        if done
        else data
    )


def _some_frames(data: Dataset, which: slice, done: dict[str, Any]) -> Dataset:
    index = np.arange(len(data))[which]
    if len(index) < 2:
        raise PtychonError(
            f"frames {slice_text(which)} of {len(data)} leave {len(index)}; at least 2 are needed"
        )
    done["frames"] = slice_text(which)
    return data.select(index)


def slice_text(which: slice) -> str:
    """``0:80``, as `parse_slice` takes it."""
    return ":".join(
        "" if part is None else str(part) for part in (which.start, which.stop, which.step)
    )


def _counted(data: Dataset) -> bool:
    return data.counting and data.noise_variance is None


def _field(name: str, value: Any, shape: tuple[int, int], done: dict[str, Any]) -> FloatArray:
    """A frame or a number, checked and noted."""
    field = np.asarray(value, np.float64)
    if field.shape not in ((), shape):
        raise PtychonError(
            f"the {name} has shape {field.shape}; frames are {shape}: give one of that shape, "
            "or a number"
        )
    if not np.isfinite(field).all():
        raise PtychonError(f"the {name} has values that are not finite; correct them")
    done[name] = f"mean {float(field.mean()):.6g}"
    return field.astype(np.float32)


def _stated(data: Dataset, p: Preparation, done: dict[str, Any]) -> Dataset:
    """The data set with background and read noise as they are stated."""
    changes: dict[str, Any] = {}
    if p.read_noise is not None:
        changes["read_noise"] = done["read_noise"] = p.read_noise
    if p.background is not None and _counted(data):
        changes["background"] = _field("background", p.background, data.frame_shape, done)
    return replace(data, **changes)


def _corrected(data: Dataset, p: Preparation, done: dict[str, Any]) -> Dataset:
    shape = data.frame_shape
    given = [
        ("dark", p.dark),
        ("flat", p.flat),
        ("background", None if _counted(data) else p.background),
    ]
    fields = {name: _field(name, value, shape, done) for name, value in given if value is not None}
    gain = 1.0 if p.gain is None else p.gain
    if p.gain is not None:
        done["gain"] = p.gain
    mask: Any = data.mask
    if "flat" in fields:
        flat = np.broadcast_to(fields["flat"], shape)
        sensitive = flat > 0
        if not sensitive.any():
            raise PtychonError("the flat field is zero or negative everywhere: wrong file?")
        fields["flat"] = np.where(sensitive, flat / flat[sensitive].mean(), np.float32(1))
        mask = sensitive if mask is None else mask & sensitive
    # what the file states of background and read noise is corrected as the frames are
    known: dict[str, Any] = {}
    if data.background is not None:
        known["background"] = (data.background - fields.get("dark", 0)) / (
            fields.get("flat", 1) * np.float32(gain)
        )
    if data.read_noise is not None:
        known["read_noise"] = data.read_noise / gain
    rule = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask)
    patterns = corrected(
        data.patterns, rule, fields.get("dark"), fields.get("flat"), fields.get("background"), gain
    )
    return replace(data, patterns=patterns, mask=mask, saturation=None, **known)


def corrected(
    frames: Array,
    rule: BadValues,
    dark: Any = None,
    flat: Any = None,
    background: Any = None,
    gain: float = 1.0,
) -> Derived:
    """Frames (y - dark)/(flat gain) - background, float32, computed when they are read; bad values
    by `rule` become NaN.

    Pixels where `flat` is not above 0 become 0.
    """
    shape = int(frames.shape[1]), int(frames.shape[2])
    values = Derived(
        frames, partial(_correct, rule, dark, flat, background, gain), shape, np.float32
    )
    values.subtracted = values.subtracted or dark is not None or background is not None
    return values


def _correct(
    rule: BadValues, dark: Any, flat: Any, background: Any, gain: float, block: Any, first: int = 0
) -> Any:
    bad = rule.bad(block)
    values = np.asarray(block, np.float32)
    values = values if dark is None else values - dark
    if flat is not None:
        values = np.divide(
            values, flat, out=np.zeros_like(values), where=flat > 0, casting="unsafe"
        )
    values = values if gain == 1 else values / np.float32(gain)
    values = values if background is None else values - background
    return values if bad is None else np.where(bad, np.float32(np.nan), values)


def _without_bad_pixels(
    data: Dataset, raw: Array, largest: float | None, p: Preparation, done: dict[str, Any]
) -> Dataset:
    """The data set without the bad pixels of the `raw` frames, in which `largest` is the largest
    measurement.
    """
    saturation = p.saturation if p.saturation is not None else saturation_of(raw.dtype)
    look = Sums.new(BadValues.of(raw, saturation=largest, mask=data.mask), data.frame_shape)
    for part in parts(raw):
        block = np.asarray(raw[part])
        mask = data.mask if data.mask is None or data.mask.ndim == 2 else data.mask[part]
        written = blank_frames(block, mask) != FILL
        if written.any():
            look.add(block if written.all() else block[written])
    valid = (
        None
        if data.mask is None
        else np.asarray(data.mask if data.mask.ndim == 2 else data.mask.all(axis=0))
    )
    bad = look.bad_pixels(saturation, valid, far=data.geometry == "far")
    if not p.bad_pixels:
        none = np.zeros_like(bad.hot)
        bad = BadPixels(none, none, bad.saturated, none)
    done["bad_pixels"] = {
        name: int(getattr(bad, name).sum()) for name in ("hot", "dead", "saturated", "marked")
    }
    if saturation is not None:
        done["saturation"] = saturation
    if not bad.any.any():
        return data
    return replace(data, mask=~bad.any if data.mask is None else data.mask & ~bad.any)


def _cut(data: Dataset, p: Preparation, done: dict[str, Any]) -> Dataset:
    shape = data.frame_shape
    wanted = p.crop or shape
    size = (wanted[0] - wanted[0] % p.bin, wanted[1] - wanted[1] % p.bin)
    if min(size) // p.bin < 4:
        raise PtychonError(
            f"{wanted[0]}x{wanted[1]} pixels binned by {p.bin} leave less than 4; crop or bin less"
        )
    if max(size) > 4 * max(shape):
        raise PtychonError(
            f"crop is {size[0]}x{size[1]} for frames of {shape[0]}x{shape[1]}; a crop makes "
            "frames smaller"
        )
    if p.centre == "auto":
        if data.geometry == "near":
            raise PtychonError(
                "near-field frames have no centre of mass to crop around; give --centre ROW,COLUMN"
            )
        centre = centre_of_mass(survey(data).mean, data.mask)
    else:
        centre = p.centre or (shape[0] // 2, shape[1] // 2)
    corner = int(np.rint(centre[0])) - size[0] // 2, int(np.rint(centre[1])) - size[1] // 2
    inside = [max(0, min(corner[k] + size[k], shape[k]) - max(corner[k], 0)) for k in (0, 1)]
    if min(inside) < 1:
        raise PtychonError(
            f"a window of {size[0]}x{size[1]} around {centre} lies outside the frames of "
            f"{shape[0]}x{shape[1]}"
        )
    out = size[0] // p.bin, size[1] // p.bin
    cut = partial(_window, corner, size, p.bin)
    mask: Any = None
    if data.mask is not None or inside != list(size):
        whole = np.ones(shape, bool) if data.mask is None else data.mask
        mask = np.asarray(_window(corner, size, 1, whole))
        mask = mask.reshape(*mask.shape[:-2], out[0], p.bin, out[1], p.bin).all(axis=(-3, -1))
        if not mask.any():
            raise PtychonError(
                "crop and bin leave no valid pixel; choose another --centre or a smaller --bin"
            )
    done["centre"] = [float(c) for c in centre]
    done["crop"] = list(size)
    if p.bin > 1:
        done["bin"] = p.bin
    changes = _geometry(data, size, p.bin, out)
    for name in ("pixel_size", "detector_pixel_size"):
        before, after = getattr(data, name), changes.get(name)
        if after is not None and after != before:
            done[name] = f"{_lengths(before)}, now {_lengths(after)}"
    patterns = Derived(data.patterns, cut, out, _summed(data.patterns.dtype, p.bin))
    if p.bin > 1:
        rule = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask)
        patterns = Derived(data.patterns, partial(_binned, rule, cut), out, patterns.dtype)
        changes["saturation"] = None
    if data.background is not None:
        changes["background"] = cut(np.broadcast_to(np.asarray(data.background, np.float32), shape))
    if data.read_noise is not None:
        changes["read_noise"] = data.read_noise * p.bin
    return replace(data, patterns=patterns, mask=mask, **changes)


def _lengths(pair: Any) -> str:
    return " x ".join(dict.fromkeys(pretty(float(v), "length") for v in pair))


def _summed(dtype: Any, factor: int) -> Any:
    """A type that holds sums of factor^2 values."""
    kind = np.dtype(dtype)
    if factor == 1 or kind.kind == "f":
        return kind
    wide = {"i": (np.int32, np.int64)}.get(kind.kind, (np.uint32, np.uint64))
    return np.dtype(wide[kind.itemsize >= 4])


def _window(
    corner: tuple[int, int], size: tuple[int, int], factor: int, block: Any, first: int = 0
) -> Any:
    """Blocks (..., P, Q) cut to a window, zero (or False) where it hangs over the
    edge, and binned.
    """
    shape = block.shape[-2:]
    take = [slice(max(corner[k], 0), min(corner[k] + size[k], shape[k])) for k in (0, 1)]
    part = block[..., take[0], take[1]]
    if part.shape[-2:] != size:
        whole = np.zeros((*block.shape[:-2], *size), block.dtype)
        top, left = max(-corner[0], 0), max(-corner[1], 0)
        whole[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
        part = whole
    if factor == 1:
        return part
    p, q = size[0] // factor, size[1] // factor
    dtype = _summed(block.dtype, factor)
    return part.reshape(*part.shape[:-2], p, factor, q, factor).sum(axis=(-3, -1), dtype=dtype)


def _binned(rule: BadValues, cut: Any, block: Any, first: int = 0) -> Any:
    """Blocks (B, P, Q) binned; a bad value makes the sum bad that it would be in."""
    bad = rule.bad(block)
    if bad is None:
        return cut(block)
    sums = cut(np.where(bad, block.dtype.type(0), block))
    sums[cut(bad) > 0] = np.nan if sums.dtype.kind == "f" else np.iinfo(sums.dtype).max
    return sums


def _geometry(
    data: Dataset, size: tuple[int, int], factor: int, out: tuple[int, int]
) -> dict[str, Any]:
    """What changes in a data set cut to `size` and binned."""
    shape = data.frame_shape
    changes: dict[str, Any] = {}
    if isinstance(data.detector_pixel_size, tuple):
        changes["detector_pixel_size"] = tuple(d * factor for d in data.detector_pixel_size)
    near = data.geometry == "near"
    scale = np.array([factor, factor]) if near else np.array(shape) / np.array(size)
    if isinstance(data.pixel_size, tuple):
        changes["pixel_size"] = tuple(
            float(d * s) for d, s in zip(data.pixel_size, scale, strict=True)
        )
    elif np.any(scale != 1):
        changes["positions"] = data.positions / scale
    if size != shape or factor > 1:
        changes["object_shape"] = None
    if data.probe is not None:
        changes["probe"] = _probe(data.probe, size, factor, out, near)
    return changes


def _probe(probe: Any, size: tuple[int, int], factor: int, out: tuple[int, int], near: bool) -> Any:
    """The first guess of the probe on the new grid, with its power."""
    shape = probe.shape[-2:]

    def centred(array: Any, window: tuple[int, int]) -> Any:
        corner = array.shape[-2] // 2 - window[0] // 2, array.shape[-1] // 2 - window[1] // 2
        return _window(corner, window, 1, array)

    if near:
        new = (
            centred(probe, size)
            .reshape(len(probe), out[0], factor, out[1], factor)
            .mean(axis=(-3, -1))
        )
    else:
        new = probe
        if size != shape:
            axes = (-2, -1)
            far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho"), axes)
            new = np.fft.fftshift(
                np.fft.ifft2(np.fft.ifftshift(centred(far, size), axes), norm="ortho"), axes
            )
        new = centred(new, out)
        if (
            factor > 1
            # zero frequency lies between pixels of the binned detector, which is a ramp of the
            # phase here
        ):
            for axis, (n, m) in zip((-2, -1), zip(size, out, strict=True), strict=True):
                shift = (n // 2 - (factor - 1) / 2) / factor - m // 2
                ramp = np.exp(2j * np.pi * shift * (np.arange(m) - m // 2) / m)
                new = new * (ramp[:, None] if axis == -2 else ramp)
    power = float((np.abs(new) ** 2).sum())
    return new * np.sqrt(float((np.abs(probe) ** 2).sum()) / power) if power > 0 else None


def parse_slice(text: str) -> slice:
    """``first:last:step`` as Python slices, ``100`` meaning the first hundred.

    Raises
    ------
    PtychonError
        If it is not of that form.
    """
    parts = str(text).split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or (
        len(numbers) == 3 and numbers[2] is not None and numbers[2] < 1
    ):
        raise PtychonError(
            f"frames are {text!r}; give first:last or first:last:step, for example 0:500 or ::4"
        )
    return slice(*numbers)
