"""Files: one module a format, recognised by content.

`load` opens a scan, `load_result` what a reconstruction has left; `write_dataset` and `save_result` write them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..types import PtychonError
from . import arrays, cxi
from .cxi_write import write_dataset
from .found import Found, assemble, check_given
from .hdf5 import PathLike, check_readable, opened
from .saved import load_result, save_result

__all__ = ["load", "load_result", "save_result", "write_dataset"]

_HDF5_SUFFIXES = (".h5", ".hdf5", ".cxi", ".nxs", ".hdf", ".he5", ".ptyd", ".ptyr", ".emd")


def load(path: PathLike, **given: Any) -> Dataset:
    """Open a scan, whatever the file is. Frames stay on disk until they are needed.

    Parameters
    ----------
    path : path of a CXI, .npz, .npy or any HDF5 file
    **given
        What the caller knows better than the file, or the file does not say; these values win and are listed in
        ``notes["given"]``. Fields of `Dataset` except the patterns, and ``energy`` (J), ``voltage`` (V), ``semi_angle``
        (rad) and ``defocus`` (m, positive for underfocus) of an electron probe, ``scan_shape``, ``step`` (m) and
        ``rotation`` (rad) of a raster, ``data_path`` and ``positions_path``, names of datasets. Lengths, energies,
        voltages and angles may be text with a unit, ``"12.66keV"``. None means not given.

    Returns
    -------
    Dataset
        Its `notes` say where each value was found.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or of an unknown kind, or a quantity is missing: the message names the field
        and the command line flag that supplies it.

    Examples
    --------
    >>> load("scan.cxi", geometry="near", focus_distance="3.65mm")  # doctest: +SKIP
    """
    values = check_given(given)
    return assemble(_find(path, values), values, Path(path).name)


def _find(path: PathLike, given: Mapping[str, Any]) -> Found:
    check_readable(path)
    with open(path, "rb") as stream:
        head = stream.read(16)
    suffix = Path(path).suffix.lower()
    if head.startswith(b"PK") or suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise PtychonError(f"{path} is no complete .npz archive: truncated or damaged; copy it again")
        return arrays.read_archive(path, given)
    if head.startswith(b"\x93NUMPY") or suffix == ".npy":
        return arrays.read_stack(path, given)
    if not (_is_hdf5(path) or suffix in _HDF5_SUFFIXES):
        raise PtychonError(f"{path} is of no kind that can be read; these can: CXI and other HDF5, .npz, .npy")
    with opened(path) as file:
        if str(file.attrs.get("ptychon", "")) == "result":
            raise PtychonError(f"{path} is the result of a reconstruction, not a scan; to go on from it use --start {path}")
        is_cxi = "data_path" not in given and cxi.recognise(file)
    return cxi.read(path) if is_cxi else arrays.read_hdf5(path, given)


def _is_hdf5(path: PathLike) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))
