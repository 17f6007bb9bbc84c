"""What follows from what is in a file: what to do next."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.survey import Survey
from ..engines import registry
from ..io.found import doubt_of_scan
from ..metrics.residual import CUT_OFF, probe_at_rim
from ..units import pretty

#: Pixels of an object that nobody has.
_LARGEST_OBJECT = 2**31

#: A window of the far field should be this many steps wide, for windows (and probes of half their
#: width) to overlap.
_STEPS_PER_WINDOW = 4.0


def cost_of_engines(data: Dataset, object_shape: list[int] | None) -> dict[str, dict[str, float]]:
    """Memory (bytes) and time of a pass (s) of every engine, within a factor of about two."""
    import scipy.fft

    p, q = data.frame_shape
    side = max(p, q)
    block = np.ones((max(1, min(8, 2**22 // (p * q))), p, q), np.complex64)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        scipy.fft.fft2(block)
        times.append((time.perf_counter() - start) / len(block))
    one = min(times)
    modes = 1 if data.probe is None else len(data.probe)
    fixed = 24 * math.prod(object_shape or (side, side)) + 64 * modes * p * q + 2**28
    out = {}
    for name, cls in registry.items():
        keeps = cls.keeps
        if keeps.transforms is None:
            continue
        ffts, per_pixel = keeps.transforms, 4 + keeps.stack_bytes * modes + keeps.frame_bytes
        out[name] = {
            "memory": float(len(data) * p * q * per_pixel + fixed),
            "seconds_per_pass": max(ffts * one * modes, 2e-5) * len(data),
        }
    return out


def advice_of(data: Dataset, about: Mapping[str, Any], look: Survey, told: list[str]) -> list[str]:
    """What follows from the scan as a whole."""
    scan, advice = about["scan"], []
    unit = scan["unit"]

    def said(value: float) -> str:
        return pretty(value, "length") if unit == "m" else f"{value:.4g} px"

    extent = max(scan["extent"])
    rows, columns = scan["object_shape"]
    if rows * columns > _LARGEST_OBJECT:
        return [
            f"the positions span {said(extent)}, which is an object of {rows} x {columns} px: "
            "their unit or the pixel size "
            f"must be wrong; name a table with --positions-path, or give --pixel-size"
        ]
    size = data.pixel_size if isinstance(data.pixel_size, tuple) else None
    doubt = doubt_of_scan(data.positions, size, data.frame_shape, shortest=1.0)
    if (
        doubt
        and not any("the step of the scan" in line for line in told)
        and (scan["steps_per_window"] or 1) > 1
    ):
        advice.append(
            f"{doubt}; if so, state the unit of the positions with --position-units, or correct "
            "the pixel size"
        )
    ratio = scan["steps_per_window"]
    if ratio is not None and ratio < _STEPS_PER_WINDOW and data.geometry == "far":
        hint = ""
        if (
            unit == "m"
            and data.distance is not None
            and data.wavelength is not None
            and data.wavelength > 1.3e-11
        ):
            hint = (
                "; if the frames are images of the sample, this is near field: give "
                "--near-field and --focus-distance"
            )
        advice.append(
            f"the step of {said(scan['step'])} is {1 / ratio:.0%} of the window of "
            f"{said(min(scan['window']))}: neighbouring "
            f"windows hardly overlap, as in no far-field scan{hint}"
        )
    if scan["overlap"] is not None and scan["overlap"] < 0.5:
        advice.append(
            f"neighbouring beams overlap by {scan['overlap']:.0%} only; 60 % and more are usual"
        )
    if scan["oversampling"] is not None and scan["oversampling"] < 1.5:
        advice.append(
            f"the beam is {1 / scan['oversampling']:.0%} of the window: the detector pixels are "
            "too coarse for it, and binning "
            f"would make it worse"
        )
    memory = min(engine["memory"] for engine in about["engines"].values())
    if memory > 8e9:
        advice.append(
            f"{memory / 1e9:.0f} GB are needed at least: --crop, --bin 2 or --frames ::2 make "
            "it less"
        )
    share = 0.0 if data.probe is None else probe_at_rim(data.probe)
    if share > CUT_OFF:
        advice.append(
            f"{share:.0%} of the first probe's power is in the outermost 5 % of its window, so "
            "it is cut off or not in the "
            f"middle: give another with --probe"
        )
    if data.probe is None and data.wavelength is not None and data.wavelength < 1.3e-11:
        advice.append("give --semi-angle and --defocus: with electrons a first probe decides")
    return advice
