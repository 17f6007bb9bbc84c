"""The first object and the first probe of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..engines import Context, Engine
from ..metrics.residual import illumination
from ..model.problem import Problem
from ..model.slices import share
from ..types import ComplexArray, PtychonError
from .first_probe import find_probe
from .guess import initial_object, scaled_probe, wave_power
from .modes import for_engine
from .placing import placed, rescaling
from .thick import in_slices


def first_guess(
    data: Dataset | Problem,
    problem: Problem,
    engine: Engine,
    ctx: Context,
    object: ComplexArray | None,
    probe: ComplexArray | None,
    modes: int | None,
    start: Result | None,
    say: Callable[[str], None] | None,
    doubt: Callable[[str], None],
) -> tuple[ComplexArray, ComplexArray]:
    """Object (H, W), or (S, H, W) with slices, and probe (K, P, Q) to start from.

    Parameters
    ----------
    data, problem
        What is reconstructed, and the same on its grid.
    engine : Engine
        Where any of a recipe's engines moves the probe, one that does.
    ctx : Context
    object, probe, modes, start
        As `reconstruct` takes them.
    say : callable, optional
        Told how a result to start from was placed.
    doubt : callable
        Told what speaks against a probe that was found from the data.

    Raises
    ------
    PtychonError
        For arrays that do not fit the problem, or are not finite.
    """
    power = wave_power(problem)
    if start is not None:
        moved = placed(start, problem)
        known = probe is not None and not engine.moves_probe
        object = moved.object if object is None else object
        probe = moved.probe if probe is None else probe
        if say is not None and moved.said:
            say(moved.said)
    elif probe is None and isinstance(data, Dataset):
        probe = data.probe
    if probe is None:
        probe = find_probe(replace(problem, slices=None), ctx.backend, doubt)
    probe = np.asarray(probe)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim != 3 or probe.shape[1:] != problem.frame_shape:
        raise PtychonError(
            f"the probe has shape {probe.shape}; frames are {problem.frame_shape}: they must agree"
        )
    if not np.isfinite(probe).all() or not np.any(probe):
        raise PtychonError("the first probe has values that are not finite, or is zero everywhere")
    probe = for_engine(probe, modes, engine)
    if engine.moves_probe and start is None and object is None:
        probe = scaled_probe(probe, power)
    if object is None:
        object = initial_object(problem, probe, power)
    object = np.asarray(object)
    if object.ndim not in (2, 3) or object.shape[-2:] != problem.object_shape:
        raise PtychonError(
            f"the first object has shape {object.shape}; the problem needs {problem.field_shape}"
        )
    if not np.isfinite(object).all():
        raise PtychonError("the first object has values that are not finite")
    if object.shape != problem.field_shape:
        object = in_slices(object, problem.slices, illumination(problem, probe))
    if start is not None and (factor := rescaling(problem, object, probe)) != 1:
        if say is not None:
            say(
                f"the model of the result to start from is multiplied by {factor:.4g}: its "
                "counts had another unit"
            )
        more = share(factor, object)
        object, probe = (object * more, probe) if known else (object, probe * factor)
    # rows in memory as compiled loops run over them; files of other languages store columns
    return np.ascontiguousarray(object, np.complex64), np.ascontiguousarray(probe, np.complex64)
