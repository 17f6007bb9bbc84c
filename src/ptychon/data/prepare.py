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
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..types import Array, FloatArray, PtychonError
from .bad_values import BadValues
from .blank import FILL, blank_frames
from .cutting import cut
from .dataset import Dataset
from .finer import finer, padded
from .lazy import Derived, parts
from .preparation import Preparation
from .survey import BadPixels, Sums, saturation_of


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
        data = cut(data, p, done)
    if p.blur is not None:
        data = replace(data, blur=p.blur)
        done["blur"] = p.blur
    if p.pad:
        data = padded(data, p.pad)
        done["pad"] = p.pad
    if p.upsample > 1:
        data = finer(data, p.upsample)
        done["upsample"] = p.upsample
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
