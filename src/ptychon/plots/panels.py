"""The panels of the picture of a result beside its object: probe, modes and convergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.result import Result
from .axes import colour_bar, dress, length_unit, scale_bar
from .display import complex_rgb
from .figures import (
    AnchoredText,
    Axes,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    withStroke,
)


def draw_probe(axes: Any, result: Result) -> None:
    """Total amplitude in grey and the first mode in colours, with their key."""
    extent, unit = probe_extent(result)
    total = np.sqrt((np.abs(result.probe) ** 2).sum(axis=0))
    image = axes[0].imshow(total, cmap="gray", extent=extent, vmin=0, interpolation="antialiased")
    scale_bar(axes[0], extent[1] - extent[0], unit)
    colour_bar(axes[0], image, "amplitude")
    dress(axes[0], "probe amplitude" + (", all modes" if len(result.probe) > 1 else ""), unit)
    draw_mode(axes[1], result, 0, extent)
    dress(
        axes[1],
        "complex probe" + (f", {mode_share(result, 0)}" if len(result.probe) > 1 else ""),
        unit,
    )
    draw_wheel(axes[1])


def draw_modes(axes: Any, result: Result) -> None:
    """The further modes in colours, each as bright as can be, with their shares of the power."""
    extent, _ = probe_extent(result)
    for k, ax in enumerate(axes, start=1):
        ax.set_axis_off()
        if k < len(result.probe):
            draw_mode(ax, result, k, extent)
            ax.set_title(mode_share(result, k), fontsize=10, y=1.0)


def draw_mode(ax: Axes, result: Result, k: int, extent: tuple[float, float, float, float]) -> None:
    # the phase of a mode is free: its brightest part is shown with phase zero
    mode = result.probe[k]
    mean = complex((mode * np.abs(mode)).sum())
    mode = mode * (mean.conjugate() / abs(mean) if mean else 1.0)
    ax.imshow(complex_rgb(mode), extent=extent, interpolation="nearest")


def mode_share(result: Result, k: int) -> str:
    power = (np.abs(result.probe) ** 2).sum(axis=(1, 2), dtype=np.float64)
    return f"mode {k + 1}: {power[k] / max(power.sum(), 1e-300):.1%}"


def probe_extent(result: Result) -> tuple[tuple[float, float, float, float], str]:
    """Limits of the probe's axes, zero at its centre [P//2, Q//2], and their unit."""
    p, q = result.probe.shape[1:]
    size = result.pixel_size
    dy, dx = (1.0, 1.0) if size is None else size
    factor, unit = length_unit(None if size is None else max(p * dy, q * dx))
    dy, dx = dy * factor, dx * factor
    return (
        (-(q // 2) - 0.5) * dx,
        (q - q // 2 - 0.5) * dx,
        (p - p // 2 - 0.5) * dy,
        (-(p // 2) - 0.5) * dy,
    ), unit


def draw_wheel(ax: Axes) -> None:
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


def draw_convergence(ax: Axes, result: Result) -> None:
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
    ax.set_ylabel("residual R")
