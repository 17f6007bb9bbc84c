"""Chains under a prior that is learned: its energy, and bars where a white one is wrong or no
Gaussian will do.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from _problems import make_case, normal
from ptychon import Problem, PtychonError, reconstruct
from ptychon.backends import get_backend
from ptychon.metrics.alignment import align, phase_align
from ptychon.model.noise import Noise
from ptychon.uncertainty import laplace, sample
from ptychon.uncertainty.chains import Mass
from ptychon.uncertainty.local import Local
from ptychon.uncertainty.methods import make_method
from ptychon.uncertainty.potential import Potential
from ptychon.uncertainty.prior import Seen, Spectral

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from second_simulator import Cell, dataset_of


class Alike:
    """Every pixel by itself, each real part with a precision of 2/S."""

    def __init__(self, S):
        self.diagonal = 2 / S

    def __call__(self, field):
        return np.float32(self.diagonal) * field


def priors(case, backend):
    seen = Seen.of(np.ones(case.problem.object_shape, bool))
    spectral = Spectral.first(backend, seen, case.object)
    light = np.full(case.problem.object_shape, 3.0)
    return spectral, Local.of(spectral, case.object, light)


@pytest.mark.parametrize("name", ["numpy", "reference"])
def test_a_prior_that_holds_nothing_together_is_the_white_one(name):
    case, backend = make_case(subpixel=True), get_backend(name)
    given = (case.problem.to(backend), case.probe.astype(np.complex64), Noise("poisson"), backend)
    x = np.concatenate([case.object.ravel(), case.probe.ravel()]).astype(np.complex64)
    (U, force), (V, other) = (
        Potential(*given, True, 0.7, K)(backend.asarray(x)) for K in (None, {"object": Alike(0.7)})
    )
    assert pytest.approx(U, rel=1e-6) == V
    np.testing.assert_allclose(other, force, rtol=1e-5, atol=1e-5 * np.abs(force).max())


@pytest.mark.parametrize("which", [0, 1], ids=["spectra", "local variances"])
def test_energy_and_gradient_hold_the_prior(which):
    """Less those without any, they are O* K O/2 and K O; and the one is the other's derivative."""
    case, backend = make_case(), get_backend("numpy")
    K = priors(case, backend)[which]
    given = (case.problem.to(backend), case.probe.astype(np.complex64), Noise("poisson"), backend)
    potential = Potential(*given, True, 0.7, {"object": K})
    x = np.concatenate([case.object.ravel(), case.probe.ravel()]).astype(np.complex64)
    own, pull = potential.of_prior(x)
    potential.between, potential.prior = {}, potential.prior.copy()
    probe_own, probe_pull = potential.of_prior(x)
    field = K(case.object[None].astype(np.complex64))
    expected = 0.5 * (field.conj() * case.object[None]).real.sum()
    assert own - probe_own == pytest.approx(float(expected), rel=1e-4)
    assert not probe_pull[: case.object.size].any()
    np.testing.assert_allclose(pull[: case.object.size], field.ravel(), rtol=1e-5, atol=1e-6)
    potential.between = {"object": K}
    step = normal(np.random.default_rng(1), x.shape)
    step *= 0.02 * np.linalg.norm(x) / np.linalg.norm(step)
    ahead, back = (potential.of_prior((x + s * step).astype(np.complex64))[0] for s in (1, -1))
    slope = (pull.conj() * step).real.sum(dtype=float)
    assert (ahead - back) / 2 == pytest.approx(slope, rel=2e-3, abs=1e-4 * own)


def test_the_power_of_a_probe_is_held_by_the_energy_whose_gradient_holds_it():
    case, backend = make_case(), get_backend("numpy")
    given = (case.problem.to(backend), case.probe.astype(np.complex64), Noise("poisson"), backend)
    x = np.concatenate([case.object.ravel(), 1.1 * case.probe.ravel()]).astype(np.complex64)
    free, held = (Potential(*given, True, 0.7) for _ in range(2))
    held.held = 1e5
    (U, pull), (V, more) = (p.of_prior(x) for p in (free, held))
    assert pytest.approx(U + 0.5e5 * np.log(1.21) ** 2, rel=1e-4) == V
    step = normal(np.random.default_rng(1), x.shape) * np.float32(1e-3)
    ahead, back = (held.of_prior((x + s * step).astype(np.complex64))[0] for s in (1, -1))
    slope = (more.conj() * step).real.sum(dtype=float)
    assert (ahead - back) / 2 == pytest.approx(slope, rel=1e-2)
    n = case.object.size
    np.testing.assert_array_equal(more[:n], pull[:n])


def test_chains_stay_at_the_scale_between_object_and_probe(monkeypatch):
    """The volume of the scale carries a free chain away, by more than this in these passes."""
    module = importlib.import_module("ptychon.uncertainty.sampling")
    data, _, _ = dataset_of(Cell("power-1.5", False, frame=16, side=5, step=3.0, dose=1e4), 0)
    problem = Problem.from_dataset(data)
    start = reconstruct(problem, "rpie", passes=100, backend="numpy", judge=False, say=None)
    ended = []

    def kept(chains, *rest, run=module.run_all_of):
        found = run(chains, *rest)
        ended.extend(found[0])
        return found

    monkeypatch.setattr(module, "run_all_of", kept)
    sample(problem, start.object, start.probe, prior="learned", passes=1500, backend="numpy")
    for chain in ended:
        power = np.sum(np.abs(chain.potential.unpack(chain.x)[1]) ** 2)
        assert power == pytest.approx(chain.potential.power, rel=0.02)


def test_momenta_have_the_mass_that_velocities_are_divided_by():
    case, backend = make_case(), get_backend("numpy")
    K, shape = priors(case, backend)[0], case.problem.object_shape
    n = case.object.size
    mass = Mass(np.full(n + 5, 4, np.float32), K, 3.0, shape)
    rng = np.random.default_rng(3)
    energies = []
    for _ in range(20):
        p = mass.draw(rng, np.asarray)
        v = mass.velocity(p)
        energies.append((p.conj() * v).real.sum(dtype=float) / (2 * p.size))
    assert np.mean(energies) == pytest.approx(1, abs=5 * (20 * p.size) ** -0.5)
    field = v[:n].reshape(1, *shape)
    np.testing.assert_allclose((K(field) + 3 * field).ravel(), p[:n], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(v[n:], p[n:] / 4)


@pytest.mark.parametrize(("kind", "dose"), [("power-2", 2e3), ("smooth-3.5", 1e4)])
def test_a_learned_prior_has_smaller_errors_and_bars_that_hold_them(kind, dose):
    """8 and 39 counts a pixel; what the prior of a smooth object rules out has 1e9 times the
    precision of the rest, and chains move all the same.
    """
    data, truth, probe = dataset_of(Cell(kind, frame=16, side=5, step=3.0, dose=dose), 0)
    problem, truth = Problem.from_dataset(data), truth.astype(np.complex64)
    first = np.asarray(probe[None], np.complex64)
    start = reconstruct(problem, "pie", passes=30, probe=first, backend="numpy")
    errors, way = {}, {"update": ("object",), "passes": 3000, "backend": "numpy"}
    for prior in ("white", "learned"):
        bars = sample(problem, start.object, start.probe, prior=prior, **way)
        off = np.abs(phase_align(bars.object, truth, bars.region) - truth)[bars.region]
        errors[prior] = np.mean(off**2)
        assert 0.7 < np.mean((off / bars.object_std[bars.region]) ** 2) < 1.4
        assert ("spectra" in " ".join(bars.conditional)) == (prior == "learned")
        assert (bars.assumed is not None) == (prior == "learned")
    assert errors["learned"] < 0.5 * errors["white"]


@pytest.mark.slow
def test_with_a_learned_probe_at_few_counts_no_gaussian_is_wide_enough():
    """An aperture whose light stays near the axis: most pixels of the detector have a count or
    none.
    """
    from ptychon.simulation.probes import defocused_aperture

    wide, right = [], []
    cell = Cell("power-1.5", frame=24, side=6, step=3.4, dose=22_500.0)
    beam = defocused_aperture((24, 24), 8.6, 12).astype(complex)
    for seed in range(2):
        data, truth, _ = dataset_of(cell, seed, beam)
        problem = Problem.from_dataset(data)
        start = reconstruct(problem, "rpie", passes=300, backend="numpy", judge=False, say=None)
        way = make_method("sampling", prior="learned", update=("object", "probe"), seed=seed)
        nothing = (lambda *_: None, Path("nowhere"))
        _, bars = way.run(problem, start, "numpy", *nothing)
        other = laplace(problem, bars.object, bars.probe, prior="learned", backend="numpy")
        lit = bars.region
        wide.append(np.mean(bars.object_std[lit] ** 2) / np.mean(other.object_std[lit] ** 2))
        laid = align(bars.object, truth.astype("c8"), region=lit, max_shift=4, subpixel=True)
        off = np.abs(laid.estimate - truth)[lit] / (bars.object_std[lit] / abs(laid.scale))
        right.append(np.mean(off**2))
        assert bars.agreement < 1.02
    assert min(wide) > 1.1
    assert 0.75 < np.mean(right) < 1.3


def test_an_unknown_prior_is_refused():
    case = make_case()
    refused = "prior is 'flat'; choose one of white, learned, local"
    with pytest.raises(PtychonError, match=refused):
        sample(case.problem, case.object, case.probe, prior="flat")
    with pytest.raises(PtychonError, match=refused):
        make_method("sampling", prior="flat")
