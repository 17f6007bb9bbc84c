r"""Maximum likelihood by joint Gauss-Newton steps: object, probe modes, positions and doses at
once.

Let lambda_j(q) be the counts that the model expects (`model.forward`), x the object and the probe
modes, and theta_j what frame j has of its own, its position s_j and the logarithm a_j of its dose.
The probe's first mode may vary, P_0 + sum_l c_jl V_l (`varying`); V is then part of x, and c_j of
theta_j. The cost is that of the noise, with a Gaussian prior on how far theta_j may be from what
the data state,

    L = sum_j sum_q -log p(n_jq | lambda_jq) + 1/2 sum_j (theta_j - theta_j0)^T Sigma^-1 (theta_j -
    theta_j0)

and one that holds the object at its mean where hardly any light reaches it: what noise puts there
keeps windows from moving over it, and a scan that is stretched from shrinking. Where spreads are
learned, theta_j0 is that of a scan that is scaled, turned and sheared as a whole like the one found
so far: such an error is one number, not one for each frame.

With J the derivative of lambda by x, a_j that by theta_j, and W the Fisher information of each
pixel (1/lambda for counts), one pass is one step of

    G_j   = a_j W a_j^T + Sigma^-1                                a matrix of 1 to 3 numbers squared
                                                                  for each frame
    Pi_j  = W - W a_j^T G_j^-1 a_j W                              theta_j eliminated: the Schur
                                                                  complement
    (J^T Pi J + ridge) dx = -(J^T g - J^T W a^T G^-1 h)           conjugate gradients; g, h:
                                                                  gradients by lambda, theta
    dtheta_j = -G_j^-1 (h_j + a_j W J dx)                         exactly, for no more than inner
                                                                  products
    x <- x + t dx,  theta <- theta + t dtheta,                    t = 1, 1/2, ... 1/32: the first
                                                                  that does not raise L

Where counts are few, L may have a prior of neighbouring pixels, with D the largest diagonal element
of J^T W J for the object (`model.roughness`),

    + D sum_r smoothness/2 |grad O|^2 + variation sqrt(|grad O|^2 + e^2)

whose quadratic form about O is part of the matrix: total variation by reweighted least squares. The
scale between object and probe, which the data leave free and such a prior would shrink the object
by, stays as it is.

Object and positions deform together: a scan that is stretched, or that drifts, fits a stretched
object nearly as well. Engines that alternate between the two crawl along such directions; a joint
step does not. `ridge` is Levenberg's and Marquardt's: a share of the largest diagonal element of
each unknown, less after each full step and more after a shortened one.

A background b is counted besides the waves, lambda = sum_k |z_k|^2 + b, and moves with x: its
derivative is 1, and it may not be negative. Where it is 0 and more light would have to be taken
away, it is held in that step; the rest of a step ends at 0 (Bertsekas, SIAM J. Control Optim. 20,
221 (1982)). It is linear between points on a grid, so that details are left to the object.

After a step the mean of the moves of the positions goes into the probe, and the mean dose into its
strength, which changes no frame. Nor does exp(g.r) on the object with exp(-g.u) on the probe and
-g.s_j on the logarithms of the doses, r = s_j + u: a gradient of the doses across the scan is not a
matter of the data where the probe is free, and goes into the object. Windows follow positions that
have left theirs. A mixing of the modes is left as the data leave it: undetermined.

Three things help from far. Until steps lower the cost by less than 1 %, roots of counts are
compared (`model.noise`), and from there on where the model does not explain the data: the
likelihood of counts then bends the object towards dark pixels with counts that nothing accounts
for. Frames that fit much worse than the others are tried at places around, which no linear step
would find, with the part of the object that only they see free (`model.lost`). And steps may begin
with the inner part of the detector (`detector`): an object of half the resolution has details twice
as wide, so that positions lead it from twice as far, and parts of a scan do not lock to each other
a detail apart.

References: Thibault & Guizar-Sicairos, New J. Phys. 14, 063004 (2012) (maximum likelihood);
Guizar-Sicairos & Fienup, Opt. Express 16, 7264 (2008) (positions); Golub & Pereyra, SIAM J. Numer.
Anal. 10, 413 (1973) and Triggs et al., Vision Algorithms, LNCS 1883, 298 (2000) (elimination of
what few data depend on: variable projection, Schur complement); Marquardt, J. SIAM 11, 431 (1963).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..kernels.reference import abs2
from ..model.fit import SEARCH_FROM, Fit, line_search
from ..model.gauss_newton import GaussNewton
from ..model.lost import found_again
from ..model.noise.background import whole
from ..model.problem import Problem
from ..model.slices import layers
from ..model.unknowns import Unknowns
from ..model.view import frequencies
from ..types import Array, PtychonError
from .background import dark_share, first_background, grid, held, in_units
from .base import Context, Estimate, Report
from .ml_cost import fitted
from .ml_options import MLOptions
from .ml_state import MLState, take
from .varying import first_variations

#: First spread of positions (px) and of log doses where the spread is learned, and of the weights
#: of variations of the probe.
FIRST, FIRST_WEIGHT = (2.0, 0.05), 0.1
#: Ridge, as a share of the largest diagonal element: the first, and the least.
RIDGE, LEAST_RIDGE = 1e-3, 1e-6
#: Factors of the ridge after a full step, a shortened one, and one that was refused.
FULL, SHORTENED, REFUSED = 1 / 3, 2.0, 8.0
#: Relative fall of the cost in a step below which the likelihood of counts takes over from that of
#: their roots.
STILL = 0.01
#: How many steps apart frames are looked for with the part of the object that only they see.
AGAIN = 4
#: Share of the light of the probe that counts as its beam.
LIT = 0.9
#: Misfit in units of what the noise makes of it, above which roots of counts go on being compared.
POOR = 1.0


@dataclass(frozen=True, kw_only=True)
class ML(MLOptions):
    __doc__ = MLOptions.__doc__

    name: ClassVar[str] = "ml"
    title: ClassVar[str] = (
        "maximum likelihood, joint Gauss-Newton steps: object, probe, positions and doses at once"
    )

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> MLState:
        xp = ctx.backend.xp
        now, given = (
            problem.positions,
            problem.positions if problem.measured is None else problem.measured,
        )
        dose = (
            ctx.backend.xp.zeros(len(problem)) if problem.log_scale is None else problem.log_scale
        )
        variations, weights = self._variations(problem, xp)
        background, dark = first_background(self, problem, ctx) if self.background else (None,) * 2
        if self.distance and not problem.near_field:
            raise PtychonError(
                "in the far field a distance is a scale of the scan; refine positions, whose scale "
                "the result tells, or give --affine search"
            )
        spreads = [self.position_spread or FIRST[0]] * 2 + [self.dose_spread or FIRST[1]]
        return MLState(
            xp.array(object, "complex64", order="C"),
            xp.array(probe, "complex64", order="C"),
            positions=xp.asarray(now, "float64"),
            measured=xp.asarray(given, "float64"),
            log_scale=xp.array(dose, "float32"),
            corners=xp.array(problem.corners, "int32"),
            variations=variations,
            weights=weights,
            background=background,
            dark=dark,
            distance=xp.zeros(1, "float32") if self.distance else None,
            spread=xp.array(spreads + [FIRST_WEIGHT] * self.variations, "float64"),
            ridge=xp.array([RIDGE], "float64"),
        )

    def _variations(self, problem: Problem, xp: Any) -> tuple[Array, Array]:
        """Those that a run begins with, those of an earlier one first; None for none."""
        count, shape = self.variations, problem.frame_shape
        if not count:
            return None, None
        V, c = xp.zeros((count, *shape), "complex64"), xp.zeros((len(problem), count), "float32")
        if problem.variations is not None and problem.weights is not None:
            known = min(count, len(problem.variations))
            V[:known] = xp.asarray(problem.variations[:known])
            c[:, :known] = xp.asarray(problem.weights[:, :known])
        return V, c

    def unknowns(self, state: MLState, problem: Problem) -> Unknowns:
        """The state as an estimate; probes that all sit on pixels are not shifted."""
        between = self.positions or problem.subpixel
        dose = self.dose or problem.log_scale is not None
        return Unknowns(
            object=layers(state.object),
            probe=state.probe,
            positions=state.positions if between else None,
            log_scale=state.log_scale if dose else None,
            variations=state.variations,
            weights=state.weights,
            background=state.background,
            distance=state.distance,
        )

    def step(
        self, state: MLState, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[MLState, Report]:
        xp, free = ctx.backend.xp, self.probe_moves_at(state.epoch)
        own = self.own(state.epoch)
        given = problem
        if self.background:
            problem = whole(problem)
        if self.detector < 1:
            problem = self._inner(problem, ctx)
            if state.epoch == 0:
                # a beam that is wider than that part brings details of its own width into it
                cut = max(self.detector / 2, beam(state.probe, ctx.backend))
                state.object = smooth(state.object, cut, ctx.backend)
        x = self.unknowns(state, problem)
        model = replace(
            self.model(problem, ctx.backend), corners=ctx.backend.to_host(state.corners)
        )
        if self.background:
            model = replace(
                model, detector=replace(model.detector, between=grid(self, problem, ctx))
            )
        fit, H, diagonal = fitted(self, state, problem, model, x, own, free)
        if "weights" in own and not bool((state.weights != 0).any()):
            still = replace(x, variations=None, weights=None)
            x.variations, x.weights = first_variations(fit, still, self.variations)
            fit, H, diagonal = fitted(self, state, problem, model, x, own, free)
        before = fit.cost(x)
        d = self._direction(fit, H, diagonal, state.ridge[0])
        length, new, after = line_search(fit, x, d, before)
        factor = FULL if length >= 1 else SHORTENED if length else REFUSED
        state.ridge = (state.ridge * factor).clip(LEAST_RIDGE, 1.0)
        change = xp.sqrt(
            abs2(new.object - x.object).sum(dtype="float64") / abs2(x.object).sum(dtype="float64")
        )
        if state.far and after.total >= (1 - STILL) * before.total:
            state.far = self.likelihood == "roots" or (
                self.likelihood == "auto" and fit.excess(new) > POOR
            )
        extra = {"change": change, "step": length, "products": H.products}
        extra["fell"] = before.total - after.total
        if "positions" in own and state.epoch >= SEARCH_FROM:
            extra["searched"] = fit.search(new, after)
            after = fit.cost(new) if extra["searched"] else after
            if not extra["searched"] and (state.epoch - SEARCH_FROM) % AGAIN == 0:
                extra["searched"], after = found_again(fit, new, after, diagonal.object[0])
        extra["cost"] = after.total
        take(self, state, new, H, model, free, own)
        state.epoch += 1
        if self.positions:
            extra["move"] = rms_length(state.positions - x.positions)
            extra["worst"] = after.frames.max() / xp.median(after.frames)
            off = state.positions - state.measured
            extra["moved"] = xp.sqrt((off**2).sum(axis=1).mean())
        if self.dose:
            extra["dose_spread"] = state.log_scale.std(dtype="float64")
        misfit = after.misfit
        if self.background:
            misfit = in_units(misfit, model.detector.dark(state.background), problem, given)
            state.dark = model.detector.dark(state.background)
            extra["background"] = dark_share(state.dark, problem)
        if self.distance:
            extra["distance"] = problem.longer + state.distance[0]
        if self.variations:
            extra["varies"] = xp.sqrt((state.weights.astype("float64") ** 2).mean(axis=0).sum())
        return state, Report(
            xp.asarray(misfit) if self.detector == 1 else None,
            {name: xp.asarray(value) for name, value in extra.items()},
        )

    def estimate(self, state: MLState, ctx: Context) -> Estimate:
        return Estimate(
            state.object,
            state.probe,
            positions=state.positions if self.positions else None,
            corners=state.corners if self.positions else None,
            log_scale=state.log_scale if self.dose else None,
            variations=state.variations,
            weights=state.weights,
            background=state.dark,
            distance=state.distance,
        )

    # ------------------------------------------------------------ parts of a step

    def _inner(self, problem: Problem, ctx: Context) -> Problem:
        """The problem without the outer part of its detector."""
        if problem.near_field:
            raise PtychonError(
                f"detector is {self.detector:g}, but in the near field the outer part of a frame "
                "shows another part of the object, not finer details; set detector to 1"
            )
        keep = distances(problem.frame_shape, ctx.backend.xp) <= self.detector / 2
        return replace(problem, mask=problem.mask & keep)

    def _direction(self, fit: Fit, H: GaussNewton, diagonal: Unknowns, ridge: Array) -> Unknowns:
        """The step."""
        gradient = H.gradient(fit.likelihood.score, fit.held(H.x))
        floor = diagonal.map(lambda array: (ridge * array.max()).astype(array.dtype))
        if gradient.background is not None:
            floor.background = held(H.x.background, gradient.background, floor.background)
        H.prior = H.prior.axpy(1, floor)
        return H.step(gradient, self.tolerance, self.iterations, diagonal.axpy(1, floor))


def rms_length(moves: Array) -> Array:
    """Of moves (N, 2) less their mean."""
    return ((moves - moves.mean(axis=0)) ** 2).sum(axis=1).mean() ** 0.5


def distances(shape: tuple[int, int], xp: Any) -> Array:
    """Of each frequency of an FFT from 0, cycles a pixel."""
    return xp.hypot(frequencies(shape[0], xp)[:, None], frequencies(shape[1], xp))


def beam(probe: Array, backend: Any) -> float:
    """Radius of the direct beam on the detector, in which `LIT` of its light is: cycles a pixel."""
    xp = backend.xp
    far = distances(probe.shape[-2:], xp).ravel()
    order = xp.argsort(far)
    light = abs2(backend.fft2(probe)).sum(axis=0, dtype="float64").ravel()[order].cumsum()
    return float(far[order][int((light < LIT * light[-1]).sum())])


def smooth(field: Array, cut: float, backend: Any) -> Array:
    """A field (..., H, W) without what has more than `cut` cycles a pixel, softly."""
    far = distances(field.shape[-2:], backend.xp) / cut
    return backend.ifft2(backend.fft2(field) * backend.xp.exp(-0.5 * far**8).astype("float32"))
