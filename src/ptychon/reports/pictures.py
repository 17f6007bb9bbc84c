"""The pictures of a report. Grey for amplitudes and phases, marks and dashes beside colours:
readable without colour vision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks.half_scans import Agreement
from ..data.result import Result
from ..metrics.unwrap import level, unwrap
from ..model.propagators import angular_spectrum
from ..plots.axes import ObjectAxes, dress, length_unit, lit_region, scale_bar
from ..plots.display import complex_rgb, remove_ramp
from ..plots.figures import Figure
from ..plots.moves import draw_moves
from ..plots.panels import draw_convergence, draw_mode, draw_wheel, mode_share, probe_extent
from ..plots.result import MODES, shown
from ..types import FloatArray, PtychonError
from ..uncertainty.half_data_record import PROBABILITIES, HalfDataTest
from ..uncertainty.spectrum import PERIODS
from .numbers import Fit, phase_error_bar, power_spectrum

#: Width of a picture over the whole page, inches.
WIDTH = 11.0
#: Colour of the path of a scan.
_PATH = "#c04000"
#: Planes of the probe's propagation.
PLANES = 161


def _row(result: Result, columns: int) -> tuple[Figure, Any, ObjectAxes]:
    """A row of pictures of the object."""
    frame = ObjectAxes(result)
    height = min(max((WIDTH / columns - 1.4) * frame.aspect, 1.5), 7.0) + 0.9
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, columns)), frame


def object_grey(result: Result) -> Figure:
    """Amplitude and phase."""
    figure, axes, frame = _row(result, 2)
    amplitude, phase, wraps = shown(result)
    frame.show(axes[0], amplitude, "amplitude", "amplitude")
    frame.show(axes[1], phase, "phase", "phase (rad)", wraps=wraps)
    return figure


def object_colours(result: Result) -> Figure:
    """Amplitude as lightness and phase as hue, with their key; and the amplitude, which the same
    picture in grey shows.
    """
    figure, axes, frame = _row(result, 2)
    lit = lit_region(result)
    flat = remove_ramp(result.projection, lit.astype(float))
    amplitude = np.where(lit, np.abs(flat), np.nan)
    image = frame.show(axes[0], amplitude, "phase as hue, amplitude as lightness", None)
    colours = np.ones((*flat.shape, 4))
    colours[..., :3] = complex_rgb(flat, top=float(np.percentile(np.abs(flat[lit]), 99.5)))
    colours[..., 3] = lit
    image.set_data(colours[frame.rows, frame.cols])
    draw_wheel(axes[0])
    frame.show(axes[1], amplitude, "amplitude", "amplitude")
    return figure


def object_unwrapped(result: Result) -> tuple[Figure, dict[str, float]]:
    """The phase unwrapped and levelled, and how many turns it spans."""
    figure, axes, frame = _row(result, 2)
    lit = lit_region(result)
    flat = remove_ramp(result.projection, lit.astype(float))
    weights = np.where(
        lit,
        np.abs(flat) * np.sqrt(result.illumination / max(float(result.illumination.max()), 1e-30)),
        0,
    )
    phase = level(unwrap(flat, weights), weights)
    frame.show(axes[0], np.where(lit, phase, np.nan), "unwrapped, plane removed", "phase (rad)")
    low, high = (float(v) for v in np.percentile(phase[lit], (0.5, 99.5)))
    axes[1].hist(phase[lit], 120, color="0.35")
    axes[1].set_title("how often each phase occurs", fontsize=11)
    axes[1].set_xlabel("phase (rad)")
    axes[1].set_ylabel("pixels")
    axes[1].grid(True, color="0.9")
    return figure, {"low": low, "high": high, "span": high - low}


def deviation(result: Result) -> tuple[Figure, dict[str, float]]:
    """Standard deviation of the object and error bar of its phase; their medians."""
    bars = phase_error_bar(result)
    if bars is None:
        raise PtychonError(
            f"engine {result.engine!r} has no error bars; compute them with ptychon error_bars"
            if result.slices is None
            else "there are error bars for thin objects only"
        )
    figure, axes, frame = _row(result, 2)
    lit = lit_region(result)
    std = np.where(lit, np.asarray(result.object_std, float), np.nan)
    frame.show(axes[0], std, "standard deviation of the complex object", "standard deviation")
    frame.show(axes[1], np.where(lit, bars, np.nan), "standard deviation of its phase", "rad")
    return figure, {
        "median_std": float(np.nanmedian(std)),
        "median_phase_std": float(np.median(bars[lit])),
    }


def half_data_test(said: HalfDataTest) -> Figure:
    """What the bars cover of the difference of two halves, and the temperature by periods."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(PROBABILITIES, said.covered, "o-", color="black", ms=5, lw=1.2, label="as they are")
    left.plot(
        PROBABILITIES, said.covered_after, "s--", color="#b07800", ms=5, lw=1.2, label="times √T"
    )
    left.plot((0, 1), (0, 1), ":", color="0.5", label="if the bars are right")
    left.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="stated probability", ylabel="share inside")
    left.legend(frameon=False, fontsize=9)
    known = [i for i, T in enumerate(said.by_period) if math.isfinite(T) and T > 0]
    scatter = [said.by_period[i] * np.nan_to_num(said.scatter(i)) for i in known]
    right.errorbar(
        range(len(known)), [said.by_period[i] for i in known], scatter, fmt="ko", ms=6, capsize=4
    )
    right.axhline(said.temperature, color="#b07800", ls="--", lw=1.2, label="all of them")
    right.axhline(1, color="0.5", ls=":", label="if the bars are right")
    right.set_yscale("log")
    right.set_xticks(range(len(known)), [f"above {PERIODS[i + 1]:g}" for i in known])
    right.set(xlim=(-0.5, max(len(known), 1) - 0.5), xlabel="period (px)", ylabel="T")
    right.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.grid(True, color="0.92")
    left.set_title("what the bars cover", fontsize=11)
    right.set_title("T by periods", fontsize=11)
    return figure


def probe(result: Result) -> Figure:
    """Every mode: amplitude in grey, and in colours with their key."""
    modes = min(len(result.probe), MODES)
    extent, unit = probe_extent(result)
    if modes == 1:
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = np.reshape(figure.subplots(1, 2), (2, 1))
    else:
        figure = Figure(
            figsize=(WIDTH, 0.7 + 2 * min(WIDTH / max(modes, 3), 3.6)), layout="constrained"
        )
        axes = figure.subplots(2, max(modes, 3), squeeze=False)
    for ax in axes[:, modes:].flat:
        ax.set_axis_off()
    for k in range(modes):
        axes[0, k].imshow(np.abs(result.probe[k]), cmap="gray", extent=extent, vmin=0)
        scale_bar(axes[0, k], extent[1] - extent[0], unit)
        dress(axes[0, k], f"amplitude, {mode_share(result, k)}" if modes > 1 else "amplitude", unit)
        draw_mode(axes[1, k], result, k, extent)
        dress(axes[1, k], "phase as hue", unit)
        draw_wheel(axes[1, k])
    return figure


def propagation(result: Result) -> tuple[Figure, dict[str, float]]:
    """The probe's intensity along the axis, cut through its centre, and where it is narrowest.

    Raises
    ------
    PtychonError
        Without a wavelength or a pixel size.
    """
    known = result.settings.get("scan") or {}
    wavelength, size = known.get("wavelength"), result.pixel_size
    if not wavelength or size is None:
        raise PtychonError("wavelength and pixel size are not both known")
    modes, shape = result.probe, result.probe.shape[1:]
    spectrum = np.fft.fft2(modes)
    power = (np.abs(spectrum) ** 2).sum(axis=0)
    fy, fx = np.fft.fftfreq(shape[0], size[0])[:, None], np.fft.fftfreq(shape[1], size[1])[None]
    centre = [float((power * f).sum() / power.sum()) for f in (fy, fx)]
    angle = wavelength * math.sqrt(
        float((power * ((fy - centre[0]) ** 2 + (fx - centre[1]) ** 2)).sum() / power.sum())
    )
    field = min(shape[0] * size[0], shape[1] * size[1])
    # as far as the beam stays well inside its window
    reach = 0.35 * field / max(angle, 1e-12)
    planes = np.linspace(-reach, reach, PLANES)
    along: dict[str, list[Any]] = {"y": [], "x": []}
    widths = []
    y, x = ((np.arange(n) - n // 2) * s for n, s in zip(shape, size, strict=True))
    for z in planes:
        transfer = angular_spectrum((shape[0], shape[1]), size, wavelength, float(z))
        light = (np.abs(np.fft.ifft2(spectrum * transfer)) ** 2).sum(axis=0)
        along["y"].append(light.sum(axis=1))
        along["x"].append(light.sum(axis=0))
        total = light.sum()
        my, mx = (light.sum(axis=1) * y).sum() / total, (light.sum(axis=0) * x).sum() / total
        widths.append(
            math.sqrt(
                float(
                    ((light.sum(1) * (y - my) ** 2).sum() + (light.sum(0) * (x - mx) ** 2).sum())
                    / total
                )
            )
        )
    focus = int(np.argmin(widths))
    factor_z, unit_z = length_unit(2 * reach)
    factor, unit = length_unit(field)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    for ax, axis, n, s in zip(axes, ("y", "x"), shape, size, strict=False):
        picture = np.sqrt(np.stack(along[axis], axis=1))
        edge = (-(n // 2) - 0.5) * s * factor, (n - n // 2 - 0.5) * s * factor
        extent = (-reach * factor_z, reach * factor_z, edge[1], edge[0])
        ax.imshow(picture, cmap="gray", extent=extent, aspect="auto", vmin=0)
        ax.axvline(0, color="white", lw=0.8, ls="--")
        ax.axvline(planes[focus] * factor_z, color="white", lw=0.8, ls=":")
        ax.set_title(f"seen from the side, {axis} up", fontsize=11)
        ax.set_xlabel(f"along the beam ({unit_z})")
        ax.set_ylabel(f"{axis} ({unit})")
    axes[2].plot(planes * factor_z, np.array(widths) * factor, color="black")
    axes[2].axvline(0, color="0.4", lw=0.8, ls="--", label="object")
    axes[2].axvline(planes[focus] * factor_z, color="0.4", lw=1, ls=":", label="narrowest")
    axes[2].set_ylim(0)
    axes[2].set_title("rms radius", fontsize=11)
    axes[2].set_xlabel(f"along the beam ({unit_z})")
    axes[2].set_ylabel(unit)
    axes[2].legend(frameon=False, fontsize=9)
    axes[2].grid(True, color="0.9")
    return figure, {
        "focus": float(planes[focus]),
        "rms_radius_at_focus": widths[focus],
        "rms_radius_at_object": widths[PLANES // 2],
    }


def convergence(result: Result, fit: Fit | None) -> Figure:
    """R of every pass, with what counting noise alone and no object at all would give."""
    figure = Figure(figsize=(WIDTH / 2, 3.6), layout="constrained")
    ax = figure.subplots()
    draw_convergence(ax, result)
    if fit is not None:
        low, high = ax.get_ylim()
        for value, name, dash in (
            (fit.flat, "no object", "-."),
            (fit.noise, "counting noise", ":"),
        ):
            if (
                value is not None and low / 2 < value < 2 * high
            ):  # far away it would squeeze the curve
                ax.axhline(value, ls=dash, lw=1.2, color="0.35", label=f"{name}: {value:.4f}")
                low, high = min(low, value / 1.05), max(high, value * 1.05)
        ax.set_ylim(low, high)
        ax.legend(frameon=False, fontsize=8)
    return figure


def ring_correlation(found: Agreement) -> Figure:
    """The correlation of two half-scans, its thresholds, and the interval of the resolution."""
    rings = found.rings
    figure = Figure(figsize=(WIDTH / 2, 3.6), layout="constrained")
    ax = figure.subplots()
    factor, unit = (1.0, "px") if rings.unit == "px" else length_unit(1 / rings.frequency[-1])
    f = rings.frequency / factor
    ax.plot(f, rings.correlation, color="black", lw=1.6, label="two half-scans")
    ax.plot(f, rings.half_bit, color="#c04000", lw=1.2, ls="--", label="half bit")
    ax.plot(f, rings.one_bit, color="#0060a0", lw=1.2, ls=":", label="one bit")
    ax.axhline(0, color="0.8", lw=0.8)
    if math.isfinite(rings.resolution):
        ends = [1 / r if math.isfinite(r) else 0 for r in found.interval]
        ax.axvspan(
            min(ends) / factor, max(ends) / factor, color="0.85", zorder=0, label="resolution, 95 %"
        )
        ax.axvline(1 / rings.resolution / factor, color="0.3", lw=1)
    ax.set_ylim(-0.15, 1.05)
    ax.set_xlim(0, f[-1])
    ax.set_xlabel(f"spatial frequency (1/{unit})")
    ax.set_ylabel("correlation")
    ax.set_title("Fourier ring correlation", fontsize=11)
    ax.legend(frameon=False, fontsize=8)
    return figure


def spectrum(result: Result) -> Figure:
    """Power spectrum of the object."""
    frequency, power = power_spectrum(result)
    figure = Figure(figsize=(WIDTH / 2, 3.6), layout="constrained")
    ax = figure.subplots()
    factor, unit = (1.0, "px") if result.pixel_size is None else length_unit(1 / frequency[-1])
    ax.loglog(frequency / factor, np.maximum(power, 1e-300), color="black", lw=1.4)
    ax.set_xlabel(f"spatial frequency (1/{unit})")
    ax.set_ylabel("mean |spectrum|²")
    ax.set_title("power spectrum of the object", fontsize=11)
    ax.grid(True, which="both", color="0.92")
    return figure


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


__all__ = [
    "convergence",
    "detector",
    "deviation",
    "frames",
    "moves",
    "object_colours",
    "object_grey",
    "object_unwrapped",
    "positions",
    "probe",
    "propagation",
    "ring_correlation",
    "spectrum",
]
