"""Steps of ePIE and rPIE where none are given: full where frames hold enough counts, smaller where
they do not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import make_case
from ptychon import PtychonError, reconstruct
from ptychon.engines import make
from ptychon.engines.pie import FULL_STEPS
from ptychon.run.steps import ENOUGH_COUNTS, LEAST, counts_per_pixel, share_of, with_steps


def counted(counts, masked=False):
    """The problem of a case with so many counts a valid pixel."""
    problem = make_case(masks="shared" if masked else "none").problem
    valid = np.broadcast_to(problem.mask, problem.amplitude.shape)
    mean = float(np.square(problem.amplitude, dtype=float)[valid].mean())
    amplitude = problem.amplitude * np.float32(np.sqrt(counts / mean))
    return replace(problem, amplitude=amplitude, counting=True, noise_variance=None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("counts", [0.1, 5.0, 1000.0])
def test_counts_are_those_of_valid_pixels(counts, masked):
    assert counts_per_pixel(counted(counts, masked)) == pytest.approx(counts, rel=1e-4)


@pytest.mark.parametrize("name", ["epie", "rpie"])
def test_few_counts_make_small_steps(name):
    for counts, share in ((0.001, LEAST), (0.3, 0.1), (1.5, 0.5), (3.0, 1.0), (1e4, 1.0)):
        engine, why = with_steps(make(name), counted(counts))
        assert (engine.object_step, engine.probe_step) == pytest.approx(
            (share, share / 2), rel=1e-3
        )
        assert f"counts {counts:.3g}"[:8] in why
        assert ("follow the noise" in why) == (share < 1)


def test_steps_that_are_given_stay():
    engine, why = with_steps(make("rpie", object_step=0.7, probe_step=0.2), counted(0.1))
    assert (engine.object_step, engine.probe_step, why) == (0.7, 0.2, "")
    engine, why = with_steps(make("epie", object_step=0.7), counted(0.3))
    assert (engine.object_step, engine.probe_step) == (0.7, pytest.approx(0.05, rel=1e-3))
    assert "probe_step 0.05" in why


def test_data_that_are_no_counts_take_full_steps():
    engine, why = with_steps(make("rpie"), make_case().problem)
    assert (engine.object_step, engine.probe_step) == FULL_STEPS
    assert "not counts" in why
    assert counts_per_pixel(make_case().problem) is None
    assert with_steps(make("dm"), counted(0.1)) == (make("dm"), "")


def test_enough_counts_change_nothing():
    """Bit for bit what steps of 1 and 0.5 give; and a result says which were taken."""
    case = make_case()
    way = {"passes": 3, "backend": "reference", "judge": False, "probe": case.probe, "say": None}
    found = reconstruct(counted(100), "rpie", **way)
    given = reconstruct(counted(100), "rpie", object_step=1.0, probe_step=0.5, **way)
    assert np.array_equal(found.object, given.object)
    assert found.options == given.options
    said = []
    few = reconstruct(counted(0.3), "rpie", details=said.append, **way)
    assert few.options["object_step"] == pytest.approx(0.1, rel=1e-3)
    assert "0.1 and 0.05" in few.settings["steps"]
    assert f"steps: {few.settings['steps']}" in said


def test_an_engine_of_its_own_takes_full_steps():
    """Where no run has chosen, None means full."""
    case = make_case()
    from ptychon.backends import get_backend
    from ptychon.engines import Context

    ctx = Context(get_backend("reference"))
    states = []
    for engine in (make("rpie"), make("rpie", object_step=FULL_STEPS[0], probe_step=FULL_STEPS[1])):
        state = engine.init(case.problem, case.object, case.probe, ctx)
        states.append(
            engine.step(
                state, case.problem, [slice(j, j + 1) for j in range(len(case.problem))], ctx
            )[0]
        )
    assert np.array_equal(states[0].object, states[1].object)


def test_share_grows_with_the_counts():
    shares = [share_of(c) for c in np.geomspace(1e-3, 1e3, 50)]
    assert sorted(shares) == shares
    assert shares[0] == LEAST
    assert share_of(ENOUGH_COUNTS) == 1


def test_numbers_of_numpy_are_options():
    engine = make(
        "rpie", object_step=np.float32(0.5), probe_start=np.int64(2), probe_step=np.array(0.25)
    )
    assert [type(v) for v in (engine.object_step, engine.probe_start, engine.probe_step)] == [
        float,
        int,
        float,
    ]
    assert type(make("ep", learn_noise=np.bool_(True)).learn_noise) is bool
    for wrong in ("fast", True, np.array([0.5])):
        with pytest.raises(PtychonError, match=r"'object_step' is .* float"):
            make("rpie", object_step=wrong)
