"""Error bars in a file: a result as any other, with what else is known of its bars beside it.

    entry_1/image_1/data_error      object_std, as every result has it
    ptychon/uncertainty             phase_std, amplitude_std, probe_std, region, method, conditional, ... of `Posterior`
    ptychon/halves                  every field of `Halves`, where two halves of the data were compared
"""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..io import load_result, save_result
from ..io.hdf5 import PathLike, get, opened, put, write_aside
from ..result import Result
from ..types import PtychonError
from .halves import Halves
from .posterior import Posterior

#: What the result holds already.
_ELSEWHERE = ("object", "probe", "object_std", "draws")


def _write(file: Any, name: str, record: Posterior | Halves) -> None:
    """A group with the fields of a record, in place of an older one."""
    if name in file:
        del file[name]
    group = file.create_group(name, track_order=True)
    for item in fields(record):
        value = getattr(record, item.name)
        if item.name not in _ELSEWHERE and value is not None:
            put(group, item.name, value, lenient=True)
    group.attrs["type"] = "record"
    group.attrs["class"] = type(record).__name__


def save_posterior(path: PathLike, result: Result, posterior: Posterior) -> None:
    """Write a result with error bars; the file appears when it is complete.

    Parameters
    ----------
    path : path of the file to write
    result : Result
        Everything but object, probe and error bar is taken from it.
    posterior : Posterior

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    import h5py

    whole = replace(result, **{name: getattr(posterior, name) for name in _ELSEWHERE})
    with write_aside(path) as aside:
        save_result(aside, whole)
        with h5py.File(aside, "r+") as file:
            _write(file, "ptychon/uncertainty", posterior)


def load_posterior(path: PathLike) -> Posterior:
    """Read the error bars that `save_posterior` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged, or a result without them.
    """
    result = load_result(path)
    with opened(path) as file:
        if "ptychon/uncertainty" not in file:
            raise PtychonError(f"{path} has no error bars of 'ptychon uncertainty'; make them with: ptychon uncertainty {path}")
        values: dict[str, Any] = get(file["ptychon/uncertainty"])
    known = {item.name: values[item.name] for item in fields(Posterior) if item.name in values}
    known["conditional"] = tuple(map(str, known.get("conditional", ())))
    known["region"] = np.asarray(known["region"], bool)
    return Posterior(**known | {name: getattr(result, name) for name in _ELSEWHERE})


def save_halves(path: PathLike, source: PathLike, halves: Halves) -> None:
    """Write a copy of the result file `source` with what two halves of its data say; the file appears when it is complete.

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    import h5py

    with write_aside(path) as aside:
        shutil.copyfile(source, aside)
        with h5py.File(aside, "r+") as file:
            _write(file, "ptychon/halves", halves)


def load_halves(path: PathLike) -> Halves:
    """Read what `save_halves` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged, or its halves were not compared.
    """
    with opened(path) as file:
        if "ptychon/halves" not in file:
            raise PtychonError(f"{path} says nothing of halves of its data; compare them with: ptychon halves {path}")
        values: dict[str, Any] = get(file["ptychon/halves"])
    known: dict[str, Any] = {item.name: values[item.name] for item in fields(Halves)}
    for name, value in known.items():
        if isinstance(value, list | np.ndarray):
            known[name] = tuple(value)
    return Halves(**known)
