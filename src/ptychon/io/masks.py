"""One meaning of a mask: True where a detector pixel is valid. Files have others, and this is where
they are turned.

valid   nonzero is valid: weights, ``good``, ``valid``
bad     nonzero is bad: ``bad_pixels``, ``dead``, ``hot``
cxi     a field of bits, 0 is valid; the bit 0x1000 says only that there is signal (Maia, Nat.
        Methods 9, 854 (2012))
nexus   a field of bits, 0 is valid: bit 0 a gap, 1 dead, 2 and 3 insensitive or too sensitive, 4
        noisy, 8 chosen by
        the user, 31 a virtual pixel (NXdetector, ``pixel_mask``)
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

import numpy as np

from ..types import BoolArray, PtychonError

Convention: TypeAlias = Literal["valid", "bad", "cxi", "nexus"]

#: Bit of a CXI mask that marks pixels with signal, which are good.
_HAS_SIGNAL = 0x1000
#: Words in the name of an array -> what nonzero means there; the first word that is found decides.
_WORDS: tuple[tuple[str, Convention], ...] = (
    ("pixel_?mask", "nexus"),
    ("invalid", "bad"),
    ("valid", "valid"),
    ("good", "valid"),
    ("weights?", "valid"),
    ("bad", "bad"),
    ("dead", "bad"),
    ("hot", "bad"),
    ("masked", "bad"),
    ("defects?", "bad"),
)
#: What nonzero means, for people.
MEANING: dict[Convention, str] = {
    "valid": "nonzero is valid",
    "bad": "nonzero is bad",
    "cxi": "0 is valid",
    "nexus": "0 is valid",
}


def valid_from(array: Any, convention: Convention) -> BoolArray:
    """True where a pixel is valid.

    Parameters
    ----------
    array : (..., P, Q) array of bool, integers or floats
    convention : {"valid", "bad", "cxi", "nexus"}
        What its values mean; see the head of this module.

    Returns
    -------
    (..., P, Q) bool
        Values that are not numbers (NaN) are invalid, whatever the convention.

    Raises
    ------
    PtychonError
        For text, complex numbers or an unknown convention.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "buif":
        raise PtychonError(
            f"the mask has dtype {values.dtype}; it must hold truth values or numbers"
        )
    if convention not in MEANING:
        raise PtychonError(
            f"{convention!r} is no meaning of a mask; these are known: {', '.join(MEANING)}"
        )
    if values.dtype.kind == "f":
        nonzero = values > 0 if convention == "valid" else values != 0
        known = ~np.isnan(values)
        return np.asarray((nonzero if convention == "valid" else ~nonzero) & known)
    if convention == "cxi" and values.dtype.kind in "iu" and values.dtype.itemsize > 1:
        values = values & ~values.dtype.type(_HAS_SIGNAL)
    return np.asarray(values != 0 if convention == "valid" else values == 0)


def convention_of(name: str) -> Convention | None:
    """What the name of an array says of its values; None for a plain ``mask``.

    Examples
    --------
    >>> [convention_of(name) for name in ("entry/detector/pixel_mask", "bad_pixels", "mask")]
    ('nexus', 'bad', None)
    """
    last = name.strip("/").rsplit("/", 1)[-1].lower()
    return next(
        (convention for word, convention in _WORDS if re.search(rf"(?<![a-z]){word}", last)), None
    )
