"""What a joint step leaves: the state of the engine "ml", means that go where they belong, and
spreads that are learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..model.forward import Model
from ..model.gauss_newton import GaussNewton
from ..model.illumination import ramps
from ..model.slices import share
from ..model.unknowns import Unknowns
from ..types import Array
from .base import State
from .ml_options import MLOptions
from .undetermined import affine, illuminate, level
from .varying import settled

#: Least that a learned spread of positions (px), of log doses and of weights may become.
LEAST, LEAST_WEIGHT = (0.02, 1e-3), 1e-4
#: By how much a learned spread may shrink in a step: a prior that is narrow too soon holds soft
#: errors, a drift say, for long.
SHRINK = 0.7
#: Frames from which on a scan may be scaled, turned and sheared as a whole.
MANY = 12


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


def expected(engine: MLOptions, state: MLState) -> Array:
    """Where positions are expected: where the data state them, or, where their spread is
    learned, in a scan that is scaled, turned and sheared like that found so far.
    """
    if not engine.positions or engine.position_spread or len(state.measured) < MANY:
        return state.measured
    return affine(state.measured, state.positions)


def take(
    engine: MLOptions,
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
    if free and (engine.smoothness or engine.variation):
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
        learn(engine, state, H, xp, own)


def learn(engine: MLOptions, state: MLState, H: GaussNewton, xp: Any, own: tuple[str, ...]) -> None:
    """Spreads of the priors that nobody gave, by a step of EM: the mean of (theta - theta_0)^2
    + Var theta.
    """
    variances, spread = H.variances(), state.spread.copy()
    if "positions" in own and not engine.position_spread:
        off = state.positions - expected(engine, state)
        spread[:2] = xp.sqrt(
            ((off - off.mean(axis=0)) ** 2 + variances.positions).mean(axis=0)
        ).clip(LEAST[0], None)
    if "log_scale" in own and not engine.dose_spread:
        square = state.log_scale.astype("float64") ** 2 + variances.log_scale
        spread[2] = xp.sqrt(square.mean()).clip(LEAST[1], None)
    if "weights" in own:
        square = state.weights.astype("float64") ** 2 + variances.weights
        spread[3:] = xp.sqrt(square.mean(axis=0)).clip(LEAST_WEIGHT, None)
    state.spread = xp.maximum(spread, SHRINK * state.spread)
