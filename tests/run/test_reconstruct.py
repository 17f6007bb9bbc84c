"""The one loop and the one call: what is recorded, when it stops, what it refuses."""

from __future__ import annotations

import functools
import importlib
import itertools
import warnings
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from _problems import forward64, frame_shift, make_case, shift64, window
from ptychon import Problem, PtychonError, PtychonWarning
from ptychon.backends import get_backend
from ptychon.engines import Context, Engine, make, registry
from ptychon.engines.base import Remedy, Report
from ptychon.metrics import residual as metrics
from ptychon.metrics.residual import pmse, residual, sampling_ratio
from ptychon.run.iterate import iterate
from ptychon.run.observers import Interrupt
from ptychon.run.passes import passes
from ptychon.run.progress import Progress
from ptychon.run.recipe import Recipe, Stage
from ptychon.run.reconstruct import reconstruct
from ptychon.run.schedule import Schedule
from ptychon.run.until import Settled
from ptychon.run.usual import first_guess
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import beam_stop, simulate

ENGINES = list(registry)


@functools.cache
def star():
    truth = phantoms.complex_object(phantoms.texture((48, 48), 1), phantoms.cell((48, 48), 2))
    positions = scan.fit(scan.fermat_spiral(200, 3.0), (48, 48), (24, 24))
    return simulate(
        truth,
        probes.structured((24, 24), 14, 3, seed=1),
        positions,
        noise="poisson",
        mean_counts=1e5,
    )


def run(engine="rpie", passes=3, data=None, **options):
    return reconstruct(
        star().dataset if data is None else data, engine, passes=passes, backend="numpy", **options
    )


def cpu():
    return Context(get_backend("numpy"))


# ---------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("name", ENGINES)
def test_a_result_says_everything(name):
    r = run(name, 6, seed=4)
    assert r.object.shape == Problem.from_dataset(star().dataset).object_shape
    assert (r.object.dtype, r.probe.dtype) == (np.complex64, np.complex64)
    assert r.probe.shape == (1, 24, 24)
    assert (r.engine, r.backend, r.passes, len(r.errors)) == (name, "numpy", 6, 6)
    assert np.isfinite(
        r.errors[[0, 5]]
    ).all()  # engines that measure now and then do so in passes 1 and 6
    assert (r.object_std is not None) == (name in ("ep", "joint"))
    assert r.settings["seed"] == 4
    assert set(r.options) == {f.name for f in fields(registry[name])}
    assert r.positions == pytest.approx(star().dataset.positions + 24, abs=1 / 32 + 1e-6)
    assert r.origin == (-24, -24)
    assert r.provenance["backend"]["name"] == "numpy"
    assert r.seconds > 0
    problem = Problem.from_dataset(star().dataset)
    assert r.final_error == pytest.approx(metrics.residual(problem, r.object, r.probe), rel=1e-5)
    assert all(len(column) == 6 for column in r.history.values())


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("name", ["pie", "epie", "rpie"])
def test_error_of_a_pass_is_r_before_the_updates(name, modes):
    """With steps too small to move anything it is R of the start: sqrt(sum (|model| - y)^2/sum y^2)
    over valid pixels.
    """
    case = make_case(subpixel=True, masks="each", modes=modes)
    misfit = power = 0.0
    for j in range(len(case.problem)):
        psi = shift64(case.probe, frame_shift(case, j)) * case.object[window(case, j)]
        model, y = (
            np.sqrt((np.abs(forward64(psi, None)) ** 2).sum(axis=0)),
            case.problem.amplitude[j].astype(float),
        )
        misfit += (np.where(case.problem.mask[j], model - y, 0) ** 2).sum()
        power += (np.where(case.problem.mask[j], y, 0) ** 2).sum()
    steps = {"object_step": 1e-12} | ({} if name == "pie" else {"probe_step": 1e-12})
    result = reconstruct(
        case.problem, name, passes=1, backend="numpy", object=case.object, probe=case.probe, **steps
    )
    assert result.errors[0] == pytest.approx(np.sqrt(misfit / power), rel=1e-5)
    assert result.final_error == pytest.approx(np.sqrt(misfit / power), rel=1e-5)


def test_history_of_a_continued_run():
    """Errors and whatever else the engine records cover all passes, those of the first run
    included.
    """
    first = run("ep", 4)
    second = run("ep", 3, start=first)
    assert len(second.errors) == 7
    assert set(second.history) >= {"change", "skipped", "noise_variance"}
    for name, column in second.history.items():
        assert len(column) == 7, name
        assert np.array_equal(column[:4], first.history[name], equal_nan=True), name
    third = run("rpie", 2, start=second)
    assert all(len(column) == 9 for column in third.history.values())
    assert np.isnan(third.history["change"][7:]).all()


def test_ready_engines_problems_and_schedules():
    """A Problem and an Engine may be given in place of a Dataset and a name: the same bits."""
    a = run("rpie", 3, object_step=0.7, seed=2)
    schedule = Schedule(shuffle=True, seed=2)
    engine = make("rpie", object_step=0.7)
    b = run(engine, 3, data=Problem.from_dataset(star().dataset), schedule=schedule)
    assert np.array_equal(a.object, b.object)
    assert np.array_equal(a.errors, b.errors)
    c = run("rpie", 3, object_step=0.7, schedule=Schedule(shuffle=False))
    assert not np.array_equal(a.object, c.object)


def test_the_probe_of_the_data_set_is_the_first_guess():
    """Scaled to the counts where the engine moves it, taken as it is where not; the caller's beats
    it.
    """
    data = replace(star().dataset, probe=star().probe / 50)
    assert np.array_equal(run("pie", 1, data=data).probe, star().probe / 50)
    moving = run("rpie", 1, data=data, probe_start=5)
    power = float(star().dataset.patterns.sum()) / len(star().dataset)
    assert float((np.abs(moving.probe) ** 2).sum()) == pytest.approx(power, rel=1e-4)
    given = run("pie", 1, data=data, probe=star().probe)
    assert np.array_equal(given.probe, star().probe)


def alone(engine, passes, **options):
    """A recipe of nothing but this engine."""
    return Recipe(Stage(engine, passes, options))


def test_blind_ep_begins_with_the_difference_map():
    """Passes of it, beside its own, until its R has settled, unless it is given an object, a result
    or a recipe.
    """
    r = run("ep", 3)
    ((engine, passes),) = r.settings["first_guess"]
    assert engine == "dm"
    assert 10 < passes <= 60
    first = run(alone("dm", passes))
    by_hand = run("ep", 3, object=first.object, probe=first.probe)
    written = Recipe(Stage("dm", passes, aside=True), Stage("ep", 3))
    for other in (r, run(written)):
        assert np.array_equal(other.object, by_hand.object)
        assert other.passes == len(other.errors) == 3
        assert other.settings["first_guess"] == [["dm", passes]]
    assert by_hand.settings["first_guess"] == []
    assert run("ep", 1, start=first).settings["first_guess"] == []
    assert run(alone("ep", 1)).settings["first_guess"] == []
    assert run("rpie", 1).settings["first_guess"] == []


def test_ep_with_a_known_probe_begins_with_pie():
    """20 passes of it; none near the sampling limit, or from an object."""
    first = run("pie", 20)
    by_hand = run("ep", 3, object=first.object, probe_updates=0)
    r = run("ep", 3, probe_updates=0)
    assert np.array_equal(r.object, by_hand.object)
    assert r.settings["first_guess"] == [["pie", 20]]
    assert by_hand.settings["first_guess"] == []
    problem, engine = Problem.from_dataset(star().dataset), make("ep", probe_updates=0)
    (stage,) = first_guess(engine, problem, star().probe)
    assert (stage.name, stage.passes, stage.rescue) == ("pie", 20, ())
    few, even = problem.select(np.array([0, len(problem) - 1])), np.ones_like(star().probe)
    assert sampling_ratio(few, even) < 2.7
    assert first_guess(engine, few, even) == ()


def test_ctrl_c_ends_the_first_guess_too(monkeypatch):
    """And it is said that it is a poor one."""
    seen = []

    def pressed(self, progress):
        seen.append(progress.engine.name)
        self.pressed = len(seen) > 2
        return self.pressed

    monkeypatch.setattr(Interrupt, "__call__", pressed)
    with pytest.warns(
        PtychonWarning, match="stopped after 3 of the passes that make the first guess"
    ):
        r = run("ep", 9, callbacks=[Interrupt()])
    assert seen == ["dm"] * 3 + ["ep"]
    assert r.passes == 1
    assert r.settings["first_guess"] == [["dm", 3]]


def test_where_pie_runs_away_the_start_is_a_constant(monkeypatch):
    """And it is said."""
    module = importlib.import_module("ptychon.run.stages")
    whole = module.passes

    def failing(problem, engine, *rest, **way):
        if engine.name == "pie":
            raise PtychonError("engine 'pie' diverged")
        return whole(problem, engine, *rest, **way)

    monkeypatch.setattr(module, "passes", failing)
    with pytest.warns(PtychonWarning, match="'pie' diverged: going on without it"):
        r = run("ep", 2, probe_updates=0)
    assert r.settings["first_guess"] == []
    assert np.array_equal(r.object, run(alone("ep", 2, probe_updates=0)).object)


def test_the_difference_map_has_settled_when_its_residual_stays():
    """A fall or a rise by more than half a percent goes on; passes that measured nothing do not
    count.
    """
    settled = Settled().watch()

    def ends(error: float) -> bool:
        return settled(Progress(1, None, error, None, 0.0))

    assert [ends(e) for e in (0.5, np.nan, 0.4, np.nan, 0.41, 0.409)] == [
        False,
        False,
        False,
        False,
        False,
        True,
    ]


def test_iterate_goes_on_from_a_state():
    """Two passes and three more are five, bit for bit: order and schedules are functions of the
    pass.
    """
    case, engine, ctx = make_case(subpixel=True), make("rpie"), cpu()
    schedule = Schedule(shuffle=True, seed=9)
    whole = next(
        itertools.islice(
            iterate(case.problem, engine, case.object, case.probe, ctx=ctx, schedule=schedule),
            4,
            None,
        )
    )
    half = next(
        itertools.islice(
            iterate(case.problem, engine, case.object, case.probe, ctx=ctx, schedule=schedule),
            1,
            None,
        )
    )
    steps = iterate(
        case.problem, engine, case.object, case.probe, ctx=ctx, schedule=schedule, resume=half.state
    )
    rest = next(itertools.islice(steps, 2, None))
    assert (whole.passes, rest.passes) == (5, 5)
    assert np.array_equal(whole.state.object, rest.state.object)
    assert np.array_equal(whole.state.probe, rest.state.probe)
    assert whole.error == rest.error


# ---------------------------------------------------------------- callbacks and stopping


def test_callbacks_see_every_pass_and_may_end_the_run():
    seen, closed = [], []

    class Watch:
        def __call__(self, progress):
            seen.append((progress.passes, progress.planned, progress.error))
            return progress.passes == 3

        def close(self):
            closed.append(True)

    other = []
    r = run("rpie", 10, callbacks=[Watch(), lambda p: other.append(p.passes)])
    assert [(e, n) for e, n, _ in seen] == [(1, 10), (2, 10), (3, 10)]
    assert other == [1, 2, 3]  # all of them are asked, also in the last pass
    assert r.passes == len(r.errors) == 3
    assert np.array_equal(np.float32([e for *_, e in seen]), r.errors)
    assert closed == [True]


def test_callbacks_are_closed_when_something_breaks():
    closed = []

    class Watch:
        def __call__(self, progress):
            raise OSError("disk full")

        def close(self):
            closed.append(True)

    with pytest.raises(OSError, match="disk full"):
        run("rpie", 2, callbacks=[Watch()])
    assert closed == [True]


def test_passes_count_on_from_an_earlier_result():
    seen = []
    first = run("rpie", 2)
    run("rpie", 3, start=first, callbacks=[lambda p: seen.append((p.passes, p.planned))])
    assert seen == [(3, 5), (4, 5), (5, 5)]


def test_tolerance_stops_after_five_quiet_passes():
    """EP reports the relative change of its object; five in a row below the tolerance are enough,
    four are not.
    """
    options = {"probe": star().probe, "probe_updates": 0}
    full = run("ep", 80, **options).history["change"]
    assert full[-1] < 1e-4 < full[2]
    r = run("ep", 80, until="still:1e-4", **options)
    quiet = r.history["change"] < 1e-4
    assert 5 < r.passes < 80
    assert quiet[-5:].all()
    runs = "".join("x" if q else " " for q in quiet[:-1])
    assert "xxxxx" not in runs
    assert np.array_equal(r.history["change"], full[: r.passes])
    # an engine that does not report it runs to the end
    assert run("rpie", 6, until="still:1e6").passes == 6


@dataclass(frozen=True)
class Clumsy(Engine):
    """An engine whose every pass fails, until it has been remedied `good` times."""

    name: ClassVar[str] = "clumsy"
    moves: ClassVar[frozenset[str]] = frozenset({"object"})
    attempt: int = 0
    good: int = 99

    def init(self, problem, object, probe, ctx):
        return SimpleNamespace(object=object.copy(), probe=probe, epoch=0)

    def step(self, state, problem, batches, ctx):
        state.epoch += 1
        return state, Report(
            np.float64(1.0), {"skipped": 0.0 if self.attempt >= self.good else 0.9}
        )

    def remedy(self, extra, epoch):
        return (
            Remedy(replace(self, attempt=self.attempt + 1), "is clumsy")
            if extra["skipped"] > 0.5
            else None
        )


@pytest.mark.parametrize(("good", "warned"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_failed_runs_start_again_twice(good, warned):
    """Each restart is a warning; the third failure is an error, not a result."""
    case, ctx = make_case(), cpu()
    call = functools.partial(
        passes, case.problem, Clumsy(good=good), case.object, case.probe, ctx, Schedule(), 4
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if good <= 2:
            found = call()
            assert len(found.rows) == 4
            assert found.engine.attempt == good
        else:
            with pytest.raises(
                PtychonError, match=r"'clumsy' failed 3 times \(the last one is clumsy\)"
            ):
                call()
    messages = [str(w.message) for w in caught if issubclass(w.category, PtychonWarning)]
    assert len(messages) == warned
    assert all(f"attempt={n}" in message for n, message in enumerate(messages, 1))


# ---------------------------------------------------------------- bad input


def refusal(*words, **arguments):
    with pytest.raises(PtychonError) as error:
        run(**arguments)
    message = str(error.value)
    assert "\n" not in message
    assert [w for w in words if w not in message] == [], message


def test_bad_arguments():
    refusal("passes is 0", passes=0)
    refusal("'epi'", "'epie'", engine="epi")
    refusal("'objectstep'", "'object_step'", objectstep=1.0)
    refusal("'spiral'", "sequential", schedule="spiral")
    refusal("ends a stage is 'still'", "write still:change=NUMBER", until="still")
    refusal("options object_step", "ready engine", engine=make("pie"), object_step=0.5)
    with pytest.raises(PtychonError, match=r"'numpi'.*'numpy'"):
        reconstruct(star().dataset, backend="numpi")


def test_bad_first_guesses():
    shape = Problem.from_dataset(star().dataset).object_shape
    refusal("(10, 10)", str(shape), object=np.ones((10, 10), complex))
    refusal("(1, 10, 10)", "(24, 24)", probe=np.ones((10, 10), complex))
    refusal("probe", "zero everywhere", probe=np.zeros((24, 24), complex))
    refusal("probe", "not finite", probe=np.full((24, 24), np.nan, complex))
    refusal("object", "not finite", object=np.full(shape, np.inf, complex))


def test_divergence_is_an_error():
    """A first object at the end of float32: the waves overflow, and nothing is returned."""
    problem = Problem.from_dataset(star().dataset)
    first = np.full(problem.object_shape, 1e37, np.complex64)
    with (
        np.errstate(all="ignore"),
        pytest.raises(PtychonError, match=r"'pie' diverged.*smaller steps"),
    ):
        reconstruct(problem, "pie", passes=4, backend="numpy", probe=star().probe, object=first)


def test_some_empty_frames_are_a_warning():
    data = star().dataset
    counts = data.patterns.copy()
    counts[[3, 7]] = 0
    with pytest.warns(PtychonWarning, match="2 of .* frames are empty"):
        r = run("rpie", 3, data=replace(data, patterns=counts))
    assert np.isfinite(r.object).all()


@pytest.mark.parametrize("name", ENGINES)
def test_a_dark_and_an_overexposed_frame_leave_numbers(name):
    """One empty frame and one a million times too bright: finite arrays, whatever
    they are worth.
    """
    data = star().dataset
    counts = data.patterns.astype(np.float32)
    counts[3] = 0
    counts[5] *= 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PtychonWarning)
        r = run(name, 5, data=replace(data, patterns=counts))
    assert np.isfinite(r.object).all()
    assert np.isfinite(r.probe).all()


def test_known_probe_behind_a_beam_stop_begins_with_pie():
    """A constant object lights only what the stop hides: Ptycho-EP learns nothing from there, and
    says what it does instead. With its warm start there is nothing to say."""
    mask = beam_stop((32, 32), 2.5)
    sample = phantoms.complex_object(
        phantoms.texture((96, 96), 1),
        phantoms.texture((96, 96), 2),
        amplitude_range=(0.1, 1),
        phase_range=(0, 1.5),
    )
    where = scan.raster(9, 6, jitter=1, seed=3)
    made = simulate(
        sample,
        probes.circular_aperture((32, 32), 14),
        where,
        mask=mask,
        noise="poisson",
        mean_counts=1e5,
    )
    more = {"probe": made.probe, "backend": "numpy"}
    way = {"probe_updates": 0, "passes": 60, **more}
    ep = Stage("ep", 60, {"probe_updates": 0})
    lost = Recipe(replace(ep, rescue=(Stage("pie", 50, aside=True), ep)))
    with pytest.warns(PtychonWarning, match="with 50 passes of pie, 60 passes of ep instead"):
        again = reconstruct(made.dataset, lost, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PtychonWarning)
        found = reconstruct(made.dataset, "ep", **way)
    for r in (again, found):
        assert pmse(r.object, made.object, np.s_[30:66, 30:66]) > 15


def test_the_probe_keeps_its_power():
    """Object and probe of ePIE and rPIE drift apart in scale, which the data do not hold: the
    result has the first power.
    """
    for engine in ("rpie", "epie", "dm"):
        r = run(engine, 30)
        power = float(star().dataset.patterns.sum()) / len(star().dataset)
        assert float((np.abs(r.probe) ** 2).sum()) == pytest.approx(power, rel=1e-3)
        assert r.final_error == pytest.approx(
            residual(Problem.from_dataset(star().dataset), r.object, r.probe), rel=1e-3
        )
