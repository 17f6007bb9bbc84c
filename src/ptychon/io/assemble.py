"""From what a reader has found, and what the caller knows better, to a data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import Frames, Selected
from ..data.prepare import slice_text
from ..types import FloatArray, PtychonError, PtychonWarning
from ..units import (
    factor_of,
    in_si,
    is_pixel,
    states_nothing,
    wavelength_of_electrons,
    wavelength_of_photons,
)
from .amplitudes import intensities
from .found import Found, doubt_of_scan, flag, report_implausible
from .given import PREPARATION
from .pairing import paired

#: Which frames are taken: said before each has a position.
SELECTION = ("frames", "drop_columns")
#: What a caller may state that is too large for the notes, or is listed there as a preparation.
_ARRAYS = ("notes", "positions", "mask", "probe", *PREPARATION)


def assemble(found: Found, given: Mapping[str, Any], source: str) -> Dataset:
    """A data set from what was found; what the caller states wins.

    Parameters
    ----------
    found : Found
    given : mapping
        From `check_given`.
    source : str
        Name of the file, for messages and for the notes.

    Raises
    ------
    PtychonError
        A quantity that is missing (named, with the flag that supplies it) or impossible.
    """
    values = {**found.fields, **given}
    wavelength = given.get("wavelength")
    for name, convert in (("energy", wavelength_of_photons), ("voltage", wavelength_of_electrons)):
        if wavelength is None and given.get(name) is not None:
            wavelength = convert(given[name])
    if wavelength is None:
        wavelength = values.get("wavelength")
    if wavelength is None and values.get("voltage") is not None:
        wavelength = wavelength_of_electrons(values["voltage"])
        found.where.setdefault("wavelength", "from the voltage")
    values["wavelength"] = wavelength
    if "patterns" not in values:
        raise PtychonError(
            f"{source} holds no diffraction patterns that were recognised; name them with "
            "--data-path"
        )
    shape = tuple(values["patterns"].shape)
    kwargs = {f.name: values[f.name] for f in fields(Dataset) if values.get(f.name) is not None}
    kwargs.setdefault("name", source.rsplit(".", 1)[0])
    kwargs["notes"] = _notes(found, given, source)
    # the pixel size may have to be derived first: then the scan is placed on the pixels it gives
    scale = Dataset(**kwargs | {"positions": np.zeros((shape[0], 2)), "probe": None})
    pixel_size = scale.pixel_size if isinstance(scale.pixel_size, tuple) else None
    if (
        pixel_size is None
        and (angle := values.get("detector_pixel_angle"))
        and wavelength is not None
    ):
        angles = np.broadcast_to(np.asarray(angle, float), (2,))
        pixel_size = (
            float(wavelength / (shape[1] * angles[0])),
            float(wavelength / (shape[2] * angles[1])),
        )
        found.where["pixel_size"] = (
            f"from the wavelength and {found.where.get('detector_pixel_angle', '')}"
        )
    kwargs["pixel_size"] = pixel_size
    unit, listed = given.get("position_units", ""), True
    if "positions" not in given:
        unit = unit or found.unit
        if "positions" not in found.fields or "step" in given:
            kwargs["positions"] = raster_positions(
                values, pixel_size, source, found.problems.get("positions", "")
            )
            unit, listed = "m", False
    told = report_implausible({**kwargs, "pixel_size": pixel_size}, found, source)
    kwargs["positions"] = _in_unit(kwargs["positions"], unit, pixel_size, found, source)
    _select(kwargs, values, listed, source)
    _square(kwargs, values.get("amplitudes"), found, source)
    # our own files were doubted when they were made
    doubt = (
        ""
        if told or found.ours
        else doubt_of_scan(kwargs["positions"], pixel_size, (shape[1], shape[2]))
    )
    if doubt:
        read = f" (read as {unit})" if unit else " (guessed)"
        remedy = (
            f"state the unit of the positions{read} with --position-units"
            if listed
            else "correct --step"
        )
        warnings.warn(
            f"{source}: {doubt}; {remedy}, or correct the pixel size", PtychonWarning, stacklevel=3
        )
    if kwargs.get("probe") is None and values.get("semi_angle") is not None:
        kwargs["probe"] = _electron_probe(values, wavelength, pixel_size, shape, found, given)
    return Dataset(**kwargs)


def _select(kwargs: dict[str, Any], values: Mapping[str, Any], listed: bool, source: str) -> None:
    """Frames and positions as `SELECTION` says, one for one; noted among the preparations."""
    patterns, which, drop = kwargs["patterns"], values.get("frames"), values.get("drop_columns")
    count = len(patterns)
    shape = values.get("scan_shape")
    index, kwargs["positions"] = paired(
        patterns,
        kwargs["positions"],
        which=which,
        drop=drop,
        scan_shape=shape,
        listed=listed,
        source=source,
    )
    if index is None:
        return
    kwargs["patterns"] = (
        Selected(patterns, index) if isinstance(patterns, Frames) else patterns[index]
    )
    mask = kwargs.get("mask")
    if mask is not None and np.ndim(mask) == 3 and len(mask) == count:
        kwargs["mask"] = np.asarray(mask)[index]
    done = {"frames": None if which is None else slice_text(which), "drop_columns": drop}
    prepared = {name: value for name, value in done.items() if value is not None}
    kwargs["notes"]["prepared"] = {**kwargs["notes"].get("prepared", {}), **prepared}


def _square(kwargs: dict[str, Any], stated: bool | None, found: Found, source: str) -> None:
    """Frames that are amplitudes become intensities."""
    mask, where = kwargs.get("mask"), found.where.get("patterns", "")
    usable = mask is not None and np.shape(mask) in (
        tuple(kwargs["patterns"].shape),
        tuple(kwargs["patterns"].shape[1:]),
    )
    valid = np.asarray(mask, bool) if usable else None
    kwargs["patterns"], remark = intensities(kwargs["patterns"], where, stated, valid, source)
    if remark:
        found.where["amplitudes"] = remark


def _notes(found: Found, given: Mapping[str, Any], source: str) -> dict[str, Any]:
    notes = dict(found.fields.get("notes") or {})
    if found.where and not found.ours:
        notes = {"source": source, "format": found.kind, "read": found.where} | notes
    stated = {name: value for name, value in given.items() if name not in _ARRAYS}
    if stated:
        notes["given"] = {**notes.get("given", {}), **stated}
    return notes | dict(given.get("notes") or {})


def _in_unit(
    positions: Any, unit: str, pixel_size: tuple[float, float] | None, found: Found, source: str
) -> FloatArray:
    """Positions in metres where the pixel size is known, else in pixels."""
    array = np.asarray(positions)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "uif":
        return array  # Dataset says what is wrong with it
    array = array.astype(np.float64)
    where = found.where.get("positions", "given")
    if states_nothing(unit):
        # nobody scans a metre, and nobody scans less than a pixel
        span = float(np.ptp(array, axis=0).max(initial=0))
        unit = "px" if span >= 1 else "m"
        found.where["positions"] = (
            f"{where} (guess: {unit}, for no unit is stated and they span {span:.3g}; "
            "--position-units if not)"
        )
    elif unit not in ("m", "px"):
        found.where["positions"] = f"{where} ({unit})"
    if is_pixel(unit):
        return array if pixel_size is None else array * np.array(pixel_size)
    if factor_of(unit, "length") is None:
        raise PtychonError(
            f"{source}: the positions ({where}) are in {unit!r}, which is no length; give "
            "--position-units"
        )
    array = np.asarray(in_si(array, unit, "length"))
    if pixel_size is None:
        missing = [
            n
            for n in ("wavelength", "distance", "detector_pixel_size")
            if found.fields.get(n) is None
        ]
        raise PtychonError(
            f"{source}: positions are in {unit} but the pixel size of the object is unknown"
            + "".join(f" ({found.problems[n]})" for n in missing if n in found.problems)
            + f"; give --pixel-size, or {', '.join(map(flag, missing))}".replace(
                "--wavelength", "--energy or --wavelength"
            )
        )
    return array


def raster_positions(
    values: Mapping[str, Any],
    pixel_size: tuple[float, float] | None,
    source: str,
    problem: str = "",
) -> FloatArray:
    """Positions (N, 2) in m of a raster that is described but not listed.

    Point (s, f) of the slow and the fast axis lies at

        row = s dy cos t - f dx sin t,    col = s dy sin t + f dx cos t

    with the steps (dy, dx) along the slow and the fast axis and the rotation t of the scan against
    the detector.

    Parameters
    ----------
    values : mapping
        ``scan_shape`` (slow, fast), ``step`` in m (one, or two for slow and fast), ``rotation`` in
        rad (0 if absent).
    pixel_size : (dy, dx) in m or None
    source : str
    problem : str
        Why positions that the file lists cannot be used.

    Raises
    ------
    PtychonError
        If one of them is missing.
    """
    missing = [name for name in ("scan_shape", "step") if values.get(name) is None]
    if pixel_size is None:
        missing.append("pixel_size")
    if missing:
        flags = ", ".join(f"{flag(n)} {_EXAMPLES[n]}" for n in missing)
        names = ", ".join(n.replace("_", " ") for n in missing)
        why = f" ({problem})" if problem else ""
        raise PtychonError(
            f"{source} holds no positions that were recognised{why}; for a raster give what is "
            f"missing ({names}): {flags}; "
            f"or name a table of positions with --positions-path"
        )
    slow, fast = values["scan_shape"]
    ds, df = np.broadcast_to(np.asarray(values["step"], float), (2,))
    if not (min(abs(ds), abs(df)) > 0 and np.isfinite([ds, df]).all()):
        raise PtychonError(f"the scan step is {values['step']} m; it must not be zero")
    angle = float(values.get("rotation") or 0.0)
    s, f = (axis.reshape(-1) for axis in np.mgrid[:slow, :fast])
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([s * ds * cos - f * df * sin, s * ds * sin + f * df * cos], axis=1)


_EXAMPLES = {"scan_shape": "40x40", "step": "31.25A", "pixel_size": "9.3A"}


def _electron_probe(
    values: Mapping[str, Any],
    wavelength: float | None,
    pixel_size: tuple[float, float] | None,
    shape: tuple[int, ...],
    found: Found,
    given: Mapping[str, Any],
) -> Any:
    from ..simulation.probes import electron

    if pixel_size is None or wavelength is None:
        if "semi_angle" not in given:
            return None
        raise PtychonError(
            "a probe from --semi-angle needs --voltage (or --wavelength) and --pixel-size as well"
        )
    defocus = float(values.get("defocus") or 0.0)
    found.where["probe"] = (
        f"from wavelength, semi-angle and defocus {defocus:g} m (positive: underfocus)"
    )
    # the flag counts underfocus positive, as microscopes do; the coefficient C1 of the aberration
    # has the other sign
    return electron(
        (shape[1], shape[2]),
        pixel_size,
        wavelength=wavelength,
        semi_angle=values["semi_angle"],
        defocus=-defocus,
    )
