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
from ..plots.panels import draw_convergence, draw_mode, draw_wheel, mode_share, probe_extent
from ..plots.result import MODES, shown
from ..types import PtychonError
from ..uncertainty.half_data_record import PROBABILITIES, HalfDataTest
from ..uncertainty.spectrum import PERIODS
from .numbers import Fit, phase_error_bar, power_spectrum
from .pictures_scan import WIDTH, detector, frames, moves, positions

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
