"""Measured frames beside those of the model, one after the other by a slider of a notebook."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import get_backend
from ..data.dataset import Dataset
from ..data.result import Result
from ..model.found import on_grid
from ..model.problem import Problem
from ..model.simulated import model_of
from ..types import FloatArray, PtychonError
from .figures import Figure
from .notebook import png


def compare(data: Dataset | Problem, result: Result, frame: int = 0) -> Any:
    """Slide through the measured frames and those of the model, with what is left over, in a
    notebook.

    Parameters
    ----------
    data : Dataset or Problem
        What the result was made from.
    result : Result
    frame : int
        Shown first.

    Returns
    -------
    ipywidgets.VBox
        The last line of a cell shows it.

    Raises
    ------
    PtychonError
        If ipywidgets is not installed, or the result is of other data.
    """
    try:
        import ipywidgets as widgets
    except ImportError:
        raise PtychonError(
            "compare needs ipywidgets: pip install 'ptychon[notebook]', then restart the kernel"
        ) from None
    problem = on_grid(data, result) if isinstance(data, Dataset) else data
    _check(problem, result, frame)
    image = widgets.Image(value=png(frames_of(problem, result, frame)), format="png")
    slider = widgets.IntSlider(
        value=frame, min=0, max=len(problem) - 1, description="frame", continuous_update=False
    )

    def moved(change: Any) -> None:
        image.value = png(frames_of(problem, result, int(change["new"])))

    slider.observe(moved, names="value")
    return widgets.VBox([slider, image])


def frames_of(problem: Problem, result: Result, frame: int) -> Figure:
    """One measured frame, that of the model on the same scale (amplitudes), and the difference in
    standard deviations of the noise of counts, with R of the frame.
    """
    measured, model = pair(problem, result, frame)
    valid = np.isfinite(measured)
    left = np.where(valid, model - measured, np.nan)
    size = float((measured[valid] ** 2).sum())
    error = float((left[valid] ** 2).sum() / size) ** 0.5 if size > 0 else float("nan")
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    top = float(np.nanpercentile(measured, 99.9)) or 1.0
    titles = (f"measured, frame {frame}", f"model, R {error:.4f}")
    for ax, picture, title in zip(axes, (measured, model), titles, strict=False):
        shown = ax.imshow(picture, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(shown, ax=list(axes[:2]), label="amplitude (sqrt of counts)", shrink=0.85)
    factor, unit = (2.0, "standard deviations") if problem.counting else (1.0, "amplitude")
    reach = max(float(np.nanpercentile(np.abs(left), 99)) * factor, 1e-9)
    rest = axes[2].imshow(
        left * factor, cmap="PuOr", vmin=-reach, vmax=reach, interpolation="nearest"
    )
    axes[2].set(title="model less measured", xticks=[], yticks=[])
    figure.colorbar(rest, ax=axes[2], label=unit, shrink=0.85)
    return figure


def pair(problem: Problem, result: Result, frame: int) -> tuple[FloatArray, FloatArray]:
    """Amplitudes of a measured frame, NaN where masked, and of the model, both (P, Q) with zero
    frequency in the middle.
    """
    _check(problem, result, frame)
    part = slice(frame, frame + 1)
    model = model_of(problem, result.object, result.probe, part, get_backend("numpy"))[0]
    measured = np.where(problem.mask_of(part), problem.amplitude[part], np.nan)[0]
    if problem.propagator.transfer is None:
        measured, model = np.fft.fftshift(measured), np.fft.fftshift(model)
    return np.asarray(measured, float), model


def _check(problem: Problem, result: Result, frame: int) -> None:
    if len(problem) != len(result.positions):
        raise PtychonError(
            f"the data have {len(problem)} frames and the result has {len(result.positions)}: "
            "give the data as the result read them"
        )
    if not 0 <= frame < len(problem):
        raise PtychonError(f"frame {frame} is none of the {len(problem)}: count from 0")
