"""Planned positions lie where the object is least known, and measuring there lowers the actual
error more than elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychon import Problem, PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.io import save_result
from ptychon.metrics import residual as metrics
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.plan import field_of, plan

SIDE, SIZE, COUNTS = 24, 88, 2e4
TRUTH = phantoms.complex_object(
    phantoms.texture((SIZE, SIZE), 1), phantoms.cell((SIZE, SIZE), 2), amplitude_range=(0.4, 1.0)
)
BEAM = probes.defocused_aperture((SIDE, SIDE), 0.3 * SIDE, 8.0)
BEAM = BEAM * np.sqrt(COUNTS / (np.abs(BEAM) ** 2).sum())
FULL = scan.fit(scan.raster(20, 4, jitter=1), (SIZE, SIZE), (SIDE, SIDE))
#: One half of the field has a quarter of the frames.
THIN = FULL[(FULL[:, 1] < 0) | (np.arange(len(FULL)) % 4 == 0)]
HOLE = FULL[np.hypot(*(FULL - [8, -6]).T) > 13]


def run(positions, engine="joint", seed=0, **more):
    s = simulate(TRUTH, BEAM, positions, noise="poisson", seed=seed, **more)
    quiet = {"backend": "numpy", "say": None}
    problem = Problem.from_dataset(s.dataset)
    start = reconstruct(problem, "pie", passes=50, probe=s.probe, **quiet)
    if engine == "ep":
        return reconstruct(problem, "ep", passes=40, start=start, probe_updates=0, **quiet)
    return reconstruct(problem, "joint", passes=26, burn_in=18, start=start, **quiet)


@pytest.fixture(scope="module")
def thin():
    return run(THIN)


def error(result, field):
    return float(
        (np.abs(metrics.phase_align(result.object, TRUTH, field) - TRUTH)[field] ** 2).mean()
    )


@pytest.mark.parametrize("engine", ["joint", "ep"])
def test_frames_go_where_the_dose_is_low(thin, engine):
    made = plan(thin if engine == "joint" else run(THIN, "ep"), 16)
    assert (made.coordinates[:, 1] >= 0).mean() >= 0.9
    assert (np.diff(made.gain) <= 1e-9).all()  # each is worth less than the one before
    assert len(np.unique(made.positions, axis=0)) > 8


def test_the_first_frames_go_into_a_hole():
    result = run(HOLE)
    made = plan(result, 8)
    away = np.hypot(*(made.coordinates - [8, -6]).T)
    assert away[0] < 6
    assert (away[:4] < 15).all()
    assert made.gain[0] > 10 * made.gain[-1]
    inside = (
        np.hypot(
            *(
                np.argwhere(np.ones((SIZE, SIZE))).reshape(SIZE, SIZE, 2) - SIZE // 2 - [8, -6]
            ).transpose(2, 0, 1)
        )
        < 5
    )
    assert made.field[inside].all()
    assert np.nanmean(made.map[inside]) > 5 * np.nanmedian(made.map[made.field])


def test_measuring_there_helps_more_than_elsewhere(thin):
    """16 frames where planned, against 16 drawn uniformly; and the error bars that were foretold
    are those that come.
    """
    made, field = plan(thin, 16), field_of(thin)
    rng, planned, drawn = np.random.default_rng(0), [], []
    for seed in range(2):
        anywhere = np.rint(rng.uniform(THIN.min(axis=0), THIN.max(axis=0), (16, 2)))
        planned.append(error(run(np.concatenate([THIN, made.coordinates]), seed=seed), field))
        drawn.append(error(run(np.concatenate([THIN, anywhere]), seed=seed), field))
    assert np.mean(planned) < 0.95 * np.mean(drawn)
    assert np.mean(planned) < 0.9 * error(thin, field)
    assert np.sqrt(np.mean(planned)) == pytest.approx(made.after, rel=0.15)
    assert made.after < made.before


def test_more_exposure_gains_more(thin):
    one, four = plan(thin, 3), plan(thin, 3, exposure=4.0)
    assert (four.gain > one.gain).all()
    assert four.gain[0] < 4 * one.gain[0]
    assert four.after < one.after


def test_a_field_of_interest_draws_the_frames(thin):
    field = np.zeros((SIZE, SIZE), bool)
    field[40:50, 25:35] = True
    made = plan(thin, 3, field=field)
    assert (np.abs(made.positions - [45, 30]) < SIDE / 2).all()
    assert np.isnan(made.std[0, 0])


def test_the_model_gives_back_the_error_bars_it_was_made_of(thin):
    """A frame of no exposure changes nothing."""
    made = plan(thin, 1, exposure=1e-9)
    lit = thin.illuminated & made.field
    np.testing.assert_allclose(made.std[lit], thin.object_std[lit], rtol=0.02)
    assert made.after == pytest.approx(made.before, rel=1e-6)


def test_what_is_refused(thin):
    with pytest.raises(PtychonError, match="no error bars, which planning needs"):
        plan(replace(thin, object_std=None, draws=None), 3)
    with pytest.raises(PtychonError, match="0 frames"):
        plan(thin, 0)
    with pytest.raises(PtychonError, match="exposure is -1"):
        plan(thin, 1, exposure=-1.0)
    with pytest.raises(PtychonError, match="not empty"):
        plan(thin, 1, field=np.zeros((SIZE, SIZE), bool))
    flat = replace(thin, positions=thin.positions * [0, 1] + [40, 0])
    assert np.array_equal(field_of(flat), flat.illuminated)  # a scan along a line has no hull


def test_the_command(thin, tmp_path, capsys):
    scaled = replace(thin, pixel_size=(2e-8, 2e-8), origin=(-SIZE // 2 * 2e-8,) * 2)
    save_result(tmp_path / "r.h5", scaled)
    more = ["--map", str(tmp_path / "m.npz"), "--picture", str(tmp_path / "p.png")]
    assert main(["plan", str(tmp_path / "r.h5"), "--add", "12", *more]) == 0
    out = capsys.readouterr().out
    assert "falls by" in out
    table = scan.from_table(tmp_path / "r_plan.csv")
    made = plan(thin, 12)
    np.testing.assert_allclose(table, made.coordinates * 2e-8, rtol=1e-9, atol=1e-15)
    with np.load(tmp_path / "m.npz") as file:
        np.testing.assert_allclose(file["gain"], made.map, rtol=1e-5)
    assert (tmp_path / "p.png").stat().st_size > 10000
    assert (
        main(
            [
                "plan",
                str(tmp_path / "r.h5"),
                "--add",
                "2",
                "--json",
                "--map",
                str(tmp_path / "m.h5"),
            ]
        )
        == 0
    )
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["unit"] == "m"
    assert len(numbers["positions"]) == 2
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["positions"].shape == (2, 2)
    save_result(tmp_path / "bare.h5", replace(thin, object_std=None, draws=None))
    for arguments, said in (
        (["bare.h5"], "no error bars"),
        (["r.h5", "-o", "x.txt"], "must be named .csv"),
        (["r.h5", "--add", "0"], "at least 1"),
        (["r.h5", "--map", "x.png"], "must be named .npz"),
        (["nothing.h5"], "nothing.h5"),
    ):
        assert main(["plan", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
