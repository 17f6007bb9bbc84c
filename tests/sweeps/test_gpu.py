"""On an NVIDIA GPU: engines against the CPU, graphs against single launches, memory. Skipped
without one.

With PTYCHON_REQUIRE_GPU=1 a missing GPU is a failure and not a reason to skip.
"""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace

import numpy as np
import pytest

from _problems import gpu_backend, make_case
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.engines import Context, make
from ptychon.kernels.gpu.far import Far
from ptychon.run.iterate import iterate
from ptychon.run.schedule import Schedule
from ptychon.sweeps.find import fast_step, memory, plans

pytestmark = pytest.mark.gpu

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
    # frames whose transforms are inside the kernels
    "lines": {"subpixel": True, "masks": "each", "frame": (32, 64), "side": 3},
    "square": {"frame": (128, 128), "side": 2},
}
LINES = ("lines", "square")
FIELDS = ("object", "probe", "waves", "messages", "message_precision", "precision", "natural")


@pytest.fixture(scope="module")
def gpu():
    return gpu_backend()


def rel(a, b):
    return float(np.linalg.norm(np.ravel(a - b)) / np.linalg.norm(np.ravel(b)))


def run(engine, case, backend, passes, schedule=None, object=None):
    """State arrays on the host, and errors."""
    start = case.object if object is None else object
    steps = iterate(
        case.problem, engine, start, case.probe, ctx=Context(backend), schedule=schedule
    )
    progress = list(itertools.islice(steps, passes))
    state = progress[-1].state
    return {n: backend.to_host(getattr(state, n)) for n in FIELDS if hasattr(state, n)}, [
        p.error for p in progress
    ]


@pytest.mark.parametrize("settings", list(SETTINGS))
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(
            ("pie", "rpie", "ep"), ("sequential", "colours", "minibatch", "parallel")
        ),
        ("epie", "sequential"),
        ("dm", "parallel"),
    ],
)
def test_engines_are_those_of_the_cpu(gpu, name, kind, settings):
    """From a near start: launches one by one, the pass that is captured, and two that
    are replayed.
    """
    modes = 1 if name == "ep" else 2
    case = make_case(**SETTINGS[settings], modes=modes)
    engine, schedule = (
        make(name, **ENGINES[name]),
        Schedule(kind=kind, size=5, shuffle=name != "dm", seed=3),
    )
    backend = get_backend("cupy", lines=True) if settings in LINES else gpu
    found, errors = run(engine, case, backend, 4, schedule)
    wanted, expected = run(engine, case, get_backend("reference"), 4, schedule)
    for field, value in wanted.items():
        assert rel(found[field], value) < (1e-3 if name == "ep" else 1e-4), field
    assert errors == pytest.approx(expected, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("kind", ["sequential", "minibatch"])
def test_each_frame_has_its_own_noise(gpu, kind):
    case, engine = (
        make_case(subpixel=True, masks="each"),
        make("ep", **(ENGINES["ep"] | {"noise_per_frame": True})),
    )
    schedule = Schedule(kind=kind, size=5, shuffle=True, seed=3)
    states = []
    for backend in (gpu, get_backend("reference")):
        steps = iterate(
            case.problem, engine, case.object, case.probe, ctx=Context(backend), schedule=schedule
        )
        states.append(backend.to_host(list(itertools.islice(steps, 4))[-1].state.noise_variance))
    assert np.allclose(*states, rtol=1e-2)


@pytest.mark.parametrize("name", list(ENGINES))
def test_random_starts_end_equally_well(gpu, name):
    """From far away single bits grow, so that only the ends can be compared: over five starts,
    within a tenth.
    """
    case, engine = make_case(subpixel=True), make(name)
    ends = {}
    for backend in (gpu, get_backend("numpy", threads=1)):
        ends[backend.name] = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            start = (1 + 0.3 * rng.standard_normal(case.object.shape)).astype(np.complex64)
            errors = run(engine, case, backend, 41, object=start)[1]
            ends[backend.name].append(min(e for e in errors[-10:] if np.isfinite(e)))
    assert np.median(ends["cupy"]) == pytest.approx(np.median(ends["numpy"]), rel=0.1)


@pytest.mark.parametrize("kind", ["sequential", "minibatch"])
@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("lines", [False, True])
def test_graphs_change_no_bit(gpu, name, kind, lines):
    """Replayed graphs and launches one by one; and both twice."""
    frame = {"frame": (64, 32), "side": 3} if lines else {}
    case = make_case(subpixel=True, masks="shared", **frame)
    engine = make(name, **ENGINES[name])
    schedule = Schedule(kind="parallel" if name == "dm" else kind, size=5, shuffle=True)
    graphs, single = (get_backend("cupy", graphs=g, lines=lines) for g in (True, False))
    first, *others = (
        run(engine, case, backend, 7, schedule)[0] for backend in (graphs, graphs, single, single)
    )
    for other in others:
        for field, value in first.items():
            assert np.array_equal(value, other[field]), field


@pytest.mark.parametrize("frame", [(127, 131), (128, 128)])
def test_frames_of_prime_sides(gpu, frame):
    """Their FFT plans must not be made while a pass is captured."""
    rng = np.random.default_rng(0)
    problem = make_case().problem
    corners = (
        np.stack(np.meshgrid([0, 20, 40], [0, 20, 40], indexing="ij"), -1)
        .reshape(-1, 2)
        .astype(np.int32)
    )
    shape = frame[0] + 40, frame[1] + 40
    amplitude = rng.random((9, *frame)).astype(np.float32)
    problem = replace(
        problem,
        amplitude=amplitude,
        mask=np.ones((1, *frame), bool),
        corners=corners,
        shift_index=np.zeros(9, np.int32),
        shifts=np.zeros((1, 2), np.float32),
        object_shape=shape,
    )
    # not constant: its FFT is zero but for one pixel, and the phases of the others would be
    # rounding
    start = tuple(
        (rng.random(s) * np.exp(1j * rng.random(s))).astype(np.complex64)
        for s in (shape, (1, *frame))
    )
    ends = []
    for backend in (gpu, get_backend("reference")):
        steps = iterate(problem, make("rpie"), *start, ctx=Context(backend))
        ends.append(backend.to_host(list(itertools.islice(steps, 3))[-1].state.object))
    assert rel(*ends) < 1e-4


@pytest.mark.parametrize("name", list(ENGINES))
def test_a_thousand_sweeps_leak_nothing(gpu, name):
    """Memory in use after 1,000 passes is that after 20: what one pass holds has a bound."""
    case, engine = make_case(), make(name, **ENGINES[name])
    pool = gpu.xp.get_default_memory_pool()
    steps, used = iterate(case.problem, engine, case.object, case.probe, ctx=Context(gpu)), []
    for _ in range(2):
        for _ in range(20 if not used else 980):
            next(steps)
        gpu.synchronise()
        gc.collect()
        used.append((pool.used_bytes(), gpu.xp.cuda.runtime.memGetInfo()[0]))
    assert used[1][0] <= used[0][0] + 2**16
    assert used[1][1] >= used[0][1] - 2**24
    del steps
    gc.collect()
    assert pool.used_bytes() < used[0][0]


def test_two_backends_take_turns(gpu):
    """Two runs on two backends in one process, pass by pass in turns, are what each is alone."""
    case = make_case(subpixel=True)
    pairs = [(gpu, make("rpie")), (get_backend("cupy"), make("ep"))]
    alone = [run(engine, case, backend, 6)[0]["object"] for backend, engine in pairs]
    both = [
        iterate(case.problem, engine, case.object, case.probe, ctx=Context(backend))
        for backend, engine in pairs
    ]
    for _ in range(6):
        progress = [next(steps) for steps in both]
    for wanted, found in zip(alone, progress, strict=True):
        assert np.array_equal(wanted, gpu.to_host(found.state.object))


def test_a_stream_of_the_caller(gpu):
    """What is launched goes to the stream that is current, captured or not."""
    case, stream = make_case(), gpu.xp.cuda.Stream(non_blocking=True)
    wanted = run(make("rpie"), case, gpu, 5)[0]["object"]
    with stream:
        found = run(make("rpie"), case, gpu, 5)[0]["object"]
    assert np.array_equal(found, wanted)


def test_shuffling_needs_no_new_graph(gpu):
    case, engine = make_case(), make("rpie")
    schedule = Schedule(shuffle=True)
    problem, ctx = case.problem.to(gpu), Context(gpu)
    state = engine.init(problem, gpu.asarray(case.object), gpu.asarray(case.probe), ctx)
    for epoch in range(6):
        batches = schedule.batches(problem, epoch)
        state, _ = fast_step(gpu, engine, problem, batches)(state, problem, batches, ctx)
    (plan,) = plans(gpu)._plans[id(problem)]
    # one with the probe still, in pass 0, one with it moving
    kinds = [value if isinstance(value, str) else "graph" for value in plan.graphs.values()]
    assert kinds == ["seen", "graph"]


def test_what_does_not_fit_is_said_with_numbers(gpu):
    with pytest.raises(PtychonError, match=r"4000\.00 GB .* GB are free"):
        gpu.asarray(np.broadcast_to(np.float32(0), (10**12,)))


def test_the_difference_map_reflects_twice(gpu):
    case = make_case(subpixel=True, masks="each", modes=2)
    engine = make("dm", **(ENGINES["dm"] | {"beta": 0.75}))
    found, _ = run(engine, case, gpu, 4)
    wanted, _ = run(engine, case, get_backend("reference"), 4)
    for field, value in wanted.items():
        assert rel(found[field], value) < 1e-4, field


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rpie", "sequential"),
        ("rpie", "minibatch"),
        ("dm", "parallel"),
        ("ep", "sequential"),
        ("ep", "parallel"),
    ],
)
def test_frames_that_stay_on_the_host_change_nothing(gpu, name, kind):
    """As where they do not fit: frames and waves sent and brought back in groups, beside the
    kernels, over enough passes for a missing wait to show; messages in page-locked memory and,
    shuffled, through it."""
    case = make_case(side=8)
    engine, schedule = (
        make(name, **ENGINES[name]),
        Schedule(kind=kind, size=8, shuffle=name != "dm"),
    )
    wanted, _ = run(engine, case, gpu, 6, schedule)
    plain = get_backend("cupy")
    plain.launcher.group_bytes = 30 * case.problem.amplitude[0].nbytes

    def stay(frames):
        return Far(frames, plain.xp.asarray, plain.xp.asnumpy)

    found, _ = run(
        engine, case, replace(plain, stay=stay, frames_on_host=True, kept={}), 6, schedule
    )
    for field, value in wanted.items():
        assert rel(found[field], value) < (1e-5 if name != "ep" else 1e-3), field


def test_memory_is_not_more_than_was_said(gpu):
    """The pool after a few passes against the plan made before, for every engine."""
    for name in ENGINES:
        modes = 1 if name == "ep" else 2
        case, engine, backend = (
            make_case(side=8, modes=modes),
            make(name, **ENGINES[name]),
            get_backend("cupy"),
        )
        said = memory(backend, case.problem, engine, modes)
        assert not said.far
        pool = backend.xp.get_default_memory_pool()
        gc.collect()
        pool.free_all_blocks()
        before = pool.used_bytes()
        run(engine, case, backend, 3)
        assert pool.total_bytes() - before < said.total + 64 * 2**20, name
