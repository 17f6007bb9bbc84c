"""`error_bars` without a method: which is chosen, why, and what a limit of time leaves."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from ptychon import Problem, PtychonError, error_bars, reconstruct
from ptychon.__main__ import main
from ptychon.backends import get_backend
from ptychon.simulation.phantoms import complex_object, texture
from ptychon.simulation.probes import defocused_aperture
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty import laplace
from ptychon.uncertainty.call import method_for
from ptychon.uncertainty.choose import choose, learned_by


def scanned(counts, step=3, engine="pie"):
    """(Problem, Result) of 36 frames of 16 x 16, 12 numbers measured for each that is unknown."""
    size = 16 + 5 * step + 4
    truth = complex_object(texture((size, size)), texture((size, size), 1))
    probe = defocused_aperture((16, 16), radius=5, defocus=4)
    made = simulate(truth, probe, raster(6, step), noise="poisson", mean_counts=counts)
    problem = Problem.from_dataset(made.dataset)
    found = reconstruct(
        problem, engine, passes=20, probe=made.probe, backend="numpy", judge=False, say=None
    )
    return problem, found


@pytest.fixture(scope="module")
def bright():
    return scanned(1e6)


def test_bright_data_take_laplace(bright):
    found = choose(*bright)
    assert found.method == "laplace"
    assert "bright enough" in found.why
    assert choose(*bright, refine=True).prior == "white"
    assert found.update == ("object",)
    assert found.seconds is None


def test_few_counts_and_a_known_probe_take_joint():
    problem, found = scanned(1e3)
    assert choose(problem, found).method == "joint"
    learned = choose(problem, found, update={"probe": True})
    assert (learned.method, learned.prior) == ("sampling", "local")
    assert "no Gaussian" in learned.why


def test_a_learned_probe_at_few_counts_takes_laplace_where_chains_would_take_long(monkeypatch):
    problem, found = scanned(1e3)
    module = sys.modules["ptychon.uncertainty.choose"]
    monkeypatch.setattr(module, "SMALL", problem.amplitude.size)
    learned = choose(problem, found, update={"probe": True})
    assert learned.method == "laplace"
    assert "too wide" in learned.why


def test_chains_are_not_chosen_for_halves_of_the_data():
    problem, found = scanned(1e3)
    given = {"update": {"probe": True}}
    assert method_for(problem, found, **given)[0].name == "sampling"
    assert method_for(problem, found, halves="counts", **given)[0].name == "laplace"


def test_the_prior_of_an_optimum_at_few_counts_is_learned():
    problem, found = scanned(1e3)
    for update in ({"probe": True}, {}):
        method, why = method_for(problem, found, update=update, refine=True)
        assert (method.name, method.prior, method.refine) == ("laplace", "local", True)
        assert "is learned" in why
    method, _ = method_for(problem, found, refine=True, prior="white")
    assert method.prior == "white"


def test_what_the_run_has_learned_is_free(bright):
    problem, found = bright
    moved = replace(
        found, positions_given=found.positions + 0.1, log_scale=np.zeros(len(problem), np.float32)
    )
    assert learned_by(moved) == ("object", "positions", "log_scale")
    choice = choose(problem, moved)
    assert choice.method == "laplace"
    assert choice.update == ("object", "positions", "log_scale")
    assert "positions, dose are free" in choice.why
    held = choose(problem, moved, update={"positions": False})
    assert held.update == ("object", "log_scale")
    dark = replace(found, background=np.ones(problem.frame_shape, np.float32))
    assert choose(problem, dark).update == ("object", "background")
    assert learned_by(dark) == ("object",)


def test_modes_take_laplace(bright):
    problem, found = bright
    two = replace(found, probe=np.concatenate([found.probe, 0.3 * found.probe]))
    choice = choose(problem, two)
    assert choice.method == "laplace"
    assert "2 modes" in choice.why


def test_several_learned_modes_at_few_counts_take_chains(bright):
    problem, found = scanned(0.7 * 200 * 16**2)
    two = replace(found, probe=np.concatenate([found.probe, 0.3 * found.probe]))
    learned = choose(problem, two, update={"probe": True})
    assert (learned.method, learned.prior) == ("sampling", "local")
    assert "2 modes" in learned.why
    assert choose(problem, two).method == "laplace"
    assert choose(bright[0], two, update={"probe": True}).method == "laplace"


def test_few_measurements_take_chains():
    problem, found = scanned(1e6, step=8)
    choice = choose(problem, found)
    assert choice.method == "sampling"
    assert "measured numbers for each unknown" in choice.why


def test_options_say_the_method_too(bright):
    problem, found = bright
    method, why = method_for(problem, found, replicates=3)
    assert method.name == "bootstrap"
    assert "options" in why
    with pytest.raises(PtychonError, match="no method of error bars has an option 'drawz'"):
        method_for(problem, found, drawz=3)
    with pytest.raises(PtychonError, match="has all of the options replicates, twin"):
        method_for(problem, found, replicates=3, twin=False)


def test_the_time_is_told_before(bright):
    choice = choose(*bright, backend=get_backend("numpy"))
    assert 0 < choice.seconds < 100
    assert f"about {choice.seconds:.0f} s" in choice.sentence()


def test_the_call_says_what_it_chose(bright):
    problem, found = bright
    said = []
    bars = error_bars(
        problem,
        found,
        draws=4,
        propose=False,
        backend="numpy",
        tell=lambda *what: said.append(what),
    )
    how = bars.settings["error_bars"]
    assert how["method"] == "laplace"
    assert how["why"] == said[0][0]
    assert bars.object_std is not None


def test_a_limit_of_time_leaves_four_draws_and_says_so(bright):
    problem, found = bright
    way = {"update": ("object",), "backend": "numpy", "draws": 16}
    short = laplace(problem, found.object, found.probe, limit=1e-3, **way)
    assert short.samples == 4
    assert short.stopped
    whole = laplace(problem, found.object, found.probe, limit=600.0, **way)
    assert whole.samples == 16
    assert not whole.stopped


def test_ctrl_c_on_the_way_to_the_optimum_gives_what_there_is(bright):
    problem, found = bright

    def press(what, done, total):
        if what == "optimum" and done == 1:
            raise KeyboardInterrupt

    bars = laplace(
        *(problem, found.object, found.probe),
        update=("object",),
        backend="numpy",
        draws=16,
        tell=press,
    )
    assert bars.samples == 4
    assert bars.stopped


@pytest.mark.parametrize("name", ["bars", "uncertainty", "error-bars"])
def test_old_names_say_the_new_one(name, capsys):
    assert main([name, "result.h5"]) == 2
    assert "is called ptychon error_bars" in capsys.readouterr().err


def test_the_result_says_how_far_the_optimum_is(bright):
    problem, found = bright
    way = {"update": ("object",), "backend": "numpy", "draws": 4}
    near = laplace(problem, found.object, found.probe, refine=8, **way)
    assert 0 <= np.nanmax(near.remains) < 0.1
    assert near.way_left().startswith("reached")
    spoilt = found.object * np.exp(0.3j * np.random.default_rng(0).normal(size=found.object.shape))
    far = laplace(problem, spoilt, found.probe, refine=1, **way)
    assert np.nanmax(far.remains) > 0.1
    assert far.way_left().startswith("not reached")
    assert not laplace(problem, found.object, found.probe, refine=0, **way).way_left()


def test_several_learned_modes_take_longer(bright, monkeypatch):
    module = sys.modules["ptychon.uncertainty.choose"]
    monkeypatch.setattr(module, "products_seconds", lambda *_: 0.01)
    problem, found = bright
    two = replace(found, probe=np.concatenate([found.probe, 0.3 * found.probe]))
    host, free = get_backend("numpy"), {"update": {"probe": True}, "twin": False}
    one, both = (choose(problem, r, backend=host, **free).seconds for r in (found, two))
    assert both == pytest.approx(module.SEVERAL * one)
