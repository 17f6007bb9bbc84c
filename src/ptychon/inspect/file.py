"""What is in a file, what is missing, and what follows from it, before anything is
reconstructed.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.bad_values import BadValues
from ..data.dataset import Dataset
from ..data.position_table import step_of
from ..data.survey import Survey, electron_dose, survey
from ..io import load_result, prepared
from ..io.found import SELECTION, Found, assemble, flag
from ..io.given import DIMENSIONS, EXTRA, PREPARATION, check_given
from ..io.mask_file import replacing, with_mask
from ..io.places import size_of
from ..io.recognise import find, holds_result
from ..run.steps import reason, share_of
from ..types import FloatArray, PtychonError, PtychonWarning
from ..units import Dimension, energy_of_photons, pretty
from .advice import _LARGEST_OBJECT, advice_of, cost_of_engines
from .gain import find_levels
from .orientation import UNSTATED, stated_orientation

#: Frames, and bytes of them in double precision, from which dark level and gain are estimated.
_LEVEL_FRAMES, _LEVEL_BYTES = 64, 2**26
#: Wavelength below which they are electrons.
_ELECTRONS = 1.3e-11


def inspect(path: str | os.PathLike[str], **given: Any) -> dict[str, Any]:
    """What is in a file, as plain values that can be written as JSON.

    Parameters
    ----------
    path : path of a scan or a reconstruction
    **given
        As in `ptychon.load`.

    Returns
    -------
    dict
        ``kind`` ("scan" or "reconstruction"), ``format``, ``ready`` (whether it can be
        reconstructed as it is), ``missing`` (why not), ``found`` (name, value, where it stood or
        the flag that supplies it), ``frames``, ``scan``, ``engines``, ``advice``. Lengths are in m,
        detector coordinates in px.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or of an unknown kind.
    """
    values, said = with_mask(check_given(given))
    about: dict[str, Any] = {"file": str(path), "bytes": size_of(path)}
    if values.get("data_path") is None and holds_result(path):
        return about | _reconstruction(path)
    missing, placed = "", True
    with warnings.catch_warnings(
        record=True
    ) as doubts:  # what is doubted is said once, among the advice
        warnings.simplefilter("always")
        found = find(path, {k: v for k, v in values.items() if k in EXTRA})
        said = replacing(said, values.get("mask"), found.fields.get("mask"))
        try:
            stated = {k: v for k, v in values.items() if k not in PREPARATION or k in SELECTION}
            data = prepared(assemble(found, stated, Path(path).name), values)
        except PtychonError as error:
            if "patterns" not in found.fields:
                raise
            missing, placed = str(error), False
            data = _unplaced(found, values, error)
    told = [str(doubt.message) for doubt in doubts if issubclass(doubt.category, PtychonWarning)]
    about |= {"kind": "scan", "format": found.kind, "ready": not missing, "missing": missing}
    about["found"] = _table(found, values, data, placed, said)
    look = survey(data)
    about["frames"], advice = _frames(data, look)
    advice += _levels(data, values, about["frames"]) + _dose(data, look)
    about["scan"] = _scan(data, look) if placed else {}
    sane = placed and math.prod(about["scan"]["object_shape"]) <= _LARGEST_OBJECT
    about["engines"] = cost_of_engines(data, about["scan"]["object_shape"] if sane else None)
    about["advice"] = (
        ([missing] if missing else [])
        + told
        + advice
        + (advice_of(data, about, look, told) if placed else [])
    )
    same = " with the same options" if given else ""
    if not about["advice"]:
        about["advice"].append(f"nothing looks wrong: ptychon reconstruct {path}{same}")
    if placed and not stated_orientation(data):
        about["advice"].append(f"{UNSTATED}: try ptychon orient {path}{same}")
    about["preparation"] = dict(data.notes.get("prepared", {}))
    return about


def _unplaced(found: Found, values: Mapping[str, Any], error: PtychonError) -> Dataset:
    """Frames without positions, to be looked at."""
    patterns = found.fields["patterns"]
    mask = values.get("mask", found.fields.get("mask"))
    places = np.arange(2.0 * patterns.shape[0]).reshape(-1, 2)
    try:
        return prepared(Dataset(patterns=patterns, positions=places, mask=mask), values)
    except PtychonError:
        raise error from None


def _reconstruction(path: str | os.PathLike[str]) -> dict[str, Any]:
    result = load_result(path)
    errors = result.errors[np.isfinite(result.errors)]
    known = {
        "engine": result.engine,
        "backend": result.backend,
        "passes": result.passes,
        "object_shape": list(result.object.shape),
        "probe_shape": list(result.probe.shape),
        "positions": len(result.positions),
        "pixel_size": None if result.pixel_size is None else list(result.pixel_size),
        "error_in_pass": float(errors[-1]) if len(errors) else None,
        "error_final": float(result.final_error) if math.isfinite(result.final_error) else None,
        "object_std": result.object_std is not None,
        "left_out": list(result.settings.get("left_out", ())),
    }
    format = str(result.settings.get("format", "ptychon"))
    return {
        "kind": "reconstruction",
        "format": format,
        "ready": True,
        "missing": "",
        "result": known,
        "advice": [
            f"go on from it: ptychon reconstruct SCAN --start {path}",
            f"show it: ptychon report {path}",
        ],
    }


def _table(
    found: Found, values: Mapping[str, Any], data: Dataset, placed: bool, mask: str
) -> list[dict[str, Any]]:
    """One row a quantity: name, value for people, where it stood; if it is not there, the flag that
    supplies it.
    """
    rows: list[dict[str, Any]] = []

    def row(name: str, value: str | None, *flags: str) -> None:
        where = "given" if name in values else found.where.get(name, "")
        change = dict(data.notes.get("prepared", {})).get(name, "")
        if change and name in ("pixel_size", "detector_pixel_size"):
            where = f"{where or 'derived'}; {change} after crop and bin"
        problem = found.problems.get(name, "") if value is None else ""
        rows.append(
            {
                "name": name,
                "value": value,
                "where": where,
                "flag": " or ".join(flags),
                "problem": problem,
            }
        )

    def length(value: Any) -> str | None:
        pair = None if value is None else np.broadcast_to(np.asarray(value, float), (2,))
        if pair is None:
            return None
        return " x ".join(dict.fromkeys(pretty(float(v), "length") for v in pair))

    wavelength = (
        data.wavelength if placed else values.get("wavelength", found.fields.get("wavelength"))
    )
    energy = ""
    if wavelength is not None and wavelength > 1.3e-11:
        energy = f" ({pretty(energy_of_photons(wavelength), 'energy')})"
    row(
        "wavelength",
        None if wavelength is None else pretty(wavelength, "length") + energy,
        "--energy",
        "--voltage",
    )
    for name in ("distance", "detector_pixel_size", "pixel_size"):
        value = getattr(data, name) if placed else values.get(name, found.fields.get(name))
        row(name, length(value), flag(name))
    if data.geometry == "near":
        row(
            "focus_distance",
            length(data.focus_distance) or "none: parallel beam",
            "--focus-distance",
        )
    unit = "px" if not placed or data.pixel_size is None else "m"
    row(
        "positions",
        f"{len(data)} in {unit}" if placed else None,
        "--positions-path",
        "--scan-shape with --step",
    )
    row("geometry", f"{data.geometry} field" if placed else None, "--near-field")
    row(
        "mask",
        "none: all pixels are taken to be good"
        if data.mask is None
        else f"{int((~data.mask).sum())} pixels invalid",
    )
    rows[-1]["where"] = mask or rows[-1]["where"]
    if data.background is not None:
        row("background", f"{float(np.mean(data.background)):.4g} counts a pixel")
    if data.read_noise is not None:
        row("read_noise", f"{data.read_noise:.4g} counts")
    stated = (
        "as the file states" if stated_orientation(data) or "orientation" in found.where else None
    )
    row("orientation", stated, "--orient WAY, which ptychon orient finds,")
    modes = 0 if data.probe is None else len(data.probe)
    row(
        "probe", f"{modes} mode{'s' * (modes > 1)}" if modes else "none: one is found from the data"
    )
    for name in sorted(set(found.where) - {r["name"] for r in rows} - {"patterns"}):
        row(name, _short(name, values.get(name, found.fields.get(name))))
    return rows


def _short(name: str, value: Any) -> str:
    more: dict[str, Dimension] = {"step": "length", "detector_pixel_angle": "angle"}
    dimension = {**DIMENSIONS, **more}.get(name)
    if dimension is not None and isinstance(value, int | float):
        return pretty(float(value), dimension)
    return "" if value is None else "array" if hasattr(value, "shape") else str(value)


def _frames(data: Dataset, look: Survey) -> tuple[dict[str, Any], list[str]]:
    """Facts about the frames, and what they call for."""
    p, q = data.frame_shape
    dtype = np.dtype(data.patterns.dtype)
    valid: Any = np.ones((p, q), bool) if data.mask is None else data.mask
    valid = valid if valid.ndim == 2 else valid.any(axis=0)
    bad, tally = look.bad, look.tally
    whole = bool(np.all(look.total == np.rint(look.total)))
    centres = look.centres[np.isfinite(look.centres).all(axis=1)]
    facts: dict[str, Any] = {
        "count": len(data),
        "shape": [p, q],
        "dtype": str(dtype),
        "bytes": len(data) * p * q * dtype.itemsize,
        "looked_at": len(look.index) + look.empty,
        "counts_mean": float(look.counts.mean()),
        "counts_spread": float(look.counts.std() / look.counts.mean())
        if look.counts.mean() > 0
        else None,
        "brightest": float(look.largest[valid].max()) if valid.any() else None,
        "whole_numbers": whole,
        "empty": look.empty + int((look.counts <= 0).sum()),
        "hot": int(bad.hot.sum()),
        "dead": int(bad.dead.sum()),
        "saturated": int(bad.saturated.sum()),
        "marked": int(bad.marked.sum()),
        "bad_values": tally.sentence,
        "below_zero": tally.rule.share,
        "noise_below_zero": tally.rule.noise,
    }
    if len(centres) > 1:
        facts["centre"] = [float(c) for c in centres.mean(axis=0)]
        trend = np.polyfit(np.linspace(0, 1, len(centres)), centres, 1)[0]
        facts["drift"] = [float(t) for t in trend]
        facts["wander"] = float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))
    advice = []
    if facts["empty"]:
        advice.append(
            f"{facts['empty']} of {facts['looked_at']} frames looked at are empty: "
            + (
                "they and their positions are left out"
                if look.empty
                else "they are kept, since the others have few counts"
            )
        )
    if look.tally.sentence:
        advice.append(f"{look.tally.sentence}; reconstruct does so by itself")
    if facts["hot"] or facts["dead"]:
        advice.append(
            f"{facts['hot']} hot and {facts['dead']} dead pixels are not in the mask: add "
            "--bad-pixels"
        )
    if data.geometry == "far" and "centre" in facts:
        off = math.hypot(facts["centre"][0] - p // 2, facts["centre"][1] - q // 2)
        if off > 0.06 * max(p, q):
            advice.append(
                f"the centre of mass is at row {facts['centre'][0]:.1f}, column "
                f"{facts['centre'][1]:.1f}, {off:.0f} px from "
                f"the middle: add --centre auto"
            )
        if math.hypot(*facts["drift"]) > max(3.0, 0.05 * max(p, q)):
            advice.append(
                f"the beam drifts by {math.hypot(*facts['drift']):.1f} px from the first frame "
                "to the last"
            )
    return facts, advice


def _levels(data: Dataset, values: Mapping[str, Any], facts: dict[str, Any]) -> list[str]:
    """Dark level, gain and read noise that the frames show and nobody has stated, with the flags
    that state them.
    """
    told = all(name in values for name in ("gain", "read_noise")) or (
        data.read_noise is not None and data.counting
    )
    if data.noise_variance is not None or told:
        return []
    plain = np.dtype(data.patterns.dtype).kind == "f" and not facts["whole_numbers"]
    found = None
    if data.geometry == "far":
        count = max(
            1, min(_LEVEL_FRAMES, len(data), _LEVEL_BYTES // (8 * math.prod(data.frame_shape)))
        )
        first = (len(data) - count) // 2
        block = np.asarray(data.patterns[first : first + count])
        bad = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask).bad(block)
        mask = (
            data.mask
            if data.mask is None or data.mask.ndim == 2
            else data.mask[first : first + count]
        )
        valid = np.ones(block.shape, bool) if mask is None else np.broadcast_to(mask, block.shape)
        found = find_levels(block, valid if bad is None else valid & ~bad)
    if found is None:
        if plain and data.counting and "gain" not in values:
            return [
                "the frames are not whole numbers: if they are not counts, give --gain, the "
                "units per photon or electron"
            ]
        return []
    facts["levels"] = asdict(found)
    gain, done = found.gain, float(values.get("gain") or 1)
    one = (
        "electron"
        if data.wavelength is not None and data.wavelength < _ELECTRONS
        else "photon or electron"
    )
    flags = []
    said = f"dark pixels stand at {found.dark:.4g} with a noise of {found.noise:.3g}"
    if abs(found.dark) > 0.1 * found.noise and "dark" not in values:
        flags.append(f"--pedestal {found.dark:.4g}")
    if "gain" in values or gain is None:
        unit = (
            ""
            if "gain" in values
            else " and --gain, the units of one, which the frames do not show"
        )
        flags += [f"--read-noise {found.noise:.2g}"] if "gain" in values else []
        return (
            [f"{said}: add {' '.join(flags)}{unit}"]
            if flags
            else [f"{said}; give --gain, the units of one {one}"]
        )
    how = "by the peaks of single ones" if found.peaks else "by variance over mean, roughly"
    flags += [f"--gain {gain / done:.4g}", f"--read-noise {found.noise / gain:.2g}"]
    return [f"{said}, and one {one} gives {gain:.4g} ({how}): for counts add {' '.join(flags)}"]


def _dose(data: Dataset, look: Survey) -> list[str]:
    """What few counts call for."""
    mean, said = float(look.counts.mean()), []
    valid = math.prod(data.frame_shape) * (1.0 if data.mask is None else float(data.mask.mean()))
    if not data.counting or not mean > 0:
        return []
    if mean < 200:
        said.append(
            f"frames hold {mean:.0f} counts on average: many passes would fit noise; try "
            "--engine ep, and stop early"
        )
    if share_of(mean / valid) < 1:
        said.append(f"epie and rpie choose small steps by themselves, {reason(mean / valid)}")
    return said


def _scan(data: Dataset, look: Survey) -> dict[str, Any]:
    """Facts about the positions, in m where the scale is known and else in px."""
    size = np.ones(2) if data.pixel_size is None else np.array(data.pixel_size)
    window = np.array(data.frame_shape) * size
    step = step_of(data.positions)
    extent = np.ptp(data.positions, axis=0)
    diameter, source = _beam(data, look, size)
    dose = electron_dose(data, float(look.counts.mean()))
    return {
        "unit": "px" if data.pixel_size is None else "m",
        "extent": [float(e) for e in extent],
        "step": step,
        "window": [float(w) for w in window],
        "object_shape": [int(n) for n in np.ceil(extent / size) + data.frame_shape],
        "steps_per_window": float(window.min() / step) if step > 0 else None,
        "beam_diameter": diameter,
        "beam_from": source,
        "overlap": None if diameter is None or not step > 0 else max(0.0, 1 - step / diameter),
        "oversampling": None
        if diameter is None or data.geometry == "near"
        else float(window.min() / diameter),
        "dose_e_per_A2": dose,
    }


def _beam(data: Dataset, look: Survey, size: FloatArray) -> tuple[float | None, str]:
    """Diameter of the disc of the same area as the beam on the sample, (sum I)^2/sum I^2, and where
    it is from.
    """
    if data.probe is not None:
        intensity, source = (
            (np.abs(data.probe.astype(np.complex128)) ** 2).sum(axis=0),
            "the first probe",
        )
    elif data.geometry == "near":
        intensity, source = np.maximum(look.mean, 0), "the mean frame"
    else:
        return None, "unknown: there is no first probe"
    square = float((intensity**2).sum())
    if not square > 0:
        return None, "unknown"
    area = float(intensity.sum()) ** 2 / square * float(size[0] * size[1])
    return 2 * math.sqrt(area / math.pi), source
