"""Single frames in files of their own (dark, flat, background), and what is added to the notes of a
scan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.survey import electron_dose, survey
from ..types import FloatArray, PtychonError
from .entries import PATTERNS
from .frames import npz_headers, read_npz
from .hdf5 import PathLike, check_readable, opened
from .nodes import is_dataset, plain, table

#: Frames from which the dose is estimated.
_DOSE_FRAMES = 64


def number_or_field(value: PathLike, what: str) -> FloatArray | float:
    """A number from text, or else the frame in the file of that name; see `read_field`."""
    try:
        return float(str(value))
    except ValueError:
        return read_field(value, what)


@dataclass(frozen=True)
class Named:
    """An array in a file, with what the file says of it.

    Attributes
    ----------
    array : (..., P, Q) array of real numbers
    name : str
        Of the dataset or of the member of an archive; empty where a file holds one array only.
    attributes : dict
        Texts among the attributes of the dataset.
    tree : str
        "CXI" or "NeXus", if it stands in the group of a detector of such a file.
    beside_frames : bool
        Whether there are frames under a usual name in the same file.
    """

    array: Any
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    tree: str = ""
    beside_frames: bool = False


def read_field(path: PathLike, what: str) -> FloatArray:
    """A frame (P, Q) from .npy, .npz, .txt, .csv, TIFF, PNG, MATLAB or HDF5; the mean, if there are
    several.

    Parameters
    ----------
    path : path of the file; a dataset of an HDF5 file is named behind a colon,
    ``dark.h5:entry/data``
    what : str
        For the message: "dark".

    Raises
    ------
    PtychonError
        If the file is damaged, or does not hold one array of frames.
    """
    array = read_array(path, what).array
    return np.asarray(array.reshape(-1, *array.shape[-2:]).mean(axis=0, dtype=np.float64))


def split_name(path: PathLike) -> tuple[str, str]:
    """A file and the name of an array in it from ``FILE:NAME``; the name is empty where there is
    none.
    """
    name, _, inner = str(path).rpartition(":")
    return (
        (name, inner)
        if name and Path(name).is_file() and not Path(path).is_file()
        else (str(path), "")
    )


def read_array(
    path: PathLike, what: str, pick: Callable[[list[str]], str | None] = lambda names: None
) -> Named:
    """An array of real numbers (..., P, Q) from a file; see `read_field`.

    Parameters
    ----------
    path : path of the file, perhaps with a name behind a colon
    what : str
        For the message.
    pick : callable, optional
        Chooses one of several names; None refuses them.

    Raises
    ------
    PtychonError
        If the file is damaged, or does not hold one such array.
    """
    name, inner = split_name(path)
    check_readable(name)
    suffix = Path(name).suffix.lower()
    try:
        if suffix == ".npy":
            found = Named(np.load(name, allow_pickle=False))
        elif suffix == ".npz":
            headers = npz_headers(name)
            key = inner or _only(
                [k for k, (shape, _) in headers.items() if len(shape) >= 2], name, what, pick
            )
            if key not in headers:
                raise PtychonError(
                    f"{name} has no array {key!r}; it has {', '.join(headers) or 'none'}"
                )
            found = Named(
                read_npz(name, key),
                "" if key == "arr_0" else key,
                beside_frames=_beside_frames(headers),
            )
        elif suffix in (".tif", ".tiff"):
            import tifffile

            found = Named(tifffile.imread(name))
        elif suffix in (".png", ".bmp", ".gif"):
            from PIL import Image

            with Image.open(name) as picture:
                found = Named(
                    np.asarray(
                        picture.convert("L")
                        if picture.mode in ("P", "LA", "RGB", "RGBA")
                        else picture
                    )
                )
        elif suffix in (".txt", ".csv"):
            found = Named(np.loadtxt(name, delimiter="," if suffix == ".csv" else None))
        elif suffix == ".mat" and not _is_hdf5(name):
            from scipy.io import loadmat

            arrays = {
                k: v
                for k, v in loadmat(name).items()
                if not k.startswith("__") and getattr(v, "size", 0) > 1
            }
            key = inner or _only(list(arrays), name, what, pick)
            if key not in arrays:
                raise PtychonError(
                    f"{name} has no array {key!r}; it has {', '.join(arrays) or 'none'}"
                )
            found = Named(np.asarray(arrays[key]), key, beside_frames=_beside_frames(arrays))
        else:
            found = _from_hdf5(name, inner, what, pick)
    except PtychonError:
        raise
    except Exception as error:  # whatever a damaged file provokes
        raise PtychonError(f"{name} holds no {what} that can be read: {error}") from error
    array = found.array
    if array.dtype.kind not in "uifb" or array.ndim < 2 or not array.size:
        raise PtychonError(
            f"the {what} in {path} has shape {array.shape} and type {array.dtype}; it must be a "
            "frame"
        )
    return found


def _only(names: list[str], file: str, what: str, pick: Callable[[list[str]], str | None]) -> str:
    chosen = names[0] if len(names) == 1 else pick(names)
    if chosen is None:
        listed = ", ".join(names[:8]) or "no image"
        raise PtychonError(f"{file} holds {listed}; name the {what} behind a colon: {file}:NAME")
    return chosen


def _beside_frames(names: Iterable[str]) -> bool:
    return any(name.rsplit("/", 1)[-1].lower() in PATTERNS for name in names)


def _is_hdf5(name: str) -> bool:
    import h5py

    return bool(h5py.is_hdf5(name))


def _from_hdf5(name: str, inner: str, what: str, pick: Callable[[list[str]], str | None]) -> Named:
    with opened(name) as file:
        found: list[str] = []
        file.visititems(
            lambda key, node: (
                found.append(key) if is_dataset(node) and len(node.shape) >= 2 else None
            )
        )
        key = inner or _only(found, name, what, pick)
        node = file.get(key)
        if not is_dataset(node):
            raise PtychonError(f"{name} has no dataset {key!r}")
        said = {str(k): plain(v) for k, v in node.attrs.items() if isinstance(v, str | bytes)}
        tree = ""
        if re.search(r"(^|/)(detector|instrument)[^/]*/", key.lower()):
            tree = (
                "CXI"
                if "cxi_version" in file or plain(file.attrs.get("ptychon", "")) == "dataset"
                else "NeXus"
            )
        return Named(np.asarray(table(node, "uifb")), key, said, tree, _beside_frames(found))


def with_dose(data: Dataset) -> Dataset:
    """The data set, with the dose of electrons in e/A^2 in its notes where the
    numbers allow one.
    """
    if (
        "read" not in data.notes
        or "dose_e_per_A2" in data.notes
        or electron_dose(data, 1.0) is None
    ):
        return data
    dose = electron_dose(data, float(survey(data, _DOSE_FRAMES).counts.mean()))
    return (
        data
        if dose is None
        else replace(data, notes={**data.notes, "dose_e_per_A2": float(f"{dose:.4g}")})
    )
