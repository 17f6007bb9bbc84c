r"""PIE under a probe that varies from frame to frame: P_0 + sum_l c_jl V_l in place of its first
mode (`varying`).

The sweep is that of `pie` or of `mpie` with the probe of each frame. After every second pass all
frames take a step together of the weights c, of V, of the probe and of a smooth phase of the object
(`varying_step`), after which means of c go into P_0, and c and V are made orthogonal
(`varying.settled`). Steps of single frames would know nothing of V: what one frame asks of it is
what it asks of P_0. Momentum has no share in these steps, and c and V have none.

The first V are the strongest directions in which the misfit of all frames asks the probe to change.
Reference: Odstrcil et al., Opt. Express 24, 8360 (2016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from ..model.alternate import UNIT, misfits
from ..model.batch import Batch
from ..model.fit import Fit
from ..model.forward import Model
from ..model.noise import Likelihood
from ..model.problem import Problem
from ..model.slices import layers
from ..model.unknowns import Unknowns
from ..types import Array
from .base import Context, Report, State
from .varying import first_variations, settled
from .varying_step import joint_step

#: Passes from one step to the next, and from the first to those that know noise from variations.
EVERY, SETTLED = 2, 10
#: First spread of weights, in units of the norm of the first mode.
EXPECTED = 1.0


@dataclass(slots=True)
class VaryingState(State):
    """With how the probe varies.

    Attributes
    ----------
    variations, weights : (M, P, Q) complex64, (N, M) float32, or None
    weight_spread : (M,) float64, or None
        What weights differ by.
    """

    variations: Array = None
    weights: Array = None
    weight_spread: Array = None


def begun(state: State, count: int, problem: Problem, xp: Any) -> State:
    """The state with as many variations as are asked for or known, those of an earlier run first;
    itself where there are none.
    """
    known = 0 if problem.weights is None else problem.weights.shape[1]
    count = max(count, known)
    if not count:
        return state
    V = xp.zeros((count, *problem.frame_shape), "complex64")
    c = xp.zeros((len(problem), count), "float32")
    if known:
        V[:known], c[:, :known] = xp.asarray(problem.variations), xp.asarray(problem.weights)
    spread = xp.full(count, EXPECTED, "float64")
    return VaryingState(
        state.object, state.probe, state.epoch, variations=V, weights=c, weight_spread=spread
    )


def varies(state: State) -> TypeGuard[VaryingState]:
    """Whether a state has variations of its probe."""
    return getattr(state, "variations", None) is not None


def frame_probes(state: Any, frames: Batch, batch: Any, xp: Any) -> Array:
    """S_j of the probe of each frame, (B, K, P, Q); where it does not vary, at each distinct shift
    or once.
    """
    if not varies(state):
        return frames.probe(state.probe)
    P = xp.array(frames.probe(state.probe))
    if len(P) != len(frames.corners):
        P = xp.repeat(P, len(frames.corners), axis=0)
    moved = frames.probe(state.variations)
    P[:, 0] += (state.weights[batch][:, :, None, None] * moved).sum(axis=1)
    return P


def varied(
    engine: Any, state: VaryingState, report: Report, problem: Problem, ctx: Context
) -> tuple[VaryingState, Report]:
    """After a pass: the step of all frames where it is time, and how much the probe varies, for the
    history.
    """
    past = state.epoch - 1 - engine.variations_start
    if engine.varies_probe and past >= 0 and past % EVERY == 0:
        vary(state, problem, ctx, engine.moves_probe, past >= SETTLED)
    xp = ctx.backend.xp
    size = xp.sqrt((state.weights.astype("float64") ** 2).mean(axis=0).sum())
    return state, Report(report.misfit, report.extra | {"varies": size})


def vary(
    state: VaryingState, problem: Problem, ctx: Context, moves_probe: bool, settled_down: bool
) -> None:
    """The step of all frames together."""
    xp = ctx.backend.xp
    model = Model.of(replace(problem, background=None, counts=None), ctx.backend)
    x = Unknowns(
        object=layers(state.object),
        probe=state.probe,
        positions=xp.asarray(problem.positions) if problem.subpixel else None,
        variations=state.variations,
        weights=state.weights,
    )
    fit = Fit(model, problem, Likelihood(problem, UNIT), Unknowns(), Unknowns())
    if not bool((state.weights != 0).any()):
        still = replace(x, variations=None, weights=None)
        x.variations, x.weights = first_variations(fit, still, len(state.variations))
    misfit = misfits(model, problem, x)
    x, state.weight_spread = joint_step(
        fit, x, state.weight_spread, misfit, moves_probe, settled_down
    )
    state.object = x.object if state.object.ndim == 3 else x.object[0]
    state.probe, state.variations, state.weights = settled(x.probe, x.variations, x.weights, xp)


__all__ = ["VaryingState", "begun", "frame_probes", "varied", "varies"]
