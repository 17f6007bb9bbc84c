"""What a person states of a scan beside its file: names, units and kinds of values."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.preparation import Preparation
from ..data.prepare import parse_slice
from ..types import PtychonError
from ..units import Dimension, factor_of, is_pixel, parse, parse_pair, parse_shape

#: What a caller may state besides the fields of `Dataset`, all in SI or as text with a unit.
DIMENSIONS: dict[str, Dimension] = {
    "wavelength": "length",
    "distance": "length",
    "focus_distance": "length",
    "defocus": "length",
    "energy": "energy",
    "voltage": "voltage",
    "rotation": "angle",
    "semi_angle": "angle",
    "scan_rotation": "angle",
}

PAIRS = ("pixel_size", "detector_pixel_size", "step")

PATHS = ("data_path", "positions_path")

EXTRA = (
    "energy",
    "voltage",
    "semi_angle",
    "defocus",
    "scan_shape",
    "step",
    "rotation",
    "position_units",
    "mask_ones",
    "amplitudes",
    *PATHS,
)

#: How frames and positions are prepared; see `ptychon.data.prepare.Preparation`.
PREPARATION = (*(f.name for f in fields(Preparation)), "drop_columns")

KNOWN = (*(f.name for f in fields(Dataset) if f.name != "patterns"), *EXTRA, *PREPARATION)


def check_given(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller states, in SI; None is the same as not stated.

    Raises
    ------
    PtychonError
        Unknown names (with the nearest), impossible values, two statements of the same thing.
    """
    out = {}
    if given.get("pedestal") is not None and given.get("dark") is not None:
        raise PtychonError("pedestal and dark state the same thing; give one of them")
    for name, value in given.items():
        name = "dark" if name == "pedestal" else name
        if name not in KNOWN:
            near = get_close_matches(name, KNOWN, n=1)
            raise PtychonError(
                f"{name!r} is not something a scan has"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if value is not None:
            out[name] = _in_si(name, value)
    stated = [name for name in ("wavelength", "energy", "voltage") if name in out]
    if len(stated) > 1:
        raise PtychonError(f"{' and '.join(stated)} state the same thing; give one of them")
    return out


def _in_si(name: str, value: Any) -> Any:
    if name == "scan_shape":
        return parse_shape(value, "scan shape")
    if name == "position_units":
        if not is_pixel(str(value)) and factor_of(str(value), "length") is None:
            raise PtychonError(
                f"position units are {value!r}; give px, or a unit of length: m, mm, um, nm, A"
            )
        return str(value)
    if name in PATHS or name in ("geometry", "name"):
        return str(value)
    if name == "mask_ones":
        if value not in ("valid", "bad"):
            raise PtychonError(
                f"mask_ones is {value!r}; say what ones in the mask are: valid or bad"
            )
        return value
    if name == "amplitudes":
        return _flag(name, value)
    if name in PREPARATION and name not in DIMENSIONS:
        return _preparation(name, value)
    if name in PAIRS:
        return parse_pair(value, "length", name.replace("_", " "))
    if name not in DIMENSIONS:
        return value
    number = parse(value, DIMENSIONS[name], name.replace("_", " "))
    if name in ("rotation", "scan_rotation") and abs(number) > 2 * math.pi + 1e-9:
        raise PtychonError(
            f"{name.replace('_', ' ')} is {number:g} rad, more than a turn: give the unit, for "
            "example -126deg"
        )
    if name == "semi_angle" and not 0 < number < math.pi / 2:
        raise PtychonError(f"semi-angle is {number:g} rad: give its unit, for example 1.03mrad")
    return number


def _preparation(name: str, value: Any) -> Any:
    """One of `PREPARATION` from text or a number."""
    if name == "crop":
        return parse_shape(value, "crop")
    if name == "frames":
        return value if isinstance(value, slice) else parse_slice(value)
    if name == "bad_pixels":
        return _flag(name, value)
    if name in ("dark", "flat", "background"):
        return (
            value
            if isinstance(value, str | os.PathLike) or hasattr(value, "__array__")
            else _real(name, value)
        )
    if name == "scan_sign":
        signs = {"+": 1, "-": -1, 1: 1, -1: -1}
        parts = list(value) if isinstance(value, str | tuple | list) else [value]
        if len(parts) != 2 or any(part not in signs for part in parts):
            raise PtychonError(
                f"scan sign is {value!r}; give + or - for rows and for columns, for example +-"
            )
        return signs[parts[0]], signs[parts[1]]
    if name == "centre":
        if value == "auto":
            return value
        parts = value.split(",") if isinstance(value, str) else list(np.ravel(value))
        if len(parts) != 2:
            raise PtychonError(f"centre is {value!r}; give auto, or row,column in pixels")
        return _real(name, parts[0]), _real(name, parts[1])
    number = _real(name, value)
    if name == "drop_columns":
        if number != int(number) or number == 0:
            raise PtychonError(
                f"drop_columns is {value!r}; give a whole number: 1 for the last of each row, "
                "-1 for the first"
            )
        return int(number)
    if name in ("bin", "upsample", "pad"):
        least = 0 if name == "pad" else 1
        if number != int(number) or number < least:
            raise PtychonError(f"{name} is {value!r}; it must be a whole number, at least {least}")
        return int(number)
    return number


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise PtychonError(f"{name} is {value!r}; it must be true or false")
    return value


def _real(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise PtychonError(f"{name} is {value!r}; it must be a finite number")
    return number
