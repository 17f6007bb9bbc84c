"""What moves and when, as people type it."""

from __future__ import annotations

import pytest

from ptychon import PtychonError
from ptychon.engines import After
from ptychon.run.update import updates_of


@pytest.mark.parametrize(
    ("texts", "update"),
    [
        ([], {}),
        (["positions", "dose"], {"positions": True, "dose": True}),
        (["positions, dose,background"], {"positions": True, "dose": True, "background": True}),
        (["positions:after=20,every=5"], {"positions": After(20, 5)}),
        (
            ["positions:after=20,every=5,dose:no,probe", "background:before=9"],
            {
                "positions": After(20, 5),
                "dose": False,
                "probe": True,
                "background": After(before=9),
            },
        ),
    ],
)
def test_names_may_stand_apart_or_with_commas(texts, update):
    assert updates_of(texts) == update


def test_a_word_that_is_no_time_is_named():
    with pytest.raises(PtychonError, match=r"update of positions is 'often'; write yes, no"):
        updates_of(["dose,positions:often"])
