"""Numbers of the detector that a format of others has no name for, as attributes of the root of
its HDF5 file: other programs pass over them, and `ptychon.load` reads them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..types import PtychonError
from .found import Found

#: What the name of an attribute begins with.
PREFIX = "ptychon_"
#: Fields of `Dataset` that are one number.
NUMBERS = ("blur", "upsample", "background", "read_noise", "saturation", "noise_variance")

#: The attributes.
NAMES = tuple(PREFIX + name for name in NUMBERS)


def of(file: Any) -> dict[str, Any]:
    """The attributes among those of an open HDF5 file."""
    return {name: file.attrs[name] for name in NAMES if name in file.attrs}


def keep(attributes: Any, data: Dataset, kept: Collection[str]) -> set[str]:
    """Write the numbers that a format does not keep by itself; the fields that it keeps with them.

    Frames of an upsampled grid are empty between the points that were measured, so a format that
    loses the mask does not keep that either.

    Parameters
    ----------
    attributes : mutable mapping
        Of the root of an HDF5 file; or the members of an archive.
    data : Dataset
    kept : collection of str
        Fields of `Dataset` that the format keeps by itself.
    """
    masked = data.mask is None or "mask" in kept
    written = set()
    for name in NUMBERS:
        value = getattr(data, name)
        plain = value is not None and np.ndim(value) == 0 and not (name == "upsample" and value < 2)
        if name not in kept and plain and (masked or name != "upsample"):
            attributes[PREFIX + name] = value
            written.add(name)
    return {*kept, *written}


def take(attributes: Any, found: Found) -> None:
    """Add to what a reader has found the numbers that `keep` has written.

    Raises
    ------
    PtychonError
        If one of them is no number.
    """
    for name in NUMBERS:
        key = PREFIX + name
        if key not in attributes:
            continue
        value = np.asarray(attributes[key])
        if value.size != 1 or value.dtype.kind not in "uif":
            raise PtychonError(
                f"the attribute {key} is {value.tolist()!r}, not a number; state it with "
                f"--{name.replace('_', '-')}, or delete the attribute"
            )
        number = float(value.reshape(-1)[0])
        found.add(name, int(number) if name == "upsample" else number, f"attribute {key}")


__all__ = ["NAMES", "keep", "of", "take"]
