"""A mask in a file of its own: npy, npz, TIFF, PNG, text, MATLAB or HDF5, and what its values mean.

What nonzero means is told by the caller (``mask_ones``), else by an attribute of the dataset, by
the format of the file, by the name of the dataset or of the file, or by the values where these are
bits. Where nothing tells it, nothing is guessed: an inverted mask leaves the pixels without data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.dataset import Dataset
from ..types import BoolArray, PtychonError
from .fields import Named, read_array, split_name
from .hdf5 import PathLike
from .masks import MEANING, Convention, convention_of, valid_from

#: Different values that a mask may have: there are not more combinations of bits in use.
_VALUES = 64
#: Remarks such as "1 = bad".
_ONE_IS = re.compile(
    r"\b(1|ones?|true|nonzero|0|zeros?|false)\W{0,3}(?:=|:|is|are|means?)?\W{0,3}(valid|good|bad|invalid|masked|dead)\b"
)


def with_mask(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What the caller states, with the mask as an array that is True where a pixel is valid; and a
    sentence on it.

    Parameters
    ----------
    given : mapping
        ``mask``, a path or an array, and ``mask_ones``, "valid" or "bad", among others.

    Raises
    ------
    PtychonError
        If the file cannot be read or holds no mask, or it cannot be told what its values mean.
    """
    values = dict(given)
    mask, ones = values.get("mask"), values.pop("mask_ones", None)
    if mask is None:
        if ones is not None:
            raise PtychonError(
                "--mask-ones says what ones in the file of --mask are, but there is none: give "
                "--mask FILE:NAME"
            )
        return values, ""
    if not isinstance(mask, str | os.PathLike):
        if ones is not None:
            values["mask"] = valid_from(mask, ones)
        return values, ""
    values["mask"], said = read_mask(mask, ones)
    return values, said


def replacing(said: str, mask: Any, own: Any) -> str:
    """The sentence on a mask, with what becomes of the scan's own."""
    if not said or own is None or np.shape(own)[-2:] != np.shape(mask)[-2:]:
        return said
    if np.ndim(own) == 3 and np.shape(own) != np.shape(mask):
        own = np.asarray(own).any(axis=0)
    back = np.asarray(mask) & ~np.asarray(own)
    pixels = int(back.reshape(-1, *back.shape[-2:]).any(axis=0).sum())
    return (
        f"{said}; {pixels} pixels that the scan's own mask takes out are valid now"
        if pixels
        else said
    )


def noted(data: Dataset, said: str) -> Dataset:
    """The data set, with the sentence on its mask among the notes of what was given."""
    if not said:
        return data
    return replace(
        data, notes={**data.notes, "given": {**data.notes.get("given", {}), "mask": said}}
    )


def read_mask(path: PathLike, ones: Literal["valid", "bad"] | None = None) -> tuple[BoolArray, str]:
    """The mask in a file.

    Parameters
    ----------
    path : path of the file; an array of an .npz or HDF5 file is named behind a colon,
    ``mask.h5:entry/mask``
    ones : {"valid", "bad"}, optional
        What nonzero values are.

    Returns
    -------
    mask : (P, Q) or (N, P, Q) bool, True where a pixel is valid
    said : str
        How many pixels it takes out, and how it was understood.

    Raises
    ------
    PtychonError
        If the file cannot be read or holds no mask, or it cannot be told what its values mean.
    """
    found = read_array(path, "mask", pick=_pick)
    array = found.array
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] > 4:  # a picture in colours
        array = array[..., :3].max(axis=-1)
    array = array.reshape(-1, *array.shape[-2:]) if array.ndim > 3 else array
    array = (
        array[0] if array.ndim == 3 and (len(array) == 1 or (array == array[0]).all()) else array
    )
    if array.dtype.kind != "b" and (different := len(np.unique(array))) > _VALUES:
        raise PtychonError(
            f"{path} holds {different} different values: it is no mask; name another with "
            "--mask FILE:NAME"
        )
    convention: Convention | None = ones
    why = "as stated"
    if convention is None:
        convention, why = _told(found, path, array)
    size = array.shape[-2] * array.shape[-1]
    marked = int(
        np.count_nonzero(~valid_from(array, "bad")) / (len(array) if array.ndim == 3 else 1)
    )
    if convention is None:
        raise PtychonError(
            f"{path}: it cannot be told whether nonzero means valid (then {size - marked} of "
            f"{size} pixels are taken out) or "
            f"bad (then {marked}); say so with --mask-ones valid or --mask-ones bad"
        )
    valid = valid_from(array, convention)
    if not valid.any():
        raise PtychonError(
            f"{path}: no pixel is valid ({MEANING[convention]}, {why}); turn it with --mask-ones"
        )
    frames = f" (the mean of {len(valid)} frames)" if valid.ndim == 3 else ""
    out = round(np.count_nonzero(~valid) / (len(valid) if valid.ndim == 3 else 1))
    file, inner = split_name(path)
    name = Path(file).name + (f":{inner}" if inner else "")
    return valid, f"{name} takes out {out} of {size} pixels{frames}; {MEANING[convention]}, {why}"


def _pick(names: list[str]) -> str | None:
    """Which of several arrays is the mask: the only one whose name says so."""
    likely = [name for name in names if re.search("mask", name.rsplit("/", 1)[-1], re.IGNORECASE)]
    likely = likely or [name for name in names if convention_of(name) is not None]
    return likely[0] if len(likely) == 1 else None


def _told(found: Named, path: PathLike, array: Any) -> tuple[Convention | None, str]:
    """What nonzero means, and what says so."""
    for name, text in found.attributes.items():
        said = _in_words(text) or (convention_of(text) if len(text) < 40 else None)
        if said is not None:
            return said, f"by its attribute {name}"
    last = found.name.rsplit("/", 1)[-1].lower()
    if found.tree and last in ("mask", "pixel_mask"):
        return ("nexus" if last == "pixel_mask" else "cxi"), f"as in {found.tree}"
    by_name = convention_of(found.name) if found.name else None
    if by_name is not None:
        return by_name, f"by the name {found.name}"
    if found.beside_frames and last == "mask":
        return "valid", "as beside frames in plain files"
    by_name = convention_of(Path(split_name(path)[0]).stem)
    if by_name is not None:
        return by_name, "by the name of the file"
    if array.dtype.kind in "iu" and len(np.unique(array)) > 2:
        return "nexus", "as a field of bits"
    return None, ""


def _in_words(text: str) -> Convention | None:
    """What a remark such as "1 = bad, 0 = good" says of ones."""
    match = _ONE_IS.search(text.lower())
    if match is None:
        return None
    good = match.group(2) in ("valid", "good")
    return "valid" if good == (match.group(1)[0] in "1otn") else "bad"
