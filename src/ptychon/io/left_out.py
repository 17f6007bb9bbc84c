"""What formats of others have no room for, in words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..data.dataset import Dataset
from ..data.result import Result

#: What a result has of each frame and of its model: field -> words. Only our own files keep it.
_FOUND = {
    "variations": "how the probe varies (variations, weights)",
    "log_scale": "the doses of the frames",
    "background": "the background that was found",
    "positions_given": "the positions before they were refined",
    "noise_variances": "the noise of each frame",
    "distance": "the distance that was found",
}


def of_scan(data: Dataset, kept: Collection[str]) -> list[str]:
    """Fields of a scan that are not kept and have a value, and the notes on it."""
    derived = {"distance", "detector_pixel_size"} <= set(kept)
    derived = derived and replace(data, pixel_size=None).pixel_size == data.pixel_size
    lost = [
        name
        for name in data.__dataclass_fields__
        if name not in {*kept, "name", "notes", "counting", "geometry"}
        and getattr(data, name) is not None
        and not (name == "pixel_size" and derived)
        and not (name == "upsample" and data.upsample == 1)
    ]
    near = ["that this is near field"] * (data.geometry == "near" and "geometry" not in kept)
    return lost + ["notes"] * bool(data.notes) + near


def of_frames(result: Result, kept: Collection[str] = ()) -> list[str]:
    """What a result knows of its frames and its model beside object, probe and positions."""
    return [
        words
        for name, words in _FOUND.items()
        if name not in kept and getattr(result, name, None) is not None
    ]


__all__ = ["of_frames", "of_scan"]
