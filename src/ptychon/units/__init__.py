"""Quantities with units: `quantities` as people write them and files state them, `waves` from
energies and voltages to wavelengths.
"""

from __future__ import annotations

from .quantities import (
    SI,
    UNITS,
    Dimension,
    factor_of,
    in_si,
    is_pixel,
    parse,
    parse_pair,
    parse_shape,
    pretty,
    pretty_pair,
    states_nothing,
)
from .waves import (
    ELECTRON_MASS,
    ELEMENTARY_CHARGE,
    LIGHT_SPEED,
    PLANCK,
    energy_of_photons,
    voltage_of_electrons,
    wavelength_of_electrons,
    wavelength_of_photons,
)

__all__ = [
    "ELECTRON_MASS",
    "ELEMENTARY_CHARGE",
    "LIGHT_SPEED",
    "PLANCK",
    "SI",
    "UNITS",
    "Dimension",
    "energy_of_photons",
    "factor_of",
    "in_si",
    "is_pixel",
    "parse",
    "parse_pair",
    "parse_shape",
    "pretty",
    "pretty_pair",
    "states_nothing",
    "voltage_of_electrons",
    "wavelength_of_electrons",
    "wavelength_of_photons",
]
