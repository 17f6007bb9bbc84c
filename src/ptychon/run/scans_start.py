"""Results that several scans start from, on the canvas that they share.

What `Scans.apart` gives goes back as it was; of scans that were reconstructed by themselves, whose
objects and probes agree with nobody, each pixel begins as that of the scan which lights it most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.residual import illumination
from ..model.problem import Problem
from ..types import REAL, ComplexArray, FloatArray, PtychonError
from .guess import wave_power
from .placing import placed
from .scans import Scans, cut, times


def starts_of(scans: Scans, start: Sequence[Result]) -> list[Result]:
    """The results that scans start from, each with positions on the canvas and with all of the
    object there.

    Raises
    ------
    PtychonError
        If there is not one for each scan, or one has other frames or another number of modes.
    """
    if isinstance(start, Result) or len(start) != len(scans.parts):
        count = "one" if isinstance(start, Result) else str(len(start))
        raise PtychonError(
            f"{len(scans.parts)} scans are given and {count} to start from: give a result for each "
            "scan (--start once for each)"
        )
    modes = {len(one.probe) for one in start}
    if len(modes) > 1:
        raise PtychonError(
            f"the results to start from have {' and '.join(map(str, sorted(modes)))} modes of the "
            "probe; start from results with as many"
        )
    moved = [placed(one, part) for one, part in zip(start, scans.parts, strict=True)]
    # one scale: that of the first scan's probe where all share it
    norms = [float(np.linalg.norm(one.probe)) for one in moved]
    scale = [n / norms[0] for n in norms] if scans.share == "probe" else [1.0] * len(norms)
    objects = [times(one.object, c) for one, c in zip(moved, scale, strict=True)]
    lights = [illumination(p, one.probe) for p, one in zip(scans.parts, moved, strict=True)]
    canvas = _canvas(scans, objects, lights)
    found = []
    for i, (one, to) in enumerate(zip(start, moved, strict=True)):
        part, corner, problem = scans.parts[i], scans.corners[i], scans.placed(i)
        same = len(one.positions) == len(part)
        places, given = problem.positions, problem.measured
        if same and one.positions_given is not None:
            places = np.asarray(one.positions, float) + corner
            given = problem.positions if given is None else given
        found.append(
            replace(
                one,
                object=canvas,
                probe=to.probe,
                object_std=None,
                draws=None,
                noise_variances=None,
                positions=places,
                positions_given=given,
                corners=one.corners + corner if same and one.corners is not None else None,
                log_scale=one.log_scale if same else None,
                variations=one.variations if same else None,
                weights=one.weights if same else None,
                origin=problem.origin,
                pixel_size=problem.pixel_size,
            )
        )
    return found


def joined_start(scans: Scans, start: Sequence[Result], joined: Problem) -> Result:
    """One result to start all frames from, with one probe: the inverse of `Scans.apart`."""
    each = starts_of(scans, start)
    first = each[0]
    factor = np.float32(np.sqrt(wave_power(joined) / wave_power(scans.parts[0])))
    doses = _doses(scans, each, joined)
    varies = all(one.weights is not None for one in each)
    given = [one.positions if one.positions_given is None else one.positions_given for one in each]
    moved = any(one.positions_given is not None for one in each)
    corners: list[Any] = [one.corners for one in each]
    whole = all(one is not None for one in corners)
    # the object has what the probe does not have of the dose of the first scan
    down = factor if scans.share == "probe" else 1.0
    return replace(
        first,
        object=times(first.object, 1 / down),
        probe=first.probe * factor,
        positions=np.concatenate([one.positions for one in each]),
        positions_given=np.concatenate(given) if moved else None,
        corners=np.concatenate(corners) if whole else None,
        log_scale=doses,
        variations=first.variations * factor if varies and first.variations is not None else None,
        weights=np.concatenate([np.asarray(one.weights) for one in each]) if varies else None,
    )


def _doses(scans: Scans, each: Sequence[Result], joined: Problem) -> FloatArray | None:
    """Doses of all frames: what each result has, and beside the shared probe that of its scan."""
    own = [
        np.zeros(len(part)) if one.log_scale is None else np.asarray(one.log_scale, float)
        for one, part in zip(each, scans.parts, strict=True)
    ]
    if joined.log_scale is None:
        known = any(one.log_scale is not None for one in each)
        return np.concatenate(own).astype(REAL) if known else None
    norms = np.array([np.linalg.norm(one.probe) for one in each])
    first = float(joined.log_scale[0])
    levels = first + np.log(norms / norms[0])
    return np.concatenate([o + v for o, v in zip(own, levels, strict=True)]).astype(REAL)


def _canvas(
    scans: Scans, objects: Sequence[ComplexArray], lights: Sequence[FloatArray]
) -> ComplexArray:
    """Each pixel as that of the object that is lit most there; a constant where none is."""
    most = np.full(scans.shape, -1.0)
    level = complex(np.mean([one.mean() for one in objects]))
    found = np.full((*objects[0].shape[:-2], *scans.shape), level, np.complex64)
    for part, corner, object, light in zip(
        scans.parts, scans.corners, objects, lights, strict=True
    ):
        at = cut(corner, part)
        there = light > most[at]
        found[(..., *at)] = np.where(there, object, found[(..., *at)])
        most[at] = np.where(there, light, most[at])
    return found


__all__ = ["joined_start", "starts_of"]
