"""Damaged files, huge files, and processes that are killed while they save.

A thousand mutants at once: ``python tests/_mutants.py 1000``; fifty killed saves:
``PTYCHON_KILLS=50``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from _mutants import run
from ptychon import PtychonError
from ptychon.data.position_table import read_table
from ptychon.io import guard, load, load_result
from ptychon.io.probe import read_probe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


def test_damaged_files_give_one_sentence(tmp_path):
    ends = run(60, random.Random(time.time_ns()).randrange(2**31), tmp_path)
    assert sum(ends.values()) == 60
    assert ends.get("refused", 0) > 5


@pytest.fixture
def interruptible():
    """A shell that starts the tests in the background has them ignore this signal."""
    if not guard.possible():
        pytest.skip(
            "a library used by an earlier test (dask, say) left a thread: no copy of this "
            "process can be made"
        )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_crash_of_the_library_is_named(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"x")
    for name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS"):
        with pytest.raises(PtychonError, match=rf"crashed \({name}\)"):
            guard.in_copy(path, lambda name=name: os.kill(os.getpid(), getattr(signal, name)))
    with pytest.raises(PtychonError, match="no answer in"):
        guard.in_copy(path, lambda: time.sleep(60), patience=0.2)
    with pytest.raises(PtychonError, match="found no end in 1 s of the processor"):
        guard.in_copy(path, lambda: any(iter(int, 1)), patience=60, processor=1)
    with pytest.raises(PtychonError, match="more memory than a file of its size"):
        guard.in_copy(path, lambda: len(bytearray(2**36)))
    with pytest.raises(PtychonError, match="own words"):
        guard.in_copy(path, lambda: (_ for _ in ()).throw(PtychonError("own words")))
    with pytest.raises(KeyboardInterrupt):
        guard.in_copy(path, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert guard.in_copy(path, lambda: {"a": [1, None]}) == {"a": [1, None]}


@pytest.mark.usefixtures("interruptible")
def test_a_file_that_crashes_the_library_does_not_take_us_with_it(tmp_path, monkeypatch):
    """As if: the crash that was once seen needs one version of the library and one file."""
    from ptychon import Dataset
    from ptychon.io import write_dataset

    path = tmp_path / "a.cxi"
    write_dataset(path, Dataset(patterns=np.ones((4, 8, 8), "u1"), positions=np.eye(4)[:, :2]))
    here = os.getpid()

    def crash(*arguments):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr("ptychon.io.frames.Hdf5Frames.walk", crash)
    with pytest.raises(
        PtychonError, match=r"a.cxi is damaged: the library that reads it crashed \(SIGSEGV\)"
    ):
        load(path)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("command", ["inspect", "convert", "reconstruct", "report", "error_bars"])
def test_an_attribute_without_end_is_said_by_every_command(tmp_path, monkeypatch, capsys, command):
    """As if: the library goes round for ever in some damaged attributes, of some versions."""
    from ptychon import Dataset
    from ptychon.__main__ import main
    from ptychon.io import write_dataset

    path = tmp_path / "a.cxi"
    write_dataset(path, Dataset(patterns=np.ones((4, 8, 8), "u1"), positions=np.eye(4)[:, :2]))
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", lambda *_: any(iter(int, 1)))
    monkeypatch.setattr(guard, "OPENING", 1)
    more = [str(tmp_path / "out.cxi")] if command == "convert" else []
    assert main([command, str(path), *more]) != 0
    said = capsys.readouterr().err
    assert "a.cxi is damaged: the library that reads it found no end in 1 s" in said
    assert not (tmp_path / "out.cxi").exists()


def test_a_file_that_was_sound_is_looked_at_again_when_it_has_changed(tmp_path, monkeypatch):
    path, looks = tmp_path / "a.h5", []
    monkeypatch.setattr(guard, "check_finding", lambda *_: looks.append(1))
    for number in (1, 1, 2):
        with h5py.File(path, "w") as file:
            file["a"] = np.zeros(5000 * number, "u1")
        os.utime(path, ns=(1, 1))
        guard.check_nodes(path)
    assert len(looks) == (2 if guard.possible() else 3)


def test_twenty_gigabytes_are_inspected_in_seconds(tmp_path):
    path = tmp_path / "huge.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        frames = detector.create_dataset(
            "data", (10_000, 1024, 1024), np.uint16, chunks=(1, 1024, 1024)
        )
        frames[17] = 3
        frames[9000, 512, 512] = 9
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 2.0, 75e-6, 75e-6
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        places = (
            np.stack(np.meshgrid(np.arange(100), np.arange(100), [0.0]), -1).reshape(-1, 3) * 1e-7
        )
        file["entry_1/data_1/translation"] = places
        file["entry_1/instrument_1/source_1/energy"] = 1.6e-15
    code = (
        "import sys, resource; from ptychon.__main__ import main; main(['inspect', sys.argv[1], "
        "'--json'])\n"
        "peaks = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]\n"
        # Linux counts the memory of the process that started this one into RUSAGE_SELF; VmHWM
        # begins at exec
        "try: peaks += [int(line.split()[1]) for line in open('/proc/self/status') if "
        "line.startswith('VmHWM')]\n"
        "except OSError: peaks += [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]\n"
        "print(max(peaks))"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seconds = time.monotonic() - start
    about, peak = done.stdout.splitlines()
    assert json.loads(about)["frames"]["bytes"] == 10_000 * 2**21
    assert int(peak) * (1 if sys.platform == "darwin" else 1024) < 500e6
    assert seconds < 30  # on a machine of which this is all that it does, 5


SAVE = """
import sys, time, numpy as np
from ptychon import Result
from ptychon.io import save_result
rng = np.random.default_rng(0)
noise = rng.standard_normal((500, 500)).astype("c8")
k = int(sys.argv[2])
start = time.monotonic()
while True:
    k += 1
    save_result(sys.argv[1], Result(object=noise + k, probe=noise[None, :64, :64] + k,
                errors=np.full(3, k, "f4"), final_error=float(k),
                positions=np.full((9, 2), float(k)), engine="ep", passes=k))
    if start is not None:
        print(time.monotonic() - start, flush=True)
        start = None
"""


def test_a_process_that_is_killed_leaves_a_whole_result(tmp_path):
    path = tmp_path / "r.h5"
    dice, last = random.Random(0), 0
    for _ in range(int(os.environ.get("PTYCHON_KILLS", "6"))):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE, str(path), str(last)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        one = float(process.stdout.readline())  # seconds of a save
        time.sleep(dice.uniform(0, 2 * one))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        result = load_result(path)
        k = result.passes
        assert k > last
        assert result.final_error == k
        assert (result.positions == k).all()
        assert abs(result.probe[0] - result.object[:64, :64]).max() < 1e-6
        last = k


@pytest.mark.parametrize("header", ["{'descr': '<f8', 'shape': (3,", "\0", "{'descr': 1}", ""])
def test_headers_of_arrays_that_end_too_soon(tmp_path, header):
    """Frames, positions and a first probe: NumPy reads headers as Python, whose errors are many."""
    text = header.ljust(117).encode() + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    for read in (load, read_probe, read_table):
        with pytest.raises(PtychonError, match=r"a\.npy"):
            read(path)
