"""Pictures of reconstructions, drawn without any global state of matplotlib: every function returns
a new `Figure`.

Objects are shown on the bounding box of their illuminated region, and hatched outside it; their
phases without ramp and offset (`remove_ramp`), in grey between their 0.5 and 99.5 % quantiles, or
in a cyclic map if they wrap. Probes are shown twice: their amplitude in grey, and every mode in
colours whose lightness is the amplitude (`complex_rgb`).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.registration import bounding_box
from ..types import BoolArray, FloatArray, PtychonError
from .display import complex_rgb, phase_cut, remove_ramp
from .figures import (
    AnchoredText,
    Axes,
    Figure,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    Rectangle,
    withStroke,
)
from .moves import draw_moves

__all__ = ["compare", "complex_rgb", "picture", "remove_ramp", "save"]

#: Quantiles (%) between which grey levels spread.
ROBUST = (0.5, 99.5)
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
    frame = _Frame(result)
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
    _probe(panels[:2], result)
    _convergence(panels[2], result)
    if moved:
        draw_moves(panels[3], result)
    if further:
        _modes(rows[2].subplots(1, MODES - 1), result)
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
        limits = _limits(np.concatenate([p[np.isfinite(p)] for p in pictures]))
        image = None
        for ax, result, values, name in zip(axes[row], results, pictures, names, strict=True):
            heading = (
                f"{name}\n$R$ = {result.final_error:.4f}, {result.passes} passes"
                if row == 0
                else ""
            )
            image = _Frame(result).show(
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
        parts.append(f"final $R$ = {result.final_error:.4f}")
    if result.seconds > 0:
        parts.append(f"{result.seconds:.3g} s")
    return "  ·  ".join(parts)


def shown(result: Result) -> tuple[FloatArray, FloatArray, bool]:
    """Amplitude and phase (H, W) as they are drawn, NaN outside the illuminated region, and whether
    the phase wraps.
    """
    lit = _lit(result)
    flat = remove_ramp(result.projection, lit.astype(float))
    offset, wraps = phase_cut(np.angle(flat[lit]))
    phase = np.angle(flat * np.exp(-1j * offset))
    if not wraps:
        phase = phase - np.median(phase[lit])
    return np.where(lit, np.abs(flat), np.nan), np.where(lit, phase, np.nan), wraps


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure aside and move it into place, so that no half-written file is ever seen.

    Raises
    ------
    PtychonError
        If the folder does not exist or cannot be written to, or the suffix names no known format.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise PtychonError(
            f"cannot save a picture as {path.name!r}: the suffix must be one of "
            f"{', '.join(sorted(known))}"
        )
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(aside, format=kind, dpi=dpi)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise PtychonError(f"cannot write the picture {path}: {error.strerror or error}") from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _lit(result: Result) -> BoolArray:
    """The illuminated region; everything where there is no light at all."""
    lit = result.illuminated > 0
    return lit if lit.any() else np.ones(lit.shape, bool)


class _Frame:
    """Axes of the object: what is cropped, its coordinates and their unit."""

    def __init__(self, result: Result, region: BoolArray | None = None) -> None:
        self.rows, self.cols = bounding_box(_lit(result) if region is None else region)
        size = result.pixel_size
        height, width = self.rows.stop - self.rows.start, self.cols.stop - self.cols.start
        dy, dx = (1.0, 1.0) if size is None else size
        factor, self.unit = _unit(None if size is None else max(height * dy, width * dx))
        self.scale = dy * factor, dx * factor
        self.aspect = height * dy / (width * dx)
        self.start = result.origin[0] * factor, result.origin[1] * factor

    def show(
        self,
        ax: Axes,
        values: FloatArray,
        title: str,
        label: str | None,
        *,
        limits: tuple[float, float] | None = None,
        wraps: bool = False,
    ) -> Any:
        """Draw a picture (H, W), NaN where there is nothing, with a colour bar if it
        has a label.
        """
        values = values[self.rows, self.cols]
        (dy, dx), (y0, x0) = self.scale, self.start
        rows, cols = self.rows, self.cols
        extent = (
            x0 + (cols.start - 0.5) * dx,
            x0 + (cols.stop - 0.5) * dx,
            y0 + (rows.stop - 0.5) * dy,
            y0 + (rows.start - 0.5) * dy,
        )
        vmin, vmax = _limits(values[np.isfinite(values)]) if limits is None else limits
        if wraps:
            vmin, vmax = -math.pi, math.pi
        ax.patch.set(facecolor="white", edgecolor="0.75", hatch="////")
        image = ax.imshow(
            np.ma.masked_invalid(values),
            cmap="twilight" if wraps else "gray",
            vmin=vmin,
            vmax=vmax,
            extent=extent,
            interpolation="nearest" if max(values.shape) < 128 else "antialiased",
        )
        _dress(ax, title, self.unit)
        scale_bar(ax, abs(extent[1] - extent[0]), self.unit)
        if label is not None:
            bar = _bar(ax, image, label, extend="neither" if wraps else "both")
            if wraps:
                bar.set_ticks([-math.pi, 0, math.pi], labels=["−π", "0", "π"])
        return image


def scale_bar(ax: Axes, width: float, unit: str) -> None:
    """A bar of a round length, about a quarter of `width`, in the lower left corner: white on
    black, black on white.
    """
    length = 10 ** math.floor(math.log10(width / 4))
    length *= max(f for f in (1, 2, 5) if f * length <= width / 4 * 1.0001)
    share = length / width
    ax.add_patch(
        Rectangle(
            (0.05, 0.05),
            share,
            0.018,
            transform=ax.transAxes,
            facecolor="white",
            edgecolor="black",
            lw=0.8,
            zorder=5,
        )
    )
    ax.text(
        0.05,
        0.09,
        f"{length:g} {unit}",
        transform=ax.transAxes,
        va="bottom",
        color="white",
        fontsize=9,
        zorder=5,
        bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.2, "linewidth": 0},
    )


def _bar(ax: Axes, image: Any, label: str, extend: str = "neither") -> Any:
    """A colour bar as high as the picture."""
    return ax.figure.colorbar(
        image, cax=ax.inset_axes((1.03, 0, 0.05, 1)), label=label, extend=extend
    )


def _probe(axes: Any, result: Result) -> None:
    """Total amplitude in grey and the first mode in colours, with their key."""
    extent, unit = _probe_extent(result)
    total = np.sqrt((np.abs(result.probe) ** 2).sum(axis=0))
    image = axes[0].imshow(total, cmap="gray", extent=extent, vmin=0, interpolation="antialiased")
    scale_bar(axes[0], extent[1] - extent[0], unit)
    _bar(axes[0], image, "amplitude")
    _dress(axes[0], "probe amplitude" + (", all modes" if len(result.probe) > 1 else ""), unit)
    _mode(axes[1], result, 0, extent)
    _dress(
        axes[1], "complex probe" + (f", {_share(result, 0)}" if len(result.probe) > 1 else ""), unit
    )
    _wheel(axes[1])


def _modes(axes: Any, result: Result) -> None:
    """The further modes in colours, each as bright as can be, with their shares of the power."""
    extent, _ = _probe_extent(result)
    for k, ax in enumerate(axes, start=1):
        ax.set_axis_off()
        if k < len(result.probe):
            _mode(ax, result, k, extent)
            ax.set_title(_share(result, k), fontsize=10, y=1.0)


def _mode(ax: Axes, result: Result, k: int, extent: tuple[float, float, float, float]) -> None:
    # the phase of a mode is free: its brightest part is shown with phase zero
    mode = result.probe[k]
    mean = complex((mode * np.abs(mode)).sum())
    mode = mode * (mean.conjugate() / abs(mean) if mean else 1.0)
    ax.imshow(complex_rgb(mode), extent=extent, interpolation="nearest")


def _share(result: Result, k: int) -> str:
    power = (np.abs(result.probe) ** 2).sum(axis=(1, 2), dtype=np.float64)
    return f"mode {k + 1}: {power[k] / max(power.sum(), 1e-300):.1%}"


def _probe_extent(result: Result) -> tuple[tuple[float, float, float, float], str]:
    """Limits of the probe's axes, zero at its centre [P//2, Q//2], and their unit."""
    p, q = result.probe.shape[1:]
    size = result.pixel_size
    dy, dx = (1.0, 1.0) if size is None else size
    factor, unit = _unit(None if size is None else max(p * dy, q * dx))
    dy, dx = dy * factor, dx * factor
    return (
        (-(q // 2) - 0.5) * dx,
        (q - q // 2 - 0.5) * dx,
        (p - p // 2 - 0.5) * dy,
        (-(p // 2) - 0.5) * dy,
    ), unit


def _wheel(ax: Axes) -> None:
    """The key of `complex_rgb`: a disc, phase around and amplitude outwards."""
    inset = ax.inset_axes((0.69, 0.06, 0.23, 0.23))
    y, x = np.mgrid[1:-1:81j, -1:1:81j]
    disc = x + 1j * y
    rgba = np.ones((*disc.shape, 4))
    rgba[..., :3] = complex_rgb(disc, top=1.0)
    rgba[..., 3] = np.abs(disc) <= 1
    inset.imshow(rgba, extent=(-1, 1, -1, 1))
    inset.set_axis_off()
    for text, (u, v) in {"0": (1.25, 0), "π": (-1.3, 0), "π/2": (0, 1.3)}.items():
        inset.text(
            u,
            v,
            text,
            color="white",
            fontsize=7,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _convergence(ax: Axes, result: Result) -> None:
    """Residual of every pass, and that of the final object and probe, against passes."""
    errors = np.asarray(result.errors, float)
    passes = np.arange(result.passes - len(errors) + 1, result.passes + 1)
    good = np.isfinite(errors) & (errors > 0)
    final = (
        result.final_error if math.isfinite(result.final_error) and result.final_error > 0 else None
    )
    if good.any():
        mark = "o" if good.sum() <= 60 else ""
        ax.plot(
            passes[good],
            errors[good],
            "-",
            marker=mark,
            ms=3,
            lw=1.5,
            color="black",
            label="in the pass",
        )
    if final is not None:
        ax.axhline(
            final, ls="--", lw=1.2, color="#c04000", label=f"final object and probe: {final:.4f}"
        )
    if not good.any() and final is None:
        ax.add_artist(AnchoredText("not measured", loc="center", frameon=False))
    else:
        ax.set_yscale("log")
        values = [*errors[good], *([] if final is None else [final])]
        low, high = min(values), max(values)
        margin = max((high / low) ** 0.08, 1.05)
        ax.set_ylim(low / margin, high * margin)
        # less than two decades hold too few powers of ten to read a value from
        subs = (1.0, 2.0, 5.0) if high / low > 5 else tuple(np.arange(1, 10.0))
        if high / low > 1.5:
            ax.yaxis.set_major_locator(LogLocator(10, subs=subs, numticks=12))
        else:
            ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.legend(frameon=False, fontsize=9)
        ax.grid(True, which="major", color="0.9")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_title("convergence", fontsize=11, y=1.0)
    ax.set_xlabel("pass")
    ax.set_ylabel("residual $R$")


def _dress(ax: Axes, title: str, unit: str) -> None:
    # at a height of its own: found automatically, all axes would be laid out once more
    ax.set_title(title, fontsize=11, y=1.0)
    ax.set_xlabel(f"x ({unit})")
    ax.set_ylabel(f"y ({unit})")
    ax.locator_params(nbins=5)


def _limits(values: FloatArray) -> tuple[float, float]:
    """Robust limits of a picture, a little apart even if it is flat."""
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, ROBUST))
    least = 1e-3 * max(abs(low), abs(high)) or 1e-3
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    return low, high


def _unit(extent: float | None) -> tuple[float, str]:
    """Factor and name of the unit in which a length (m) has a few digits before the point."""
    if extent is None:
        return 1.0, "px"
    for factor, name in ((1e3, "mm"), (1e6, "µm"), (1e9, "nm")):
        if extent * factor >= 2:
            return factor, name
    return 1e12, "pm"
