"""Recipes: stages one after the other, what an engine gets where nobody writes one, and repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from _problems import make_case
from ptychon import Dataset, PtychonError, PtychonWarning, Recipe, Stage, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import After, Context, make
from ptychon.engines.pie import RPIE
from ptychon.metrics.alignment import align
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.constraints import (
    CONSTRAINTS,
    OrthogonalModes,
    Power,
    Smooth,
    Support,
    Transmission,
    constraint_of,
)
from ptychon.run.progress import described
from ptychon.run.schedule import Schedule
from ptychon.run.until import RULES, Below, Placed, Settled, Still, rule_of
from ptychon.run.words import text_of


def run(recipe="dm", passes=8, **options):
    case = make_case()
    way = {
        "backend": "reference",
        "judge": False,
        "probe": case.probe,
        "object": case.object,
        "say": None,
    }
    return reconstruct(case.problem, recipe, passes=passes, **{**way, **options})


def test_a_stage_begins_where_the_last_one_ended():
    """Each alone, from the result of the one before."""
    whole = run("dm:3, rpie:2, pie:2")
    first = run(Recipe(Stage("dm", 3)))
    second = run(Stage("rpie", 2), object=first.object, probe=first.probe)
    third = run(Stage("pie", 2), object=second.object, probe=second.probe)
    np.testing.assert_array_equal(whole.object, third.object)
    errors = np.concatenate([first.errors, second.errors, third.errors])
    np.testing.assert_array_equal(whole.errors, errors)
    assert (whole.engine, whole.passes) == ("pie", 7)
    assert whole.settings["ran"] == [["dm", 3], ["rpie", 2], ["pie", 2]]
    assert described(whole.settings["ran"]) == "3 of dm, then 2 of rpie, then 2 of pie"
    assert described([["ep", 5]]) == ""


def test_callbacks_count_all_stages():
    seen = []
    run("dm:3, rpie:2", callbacks=[lambda p: seen.append((p.passes, p.planned, p.engine.name))])
    names = ["dm"] * 3 + ["rpie"] * 2
    assert seen == [(i, 5, name) for i, name in enumerate(names, 1)]


def test_a_result_repeats_its_recipe():
    """From what the result stores, to the same bits."""
    asked = Recipe(
        Stage("dm", 3, {"beta": 0.8}, aside=True),
        Stage(
            "rpie", 4, update={"probe": After(2)}, until=(Below(1e-9),), constraints=[Support(5)]
        ),
        Stage(RPIE(object_reg=0.5), 2, schedule=Schedule(kind="minibatch", size=3)),
    )
    found = run(asked)
    assert str(Recipe.of(found)) == str(asked) == "dm:3, rpie:4, rpie:2"
    again = run(Recipe.of(found))
    np.testing.assert_array_equal(again.object, found.object)
    assert again.settings == found.settings
    assert Recipe.read(asked.stored()).stored() == asked.stored()


def test_the_usual_recipe_of_ptycho_ep_is_repeated():
    """Its first guess names a rescue that is aside as well."""
    found = run("ep", 2, object=None)
    assert found.settings["first_guess"][0][0] == "dm"
    again = run(Recipe.of(found), object=None)
    np.testing.assert_array_equal(again.object, found.object)


def test_an_older_result_is_repeated_by_its_engine_and_passes():
    found = run("rpie", 3, object_step=0.5)
    found.settings.pop("recipe")
    (stage,) = Recipe.of(found).stages
    assert (stage.name, stage.passes, stage.made().object_step) == ("rpie", 3, 0.5)


def test_fewer_passes_are_shared_out():
    recipe = Recipe(Stage("dm", 5, aside=True), *Recipe.parse("dm:60, rpie:30, ep:10").stages)
    for passes, words in (
        (100, "dm:5, dm:60, rpie:30, ep:10"),
        (50, "dm:5, dm:30, rpie:15, ep:5"),
        (200, "dm:5, dm:120, rpie:60, ep:20"),
        (4, "dm:5, dm:2, rpie:1, ep:1"),
        (2, "dm:5, dm:1, rpie:1"),
    ):
        assert str(recipe.scaled(passes)) == words
        assert recipe.scaled(passes).passes == passes
    for passes, words in (
        (110, "dm:5, dm:60, rpie:40, ep:10"),
        (95, "dm:5, dm:60, rpie:25, ep:10"),
        (88, "dm:5, dm:60, rpie:25, ep:3"),
        (85, "dm:5, dm:60, rpie:25"),
    ):
        assert str(recipe.reaching(passes, stage=2, done=25)) == words
    # stages that are alike
    assert str(Recipe.parse("rpie:5, rpie:5").scaled(4)) == "rpie:2, rpie:2"


def test_a_quarter_of_the_passes_of_the_difference_map_is_of_rpie():
    """The difference map's are those of a run without the end."""
    found, alone = run(), run("dm:6")
    assert found.engine == "dm"
    assert found.settings["ran"] == [["dm", 6], ["rpie", 2]]
    np.testing.assert_array_equal(found.errors[:6], alone.errors)
    np.testing.assert_array_equal(found.object, run("dm:6, rpie:2").object)
    assert [str(Recipe.of(run(passes=n))) for n in (1, 3, 4)] == ["dm:1", "dm:3", "dm:3, rpie:1"]
    assert run("rpie").settings["ran"] == [["rpie", 8]]


def test_it_ends_nearer_the_truth():
    """1e5 counts a frame and a first probe that is too wide: measured 23.1 dB without the end, 26.0
    dB with it.
    """
    n, r = 32, np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8) * 4, np.arange(8) * 4, indexing="ij"), -1).reshape(
        -1, 2
    )
    places = grid + r.integers(-1, 2, grid.shape)
    places -= places.min(0)
    shape = tuple((places.max(0) + n).tolist())
    f2 = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.fftfreq(shape[1])[None] ** 2
    fields = [
        np.fft.ifft2(np.fft.fft2(r.standard_normal(shape)) * np.exp(-f2 * s**2)).real
        for s in (8, 10)
    ]
    low, phase = ((a - a.min()) / np.ptp(a) for a in fields)
    truth = (0.6 + 0.4 * (low > 0.5)) * np.exp(1.2j * phase)
    y = np.arange(n) - n // 2
    right, wide = (
        1 / (1 + np.exp((np.hypot(y[:, None], y) - radius) / 0.7)) + 0j for radius in (8, 9)
    )
    right *= np.sqrt(1e5 / np.sum(np.abs(right) ** 2))
    waves = [np.fft.fft2(right * truth[a : a + n, b : b + n], norm="ortho") for a, b in places]
    data = Dataset(
        patterns=np.fft.fftshift(r.poisson(np.abs(waves) ** 2), axes=(1, 2)),
        positions=places.astype(float),
    )

    def decibels(recipe):
        way = {"probe": wide, "backend": "reference", "judge": False, "say": None}
        found = reconstruct(data, recipe, passes=40, **way)
        return align(
            found.object, truth, region=np.s_[16 : shape[0] - 16, 16 : shape[1] - 16], max_shift=8
        ).error_db

    assert decibels("dm") > decibels("dm:40") + 1.5


def test_stages_end_by_rules():
    """Two that never move end the first stage after five passes, and the second goes on."""
    still = Stage("ep", 9, {"probe_updates": 0}, until=(Still(1e9),))
    assert run(Recipe(still, Stage("rpie", 2))).settings["ran"] == [["ep", 5], ["rpie", 2]]
    assert run(Stage("rpie", 9, until=(Below(2.0),))).passes == 1
    assert run("rpie", 9, until="settled:0.9").passes == 2
    near = Stage("ml", 3, {"positions": True}, until=(Placed(0.0),), more=[Stage("rpie", 2)])
    found = run(Recipe(near, Stage("rpie", 1)))
    assert found.settings["ran"] == [["ml", 3], ["rpie", 2], ["rpie", 1]]
    assert [stage.more for stage in Recipe.of(found).stages] == [(), (), ()]
    near = replace(near, until=(Placed(9.0, 2, 99.0),))
    assert run(Recipe(near, Stage("rpie", 1))).settings["ran"] == [["ml", 2], ["rpie", 1]]
    assert Stage.read(near.stored()).more == near.more
    known = {
        "placed:0.1,2": Placed(0.1, 2),
        "still:0.0001": Still(1e-4),
        "settled": Settled(),
        "below:1": Below(1),
    }
    for text, rule in known.items():
        assert rule_of(text) == rule == rule_of(text_of(rule, RULES)) == rule_of(rule)
    for wrong in ("still", "steady:1", "below:-1", "still:a", "still:1,5,7", "still:,5", 3):
        with pytest.raises(PtychonError, match="ends a stage is"):
            rule_of(wrong)


@dataclass(frozen=True, kw_only=True)
class Diverging(RPIE):
    """An engine that leaves an object that is not finite."""

    name: ClassVar[str] = "diverging"

    def object_weight(self, p2, corners, k):
        return super().object_weight(p2, corners, k) * np.float32(np.nan)


def test_a_stage_that_fails_is_rescued():
    with pytest.raises(PtychonError, match="'diverging' diverged"):
        run(Diverging(), 2)
    stage = Stage(Diverging(), 2, rescue=[Stage("rpie", 3)])
    with pytest.warns(PtychonWarning, match="diverged.*: going on with 3 passes of rpie instead"):
        found = run(Recipe(stage, Stage("pie", 1)))
    np.testing.assert_array_equal(found.object, run("rpie:3, pie:1").object)
    assert str(Recipe.of(found)) == "rpie:3, pie:1"
    with pytest.warns(PtychonWarning, match="going on without it"):
        found = run(Recipe(Stage(Diverging(), 2, rescue=()), Stage("pie", 1)))
    assert found.settings["ran"] == [["pie", 1]]
    with pytest.raises(PtychonError, match="'diverging' diverged"):
        run(Stage(Diverging(), 2, rescue=()))


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_recipe_goes_on_bit_for_bit(tmp_path, stop):
    """In its first stage, at a change of engines, and in the last."""
    path, recipe = tmp_path / "c.h5", "dm:4, rpie:3"
    run(recipe, callbacks=[Checkpointer(path, 1), lambda p: p.passes == stop])
    checkpoint = load_checkpoint(path)
    assert len(checkpoint.errors) == stop
    whole, again = run(recipe), run(recipe, resume=checkpoint)
    np.testing.assert_array_equal(again.object, whole.object)
    np.testing.assert_array_equal(again.errors, whole.errors)
    assert again.settings["ran"] == whole.settings["ran"]
    # more passes go to the stage in which the run was stopped
    more = (6, 3) if stop <= 4 else (4, 5)
    longer = run(f"dm:{more[0]}, rpie:{more[1]}", resume=checkpoint)
    assert longer.settings["ran"] == [["dm", more[0]], ["rpie", more[1]]]


def test_update_says_what_moves_and_when():
    """In the words of the engine: the same as its options."""
    case = make_case()
    assert Stage("rpie", 5, update={"probe": After(3)}).made() == make("rpie", probe_start=3)
    kept = run("rpie", 3, update={"probe": False})
    np.testing.assert_array_equal(kept.probe, case.probe)
    assert Stage("ep", 5, update={"probe": False}).made().probe_updates == 0
    for engine, held in (
        ("rpie", {"probe_start": None}),
        ("dm", {"probe_start": None}),
        ("ep", {"probe_updates": 0}),
        ("ml", {"probe": False}),
        ("joint", {"probe": False}),
    ):  # what is asked for happens, also where the options alone would hold it
        assert not make(engine, **held).moves_probe
        assert Stage(engine, 5, held, update={"probe": True}).made().moves_probe
    assert Stage("ep", 5, {"probe_updates": 0}, update={"probe": After(4)}).made().moves_probe
    ml = Stage("ml", 5, update={"positions": After(2, every=3), "dose": True}).made()
    assert [ml.own(epoch) for epoch in (0, 2, 5)] == [
        ("log_scale",),
        ("positions", "log_scale"),
        ("positions", "log_scale"),
    ]
    both = Recipe.parse("rpie:5, ml:2").updating({"positions": True})
    assert [dict(stage.update) for stage in both.stages] == [{}, {"positions": True}]
    for engine, update, words in (
        ("joint", {"positions": True}, "'joint' does not move 'positions'; these do: pie, epie"),
        ("rpie", {"position": True}, "no unknown 'position'; did you mean 'positions'"),
        ("rpie", {"probe": After(1, every=2)}, "cannot move 'probe' after=1,every=2"),
        ("rpie", {"object": False}, "always moves 'object'; no engine holds it"),
        ("pie", {"probe": True}, "'pie' does not move 'probe'; these do: epie, rpie"),
    ):
        with pytest.raises(PtychonError, match=words):
            Stage(engine, 5, update=update)
    # in turn only where no stage moves it by itself
    turns = Recipe.parse("rpie:5, joint:2").updating({"positions": After(1)})
    assert [dict(stage.update) for stage in turns.stages] == [{"positions": After(1)}, {}]
    with pytest.raises(PtychonError, match="'joint' does not move 'background'; these do: pie"):
        Recipe.parse("joint:2").updating({"background": True})
    alone = Recipe.parse("ml:5, joint:2").updating({"background": True})  # ml moves it by itself
    assert [dict(stage.update) for stage in alone.stages] == [{"background": True}, {}]


def test_constraints_hold_after_each_pass():
    """On the compiled passes as on the reference ones."""
    y, x = np.ogrid[:12, :9]
    far = np.hypot(y - 6, x - 4) > 4
    found = {}
    for backend in ("reference", "numpy"):
        stage = Stage("rpie", 3, constraints=[Support(4), Transmission(0.9)])
        found[backend] = run(stage, backend=backend)
        assert found[backend].probe.shape[-2:] == far.shape
        assert not found[backend].probe[:, far].any()
        # what says something of the scale ends the run: it is not rescaled afterwards
        assert np.abs(found[backend].object).max() <= 0.9 * (1 + 1e-6)
    a, b = (found[name].object for name in ("reference", "numpy"))
    assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(a)
    assert np.linalg.norm(a - run("rpie", 3).object) > 1e-2 * np.linalg.norm(a)


def test_what_constraints_do():
    r = np.random.default_rng(0)

    class State:
        object = (r.normal(size=(24, 20)) + 1j * r.normal(size=(24, 20))).astype("c8")
        probe = (r.normal(size=(2, 8, 8)) + 1j * r.normal(size=(2, 8, 8))).astype("c8")

    ctx = Context(get_backend("reference"))
    state, before = State(), State()
    problem = make_case().problem
    Power(7.0).apply(state, problem, ctx)
    assert float((np.abs(state.probe) ** 2).sum()) == pytest.approx(7, rel=1e-5)
    product = state.object[:8, :8] * state.probe
    np.testing.assert_allclose(product, before.object[:8, :8] * before.probe, rtol=1e-5)
    Transmission(0.5).apply(state, problem, ctx)
    assert float(np.abs(state.object).max()) <= 0.5 * (1 + 1e-6)
    state = State()
    OrthogonalModes().apply(state, problem, ctx)
    assert abs(np.vdot(state.probe[0], state.probe[1])) < 1e-3
    intensity = (np.abs(state.probe) ** 2).sum(axis=0)
    np.testing.assert_allclose(intensity, (np.abs(before.probe) ** 2).sum(axis=0), rtol=1e-4)
    Smooth(1.0).apply(state, problem, ctx)
    q2 = np.fft.fftfreq(24)[:, None] ** 2 + np.fft.fftfreq(20)[None] ** 2
    expected = np.fft.fft2(before.object) * np.exp(-2 * np.pi**2 * q2)
    np.testing.assert_allclose(np.fft.fft2(state.object), expected, atol=1e-3)
    assert state.object.dtype == state.probe.dtype == np.complex64


def test_constraints_are_text_in_settings():
    for made in (Support(20.0), Power(123456.789), Transmission(), Smooth(0.5), OrthogonalModes()):
        assert constraint_of(text_of(made, CONSTRAINTS)) == made == constraint_of(made)
    assert constraint_of("support:20") == Support(20.0)
    for wrong in ("suport:2", "support", "support:radius=-1", "support:width=3", "power:x", 3):
        with pytest.raises(PtychonError, match="constraint"):
            constraint_of(wrong)
    for engine in ("ep", "dm", "joint"):
        with pytest.raises(PtychonError, match=f"engine '{engine}' takes no constraints"):
            Stage(engine, 5, constraints=[Support(20)])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("dm:60; rpie:100", "has 'dm:60; rpie:100'; write engines and their passes"),
        ("dm:60, rpie", "has 'rpie'"),
        ("dm:0", "passes is 0"),
        ("dmm:5", "unknown engine 'dmm'; did you mean 'dm'"),
        ([{"engine": "dm"}], "needs an engine and its passes"),
        ([{"engine": "dm", "passes": 5, "epochs": 3}], "a stage has no 'epochs'"),
        ([{"engine": "dm", "passes": 5, "options": {"betta": 1}}], "no option 'betta'"),
        (["dm:5", 7], "a stage is 7"),
        ([], "the recipe is \\[\\]"),
        (None, "the recipe is None"),
    ],
)
def test_what_is_no_recipe(asked, words):
    with pytest.raises(PtychonError, match=words):
        Recipe.read(asked)


def test_what_cannot_stand_beside_a_recipe():
    with pytest.raises(PtychonError, match="options stand beside a recipe"):
        run("dm:5, rpie:3", object_step=0.5)
    with pytest.raises(PtychonError, match="update stand beside a recipe"):
        run(Stage("rpie", 3), update={"probe": After(1)})
    with pytest.raises(PtychonError, match="needs a stage that counts"):
        Recipe(Stage("dm", 5, aside=True))
    with pytest.raises(PtychonError, match="start is 'middle'"):
        Stage("rpie", 3, start="middle")
