"""What a dataset of an HDF5 file needs besides that file: filters of plugins, and other files.

Where a file that a virtual dataset is made of is missing, the HDF5 library says nothing and returns
the fill value.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..types import PtychonError
from .hdf5 import PLUGINS, PathLike, opened

#: Filters of the HDF5 library itself have smaller numbers than those of plugins.
_FIRST_PLUGIN = 256
#: Virtual datasets of virtual datasets that are followed.
_DEEPEST = 4


def check_filters(node: Any, path: PathLike) -> None:
    """Refuse a dataset that is compressed with a plugin that is not there.

    Raises
    ------
    PtychonError
        Naming the filter.
    """
    from h5py import h5z

    plist = node.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        number, _, _, label = plist.get_filter(i)
        if number >= _FIRST_PLUGIN and not h5z.filter_avail(number):
            name = label.decode("utf-8", "replace").split(";")[0] if label else "without a name"
            raise PtychonError(
                f"{node.name} of {path} is compressed with a plugin that is not there (filter "
                f"{number}, {name}); {PLUGINS}"
            )


def check_sources(node: Any, path: PathLike, _depth: int = 0) -> None:
    """Refuse a dataset whose values are in other files, or other datasets, of which some are
    missing.

    Raises
    ------
    PtychonError
        Saying how many of how many are missing, and the first of them.
    """
    sources = _sources(node)
    places = {name: _located(name, path) for name, _ in sources}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        count = len(places)
        which = (
            f"the file {missing[0]}"
            if count == 1
            else f"{len(missing)} of {count} files (first: {missing[0]})"
        )
        one = len(missing) == 1
        raise PtychonError(
            f"{which} that {node.name} of {path} is made of {'is' if one else 'are'} missing; "
            f"put {'it' if one else 'them'} "
            f"where the file says, or beside it"
        )
    for name, dataset in dict.fromkeys(
        [*sources[:1], *sources[-1:]]
    ):  # thousands of files would take long to open
        place = places[name]
        if not dataset or place is None or _depth == _DEEPEST or "%" in name + dataset:
            continue
        with opened(place) as file:
            inner = file.get(dataset)
            if not hasattr(inner, "dtype"):
                raise PtychonError(
                    f"{node.name} of {path} is made of {dataset} of {place}, which is not "
                    "there; copy that file again"
                )
            check_filters(inner, place)
            check_sources(inner, place, _depth + 1)


def _sources(node: Any) -> list[tuple[str, str]]:
    """Names of the files that a dataset is made of, and of the datasets in them (none of raw
    files).
    """
    if node.is_virtual:
        return list(dict.fromkeys((s.file_name, s.dset_name) for s in node.virtual_sources()))
    return list(dict.fromkeys((name, "") for name, _, _ in node.external or ()))


def _located(name: str, path: PathLike) -> Path | None:
    """Where the HDF5 library finds a file that another one names; None if nowhere."""
    if name == ".":
        return Path(path)
    own = Path(path).parent
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(own))
    named = Path(name)
    places = [named] if named.is_absolute() else []
    tail = named.name if named.is_absolute() else name
    places += [Path(prefix) / tail] if prefix else []
    places += [own / tail, Path(tail), Path(os.path.realpath(path)).parent / tail]
    if "%b" in name:  # one file a block of frames, of which there may be any number
        places = [Path(str(place).replace("%b", "0")) for place in places]
    return next((place for place in places if place.is_file()), None)
