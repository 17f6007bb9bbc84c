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
would find. And steps may begin with the inner part of the detector (`detector`): an object of half
the resolution has details twice as wide, so that positions lead it from twice as far, and parts of
a scan do not lock to each other a detail apart.

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
from ..model.forward import Model
from ..model.gauss_newton import GaussNewton
from ..model.illumination import ramps
from ..model.noise import Likelihood, learned_variance, noise_of
from ..model.noise.background import whole
from ..model.problem import Problem
from ..model.roughness import Roughness
from ..model.slices import layers, neighbours, share
from ..model.unknowns import Unknowns
from ..model.view import frequencies
from ..types import Array, PtychonError
from .background import dark_share, first_background, grid, held, in_units
from .base import Context, Engine, Estimate, Keeps, Report, State, check_range
from .undetermined import affine, illuminate, level
from .update import After
from .varying import first_variations, settled, timed_variations

#: First spread of positions (px) and of log doses where the spread is learned, and the least that
#: it may become.
FIRST, LEAST = (2.0, 0.05), (0.02, 1e-3)
#: The same of the weights of variations of the probe.
FIRST_WEIGHT, LEAST_WEIGHT = 0.1, 1e-4
#: By how much a learned spread may shrink in a step: a prior that is narrow too soon holds soft
#: errors, a drift say, for long.
SHRINK = 0.7
#: Ridge, as a share of the largest diagonal element: the first, and the least.
RIDGE, LEAST_RIDGE = 1e-3, 1e-6
#: Factors of the ridge after a full step, a shortened one, and one that was refused.
FULL, SHORTENED, REFUSED = 1 / 3, 2.0, 8.0
#: Relative fall of the cost in a step below which the likelihood of counts takes over from that of
#: their roots.
STILL = 0.01
#: Misfit in units of what the noise makes of it, above which roots of counts go on being compared.
POOR = 1.0
#: Where light is less than so much of its largest, the object is held at its mean, by a prior that
#: is so much of the largest diagonal element.
DARK, HELD = 3e-3, 1e-3
#: Frames from which on a scan may be scaled, turned and sheared as a whole.
MANY = 12
#: Differences between neighbouring pixels that total variation takes for edges, in units of |O|.
EDGE = 1e-2
LIKELIHOODS = ("auto", "counts", "roots")


@dataclass(slots=True)
class MLState(State):
    """State of the joint fit.

    Attributes
    ----------
    positions, measured : (N, 2) float64
        Probe centres, object pixels: as they are now, and as the data state them.
    log_scale : (N,) float32
    corners : (N, 2) int32
        Of the windows; they follow positions with a delay, so they are state.
    variations, weights : (M, P, Q) complex64, (N, M) float32, or None
        How the probe varies.
    background, dark : (r, c) float32, (P, Q) float32, or None
        On its grid, and of each pixel.
    distance : (1,) float32, or None
        Of the near field: by how much longer than that of the problem, in units of that stated.
    spread : (3 + M,) float64
        Standard deviation of the prior of positions along y and x, px, of log doses, and of the
        weights of each variation.
    ridge : (1,) float64
        As a share of the largest diagonal element.
    far : bool
        Whether roots of counts are still compared, see `model.noise`.
    """

    positions: Array = None
    measured: Array = None
    log_scale: Array = None
    variations: Array = None
    weights: Array = None
    background: Array = None
    dark: Array = None
    distance: Array = None
    corners: Array = None
    spread: Array = None
    ridge: Array = None
    far: bool = True


@dataclass(frozen=True, kw_only=True)
class ML(Engine):
    r"""(J^T Pi J + ridge) dx = -gradient by conjugate gradients, positions and doses eliminated;
    steps never raise the cost.

    One pass is one step, with as many Fourier transforms as 10 to 40 passes of rPIE; 10 to 20 steps
    from a result of another engine are usual. Where no result to start from is given, 20 passes of
    rPIE come first.

    Parameters
    ----------
    positions : bool
        Refine the position of each frame.
    positions_start, positions_every : int
        First step (from 0) that moves positions, and how many steps apart they move.
    dose : bool
        Refine the dose of each frame.
    dose_start : int
        First step (from 0) that moves doses.
    probe : bool
        Refine the probe; false keeps it as it is given.
    probe_start : int
        First step (from 0) that moves the probe.
    variations : int
        Ways in which the first mode of the probe varies from frame to frame.
    variations_start : int
        First step (from 0) that moves them.
    background : bool
        Refine a background: counts, the same in all frames, that come from no wave. Weak modes of
        the probe look like it.
    background_start : int
        First step (from 0) that moves it.
    background_distance : float, optional
        Between two points of the grid on which it is found, detector pixels; 1 gives each pixel its
        own. Default an eighth of a frame, from 4 to 8.
    distance : bool
        Refine the distance from the object to the detector, in the near field.
    distance_start : int
        First step (from 0) that moves it.
    position_spread : float, optional
        Expected standard deviation of the position errors, object pixels; default learned from the
        data.
    dose_spread : float, optional
        Expected relative standard deviation of the doses, as an amplitude; default learned from the
        data.
    iterations : int
        Products with the Gauss-Newton matrix in a step, at most.
    tolerance : float in (0, 1)
        Relative residual at which the equations of a step count as solved.
    detector : float in (0, 1]
        Share of the detector, from its middle to its nearest edge, that is compared. Less than 1
        begins from an object without finer details, and reports no R. Far field only.
    likelihood : {"auto", "counts", "roots"}
        What is compared of counts once steps are small: counts themselves, which is best where the
        model holds, or their roots throughout, which dark pixels that the model does not explain
        mislead less. "auto" takes roots where the misfit is more than the noise makes of it.
    depth : float
        How strongly neighbouring slices of a thick specimen are held together, as a share of what
        the data say of a pixel where they say most: tau of tau/2 sum_s |O_s+1 - O_s|^2.
    smoothness : float
        A prior of smooth objects in the same units: s of s/2 sum_r |grad O|^2; 1e-3 to 1e-1 where
        counts are few.
    variation : float
        A prior of little total variation, which leaves edges: v of v sum_r |grad O|, in the same
        units times |O|; 1e-3 to 3e-2 where counts are few.
    """

    name: ClassVar[str] = "ml"
    title: ClassVar[str] = (
        "maximum likelihood, joint Gauss-Newton steps: object, probe, positions and doses at once"
    )
    moves: ClassVar[frozenset[str]] = frozenset(
        {"object", "probe", "positions", "log_scale", "variations", "weights"}
        | {"background", "distance"}
    )
    copes: ClassVar[frozenset[str]] = Engine.copes | {"background", "slices", "spread"}
    schedule: ClassVar[str] = "parallel"
    needs_guess: ClassVar[bool] = True
    begins_with: ClassVar[tuple[str, int] | None] = ("rpie", 20)
    instead: ClassVar[str] = (
        "its priors weigh what is known against the data: smoothness, variation (edges stay) and, "
        "of slices, depth"
    )
    keeps: ClassVar[Keeps] = Keeps(
        object_bytes=96,
        stack="waves",
        stack_bytes=40,
        frame_bytes=32,
        counts=True,
        streams=False,
        compile_seconds=5,
    )
    positions: bool = False
    positions_start: int = 0
    positions_every: int = 1
    dose: bool = False
    dose_start: int = 0
    probe: bool = True
    probe_start: int = 0
    variations: int = 0
    variations_start: int = 0
    background: bool = False
    background_start: int = 0
    background_distance: float | None = None
    distance: bool = False
    distance_start: int = 0
    position_spread: float | None = None
    dose_spread: float | None = None
    iterations: int = 40
    tolerance: float = 1e-2
    detector: float = 1.0
    likelihood: str = "auto"
    depth: float = 0.0
    smoothness: float = 0.0
    variation: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            *("probe_start", "positions_start", "dose_start"),
            *("variations", "variations_start", "background_start", "distance_start"),
        ):
            check_range(name, getattr(self, name), 0, 1e9, open_low=False)
        check_range("positions_every", self.positions_every, 1, 1e9, open_low=False)
        check_range("background_distance", self.background_distance, 1, 1e6, open_low=False)
        check_range("position_spread", self.position_spread, 0, 1e6)
        check_range("dose_spread", self.dose_spread, 0, 10)
        check_range("iterations", self.iterations, 1, 10000, open_low=False)
        check_range("tolerance", self.tolerance, 0, 0.999)
        check_range("detector", self.detector, 0, 1)
        for name in ("depth", "smoothness", "variation"):
            check_range(name, getattr(self, name), 0, 1e6, open_low=False)
        if self.likelihood not in LIKELIHOODS:
            raise PtychonError(
                f"likelihood is {self.likelihood!r}; choose {', '.join(LIKELIHOODS)}"
            )

    @property
    def moves_probe(self) -> bool:
        """Whether the probe is refined."""
        return self.probe

    @property
    def varies_probe(self) -> bool:
        return self.variations > 0

    def probe_moves_at(self, epoch: int) -> bool:
        return self.probe and epoch >= self.probe_start

    def own(self, epoch: int) -> tuple[str, ...]:
        """What is refined of each frame in a step: eliminated from it."""
        place = After(self.positions_start, self.positions_every)
        moved = {
            "positions": self.positions and place.moves(epoch),
            "log_scale": self.dose and epoch >= self.dose_start,
            "weights": self.variations and epoch >= self.variations_start,
        }
        return tuple(name for name, moves in moved.items() if moves)

    def timed(self, name: str, when: bool | After) -> dict[str, Any]:
        found = timed_variations(self, name, when)
        return super().timed(name, when) if found is None else found

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
                state.object = smooth(state.object, self.detector / 2, ctx.backend)
        x = self.unknowns(state, problem)
        model = replace(
            self.model(problem, ctx.backend), corners=ctx.backend.to_host(state.corners)
        )
        if self.background:
            model = replace(
                model, detector=replace(model.detector, between=grid(self, problem, ctx))
            )
        fit, H, diagonal = self._fitted(state, problem, model, x, own, free)
        if "weights" in own and not bool((state.weights != 0).any()):
            still = replace(x, variations=None, weights=None)
            x.variations, x.weights = first_variations(fit, still, self.variations)
            fit, H, diagonal = self._fitted(state, problem, model, x, own, free)
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
        extra["cost"] = after.total
        self._take(state, new, H, model, free, own)
        state.epoch += 1
        if self.positions:
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

    def _fit(
        self, state: MLState, problem: Problem, model: Model, x: Unknowns, own: tuple[str, ...]
    ) -> Fit:
        doses = "log_scale" in own
        prior = Unknowns(
            positions=state.spread[:2] ** -2 if "positions" in own else None,
            log_scale=(state.spread[2] ** -2).astype("float32") if doses else None,
            weights=(state.spread[3:] ** -2).astype("float32") if "weights" in own else None,
        )
        noise = noise_of(problem)
        first = Likelihood(problem, noise.fitted(1.0) if noise.learned else noise, roots=True)
        fit = Fit(model, problem, first, prior, Unknowns(positions=self._expected(state)))
        if noise.learned:
            # nobody knows the noise: the misfit is all that says how much to trust the frames
            valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
            least = max(1e-12 * float((problem.amplitude**2).mean(dtype="float64")), 1e-30)
            v = learned_variance(fit.cost(x).misfit, valid, least=least * valid)
            return replace(fit, likelihood=Likelihood(problem, noise.fitted(v)))
        return fit if state.far else replace(fit, likelihood=replace(first, roots=False))

    def _expected(self, state: MLState) -> Array:
        """Where positions are expected: where the data state them, or, where their spread is
        learned, in a scan that is scaled, turned and sheared like that found so far.
        """
        if not self.positions or self.position_spread or len(state.measured) < MANY:
            return state.measured
        return affine(state.measured, state.positions)

    def _fitted(
        self,
        state: MLState,
        problem: Problem,
        model: Model,
        x: Unknowns,
        own: tuple[str, ...],
        free: bool,
    ) -> tuple[Fit, GaussNewton, Unknowns]:
        """What is minimised, the operator at x and its diagonal; all with a prior that holds the
        object where hardly any light reaches it.
        """
        fit = self._fit(state, problem, model, x, own)
        update: tuple[str, ...] = ("object", "probe") if free else ("object",)
        update += ("variations",) if "weights" in own else ()
        darkens = self.background and state.epoch >= self.background_start
        update += ("background",) if darkens else ()
        update += ("distance",) if self.distance and state.epoch >= self.distance_start else ()
        H = GaussNewton(model, x, update, own, fit.likelihood.information, fit.prior)
        diagonal = H.diagonal()
        light = diagonal.object / diagonal.object.max()
        weak = (HELD * diagonal.object.max() / (1 + (light / DARK) ** 2)).astype(light.dtype)
        usual = model.backend.xp.stack(
            [(lit * O).sum() / lit.sum() for lit, O in zip(light, x.object, strict=True)]
        )[:, None, None]
        fit = replace(
            fit,
            prior=replace(fit.prior, object=weak),
            middle=replace(fit.middle, object=usual.astype(x.object.dtype)),
            between=self.depth * float(diagonal.object.max()) if len(x.object) > 1 else 0.0,
            rough=self._roughness(x.object, light, float(diagonal.object.max())),
        )
        H.prior, H.between, H.rough = fit.prior, fit.between, fit.rough
        diagonal = diagonal.axpy(1, Unknowns(object=weak))
        if fit.between:
            held = fit.between * neighbours(len(x.object), model.backend.xp)
            diagonal.object = diagonal.object + held
        if fit.rough is not None:
            diagonal.object = diagonal.object + fit.rough.diagonal()
        return fit, H, diagonal

    def _roughness(self, O: Array, light: Array, most: float) -> Roughness | None:
        """The prior of neighbouring pixels, where there is one: in units of |O| where light is."""
        if not (self.smoothness or self.variation):
            return None
        usual = float((light * abs(O)).sum(dtype="float64") / light.sum(dtype="float64"))
        return Roughness(self.smoothness * most, self.variation * usual * most, EDGE * usual, O)

    def _direction(self, fit: Fit, H: GaussNewton, diagonal: Unknowns, ridge: Array) -> Unknowns:
        """The step."""
        gradient = H.gradient(fit.likelihood.score, fit.held(H.x))
        floor = diagonal.map(lambda array: (ridge * array.max()).astype(array.dtype))
        if gradient.background is not None:
            floor.background = held(H.x.background, gradient.background, floor.background)
        H.prior = H.prior.axpy(1, floor)
        return H.step(gradient, self.tolerance, self.iterations, diagonal.axpy(1, floor))

    def _take(
        self,
        state: MLState,
        new: Unknowns,
        H: GaussNewton,
        model: Model,
        free: bool,
        own: tuple[str, ...],
    ) -> None:
        """A new estimate becomes the state: means go where they belong, windows and modes follow,
        spreads are learned.
        """
        xp = model.backend.xp
        state.object = new.object if state.object.ndim == 3 else new.object[0]
        state.probe, state.variations = new.probe, new.variations
        if free and (self.smoothness or self.variation):
            size = [xp.linalg.norm(object) for object in (H.x.object, new.object)]
            factor = (size[1] / size[0]).astype("float32")
            state.object = state.object / share(factor, state.object)
            illuminate(state, lambda P: P * factor)
        state.background, state.distance = new.background, new.distance
        if "positions" in own:
            off = new.positions - state.measured
            mean = off.mean(axis=0)
            if free:
                y, r = ramps(mean[None], state.probe.shape[-2:], new.precision, xp)
                fft2, ifft2 = model.backend.fft2, model.backend.ifft2
                illuminate(state, lambda P: ifft2(fft2(P) * y[:, :, None] * r[:, None, :]))
                off = off - mean
            state.positions = state.measured + off
            moved = replace(new, positions=state.positions)
            state.corners = xp.asarray(model.follow(moved).corners, "int32")
        if "log_scale" in own:
            strength = xp.exp(new.log_scale.mean(dtype="float64")).astype("float32")
            if free:
                illuminate(state, lambda P: P * strength)
            else:
                state.object = state.object * share(strength, state.object)
            state.log_scale = new.log_scale - xp.log(strength)
            if free:
                level(state, xp)
        if "weights" in own:
            found = settled(state.probe, state.variations, new.weights, xp)
            state.probe, state.variations, state.weights = found
        if own:
            self._learn(state, H, xp, own)

    def _learn(self, state: MLState, H: GaussNewton, xp: Any, own: tuple[str, ...]) -> None:
        """Spreads of the priors that nobody gave, by a step of EM: the mean of (theta - theta_0)^2
        + Var theta.
        """
        variances, spread = H.variances(), state.spread.copy()
        if "positions" in own and not self.position_spread:
            off = state.positions - self._expected(state)
            spread[:2] = xp.sqrt(
                ((off - off.mean(axis=0)) ** 2 + variances.positions).mean(axis=0)
            ).clip(LEAST[0], None)
        if "log_scale" in own and not self.dose_spread:
            square = state.log_scale.astype("float64") ** 2 + variances.log_scale
            spread[2] = xp.sqrt(square.mean()).clip(LEAST[1], None)
        if "weights" in own:
            square = state.weights.astype("float64") ** 2 + variances.weights
            spread[3:] = xp.sqrt(square.mean(axis=0)).clip(LEAST_WEIGHT, None)
        state.spread = xp.maximum(spread, SHRINK * state.spread)


def distances(shape: tuple[int, int], xp: Any) -> Array:
    """Of each frequency of an FFT from 0, cycles a pixel."""
    return xp.hypot(frequencies(shape[0], xp)[:, None], frequencies(shape[1], xp))


def smooth(field: Array, cut: float, backend: Any) -> Array:
    """A field (..., H, W) without what has more than `cut` cycles a pixel, softly."""
    far = distances(field.shape[-2:], backend.xp) / cut
    return backend.ifft2(backend.fft2(field) * backend.xp.exp(-0.5 * far**8).astype("float32"))
