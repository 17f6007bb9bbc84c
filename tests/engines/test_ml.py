"""The joint Gauss-Newton engine: one step against dense algebra, costs that never rise, positions
and doses that are found.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
import pytest

from ptychon import PtychonError, PtychonWarning, Recipe, Result, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import ML, Context, make
from ptychon.engines.undetermined import level
from ptychon.io.saved import load_result, save_result
from ptychon.metrics.residual import residual
from ptychon.model.forward import Model
from ptychon.model.problem import Problem
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.iterate import iterate
from ptychon.run.modes import shares
from ptychon.run.positions import carried
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.testing import EngineTests
from ptychon.testing.scans import small_scan


class TestML(EngineTests):
    """It is to be started from the result of another engine."""

    engine = ML
    options: ClassVar = {"positions": True, "dose": True, "iterations": 15}
    passes = 5
    gain = 0.3

    def start(self, scan):
        rng = np.random.default_rng(1)
        noise = rng.standard_normal((2, *scan.object.shape))
        return (scan.object + 0.1 * (noise[0] + 1j * noise[1])).astype(np.complex64), scan.probe

    def test_it_finds_slices(self):
        # an object of which nothing is known tells no positions, doses or probe
        self.options = TestMLWithTheProbeKnown.options
        super().test_it_finds_slices()


class TestMLWithTheProbeKnown(TestML):
    options: ClassVar = {"probe": False, "iterations": 15}


# ---------------------------------------------------------------- one step


def expected(field, probe, corners, fractions, dose):
    """lambda (N, P, Q) in plain NumPy and double precision."""
    p, q = probe.shape
    fy, fx = np.fft.fftfreq(p)[:, None], np.fft.fftfreq(q)[None, :]
    frames = []
    for (y, x), (sy, sx), a in zip(corners, fractions, dose, strict=True):
        shifted = np.fft.ifft2(np.fft.fft2(probe) * np.exp(-2j * np.pi * (fy * sy + fx * sx)))
        wave = np.fft.fft2(np.exp(a) * shifted * field[y : y + p, x : x + q], norm="ortho")
        frames.append(np.abs(wave) ** 2)
    return np.array(frames)


def test_one_step_is_the_solution_of_the_normal_equations(monkeypatch):
    """Nine frames of 8 x 7: J by difference quotients of a model in plain NumPy, the whole normal
    matrix solved at once.
    """
    monkeypatch.setattr("ptychon.engines.ml_cost.HELD", 0.0)
    rng = np.random.default_rng(3)
    p, q, h, w = 8, 7, 13, 12
    beam = probes.defocused_aperture((8, 8), radius=2.5, defocus=2)[:, :7].astype(np.complex128)
    beam *= 30 / np.linalg.norm(beam)
    field = np.exp(0.5j * rng.standard_normal((h, w)))
    places = np.stack(np.meshgrid([4.0, 6.2, 8.1], [3.0, 5.3, 7.9], indexing="ij"), -1).reshape(
        -1, 2
    )
    problem = Problem(
        amplitude=np.zeros((9, p, q), np.float32),
        mask=np.ones((1, p, q), bool),
        corners=np.zeros((9, 2), np.int32),
        shifts=np.zeros((1, 2), np.float32),
        shift_index=np.zeros(9, np.int32),
        object_shape=(h, w),
    ).with_positions(places)
    middle = np.array([p // 2, q // 2])
    truth = expected(field, beam, problem.corners, places - problem.corners - middle, np.zeros(9))
    problem = replace(
        problem, amplitude=np.sqrt(rng.poisson(truth)).astype(np.float32), measured=None
    )

    spread, dose_spread = 0.3, 0.05
    engine = ML(
        positions=True,
        dose=True,
        position_spread=spread,
        dose_spread=dose_spread,
        iterations=3000,
        tolerance=1e-6,
    )
    ctx = Context(get_backend("reference"))
    O = (field + 0.05 * (rng.standard_normal((h, w)) + 1j * rng.standard_normal((h, w)))).astype(
        np.complex64
    )
    P = beam[None].astype(np.complex64)
    state = engine.init(problem, O, P, ctx)
    state.log_scale = (0.02 * rng.standard_normal(9)).astype(np.float32)
    before = state.positions.copy(), state.log_scale.copy()

    def light(v):
        field, probe = (
            v[: 2 * h * w].view(complex).reshape(h, w),
            v[2 * h * w : -27].view(complex).reshape(p, q),
        )
        fractions = v[-27:-9].reshape(9, 2) - problem.corners - middle
        return expected(field, probe, problem.corners, fractions, v[-9:]).ravel()

    def flat(a):
        return np.ascontiguousarray(a, np.complex128).ravel().view(float)

    x = np.concatenate([flat(O), flat(P[0]), before[0].ravel(), before[1].astype(float)])
    step = 1e-5
    J = np.stack(
        [(light(x + step * u) - light(x - step * u)) / (2 * step) for u in np.eye(len(x))], axis=1
    )
    now = light(x)
    precision = np.concatenate(
        [np.zeros(len(x) - 27), np.full(18, spread**-2.0), np.full(9, dose_spread**-2.0)]
    )
    # far from a solution roots of counts are compared: -log p = 2 (sqrt(lambda) - sqrt(n))^2
    g = J.T @ (2 * (1 - problem.amplitude.ravel() / np.sqrt(now))) + precision * np.concatenate(
        [np.zeros(len(x) - 9), x[-9:]]
    )
    H = (J.T / now) @ J
    # about half the trace of each complex number, as if the light were spread evenly: what the
    # ridge is a share of
    share = 2 * np.exp(2 * before[1].astype(float))
    fraction = before[0] - problem.corners - middle
    fy, fx = np.fft.fftfreq(p)[:, None], np.fft.fftfreq(q)[None, :]
    on_object, on_probe = np.zeros((h, w)), np.zeros((p, q))
    for (y, z), (sy, sx), s in zip(problem.corners, fraction, share, strict=True):
        moved = np.fft.ifft2(np.fft.fft2(P[0]) * np.exp(-2j * np.pi * (fy * sy + fx * sx)))
        on_object[y : y + p, z : z + q] += s * np.abs(moved) ** 2
        on_probe += s * np.abs(O[y : y + p, z : z + q]) ** 2
    ridge = (
        np.concatenate([np.full(2 * h * w, on_object.max()), np.full(2 * p * q, on_probe.max())])
        * 1e-3
    )
    H += np.diag(precision + np.concatenate([ridge, np.zeros(27)]))
    wanted = -np.linalg.solve(H, g)

    state, report = engine.step(state, problem, [], ctx)
    length = float(report.extra["step"])
    assert length > 0

    def less(a):
        return a - a.mean(axis=0)  # the mean went into the probe

    def near(found, wanted):
        assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)

    # the gradient of the doses across the scan went into the object
    places = less(state.positions)
    columns = np.concatenate([np.ones((9, 1)), places], axis=1)
    g = np.linalg.lstsq(columns, before[1] + length * wanted[-9:], rcond=None)[0][1:]
    there = np.stack(np.indices((h, w)), axis=-1) - state.positions.mean(axis=0)
    near(flat(state.object * np.exp(-there @ g) - O), length * wanted[: 2 * h * w])
    for found, first, part in (
        (state.positions, before[0], wanted[-27:-9].reshape(9, 2)),
        (state.log_scale + places @ g, before[1], wanted[-9:]),
    ):
        near(less(found) - less(first), less(length * part))


# ------------------------------------------------------------- scans with wrong positions and doses


@cache
def scene(counts: float = 1e5, dose: float = 0.0):
    """49 frames of 32 x 32 between pixels, of a phase object; its problem has the
    true positions.
    """
    true = scan.raster(7, step=3, jitter=0.75, whole=False, seed=1)
    size = int(np.ptp(true, axis=0).max()) + 44
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((32, 32), radius=4.5, defocus=5)
    made = simulate(truth, beam, true, noise="poisson", mean_counts=counts, seed=1)
    data = made.dataset
    factors = np.zeros(len(true))
    if dose:
        rng = np.random.default_rng(2)
        factors = dose * rng.standard_normal(len(true))
        # thinned or as many times as bright: Poisson again, drawn from frames without noise
        clean = simulate(
            truth, beam, true, mean_counts=counts, seed=1, noise="none"
        ).dataset.patterns
        data = replace(
            data,
            patterns=rng.poisson(clean * np.exp(2 * factors)[:, None, None]).astype(np.float32),
        )
    return Problem.from_dataset(data, object_shape=truth.shape), made, factors


def start_of(problem) -> Result:
    """20 passes of rPIE from a probe with a wrong defocus."""
    first = probes.defocused_aperture((32, 32), radius=4.5, defocus=6.5)
    return reconstruct(problem, "rpie", passes=20, probe=first, backend="numpy", say=None)


def moved(problem, errors) -> Problem:
    return replace(problem.with_positions(problem.positions + errors), measured=None)


def off(found, true):
    """Root mean square of a coordinate, less the mean."""
    error = np.asarray(found) - true
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).mean()))


def wrong(kind, positions):
    x = positions - positions.mean(axis=0)
    if kind == "random":
        return 0.5 * np.random.default_rng(4).standard_normal(x.shape)
    if kind == "drift":
        t = np.linspace(0, 1, len(x))
        return np.stack([1.5 * t**2, np.sin(3 * t)], axis=1)
    turn = np.deg2rad(6)
    return (
        x
        @ (
            1.06 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            - np.eye(2)
        ).T
    )


@pytest.mark.parametrize(("kind", "at_first"), [("random", 0.4), ("drift", 0.35), ("affine", 0.7)])
def test_wrong_positions_are_found(kind, at_first):
    """From nothing but a probe with a wrong defocus; a scale wrong by 6 % and a rotation by 6
    degrees.
    """
    true, _, _ = scene()
    problem = moved(true, wrong(kind, true.positions))
    first = probes.defocused_aperture((32, 32), radius=4.5, defocus=6.5)
    found = reconstruct(
        problem, "ml", passes=12, positions=True, probe=first, backend="numpy", say=None
    )
    assert off(problem.positions, true.positions) > at_first
    assert off(found.positions, true.positions) < 0.06
    assert np.array_equal(found.positions_given, problem.positions)
    assert found.final_error == pytest.approx(float(found.errors[-1]), rel=1e-3)
    # whether positions are near after three steps is looked at, and the recipe says what ran
    ran = [stage.name for stage in Recipe.of(found).stages]
    assert ran == (
        ["rpie", "ml", "ml"] if kind == "random" else ["rpie", "ml", *["ml", "rpie"] * 2, "ml"]
    )


@pytest.mark.parametrize("looked", [True, False])
def test_a_frame_at_the_rim_that_is_lost_is_found(looked, monkeypatch):
    """The last of 49 frames, at a corner, 3 px off in a result that has adapted to it; without the
    part of the object that only it sees it stays there.
    """
    true, _, _ = scene()
    errors = np.zeros_like(true.positions)
    errors[48] = 2.6, -1.6
    problem = moved(true, errors)
    if not looked:
        monkeypatch.setattr("ptychon.model.lost.MOST", 0)
    found = reconstruct(
        problem, "ml", start=start_of(problem), passes=7, positions=True, backend="numpy", say=None
    )
    assert (found.history["searched"][-5:].sum() > 0) == looked
    far = np.hypot(
        *(found.positions - true.positions - np.median(found.positions - true.positions, axis=0)).T
    )
    assert (far[48] < 0.2) == looked
    assert (far[:48] < 0.2).all()


def test_exact_positions_are_left_where_they_are():
    true, _, _ = scene()
    found = reconstruct(
        true,
        "ml",
        start=start_of(true),
        passes=6,
        positions=True,
        dose=True,
        backend="numpy",
        say=None,
    )
    assert off(found.positions, true.positions) < 0.05
    assert found.log_scale.std() < 0.004


def test_three_modes_are_found():
    """70, 20 and 10 % of the power, to a point, from the strongest alone: in steps of `ml` that
    begin where rPIE has found the object but not the modes.
    """
    beam = probes.defocused_aperture((32, 32), radius=6, defocus=8)
    y, x = (np.arange(32) - 16)[:, None] / 6, (np.arange(32) - 16) / 6
    waves = np.stack([beam, beam * np.exp(1.5j * x) * (1 + y), beam * np.exp(-1j * y) * (x - 0.5)])
    basis = np.linalg.svd(waves.reshape(3, -1), full_matrices=False)[2].reshape(waves.shape)
    powers = np.array([0.7, 0.2, 0.1])
    truth = basis * np.sqrt(powers)[:, None, None]
    places = scan.raster(8, step=3, jitter=0.75, whole=False, seed=1)
    size = (72, 72)
    specimen = phantoms.complex_object(
        np.zeros(size), phantoms.texture(size, 2), amplitude_range=(1, 1)
    )
    made = simulate(specimen, truth, places, noise="poisson", mean_counts=1e5, seed=1)
    problem = Problem.from_dataset(made.dataset, object_shape=size)
    first = reconstruct(
        problem, "rpie", passes=20, probe=truth[0], modes=3, backend="numpy", say=None
    )
    found = reconstruct(problem, "ml", start=first, passes=8, backend="numpy", say=None)
    assert np.abs(shares(first.probe) - powers).max() > 0.015
    # measured: 71.7, 19.0, 9.3 % and 70.2, 19.7, 10.0 %
    np.testing.assert_allclose(shares(found.probe), powers, atol=0.01)
    flat, true = found.probe.reshape(3, -1), basis.reshape(3, -1)
    inside = (np.abs(flat.conj() @ true.T) ** 2).sum() / (np.abs(flat) ** 2).sum()
    assert inside > 0.99
    assert found.final_error < residual(problem, made.object, made.probe)


def across(factors, positions):
    """Doses without their mean and their gradient across the scan, which are no matter of the
    data.
    """
    columns = np.concatenate([np.ones((len(positions), 1)), positions], axis=1)
    return factors - columns @ np.linalg.lstsq(columns, factors, rcond=None)[0]


@pytest.mark.parametrize("rms", [0.1, 0.3])
def test_doses_are_found(rms):
    """As an amplitude; with the probe unknown all but their gradient across the scan."""
    problem, _, factors = scene(dose=rms)
    found = reconstruct(
        problem, "ml", start=start_of(problem), passes=10, dose=True, backend="numpy", say=None
    )
    wanted = across(factors, problem.positions)
    assert wanted.std() > 0.9 * rms * (1 - 2 / len(factors)) - 0.01
    assert (found.log_scale - wanted).std() < 0.005
    assert abs(found.log_scale.mean()) < 1e-5


def test_a_gradient_of_the_doses_changes_no_frame():
    """It goes into object and probe: the frames that the model expects stay, and so does the rest
    of the doses.
    """
    problem, _, factors = scene(dose=0.1)
    first, ctx = start_of(problem), Context(get_backend("reference"))
    state = ML(dose=True).init(problem, first.object, first.probe, ctx)
    slope = (problem.positions - problem.positions.mean(axis=0)) @ [0.004, -0.003]
    state.log_scale = (factors + slope).astype(np.float32)

    def light():
        x = ML(dose=True).unknowns(state, problem)
        model = Model.of(problem, ctx.backend)
        return model.intensity(model.view(x, slice(None)))

    before = light()
    level(state, np)
    assert np.allclose(
        state.log_scale - state.log_scale.mean(), across(factors, problem.positions), atol=1e-5
    )
    assert np.linalg.norm(light() - before) < 1e-3 * np.linalg.norm(before)
    assert np.linalg.norm(state.object - first.object) > 1e-2 * np.linalg.norm(first.object)


@pytest.mark.parametrize("held", [True, False])
def test_where_hardly_any_light_is_the_object_is_held(held, monkeypatch):
    """From positions wrong by 6 % and 6 degrees; without the prior noise fills the rim."""
    if not held:
        monkeypatch.setattr("ptychon.engines.ml_cost.HELD", 0.0)
    true, _, _ = scene()
    problem = moved(true, wrong("affine", true.positions))
    found = reconstruct(
        problem, "ml", start=start_of(problem), passes=8, positions=True, backend="numpy", say=None
    )
    assert (found.history["fell"][-8:] >= 0).all(), "a step raised what it minimises"
    light = found.illumination
    dark = np.abs(found.object[(light > 0) & (light < 0.003 * light.max())])
    lit = np.abs(found.object[light > 0.1 * light.max()])
    assert (dark.max() < 2 * lit.max()) == held


def test_the_cost_never_rises(monkeypatch):
    """200 counts a frame, positions and doses wrong, priors held: one cost from the first step to
    the last.
    """
    monkeypatch.setattr("ptychon.engines.ml_cost.HELD", 0.0)
    true, _, _ = scene(counts=200)
    problem = replace(
        moved(true, wrong("random", true.positions)), counting=False, noise_variance=0.25
    )
    engine = ML(positions=True, dose=True, position_spread=0.5, dose_spread=0.05, iterations=20)
    first = (
        np.full(problem.object_shape, 1, np.complex64),
        probes.defocused_aperture((32, 32), radius=4.5, defocus=6.5)[None],
    )
    steps = iterate(
        problem,
        engine,
        first[0],
        first[1].astype(np.complex64) * 14,
        ctx=Context(get_backend("reference")),
    )
    done = [next(steps).extra for _ in range(12)]
    costs, lengths = [d["cost"] for d in done], [d["step"] for d in done]
    assert (np.diff(costs) <= 1e-9 * costs[0]).all()
    assert costs[-1] < 0.9 * costs[0]
    assert min(lengths) < 1, "no step was shortened: this scan does not test the line search"


def test_the_scale_between_object_and_probe_does_not_matter():
    """(c O, P/c): the same positions, doses and steps, and the object times c."""
    scan = small_scan()
    problem = moved(
        scan.problem, 0.3 * np.random.default_rng(6).standard_normal((len(scan.problem), 2))
    )
    engine, ctx = (
        ML(positions=True, dose=True, iterations=8, tolerance=1e-9),
        Context(get_backend("reference")),
    )
    found = []
    for c in (1, 1.7 * np.exp(0.4j)):
        steps = iterate(problem, engine, scan.object * c, scan.probe / c, ctx=ctx)
        for _ in range(3):
            done = next(steps)
        found.append(
            (
                done.state.object / c,
                done.state.probe * c,
                done.state.positions,
                done.state.log_scale,
            )
        )
    for one, two in zip(*found, strict=True):
        assert np.linalg.norm(one - two) < 2e-3 * np.linalg.norm(one)
    assert off(found[0][2], found[1][2]) < 1e-3


# ---------------------------------------------------------------- from one run to the next


@pytest.fixture(scope="module")
def refined():
    """Three steps on the small scan, positions 0.3 px off."""
    scan = small_scan()
    problem = moved(
        scan.problem, 0.3 * np.random.default_rng(6).standard_normal((len(scan.problem), 2))
    )
    way = {
        "object": scan.object,
        "probe": scan.probe,
        "backend": "reference",
        "positions": True,
        "dose": True,
    }
    return problem, reconstruct(problem, "ml", passes=3, **way), way


def test_a_result_keeps_and_carries_positions(refined, tmp_path):
    problem, first, _ = refined
    assert off(first.positions, problem.positions) > 0.1
    save_result(tmp_path / "first.h5", first)
    read = load_result(tmp_path / "first.h5")
    for name in ("positions", "positions_given", "log_scale"):
        assert np.array_equal(getattr(read, name), getattr(first, name))
    on = reconstruct(
        problem, "ml", start=read, passes=1, positions=True, dose=True, backend="reference"
    )
    assert np.array_equal(on.positions_given, problem.positions)
    assert off(on.positions, first.positions) < 0.2 * off(first.positions, problem.positions)
    # engines that move neither use what was found
    plain = reconstruct(problem, "rpie", start=read, passes=1, backend="reference")
    assert np.abs(plain.positions - first.positions).max() < 1e-6
    assert np.array_equal(plain.positions_given, problem.positions)
    np.testing.assert_array_equal(plain.log_scale, first.log_scale)


def test_positions_of_another_scan_are_left_out(refined):
    problem, first, _ = refined
    other = moved(problem, np.arange(len(problem))[:, None] * np.array([[0.0, 0.02]]))
    with pytest.warns(
        PtychonWarning, match="the refined positions of the result to start from are left out"
    ):
        assert carried(other, first, make("ml")) is other


def test_refined_positions_stay_on_the_object():
    """A position beyond the rim keeps its window inside; the probe moves in it."""
    problem = small_scan().problem
    places = problem.positions.copy()
    places[0] -= 3 * problem.frame_shape[0]
    on = problem.with_positions(places)
    assert (on.corners >= 0).all()
    assert np.allclose(on.positions, places, atol=1e-4)
    with pytest.raises(PtychonError, match="refined positions have shape"):
        problem.with_positions(places[:-1])


def test_a_run_goes_on_from_a_checkpoint(refined, tmp_path):
    """Bit for bit, with positions, windows, spreads and ridge as they were."""
    problem, whole, way = refined
    stop = Checkpointer(tmp_path / "stop.h5", every=1)
    reconstruct(problem, "ml", passes=2, callbacks=[stop], **way)
    later = reconstruct(
        problem, "ml", passes=3, resume=load_checkpoint(tmp_path / "stop.h5"), **way
    )
    for name in ("object", "probe", "positions", "log_scale"):
        assert np.array_equal(getattr(later, name), getattr(whole, name)), name
