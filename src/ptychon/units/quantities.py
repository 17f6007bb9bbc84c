"""Quantities as people write them ("3.65mm", "12.66keV", "-126deg") and as files state them (5.5
with "um") to SI and back.

A plain number is taken as SI: metres, joules, volts, radians. Units that people type are case
sensitive (mm is not Mm, meV not MeV); those in files are spelled in many ways ("micron",
"Angstroms", "nm^-1", "KEV"), and `in_si` knows them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import numpy as np

from ..types import FloatArray, PtychonError
from .waves import ELEMENTARY_CHARGE

Dimension: TypeAlias = Literal["length", "energy", "voltage", "angle", "wavenumber"]


UNITS: dict[Dimension, dict[str, float]] = {
    "length": {
        "km": 1e3,
        "m": 1.0,
        "cm": 1e-2,
        "mm": 1e-3,
        "um": 1e-6,
        "μm": 1e-6,
        "micron": 1e-6,
        "nm": 1e-9,
        "A": 1e-10,
        "Å": 1e-10,
        "Angstrom": 1e-10,
        "angstrom": 1e-10,
        "pm": 1e-12,
        "fm": 1e-15,
    },
    "energy": {
        "J": 1.0,
        "eV": ELEMENTARY_CHARGE,
        "keV": 1e3 * ELEMENTARY_CHARGE,
        "MeV": 1e6 * ELEMENTARY_CHARGE,
        "GeV": 1e9 * ELEMENTARY_CHARGE,
        "meV": 1e-3 * ELEMENTARY_CHARGE,
        "fJ": 1e-15,
    },
    "voltage": {"V": 1.0, "kV": 1e3, "MV": 1e6},
    "angle": {
        "rad": 1.0,
        "mrad": 1e-3,
        "urad": 1e-6,
        "μrad": 1e-6,
        "deg": math.pi / 180,
        "°": math.pi / 180,
        "degree": math.pi / 180,
        "degrees": math.pi / 180,
    },
    "wavenumber": {
        "1/m": 1.0,
        "1/mm": 1e3,
        "1/um": 1e6,
        "1/nm": 1e9,
        "1/A": 1e10,
        "1/Å": 1e10,
        "1/pm": 1e12,
    },
}
#: The unit of SI for each dimension.
SI: dict[Dimension, str] = {
    "length": "m",
    "energy": "J",
    "voltage": "V",
    "angle": "rad",
    "wavenumber": "1/m",
}
_EXAMPLE = {
    "length": "3.65mm",
    "energy": "12.66keV",
    "voltage": "300kV",
    "angle": "-126deg",
    "wavenumber": "0.1 1/nm",
}
_SHOWN: dict[Dimension, tuple[str, ...]] = {
    "length": ("m", "mm", "um", "nm", "pm"),
    "energy": ("MeV", "keV", "eV"),
    "voltage": ("MV", "kV", "V"),
    "angle": ("rad", "mrad", "urad"),
    "wavenumber": ("1/pm", "1/nm", "1/um", "1/m"),
}
#: Units written out, without a prefix and in the singular.
_WORDS: dict[Dimension, dict[str, float]] = {
    "length": {
        "meter": 1.0,
        "metre": 1.0,
        "micron": 1e-6,
        "angstrom": 1e-10,
        "ångström": 1e-10,
        "ångstrom": 1e-10,
    },
    "energy": {"joule": 1.0, "electronvolt": ELEMENTARY_CHARGE},
    "voltage": {"volt": 1.0},
    "angle": {"radian": 1.0, "degree": math.pi / 180},
}
_PREFIXES = {
    "": 1.0,
    "giga": 1e9,
    "mega": 1e6,
    "kilo": 1e3,
    "centi": 1e-2,
    "milli": 1e-3,
    "micro": 1e-6,
    "nano": 1e-9,
    "pico": 1e-12,
    "femto": 1e-15,
}
_PIXELS = ("px", "pix", "pixel", "pixels")
#: What stands in the place of a unit where none is stated.
_NOTHING = (
    "",
    "-",
    "none",
    "null",
    "n/a",
    "unknown",
    "undefined",
    "<undefined>",
    "a.u.",
    "au",
    "arbitrary",
    "dimensionless",
)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)")


def parse(value: str | float, dimension: Dimension, name: str = "") -> float:
    """A quantity in SI.

    Parameters
    ----------
    value : str or float
        ``"3.65mm"``, ``"3.65 mm"``, ``"3.65e-3"`` or ``3.65e-3``.
    dimension : {"length", "energy", "voltage", "angle"}
    name : str
        What the quantity is, for the message.

    Returns
    -------
    float
        Metres, joules, volts or radians.

    Raises
    ------
    PtychonError
        If the text is not a number with a known unit of this dimension, or not finite.

    Examples
    --------
    >>> parse("31.25A", "length")
    3.125e-09
    >>> parse("300 kV", "voltage")
    300000.0
    """
    what = f"{name} is {value!r}" if name else f"{value!r}"
    if isinstance(value, bool) or not isinstance(value, str):
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise PtychonError(
                f"{what}: a finite {dimension} is needed, for example {_EXAMPLE[dimension]}"
            )
        return number
    match = _NUMBER.fullmatch(unicodedata.normalize("NFKC", value).strip())
    if match is None:
        raise PtychonError(
            f"{what}: a number with a unit is needed, for example {_EXAMPLE[dimension]}"
        )
    digits, unit = match.groups()
    factor = 1.0 if not unit else UNITS[dimension].get(unit)
    if factor is None:
        raise PtychonError(
            f"{what}: {unit!r} is not a unit of {dimension}; {_advice(unit, dimension)}"
        )
    number = _scaled(digits, factor)
    if not math.isfinite(number):
        raise PtychonError(
            f"{what}: a finite {dimension} is needed, for example {_EXAMPLE[dimension]}"
        )
    return number


def _scaled(digits: str, factor: float) -> float:
    """Number times factor; 31.25 * 1e-10 has a rounding error that 31.25e-10 has not, so decimal
    factors go into the text.
    """
    if _decimal(factor) and "e" not in digits.lower():
        return float(f"{digits}e{round(math.log10(factor))}")
    return float(digits) * factor


def _plain(unit: str) -> str:
    """A unit in one spelling: without brackets and blanks, micro as u, minus and
    powers as ASCII.
    """
    text = unicodedata.normalize("NFKC", unit).strip().strip("[](){}").strip()
    text = (
        text.replace("μ", "u").replace("\u2212", "-").replace("Å", "A") if len(text) <= 8 else text
    )
    return " ".join(text.split())


def states_nothing(unit: str) -> bool:
    """Whether what stands in the place of a unit states none: empty, ``None``, ``<undefined>``."""
    return _plain(unit).lower() in _NOTHING or unit.strip().lower() in _NOTHING


def is_pixel(unit: str) -> bool:
    """Whether a unit means pixels."""
    return _plain(unit).lower() in _PIXELS


def factor_of(unit: str, dimension: Dimension) -> float | None:
    """The number of SI units in a unit as files spell it; None if it is not known as one of this
    dimension.

    Examples
    --------
    >>> factor_of("Microns", "length"), factor_of("nm^-1", "wavenumber")
    (1e-06, 1000000000.0)
    """
    text = _plain(unit)
    if dimension == "wavenumber":
        match = re.fullmatch(r"1? ?/ ?(\S+)|(\S+?) ?\^? ?\{?-1\}?", text)
        length = None if match is None else factor_of(match.group(1) or match.group(2), "length")
        # 1e-9 has no exact inverse, 1e9 is meant
        return None if length is None else float(f"{1 / length:.12g}")
    exact = UNITS[dimension].get(text)
    if exact is not None:
        return exact
    word = re.sub(r"[ _-]|s$", "", text.lower())
    for stem, size in _WORDS.get(dimension, {}).items():
        prefix = word.removesuffix(stem)
        if word.endswith(stem) and prefix in _PREFIXES:
            return _PREFIXES[prefix] * size
    # upper and lower case where that leaves no doubt: KEV, Kev, but not mev, and no single letters
    alike = {f for known, f in UNITS[dimension].items() if known.lower() == text.lower()}
    return alike.pop() if len(alike) == 1 and len(text) > 1 else None


def in_si(value: Any, unit: str, dimension: Dimension, name: str = "") -> Any:
    """A number or an array that a file states in a unit, in SI. The only place where units of files
    are applied.

    Parameters
    ----------
    value : number or array of real numbers
        A float32 number is taken as the shortest decimal it stands for, 5.5e-05 rather than
        5.4999999702e-05.
    unit : str
        As the file spells it; where it states none the value is taken as SI.
    dimension : {"length", "energy", "voltage", "angle", "wavenumber"}
    name : str
        What the quantity is, for the message.

    Returns
    -------
    float, or float64 array of the shape of `value`

    Raises
    ------
    PtychonError
        If the unit is none of this dimension, or the value is not real.

    Examples
    --------
    >>> in_si(5.5, "Micron", "length"), in_si([1, 2], "mm", "length").tolist()
    (5.5e-06, [0.001, 0.002])
    """
    what = f"{name} is" if name else "it is"
    array = np.asarray(value)
    if array.dtype.kind not in "uif":
        raise PtychonError(f"{what} of type {array.dtype}; a real {dimension} is needed")
    factor = 1.0 if states_nothing(unit) else factor_of(unit, dimension)
    if factor is None:
        raise PtychonError(
            f"{what} in {unit!r}, which is not a unit of {dimension}; {_advice(unit, dimension)}"
        )
    if array.ndim:
        numbers: FloatArray = array.astype(np.float64)
        small = factor < 1 and _decimal(factor)
        return numbers / float(f"1e{-round(math.log10(factor))}") if small else numbers * factor
    text = str(array[()])
    return _scaled(text, factor) if math.isfinite(float(text)) else float(text)


def _decimal(factor: float) -> bool:
    """Whether a factor is a power of ten."""
    exponent = math.log10(factor)
    return abs(exponent - round(exponent)) < 1e-12


def _advice(unit: str, dimension: Dimension) -> str:
    folded = {known.lower(): known for known in UNITS[dimension]}
    near = get_close_matches(unit.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]}?"
    return f"use one of {', '.join(k for k in UNITS[dimension] if k.isascii())}"


def parse_pair(value: Any, dimension: Dimension, name: str = "") -> float | tuple[float, float]:
    """One quantity, or two for (y, x): ``"178.7nm"``, ``"178nm,180nm"``, a number or a pair of
    numbers.
    """
    parts = (
        value.split(",")
        if isinstance(value, str)
        else value
        if isinstance(value, (tuple, list))
        else [value]
    )
    if len(parts) not in (1, 2):
        raise PtychonError(
            f"{name or 'value'} is {value!r}: give one {dimension}, or two (y,x) with a comma"
        )
    numbers = [parse(part, dimension, name) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_shape(value: Any, name: str = "shape") -> tuple[int, int]:
    """(rows, columns) from ``"40x60"``, ``"40,60"`` or a pair of whole numbers."""
    parts = re.split(r"\s*[x×,]\s*", value.strip()) if isinstance(value, str) else value
    try:
        rows, columns = (
            int(part) if isinstance(part, str) else int(part.__index__()) for part in parts
        )
    except (TypeError, ValueError, AttributeError):
        raise PtychonError(f"{name} is {value!r}: give rows x columns, for example 40x60") from None
    if rows < 1 or columns < 1:
        raise PtychonError(f"{name} is {rows}x{columns}: both must be at least 1")
    return rows, columns


def pretty(value: float, dimension: Dimension, digits: int = 4) -> str:
    """A quantity for people: ``pretty(1.7866e-7, "length") == "178.7 nm"``."""
    factors = UNITS[dimension]
    for unit in _SHOWN[dimension]:
        if abs(value) >= 0.9999 * factors[unit]:
            return f"{value / factors[unit]:.{digits}g} {unit}"
    return (
        f"{value:.{digits}g} {SI[dimension]}"
        if value == 0
        else f"{value / factors[unit]:.{digits}g} {unit}"
    )


def pretty_pair(size: tuple[float, float] | float | None) -> str:
    """The size of a pixel (m) for people: one length where it is square."""
    if size is None:
        return "of unknown size"
    dy, dx = np.broadcast_to(size, (2,)).tolist()
    return pretty(dy, "length") + ("" if np.isclose(dy, dx) else f" x {pretty(dx, 'length')}")
