"""Masks of files: what their values mean."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.io.masks import convention_of, valid_from
from ptychon.types import PtychonError


@pytest.mark.parametrize(
    ("values", "convention", "valid"),
    [
        ([[0, 1, 2]], "valid", [[False, True, True]]),
        ([[0, 1, 2]], "bad", [[True, False, False]]),
        (np.array([[0, 0x1000, 0x1001, 0x2]], np.uint32), "cxi", [[True, True, False, False]]),
        (np.array([[0, 255, 1]], np.uint8), "cxi", [[True, False, False]]),
        (
            np.array([[0, 1 << 31, 1 << 8, 0x1000]], np.uint32),
            "nexus",
            [[True, False, False, False]],
        ),
        (np.array([[True, False]]), "bad", [[False, True]]),
        (np.array([[0.0, 0.5, np.nan, -1.0]]), "valid", [[False, True, False, False]]),
        (np.array([[0.0, 0.5, np.nan, -1.0]]), "bad", [[True, False, False, False]]),
    ],
)
def test_what_values_mean(values, convention, valid):
    np.testing.assert_array_equal(valid_from(values, convention), valid)


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("entry/instrument/detector/detectorSpecific/pixel_mask", "nexus"),
        ("bad_pixels", "bad"),
        ("badpixels", "bad"),
        ("deadPixels", "bad"),
        ("invalid", "bad"),
        ("valid", "valid"),
        ("good_pixels", "valid"),
        ("weights", "valid"),
        ("mask", None),
        ("shot", None),
    ],
)
def test_names_say_what_values_mean(name, convention):
    assert convention_of(name) == convention


def test_what_is_no_mask():
    with pytest.raises(PtychonError, match="dtype complex128"):
        valid_from(np.zeros((2, 2), complex), "valid")
    with pytest.raises(PtychonError, match="these are known: valid, bad, cxi, nexus"):
        valid_from(np.zeros((2, 2)), "god")
