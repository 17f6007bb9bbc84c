"""Do data look as the result foretells? No more false alarms than stated, and what is planted is
found.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychon import Problem, PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.backends import get_backend
from ptychon.checks.predictive import check
from ptychon.checks.verdict import sentences
from ptychon.io import load, write_dataset
from ptychon.model.noise.moments import amplitude_cumulants, cumulants, deviate, misfit, normalised
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("sketched")

SIDE, SIZE = 24, 72


def made(seed, level=1e5, *, noise="poisson", shuffled=False, drift=(0.0, 0.0)):
    """A small scan; its true positions move away from the stated ones by `drift` (px) from the
    first frame to the last.
    """
    truth = phantoms.complex_object(
        phantoms.texture((SIZE, SIZE), seed),
        phantoms.cell((SIZE, SIZE), seed + 1),
        amplitude_range=(0.4, 1.0),
    )
    stated = scan.fit(scan.fermat_spiral(400, 3.5), (SIZE - 4, SIZE - 4), (SIDE, SIDE))
    if shuffled:
        stated = np.random.default_rng(seed).permutation(stated)
    true = stated + np.linspace(-0.5, 0.5, len(stated))[:, None] * np.array(drift)
    more = {"poisson": {"mean_counts": level}, "gaussian": {"snr_db": level}, "none": {}}[noise]
    s = simulate(
        truth,
        probes.defocused_aperture((SIDE, SIDE), 0.3 * SIDE, 8.0),
        true,
        noise=noise,
        seed=seed,
        **more,
    )
    return replace(s, dataset=replace(s.dataset, positions=stated))


def fitted(s, engine="joint"):
    """The problem, and its result with the probe known."""
    problem = Problem.from_dataset(s.dataset)
    quiet = {"backend": "numpy", "say": None}
    result = reconstruct(problem, "pie", passes=60, probe=s.probe, **quiet)
    if engine == "joint":
        result = reconstruct(problem, engine, passes=30, burn_in=22, start=result, **quiet)
    elif engine == "ep":
        result = reconstruct(problem, engine, passes=60, start=result, probe_updates=0, **quiet)
    return problem, result


def with_patterns(s, patterns):
    return replace(s, dataset=replace(s.dataset, patterns=patterns))


@pytest.mark.parametrize("mean", [0.01, 0.1, 1.0, 30.0, 1e3, 1e5])
def test_cumulants_of_counts_are_those_that_are_drawn(mean):
    n = np.random.default_rng(1).poisson(mean, 1_000_000).astype(float)
    q = misfit(n, np.full(n.shape, mean))
    one, two, three = (float(c) for c in cumulants(np.array(mean)))
    error = q.std() / 1000
    assert q.mean() == pytest.approx(one, abs=5 * error)
    assert q.var() == pytest.approx(two, rel=0.05)
    assert ((q - q.mean()) ** 3).mean() == pytest.approx(three, rel=0.15)


@pytest.mark.parametrize("mean", [0.01, 0.3, 3.0, 100.0, 1e5])
def test_frames_of_any_brightness_have_the_stated_rate(mean):
    """Sums over 1024 pixels with the truth known: the chance of 1 % is kept from 0.01 to 100 000
    counts.
    """
    rng, pixels, frames = np.random.default_rng(2), 1024, 6000
    sums = np.array(
        [misfit(rng.poisson(mean, pixels), np.full(pixels, mean)).sum() for _ in range(frames)]
    )
    expected = [np.full(frames, pixels * float(c)) for c in cumulants(np.array(mean))]
    w = normalised(sums, *expected)
    rate = (w > 2.326).mean()
    assert 0.004 < rate < 0.0175, rate
    assert (w > 3.5).mean() < 0.0015


def test_an_amplitude_that_is_cut_off_at_zero():
    rng = np.random.default_rng(3)
    for level in (0.0, 0.7, 2.0, 9.0):
        q = (np.maximum(level + rng.standard_normal(400_000), 0) - level) ** 2
        one, two, _ = (float(c) for c in amplitude_cumulants(np.array(level)))
        assert q.mean() == pytest.approx(one, abs=0.01)
        assert q.var() == pytest.approx(two, rel=0.05)


def test_totals_have_their_exact_chance():
    rng = np.random.default_rng(4)
    for mean in (0.05, 2.0, 50.0, 1e6):
        z = deviate(rng.poisson(mean, 200_000).astype(float), np.full(200_000, mean))
        assert (z > 2.5).mean() <= 0.0062 * 1.15
        assert (z < -2.5).mean() <= 0.0062 * 1.15
    assert deviate(np.array([5000.0]), np.array([4000.0]))[0] == pytest.approx(15.24, abs=0.3)
    assert deviate(np.array([3.0]), np.array([0.0]))[0] == np.inf


@pytest.mark.parametrize(
    ("engine", "noise", "level", "scans"),
    [
        ("joint", "poisson", 3e3, 4),
        ("ep", "poisson", 1e5, 3),
        ("pie", "poisson", 1e5, 4),
        pytest.param("joint", "poisson", 3e3, 10, marks=pytest.mark.slow),
        pytest.param("joint", "poisson", 1e5, 10, marks=pytest.mark.slow),
        pytest.param("joint", "gaussian", 30.0, 6, marks=pytest.mark.slow),
        pytest.param("ep", "poisson", 1e5, 6, marks=pytest.mark.slow),
        pytest.param("pie", "poisson", 1e5, 8, marks=pytest.mark.slow),
    ],
)
def test_clean_scans_are_clean(engine, noise, level, scans):
    """The stated rate is 5 % a scan of each of three kinds; 10 scans with more than 3 of one kind
    have the chance 0.001, and so have 4 with more than 2.
    """
    most = 3 if scans > 4 else 2
    alarms, levels, scores = np.zeros(3), [], []
    for seed in range(scans):
        found = check(*fitted(made(seed, level, noise=noise, shuffled=seed % 2 == 0), engine))
        alarms += [
            len(found.bad_frames) > 0,
            len(found.hot) + len(found.dead) + len(found.noisy) > 0,
            len(found.drifts) > 0,
        ]
        levels.append(np.nan if found.level is None else found.level)
        scores.append(found.score.std())
        assert found.fits or engine == "ep"  # which has not converged everywhere
    assert (alarms <= most).all(), alarms
    assert 0.8 < np.mean(scores) < 1.25
    if engine == "joint":
        assert np.mean(levels) == pytest.approx(1, abs=0.06)


def test_a_foreign_frame_and_a_dim_one_are_found():
    s = made(1)
    patterns = s.dataset.patterns.copy()
    patterns[20] = patterns[41]
    patterns[30] = np.random.default_rng(0).binomial(patterns[30], 0.6)
    found = check(*fitted(with_patterns(s, patterns)))
    assert {20, 30} <= set(found.bad_frames.tolist())
    assert len(found.bad_frames) <= 12  # neighbours suffer with them
    assert set(found.bad_frames[:2].tolist()) == {20, 30}
    assert any("do not fit" in text for text in sentences(found))


@pytest.mark.parametrize("level", [3e3, 1e5])
def test_hot_dead_and_flickering_pixels_are_found(level):
    s = made(2, level)
    rng = np.random.default_rng(5)
    patterns = s.dataset.patterns.astype(np.int64)
    mean = patterns.mean(axis=0)
    bright = tuple(np.argwhere(mean == mean.max())[0])
    patterns[:, 3, 20] += rng.poisson(4.0, len(patterns))
    patterns[:, bright[0], bright[1]] = 0
    flicker = (SIDE // 2 + 3, SIDE // 2 - 2)
    patterns[:, flicker[0], flicker[1]] = rng.poisson(
        patterns[:, flicker[0], flicker[1]] * rng.choice([0.2, 1.8], len(patterns))
    )
    found = check(*fitted(with_patterns(s, patterns.astype(np.uint32))))
    assert [3, 20] in found.hot.tolist()
    assert list(bright) in found.dead.tolist()
    if level > 1e4:
        assert list(flicker) in [*found.noisy.tolist(), *found.hot.tolist(), *found.dead.tolist()]
    assert any("hot" in text for text in sentences(found))


def test_masked_pixels_are_not_asked():
    s = made(2)
    mask = np.ones((SIDE, SIDE), bool)
    mask[3, 20] = False
    patterns = s.dataset.patterns.copy()
    patterns[:, 3, 20] = 500
    found = check(*fitted(replace(s, dataset=replace(s.dataset, patterns=patterns, mask=mask))))
    assert np.isnan(found.pixel_score[3, 20])
    assert not len(found.hot)


def test_a_drift_is_found_with_its_sign():
    found = check(*fitted(made(3, 1e5, shuffled=True, drift=(1.5, 0.0))))
    trends = {t.name: t for t in found.drifts}
    assert "shift_y" in trends
    assert 0.3 < trends["shift_y"].change < 2.0
    assert "shift_x" not in trends or abs(trends["shift_x"].change) < 0.2 * trends["shift_y"].change
    assert any("position in y drifts" in text for text in sentences(found))


def test_a_beam_that_fades_is_found():
    s = made(4, 1e5, shuffled=True)
    share = np.linspace(1.0, 0.9, len(s.dataset.patterns))[:, None, None]
    patterns = np.random.default_rng(6).binomial(s.dataset.patterns, share)
    found = check(*fitted(with_patterns(s, patterns.astype(np.uint16))))
    (trend,) = [t for t in found.drifts if t.name == "dose"]
    assert trend.change == pytest.approx(-0.1, abs=0.05)


def test_a_result_that_has_not_converged_says_so():
    problem, result = fitted(made(5, 1e5))
    worse = replace(result, object=(result.object * 1.1).astype(np.complex64))
    found = check(problem, worse)
    assert not found.fits
    assert "more than chance" in " ".join(sentences(found))


def in_turn(seed, foreign=()):
    """Frames of 20 and 35 dB in turn, their noise unknown; and the result that learned it for each
    of them.
    """
    s = made(seed, noise="none", shuffled=seed % 2 == 0)
    clean = s.dataset.patterns
    v = clean.mean() / 10 ** np.where(np.arange(len(clean)) % 2, 3.5, 2.0)
    noise = np.sqrt(v)[:, None, None] * np.random.default_rng(seed).standard_normal(clean.shape)
    noisy = np.maximum(np.sqrt(clean) + noise, 0) ** 2
    for at, other in foreign:
        noisy[at] = noisy[other]
    data = replace(s.dataset, patterns=noisy.astype(np.float32), noise_variance=None)
    # sums of one thread round otherwise, and a common noise flags 2 frames instead of 13
    quiet = {"backend": get_backend("numpy", threads=2), "say": None}
    problem = Problem.from_dataset(data)
    result = reconstruct(problem, "pie", passes=60, probe=s.probe, **quiet)
    return problem, reconstruct(
        problem, "joint", passes=40, burn_in=32, start=result, noise_per_frame=True, **quiet
    )


def test_each_frame_is_judged_by_its_own_noise():
    """Variances 32 times apart: no good frame is flagged, and the misfit of frames is 1 within its
    error.

    The stated rate of false alarms is 5 % a scan of each of three kinds: of seeds 1 to 8, 4 and 8
    have a pixel or two flagged.
    """
    by_a_common_one = 0
    for seed in (1, 2):
        problem, result = in_turn(seed)
        found = check(problem, result)
        assert found.clean, sentences(found)
        assert found.level is None  # the noise was learned from the misfit
        assert np.array_equal(found.noise, result.noise_variances)
        assert found.chi2.mean() == pytest.approx(
            1, abs=3 * found.chi2.std() / np.sqrt(len(problem))
        )
        for group in (slice(0, None, 2), slice(1, None, 2)):
            assert found.chi2[group].mean() == pytest.approx(1, abs=0.1)
            assert found.dose[group].mean() == pytest.approx(1, abs=0.004)
        assert "learned for each frame" in " ".join(sentences(found))
        common = check(problem, replace(result, noise_variances=None))
        assert common.noise is None
        assert common.chi2[::2].mean() > 20 * common.chi2[1::2].mean()
        by_a_common_one += len(common.bad_frames)
    assert by_a_common_one > 5


def test_foreign_frames_do_not_hide_in_their_own_noise():
    found = check(*in_turn(1, foreign=((20, 40), (31, 11))))
    assert set(found.bad_frames.tolist()) == {20, 31}
    assert np.argsort(-found.noise)[0] in (20, 31)


def test_what_is_refused():
    problem, result = fitted(made(6), "pie")
    with pytest.raises(PtychonError, match="rate of false alarms is 0"):
        check(problem, result, false_alarm=0)
    with pytest.raises(PtychonError, match="must be positive"):
        check(problem, result, noise_variance=-1.0)
    with pytest.raises(PtychonError, match="as the result read them"):
        check(problem.select(slice(0, 10)), result)
    assert check(problem, result).level is None


def test_the_command_flags_and_cleans(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    s = made(1)
    patterns = s.dataset.patterns.copy()
    patterns[20] = patterns[41]
    patterns[:, 3, 20] += 9
    write_dataset("scan.cxi", replace(s.dataset, patterns=patterns, probe=s.probe))
    assert (
        main(["reconstruct", "scan.cxi", "-e", "pie", "-n", "60", "-q", "--backend", "numpy"]) == 0
    )
    more = [
        "-e",
        "joint",
        "-n",
        "30",
        "--set",
        "burn_in=22",
        "--start",
        "scan_pie.h5",
        "-q",
        "--backend",
        "numpy",
    ]
    assert main(["reconstruct", "scan.cxi", *more]) == 0
    capsys.readouterr()
    assert (
        main(
            ["check", "scan_joint.h5", "--picture", "c.png", "-o", "c.json", "--clean", "clean.cxi"]
        )
        == 1
    )
    out = capsys.readouterr().out
    assert "1 detector pixel is hot: (3, 20)" in out
    assert "20 (" in out
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert [3, 20] in numbers["hot"]
    assert numbers["bad_frames"][0] == 20
    assert not numbers["clean"]
    assert (tmp_path / "c.png").stat().st_size > 10000
    again = load("clean.cxi")
    assert numbers["worst_frames"][0] == 20
    assert len(again) == len(s.dataset) - len(numbers["worst_frames"]) >= len(s.dataset) - 3
    assert not again.mask[3, 20]
    assert again.counting
    assert (
        main(["reconstruct", "clean.cxi", "-e", "pie", "-n", "60", "-q", "--backend", "numpy"]) == 0
    )
    again = [
        "-e",
        "joint",
        "-n",
        "30",
        "--set",
        "burn_in=22",
        "--start",
        "clean_pie.h5",
        "-q",
        "--backend",
        "numpy",
    ]
    assert main(["reconstruct", "clean.cxi", *again]) == 0
    capsys.readouterr()
    assert main(["check", "clean_joint.h5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"]
    assert main(["check", "clean_joint.h5", "-q"]) == 0
    assert not capsys.readouterr().out
    bars = [
        "clean_joint.h5",
        "--method",
        "joint",
        "--update",
        "probe:no",
        "--no-twin",
        "-q",
        "-o",
        "bars.h5",
        "--backend",
        "numpy",
    ]
    assert main(["error_bars", *bars]) == 0
    assert main(["check", "bars.h5", "--json"]) == 0  # its data are found
    assert main(["measure", "bars.h5", "--resolution", "-q"]) == 0
    for arguments, said in (
        (["--clean", "scan.cxi"], "file with the data"),
        (["-o", "x.txt"], "must be named .json"),
        (["--false-alarm", "2"], "between 0 and 1"),
        (["--clean", "x.png"], "must be named .cxi"),
    ):
        assert main(["check", "scan_joint.h5", *arguments]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("passes", "converged"), [(5, False), (60, True)])
def test_nothing_is_flagged_before_a_run_has_converged(passes, converged):
    """A scan without fault: after five passes its frames and pixels do not fit, and that is the
    run's fault.
    """
    s = made(7, 1e4)
    problem = Problem.from_dataset(s.dataset)
    result = reconstruct(
        problem, "rpie", passes=passes, backend="numpy", say=None, judge=False, seed=1
    )
    found = check(problem, result)
    assert found.converged is converged
    if converged:
        assert found.convergence.pull < 0.02
        return
    assert np.abs(found.pixel_score).max() > found.pixel_limit  # it would have been called bad
    assert not any(map(len, (found.hot, found.dead, found.noisy, found.bad_frames, found.drifts)))
    assert not found.clean
    (said,) = sentences(found)
    assert "has not converged" in said
    assert "run it longer" in said


def test_what_is_left_to_take_off_is_what_a_step_takes_off():
    """The pull of the data, against the misfit before and after a step of the object that is small
    enough to be linear.
    """
    from ptychon.checks.convergence import convergence
    from ptychon.model.batch import Batch, exit_wave, to_object

    problem = Problem.from_dataset(made(8, 1e5).dataset)
    quiet = {"backend": "numpy", "say": None, "judge": False}
    result = reconstruct(problem, "rpie", passes=4, **quiet)
    backend = get_backend("numpy")
    frames = Batch.of(problem, backend, slice(None))
    shifted = frames.probe(result.probe)
    gradient, light = np.zeros_like(result.object), np.zeros(result.object.shape, np.float32)

    def misfit(object):
        wave = frames.onward(exit_wave(shifted, frames.window(object)))
        return float(((np.sqrt((np.abs(wave) ** 2).sum(axis=1)) - problem.amplitude) ** 2).sum())

    psi = exit_wave(shifted, frames.window(result.object))
    z = frames.onward(psi)
    size = np.sqrt((np.abs(z) ** 2).sum(axis=1, keepdims=True))
    change = frames.back(z / size * problem.amplitude[:, None]) - psi
    frames.add(gradient, to_object(shifted, change))
    frames.add(light, (np.abs(shifted) ** 2).sum(axis=1))
    lit = light > 0.01 * light.max()
    step = np.where(lit, gradient / np.where(lit, light, 1), 0).astype(np.complex64)
    before, after = misfit(result.object), misfit(result.object + 0.02 * step)
    # a step of the length t takes off 2 t of it to first order
    assert convergence(problem, result, backend).pull == pytest.approx(
        (before - after) / (2 * 0.02 * before), rel=0.1
    )


def test_the_command_says_that_a_run_has_not_converged(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset("scan.cxi", made(7, 1e4).dataset)
    assert main(["reconstruct", "scan.cxi", "-n", "5", "-q", "--backend", "numpy"]) == 0
    capsys.readouterr()
    assert main(["check", "scan_rpie.h5", "-o", "c.json", "--picture", "c.png"]) == 1
    out = capsys.readouterr().out
    assert "has not converged" in out
    assert "hot" not in out
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert not numbers["converged"]
    assert numbers["hot"] == numbers["bad_frames"] == []
    assert main(["check", "scan_rpie.h5", "--clean", "clean.cxi"]) == 2
    assert "has not converged" in capsys.readouterr().err
    assert not (tmp_path / "clean.cxi").exists()
