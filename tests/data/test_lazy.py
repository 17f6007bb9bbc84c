"""Stacks on disk whose chunks hold pieces of many frames."""

from __future__ import annotations

import contextlib
import itertools

import h5py
import numpy as np
import pytest

import ptychon.io.frames as module
from ptychon import Dataset
from ptychon.data.lazy import Derived, Selected, Stacked, blocks, parts, transposed
from ptychon.data.survey import survey
from ptychon.io.frames import Hdf5Frames

LAYOUTS = [
    ((5, 6, 8, 10), (2, 3, 4, 5)),
    ((30, 8, 10), (7, 8, 10)),
    ((30, 8, 10), (1, 8, 10)),
    ((5, 6, 8, 10), (1, 1, 8, 10)),
    ((5, 6, 8, 10), (1, 4, 8, 3)),
    ((5, 6, 8, 10), None),
    ((2, 3, 4, 8, 10), (2, 1, 3, 8, 10)),
    ((30, 8, 10), (30, 1, 1)),
]


def written(path, shape, chunks):
    stack = np.random.default_rng(0).integers(0, 99, shape).astype("u2")
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=stack, chunks=chunks)
    return stack.reshape(-1, *shape[-2:])


@pytest.mark.parametrize(("shape", "chunks"), LAYOUTS)
@pytest.mark.parametrize("small", [False, True])
def test_any_frames_of_any_layout(tmp_path, monkeypatch, shape, chunks, small):
    if small:  # blocks of four frames, and tiles of one chunk
        monkeypatch.setattr("ptychon.data.lazy.BLOCK_BYTES", 4 * 80 * 4)
        monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 80 * 4)
    flat = written(tmp_path / "a.h5", shape, chunks)
    r = np.random.default_rng(1)
    frames = Hdf5Frames(tmp_path / "a.h5", "d")
    for key in (
        slice(3, 17),
        slice(0, len(flat)),
        slice(4, 5),
        np.array([5, 3, 3, 19]),
        r.permutation(len(flat)),
        -1,
    ):
        assert np.array_equal(frames[key], flat[key])
    shuffled = Selected(frames, r.permutation(len(flat)))
    turned = Derived(frames, transposed, shape[:-3:-1], frames.dtype)
    for stack in (frames, shuffled, turned, Stacked([frames, shuffled, flat])):
        whole, numbers = np.asarray(stack), np.arange(len(stack))
        assert np.array_equal(np.concatenate([numbers[part] for part in blocks(stack)]), numbers)
        assert np.array_equal(
            np.sort(np.concatenate([numbers[part] for part in parts(stack)])), numbers
        )
        for part in parts(stack):
            assert np.array_equal(stack[part], whole[part])


class Counted:
    """A dataset that notes which chunks each reading touches."""

    def __init__(self, node, touched):
        self._node, self._touched = node, touched

    def __getattr__(self, name):
        return getattr(self._node, name)

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        ranges = []
        for axis, (length, chunk) in enumerate(
            zip(self._node.shape, self._node.chunks, strict=True)
        ):
            part = key[axis] if axis < len(key) else slice(None)
            part = slice(part, part + 1) if isinstance(part, int) else part
            start, stop, _ = part.indices(length)
            ranges.append(range(start // chunk, -(-stop // chunk)))
        self._touched.extend(itertools.product(*ranges))
        return self._node[key]


@pytest.fixture
def touched(monkeypatch):
    chunks = []

    @contextlib.contextmanager
    def counting(path):
        with h5py.File(path, "r") as file:
            yield {"d": Counted(file["d"], chunks)}

    monkeypatch.setattr(module, "opened", counting)
    monkeypatch.setattr(module, "check_filters", lambda node, path: None)
    monkeypatch.setattr(module, "check_sources", lambda node, path: None)
    return chunks


@pytest.mark.parametrize("chunks", [(8, 8, 4, 4), (1, 1, 16, 16), (16, 16, 2, 2), (1, 8, 16, 16)])
def test_no_chunk_is_read_twice(tmp_path, monkeypatch, touched, chunks):
    """Neither for a look at some frames, nor for all of them in blocks, corrected or in another
    order.
    """
    monkeypatch.setattr("ptychon.data.lazy.BLOCK_BYTES", 4 * 16 * 16 * 10)
    flat = written(tmp_path / "a.h5", (16, 16, 16, 16), chunks)
    frames = Hdf5Frames(tmp_path / "a.h5", "d")
    derived = Derived(frames, transposed, (16, 16), frames.dtype)
    backwards = Selected(frames, np.arange(256).reshape(16, 16).T.reshape(-1))
    data = Dataset(patterns=derived, positions=np.arange(512.0).reshape(-1, 2))
    look = survey(data)
    assert np.array_equal(look.total, flat[look.index].sum(axis=0, dtype=float).T)
    assert len(touched) == len(set(touched))
    for stack in (frames, derived, backwards):
        touched.clear()
        for part in parts(stack):
            stack[part]
        assert len(touched) == len(set(touched)) == np.prod([16 // n for n in chunks])
