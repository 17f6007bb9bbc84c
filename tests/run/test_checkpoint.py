"""A run that was stopped goes on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychon import PtychonError, reconstruct
from ptychon.io import save_result
from ptychon.run.checkpoint import Checkpointer, load_checkpoint, save_checkpoint
from ptychon.run.schedule import Schedule


@pytest.fixture(scope="module")
def scan():
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    shape = (48, 48)
    truth = phantoms.complex_object(phantoms.texture(shape), phantoms.texture(shape, 1))
    probe = probes.defocused_aperture((16, 16), radius=5, defocus=4)
    positions = raster(5, 4, jitter=1, whole=False)
    return simulate(truth, probe, positions, noise="poisson", mean_counts=1e5).dataset


@pytest.mark.parametrize(
    ("engine", "options", "backend"),
    [
        ("rpie", {}, "numpy"),
        ("epie", {"schedule": Schedule(kind="minibatch", size=4, shuffle=True)}, "numpy"),
        ("pie", {"schedule": Schedule(shuffle=True)}, "numpy"),
        ("dm", {}, "numpy"),
        ("dm", {"beta": 0.8}, "numpy"),
        ("ep", {"residual_every": 3, "learn_noise": True, "noise_start": 1}, "numpy"),
        ("ep", {"prior": "sparse", "prior_start": 2, "probe_updates": 0}, "numpy"),
        ("ep", {}, "reference"),
        ("rpie", {}, "reference"),
    ],
)
def test_bit_for_bit(scan, tmp_path, engine, options, backend):
    path = tmp_path / "c.h5"
    whole = reconstruct(scan, engine, passes=7, backend=backend, **options)
    keeper = Checkpointer(path, 4)
    reconstruct(
        scan,
        engine,
        passes=7,
        backend=backend,
        callbacks=[keeper, lambda p: p.passes == 4],
        **options,
    )
    checkpoint = load_checkpoint(path)
    assert (checkpoint.passes, checkpoint.planned, len(checkpoint.errors)) == (4, 7, 4)
    again = reconstruct(scan, engine, passes=7, backend=backend, resume=checkpoint, **options)
    for name in ("object", "probe", "errors", "object_std"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), err_msg=name)
    assert again.final_error == whole.final_error
    assert again.passes == 7
    assert again.seconds > checkpoint.seconds > 0
    assert sorted(again.history) == sorted(whole.history)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(again.history[name], values)


def test_after_an_earlier_run(scan, tmp_path):
    first = reconstruct(scan, "rpie", passes=2, backend="reference")
    whole = reconstruct(scan, "rpie", passes=4, backend="reference", start=first)
    keeper = Checkpointer(tmp_path / "c.h5", 2)
    stop = [keeper, lambda p: p.passes == 4]
    reconstruct(scan, "rpie", passes=4, backend="reference", start=first, callbacks=stop)
    checkpoint = load_checkpoint(tmp_path / "c.h5")
    assert (checkpoint.passes, checkpoint.planned, len(checkpoint.errors)) == (4, 6, 2)
    keeper = Checkpointer(tmp_path / "d.h5", 1, resumed=checkpoint)
    again = reconstruct(
        scan,
        "rpie",
        passes=4,
        backend="reference",
        start=first,
        resume=checkpoint,
        callbacks=[keeper],
    )
    np.testing.assert_array_equal(again.object, whole.object)
    np.testing.assert_array_equal(again.errors, whole.errors)
    last = load_checkpoint(tmp_path / "d.h5")
    np.testing.assert_array_equal(last.errors, whole.errors[2:])
    assert (last.passes, last.planned) == (6, 6)


def test_written_when_due(scan, tmp_path):
    path = tmp_path / "c.h5"
    asked: list[bool] = []
    keeper = Checkpointer(path, due=lambda: len(asked) == 2, settings={"input": "scan.cxi"})
    reconstruct(
        scan,
        "rpie",
        passes=3,
        backend="reference",
        callbacks=[lambda p: asked.append(True), keeper],
    )
    assert keeper.written == 2
    checkpoint = load_checkpoint(path)
    assert checkpoint.passes == 2
    assert checkpoint.settings == {"input": "scan.cxi"}
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]


def test_a_restart_forgets(scan, tmp_path):
    keeper = Checkpointer(tmp_path / "c.h5", 1)
    for _ in range(2):
        reconstruct(scan, "rpie", passes=2, backend="reference", callbacks=[keeper])
    assert len(load_checkpoint(tmp_path / "c.h5").errors) == 2


def test_refusals(scan, tmp_path):
    path = tmp_path / "c.h5"
    result = reconstruct(
        scan, "rpie", passes=2, backend="reference", callbacks=[Checkpointer(path, 1)]
    )
    checkpoint = load_checkpoint(path)
    save_result(tmp_path / "r.h5", result)
    Path(tmp_path / "junk.h5").write_text("junk")
    for wrong, message in (
        ("r.h5", "is a result"),
        ("junk.h5", "not an HDF5 file"),
        ("none.h5", "no such file"),
    ):
        with pytest.raises(PtychonError, match=message):
            load_checkpoint(tmp_path / wrong)
    with pytest.raises(PtychonError, match="must be at least 1"):
        Checkpointer(path, 0)
    with pytest.raises(PtychonError, match="cannot go on as 'epie'"):
        reconstruct(scan, "epie", passes=9, backend="reference", resume=checkpoint)
    with pytest.raises(PtychonError, match="after 2 passes"):
        reconstruct(scan, "rpie", passes=2, backend="reference", resume=checkpoint)
    other = replace(scan, object_shape=(60, 60))
    with pytest.raises(PtychonError, match="belongs to other data"):
        reconstruct(other, "rpie", passes=9, backend="reference", resume=checkpoint)
    lacking = replace(checkpoint, state={"object": checkpoint.state["object"]})
    save_checkpoint(path, replace(lacking, state=checkpoint.state))
    with pytest.raises(PtychonError, match="lacks 'probe'"):
        reconstruct(scan, "rpie", passes=9, backend="reference", resume=lacking)


@pytest.mark.parametrize("stopped", [3, 6, 7])
def test_a_finished_difference_map_goes_on_bit_for_bit(scan, tmp_path, stopped):
    """Six of eight passes are its own, two of rPIE: stopped in the middle, at the seam, and between
    the last two.
    """
    path, way = (
        tmp_path / "c.h5",
        {"passes": 8, "backend": "reference", "probe": np.ones((16, 16), complex), "say": None},
    )
    whole = reconstruct(scan, "dm", **way)
    assert whole.settings["ran"] == [["dm", 6], ["rpie", 2]]
    seen = []

    def watched(progress):
        seen.append((progress.passes, progress.planned, progress.engine.name))
        return progress.passes == stopped

    short = reconstruct(scan, "dm", callbacks=[Checkpointer(path, stopped), watched], **way)
    assert seen == [(n, 8, "dm" if n <= 6 else "rpie") for n in range(1, stopped + 1)]
    assert short.passes == sum(number for _, number in short.settings["ran"]) == stopped
    checkpoint = load_checkpoint(path)
    assert checkpoint.engine == ("dm" if stopped <= 6 else "rpie")
    again = reconstruct(scan, "dm", resume=checkpoint, callbacks=[watched], **way)
    assert [epoch for epoch, _, _ in seen[stopped:]] == list(range(stopped + 1, 9))
    for name in ("object", "probe", "errors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), err_msg=name)
    assert again.settings["ran"] == whole.settings["ran"]
    assert again.seconds > checkpoint.seconds > 0
