"""Single frames in files of their own (dark, flat, background), and what is added to the notes of a scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.dataset import Dataset
from ..data.survey import electron_dose, survey
from ..types import FloatArray, PtychonError
from .frames import npz_headers, read_npz
from .hdf5 import PathLike, check_readable, opened
from .nodes import is_dataset, table

#: Frames from which the dose is estimated.
_DOSE_FRAMES = 64


def number_or_field(value: PathLike, what: str) -> FloatArray | float:
    """A number from text, or else the frame in the file of that name; see `read_field`."""
    try:
        return float(str(value))
    except ValueError:
        return read_field(value, what)


def read_field(path: PathLike, what: str) -> FloatArray:
    """A frame (P, Q) from .npy, .npz, .txt, .csv, TIFF or HDF5; the mean, if there are several.

    Parameters
    ----------
    path : path of the file; a dataset of an HDF5 file is named behind a colon, ``dark.h5:entry/data``
    what : str
        For the message: "dark".

    Raises
    ------
    PtychonError
        If the file is damaged, or does not hold one array of frames.
    """
    name, _, inner = str(path).rpartition(":")
    if not (name and Path(name).is_file()):
        name, inner = str(path), ""
    check_readable(name)
    suffix = Path(name).suffix.lower()
    try:
        if suffix == ".npy":
            array = np.load(name, allow_pickle=False)
        elif suffix == ".npz":
            names = list(npz_headers(name))
            if inner not in names and len(names) != 1:
                raise PtychonError(f"{name} holds {', '.join(names) or 'nothing'}; name the {what} behind a colon: {name}:NAME")
            array = read_npz(name, inner or names[0])
        elif suffix in (".tif", ".tiff"):
            import tifffile

            array = tifffile.imread(name)
        elif suffix in (".txt", ".csv"):
            array = np.loadtxt(name, delimiter="," if suffix == ".csv" else None)
        else:
            array = _from_hdf5(name, inner, what)
    except PtychonError:
        raise
    except Exception as error:  # whatever a damaged file provokes
        raise PtychonError(f"{name} holds no {what} that can be read: {error}") from error
    if array.dtype.kind not in "uifb" or array.ndim < 2:
        raise PtychonError(f"the {what} in {path} has shape {array.shape} and type {array.dtype}; it must be a frame")
    return np.asarray(array.reshape(-1, *array.shape[-2:]).mean(axis=0, dtype=np.float64))


def _from_hdf5(name: str, inner: str, what: str) -> FloatArray:
    with opened(name) as file:
        if inner:
            node = file.get(inner)
            if not is_dataset(node):
                raise PtychonError(f"{name} has no dataset {inner!r}")
            return np.asarray(table(node, "uifb"))
        found: list[str] = []
        file.visititems(lambda key, node: found.append(key) if is_dataset(node) and len(node.shape) >= 2 else None)
        if len(found) != 1:
            listed = ", ".join(found[:8]) or "no image"
            raise PtychonError(f"{name} holds {listed}; name the {what} behind a colon: {name}:NAME")
        return np.asarray(table(file[found[0]], "uifb"))


def with_dose(data: Dataset) -> Dataset:
    """The data set, with the dose of electrons in e/A^2 in its notes where the numbers allow one."""
    if "read" not in data.notes or "dose_e_per_A2" in data.notes or electron_dose(data, 1.0) is None:
        return data
    dose = electron_dose(data, float(survey(data, _DOSE_FRAMES).counts.mean()))
    return data if dose is None else replace(data, notes={**data.notes, "dose_e_per_A2": float(f"{dose:.4g}")})
