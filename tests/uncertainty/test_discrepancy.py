"""Bars widened by what two halves of the data disagree by: octave by octave, and true on another
split of data whose model is wrong.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon import Problem, PtychonError, error_bars, reconstruct
from ptychon.__main__ import main
from ptychon.data.result import Result
from ptychon.io import write_dataset
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.call import with_bars
from ptychon.uncertainty.discrepancy import Halves, halves_disagree, tried_again
from ptychon.uncertainty.half_data_record import PROBABILITIES, HalfDataTest, together
from ptychon.uncertainty.half_data_table import half_data_rows
from ptychon.uncertainty.methods import Bootstrap, Laplace
from ptychon.uncertainty.posterior import Posterior
from ptychon.uncertainty.saved import find_half_data_test, load_posterior, save_posterior
from ptychon.uncertainty.spectrum import by_chance, octaves, rings
from ptychon.uncertainty.splitting import halves_of, ways
from ptychon.uncertainty.widening import factors_of, filled, gains, widened


@pytest.fixture(scope="module")
def wrong():
    """(Problem, Result): 81 frames of 24 x 24, a second mode of 20 % that the model does not know,
    the probe known.
    """
    shape = (60, 60)
    truth = phantoms.complex_object(
        phantoms.texture(shape, 1), phantoms.texture(shape, 2), amplitude_range=(0.3, 1)
    )
    beam = probes.defocused_aperture((24, 24), 8.0, 14.0)
    tilt = (np.arange(24)[:, None] - 12) / 4.5
    places = scan.raster(9, 4, jitter=1)
    modes = np.stack([beam, 0.4 * beam * tilt])
    made = simulate(truth, modes, places, noise="poisson", mean_counts=2e5, seed=0)
    problem = Problem.from_dataset(made.dataset)
    found = reconstruct(
        problem, "pie", passes=40, probe=made.probe[:1], backend="numpy", judge=False, say=None
    )
    return problem, found


@pytest.fixture(scope="module")
def bars(wrong):
    """The result with widened bars, and what is known of them."""
    problem, found = wrong
    method = Laplace(draws=8, propose=False)
    place = Path("result.h5")
    return with_bars(problem, found, method, "numpy", lambda *_: None, place, halves="positions")


def test_the_model_is_wrong_and_widened_bars_hold_on_other_splits(wrong, bars):
    """Bars of single pixels are several times too small; after the factors of two splits or more T
    is 1 on as many others that have nothing to do with them, and so are the shares of pixels.
    """
    problem, found = wrong
    whole, posterior = bars
    before = posterior.halves
    assert before.mean_square > 4
    assert not before.bars_hold
    assert posterior.widened == before.factors
    assert before.factors == pytest.approx(factors_of(before), rel=0.5)
    how = whole.settings["error_bars"]
    assert how["halves"] == "positions"
    assert 2 <= how["splits"] == before.splits <= 4
    told = replace(found, settings=whole.settings, draws=posterior.draws)
    after = tried_again(problem, told, backend="numpy")
    assert after.widened == posterior.widened
    assert after.splits == before.splits
    known = [T for T in after.by_period if np.isfinite(T)]
    assert len(known) >= 2
    assert after.bars_hold, after.by_period
    assert np.abs(np.subtract(after.covered, PROBABILITIES)).max() < 0.06
    assert "the bars hold on others" in after.sentence()
    assert "wrong alike" in after.sentence()


def test_without_halves_the_check_refuses(wrong):
    """Bars that nothing has widened, on the same data."""
    problem, found = wrong
    how = {"method": "laplace", "update": ["object"], "seed": 0}
    told = replace(found, settings={"error_bars": how})
    said = tried_again(problem, told, backend="numpy")
    assert said.splits == 1
    assert not said.widened
    assert not said.describes
    assert "does not describe the data" in said.sentence()


def test_bars_are_wider_by_the_factors(wrong, bars):
    problem, found = wrong
    _, posterior = bars
    plain = error_bars(problem, found, "laplace", draws=8, propose=False, backend="numpy")
    lit = posterior.region
    ratio = np.mean(posterior.object_std[lit] ** 2) / np.mean(plain.object_std[lit] ** 2)
    assert ratio > 1.5
    assert "splits of the data in two by positions" in posterior.conditional[-1]


def test_they_come_back_from_a_file(wrong, bars, tmp_path):
    whole, posterior = bars
    save_posterior(tmp_path / "bars.h5", whole, posterior)
    again = load_posterior(tmp_path / "bars.h5")
    assert tuple(again.widened) == pytest.approx(posterior.widened)
    assert again.halves.by_period == pytest.approx(posterior.halves.by_period, nan_ok=True)
    assert again.halves.kind == "positions"
    assert again.halves.chi2 == posterior.halves.chi2


def white(rng, shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def posterior_of(draws):
    """A posterior with these draws, its bars their root mean square."""
    shape = draws.shape[1:]
    std = np.full(shape, np.sqrt(np.mean(np.abs(draws) ** 2)), np.float32)
    region = np.zeros(shape, bool)
    region[16:-16, 16:-16] = True
    return Posterior(
        method="laplace",
        object=np.ones(shape, np.complex64),
        probe=np.ones((1, 8, 8), np.complex64),
        object_std=std,
        amplitude_std=std / np.sqrt(2).astype("float32"),
        phase_std=std / np.sqrt(2).astype("float32"),
        offset=np.zeros(shape, np.complex64),
        distance=0.0,
        region=region,
        samples=len(draws),
        monte_carlo=0.0,
        conditional=("Poisson noise",),
        draws=draws,
    )


def test_each_octave_gets_its_factor():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((8, 128, 128)) + 1j * rng.standard_normal((8, 128, 128))
    before = posterior_of(draws.astype(np.complex64))
    factors = (9.0, 4.0, 4.0, 2.0, 0.5)
    after = widened(before, factors)
    powers = [sum(rings(draw, before.region) for draw in each.draws) for each in (after, before)]
    found = octaves(*powers, before.region)
    known = np.isfinite(found)
    assert known[2:].all()
    assert np.array(found)[known] == pytest.approx(np.array(factors)[known], rel=0.12)
    # white errors: most of the power is at the finest octaves
    share = np.mean(gains((128, 128), factors) ** 2)
    lit = before.region
    ratio = np.mean(after.object_std[lit] ** 2) / np.mean(before.object_std[lit] ** 2)
    assert ratio == pytest.approx(share, rel=0.05)
    assert after.widened == factors
    assert np.isfinite(after.object_std).all()


def test_octaves_that_are_not_told_take_the_next_finer():
    nan = float("nan")
    assert filled((nan, 3.0, nan, 2.0, nan)) == (3.0, 3.0, 2.0, 2.0, 2.0)
    with pytest.raises(PtychonError, match="of no octave"):
        filled((nan, nan))


def test_octaves_of_few_frequencies_lean_on_their_neighbours():
    """T = 2, 4, 8, 16 of periods above 2 to 16 px; the coarsest is seen as 60 by chance."""
    nan = float("nan")
    rough = (nan, 60.0, 8.0, 4.0, 2.0)
    known = {"rough": rough, "by_period": (nan, nan, *rough[2:])}
    found = factors_of(replace(told(1.0, 0.1), chance=(nan, 0.9, 0.05, 0.02, 0.01), **known))
    assert found[2:] == pytest.approx(rough[2:], rel=0.02)
    assert 16 < found[1] < 45
    assert found[0] == found[1]
    sure = factors_of(replace(told(1.0, 0.1), chance=(nan, 0.01, 0.05, 0.02, 0.01), **known))
    assert sure[1] == pytest.approx(60, rel=0.02)


def test_splits_have_nothing_to_do_with_each_other(wrong):
    problem, _ = wrong
    assert ways(problem, "positions") == 32
    sides = []
    for number in range(8):
        one, two = halves_of(problem, "positions", 3, number)
        assert len(one) + len(two) == len(problem)
        mine = {tuple(p) for p in one.positions.tolist()}
        sides.append([1 if tuple(p) in mine else -1 for p in problem.positions.tolist()])
    # of 40 pairs of frames all cancel; the last of an odd number of frames stays where it is
    signs = np.array(sides)[:, :80]
    np.testing.assert_array_equal(signs @ signs.T, 80 * np.eye(8))
    assert (signs.reshape(8, 40, 2).sum(axis=2) == 0).all()
    # in the mean of four, a pair and the fourth after it (the next row of a scan of 8 frames a row)
    # are no more alike than any others
    pairs = signs[:4, ::2]
    alike = np.abs((pairs[:, :-4] * pairs[:, 4:]).mean(axis=0))
    assert np.mean(alike > 0.5) < 0.5
    first, second = (halves_of(problem, "counts", 3, n)[0].amplitude for n in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("slope", [0.0, 1.5])
@pytest.mark.parametrize("lopsided", [False, True])
def test_the_scatter_of_an_octave_by_chance(slope, lopsided):
    """400 random pictures, all over alike or only in a part, with a white or a steep spectrum: the
    power of an octave scatters as is said of each of them.
    """
    rng, shape = np.random.default_rng(5), (64, 72)
    region = np.zeros(shape, bool)
    region[4:-4, 4:-4] = True
    k = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    k[0, 0] = 1
    where = np.exp(-((np.arange(72) - 20) ** 2) / 200) if lopsided else 1
    powers, said = [], []
    for _ in range(400):
        noise = rng.standard_normal((2, *shape))
        field = np.fft.ifft2(np.fft.fft2(noise[0] + 1j * noise[1]) * k**-slope) * where
        powers.append(octaves(rings(field, region), np.ones(29), region))
        said.append(by_chance(field, region))
    power, known = np.array(powers), np.isfinite(powers[0])
    assert known.tolist() == [False, False, True, True, True]
    assert np.isfinite(said[0]).tolist() == [False, True, True, True, True]
    actual = (power.std(axis=0) / power.mean(axis=0))[known]
    assert np.mean(said, axis=0)[known] == pytest.approx(actual, rel=0.3)


def test_bars_that_are_learned_are_right_on_what_they_are_learned_from():
    """Noise of the variance n on a white object, S = 1, whose bars are 3 times too small: as much
    of the widened ones shows in the difference as did of those before.
    """
    rng, shape, n, hot = np.random.default_rng(6), (96, 96), 0.5, 9.0
    truth, region = white(rng, shape), np.zeros(shape, bool)
    region[4:-4, 4:-4] = True
    made = []
    for _ in range(2):
        draws = np.sqrt(n / (1 + n) / hot) * white(rng, (8, *shape))
        seen = (truth + np.sqrt(n) * white(rng, shape)) / (1 + n)
        made.append(
            replace(
                posterior_of(draws.astype(np.complex64)),
                object=seen.astype(np.complex64),
                region=region,
                chi2=1.0,
            )
        )
    whole = Result(
        object=made[0].object,
        probe=made[0].probe,
        errors=np.ones(1, np.float32),
        final_error=0.1,
        positions=np.zeros((1, 2)),
        engine="pie",
        passes=1,
        history={"chi2": np.ones(1)},
    )
    halves = Halves(
        kind="counts", number=0, posteriors=tuple(made), results=(whole, whole), region=region
    )
    test = halves.compared(("object",))
    assert not test.bars_hold
    again = halves.wider(test.by_period).compared(("object",))
    known = np.isfinite(again.by_period)
    assert known.sum() == 3
    assert np.array(again.by_period)[known] == pytest.approx(1, abs=0.03)


def told(T, chance, splits=1, **more):
    """What halves say, in one octave."""
    nan = float("nan")
    return HalfDataTest(
        kind="positions",
        mean_square=T,
        covered=PROBABILITIES,
        covered_after=PROBABILITIES,
        mean_square_after=1.0,
        by_period=(nan, nan, nan, T, nan),
        rough=(nan, nan, nan, T, nan),
        independent=1.0,
        difference_db=20.0,
        chi2=(1.0, 1.0),
        pixels=100,
        modes=1,
        update=("object",),
        chance=(nan, nan, nan, chance, nan),
        splits=splits,
        **more,
    )


def test_several_splits_are_known_better():
    both = together([told(2.0, 0.2), told(2.0, 0.2)])
    assert both.splits == 2
    assert both.by_period[3] == 2.0
    assert both.chance[3] == pytest.approx(0.2 * (2 / 3) ** 0.5 / 2**0.5)
    unlike = together([told(1.0, 0.01), told(3.0, 0.01)])
    # the mean of two that differ by that much: (1 * 0.5 of 3 degrees of freedom)/2
    assert unlike.chance[3] == pytest.approx((0.5 / 3 / 2) ** 0.5, rel=0.01)


def test_what_may_be_chance_is_said_so():
    wide = {"widened": (1.0,) * 5}
    assert not told(1.35, 0.1, **wide).bars_hold
    said = told(1.35, 0.1, **wide).sentence()
    assert "above 4 px the mean square is 1.4 +- 0.19 by chance; that may be chance" in said
    assert "may be chance" not in told(3.0, 0.1, **wide).sentence()
    assert told(1.2, 0.1, **wide).bars_hold
    rows = dict(half_data_rows(told(1.2, 0.1)))
    assert rows["T by period"] == "above 4 px 1.2 +- 0.12"


def test_methods_without_draws_are_refused(wrong):
    problem, found = wrong
    with pytest.raises(PtychonError, match="no draws"):
        halves_disagree(problem, found, Bootstrap(replicates=2, passes=2), backend="numpy")


@pytest.mark.usefixtures("sketched")
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    """`error_bars --halves` chooses, widens and says so; `validate` tries these bars on another
    split; a report finds what halves said.
    """
    size, n = 44, 16
    truth = phantoms.complex_object(
        phantoms.texture((size, size), 1), phantoms.texture((size, size), 2)
    )
    beam = probes.defocused_aperture((n, n), 5.5, 8.0)
    modes = np.stack([beam, 0.3 * beam * np.linspace(-1, 1, n)])
    made = simulate(truth, modes, scan.raster(9, 3, jitter=1), noise="poisson", mean_counts=3e5)
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("scan.cxi"), replace(made.dataset, probe=made.probe[:1]))
    assert (
        main(["reconstruct", "scan.cxi", *["-e", "pie", "-n", "30", "-q", "-o", "found.h5"]]) == 0
    )
    common = ["-q", "--json", "--backend", "numpy"]
    more = ["--halves", "positions", "--draws", "8", "--no-propose"]
    assert main(["error_bars", "found.h5", *more, *common]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["method"] == "laplace"
    assert numbers["result"] == "found_laplace.h5"
    assert "bright enough" in numbers["why"]
    assert max(numbers["widened"]) > 2
    assert find_half_data_test("found_laplace.h5").mean_square > 2
    code = main(["validate", "found_laplace.h5", *common])
    said = json.loads(capsys.readouterr().out)
    assert said["widened"] == pytest.approx(numbers["widened"])
    assert code == (0 if said["bars_hold"] else 1)
    assert said["mean_square"] == pytest.approx(1, abs=0.35)
    assert main(["error_bars", "found.h5", "--halves", "frames", *common]) == 2
    assert "choose one of positions, counts" in capsys.readouterr().err
