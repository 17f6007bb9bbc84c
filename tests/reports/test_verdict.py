"""The verdict: good where R is near the noise, and no tick for what R does not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.data.result import Result
from ptychon.reports.numbers import Fit
from ptychon.reports.verdict import HEADLINES, resolution, verdict


def fitted(residual, noise=0.04, flat=0.2):
    return Fit(
        residual=residual,
        per_frame=np.full(81, residual),
        bad=np.zeros(0, int),
        per_pixel=np.zeros((64, 64)),
        bias=np.zeros((64, 64)),
        noise=noise,
        flat=flat,
        sampling_ratio=30.0,
        counts=1e6,
    )


def result(comb=0.0, spots=False, rim=False, final=0.04, engine="rpie", scan=None):
    """A smooth object and a disc, on a raster of 6 px, with an R that has settled."""
    y, x = np.indices((112, 112))
    r = np.hypot(y - 56, x - 50)
    object = np.exp(1j * np.cos(r / 5)) * (
        1 + comb * np.cos(2 * np.pi * y / 6) + comb * np.cos(2 * np.pi * x / 6)
    )
    v = np.arange(64) - 32
    probe = (np.hypot(v[:, None], v) < 14).astype(complex)
    if spots:
        line = np.exp(-(((v + 4) % 8 - 4) ** 2) / 3)
        probe = np.outer(line, line) * (np.hypot(v[:, None], v) < 26)
    positions = (
        np.stack(np.meshgrid(np.arange(9) * 6, np.arange(9) * 6, indexing="ij"), -1).reshape(-1, 2)
        + 32.0
    )
    return Result(
        object=object.astype(np.complex64),
        probe=(np.fft.fftshift(probe) if rim else probe)[None].astype(np.complex64),
        errors=np.full(40, final, np.float32),
        final_error=final,
        positions=positions,
        engine=engine,
        passes=40,
        settings={} if scan is None else {"scan": {"geometry": scan}},
    )


def test_a_very_good_result_is_good():
    """Also where no half-scans were compared: that its resolution is unknown speaks against
    nothing.
    """
    said = verdict(result(), fitted(0.0395), None)
    assert said.level == "good"
    assert said.headline == HEADLINES["good"] == "Nothing speaks against this reconstruction."
    texts = " ".join(reason.text for reason in said.reasons)
    assert "down to their noise" in texts
    assert "Its resolution is not known" in texts
    assert not {reason.level for reason in said.reasons} & {"care", "bad"}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"comb": 0.3}, "spatial frequencies of the scan's own grid"),
        ({"rim": True}, "outermost 5 % of its window"),
        ({"spots": True}, "repeats itself every 8 px"),
    ],
)
def test_lattices_and_aliased_probes_are_not_to_be_used(made, says):
    said = verdict(result(**made), fitted(0.0395), None)
    assert said.headline == "Do not use this reconstruction."
    assert says in said.reasons[0].text
    assert said.reasons[0].text.endswith(".")
    assert not said.reasons[0].text[0].islower()


def test_an_even_beam_is_usual_in_the_near_field():
    wide = result()
    even = Result(**{**vars(wide), "probe": np.ones((1, 64, 64), np.complex64)})
    assert verdict(even, fitted(0.0395), None).level == "care"
    near = Result(**{**vars(even), "settings": {"scan": {"geometry": "near"}}})
    assert verdict(near, fitted(0.0395), None).level == "good"
    assert verdict(even, fitted(0.0395), None, far=False).level == "good"


def test_what_r_says():
    far_off = verdict(result(), fitted(0.13), None)
    assert far_off.level == "care"
    assert "(3.2 times the noise): more probe modes (--modes 3)" in far_off.reasons[0].text
    assert "(-e rpie --modes 3)" in verdict(result(engine="ep"), fitted(0.13), None).reasons[0].text
    nothing = verdict(result(), fitted(0.2), None)
    assert nothing.level == "bad"
    assert "R is 0.2000; without any object the same probe gives 0.2000" in nothing.reasons[0].text
    # few counts: nearly all is noise, and R cannot say more
    faint = verdict(result(), fitted(0.199, noise=0.1985, flat=0.2), None)
    assert faint.level == "good"


def test_a_resolution_at_the_pixel_has_no_interval():
    """It is better than the pixels can show: no interval is stated."""
    said = resolution(40e-9, (40e-9, 40e-9), "m", True)
    assert said == "better than 40 nm, the limit of the pixels"
    assert resolution(50e-9, (45e-9, 60e-9), "m", False) == "50 nm (95 %: 45 nm to 60 nm)"


@pytest.mark.parametrize(
    ("how", "level", "words"),
    [
        ({"verdict": "hold", "reason": ""}, "good", "hold on simulated data"),
        ({"verdict": "do not hold", "reason": "not converged"}, "care", "data: not converged."),
        ({"verdict": "cannot tell", "reason": "too small"}, "good", "Of its error bars: too small"),
        ({"method": "laplace"}, "good", ""),
    ],
)
def test_it_tells_what_a_check_said_of_error_bars(how, level, words):
    made = replace(result(), settings={"error_bars": how})
    said = verdict(made, fitted(0.0395), None)
    assert said.level == level
    texts = " ".join(reason.text for reason in said.reasons)
    assert words in texts
    assert ("error bars" in texts) == bool(words)
