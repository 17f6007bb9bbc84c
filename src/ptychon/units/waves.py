"""Wavelengths of photons and electrons from their energies and voltages, and back."""

from __future__ import annotations

import math

from ..types import PtychonError

PLANCK = 6.62607015e-34  #: J s, exact
LIGHT_SPEED = 299792458.0  #: m/s, exact
ELEMENTARY_CHARGE = 1.602176634e-19  #: C, exact
ELECTRON_MASS = 9.1093837139e-31  #: kg, CODATA 2022


def wavelength_of_photons(energy: float) -> float:
    """Wavelength (m) of photons of an energy in joules.

    Raises
    ------
    PtychonError
        Outside 0.1 eV to 10 MeV: no ptychograph works there, so the unit must be wrong.
    """
    if not 0.1 * ELEMENTARY_CHARGE <= energy <= 1e7 * ELEMENTARY_CHARGE:
        raise PtychonError(
            f"photon energy is {energy:g} J ({energy / ELEMENTARY_CHARGE:.3g} eV), outside 0.1 "
            "eV to 10 MeV: "
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
            f"acceleration voltage is {voltage:g} V, outside 10 V to 10 MV: give its unit, for "
            "example --voltage 300kV"
        )
    energy = ELEMENTARY_CHARGE * voltage
    rest = ELECTRON_MASS * LIGHT_SPEED**2
    return PLANCK * LIGHT_SPEED / math.sqrt(energy * (energy + 2 * rest))


def voltage_of_electrons(wavelength: float) -> float:
    """Acceleration voltage (V) of electrons of a wavelength (m), relativistic."""
    rest = ELECTRON_MASS * LIGHT_SPEED**2
    return (math.hypot(rest, PLANCK * LIGHT_SPEED / wavelength) - rest) / ELEMENTARY_CHARGE
