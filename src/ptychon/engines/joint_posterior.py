r"""The joint Gaussian posterior of object and probe, with the correlations that `ptycho_ep` leaves
out: honest error bars.

Ptycho-EP keeps one variance a pixel and one precision a frame. Here the belief is one Gaussian over
object and probe together, CN(m, H^-1) with H = A* W A + C^-1 (see `linear`), and each detector
pixel sends a message CN(h/g, 1/g). One pass:

    x ~ CN(0, H^-1)                          a draw: H x = A* W^1/2 e + C^-1/2 e', white e, e'
                                             (perturb and optimise)
    V = E|A x|^2,  z = F[P O]                belief of the detector waves, V averaged over classes
                                             of alike pixels
    z_c = (z/V - h)/g_c,  g_c = 1/V - g      cavity: without the pixel's own message
    z^, v^ = moments of p(y | z) CN(z; z_c, 1/g_c)    kernel `site_moments`, v^ averaged over
                                                      classes
    g <- d (1/v^ - g_c) + (1-d) g,  h <- d (z^/v^ - g_c z_c) + (1-d) h
    m <- m + H^-1 [A* (h - g z) - C^-1 m]    a few conjugate gradients; d falls where the object
                                             starts to swing
    C <- learned spectrum                    (see `stationary`)

Classes are rings of the detector times octaves of |z|^2 (and of the noise, where each frame has its
own): see `classes`.

From pass `burn_in` on, draws are made afresh with the precision along each wave and across it kept
apart (what is measured is the modulus), and kept: object_std^2 is their mean |x|^2 after removing
what no measurement can know (see `ambiguities`). It is taken as a smooth factor times the variance
that white data of the same dose would leave, so that few draws suffice.

Perturb and optimise: Papandreou & Yuille, NIPS (2010). Messages by moment matching: Minka, UAI
(2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..kernels.curvature import ByClass
from ..metrics.ambiguities import unseen, without_unseen
from ..model.batch import Batch, shifted_probes
from ..model.noise import Noise, noise_of
from ..model.noise import per_frame as frame_noise
from ..model.problem import Problem
from ..model.thin import Scan
from ..model.unknowns import Unknowns
from ..types import Array, PtychonError
from . import pixel_classes as classes
from . import spectral_prior as stationary
from .base import Context, Engine, Estimate, Keeps, Report, blocks, check_range
from .joint_state import PosteriorState, by_rings, learn_spectrum, white_variance
from .linear import Linear, Stationary

#: Least precision of a message relative to the cavity's.
LEAST_GAIN = 1e-3
#: Least precision that the preconditioner gives a probe pixel, relative to the largest.
PRECONDITION_FLOOR = 1e-2
#: Width in object pixels over which the factor of the variance is smooth.
SMOOTH = 3.0
#: The damping is multiplied by SLOWER after a pass whose change is more than SWING times the one
#: before, else by FASTER.
SWING, SLOWER, FASTER = 1.1, 0.6, 1.05


@dataclass(frozen=True, kw_only=True)
class Joint(Engine):
    """Joint Gaussian posterior by expectation propagation over detector pixels; to be started from
    another engine's result.

    Parameters
    ----------
    probe : bool
        Refine the probe too: its error is then part of the object's.
    prior : {"spectral", "white"}
        A stationary Gaussian whose spectrum is learned, or CN(0, object_variance) in every pixel.
    object_variance : float, optional
        Variance of the object in the white prior; default the mean |O|^2 of the lit part of the
        start.
    damping : float in (0, 1]
        Largest weight d of the new message; it starts at half of this.
    iterations : int
        Conjugate gradients a pass, for the mean and for the first draws.
    burn_in : int
        Passes before draws are kept.
    draws : int
        Number of posterior draws to store.
    draw_iterations : int
        Conjugate gradients for each draw that is kept.
    noise_variance : float, optional
        Variance of the amplitude noise; default as the data say, or learned.
    learn_noise : bool
        Learn the variance although one is known. It is always learned where none is known.
    noise_per_frame : bool
        Learn a variance for each frame (see `model.noise.per_frame`).
    seed : int
        Seed for the draws.
    """

    name: ClassVar[str] = "joint"
    title: ClassVar[str] = (
        "joint posterior of object and probe, from another result: error bars with their "
        "correlations"
    )
    copes: ClassVar[frozenset[str]] = frozenset({"modes", "near field", "masks", "background"})
    fixes_scale: ClassVar[bool] = True
    instead: ClassVar[str] = (
        "its prior=spectral learns how smooth the object is, and prior=white takes object_variance"
    )
    keeps: ClassVar[Keeps] = Keeps(
        object_bytes=200,
        stack="waves and messages",
        stack_bytes=16,
        frame_bytes=5,
        counts=True,
        streams=False,
    )
    probe: bool = False
    prior: str = "spectral"
    object_variance: float | None = None
    damping: float = 0.7
    iterations: int = 3
    burn_in: int = 16
    draws: int = 8
    draw_iterations: int = 20
    noise_variance: float | None = None
    learn_noise: bool = False
    noise_per_frame: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prior not in ("spectral", "white"):
            raise PtychonError(f"prior is {self.prior!r}; it must be one of spectral, white")
        check_range("damping", self.damping, 0, 1)
        check_range("object_variance", self.object_variance, 0, 1e30)
        check_range("noise_variance", self.noise_variance, 0, 1e30)
        for name in ("iterations", "draws", "draw_iterations"):
            check_range(name, getattr(self, name), 1, 1000, open_low=False)
        check_range("burn_in", self.burn_in, 0, 1e6, open_low=False)

    @property
    def moves_probe(self) -> bool:
        """Whether the probe is learned."""
        return self.probe

    def noise(self, problem: Problem) -> Noise:
        """The noise: of counts, or of the amplitude, and whether its variance is learned."""
        learn = self.learn_noise or self.noise_per_frame
        return noise_of(problem, "auto", self.noise_variance, learn)

    def learns(self, problem: Problem) -> bool:
        """Whether the noise variance is learned."""
        return self.noise(problem).learned

    def kind(self, problem: Problem) -> str:
        """Which likelihood: counts whose noise is Poisson's, those with a background, or Gaussian
        amplitude noise.
        """
        if self.noise(problem).kind == "amplitude":
            return "normal"
        return "counts" if problem.counts is None else "shifted"

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> PosteriorState:
        xp, k = ctx.backend.xp, ctx.backend.kernels
        O, P = xp.array(object, "complex64"), xp.array(probe, "complex64")
        n, shape = len(problem), problem.object_shape
        waves = xp.empty((n, *P.shape), "complex64")
        state = PosteriorState(
            O, P, waves=waves, natural=xp.empty_like(waves), near_field=problem.near_field
        )
        state.classes = xp.empty((n, *P.shape[-2:]), "uint16" if self.noise_per_frame else "uint8")
        state.rings, state.ring_size = stationary.rings_of(shape, xp)
        state.light = xp.zeros(shape, "float32")
        shifted = shifted_probes(P, problem, k)
        for b in blocks(n):
            frames = Batch.of(problem, ctx.backend, b)
            frames.add(state.light, k.abs2(shifted[frames.index]).sum(axis=1))
        state.light = ctx.comm.sum(state.light)
        state.taper = stationary.taper_of(state.light, xp)
        state.draw, state.draw_probe = xp.zeros(shape, "complex64"), xp.zeros_like(P)
        state.draws = xp.zeros((self.draws, *shape), "complex64")
        state.damping, state.change = (
            xp.asarray(0.5 * self.damping, "float32"),
            xp.asarray(1, "float32"),
        )
        misfit, v = xp.zeros(n, "float64"), self.noise(problem).variance
        for b in blocks(n):
            self._detect(state, shifted, problem, b, ctx)
            misfit[b] = classes.misfits(problem, b, k.abs2(waves[b]).sum(axis=1), False, xp)[0]
        pixels = frame_noise.valid_pixels(problem.mask, n, xp)
        state.level = xp.asarray(
            v or ctx.comm.sum(misfit.sum()) / ctx.comm.sum(pixels.sum()), "float32"
        )
        state.noise_variance = state.level
        if self.noise_per_frame:
            own = frame_noise.shrunk(misfit, pixels, xp, ctx.comm)
            state.noise_variance = own.astype("float32")
        for b in blocks(n):
            self._classify(state, problem, b, ctx)
        state.sites = xp.zeros((3, classes.number(self.noise_per_frame)), "float32")
        state.sites[:, :-1] = 1 / (
            4 * classes.band_variances(state.level, self.noise_per_frame, xp)
        )
        for b in blocks(n):
            state.natural[b] = state.sites[0][state.classes[b]][:, None] * waves[b]
        power = (k.abs2(O) * state.taper).sum() / state.taper.sum()
        variance = self.object_variance or power
        state.spectrum = (xp.ones_like(state.ring_size) * variance).astype("float32")
        if self.prior == "spectral":
            found = by_rings(state, O, ctx.backend)
            state.spectrum = xp.maximum(found, 1e-6 * found.max()).astype("float32")
        return state

    def step(
        self, state: PosteriorState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[PosteriorState, Report]:
        xp, k, comm = ctx.backend.xp, ctx.backend.kernels, ctx.comm
        fresh = state.epoch >= self.burn_in
        shifted = shifted_probes(state.probe, problem, k)
        sites = self._draw(state, shifted, problem, ctx, fresh)
        # belief of the detector waves
        x = self._drawn(state)
        count, modes, kind = state.sites.shape[1], len(state.probe), self.kind(problem)
        found, misfit, surprise = (
            xp.zeros((3, count), "float64"),
            xp.zeros((), "float64"),
            xp.zeros((), "float64"),
        )
        for b in blocks(len(problem)):
            self._detect(state, shifted, problem, b, ctx)
            self._classify(state, problem, b, ctx)
            moved, flat = sites.H.tangent(b, x), state.classes[b].reshape(-1)
            bright = k.abs2(state.waves[b]).sum(axis=1)
            along = (state.waves[b].conj() * moved).real.sum(axis=1) / xp.maximum(
                xp.sqrt(bright), 1e-30
            )
            power = k.abs2(moved).sum(axis=1) / modes
            found[0] += xp.bincount(flat, minlength=count)
            found[1] += xp.bincount(flat, weights=power.reshape(-1), minlength=count)
            found[2] += xp.bincount(flat, weights=(along * along).reshape(-1), minlength=count)
            one, other = classes.misfits(problem, b, bright, kind == "shifted", xp)
            misfit, surprise = misfit + one.sum(), surprise + (other / self._noise(state, b)).sum()
        found = comm.sum(found)
        table = xp.stack(
            [classes.smooth(found[1], found[0], state.noise_variance.mean(), xp), state.sites[0]]
        )
        # moments of every pixel, then new messages
        ratio, sums = xp.empty(state.classes.shape, "float32"), xp.zeros((4, count), "float64")
        noise = xp.zeros(len(problem), "float64")
        data: Any = problem.counts if kind == "shifted" else problem.amplitude
        for b in blocks(len(problem)):
            belief = state.waves[b], state.natural[b], state.classes[b], table
            ratio[b], part, noise[b] = k.site_moments(
                *belief, data[b], self._noise(state, b), kind, problem.background
            )
            sums += part
        sums = comm.sum(sums)
        g_c, posterior = self._update_sites(state, table, sums, modes, xp)
        for b in blocks(len(problem)):
            c = state.classes[b]
            natural = state.waves[b] / table[0][c][:, None] - state.natural[b]  # g_c z_c
            new = natural * (ratio[b] / (posterior * g_c)[c] - 1)[:, None]
            damped = state.natural[b] + state.damping * (new - state.natural[b])
            state.natural[b] = xp.where(c[:, None] < count - 1, damped, 0)
        if self.noise_per_frame:
            pixels = frame_noise.valid_pixels(problem.mask, len(problem), xp)
            state.noise_variance = frame_noise.shrunk(noise, pixels, xp, comm).astype("float32")
        elif self.learns(problem):
            state.noise_variance = (sums[3, :-1].sum() / sums[0, :-1].sum()).astype("float32")
        change = self._improve(state, shifted, problem, ctx).astype("float32")
        factor = xp.where(change > SWING * state.change, SLOWER, FASTER)
        state.damping = xp.clip(factor * state.damping, 0.02, self.damping).astype("float32")
        state.change = change
        if self.prior == "spectral":
            learn_spectrum(state, self._free(state, ctx), ctx.backend)
        state.epoch += 1
        # each pixel's own share in its estimate has used up part of its misfit
        free = found[0, :-1].sum() - 2 * (state.sites[1, :-1] * found[2, :-1]).sum()
        misfit = comm.sum(misfit)
        chi2 = comm.sum(surprise) / xp.maximum(free, 1)
        return state, Report(
            misfit, {"change": change, "chi2": chi2, "noise_variance": state.noise_variance.mean()}
        )

    def estimate(self, state: PosteriorState, ctx: Context) -> Estimate:
        """The mean, and bars from the draws that were kept (the last one where there
        are none yet).
        """
        xp, k = ctx.backend.xp, ctx.backend.kernels
        kept = max(0, min(self.draws, state.epoch - self.burn_in))
        draws = state.draws[:kept] if kept else self._free(state, ctx)[None]
        variance = k.abs2(draws).mean(axis=0)
        shape = white_variance(state, xp)
        lit = state.taper > 0
        above, below = (stationary.blurred(lit * f, SMOOTH, ctx.backend) for f in (variance, shape))
        factor = xp.where(lit, above / xp.maximum(below, 1e-30), 1)
        std = xp.sqrt(xp.maximum(factor, 1e-6) * shape).astype("float32")
        return Estimate(
            state.object,
            state.probe,
            std,
            draws,
            state.noise_variance if self.noise_per_frame else None,
        )

    def _detect(
        self, state: PosteriorState, shifted: Array, problem: Problem, b: slice, ctx: Context
    ) -> None:
        """z = F[P O]."""
        state.waves[b] = Scan(problem, ctx.backend, state.object, shifted).waves(b)

    def _classify(self, state: PosteriorState, problem: Problem, b: slice, ctx: Context) -> None:
        power = ctx.backend.kernels.abs2(state.waves[b]).sum(axis=1)
        new = classes.classify(
            problem, b, power, self._noise(state, b), state.level, ctx.backend.xp
        )
        if self.noise_per_frame and state.sites is not None:
            state.natural[b] *= classes.change(
                state.sites[0], state.classes[b], new, ctx.backend.xp
            )[:, None]
        state.classes[b] = new

    def _noise(self, state: PosteriorState, b: slice) -> Array:
        """The noise variance, of all frames or of each of a block."""
        return state.noise_variance[b] if self.noise_per_frame else state.noise_variance

    def _update_sites(
        self, state: PosteriorState, table: Array, sums: Array, modes: int, xp: Any
    ) -> tuple[Array, Array]:
        """New precisions of the messages; returns those of the cavities and the posterior variance
        of one mode, per class.
        """
        from_belief = 1 / table[0]
        g_c = xp.maximum(from_belief - table[1], 0.02 * from_belief)
        n = xp.maximum(sums[0], 1)
        along, across = (sums[1] / n).astype("float32"), (sums[2] / n).astype("float32")
        seen = (sums[0] > 0) & (xp.arange(len(n)) < len(n) - 1)
        posterior = xp.where(seen, (along + (2 * modes - 1) * across) / modes, 1 / g_c)
        posterior = xp.minimum(posterior, 1 / (g_c * (1 + LEAST_GAIN)))
        new = xp.stack(
            [
                1 / posterior - g_c,
                *(1 / (2 * xp.maximum(part, 1e-30)) - g_c for part in (along, across)),
            ]
        )
        new[1:] = xp.maximum(new[1:], 0)
        d = state.damping
        state.sites = xp.where(seen, (1 - d) * state.sites + d * new, state.sites).astype("float32")
        return g_c, posterior.astype("float32")

    def _linear(
        self, state: PosteriorState, shifted: Array, problem: Problem, ctx: Context, directed: bool
    ) -> Linear:
        xp, k = ctx.backend.xp, ctx.backend.kernels
        weights = state.sites[1:] if directed else xp.stack([state.sites[0], state.sites[0]])
        total = xp.bincount(state.classes.reshape(-1), minlength=weights.shape[1])
        mean = (total * weights.mean(axis=0)).sum() / total.sum()
        full = (state.taper**2 * state.light).sum() / (state.taper**2).sum()
        inverse, probe_precision = (1 / state.spectrum)[state.rings], None
        if self.probe:
            p = xp.zeros(problem.frame_shape, "float32")
            for b in blocks(len(problem)):
                frames = Batch.of(problem, ctx.backend, b)
                p += k.abs2(frames.window(state.object)).sum(axis=0)
            probe_precision = (mean * p + PRECONDITION_FLOOR * mean * p.max()).astype("float32")
        prior = Stationary(ctx.backend, inverse, (mean * full).astype("float32"), probe_precision)
        held = ByClass(state.classes, weights, state.waves if directed else None)
        return Linear.of(problem, ctx, state.object, shifted, held, prior)

    def _drawn(self, state: PosteriorState) -> Unknowns:
        """The last draw."""
        return Unknowns(object=state.draw[None], probe=state.draw_probe if self.probe else None)

    def _draw(
        self, state: PosteriorState, shifted: Array, problem: Problem, ctx: Context, fresh: bool
    ) -> Linear:
        """A draw of the posterior, into the state. The first passes repeat the same noise, so that
        its draw converges.
        """
        xp = ctx.backend.xp
        model = self._linear(state, shifted, problem, ctx, directed=fresh)
        rng = xp.random.default_rng(self.seed + 1 + (state.epoch if fresh else 0))
        right = model.H.zeros()
        for b in blocks(len(problem)):
            white = _white(rng, state.waves[b].shape, xp)
            model.H.adjoint(b, model.H.weigh(b, white, root=True), right)
        root = (state.spectrum**-0.5)[state.rings]
        prior = model.prior.filtered(_white(rng, state.object.shape, xp), root)
        right = model.H.summed(right).axpy(1, Unknowns(object=prior[None]))
        if fresh:
            x = model.solve(right, None, self.draw_iterations)
        else:
            x = model.solve(right, self._drawn(state), self.iterations)
        state.draw = x.object[0]
        if x.probe is not None:
            state.draw_probe = x.probe
        if fresh:
            state.draws[(state.epoch - self.burn_in) % self.draws] = self._free(state, ctx)
        return model

    def _free(self, state: PosteriorState, ctx: Context) -> Array:
        """The last draw without what no measurement can know."""
        names = unseen(state.near_field, self.probe)
        return without_unseen(state.draw, state.object, state.taper, names, ctx.backend)

    def _improve(
        self, state: PosteriorState, shifted: Array, problem: Problem, ctx: Context
    ) -> Array:
        """Mean of object and probe for the new messages; returns the relative change
        of the object.
        """
        xp, k = ctx.backend.xp, ctx.backend.kernels
        model = self._linear(state, shifted, problem, ctx, directed=False)
        right = model.H.zeros()
        for b in blocks(len(problem)):
            off = state.natural[b] - model.H.weigh(b, state.waves[b])
            model.H.adjoint(b, off, right)
        pull = model.prior.filtered(state.object, model.prior.inverse_spectrum)
        if self.probe:
            # the prior alone must not drive what the data cannot hold
            names = unseen(problem.near_field, True)
            pull = without_unseen(pull, state.object, xp.ones_like(state.taper), names, ctx.backend)
        right = model.H.summed(right).axpy(-1, Unknowns(object=pull[None]))
        x = model.solve(right, None, self.iterations)
        dO, dP = x.object[0], x.probe
        state.object = state.object + dO
        if dP is not None:
            # the scale between the two stays what it was: the probe keeps its power
            before, state.probe = k.abs2(state.probe).sum(), state.probe + dP
            factor = xp.sqrt(before / k.abs2(state.probe).sum())
            state.probe, state.object = factor * state.probe, state.object / factor
            state.spectrum = state.spectrum / factor**2
        lit = state.taper
        return xp.sqrt((k.abs2(dO) * lit).sum() / (k.abs2(state.object) * lit).sum())


def _white(rng: Any, shape: tuple[int, ...], xp: Any) -> Array:
    """CN(0, 1), complex64."""
    parts = rng.standard_normal((*shape, 2), dtype=xp.float32)
    return (xp.sqrt(xp.float32(0.5)) * parts).view("complex64")[..., 0]
