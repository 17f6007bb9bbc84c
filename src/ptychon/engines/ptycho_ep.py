r"""Ptycho-EP: ptychography by expectation propagation (Ueda, Katakami & Okada, arXiv:2504.05668
(2025)), in natural parameters.

Every frame j sends the object a Gaussian message: its exit wave is CN(phi_j, 1/g_j), with one
precision g_j a frame. With the prior message (g0, h0) the belief of the object is CN(eta/Lambda,
1/Lambda),

    Lambda = g0 + sum_j g_j |P|^2,    eta = h0 + sum_j g_j P* phi_j         (each placed at window
                                                                            j)

One update of frame j:

    psi = P eta/Lambda,  V = mean |P|^2/Lambda                    belief of the exit wave, one
                                                                  variance
    psi_c, g_c = CN(psi, V)/CN(phi_j, 1/g_j)                      cavity: the belief without this
                                                                  frame's message
    z^, v^ = moments of p(y | z) CN(z; F psi_c, 1/g_c)            output function: `rician` or
                                                                  `laplace`
    g = 1/v^ - g_c,  phi = (F^-1 z^/v^ - g_c psi_c)/g             the cavity divided out again: the
                                                                  new message
    phi_j <- d phi + (1-d) phi_j,  g_j^-1/2 <- d g^-1/2 + (1-d) g_j^-1/2
    Lambda += change of g_j |P|^2,  eta += change of g_j P* phi_j

Two FFTs an update; no inverse of the probe. The object's error bar is object_std = Lambda^-1/2.
State: phi_j and y_j, 12 bytes a pixel and position, beside the sub-pixel shifted probes (8 bytes a
pixel, at most 256 of them).

Noise: y = sqrt(n + 3/8), v = 1/4 for counts n (Anscombe 1948); a given variance; or learned,
v <- mean E|y e^{i theta} - z|^2/2, for all frames together or for each (see `noise.per_frame`).
Probe, by EM after a sweep, with mu = eta/Lambda:

    P <- P + sum_j g_j [mu* (phi_j - mu P) - P/Lambda]/D,   D = sum_j g_j (|mu|^2 + 1/Lambda), not
                                                            below 1 % of its maximum

(shifted back to the probe's grid), which for whole-pixel positions is the closed form sum g mu*
phi/D. Lambda and eta are sums with the old probe and are rebuilt each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..model.batch import Batch, exit_wave, followed, shifted_probes, to_object
from ..model.noise import Noise, noise_of
from ..model.noise import per_frame as frame_noise
from ..model.problem import Problem
from ..types import Array, PtychonError
from .base import Context, Engine, Estimate, Keeps, Remedy, Report, blocks, check_range
from .ep_belief import EPState, rebuild, update_probe
from .priors import BernoulliGauss, Gaussian
from .update import After

#: A learned variance is not below this share of mean(y^2), starts there times 1e6, and changes at
#: most tenfold a sweep.
NOISE_FLOOR = 1e-8
#: Sweeps between two rebuilds of Lambda and eta from the messages: float32 increments drift by
#: about 1e-5 in 400 sweeps.
REBUILD_EVERY = 50
#: Sampling ratio (measurements per lit object pixel) below which the output function "auto"
#: changes, and from which sweep.
NEAR_LIMIT, CAUTIOUS_START = 2.7, 10
#: A run whose object still changes by more than this share in a sweep, after so many, begins again
#: with a third of the damping, unless that is so small already. Good runs are at 0.27 and falling
#: after 100 sweeps at worst, and mostly below 0.01; at 2.6 measurements a pixel some go on at 0.4
#: to 1.5 for ever (2 to 7 dB), and with damping 0.3 settle (9 to 11 dB).
SETTLED_BY, RESTLESS, CALM = 120, 0.35, 0.35


@dataclass(frozen=True, kw_only=True)
class PtychoEP(Engine):
    """Ptycho-EP with the probe known (`probe_updates=0`) or learned by EM.

    Parameters
    ----------
    output : {"auto", "rician", "laplace"}
        The output function (see `kernels.reference`). "auto" is Rician; with a known probe and
        fewer than 2.7 measurements per lit object pixel it changes to Laplace after 10 passes. Near
        the sampling limit expectation propagation is over-confident, and Laplace's inflated
        variance counters that; from the start, or with a good ratio, it is worse.
    prior : {"gaussian", "sparse"}
        CN(0, object_variance), or Bernoulli-Gauss with `sparse_density`.
    object_variance : float, optional
        Variance of the object in the prior; default 1, or for the Gaussian prior the mean |O|^2 of
        the start on the lit pixels where that is more.
    sparse_density : float
    prior_start : int
        Passes with the Gaussian prior before the sparse one: on a constant start it would freeze
        the run.
    damping : float in (0, 1], optional
        Weight d of the new message; default 0.9, and 0.5 where the probe moves.
    probe_updates : int
        Inner EM updates of the probe after each pass; 0 keeps the probe.
    probe_start : int
        First pass (from 0) that is followed by probe updates.
    noise_variance : float, optional
        Variance of the amplitude noise; default as the data say, or learned.
    learn_noise : bool
        Learn the variance although one is known. It is always learned where none is known.
    noise_per_frame : bool
        Learn a variance for each frame: a beam, detector or background that changes during the
        scan.
    noise_start : int
        First pass (from 0) that learns the variance.
    residual_every : int
        Passes between two measurements of the residual at the belief, which costs an FFT a frame.
    """

    name: ClassVar[str] = "ep"
    title: ClassVar[str] = (
        "Ptycho-EP: object with an error bar on every pixel; probe known or learned"
    )
    copes: ClassVar[frozenset[str]] = frozenset({"near field", "masks"})
    follows: ClassVar[frozenset[str]] = frozenset({"positions"})
    needs_guess: ClassVar[bool] = True
    instead: ClassVar[str] = (
        "say what is known as its prior, object_variance or prior=sparse with sparse_density"
    )
    fixes_scale: ClassVar[bool] = True
    keeps: ClassVar[Keeps] = Keeps(
        object_bytes=92,
        stack="messages",
        stack_bytes=8,
        shift_bytes=8,
        sums_apart=True,
        transforms=5.0,
        compile_seconds=9,
    )
    output: str = "auto"
    prior: str = "gaussian"
    object_variance: float | None = None
    sparse_density: float = 0.1
    prior_start: int = 60
    damping: float | None = None
    probe_updates: int = 1
    probe_start: int = 2
    noise_variance: float | None = None
    learn_noise: bool = False
    noise_per_frame: bool = False
    noise_start: int = 5
    residual_every: int = 5

    def __post_init__(self) -> None:
        for option, allowed in (
            ("output", ("auto", "rician", "laplace")),
            ("prior", ("gaussian", "sparse")),
        ):
            if getattr(self, option) not in allowed:
                raise PtychonError(
                    f"{option} is {getattr(self, option)!r}; it must be one of {', '.join(allowed)}"
                )
        check_range("damping", self.damping, 0, 1)
        check_range("sparse_density", self.sparse_density, 0, 0.999999)
        check_range("object_variance", self.object_variance, 0, 1e30)
        check_range("noise_variance", self.noise_variance, 0, 1e30)
        for name in ("prior_start", "probe_updates", "probe_start", "noise_start"):
            check_range(name, getattr(self, name), 0, 1e9, open_low=False)
        check_range("residual_every", self.residual_every, 1, 1e9, open_low=False)

    @property
    def moves_probe(self) -> bool:
        """Whether the probe is learned."""
        return self.probe_updates > 0

    @property
    def weight(self) -> float:
        """The damping in force."""
        return self.damping or (0.5 if self.moves_probe else 0.9)

    def timed(self, name: str, when: bool | After) -> dict[str, Any]:
        if name != "probe":
            return super().timed(name, when)
        if when is False:
            return {"probe_updates": 0}
        return super().timed(name, when) | {"probe_updates": self.probe_updates or 1}

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> EPState:
        xp, k = ctx.backend.xp, ctx.backend.kernels
        if len(probe) != 1:
            raise PtychonError(f"the probe has {len(probe)} modes; engine 'ep' takes one")
        O, P = xp.array(object, "complex64", order="C"), xp.array(probe, "complex64", order="C")
        n, (p, q) = len(problem), problem.frame_shape
        power = sum((problem.amplitude[b] ** 2).sum(dtype="float64") for b in blocks(n)) / (
            n * p * q
        )
        power = power + self.offset(problem)
        state = EPState(
            O, P, messages=ctx.backend.beside(problem.amplitude, (n, p, q), "complex64")
        )
        state.power = xp.asarray(power, "float32")
        state.message_precision = xp.full(n, 1 / state.power, "float32")
        known = self.noise(problem).variance
        v = xp.asarray(1e6 * NOISE_FLOOR * power if known is None else known, "float32")
        state.noise_variance = xp.full(n, v, "float32") if self.noise_per_frame else v
        state.probes = shifted_probes(P, problem, k)[:, 0]
        light = xp.zeros(problem.object_shape, "float32")
        for b in blocks(n):
            frames = Batch.of(problem, ctx.backend, b)
            frames.add(light, k.abs2(state.probes[frames.index]))
        # a prior that is too narrow for the object it starts from would make every frame disagree
        # with it
        power = (light * k.abs2(O)).sum() / light.sum()
        variance = xp.asarray(self.object_variance or xp.maximum(power, 1), "float32")
        state.prior_precision, state.prior_natural = Gaussian(variance).message(
            problem.object_shape, xp
        )
        lit = float((light > 0.1 * light.max()).sum())
        state.near_limit = not self.moves_probe and n * p * q < NEAR_LIMIT * lit
        for b in blocks(n):
            frames = Batch.of(problem, ctx.backend, b)
            state.messages[b] = exit_wave(state.probes[frames.index], frames.window(O))
        rebuild(state, problem, ctx)
        return state

    def noise(self, problem: Problem) -> Noise:
        """The noise of the amplitude: its variance, or None, and whether it is learned."""
        learn = self.learn_noise or self.noise_per_frame
        return noise_of(problem, "amplitude", self.noise_variance, learn)

    def learns(self, problem: Problem) -> bool:
        """Whether the noise variance is learned."""
        return self.noise(problem).learned

    def learns_at(self, problem: Problem, epoch: int) -> bool:
        """Whether sweep `epoch` (counted from 0) learns it; only then are its moments needed."""
        return self.learns(problem) and epoch >= self.noise_start

    def step(
        self, state: EPState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[EPState, Report]:
        k, xp = ctx.backend.kernels, ctx.backend.xp
        posterior = k.laplace if self.uses_laplace(state) else k.rician
        measure = state.epoch % self.residual_every == 0
        misfit, skips = xp.zeros((), "float64"), xp.zeros((), "float64")
        chi2, noise = xp.zeros(len(problem), "float64"), xp.zeros(len(problem), "float64")
        v = xp.broadcast_to(state.noise_variance, (len(problem),))
        offset = ctx.backend.xp.asarray(self.offset(problem), "float32")
        self.update_prior(state, ctx)
        for b in batches:
            frames, mask = Batch.of(problem, ctx.backend, b), problem.mask_of(b)
            phi, g, P = state.messages[b], state.message_precision[b], state.probes[frames.index]
            y, p2 = xp.sqrt(problem.amplitude[b] ** 2 + offset), k.abs2(P)
            Lambda, eta = frames.window(state.precision), frames.window(state.natural)
            psi = exit_wave(P, eta / Lambda)
            psi_c, g_c = k.cavity(psi, (p2 / Lambda).mean(axis=(-2, -1)), phi, g)
            wave, variance, moment = posterior(frames.onward(psi_c), 1 / g_c, y, mask, v[b])
            phi_new, g_new, skipped = k.damped_message(
                frames.back(wave), variance, psi_c, g_c, phi, g, self.weight
            )
            gain, loss = g_new[:, None, None], g[:, None, None]
            frames.add(state.precision, (gain - loss) * p2)
            frames.add(state.natural, to_object(P, gain * phi_new - loss * phi))
            state.messages[b], state.message_precision[b] = phi_new, g_new
            noise[b] = moment
            skips += skipped.sum()
            if measure:
                belief = frames.onward(psi)[:, None]
                misfit += k.modulus_projection(belief, problem.amplitude[b], mask)[1].sum()
                chi2[b] = k.modulus_projection(belief, y, mask)[1]
        if not self.noise_per_frame:
            chi2, noise = chi2.sum(), noise.sum()
        return self.finish(state, problem, ctx, misfit if measure else None, chi2, noise, skips)

    def moved(
        self, state: EPState, before: Problem, after: Problem, factor: Array, ctx: Context
    ) -> EPState:
        """Messages keep what they differ by from P mu, which is taken where the frames are now, and
        their precisions.
        """
        mean, old = state.natural / state.precision, state.probes
        state.probes = shifted_probes(state.probe, after, ctx.backend.kernels)[:, 0]
        for b in blocks(len(after)):
            was, now = Batch.of(before, ctx.backend, b), Batch.of(after, ctx.backend, b)
            off = state.messages[b] - exit_wave(old[was.index], was.window(mean))
            off = followed(off, was.corners, now.corners, ctx.backend.xp)
            state.messages[b] = off + exit_wave(state.probes[now.index], now.window(mean))
        rebuild(state, after, ctx)
        return state

    def finish(
        self,
        state: EPState,
        problem: Problem,
        ctx: Context,
        misfit: Array | None,
        chi2: Array,
        noise: Array,
        skips: Array,
    ) -> tuple[EPState, Report]:
        """What follows the visits of a sweep: noise variance, probe, rebuilding, mean object.

        `chi2` and `noise` are sums over all pixels, or (N,) over those of each frame where frames
        have variances of their own.
        """
        xp, valid = ctx.backend.xp, problem.mask.sum() * (len(problem) // len(problem.mask))
        used = state.noise_variance
        if self.learns_at(problem, state.epoch):
            if self.noise_per_frame:
                new = frame_noise.shrunk(
                    noise, frame_noise.valid_pixels(problem.mask, len(problem), xp), xp, ctx.comm
                )
            else:
                new = noise / valid
            new = xp.clip(new.astype("float32"), used / 10, used * 10)
            state.noise_variance = xp.maximum(new, NOISE_FLOOR * state.power)
        moves = state.epoch >= self.probe_start
        for _ in range(self.probe_updates if moves else 0):
            update_probe(state, problem, ctx)
        if (self.moves_probe and moves) or state.epoch % REBUILD_EVERY == REBUILD_EVERY - 1:
            rebuild(state, problem, ctx)
        state.object, change = ctx.backend.kernels.quotient(
            state.natural, state.precision, state.object
        )
        state.epoch += 1
        extra = {"change": change, "skipped": skips / len(problem), "noise_variance": used.mean()}
        if misfit is not None:
            extra["chi2"] = (chi2 / used).sum() / valid
        return state, Report(misfit, extra)

    def uses_laplace(self, state: EPState) -> bool:
        """Whether this sweep's output function is Laplace's."""
        return self.output == "laplace" or (
            self.output == "auto" and state.near_limit and state.epoch >= CAUTIOUS_START
        )

    def estimate(self, state: EPState, ctx: Context) -> Estimate:
        own = state.noise_variance if self.noise_per_frame else None
        return Estimate(
            state.natural / state.precision, state.probe, state.precision**-0.5, noise_variances=own
        )

    def offset(self, problem: Problem) -> float:
        """c of y = sqrt(amplitude^2 + c): Anscombe's 3/8 where the data are counts whose noise is
        Poisson's.
        """
        return self.noise(problem).offset

    def remedy(self, extra: dict[str, float], epoch: int) -> Remedy | None:
        """A safer engine to start again with if sweep `epoch` (counted from 1) failed: most visits
        skipped, or beliefs that go to and fro, as they do where measurements are few and light is
        uneven."""
        if extra["skipped"] > 0.5:
            later = (
                max(type(self).prior_start, 2 * self.prior_start)
                if self.prior == "sparse"
                else self.prior_start
            )
            safer = replace(self, output="rician", damping=0.5 * self.weight, prior_start=later)
            return Remedy(safer, "learned nothing from most frames")
        if epoch >= SETTLED_BY and extra["change"] > RESTLESS and self.weight > CALM:
            still = f"still changes the object by {extra['change']:.0%} in a pass"
            return Remedy(replace(self, output="rician", damping=round(self.weight / 3, 3)), still)
        return None

    def update_prior(self, state: EPState, ctx: Context) -> None:
        """New message of the sparse prior for what the data say now; a Gaussian prior never
        changes.
        """
        if self.prior == "gaussian" or state.epoch < self.prior_start:
            return
        xp = ctx.backend.xp
        variance = self.object_variance or 1.0
        floor = xp.asarray(1e-6 / variance, "float32")
        precision = xp.maximum(state.precision - state.prior_precision, floor)
        natural = state.natural - state.prior_natural
        prior = BernoulliGauss(self.sparse_density, variance)
        state.prior_precision, state.prior_natural = prior.message(
            precision, natural, ctx.backend.kernels, xp
        )
        state.precision, state.natural = (
            precision + state.prior_precision,
            natural + state.prior_natural,
        )
