"""Pictures of a thick specimen: each slice, a section along the depth, and where structure lies."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.depth import levelled, middle, strengths
from ..metrics.registration import bounding_box
from ..types import FloatArray, PtychonError
from ..units import pretty
from .axes import length_unit, lit_region, save
from .figures import Figure

#: Slices that are shown one by one, at most, evenly chosen; and how many in a row.
SHOWN, COLUMNS = 12, 6


def slices(result: Result, path: str | os.PathLike[str] | None = None) -> Figure:
    """Phases of the slices; below them the phase along the depth and one row, and the structure of
    each slice.

    Ramps and means of the phases of single slices are taken off.

    Parameters
    ----------
    result : Result
        Of several slices.
    path : path, optional
        Where to save it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PtychonError
        For a thin object, or if the file cannot be written.
    """
    if result.slices is None:
        raise PtychonError("the object of this result is thin; ptychon.plot draws it")
    lit, depths = lit_region(result), result.slices.depths
    rows, cols = bounding_box(lit)
    phases: FloatArray = np.stack(
        [
            np.where(lit, np.angle(levelled(layer, lit)), np.nan)[rows, cols]
            for layer in result.object
        ]
    )
    dy, dx = (1.0, 1.0) if result.pixel_size is None else result.pixel_size
    high, wide = phases.shape[1] * dy, phases.shape[2] * dx
    factor, unit = length_unit(max(high, wide))
    which = np.unique(np.linspace(0, len(phases) - 1, min(SHOWN, len(phases))).round().astype(int))
    columns = min(COLUMNS, len(which))
    lines = math.ceil(len(which) / columns)
    size = 11.0 / max(columns, 3)
    figure = Figure(figsize=(11.0, lines * (size * high / wide + 0.3) + 3.2), layout="constrained")
    heights = (lines * (size * high / wide + 0.3), 3.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    low, top = np.nanpercentile(phases, (0.5, 99.5))
    axes = np.atleast_1d(above.subplots(lines, columns)).ravel()
    across = (0, wide * factor, high * factor, 0)
    for ax in axes:
        ax.set_axis_off()
    for ax, s in zip(axes, which, strict=False):
        image = ax.imshow(phases[s], cmap="gray", vmin=low, vmax=top, extent=across)
        ax.set_title(f"z = {pretty(float(depths[s]), 'length', 3)}", fontsize=9)
    above.colorbar(image, ax=list(axes), label="phase (rad)", shrink=0.8, pad=0.01)
    section, bars = below.subplots(1, 2, width_ratios=(2.2, 1))
    # the row with most structure, and few rows have all of their pixels lit
    row = int(np.nansum((phases - np.nanmedian(phases)) ** 2, axis=(0, 2)).argmax())
    z_factor, z_unit = length_unit(float(depths[-1]))
    edges = _edges(depths) * z_factor
    x = np.linspace(0, wide * factor, phases.shape[2] + 1)
    shown = section.pcolormesh(x, edges, phases[:, row], cmap="gray", vmin=low, vmax=top)
    section.invert_yaxis()
    section.set(
        title=f"section at y = {(row + 0.5) * dy * factor:.3g} {unit}",
        xlabel=f"x ({unit})",
        ylabel=f"z ({z_unit}), down the beam",
    )
    below.colorbar(shown, ax=section, label="phase (rad)", pad=0.01)
    strength = strengths(result.object, lit)
    bars.barh(depths * z_factor, strength, 0.8 * np.diff(edges), color="0.5")
    centre = middle(strength, depths)
    bars.axhline(centre * z_factor, color="#c04000", lw=1)
    bars.invert_yaxis()
    bars.set(
        title=f"structure; its middle at {pretty(centre, 'length', 3)}",
        xlabel="rms of O/mean - 1",
        ylabel=f"z ({z_unit})",
    )
    if path is not None:
        save(figure, path)
    return figure


def _edges(depths: FloatArray) -> FloatArray:
    """Where one slice ends and the next begins, (S + 1,)."""
    between = (depths[1:] + depths[:-1]) / 2
    first, last = depths[0] - (between[0] - depths[0]), depths[-1] + (depths[-1] - between[-1])
    return np.concatenate([[first], between, [last]])
