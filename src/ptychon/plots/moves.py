"""By how much refined positions have moved, as arrows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.result import Result

#: Length of the largest arrows, as a share of the scan.
LENGTH = 0.08


def draw_moves(ax: Any, result: Result) -> None:
    """Arrows from where the data put each frame, magnified until they are seen; the mean is taken
    off, which the probe has taken up.
    """
    assert result.positions_given is not None
    given = np.asarray(result.positions_given, float)
    d = result.positions - given
    d = d - d.mean(axis=0)
    size = np.hypot(*d.T)
    extent = max(float(np.ptp(given, axis=0).max()), 1.0)
    longest = max(float(np.percentile(size, 95)), 1e-12)
    exact = LENGTH * extent / longest
    times = max(1.0, float(f"{exact:.1g}"))
    ax.plot(given[:, 1], given[:, 0], ".", color="0.7", ms=2)
    ax.quiver(
        given[:, 1],
        given[:, 0],
        d[:, 1],
        d[:, 0],
        angles="xy",
        scale_units="xy",
        scale=1 / times,
        color="black",
        width=0.004,
    )
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.set_title(
        f"moves {np.sqrt((size**2).mean()):.2g} px rms\narrows {times:g} times as long", fontsize=10
    )
    ax.set_xlabel("x (px)")
    ax.set_ylabel("y (px)")
