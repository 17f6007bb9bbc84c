"""`ptychon.error_bars`: every method on a small scan, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptychon
from ptychon import PtychonError, error_bars, reconstruct
from ptychon.simulation.phantoms import complex_object, texture
from ptychon.simulation.probes import defocused_aperture
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.method import Method
from ptychon.uncertainty.methods import registry

#: The shortest run of each method that still makes sense.
SHORT = {
    "laplace": {"draws": 4},
    "joint": {"draws": 2, "passes": 5, "twin": False},
    "bootstrap": {"replicates": 3, "passes": 10},
    "sampling": {"draws": 4, "passes": 640},
}


@pytest.fixture(scope="module")
def small():
    """(Simulation, Result) of a known probe: 25 frames of 16 x 16."""
    truth = complex_object(texture((40, 40)), texture((40, 40), 1))
    probe = defocused_aperture((16, 16), radius=5, defocus=4)
    made = simulate(truth, probe, raster(5, 4), noise="poisson", mean_counts=1e5)
    result = reconstruct(
        made.dataset, "pie", passes=60, probe=made.probe, backend="numpy", judge=False, say=None
    )
    return made, result


def test_every_method_is_tried_here():
    assert set(SHORT) == set(registry)
    assert error_bars is ptychon.error_bars


@pytest.mark.parametrize("method", SHORT)
def test_every_method_gives_bars_of_the_size_of_the_error(small, method):
    """The probe is known: one global phase is free, and taken out; the rms error is about a bar."""
    made, before = small
    result = error_bars(made.dataset, before, method, backend="numpy", seed=1, **SHORT[method])
    assert result.object_std.shape == result.object.shape == before.object.shape
    assert result.object_std.dtype == np.float32
    assert result.settings["error_bars"]["method"] == method
    assert (result.draws is not None) == (method in ("joint", "laplace", "sampling"))
    inside = before.illumination > 0.5 * before.illumination.max()
    y, x = (np.array(made.object.shape) - before.object.shape) // 2
    truth = made.object[y : y + before.object.shape[0], x : x + before.object.shape[1]][inside]
    found, std = result.object[inside], result.object_std[inside]
    turn = np.vdot(found, truth)
    squares = np.abs(truth - found * turn / abs(turn)) ** 2 / std**2
    assert 0.5 < np.sqrt(np.mean(squares)) < 1.6
    assert np.array_equal(before.object, small[1].object)
    assert before.object_std is None


def test_laplace_of_a_problem_is_that_of_its_data(small):
    made, before = small
    problem = ptychon.Problem.from_dataset(made.dataset)
    one, two = (
        error_bars(data, before, draws=3, backend="numpy") for data in (problem, made.dataset)
    )
    assert np.array_equal(one.object_std, two.object_std)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("laplas", {}, "unknown method of error bars 'laplas'; did you mean 'laplace'"),
        ("ep", {}, "unknown method of error bars 'ep'.* joint"),
        ("laplace", {"drawz": 3}, "no option 'drawz'; did you mean 'draws'"),
        ("laplace", {"replicates": 3}, "no option 'replicates'; it belongs to bootstrap"),
        ("bootstrap", {"draws": 3}, "'draws'; it belongs to laplace, joint, sampling"),
        ("laplace", {"passes": 3}, r"no option 'passes'; it belongs to joint, bootstrap"),
        ("laplace", {"prior": "pink"}, "prior is 'pink'; choose one of white, learned, local"),
        ("joint", {"prior": "learned"}, "no option 'prior'; it belongs to laplace"),
        ("laplace", {"draws": 1}, "draws is 1; method 'laplace' of error bars needs at least 2"),
        ("laplace", {"draws": 2.5}, "draws is 2.5; it must be a whole number"),
        ("joint", {"draws": 0}, "draws is 0; .* at least 1"),
        ("bootstrap", {"replicates": 1}, "replicates is 1; .* at least 2"),
        ("sampling", {"passes": 0}, "passes is 0; .* at least 1"),
        ("laplace", {"seed": -1}, "seed is -1; .* at least 0"),
        ("laplace", {"noise_variance": 0.0}, "noise_variance is 0.0; it must be positive"),
        ("laplace", {"noise_variance": float("nan")}, "noise_variance is nan"),
        ("joint", {"background": -1.0}, "background is -1"),
        ("laplace", {"background": 1.0, "noise_variance": 0.3}, "belongs to Poisson noise"),
        ("laplace", {"backend": "numpi"}, "numpi"),
    ],
)
def test_what_is_refused(small, method, options, message):
    made, before = small
    with pytest.raises(PtychonError, match=message):
        error_bars(made.dataset, before, method, **{"backend": "numpy"} | options)


def test_data_of_another_result_are_refused(small):
    made, before = small
    fewer = replace(
        made.dataset, patterns=made.dataset.patterns[:20], positions=made.dataset.positions[:20]
    )
    with pytest.raises(PtychonError, match=r"20 frames .* the result has 25 .* made from"):
        error_bars(fewer, before, draws=2, backend="numpy")


def test_one_record_states_what_the_methods_share():
    common = {"noise_variance", "background", "seed"}
    for cls in registry.values():
        assert issubclass(cls, Method)
        assert not common & set(vars(cls)["__annotations__"])
        made = cls(noise_variance=0.25, background=2.0, seed=3)
        assert (made.noise_variance, made.background, made.seed) == (0.25, 2.0, 3)


def test_update_says_what_is_free_as_it_does_for_a_run(small):
    """PIE held the probe: by default it is known; freed, its error widens the bars."""
    made, before = small
    way = {"draws": 4, "backend": "numpy", "seed": 1}
    known = error_bars(made.dataset, before, **way)
    same = error_bars(made.dataset, before, update=("object",), **way)
    freed = error_bars(made.dataset, before, update={"probe": True}, **way)
    moved = error_bars(made.dataset, before, update={"positions": True, "dose": True}, **way)
    assert np.array_equal(known.object_std, same.object_std)
    inside = before.illumination > 0.5 * before.illumination.max()
    for wider in (freed, moved):
        assert np.mean(wider.object_std[inside] ** 2) > 1.02 * np.mean(
            known.object_std[inside] ** 2
        )
    assert known.settings["error_bars"]["update"] == ["object"]
    assert freed.settings["error_bars"]["update"] == ["object", "probe"]
    assert moved.settings["error_bars"]["update"] == ["object", "positions", "log_scale"]


@pytest.mark.parametrize(
    ("method", "update", "message"),
    [
        ("laplace", {"slices": True}, "there is no unknown 'slices'; known are object, probe"),
        ("laplace", {"object": False}, "the unknowns to update are none; the object must be among"),
        ("laplace", {"probe": 3}, "update of probe is 3; error bars take yes or no"),
        (
            "joint",
            {"positions": True},
            "'joint' of error bars takes positions as known.* 'laplace'",
        ),
        ("sampling", ("object", "dose"), "'sampling' of error bars takes dose as known"),
        (
            "bootstrap",
            {"probe": True},
            r"cannot hold or free the probe: leave out update \(--update",
        ),
    ],
)
def test_update_that_cannot_be_is_refused(small, method, update, message):
    made, before = small
    with pytest.raises(PtychonError, match=message):
        error_bars(made.dataset, before, method, update=update, backend="numpy")
