r"""The ptychographical iterative engines: PIE, ePIE and rPIE.

For one frame j with amplitude y_j, object patch O_j and probe P (both as they were before the
update):

    psi  = P O_j                                    exit wave
    psi' = F^-1[ y_j F psi/|F psi| ]                modulus constraint
    O_j <- O_j + object_step w_O P* (psi' - psi)    object update
    P   <- P + probe_step w_P O_j* (psi' - psi)     probe update (not in PIE)

The members differ only in the weights w, given below each class name. With K modes |F psi|, |P|^2
and P*(...) are sums over modes. Between pixels P is shifted by the fraction at each frame, and its
update is shifted back. Frames of one batch use the same O and P; |P|^2 and |O|^2 in the weights are
then sums over the batch, which keeps overlapping updates normalised and changes nothing for frames
that overlap no other of their batch. Maxima are taken over each window.

References: Rodenburg & Faulkner, Appl. Phys. Lett. 85, 4795 (2004) (PIE); Maiden & Rodenburg,
Ultramicroscopy 109, 1256 (2009) (ePIE); Maiden, Johnson & Li, Optica 4, 736 (2017), table 1 (rPIE).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..model.batch import Batch, exit_wave, to_object, to_wave
from ..model.problem import Problem
from ..types import Array
from .base import Context, Engine, Estimate, Keeps, Report, State, check_range
from .slices import sliced_pass
from .update import After
from .varying import timed_variations
from .varying_pie import begun, frame_probes, varied, varies

#: Passes in which cooling halves the steps, roughly.
COOLING = 1.5
#: Full steps of object and probe, what None means where nobody has chosen by the counts.
FULL_STEPS = (1.0, 0.5)


def cooled(cool_from: int | None, epoch: int) -> float:
    """1 before pass `cool_from` (always where that is None), then 1/(1 + (epoch -
    cool_from)/COOLING).
    """
    return 1.0 if cool_from is None else 1 / (1 + max(0, epoch - cool_from) / COOLING)


def full(engine: Any) -> Any:
    """The engine with full steps where none were chosen."""
    names = ("object_step", "probe_step")
    missing = {
        n: f
        for n, f in zip(names, FULL_STEPS, strict=True)
        if hasattr(engine, n) and getattr(engine, n) is None
    }
    return replace(engine, **missing) if missing else engine


@dataclass(frozen=True, kw_only=True)
class Iterative(Engine):
    """The sweep they share. Members supply `object_weight` and, where they move the probe,
    `probe_weight`.
    """

    copes: ClassVar[frozenset[str]] = Engine.copes | {"constraints", "slices", "spread"}
    follows: ClassVar[frozenset[str]] = frozenset({"positions", "log_scale", "background"})
    keeps: ClassVar[Keeps] = Keeps(object_bytes=32, transforms=4.5, compile_seconds=7)
    #: Whether w_O has the factor |P|/max|P|.
    root: ClassVar[bool] = False

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> State:
        first = Engine.init(self, problem, object, probe, ctx)
        return begun(first, getattr(self, "variations", 0), problem, ctx.backend.xp)

    def estimate(self, state: State, ctx: Context) -> Estimate:
        found = Engine.estimate(self, state, ctx)
        if not varies(state):
            return found
        return replace(found, variations=state.variations, weights=state.weights)

    def step(
        self, state: State, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[State, Report]:
        self = full(self)
        state, report = self.pass_of(self.sweep)(state, problem, batches, ctx)
        return varied(self, state, report, problem, ctx) if varies(state) else (state, report)

    def pass_of(self, sweep: Any) -> Any:
        """A pass made of sweeps, which take and return what `step` does and may be compiled ones:
        here it is one.
        """
        return sweep

    def sweep(
        self, state: State, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[State, Report]:
        """All frames of the batches, once; a pass more in `state.epoch`."""
        if problem.slices is not None:
            return sliced_pass(self, state, problem, batches, ctx)
        k, xp = ctx.backend.kernels, ctx.backend.xp
        total, cooling = xp.zeros((), "float64"), self.cooling(state.epoch)
        for batch in batches:
            frames = Batch.of(problem, ctx.backend, batch)
            O = frames.window(state.object)
            P = frame_probes(state, frames, batch, xp)
            psi = exit_wave(P, O)
            wave, misfit = frames.projected(
                frames.onward(psi), problem.amplitude[batch], problem.mask_of(batch)
            )
            change = frames.back(wave) - psi
            weight = cooling * self.object_weight(k.abs2(P).sum(axis=1), frames.corners, k)
            frames.add(state.object, weight * to_object(P, change))
            if self.probe_moves_at(state.epoch):
                weight = cooling * self.probe_weight(k.abs2(O).sum(axis=0))
                state.probe = state.probe + frames.unshifted(to_wave(weight * O, change))
            total += misfit.sum()
        state.epoch += 1
        return state, Report(ctx.comm.sum(total))

    def cooling(self, epoch: int) -> float:
        """What both steps are multiplied by in pass `epoch` (counted from 0)."""
        return 1.0

    def object_weight(self, p2: Array, corners: Array, k: Any) -> Array:
        """object_step w_O (B, P, Q) for |P|^2 of each frame (B, P, Q)."""
        raise TypeError(f"{type(self).__name__} has no object weight")

    def probe_weight(self, o2: Array) -> Array:
        """probe_step w_P (P, Q) for the sum over the batch of |O|^2 (P, Q)."""
        raise TypeError(f"{type(self).__name__} has no probe weight")


@dataclass(frozen=True, kw_only=True)
class PIE(Iterative):
    r"""Known probe: w_O = (|P|/max|P|)/(|P|^2 + object_reg max|P|^2).

    Parameters
    ----------
    object_step : float in (0, 2]
    object_reg : float > 0
        alpha of the paper in units of max|P|^2: keeps weakly lit pixels from exploding.
    """

    name: ClassVar[str] = "pie"
    title: ClassVar[str] = "PIE: the probe is known and kept"
    moves: ClassVar[frozenset[str]] = frozenset({"object"})
    root: ClassVar[bool] = True
    keeps: ClassVar[Keeps] = replace(Iterative.keeps, transforms=4.0, compile_seconds=5)
    object_step: float = 1.0
    object_reg: float = 0.1

    def __post_init__(self) -> None:
        check_range("object_step", self.object_step, 0, 2)
        check_range("object_reg", self.object_reg, 0, 1e6)

    def object_weight(self, p2: Array, corners: Array, k: Any) -> Array:
        total, peak = k.batch_sum(p2, corners), (-2, -1)
        root = (p2 / p2.max(axis=peak, keepdims=True)) ** 0.5
        return (
            self.object_step
            * root
            / (total + self.object_reg * total.max(axis=peak, keepdims=True))
        )


@dataclass(frozen=True, kw_only=True)
class Moving(Iterative):
    """What members that move the probe have in common.

    Parameters
    ----------
    object_step, probe_step : float in (0, 2], or None
        Full steps are 1. None chooses them: 1 and 0.5, less where a pixel counts fewer than 3 on
        average.
    probe_start : int or None
        First pass (from 0) that moves the probe; None keeps it.
    cool_from : int, optional
        First pass (from 0) whose steps shrink: pass e takes the steps times 1/(1 + (e -
        cool_from)/1.5). Sequential updates chase the noise of the last frames; shrinking steps
        average it away. None is after two thirds of the passes `reconstruct` is asked for; a number
        beyond them never shrinks the steps.
    """

    shuffle: ClassVar[bool] = True
    object_step: float | None = None
    probe_step: float | None = None
    probe_start: int | None = 1
    cool_from: int | None = None

    def __post_init__(self) -> None:
        for step in ("object_step", "probe_step"):
            if getattr(self, step) is not None:
                check_range(step, getattr(self, step), 0, 2)
        check_range("probe_start", self.probe_start, 0, 1e9, open_low=False)
        check_range("cool_from", self.cool_from, 0, 1e9, open_low=False)

    @property
    def moves_probe(self) -> bool:
        return self.probe_start is not None

    def probe_moves_at(self, epoch: int) -> bool:
        return self.probe_start is not None and epoch >= self.probe_start

    def for_passes(self, passes: int) -> Engine:
        return replace(self, cool_from=-(-2 * passes // 3)) if self.cool_from is None else self

    def cooling(self, epoch: int) -> float:
        return cooled(self.cool_from, epoch)


@dataclass(frozen=True, kw_only=True)
class Varying(Moving):
    """Members whose probe may vary from frame to frame.

    Parameters
    ----------
    variations : int
        Ways in which the first mode of the probe varies from frame to frame (`varying_pie`).
    variations_start : int
        First pass (from 0) after which they are found.
    """

    moves: ClassVar[frozenset[str]] = Engine.moves | {"variations", "weights"}
    variations: int = 0
    variations_start: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("variations", self.variations, 0, 1e9, open_low=False)
        check_range("variations_start", self.variations_start, 0, 1e9, open_low=False)

    @property
    def varies_probe(self) -> bool:
        return self.variations > 0

    def timed(self, name: str, when: bool | After) -> dict[str, Any]:
        found = timed_variations(self, name, when)
        return super().timed(name, when) if found is None else found


@dataclass(frozen=True, kw_only=True)
class Regularised(Moving):
    r"""w_O = 1/((1 - object_reg)|P|^2 + object_reg max|P|^2),  w_P = 1/((1 - probe_reg)|O|^2 +
    probe_reg max|O|^2).

    Parameters
    ----------
    object_reg, probe_reg : float in (0, 1]
        alpha and beta of the paper; 1 for both is ePIE.
    """

    object_reg: float = 0.25
    probe_reg: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for reg in ("object_reg", "probe_reg"):
            check_range(reg, getattr(self, reg), 0, 1)

    def object_weight(self, p2: Array, corners: Array, k: Any) -> Array:
        total = k.batch_sum(p2, corners)
        top = total.max(axis=(-2, -1), keepdims=True)
        return full(self).object_step / ((1 - self.object_reg) * total + self.object_reg * top)

    def probe_weight(self, o2: Array) -> Array:
        return full(self).probe_step / ((1 - self.probe_reg) * o2 + self.probe_reg * o2.max())


@dataclass(frozen=True, kw_only=True)
class RPIE(Regularised, Varying):
    r"""w_O = 1/((1 - object_reg)|P|^2 + object_reg max|P|^2),  w_P = 1/((1 - probe_reg)|O|^2 +
    probe_reg max|O|^2).

    Parameters
    ----------
    object_step, probe_step : float in (0, 2], or None
        gamma of the paper. None chooses them: 1 and 0.5, less where a pixel counts fewer than 3 on
        average.
    object_reg, probe_reg : float in (0, 1]
        alpha and beta of the paper; 1 for both is ePIE.
    probe_start : int or None
        First pass (from 0) that moves the probe; None keeps it.
    variations : int
        Ways in which the first mode of the probe varies from frame to frame (`varying_pie`).
    variations_start : int
        First pass (from 0) after which they are found.
    cool_from : int, optional
        First pass (from 0) whose steps shrink: pass e takes the steps times 1/(1 + (e -
        cool_from)/1.5), which averages the noise of the last frames away. None is after two
        thirds of the passes `reconstruct` is asked for; a number beyond them never shrinks the
        steps.
    """

    name: ClassVar[str] = "rpie"
    title: ClassVar[str] = "rPIE: object and probe, regularised step; the first thing to try"


@dataclass(frozen=True, kw_only=True)
class EPIE(Varying):
    r"""w_O = 1/max|P|^2,  w_P = 1/max|O_j|^2 (the maximum over the patch).

    Parameters
    ----------
    object_step, probe_step : float in (0, 2], or None
        alpha and beta of the paper. None chooses them: 1 and 0.5, less where a pixel counts fewer
        than 3 on average.
    probe_start : int or None
        First pass (from 0) that moves the probe; None keeps it.
    variations : int
        Ways in which the first mode of the probe varies from frame to frame (`varying_pie`).
    variations_start : int
        First pass (from 0) after which they are found.
    cool_from : int, optional
        First pass (from 0) whose steps shrink: pass e takes the steps times 1/(1 + (e -
        cool_from)/1.5). Sequential updates chase the noise of the last frames; shrinking steps
        average it away. None is after two thirds of the passes `reconstruct` is asked for; a number
        beyond them never shrinks the steps.
    """

    name: ClassVar[str] = "epie"
    title: ClassVar[str] = "ePIE: object and probe, the plain step"

    def object_weight(self, p2: Array, corners: Array, k: Any) -> Array:
        return full(self).object_step / k.batch_sum(p2, corners).max(axis=(-2, -1), keepdims=True)

    def probe_weight(self, o2: Array) -> Array:
        return full(self).probe_step / o2.max()


#: The members that have compiled passes.
ITERATIVE = (PIE, EPIE, RPIE)
