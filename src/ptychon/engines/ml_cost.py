"""What a joint step of the engine "ml" minimises: the likelihood of the frames and the priors, and
the Gauss-Newton operator of both.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.fit import Fit
from ..model.forward import Model
from ..model.gauss_newton import GaussNewton
from ..model.noise import Likelihood, learned_variance, noise_of
from ..model.problem import Problem
from ..model.roughness import Roughness
from ..model.slices import neighbours
from ..model.unknowns import Unknowns
from ..types import Array
from .ml_options import MLOptions
from .ml_state import MLState, expected

#: Where light is less than so much of its largest, the object is held at its mean, by a prior that
#: is so much of the largest diagonal element.
DARK, HELD = 3e-3, 1e-3
#: Differences between neighbouring pixels that total variation takes for edges, in units of |O|.
EDGE = 1e-2


def fitted(
    engine: MLOptions,
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
    fit = _fit(engine, state, problem, model, x, own)
    update: tuple[str, ...] = ("object", "probe") if free else ("object",)
    update += ("variations",) if "weights" in own else ()
    darkens = engine.background and state.epoch >= engine.background_start
    update += ("background",) if darkens else ()
    update += ("distance",) if engine.distance and state.epoch >= engine.distance_start else ()
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
        between=engine.depth * float(diagonal.object.max()) if len(x.object) > 1 else 0.0,
        rough=_roughness(engine, x.object, light, float(diagonal.object.max())),
    )
    H.prior, H.between, H.rough = fit.prior, fit.between, fit.rough
    diagonal = diagonal.axpy(1, Unknowns(object=weak))
    if fit.between:
        held = fit.between * neighbours(len(x.object), model.backend.xp)
        diagonal.object = diagonal.object + held
    if fit.rough is not None:
        diagonal.object = diagonal.object + fit.rough.diagonal()
    return fit, H, diagonal


def _fit(
    engine: MLOptions,
    state: MLState,
    problem: Problem,
    model: Model,
    x: Unknowns,
    own: tuple[str, ...],
) -> Fit:
    doses = "log_scale" in own
    prior = Unknowns(
        positions=state.spread[:2] ** -2 if "positions" in own else None,
        log_scale=(state.spread[2] ** -2).astype("float32") if doses else None,
        weights=(state.spread[3:] ** -2).astype("float32") if "weights" in own else None,
    )
    noise = noise_of(problem)
    first = Likelihood(problem, noise.fitted(1.0) if noise.learned else noise, roots=True)
    fit = Fit(model, problem, first, prior, Unknowns(positions=expected(engine, state)))
    if noise.learned:
        # nobody knows the noise: the misfit is all that says how much to trust the frames
        valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
        least = max(1e-12 * float((problem.amplitude**2).mean(dtype="float64")), 1e-30)
        v = learned_variance(fit.cost(x).misfit, valid, least=least * valid)
        return replace(fit, likelihood=Likelihood(problem, noise.fitted(v)))
    return fit if state.far else replace(fit, likelihood=replace(first, roots=False))


def _roughness(engine: MLOptions, O: Array, light: Array, most: float) -> Roughness | None:
    """The prior of neighbouring pixels, where there is one: in units of |O| where light is."""
    if not (engine.smoothness or engine.variation):
        return None
    usual = float((light * abs(O)).sum(dtype="float64") / light.sum(dtype="float64"))
    return Roughness(engine.smoothness * most, engine.variation * usual * most, EDGE * usual, O)
