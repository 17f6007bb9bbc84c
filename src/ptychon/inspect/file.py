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

from ..data.dataset import Dataset
from ..data.survey import Survey, survey
from ..io import load_result, prepared
from ..io.assemble import SELECTION, assemble
from ..io.found import Found, flag
from ..io.given import DIMENSIONS, EXTRA, PREPARATION, check_given
from ..io.mask_file import replacing, with_mask
from ..io.places import size_of
from ..io.recognise import find, holds_result
from ..types import PtychonError, PtychonWarning
from ..units import Dimension, energy_of_photons, pretty
from .advice import _LARGEST_OBJECT, advice_of, cost_of_engines
from .blurred import find_blur, remark
from .orientation import UNSTATED, stated_orientation
from .remarks import facts_of_scan, levels_of, remarks_on_dose


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
    advice += levels_of(data, values, about["frames"]) + remarks_on_dose(data, look)
    if (blur := find_blur(data)) is not None:
        about["frames"]["blur"] = asdict(blur)
        advice.append(remark(blur, str(path)))
    about["scan"] = facts_of_scan(data, look) if placed else {}
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
    computed = _computed(found, values, data, placed)
    replaced: dict[str, str] = {}
    stated_by = [name for name in ("energy", "voltage") if values.get(name) is not None]
    if stated_by and values.get("wavelength") is None:
        replaced["wavelength"] = f"computed from the {stated_by[0]} that was given"

    def row(name: str, value: str | None, *flags: str) -> None:
        where = "given" if name in values else replaced.get(name) or found.where.get(name, "")
        where = where or ("" if value is None else computed.get(name, "default"))
        change = dict(data.notes.get("prepared", {})).get(name, "")
        if change and name in ("pixel_size", "detector_pixel_size"):
            where = f"{where}; {change} after crop and bin"
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
        value = values.get(name, found.fields.get(name))
        if (name, value) != ("upsample", 1):  # which changes nothing
            row(name, _short(name, value))
    return rows


def _computed(
    found: Found, values: Mapping[str, Any], data: Dataset, placed: bool
) -> dict[str, str]:
    """What stands neither in the file nor on the command line, and what it is computed from."""
    made: dict[str, str] = {}
    if placed and data.geometry == "near":
        made["pixel_size"] = (
            "computed from the detector pixel size"
            if data.focus_distance is None
            else "computed from detector pixel size, distance and focus distance"
        )
    else:
        made["pixel_size"] = "computed from wavelength, distance and detector pixel size"
    if found.fields.get("positions") is None or "step" in values:
        made["positions"] = "computed from scan shape and step"
    if stated := stated_orientation(data):
        made["orientation"] = stated
    return made


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
