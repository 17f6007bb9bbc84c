r"""What each frame alone says of its position and its dose, and all of them together of the
background, while object and probe stay as they are: for engines that know of none of these and take
turns with it.

With m_j(q) the amplitude that the model expects, y_j the measured one, D_j = d m_j/d theta and
theta the position of the frame (2 numbers), the logarithm of its dose (1), or both,

    theta <- theta + (D^T D + v_j/limit^2)^-1 D^T (y_j - m_j)           sums over valid pixels

with v_j the mean square misfit of the frame, so that one without texture stays where it is: its
expected move is `limit` at most. It is the least-squares step to first order (Guizar-Sicairos &
Fienup, Opt. Express 16, 7264 (2008), there with D of the wave). From further off there are trials:
each frame is put at some places around, and stays at the one where it fits best (Maiden et al.,
Ultramicroscopy 120, 64 (2012)).

The background is multiplied by the mean of what was counted, n_j, over what was expected,

    b <- b mean_j n_j/lambda_j,                         lambda_j with b in it

a step of expectation-maximisation for Poisson counts: it never becomes negative, and stops where
the derivative of their likelihood by b is 0 (Richardson, J. Opt. Soc. Am. 62, 55 (1972); Shepp &
Vardi, IEEE Trans. Med. Imaging 1, 113 (1982)). With roots of counts it would be a third too small
where few are expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..kernels.turns import Normals, Seen
from ..types import COMPLEX, REAL, Array, FloatArray
from .detector import Detector, blur
from .forward import Model
from .frames import Eliminated
from .gauss_newton import GaussNewton
from .grid import windows
from .illumination import Illumination
from .noise import Likelihood, Noise
from .problem import Problem
from .specimen import Specimen
from .unknowns import Unknowns
from .view import View

#: Variance that weights of the amplitude are stated for; it cancels.
UNIT = Noise(variance=1.0)


class Steps(NamedTuple):
    """theta of each frame (N, n), and the mean square misfit a valid pixel (N,), on the device."""

    change: Array
    misfit: Array


def views(model: Model, x: Unknowns) -> Iterator[tuple[slice, View]]:
    """All frames in blocks, and what they see."""
    for block in GaussNewton.slices(x, len(model)):
        yield block, model.view(x, block)


def frame_steps(
    model: Model, problem: Problem, x: Unknowns, names: Sequence[str], limits: Sequence[float]
) -> Steps:
    """The step of each frame.

    Parameters
    ----------
    model : Model
    problem : Problem
        With the amplitudes to compare, on the device of the model.
    x : Unknowns
        With those that are named.
    names : sequence of str
        Of "positions" and "log_scale".
    limits : sequence of float
        Expected size of a step, for each number of a frame: px, px, and 1 for 100 % of the dose.
    """
    xp, likelihood = model.backend.xp, Likelihood(problem, UNIT)
    expected, parts = xp.asarray(limits, "float64") ** -2, []
    if thin(model, x):
        for block, seen in _all_seen(model, x):
            misfit, matrix, right = _normals(model, problem, seen, block, names)
            index = xp.arange(len(expected))
            matrix[:, index, index] += misfit[:, None] * expected + 1e-30
            parts.append((-xp.linalg.solve(matrix, right[..., None])[..., 0], misfit))
        return Steps(*(xp.concatenate(part) for part in zip(*parts, strict=True)))
    for block, view in views(model, x):
        light = model.intensity(view)
        misfit = _misfit(problem, light, block, xp)
        weight = likelihood.information(light, block)
        prior = misfit[:, None] * expected + 1e-30
        own = Eliminated.of(model, view, weight, names, prior)
        parts.append((-own.solved(own.along(likelihood.score(light, block))), misfit))
    return Steps(*(xp.concatenate(part) for part in zip(*parts, strict=True)))


def best_of(
    model: Model, problem: Problem, x: Unknowns, trials: FloatArray, most: FloatArray | None = None
) -> FloatArray:
    """The position of each frame at which it fits best: (N, 2) float64, on the host.

    Parameters
    ----------
    trials : (T, N, 2) float64, on the host
        Places to compare with those of `x`; a place that is no better does not count.
    most : (N,) float64, optional
        Misfit above which a place does not count either.
    """
    host, move, xp = model.backend.to_host, model.backend.asarray, model.backend.xp
    shape = int(x.probe.shape[-2]), int(x.probe.shape[-1])
    best = host(x.positions).copy()
    least = host(misfits(model, problem, x))
    least = least if most is None else np.minimum(least, most)
    for places in trials:
        around = windows(places, shape, object_shape=tuple(x.object.shape[-2:]))
        tried = replace(model, corners=around)
        found = host(misfits(tried, problem, replace(x, positions=move(xp.asarray(places)))))
        better = found < least
        best[better], least[better] = places[better], found[better]
    return best  # type: ignore[no-any-return]


def misfits(model: Model, problem: Problem, x: Unknowns) -> Array:
    """Mean square misfit of the amplitude a valid pixel, of each frame: (N,) float64."""
    xp = model.backend.xp
    if thin(model, x):
        parts = [_normals(model, problem, seen, b, ()).misfit for b, seen in _all_seen(model, x)]
    else:
        parts = [_misfit(problem, model.intensity(view), b, xp) for b, view in views(model, x)]
    return xp.concatenate(parts)


def thin(model: Model, x: Unknowns) -> bool:
    """Whether kernels know what frames see: a thin object in single precision, on a detector of
    which no pixel sees the light of another, and no background in the model.
    """
    simple = type(model.specimen) is Specimen and type(model.illumination) is Illumination
    of = model.detector
    dark = of.background is not None or x.background is not None
    plain = type(of) is Detector and of.spread is None and not dark
    return simple and plain and len(x.object) == 1 and x.variations is None and _single(x)


def _single(x: Unknowns) -> bool:
    return x.precision == "single" and x.positions is not None


def _all_seen(model: Model, x: Unknowns) -> Iterator[tuple[slice, Seen]]:
    """All frames in blocks, as kernels take them."""
    xp, transfer = model.backend.xp, model.detector.propagator.free
    for b in GaussNewton.slices(x, len(model)):
        view = model.placed(x, b)
        own = view.ramps
        if own is None:
            y, r = (xp.ones((len(view.corners), n), COMPLEX) for n in view.shape)
            own = y, r
        strength = xp.ones(len(view.corners), REAL)
        if x.log_scale is not None:
            strength = xp.exp(x.log_scale[b]).astype(REAL)
        H = None if transfer is None else transfer.astype(COMPLEX, copy=False)
        yield b, Seen(x.probe, x.object[0], view.corners, *own, strength, H)


def _normals(model: Model, problem: Problem, seen: Seen, b: slice, names: Sequence[str]) -> Normals:
    """Normal equations of some frames, and their mean square misfit a valid pixel."""
    xp, backend, mask = model.backend.xp, model.backend, problem.mask_of(b)
    own = "positions" in names, "log_scale" in names
    found: Normals = backend.kernels.frame_normals(
        seen, problem.amplitude[b], mask, *own, backend.threads or 1
    )
    pixels = xp.broadcast_to(mask.sum(axis=(1, 2)), found.misfit.shape).clip(1, None)
    return found._replace(misfit=found.misfit / pixels)


def _lights(model: Model, x: Unknowns) -> Iterator[tuple[slice, Array]]:
    """What is expected of all frames, in blocks."""
    if thin(model, x):
        backend = model.backend
        for b, seen in _all_seen(model, x):
            yield b, backend.kernels.frame_light(seen, backend.threads or 1)
    else:
        for b, view in views(model, x):
            yield b, model.intensity(view)


def _misfit(problem: Problem, light: Array, block: slice, xp: Any) -> Array:
    valid = xp.broadcast_to(problem.mask_of(block), light.shape)
    off = xp.where(valid, xp.sqrt(light.clip(0, None)) - problem.amplitude[block], 0)
    pixels = valid.sum(axis=(1, 2)).clip(1, None)
    return (off * off).sum(axis=(1, 2), dtype="float64") / pixels


def background_step(
    model: Model, pattern: Array, problem: Problem, x: Unknowns, dark: Array, smooth: float
) -> Array:
    """The background after a step, (P, Q) float64.

    Parameters
    ----------
    model : Model
        Of the waves alone.
    pattern : (N, P, Q) float
        Counts, on the device.
    problem : Problem
        Of which the masks are taken.
    x : Unknowns
    dark : (P, Q) float64
        Before the step.
    smooth : float
        Standard deviation of the Gaussian it is smoothed with, pixels; 0 for none.
    """
    xp = model.backend.xp
    ratio, seen = xp.zeros(dark.shape, "float64"), xp.zeros(dark.shape, "float64")
    for block, waves in _lights(model, x):
        valid = xp.broadcast_to(problem.mask_of(block), pattern[block].shape)
        light = waves + dark.astype("float32")
        quotient = pattern[block].clip(0, None) / light.clip(1e-20, None)
        ratio += xp.where(valid, quotient, 0).sum(axis=0, dtype="float64")
        seen += valid.sum(axis=0)
    ratio = xp.where(seen > 0, ratio / seen.clip(1, None), 1)
    new = dark * ratio
    if smooth <= 0:
        return new
    # pixels that no frame has counted say nothing, and take what is around them
    spread = blur((int(dark.shape[0]), int(dark.shape[1])), smooth).to(model.backend)
    share = (seen > 0).astype("float64")
    return spread.forward(new * share) / spread.forward(share).clip(1e-12, None)
