r"""PIE of several slices: the exact adjoint of the walk through the specimen, and one exact step.

For one batch of frames, psi_l being the wave on slice l and chi = psi' - psi what the modulus
constraint asks of the exit wave (`pie`),

    c_S = chi,   d_l = w_l sum_k psi_lk* c_lk,   c_{l-1} = G_{l-1}^H [ O_l* c_l ]    back
    t   = sum_l (d exit/d O_l) d_l                                                   down
    O_l <- O_l + object_step (Re <t, chi>/||t||^2) d_l                                all slices
    P   <- P + probe_step w_P c_0                                                    as of one slice

w_l is the weight of the engine, with |psi_l|^2 in place of |P|^2; its scale cancels. 3PIE (Maiden,
Humphry & Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012)) gives each slice, and the wave on it, the
full step of a thin object. Each by itself would do the whole of chi; together they do too much:
with five slices the full steps d_l diverge. Dividing them by the number of slices is safe and slow.
t says what they do together, to first order, and the step is the best one along it.
"""

from __future__ import annotations

from typing import Any

from ..kernels.reference import namespace
from ..model.batch import Batch
from ..model.problem import Problem
from ..model.specimen import Specimen
from ..types import Array
from .base import Context, Report, State
from .varying_pie import frame_probes


def sliced_pass(
    engine: Any, state: State, problem: Problem, batches: list[Any], ctx: Context
) -> tuple[State, Report]:
    """A pass of an `Iterative` engine over a problem with slices; state.object is (S, H, W)."""
    k, walk = ctx.backend.kernels, Specimen.of(problem).to(ctx.backend)
    total, cooling = ctx.backend.xp.zeros((), "float64"), engine.cooling(state.epoch)
    moves = engine.probe_moves_at(state.epoch)
    for batch in batches:
        frames = Batch.of(problem, ctx.backend, batch)
        view = frames.view(state.object, state.probe, batch)
        psi = walk.forward(view, frame_probes(state, frames, batch, ctx.backend.xp))
        wave, misfit = frames.projected(
            frames.onward(psi), problem.amplitude[batch], problem.mask_of(batch)
        )
        change = back = frames.back(wave) - psi
        asked: list[Array] = [None] * len(state.object)
        for s in view.slices_back():
            asked[s], back = walk.pull(view, s, back)
            light = k.abs2(view.incident[s]).sum(axis=1)
            asked[s] = engine.object_weight(light, frames.corners, k) * asked[s]
            back = walk.up(view, s, back)
        t = walk.walk(view, [k.batch_sum(d, frames.corners) for d in asked])
        step = getattr(engine, "object_step", 1.0)  # it may be in the weight
        length = cooling * step * best(t, change)
        for s, d in enumerate(asked):
            frames.add(state.object[s], length * d)
        if moves:
            weight = cooling * engine.probe_weight(k.abs2(view.windows[0]).sum(axis=0))
            state.probe = state.probe + frames.unshifted(weight * back)
        total += misfit.sum()
    state.epoch += 1
    return state, Report(ctx.comm.sum(total))


def best(t: Array, change: Array) -> Array:
    """Re <t, chi>/||t||^2, 0-d: how much of t comes nearest to chi."""
    xp = namespace(t)
    both = (t.real * change.real + t.imag * change.imag).sum(dtype="float64")
    own = (t.real**2 + t.imag**2).sum(dtype="float64")
    return (both / xp.maximum(own, 1e-300)).astype("float32")
