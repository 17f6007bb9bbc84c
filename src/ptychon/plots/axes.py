"""What all pictures of a result share: the axes of its object in a unit that can be read, scale
bars, colour bars, limits of grey, and how a figure is saved.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.registration import bounding_box
from ..types import BoolArray, FloatArray, PtychonError
from .figures import Axes, Figure, Rectangle

#: Quantiles (%) between which grey levels spread.
ROBUST = (0.5, 99.5)


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


def lit_region(result: Result) -> BoolArray:
    """The illuminated region; everything where there is no light at all."""
    lit = result.illuminated > 0
    return lit if lit.any() else np.ones(lit.shape, bool)


class ObjectAxes:
    """Axes of the object: what is cropped, its coordinates and their unit."""

    def __init__(self, result: Result, region: BoolArray | None = None) -> None:
        self.rows, self.cols = bounding_box(lit_region(result) if region is None else region)
        size = result.pixel_size
        height, width = self.rows.stop - self.rows.start, self.cols.stop - self.cols.start
        dy, dx = (1.0, 1.0) if size is None else size
        factor, self.unit = length_unit(None if size is None else max(height * dy, width * dx))
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
        vmin, vmax = grey_limits(values[np.isfinite(values)]) if limits is None else limits
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
        dress(ax, title, self.unit)
        scale_bar(ax, abs(extent[1] - extent[0]), self.unit)
        if label is not None:
            bar = colour_bar(ax, image, label, extend="neither" if wraps else "both")
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


def colour_bar(ax: Axes, image: Any, label: str, extend: str = "neither") -> Any:
    """A colour bar as high as the picture."""
    return ax.figure.colorbar(
        image, cax=ax.inset_axes((1.03, 0, 0.05, 1)), label=label, extend=extend
    )


def dress(ax: Axes, title: str, unit: str) -> None:
    # at a height of its own: found automatically, all axes would be laid out once more
    ax.set_title(title, fontsize=11, y=1.0)
    ax.set_xlabel(f"x ({unit})")
    ax.set_ylabel(f"y ({unit})")
    ax.locator_params(nbins=5)


def grey_limits(values: FloatArray) -> tuple[float, float]:
    """Robust limits of a picture, a little apart even if it is flat."""
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, ROBUST))
    least = 1e-3 * max(abs(low), abs(high)) or 1e-3
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    return low, high


def length_unit(extent: float | None) -> tuple[float, str]:
    """Factor and name of the unit in which a length (m) has a few digits before the point."""
    if extent is None:
        return 1.0, "px"
    for factor, name in ((1e3, "mm"), (1e6, "µm"), (1e9, "nm")):
        if extent * factor >= 2:
            return factor, name
    return 1e12, "pm"
