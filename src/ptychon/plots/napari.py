"""A reader for napari (https://napari.org): results and scans as layers. napari is never imported;
it finds this by the manifest ``napari.yaml`` of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..io import load, load_result
from ..io.recognise import holds_result
from ..types import PtychonError
from .result import shown

#: A layer: data, keywords, kind.
Layer = tuple[Any, dict[str, Any], str]


def reader(path: str | Sequence[str]) -> Callable[[Any], list[Layer]] | None:
    """What opens a path; None if it is neither a scan nor a result.

    Parameters
    ----------
    path : path, or list of paths
    """
    first = path if isinstance(path, str) else path[0]
    try:
        result = holds_result(first)
        if not result:
            load(first)
    except PtychonError:
        return None
    return layers


def layers(path: str | Sequence[str]) -> list[Layer]:
    """Layers of a result (amplitude and phase of the object, its standard deviation, the modes of
    the probe) or of a scan (its frames).
    """
    paths = [path] if isinstance(path, str) else list(path)
    return [layer for each in paths for layer in _layers(each)]


def _layers(path: str) -> list[Layer]:
    if not holds_result(path):
        data = load(path)
        name = data.name or "frames"
        more = {"name": name, "gamma": 0.3, "metadata": {"notes": dict(data.notes)}}
        return [(data.patterns, more, "image")]
    result = load_result(path)
    amplitude, phase, _ = shown(result)
    size = result.pixel_size
    scale, unit = ((1.0, 1.0), "pixel") if size is None else (tuple(1e6 * s for s in size), "um")
    place = {"scale": scale, "units": unit}
    probe = {"name": "probe", "scale": (1.0, *scale), "visible": False}
    made: list[Layer] = [
        (np.abs(result.probe), probe, "image"),
        (phase, {"name": "object phase", **place}, "image"),
        (amplitude, {"name": "object amplitude", **place}, "image"),
    ]
    if result.object_std is not None:
        bars = {"name": "standard deviation", "visible": False, **place}
        made.insert(1, (result.object_std, bars, "image"))
    return made
