"""Doses refined between the passes of LSQ-ML, which has a momentum of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychon import Problem
from ptychon.backends import get_backend
from ptychon.engines import LSQML, RPIE, After, Context
from ptychon.run.guess import initial_object, mean_power, scaled_probe
from ptychon.run.iterate import iterate
from ptychon.run.refine import Refine, Turns
from ptychon.run.schedule import Schedule
from ptychon.simulation import phantoms, probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate


def test_doses_do_not_swing():
    """Doses off by 10 % come to 2 % in 16 passes, beside a gradient across the scan, which the
    probe may take up. With momentum of their own they were off by 6.5 %.
    """
    rng, positions = np.random.default_rng(24), raster(8, 4.0, jitter=1.0, seed=24)
    size = 32 + int(np.ceil(np.ptp(positions, axis=0).max())) + 4
    cell, texture = (phantoms.make(name, (size, size), 24) for name in ("cell", "texture"))
    truth = ((1 - 0.5 * texture) * np.exp(2j * cell)).astype(np.complex64)
    wrong, right = (
        probes.defocused_aperture((32, 32), 6 * f, 8 * g) for f, g in ((1.1, 1.3), (1, 1))
    )
    made = simulate(truth, right, positions, noise="poisson", mean_counts=1e6, seed=24)
    problem = Problem.from_dataset(made.dataset)
    dose = np.exp(0.1 * rng.standard_normal(len(problem))).astype(np.float32)
    amplitude = problem.amplitude * dose[:, None, None]
    problem = replace(problem, amplitude=amplitude, counting=False, noise_variance=0.25)
    probe = scaled_probe(wrong[None], mean_power(problem))
    object = initial_object(problem, probe, mean_power(problem))
    turns = Turns(Refine(), {"log_scale": After(2)}, 16, 0)
    ctx, schedule = Context(get_backend("numpy", threads=1)), Schedule(kind="sparse", shuffle=True)
    steps = iterate(problem, LSQML(), object, probe, ctx=ctx, schedule=schedule, turns=turns)
    for _ in range(16):
        found = next(steps).found
    off = found.log_scale - np.log(dose)
    plane = np.column_stack([np.ones(len(off)), problem.positions])
    off = off - plane @ np.linalg.lstsq(plane, off, rcond=None)[0]
    assert off.std() < 0.025
    assert not RPIE().has_momentum
    assert not LSQML(momentum_start=None).has_momentum
