"""The search for a first probe where none is given."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from _problems import make_case
from ptychon import Dataset, Problem, PtychonWarning, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.inspect.orientation import Orientation
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import CUT_OFF, illuminated, probe_at_rim
from ptychon.run import first_probe, guess
from ptychon.run.doubts import doubts
from ptychon.run.first_probe import (
    COST,
    ENOUGH,
    FRAMES,
    Ground,
    candidates,
    disc,
    find_probe,
    middle,
)
from ptychon.run.guess import centred, initial_probe, mean_power, scaled_probe
from ptychon.run.shadow import shadow_defocus, shadow_motion
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import beam_stop, simulate

CPU = get_backend("numpy")


def scanned(overlap=0.7, side=5, mask=None, light=None, seed=0, size=None, **options):
    """A jittered raster with a disc of 43 px, the frames being 48 px."""
    step = round((1 - overlap) * 43.2)
    size = size or (side - 1) * step + 58
    parts = (
        phantoms.texture((size, size), 2 * seed + 1),
        phantoms.texture((size, size), 2 * seed + 2),
    )
    sample = phantoms.complex_object(
        *parts, amplitude_range=(0.1, 1.0), phase_range=(0.0, np.pi / 2)
    )
    light = probes.circular_aperture((48, 48), 21.6) if light is None else light
    where = scan.raster(side, step, jitter=2, seed=seed)
    return simulate(
        sample,
        light,
        where,
        mask=mask,
        subpixel=False,
        seed=seed,
        noise="poisson",
        mean_counts=1e5,
        **options,
    )


def decibels(made, problem, result):
    lit = illuminated(problem, made.probe)
    estimate = align(result.object, made.object, region=lit, max_shift=8, subpixel=True).estimate
    return -20 * np.log10(
        np.linalg.norm((estimate - made.object)[lit]) / np.linalg.norm(made.object[lit])
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_little_overlap_from_the_data_alone(seed):
    """70 % overlap and an unknown probe: lost from the root of the mean frame, found
    by the search.
    """
    made = scanned(seed=seed)
    problem = Problem.from_dataset(made.dataset)
    plain = reconstruct(
        problem, "rpie", passes=60, probe=initial_probe(problem, CPU), backend="numpy"
    )
    assert decibels(made, problem, plain) < 11
    assert decibels(made, problem, reconstruct(problem, "rpie", passes=60, backend="numpy")) > 17


def test_behind_a_beam_stop_from_the_data_alone():
    made = scanned(0.8, 8, mask=beam_stop((48, 48), 3.0, 1.0))
    problem = Problem.from_dataset(made.dataset)
    plain = reconstruct(
        problem, Recipe(Stage("dm", 100)), probe=initial_probe(problem, CPU), backend="numpy"
    )
    assert decibels(made, problem, plain) < 10
    assert (
        decibels(made, problem, reconstruct(problem, Recipe(Stage("dm", 100)), backend="numpy"))
        > 17
    )


def test_size_of_a_disc_is_found():
    """Half the power inside and outside: the diameter within 4 % of 43 px, with the power of a
    frame.
    """
    problem = Problem.from_dataset(scanned().dataset)
    found = find_probe(problem, CPU)
    light = np.abs(found[0]) ** 2
    assert 2 * np.sqrt(
        (light > np.median(light[light > light.mean()]) / 2).sum() / np.pi
    ) == pytest.approx(43.2, rel=0.04)
    assert light.sum() == pytest.approx(mean_power(problem), rel=1e-5)
    assert found.shape == (1, 48, 48)
    assert found.dtype == np.complex64
    assert np.array_equal(found, find_probe(problem, CPU))


@pytest.mark.parametrize("sign", [1, -1])
def test_defocus_from_the_motion_of_frames(sign):
    """A disc of 12 px whose wavefront is curved by D = 40 px: its value within a tenth, and which
    side of the focus.
    """
    y = np.arange(64) - 32
    radius2 = y[:, None] ** 2 + y**2
    light = (
        probes.circular_aperture((64, 64), 12) * np.exp(sign * 1j * np.pi / 40 * radius2)
    ).astype(np.complex64)
    problem = Problem.from_dataset(scanned(0.88, 7, light=light, size=110).dataset)
    found = shadow_defocus(problem)
    assert found[0] == pytest.approx(sign * 40, rel=0.1)
    values, strength = shadow_motion(problem)
    assert strength.max() > 10 * abs(np.median(strength))
    assert (np.diff(1 / values) > 0).all()


def test_a_flat_wave_casts_no_shadow_image():
    assert shadow_defocus(Problem.from_dataset(scanned(0.8, 7).dataset)) == []


def test_a_curved_beam_whose_frames_fill_the_detector():
    """Its chirp wrapped beyond D = n, and probe and object stayed in the corners of the window, at
    8 dB.
    """
    y = np.arange(64) - 32
    light = np.exp(0.05j * (y[:, None] ** 2 + y**2)) * probes.circular_aperture((64, 64), 10)
    made = scanned(0.9, 9, light=light.astype(np.complex64), size=104)
    problem = Problem.from_dataset(made.dataset)
    found = find_probe(problem, CPU)
    assert (np.abs(found[0, 16:48, 16:48]) ** 2).sum() > 0.95 * (np.abs(found) ** 2).sum()
    known = decibels(
        made, problem, reconstruct(problem, "rpie", passes=40, probe=made.probe, backend="numpy")
    )
    assert (
        decibels(
            made, problem, reconstruct(problem, "rpie", passes=40, probe=found, backend="numpy")
        )
        > known - 2
    )


def test_no_candidate_is_folded_into_the_corners():
    """Wide targets and frames full of light: whatever the defocus, the light stays about the
    middle.
    """
    made = scanned(0.5, 5, light=probes.zone_plate((48, 48), 0.45, 0.2, 30.0))
    problem = Problem.from_dataset(made.dataset)
    for probe, _ in candidates(problem, initial_probe(problem, CPU)):
        light = np.abs(probe[0]) ** 2
        corners = sum(
            float(light[a, b].sum())
            for a in (slice(6), slice(-6, None))
            for b in (slice(6), slice(-6, None))
        )
        assert corners < 0.1 * light.sum()


def test_the_cost_is_bounded(monkeypatch):
    """Passes of all trials, looks at held-out pixels included: no more than stated, half of 60
    passes over 169 frames.
    """
    passes = []
    run = first_probe.Trial.run
    monkeypatch.setattr(
        first_probe.Trial, "run", lambda trial, n: passes.append(n + 0.5) or run(trial, n)
    )
    find_probe(Problem.from_dataset(scanned(0.8, 8).dataset), CPU)
    assert sum(passes) <= COST
    assert COST * FRAMES < 0.6 * 60 * 169


def test_held_out_pixels_are_not_learned_from():
    problem = middle(Problem.from_dataset(scanned(mask=beam_stop((48, 48), 3.0, 1.0)).dataset))
    ground = Ground(problem)
    seen, unseen = (
        np.broadcast_to(part.mask, problem.amplitude.shape) for part in (ground.seen, ground.unseen)
    )
    assert not (seen & unseen).any()
    assert ((seen | unseen) == problem.mask).all()
    assert unseen.sum() == pytest.approx(0.1 * (seen.sum() + unseen.sum()), rel=0.05)
    assert not ground.seen.amplitude[unseen].any()


@pytest.mark.parametrize("shift", [(0, 0), (5, -9), (24, 24), (-20, 3)])
def test_a_probe_in_the_corners_is_moved_to_the_middle(shift):
    whole = disc((48, 48), 20.0) * np.exp(0.3j * np.arange(48)).astype(np.complex64)
    moved = np.roll(whole, shift, axis=(-2, -1))
    assert np.array_equal(centred(moved), whole)
    assert np.array_equal(centred(np.ones((1, 8, 8), np.complex64)), np.ones((1, 8, 8)))


def test_power_at_the_rim():
    """A full window has what its rim has of the area; a disc that touches the rim is not cut off,
    one in the corners is.
    """
    assert probe_at_rim(np.ones((2, 40, 40), np.complex64)) == pytest.approx(1 - 36**2 / 40**2)
    assert probe_at_rim(np.ones((40, 40)), 0.25) == pytest.approx(0.75)
    assert probe_at_rim(disc((64, 64), 64.0)) < CUT_OFF
    assert probe_at_rim(np.fft.fftshift(disc((64, 64), 24.0), axes=(-2, -1))) > CUT_OFF
    assert probe_at_rim(np.zeros((1, 8, 8))) == 0


def test_a_beam_that_its_window_cuts_off_is_said():
    """48 px of a Gaussian beam of 50 px; with half of that nothing is said."""
    for width, said in ((50, True), (20, False)):
        wide = scanned(0.8, 8, light=probes.gaussian((48, 48), width))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            find_probe(Problem.from_dataset(wide.dataset), CPU)
        text = [str(w.message) for w in caught if w.category is PtychonWarning]
        assert bool(text) == said
        assert not said or ("outermost 5 %" in text[0] and "--probe" in text[0])


def test_a_beam_that_its_window_cuts_off_is_said_once_in_a_run():
    """Before the first pass, when it can still be mended; not again of the result, though it
    shows there too.
    """
    wide = scanned(0.8, 8, light=probes.gaussian((48, 48), 50)).dataset
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = reconstruct(wide, "rpie", passes=2, backend="numpy", say=None)
    assert "window" in [doubt.about for doubt in doubts(result)]
    assert len([w for w in caught if "outermost 5 %" in str(w.message)]) == 1
    # where the first probe was given nothing was said before
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reconstruct(wide, "rpie", passes=2, probe=result.probe, backend="numpy", say=None)
    assert len([w for w in caught if "outermost 5 %" in str(w.message)]) == 1


def test_dark_frames_are_left_out():
    """More than half of a scan is still empty: what there is decides."""
    data = scanned(0.8, 8).dataset
    patterns = np.array(data.patterns)
    patterns[30:] = 0
    problem = Problem.from_dataset(Dataset(patterns=patterns, positions=data.positions))
    assert len(middle(problem)) == 30
    assert np.isfinite(find_probe(problem, CPU)).all()


@pytest.mark.slow
def test_tungsten_pattern_from_the_data_alone(measured):
    """20 frames of a ring-shaped beam 115 um out of focus: R 0.103 after 120 passes (0.112 from a
    disc with that defocus, a lattice of spots at 0.149 before). By wavelength, defocus and pixel D
    is 253."""
    with np.load(measured / "aps_w_20frames" / "test235_truncated.npz") as file:
        patterns, places = file["reciprocal"][:, 128:384, 128:384], file["position"]
    data = Dataset(patterns=patterns, positions=places, mask=patterns <= 20000, pixel_size=8e-9)
    problem = Problem.from_dataset(Orientation.parse("flip-columns").apply(data))
    assert shadow_defocus(problem)[0] == pytest.approx(253, rel=0.1)
    assert reconstruct(problem, "rpie", passes=60, backend="numpy").final_error < 0.12


def test_the_experiment_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """A small part of it: two kinds of beam within 2 dB of what the true probe gives, and nothing
    measured twice.
    """
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    experiment = importlib.import_module("first_probe")
    small = [
        "--fillings",
        "0.6",
        "--side",
        "8",
        "--passes",
        "40",
        "--backend",
        "numpy",
        "-o",
        str(tmp_path),
    ]
    experiment.main(["--kinds", "zone plate, behind", *small])
    assert "1 of 1 within 2 dB" in capsys.readouterr().out
    measure, kinds = experiment.measure, []
    monkeypatch.setattr(
        experiment, "measure", lambda case, given: kinds.append(case[0]) or measure(case, given)
    )
    experiment.main(["--kinds", "zone plate, behind", "converging disc", *small])
    assert kinds == ["converging disc"]
    assert "2 of 2 within 2 dB" in capsys.readouterr().out
    assert len(experiment.KINDS) * len(experiment.FILLINGS) == 36


def test_few_frames_and_the_near_field_keep_the_plain_probe():
    few = Problem.from_dataset(scanned(side=2).dataset)
    assert len(few) < ENOUGH
    near = make_case(near=True).problem
    assert len(near) >= ENOUGH
    for problem in (few, near):
        assert np.array_equal(find_probe(problem, CPU), initial_probe(problem, CPU))


def test_middle_of_a_large_scan():
    """Neighbouring frames only, on an object that their windows just fill; the frames themselves
    are the same.
    """
    problem = Problem.from_dataset(scanned(0.8, 12).dataset)
    part = middle(problem)
    assert len(part) == FRAMES < len(problem)
    assert (part.corners.min(axis=0) == 0).all()
    assert tuple((part.corners.max(axis=0) + 48).tolist()) == part.object_shape
    shift = np.median(problem.corners, axis=0) - np.median(part.corners, axis=0)
    chosen = [
        np.flatnonzero((problem.amplitude == frame).all(axis=(1, 2)))[0] for frame in part.amplitude
    ]
    moved = problem.corners[chosen] - part.corners
    assert (moved == moved[0]).all()
    assert np.abs(moved[0] - shift).max() < 6


def test_a_probe_that_fails_is_not_chosen():
    """What diverges leaves infinitely much over."""
    ground = Ground(middle(Problem.from_dataset(scanned().dataset)))
    bad = scaled_probe(disc((48, 48), 20.0), 1.0)
    bad[0, 24, 24] = np.nan
    scores = []
    for probe in (bad, disc((48, 48), 43.2), disc((48, 48), 30.0)):
        trial = ground.trial(probe)
        trial.run(4)
        scores.append(trial.score)
    assert scores[0] == np.inf
    assert scores[1] < scores[2] < np.inf


def test_a_pupil_beside_darkness_is_finite():
    """A single bright detector pixel, and nothing anywhere else, where smoothing leaves less than
    nothing by rounding.
    """
    patterns = np.zeros((4, 40, 40), np.uint32)
    patterns[:, 21, 18] = 3_000_000
    data = Dataset(patterns=patterns, positions=np.array([[0, 0], [0, 3], [3, 0], [3, 3.0]]))
    problem = Problem.from_dataset(data)
    light = (problem.amplitude.astype(np.float64) ** 2).mean(axis=0)
    assert (guess._smoothed(light, 2.0) < 0).any()
    with np.errstate(invalid="raise"):
        pupil = guess.sharp_pupil(problem)
    assert np.isfinite(pupil).all()
    assert pupil.any()
