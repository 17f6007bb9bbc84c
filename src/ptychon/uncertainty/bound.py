"""The limit error bars are judged by: the exact Fisher information of small problems, and the bound
that follows from it.

The information of unknowns x (real and imaginary parts of the object, and of the probe if it is
free) is

    I = J^T diag(i(m)) J + prior,    J = dm/dx

(see `noise` for i(m)), and no estimate is better, on average over the prior, than I^-1 says (Van
Trees, Detection, Estimation, and Modulation Theory, part I (1968); for ptychography Wei, Urbach &
Coene, Phys. Rev. A 102, 043516 (2020)). It is taken at one object, where the posterior is narrow
against what changes I. What the data cannot tell is projected out, as in `metrics.ambiguities`.
Dense linear algebra in float64; it shares nothing with `curvature` but the noise model and the
gauge.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.reference import shift
from ..metrics.ambiguities import Gauge, gauge_of
from ..metrics.residual import illuminated, illumination
from ..model.noise import noise_of, told
from ..model.problem import Problem
from ..types import BoolArray, ComplexArray, FloatArray, IntArray, PtychonError
from .amplitude import bars
from .free import free_of

#: Most real unknowns: the matrix of 64-bit numbers has 3.2 GB then.
MOST = 20_000


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least error that an object can have.

    Attributes
    ----------
    object_std, amplitude_std, phase_std : (H, W) float32
        As in `Posterior`.
    covariance : (2 n, 2 n) float64
        Of real parts, then imaginary parts, of the `pixels` of the object, aligned.
    pixels : (n,) int
        Flat indices of the pixels that any light reaches. The others have the variance of their
        prior.
    region : (H, W) bool
        Where errors are compared after alignment.
    """

    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray
    covariance: FloatArray
    pixels: IntArray
    region: BoolArray


def information(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = ("object",),
    noise: str = "auto",
    noise_variance: float | None = None,
    background: Any = None,
) -> tuple[FloatArray, IntArray]:
    """Fisher information of a small problem, without a prior.

    Parameters
    ----------
    problem : Problem
        On the host; its amplitudes do not matter.
    object : (H, W) complex array
    probe : (K, P, Q) complex array
    update, noise, noise_variance, background
        As for `laplace`.

    Returns
    -------
    information : (n, n) float64
        Of Re O, Im O of the pixels that any light reaches and, if it is free, Re P, Im P.
    pixels : (n_O,) int
        Flat indices of these pixels.

    Raises
    ------
    PtychonError
        More unknowns than dense matrices serve, or a noise variance that nobody knows.
    """
    free_probe = "probe" in free_of(update, who="the bound")
    problem = told(problem, background, noise, noise_variance)
    model = noise_of(problem, noise, noise_variance)
    if model.learned:
        raise PtychonError(
            "the bound needs the variance of the amplitude noise; give noise_variance"
        )
    probe, (p, q) = np.asarray(probe, np.complex128), problem.frame_shape
    pixels = np.flatnonzero(illumination(problem, probe) > 0)
    place = np.full(object.size, -1)
    place[pixels] = np.arange(len(pixels))
    n, extra = len(pixels), probe.size if free_probe else 0
    if 2 * (n + extra) > MOST:
        raise PtychonError(
            f"{2 * (n + extra)} real unknowns are too many for the exact information (at most "
            f"{MOST}); crop"
        )
    total = np.zeros((2 * (n + extra),) * 2)
    propagators: dict[int, ComplexArray] = {}
    grid = np.arange(object.size).reshape(object.shape)
    moved: dict[int, ComplexArray] = {}
    for j, (y, x) in enumerate(problem.corners.tolist()):
        u = int(problem.shift_index[j])
        kind = u if problem.near_field else 0
        if kind not in propagators:
            propagators[kind] = _matrix(problem, kind)
        F = propagators[kind]
        P = shift(probe, problem.shifts[u : u + 1])[0].reshape(len(probe), -1)
        O = np.asarray(object[y : y + p, x : x + q], np.complex128).ravel()
        z = (P * O) @ F.T
        m = np.sqrt((np.abs(z) ** 2).sum(axis=0))
        valid = np.broadcast_to(problem.mask_of(slice(j, j + 1)), (1, p, q)).ravel()
        root = np.sqrt(np.where(valid, model.information(m.reshape(1, p, q)).ravel(), 0))
        way = (root * z / np.maximum(m, 1e-300)).conj()
        K = [sum(way[k][:, None] * F * P[k] for k in range(len(P)))]
        if free_probe:
            if u not in moved:
                moved[u] = _moving(probe.shape[-2:], problem.shifts[u : u + 1])
            K += [way[k][:, None] * ((F * O) @ moved[u]) for k in range(len(P))]
        wide = np.concatenate(K, axis=1)
        J = np.concatenate([wide.real, -wide.imag], axis=1)
        own = np.concatenate([place[grid[y : y + p, x : x + q].ravel()], n + np.arange(extra)])
        index = np.concatenate([own, n + extra + own])
        keep = index >= 0
        keep[: len(own)] &= own >= 0
        keep[len(own) :] &= own >= 0
        total[np.ix_(index[keep], index[keep])] += J[:, keep].T @ J[:, keep]
    order = np.concatenate(
        [
            np.arange(n),
            n + extra + np.arange(n),
            n + np.arange(extra),
            2 * n + extra + np.arange(extra),
        ]
    )
    return total[np.ix_(order, order)] if extra else total, pixels


def cramer_rao(
    problem: Problem,
    object: ComplexArray,
    probe: ComplexArray,
    *,
    update: Collection[str] = ("object",),
    noise: str = "auto",
    noise_variance: float | None = None,
    background: Any = None,
    object_variance: float | None = None,
    region: BoolArray | None = None,
) -> Bound:
    """The posterior Cramer-Rao bound of every pixel of a small object.

    Parameters
    ----------
    problem : Problem
        On the host; its amplitudes do not matter.
    object : (H, W) complex array
        The truth.
    probe : (K, P, Q) complex array
        The true one, scaled as the data are.
    update, noise, noise_variance, background, object_variance, region
        As for `laplace`.

    Returns
    -------
    Bound

    Raises
    ------
    PtychonError
        As `information` does.
    """
    model = {"noise": noise, "noise_variance": noise_variance, "background": background}
    I, pixels = information(problem, object, probe, update=update, **model)
    lit = illuminated(problem, probe) if region is None else region
    touched = np.zeros(object.shape, bool)
    touched.flat[pixels] = True
    S = float(np.mean(np.abs(object[lit]) ** 2)) if object_variance is None else object_variance
    gauge = gauge_of(problem, object, probe, "probe" in update, lit, touched)
    n = len(pixels)
    prior = np.full(len(I), 2 / S)
    prior[2 * n :] = 2 / float((np.abs(probe) ** 2).sum(axis=0).max())
    stiff = float(np.diag(I)[: 2 * n].mean())
    np.fill_diagonal(I, np.diag(I) + prior)
    held = np.array(
        [_real(o.ravel()[pixels], p) for o, p in zip(gauge.object, gauge.probe, strict=True)]
    )[gauge.exact]
    basis, _ = np.linalg.qr(held[:, : len(I)].T)
    I += stiff * basis @ basis.T
    covariance = _aligned(_inverse(I)[: 2 * n, : 2 * n], gauge, pixels)
    along, across = (np.full(object.shape, S / 2) for _ in range(2))
    a, b, c = (np.diag(covariance[i : i + n, k : k + n]) for i, k in ((0, 0), (n, n), (0, n)))
    way = np.exp(1j * np.angle(object.ravel()[pixels].astype(np.complex128)))
    along.flat[pixels] = way.real**2 * a + way.imag**2 * b + 2 * way.real * way.imag * c
    across.flat[pixels] = way.imag**2 * a + way.real**2 * b - 2 * way.real * way.imag * c
    return Bound(**bars(along, across, object), covariance=covariance, pixels=pixels, region=lit)


def _inverse(matrix: FloatArray) -> FloatArray:
    """Inverse of a symmetric positive definite matrix."""
    from scipy.linalg import lapack

    factor, wrong = lapack.dpotrf(matrix, lower=1)
    if wrong:
        raise PtychonError(
            "the information matrix is singular: neither data nor prior determine some unknowns; "
            "give a smaller object_variance, or crop to what the scan covers"
        )
    inverse, _ = lapack.dpotri(factor, lower=1)
    lower = np.tril(inverse)
    return np.asarray(lower + np.tril(inverse, -1).T)


def _aligned(C: FloatArray, gauge: Gauge, pixels: IntArray) -> FloatArray:
    """Covariance of e - G c, c being least squares on the region."""
    G = np.array(
        [np.concatenate([g.ravel()[pixels].real, g.ravel()[pixels].imag]) for g in gauge.object]
    ).T
    seen = np.tile(gauge.region.ravel()[pixels], 2)[:, None] * G
    fit = np.linalg.pinv(G.T @ seen, rcond=1e-10) @ seen.T
    C = C - G @ (fit @ C)
    return np.asarray(C - (C @ fit.T) @ G.T)


def _matrix(problem: Problem, u: int) -> ComplexArray:
    """The propagator of frames with distinct shift u as a matrix (P Q, P Q) complex128."""
    p, q = problem.frame_shape
    points = np.eye(p * q).reshape(-1, p, q)
    waves = np.fft.fft2(points, norm="ortho")
    transfer = problem.propagator.transfer
    if transfer is not None:
        waves = np.fft.ifft2(np.asarray(transfer[u], np.complex128) * np.fft.fft2(points))
    return np.asarray(waves.reshape(p * q, p * q).T)


def _moving(shape: tuple[int, ...], by: FloatArray) -> ComplexArray:
    """The shift of a probe as a matrix (P Q, P Q)."""
    points = np.eye(shape[0] * shape[1], dtype=np.complex128).reshape(-1, 1, *shape)
    return np.asarray(np.concatenate([shift(p, by)[0].reshape(1, -1) for p in points]).T)


def _real(object: ComplexArray, probe: Any) -> FloatArray:
    p = np.asarray(probe).ravel()
    return np.concatenate([object.real, object.imag, p.real, p.imag])
