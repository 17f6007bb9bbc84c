"""Constraints: idempotent, harmless where they are true, timed, refused where they make no sense,
and each with a case that it helps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ptychon import PtychonError, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import After, Context, State
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import residual
from ptychon.model.problem import Problem
from ptychon.model.roughness import divergence, gradient
from ptychon.run.constraints import CONSTRAINTS, TotalVariation, constraint_of
from ptychon.run.constraints.raster import lattice
from ptychon.run.constraints.record import light_on
from ptychon.run.constraints.specimen import flat_phase, less_varied
from ptychon.run.words import text_of
from ptychon.simulation.scan import fermat_spiral, raster
from ptychon.simulation.simulate import simulate
from ptychon.testing.scans import small_scan

CTX = Context(get_backend("numpy", threads=1))
#: Of the object that is compared.
INNER = (slice(14, 50), slice(14, 50))
#: All of them, as something true of the scan below.
TRUE = (
    "amplitude:lo=0.7,hi=1.001",
    "transmission:high=1.001",
    "phase:lo=-3,hi=3",
    "phase:lo=0,hi=4,zero=0",
    "tv:weight=1e-3",
    "smooth:sigma=0.1",
    "grid_notch",
    "support:radius=11.9",
    "support:fraction=0.01",
    "support:fraction=0.01,soft=3",
    "aperture:mrad=30",
    "aperture:fraction=0.6",
    "aperture:fraction=0.5,edge=0.1",
    "centre",
    "power",
    "ramp",
    "orthogonal_modes",
    "depth:beta=1",
    "depth_centre",
)
#: Those that go on changing something when they are applied again, and which part of the first
#: change the second may make: a blur, a step towards less variation, edges that are soft.
GO_ON = ("tv", "smooth", "soft", "edge", "relax")


@lru_cache
def scan(modes: int = 1, near: bool = False):
    """36 frames of 24 x 24 on an exact raster with a pitch of 6 px; a smooth object, |O| <= 1."""
    rng, n = np.random.default_rng(1), 64
    f2 = np.add.outer(np.fft.fftfreq(n) ** 2, np.fft.fftfreq(n) ** 2)
    rough = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    s = np.fft.ifft2(np.fft.fft2(rough) * np.exp(-f2 / (2 * 0.08**2)))
    s /= np.abs(s).std()
    object = (1 - 0.1 * np.abs(s.real).clip(0, 2)) * np.exp(0.5j * s.imag)
    y, x = np.indices((24, 24)) - 12
    first = np.exp(-(y**2 + x**2) / (2 * 3.0**2) + 0.02j * (y**2 + x**2))
    probe = np.stack([first, 0.5 * x / 4 * first])[:modes]
    how = {"geometry": "near", "wavelength": 1e-10, "distance": 0.02, "pixel_size": 2e-7}
    made = simulate(
        object,
        probe,
        raster(6, step=6.0),
        noise="poisson",
        mean_counts=1e5,
        seed=3,
        **(how if near else {"wavelength": 2e-12, "pixel_size": 2e-11}),
    )
    problem = Problem.from_dataset(made.dataset, object_shape=object.shape)
    return problem, made.object, made.probe


def applied(text, state, problem):
    constraint = constraint_of(text)
    constraint.check(problem)
    found = State(state.object.copy(), state.probe.copy())
    constraint.apply(found, problem, CTX)
    assert found.object.dtype == found.probe.dtype == np.complex64
    return found


def far(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


#: Those for a thin object; `depth` asks for slices and is tested with them.
THIN = [text for text in TRUE if not text.startswith("depth")]


def error(result, truth):
    """Of the inner object, in percent."""
    return 100 * 10 ** (-align(result.object, truth, region=INNER).error_db / 20)


def test_every_constraint_is_among_those_that_are_tested():
    assert {text.partition(":")[0] for text in TRUE} == set(CONSTRAINTS)


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("text", THIN)
def test_what_is_true_does_no_harm_and_holds_at_once(text, modes):
    """R of the true object and probe, above their noise, stays; a second time changes nothing."""
    problem, object, probe = scan(modes)
    before = residual(problem, object, probe)
    once = applied(text, State(object, probe), problem)
    assert residual(problem, once.object, once.probe) < 1.002 * before
    twice = applied(text, once, problem)
    again = far(twice.object, once.object), far(twice.probe, once.probe)
    if any(word in text for word in GO_ON):
        first = far(once.object, object), far(once.probe, probe)
        assert all(b <= 1.001 * a + 1e-6 for a, b in zip(first, again, strict=True))
    else:
        assert max(again) < 1e-6


@pytest.mark.parametrize("text", THIN)
def test_they_do_what_they_say_to_slices(text):
    """An object with a second slice of ones is changed in its first as a thin one is, and keeps
    the ones where the constraint does not concern them.
    """
    problem, object, probe = scan()
    rng = np.random.default_rng(2)
    object = object + 0.1 * rng.normal(size=object.shape).astype("f4")
    thin = applied(text, State(object, probe), problem)
    both = np.stack([object, np.ones_like(object)])
    thick = applied(text, State(both, probe), problem)
    assert far(thick.object.prod(axis=0), thin.object) < 1e-6
    if text != "power":  # which all slices share
        assert far(thick.object[1], both[1]) < 1e-6
    assert far(thick.probe, thin.probe) < 1e-6


def test_each_does_what_it_is_called():
    problem, object, probe = scan(2)
    rng = np.random.default_rng(0)
    noise = (rng.normal(size=object.shape) + 1j * rng.normal(size=object.shape)).astype("c8")
    state = State(object + 0.2 * noise, np.roll(probe, (3, -2), (1, 2)))
    size = np.abs(applied("amplitude:lo=0.9,hi=1", state, problem).object)
    assert size.min() > 0.9 - 1e-6
    assert size.max() < 1 + 1e-6
    half = np.abs(applied("amplitude:lo=0.9,hi=1,relax=0.5", state, problem).object)
    np.testing.assert_allclose(half, (np.abs(state.object) + size) / 2, rtol=1e-5)
    power = np.abs(applied("centre", state, problem).probe) ** 2
    assert far(power, np.abs(probe) ** 2) < 1e-6
    tilt = np.exp(1j * (0.3 * np.arange(64)[:, None] - 0.2 * np.arange(64))).astype("c8")
    level, tilted = (applied("ramp", State(o, probe), problem) for o in (object, object * tilt))
    same = abs(np.vdot(tilted.object, level.object)) / np.linalg.norm(level.object) ** 2
    assert same == pytest.approx(1, abs=1e-5)
    spectrum = np.abs(np.fft.fft2(applied("aperture:fraction=0.3", state, problem).probe))
    q = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.fftfreq(24))
    assert spectrum[:, q > 0.151].max() < 1e-5 * spectrum.max()
    by_angle = applied("aperture:mrad=15", state, problem).probe  # 50 mrad at the edge
    assert far(by_angle, applied("aperture:fraction=0.3", state, problem).probe) < 1e-6
    clipped = applied("phase:lo=-0.4,hi=0.3", State(object, probe), problem).object
    tilted = applied("phase:lo=-0.4,hi=0.3", State(object * tilt, probe), problem).object
    assert far(tilted, clipped * tilt) < 1e-4
    lit = light_on(State(object, probe), problem, CTX)
    lit = lit * (lit > 0.1 * lit.max())
    phases = flat_phase(clipped, lit, 0.5)[lit > 0]
    assert -0.4 - 1e-4 < phases.min() < -0.39
    assert 0.29 < phases.max() < 0.3 + 1e-4
    assert float((np.abs(applied("power:500", state, problem).probe) ** 2).sum()) == pytest.approx(
        500, rel=1e-5
    )


def test_total_variation_falls_and_flat_objects_stay():
    rng = np.random.default_rng(0)
    O = (rng.normal(size=(20, 17)) + 1j * rng.normal(size=(20, 17))).astype("c8")

    def variation(u):
        return float(np.hypot(*map(np.abs, gradient(u))).sum())

    last = O
    for _ in range(5):
        new = less_varied(last, 0.05, 10, np)
        assert variation(new) < variation(last)
        assert new.mean() == pytest.approx(last.mean(), abs=1e-5)
        last = new
    # the least of 1/2 |u - O|^2 + w TV(u): nothing near it is lower
    least = less_varied(O, 0.3, 3000, np)
    value = [
        0.5 * float((np.abs(u - O) ** 2).sum()) + 0.3 * variation(u)
        for u in (least, *(least + 0.03 * rng.normal(size=O.shape) for _ in range(5)), O)
    ]
    assert value[0] < min(value[1:])
    turned = less_varied(O * np.complex64(1j), 0.3, 50, np)
    np.testing.assert_allclose(turned, 1j * less_varied(O, 0.3, 50, np), atol=1e-5)
    flat = np.full((6, 6), 0.5 + 0.5j, "c8")
    np.testing.assert_allclose(less_varied(flat, 0.3, 20, np), flat, atol=1e-6)
    p = [(rng.normal(size=O.shape) + 0j).astype("c8") for _ in range(2)]
    dy, dx = gradient(O)
    both = np.vdot(p[0], dy) + np.vdot(p[1], dx), -np.vdot(divergence(*p), O)
    assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_they_hold_when_it_is_said():
    case, seen = small_scan(), []
    asked = "support:radius=6,after=1,every=2,before=4"
    r = np.hypot(*(np.indices(case.probe.shape[-2:]) - case.probe.shape[-1] // 2))

    def outside(progress):
        seen.append(not np.asarray(progress.state.probe)[:, r > 6].any())

    result = reconstruct(
        case.problem,
        "rpie",
        passes=6,
        constraints=asked,
        probe=case.probe,
        callbacks=[outside],
        judge=False,
        backend="reference",
    )
    assert seen == [False, True, False, True, False, False]
    (stage,) = Recipe.of(result).stages
    assert stage.constraints == (constraint_of(asked),)
    assert stage.constraints[0].when == After(1, every=2, before=4)


def test_they_are_text():
    for text in (*TRUE, "tv:weight=0.001,steps=5,after=3,every=2,before=9", "centre:every=10"):
        made = constraint_of(text)
        assert constraint_of(text_of(made, CONSTRAINTS)) == made
    assert constraint_of("tv:1e-3,after=5") == TotalVariation(1e-3, when=After(5))
    for wrong, why in (
        ("tv:weight=0", "weight is 0.0; it must lie in"),
        ("support:radius=3,fraction=0.1", "radius and fraction is given; give one of"),
        ("support", "nothing is given; give one of radius, fraction"),
        ("amplitude:lo=2,hi=1", "hi is 1.0; it must lie in"),
        ("phase:lo=1", "lo is 1.0"),
        ("centre:after=x", "after=PASSES"),
        ("grid_notch:harmonics=0", "harmonics is 0"),
    ):
        with pytest.raises(PtychonError, match=why):
            constraint_of(wrong)


def test_they_are_refused_where_they_make_no_sense():
    near, _, _ = scan(near=True)
    problem, _, _ = scan()
    for text, of, why in (
        ("centre", near, "centre is for the far field"),
        ("aperture:mrad=60", problem, "edge of the detector, at 50 mrad"),
        ("aperture:mrad=5", replace(problem, wavelength=None), "needs the wavelength"),
        ("grid_notch", problem.select(slice(4)), "lie on no raster"),
    ):
        with pytest.raises(PtychonError, match=why):
            constraint_of(text).check(of)
    with pytest.raises(PtychonError, match="centre is for the far field"):
        reconstruct(near, "rpie", passes=2, constraints=["centre"], judge=False)
    for engine, prior in (("ep", "object_variance"), ("dm", "dm:60, rpie:60"), ("joint", "spectr")):
        with pytest.raises(PtychonError, match=prior):
            Stage(engine, 5, constraints=[constraint_of("power")])
    recipe = Recipe.parse("dm:3, rpie:4").constrained([constraint_of("ramp")])
    assert [len(stage.constraints) for stage in recipe.stages] == [0, 1]
    with pytest.raises(PtychonError, match="'dm' takes no constraints"):
        Recipe.parse("dm:3").constrained([constraint_of("ramp")])


def test_a_lattice_is_found_or_refused():
    rng = np.random.default_rng(4)
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    for steps in (np.diag([5.0, 5.0]), np.diag([4.0, 7.3]) @ turn, np.array([[6, 0], [3, 5.2]])):
        grid = np.stack(np.meshgrid(np.arange(9), np.arange(12), indexing="ij"), -1).reshape(-1, 2)
        places = 30 + grid @ steps + rng.uniform(-0.05, 0.05, grid.shape)
        origin, found = lattice(places[rng.permutation(len(places))])
        whole = (places - origin) @ np.linalg.inv(found)
        assert np.abs(whole - np.rint(whole)).max() < 0.05
        assert abs(np.linalg.det(found)) == pytest.approx(abs(np.linalg.det(steps)), rel=0.02)
    for places in (fermat_spiral(80, 5.0), rng.uniform(0, 60, (80, 2)), np.zeros((20, 2))):
        with pytest.raises(PtychonError, match="raster"):
            lattice(places)
    with pytest.raises(PtychonError, match="raster"):
        lattice(np.arange(20)[:, None] * np.array([[3.0, 0]]))
