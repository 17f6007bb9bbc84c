"""Tables of positions as text or .npy: which column is which, and in what unit, as the names of the
columns say.

Names as instruments and people write them are understood: ``y,x``; ``x_um,y_um``;
``# x [m]  y [m]``; ``index;pos_y (nm); pos_x (nm)``; ``ppY ppX``; ``row,column``; a second line of
units; ``# unit: um``. Without names the columns are y, then x.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import NO_ARRAY, FloatArray, PtychonError
from ..units import factor_of, in_si, is_pixel, states_nothing

_ROWS, _COLUMNS = ("y", "row", "rows"), ("x", "col", "cols", "column", "columns")
_AXIS = re.compile(
    r"(?:p|pp|pos|position|positions|sam|sample|stage|probe|scan|piezo|enc|encoder|coord|motor)*(x|y)"
    r"(?:pos|position|positions|coord|coordinate|encoder|stage|motor)?s?"
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Positions of a table.

    Attributes
    ----------
    positions : (N, 2) float64
        Rows and columns (y, x), in `unit`.
    unit : str
        As the table spells it, empty where it states none.
    how : str
        Which columns were taken and why, for people.
    """

    positions: FloatArray
    unit: str
    how: str


def axis_of(name: str) -> tuple[str, str] | None:
    """Axis and unit that the name of a column or of an array states; None if it names no axis.

    Examples
    --------
    >>> axis_of("pos_x (um)"), axis_of("y_m"), axis_of("row"), axis_of("index")
    (('x', 'um'), ('y', 'm'), ('y', ''), None)
    """
    stem, unit = _split(name)
    words = [
        w for w in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower()) if w
    ]
    found = {"y" for w in words if w in _ROWS} | {"x" for w in words if w in _COLUMNS}
    if not found and (match := _AXIS.fullmatch("".join(words))):
        found = {match.group(1)}
    return (found.pop(), unit) if len(found) == 1 else None


def _split(name: str) -> tuple[str, str]:
    """A name without its unit, and the unit: in brackets, or behind the last underline, blank or
    slash.
    """
    match = re.fullmatch(r"(.*?)\s*[\[({]\s*(.*?)\s*[\])}]\s*", name)
    if match is not None:
        return match.group(1), "" if states_nothing(match.group(2)) else match.group(2)
    match = re.fullmatch(r"(.+)[_ /.-]+([^_ /.-]+)", name.strip())
    if match is not None and (
        is_pixel(match.group(2)) or factor_of(match.group(2), "length") is not None
    ):
        return match.group(1), match.group(2)
    return name, ""


def read_table(path: str | Path, columns: Sequence[int | str] | None = None) -> Table:
    """Positions from a text or .npy file.

    Parameters
    ----------
    path : path of the file
    columns : (row column, column column), optional
        Names, or numbers that count from 0.

    Raises
    ------
    PtychonError
        A file that cannot be read, text that is not numbers, columns that cannot be told apart, or
        values that are not finite.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            values, names = _from_array(np.load(path, allow_pickle=False), path)
            units, default = [""] * len(names), ""
        else:
            values, names, units, default = _from_text(path.read_text(encoding="utf-8-sig"), path)
    except PtychonError:
        raise
    except NO_ARRAY as error:  # UnicodeDecodeError is a ValueError
        reason = (
            error.strerror if isinstance(error, OSError) else None
        ) or "not a table of numbers"
        raise PtychonError(f"cannot read positions from {path}: {reason}") from None
    return choose(values, names, units, str(path), columns, default)


def choose(
    values: FloatArray,
    names: Sequence[str],
    units: Sequence[str],
    source: str,
    columns: Sequence[int | str] | None = None,
    default: str = "",
) -> Table:
    """The two columns (N, 2) of a table (N, M) that hold the positions.

    Parameters
    ----------
    values : (N, M) float
    names : M names, or none
    units : M units that stand apart from the names, or none
    source : str
        For messages.
    columns : names or numbers of the columns with y and x, optional
    default : str
        Unit of columns that state none.
    """
    if values.ndim != 2 or values.shape[1] < 2:
        raise PtychonError(f"{source} has shape {values.shape}; positions are (N, 2), y then x")
    width = values.shape[1]
    axes = [axis_of(name) for name in names] if len(names) == width else [None] * width
    if columns is not None:
        which = [_column(c, names, width, source) for c in columns]
        how = "columns as given"
    else:
        which, how = _by_name(axes, names, width, source)
    header_units = [_split(name)[1] for name in names] if len(names) == width else [""] * width
    axis_units = [axis[1] if axis else unit for axis, unit in zip(axes, header_units, strict=True)]
    stated = [axis_units[k] for k in which]
    stated = [
        unit or (units[k] if len(units) == width else "") or default
        for unit, k in zip(stated, which, strict=True)
    ]
    positions = _finite(values[:, which], source)
    if stated[0] != stated[1]:
        if not all(stated):
            raise PtychonError(
                f"{source} states the unit {stated[0] or stated[1]!r} for one of y and x, none "
                "for the other; name it for both"
            )
        pairs = zip(positions.T, stated, ("y", "x"), strict=True)
        positions = np.column_stack(
            [in_si(p, unit, "length", f"{axis} of {source}") for p, unit, axis in pairs]
        )
        stated = ["m", "m"]
    return Table(positions=positions, unit=stated[0], how=how)


def _by_name(
    axes: Sequence[tuple[str, str] | None], names: Sequence[str], width: int, source: str
) -> tuple[list[int], str]:
    found = {
        axis: [k for k, a in enumerate(axes) if a is not None and a[0] == axis] for axis in "yx"
    }
    for axis, alike in (("y", _ROWS), ("x", _COLUMNS)):
        if len(found[axis]) > 1:  # x before x_error and x_set
            plain = [k for k in found[axis] if _split(names[k])[0].strip().lower() in alike]
            found[axis] = plain if len(plain) == 1 else found[axis]
    if all(len(found[axis]) == 1 for axis in "yx"):
        return [
            found["y"][0],
            found["x"][0],
        ], f"columns {names[found['y'][0]]}, {names[found['x'][0]]}"
    listed = ", ".join(names) if len(names) == width else f"no names, numbered 0 to {width - 1}"
    if width > 2 or (
        any(found.values()) and len(names) == width and any(len(found[a]) > 1 for a in "yx")
    ):
        raise PtychonError(
            f"{source} has {width} columns ({listed}) of which it cannot be told which are y "
            "and x; say which with "
            f"--positions-path {source}:Y,X, names or numbers from 0 (in Python: columns)"
        )
    called = "no names" if len(names) != width else f"the names {', '.join(names)} say no more"
    return (
        [0, 1],
        f"guess: first column y, second x, for there are {called}"
        if not names
        else f"guess: y then x; {called}",
    )


def _column(column: int | str, names: Sequence[str], width: int, source: str) -> int:
    if isinstance(column, str) and not re.fullmatch(r"-?\d+", column.strip()):
        wanted = column.strip().lower()
        alike = [
            k
            for k, name in enumerate(names)
            if wanted in (name.strip().lower(), _split(name)[0].strip().lower())
        ]
        if len(alike) != 1:
            raise PtychonError(
                f"{source} has no column {column!r}; its columns are "
                f"{', '.join(names) or 'without names'}"
            )
        return alike[0]
    number = int(column)
    if not -width <= number < width:
        raise PtychonError(
            f"column {number} of {source}, which has {width} columns; they count from 0 to "
            f"{width - 1}"
        )
    return number % width


def _from_array(array: Any, path: Path) -> tuple[FloatArray, list[str]]:
    names = list(array.dtype.names or ())
    if names and all(array.dtype[name].kind in "uif" for name in names):
        return np.column_stack(
            [np.asarray(array[name], np.float64).reshape(-1) for name in names]
        ), names
    if array.dtype.kind not in "uif":
        raise PtychonError(f"{path} holds {array.dtype}; positions must be real numbers")
    return np.asarray(array, np.float64), []


def _from_text(text: str, path: Path) -> tuple[FloatArray, list[str], list[str], str]:
    """Numbers, names and units of the columns, and a unit that is stated for the
    table as a whole.
    """
    rows: list[list[float]] = []
    heads: list[str] = []
    remarks: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        body, mark, remark = line.partition("#")
        words = re.split(r"\s*[,;]\s*|\s+", body.strip())
        if mark and not rows:
            remarks.append(remark.strip())
        if words == [""]:
            continue
        try:
            rows.append([float(w) for w in words])
        except ValueError:
            if rows or len(heads) == 2:
                raise PtychonError(
                    f"line {number} of {path} is not numbers: {line.strip()[:40]!r}"
                ) from None
            heads.append(body.strip())
        if rows and len(rows[-1]) != len(rows[0]):
            raise PtychonError(
                f"line {number} of {path} has {len(rows[-1])} columns, earlier ones "
                f"{len(rows[0])}; even them"
            )
    if not rows:
        raise PtychonError(f"{path} holds no positions; give one a line, y then x")
    width = len(rows[0])
    fitting = [
        names for line in (*heads[:1], *reversed(remarks)) if len(names := _names(line)) == width
    ]
    names = next(
        (n for n in fitting if any(axis_of(name) for name in n)), _names(heads[0]) if heads else []
    )
    second = _names(heads[1]) if len(heads) == 2 else []
    if len(heads) == 2 and not (len(second) == width and all(_is_unit(word) for word in second)):
        raise PtychonError(
            f"{path} begins with two lines that are not numbers, {heads[1][:40]!r} the second; "
            "leave one"
        )
    whole = next(
        (
            m.group(1)
            for line in remarks
            if (m := re.search(r"\bunits?\s*[:=]\s*(\S+)", line, re.IGNORECASE))
        ),
        "",
    )
    return (
        np.array(rows, np.float64),
        names,
        [_split(f"_ [{word.strip('[](){}')}]")[1] for word in second],
        whole,
    )


def _is_unit(word: str) -> bool:
    return states_nothing(word) or is_pixel(word) or factor_of(word, "length") is not None


def _names(line: str) -> list[str]:
    """Names of columns in a line; a unit in brackets belongs to the name before it."""
    glued = re.sub(r"\s*([\[(])\s*([^\])]*?)\s*([\])])", r" \1\2\3", line.strip())
    if re.search(r"[,;\t]", glued):
        return [name.strip().strip("\"'") for name in re.split(r"[,;\t]", glued)]
    joined = re.sub(r"\s+(?=[\[(])", "\0", glued)
    return [name.replace("\0", " ").strip("\"'") for name in joined.split()]


def _finite(positions: FloatArray, source: str) -> FloatArray:
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise PtychonError(
            f"{bad.size} of {len(positions)} positions of {source} are not finite (first: "
            f"{bad[0]}); drop them"
        )
    return np.array(positions, np.float64)


#: Places up to which all pairs are looked at.
_FEW = 1500


def step_of(positions: FloatArray, most: int = 20000) -> float:
    """Median distance from a position to the nearest one at another place, 0 if there is none.

    Parameters
    ----------
    positions : (N, 2) float
    most : int
        Positions whose neighbours are looked for, where there are more.

    Returns
    -------
    float
        In the units of the positions.
    """
    places = np.unique(np.asarray(positions, np.float64), axis=0)
    if len(places) < 2:
        return 0.0
    return float(np.median(nearest(places, most)))


def nearest(places: FloatArray, most: int = 20000) -> FloatArray:
    """Distance from each of some places (N, 2), all different, to the one nearest to it, (N,) or,
    of every so many, fewer than `most` + 1.
    """
    some = places[:: -(-len(places) // most)]
    if len(places) > _FEW:
        from scipy.spatial import cKDTree

        return np.asarray(cKDTree(places).query(some, k=2)[0][:, 1])
    # without the import of scipy.spatial, which takes longer than this
    y, x = (np.subtract.outer(some[:, axis], places[:, axis]) for axis in (0, 1))
    return np.asarray(np.sqrt(np.partition(y * y + x * x, 1, axis=1)[:, 1]))
