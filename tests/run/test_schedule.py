"""Schedules: every frame once a pass, batches that do not overlap where they must not, a pure
function of seed and pass.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychon import Problem, PtychonError
from ptychon.run.schedule import KINDS, Schedule


def problem_at(corners, frame=(8, 6)):
    corners = np.asarray(corners, np.int32)
    return Problem(
        amplitude=np.broadcast_to(np.float32(1), (len(corners), *frame)),
        mask=np.ones((1, *frame), bool),
        corners=corners,
        shifts=np.zeros((1, 2), np.float32),
        shift_index=np.zeros(len(corners), np.int32),
        object_shape=(200, 200),
    )


def frames(batch, n):
    return np.arange(n)[batch]


def overlap(a, b, frame=(8, 6)):
    return abs(int(a[0]) - int(b[0])) < frame[0] and abs(int(a[1]) - int(b[1])) < frame[1]


corners = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=40)


@given(corners, st.sampled_from(KINDS), st.booleans(), st.integers(0, 3), st.integers(1, 50))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_frame_once(where, kind, shuffle, epoch, size):
    problem = problem_at(where)
    schedule = Schedule(kind=kind, size=size, shuffle=shuffle, seed=5)
    batches = schedule.batches(problem, epoch)
    visited = np.concatenate([frames(b, len(where)) for b in batches])
    assert sorted(visited.tolist()) == list(range(len(where)))
    again = schedule.batches(problem, epoch)
    assert all(
        np.array_equal(frames(a, len(where)), frames(b, len(where)))
        for a, b in zip(batches, again, strict=True)
    )
    if kind in ("wavefronts", "colours"):
        assert batches.disjoint
        for batch in batches:
            members = frames(batch, len(where))
            assert not any(
                overlap(where[i], where[j]) for n, i in enumerate(members) for j in members[:n]
            )
    else:
        assert not batches.disjoint


@given(corners)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_wavefronts_keep_the_order_of_frames_that_overlap(where):
    """And every frame is visited as early as that allows."""
    batches = Schedule(kind="wavefronts").batches(problem_at(where), 0)
    level = np.empty(len(where), int)
    for number, batch in enumerate(batches):
        level[frames(batch, len(where))] = number
    for j, here in enumerate(where):
        before = [level[i] for i in range(j) if overlap(where[i], here)]
        assert level[j] == (max(before) + 1 if before else 0)


@given(corners)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_colours_are_greedy(where):
    """No more colours than the most crowded frame has neighbours before it, plus one; none could
    have come earlier.
    """
    batches = Schedule(kind="colours").batches(problem_at(where), 0)
    colour = np.empty(len(where), int)
    for number, batch in enumerate(batches):
        colour[frames(batch, len(where))] = number
    for j, here in enumerate(where):
        taken = {colour[i] for i in range(j) if overlap(where[i], here)}
        assert colour[j] == min(set(range(len(where) + 1)) - taken)


def test_windows_that_touch_do_not_overlap():
    for kind in ("wavefronts", "colours"):
        assert (
            len(Schedule(kind=kind).batches(problem_at([(0, 0), (8, 0), (0, 6), (8, 6)]), 0)) == 1
        )
        assert len(Schedule(kind=kind).batches(problem_at([(0, 0), (7, 5)]), 0)) == 2


def test_sizes():
    problem = problem_at([(0, i) for i in range(10)])
    assert Schedule().batches(problem, 0) == [slice(j, j + 1) for j in range(10)]
    assert Schedule(kind="parallel").batches(problem, 0) == [slice(0, 10)]
    assert Schedule(kind="minibatch", size=4).batches(problem, 0) == [
        slice(0, 4),
        slice(4, 8),
        slice(8, 10),
    ]


def test_shuffling_is_a_function_of_seed_and_pass():
    problem = problem_at([(0, i) for i in range(30)])

    def order(seed, epoch):
        return [b.start for b in Schedule(shuffle=True, seed=seed).batches(problem, epoch)]

    assert order(1, 7) == order(1, 7)
    assert order(1, 7) != order(1, 8)
    assert order(1, 7) != order(2, 7)
    assert order(0, 0) != list(range(30))
    # a shuffled mini-batch holds arbitrary frames: an index array, not a slice
    batch = Schedule(kind="minibatch", size=10, shuffle=True).batches(problem, 0)[0]
    assert isinstance(batch, np.ndarray)


def test_bad_schedules():
    with pytest.raises(
        PtychonError, match=r"'colors'.*sequential, wavefronts, colours, minibatch, parallel"
    ):
        Schedule(kind="colors")
    with pytest.raises(PtychonError, match="batch size is 0; it must be at least 1"):
        Schedule(kind="minibatch", size=0)
