"""Which unknowns a scan asks for: each fault is told apart from the others, and none is found where
there is none.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import yaml

from ptychon import Problem, PtychonError, propose
from ptychon.__main__ import main
from ptychon.inspect.proposal import Gain, Proposal
from ptychon.io import load_result, write_dataset
from ptychon.metrics.residual import misfit_over_noise
from ptychon.request.inputs import read_settings
from ptychon.request.settings import validated
from ptychon.run.held_out import split
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("sketched")

SIDE, RADIUS = 32, 5


@cache
def made(fault: str):
    """64 frames with 1e5 counts each, and what is wrong with them."""
    rng = np.random.default_rng(3)
    places = scan.raster(8, step=3, jitter=0.75, whole=False, seed=3)
    size = int(np.ptp(places, axis=0).max()) + SIDE + 12
    field = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=RADIUS, defocus=8)
    if fault == "modes":
        x = (np.arange(SIDE) - SIDE // 2) / RADIUS
        second = beam * np.exp(1.5j * x) * (1 + x[:, None])
        second *= np.linalg.norm(beam) / np.linalg.norm(second)
        beam = np.stack([np.sqrt(0.8) * beam, np.sqrt(0.2) * second])
    simulated = simulate(field, beam, places, noise="poisson", mean_counts=1e5, seed=1)
    problem = Problem.from_dataset(simulated.dataset, object_shape=field.shape)
    if fault == "positions":
        off = 0.4 * rng.standard_normal(places.shape)
        problem = replace(problem.with_positions(problem.positions + off), measured=None)
    if fault == "dose":
        factor = np.exp(0.1 * rng.standard_normal(len(problem)))[:, None, None]
        counts = rng.poisson((factor * problem.amplitude) ** 2)
        problem = replace(problem, amplitude=np.sqrt(counts).astype(np.float32))
    return problem, simulated


@pytest.mark.parametrize("fault", ["none", "modes", "positions", "dose"])
def test_what_is_wrong_is_found_and_nothing_else(fault):
    found = propose(made(fault)[0], backend="numpy")
    assert found.modes == (2 if fault == "modes" else 1)
    assert found.free == ((fault,) if fault in ("positions", "dose") else ())
    if fault == "none":
        assert found.excess < 1.1
        assert not found.gains
    else:
        assert found.excess > 1.3
        taken = next(g for g in found.gains if g.kept)
        assert taken.after < taken.before
    assert [s.name for s in found.recipe.stages] == (["rpie", "ml"] if found.free else ["rpie"])


def test_pixels_are_held_out_of_what_is_seen():
    problem, _ = made("none")
    held = split(problem, 0.1, seed=1)
    whole = np.broadcast_to(problem.mask, problem.amplitude.shape)
    assert not (held.seen.mask & held.unseen.mask).any()
    assert np.array_equal(held.seen.mask | held.unseen.mask, whole)
    assert held.unseen.mask.mean() == pytest.approx(0.1, abs=0.005)
    assert not held.seen.amplitude[held.unseen.mask].any()


def test_misfit_of_the_truth_is_that_of_the_noise():
    """1 with the true object and probe, several times as much with doses 10 % off."""
    problem, simulated = made("none")
    truth = simulated.object, simulated.probe
    assert misfit_over_noise(problem, *truth) == pytest.approx(1, abs=0.01)
    wrong = made("dose")[0]
    assert misfit_over_noise(wrong, *truth) > 3
    unknown = replace(problem, counting=False)
    assert np.isnan(misfit_over_noise(unknown, *truth))


def test_settings_can_be_read_and_run():
    gains = (Gain("modes=2", 0.1, 0.08, True), Gain("dose", 0.08, 0.0801, False))
    found = Proposal(2, ("positions",), gains, 2.5, 50)
    text = found.settings("scan.cxi", {"energy": "8keV"})
    assert "# modes=2: held-out R 0.1000 -> 0.0800, misfit 36 % less: taken" in text
    assert "misfit 0.25 % more: left out" in text
    values = yaml.safe_load(text)
    settings = validated(values, "settings.yaml")
    assert settings.modes == 2
    assert settings.way() == found.recipe
    assert settings.data == {"energy": "8keV"}


def test_few_frames_are_refused():
    problem, _ = made("none")
    with pytest.raises(PtychonError, match="at least 8"):
        propose(problem.select(np.arange(5)))


@pytest.fixture
def incoherent(tmp_path, monkeypatch):
    """A file with two modes; only modes are tried."""
    monkeypatch.setattr("ptychon.inspect.proposal.FREE", {})
    path = tmp_path / "scan.cxi"
    write_dataset(path, made("modes")[1].dataset)
    return path


def test_inspect_writes_settings(incoherent, run_main):
    target = incoherent.with_name("settings.yaml")
    said = json.loads(run_main("inspect", incoherent, "--propose", target, "--json"))
    assert (said["modes"], said["free"]) == (2, [])
    settings = validated(read_settings(target), target)
    assert settings.modes == 2
    assert settings.input == str(incoherent)


def test_a_run_with_nothing_else_goes_on_with_what_is_missing(incoherent, run_main, monkeypatch):
    monkeypatch.chdir(incoherent.parent)
    said = json.loads(run_main("reconstruct", incoherent, "--json"))
    assert len(said["mode_powers"]) == 2
    tried = load_result(said["result"]).settings["tried"]
    assert any(line.startswith("modes=2: held-out R") for line in tried)
    plain = json.loads(run_main("reconstruct", incoherent, "-e", "rpie", "--json"))
    assert len(plain["mode_powers"]) == 1
    assert said["error_final"] < 0.85 * plain["error_final"]


def test_a_long_run_is_told_and_not_begun(incoherent, capsys, monkeypatch):
    monkeypatch.chdir(incoherent.parent)
    monkeypatch.setattr("ptychon.cli.further.LONGEST", 0.0)
    assert main(["reconstruct", incoherent.name]) == 0
    said = capsys.readouterr().err
    assert "with 2 modes would take about 0 min; to run it: ptychon inspect scan.cxi" in said
    assert len(load_result("scan_rpie.h5").probe) == 1


@pytest.fixture
def run_main(capsys):
    """A command of the program, and what it prints."""

    def run(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run
