"""Probes to start from, from whatever file holds one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..types import NO_ARRAY, ComplexArray, PtychonError
from .frames import npz_headers, read_npz
from .hdf5 import PathLike, check_readable, opened
from .recognise import holds_result, load_result

#: Where HDF5 files that are no results keep one.
PLACES = ("entry_1/instrument_1/illumination", "probe")


def read_probe(path: PathLike) -> tuple[ComplexArray, tuple[float, float] | None]:
    """A probe (K, P, Q) and the size of its pixel (m), None where the file does not tell.

    Parameters
    ----------
    path : path
        Of a result, ours or another package's, as `load_result` reads them; of a .npy file; of a
        .npz or HDF5 file with an array called probe.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or holds no probe.
    """
    check_readable(path)
    suffix = Path(path).suffix.lower()
    size = None
    if suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except NO_ARRAY as error:
            raise PtychonError(
                f"{path} is truncated, damaged or holds pickled objects; save a plain array"
            ) from error
    elif holds_result(path):
        result = load_result(path)
        array, size = result.probe, result.pixel_size
    elif zipfile.is_zipfile(path):
        names = list(npz_headers(path))
        name = "probe" if "probe" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise PtychonError(
                f"{path} has no array called probe; it has {', '.join(names) or 'none at all'}"
            )
        array = read_npz(path, name)
    else:
        with opened(path) as file:
            node = next(
                (
                    file[place]
                    for place in PLACES
                    if place in file and hasattr(file[place], "dtype")
                ),
                None,
            )
            if node is None:
                raise PtychonError(
                    f"{path} holds no probe: it is no reconstruction that can be read, and has "
                    f"none of {', '.join(PLACES)}"
                )
            array = node[()]
    if array.ndim not in (2, 3) or array.dtype.kind not in "cf" or 0 in array.shape:
        raise PtychonError(
            f"the probe in {path} has shape {array.shape} and type {array.dtype}; it must be "
            "complex, "
            f"(rows, columns) or (modes, rows, columns)"
        )
    return np.asarray(array, np.complex64).reshape(-1, *array.shape[-2:]), size
