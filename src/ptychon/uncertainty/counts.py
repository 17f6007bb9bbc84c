"""Whether counts are few: then a white prior is too wide, and one optimum one of many."""

from __future__ import annotations

import numpy as np

from ..model.noise import noise_of
from ..model.problem import Problem

#: Counts of a mean pixel below which a white prior is too wide; and below which the posterior of
#: several learned modes is no Gaussian.
DIM, DIM_MODES = 100.0, 200.0


def mean_counts(problem: Problem) -> float:
    """Of a pixel."""
    return float(np.mean(problem.amplitude.astype(np.float64) ** 2))


def dim(problem: Problem, most: float = DIM) -> bool:
    """Whether counts are few."""
    return noise_of(problem).kind == "poisson" and mean_counts(problem) < most
