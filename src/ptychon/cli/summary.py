"""The numbers of a run, for people and for machines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..metrics.moves import refined
from ..run.modes import described, shares
from ..run.progress import described as described_passes
from .places import Places
from .results import show_rows

if TYPE_CHECKING:
    from ..data.result import Result


def summary(result: Result, places: Places, pictured: bool = True) -> dict[str, Any]:
    """The numbers of a run; R that was never measured is None."""
    measured = result.errors[~(result.errors != result.errors)]
    return {
        "engine": result.engine,
        "backend": result.backend,
        "passes": result.passes,
        "ran": result.settings["ran"],
        "steps": result.settings["steps"] or None,
        "error_in_pass": float(measured[-1]) if len(measured) else None,
        "error_final": float(result.final_error) if math.isfinite(result.final_error) else None,
        "object_shape": list(result.object.shape),
        "slices": None if result.slices is None else str(result.slices),
        "mode_powers": [float(share) for share in shares(result.probe)],
        "refined": [list(row) for row in refined(result)],
        "pixel_size": None if result.pixel_size is None else list(result.pixel_size),
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "orientation": result.settings["request"]["orient"],
        "affine": result.settings["request"].get("affine"),
        "result": str(places.result),
        "picture": str(places.picture) if pictured else None,
    }


def show_summary(numbers: dict[str, Any]) -> None:
    """The summary for people, on stdout."""
    from ..units import pretty

    def error(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.4f}"

    bars, powers = numbers["bars"], numbers["mode_powers"]
    height, width = numbers["object_shape"][-2:]
    scale = (
        ""
        if numbers["pixel_size"] is None
        else f", pixel {pretty(numbers['pixel_size'][1], 'length')}"
    )
    compiling = (
        f" and {numbers['compile_seconds']:.1f} s compiling"
        if numbers["compile_seconds"] >= 0.05
        else ""
    )
    ran = described_passes(numbers["ran"])
    now = sum(part[1] for part in numbers["ran"])
    if now < numbers["passes"]:
        before = f"after {numbers['passes'] - now} of the result it started from"
        ran = f"{ran}, {before}" if ran else before
    rows = [
        (
            "engine",
            f"{numbers['engine']} on {numbers['backend']}, {now} passes"
            + (f" ({ran})" if ran else ""),
        ),
        ("steps", numbers["steps"]),
        ("time", f"{numbers['seconds']:.1f} s{compiling}"),
        ("object", f"{height} x {width} px{scale}"),
        ("slices", numbers["slices"]),
        (
            "modes",
            f"{len(powers)}, with {described(powers)} of the power" if len(powers) > 1 else None,
        ),
        *((name, text) for name, text in numbers["refined"]),
        ("oriented", numbers["orientation"]),
        ("affine", numbers["affine"]),
        ("R in pass", error(numbers["error_in_pass"])),
        ("R final", error(numbers["error_final"])),
        (
            "error bar",
            None
            if bars is None
            else f"{bars['object_std']:.4g} (median of the lit pixels, {bars['method']})",
        ),
        *((name, numbers.get(name)) for name in ("result", "picture", "report", "checkpoint")),
    ]
    show_rows(rows)
