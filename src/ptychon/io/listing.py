"""What arrays in a file might be, where it cannot be told: for messages, with the flags that would
use them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .hdf5 import PathLike

Arrays = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

#: Words in the names of frames, and of positions.
_FRAMES = re.compile(
    r"data|dp|diff|frame|pattern|intens|image|eiger|pilatus|merlin|detector|cube|4d", re.IGNORECASE
)
_POSITIONS = re.compile(r"pos|scan|coord|xy|yx|transl|encoder|motor|probe_?loc", re.IGNORECASE)
#: Arrays that are listed, of each kind.
_LISTED = 4


def stacks_in(arrays: Arrays) -> list[str]:
    """Names of what may be frames, the most plausible first: as many as there are positions, by
    name, by size.
    """
    lengths = {max(shape) for shape, dtype in arrays.values() if _table(shape, dtype)}

    def rank(name: str) -> tuple[bool, bool, int]:
        shape = arrays[name][0]
        return math.prod(shape[:-2]) in lengths, bool(_FRAMES.search(name)), math.prod(shape)

    found = [name for name, (shape, dtype) in arrays.items() if is_stack(shape, dtype)]
    return sorted(found, key=rank, reverse=True)


def tables_in(arrays: Arrays, frames: int | None = None) -> list[str]:
    """Names of what may be positions, the most plausible first: as many as there are frames, by
    name.

    Parameters
    ----------
    arrays : mapping of names to shapes and dtypes
    frames : int, optional
        How many there are; tables of other lengths are then left out.
    """
    found = [
        name
        for name, (shape, dtype) in arrays.items()
        if _table(shape, dtype) and frames in (None, max(shape))
    ]
    return sorted(
        found, key=lambda name: (bool(_POSITIONS.search(name)), max(arrays[name][0])), reverse=True
    )


def is_stack(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array may hold frames, (frames, rows, columns) or (slow, fast, rows, columns)."""
    return len(shape) in (3, 4) and dtype.kind in "uifb" and min(shape[-2:]) >= 4


def _table(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(shape) == 2 and dtype.kind in "uif" and min(shape) == 2 and max(shape) > 2


def named(arrays: Arrays, names: list[str], flag: str = "") -> str:
    """Names with shapes and dtypes, and with the flag that would use each; as many as a person
    reads.
    """
    said = [
        f"{flag} {name} {arrays[name][0]} {arrays[name][1]}".strip() for name in names[:_LISTED]
    ]
    return ", ".join(said) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def said(arrays: Arrays) -> str:
    """What there is and which flags would use it, in one sentence without an end."""
    stacks, tables = stacks_in(arrays), tables_in(arrays)
    others = sorted(
        set(arrays) - set(stacks) - set(tables), key=lambda name: -math.prod(arrays[name][0])
    )
    parts = []
    if stacks:
        parts.append(f"frames may be {named(arrays, stacks, '--data-path')}")
    if tables:
        parts.append(f"positions may be {named(arrays, tables, '--positions-path')}")
    if others:
        parts.append(("it also holds " if parts else "it holds ") + named(arrays, others))
    return "; ".join(parts) or "it holds no arrays"


def alone(shape: tuple[int, ...]) -> str:
    """What to do with an array that is no stack: a remedy that follows on what is wrong; perhaps
    empty.
    """
    if len(shape) == 2 and min(shape) == 2:
        return (
            "; if these are positions, name the file with the frames, and this one with "
            "--positions-path"
        )
    if len(shape) == 2:
        return "; where each frame has a file of its own, name their folder"
    return ""


def said_of_text(path: PathLike) -> str:
    """What a text file of numbers might be; empty for any other file."""
    if os.path.getsize(path) > 2**26:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""
    rows = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    widths = set()
    for row in rows[1:]:  # the first may be names of columns
        words = [word for word in re.split(r"[\s,;]+", row.strip()) if word]
        try:
            widths.add(len([float(word) for word in words]))
        except ValueError:
            return ""
    if len(widths) != 1 or len(rows) < 3:
        return ""
    return (
        f"{path} is a table of {len(rows)} lines and {widths.pop()} columns, not of frames; if "
        "it holds their positions, name "
        f"the file with the frames, and this one with --positions-path"
    )
