r"""PIE under a probe that varies from frame to frame: P_0 + sum_l c_jl V_l in place of its first
mode (`varying`).

The sweep is that of `pie` with the probe of each frame. After it, all frames together: with chi the
misfit of the amplitudes and J its derivatives, object and probe held still,

    c_j <- c_j - (J_c^T J_c + v_j)^-1 J_c^T chi_j               the best step of each frame, v_j its
                                                                mean square misfit
    V   <- V - t d,   d_l = (J_V^T chi)_l/sum_j c_jl^2,         t the best length along d
    settle                                                      means of c go into P_0; c and V
                                                                orthogonal (`varying.settled`)

Steps of single frames would know nothing of V: what one frame asks of it is what it asks of P_0.
The first V are the strongest directions in which the misfit of all frames asks the probe to change.
Reference: Odstrcil et al., Opt. Express 24, 8360 (2016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..model.alternate import UNIT, frame_steps
from ..model.batch import Batch
from ..model.fit import Fit
from ..model.forward import Model
from ..model.noise import Likelihood
from ..model.problem import Problem
from ..model.slices import layers
from ..model.unknowns import Unknowns
from ..types import Array
from .base import Context, State
from .varying import first_variations, settled

#: Expected size of a weight, in units of the norm of the first mode: what holds frames that say
#: little.
EXPECTED = 1.0


@dataclass(slots=True)
class VaryingState(State):
    """With how the probe varies.

    Attributes
    ----------
    variations, weights : (M, P, Q) complex64, (N, M) float32
    """

    variations: Array = None
    weights: Array = None


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
    return VaryingState(state.object, state.probe, state.epoch, variations=V, weights=c)


def frame_probes(state: VaryingState, frames: Batch, batch: Any, xp: Any) -> Array:
    """S_j of the probe of each frame, (B, K, P, Q)."""
    P = xp.array(frames.probe(state.probe))
    if len(P) != len(frames.corners):
        P = xp.repeat(P, len(frames.corners), axis=0)
    moved = frames.probe(state.variations)
    P[:, 0] += (state.weights[batch][:, :, None, None] * moved).sum(axis=1)
    return P


def varied(engine: Any, state: VaryingState, problem: Problem, ctx: Context) -> dict[str, Array]:
    """After a pass: the step of weights and variations where it is time, and how much the probe
    varies, for the history.
    """
    if engine.varies_probe and state.epoch >= engine.variations_start:
        vary(state, problem, ctx)
    xp = ctx.backend.xp
    return {"varies": xp.sqrt((state.weights.astype("float64") ** 2).mean(axis=0).sum())}


def vary(state: VaryingState, problem: Problem, ctx: Context) -> None:
    """A step of weights and variations, object and probe held still."""
    xp = ctx.backend.xp
    model = Model.of(replace(problem, background=None, counts=None), ctx.backend)
    x = Unknowns(
        object=layers(state.object),
        probe=state.probe,
        positions=xp.asarray(problem.positions),
        variations=state.variations,
        weights=state.weights,
    )
    fit = Fit(model, problem, Likelihood(problem, UNIT), Unknowns(), Unknowns())
    if not bool((state.weights != 0).any()):
        still = replace(x, variations=None, weights=None)
        x.variations, x.weights = first_variations(fit, still, len(state.variations))
    limits = [EXPECTED] * len(state.variations)
    change = frame_steps(model, problem, x, ("weights",), limits).change
    x.weights = (x.weights + change).astype("float32")
    x.variations = _better(fit, x, xp)
    state.probe, state.variations, state.weights = settled(x.probe, x.variations, x.weights, xp)


def _better(fit: Fit, x: Unknowns, xp: Any) -> Array:
    """Variations after the best step along what all frames ask of them."""
    model, out = fit.model, fit.model.zeros(x, ["variations"])
    for b, view in fit.blocks(x):
        score = _valid(fit, fit.likelihood.score(model.intensity(view), b), b, xp)
        model.intensity_adjoint(view, score.astype("float32"), out)
    power = (x.weights.astype("float64") ** 2).sum(axis=0).clip(1e-30, None)
    d = Unknowns(variations=(out.variations / power[:, None, None]).astype("complex64"))
    along = xp.zeros((), "float64")
    for b, view in fit.blocks(x):
        moved = model.intensity_tangent(view, d)
        weight = _valid(fit, fit.likelihood.information(model.intensity(view), b), b, xp)
        along = along + (weight * moved * moved).sum(dtype="float64")
    length = out.dot(d) / xp.maximum(along, 1e-30)
    return (x.variations - length * d.variations).astype("complex64")


def _valid(fit: Fit, image: Array, b: Any, xp: Any) -> Array:
    return xp.where(xp.broadcast_to(fit.problem.mask_of(b), image.shape), image, 0)


__all__ = ["VaryingState", "begun", "frame_probes", "varied"]
