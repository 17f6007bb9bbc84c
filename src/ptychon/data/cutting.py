"""Frames cropped and binned, and what that does to masks, dark frames, geometry and probe."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..types import PtychonError
from ..units import pretty
from .bad_values import BadValues
from .dataset import Dataset
from .lazy import Derived
from .preparation import Preparation
from .survey import centre_of_mass, survey


def cut(data: Dataset, p: Preparation, done: dict[str, Any]) -> Dataset:
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
