r"""The difference map (Elser 2003; Thibault et al., Science 321, 379 (2008); Ultramicroscopy 109,
338 (2009)), and relaxed averaged alternating reflections, RAAR (Luke, Inverse Problems 21, 37
(2005)), which has the same two constraints and state.

Two constraints on the stack of exit waves psi_j:

    overlap   Pi_O(psi)_j = P O_j  with  O = sum_j P* psi_j/sum_j |P|^2,  P = sum_j O_j* psi_j/sum_j
              |O_j|^2
    modulus   Pi_F(psi)_j = F^-1[ z + f (y_j z/|z| - z) ],  z = F psi_j,  f = max(0, 1 - sqrt(B/sum
              (|z| - y_j)^2))

    psi <- psi + beta ( Pi_F[f_O] - Pi_O[f_F] )
    f_O = (1 + 1/beta) Pi_O psi - psi/beta,  f_F = (1 - 1/beta) Pi_F psi + psi/beta

    psi <- beta psi + (1 - 2 beta) Pi_F psi + beta Pi_O[ 2 Pi_F psi - psi ]             (RAAR)

Noise makes the exact modulus y_j unreachable, so the modulus constraint is a ball around it, of
squared radius B = power_bound times the noise expected in a frame (Giewekemeyer et al., PNAS 107,
529 (2010)); B = 0 is the textbook projection, f = 1. A model that is wrong by more than its noise
cannot reach that ball. In the near field, where the data hold object and probe less firmly, the
waves then drift away from the best they found. So there, once the misfit of P O has grown by a
fifth above the least yet, 0.6 of that least stands for the noise, where this is more. With beta =
1, f_F = psi and one overlap projection serves both terms. The solution is Pi_O psi near the fixed
point. Each sum_j runs over all frames of all processes: it is the only communication. Floors of the
two denominators are relative to their maxima, and a pixel no frame reaches keeps its value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..model.batch import Batch, exit_wave, followed, to_object, to_wave
from ..model.problem import Problem
from ..types import Array
from .base import Context, Engine, Keeps, Report, State, blocks, check_range

#: In the near field: how many times the least misfit yet is a drift, and the share of the least
#: that the bound is then.
DRIFT, SHARE = 1.2, 0.6


@dataclass(slots=True)
class DMState(State):
    """State of the difference map.

    Attributes
    ----------
    waves : (N, K, P, Q) complex64
        psi; 8 K bytes a pixel and position, beside the 4 of the amplitude.
    bound, least : 0-d float64
        B a valid pixel, and the least mean square misfit of P O_j a valid pixel yet. Used in the
        near field.
    """

    waves: Array = None
    bound: Array = None
    least: Array = None


@dataclass(frozen=True, kw_only=True)
class DifferenceMap(Engine):
    r"""psi <- psi + beta ( Pi_F[(1 + 1/beta) Pi_O psi - psi/beta] - Pi_O[(1 - 1/beta) Pi_F psi +
    psi/beta] ).

    Parameters
    ----------
    beta : float in [-1, 1], not 0
    probe_start : int or None
        First pass (from 0) that moves the probe; None keeps it.
    overlap_passes : int
        Alternations of object and probe in one overlap projection.
    object_inertia : float in [0, 1)
        Weight, relative to the brightest pixel, of the last object in the new one: steadies weakly
        lit pixels.
    probe_inertia : float in [0, 1)
        The same for the probe.
    power_bound : float
        Radius of the modulus constraint: B in units of the noise of a frame, `Problem.noise_level`
        a valid pixel (no bound where the noise is not known); a frame whose dose is known to be
        another one has the noise of its own counts. In the near field also in units of 0.6 of the
        least misfit, once the misfit grows again.
    residual_every : int
        Passes between two measurements of the residual, which costs an FFT a frame.
    """

    name: ClassVar[str] = "dm"
    title: ClassVar[str] = "difference map: object and probe, all frames at once"
    schedule: ClassVar[str] = "parallel"
    finished_by: ClassVar[str] = "rpie"
    instead: ClassVar[str] = (
        "it makes object and probe anew from its waves: give them to a stage after it, as in "
        "--recipe 'dm:60, rpie:60'"
    )
    copes: ClassVar[frozenset[str]] = Engine.copes | {"spread"}
    follows: ClassVar[frozenset[str]] = frozenset({"positions", "log_scale", "background"})
    keeps: ClassVar[Keeps] = Keeps(
        object_bytes=40, stack="waves", stack_bytes=8, transforms=11.0, compile_seconds=6
    )
    beta: float = 1.0
    probe_start: int | None = 2
    overlap_passes: int = 1
    object_inertia: float = 1e-3
    probe_inertia: float = 1e-3
    power_bound: float = 1.0
    residual_every: int = 5

    def __post_init__(self) -> None:
        check_range("abs(beta)", abs(self.beta), 0, 1)
        if self.probe_start is not None:
            check_range("probe_start", self.probe_start, 0, 1e9, open_low=False)
        check_range("power_bound", self.power_bound, 0, 1e6, open_low=False)
        check_range("overlap_passes", self.overlap_passes, 1, 100, open_low=False)
        check_range("residual_every", self.residual_every, 1, 1e9, open_low=False)
        for name in ("object_inertia", "probe_inertia"):
            check_range(name, getattr(self, name), 0, 0.999999, open_low=False)

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> DMState:
        xp = ctx.backend.xp
        O, P = xp.array(object, "complex64", order="C"), xp.array(probe, "complex64", order="C")
        waves = ctx.backend.beside(problem.amplitude, (len(problem), *P.shape), "complex64")
        known = self.power_bound * problem.noise_level
        state = DMState(
            O,
            P,
            waves=waves,
            bound=xp.asarray(known, "float64"),
            least=xp.asarray(float("inf"), "float64"),
        )
        for batch in blocks(len(problem)):
            psi, _ = self._modulus(
                self._estimate(state, problem, batch, ctx), problem, batch, state, ctx
            )
            waves[batch] = psi
        return state

    def step(
        self, state: DMState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[DMState, Report]:
        measure = state.epoch % self.residual_every == 0
        total = ctx.backend.xp.zeros((), "float64")
        reflected = None
        if self.beta != 1:
            reflected = ctx.backend.xp.empty_like(state.waves)
            for batch in batches:
                projected, _ = self._modulus(state.waves[batch], problem, batch, state, ctx)
                reflected[batch] = (1 - 1 / self.beta) * projected + state.waves[batch] / self.beta
            other = DMState(state.object, state.probe, state.epoch, reflected)
            self._overlap(other, problem, batches, ctx)
        self._overlap(state, problem, batches, ctx)
        for batch in batches:
            psi, estimate = state.waves[batch], self._estimate(state, problem, batch, ctx)
            projected, _ = self._modulus(
                (1 + 1 / self.beta) * estimate - psi / self.beta, problem, batch, state, ctx
            )
            back = estimate if reflected is None else self._estimate(other, problem, batch, ctx)
            state.waves[batch] = psi + self.beta * (projected - back)
            if measure:
                total += self._modulus(estimate, problem, batch, state, ctx)[1].sum()
        return self.finish(state, total if measure else None, problem, ctx)

    def moved(
        self, state: DMState, before: Problem, after: Problem, factor: Array, ctx: Context
    ) -> DMState:
        """Waves keep what they differ by from P O_j, which is taken where the frames are now."""
        for batch in blocks(len(after)):
            scaled = factor[batch, None, None, None] * state.waves[batch]
            off = scaled - self._estimate(state, before, batch, ctx)
            off = followed(off, before.corners[batch], after.corners[batch], ctx.backend.xp)
            state.waves[batch] = off + self._estimate(state, after, batch, ctx)
        return state

    def finish(
        self, state: DMState, misfit: Array | None, problem: Problem, ctx: Context
    ) -> tuple[DMState, Report]:
        """What follows a pass: the report, and the bound of the next where this one
        was measured.
        """
        state.epoch += 1
        if misfit is None:
            return state, Report(None)
        misfit, known = ctx.comm.sum(misfit), self.power_bound * problem.noise_level
        if problem.near_field and known > 0:
            xp, pixels = ctx.backend.xp, problem.mask.sum() * (len(problem) // len(problem.mask))
            level = misfit / ctx.comm.sum(xp.asarray(pixels, "float64"))
            drifts = (level > DRIFT * state.least) | (state.bound > known)
            state.least = xp.minimum(state.least, level)
            state.bound = xp.where(
                drifts, xp.maximum(known, self.power_bound * SHARE * state.least), state.bound
            )
        return state, Report(misfit)

    @property
    def moves_probe(self) -> bool:
        return self.probe_start is not None

    def probe_moves_at(self, epoch: int) -> bool:
        return self.probe_start is not None and epoch >= self.probe_start

    @property
    def stacks(self) -> int:
        """The waves, and with beta other than 1 the reflected ones too."""
        return 1 if self.beta == 1 else 2

    def _estimate(self, state: State, problem: Problem, batch: Any, ctx: Context) -> Array:
        """P O_j, (B, K, P, Q)."""
        frames = Batch.of(problem, ctx.backend, batch)
        return exit_wave(frames.probe(state.probe), frames.window(state.object))

    def _modulus(
        self, psi: Array, problem: Problem, batch: Any, state: DMState, ctx: Context
    ) -> tuple[Array, Array]:
        """Pi_F psi and the misfit of psi."""
        xp, frames = ctx.backend.xp, Batch.of(problem, ctx.backend, batch)
        wave, mask = frames.onward(psi), problem.mask_of(batch)
        projected, misfit = frames.projected(wave, problem.amplitude[batch], mask)
        bound = self.noise_power(problem, state) * mask.sum(axis=(-2, -1))
        if problem.noise_shares is not None:
            bound = bound * xp.asarray(problem.noise_shares[batch])
        share = xp.maximum(0, 1 - xp.sqrt(bound / xp.maximum(misfit, 1e-30))).astype("float32")[
            :, None, None, None
        ]
        return frames.back(wave + share * (projected - wave)), misfit

    def noise_power(self, problem: Problem, state: DMState) -> Any:
        """B a valid pixel: a number, or in the near field 0-d on the device."""
        return state.bound if problem.near_field else self.power_bound * problem.noise_level

    def _overlap(self, state: DMState, problem: Problem, batches: list[Any], ctx: Context) -> None:
        """Least-squares object, then probe, for the current exit waves; both in place of the old
        ones.
        """
        k, xp = ctx.backend.kernels, ctx.backend.xp
        for _ in range(self.overlap_passes if self.probe_moves_at(state.epoch) else 1):
            num, den = xp.zeros_like(state.object), xp.zeros(state.object.shape, "float32")
            for batch in batches:
                frames = Batch.of(problem, ctx.backend, batch)
                P = frames.probe(state.probe)
                frames.add(num, to_object(P, state.waves[batch]))
                frames.add(den, k.abs2(P).sum(axis=1))
            state.object = weighted(
                ctx.comm.sum(num), ctx.comm.sum(den), state.object, self.object_inertia, xp
            )
            if not self.probe_moves_at(state.epoch):
                return
            num, den = xp.zeros_like(state.probe), xp.zeros(state.probe.shape[-2:], "float32")
            for batch in batches:
                frames = Batch.of(problem, ctx.backend, batch)
                P, O = frames.probe(state.probe), frames.window(state.object)
                num += frames.unshifted(to_wave(O, state.waves[batch] - exit_wave(P, O)))
                den += k.abs2(O).sum(axis=0)
            num, den = ctx.comm.sum(num), ctx.comm.sum(den)
            weight = (1 - self.probe_inertia) * den + self.probe_inertia * den.max()
            state.probe = state.probe + num / xp.maximum(weight, 1e-30)


def weighted(num: Array, den: Array, old: Array, inertia: float, xp: Any) -> Array:
    """(num + inertia max(den) old)/(den + inertia max(den)); `old` where den is nothing."""
    extra = inertia * den.max()
    floor = den.max() * 1e-10
    return xp.where(den > floor, (num + extra * old) / xp.maximum(den + extra, floor), old)


@dataclass(frozen=True, kw_only=True)
class RAAR(DifferenceMap):
    r"""psi <- beta psi + (1 - 2 beta) Pi_F psi + beta Pi_O[2 Pi_F psi - psi].

    beta between 0.6 and 0.95: less holds the waves nearer to what was measured, 1 is the difference
    map with the constraints in the other order.

    Parameters
    ----------
    beta : float in [0.5, 1]
    """

    name: ClassVar[str] = "raar"
    title: ClassVar[str] = "RAAR: the difference map, relaxed towards what was measured"
    keeps: ClassVar[Keeps] = replace(
        DifferenceMap.keeps, transforms=None, streams=False, compile_seconds=8
    )
    beta: float = 0.75

    def __post_init__(self) -> None:
        DifferenceMap.__post_init__(self)
        check_range("beta", self.beta, 0.5, 1, open_low=False)

    @property
    def stacks(self) -> int:
        """The waves, and the reflected ones."""
        return 2

    def step(
        self, state: DMState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[DMState, Report]:
        measure = state.epoch % self.residual_every == 0
        total = ctx.backend.xp.zeros((), "float64")
        reflected = ctx.backend.xp.empty_like(state.waves)
        for batch in batches:
            psi = state.waves[batch]
            projected, _ = self._modulus(psi, problem, batch, state, ctx)
            reflected[batch] = 2 * projected - psi
        other = replace(state, waves=reflected)
        self._overlap(other, problem, batches, ctx)
        state.object, state.probe = other.object, other.probe
        for batch in batches:
            psi, mirrored = state.waves[batch], reflected[batch]
            estimate = self._estimate(state, problem, batch, ctx)
            projected = (mirrored + psi) / 2
            state.waves[batch] = self.beta * (psi + estimate) + (1 - 2 * self.beta) * projected
            if measure:
                total += self._modulus(estimate, problem, batch, state, ctx)[1].sum()
        return self.finish(state, total if measure else None, problem, ctx)
