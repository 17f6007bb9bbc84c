"""What Ptycho-EP believes of the object, as natural parameters, with the messages of the frames
that it is the sum of; and the probe that is learned from it (`ptycho_ep`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.batch import shifted_probes
from ..model.problem import Problem
from ..types import Array
from .base import Context, State

#: Least denominator of the probe update, relative to its maximum.
PROBE_RIDGE = 1e-2


@dataclass(slots=True)
class EPState(State):
    """State of Ptycho-EP.

    Attributes
    ----------
    precision, natural : (H, W) float32 and complex64
        Lambda and eta.
    messages, message_precision : (N, P, Q) complex64 and (N,) float32
        phi_j and g_j.
    prior_precision, prior_natural : (H, W) float32 and complex64
    probes : (U, P, Q) complex64
        The probe at each distinct sub-pixel shift.
    noise_variance, power : 0-d float32
        v, (N,) where each frame has its own, and mean(y^2) that its floor is relative to.
    near_limit : bool, on the host
        Whether the sampling ratio is too small for the plain Rician output function.
    """

    precision: Array = None
    natural: Array = None
    messages: Array = None
    message_precision: Array = None
    prior_precision: Array = None
    prior_natural: Array = None
    probes: Array = None
    noise_variance: Array = None
    power: Array = None
    near_limit: bool = False


def rebuild(state: EPState, problem: Problem, ctx: Context) -> None:
    """Lambda and eta from the messages."""
    state.precision, state.natural = state.prior_precision.copy(), state.prior_natural.copy()
    beliefs = state.precision, state.natural, state.probes, problem.shift_index
    ctx.backend.kernels.message_sums(
        *beliefs, problem.corners, state.message_precision, state.messages
    )


def update_probe(state: EPState, problem: Problem, ctx: Context) -> None:
    """One EM update of the probe, messages and object belief held still."""
    k, xp = ctx.backend.kernels, ctx.backend.xp
    beliefs = state.precision, state.natural, state.probes, problem.shifts, problem.shift_index
    force, weight = k.probe_force(
        *beliefs, problem.corners, state.message_precision, state.messages
    )
    force, weight = ctx.comm.sum(force), ctx.comm.sum(weight)
    state.probe = state.probe + force / xp.maximum(weight, PROBE_RIDGE * weight.max())
    state.probes = shifted_probes(state.probe, problem, k)[:, 0]
