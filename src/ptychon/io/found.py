"""What a reader has found in a file, and what of it is not plausible."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.position_table import step_of
from ..types import PtychonWarning
from ..units import factor_of, pretty


@dataclass
class Found:
    """What is in a file, in SI, and where each thing stood.

    Attributes
    ----------
    kind : str
        The format, for people: "CXI", "NumPy archive".
    fields : dict
        Fields of `Dataset`, `patterns` among them, and those of `EXTRA` that the file states.
    unit : str
        Of ``fields["positions"]`` as the file spells it ("m", "um", "pixels"); empty where it does
        not say.
    where : dict
        Field -> place in the file, with remarks on how it was read.
    problems : dict
        Field -> why what the file says cannot be used; raised only if the caller does not state
        that field.
    ours : bool
        Whether this package wrote the file: its notes say how the scan was first read.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    unit: str = ""
    where: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    ours: bool = False

    def add(self, name: str, value: Any, where: str) -> None:
        """Keep a value, unless there is one already."""
        if value is not None and name not in self.fields:
            self.fields[name] = value
            self.where[name] = where


def flag(name: str) -> str:
    """The command line flag that states a field."""
    return "--" + name.replace("_", "-")


#: Lengths (m) that experiments have.
_PLAUSIBLE = {
    "wavelength": (1e-13, 1e-5),
    "distance": (1e-5, 1e3),
    "focus_distance": (1e-7, 1e3),
    "detector_pixel_size": (1e-7, 1e-2),
    "pixel_size": (1e-13, 1e-3),
}
_WIDEST_SCAN = 0.5


def report_implausible(values: Mapping[str, Any], found: Found, source: str) -> bool:
    """Warn of what a file says that can hardly be true, with the flag that corrects it; whether
    positions are among it.
    """
    for name, (low, high) in _PLAUSIBLE.items():
        numbers = (
            np.ravel(values[name]) if values.get(name) is not None and name in found.where else ()
        )
        wrong = [float(n) for n in numbers if not low <= float(n) <= high]
        if wrong and found.fields.get(name) is not None:
            text = (
                f"{source}: the {name.replace('_', ' ')} is {wrong[0]:.6g} m "
                f"({found.where[name]}), which can hardly be true"
            )
            warnings.warn(f"{text}; correct it with {flag(name)}", PtychonWarning, stacklevel=4)
    places = np.asarray(values.get("positions", ()))
    factor = factor_of(found.unit, "length")
    if factor is not None and places.ndim == 2 and places.size and places.dtype.kind in "uif":
        span = (
            float(np.ptp(places[np.isfinite(places).all(axis=1)], axis=0).max(initial=0.0)) * factor
        )
        if span > _WIDEST_SCAN:
            text = (
                f"{source}: the positions span {span:.3g} m "
                f"({found.where.get('positions', '')}), which can hardly be true"
            )
            warnings.warn(
                f"{text}; state their unit with --position-units", PtychonWarning, stacklevel=4
            )
            return True
    return False


#: Steps below this part of a pixel, or above the window, are of a scan whose unit or pixel size is
#: wrong.
_SHORTEST_STEP = 0.5


def doubt_of_scan(
    positions: Any,
    pixel_size: tuple[float, float] | None,
    frame_shape: tuple[int, int],
    shortest: float = _SHORTEST_STEP,
) -> str:
    """Why the step of a scan can hardly be true, for people; empty if it can.

    Parameters
    ----------
    positions : (N, 2) float, m if `pixel_size` is known, else px
    pixel_size : (dy, dx) in m or None
    frame_shape : (P, Q)
    shortest : float
        Part of a pixel below which a step is doubted.
    """
    places = np.asarray(positions)
    if (
        places.ndim != 2
        or places.shape[1] != 2
        or places.dtype.kind not in "uif"
        or not np.isfinite(places).all()
    ):
        return ""
    size = np.ones(2) if pixel_size is None else np.array(pixel_size)
    window = size * frame_shape
    step, pixels = step_of(places), step_of(places / size)

    def said(length: float) -> str:
        return f"{length:.3g} px" if pixel_size is None else pretty(float(length), "length")

    if 0 < pixels < shortest:
        return (
            f"the step of the scan of {said(step)} is {pixels:.2g} of a pixel of the object of "
            f"{said(step / pixels)}, "
            f"{window.min() / step:.0f} steps a window, which can hardly be true"
        )
    if step > window.max():
        return (
            f"the step of the scan of {said(step)} is longer than the window of "
            f"{said(window.max())}, so that no two "
            f"windows overlap"
        )
    return ""
