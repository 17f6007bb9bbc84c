"""The CUDA kernels, compiled for the host: each against the reference, whole sweeps against the
engines, and no races.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from _problems import FRAME, make_case, normal
from cuda_shim import HostLauncher
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.kernels import build, reference
from ptychon.kernels.gpu import lists as lists
from ptychon.kernels.gpu.far import Far
from ptychon.kernels.gpu.source import TILE, check, signatures, source
from ptychon.kernels.gpu.table import Table
from ptychon.model.noise import per_frame as levels
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.iterate import iterate
from ptychon.run.reconstruct import reconstruct
from ptychon.run.schedule import Schedule
from ptychon.sweeps import gpu_waves as sweeps
from ptychon.sweeps.find import fast_step, plans
from ptychon.sweeps.gpu import block_that_fits, workspace

P, Q = FRAME
N = P * Q
REFERENCE, NUMBA = Context(get_backend("reference")), Context(get_backend("numpy", threads=1))
#: Names of all kernels that some test launched; the last test compares them with those there are (a
#: file has one worker).
launched: set[str] = set()


@pytest.fixture(autouse=True)
def _note(monkeypatch):
    """Every launcher of a test: what it launched, and whether it wrote beside its arrays."""
    made = []
    begin = HostLauncher.__init__

    def note(self, *args, **options):
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(HostLauncher, "__init__", note)
    yield
    for launcher in made:
        launched.update(launcher.launches)
        assert launcher.intact()


def rel(a, b):
    return float(np.linalg.norm(np.ravel(a - b)) / max(np.linalg.norm(np.ravel(b)), 1e-30))


def single(rng, *shape):
    return normal(rng, shape).astype(np.complex64)


# ---------------------------------------------------------------- the step an engine's plan makes


def sweep(plan, engine, state, problem, batches, ctx):
    """One pass with a plan: state, misfit, other numbers."""
    extra = {}
    if engine.name == "dm":
        state, report = engine.finish(state, plan.step(engine, state, problem), problem, ctx)
        return state, report.misfit, extra
    if engine.name == "ep":
        engine.update_prior(state, ctx)
        state, report = engine.finish(
            state, problem, ctx, *plan.step(engine, state, problem, batches)
        )
        return state, report.misfit, report.extra
    misfit = plan.step(engine, state, batches)
    state.epoch += 1
    return state, misfit, extra


def plan_for(engine, launcher, problem, modes):
    kind = {"dm": sweeps.DifferenceMap, "ep": sweeps.Expectation}.get(engine.name, sweeps.Iterative)
    return kind(launcher, problem, modes)


def run(engine, case, schedule, launcher, passes=3):
    """State and the last misfit of a few passes on the host's build of the kernels."""
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    plan = plan_for(engine, launcher, case.problem, len(case.probe))
    for _ in range(passes):
        batches = schedule.batches(case.problem, state.epoch)
        state, misfit, extra = sweep(plan, engine, state, case.problem, batches, REFERENCE)
    return state, misfit, extra


def expected(engine, case, schedule, ctx, passes=3):
    state = engine.init(case.problem, case.object, case.probe, ctx)
    for _ in range(passes):
        batches = schedule.batches(case.problem, state.epoch)
        step = fast_step(ctx.backend, engine, case.problem, batches) or engine.step
        state, report = step(state, case.problem, batches, ctx)
    return state, report.misfit, report.extra


ENGINES = {
    "pie": {},
    "epie": {"probe_start": 1},
    "rpie": {"object_reg": 0.2, "probe_reg": 0.4, "probe_start": 0},
    "dm": {"probe_start": 1, "overlap_passes": 2, "residual_every": 2},
    "ep": {
        "probe_start": 1,
        "residual_every": 2,
        "output": "rician",
        "noise_start": 1,
        "learn_noise": True,
    },
}
SETTINGS = {
    "whole": {"masks": "shared"},
    "subpixel": {"subpixel": True, "masks": "each"},
    "near": {"near": True, "subpixel": True},
    # frames whose transforms are inside the kernels, sides of different length
    "lines": {"subpixel": True, "masks": "each", "frame": (32, 64), "side": 2},
}
KINDS = ("sequential", "colours", "minibatch", "parallel")


def compare(found, wanted, tolerance):
    (a, misfit_a, extra_a), (b, misfit_b, extra_b) = found, wanted
    for name in (
        "object",
        "probe",
        "waves",
        "messages",
        "message_precision",
        "precision",
        "natural",
    ):
        if hasattr(b, name):
            assert rel(getattr(a, name), getattr(b, name)) < tolerance, name
    assert (misfit_a is None) == (misfit_b is None)
    if misfit_a is not None:
        assert float(misfit_a) == pytest.approx(float(misfit_b), rel=10 * tolerance)
    for name, value in extra_a.items():
        assert float(value) == pytest.approx(float(extra_b[name]), rel=100 * tolerance), name


def pairs():
    """Every engine with every batching, with every setting, and every batching with every setting;
    not all three at once.
    """
    names, settings = ("pie", "rpie", "ep"), list(SETTINGS)
    for (i, name), (j, kind) in itertools.product(enumerate(names), enumerate(KINDS)):
        yield name, kind, settings[(i + j) % 4]
        yield name, kind, settings[(i + j + 2) % 4]
    for setting in settings:
        yield "epie", "sequential", setting
        yield "dm", "parallel", setting


@pytest.mark.parametrize(("name", "kind", "settings"), list(pairs()))
def test_sweeps_are_the_engines(name, kind, settings):
    """Three passes of each engine, batched in every way, shuffled, in blocks of a few frames: as
    the reference step does.
    """
    modes = 1 if name == "ep" else 2
    case = make_case(**SETTINGS[settings], modes=modes)
    engine, schedule = (
        make(name, **ENGINES[name]),
        Schedule(kind=kind, size=5, shuffle=name != "dm", seed=3),
    )
    found = run(engine, case, schedule, HostLauncher(block_bytes=3000 * modes))
    compare(found, expected(engine, case, schedule, REFERENCE), 1e-5 if name != "ep" else 1e-4)


@pytest.mark.parametrize("settings", list(SETTINGS))
@pytest.mark.parametrize("beta", [0.75, -0.6])
def test_the_difference_map_reflects_twice(beta, settings):
    """With a beta other than 1 the reflected waves have an object and a probe of their own; no
    races, no new launches.
    """
    case = make_case(**SETTINGS[settings], modes=2)
    engine = make("dm", **(ENGINES["dm"] | {"beta": beta, "power_bound": 0.3}))
    launchers = [HostLauncher(block_bytes=6000, reverse=reverse) for reverse in (False, True)]
    found = [run(engine, case, Schedule(kind="parallel"), launcher, 4) for launcher in launchers]
    compare(found[0], expected(engine, case, Schedule(kind="parallel"), REFERENCE, 4), 1e-5)
    assert np.array_equal(found[0][0].waves, found[1][0].waves)
    # one plan serves both: what a replay would do depends on beta only through numbers on the
    # device
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    plan = plan_for(engine, HostLauncher(), case.problem, 2)
    for other in (beta, 1.0):
        plan.step(replace(engine, beta=other), state, case.problem)
        state.epoch += 1
    wanted = engine.init(case.problem, case.object, case.probe, REFERENCE)
    for other in (beta, 1.0):
        wanted, _ = replace(engine, beta=other).step(
            wanted, case.problem, [slice(0, len(case.problem))], REFERENCE
        )
    assert rel(state.waves, wanted.waves) < 1e-5


@pytest.mark.parametrize("name", list(ENGINES))
def test_sweeps_are_those_of_the_cpu(name):
    """The same as the compiled sweeps of the CPU, with one mode and with three."""
    for modes in (1,) if name == "ep" else (1, 3):
        case = make_case(subpixel=True, masks="each", modes=modes)
        engine, schedule = make(name, **ENGINES[name]), Schedule(kind=make(name).schedule)
        found = run(engine, case, schedule, HostLauncher())
        compare(found, expected(engine, case, schedule, NUMBA), 2e-5 if name != "ep" else 1e-4)


FRAMES = {"noise_per_frame": True, "noise_start": 0}


@pytest.mark.parametrize(
    "options",
    [{"output": "laplace"}, {"prior": "sparse", "prior_start": 1, "sparse_density": 0.7}, FRAMES],
)
def test_other_kinds_of_expectation_propagation(options):
    case = make_case(masks="shared")
    engine = make("ep", **(ENGINES["ep"] | options))
    table = Context(get_backend("reference"))
    found = run(engine, case, Schedule(), HostLauncher())
    compare(found, expected(engine, case, Schedule(), table), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_has_its_own_noise(kind, monkeypatch):
    """In every way of visiting frames, shuffled: the variance of each, here not held to the common
    one, by its own place.
    """
    monkeypatch.setattr(levels, "shrunk", lambda sums, counts, xp, comm: sums / counts)
    case, engine = make_case(subpixel=True, masks="each"), make("ep", **(ENGINES["ep"] | FRAMES))
    noise = float((case.problem.amplitude**2).mean()) * 0.01
    case = replace(case, problem=replace(case.problem, noise_variance=noise))
    schedule = Schedule(kind=kind, size=5, shuffle=True, seed=3)
    found = run(engine, case, schedule, HostLauncher(block_bytes=3000))
    wanted = expected(engine, case, schedule, REFERENCE)
    compare(found, wanted, 1e-4)
    variances = wanted[0].noise_variance
    assert variances.std() > 0.02 * variances.mean()
    assert np.allclose(found[0].noise_variance, variances, rtol=1e-3)


def test_frames_that_teach_nothing_are_skipped():
    """Data without phase and with a huge noise: most visits keep their message, as in the
    reference.
    """
    case = make_case()
    engine = make("ep", probe_updates=0, noise_variance=1e9)
    for kind in ("sequential", "parallel"):
        found, wanted = (
            f(engine, case, Schedule(kind=kind), x, 2)
            for f, x in ((run, HostLauncher()), (expected, REFERENCE))
        )
        assert float(found[2]["skipped"]) == float(wanted[2]["skipped"]) > 0
        compare(found, wanted, 1e-4)


@pytest.mark.parametrize("frame", [FRAME, (32, 64)])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rpie", "sequential"),
        ("rpie", "minibatch"),
        ("pie", "colours"),
        ("dm", "parallel"),
        ("ep", "parallel"),
    ],
)
def test_no_races(name, kind, frame):
    """Threads and blocks in reverse order leave the same bits everywhere."""
    side = 3 if frame == FRAME else 2
    case = make_case(subpixel=True, modes=1 if name == "ep" else 2, side=side, frame=frame)
    engine, schedule = make(name, **ENGINES[name]), Schedule(kind=kind, size=4)
    states = [
        run(engine, case, schedule, HostLauncher(reverse=reverse), 2)[0]
        for reverse in (False, True)
    ]
    for field in ("object", "probe", "waves", "messages", "precision"):
        if hasattr(states[0], field):
            assert np.array_equal(getattr(states[0], field), getattr(states[1], field)), field


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["pie", "rpie"])
def test_frames_may_stay_on_the_host(name, kind):
    """Sent in groups of four, the frames give what they give when all are there, to the rounding of
    other blocks.
    """
    case = make_case(subpixel=True, masks="each", modes=2)
    engine, schedule = (
        make(name, **ENGINES[name]),
        Schedule(kind=kind, size=5, shuffle=True, seed=3),
    )
    launcher = HostLauncher(far=True, block_bytes=4000)
    found = run(engine, case, schedule, launcher)
    compare(found, run(engine, case, schedule, HostLauncher(block_bytes=4000)), 1e-6)
    assert not launcher._busy


def test_sizes_of_blocks_matter_only_to_rounding():
    case = make_case(subpixel=True)
    engine = make("ep", **ENGINES["ep"])
    first = run(engine, case, Schedule(kind="parallel"), HostLauncher(32, 10**6), 2)
    for threads, block_bytes in ((256, 10**6), (96, 900)):
        compare(
            run(engine, case, Schedule(kind="parallel"), HostLauncher(threads, block_bytes), 2),
            first,
            1e-5,
        )


def test_a_plan_serves_the_state_it_is_given():
    """What an engine, or whoever resumes a run, puts in place of an array is worked on; arrays of
    others are left alone.
    """
    case = make_case()
    engine, batches = make("epie", probe_start=0), Schedule().batches(case.problem, 0)
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    plan = plan_for(engine, HostLauncher(), case.problem, 1)
    plan.step(engine, state, batches)
    other = 0.5 * state.probe
    kept, state.probe = other.copy(), other
    wanted = engine.step(
        type(state)(state.object.copy(), other.copy(), 1), case.problem, batches, REFERENCE
    )[0]
    plan.step(engine, state, batches)
    assert np.array_equal(other, kept)
    assert rel(state.probe, wanted.probe) < 1e-5
    assert rel(state.object, wanted.object) < 1e-5


def test_steps_and_order_need_no_new_launches():
    """What a captured graph would replay serves other step sizes and another order."""
    case = make_case()
    launcher, ctx = HostLauncher(), REFERENCE
    engine = make("rpie", **ENGINES["rpie"])
    state = engine.init(case.problem, case.object, case.probe, ctx)
    wanted = engine.init(case.problem, case.object, case.probe, ctx)
    plan = plan_for(engine, launcher, case.problem, 1)
    for seed, step in ((0, 0.5), (1, 0.3), (2, 0.9)):
        engine = make("rpie", **(ENGINES["rpie"] | {"object_step": step}))
        batches = Schedule(shuffle=True, seed=seed).batches(case.problem, 0)
        plan.step(engine, state, batches)
        wanted, _ = engine.step(wanted, case.problem, batches, ctx)
    assert len(plan.graphs) == 1
    assert rel(state.object, wanted.object) < 1e-5
    assert rel(state.probe, wanted.probe) < 1e-5


# ---------------------------------------------------------------- a backend made of them


def host_backend(launcher=None, free=10**9):
    """A backend like that of the GPU, on NumPy arrays and the host's build of the kernels."""
    launcher, plain = launcher or HostLauncher(), get_backend("reference")
    kernels = build()
    vars(kernels).update(Table(launcher).names())
    return replace(
        plain,
        name="host",
        kernels=kernels,
        sweeps="gpu",
        launcher=launcher,
        free_bytes=lambda: free,
        kept={},
    )


def far_backend(launcher):
    """The same for a device that has no room for the frames: they, and what is kept for each, stay
    on the host.
    """

    def stay(host):
        # copies, as a device would make them
        return Far(host, np.array, np.array)

    def beside(frames, shape, dtype):
        assert isinstance(frames, Far)
        return stay(np.full(shape, np.nan, dtype))

    return replace(host_backend(launcher), stay=stay, frames_on_host=True, beside=beside)


@pytest.mark.parametrize("settings", list(SETTINGS))
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        *itertools.product(("ep",), KINDS, ({}, FRAMES)),
        ("dm", "parallel", {}),
        ("rpie", "minibatch", {}),
    ],
)
def test_waves_may_stay_on_the_host(name, kind, options, settings):
    """Frames, and the wave or message of each, sent and brought back in groups of a few: as when
    all are on the device.
    """
    modes = 1 if name == "ep" else 2
    case = make_case(**{"side": 3} | SETTINGS[settings], modes=modes)
    engine, schedule = (
        make(name, **(ENGINES[name] | options)),
        Schedule(kind=kind, size=5, shuffle=name != "dm", seed=3),
    )
    frame_bytes, found = case.problem.amplitude[0].nbytes, []
    for make_backend in (far_backend, host_backend):
        launcher = HostLauncher(block_bytes=5 * modes * frame_bytes)
        # four frames with their waves: several groups, blocks of two, and batches that begin in one
        # group and end in another
        launcher.group_bytes = 4 * (1 + 2 * modes) * frame_bytes + 4 * N
        ctx = Context(make_backend(launcher))
        steps = iterate(case.problem, engine, case.object, case.probe, ctx=ctx, schedule=schedule)
        found.append([next(steps) for _ in range(4)][-1])
        assert not launcher._busy
        assert not any(launcher._flying.values())
    far, near = (f.state for f in found)
    if name != "rpie":
        stack = {"dm": "waves", "ep": "messages"}[name]
        assert isinstance(getattr(far, stack), Far)
        assert np.isfinite(np.asarray(getattr(far, stack))).all()
        assert rel(np.asarray(getattr(far, stack)), getattr(near, stack)) < 1e-5
    for field in ("object", "probe", "precision", "natural", "message_precision", "noise_variance"):
        if hasattr(near, field):
            assert rel(getattr(far, field), getattr(near, field)) < 1e-5, field
    assert found[0].error == pytest.approx(found[1].error, rel=1e-5, nan_ok=True)
    for key, value in found[0].extra.items():
        assert value == pytest.approx(found[1].extra[key], rel=1e-3), key


def test_far_waves_are_kept_and_restored(tmp_path):
    """A run whose waves are on the host goes on from its checkpoint as if it had never stopped."""
    case = make_case(side=3)
    frame_bytes = case.problem.amplitude[0].nbytes

    def run(passes, resume=None, callbacks=()):
        launcher = HostLauncher()
        launcher.group_bytes = 2 * 3 * frame_bytes
        options = {"object": case.object, "probe": case.probe, "backend": far_backend(launcher)}
        return reconstruct(
            case.problem, "dm", passes=passes, resume=resume, callbacks=callbacks, **options
        )

    whole = run(6)
    file = tmp_path / "stopped.h5"
    run(6, callbacks=[Checkpointer(file, 3), lambda progress: progress.passes == 3])
    again = run(6, load_checkpoint(file))
    assert np.array_equal(whole.object, again.object)


def test_an_array_on_the_host_hands_over_what_is_asked_for():
    host = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    moved = []

    def up(a):
        moved.append(a.shape)
        return a.copy()

    far = Far(host, up, np.asarray)
    assert (len(far), far.shape, far.dtype, far.nbytes) == (4, (4, 3, 2), np.float32, 96)
    assert np.array_equal(far[1:3], host[1:3])
    far[np.array([3, 0])] = np.zeros((2, 3, 2), np.float32)
    assert host[[0, 3]].sum() == 0
    assert host[1:3].sum() > 0
    assert moved == [(2, 3, 2)]
    assert np.asarray(far) is host


@pytest.mark.parametrize("name", list(ENGINES))
def test_whole_runs(name):
    """`iterate`, which asks for the fused step of every pass, on that backend and on the CPU's."""
    case = make_case(subpixel=True, masks="each")
    engine, found = make(name, **ENGINES[name]), []
    for backend in (host_backend(), NUMBA.backend):
        steps = iterate(case.problem, engine, case.object, case.probe, ctx=Context(backend))
        found.append([next(steps) for _ in range(4)][-1])
    a, b = (engine.estimate(f.state, NUMBA) for f in found)
    assert rel(a.object, b.object) < 1e-4
    assert rel(a.probe, b.probe) < 1e-4
    assert found[0].error == pytest.approx(found[1].error, rel=1e-3, nan_ok=True)
    assert list(found[0].extra) == list(found[1].extra)


def test_states_that_take_turns_keep_apart():
    """Two states of one problem, in turns, are what each would be alone; a third replaces the plan
    of the first.
    """
    case, engine = make_case(), make("rpie", probe_start=0)
    ctx, batches = Context(host_backend()), Schedule().batches(case.problem, 0)
    starts = [
        (case.object, case.probe),
        (1.1 * case.object, case.probe),
        (0.9 * case.object, case.probe),
    ]
    alone = []
    for start in starts:
        state = engine.init(case.problem, *start, REFERENCE)
        for _ in range(2):
            state, _ = engine.step(state, case.problem, batches, REFERENCE)
        alone.append(state)
    states = [engine.init(case.problem, *start, ctx) for start in starts]
    for _ in range(2):
        for i, state in enumerate(states):
            states[i], _ = fast_step(ctx.backend, engine, case.problem, batches)(
                state, case.problem, batches, ctx
            )
    for a, b in zip(states, alone, strict=True):
        assert rel(a.object, b.object) < 1e-5
        assert rel(a.probe, b.probe) < 1e-5


def test_plans_go_with_their_problem():
    case, engine = make_case(), make("pie")
    backend = host_backend()
    known = plans(backend)
    steps = iterate(case.problem, engine, case.object, case.probe, ctx=Context(backend))
    next(steps)
    assert len(known._plans) == 1
    del steps
    gc.collect()
    assert not known._plans


def test_memory_is_stated_before_it_is_taken():
    """Blocks shrink until they fit; where one frame does not, a sentence with both numbers."""
    case, engine = make_case(), make("ep")
    launcher = HostLauncher(block_bytes=10**6)
    many = workspace(engine, case.problem, 1, 16)
    assert block_that_fits(launcher, engine, case.problem, 1, many) == 16
    assert block_that_fits(launcher, engine, case.problem, 1, many - 1) == 8
    with pytest.raises(PtychonError, match=r"needs 0\.00 GB .* 0\.00 GB are free"):
        block_that_fits(launcher, engine, case.problem, 1, 100)
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    before = sum(m.size for m in launcher._guarded)
    plan = sweeps.Expectation(launcher, case.problem, 1, 16)
    plan.step(engine, state, case.problem, Schedule(kind="parallel").batches(case.problem, 0))
    data = case.problem.amplitude.nbytes + case.problem.mask.nbytes
    used = sum(m.size - 128 for m in launcher._guarded) - before - data
    assert used < many


def test_the_report_of_a_gpu_runs():
    """profiling/gpu_report.py from end to end, on the host's build: it says of every engine that it
    is right.
    """
    path = Path(__file__).parents[2] / "profiling" / "gpu_report.py"
    spec = importlib.util.spec_from_file_location("gpu_report", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    few = {
        "points": 3,
        "frame": 12,
        "size": 32,
        "sweeps": 2,
        "repeats": 1,
        "copy": 1000,
        "batches": (1,),
        "nodes": 2,
    }
    lines = []
    launchers = [HostLauncher(32) for _ in range(3)]
    backends = [host_backend(launcher) for launcher in launchers[:2]]
    module.report(
        *backends, launchers[2], module.Sizes(**few, check_points=3, batched_points=2), lines.append
    )
    for name in module.TARGETS:
        assert any(line.startswith(f"- {name}: right") for line in lines), name
        assert any(line.startswith(f"| {name} |") for line in lines), name
    for name in ("rpie", "dm", "ep", "ep+em"):
        assert any(line.startswith(f"- {name}, frames on the host: right") for line in lines), name


# ---------------------------------------------------------------- kernels of the table


def _beliefs(rng):
    n, shifts = 7, np.array([[0, 0], [0.25, -0.5], [-0.125, 0.0625]], np.float32)
    index = np.array([2, 0, 1, 1, 0, 2, 1], np.int32)
    precision = (1 + 5 * rng.random((25, 23))).astype(np.float32)
    corners, g = (
        rng.integers(0, 12, (n, 2)).astype(np.int32),
        (0.5 + rng.random(n)).astype(np.float32),
    )
    return (
        precision,
        single(rng, 25, 23),
        single(rng, 3, P, Q),
        shifts,
        index,
        corners,
        g,
        single(rng, n, P, Q),
    )


def test_table():
    """Each kernel in single precision against the reference in double; other types give what the
    reference gives.
    """
    rng, table = np.random.default_rng(5), Table(HostLauncher())
    field, corners = single(rng, 25, 23), rng.integers(0, 12, (6, 2)).astype(np.int32)
    patches, light = single(rng, 6, P, Q), rng.random((6, P, Q)).astype(np.float32)
    for f in (field, field.real.copy(), field.astype(complex)):
        assert np.array_equal(table.gather(f, corners, FRAME), reference.gather(f, corners, FRAME))
    for f, values in (
        (field, patches),
        (field.real.copy(), light),
        (field.astype(complex), patches),
    ):
        a, b = f.copy(), f.astype(np.complex128 if f.dtype.kind == "c" else np.float64)
        table.scatter_add(a, corners, values)
        reference.scatter_add(b, corners, values)
        assert a.dtype == f.dtype
        assert rel(a, b) < 1e-6
    assert (
        rel(table.batch_sum(light, corners), reference.batch_sum(light.astype(float), corners))
        < 1e-6
    )
    assert table.batch_sum(light[:1], corners[:1]) is not None
    some, none = rng.uniform(-0.5, 0.5, (4, 2)).astype(np.float32), np.zeros((4, 2), np.float32)
    for probe, s, sign in itertools.product(
        (single(rng, 3, P, Q), single(rng, 4, 2, P, Q)), (some, none), (1, -1)
    ):
        assert (
            rel(table.shift(probe, s, sign), reference.shift(probe.astype(complex), s, sign)) < 1e-6
        )
    for modes, masks in itertools.product((1, 3), (1, 6)):
        wave, mask = single(rng, 6, modes, P, Q), rng.random((masks, P, Q)) > 0.2
        wave[:, :, 3, 3] = 0
        found, wanted = (
            f(w, light, mask)
            for f, w in ((table.modulus_projection, wave), (reference.modulus_projection, wave))
        )
        assert rel(found[0], wanted[0]) < 1e-6
        assert found[1] == pytest.approx(wanted[1], rel=1e-5)
        assert np.array_equal(found[0][:, :, 3, 3], wave[:, :, 3, 3])


def test_table_of_expectation_propagation():
    rng, table = np.random.default_rng(6), Table(HostLauncher())
    precision, natural, probes, shifts, index, corners, g, messages = _beliefs(rng)
    wide = precision.astype(float), natural.astype(complex)
    for _ in range(2):  # the second time with lists it remembers
        found = table.probe_force(precision, natural, probes, shifts, index, corners, g, messages)
        wanted = reference.probe_force(
            *wide, probes.astype(complex), shifts, index, corners, g, messages
        )
        assert rel(found[0], wanted[0]) < 1e-5
        assert rel(found[1], wanted[1]) < 1e-6
    for fresh in (table, Table(HostLauncher())):
        a, b = [x.copy() for x in (precision, natural)], [x.copy() for x in wide]
        fresh.message_sums(*a, probes, index, corners, g, messages)
        reference.message_sums(*b, probes, index, corners, g, messages)
        assert rel(a[0], b[0]) < 1e-6
        assert rel(a[1], b[1]) < 1e-6
    mean, variance = single(rng, 31, 7), (0.01 + rng.random((31, 7))).astype(np.float32)
    found, wanted = (
        table.bernoulli_gauss(mean, variance, 0.1, 2.0),
        reference.bernoulli_gauss(mean, variance, 0.1, 2.0),
    )
    for a, b in zip(found, wanted, strict=True):
        assert rel(a, b) < 1e-5
    big = np.full(4, 300, np.complex64), np.full(4, 1e-4, np.float32)
    assert all(np.isfinite(x).all() for x in table.bernoulli_gauss(*big, 0.1, 1.0))


# ---------------------------------------------------------------- kernels of a visit


class Frames:
    """Three frames, their second and third visited: arrays on the launcher, and what goes to every
    kernel.
    """

    def __init__(self, modes=1):
        self.launcher, rng = HostLauncher(), np.random.default_rng(modes)
        up = self.launcher.upload
        self.grid, self.modes = (3, 2), modes
        self.wave, self.y = (
            up(3 * single(rng, 2, modes, P, Q)),
            up(rng.random((3, P, Q)).astype(np.float32)),
        )
        self.mask = rng.random((3, P, Q)) > 0.3
        self.data = self.y, up(self.mask).view(np.uint8), 3
        self.order = up(np.array([0, 2, 1], np.int32))
        self.seen = [2, 1]


@pytest.mark.parametrize("modes", [1, 3])
def test_modulus_change(modes):
    """With factors of the FFTs before and after; the misfit of each visit in its own place."""
    f = Frames(modes)
    f.wave[0, :, 2, 2] = 0
    before, parts = f.wave.copy(), f.launcher.empty((3, 3), "float64")
    again = f.launcher.upload(f.wave)
    f.launcher.launch(
        "modulus_change",
        f.grid,
        f.wave,
        f.y,
        0,
        *f.data[1:],
        f.order,
        1,
        modes,
        N,
        0.5,
        0.25,
        parts,
    )
    projected, misfit = reference.modulus_projection(0.5 * before, f.y[f.seen], f.mask[f.seen])
    assert rel(f.wave, 0.25 * (projected - 0.5 * before)) < 1e-6
    assert parts[1:].sum(axis=1) == pytest.approx(misfit, rel=1e-5)
    assert np.isnan(parts[0]).all()
    sent, other = f.launcher.upload(f.y[f.seen]), f.launcher.empty((3, 3), "float64")
    f.launcher.launch(
        "modulus_change",
        f.grid,
        again,
        sent,
        1,
        *f.data[1:],
        f.order,
        1,
        modes,
        N,
        0.5,
        0.25,
        other,
    )
    assert np.array_equal(again, f.wave)
    assert np.array_equal(other[1:], parts[1:])
    both = [f.launcher.empty((3, 3), "float64") for _ in range(2)]
    f.launcher.launch(
        "misfits", f.grid, before, f.y, 0.4, *f.data[1:], f.order, 1, modes, N, 0.5, *both
    )
    shifted = np.sqrt(f.y[f.seen] ** 2 + np.float32(0.4))
    assert both[0][1:].sum(axis=1) == pytest.approx(misfit, rel=1e-5)
    wanted = reference.modulus_projection(0.5 * before, shifted, f.mask[f.seen])[1]
    assert both[1][1:].sum(axis=1) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("side", lists.LINE_SIDES)
def test_transforms_of_lines(side):
    """Exit wave with its rows transformed, columns there and back, rows back: each as NumPy's
    transforms in double precision, for every length of a line that there is.
    """
    rng, launcher, (p, q) = np.random.default_rng(side), HostLauncher(), (32, side)
    field, probe = single(rng, p + 3, q + 5), single(rng, 1, 2, p, q)
    corners, order = np.array([[2, 4]], np.int32), np.zeros(1, np.int32)
    for turned in (False, True):
        if turned:
            p, q = q, p
            field, probe = np.ascontiguousarray(field.T), np.ascontiguousarray(probe.mT)
            corners = np.ascontiguousarray(corners[:, ::-1])
        up = launcher.upload
        wave, size = launcher.empty((1, 2, p, q), "complex64"), (2, p, q)

        def lines(name, n, *args, frames=1):
            threads, count = lists.lines_of_block(n)
            shared = 8 * count * (n + n // 8 + 4)
            grid = (3, frames)  # fewer blocks than there are lines for
            launcher.launch(name, grid, *args, threads=threads, shared=shared)

        scan = up(order), 0, up(corners), up(order)
        tops = [launcher.empty((3,), "float32") for _ in range(2)]
        lines("exit_rows", q, up(field), field.shape[1], up(probe), 0, *scan, *size, wave, *tops)
        window = field[corners[0, 0] :][:p, corners[0, 1] :][:, :q]
        exit_wave = probe[0].astype(complex) * window
        assert rel(wave[0], np.fft.fft(exit_wave, axis=-1)) < 5e-7
        assert tops[0].max() == pytest.approx((np.abs(window) ** 2).max(), rel=1e-6)
        assert tops[1].max() == pytest.approx((np.abs(probe[0]) ** 2).sum(axis=0).max(), rel=1e-6)

        far = np.fft.fft2(exit_wave, norm="ortho")
        amplitude = np.abs(single(rng, 1, p, q))
        mask = (rng.random((1, p, q)) > 0.2).view(np.uint8)
        misfit, norm = launcher.empty((1, 3), "float64"), (p * q) ** -0.5
        data = up(amplitude), 0, up(mask), 1
        lines("modulus_columns", p, wave, *data, *scan[:2], *size, norm, norm, misfit)
        modulus = np.sqrt((np.abs(far) ** 2).sum(axis=0))
        short = np.where(mask[0], amplitude[0] - modulus, 0)
        change = np.fft.ifft2(far * short / modulus, norm="ortho")
        lines("rows_back", q, wave, p, q, frames=2)
        assert rel(wave[0], change) < 2e-6
        assert misfit.sum() == pytest.approx((short**2).sum(), rel=1e-5)


@pytest.mark.parametrize("laplace", [False, True])
@pytest.mark.parametrize("bright", [1.0, 1e4])
def test_posterior(laplace, bright):
    """`bright`: where the concentration leaves the range of the fits."""
    f = Frames()
    f.wave *= np.float32(bright)
    f.y *= np.float32(bright)
    f.wave[0, :, 2, 2] = 0
    up, g_c, v = (
        f.launcher.upload,
        np.array([3.0, 0.7], np.float32),
        np.array([0.05, 0.01, 0.02], np.float32),
    )
    cavities, before = up(np.stack([g_c, 0 * g_c], 1)), f.wave.copy()
    variances, noise = (f.launcher.empty((n, 3), "float64") for n in (2, 3))
    head = f.wave, f.y, 0.375, *f.data[1:], f.order, 1, N, cavities, up(v)
    f.launcher.launch("posterior", f.grid, *head, laplace, 0.5, 0.25, variances, noise)
    kernel = reference.laplace if laplace else reference.rician
    y = np.sqrt(f.y[f.seen] ** 2 + np.float32(0.375))
    mean, variance, moment = kernel(0.5 * before[:, 0], 1 / g_c, y, f.mask[f.seen], v[f.seen])
    assert rel(f.wave[:, 0], 0.25 * mean) < 1e-6
    assert variances.sum(axis=1) / N == pytest.approx(variance, rel=1e-5)
    assert noise[1:].sum(axis=1) == pytest.approx(moment, rel=1e-5)


@pytest.mark.parametrize("extreme", [False, True])
def test_belief_cavity_and_message(extreme):
    """One visit without its FFTs, step by step as the reference does it; one frame learns nothing.

    `extreme`: where the floors of the cavity's precision and of the posterior's variance hold.
    """
    f, rng = Frames(), np.random.default_rng(8)
    L, up, W = f.launcher, f.launcher.upload, 23
    precision, natural = up((1 + rng.random((25, W))).astype(np.float32)), up(single(rng, 25, W))
    probes, messages, g = (
        up(single(rng, 2, P, Q)),
        up(single(rng, 3, P, Q)),
        up(np.array([0.5, 0.3, 0.9], np.float32)),
    )
    if extreme:
        g[1] = 1e6
    corners, index = np.array([[3, 2], [0, 14], [13, 0]], np.int32), np.array([1, 0, 1], np.int32)
    place = f.order, 1, up(corners), up(index)
    parts, cavities = L.empty((2, 3), "float64"), L.empty((2, 2), "float32")
    psi, belief = L.empty((2, P, Q), "complex64"), L.empty((2, P, Q), "complex64")
    L.launch("belief_variance", f.grid, precision, W, probes, *place, P, Q, parts)
    L.launch("belief_wave", f.grid, precision, natural, W, probes, *place, P, Q, belief)
    L.launch(
        "cavity_wave",
        f.grid,
        precision,
        natural,
        W,
        probes,
        messages,
        g,
        *place,
        P,
        Q,
        parts,
        cavities,
        psi,
    )
    s = f.seen
    windows = [reference.gather(a, corners[s], FRAME) for a in (precision, natural)]
    p = probes[index[s]]
    wanted = p * windows[1] / windows[0]
    variance = (reference.abs2(p) / windows[0]).mean(axis=(1, 2))
    psi_c, g_c = reference.cavity(wanted, variance, messages[s], g[s])
    assert rel(belief, wanted) < 1e-6
    assert rel(psi, psi_c) < 1e-5
    assert cavities[:, 0] == pytest.approx(g_c, rel=1e-5)
    back, v_hat = up(single(rng, 2, P, Q)), (1 / (g_c * [1.5, 1.00005])).astype(np.float32)
    if extreme:
        v_hat[0] = 0
    phi, new, skipped = reference.damped_message(back, v_hat, psi_c, g_c, messages[s], g[s], 0.7)
    assert skipped.tolist() == [False, True]
    change = (
        reference.abs2(p) * (new - g[s])[:, None, None],
        p.conj() * (new[:, None, None] * phi - g[s][:, None, None] * messages[s]),
    )
    parts[...] = (v_hat * np.float32(N / 3))[:, None]
    for together in (0, 1):
        state = [up(a) for a in (precision, natural, messages, g, back)]
        changes, skips = L.empty((2,), "float32"), L.empty((3,), "float64")
        damping = up(np.array([0.7], np.float32))
        head = (
            *state[:2],
            W,
            probes,
            *state[2:],
            psi,
            *place,
            P,
            Q,
            cavities,
            parts,
            damping,
            together,
        )
        L.launch("message_step", f.grid, *head, changes, skips)
        assert rel(state[2][s], phi) < 1e-5
        assert state[3][s] == pytest.approx(new, rel=1e-5)
        assert skips[1:].tolist() == [0, 1]
        assert np.array_equal(state[2][0], messages[0])
        if together:
            assert np.array_equal(state[0], precision)
            starts, members = lists.tile_lists(corners[s], FRAME, (25, W), [(0, 2)])
            tiles = lists.tile_count((25, W)), 1
            tail = *place, P, Q, 25, W
            L.launch(
                "belief_sums",
                tiles,
                *state[:2],
                probes,
                changes,
                0,
                state[4],
                1,
                up(starts[0]),
                up(members),
                *tail,
            )
        summed = precision.copy(), natural.copy()
        for target, values in zip(summed, change, strict=True):
            reference.scatter_add(target, corners[s], values)
        assert rel(state[0], summed[0]) < 1e-6
        assert rel(state[1], summed[1]) < 1e-5


# ---------------------------------------------------------------- host code


def test_arguments_are_checked():
    """Too few, the wrong type, not contiguous: a TypeError here, undefined behaviour
    on a device.
    """
    x = np.zeros(8, np.float32)
    assert check("fill", (x, 8, 1))[1:] == [8, 1.0]
    for bad in ((x, 8), (x.astype(float), 8, 1), (x[::2], 4, 1)):
        with pytest.raises(TypeError):
            check("fill", bad)
    assert f"#define TILE_Y {TILE[0]}" in source()
    assert f"#define TILE_X {TILE[1]}" in source()


@pytest.mark.parametrize("frame", [(12, 9), (1, 1), (64, 33)])
def test_lists_name_every_frame_of_a_tile(frame):
    rng = np.random.default_rng(1)
    shape = (frame[0] + 50, frame[1] + 70)
    corners = rng.integers(0, (51, 71), (20, 2)).astype(np.int32)
    blocks = [(0, 8), (8, 20)]
    starts, members = lists.tile_lists(corners, frame, shape, blocks)
    across = -(-shape[1] // TILE[1])
    assert len(members) <= len(corners) * lists.tiles_of_frame(frame)
    for b, (first, stop) in enumerate(blocks):
        for t in range(lists.tile_count(shape)):
            y, x = t // across * TILE[0], t % across * TILE[1]
            low = corners[first:stop]
            hit = (
                (low[:, 0] < y + TILE[0])
                & (low[:, 0] + frame[0] > y)
                & (low[:, 1] < x + TILE[1])
                & (low[:, 1] + frame[1] > x)
            )
            assert members[starts[b, t] : starts[b, t + 1]].tolist() == np.flatnonzero(hit).tolist()
    index = rng.integers(0, 3, 20)
    starts, members = lists.segment_lists(index, 3, blocks, 2)
    for b, (first, stop) in enumerate(blocks):
        slots = members[starts[b, 0] : starts[b, -1]]
        assert sorted(slots) == list(range(stop - first))
        for s in range(6):
            assert (index[first + members[starts[b, s] : starts[b, s + 1]]] == s // 2).all()


def test_every_kernel_was_launched(request):
    """Last: by the tests above, where all of them were chosen."""
    mine = {item.function.__name__ for item in request.session.items if item.path == request.path}
    if not {name for name in globals() if name.startswith("test_")} <= mine:
        pytest.skip("some tests of this file were not chosen")
    assert set(signatures()) == launched
