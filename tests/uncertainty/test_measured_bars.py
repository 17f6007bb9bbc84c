"""Bars of measured data, widened by what halves disagree by and tried on halves of other splits,
where PTYCHON_TEST_DATA names the folder of the data.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptychon import Dataset, Problem, error_bars, load, reconstruct
from ptychon.uncertainty.discrepancy import tried_again
from ptychon.uncertainty.half_data_record import PROBABILITIES

#: Central frames that are taken, and pixels of the detector.
FRAMES, SIZE = 60, 64


@pytest.fixture(scope="module")
def star(measured):
    """(Problem, Result): the middle of the star in hard X-rays, at half of its resolution; two
    modes, positions and doses refined.
    """
    data = load(measured / "siemens_star_xray" / "siemens_star.npz")
    places = np.asarray(data.positions) / 2
    off = np.abs(places - np.median(places, axis=0)).max(axis=1)
    some = np.sort(np.argsort(off, kind="stable")[:FRAMES])
    middle = slice(SIZE - SIZE // 2, SIZE + SIZE // 2)
    beam = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(np.asarray(data.probe).squeeze())))
    beam = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(beam[middle, middle])))
    problem = Problem.from_dataset(
        Dataset(
            patterns=np.asarray(data.patterns)[some][:, middle, middle],
            positions=places[some],
            counting=True,
        )
    )
    how = {"backend": "numpy", "judge": False, "say": None}
    found = reconstruct(problem, "rpie", passes=40, probe=beam.astype(np.complex64), modes=2, **how)
    update = {"positions": True, "dose": True}
    found = reconstruct(problem, "ml", passes=10, start=found, update=update, **how)
    return problem.with_positions(found.positions, found.log_scale, corners=found.corners), found


@pytest.mark.slow
def test_bars_of_the_star_hold_on_halves_of_other_splits(star):
    """As they are they are too small; what some splits disagree by makes them right on others, in
    each octave of periods and in single pixels.
    """
    problem, found = star
    update = ("object", "positions", "dose")
    with_bars = error_bars(
        *(problem, found, "laplace"),
        update=update,
        halves="positions",
        propose=False,
        draws=4,
        backend="numpy",
    )
    how = with_bars.settings["error_bars"]
    assert max(how["widened"]) > 1.5
    said = tried_again(problem, with_bars, backend="numpy")
    assert said.splits == how["splits"] >= 2
    assert said.bars_hold, said.sentence()
    assert np.abs(np.subtract(said.covered, PROBABILITIES)).max() < 0.05
