"""How many passes LSQ-ML takes: against rPIE with full steps, simulated and measured."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon import Problem, load
from ptychon.backends import get_backend
from ptychon.engines import LSQML, RPIE, Context
from ptychon.run.guess import focused, initial_object, mean_power, scaled_probe
from ptychon.run.iterate import iterate
from ptychon.run.schedule import GROWTH, Schedule
from ptychon.simulation import probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

#: rPIE whose steps never shrink.
FULL = RPIE(cool_from=10**6)


def smooth(rng, size, cut):
    f2 = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    field = np.fft.ifft2(
        np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-f2 / (2 * cut**2))
    )
    return field.real / field.real.std()


def scan(seed, strength, side=8, frame=32):
    """Frames of a phase object at 1e5 counts, and a start from the data alone."""
    rng, positions = np.random.default_rng(seed), raster(side, 5.0, jitter=1.0, seed=seed)
    size = frame + int(np.ceil(np.ptp(positions, axis=0).max())) + 4
    truth = np.exp(1j * strength * smooth(rng, size, 0.1)).astype(np.complex64)
    probe = probes.defocused_aperture((frame, frame), 7, 10)
    made = simulate(truth, probe, positions, noise="poisson", mean_counts=1e5, seed=seed)
    return Problem.from_dataset(made.dataset)


def errors(problem, probe, engine, passes, kind="sparse", **how):
    """R of each pass."""
    ctx, power = Context(get_backend("numpy", threads=1)), mean_power(problem)
    probe = scaled_probe(probe, power)
    kind = kind if isinstance(engine, LSQML) else engine.schedule
    schedule = Schedule(kind=kind, shuffle=True, **how)
    steps = iterate(
        problem, engine, initial_object(problem, probe, power), probe, ctx=ctx, schedule=schedule
    )
    return [next(steps).error for _ in range(passes)]


@pytest.mark.parametrize(("seed", "strength"), [(12, 1.2), (13, 1.0)])
def test_from_ten_passes_on_it_is_below_rpie(seed, strength):
    """From the data alone. With batches of a tenth of the frames from the first pass on it was
    above: R 0.24 against 0.19 and 0.083 against 0.076.
    """
    problem = scan(seed, strength)
    mine, other = (errors(problem, focused(problem), e, 14) for e in (LSQML(), FULL))
    assert all(a < b for a, b in zip(mine[9:], other[9:], strict=True)), (mine, other)


def test_the_last_third_averages_noise():
    """The last passes move the object once each: R of the result and the error of the object fall;
    a chosen pass stays.
    """
    problem = scan(13, 1.0)
    left = [
        errors(problem, focused(problem), engine, 24)[-1]
        for engine in (LSQML(), LSQML().for_passes(24))
    ]
    assert left[1] < 0.96 * left[0], left
    assert [LSQML().for_passes(n).together_from for n in (3, 24)] == [2, 16]
    assert LSQML(together_from=5).for_passes(24).together_from == 5


def test_compact_batches_get_as_far():
    """Where neighbours go together, the object moving after each. With one move a pass, as the
    paper has it, R is 1.8 times as much.
    """
    problem = scan(11, 0.8)
    left = [
        errors(problem, focused(problem), LSQML(together_from=first), 24, kind="compact")[-1]
        for first in (None, 0)
    ]
    assert 1.4 * left[0] < left[1], left


def test_sparse_batches_grow_to_their_size():
    """Over the first passes, without and with shuffling; a size that is given stays."""
    problem = scan(1, 1.0)
    for shuffle in (False, True):
        schedule = Schedule(kind="sparse", shuffle=shuffle)
        sizes = [max(_sizes(schedule, problem, epoch)) for epoch in range(GROWTH + 2)]
        assert sizes == sorted(sizes)
        assert sizes[0] == 1
        assert set(sizes[GROWTH - 1 :]) == {len(problem) // 10}
        given = Schedule(kind="sparse", size=8, shuffle=shuffle)
        assert max(_sizes(given, problem, 0)) == 8
        assert schedule.differs(3)
        assert (schedule.differs(GROWTH), given.differs(3)) == (shuffle, shuffle)


def test_counts_come_as_far_as_roots():
    """The likelihood of counts from a start that is far away; without a bound on what bright
    pixels ask where the model is dark it was at 0.39 here.
    """
    problem = scan(13, 1.0)
    left = [
        errors(problem, focused(problem), LSQML(noise=noise), 13)[-1]
        for noise in ("amplitude", "poisson")
    ]
    assert left[1] < 1.6 * left[0], left


def _sizes(schedule, problem, epoch):
    return [len(np.arange(len(problem))[b]) for b in schedule.batches(problem, epoch)]


@pytest.mark.slow
def test_the_measured_star_is_below_rpie_from_ten_passes_on(measured):
    """516 frames, one mode, from the probe that comes with them."""
    folder = measured / "siemens_star_xray"
    problem = Problem.from_dataset(load(folder / "siemens_star.npz"))
    probe = np.load(folder / "siemens_star.npz")["probe"][None]
    mine, other = (errors(problem, probe, e, 13) for e in (LSQML(), FULL))
    assert all(a < b for a, b in zip(mine[9:], other[9:], strict=True)), (mine, other)
    assert mine[12] < 0.123
