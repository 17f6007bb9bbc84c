r"""Has a run converged? By the history of R, and by what the data still pull at the object.

    pull = sum_r |g(r)|^2 / (sum_j |P|^2)(r)  /  sum_j A_j      g = sum_j P_j* (psi'_j - psi_j)

is the share of the misfit that one step of all frames together would take off (psi' has the
measured modulus); 0 at the least misfit, whoever found it. A result of a likelihood or of a prior
lies beside that point and is not called unfinished for it: only one whose R still moves is, be it
from pass to pass, or within a pass, where R of each frame before its update exceeds that of the
final object.

Measured on scans of 1e4 to 1e6 counts a frame: pull 0.11 to 0.15 after 5 passes of rPIE and 0.03 to
0.04 after 10, with R in the pass 5 to 15 % above the final one, when good pixels look hot or dead;
0.013 and less, and 4 % and less, from 20 passes on. Broken frames and pixels leave a pull of 0.03
in a run that has converged, and 1 to 4 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.result import Result
from ..model.batch import Batch
from ..model.problem import Problem
from ..model.slices import layers
from ..model.specimen import Specimen

#: Share of the misfit that is left to take off: from the first on a run whose R moves within a pass
#: has not converged, from the second on also one whose R moves from pass to pass (which it does
#: where steps are made smaller by plan).
LEFT, MUCH_LEFT = 0.02, 0.06
#: Change of R in the last passes, and excess of R in a pass over the final R, that count as moving.
CHANGED, WITHIN = 0.05, 0.05
#: Light below which the object has none to follow, share of the largest.
_LIT = 0.01
#: Bytes of waves computed at a time.
_BLOCK_BYTES = 24 * 2**20


@dataclass(frozen=True)
class Trail:
    """What R did in the last passes.

    Attributes
    ----------
    drop : float
        1 - R/R_before; NaN where R was measured less than twice.
    passes : int
        Between the two.
    measured : int
        Passes in which R was measured.
    """

    drop: float
    passes: int
    measured: int


@dataclass(frozen=True)
class Convergence:
    """Whether a run has converged.

    Attributes
    ----------
    trail : Trail
    pull : float
        Share of the misfit that one step of all frames would take off.
    within : float
        R in the last measured pass over the final R, less 1; NaN where either is not known.
    """

    trail: Trail
    pull: float
    within: float

    @property
    def reached(self) -> bool:
        """Whether the run has converged."""
        known = math.isfinite(self.trail.drop) or math.isfinite(self.within)
        if self.within > WITHIN:
            return self.pull <= LEFT
        if abs(self.trail.drop) > CHANGED or not known:
            return self.pull <= MUCH_LEFT
        return True

    def sentence(self) -> str:
        """Why it has not, for people."""
        if abs(self.trail.drop) > CHANGED:
            way = "fell" if self.trail.drop > 0 else "rose"
            why = f"R {way} by {abs(self.trail.drop):.0%} over the last {self.trail.passes} passes"
        else:
            why = f"one more step would take {self.pull:.0%} off the misfit"
        return (
            f"The run has not converged ({why}), so that good frames and pixels do not fit either "
            "and none is flagged: run it longer (ptychon reconstruct SCAN --start RESULT) and "
            "check it again."
        )


def trail(result: Result) -> Trail:
    """What R did over the last fifth of the passes, at least the last five."""
    errors = np.asarray(result.errors, float)
    measured = np.flatnonzero(np.isfinite(errors))
    if len(measured) < 2:
        return Trail(math.nan, 0, len(measured))
    inside = measured[measured >= len(errors) - max(5, len(errors) // 5)]
    first, last = inside[[0, -1]] if len(inside) > 1 else measured[-2:]
    drop = 1 - errors[last] / max(errors[first], 1e-300)
    return Trail(float(drop), int(last - first + 1), len(measured))


def convergence(problem: Problem, result: Result, backend: Any) -> Convergence:
    """Look at the history of a result, and at its data once.

    Parameters
    ----------
    problem : Problem
        On the host, of these data.
    result : Result
    backend : Backend
    """
    errors = np.asarray(result.errors, float)
    errors = errors[np.isfinite(errors)]
    within = math.nan
    if len(errors) and math.isfinite(result.final_error) and result.final_error > 0:
        within = float(errors[-1] / result.final_error - 1)
    return Convergence(trail(result), _pull(problem, result, backend), within)


def _pull(problem: Problem, result: Result, backend: Any) -> float:
    local = replace(problem, propagator=problem.propagator.to(backend))
    xp, k, move = backend.xp, backend.kernels, backend.asarray
    object = layers(move(np.ascontiguousarray(result.object, np.complex64)))
    probe = move(np.ascontiguousarray(result.probe, np.complex64))
    gradient, light = xp.zeros_like(object), xp.zeros(object.shape, np.float32)
    walk = Specimen.of(local).to(backend)
    misfit, (p, q) = 0.0, problem.frame_shape
    size = max(1, _BLOCK_BYTES // (8 * len(probe) * p * q))
    for first in range(0, len(problem), size):
        b = slice(first, min(first + size, len(problem)))
        frames = Batch.of(local, backend, b)
        shifted = frames.probe(probe)
        view = frames.view(object, probe, b)
        psi = walk.forward(view, shifted)
        wave, missed = k.modulus_projection(
            frames.onward(psi), move(problem.amplitude[b]), move(problem.mask_of(b))
        )
        back = frames.back(wave) - psi
        for s in view.slices_back():
            asked, back = walk.pull(view, s, back)
            frames.add(gradient[s], asked)
            frames.add(light[s], k.abs2(view.incident[s]).sum(axis=1))
            back = walk.up(view, s, back)
        misfit += float(backend.to_host(missed).sum())
    g, lit = backend.to_host(gradient), backend.to_host(light).astype(np.float64)
    some = lit > _LIT * lit.max()
    return float((np.abs(g[some]) ** 2 / lit[some]).sum() / max(misfit, 1e-300))
