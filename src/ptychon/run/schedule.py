"""Which positions are visited together, and in what order: a pure function of (positions, seed,
number of the pass).

Frames of one batch see the same object and probe. Two frames whose windows do not overlap change
nothing the other reads while the probe is fixed, so their updates commute exactly (a shifted hard
aperture rings beyond its support: it is windows that must not overlap, not supports). From that:

sequential   one frame at a time, in the order of the scan.
wavefronts   front(j) = 1 + the highest front of an earlier frame that overlaps j; one batch a
             front: with a fixed probe the result is bit for bit that of `sequential`.
colours      frames of one colour do not overlap (greedy colouring, Welsh & Powell 1967):
             `sequential` in another order.
minibatch    consecutive groups of `size` frames, overlapping or not: another algorithm, with other
             transients.
parallel     all frames in one batch.
compact      groups of neighbours: positions cut in two along their longer side, again and again.
             The groups stay; with `shuffle` their order changes.
sparse       groups whose members lie far apart: one from each cell of neighbours, with `shuffle`
             drawn anew each pass. Unless their size is given they grow over the first passes: many
             moves by few frames go further while an estimate is poor, few by many average noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.problem import Problem
from ..types import BoolArray, FloatArray, IntArray, PtychonError

KINDS = ("sequential", "wavefronts", "colours", "minibatch", "parallel", "compact", "sparse")
#: Frames of a compact or sparse batch: a tenth of all, and not more than this.
MOST = {"compact": 64, "sparse": 32}
#: Passes over which sparse batches grow to their size, in equal steps.
GROWTH = 10


class Batches(list[Any]):
    """Slices and index arrays; `disjoint` where no two windows of a batch overlap."""

    disjoint: bool = False


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a pass over the data is cut into batches.

    Parameters
    ----------
    kind : {"sequential", "wavefronts", "colours", "minibatch", "parallel", "compact", "sparse"}
    size : int, optional
        Frames of a mini-batch, a compact or a sparse batch; default 16 of a mini-batch, else a
        tenth of all, at most 64 (compact) or 32 (sparse); the latter only from pass `GROWTH` on.
    shuffle : bool
        Visit the frames in a new random order every pass.
    seed : int
        Of the shuffling; pass e uses the generator of [seed, e], so a resumed run needs no
        generator state.
    """

    kind: str = "sequential"
    size: int | None = None
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PtychonError(f"schedule is {self.kind!r}; choose one of {', '.join(KINDS)}")
        if self.size is not None and self.size < 1:
            raise PtychonError(f"batch size is {self.size}; it must be at least 1")

    def differs(self, epoch: int) -> bool:
        """Whether pass `epoch` may be cut otherwise than the one before."""
        return self.shuffle or (self.kind == "sparse" and self.size is None and epoch < GROWTH)

    def batches(self, problem: Problem, epoch: int) -> Batches:
        """Batches of pass `epoch` (from 0): slices where the frames are consecutive, index arrays
        where not.
        """
        n = len(problem)
        order = (
            np.random.default_rng([self.seed, epoch]).permutation(n)
            if self.shuffle
            else np.arange(n)
        )
        if self.kind == "sequential":
            return Batches(slice(int(j), int(j) + 1) for j in order)
        if self.kind == "parallel":
            return Batches([slice(0, n)])
        groups: list[IntArray]
        if self.kind == "minibatch":
            size = self.size or 16
            groups = [order[i : i + size] for i in range(0, n, size)]
        elif self.kind in MOST:
            groups = self._near(problem.positions, order, epoch)
        else:
            label = (_wavefronts if self.kind == "wavefronts" else _colours)(
                problem.corners[order], problem.frame_shape
            )
            groups = [order[label == value] for value in range(label.max() + 1)]
        batches = Batches(_as_slice(group) for group in groups)
        batches.disjoint = self.kind in ("wavefronts", "colours")
        return batches

    def _near(self, positions: FloatArray, order: IntArray, epoch: int) -> list[IntArray]:
        """Compact or sparse groups; frames are dealt, and groups visited, in the order given."""
        n = len(positions)
        size = self.size or min(MOST[self.kind], max(1, n // 10))
        if self.kind == "sparse" and self.size is None:
            size = max(1, size * min(GROWTH, epoch + 1) // GROWTH)
        if self.kind == "compact":
            groups = [np.sort(group) for group in _cells(positions, np.arange(n), size)]
            first = np.argsort(order)  # where each frame stands in it
            return sorted(groups, key=lambda group: first[group].min())
        count = -(-n // size)
        rank = np.argsort(order)
        dealt = [cell[np.argsort(rank[cell])] for cell in _cells(positions, np.arange(n), count)]
        # the cell that is not full goes to batches in turn like the others
        return [np.sort([cell[b] for cell in dealt if b < len(cell)]) for b in range(count)]


def _as_slice(group: IntArray) -> Any:
    consecutive = len(group) == group[-1] - group[0] + 1 and bool(np.all(np.diff(group) == 1))
    return slice(int(group[0]), int(group[-1]) + 1) if consecutive else group


def _cells(positions: FloatArray, which: IntArray, size: int) -> list[IntArray]:
    """Groups of `size` neighbours, but for the last one."""
    count = -(-len(which) // size)
    if count <= 1:
        return [which]
    points = positions[which]
    axis = int(np.ptp(points, axis=0).argmax())
    sorted_ = which[np.argsort(points[:, axis], kind="stable")]
    half = size * (count // 2)
    return [*_cells(positions, sorted_[:half], size), *_cells(positions, sorted_[half:], size)]


def _overlaps(corners: IntArray, j: int, shape: tuple[int, int], stop: int) -> BoolArray:
    """Which of the first `stop` windows overlap window j."""
    apart = np.abs(corners[:stop] - corners[j])
    overlap: BoolArray = (apart[:, 0] < shape[0]) & (apart[:, 1] < shape[1])
    return overlap


def _wavefronts(corners: IntArray, shape: tuple[int, int]) -> IntArray:
    front = np.zeros(len(corners), int)
    for j in range(1, len(corners)):
        earlier = front[:j][_overlaps(corners, j, shape, j)]
        front[j] = earlier.max() + 1 if earlier.size else 0
    return front


def _colours(corners: IntArray, shape: tuple[int, int]) -> IntArray:
    """Greedy colouring in the order given."""
    colour = np.full(len(corners), -1)
    for j in range(len(corners)):
        taken = np.unique(colour[:j][_overlaps(corners, j, shape, j)])
        free = np.flatnonzero(taken != np.arange(len(taken)))
        colour[j] = free[0] if free.size else len(taken)
    return colour
