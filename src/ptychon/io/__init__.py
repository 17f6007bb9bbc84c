"""Files: one module a format, recognised by content.

`load` opens a scan, `load_result` what a reconstruction has left; `save` writes either.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.preparation import Preparation
from ..data.prepare import prepare
from ..data.result import Result
from ..types import PtychonError, PtychonWarning
from . import guard
from .assemble import SELECTION, assemble
from .cxi_write import write_dataset
from .export import convert, write_result, write_scan
from .fields import number_or_field, with_dose
from .given import PREPARATION, check_given
from .hdf5 import PathLike
from .mask_file import noted, replacing, with_mask
from .recognise import find, load_result
from .saved import save_result

__all__ = [
    "convert",
    "load",
    "load_result",
    "save",
    "save_result",
    "write_dataset",
    "write_result",
    "write_scan",
]


def load(path: PathLike, **given: Any) -> Dataset:
    """Open a scan, whatever the file is. Frames stay on disk until they are needed.

    Parameters
    ----------
    path : path of a file of any kind that docs/formats.md lists
    **given
        What the caller knows better than the file, or the file does not say; these values win and
        are listed in ``notes["given"]``. Fields of `Dataset` except the patterns, and ``energy``
        (J), ``voltage`` (V), ``semi_angle`` (rad) and ``defocus`` (m, positive for underfocus) of
        an electron probe, ``scan_shape``, ``step`` (m) and ``rotation`` (rad) of a raster,
        ``data_path`` and ``positions_path``, names of datasets, and ``position_units`` ("px",
        "um"). Pixel sizes belong to the frames as stored, before crop and bin. Lengths, energies,
        voltages and angles may be text with a unit, ``"12.66keV"``. None means not given. And how
        the scan is to be prepared: the fields of `ptychon.data.prepare.Preparation`, where
        ``dark``, ``flat`` and ``background`` may be paths, ``crop`` ``"128x128"``, ``centre``
        ``"auto"`` or ``"60,64.5"``, ``frames`` ``"0:500"``, ``scan_sign`` ``"+-"``. ``mask`` is an
        array that is True where a pixel is valid, or a path, ``"mask.h5:entry/mask"``;
        ``mask_ones``, "valid" or "bad", says what ones are in it where nothing else does.
        ``pedestal`` is another name of ``dark``.

    Returns
    -------
    Dataset
        Its `notes` say where each value was found.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or of an unknown kind, or a quantity is missing: the message
        names the field and the command line flag that supplies it.

    Examples
    --------
    >>> load("scan.cxi", geometry="near", focus_distance="3.65mm")  # doctest: +SKIP
    """
    values = check_given(given)
    chosen = {
        name: value
        for name, value in values.items()
        if name not in PREPARATION or name in SELECTION
    }
    stated, said = with_mask(chosen)
    guard.check(path, lambda: assemble(find(path, stated), stated, Path(path).name).patterns)
    found = find(path, stated)
    said = replacing(said, stated.get("mask"), found.fields.get("mask"))
    return noted(with_dose(prepared(assemble(found, stated, Path(path).name), values)), said)


def prepared(data: Dataset, given: Mapping[str, Any]) -> Dataset:
    """The data set as the fields of `ptychon.data.prepare.Preparation` in `given` say (checked,
    dark and so on perhaps paths).

    Which frames are taken (`ptychon.io.assemble.SELECTION`) was settled before they had positions,
    and is not done again.
    """
    wanted = {name: given[name] for name in PREPARATION if name in given and name not in SELECTION}
    for name in ("dark", "flat", "background"):
        if isinstance(wanted.get(name), str | os.PathLike):
            wanted[name] = number_or_field(wanted[name], name)
    if not wanted:
        return data
    ready = prepare(data, Preparation(**wanted))
    if given.get("pixel_size") is not None and ready.pixel_size != data.pixel_size:
        ratio = np.array(data.pixel_size) / np.array(ready.pixel_size)
        fitting = ",".join(
            dict.fromkeys(f"{1e9 * v:.4g}nm" for v in np.array(data.pixel_size) * ratio)
        )
        change = ready.notes["prepared"]["pixel_size"]
        warnings.warn(
            "the pixel size that was given is that of the frames as stored, before crop and "
            f"bin: {change}; if it is meant for "
            f"the frames as they are used, give --pixel-size {fitting}",
            PtychonWarning,
            stacklevel=3,
        )
    # a gain makes counts, unless the caller knows better
    return (
        replace(ready, counting=False)
        if given.get("counting") is False and ready.counting
        else ready
    )


def save(path: PathLike, what: Result | Dataset) -> None:
    """Write a result, or a scan; the file appears when it is complete, and what was there before is
    not harmed by a failure.

    Parameters
    ----------
    path : path of the file to write
    what : Result or Dataset
        `ptychon.load` gives back every field of a scan; its frames may be on disk.

    Raises
    ------
    PtychonError
        If the file cannot be written, or it is something else.
    """
    if isinstance(what, Dataset):
        write_dataset(path, what)
    elif isinstance(what, Result):
        save_result(path, what)
    else:
        raise PtychonError(
            f"save writes a Result or a Dataset, and this is {type(what).__name__}; of a problem "
            "write the Dataset that it was made from, of error bars the Result"
        )
