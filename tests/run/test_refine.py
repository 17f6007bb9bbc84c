"""Positions, doses and the background, refined between the passes of engines that know of none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import Problem, PtychonError, Recipe, Refine, Stage, reconstruct
from ptychon.engines import After
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

FRAME, SIDE = 32, 7


@pytest.fixture(scope="module")
def scene():
    """49 frames of 32 x 32, 1e5 counts each, a phase object, the probe a little wrong."""
    true = scan.raster(SIDE, step=3, jitter=0.8, whole=False, seed=1)
    size = int(np.ptp(true, axis=0).max()) + FRAME + 12
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((FRAME, FRAME), radius=4.5, defocus=5)
    made = simulate(truth, beam, true, noise="poisson", mean_counts=1e5, seed=1)
    problem = Problem.from_dataset(made.dataset, object_shape=truth.shape)
    return problem, probes.defocused_aperture((FRAME, FRAME), radius=4.5, defocus=6), made.object


def wrong(problem, size, seed=3):
    """Positions that differ by normal numbers, and the true ones."""
    true = problem.positions
    moved = true + size * np.random.default_rng(seed).standard_normal(true.shape)
    return replace(problem.with_positions(moved), measured=None), true


def off(found, true):
    error = found - true
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).mean()))


def run(problem, probe, engine="rpie", passes=50, **more):
    return reconstruct(
        problem, engine, passes=passes, probe=probe, backend="numpy", say=None, judge=False, **more
    )


@pytest.mark.parametrize("engine", ["rpie", "epie"])
def test_positions_are_found_in_turn_with_an_engine(scene, engine):
    """0.5 px rms before; measured after: 0.05 to 0.08 px."""
    problem, true = wrong(scene[0], 0.5)
    plain = run(problem, scene[1], engine)
    found = run(problem, scene[1], engine, update={"positions": After(8)})
    assert off(problem.positions, true) > 0.4
    assert off(found.positions, true) < 0.15
    assert found.final_error < 0.8 * plain.final_error
    np.testing.assert_array_equal(found.positions_given, problem.positions)
    moved = found.history["moved"]
    assert not moved[:8].any()
    assert moved[-1] == pytest.approx(
        np.sqrt(((found.positions - problem.positions) ** 2).sum(axis=1).mean()), rel=1e-5
    )


def test_the_difference_map_finds_them_too(scene):
    """0.5 px rms before; its last quarter, of rPIE, goes on from there."""
    problem, true = wrong(scene[0], 0.5)
    found = run(problem, scene[1], "dm", passes=60, update={"positions": After(8)})
    assert off(found.positions, true) < 0.2
    recipe = found.settings["recipe"]
    assert [s["update"] for s in recipe] == [{"positions": "after=8"}, {"positions": "after=0"}]


def test_ptycho_ep_finds_them_too(scene):
    problem, true = wrong(scene[0], 0.5)
    first = run(problem, scene[1], passes=20)
    found = run(problem, None, "ep", passes=40, start=first, update={"positions": After(4)})
    assert off(found.positions, true) < 0.15
    assert found.object_std is not None


def test_frames_that_are_far_off_are_found(scene):
    """Two frames 3 px away: a linear step would leave them there."""
    problem = scene[0]
    true = problem.positions
    moved = true.copy()
    moved[[16, 32]] += [[2.4, 1.8], [-1.8, 2.4]]
    given = replace(problem.with_positions(moved), measured=None)
    found = run(given, scene[1], update={"positions": After(8)})
    error = found.positions - true
    assert np.abs(error - np.median(error, axis=0)).max() < 0.5


def test_annealing_finds_what_is_off_by_more_than_a_pixel(scene):
    """1 px rms on a probe of 4.5 px radius, without momentum or limits that would reach so far."""
    problem, true = wrong(scene[0], 1.0, seed=4)
    how = Refine(trials=4, radius=3, limit=0.2, momentum=0.0)
    found = run(problem, scene[1], passes=60, update={"positions": After(8)}, refine=how)
    assert off(found.positions, true) < 0.6 * off(problem.positions, true)


@pytest.mark.parametrize("rms", [0.02, pytest.param(0.1, marks=pytest.mark.slow), 0.3])
def test_doses_are_found(scene, rms):
    """But for what varies slowly across the scan, in part; the gradient went into the object."""
    problem, a = scene[0], rms * np.random.default_rng(2).standard_normal(len(scene[0]))
    counts = np.random.default_rng(3).poisson(
        problem.amplitude.astype(float) ** 2 * np.exp(2 * a)[:, None, None]
    )
    given = replace(problem, amplitude=np.sqrt(counts).astype(np.float32))
    plain, found = (run(given, scene[1], update=u) for u in ({}, {"dose": True}))
    across = np.concatenate([np.ones((len(a), 1)), problem.positions - 20], axis=1)
    curves = np.stack([across[:, i] * across[:, j] for i in (1, 2) for j in (1, 2)], axis=1)

    def without(columns, values):
        return values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]

    assert abs(found.log_scale.mean()) < 1e-5
    assert np.linalg.norm(without(across, found.log_scale) - found.log_scale) < 1e-3
    slow = np.concatenate([across, curves], axis=1)
    assert without(slow, found.log_scale.astype(float) - a).std() < 0.012
    assert found.final_error < plain.final_error
    assert found.history["dose_spread"][-1] == pytest.approx(found.log_scale.std(), rel=0.3)
    # another run, of the same engine, and one that does not know of doses
    assert run(given, None, passes=1, start=found).log_scale is not None
    assert run(given, None, "ep", passes=1, start=found).log_scale is None


@pytest.mark.parametrize("share", [0.1, pytest.param(0.3, marks=pytest.mark.slow), 0.5])
def test_a_background_is_found(scene, share):
    """As many counts in each pixel, a tenth and half of all light."""
    problem = scene[0]
    p, q = problem.frame_shape
    dark = share / (1 - share) * 1e5 / (p * q)
    counts = np.random.default_rng(5).poisson(problem.amplitude.astype(float) ** 2 + dark)
    given = replace(problem, amplitude=np.sqrt(counts).astype(np.float32))
    passes = 70  # after 50 the object is still 1.22 to 1.35 times worse where half is background
    known = run(given.with_background(dark), scene[1], passes=passes)
    found = run(given, scene[1], update={"background": True}, passes=passes)
    assert known.background is None
    assert found.background.shape == (p, q)
    assert found.background.mean() == pytest.approx(dark, rel=0.1)
    assert found.history["background"][-1] == pytest.approx(share, rel=0.1)
    assert not found.history["background"][:5].any()
    blind = run(given, scene[1], passes=passes)
    lit = illuminated(problem, known.probe, 0.3)
    of = [
        10 ** (-align(r.object, scene[2], region=lit, subpixel=True).error_db / 20)
        for r in (known, found, blind)
    ]
    # measured after 60 and 80 passes, half background, four realisations: 1.12 to 1.25
    assert of[1] < 1.3 * of[0]
    assert of[2] > 1.2 * of[1]
    # the probe has the light of the wave alone
    assert np.linalg.norm(found.probe) == pytest.approx(np.linalg.norm(known.probe), rel=0.03)


def test_no_background_is_found_where_there_is_none(scene):
    found = run(scene[0], scene[1], update={"background": True})
    assert found.history["background"][-1] < 0.002


EVERYTHING = {"positions": After(2), "dose": After(1), "background": After(3)}


@pytest.mark.parametrize(
    ("engine", "update"),
    [("rpie", EVERYTHING), ("dm", EVERYTHING), ("ep", {"positions": After(1)})],
)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(scene, tmp_path, engine, update):
    problem, _ = wrong(scene[0], 0.8)
    recipe = [
        Stage(engine, 9, update=update, refine={"trials": 2 if engine == "rpie" else 0}),
        Stage("rpie", 3),
    ]

    def go(path, **more):
        return reconstruct(
            problem, Recipe(recipe), probe=scene[1], backend="numpy", say=None, judge=False, **more
        )

    whole = go(tmp_path)
    for passes in (6, 11):  # within the first stage, and within the second
        path = tmp_path / f"{passes}.h5"
        go(path, callbacks=[Checkpointer(path, passes), lambda p, n=passes: p.passes == n])
        again = go(path, resume=load_checkpoint(path))
        for name in (
            "object",
            "probe",
            "positions",
            "corners",
            "log_scale",
            "background",
            "errors",
        ):
            a, b = getattr(again, name), getattr(whole, name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b, err_msg=name)


def test_nothing_to_refine_changes_no_bit(scene):
    plain = run(scene[0], scene[1], passes=5)
    for update in ({"positions": False, "dose": False}, {"positions": After(5)}):
        same = run(scene[0], scene[1], passes=5, update=update)
        np.testing.assert_array_equal(same.object, plain.object)
        np.testing.assert_array_equal(same.positions, plain.positions)


def test_a_result_keeps_what_was_found(scene, tmp_path):
    from ptychon import Result
    from ptychon.model.found import on_grid

    problem, _ = wrong(scene[0], 0.3)
    found = run(problem, scene[1], passes=12, update=EVERYTHING)
    found.save(tmp_path / "r.h5")
    again = Result.load(tmp_path / "r.h5")
    for name in ("positions", "log_scale", "background"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    # the next run begins from all of it, with any engine
    more = run(problem, None, "ml", passes=1, start=again)
    np.testing.assert_array_equal(more.positions, found.positions)
    np.testing.assert_allclose(more.background, found.background, rtol=1e-6)
    assert on_grid is not None


@pytest.mark.parametrize(
    ("refine", "words"),
    [
        ("trial=4", "write some of limit, least, momentum, trials"),
        ("trials=many", "each of them is a number"),
        ({"momentum": 1.5}, r"momentum is 1.5; it must be a number in \[0, 0.99\]"),
        ({"least": 2.0}, r"least is 2.0; it must be a number in \(0, 1\]"),
        ({"trials": 4}, "nothing is refined between the passes of engine 'rpie'"),
    ],
)
def test_how_is_refused(scene, refine, words):
    with pytest.raises(PtychonError, match=words):
        run(scene[0], scene[1], passes=1, refine=refine)


def test_a_background_of_what_is_no_counts_is_refused(scene):
    given = replace(scene[0], counting=False)
    with pytest.raises(PtychonError, match="refined for counts only"):
        run(given, scene[1], passes=8, update={"background": True})


def test_how_is_stored_in_recipes():
    stage = Stage("rpie", 9, update={"positions": After(2)}, refine="trials=4,radius=2.5")
    assert stage.refine == Refine(trials=4, radius=2.5)
    assert stage.stored()["refine"] == {"trials": 4, "radius": 2.5}
    assert Stage.read(stage.stored()) == stage
