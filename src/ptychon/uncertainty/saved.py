"""Error bars in a file: a result as any other, with what else is known of its bars beside it.

entry_1/image_1/data_error      object_std, as every result has it
ptychon/bars                    phase_std, amplitude_std, probe_std, region, method, conditional,
                                ... of `Posterior`
ptychon/half_data_test          every field of `HalfDataTest`, where two halves of the data were
                                compared
"""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

from ..data.result import Result
from ..io import load_result
from ..io.hdf5 import PathLike, amend, create, opened
from ..io.records import get, put
from ..io.saved import put_result
from ..types import PtychonError
from .half_data_record import HalfDataTest
from .posterior import Posterior

#: What the result holds already.
_ELSEWHERE = ("object", "probe", "object_std", "draws")
#: Has a group of its own, and are not kept.
_APART, _LEFT = "halves", ("sample", "field_priors")
#: What is said of a file without a group, and what makes it.
_LACKS = {
    "ptychon/bars": "has no error bars of 'ptychon error_bars'; make them with: ptychon error_bars",
    "ptychon/half_data_test": (
        "holds no comparison of two halves of its data; make it with: ptychon validate"
    ),
}


def _write(file: Any, name: str, record: Posterior | HalfDataTest) -> None:
    """A group with the fields of a record, in place of an older one."""
    if name in file:
        del file[name]
    group = file.create_group(name, track_order=True)
    for item in fields(record):
        value = getattr(record, item.name)
        if item.name not in (*_ELSEWHERE, _APART, *_LEFT) and value is not None:
            put(group, item.name, value, lenient=True)
    group.attrs["type"] = "record"
    group.attrs["class"] = type(record).__name__


def _read(path: PathLike, name: str, record: type[Posterior | HalfDataTest]) -> dict[str, Any]:
    """The fields of a record from its group."""
    with opened(path) as file:
        if name not in file:
            raise PtychonError(f"{path} {_LACKS[name]} {path}")
        values: dict[str, Any] = get(file[name])
    needed = [
        f.name
        for f in fields(record)
        if f.default is f.default_factory is MISSING and f.name not in _ELSEWHERE
    ]
    missing = [each for each in needed if each not in values]
    if missing:
        raise PtychonError(f"{path} is incomplete: {name} lacks {', '.join(missing)}")
    return {f.name: values[f.name] for f in fields(record) if f.name in values}


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
    whole = replace(result, **{name: getattr(posterior, name) for name in _ELSEWHERE})
    with create(path) as file:
        put_result(file, whole)
        _write(file, "ptychon/bars", posterior)
        if posterior.halves is not None:
            _write(file, "ptychon/half_data_test", posterior.halves)


def load_posterior(path: PathLike) -> Posterior:
    """Read the error bars that `save_posterior` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged, or a result without them.
    """
    result = load_result(path)
    known = _read(path, "ptychon/bars", Posterior)
    known |= {name: getattr(result, name) for name in _ELSEWHERE}
    return Posterior(**known | {_APART: find_half_data_test(path)})


def save_half_data_test(path: PathLike, source: PathLike, halves: HalfDataTest) -> None:
    """Write a copy of the result file `source` with what two halves of its data say; the file
    appears when it is complete.

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    with amend(path, source) as file:
        _write(file, "ptychon/half_data_test", halves)


def find_half_data_test(path: PathLike) -> HalfDataTest | None:
    """As `load_half_data_test`, but None where halves were not compared."""
    with opened(path) as file:
        there = "ptychon/half_data_test" in file
    return load_half_data_test(path) if there else None


def load_half_data_test(path: PathLike) -> HalfDataTest:
    """Read what `save_half_data_test` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged, or its halves were not compared.
    """
    return HalfDataTest(**_read(path, "ptychon/half_data_test", HalfDataTest))
