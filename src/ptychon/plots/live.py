"""A run that is watched: object, probe and R, redrawn every few passes."""

from __future__ import annotations

import io
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import Context
from ..run.meter import in_notebook
from ..types import ComplexArray, PtychonError
from .display import complex_rgb, remove_ramp
from .figures import Figure
from .notebook import FILES_ONLY, png

if TYPE_CHECKING:
    from ..run.progress import Progress

#: Least seconds between two pictures, and least time of passes for that of drawing.
OFTEN, SHARE = 1.0, 10.0


class Live:
    """A callback of `reconstruct` that draws what has been found so far.

    Parameters
    ----------
    ctx : Context
        Of the run.
    earlier : int
        Passes of the result that the run started from: they are not counted.
    every : int, optional
        Draw after so many passes; default so often that drawing takes a tenth of the time.

    Raises
    ------
    PtychonError
        Where there is neither a notebook nor a window to draw in.
    """

    def __init__(self, ctx: Context, earlier: int = 0, every: int | None = None) -> None:
        self._ctx, self._earlier, self._every = ctx, earlier, every
        self._errors: list[tuple[int, float]] = []
        self._place: Any = None
        self._window: Any = None
        self._next = 0.0
        self._last: Any = None
        if not in_notebook():
            import matplotlib.pyplot as plt

            if plt.get_backend().lower() in FILES_ONLY:
                raise PtychonError(
                    f"live=True draws in a notebook or in a window, and matplotlib's backend "
                    f"{plt.get_backend()!r} opens none; leave it out"
                )

    def __call__(self, progress: Progress) -> None:
        """Draw, if it is time."""
        passes = progress.passes - self._earlier
        if self._errors and passes <= self._errors[-1][0]:  # the run has been restarted
            self._errors.clear()
        self._errors.append((passes, progress.error))
        self._last = progress
        due = (
            passes % self._every == 0
            if self._every is not None
            else time.monotonic() >= self._next or progress.passes == progress.planned
        )
        if due:
            began = time.monotonic()
            self._show(self.figure(progress))
            now = time.monotonic()
            self._next = now + max(OFTEN, SHARE * (now - began))
            self._last = None

    def close(self) -> None:
        """Draw the end, if it was not drawn."""
        if self._last is not None:
            self._show(self.figure(self._last))
            self._last = None

    def figure(self, progress: Progress) -> Figure:
        """Object, probe and R after a pass."""
        assert progress.engine is not None
        found = progress.engine.estimate(progress.state, self._ctx)
        object, probe = (self._ctx.backend.to_host(a) for a in (found.object, found.probe))
        object = object if object.ndim == 2 else object.prod(axis=0)
        return drawn(object, probe, self._errors, progress.engine.name)

    def _show(self, figure: Figure) -> None:
        if in_notebook():
            from IPython.display import Image, display

            image = Image(png(figure))
            if self._place is None:
                self._place = display(image, display_id=True)
            else:
                self._place.update(image)
            return
        import matplotlib.pyplot as plt

        picture = plt.imread(io.BytesIO(png(figure)), format="png")
        if self._window is None:
            window = plt.figure(figsize=figure.get_size_inches())
            axes = window.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._window = axes.imshow(picture)
            plt.show(block=False)
        else:
            self._window.set_data(picture)
        plt.pause(0.01)


def drawn(
    object: ComplexArray, probe: ComplexArray, errors: list[tuple[int, float]], engine: str
) -> Figure:
    """Amplitude and phase of an object (H, W), the first mode of a probe (K, P, Q) in colours, and
    R of the passes (number, R).
    """
    figure = Figure(figsize=(11.0, 2.9), layout="constrained")
    axes = figure.subplots(1, 4)
    flat = remove_ramp(object)
    low, high = np.percentile(np.abs(flat), (0.5, 99.5))
    axes[0].imshow(np.abs(flat), cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
    axes[1].imshow(np.angle(flat), cmap="gray")
    axes[2].imshow(complex_rgb(probe[0]))
    for ax, title in zip(axes, ("object amplitude", "object phase", "probe"), strict=False):
        ax.set(title=title, xticks=[], yticks=[])
    known = [(n, e) for n, e in errors if math.isfinite(e)]
    axes[3].plot(*zip(*known, strict=True), ".-", color="0.2") if known else None
    axes[3].set(title=f"R, {engine}", xlabel="pass", yscale="log")
    axes[3].grid(True, which="both", color="0.9")
    return figure
