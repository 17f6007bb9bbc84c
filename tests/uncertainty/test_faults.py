"""Bars hold the error of what is wrong with a scan, where it is free: small simulated scans with
positions, doses and a background off by known amounts.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ptychon import Problem
from ptychon.metrics.ambiguities import gauge_of
from ptychon.metrics.residual import illumination
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import PtychonError
from ptychon.uncertainty import laplace
from ptychon.uncertainty.proposal import Gain

SIDE, COUNTS = 24, 1e5


@functools.cache
def made(seed=0, shift=0.0, dose=0.0, dark=0.0):
    """A scan of 49 frames whose positions the data state exactly, doses and background off."""
    rng = np.random.default_rng(100 + seed)
    size = SIDE + 4 * 6 + 10
    truth = phantoms.complex_object(
        phantoms.texture((size, size), seed), phantoms.texture((size, size), seed + 50)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=7, defocus=12)
    places = scan.raster(7, 4, jitter=1, seed=seed, whole=False)
    done = simulate(truth, beam, places, noise="poisson", mean_counts=COUNTS, seed=seed)
    problem = Problem.from_dataset(done.dataset)
    a = dose * rng.standard_normal(len(problem)) if dose else np.zeros(len(problem))
    # the counts of the scan are replaced by new ones, of its own waves with doses and background
    waves = expected(problem, done.object, done.probe)
    light = waves * np.exp(2 * a)[:, None, None] + dark
    counts = rng.poisson(light)
    problem = replace(problem, amplitude=np.sqrt(counts).astype(np.float32))
    if shift:
        off = shift * rng.standard_normal((len(problem), 2))
        problem = replace(problem.with_positions(problem.positions + off), measured=None)
    return problem, done, a


def expected(problem, object, probe):
    """Counts of the waves."""
    from ptychon.backends import get_backend
    from ptychon.model.forward import Model, unknowns_of

    backend = get_backend("reference")
    x = unknowns_of(problem, np.asarray(object, np.complex64), np.asarray(probe, np.complex64))
    waves = Model.of(problem, backend).view(x, slice(0, len(problem))).waves
    return (np.abs(waves) ** 2).sum(axis=1)


def squares(found, done, problem, update):
    """Mean (error/bar)^2 on the lit pixels, what nobody can tell taken off."""
    region, touched = found.region, illumination(problem, done.probe) > 0
    moves = "positions" in update, "dose" in update
    gauge = gauge_of(
        *(problem, found.object, found.probe, "probe" in update, region, touched, *moves)
    )
    error, _ = gauge.remove(found.object.astype(complex) - done.object)
    return float(np.mean(np.abs(error[region]) ** 2 / found.object_std[region] ** 2))


def bars(problem, done, update, **more):
    return laplace(
        problem, done.object, done.probe, update=update, draws=16, backend="numpy", **more
    )


@pytest.mark.parametrize(
    ("name", "fault", "worst", "most"),
    [
        # measured with it held and free, two seeds: 5.4 6.4, 1.07 1.00; 7.1 6.3, 0.97 1.08;
        # 121 123, 1.18 1.24
        ("dose", {"dose": 0.05}, 4, 1.15),
        ("positions", {"shift": 0.3}, 4, 1.15),
        ("background", {"dark": 0.1 * COUNTS / SIDE**2}, 50, 1.3),
    ],
)
def test_bars_hold_what_is_free_and_ask_for_what_is_not(name, fault, worst, most):
    """Mean (error/bar)^2 of the optimum, and what the score test asks for."""
    problem, done, _ = made(**fault)
    held = bars(problem, done, ("object",), propose=True)
    assert squares(held, done, problem, ("object",)) > worst
    assert held.proposed == (name,)
    assert any(f"freeing {name}" in each and "free it (--update" in each for each in held.gains)
    update = ("object", name)
    free = bars(problem, done, update)
    assert 0.85 < squares(free, done, problem, update) < most
    assert free.chi2 == pytest.approx(1, abs=0.05)
    assert any("free" in each and name[:4] in each for each in free.conditional)
    assert (free.background_std is None) == (name != "background")


def test_a_scan_without_faults_asks_for_nothing():
    problem, done, _ = made()
    assert bars(problem, done, ("object",), propose=True).proposed == ()


def test_nothing_is_asked_for_before_the_optimum():
    """A step that is left would be taken for what is held."""
    problem, done, _ = made()
    early = SimpleNamespace(object=0.98 * done.object, probe=done.probe)
    found = bars(problem, early, ("object",), propose=True, refine=0)
    assert found.chi2 < 2
    assert found.gains == ()


def test_what_cannot_be_free_is_refused():
    problem, done, _ = made()
    with pytest.raises(PtychonError, match="weights can be free of a probe that varies"):
        bars(problem, done, ("object", "weights"))
    with pytest.raises(PtychonError, match="a background can be free where the noise is"):
        bars(problem, done, ("object", "background"), noise="amplitude")
    with pytest.raises(PtychonError, match="the form of the background is 'round'"):
        bars(problem, done, ("object", "background"), background_form="round")


def test_ctrl_c_gives_the_draws_so_far():
    problem, done, _ = made()
    told = []

    def tell(what, number, total):
        told.append(what)
        if what.startswith("sampling") and (number, total) == (8, 16):
            raise KeyboardInterrupt

    found = bars(problem, done, ("object",), tell=tell)
    assert found.stopped
    assert found.samples == 8
    assert any("in all" in each for each in told)
    assert np.isfinite(found.object_std).all()


def test_a_background_of_no_light_is_not_asked_for():
    """Dark pixels pull at a background: of the faultless scan of the demonstration by nine times of
    chance, with 3e-7 of the light.
    """
    gain = Gain("background", 109, 12.5, 3.5, 25, light=3e-7)
    assert not gain.proposed
    assert "3e-05 % of the light" in gain.sentence()
    assert replace(gain, light=0.01).proposed
    doses = Gain("dose", 186, 83, 9.1, 166, differ=0.003)  # of a faultless scan
    assert not doses.proposed
    assert replace(doses, differ=0.02).proposed
