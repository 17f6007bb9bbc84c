r"""mPIE: rPIE with momentum.

Frames are visited as in `pie`. After every T of them, with O and P the object and the probe, and
O_T and P_T what they were after the momentum T frames before,

    v <- friction v + (O - O_T),    O <- O + friction v
    w <- friction w + (P - P_T),    P <- P + friction w

so that what frames agree on adds up and what they do not averages away. The paper's eta is
`friction`, one for the object and one for the probe. Changes between passes, by constraints say,
are no part of O - O_T, and how a probe varies (`varying_pie`) has no momentum: frames see P plus
what is theirs, and only P moves with w. Cooling shrinks the steps of frames, and with them what the
momentum gets.

Slices have a velocity each. What frames ask of one slice another could do as well, and only what
all frames agree on tells slices apart. So for slices T is no less than all frames: with a quarter
or a half of them, in the order of the scan, slices and probe were driven apart.

Reference: Maiden, Johnson & Li, Optica 4, 736 (2017), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..model.problem import Problem
from ..types import Array
from .base import Context, Keeps, Report, check_range
from .pie import Regularised, Varying
from .varying_pie import VaryingState

#: What of the state says how the probe varies.
VARYING = ("variations", "weights", "weight_spread")


@dataclass(slots=True)
class MPIEState(VaryingState):
    """State of mPIE.

    Attributes
    ----------
    object_velocity, probe_velocity : ([S,] H, W) and (K, P, Q) complex64
        v and w.
    object_change, probe_change : ([S,] H, W) and (K, P, Q) complex64
        What frames have changed since the last momentum, in the passes before.
    frames : int
        How many frames that was.
    """

    object_velocity: Array = None
    probe_velocity: Array = None
    object_change: Array = None
    probe_change: Array = None
    frames: int = 0


@dataclass(frozen=True, kw_only=True)
class MPIE(Regularised, Varying):
    r"""rPIE, and v <- friction v + (O - O_T), O <- O + friction v after every T frames.

    Parameters
    ----------
    every : int
        T; with slices no less than all frames.
    object_friction, probe_friction : float in [0, 1)
        eta of object and probe; 0 for both is rPIE.
    momentum_start : int
        First pass (from 0) with momentum.
    variations : int
        Ways in which the first mode of the probe varies from frame to frame (`varying_pie`).
    variations_start : int
        First pass (from 0) after which they are found.
    """

    name: ClassVar[str] = "mpie"
    title: ClassVar[str] = "mPIE: rPIE with momentum; fewer passes where frames agree"
    keeps: ClassVar[Keeps] = replace(Regularised.keeps, object_bytes=56, streams=False)
    every: int = 50
    object_friction: float = 0.7
    probe_friction: float = 0.7
    momentum_start: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("every", self.every, 1, 1e9, open_low=False)
        check_range("momentum_start", self.momentum_start, 0, 1e9, open_low=False)
        for name in ("object_friction", "probe_friction"):
            check_range(name, getattr(self, name), 0, 0.999999, open_low=False)

    @property
    def has_momentum(self) -> bool:
        return self.object_friction > 0

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> MPIEState:
        xp, first = ctx.backend.xp, Regularised.init(self, problem, object, probe, ctx)
        arrays: dict[str, Any] = {
            f"{name}_{what}": xp.zeros_like(getattr(first, name))
            for what in ("velocity", "change")
            for name in ("object", "probe")
        }
        arrays |= {name: getattr(first, name, None) for name in VARYING}
        return MPIEState(first.object, first.probe, **arrays)

    def pass_of(self, sweep: Any) -> Any:
        """Sweeps over so many frames, with momentum in between."""

        def step(
            state: MPIEState, problem: Problem, batches: list[Any], ctx: Context
        ) -> tuple[MPIEState, Report]:
            epoch = state.epoch
            if epoch < self.momentum_start:
                return sweep(state, problem, batches, ctx)  # type: ignore[no-any-return]
            total, rest = ctx.backend.xp.zeros((), "float64"), list(batches)
            every = self.every if problem.slices is None else max(self.every, len(problem))
            while rest:
                piece, rest, seen = _cut(rest, every - state.frames)
                before = state.object.copy(), state.probe.copy()
                state.epoch = epoch
                state, report = sweep(state, problem, piece, ctx)
                total = total + report.misfit
                state.frames += seen
                self.accumulate(state, *before)
                if state.frames >= every:
                    self.accelerate(state)
            state.epoch = epoch + 1
            return state, Report(total)

        return step

    def accumulate(self, state: MPIEState, object: Array, probe: Array) -> None:
        """What frames have changed since the object and the probe were these."""
        state.object_change = state.object_change + (state.object - object)
        state.probe_change = state.probe_change + (state.probe - probe)

    def accelerate(self, state: MPIEState) -> None:
        """The momentum after T frames; the object stays the same array."""
        state.object_velocity = self.object_friction * state.object_velocity + state.object_change
        state.probe_velocity = self.probe_friction * state.probe_velocity + state.probe_change
        state.object += self.object_friction * state.object_velocity
        state.probe = state.probe + self.probe_friction * state.probe_velocity
        self.rest(state)

    def rest(self, state: MPIEState) -> None:
        """No change yet."""
        state.object_change = 0 * state.object_change
        state.probe_change = 0 * state.probe_change
        state.frames = 0

    def moved(
        self, state: MPIEState, before: Problem, after: Problem, factor: Array, ctx: Context
    ) -> MPIEState:
        """Where windows have changed, what they agreed on before says nothing: momentum begins
        anew.
        """
        if (after.corners != before.corners).any():
            state.object_velocity = 0 * state.object_velocity
            state.probe_velocity = 0 * state.probe_velocity
            self.rest(state)
        return state


def _cut(batches: list[Any], frames: int) -> tuple[list[Any], list[Any], int]:
    """The first batches with so many frames or a few more, the others, and how many frames."""
    seen = 0
    for i, batch in enumerate(batches):
        seen += batch.stop - batch.start if isinstance(batch, slice) else len(batch)
        if seen >= frames:
            return batches[: i + 1], batches[i + 1 :], seen
    return batches, [], seen
