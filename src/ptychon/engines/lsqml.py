r"""LSQ-ML: least-squares maximum likelihood, batch by batch, with the best step of each frame.

For a batch of frames at one object O and probe modes P_k, z_jk the waves at the detector, D the way
there from the exit wave and y_j the measured amplitude:

    chi_jk = D*[ -xi_j z_jk ]                                what a frame asks of its exit waves
             xi_j = 1 - y_j/|z_j|                            |z_j|^2 = sum_k |z_jk|^2
             xi_j = alpha_j ( 1 - n_j/lambda_j )             counts n_j; alpha_j: see below
    dO     = sum_j sum_k P_jk* chi_jk/(L + floor max L)      L = sum of |P_j|^2 over the batch
    dP_k   = sum_j S_j*( O_j* chi_jk )/(G + floor max G)     G = sum of |O_j|^2 over the batch

and for each frame the steps a_j along dO and b_j along dP that bring its exit waves nearest to what
it asks, by linear least squares over all pixels and modes,

    min | chi_j - a_j A_j - b_j B_j |^2 + r (a_j^2 |A_j|^2 + b_j^2 |B_j|^2)

    [ (1 + r) |A|^2   Re<A,B>       ] [ a ]   [ Re<A,chi> ]      A_jk = dO_j P_jk,  B_jk = dP_jk O_j
    [ Re<A,B>         (1 + r) |B|^2 ] [ b ] = [ Re<B,chi> ]      r: `damping`

The steps are real, so only the real part of <A, B> counts. None goes backwards: where one would,
the other goes alone. (A joint step of which half is left out overshoots.) The damping of each is in
units of its own diagonal element: with one number for both, the scale of dP would decide how far dO
goes. The batch takes means of them, without the largest and the smallest:

    O <- O + step_size mean(a) dO,    P <- P + step_size mean(b) dP

L is that of the batch: with that of the whole scan, as in the paper, steps of sparse batches make
up for how often a pixel is lit in a pass, and a pixel at the rim, lit once, gets as many times too
much; passes then diverge.

Batches are *sparse*, members far apart, or *compact*, neighbours (`Schedule`). Object and probe
move after each. From pass `together_from` on, the last third, all batches of a pass see the same
object, which moves once, along what they together ask, L then being that of all frames, by the
least of their means, and the probe moves by a share of each: this averages the noise of the last
frames away. The paper has it in all passes of compact batches; from nothing that is very slow.

Counts: xi is too long a step where few were expected. alpha_j is the length that their likelihood
prefers, sum lambda' - n log lambda' along z' = (1 - alpha xi) z, by three steps of Fisher's scoring
from 1/2, where amplitudes put it. Counts more than five standard deviations above what is expected
say that the model is wrong there, and their xi is 2 ( 1 - sqrt(n)/|z| ), which at 1/2 ends at their
root: from far away a few dark pixels of the model would else leave all of them a step of nothing.

Momentum, from pass `momentum_start` on, is that of `pass_momentum`: the object remembers two
passes, with the weight L/(L + max L/10), the probe three.

A specimen of several slices has one dO_s for each, with the light L_s on it, and one step a_j along
all of them together, A_j being how the exit wave changes with all at once (Maiden, Humphry &
Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012)). A walk through the model (`model.forward`) is all
that it asks of a specimen: how exit waves change with dO and dP (`exit_tangent`), and what chi asks
of them (`exit_adjoint`).

Reference: Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..kernels.reference import abs2
from ..model.forward import Model
from ..model.problem import Problem
from ..model.specimen import light_up
from ..model.unknowns import Unknowns
from ..model.view import View
from ..types import Array, PtychonError
from .base import Context, Engine, Keeps, Report, State, check_range
from .pass_momentum import velocity

#: Noise models.
NOISES = ("amplitude", "poisson")
#: Modulus and counts below which a model says nothing.
TINY = 1e-20
#: Standard deviations by which counts exceed what is expected where the model is wrong, not they.
FAR = 5.0
#: Scoring steps for the length alpha of a step of counts.
SCORINGS = 3
#: Passes that the momentum of object and probe remembers.
OBJECT_MEMORY, PROBE_MEMORY = 2, 3


@dataclass(slots=True)
class LSQMLState(State):
    """State of LSQ-ML: what momentum needs.

    Attributes
    ----------
    object_updates, probe_updates : (2, [S,] H, W) and (3, K, P, Q) complex64
        What the last passes have changed without momentum, the last one first.
    object_velocity, probe_velocity : ([S,] H, W) and (K, P, Q) complex64
    misfit : 0-d float64
        Of the last pass.
    """

    object_updates: Array = None
    probe_updates: Array = None
    object_velocity: Array = None
    probe_velocity: Array = None
    misfit: Array = None


@dataclass(frozen=True, kw_only=True)
class LSQML(Engine):
    r"""O <- O + step_size mean(a) dO,  P <- P + step_size mean(b) dP, a and b of least squares for
    each frame.

    Parameters
    ----------
    step_size : float in (0, 2]
        beta of the paper: what is taken of the mean step.
    noise : {"amplitude", "poisson"}
        What is compared: amplitudes, roots of counts, or counts.
    probe_start : int or None
        First pass (from 0) that moves the probe; None keeps it.
    floor : float > 0
        delta of the paper, relative to the brightest pixel: keeps weakly lit pixels from exploding.
    damping : float
        Of the equations of each frame, relative to the mean of their diagonal.
    trim : float in [0, 1)
        Share of the frames of a batch whose steps are left out of the mean, half of it the largest
        and half of it the smallest.
    momentum_start : int or None
        First pass (from 0) with momentum; None for none.
    gain : float
        How much of the momentum is added after a pass.
    together_from : int, optional
        First pass (from 0) that moves the object once, along what all batches together ask, which
        averages the noise of the last frames away. None is after two thirds of the passes
        `reconstruct` is asked for; a number beyond them never does.
    """

    name: ClassVar[str] = "lsqml"
    title: ClassVar[str] = "LSQ-ML: object and probe, batches with the best step of each frame"
    copes: ClassVar[frozenset[str]] = Engine.copes | {"background", "constraints", "slices"}
    follows: ClassVar[frozenset[str]] = frozenset({"positions", "log_scale", "background"})
    schedule: ClassVar[str] = "sparse"
    shuffle: ClassVar[bool] = True
    keeps: ClassVar[Keeps] = Keeps(object_bytes=100, counts=True, streams=False, compile_seconds=5)
    step_size: float = 0.9
    noise: str = "amplitude"
    probe_start: int | None = 1
    floor: float = 0.1
    damping: float = 0.1
    trim: float = 0.1
    momentum_start: int | None = 3
    gain: float = 0.5
    together_from: int | None = None

    def __post_init__(self) -> None:
        check_range("step_size", self.step_size, 0, 2)
        if self.noise not in NOISES:
            raise PtychonError(f"noise is {self.noise!r}; choose {', '.join(NOISES)}")
        check_range("floor", self.floor, 0, 1e6)
        check_range("damping", self.damping, 0, 1e6, open_low=False)
        check_range("trim", self.trim, 0, 0.99, open_low=False)
        check_range("gain", self.gain, 0, 10, open_low=False)
        for name in ("probe_start", "momentum_start", "together_from"):
            check_range(name, getattr(self, name), 0, 1e9, open_low=False)

    @property
    def moves_probe(self) -> bool:
        return self.probe_start is not None

    @property
    def has_momentum(self) -> bool:
        return self.momentum_start is not None

    def probe_moves_at(self, epoch: int) -> bool:
        return self.probe_start is not None and epoch >= self.probe_start

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> LSQMLState:
        xp = ctx.backend.xp
        O, P = xp.array(object, "complex64", order="C"), xp.array(probe, "complex64", order="C")
        return LSQMLState(
            O,
            P,
            object_updates=xp.zeros((OBJECT_MEMORY, *O.shape), "complex64"),
            probe_updates=xp.zeros((PROBE_MEMORY, *P.shape), "complex64"),
            object_velocity=xp.zeros_like(O),
            probe_velocity=xp.zeros_like(P),
            misfit=xp.asarray(float("inf"), "float64"),
        )

    def step(
        self, state: LSQMLState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[LSQMLState, Report]:
        xp, together = ctx.backend.xp, self.together(state.epoch)
        model = self.model(replace(problem, background=None), ctx.backend)
        places = xp.asarray(problem.positions) if problem.subpixel else None
        thin = state.object.ndim == 2
        field = state.object[None] if thin else state.object
        x = Unknowns(object=field, probe=state.probe, positions=places)
        moving = ["object", "probe"] if self.probe_moves_at(state.epoch) else ["object"]
        asked, least = xp.zeros_like(x.object), xp.asarray(float("inf"), "float64")
        light, total = xp.zeros(x.object.shape, x.probe.real.dtype), xp.zeros((), "float64")
        for batch in batches:
            view = model.view(x, batch)
            chi, misfit = self.asked(problem, model, view)
            d, own = model.zeros(x, moving), self.light(model, view)
            model.exit_adjoint(view, chi, d)
            pull = d.object
            d = self.preconditioned(d, own, abs2(view.windows[0]).sum(axis=0))
            a = self.mean(self.steps(model, view, chi, d), xp)
            if together:
                asked, least = asked + pull, xp.minimum(least, a[0])
            else:
                x.object = x.object + self.step_size * _real(a[0], d.object) * d.object
            if d.probe is not None:
                share = self.step_size / (len(batches) if together else 1)
                x.probe = x.probe + share * _real(a[1], d.probe) * d.probe
            light, total = light + own, total + misfit
        if together:
            d = self.preconditioned(Unknowns(object=asked), light, 0)
            x.object = x.object + self.step_size * _real(least, d.object) * d.object
        total = ctx.comm.sum(total)
        x.object, light = (x.object[0], light[0]) if thin else (x.object, light)
        self.take(state, x, light, total, xp)
        state.epoch += 1
        return state, Report(total)

    def for_passes(self, passes: int) -> Engine:
        last = -(-2 * passes // 3)
        return replace(self, together_from=last) if self.together_from is None else self

    def together(self, epoch: int) -> bool:
        """Whether the object moves once in pass `epoch`."""
        return self.together_from is not None and epoch >= self.together_from

    # ------------------------------------------------------------ parts of a step

    def light(self, model: Model, view: View) -> Array:
        """L of a batch, (S, H, W)."""
        shape, real = view.x.object.shape, view.x.probe.real.dtype
        total = model.backend.xp.zeros(shape, real)
        for s in range(shape[0]):
            light_up(total[s], abs2(view.incident[s]).sum(axis=1), view.corners, view.kernels)
        return total

    def asked(self, problem: Problem, model: Model, view: View) -> tuple[Array, Array]:
        """chi, (B, K, P, Q), and the sum over valid pixels of (|z| - y)^2."""
        xp, frames = model.backend.xp, view.frames
        power, valid = model.intensity(view), problem.mask_of(frames)
        y = problem.amplitude[frames]
        modulus = xp.sqrt(power)
        misfit = xp.where(valid, modulus - y, 0) ** 2
        if self.noise == "amplitude":
            xi = xp.where(valid, 1 - y / xp.maximum(modulus, TINY), 0)
        else:
            xi = self.by_counts(problem, frames, power, valid, xp)
        none = Unknowns()
        wave = model.detector.intensity_adjoint(view, -xi / 2, none)
        return model.detector.adjoint(view, wave, none), misfit.sum(dtype="float64")

    def check_counts(self, problem: Problem) -> None:
        """Refuse data that are no counts, where these are to be compared.

        Raises
        ------
        PtychonError
            If they are none.
        """
        if not problem.counting:
            raise PtychonError(
                "noise is 'poisson', but these data are not counts, or a background has been taken "
                "off them; state --gain, or set noise to 'amplitude'"
            )

    def by_counts(
        self, problem: Problem, frames: Any, power: Array, valid: Array, xp: Any
    ) -> Array:
        """alpha xi of counts, (B, P, Q)."""
        self.check_counts(problem)
        y, dark = problem.amplitude[frames], xp.zeros(1, power.dtype)
        n = y**2
        if problem.counts is not None:
            # what is known of the dose of a frame has scaled its amplitude, not its counts
            n, dark = problem.counts[frames], problem.background
            signal = xp.where(valid, n - dark, 0).clip(0, None)
            scale = signal.sum(axis=(1, 2)) / xp.maximum((y**2).sum(axis=(1, 2)), TINY)
            power = power * scale[:, None, None]
        expected = xp.maximum(power + dark, TINY)
        best = 1 - xp.sqrt((n - dark).clip(0, None) / xp.maximum(power, TINY))
        far = n > expected + FAR * xp.sqrt(expected + 1)
        xi = xp.where(valid, xp.where(far, 2 * best, 1 - n / expected), 0)
        alpha = xp.full((len(power), 1, 1), 0.5, power.dtype)
        for _ in range(SCORINGS):
            left = 1 - alpha * xi
            mean = xp.maximum(left**2 * power + dark, TINY)
            slope = -2 * xi * left * power  # of lambda' by alpha
            score = xp.where(valid, slope * (1 - n / mean), 0).sum(axis=(1, 2), keepdims=True)
            information = (slope**2 / mean).sum(axis=(1, 2), keepdims=True)
            alpha = (alpha - score / xp.maximum(information, TINY)).clip(0, 1)
        return alpha * xi

    def preconditioned(self, d: Unknowns, light: Array, glass: Array) -> Unknowns:
        """dO and dP, from what frames ask of object and probe; `glass` is G."""
        top = light.max(axis=(-2, -1), keepdims=True)
        found = Unknowns(object=d.object / (light + self.floor * top))
        if d.probe is not None:
            found.probe = d.probe / (glass + self.floor * glass.max())
        return found

    def steps(self, model: Model, view: View, chi: Array, d: Unknowns) -> Array:
        """The least-squares steps of each frame along each direction, none below 0, (B, n) float64,
        object first.
        """
        xp, flat = model.backend.xp, (len(chi), 1, -1)
        along = [model.exit_tangent(view, Unknowns(**{name: array})) for name, array in d.each()]
        A = xp.concatenate([_as_real(a, flat) for a in along], axis=1)
        G = (A @ A.swapaxes(1, 2)).astype("float64")
        right = (A @ _as_real(chi, flat).swapaxes(1, 2)).astype("float64")
        return self.solved(G, right[..., 0], xp)

    def solved(self, G: Array, right: Array, xp: Any) -> Array:
        """The steps by the equations of frames, (B, n, n) and (B, n) float64: none below 0."""
        own, G = xp.arange(right.shape[1]), G.copy()
        G[:, own, own] = xp.maximum((1 + self.damping) * G[:, own, own], TINY)
        alone = xp.maximum(right / G[:, own, own], 0)
        if len(own) == 1:
            return alone
        both = xp.linalg.solve(G, right[..., None])[..., 0]
        # where one would go backwards, the better one goes alone
        best = (right * alone).argmax(axis=1)[:, None] == own
        return xp.where((both >= 0).all(axis=1, keepdims=True), both, best * alone)

    def mean(self, steps: Array, xp: Any) -> Array:
        """Means over the frames of a batch, (n,)."""
        rest = int(self.trim / 2 * len(steps))
        return xp.sort(steps, axis=0)[rest : len(steps) - rest].mean(axis=0)

    def take(self, state: LSQMLState, x: Unknowns, light: Array, misfit: Array, xp: Any) -> None:
        """Object and probe of a pass into the state, with momentum."""
        fell = misfit < state.misfit
        weight = light / (light + light.max(axis=(-2, -1), keepdims=True) / 10)
        for name, new, share in (("object", x.object, weight), ("probe", x.probe, 1)):
            if self.momentum_start is not None:
                update, past = new - getattr(state, name), getattr(state, f"{name}_updates")
                setattr(state, f"{name}_updates", xp.concatenate([update[None], past[:-1]]))
                if state.epoch >= self.momentum_start:
                    v = getattr(state, f"{name}_velocity")
                    v, gain = velocity(update, past, v, fell, self.gain, xp)
                    setattr(state, f"{name}_velocity", v)
                    new = new + gain * share * v
            setattr(state, name, new)
        state.misfit = misfit


def _real(number: Array, like: Array) -> Array:
    """A number on the device in the precision of an array."""
    return number.astype(like.real.dtype)


def _as_real(wave: Array, shape: tuple[int, ...]) -> Array:
    """Real and imaginary parts of (B, K, P, Q) in a row, (B, 1, 2 K P Q)."""
    flat = wave.reshape(shape)
    return flat.view(flat.real.dtype)
