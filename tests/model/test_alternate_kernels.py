"""What frames say of themselves, by kernels as by the model, which the kernels must not leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.model import alternate
from ptychon.model.forward import Model
from ptychon.model.problem import Problem
from ptychon.model.unknowns import Unknowns
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate


def _case(near, modes, masked, backend):
    rng = np.random.default_rng(3)
    places = scan.raster(3, 5, jitter=1.5, whole=False, seed=1)
    truth = phantoms.complex_object(
        phantoms.texture((56, 56), 0), phantoms.texture((56, 56), 1), amplitude_range=(0.4, 1.0)
    )
    probe = probes.defocused_aperture((32, 32), 6, 20)
    probe = np.stack([probe, 0.4 * np.roll(probe, 2, 0)])[:modes]
    more = {"geometry": "near", "wavelength": 1e-10, "distance": 1e-3, "pixel_size": 1e-7}
    more = more if near else {}
    data = simulate(truth, probe, places, noise="poisson", mean_counts=1e4, seed=0, **more).dataset
    mask = rng.random((9, 32, 32)) > 0.2 if masked else None
    problem = Problem.from_dataset(replace(data, mask=mask)).to(backend)
    start = probe * np.float32(np.sqrt(1e4 / (abs(probe) ** 2).sum()))
    x = Unknowns(
        object=truth[None].astype(np.complex64),
        probe=start.astype(np.complex64),
        positions=problem.positions + rng.normal(0, 0.4, (9, 2)),
        log_scale=rng.normal(0, 0.2, 9).astype(np.float32),
    )
    return Model.of(problem, backend), problem, x


@pytest.mark.parametrize(
    ("near", "modes", "masked", "threads"),
    [(False, 1, False, 1), (False, 2, True, 2), (True, 1, True, 1), (True, 2, False, 2)],
)
@pytest.mark.parametrize("names", [("positions",), ("log_scale",), ("positions", "log_scale")])
def test_steps_by_kernels_are_those_of_the_model(near, modes, masked, threads, names, monkeypatch):
    backend = get_backend("numpy", threads=threads)
    model, problem, x = _case(near, modes, masked, backend)
    limits = [0.5] * (2 * ("positions" in names)) + [1.0] * ("log_scale" in names)
    assert alternate.thin(model, x)
    fast = alternate.frame_steps(model, problem, x, names, limits)
    slow_backend = get_backend("reference")
    specified = alternate.frame_steps(
        replace(model, backend=slow_backend), problem, x, names, limits
    )
    light = np.concatenate([part for _, part in alternate._lights(model, x)])
    misfit = alternate.misfits(model, problem, x)
    monkeypatch.setattr(alternate, "thin", lambda model, x: False)
    asked = alternate.frame_steps(model, problem, x, names, limits)
    for found in (fast, specified):
        np.testing.assert_allclose(found.change, asked.change, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(found.misfit, asked.misfit, rtol=1e-4)
    np.testing.assert_allclose(misfit, alternate.misfits(model, problem, x), rtol=1e-4)
    expected = np.concatenate([part for _, part in alternate._lights(model, x)])
    np.testing.assert_allclose(light, expected, rtol=1e-3, atol=1e-4 * expected.max())
