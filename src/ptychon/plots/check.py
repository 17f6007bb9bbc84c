"""Pictures of predictive checks, drawn as in `plot`."""

from __future__ import annotations

import numpy as np

from ..checks.verdict import Check
from ..data.result import Result
from .axes import dress, length_unit, save
from .bars import PathLike
from .figures import Axes, Figure

_ACCENT = "#c04000"


def checks(result: Result, found: Check, path: PathLike | None = None) -> Figure:
    """How far frames stand out, by number and by place; how far detector pixels do; dose and
    translation by number.
    """
    figure = Figure(figsize=(11.0, 8.0), layout="constrained")
    axes = figure.subplots(2, 2)
    _frames(axes[0, 0], found)
    _places(axes[0, 1], result, found)
    _detector(axes[1, 0], found)
    _drift(axes[1, 1], found)
    if not found.converged:
        figure.suptitle("the run has not converged: nothing is flagged", fontsize=12)
    if path is not None:
        save(figure, path)
    return figure


def _frames(ax: Axes, found: Check) -> None:
    number = np.arange(len(found.score))
    ax.plot(number, found.score, ".", ms=3.5, color="0.25")
    ax.axhline(
        found.frame_limit,
        ls="--",
        lw=1.2,
        color=_ACCENT,
        label=f"limit: {found.false_alarm:.0%} a scan",
    )
    bad = found.bad_frames
    if len(bad):
        ax.plot(bad, found.score[bad], "x", ms=7, color=_ACCENT, label="does not fit")
        for j in bad[:8].tolist():
            ax.annotate(
                str(j), (j, found.score[j]), xytext=(4, -3), textcoords="offset points", fontsize=8
            )
    if found.score.max() > 30:
        ax.set_yscale("symlog", linthresh=10)
    ax.set_title("misfit of each frame", fontsize=11)
    ax.set_xlabel("frame")
    ax.set_ylabel("standard deviations")
    ax.legend(frameon=False, fontsize=9)
    ax.grid(True, color="0.92")


def _places(ax: Axes, result: Result, found: Check) -> None:
    size = result.pixel_size
    dy, dx = (1.0, 1.0) if size is None else size
    y, x = (
        result.positions[:, 0] * dy + result.origin[0],
        result.positions[:, 1] * dx + result.origin[1],
    )
    factor, unit = length_unit(
        None if size is None else max(float(np.ptp(y)), float(np.ptp(x)), 1e-30)
    )
    limit = max(found.frame_limit, 1e-3)
    dots = ax.scatter(
        x * factor,
        y * factor,
        c=found.score,
        cmap="Greys",
        vmin=-limit,
        vmax=limit,
        s=26,
        edgecolors="0.6",
        linewidths=0.3,
    )
    ax.figure.colorbar(dots, ax=ax, label="standard deviations", shrink=0.9, extend="both")
    bad = found.bad_frames
    ax.scatter(x[bad] * factor, y[bad] * factor, marker="x", s=60, color=_ACCENT, linewidths=1.6)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    dress(ax, "where the frames were taken", unit)


def _detector(ax: Axes, found: Check) -> None:
    ax.set_facecolor("#c8b400")
    image = ax.imshow(
        np.ma.masked_invalid(found.pixel_score),
        cmap="gray",
        interpolation="nearest",
        vmin=-found.pixel_limit,
        vmax=found.pixel_limit,
    )
    ax.figure.colorbar(
        image,
        ax=ax,
        label="standard deviations (bright: more was measured)",
        shrink=0.9,
        extend="both",
    )
    said = []
    for which, mark, name in (
        (found.hot, "o", "hot ○"),
        (found.dead, "s", "dead □"),
        (found.noisy, "D", "noisy ◇"),
    ):
        if len(which):
            ax.plot(which[:, 1], which[:, 0], mark, ms=8, mfc="none", mec=_ACCENT, mew=1.4)
            said.append(f"{len(which)} {name}")
    ax.set_title(
        f"total of each detector pixel{': ' if said else ''}{', '.join(said)}", fontsize=11
    )
    ax.set_xlabel("detector column")
    ax.set_ylabel("detector row")


def _drift(ax: Axes, found: Check) -> None:
    number = np.arange(len(found.score))
    for values, mark, name in ((found.shift[:, 0], "o", "y"), (found.shift[:, 1], "^", "x")):
        ax.plot(
            number,
            values,
            mark,
            ms=3,
            mfc="none",
            mec="0.15" if name == "y" else "0.6",
            mew=0.8,
            label=f"translation {name}",
        )
    low, high = (float(v) for v in np.percentile(found.shift, (0.5, 99.5)))
    margin = 0.4 * max(high - low, 1e-3)
    ax.set_ylim(low - margin, high + margin)
    ax.set_ylabel("translation (px)")
    ax.set_xlabel("frame")
    other = ax.twinx()
    other.plot(number, found.dose, "-", lw=0.9, color=_ACCENT)
    other.set_ylabel("dose over what is foretold", color=_ACCENT)
    spread = max(3 * float(np.median(np.abs(found.dose - 1))), 0.01)
    other.set_ylim(1 - 3 * spread, 1 + 3 * spread)
    drifts = ", ".join(t.name.replace("shift_", "translation ") for t in found.drifts)
    ax.set_title(f"drift: {drifts}" if drifts else "no drift", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.grid(True, color="0.92")
