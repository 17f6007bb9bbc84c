"""Numbers that say how good a reconstruction is.

What the data say: the residual, with object and probe held still and all modes k added in
intensity,

    R = sqrt( sum_j sum_valid (sqrt(sum_k |z_jk|^2) - y_j)^2 / sum_j sum_valid y_j^2 ),
    z_jk = F[ P_k(r - shift_j) O_j ].

It falls below its value at the true object where a reconstruction fits the noise, so it does not
measure the object's error.

What a known truth says, modulo the ambiguities (`pmse`, `align`; see `ptychon.alignment`); what two
independent reconstructions say (`frc`; see `ptychon.metrics.frc`); and whether the error bars are
right (`coverage`). If the error of the complex object is circular and Gaussian with the standard
deviation sigma(r) stated, u = |error|/sigma has

    P(u < t) = 1 - exp(-t^2),  mean u^2 = 1,  median u = sqrt(ln 2) = 0.8326,  P(1/2 < u < 2) =
    0.7605.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..kernels import reference
from ..model.batch import Batch, shifted_probes
from ..model.fit import excess
from ..model.forward import Model, of_waves, unknowns_of
from ..model.noise import learned_variance, noise_of
from ..model.problem import Problem
from ..types import COMPLEX, Array, BoolArray, ComplexArray, FloatArray, PtychonError
from .alignment import Alignment, Region, align, inside_region, phase_align, pmse
from .frc import RingCorrelation, frc
from .registration import phase_ramp

__all__ = [
    "Alignment",
    "Coverage",
    "Region",
    "RingCorrelation",
    "align",
    "coverage",
    "frc",
    "illuminated",
    "illumination",
    "misfit_over_noise",
    "phase_align",
    "phase_ramp",
    "pmse",
    "probe_at_rim",
    "residual",
    "residual_per_frame",
    "residual_without_object",
    "sampling_ratio",
]

#: Bytes of complex waves that are computed at a time.
BLOCK_BYTES = 32 * 2**20
#: Width of the rim of a probe's window on each side, in sides of the window.
RIM = 0.05
#: A probe with more of its power than this at the rim is cut off by its window (a disc that just
#: touches the rim has 6 %).
CUT_OFF = 0.1
#: Probabilities at which `coverage` looks.
PROBABILITIES = (0.5, 0.683, 0.9, 0.95, 0.99)


def shares_in_words(covered: Sequence[float]) -> str:
    """What bars cover, "52% for 50%, 69% for 68%", at as many of `PROBABILITIES` as there are."""
    return ", ".join(f"{c:.0%} for {p:.0%}" for c, p in zip(covered, PROBABILITIES, strict=False))


def residual(
    problem: Problem, object: Array, probe: Array, backend: Any = None, model: Model | None = None
) -> float:
    """R of an object and a probe held still.

    Parameters
    ----------
    problem : Problem
    object : (H, W) complex
    probe : (K, P, Q) or (P, Q) complex
    backend : Backend, optional
        Where to compute; the CPU without it. Sums are in float64 on any.
    model : Model, optional
        On the backend; default the usual one of the problem.

    Returns
    -------
    float
        0 for a perfect fit, 1 for a model that is zero.

    Raises
    ------
    PtychonError
        If object or probe do not fit the problem, or the frames hold no signal.
    """
    numerator, denominator = _misfit(problem, object, probe, backend, model)
    if not denominator.sum() > 0:
        raise PtychonError(
            "the frames hold no signal in their valid pixels, so there is no residual"
        )
    return math.sqrt(float(numerator.sum()) / float(denominator.sum()))


def residual_per_frame(
    problem: Problem, object: Array, probe: Array, backend: Any = None
) -> FloatArray:
    """The same as `residual`, for each frame alone: (N,) float64, NaN for frames without signal."""
    numerator, denominator = _misfit(problem, object, probe, backend)
    ratio = np.full(len(problem), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return np.asarray(np.sqrt(ratio))


def variance_left(
    problem: Problem, object: Array, probe: Array, backend: Any = None, taken: float = 0.0
) -> float:
    """Variance of the amplitude noise, where nobody knows it, from the misfit of an object and a
    probe to which `taken` numbers were fitted.
    """
    misfit, power = (part.sum() for part in _misfit(problem, object, probe, backend))
    valid = float(problem.mask.sum()) * (len(problem) // len(problem.mask))
    return learned_variance(float(misfit), valid, taken, least=1e-20 * float(power))


def misfit_over_noise(problem: Problem, object: Array, probe: Array, backend: Any = None) -> float:
    """Squared misfit of an object and a probe in units of what the noise makes of it: 1 where the
    model holds; NaN where nobody knows the noise.

    Parameters
    ----------
    problem : Problem
        On the host.
    object : (H, W) complex
    probe : (K, P, Q) or (P, Q) complex
    backend : Backend, optional
        Where to compute; the CPU without it.
    """
    if backend is None:
        from ..backends import get_backend

        backend = get_backend("numpy")
    noise = noise_of(problem)
    if noise.learned:
        return math.nan
    x = unknowns_of(problem, np.asarray(object, COMPLEX), _modes(problem, probe)).to(backend)
    return excess(Model.of(problem, backend), problem.to(backend), x, noise)


def residual_without_object(problem: Problem, probe: Array, backend: Any = None) -> float:
    """The least R of the same probe behind an object without features, c at every pixel: what R
    must fall below.

    Parameters
    ----------
    problem : Problem
        On the host.
    probe : (K, P, Q) or (P, Q) complex
    backend : Backend, optional
        Where to propagate; the CPU without it.
    """
    cross = power = total = 0.0
    for u in range(len(problem.shifts)):
        frames = np.flatnonzero(problem.shift_index == u)
        model = model_without_object(problem, probe, u, backend)
        for j in frames:
            y, valid = problem.amplitude[j], problem.mask_of(slice(j, j + 1))[0]
            cross += float(np.where(valid, model * y, 0).sum(dtype=np.float64))
            power += float(np.where(valid, model**2, 0).sum(dtype=np.float64))
            total += float(np.where(valid, y**2, 0).sum(dtype=np.float64))
    # min over c of sum (c m - y)^2 = sum y^2 - (sum m y)^2/sum m^2
    return math.sqrt(max(0.0, 1 - cross**2 / max(power * total, 1e-300)))


def model_without_object(problem: Problem, probe: Array, u: int, backend: Any = None) -> FloatArray:
    """|model| with an object of 1 at the sub-pixel shift number `u`, (P, Q) float32 on the host."""
    if backend is None:
        from ..backends import get_backend

        backend = get_backend("numpy")
    modes = _modes(problem, probe)
    exit = shifted_probes(modes, problem, reference, slice(u, u + 1)).astype(COMPLEX)
    local = replace(problem, propagator=problem.propagator.to(backend))
    wave = Batch.nowhere(local, backend, u).onward(backend.asarray(exit))[0]
    model: FloatArray = backend.to_host((wave.real**2 + wave.imag**2).sum(axis=0) ** 0.5)
    return model


def illumination(problem: Problem, probe: Array) -> FloatArray:
    """sum_j sum_k |P_k(r - s_j)|^2 on the object grid, (H, W) float64; fractions of a pixel
    included.
    """
    probe = _modes(problem, probe)
    p, q = problem.frame_shape
    total = np.zeros(problem.object_shape)
    for u in range(len(problem.shifts)):
        moved = shifted_probes(probe, problem, reference, slice(u, u + 1))
        light = reference.abs2(moved)[0].sum(axis=0)
        for y, x in problem.corners[problem.shift_index == u].tolist():
            total[y : y + p, x : x + q] += light
    return total


def illuminated(problem: Problem, probe: Array, threshold: float = 0.1) -> BoolArray:
    """Where the illumination exceeds a share of its maximum, (H, W) bool."""
    light = illumination(problem, probe)
    return np.asarray(light > threshold * light.max())


def probe_at_rim(probe: ComplexArray, share: float = RIM) -> float:
    """Share of a probe's power at the rim of its window: more than a tenth means that the window
    cuts it off.

    Parameters
    ----------
    probe : (K, P, Q) or (P, Q) complex
    share : float
        How wide the rim is on each side, in sides of the window; at least a pixel.

    Returns
    -------
    float
        0 to 1; 0 for a probe without power.
    """
    light = (np.abs(probe.reshape(-1, *probe.shape[-2:])) ** 2).sum(axis=0, dtype=np.float64)
    p, q = (max(1, round(share * n)) for n in light.shape)
    return max(0.0, 1 - float(light[p:-p, q:-q].sum()) / float(light.sum())) if light.any() else 0.0


def sampling_ratio(problem: Problem, probe: Array) -> float:
    """Measurements for each unknown: N P Q / number of object pixels lit with more than 10 % of the
    maximum.
    """
    p, q = problem.frame_shape
    return len(problem) * p * q / int(illuminated(problem, probe).sum())


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How far stated standard deviations are true; for right ones `covered` equals `probability`.

    Attributes
    ----------
    probability : tuple of float
        What share of pixels should have an error below sigma sqrt(-ln(1 - p)).
    covered : tuple of float
        What share has.
    mean_square : float
        Mean of u^2, u = |error|/sigma; 1 expected, more for error bars that are too small.
    median : float
        Median of u; 0.8326 expected.
    within_factor_two : float
        Share of pixels with 1/2 < u < 2; 0.7605 expected.
    pixels : int
    """

    probability: tuple[float, ...]
    covered: tuple[float, ...]
    mean_square: float
    median: float
    within_factor_two: float
    pixels: int


def coverage(
    estimate: ComplexArray, truth: ComplexArray, std: FloatArray, region: Region = None
) -> Coverage:
    """Compare actual errors, after removal of the global phase, with stated standard deviations.

    Parameters
    ----------
    estimate, truth : (H, W) complex
    std : (H, W) float
        Standard deviation of the complex value, sqrt(E|O - mean|^2).
    region : pair of slices or (H, W) bool array, optional

    Returns
    -------
    Coverage

    Raises
    ------
    PtychonError
        If shapes disagree or a standard deviation in the region is not positive.
    """
    aligned = phase_align(estimate, truth, region)
    inside = inside_region(region, aligned.shape)
    sigma = np.asarray(std, float)
    if sigma.shape != aligned.shape:
        raise PtychonError(
            f"the standard deviation has shape {sigma.shape}; the object is {aligned.shape}"
        )
    if not (np.isfinite(sigma[inside]).all() and (sigma[inside] > 0).all()):
        raise PtychonError(
            "the standard deviation must be finite and positive on the whole region compared"
        )
    u = np.abs(aligned[inside] - np.asarray(truth)[inside]) / sigma[inside]
    return Coverage(
        probability=PROBABILITIES,
        covered=tuple(float(np.mean(u < math.sqrt(-math.log1p(-p)))) for p in PROBABILITIES),
        mean_square=float(np.mean(u**2)),
        median=float(np.median(u)),
        within_factor_two=float(np.mean((u > 0.5) & (u < 2))),
        pixels=int(u.size),
    )


def _misfit(
    problem: Problem, object: Array, probe: Array, backend: Any, own: Model | None = None
) -> tuple[FloatArray, FloatArray]:
    """Per frame, sum (|model| - y)^2 and sum y^2 over valid pixels, (N,) float64 each,
    on the host.
    """
    if backend is None:
        from ..backends import get_backend

        backend = get_backend("numpy")
    xp, move = backend.xp, backend.asarray
    if tuple(object.shape) != tuple(problem.field_shape):
        raise PtychonError(
            f"the object has shape {tuple(object.shape)}; the problem has "
            f"{tuple(problem.field_shape)}"
        )
    field = move(object).astype(COMPLEX, copy=False)
    modes = move(_modes(problem, probe)).astype(COMPLEX, copy=False)
    x = unknowns_of(problem, field, modes).to(backend)
    forward = own or Model.of(problem, backend)
    if not problem.subpixel:
        x.positions = None
    parts = []
    for batch in _blocks(problem, len(modes)):
        view = forward.view(x, batch)
        light = (
            of_waves(forward.intensity(view), problem)
            if own or problem.spread is not None
            else reference.abs2(view.waves).sum(axis=1)
        )
        model = xp.sqrt(light)
        y, valid = move(problem.amplitude[batch]), move(problem.mask_of(batch))
        error = xp.where(valid, model - y, 0)
        signal = xp.where(valid, y, 0)
        parts.append(
            [backend.to_host((e**2).sum(axis=(1, 2), dtype=xp.float64)) for e in (error, signal)]
        )
    numerator, denominator = (np.concatenate(part) for part in zip(*parts, strict=True))
    return numerator, denominator


def _blocks(problem: Problem, modes: int) -> Iterator[slice]:
    p, q = problem.frame_shape
    size = max(1, BLOCK_BYTES // (modes * p * q * COMPLEX.itemsize))
    for first in range(0, len(problem), size):
        yield slice(first, min(first + size, len(problem)))


def _modes(problem: Problem, probe: Array) -> Array:
    """The probe as (K, P, Q), refused if it does not fit the frames."""
    if probe.ndim == 2:
        probe = probe[None]
    if probe.ndim != 3 or tuple(probe.shape[1:]) != problem.frame_shape:
        raise PtychonError(
            f"the probe has shape {tuple(probe.shape)}; frames are {problem.frame_shape}"
        )
    return probe
