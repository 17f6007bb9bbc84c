"""Object, positions and doses found together from simulated counts: where they are, and how well
they are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.model.forward import Model
from ptychon.model.gauss_newton import GaussNewton
from ptychon.model.grid import windows
from ptychon.model.unknowns import Unknowns
from ptychon.simulation import phantoms, probes

FRAME, SHAPE, OWN = (16, 14), (46, 44), ("positions", "log_scale")
SPREAD = {"positions": 0.3, "log_scale": 0.05}


@dataclass
class Fit:
    """Joint Gauss-Newton steps, halved until the energy falls."""

    counts: np.ndarray
    start: Unknowns
    prior: Unknowns
    model: Model

    def energy(self, x):
        light = self.model.intensity(self.model.view(x, slice(None)))
        off = x.axpy(-1, self.start.only(OWN))
        return (light - self.counts * np.log(light)).sum() + 0.5 * float(
            off.dot(off.times(self.prior))
        )

    def operator(self, x):
        return GaussNewton(self.model, x, ("object",), OWN, prior=self.prior)

    def step(self, x):
        pull = x.axpy(-1, self.start.only(OWN)).times(self.prior)
        H, before = self.operator(x), self.energy(x)
        d = H.step(
            H.gradient(lambda light, frames: 1 - self.counts[frames] / light, pull), 1e-2, 60
        )
        while self.energy(x.axpy(1, d)) > before:
            d = d.times(0.5)
        self.model = self.model.follow(x.axpy(1, d))
        return x.axpy(1, d)


def spread_of(errors):
    """Root mean square over frames, without the mean that object and scale take up."""
    return np.sqrt(((errors - errors.mean(axis=0)) ** 2).mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_positions_and_doses_are_found_with_bars_that_hold(seed):
    """49 frames of 1e5 counts, positions wrong by 0.3 px and doses by 5 %; the bars are the spread
    of 8 draws.

    The mean of (error/bar)^2 over 98 positions and 49 doses has itself a standard deviation of
    about 0.2.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[3.5 * np.arange(7)] * 2, indexing="ij"), -1).reshape(-1, 2)
    field = phantoms.complex_object(phantoms.texture(SHAPE, 1), phantoms.texture(SHAPE, 2)).astype(
        complex
    )
    probe = (
        np.atleast_3d(probes.defocused_aperture(FRAME, radius=4.5, defocus=6))
        .astype(complex)
        .reshape(1, *FRAME)
    )
    truth = Unknowns(
        object=field[None],
        probe=probe * np.sqrt(1e5 / (np.abs(probe) ** 2).sum()),
        positions=grid + rng.uniform(-1, 1, grid.shape) + np.array([11, 10.5]),
        log_scale=SPREAD["log_scale"] * rng.standard_normal(len(grid)),
    )
    model = Model(corners=windows(truth.positions, FRAME), backend=get_backend("reference"))
    counts = rng.poisson(model.intensity(model.view(truth, slice(None)))).astype(float)
    start = Unknowns(
        object=truth.object + 0.05 * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)),
        probe=truth.probe,
        positions=truth.positions + SPREAD["positions"] * rng.standard_normal(grid.shape),
        log_scale=np.zeros(len(grid)),
    )
    prior = Unknowns(
        object=np.array(2.0), **{name: np.array(1 / SPREAD[name] ** 2) for name in OWN}
    )
    fit = Fit(
        counts, start, prior, Model(corners=windows(start.positions, FRAME), backend=model.backend)
    )
    x, energies = start, [fit.energy(start)]
    for _ in range(12):
        x = fit.step(x)
        energies.append(fit.energy(x))
    assert (np.diff(energies) <= 0).all()
    H = fit.operator(x)
    draws = [H.step(H.noise(rng), 1e-2, 100) for _ in range(8)]
    for name in OWN:
        error = spread_of(getattr(x, name) - getattr(truth, name))
        bar = np.sqrt(np.mean([spread_of(getattr(d, name)) ** 2 for d in draws]))
        assert error < 0.15 * spread_of(getattr(start, name) - getattr(truth, name))
        assert 0.5 < (error / bar) ** 2 < 1.7, name
