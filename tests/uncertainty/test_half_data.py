"""Error bars judged by two independent halves of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import Problem
from ptychon.data.result import Result
from ptychon.engines.spectral_prior import rings_of
from ptychon.metrics.alignment import pmse
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import PtychonError
from ptychon.uncertainty.bootstrap import _laid_on
from ptychon.uncertainty.half_data import PROBABILITIES, HalfDataTest, compared, half_data_test
from ptychon.uncertainty.sampling import _aligner
from ptychon.uncertainty.splitting import halves_of, thinned
from ptychon.uncertainty.twin import judge

SIZE, FRAME = 80, 32


def a_scan(counts=100.0, second=0.0, step=5.0):
    """A scan of a texture; `second` is the amplitude of a second incoherent mode."""
    shape = SIZE, SIZE
    O = phantoms.complex_object(
        phantoms.texture(shape, 1),
        phantoms.texture(shape, 2),
        amplitude_range=(0.1, 1),
        phase_range=(0, 1.5),
    )
    P = probes.defocused_aperture((FRAME, FRAME), 0.36 * FRAME, 0.6 * FRAME)
    tilt = (np.arange(FRAME)[:, None] - FRAME // 2) / (0.18 * FRAME)
    modes = np.stack([P, second * P * tilt]) if second else P
    where = scan.fit(scan.fermat_spiral(2000, step, whole=True), shape, P.shape)
    return simulate(O, modes, where, noise="poisson", mean_counts=counts * FRAME**2, seed=0)


@pytest.fixture(scope="module")
def clean():
    return a_scan()


@pytest.mark.parametrize(("kind", "step"), [("counts", 5.0), ("positions", 3.0)])
def test_a_right_model_has_a_mean_square_of_one(kind, step):
    """Measured: 1.10 by counts (86 frames), 1.03 by positions (231 frames)."""
    made = a_scan(step=step)
    found, (one, two) = half_data_test(
        Problem.from_dataset(made.dataset),
        kind,
        probe=made.probe,
        update=("object",),
        passes=60,
        backend="numpy",
    )
    assert 0.8 < found.mean_square < 1.25
    assert found.describes
    assert "the model describes the data" in found.sentence()
    assert np.abs(np.subtract(found.covered_after, PROBABILITIES)).max() < 0.05
    assert 0.4 < np.nanmin(found.by_period) <= np.nanmax(found.by_period) < 2
    assert 0.7 < found.independent < 1
    assert found.modes == 1
    assert one.engine == two.engine == "joint"


@pytest.mark.parametrize("kind", ["counts", "positions"])
def test_two_modes_taken_for_one_are_seen(kind):
    """Measured: 5.5 by counts, 47 by positions."""
    made = a_scan(second=0.5)
    problem = Problem.from_dataset(made.dataset)
    found, _ = half_data_test(
        problem, kind, probe=made.probe[:1], update=("object",), passes=60, backend="numpy"
    )
    assert found.mean_square > (4 if kind == "counts" else 20)
    assert not found.describes
    assert "does not describe" in found.sentence()
    if kind == "counts":
        right, _ = half_data_test(
            problem, kind, probe=made.probe, update=("object",), passes=60, backend="numpy"
        )
        assert right.mean_square < 0.4 * found.mean_square
        assert right.modes == 2


def test_thinned_counts_are_independent_and_add_up(clean):
    problem = Problem.from_dataset(clean.dataset)
    one, two = thinned(problem, 3)
    a, b, n = (np.rint(p.amplitude.astype(float) ** 2) for p in (one, two, problem))
    assert np.array_equal(a + b, n)
    # given n, the difference has the variance n: with equal means and no correlation of the halves
    assert np.mean((a - b)[n > 0] ** 2 / n[n > 0]) == pytest.approx(1, abs=0.03)
    assert (a - b).sum() == pytest.approx(0, abs=4 * np.sqrt(n.sum()))
    again, other = thinned(problem, 3)[0], thinned(problem, 4)[0]
    assert np.array_equal(again.amplitude, one.amplitude)
    assert not np.array_equal(other.amplitude, one.amplitude)


def test_halves_of_the_positions_are_all_frames(clean):
    problem = Problem.from_dataset(clean.dataset)
    one, two = halves_of(problem, "positions")
    both = np.concatenate([one.corners, two.corners])
    assert len(both) == len(problem)
    assert {tuple(c) for c in both} == {tuple(c) for c in problem.corners}


def test_what_cannot_be_split(clean):
    problem = Problem.from_dataset(clean.dataset)
    with pytest.raises(PtychonError, match="choose one of positions, counts"):
        halves_of(problem, "frames")
    with pytest.raises(PtychonError, match="not counts"):
        thinned(replace(problem, counting=False))
    with pytest.raises(PtychonError, match="not whole numbers"):
        thinned(replace(problem, amplitude=problem.amplitude * np.float32(0.7)))
    with pytest.raises(PtychonError, match="none is given"):
        half_data_test(problem, update=("object",))
    with pytest.raises(PtychonError, match="moves the probe"):
        half_data_test(
            problem, probe=clean.probe, update=("object",), engine="rpie", passes=2, backend="numpy"
        )


def posterior_like(object, std, draws):
    return Result(
        object=object.astype(np.complex64),
        probe=np.ones((1, 8, 8), np.complex64),
        errors=np.ones(1, np.float32),
        final_error=0.1,
        positions=np.zeros((1, 2)),
        engine="joint",
        passes=1,
        object_std=std.astype(np.float32),
        draws=draws.astype(np.complex64),
        history={"chi2": np.ones(1)},
    )


def white(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


@pytest.mark.parametrize(("hot", "n"), [(1.0, 0.3), (2.5, 0.02), (9.0, 0.02)])
def test_the_temperature_is_what_the_bars_lack(hot, n):
    """White object, S = 1, noise of the variance n: the mean is shrunk by 1/(1 + n), V = n/(1 + n),
    1/(1 + n) of it shows.
    """
    rng, shape = np.random.default_rng(1), (96, 96)
    truth, bar = white(rng, *shape), np.sqrt(n / (1 + n) / hot)
    pair = [
        posterior_like(
            (truth + np.sqrt(n) * white(rng, *shape)) / (1 + n),
            np.full(shape, bar),
            bar * white(rng, 8, *shape),
        )
        for _ in range(2)
    ]
    found = compared(*pair, np.ones(shape, bool), kind="counts", update=("object",))
    assert found.independent == pytest.approx(1 / (1 + n), rel=0.03)
    assert found.temperature == pytest.approx(hot, rel=0.05)
    assert np.abs(np.subtract(found.covered_after, PROBABILITIES)).max() < 0.02
    assert found.holds == (hot == 1)
    assert found.holds_after
    assert found.describes == (hot < 4)
    assert ("cover single pixels" in found.sentence()) == (hot > 4)


def test_what_is_wrong_in_both_halves_alike_shows_in_the_misfit():
    """Halves that agree within right bars, and neither of them fits its data."""
    rng, shape, bar = np.random.default_rng(1), (96, 96), 0.1
    truth = white(rng, *shape)
    pair = [
        posterior_like(
            truth + bar * white(rng, *shape), np.full(shape, bar), bar * white(rng, 8, *shape)
        )
        for _ in range(2)
    ]
    way = {"region": np.ones(shape, bool), "kind": "counts", "update": ("object",)}
    assert compared(*pair, **way).describes
    pair[1] = replace(pair[1], history={"chi2": np.array([9.0, 7.4])})
    found = compared(*pair, **way)
    assert found.holds
    assert not found.describes
    assert "does not describe the data: the misfit is 7.4" in found.sentence()


def test_coarse_errors_are_not_saved_by_a_temperature():
    """Bars and draws of white errors, but errors that are smooth: single pixels fit, and their
    averages do not.
    """
    rng, shape = np.random.default_rng(3), (128, 128)
    truth = 30 * white(rng, *shape)
    smooth = [
        np.fft.ifft2(np.fft.fft2(white(rng, *shape)) * (rings_of(shape, np)[0] < 30))
        for _ in range(2)
    ]
    pair = [
        posterior_like(
            truth + e / np.sqrt(np.mean(np.abs(e) ** 2)),
            np.full(shape, 0.7),
            0.7 * white(rng, 8, *shape),
        )
        for e in smooth
    ]
    found = compared(*pair, np.ones(shape, bool), kind="positions", update=("object",))
    assert found.right_in_pixels
    assert np.isnan(found.by_period[0])
    assert found.by_period[1] > 3 * found.temperature
    assert found.by_period[-1] < 0.2 * found.temperature
    assert not found.describes
    assert "but not periods above" in found.sentence()


def test_a_wrong_shape_is_not_saved_by_a_temperature():
    """Errors that are twice as large on every fifth pixel and small elsewhere."""
    rng, shape = np.random.default_rng(2), (96, 96)
    truth, spread = 3 * white(rng, *shape), np.where(rng.random(shape) < 0.2, 0.8, 0.1)
    bars = np.full(shape, 0.2), 0.2 * white(rng, 8, *shape)
    pair = [posterior_like(truth + spread * white(rng, *shape), *bars) for _ in range(2)]
    found = compared(*pair, np.ones(shape, bool), kind="positions", update=("object",))
    assert found.mean_square > 2
    assert not found.holds_after
    assert not found.describes


def test_a_result_without_bars_is_refused():
    whole = posterior_like(np.ones((8, 8)), np.ones((8, 8)), np.ones((2, 8, 8)))
    with pytest.raises(PtychonError, match="error bars and draws"):
        compared(
            whole,
            replace(whole, draws=None),
            np.ones((8, 8), bool),
            kind="counts",
            update=("object",),
        )
    with pytest.raises(PtychonError, match="no lit pixel"):
        compared(
            whole,
            replace(whole, object=0 * whole.object),
            np.ones((8, 8), bool),
            kind="counts",
            update=("object",),
        )
    assert HalfDataTest.__dataclass_params__.frozen


@pytest.mark.parametrize("near_field", [False, True])
def test_a_translation_is_an_error_in_the_near_field(near_field):
    """One field half a pixel apart from itself: the data of the near field say where it is, those
    of the far field do not. A ramp and a factor are told by neither.
    """
    rng, shape, bar = np.random.default_rng(4), (96, 96), 0.02
    f = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(96)], indexing="ij"))
    spectrum = np.fft.fft2(white(rng, *shape)) * np.exp(-((8 * f) ** 2))
    truth = 3 * np.fft.ifft2(spectrum) / np.abs(np.fft.ifft2(spectrum)).std()
    moved = 3 * np.fft.ifft2(spectrum * np.exp(1j * np.pi * np.fft.fftfreq(96)))  # by half a pixel
    moved *= np.abs(truth).mean() / np.abs(moved).mean()
    lit = np.zeros(shape, bool)
    lit[16:-16, 16:-16] = True
    y = np.arange(96)[:, None]

    def half(field):
        field = field + bar * white(rng, *shape)
        return posterior_like(field, np.full(shape, bar), bar * white(rng, 8, *shape))

    def both(second, ramp):
        ways = {"kind": "positions", "update": ("object", "probe"), "near_field": near_field}
        return compared(half(truth), half(0.9 * second * np.exp(1j * ramp * y)), lit, **ways)

    for ramp in (0.0, 0.2):
        assert both(truth, ramp).temperature == pytest.approx(1, abs=0.2)
        assert (both(moved, ramp).temperature > 20) == near_field
    # the same rule where a twin, replicates, chains and half-scans are laid on each other
    distance = {
        "twin": judge(half(moved), truth, lit, True, half(truth), near_field).error_db,
        "replicate": pmse(_laid_on(moved, truth, lit, True, near_field), truth, lit),
        "chain": pmse(
            _aligner(truth, np.ones((1, 4, 4)), lit, True, near_field)(moved, np.ones((1, 4, 4))),
            truth,
            lit,
        ),
    }
    for name, db in distance.items():
        assert (db < 25) == near_field, (name, db)
