"""What a run holds, from shapes alone, against what plans really take; what is said of it; and what
does not fit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_cuda import far_backend, host_backend

from _problems import make_case
from cuda_shim import HostLauncher
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.engines import Context, make, registry
from ptychon.kernels.gpu.far import group_frames
from ptychon.kernels.gpu.launch import GROUP, LEAST_BLOCK
from ptychon.run.iterate import iterate
from ptychon.run.reconstruct import reconstruct
from ptychon.run.schedule import Schedule
from ptychon.sweeps.find import memory as memory_of
from ptychon.sweeps.find import plans
from ptychon.sweeps.gpu import memory
from ptychon.sweeps.memory import Memory, Shapes, needed, planned

GB = 10**9
#: 100,000 frames of 256 x 256: 26 GB of amplitudes, and 52 GB of waves or messages.
MANY = Shapes(frames=100_000, frame=(256, 256), object=(6000, 6000))
#: Engines that can leave their frames on the host.
STREAMING = [name for name, cls in registry.items() if cls.keeps.streams]
LAUNCHER = {"block_bytes": LEAST_BLOCK, "group_bytes": GROUP}


@pytest.mark.parametrize("masks", [1, 100_000])
@pytest.mark.parametrize("shifts", [1, 256])
@pytest.mark.parametrize("name", STREAMING)
def test_a_hundred_thousand_frames_fit_into_24_gb(name, shifts, masks):
    """Everything that is on the device at a time: with a mask for each frame (6.6 GB) and 256
    shifted probes too.
    """
    shapes = replace(MANY, shifts=shifts, masks=masks)
    plan = planned(make(name), shapes, 24 * GB, **LAUNCHER)
    assert plan.far
    assert plan.total < 24 * GB
    assert plan.host["frames"] == 4 * 256 * 256 * 100_000
    assert sum(plan.host.values()) == (
        26_214_400_000 if name in ("pie", "epie", "rpie") else 78_643_200_000
    )
    # two groups of what is sent, and nothing else depends on the bytes of all frames
    assert plan.device["groups"] < (4 if name == "ep" else 2) * 1.05 * GROUP + 4e8
    more = planned(make(name), replace(shapes, frames=2 * shapes.frames), 40 * GB, **LAUNCHER)
    assert more.total - plan.total < shapes.frames * (6000 + (shapes.masks > 1) * 256 * 256)
    assert "stay on the host" in plan.line()


@pytest.mark.parametrize("name", STREAMING)
def test_frames_stay_on_the_device_where_they_fit(name):
    stack = 0 if name in ("pie", "epie", "rpie") else 2
    plan = planned(make(name), MANY, 200 * GB, **LAUNCHER)
    assert not plan.far
    assert plan.host == {}
    assert plan.device["frames"] == 26_214_400_000
    assert sum(plan.device.get(key, 0) for key in ("waves", "messages")) == stack * 26_214_400_000
    assert plan.block == LEAST_BLOCK // (8 * 256 * 256)
    # with little more than the data smaller blocks come before the frames have to go
    least = needed(make(name), MANY, block=1).total
    tight = planned(make(name), MANY, least + 2**28, **LAUNCHER)
    assert not tight.far
    assert tight.block < plan.block
    assert planned(make(name), MANY, least + 2**28 - 1, **LAUNCHER).far


def test_what_does_not_fit_is_refused_with_both_numbers():
    with pytest.raises(
        PtychonError,
        match=r"'dm' needs \d+\.\d\d GB on the GPU, and 1\.00 GB are free; use fewer or smaller "
        r"frames",
    ):
        planned(make("dm"), MANY, GB, **LAUNCHER)
    with pytest.raises(
        PtychonError,
        match=r"needs 13\d\.\d\d GB on the GPU \(this run cannot leave .*\), and 24\.00 GB are "
        r"free",
    ):
        planned(make("dm", beta=0.7), MANY, 24 * GB, **LAUNCHER)
    case, launcher = make_case(), HostLauncher()
    with pytest.raises(PtychonError, match="cannot leave its frames on the host"):
        memory(launcher, case.problem, make("dm", beta=0.7), 1, 1000)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("kind", ["sequential", "minibatch", "parallel"])
@pytest.mark.parametrize("name", STREAMING)
def test_plans_take_no_more_than_was_said(name, kind, far):
    """Working arrays and groups after some passes, against what the shapes gave."""
    modes = 1 if name in ("ep",) else 2
    case = make_case(subpixel=True, masks="each", modes=modes, side=3)
    engine, n = make(name), len(case.problem)
    launcher = HostLauncher(block_bytes=5000)
    launcher.group_bytes = 4 * (1 + 2 * modes) * case.problem.amplitude[0].nbytes
    backend = (far_backend if far else host_backend)(launcher)
    steps = iterate(
        case.problem,
        engine,
        case.object,
        case.probe,
        ctx=Context(backend),
        schedule=Schedule(kind=kind, size=5),
    )
    for _ in range(4):
        next(steps)
    shapes = Shapes.of(case.problem, modes)
    block = max(1, min(n, 5000 // (8 * modes * shapes.frame[0] * shapes.frame[1])))
    said = needed(engine, shapes, far=far, block=block, group_bytes=launcher.group_bytes)
    plan = next(iter(plans(backend)._plans.values()))[0]
    table = backend.kernels.message_sums.__self__
    held = [plan, *(known for known in (table._geometry, table._far_geometry) if known is not None)]
    # what the table would upload is there already on a device
    size = sum(array.nbytes for geometry in held for array in geometry.kept.values())
    assert (plan.amplitude is None) == far
    assert size < said.device["work"] + said.device["groups"]
    assert size > 0.1 * said.device["work"]


def test_groups_hold_what_belongs_to_a_frame():
    assert group_frames(1200, 100, 0, False) == 3
    assert group_frames(1200, 100, 0, True) == 3
    assert group_frames(3600, 100, 1, False) == 3
    assert group_frames(3600, 100, 1, True) == 2
    assert group_frames(10, 100, 1, True) == 1


def test_line_names_the_parts_and_what_is_free():
    plan = Memory("ep", {"frames": 2_000_000_000, "work": 1000}, free=3_000_000_000)
    assert plan.line() == "GPU memory: ep holds 2.00 GB (frames 2.00); 3.00 GB are free"
    far = Memory("dm", {"work": 10**9}, {"frames": 4 * 10**9, "waves": 8 * 10**9}, free=2 * 10**9)
    assert far.line().endswith(
        "frames (4.0 GB) and waves (8.0 GB) stay on the host and are sent in groups"
    )


def test_a_run_says_what_it_will_hold_before_it_begins():
    case, said = make_case(), []
    result = reconstruct(
        case.problem, "dm", passes=1, backend="numpy", probe=case.probe, details=said.append
    )
    assert result.passes == 1
    assert len(said) == 1
    assert said[0].startswith("host memory: dm holds ")
    backend = get_backend("numpy")
    plan = memory_of(backend, case.problem, make("dm"), 1)
    assert plan.device["waves"] == 2 * case.problem.amplitude.nbytes
    assert plan.line().startswith("host memory: dm holds 0.00 GB")


def test_the_stage_that_holds_most_is_told():
    case, said = make_case(), []
    for recipe in ("dm:1, rpie:1", "rpie:1, dm:1", "pie:1, dm:1, rpie:1"):
        reconstruct(case.problem, recipe, backend="numpy", probe=case.probe, details=said.append)
    told = [line for line in said if "memory" in line]
    assert len(told) == 3
    assert all(line.startswith("host memory: dm holds ") for line in told)


def test_running_out_of_memory_in_the_first_state_is_a_sentence():
    """What the plan did not foresee: the allocation itself fails."""
    case = make_case()

    def full(like, shape, dtype):
        if shape[0] < len(case.problem):
            return np.empty(shape, dtype)  # of the tiny problem that everything is compiled on
        raise MemoryError("out of memory allocating 52,428,800,000 bytes")

    backend = replace(get_backend("numpy"), beside=full)
    for name in ("dm", "ep"):
        with pytest.raises(
            PtychonError,
            match=rf"out of memory \(.* 52,428,800,000 bytes\).* {name} holds .* use rpie or epie",
        ):
            reconstruct(
                case.problem, name, passes=1, backend=backend, object=case.object, probe=case.probe
            )


def test_the_joint_posterior_says_that_it_cannot_stream():
    """Waves, messages and frames, 24 bytes a pixel and mode and 5 more: on the device or not at
    all.
    """
    with pytest.raises(PtychonError, match=r"needs 1[67]\d\.\d\d GB on the GPU"):
        planned(make("joint"), MANY, 24 * GB, **LAUNCHER)
    assert not planned(make("joint"), MANY, 200 * GB, **LAUNCHER).far
