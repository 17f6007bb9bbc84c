"""Detector pixels that a run does not see, and how well it foretells them.

What was fitted always fits better with more unknowns. Pixels that were held out do so only as long
as the unknowns are those of the experiment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..data.result import Result
from ..metrics.residual import residual
from ..model.problem import Problem


class HeldOut(NamedTuple):
    """The same frames with the pixels that a run learns from, and with those that were held out."""

    seen: Problem
    unseen: Problem

    def score(self, result: Result, backend: Any = None) -> float:
        """R of a result of `seen` on the pixels that were held out."""
        unseen = self.unseen
        if result.positions_given is not None or result.log_scale is not None:
            unseen = unseen.with_positions(
                result.positions, result.log_scale, corners=result.corners
            )
        unseen = replace(unseen, variations=result.variations, weights=result.weights)
        return residual(unseen, result.object, result.probe, backend)


def split(problem: Problem, share: float, seed: int = 0) -> HeldOut:
    """Hold out a share of the valid pixels of each frame, at random.

    Parameters
    ----------
    problem : Problem
        On the host.
    share : float in (0, 1)
    seed : int
    """
    valid = np.broadcast_to(problem.mask, problem.amplitude.shape)
    held = valid & (np.random.default_rng(seed).random(valid.shape, np.float32) < share)
    amplitude = np.where(held, np.float32(0), problem.amplitude)
    return HeldOut(
        replace(problem, mask=valid & ~held, amplitude=amplitude), replace(problem, mask=held)
    )
