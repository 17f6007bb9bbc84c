"""Ptycho-EP on small simulated scans: invariance, determinism, noise, priors, error
bars, failure.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from _problems import distance, make_case, normal
from ptychon import Problem, PtychonError, PtychonWarning, Recipe, Stage
from ptychon.backends import get_backend
from ptychon.distributed.comm import Serial
from ptychon.engines import Context, make
from ptychon.engines.ep_belief import rebuild
from ptychon.engines.priors import BernoulliGauss
from ptychon.metrics import residual as metrics
from ptychon.model.noise import per_frame as levels
from ptychon.run.iterate import iterate
from ptychon.run.reconstruct import reconstruct
from ptychon.run.schedule import Schedule
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.joint import joint


@functools.cache
def dense(seed=0):
    """Texture behind a circular aperture on a whole-pixel spiral at 30 dB, 4.2 measurements a
    pixel: the published kind.
    """
    n, L = 32, 128
    truth = phantoms.complex_object(phantoms.texture((L, L), 1), phantoms.cell((L, L), 2))
    positions = scan.fit(scan.fermat_spiral(400, 7.6, whole=True), (L, L), (n, n))
    return simulate(
        truth,
        probes.circular_aperture((n, n), 0.47 * n),
        positions,
        noise="gaussian",
        snr_db=30,
        seed=seed,
    )


@functools.cache
def sparse():
    """A third of the pixels is not zero; 2.6 measurements a pixel."""
    n, L = 32, 160
    amplitude = phantoms.texture((L, L), 1) * (phantoms.cell((L, L), 5) > 0.35)
    truth = phantoms.complex_object(amplitude, phantoms.texture((L, L), 2), amplitude_range=(0, 1))
    positions = scan.fit(scan.fermat_spiral(400, 10.4, whole=True), (L, L), (n, n))
    return simulate(
        truth,
        probes.circular_aperture((n, n), 0.47 * n),
        positions,
        noise="gaussian",
        snr_db=30,
        seed=1,
    )


@functools.cache
def between_pixels(noise="gaussian"):
    """A defocused probe at fractions of a pixel."""
    n, L = 32, 96
    truth = phantoms.complex_object(phantoms.texture((L, L), 1), phantoms.cell((L, L), 2))
    positions = scan.fit(scan.fermat_spiral(400, 5.0), (L, L), (n, n))
    strength = {"snr_db": 30} if noise == "gaussian" else {"mean_counts": 2e5}
    return simulate(
        truth,
        probes.defocused_aperture((n, n), 0.36 * n, 20.0),
        positions,
        noise=noise,
        seed=0,
        **strength,
    )


def run(simulation, passes=100, data=None, probe=None, **options):
    options = {"probe_updates": 0, "backend": "numpy"} | options
    probe = simulation.probe if probe is None else probe
    return reconstruct(
        simulation.dataset if data is None else data, "ep", probe=probe, passes=passes, **options
    )


def region(simulation):
    """Well-lit pixels."""
    return metrics.illuminated(Problem.from_dataset(simulation.dataset), simulation.probe, 0.3)


def decibel(result, simulation):
    return metrics.pmse(result.object, simulation.object, region(simulation))


def start(simulation, engine):
    """State of an engine after no pass, and what it needs to go on."""
    problem, ctx = Problem.from_dataset(simulation.dataset), Context(get_backend("numpy"))
    constant = np.ones(problem.object_shape, np.complex64)
    return engine.init(problem, constant, simulation.probe, ctx), problem, ctx


# ---------------------------------------------------------------- invariance


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_unit_of_the_data_does_not_matter(factor, known):
    """Data, probe and noise times 0.01 or 100: the same object and error bars (measured: 1e-6 after
    100 sweeps).
    """
    s, v = dense(), dense().dataset.noise_variance
    plain = replace(s.dataset, noise_variance=v if known else None)
    scaled = replace(
        s.dataset,
        patterns=s.dataset.patterns * np.float32(factor**2),
        noise_variance=v * factor**2 if known else None,
    )
    a, b = run(s, data=plain), run(s, data=scaled, probe=s.probe * np.float32(factor))
    assert decibel(a, s) > 27
    assert distance(b.object, a.object) < 2e-5
    assert distance(b.object_std, a.object_std) < 2e-5
    assert distance(b.history["noise_variance"] / factor**2, a.history["noise_variance"]) < 1e-4


@pytest.mark.parametrize("prior", ["gaussian", "sparse"])
def test_a_brighter_object_behind_a_darker_probe(prior):
    """O -> 10 O with P -> P/10 and the prior told so: the same data, ten times the object, ten
    times its error bar.
    """
    s = dense()
    a = run(s, 30, prior=prior, prior_start=10)
    b = run(
        s, 30, probe=s.probe / np.float32(10), prior=prior, prior_start=10, object_variance=100.0
    )
    assert distance(b.object / 10, a.object) < 1e-4
    assert distance(b.object_std / 10, a.object_std) < 1e-4


def test_masked_pixels_hold_nothing():
    """Whatever the values under the mask, the result is the same, bit for bit."""
    s = dense()
    mask = np.random.default_rng(0).random(s.dataset.frame_shape) > 0.05
    rubbish = np.where(mask, s.dataset.patterns, np.float32(np.nan))
    a, b = (
        run(s, 5, data=replace(s.dataset, patterns=p, mask=mask))
        for p in (s.dataset.patterns, rubbish)
    )
    assert np.array_equal(a.object, b.object)
    assert np.array_equal(a.errors, b.errors, equal_nan=True)


# ---------------------------------------------------------------- determinism


def digests():
    """SHA-256 of object, probe and error bar of a short run of every engine on two threads, from
    its own first guess.
    """
    simulation, out, backend = between_pixels("poisson"), {}, get_backend("numpy", threads=2)
    for name in ("pie", "epie", "rpie", "dm", "ep"):
        result = reconstruct(simulation.dataset, name, passes=6, backend=backend, seed=3)
        arrays = [result.object, result.probe] + (
            [] if result.object_std is None else [result.object_std]
        )
        out[name] = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    return out


def test_same_bits_every_time():
    """Every engine twice in this process and once in another gives the same bits."""
    here = digests()
    assert len(set(here.values())) == 5
    assert digests() == here
    script = "import _problems, test_ep; print(*test_ep.digests().values())"
    path = os.pathsep.join(
        [
            *map(str, (Path(__file__).parent, Path(__file__).parents[1])),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert there.stdout.split() == list(here.values()), there.stderr


# ---------------------------------------------------------------- state


def test_state_is_compact():
    """12 bytes a pixel and position with the amplitude, beside the shifted probes and maps of the
    object's size.
    """
    for simulation, shifts in ((dense(), 1), (between_pixels(), None)):
        state, problem, _ = start(simulation, make("ep", probe_updates=0))
        n, (p, q), (h, w) = len(problem), problem.frame_shape, problem.object_shape
        shifts = shifts or len(problem.shifts)
        frames = state.messages.nbytes + problem.amplitude.nbytes
        assert frames == 12 * n * p * q
        arrays = {getattr(state, k).nbytes for k in ("probes",)}
        assert arrays == {8 * shifts * p * q}
        slots = [k for cls in type(state).__mro__ for k in getattr(cls, "__slots__", ())]
        total = sum(np.asarray(getattr(state, k)).nbytes for k in slots)
        maps = (8 + 8 + 4 + 8 + 4) * h * w  # object, eta, Lambda, and the prior's two
        assert total == 8 * n * p * q + 8 * (shifts + 1) * p * q + maps + 4 * n + 4 + 4 + 8 + 1


def test_sums_drift_by_rounding_only():
    """After 49 sweeps (the 50th rebuilds them) Lambda and eta are still the sums of the messages,
    to 1e-5.
    """
    engine = make("ep", probe_updates=0)
    state, problem, ctx = start(dense(), engine)
    for progress in iterate(problem, engine, None, None, ctx=ctx, resume=state):
        if progress.passes == 49:
            break
    precision, natural = state.precision.copy(), state.natural.copy()
    rebuild(state, problem, ctx)
    assert np.abs(precision / state.precision - 1).max() < 2e-5
    assert distance(natural, state.natural) < 1e-5


def test_probe_steps_rebuild_the_sums():
    """Lambda and eta belong to the probe that was used; after a probe update they are those of the
    new one.
    """
    case, ctx = make_case(subpixel=True), Context(get_backend("numpy"))
    engine = make("ep", probe_updates=2, probe_start=0)
    steps = iterate(case.problem, engine, case.object, case.probe, ctx=ctx)
    for _ in range(3):
        state = next(steps).state
    precision, natural = state.precision.copy(), state.natural.copy()
    rebuild(state, case.problem, ctx)
    assert np.array_equal(precision, state.precision)
    assert np.array_equal(natural, state.natural)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_noise_variance_is_learned(factor):
    """From ten times too much or too little (measured: 4 % low after 100 sweeps, and no loss in the
    object).
    """
    s, v = dense(), dense().dataset.noise_variance
    told = run(s)
    learned = run(s, data=replace(s.dataset, noise_variance=factor * v), learn_noise=True)
    assert learned.history["noise_variance"][0] == pytest.approx(factor * v, rel=1e-6)
    assert learned.history["noise_variance"][-1] == pytest.approx(v, rel=0.15)
    assert decibel(learned, s) > decibel(told, s) - 0.1


def test_an_unknown_variance_is_learned_from_nothing():
    s, v = dense(), dense().dataset.noise_variance
    result = run(s, data=replace(s.dataset, noise_variance=None))
    assert result.history["noise_variance"][-1] == pytest.approx(v, rel=0.15)
    assert decibel(result, s) > 29  # 29.19 with the variance given


@functools.cache
def frames_in_turn():
    """57 frames of 20 and 35 dB in turn, 8.9 measurements a pixel, and the variance of each."""
    n, L = 32, 96
    truth = phantoms.complex_object(phantoms.texture((L, L), 1), phantoms.cell((L, L), 2))
    positions = scan.fit(scan.fermat_spiral(400, 5.0, whole=True), (L, L), (n, n))
    s = simulate(truth, probes.circular_aperture((n, n), 0.47 * n), positions)
    clean = s.dataset.patterns
    v = clean.mean() / 10 ** np.where(np.arange(len(clean)) % 2, 3.5, 2.0)
    rng = np.random.default_rng(7)
    noisy = (
        np.maximum(np.sqrt(clean) + np.sqrt(v)[:, None, None] * rng.standard_normal(clean.shape), 0)
        ** 2
    )
    data = replace(s.dataset, patterns=noisy.astype(np.float32), noise_variance=None)
    return s, data, v


def test_each_frame_learns_its_noise():
    """Variances 32 times apart are found, the object is nearer to the truth than with a common one,
    and the bars are better.

    Those of the noisy frames are a fifth low: many amplitudes are cut off at 0, which the noise
    before the modulus never is. The joint posterior knows of the cut (measured: 2 % low, and 5 %
    high in the quiet frames).
    """
    s, data, v = frames_in_turn()
    own, common = (run(s, data=data, noise_per_frame=each) for each in (True, False))
    assert own.noise_variances is not None
    assert common.noise_variances is None
    ratio = own.noise_variances / v
    assert np.median(ratio[::2]) == pytest.approx(0.8, abs=0.1)
    assert np.median(ratio[1::2]) == pytest.approx(1.1, abs=0.1)
    assert decibel(own, s) > decibel(common, s) + 5
    found = [
        metrics.coverage(r.object, s.object, r.object_std, region(s)).mean_square
        for r in (own, common)
    ]
    assert abs(found[0] - 1) < 0.05 < abs(found[1] - 1)
    whole, posterior, twin = joint(
        Problem.from_dataset(data), own, update=("object",), backend="numpy"
    )
    ratio = whole.noise_variances / v
    assert ratio[::2].mean() == pytest.approx(1, abs=0.1)
    assert ratio[1::2].mean() == pytest.approx(1, abs=0.1)
    covered = metrics.coverage(whole.object, s.object, whole.object_std, region(s))
    assert covered.covered == pytest.approx(covered.probability, abs=0.04)
    assert decibel(whole, s) > decibel(own, s)
    assert twin is not None
    assert twin.holds
    assert "learned for each frame" in posterior.conditional[0]


def test_frames_that_are_alike_share_their_noise():
    """What a frame keeps of its own estimate is what frames differ by, beyond chance."""
    s, v = dense(), dense().dataset.noise_variance
    own = run(s, noise_per_frame=True)
    assert own.noise_variances == pytest.approx(v, rel=0.15)
    n = s.dataset.patterns[0].size
    assert own.noise_variances.std() < 0.5 * v * (2 / n) ** 0.5


def test_a_frame_of_few_pixels_keeps_little_of_its_own():
    rng, n = np.random.default_rng(5), np.array([1000.0, 1000, 1000, 1000, 4, 0])
    truth = np.array([1.0, 2, 1, 2, 1, 1])
    sums = np.array([truth[j] * (rng.standard_normal(int(n[j])) ** 2).sum() for j in range(6)])
    found = levels.shrunk(sums, n, np, Serial())
    assert found[:4] == pytest.approx(truth[:4], rel=0.1)
    common = sums.sum() / n.sum()
    assert abs(found[4] - common) < 0.4 * abs(sums[4] / 4 - common)
    assert found[5] == pytest.approx(common)


def test_a_given_variance_stays():
    s = dense()
    assert not np.ptp(run(s, 8).history["noise_variance"])
    assert run(s, 2, noise_variance=0.125).history["noise_variance"].tolist() == [0.125, 0.125]
    counts = between_pixels("poisson")
    assert run(counts, 8).history["noise_variance"].tolist() == [0.25] * 8


def test_data_without_noise():
    """The variance is learned down to its floor, the object to what the fits of the Bessel
    functions allow (76 dB).
    """
    s = dense()
    truth = simulate(s.object, s.probe, s.dataset.positions)
    result = run(truth, 150)
    floor = 1e-8 * float((Problem.from_dataset(truth.dataset).amplitude ** 2).mean())
    assert result.history["noise_variance"].min() >= 0.999 * floor
    assert result.history["noise_variance"][-1] < 1e-3 * s.dataset.noise_variance
    assert decibel(result, truth) > 65


@pytest.mark.parametrize("variance", [1e-4, 1e-6, 1e-8])
def test_bright_pixels_do_not_run_away(variance):
    """Known variances far below the brightest pixels: 1e4 to 1e12 times their square root's."""
    s = dense()
    truth = simulate(s.object, s.probe, s.dataset.positions)
    assert truth.dataset.patterns.max() > 20
    assert decibel(run(truth, 100, noise_variance=variance), truth) > 40


# ---------------------------------------------------------------- output functions


def test_auto_is_rician_with_enough_data_and_laplace_near_the_limit():
    """2.7 measurements a lit pixel separate them; Laplace begins after 10 sweeps, and never where
    the probe moves.
    """
    rician, auto = run(dense(), 15, output="rician"), run(dense(), 15)
    assert np.array_equal(rician.object, auto.object)
    s = sparse()
    few, ratio = (
        Problem.from_dataset(s.dataset),
        metrics.sampling_ratio(Problem.from_dataset(s.dataset), s.probe),
    )
    assert 2.5 < ratio < 2.7
    engine, moving = make("ep", probe_updates=0), make("ep")
    state, _, ctx = start(s, engine)
    choice = []
    for progress in iterate(few, engine, None, None, ctx=ctx, resume=state):
        choice.append(engine.uses_laplace(progress.state))
        if progress.passes == 12:
            break
    assert choice == [False] * 9 + [True] * 3
    assert not moving.init(few, s.object, s.probe, ctx).near_limit


# ---------------------------------------------------------------- sparse prior


def test_sparse_prior_after_the_gaussian_has_converged():
    """Measured over six noise seeds: 29.8 to 32.5 dB with the sparse prior, 20.8 to
    21.4 without.
    """
    s = sparse()
    plain, better = run(s, 200), run(s, 200, prior="sparse")
    assert 19 < decibel(plain, s) < 23
    assert decibel(better, s) > 28.5
    # where no light falls the error bar is that of the prior, sqrt(density * variance)
    assert better.object_std[0, 0] == pytest.approx(0.1**0.5, rel=1e-3)
    assert plain.object_std[0, 0] == 1
    # before its first sweep the prior has no say
    assert np.array_equal(run(s, 20, prior="sparse", prior_start=20).object, run(s, 20).object)


def test_sparse_message_is_the_matched_belief_less_what_came_in():
    """Times the incoming message it has the mean and variance of the exact belief, or where that
    cannot be the mean alone.
    """
    rng = np.random.default_rng(0)
    V = (10 ** rng.uniform(-4, 4, (40, 40))).astype(np.float32)
    m = (np.sqrt(V + (rng.random(V.shape) < 0.3)) * normal(rng, V.shape)).astype(np.complex64)
    precision, natural = 1 / V, m / V
    kernels = get_backend("reference").kernels
    g, h = BernoulliGauss(0.2, 2.0).message(precision, natural, kernels, np)
    mean, variance, _ = kernels.bernoulli_gauss(m, V, 0.2, 2.0)
    assert (g > 0).all()
    assert np.allclose((natural + h) / (precision + g), mean, rtol=1e-3, atol=1e-4)
    possible = (1 / variance > 1.001 * precision) & (variance > 1.001e-4 * V * 2 / (V + 2))
    assert 0.2 < possible.mean() < 1
    assert np.allclose(((precision + g) * variance)[possible], 1, rtol=1e-4)


def test_sparse_prior_at_once_fails_and_starts_again():
    """From a constant start most visits are skipped: a warning, and a second run that lets the
    Gaussian prior go first.
    """
    s = sparse()
    with pytest.warns(
        PtychonWarning, match="learned nothing from most frames.*prior_start=60"
    ) as caught:
        result = run(s, 120, prior="sparse", prior_start=0)
    assert len(caught) == 1
    assert result.options["prior_start"] == 60
    assert len(result.errors) == 120
    assert decibel(result, s) > 18


# ---------------------------------------------------------------- failure


def test_a_run_that_learns_nothing_is_never_a_result():
    """Restarted twice with smaller damping, once more after PIE, then refused: the prior says it is
    100 times darker.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(PtychonError, match="'ep' failed 3 times"):
            run(dense(), 100, object_variance=1e-4)
    messages = [str(w.message) for w in caught if issubclass(w.category, PtychonWarning)]
    assert len(messages) == 5
    assert "damping=0.45" in messages[0]
    assert "damping=0.225" in messages[1]
    assert "going on with 50 passes of pie, 100 passes of ep instead" in messages[2]
    assert not any("prior_start" in m for m in messages)  # the Gaussian prior has no start


def test_frames_that_add_little_each_add_up():
    """1600 frames of few counts that measure every pixel a thousand times: what one frame adds is
    no failure.
    """
    truth = phantoms.complex_object(phantoms.texture((32, 32), 1), phantoms.cell((32, 32), 2))
    positions = scan.raster((40, 40), 0.4, whole=False)
    s = simulate(truth, probes.gaussian((16, 16), 7), positions, noise="poisson", mean_counts=200)
    assert metrics.sampling_ratio(Problem.from_dataset(s.dataset), s.probe) > 700
    with warnings.catch_warnings():
        warnings.simplefilter("error", PtychonWarning)
        result = run(s, 10)
    assert result.history["skipped"].max() == 0
    assert decibel(result, s) > 14  # measured: 15.7


def test_laplace_from_a_constant_start_is_replaced():
    """Its variance diverges where the first detector waves vanish; the second run is Rician and a
    good one.
    """
    s = sparse()
    with pytest.warns(PtychonWarning, match="output=rician"):
        result = run(s, 60, output="laplace")
    assert result.options["output"] == "rician"
    assert result.history["skipped"].max() < 0.5


# ----------------------------------------------------------- sub-pixel positions, error bars, probe


def test_fractions_of_a_pixel_are_worth_honouring():
    """Measured: 32.5 dB against 26.7 dB with rounded positions, R 0.027 against 0.040."""
    s = between_pixels()
    exact, rounded = run(s), run(s, subpixel=False)
    assert decibel(exact, s) > 31.5
    assert decibel(exact, s) > decibel(rounded, s) + 4
    assert exact.final_error < 0.8 * rounded.final_error


@pytest.mark.parametrize("seed", [0, 1])
def test_error_bars_are_honest(seed):
    """|error|^2/object_std^2 is exponential with mean 1 (measured 1.07), and its quantiles are
    those of such a law.
    """
    s = dense(seed)
    assert 4.0 < metrics.sampling_ratio(Problem.from_dataset(s.dataset), s.probe) < 4.3
    result = run(s)
    found = metrics.coverage(result.object, s.object, result.object_std, region(s))
    assert 0.85 < found.mean_square < 1.2
    assert found.within_factor_two == pytest.approx(0.7605, abs=0.03)
    for p, covered in zip(found.probability, found.covered, strict=True):
        assert covered == pytest.approx(p, abs=0.05)


@pytest.mark.parametrize("updates", [1, 2])
def test_the_probe_is_learned(updates):
    """By EM alone, from a probe 33 % wrong: 31 dB in the object (10 dB with that probe kept) and 2
    % in the probe.
    """
    s = between_pixels()
    wrong = probes.defocused_aperture((32, 32), 0.40 * 32, 12.0)
    # no first guess by another engine
    stages = [Stage("ep", 100, {"probe_updates": k}) for k in (0, updates)]
    found = [reconstruct(s.dataset, Recipe(g), probe=wrong, backend="numpy") for g in stages]
    aligned = [
        metrics.align(r.object, s.object, region=region(s), max_shift=4, subpixel=True)
        for r in found
    ]
    assert aligned[0].error_db < 15
    assert aligned[1].error_db > 29

    def wrongness(probe):
        factor = np.vdot(probe, s.probe) / np.vdot(probe, probe)
        return distance(factor * probe, s.probe)

    assert wrongness(wrong[None]) > 0.3
    assert wrongness(aligned[1].apply_probe(found[1].probe)) < 0.04
    assert np.array_equal(
        found[0].probe, np.asarray(wrong[None], np.complex64)
    )  # a known probe is returned as it was


def test_other_schedules_reach_the_same_fixed_point():
    """All of them, from a constant start, to the accuracy of the error bars."""
    s = dense()
    expected = run(s, 150)
    for kind, passes in (("colours", 150), ("minibatch", 150), ("parallel", 400)):
        found = run(s, passes, schedule=Schedule(kind=kind, size=8))
        assert decibel(found, s) > decibel(expected, s) - 0.3, kind
        inside = region(s)
        turned = metrics.phase_align(found.object, expected.object, inside)
        assert (
            np.abs(turned - expected.object)[inside].mean()
            < 0.3 * expected.object_std[inside].mean()
        ), kind


def test_beliefs_that_go_to_and_fro_are_damped():
    """Few measurements under uneven light: with damping 0.9 the object changes by half in every
    sweep, for ever.
    """
    parts = [phantoms.texture((128, 128), i) for i in (1, 2)]
    truth = phantoms.complex_object(
        *parts, amplitude_range=(0.1, 1.0), phase_range=(0.0, np.pi / 2)
    )
    beam = probes.defocused_aperture((32, 32), 11.5, 19.2)
    positions = scan.fit(scan.fermat_spiral(100, 13.0, whole=True), truth.shape, beam.shape)
    made = simulate(truth, beam, positions, noise="poisson", mean_counts=300 * 1024, seed=0)
    problem = Problem.from_dataset(made.dataset)
    lit = metrics.illuminated(problem, made.probe)
    assert metrics.sampling_ratio(problem, made.probe) < 2.7

    def error(passes):
        r = reconstruct(
            problem, "ep", probe=made.probe, probe_updates=0, passes=passes, backend="numpy"
        )
        return r, metrics.align(r.object, made.object, region=lit, max_shift=0, ramp=False).error_db

    short, before = error(119)
    with pytest.warns(
        PtychonWarning, match="still changes the object by .*%.*output=rician, damping=0.3"
    ):
        r, after = error(150)
    assert short.history["change"][-1] > 0.35
    assert r.history["change"][-1] < 0.01
    assert r.options["damping"] == 0.3
    assert r.passes == 150
    assert before < 7 < after
