"""What the entries of an archive of arrays mean, by their names, units and shapes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..types import PtychonError, PtychonWarning
from ..units import (
    SI,
    Dimension,
    factor_of,
    in_si,
    parse,
    wavelength_of_electrons,
    wavelength_of_photons,
)
from . import listing
from .box import Box, last_name
from .found import Found
from .masks import MEANING, convention_of, valid_from
from .nodes import plain
from .order import frames_last, without_ones
from .positions import add_positions, points_of

#: Mean counts a pixel that are still in the frames. What others call "background" may have been
#: subtracted.
BACKGROUND = "background_counts"
PATTERNS = ("patterns", "dp", "data", "diffraction", "intensities", "frames")
#: What is looked for -> names it goes by, and its dimension.
NUMBERS: dict[str, tuple[tuple[str, ...], Dimension]] = {
    "pixel_size": (
        ("pixel_size", "object_pixel_size", "real_space_pixel", "real_space_pixel_size"),
        "length",
    ),
    "detector_pixel_size": (("detector_pixel_size", "detector_pixel"), "length"),
    "detector_pixel_angle": (("detector_pixel", "detector_pixel_angle"), "angle"),
    "wavelength": (("wavelength",), "length"),
    "energy": (("energy", "photon_energy"), "energy"),
    "voltage": (
        ("voltage", "acceleration_voltage", "accelerating_voltage", "beam_voltage"),
        "voltage",
    ),
    "distance": (("distance", "detector_distance"), "length"),
    "focus_distance": (("focus_distance",), "length"),
    "semi_angle": (
        ("semi_angle", "semiangle", "convergence_semiangle", "convergence_semi_angle"),
        "angle",
    ),
    "defocus": (("defocus", "c1", "c10"), "length"),
    "step": (("scan_step", "step", "scan_step_size", "step_size"), "length"),
    "rotation": (("scan_rotation", "rotation", "rotation_angle"), "angle"),
}
#: Share of valid pixels below which a mask may be the other way round.
_FEW_VALID = 0.5
#: Names of texts that are units: distance_units.
UNIT_NAME = re.compile(r"\w+_units?", re.IGNORECASE)


def quantity_of(name: str) -> tuple[str, Dimension, str] | None:
    """(what, dimension, unit in the name) of a name such as ``scan_step_A``; None if it is none of
    `NUMBERS`.
    """
    for what, (stems, dimension) in NUMBERS.items():
        for stem in stems:
            match = re.fullmatch(rf"{stem}(?:_(\w+))?", name, re.IGNORECASE)
            if match is None or (what == "detector_pixel_angle" and not match.group(1)):
                continue  # without a unit it is a length
            spelled = match.group(1) or ""
            for unit in (spelled, spelled.upper()):  # names are in small letters here: scan_step_a
                if not unit or factor_of(unit, dimension) is not None:
                    return what, dimension, unit
    return None


def understand(box: Box, kind: str, given: Mapping[str, Any]) -> Found:
    """What named arrays say, whatever kind of file they are in.

    Raises
    ------
    PtychonError
        If it cannot be told which array holds the frames.
    """
    found = Found(kind)
    key = _frames_key(box, given.get("data_path"))
    shape = without_ones(box.arrays[key][0])
    why = (
        frames_last(shape, points_of(box, given), given.get("scan_shape"))
        if box.last is not None
        else ""
    )
    if why and box.last is not None:
        found.add("patterns", box.last(key), f"{key} ({why})")
        shape = (*shape[2:], *shape[:2])
    else:
        found.add("patterns", box.frames(key), key)
    if len(shape) == 4:
        found.add("scan_shape", tuple(shape[:2]), f"the shape of {key}")
    add_positions(found, given, box)
    for name, (value, where) in box.numbers.items():
        _keep_number(found, name, value, where, box.unit_of(where if where in box.units else name))
        _keep_word(found, name, value, where)
    _add_mask(found, box, shape, given.get("mask") is not None)
    background = box.find((BACKGROUND,), (2,), "uif")
    if background is not None and math.prod(box.arrays[background][0]) > 1:
        found.add("background", box.table(background), f"{background} (counts a pixel)")
    probe = box.find(("probe",), (2, 3), "cf")
    if probe is not None:
        if box.arrays[probe][0][-2:] == tuple(shape[-2:]):
            found.add("probe", box.table(probe), probe)
        else:
            found.where["probe"] = (
                f"{probe} of shape {box.arrays[probe][0]} does not fit the frames: not used"
            )
    return found


def _frames_key(box: Box, name: str | None) -> str:
    forms = {k: without_ones(s) for k, (s, d) in box.arrays.items() if d.kind in "uifb"}
    stacks = [
        k
        for k, s in forms.items()
        if len(s) in (3, 4) and (min(s[-2:]) >= 4 or (len(s) == 4 and min(s[:2]) >= 4))
    ]
    listed = listing.named(box.arrays, stacks) or "none"
    if name:
        key = next((k for k in box.arrays if k.strip("/") == name.strip("/")), None)
        if key is None:
            raise PtychonError(
                f"{box.path} has no dataset {name!r}; stacks of frames in it: {listed}"
            )
        shape, dtype = box.arrays[key]
        if len(without_ones(shape)) not in (3, 4) or dtype.kind not in "uifb":
            raise PtychonError(
                f"{name} of {box.path} has shape {shape} and type {dtype}; frames are real numbers "
                "(frames, rows, columns) or (slow, fast, rows, columns); stacks in the file: "
                f"{listed}"
            )
        return key
    for known in PATTERNS:
        matching = [k for k in stacks if last_name(k) == known]
        if len(matching) == 1:
            return matching[0]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        holds = listing.said(box.arrays)
        raise PtychonError(
            f"{box.path} holds no stack of diffraction patterns (3-D or 4-D real numbers): {holds}"
        )
    holds = listing.said(box.arrays)
    raise PtychonError(
        f"{box.path} holds several stacks, and it cannot be told which are the frames: {holds}"
    )


def _add_mask(found: Found, box: Box, shape: tuple[int, ...], stated: bool) -> None:
    """The mask whose name says what its values mean, or one that is called mask. Where another is
    `stated`, a guess does not matter.
    """
    masks = [
        (convention_of(key), key)
        for key, (form, dtype) in box.arrays.items()
        if dtype.kind in "biu" and len(form) in (2, 3) and key != found.where.get("patterns")
        # one that is called mask and has another shape is refused, not passed over
        if form[-2:] == shape[-2:] or last_name(key) == "mask"
    ]
    named = [
        (convention, key)
        for convention, key in masks
        if convention is not None or last_name(key) == "mask"
    ]
    if not named:
        return
    convention, key = min(named, key=lambda pair: pair[0] is None)
    valid = valid_from(box.table(key), convention or "valid")
    if convention is not None:
        found.add("mask", valid, f"{key} ({MEANING[convention]}, as its name says)")
        return
    found.add("mask", valid, f"{key} (guess: {MEANING['valid']}, for its name does not say)")
    if valid.mean() < _FEW_VALID and not stated:
        text = (
            f"{key} of {box.path} leaves {valid.mean():.1%} of the pixels valid if nonzero "
            "means valid, which is a guess"
        )
        # an array of a .mat file is read with its axes turned, as a mask it would not be
        turned = Path(box.path).suffix.lower() == ".mat"
        say = "" if turned else f"say --mask {box.path}:{key} --mask-ones bad, or "
        warnings.warn(
            f"{text}; if nonzero means bad, {say}call it bad_pixels or pixel_mask",
            PtychonWarning,
            stacklevel=2,
        )


def _keep_word(found: Found, name: str, value: Any, where: str) -> None:
    """What our own archives say besides numbers with units."""
    array = np.asarray(value).reshape(-1)
    if name == "geometry" and str(array[0] if array.size else "") in ("far", "near"):
        found.add("geometry", str(array[0]), where)
    elif name == "counting" and array.size == 1 and array.dtype.kind in "biu":
        found.add("counting", bool(array[0]), where)
    elif (
        name == "object_shape"
        and array.size == 2
        and array.dtype.kind in "iu"
        and (array > 0).all()
    ):
        found.add("object_shape", (int(array[0]), int(array[1])), where)
    elif name == "upsample" and array.size == 1 and array.dtype.kind in "iu":
        found.add(name, int(array[0]), where)
    elif (
        name in ("noise_variance", "read_noise", "blur", "saturation", BACKGROUND)
        and array.size == 1
        and array.dtype.kind in "uif"
    ):
        found.add("background" if name == BACKGROUND else name, float(array[0]), where)


def _keep_number(found: Found, name: str, value: Any, where: str, unit: str) -> None:
    """A number in SI. `unit` is what the file states beside it; there may be one in its name as
    well.
    """
    quantity = quantity_of(name)
    if quantity is None:
        return
    what, dimension, known = quantity
    if what == "detector_pixel_size" and factor_of(unit, "angle") is not None:
        what, dimension = "detector_pixel_angle", "angle"
    try:
        array = np.asarray(value).reshape(-1)
        texts = [text for v in array.tolist() if (text := plain(v))]
        if known and unit and factor_of(unit, dimension) != factor_of(known, dimension):
            raise PtychonError(
                f"{where} states the unit {unit!r} beside it and {known!r} in its name; correct it"
            )
        if array.dtype.kind not in "uif" and not texts:
            return
        numbers = [parse(text, dimension, where) for text in texts] or [
            in_si(v, unit or known, dimension, where) for v in array
        ]
        if not numbers or not all(math.isfinite(n) for n in numbers):
            return
        if not (texts or unit or known):
            where = f"{where} (guess: {SI[dimension]}, for no unit is stated)"
        elif unit:
            where = f"{where} ({unit})"
        pair = what in ("pixel_size", "detector_pixel_size", "step") and len(numbers) == 2
        number: Any = (numbers[0], numbers[1]) if pair else numbers[0]
        if what == "energy":
            what, number = "wavelength", wavelength_of_photons(number)
        elif what == "voltage":
            wavelength_of_electrons(number)
        elif what == "defocus":
            # files state the coefficient C1 of the aberration, negative for underfocus
            number, where = -number, f"{where} = {number:g} m, read as C1 (negative: underfocus)"
    except PtychonError as error:
        found.problems[what] = str(error)
        return
    found.add(what, number, where)
