"""What a notebook, or a prompt, shows of a scan and of a result."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..metrics.registration import bounding_box
from ..run.meter import in_notebook
from ..types import FloatArray, PtychonError
from .display import complex_rgb, remove_ramp
from .figures import Figure
from .result import picture

#: Dots an inch of pictures in a notebook: smaller than in a file.
DPI = 70
#: Backends of matplotlib that write files and open no window.
FILES_ONLY = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def result_html(result: Result) -> str:
    """The facts of a result and its picture, as HTML for a notebook."""
    return _page(repr(result), picture(result))


def dataset_html(data: Dataset) -> str:
    """The facts of a scan, the frame in its middle and its path, as HTML for a notebook. One frame
    is read.
    """
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    middle = len(data) // 2
    frame = np.asarray(data.patterns[middle], float)
    left.imshow(_log(frame), cmap="gray", interpolation="nearest")
    left.set(title=f"frame {middle}, logarithmic", xticks=[], yticks=[])
    y, x = (data.positions - data.positions.mean(axis=0)).T
    scale, unit = (1.0, "px") if data.pixel_size is None else (1e6, "µm")
    right.plot(x * scale, y * scale, ".-", color="0.3", linewidth=0.5, markersize=3)
    right.plot(x[:1] * scale, y[:1] * scale, "o", color="tab:red", markersize=4)
    right.invert_yaxis()
    right.set(title="positions, the first in red", xlabel=unit, ylabel=unit, aspect="equal")
    return _page(repr(data), figure)


def show(
    result: Result, *, colour: bool = False, region: tuple[slice, slice] | None = None
) -> None:
    """Draw a result where its reader is: below the cell of a notebook, or in a window.

    Parameters
    ----------
    result : Result
    colour : bool
        The object alone, in colours.
    region : (rows, columns), optional
        Slices of object pixels: this part of the object alone.

    Raises
    ------
    PtychonError
        Where there is neither: with a backend of matplotlib that opens no window.
    """
    if in_notebook():
        from IPython.display import Image, display

        display(Image(png(drawn(result, colour, region))))
        return
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() in FILES_ONLY:
        raise PtychonError(
            f"matplotlib's backend {plt.get_backend()!r} opens no window; write the picture to a "
            'file with ptychon.plot(result, "result.png")'
        )
    figure = drawn(result, colour, region)
    window = plt.figure(figsize=figure.get_size_inches())
    axes = window.add_axes((0, 0, 1, 1))
    axes.imshow(plt.imread(io.BytesIO(png(figure, 150)), format="png"))
    axes.set_axis_off()
    plt.show()


def drawn(result: Result, colour: bool, region: tuple[slice, slice] | None) -> Figure:
    """The picture of a result; or of its object alone, in colours, or a part of it."""
    if not colour and region is None:
        return picture(result)
    box = bounding_box(result.illuminated) if region is None else region
    part = remove_ramp(result.projection, result.illumination)[box]
    if part.ndim != 2 or 0 in part.shape:
        raise PtychonError(
            f"the region {box} holds no pixel of the object of {result.object.shape}; give slices "
            "of rows and columns"
        )
    pictures = {"object": complex_rgb(part)} if colour else {"amplitude": np.abs(part)}
    if not colour:
        pictures["phase (rad)"] = np.angle(part)
    figure = Figure(figsize=(5.2 * len(pictures), 4.6), layout="constrained")
    (top, left), (rows, columns) = (
        (axis.indices(n)[0] for axis, n in zip(box, result.object.shape[-2:], strict=True)),
        part.shape,
    )
    extent = (left - 0.5, left + columns - 0.5, top + rows - 0.5, top - 0.5)
    for ax, (name, values) in zip(
        np.atleast_1d(figure.subplots(1, len(pictures))), pictures.items(), strict=True
    ):
        shown = ax.imshow(values, cmap="gray", extent=extent, interpolation="nearest")
        ax.set(title=name, xlabel="column (px)", ylabel="row (px)")
        if not colour:
            figure.colorbar(shown, ax=ax, shrink=0.85)
    return figure


def _log(frame: FloatArray) -> FloatArray:
    """A frame on a logarithmic scale, from its least positive value or a millionth of the largest
    on.
    """
    top = float(np.nanmax(frame, initial=0))
    if top <= 0:
        return frame
    floor = max(top * 1e-6, float(np.nanmin(np.where(frame > 0, frame, top))))
    return np.asarray(np.log10(np.maximum(np.nan_to_num(frame), floor)))


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _page(text: str, figure: Figure) -> str:
    title, *facts = text.split("\n")
    image: Any = base64.b64encode(png(figure)).decode()
    lines = "<br>".join(html.escape(fact.strip()) for fact in facts)
    return (
        f"<div><b>{html.escape(title)}</b><br>{lines}<br>"
        f'<img alt="{html.escape(title, quote=True)}" src="data:image/png;base64,{image}"></div>'
    )
