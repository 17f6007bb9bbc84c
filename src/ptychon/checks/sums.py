r"""One pass over the data for `predictive`: misfits, what is expected of them, doses and
translations, by frame and by pixel.

With z = F[P O] of the object that was found and draws x_s of its error

    V = mean_s |F[P x_s]|^2,  A = mean_s (Re z* F[P x_s]/|z|)^2,  m = |z|^2 + V   expected counts

(and B where there is a background; N = n + r^2 is then what was counted, see `Problem`.)

New data would deviate from the model by noise and by its error, v + A. These are the data that the
model was fitted to, and the error has made it follow their noise: Cov(y - y^) = v - A exactly, in a
linear model with a Gaussian prior. So a misfit with the expectation e is expected to be e (1 - h),
h = A/v, 4 A |z|^2/(m + 3/8) for counts. Its sum over a frame or a pixel is kept by classes of
brightness, so that what the posterior has wrong for all bright, or all dark, pixels is not put on
any one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.result import Result
from ..metrics.residual import illumination
from ..model.batch import Batch, exit_wave
from ..model.noise import Noise, counts_of
from ..model.noise.moments import square
from ..model.problem import Problem
from ..types import FloatArray, PtychonError

#: Bytes of waves computed at a time.
BLOCK_BYTES = 24 * 2**20
#: Upper limits of the classes of brightness: counts, or |z|^2/v where they are not counts.
CLASSES = (*(10.0 ** (k / 2) for k in range(-6, 4)), 1e2, 1e3, 1e4)
#: Largest share of its noise that a pixel is taken to have put into the model.
MOST_FITTED = 0.95
#: Misfit beyond which a pixel does not count for the level of its class, where frames hold too few
#: of it for a median.
CAP = 25.0


@dataclass
class Sums:
    """What one pass gathers; C classes.

    Attributes
    ----------
    misfit : (N, C) float64
        Sum of q of the pixels of a class in a frame.
    expected : (3, N, C) float64
        Sums of its cumulants, what was fitted already taken off.
    pixel_misfit : (P, Q) float64 and pixel_expected : (3, C, P, Q) float64
        The same by detector pixels.
    counted : (P, Q) and foretold : (C, P, Q) float64
        Sum over frames of counts and of m; of y and of |model| where they are not counts.
    spread : (C, P, Q) float64
        Variance of what was counted.
    capped, heard : (C,) float64
        Sum of min(q, CAP), and of min(count, m + 5 sqrt m + 5), by class.
    foretold_dose, dose : (N,) float64
    normal : (N, 2, 2) and pull : (N, 2) float64
        Normal equations of the translation of each frame.
    fitted : (N,) float64
        Mean h of a frame, weighted by e.
    """

    misfit: FloatArray
    expected: FloatArray
    pixel_misfit: FloatArray
    pixel_expected: FloatArray
    counted: FloatArray
    foretold: FloatArray
    spread: FloatArray
    capped: FloatArray
    heard: FloatArray
    dose: FloatArray
    foretold_dose: FloatArray
    normal: FloatArray
    pull: FloatArray
    fitted: FloatArray
    seen: FloatArray = field(default_factory=lambda: np.zeros(0))


def empty(problem: Problem) -> Sums:
    n, (p, q), c = len(problem), problem.frame_shape, len(CLASSES) + 1
    shapes = {
        "misfit": (n, c),
        "expected": (3, n, c),
        "pixel_misfit": (p, q),
        "pixel_expected": (3, c, p, q),
        "counted": (p, q),
        "foretold": (c, p, q),
        "spread": (c, p, q),
        "capped": (c,),
        "heard": (c,),
        "dose": (n,),
        "foretold_dose": (n,),
        "normal": (n, 2, 2),
        "pull": (n, 2),
        "fitted": (n,),
        "seen": (p, q),
    }
    return Sums(**{name: np.zeros(shape) for name, shape in shapes.items()})


def collect(problem: Problem, result: Result, noise: Noise, backend: Any) -> Sums:
    """The pass.

    Parameters
    ----------
    problem : Problem
        On the host.
    result : Result
    noise : Noise
        Its variance known, of all frames or of each.
    backend : Backend
    """
    made, modes = empty(problem), len(result.probe)
    p, q = problem.frame_shape
    draws = result.draws if result.draws is not None and len(result.draws) else None
    uncertain = _without_draws(problem, result) if draws is None else None
    move, k = backend.asarray, backend.kernels
    slopes = [
        (np.roll(result.object, -1, axis) - np.roll(result.object, 1, axis)) / 2 for axis in (0, 1)
    ]
    fields = [
        move(np.ascontiguousarray(f))
        for f in (result.object, *slopes, *(() if draws is None else draws))
    ]
    probe = move(np.ascontiguousarray(result.probe))
    local = replace(problem, propagator=problem.propagator.to(backend))
    size = max(1, BLOCK_BYTES // (8 * modes * p * q))
    for first in range(0, len(problem), size):
        b = slice(first, min(first + size, len(problem)))
        frames = Batch.of(local, backend, b)
        shifted = frames.probe(probe)

        def wave(field: Any, frames: Batch = frames, shifted: Any = shifted) -> Any:
            return frames.onward(exit_wave(shifted, frames.window(field)))

        z = wave(fields[0])
        power = backend.to_host(k.abs2(z).sum(axis=1)).astype(np.float64)
        inner = [
            backend.to_host((z.conj() * wave(f)).sum(axis=1).real).astype(np.float64)
            for f in fields[1:3]
        ]
        V, along = np.zeros_like(power), np.zeros_like(power)
        if draws is not None:
            for f in fields[3:]:
                x = wave(f)
                V += backend.to_host(k.abs2(x).sum(axis=1)) / len(draws)
                along += backend.to_host((z.conj() * x).sum(axis=1).real).astype(
                    np.float64
                ) ** 2 / len(draws)
            along /= np.maximum(power, 1e-12)
        elif uncertain is not None:
            V += uncertain[b][:, None, None]
            along += uncertain[b][:, None, None] / 2
        _add(made, problem, b, (power, V, along), inner, noise.at(b))
    return made


def _without_draws(problem: Problem, result: Result) -> FloatArray | None:
    """V of each frame from the standard deviation alone: what its light sees of it, evenly over the
    detector, by Parseval.
    """
    if result.object_std is None:
        return None
    light = (np.abs(result.probe) ** 2).sum(axis=0)
    p, q = problem.frame_shape
    square = np.asarray(result.object_std, np.float64) ** 2
    return np.array(
        [
            float((light * square[y : y + p, x : x + q]).sum()) / (p * q)
            for y, x in problem.corners.tolist()
        ]
    )


def shared(problem: Problem, result: Result) -> FloatArray:
    """Share of its pixels that each frame spends on unknowns of the object where no bars tell: (N,)
    float64.
    """
    light = illumination(problem, result.probe)
    own = (np.abs(result.probe) ** 2).sum(axis=0)
    p, q = problem.frame_shape
    part = np.divide(1.0, light, out=np.zeros_like(light), where=light > 1e-3 * light.max())
    return np.array(
        [
            2 * float((own * part[y : y + p, x : x + q]).sum()) / (p * q)
            for y, x in problem.corners.tolist()
        ]
    )


def _add(
    made: Sums, problem: Problem, b: slice, waves: Any, inner: list[FloatArray], noise: Noise
) -> None:
    """The sums of a block of B frames."""
    power, V, along = waves
    y = np.asarray(problem.amplitude[b], np.float64)
    valid = np.broadcast_to(problem.mask_of(b), y.shape)
    mean, dark = power + V, np.zeros(())
    if noise.kind == "poisson":
        counted = counts_of(problem, b, np.float64)
        if problem.background is not None:
            # N ~ Poisson(mean + B): what was counted includes the background
            dark = np.asarray(problem.background, np.float64)
            mean = mean + dark
        size, foretold, spread = mean, mean, mean
        waves = counted - dark, mean - dark
    else:
        v = np.asarray(noise.per_pixel, np.float64)
        counted, size, foretold, spread = y, mean / v, np.sqrt(mean), v
        waves = y**2, square(np.sqrt(mean / v)) * v
    residual, slope = noise.standardised(counted, mean), noise.sensitivity(mean)
    q, (one, two, three) = residual**2, noise.cumulants(mean)
    h = along * power * slope**2
    spread = spread if noise.kind == "poisson" else spread * one
    left = np.clip(1 - h, 1 - MOST_FITTED, 1)
    kind, c = np.searchsorted(CLASSES, size), len(CLASSES) + 1
    n, pixels = len(y), y[0].size
    flat = (kind + c * np.arange(n)[:, None, None])[valid]
    spot = (kind * pixels + np.arange(pixels).reshape(y.shape[1:]))[valid]

    def frames(x: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(flat, x[valid], n * c).reshape(n, c), np.float64)

    def detector(x: FloatArray) -> FloatArray:
        return np.asarray(
            np.bincount(spot, x[valid], c * pixels).reshape(c, *y.shape[1:]), np.float64
        )

    made.misfit[b] = frames(q)
    for i, x in enumerate((one * left, two * left**2, three * left**3)):
        made.expected[i, b] = frames(x)
        made.pixel_expected[i] += detector(x)
    made.pixel_misfit += np.where(valid, q, 0).sum(axis=0)
    made.counted += np.where(valid, counted, 0).sum(axis=0)
    made.foretold += detector(foretold)
    made.spread += detector(spread * left)
    made.capped += np.bincount(kind[valid], np.minimum(q, CAP)[valid], c)
    made.heard += np.bincount(
        kind[valid], np.minimum(counted, foretold + 5 * np.sqrt(spread) + 5)[valid], c
    )
    made.seen += valid.sum(axis=0)
    made.dose[b], made.foretold_dose[b] = (np.where(valid, x, 0).sum(axis=(1, 2)) for x in waves)
    plain = np.where(valid, one, 0).sum(axis=(1, 2))
    made.fitted[b] = 1 - np.divide(
        made.expected[0, b].sum(axis=1), plain, out=np.ones_like(plain), where=plain > 0
    )
    gradient = np.where(valid, np.stack(inner, axis=1).swapaxes(0, 1) * slope, 0)
    made.normal[b] = np.einsum("anij,bnij->nab", gradient, gradient)
    made.pull[b] = np.einsum("anij,nij->na", gradient, residual)


def check_belongs(problem: Problem, result: Result) -> None:
    """Refuse a result of other data.

    Raises
    ------
    PtychonError
    """
    if len(result.positions) != len(problem) or result.object.shape != tuple(problem.field_shape):
        raise PtychonError(
            f"the data now give {len(problem)} frames on an object of {problem.field_shape}; "
            "the result has "
            f"{len(result.positions)} on {result.object.shape}: "
            "give the data as the result read them (frames, crop, bin)"
        )
