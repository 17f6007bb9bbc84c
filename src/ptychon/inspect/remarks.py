"""What the frames, the scan and the beam of a file suggest to who reconstructs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..data.bad_values import BadValues
from ..data.dataset import Dataset
from ..data.position_table import step_of
from ..data.survey import Survey, electron_dose
from ..run.steps import reason, share_of
from ..types import FloatArray
from .gain import find_levels

#: Frames, and bytes of them in double precision, from which dark level and gain are estimated.
_LEVEL_FRAMES, _LEVEL_BYTES = 64, 2**26

#: Wavelength below which they are electrons.
_ELECTRONS = 1.3e-11


def levels_of(data: Dataset, values: Mapping[str, Any], facts: dict[str, Any]) -> list[str]:
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


def remarks_on_dose(data: Dataset, look: Survey) -> list[str]:
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


def facts_of_scan(data: Dataset, look: Survey) -> dict[str, Any]:
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
        return None, "there is no first probe"
    square = float((intensity**2).sum())
    if not square > 0:
        return None, "unknown"
    area = float(intensity.sum()) ** 2 / square * float(size[0] * size[1])
    return 2 * math.sqrt(area / math.pi), source
