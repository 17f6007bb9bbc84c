"""Quantities as people write them ("3.65mm", "12.66keV", "-126deg") to SI and back.

A plain number is taken as SI: metres, joules, volts, radians. Units are case sensitive (mm is not Mm, meV not MeV).
"""

from __future__ import annotations

import math
import re
import unicodedata
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from .types import PtychonError

Dimension: TypeAlias = Literal["length", "energy", "voltage", "angle"]

PLANCK = 6.62607015e-34  #: J s, exact
LIGHT_SPEED = 299792458.0  #: m/s, exact
ELEMENTARY_CHARGE = 1.602176634e-19  #: C, exact
ELECTRON_MASS = 9.1093837139e-31  #: kg, CODATA 2022

UNITS: dict[Dimension, dict[str, float]] = {
    "length": {
        "km": 1e3, "m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "μm": 1e-6, "micron": 1e-6, "nm": 1e-9,
        "A": 1e-10, "Å": 1e-10, "Angstrom": 1e-10, "angstrom": 1e-10, "pm": 1e-12, "fm": 1e-15,
    },
    "energy": {
        "J": 1.0, "eV": ELEMENTARY_CHARGE, "keV": 1e3 * ELEMENTARY_CHARGE, "MeV": 1e6 * ELEMENTARY_CHARGE,
        "GeV": 1e9 * ELEMENTARY_CHARGE, "meV": 1e-3 * ELEMENTARY_CHARGE, "fJ": 1e-15,
    },
    "voltage": {"V": 1.0, "kV": 1e3, "MV": 1e6},
    "angle": {
        "rad": 1.0, "mrad": 1e-3, "urad": 1e-6, "μrad": 1e-6, "deg": math.pi / 180, "°": math.pi / 180,
        "degree": math.pi / 180, "degrees": math.pi / 180,
    },
}  # fmt: skip
_SI = {"length": "m", "energy": "J", "voltage": "V", "angle": "rad"}
_EXAMPLE = {"length": "3.65mm", "energy": "12.66keV", "voltage": "300kV", "angle": "-126deg"}
_SHOWN: dict[Dimension, tuple[str, ...]] = {
    "length": ("m", "mm", "um", "nm", "pm"),
    "energy": ("MeV", "keV", "eV"),
    "voltage": ("MV", "kV", "V"),
    "angle": ("rad", "mrad", "urad"),
}
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
            raise PtychonError(f"{what}: a finite {dimension} is needed, for example {_EXAMPLE[dimension]}")
        return number
    match = _NUMBER.fullmatch(unicodedata.normalize("NFKC", value).strip())
    if match is None:
        raise PtychonError(f"{what}: a number with a unit is needed, for example {_EXAMPLE[dimension]}")
    digits, unit = match.groups()
    factor = 1.0 if not unit else UNITS[dimension].get(unit)
    if factor is None:
        raise PtychonError(f"{what}: {unit!r} is not a unit of {dimension}; {_advice(unit, dimension)}")
    # 31.25 * 1e-10 has a rounding error that 31.25e-10 has not; decimal prefixes can be written into the text
    exponent = math.log10(factor)
    decimal = abs(exponent - round(exponent)) < 1e-12 and "e" not in digits.lower()
    number = float(f"{digits}e{round(exponent)}") if decimal else float(digits) * factor
    if not math.isfinite(number):
        raise PtychonError(f"{what}: a finite {dimension} is needed, for example {_EXAMPLE[dimension]}")
    return number


def _advice(unit: str, dimension: Dimension) -> str:
    folded = {known.lower(): known for known in UNITS[dimension]}
    near = get_close_matches(unit.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]}?"
    return f"use one of {', '.join(k for k in UNITS[dimension] if k.isascii())}"


def parse_pair(value: Any, dimension: Dimension, name: str = "") -> float | tuple[float, float]:
    """One quantity, or two for (y, x): ``"178.7nm"``, ``"178nm,180nm"``, a number or a pair of numbers."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (tuple, list)) else [value]
    if len(parts) not in (1, 2):
        raise PtychonError(f"{name or 'value'} is {value!r}: give one {dimension}, or two (y,x) with a comma")
    numbers = [parse(part, dimension, name) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_shape(value: Any, name: str = "shape") -> tuple[int, int]:
    """(rows, columns) from ``"40x60"``, ``"40,60"`` or a pair of whole numbers."""
    parts = re.split(r"\s*[x×,]\s*", value.strip()) if isinstance(value, str) else value
    try:
        rows, columns = (int(part) if isinstance(part, str) else int(part.__index__()) for part in parts)
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
    return f"{value:.{digits}g} {_SI[dimension]}" if value == 0 else f"{value / factors[unit]:.{digits}g} {unit}"


def wavelength_of_photons(energy: float) -> float:
    """Wavelength (m) of photons of an energy in joules.

    Raises
    ------
    PtychonError
        Outside 0.1 eV to 10 MeV: no ptychograph works there, so the unit must be wrong.
    """
    if not 0.1 * ELEMENTARY_CHARGE <= energy <= 1e7 * ELEMENTARY_CHARGE:
        raise PtychonError(
            f"photon energy is {energy:g} J ({energy / ELEMENTARY_CHARGE:.3g} eV), outside 0.1 eV to 10 MeV: "
            f"the unit must be wrong; give --energy with its unit, for example --energy 12.66keV"
        )
    return PLANCK * LIGHT_SPEED / energy


def energy_of_photons(wavelength: float) -> float:
    """Energy (J) of photons of a wavelength in m."""
    return PLANCK * LIGHT_SPEED / wavelength


def wavelength_of_electrons(voltage: float) -> float:
    """Relativistic wavelength (m) of electrons accelerated by a voltage in volts.

    Raises
    ------
    PtychonError
        Outside 10 V to 10 MV: the unit must be wrong.
    """
    if not 10 <= voltage <= 1e7:
        raise PtychonError(
            f"acceleration voltage is {voltage:g} V, outside 10 V to 10 MV: give its unit, for example --voltage 300kV"
        )
    energy = ELEMENTARY_CHARGE * voltage
    rest = ELECTRON_MASS * LIGHT_SPEED**2
    return PLANCK * LIGHT_SPEED / math.sqrt(energy * (energy + 2 * rest))
