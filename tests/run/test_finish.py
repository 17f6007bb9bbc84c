"""The last passes of a run of the difference map are of rPIE."""

from __future__ import annotations

import numpy as np
import pytest

from _problems import make_case
from ptychon import Dataset, PtychonError, reconstruct
from ptychon.engines import make
from ptychon.metrics.alignment import align
from ptychon.run.finish import as_finished, described, finishing_passes


def run(engine="dm", epochs=8, **options):
    case = make_case()
    way = {
        "backend": "reference",
        "judge": False,
        "probe": case.probe,
        "object": case.object,
        "say": None,
    }
    return reconstruct(case.problem, engine, epochs=epochs, **way, **options)


def test_a_quarter_of_the_passes_is_of_rpie():
    """The difference map's are those of a run without the end, and what the end does is rPIE from
    where they led.
    """
    found, alone = run(), run(epochs=6, finish=0)
    assert found.engine == "dm"
    assert (found.settings["finish"], found.settings["ran"]) == (2, [["dm", 6], ["rpie", 2]])
    np.testing.assert_array_equal(found.errors[:6], alone.errors)
    case = make_case()
    by_hand = reconstruct(
        case.problem,
        make("rpie", object_step=1.0, probe_step=0.5),
        epochs=2,
        backend="reference",
        judge=False,
        say=None,
        object=alone.object,
        probe=alone.probe,
    )
    # the power of the probe is restored between the two here, which changes no product of object
    # and probe
    assert found.final_error == pytest.approx(by_hand.final_error, rel=1e-3)


def test_the_literal_difference_map_can_be_had():
    found = run(finish=0)
    assert found.settings["ran"] == [["dm", 8]]
    assert np.isnan(
        found.errors[6]
    )  # it measures every fifth pass; rPIE would have measured this one


def test_other_engines_end_as_they_began():
    assert run("rpie").settings["ran"] == [["rpie", 8]]


def test_it_ends_nearer_the_truth():
    """1e5 counts a frame and a first probe that is too wide: measured 23.1 dB without the end, 26.0
    dB with it.
    """
    n, r = 32, np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8) * 4, np.arange(8) * 4, indexing="ij"), -1).reshape(
        -1, 2
    )
    places = grid + r.integers(-1, 2, grid.shape)
    places -= places.min(0)
    shape = tuple((places.max(0) + n).tolist())
    f2 = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.fftfreq(shape[1])[None] ** 2
    fields = [
        np.fft.ifft2(np.fft.fft2(r.standard_normal(shape)) * np.exp(-f2 * s**2)).real
        for s in (8, 10)
    ]
    low, phase = ((a - a.min()) / np.ptp(a) for a in fields)
    truth = (0.6 + 0.4 * (low > 0.5)) * np.exp(1.2j * phase)
    y = np.arange(n) - n // 2
    right, wide = (
        1 / (1 + np.exp((np.hypot(y[:, None], y) - radius) / 0.7)) + 0j for radius in (8, 9)
    )
    right *= np.sqrt(1e5 / np.sum(np.abs(right) ** 2))
    waves = [np.fft.fft2(right * truth[a : a + n, b : b + n], norm="ortho") for a, b in places]
    data = Dataset(
        patterns=np.fft.fftshift(r.poisson(np.abs(waves) ** 2), axes=(1, 2)),
        positions=places.astype(float),
    )

    def decibels(**options):
        found = reconstruct(
            data, "dm", epochs=40, probe=wide, backend="reference", judge=False, say=None, **options
        )
        return align(
            found.object, truth, region=np.s_[16 : shape[0] - 16, 16 : shape[1] - 16], max_shift=8
        ).error_db

    assert decibels() > decibels(finish=0) + 1.5


def test_passes_that_cannot_be():
    for asked, words in ((-1, "finish is -1 of 8"), (8, "leave dm at least one")):
        with pytest.raises(PtychonError, match=words):
            finishing_passes(make("dm"), asked, 8)
    with pytest.raises(
        PtychonError, match=r"finish is 3, but a run of ep .* \(rpie ends dm\): leave"
    ):
        finishing_passes(make("ep"), 3, 8)
    assert [finishing_passes(make("dm"), None, n) for n in (1, 3, 4, 40)] == [0, 0, 1, 10]
    assert [finishing_passes(make(name), None, 40) for name in ("pie", "rpie", "ep")] == [0, 0, 0]


def test_a_replicate_ends_as_its_result_did():
    found = run()
    assert [as_finished(found, n) for n in (8, 3, 2)] == [2, 2, None]
    assert as_finished(run(finish=0), 3) == 0
    assert described(found.settings["ran"]) == "6 of dm, then 2 of rpie"
    assert described([("ep", 5)]) == ""
