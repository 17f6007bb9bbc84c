"""Files that appear whole or not at all, and plain values in HDF5."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptychon
from ptychon import Dataset, Problem
from ptychon.io.hdf5 import check_writable, create, opened, write_aside
from ptychon.io.records import get, put
from ptychon.types import PtychonError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plain)
def test_any_plain_value_round_trips(tmp_path, value):
    with create(tmp_path / "a.h5") as file:
        put(file, "value", value)
    with opened(tmp_path / "a.h5") as file:
        back = get(file["value"])
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "c8", "c16", "?", ">u2"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (7, 40, 30)])
def test_arrays_round_trip(tmp_path, dtype, shape):
    array = np.asarray((np.random.default_rng(0).random(shape) * 3).astype(dtype))
    with create(tmp_path / "a.h5") as file:
        put(file, "value", array)
    with opened(tmp_path / "a.h5") as file:
        back = get(file["value"])
    assert np.array_equal(back, array)
    assert back.dtype == array.dtype


def test_dataclasses_become_mappings_and_strange_things_text(tmp_path):
    @dataclass
    class Thing:
        a: int = 1
        b: tuple[float, ...] = (1.0, 2.0)

    with create(tmp_path / "a.h5") as file:
        put(file, "thing", Thing())
        put(file, "path", tmp_path)
        with pytest.raises(PtychonError, match="no form in HDF5"):
            put(file, "strange", {1, 2})
        put(file, "set", {1}, lenient=True)
        put(file, "words", np.array(["a", "b"]))
    with opened(tmp_path / "a.h5") as file:
        assert get(file["thing"]) == {"a": 1, "b": (1.0, 2.0)}
        assert get(file["path"]) == str(tmp_path)
        assert get(file["set"]) == "{1}"
        assert get(file["words"]) == ["a", "b"]


def test_foreign_nodes_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with (
        opened(tmp_path / "a.h5") as file,
        pytest.raises(PtychonError, match="not written by this package"),
    ):
        get(file["x"])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, PtychonError])
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.h5"
    path.write_bytes(b"precious")

    def fail_half_way():
        with create(path) as file:
            put(file, "x", np.ones((100, 100)))
            raise error("in the middle")

    with pytest.raises(error):
        fail_half_way()
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_what_killed_processes_left_is_swept_up_after_a_day(tmp_path):
    old, new = tmp_path / ".a.h5.0123abcd.part", tmp_path / ".a.h5.0123abce.part"
    for path in (old, new, tmp_path / ".b.h5.0123abcd.part"):
        path.write_bytes(b"half")
        os.utime(path, (1e9, 1e9))
    os.utime(new)
    with write_aside(tmp_path / "a.h5") as aside:
        aside.write_bytes(b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [new.name, ".b.h5.0123abcd.part", "a.h5"]


def test_absurd_shapes_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        node = file.create_dataset("x", (2**34,), "f8", chunks=(1024,))
        node.attrs["type"] = "array"
    with (
        pytest.raises(PtychonError, match="only 0 bytes are stored"),
        opened(tmp_path / "a.h5") as file,
    ):
        get(file["x"])


def test_a_new_file_obeys_the_umask_and_a_link_is_followed(tmp_path):
    plain_file = tmp_path / "plain"
    plain_file.write_text("x")
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "target.h5")
    with write_aside(link) as aside:
        aside.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "target.h5").read_text() == "new"
    assert (tmp_path / "target.h5").stat().st_mode == plain_file.stat().st_mode


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for place, reason in (
        (tmp_path / "no" / "a.h5", "folder does not exist"),
        (tmp_path / "file" / "a.h5", "not a folder"),
        (tmp_path, "it is a folder"),
        ("/proc/a.h5", "cannot write"),
        ("/dev/null", "not a regular file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(PtychonError, match=reason):
            check_writable(place)
    check_writable(tmp_path / "new.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [100, 5000, 600_000])
def test_a_full_disk(tmp_path, limit):
    """A limit on the size of files stands for the disk that is full; nothing but our own sentence
    may be said.
    """
    path = tmp_path / "a.h5"
    path.write_bytes(b"precious")
    code = f"""
import resource, numpy as np
from ptychon.io.hdf5 import create
from ptychon.io.records import put
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with create({str(path)!r}) as file:
        put(file, "x", np.random.rand(200, 30, 30))
        put(file, "y", {{"a": [1] * 20}})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "larger than allowed; the file that was there is unharmed" in done.stdout
    assert done.stderr == ""
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["x"] = np.arange(10_000)
    content = (tmp_path / "good.h5").read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("hello")
    for name, reason in (
        ("short.h5", "truncated: .* of .* bytes"),
        ("empty.h5", "empty"),
        ("text.h5", "not an HDF5 file"),
        ("none.h5", "no such file"),
        (".", "is a folder"),
        ("nul\0.h5", "no such file"),
    ):
        with pytest.raises(PtychonError, match=reason), opened(f"{tmp_path}/{name}"):
            pass


def test_damaged_data_are_reported_not_raised_through(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        node = file.create_dataset(
            "x", data=np.random.default_rng(0).random((50, 50)), compression="gzip", fletcher32=True
        )
        offset = node.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 100 : offset + 110] = b"\0" * 10
    Path(path).write_bytes(content)
    with pytest.raises(PtychonError, match="damaged"), opened(path) as file:
        file["x"][()]


def test_what_is_loaded_can_be_saved_and_nothing_else(tmp_path):
    data = Dataset(
        patterns=np.arange(64, dtype=np.uint16).reshape(4, 4, 4),
        positions=np.array([[0.0, 0], [0, 2], [2, 0], [2, 2]]),
        counting=True,
    )
    path = tmp_path / "scan.cxi"
    ptychon.save(path, data)
    back = ptychon.load(path)
    assert np.array_equal(back.patterns, data.patterns)
    assert np.array_equal(back.positions, data.positions)
    with pytest.raises(PtychonError, match=r"Dataset, and this is Problem.*made from"):
        ptychon.save(path, Problem.from_dataset(data))
    assert np.array_equal(ptychon.load(path).patterns, data.patterns)
