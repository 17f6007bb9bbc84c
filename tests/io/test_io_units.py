"""Quantities with units."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychon.types import PtychonError
from ptychon.units import (
    UNITS,
    energy_of_photons,
    factor_of,
    in_si,
    is_pixel,
    parse,
    parse_pair,
    parse_shape,
    pretty,
    states_nothing,
    wavelength_of_electrons,
    wavelength_of_photons,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("3.65mm", "length", 3.65e-3),
        ("9.3A", "length", 9.3e-10),
        ("9.3 Å", "length", 9.3e-10),
        ("13.5um", "length", 13.5e-6),
        ("13.5µm", "length", 13.5e-6),  # micro sign
        ("13.5μm", "length", 13.5e-6),  # Greek mu
        ("1.12", "length", 1.12),
        ("1e-3 mm", "length", 1e-6),
        (".5m", "length", 0.5),
        ("300kV", "voltage", 3e5),
        ("1.03mrad", "angle", 1.03e-3),
        ("-126deg", "angle", math.radians(-126)),
        ("12.66keV", "energy", 12.66e3 * 1.602176634e-19),
        ("5eV", "energy", 5 * 1.602176634e-19),
        (2.5, "length", 2.5),
    ],
)
def test_parse(text, dimension, value):
    assert parse(text, dimension) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "dimension", "part"),
    [
        ("3kev", "energy", "did you mean keV"),
        ("3px", "length", "not a unit of length"),
        ("x", "angle", "for example -126deg"),
        ("", "length", "a number with a unit"),
        ("1,5mm", "length", "not a unit"),
        ("nan", "length", "a number with a unit"),
        ("1e999", "length", "finite"),
        (True, "length", "finite"),
        (math.nan, "length", "finite"),
        (None, "length", "finite"),
        ("3mm3", "length", "not a unit"),
    ],
)
def test_parse_refuses(text, dimension, part):
    with pytest.raises(PtychonError, match=part):
        parse(text, dimension)


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(sorted(UNITS["length"])),
)
def test_any_number_with_any_unit(number, unit):
    assert parse(f"{number!r}{unit}", "length") == pytest.approx(
        number * UNITS["length"][unit], rel=1e-12, abs=1e-300
    )


@given(st.text(max_size=12), st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_number_or_a_clear_error(text, dimension):
    with contextlib.suppress(PtychonError):
        assert math.isfinite(parse(text, dimension))


def test_pairs_and_shapes():
    assert parse_pair("1nm,2nm", "length") == (1e-9, 2e-9)
    assert parse_pair("1nm", "length") == 1e-9
    assert parse_pair((1e-9, "2nm"), "length") == (1e-9, 2e-9)
    assert parse_shape("40x60") == parse_shape("40,60") == parse_shape((40, 60)) == (40, 60)
    for bad in ("40", "40x", "40x60x3", "0x3", "-1x3", "axb", 40, (1.5, 2)):
        with pytest.raises(PtychonError):
            parse_shape(bad)
    with pytest.raises(PtychonError):
        parse_pair("1nm,2nm,3nm", "length")


def test_wavelengths():
    assert wavelength_of_electrons(300e3) == pytest.approx(1.96875e-12, rel=1e-5)
    assert wavelength_of_photons(parse("12.39842keV", "energy")) == pytest.approx(1e-10, rel=1e-6)
    assert energy_of_photons(wavelength_of_photons(2e-15)) == pytest.approx(2e-15)
    with pytest.raises(PtychonError, match="--energy"):
        wavelength_of_photons(12.66)
    with pytest.raises(PtychonError, match="--voltage"):
        wavelength_of_electrons(0.3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.7866e-7, "178.7 nm"), (1.12, "1.12 m"), (1e-3, "1 mm"), (2e-13, "0.2 pm"), (0, "0 m")],
)
def test_pretty(value, text):
    assert pretty(value, "length") == text


#: Units as files spell them, and what they are in SI, written out here once more.
SPELLED = {
    "length": {
        "m": 1.0,
        "meter": 1.0,
        "metres": 1.0,
        "mm": 1e-3,
        "Millimeter": 1e-3,
        "um": 1e-6,
        "UM": 1e-6,
        "µm": 1e-6,
        "μm": 1e-6,
        "micron": 1e-6,
        "Microns": 1e-6,
        "micro meters": 1e-6,
        "[um]": 1e-6,
        "(nm)": 1e-9,
        "nanometers": 1e-9,
        "NM": 1e-9,
        "A": 1e-10,
        "Å": 1e-10,
        "\u212b": 1e-10,
        "A\u030a": 1e-10,
        "Angstrom": 1e-10,
        "ANGSTROMS": 1e-10,
        "pm": 1e-12,
    },
    "energy": {
        "J": 1.0,
        "joule": 1.0,
        "eV": 1.602176634e-19,
        "ev": 1.602176634e-19,
        "keV": 1.602176634e-16,
        "KEV": 1.602176634e-16,
        "kiloelectronvolts": 1.602176634e-16,
        "electron volt": 1.602176634e-19,
        "MeV": 1.602176634e-13,
    },
    "voltage": {"V": 1.0, "volts": 1.0, "kV": 1e3, "KV": 1e3, "kilovolt": 1e3},
    "angle": {
        "rad": 1.0,
        "radians": 1.0,
        "mrad": 1e-3,
        "milliradians": 1e-3,
        "MRAD": 1e-3,
        "deg": math.pi / 180,
        "°": math.pi / 180,
        "Degrees": math.pi / 180,
    },
    "wavenumber": {
        "1/nm": 1e9,
        "nm^-1": 1e9,
        "nm-1": 1e9,
        "nm⁻¹": 1e9,
        "1 / nm": 1e9,
        "1/A": 1e10,
        "A^-1": 1e10,
        "1/Å": 1e10,
        "Angstrom^-1": 1e10,
        "A^{-1}": 1e10,
        "1/m": 1.0,
        "/um": 1e6,
    },
}
_SPELLINGS = [
    (dimension, unit, factor)
    for dimension, units in SPELLED.items()
    for unit, factor in units.items()
]


@given(
    st.sampled_from(_SPELLINGS),
    st.floats(1e-9, 1e9),
    st.sampled_from(["number", "float32", "list", "array"]),
    st.sampled_from(["", " "]),
)
def test_any_unit_as_files_spell_it_gives_si(spelling, number, shape, blank):
    dimension, unit, factor = spelling
    value = {
        "number": number,
        "float32": np.float32(number),
        "list": [number, 2 * number],
        "array": np.full((2, 3), number),
    }[shape]
    result = in_si(value, f"{blank}{unit}{blank}", dimension)
    assert np.shape(result) == np.shape(value)
    np.testing.assert_allclose(
        result, np.asarray(value, np.float64) * factor, rtol=1e-6 if shape == "float32" else 1e-12
    )


@given(st.text(max_size=10), st.sampled_from(sorted(UNITS)))
def test_any_unit_is_known_or_refused_in_a_sentence(unit, dimension):
    if factor_of(unit, dimension) is None and not states_nothing(unit):
        with pytest.raises(PtychonError, match="is not a unit of"):
            in_si(1.0, unit, dimension)
    else:
        assert math.isfinite(in_si(1.0, unit, dimension))


@pytest.mark.parametrize("unit", ["mev", "", "counts", "px", "mrad", "m/s", "s"])
def test_units_that_leave_a_doubt_are_not_taken(unit):
    assert factor_of(unit, "energy") is None


def test_numbers_of_files_keep_their_decimals():
    assert in_si(np.float32(5.5e-05), "", "length") == 5.5e-05
    assert in_si(31.25, "Å", "length") == 31.25e-10
    assert in_si(np.array([0.3, 31.25]), "um", "length").tolist() == [0.3e-6, 31.25e-6]
    assert in_si(75.0, "None", "length") == 75.0
    with pytest.raises(
        PtychonError, match=r"detector/distance is in 'mrad', which is not a unit of length"
    ):
        in_si(1.0, "mrad", "length", "detector/distance")
    with pytest.raises(PtychonError, match="complex128"):
        in_si(1j, "m", "length")
    assert [is_pixel(unit) for unit in ("Pixels", "[px]", "pm", "")] == [True, True, False, False]
