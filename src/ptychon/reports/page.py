"""What a report says of one result: its panels, its facts, its numbers."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.result import Result
from ..metrics.moves import background_share, moves_of, refined
from ..metrics.registration import bounding_box
from ..plots.depth import slices as draw_slices
from ..run.modes import described, shares
from ..types import PtychonError
from ..units import energy_of_photons, pretty, pretty_pair
from . import pictures as draw
from .verdict import Verdict, length, resolution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..checks.half_scans import Agreement
    from ..uncertainty.half_data import HalfDataTest
    from .numbers import Fit

_DPI = 110
TITLES = {
    "object": "Object",
    "object_colours": "Object in colours",
    "object_unwrapped": "Unwrapped phase",
    "slices": "Slices",
    "deviation": "Error bars",
    "half_data_test": "Error bars against two halves of the data",
    "probe": "Probe",
    "propagation": "Probe along the beam",
    "convergence": "Convergence",
    "ring_correlation": "Resolution",
    "spectrum": "Power spectrum",
    "positions": "Positions",
    "moves": "Refined positions",
    "frames": "Residual of each frame",
    "detector": "Residual of each detector pixel",
}
TEXTS = {
    "object": (
        "Amplitude and phase, without the phase ramp that no data determine; hatched where "
        "hardly any light came."
    ),
    "object_colours": (
        "Hue is the phase, lightness the amplitude, as the disc shows; in grey it is the "
        "picture beside it."
    ),
    "object_unwrapped": (
        "Least squares, weighted by light; it differs from the wrapped phase by whole turns and "
        "a plane."
    ),
    "slices": (
        "Phase of each slice, from where the light comes, without the ramp and the mean that "
        "hardly any frame tells of one alone; the section goes through the row with most "
        "structure. "
        "Fine detail is told apart along the depth better than coarse."
    ),
    "deviation": "Posterior standard deviation of the complex object, and of its phase: std/(√2 "
    "|object|). They hold counting "
    "noise, not errors of the positions or of the model.",
    "probe": "Modes in the plane of the object; the phase of each is free.",
    "propagation": (
        "Summed across the beam, root of the intensity; dashed: the object, dotted: the "
        "narrowest place."
    ),
    "moves": (
        "From where the data put each frame; the mean is taken off, which the probe has taken up."
    ),
    "frames": "Frames that stand out are crossed and numbered.",
    "detector": (
        "Structure here is what the model cannot explain: background, bad pixels, a wrong mask. "
        "Yellow: masked."
    ),
}


@dataclass
class Panel:
    """A picture with its text, or the reason why there is none."""

    name: str
    title: str
    text: str = ""
    png: bytes = b""
    missing: str = ""
    half: bool = False

    @property
    def source(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass
class Section:
    """Everything about one result."""

    name: str
    path: str
    result: Result
    verdict: Verdict
    panels: list[Panel] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    settings: str = ""
    provenance: list[tuple[str, str]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    summary: list[tuple[str, str]] = field(default_factory=list)


def title_of(result: Result, path: str, date: str) -> str:
    """Sample, scan and date of a result: what the file of the scan says of them, and its name."""
    notes = result.settings.get("notes")
    notes = notes if isinstance(notes, Mapping) else {}
    scan = str(result.settings.get("input") or Path(path).name)
    named = str(notes.get("sample") or result.settings.get("name") or "")
    measured = str(notes.get("start_time") or "")[:10]
    parts = [named if named and named != Path(scan).stem else "", f"scan {scan}"]
    parts.append(f"measured {measured}" if measured else f"reconstructed {date}" if date else "")
    return ", ".join(part for part in parts if part)


def summary_of(result: Result, fit: Fit | None, found: Agreement | None) -> list[tuple[str, str]]:
    """The facts that one looks for first."""
    lit = bounding_box(result.illuminated) if result.illuminated.any() else None
    rows: list[tuple[str, str]] = []
    if lit is not None:
        sides = [s.stop - s.start for s in lit]
        size = result.pixel_size
        field = (
            " × ".join(f"{n} px" for n in sides)
            if size is None
            else " × ".join(pretty(n * s, "length", 3) for n, s in zip(sides, size, strict=True))
        )
        rows.append(("field of view", field))
    if result.pixel_size is not None:
        rows.append(("pixel", pretty_pair(result.pixel_size)))
    if found is not None:
        rings = found.rings
        text = resolution(rings.resolution, found.interval, rings.unit, rings.nyquist_limited)
        rows.append(("resolution", text))
    rows.append(("R", f"{result.final_error:.4f}" if math.isfinite(result.final_error) else "–"))
    if fit is not None and fit.noise is not None:
        rows.append(("R of noise alone", f"{fit.noise:.4f}"))
    known = result.settings.get("scan") or {}
    if known.get("wavelength"):
        wave = float(known["wavelength"])
        rows.append(
            ("energy", pretty(energy_of_photons(wave), "energy", 4))
            if 1e-11 < wave < 1e-7
            else ("wavelength", pretty(wave, "length", 4))
        )
    p, q = result.probe.shape[1:]
    rows.append(("frames", f"{len(result.positions)} of {p} × {q} px"))
    if fit is not None:
        rows.append(
            ("counts a frame", f"{fit.counts:,.0f}" if fit.counts < 1e7 else f"{fit.counts:.3g}")
        )
    rows.append(("engine", f"{result.engine}, {result.passes} passes"))
    if result.object_std is not None and result.illuminated.any():
        bar = float(np.median(result.object_std[result.illuminated]))
        rows.append(("error bar", f"{bar:.3g} (median)"))
    return rows


def fill(
    made: Section,
    fit: Fit | None,
    why: str,
    found: Agreement | None,
    why_not: str,
    halves: HalfDataTest | None = None,
) -> None:
    """The panels of a section; `why` and `why_not` say why there is no fit, no resolution."""
    result = made.result

    def add(
        name: str,
        picture: Callable[[], Any],
        text: str = "",
        *,
        half: bool = False,
        missing: str = "",
    ) -> None:
        panel = Panel(name, TITLES[name], text or TEXTS.get(name, ""), half=half, missing=missing)
        made.panels.append(panel)
        if missing:
            return
        try:
            drawn = picture()
        except PtychonError as error:
            panel.missing = f"{error}."
            return
        figure, more = drawn if isinstance(drawn, tuple) else (drawn, {})
        if more:
            made.numbers[name] = plain(more)
        panel.png = png_of(figure)

    add("object", lambda: draw.object_grey(result))
    add("object_colours", lambda: draw.object_colours(result))
    add("object_unwrapped", lambda: draw.object_unwrapped(result))
    if result.slices is not None:
        add("slices", lambda: draw_slices(result))
    add("deviation", lambda: draw.deviation(result))
    if halves is not None:
        sentence = halves.sentence()
        text = (
            f"{sentence[0].upper()}{sentence[1:]}. T: what the variances are to be multiplied by."
        )
        add("half_data_test", lambda: draw.half_data_test(halves), text)
    add("probe", lambda: draw.probe(result))
    add("propagation", lambda: draw.propagation(result))
    add("convergence", lambda: draw.convergence(result, fit), half=True)
    if found is None:
        add("ring_correlation", lambda: None, half=True, missing=why_not)
    else:
        unit = found.rings.unit
        half = resolution(found.rings.resolution, found.interval, unit, found.rings.nyquist_limited)
        text = (
            f"{half} at the half-bit curve, "
            f"{length(found.rings.resolution_one_bit, unit)} at the one-bit curve. Each half "
            "has half the "
            f"dose. What both get wrong alike (positions, the first probe) does not show here."
        )
        add("ring_correlation", lambda: draw.ring_correlation(found), text, half=True)
    add("spectrum", lambda: draw.spectrum(result), half=True)
    add("positions", lambda: draw.positions(result), half=True)
    if result.positions_given is not None:
        add("moves", lambda: draw.moves(result), half=True)
    if fit is None:
        add("frames", lambda: None, missing=why)
        add("detector", lambda: None, missing=why)
    else:
        add("frames", lambda: draw.frames(result, fit))
        add("detector", lambda: draw.detector(fit))


def facts_of(result: Result, fit: Fit | None, found: Agreement | None) -> list[tuple[str, str]]:
    h, w = result.object.shape[-2:]
    modes, p, q = result.probe.shape
    pixel = "" if result.pixel_size is None else f", pixel {pretty(result.pixel_size[1], 'length')}"
    rows = [
        (
            "engine",
            f"{result.engine} on {result.backend}, {result.passes} passes, {result.seconds:.1f} s",
        ),
        ("object", f"{h} × {w} px{pixel}" + (f", {result.slices}" if result.slices else "")),
        ("probe", f"{modes} mode{'s' if modes > 1 else ''} of {p} × {q} px"),
        *([("power of the modes", described(shares(result.probe)))] if modes > 1 else []),
        ("frames", str(len(result.positions))),
        ("R of the final object and probe", f"{result.final_error:.4f}"),
        *refined(result),
        *(("tried on pixels held out", line) for line in result.settings.get("tried", ())),
    ]
    known = result.settings.get("scan") or {}
    if known.get("wavelength"):
        rows.append(("wavelength", pretty(known["wavelength"], "length")))
    if fit is not None:
        if fit.noise is not None:
            rows.append(("R of counting noise alone", f"{fit.noise:.4f}"))
        rows.append(("R without an object", f"{fit.flat:.4f}"))
        rows.append(("counts of a frame", f"{fit.counts:.4g}"))
        rows.append(("measurements for each unknown", f"{fit.sampling_ratio:.3g}"))
    if found is not None:
        unit = found.rings.unit
        rings = found.rings
        half = resolution(rings.resolution, found.interval, unit, rings.nyquist_limited)
        rows.append(("resolution, half bit", half))
        rows.append(("phase noise of a half", f"{found.phase_error:.3g} rad"))
    return rows


def numbers_of(
    result: Result, fit: Fit | None, found: Agreement | None, judged: Verdict
) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "engine": result.engine,
        "passes": result.passes,
        "final_error": result.final_error,
        "errors": result.errors,
        "object_shape": result.object.shape,
        "pixel_size": result.pixel_size,
        "probe_modes": len(result.probe),
        "mode_powers": shares(result.probe),
        "verdict": {
            "level": judged.level,
            "headline": judged.headline,
            "reasons": [asdict(r) for r in judged.reasons],
        },
    }
    if result.positions_given is not None:
        numbers["moves"] = moves_of(result.positions_given, result.positions).as_dict()
    if result.log_scale is not None:
        numbers["dose_spread"] = float(np.std(result.log_scale))
    if result.distance is not None:
        numbers["distance"] = result.distance
    if result.background is not None:
        numbers["background"] = {
            "counts": float(result.background.mean()),
            "share": background_share(result),
        }
    if fit is not None:
        kept = ("residual", "noise", "flat", "sampling_ratio", "counts", "per_frame", "bad")
        numbers["fit"] = {name: getattr(fit, name) for name in kept}
    if found is not None:
        numbers["half_scans"] = {
            "resolution": found.rings.resolution,
            "interval": found.interval,
            "resolution_one_bit": found.rings.resolution_one_bit,
            "interval_one_bit": found.interval_one_bit,
            "phase_error": found.phase_error,
            **asdict(found.rings),
        }
    return numbers


def png_of(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def plain(value: Any) -> Any:
    """What JSON can hold; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
