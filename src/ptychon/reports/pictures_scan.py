"""Pictures of a report that show the scan: frames, detector, positions and how they moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.result import Result
from ..plots.axes import length_unit
from ..plots.figures import Figure
from ..plots.moves import draw_moves
from ..types import FloatArray
from .numbers import Fit

#: Width of a picture over the whole page, inches.
WIDTH = 11.0
#: Colour of the path of a scan.
_PATH = "#c04000"


def frames(result: Result, fit: Fit) -> Figure:
    """R of each frame where it was taken; bad ones crossed and numbered. And against
    their number.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(1, 1.2))
    y, x, unit = _positions(result)
    values = fit.per_frame
    good = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(good, (1, 99))) if good.size else (0.0, 1.0)
    side = 5000 / max(len(values), 25) ** 0.95
    dots = axes[0].scatter(
        x,
        y,
        c=values,
        s=side,
        cmap="Greys",
        vmin=low - 0.3 * (high - low),
        vmax=max(high, low + 1e-9),
        edgecolors="0.6",
        linewidths=0.3,
    )
    figure.colorbar(dots, ax=axes[0], label="R of the frame (dark: fits badly)", shrink=0.9)
    if fit.bad.size:
        axes[0].scatter(x[fit.bad], y[fit.bad], marker="x", s=60, color="#c04000", linewidths=1.6)
        for j in fit.bad[:8]:
            axes[0].annotate(
                str(j), (x[j], y[j]), xytext=(4, 4), textcoords="offset points", fontsize=8
            )
    _map(axes[0], "where the frames were taken", unit)
    axes[1].plot(np.arange(len(values)), values, ".", ms=3, color="0.25")
    if fit.bad.size:
        axes[1].plot(fit.bad, values[fit.bad], "x", ms=7, color="#c04000", label="stands out")
        axes[1].legend(frameon=False, fontsize=9)
    axes[1].set_title("in the order of the scan", fontsize=11)
    axes[1].set_xlabel("frame")
    axes[1].set_ylabel("R of the frame")
    axes[1].grid(True, color="0.9")
    return figure


def detector(fit: Fit) -> Figure:
    """Residual of each detector pixel: how large, and of which sign."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    rms = np.ma.masked_invalid(fit.per_pixel)
    top = float(np.nanpercentile(fit.per_pixel, 99.8))
    image = axes[0].imshow(rms, cmap="gray", vmin=0, vmax=max(top, 1e-12))
    figure.colorbar(image, ax=axes[0], label="√counts", shrink=0.9)
    axes[0].set_title("rms residual", fontsize=11)
    limit = max(float(np.nanpercentile(np.abs(fit.bias), 99.5)), 1e-12)
    image = axes[1].imshow(np.ma.masked_invalid(fit.bias), cmap="gray", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=axes[1], label="√counts (bright: more was measured)", shrink=0.9)
    axes[1].set_title("mean residual", fontsize=11)
    for ax in axes:
        ax.set_facecolor("#c8b400")
        ax.set_xlabel("detector column")
        ax.set_ylabel("detector row")
    return figure


def positions(result: Result) -> Figure:
    """The path of the scan, on the light it brought."""
    figure = Figure(figsize=(WIDTH / 2, 4.2), layout="constrained")
    ax = figure.subplots()
    y, x, unit = _positions(result)
    light = result.illumination
    factor, _ = _scale(result)
    dy, dx = (1.0, 1.0) if result.pixel_size is None else result.pixel_size
    h, w = light.shape
    oy, ox = result.origin
    extent = (
        (ox - dx / 2) * factor,
        (ox + (w - 0.5) * dx) * factor,
        (oy + (h - 0.5) * dy) * factor,
        (oy - dy / 2) * factor,
    )
    # pale light, so that a dark path shows on all of it
    ax.imshow(light, cmap="gray_r", extent=extent, vmin=0, vmax=3 * max(float(light.max()), 1e-30))
    ax.plot(x, y, "-", color=_PATH, lw=0.9)
    ax.plot(x, y, ".", color="black", ms=3)
    ax.plot(x[:1], y[:1], "s", color="white", markeredgecolor="black", ms=7, mew=1.4)
    ax.plot(x[-1:], y[-1:], "^", color="white", markeredgecolor="black", ms=7, mew=1.4)
    ax.set_title("path of the scan (square: first, triangle: last) and its light", fontsize=10)
    ax.set_xlabel(f"x ({unit})")
    ax.set_ylabel(f"y ({unit})")
    return figure


def moves(result: Result) -> Figure:
    """By how much refined positions have moved, as arrows, magnified."""
    figure = Figure(figsize=(WIDTH / 2, 4.2), layout="constrained")
    ax = figure.subplots()
    draw_moves(ax, result)
    return figure


def _scale(result: Result) -> tuple[float, str]:
    extent = None
    if result.pixel_size is not None:
        extent = max(
            n * s for n, s in zip(result.object.shape[-2:], result.pixel_size, strict=True)
        )
    return length_unit(extent)


def _positions(result: Result) -> tuple[FloatArray, FloatArray, str]:
    factor, unit = _scale(result)
    size = (1.0, 1.0) if result.pixel_size is None else result.pixel_size
    y, x = ((result.positions[:, i] * size[i] + result.origin[i]) * factor for i in (0, 1))
    return y, x, unit


def _map(ax: Any, title: str, unit: str) -> None:
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.locator_params(nbins=6)
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(f"x ({unit})")
    ax.set_ylabel(f"y ({unit})")
