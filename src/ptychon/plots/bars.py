"""Pictures of what error bars are used for: profiles, resolution, checks, plans. Drawn as in
`plot`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.result import Result
from ..types import FloatArray
from ..uncertainty.measure import Comparison, Profile, Spread
from ..uncertainty.plan import Plan
from ..uncertainty.resolution import HALF, ONE_BIT, Resolution
from .axes import ObjectAxes, length_unit, save
from .figures import Axes, Circle, Figure
from .result import shown

PathLike = str | os.PathLike[str]
_ACCENT = "#c04000"


def profile(found: Profile, path: PathLike | None = None) -> Figure:
    """Amplitude and phase along a line, with the band that holds the truth in 68 % of cases."""
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    factor, unit = length_unit(float(found.distance[-1]) if found.unit == "m" else None)
    for ax, values, label in zip(
        axes, (found.amplitude, found.phase), ("amplitude", "phase (rad)"), strict=True
    ):
        _band(ax, found.distance * factor, values)
        ax.set_ylabel(label)
    axes[0].legend(frameon=False, fontsize=9)
    axes[1].set_xlabel(f"distance ({unit})")
    y0, x0, y1, x1 = found.points[[0, -1]].ravel().tolist()
    axes[0].set_title(f"from ({y0:.4g}, {x0:.4g}) to ({y1:.4g}, {x1:.4g}) px", fontsize=11)
    return _saved(figure, path)


def resolution(found: Resolution, path: PathLike | None = None) -> Figure:
    """Expected ring correlation with the truth, its band, and the two thresholds."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    ax = figure.subplots()
    factor, unit = length_unit(1 / found.frequency[0] if found.unit == "m" else None)
    _band(ax, found.frequency / factor, found.correlation)
    for level, style, name, period in (
        (HALF, "--", "1/2", found.half),
        (ONE_BIT, ":", "one bit, √½", found.one_bit),
    ):
        text = (
            f"{name}: {period * factor:.3g} {unit}"
            if np.isfinite(period)
            else f"{name}: nowhere above"
        )
        ax.axhline(level, ls=style, lw=1.2, color=_ACCENT, label=text)
    ax.set_ylim(0, 1.03)
    ax.set_xlim(0, found.frequency[-1] / factor)
    ax.set_xlabel(f"spatial frequency (1/{unit})")
    ax.set_ylabel("correlation with the truth")
    ax.set_title("expected agreement of the object with the truth", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    return _saved(figure, path)


def regions(
    result: Result,
    discs: Sequence[tuple[float, float, float]],
    found: Comparison,
    path: PathLike | None = None,
) -> Figure:
    """The two regions on the phase, and the values of the draws."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(1.25, 1))
    frame = ObjectAxes(result)
    _, phase, wraps = shown(result)
    frame.show(axes[0], phase, "phase", "phase (rad)", wraps=wraps)
    for (y, x, radius), name in zip(discs, ("1", "2"), strict=True):
        centre = frame.start[1] + x * frame.scale[1], frame.start[0] + y * frame.scale[0]
        axes[0].add_patch(
            Circle(centre, radius * frame.scale[1], fill=False, color="white", lw=2.4)
        )
        axes[0].add_patch(
            Circle(centre, radius * frame.scale[1], fill=False, color=_ACCENT, lw=1.2)
        )
        axes[0].text(
            *centre,
            name,
            color="white",
            ha="center",
            va="center",
            fontsize=9,
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.2, "linewidth": 0},
        )
    phases, ratios = (float(s.value) + s.deviations for s in (found.phase, found.ratio))
    axes[1].plot(
        phases,
        ratios,
        "o",
        ms=4,
        color="0.5",
        label="draws of the posterior" if found.phase.correlated else "independent errors",
    )
    axes[1].errorbar(
        found.phase.value,
        found.ratio.value,
        xerr=found.phase.bar,
        yerr=found.ratio.bar,
        fmt="s",
        ms=5,
        capsize=4,
        color=_ACCENT,
        label="value, 68 %",
    )
    axes[1].set_xlabel("phase of 1 less that of 2 (rad)")
    axes[1].set_ylabel("amplitude of 1 over that of 2")
    axes[1].legend(frameon=False, fontsize=9)
    axes[1].grid(True, color="0.92")
    return _saved(figure, path)


def _band(ax: Axes, x: FloatArray, values: Spread) -> None:
    ax.fill_between(
        x, values.value - values.bar, values.value + values.bar, label="68 %", color="0.75", lw=0
    )
    ax.plot(x, values.value, "-", color="black", lw=1.3)
    ax.grid(True, color="0.92")


def _saved(figure: Any, path: PathLike | None) -> Figure:
    if path is not None:
        save(figure, path)
    made: Figure = figure
    return made


def plan(result: Result, found: Plan, path: PathLike | None = None) -> Figure:
    """What one more frame would take off, with the positions that were chosen, numbered; error bars
    now and after.
    """
    figure = Figure(figsize=(14.4, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    frame = ObjectAxes(result, found.field)
    gain = np.where(found.field, found.map, np.nan)
    now = np.where(found.field, np.asarray(result.object_std, float), np.nan)
    top = float(np.nanpercentile(now, 99.5))
    frame.show(
        axes[0],
        100 * gain,
        "gain of one frame",
        "less variance (%)",
        limits=(0.0, 100 * float(np.nanmax(gain)) or 1.0),
    )
    frame.show(
        axes[1], now, f"error bars now: {found.before:.3g}", "standard deviation", limits=(0.0, top)
    )
    frame.show(
        axes[2], found.std, f"foretold: {found.after:.3g}", "standard deviation", limits=(0.0, top)
    )
    places = found.positions * frame.scale + frame.start
    old = result.positions * frame.scale + frame.start
    axes[1].plot(old[:, 1], old[:, 0], ".", ms=2, color="#5090e0")
    for ax in (axes[0], axes[2]):
        ax.plot(places[:, 1], places[:, 0], "o", ms=6, mfc="none", mec=_ACCENT, mew=1.4)
    for number, (y, x) in enumerate(places[:30].tolist(), 1):
        axes[0].annotate(
            str(number),
            (x, y),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=7,
            color=_ACCENT,
        )
    return _saved(figure, path)
