"""What is drawn with, imported so that the environment cannot spoil it.

A notebook hands ``MPLBACKEND=module://...`` on to every command it starts. Where that module is not
installed, the import of matplotlib itself fails. Pictures here go to files and need no backend: the
variable is hidden from the first import, and honoured after it where it names something that
exists.
"""
# ruff: noqa: E402

from __future__ import annotations

import os
import sys
from contextlib import suppress


def _import() -> None:
    asked = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if asked is not None:
        os.environ["MPLBACKEND"] = asked
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = asked


_import()

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredText
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

__all__ = [
    "AnchoredText",
    "Axes",
    "Circle",
    "Figure",
    "FuncFormatter",
    "LogLocator",
    "MaxNLocator",
    "NullFormatter",
    "Rectangle",
    "withStroke",
]
