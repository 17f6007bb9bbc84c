"""Two independent halves of a scan's data: of its frames, or of its counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..checks.half_scans import split
from ..model.noise import counts_of, noise_of
from ..model.problem import Problem
from ..types import REAL, BoolArray, IntArray, PtychonError

KINDS = ("positions", "counts")

#: How far a count may be from a whole number.
WHOLE = 0.02


def thinned(problem: Problem, seed: int | list[int] = 0) -> tuple[Problem, Problem]:
    """Two independent data sets of half the dose: each count goes to one of them, by lot.

    Parameters
    ----------
    problem : Problem
        Of counts, on the host.
    seed : int, or several

    Returns
    -------
    (Problem, Problem)

    Raises
    ------
    PtychonError
        If the data are not counts, or not whole numbers, or hold read noise.
    """
    rng = np.random.default_rng(seed)
    if noise_of(problem).kind != "poisson":
        raise PtychonError(
            "these data are not counts, so that they cannot be split by counts; split them by "
            "positions"
        )
    if problem.read_noise:
        raise PtychonError(
            f"the counts hold a read noise of {problem.read_noise:g}, which does not part into "
            "two independent halves; "
            f"split the data by positions"
        )
    known = problem.background is not None
    # either half counts half of the background
    half = (
        replace(problem, background=problem.background / 2)
        if problem.background is not None
        else problem
    )
    one, two = (np.empty(problem.amplitude.shape, REAL) for _ in range(2))
    left, right = (np.empty_like(one) if known else None for _ in range(2))
    for j in range(len(problem)):
        counts = counts_of(problem, j, np.float64)
        whole = np.rint(counts)
        off = float(np.abs(counts - whole).max())
        if off > WHOLE:
            raise PtychonError(
                f"frame {j} holds intensities that are not whole numbers (off by {off:.2g}), so "
                "that they cannot be split by "
                f"counts; split them by positions, or divide by the gain of the detector first"
            )
        first = rng.binomial(whole.astype(np.int64), 0.5)
        if left is None or right is None:
            one[j], two[j] = np.sqrt(first), np.sqrt(whole - first)
            continue
        b = slice(j, j + 1)
        one[b], left[b] = half.counted(first[None], b)
        two[b], right[b] = half.counted((whole - first)[None], b)
    return replace(half, amplitude=one, counts=left), replace(half, amplitude=two, counts=right)


def changed(number: int, pairs: IntArray) -> BoolArray:
    """The pairs of frames that change sides: the Walsh function (-1)^(bits of number & pair)."""
    return np.asarray(np.bitwise_count(pairs & number) % 2 == 1)


def ways(problem: Problem, kind: str) -> int:
    """How many splits there are that have nothing to do with each other; of counts, any number."""
    pairs = len(problem) // 2
    return 2 ** (max(pairs, 1).bit_length() - 1) if kind == "positions" else 2**30


def halves_of(
    problem: Problem, kind: str, seed: int = 0, number: int = 0
) -> tuple[Problem, Problem]:
    """Two independent halves of the data.

    Parameters
    ----------
    problem : Problem
    kind : {"positions", "counts"}
    seed : int
    number : int
        Which of the ways to split that go with the seed: frames of some pairs change sides, by the
        Walsh function of this number, or counts are dealt out anew. Any two of them agree for half
        of the pairs and disagree for the others, so that their differences have nothing in common.

    Raises
    ------
    PtychonError
        For another kind than "positions" or "counts", fewer than four frames, or data that are not
        counts.
    """
    if kind not in KINDS:
        raise PtychonError(
            f"unknown way to split the data {kind!r}; choose one of {', '.join(KINDS)}"
        )
    if kind == "counts":
        return thinned(problem, [seed, number] if number else seed)
    first = split(len(problem), seed)
    paired = len(problem) - len(problem) % 2
    # numbered by lot: what is left of products of frames in the mean of several splits is then not
    # that of neighbours in the next row of the scan
    lot = np.random.default_rng([seed, paired]).permutation(paired // 2)
    first[:paired] ^= changed(number, np.repeat(lot, 2))
    return problem.select(first), problem.select(~first)
