"""Links of an HDF5 file to other files, which may not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..types import PtychonError
from .hdf5 import PathLike

#: Links that are looked at, and how deep groups are nested.
_MOST, _DEEPEST = 10000, 8


def broken(node: Any, path: PathLike) -> list[tuple[str, str]]:
    """External links below a group that lead nowhere: (name of the link, file that is missing or
    lacks the target).

    Parameters
    ----------
    node : open group
    path : path of the file it is in
    """
    import h5py

    found: list[tuple[str, str]] = []
    seen = 0
    groups: list[tuple[Any, int]] = [(node, 0)]
    while groups and seen < _MOST:
        group, depth = groups.pop()
        for name in group:
            seen += 1
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                if group.get(name) is None:
                    found.append((f"{group.name.rstrip('/')}/{name}", str(link.filename)))
            elif (
                depth < _DEEPEST
                and isinstance(link, h5py.HardLink)
                and hasattr(inner := group[name], "keys")
            ):
                groups.append((inner, depth + 1))
    return sorted(found)


def missing_target(links: list[tuple[str, str]], path: PathLike) -> PtychonError:
    """The sentence for links that lead nowhere."""
    name, file = links[0]
    more = f", and {len(links) - 1} more like it" if len(links) > 1 else ""
    here = Path(path).resolve().parent / file
    if here.is_file():
        return PtychonError(
            f"{name} of {path} leads into {file}{more}, which is damaged or lacks that; copy it "
            "again"
        )
    return PtychonError(
        f"{name} of {path} leads to the file {file}{more}, which is missing; put it beside {path}"
    )
