"""Quantities with units."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychon.types import PtychonError
from ptychon.units import (
    UNITS,
    energy_of_photons,
    parse,
    parse_pair,
    parse_shape,
    pretty,
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


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from(sorted(UNITS["length"])))
def test_any_number_with_any_unit(number, unit):
    assert parse(f"{number!r}{unit}", "length") == pytest.approx(number * UNITS["length"][unit], rel=1e-12, abs=1e-300)


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
    ("value", "text"), [(1.7866e-7, "178.7 nm"), (1.12, "1.12 m"), (1e-3, "1 mm"), (2e-13, "0.2 pm"), (0, "0 m")]
)
def test_pretty(value, text):
    assert pretty(value, "length") == text
