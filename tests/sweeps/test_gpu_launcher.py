"""The launcher of the GPU without a GPU: its own code on a stand-in for CuPy whose kernels are the
host's build.

The stand-in does what CUDA does where it matters: while a stream captures, nothing runs; a graph
repeats addresses and numbers; allocating, copying or making FFT plans during a capture is an error.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from test_cuda import ENGINES, REFERENCE, compare, expected, plan_for, sweep

from _problems import make_case
from cuda_shim import HostLauncher
from ptychon import PtychonWarning
from ptychon.engines import Context, make
from ptychon.kernels import build
from ptychon.kernels.gpu import launch as _cupy_launch
from ptychon.kernels.gpu.far import Far
from ptychon.kernels.gpu.table import Table
from ptychon.run.schedule import Schedule


class Device:
    """What is being captured, what exists, what happened."""

    def __init__(self):
        self.host = HostLauncher(32)
        self.tape, self.log, self.fail, self.flying = None, [], False, []

    def land(self):
        for values, out in self.flying:
            out[...] = values
        self.flying.clear()

    def forbid(self, what):
        if self.tape is not None:
            raise RuntimeError(f"{what} during a capture")

    def do(self, work):
        if self.tape is None:
            work()
        else:
            self.tape.append(work)


class Array(np.ndarray):
    device: Device

    def set(self, host, stream=None):
        self.device.forbid("copy")
        assert (host.shape, host.dtype) == (self.shape, self.dtype)
        self[...] = host

    def get(self, stream=None, order="C", out=None, blocking=True):
        """Not before it must: what is asked for without blocking is written when its event is
        waited for.
        """
        self.device.forbid("copy")
        assert not blocking
        assert (out.shape, out.dtype) == (self.shape, self.dtype)
        out[...] = np.nan
        self.device.flying.append((self.copy(), out))
        return out


class Graph:
    def __init__(self, device, tape):
        self.device, self.tape = device, tape

    def upload(self):
        self.device.forbid("upload")

    def launch(self):
        self.device.log.append("graph")
        for work in self.tape:
            work()


def stand_in(device):
    """Modules `cupy` and `cupyx` with what the launcher uses of them."""
    Array.device = device

    def array(a):
        device.forbid("allocation")
        return np.ascontiguousarray(a).view(Array)

    class Stream:
        def __init__(self, non_blocking=False):
            assert non_blocking

        def __enter__(self):
            device.log.append("enter")

        def __exit__(self, *_):
            device.log.append("leave")

        def begin_capture(self):
            assert device.log[-1] == "enter"
            device.tape = []

        def end_capture(self):
            tape, device.tape = device.tape, None
            if device.fail:
                raise RuntimeError("capture failed")
            return Graph(device, tape)

        def wait_event(self, event):
            device.log.append(f"wait {event.name}")

    class Event:
        count = 0

        def __init__(self, disable_timing):
            self.name, Event.count = Event.count, Event.count + 1

        def record(self, stream):
            device.log.append(f"record {self.name}")

        def synchronize(self):
            device.log.append(f"synchronize {self.name}")
            device.land()

    class PlanNd:
        def __init__(
            self,
            shape,
            inembed,
            istride,
            idist,
            onembed,
            ostride,
            odist,
            kind,
            batch,
            order,
            last_axis,
            last_size,
        ):
            device.forbid("FFT plan")
            assert (shape, idist, kind, order, last_size) == (inembed, odist, "C2C", "C", None)
            assert (istride, ostride, idist) == (1, 1, shape[0] * shape[1])
            self.shape, self.batch = shape, batch

        def fft(self, a, out, direction):
            assert a.size == out.size == self.batch * self.shape[0] * self.shape[1]
            device.do(lambda: HostLauncher._fft(a, out, direction == 1))

    class RawModule:
        def __init__(self, code, options):
            assert "KERNEL fill(" in code
            assert options == ("-std=c++17",)

        def get_function(self, name):
            def kernel(grid, block, args, shared_mem):
                # kernels with transforms inside say their own number of threads
                own = shared_mem > 0
                assert own or block == (256,)
                assert shared_mem <= 48 * 1024
                assert all(g > 0 for g in grid)
                values = [a.ctypes.data if isinstance(a, np.ndarray) else a.item() for a in args]
                threads = block[0] if own else 32
                device.do(lambda: device.host._launch(name, (*grid, threads, *values)))

            device.forbid("compilation")
            return kernel

    cufft = SimpleNamespace(PlanNd=PlanNd, CUFFT_C2C="C2C", CUFFT_INVERSE=1, CUFFT_FORWARD=-1)
    cuda = ModuleType("cupy.cuda")
    current = Stream(non_blocking=True)
    vars(cuda).update(
        Stream=Stream,
        Event=Event,
        Device=lambda i: SimpleNamespace(attributes={"L2CacheSize": 1000}),
        get_current_stream=lambda: current,
        cufft=cufft,
    )
    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    vars(cupy).update(
        cuda=cuda,
        RawModule=RawModule,
        empty=lambda shape, dtype: array(np.full(shape, 99, dtype)),
        asarray=np.asarray,
        ascontiguousarray=array,
    )
    cupyx.empty_pinned = lambda shape, dtype: np.empty(shape, dtype)
    return {"cupy": cupy, "cupy.cuda": cuda, "cupyx": cupyx}


@pytest.fixture
def device(monkeypatch):
    found = Device()
    for name, module in stand_in(found).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(_cupy_launch, "LEAST_BLOCK", 3000)
    monkeypatch.setattr(_cupy_launch.CupyLauncher, "is_far", lambda self, frames: False)
    return found


def passes(engine, case, launcher, schedule, count):
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    plan = plan_for(engine, launcher, case.problem, len(case.probe))
    # arrays of a device can be told from those of the host
    for name in plan.names:
        setattr(state, name, np.ascontiguousarray(getattr(state, name)).view(Array))
    for _ in range(count):
        batches = schedule.batches(case.problem, state.epoch)
        state, misfit, extra = sweep(plan, engine, state, case.problem, batches, REFERENCE)
    return plan, (state, misfit, extra)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pie", "colours"),
        ("rpie", "sequential"),
        ("rpie", "minibatch"),
        ("dm", "parallel"),
        ("ep", "parallel"),
    ],
)
def test_captured_passes_are_the_engines(device, monkeypatch, name, kind):
    """Launched, captured and replayed, in several graphs a pass; nothing is allocated, copied or
    planned in a capture.
    """
    monkeypatch.setattr(_cupy_launch, "GRAPH_JOBS", 3)
    modes = 1 if name == "ep" else 2
    case = make_case(subpixel=True, masks="each", modes=modes)
    engine, schedule = make(name, **ENGINES[name]), Schedule(kind=kind, size=5)
    plan, found = passes(engine, case, _cupy_launch.CupyLauncher(), schedule, 6)
    compare(found, expected(engine, case, schedule, REFERENCE, 6), 1e-4)
    assert device.log.count("graph") >= 2
    assert any(isinstance(value, list) for value in plan.graphs.values())


def test_a_capture_that_fails_is_told_and_done_without(device):
    case, engine = make_case(), make("rpie", probe_start=0)
    device.fail = True
    launcher = _cupy_launch.CupyLauncher()
    with pytest.warns(PtychonWarning, match=r"could not be captured .* \(capture failed\)"):
        plan, found = passes(engine, case, launcher, Schedule(), 4)
    compare(found, expected(engine, case, Schedule(), REFERENCE, 4), 1e-4)
    assert list(plan.graphs.values()) == ["eager"]
    assert "graph" not in device.log


def test_without_graphs(device):
    case, engine = make_case(), make("rpie", probe_start=0)
    plan, _ = passes(engine, case, _cupy_launch.CupyLauncher(graphs=False), Schedule(), 3)
    assert "enter" not in device.log
    assert list(plan.graphs.values()) == ["seen"]


def test_few_sweeps_are_remembered(device, monkeypatch):
    """Bounds that change with every shuffle make new sweeps for ever; the oldest is forgotten."""
    monkeypatch.setattr(_cupy_launch, "GRAPHS", 2)
    launcher, graphs = _cupy_launch.CupyLauncher(), {}
    for key in "abca":
        launcher.run(graphs, key, lambda: iter(()))
    assert list(graphs) == ["c", "a"]


def test_groups_wait_for_each_other(device, monkeypatch):
    """A group is launched after it arrived; its place is filled again after the kernels that read
    it.
    """
    case, engine = make_case(), make("rpie", probe_start=0)
    monkeypatch.setattr(_cupy_launch.CupyLauncher, "is_far", lambda self, frames: True)
    monkeypatch.setattr(_cupy_launch, "GROUP", 6 * case.problem.amplitude[0].nbytes)
    _, found = passes(engine, case, _cupy_launch.CupyLauncher(), Schedule(), 1)
    compare(found, expected(engine, case, Schedule(), REFERENCE, 1), 1e-5)
    # events 0, 1: sent; 2, 3: used; 4, 5: back on the host
    order = [entry for entry in device.log if entry not in ("enter", "leave", "graph")]
    fill = [
        ["synchronize 0", "wait 2", "wait 4", "record 0"],
        ["synchronize 1", "wait 3", "wait 5", "record 1"],
    ]
    assert order == [
        *fill[0],
        *fill[1],
        "wait 0",
        "record 2",
        *fill[0],
        "wait 1",
        "record 3",
        "wait 0",
        "record 2",
    ]


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "shuffle"),
    [("dm", "parallel", False), ("ep", "sequential", True), ("ep", "parallel", False)],
)
def test_waves_come_and_go(device, monkeypatch, name, kind, shuffle, pinned):
    """Waves in page-locked memory go straight, others and scattered rows through ours; nothing is
    read before it is back.
    """
    case = make_case(subpixel=True, masks="each", side=3)
    engine, schedule = make(name, **ENGINES[name]), Schedule(kind=kind, shuffle=shuffle, seed=1)
    launcher = _cupy_launch.CupyLauncher()
    monkeypatch.setattr(_cupy_launch.CupyLauncher, "is_far", lambda self, frames: True)
    launcher.group_bytes = 4 * 3 * case.problem.amplitude[0].nbytes
    state = engine.init(case.problem, case.object, case.probe, REFERENCE)
    stack = {"dm": "waves", "ep": "messages"}[name]
    setattr(state, stack, Far(getattr(state, stack), np.array, np.asarray, pinned))
    table = build()
    vars(table).update(Table(launcher).names())
    ctx = Context(replace(REFERENCE.backend, kernels=table))
    plan = plan_for(engine, launcher, case.problem, 1)
    for field in plan.names:
        if field != stack:
            setattr(state, field, np.ascontiguousarray(getattr(state, field)).view(Array))
    for _ in range(4):
        batches = schedule.batches(case.problem, state.epoch)
        state, misfit, extra = sweep(plan, engine, state, case.problem, batches, ctx)
        assert not device.flying
    setattr(state, stack, np.asarray(getattr(state, stack)))
    compare((state, misfit, extra), expected(engine, case, schedule, REFERENCE, 4), 1e-4)
    # frames are never page-locked here, waves may be: only rows that lie together go without a copy
    # on the host
    collected = {(way, kind) for way, _, kind in launcher._pinned}
    assert ("out", "float32") in collected
    for way in ("out", "in"):
        assert ((way, "complex64") in collected) == (shuffle or not pinned)
