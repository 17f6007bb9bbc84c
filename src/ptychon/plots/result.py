"""Pictures of reconstructions, drawn without any global state of matplotlib: every function returns
a new `Figure`.

Objects are shown on the bounding box of their illuminated region, and hatched outside it; their
phases without ramp and offset (`remove_ramp`), in grey between their 0.5 and 99.5 % quantiles, or
in a cyclic map if they wrap. Probes are shown twice: their amplitude in grey, and every mode in
colours whose lightness is the amplitude (`complex_rgb`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.result import Result
from ..types import FloatArray, PtychonError
from .axes import ObjectAxes, grey_limits, lit_region, save
from .display import complex_rgb, phase_cut, remove_ramp
from .figures import Axes, Figure
from .moves import draw_moves
from .panels import draw_convergence, draw_modes, draw_probe

__all__ = ["compare", "complex_rgb", "picture", "remove_ramp", "save"]

#: Probe modes that are drawn; more would be too small to see.
MODES = 6
#: Height of the title, inches.
_HEAD = 0.35


def picture(
    result: Result, path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Figure:
    """A reconstruction at a glance: object amplitude and phase, its standard deviation, probe,
    convergence.

    Parameters
    ----------
    result : Result
    path : path, optional
        Where to save it; the suffix gives the format (.png, .pdf, .svg). A file that exists is
        replaced as a whole.
    title : str, optional
        Instead of engine, backend, passes and residual.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PtychonError
        If the file cannot be written or its format is unknown.
    """
    deviation = result.object_std
    frame = ObjectAxes(result)
    columns = 2 if deviation is None else 3
    further = len(result.probe[1:MODES]) > 0
    width = 5.2 * columns if columns == 2 else 14.4
    heights = [min(max((width / columns - 1.6) * frame.aspect, 1.5), 7.0) + 1.2, 3.5, 1.9][
        : 2 + further
    ]
    heights[0] += _HEAD
    # placed by hand: an engine of layout draws all twice more, which takes longer than the run
    figure = Figure(figsize=(width, sum(heights)))
    figure.suptitle(
        title if title is not None else headline(result), y=1 - 0.12 / sum(heights), va="top"
    )
    rows: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    axes = rows[0].subplots(1, columns)
    _place(rows[0], (width, heights[0]), columns, top=0.35 + _HEAD)
    amplitude, phase, wraps = shown(result)
    of = "" if result.slices is None else f", product of {len(result.slices)} slices"
    frame.show(axes[0], amplitude, f"object amplitude{of}", "amplitude")
    frame.show(axes[1], phase, f"object phase{of}", "phase (rad)", wraps=wraps)
    if deviation is not None:
        lit_std = np.where(np.isfinite(amplitude), np.asarray(deviation, float), np.nan)
        frame.show(axes[2], lit_std, "standard deviation of the object", "standard deviation")
    moved = result.positions_given is not None
    panels = _panels(rows[1], (width, heights[1]), moved)
    draw_probe(panels[:2], result)
    draw_convergence(panels[2], result)
    if moved:
        draw_moves(panels[3], result)
    if further:
        draw_modes(rows[2].subplots(1, MODES - 1), result)
        rows[2].subplots_adjust(0.02, 0.03, 0.98, 0.82)
    if path is not None:
        save(figure, path)
    return figure


def _place(part: Any, size: tuple[float, float], columns: int, top: float) -> None:
    """Give the axes of a row room for their labels and colour bars, inches."""
    left, right, bottom = 0.78, 0.95, 0.55
    width, height = size
    each = (width - columns * (left + right)) / columns
    part.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=(left + right) / each,
    )


def _panels(part: Any, size: tuple[float, float], moved: bool) -> list[Axes]:
    """Axes for amplitude and phase of the probe, for the convergence, and for moves of the
    positions.
    """
    width, height = size
    # inches before, between and behind; the first has a colour bar
    left, bar, plain, right, top, bottom = 0.78, 1.5, 0.95, 0.2, 0.4, 0.55
    shares = (1, 1, 1.3, 1.1)[: 3 + moved]
    each = (width - left - bar - plain * (1 + moved) - right) / sum(shares)
    starts, x = [], left
    for share, gap in zip(shares, (bar, plain, plain, 0), strict=False):
        starts.append(x)
        x += share * each + gap
    return [
        part.add_axes(
            (x / width, bottom / height, share * each / width, 1 - (top + bottom) / height)
        )
        for share, x in zip(shares, starts, strict=True)
    ]


def compare(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Phases (above) and amplitudes (below) of several results of one data set, a column each, on
    common scales.

    Parameters
    ----------
    results : sequence of Result
    names : sequence of str, optional
        Titles of the columns; the engines' names without it.
    path : path, optional
        Where to save it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PtychonError
        If there is nothing to compare, names and results differ in number, or the file cannot be
        written.
    """
    names = [r.engine for r in results] if names is None else names
    if not results or len(names) != len(results):
        raise PtychonError(
            f"{len(results)} results and {len(names)} names to compare: one name each is needed"
        )
    figure = Figure(figsize=(3.6 * len(results) + 1.2, 7.4), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False)
    parts = [shown(r) for r in results]
    # a blind reconstruction has its own scale
    amplitudes = [a / np.nanmedian(a) for a, _, _ in parts]
    phases = [p for _, p, _ in parts]
    wraps = any(w for _, _, w in parts)
    for row, pictures, label in ((0, phases, "phase (rad)"), (1, amplitudes, "amplitude / median")):
        limits = grey_limits(np.concatenate([p[np.isfinite(p)] for p in pictures]))
        image = None
        for ax, result, values, name in zip(axes[row], results, pictures, names, strict=True):
            heading = (
                f"{name}\n$R$ = {result.final_error:.4f}, {result.passes} passes"
                if row == 0
                else ""
            )
            image = ObjectAxes(result).show(
                ax, values, heading, None, limits=limits, wraps=wraps and row == 0
            )
        assert image is not None
        figure.colorbar(image, ax=list(axes[row]), label=label, shrink=0.85, pad=0.01)
    if path is not None:
        save(figure, path)
    return figure


def headline(result: Result) -> str:
    """Engine, backend, passes, residual and time in one line."""
    parts = [
        result.engine + (f" on {result.backend}" if result.backend else ""),
        f"{result.passes} passes",
    ]
    if math.isfinite(result.final_error):
        parts.append(f"final R = {result.final_error:.4f}")
    if result.seconds > 0:
        parts.append(f"{result.seconds:.3g} s")
    return "  ·  ".join(parts)


def shown(result: Result) -> tuple[FloatArray, FloatArray, bool]:
    """Amplitude and phase (H, W) as they are drawn, NaN outside the illuminated region, and whether
    the phase wraps.
    """
    lit = lit_region(result)
    flat = remove_ramp(result.projection, lit.astype(float))
    offset, wraps = phase_cut(np.angle(flat[lit]))
    phase = np.angle(flat * np.exp(-1j * offset))
    if not wraps:
        phase = phase - np.median(phase[lit])
    return np.where(lit, np.abs(flat), np.nan), np.where(lit, phase, np.nan), wraps
