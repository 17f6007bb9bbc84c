"""Probe modes: what is added to a probe, the basis they are stated in, and that known mixtures are
found.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.io import load_result, write_dataset
from ptychon.metrics.residual import residual
from ptychon.model.problem import Problem
from ptychon.run.modes import described, orthogonal, shares, started
from ptychon.run.observers import Interrupt
from ptychon.simulation import phantoms, probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

#: Share of the power in each mode of the beam that is to be found.
POWERS = (0.7, 0.2, 0.1)

pytestmark = pytest.mark.usefixtures("sketched")


def beams(side, radius, defocus):
    """Three orthonormal waves through one aperture, each with aberrations of its own,
    (3, side, side).
    """
    beam = probes.defocused_aperture((side, side), radius=radius, defocus=defocus)
    u = (np.arange(side) - side // 2) / radius
    y, x = u[:, None], u
    waves = np.stack([beam, beam * np.exp(1.5j * x) * (1 + y), beam * np.exp(-1j * y) * (x - 0.5)])
    basis = np.linalg.svd(waves.reshape(3, -1), full_matrices=False)[2].reshape(waves.shape)
    return basis * np.sqrt(POWERS)[:, None, None]


@pytest.fixture(scope="module")
def truth():
    return beams(64, radius=12, defocus=30)


@pytest.fixture(scope="module")
def scan(truth):
    size = (160, 160)
    specimen = phantoms.complex_object(
        phantoms.cell(size), phantoms.siemens_star(size), phase_range=(0.0, 1.2)
    )
    return simulate(
        specimen, truth, raster(11, 6, jitter=1, whole=False), noise="poisson", mean_counts=1e5
    )


def intensity(probe):
    return (np.abs(np.fft.fft2(probe, norm="ortho")) ** 2).sum(axis=0)


def test_weak_modes_are_orthogonal_and_keep_the_power(truth):
    first = truth[:1].astype(np.complex64)
    made = started(first, 6)
    assert made.shape == (6, 64, 64)
    assert made.dtype == np.complex64
    flat = made.reshape(6, -1).astype(complex)
    gram = flat.conj() @ flat.T
    power = np.abs(np.diag(gram))
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-7)
    np.testing.assert_allclose(power / power.sum(), [0.9, 0.02, 0.02, 0.02, 0.02, 0.02], rtol=1e-5)
    assert power.sum() == pytest.approx(float((np.abs(first) ** 2).sum()), rel=1e-6)
    # the two of first order are the beam times its coordinates about the centre of mass
    light = np.abs(first[0]) ** 2
    y, x = np.indices(light.shape)
    for mode, axis in ((made[1], x), (made[2], y)):
        wave = (axis - (axis * light).sum() / light.sum()) * first[0]
        assert abs(np.vdot(mode, wave)) == pytest.approx(
            np.linalg.norm(mode) * np.linalg.norm(wave), rel=0.05
        )


def test_modes_are_taken_from_what_there_is(truth):
    three = truth.astype(np.complex64)
    np.testing.assert_array_equal(started(three, 3), three)
    kept = started(three, 2)
    np.testing.assert_allclose(shares(kept), [7 / 9, 2 / 9], rtol=1e-5)
    assert (np.abs(kept) ** 2).sum() == pytest.approx((np.abs(three) ** 2).sum(), rel=1e-6)
    more = started(three, 4)
    np.testing.assert_allclose(shares(more), [0.7 * 0.98, 0.2 * 0.98, 0.1 * 0.98, 0.02], rtol=1e-5)
    with pytest.raises(PtychonError, match="modes is 0; at least 1"):
        started(three, 0)


def test_a_unitary_mixture_is_the_same_beam(truth):
    random = np.random.default_rng(3)
    mixing = np.linalg.qr(random.standard_normal((3, 3)) + 1j * random.standard_normal((3, 3)))[0]
    mixed = np.tensordot(mixing, truth, 1)
    found = orthogonal(mixed)
    np.testing.assert_allclose(
        intensity(found), intensity(truth), rtol=0, atol=1e-6 * intensity(truth).max()
    )
    np.testing.assert_allclose(shares(found), POWERS, rtol=1e-5)
    for mode, wave in zip(found, truth, strict=True):  # the same waves but for a phase
        assert abs(np.vdot(mode, wave)) == pytest.approx(np.vdot(wave, wave).real, rel=1e-5)
    np.testing.assert_allclose(orthogonal(found), found, atol=1e-6)
    assert described(shares(found)) == "70.0, 20.0, 10.0 %"


def test_three_modes_are_found(scan, truth):
    """Powers within a point, the space of the modes, and R at the noise, from the first of them
    alone.
    """
    problem = Problem.from_dataset(scan.dataset)
    result = reconstruct(problem, "rpie", passes=60, probe=truth[0], modes=3, backend="numpy")
    one = reconstruct(problem, "rpie", passes=60, probe=truth[0], backend="numpy")
    noise = residual(problem, scan.object, scan.probe)
    assert (
        0.9 * noise < result.final_error < noise < 0.85 * one.final_error
    )  # measured: 0.108, 0.116, 0.149
    np.testing.assert_allclose(shares(result.probe), POWERS, atol=0.01)
    flat = result.probe.reshape(3, -1)
    gram = flat.conj() @ flat.T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-5 * np.abs(gram).max()
    basis = (truth / np.linalg.norm(truth, axis=(1, 2), keepdims=True)).reshape(3, -1)
    inside = (np.abs(flat.conj() @ basis.T) ** 2).sum() / (np.abs(flat) ** 2).sum()
    assert inside > 0.99  # measured: 0.9956
    assert result.settings["modes"] == 3


@pytest.mark.parametrize("engine", ["epie", "mpie", pytest.param("lsqml", marks=pytest.mark.slow)])
def test_other_engines_find_them_too(engine):
    """Powers to a point; of the difference map see docs/recipes.md."""
    light = beams(48, radius=9, defocus=20)
    size = (120, 120)
    specimen = phantoms.complex_object(
        phantoms.cell(size), phantoms.texture(size, 3), phase_range=(0.0, 1.2)
    )
    places = raster(9, 5, jitter=1, whole=False)
    data = simulate(specimen, light, places, noise="poisson", mean_counts=1e5).dataset
    more = {"probe": light[0], "backend": "numpy", "say": None, "judge": False}
    found = reconstruct(data, engine, passes=60, modes=3, **more)
    np.testing.assert_allclose(shares(found.probe), POWERS, atol=0.01)


def test_modes_that_are_not_there_stay_empty(scan, truth):
    coherent = simulate(
        scan.object, truth[0], raster(9, 6, jitter=1, whole=False), noise="poisson", mean_counts=1e5
    )
    result = reconstruct(
        coherent.dataset, "rpie", passes=40, probe=truth[0], modes=3, backend="numpy"
    )
    assert shares(result.probe)[1:].sum() < 0.01  # measured: 2e-4


def test_engines_that_cannot_have_them_say_so(scan, truth):
    with pytest.raises(
        PtychonError,
        match=r"probe has 2 modes and engine .ep. takes one; .*dm, .*joint, ml; error bars",
    ):
        reconstruct(scan.dataset, "ep", probe=truth[0], modes=2)
    with pytest.raises(
        PtychonError, match=r"engine 'pie' does not move it, .*: choose epie, rpie, mpie, .*dm"
    ):
        reconstruct(scan.dataset, "pie", probe=truth[0], modes=2)


def test_on_the_command_line(scan, truth, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = replace(
        scan.dataset, patterns=scan.dataset.patterns[:40], positions=scan.dataset.positions[:40]
    )
    write_dataset("scan.cxi", replace(few, probe=truth[:1].astype(np.complex64)))
    assert (
        main(
            ["reconstruct", "scan.cxi", "-n", "6", "--modes", "3", "--checkpoint-every", "3", "-q"]
        )
        == 0
    )
    result = load_result("scan_rpie.h5")
    assert result.probe.shape == (3, 64, 64)
    assert main(["reconstruct", "scan_rpie.h5"]) == 0  # again, with what it was asked for
    assert "3, with " + described(shares(result.probe)) in capsys.readouterr().out
    np.testing.assert_array_equal(load_result("scan_rpie_again.h5").probe, result.probe)
    assert (
        main(
            [
                "reconstruct",
                "scan.cxi",
                "-n",
                "2",
                "--start",
                "scan_rpie.h5",
                "--modes",
                "1",
                "-q",
                "-o",
                "one.h5",
            ]
        )
        == 0
    )
    assert load_result("one.h5").probe.shape == (1, 64, 64)
    assert main(["reconstruct", "scan.cxi", "--modes", "0"]) == 2
    assert "--modes is 0; at least 1 is needed" in capsys.readouterr().err
    assert main(["reconstruct", "scan.cxi", "-e", "ep", "--modes", "2"]) == 2
    assert "engine 'ep' takes one" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_with_its_modes(scan, truth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = replace(
        scan.dataset, patterns=scan.dataset.patterns[:40], positions=scan.dataset.positions[:40]
    )
    write_dataset("scan.cxi", replace(few, probe=truth[:1].astype(np.complex64)))
    way = ["--modes", "2", "-s", "cool_from=100", "-q", "--checkpoint-every", "2"]
    assert main(["reconstruct", "scan.cxi", "-n", "6", "-o", "whole.h5", *way]) == 0

    def stopped(self, progress):
        self.pressed = progress.passes == 4
        return self.pressed

    monkeypatch.setattr(Interrupt, "__call__", stopped)
    assert main(["reconstruct", "scan.cxi", "-n", "6", "-o", "part.h5", *way]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["resume", "part.checkpoint.h5", "-q"]) == 0
    np.testing.assert_array_equal(load_result("whole.h5").probe, load_result("part.h5").probe)
