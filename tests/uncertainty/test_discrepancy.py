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
from ptychon.io import write_dataset
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.call import with_bars
from ptychon.uncertainty.discrepancy import filled, gains, halves_disagree, tried_again, widened
from ptychon.uncertainty.methods import Bootstrap, Laplace
from ptychon.uncertainty.posterior import Posterior
from ptychon.uncertainty.saved import find_half_data_test, load_posterior, save_posterior
from ptychon.uncertainty.spectrum import octaves, rings
from ptychon.uncertainty.splitting import halves_of


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


def test_the_model_is_wrong_and_widened_bars_hold_on_another_split(wrong, bars):
    """Bars of single pixels are several times too small; after the factors of one split T is 1 on
    another that has nothing to do with it.
    """
    problem, found = wrong
    whole, posterior = bars
    before = posterior.halves
    assert before.mean_square > 4
    assert not before.bars_hold
    assert posterior.widened == filled(before.by_period)
    how = whole.settings["error_bars"]
    assert how["halves"] == "positions"
    told = replace(found, settings=whole.settings, draws=posterior.draws)
    after = tried_again(problem, told, backend="numpy")
    assert after.widened == posterior.widened
    known = [T for T in after.by_period if np.isfinite(T)]
    assert len(known) >= 2
    assert after.bars_hold, after.by_period
    assert "the bars hold on another" in after.sentence()


def test_bars_are_wider_by_the_factors(wrong, bars):
    problem, found = wrong
    _, posterior = bars
    plain = error_bars(problem, found, "laplace", draws=8, propose=False, backend="numpy")
    lit = posterior.region
    ratio = np.mean(posterior.object_std[lit] ** 2) / np.mean(plain.object_std[lit] ** 2)
    assert ratio > 1.5
    assert "disagreement of two halves by positions" in posterior.conditional[-1]


def test_they_come_back_from_a_file(wrong, bars, tmp_path):
    whole, posterior = bars
    save_posterior(tmp_path / "bars.h5", whole, posterior)
    again = load_posterior(tmp_path / "bars.h5")
    assert tuple(again.widened) == pytest.approx(posterior.widened)
    assert again.halves.by_period == pytest.approx(posterior.halves.by_period, nan_ok=True)
    assert again.halves.kind == "positions"
    assert again.halves.chi2 == posterior.halves.chi2


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


def test_the_other_split_has_nothing_to_do_with_the_first(wrong):
    problem, _ = wrong
    sides = []
    for other in (False, True):
        one, two = halves_of(problem, "positions", 3, other)
        assert len(one) + len(two) == len(problem)
        mine = {tuple(p) for p in one.positions.tolist()}
        sides.append(np.array([1 if tuple(p) in mine else -1 for p in problem.positions.tolist()]))
    # all pairs of frames cancel; the last of an odd number stays where it is
    assert sides[0] @ sides[1] == len(problem) % 2
    first, second = (halves_of(problem, "counts", 3, other)[0].amplitude for other in (False, True))
    assert not np.array_equal(first, second)


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
