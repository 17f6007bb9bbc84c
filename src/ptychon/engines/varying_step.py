r"""A joint step of a probe that varies (`varying`) and of what it is mistaken for, for engines that
take turns with it.

A beam that tilts slowly across the scan is nearly the same as a steady one on a curved object: with
s_j the position of frame j, exp(i u s_j) on its probe and exp(-i (s_j + u)^2/2) on the object leave
no more than a curved probe. Steps of weights and object one after the other take hundreds of passes
along such a valley. So a smooth phase of the object, the probe, the variations and all weights move
together,

    O_1 <- O_1 exp(i phi),  P <- P + dP,  V <- V + dV,  c <- c + dc

by one Gauss-Newton step on sum_q (m_j - y_j)^2 + v_j sum_l (c_jl/sigma_l)^2, m_j being the expected
and y_j the measured amplitude. phi is a sum of cosines with periods down to the width of the probe;
the weights of each frame are eliminated (`model.frames`); a few iterations of conjugate gradients,
and the first length of 1, 1/2, 1/4, 1/8 that lowers the sum, else none. v_j is the mean square
misfit of frame j, and sigma_l what weights differ by: after each step a step of EM, and from some
passes on what noise alone would leave is taken off,

    sigma_l^2 <- mean_j( c_jl^2 + Var c_jl )
    sigma_l^2 <- mean_j( c_jl^2 ) - (1 + sqrt(2 P Q/N))^2 mean_j Var c_jl,

(N frames of P x Q pixels: V adapts to the noise, by as much as the largest singular value of a
random matrix says; Marchenko & Pastur, Math. USSR Sb. 1, 457 (1967)). So weights of a beam that
does not vary go to 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..kernels.reference import abs2, namespace
from ..model.fit import Fit
from ..model.gauss_newton import GaussNewton
from ..model.solve import solve
from ..model.unknowns import Unknowns
from ..types import Array

#: Iterations of conjugate gradients, and lengths of the step that are tried.
ITERATIONS, LENGTHS = 8, (1.0, 0.5, 0.25, 0.125)
#: Shares of the largest diagonal element that hold what is hardly lit.
PHASE_FLOOR, PROBE_FLOOR = 1e-3, 1e-2
#: Least spread of weights, in standard deviations of a weight, and at all.
LEAST, TINY = 0.5, 1e-6


def joint_step(
    fit: Fit, x: Unknowns, spread: Array, misfit: Array, moves_probe: bool, settled: bool
) -> tuple[Unknowns, Array]:
    """The estimate after the step, and the spread of weights (M,).

    Parameters
    ----------
    fit : Fit
        Without a prior.
    x : Unknowns
        With variations and weights.
    spread : (M,) float64
        sigma.
    misfit : (N,) float64
        v.
    moves_probe : bool
        Whether P moves, too.
    settled : bool
        Whether what is left of the misfit is noise, and tells the share of noise in weights.
    """
    xp = fit.model.backend.xp
    fit = replace(fit, prior=Unknowns(weights=(misfit[:, None] / spread**2).clip(1e-30, None)))
    names = ["object", *(["probe"] if moves_probe else []), "variations"]
    of = fit.likelihood.information
    H = GaussNewton(fit.model, x, names, ("weights",), information=of, prior=fit.prior)
    smooth = Smooth.of(x, xp)
    gradient = H.gradient(fit.likelihood.score, fit.pull(x))
    right = smooth.coefficients(H.eliminated(gradient))
    held = smooth.diagonal(H.diagonal())
    found = solve(
        lambda d: smooth.coefficients(H(smooth.change(d))), right, held, None, ITERATIONS
    ).x
    d = H.completed(smooth.change(found), gradient)
    before = fit.cost(x).total
    for length in LENGTHS:
        new = smooth.moved(x, length, found, d)
        if fit.cost(new).total < before:
            return new, _spread(new, misfit[:, None] * H.variances().weights, settled)
    return x, spread


def _spread(x: Unknowns, variance: Array, settled: bool) -> Array:
    """sigma by a step of EM, less what noise alone makes of V and c where the fit has settled."""
    square = (x.weights.astype("float64") ** 2).mean(axis=0)
    variance, xp = variance.mean(axis=0), namespace(x.weights)
    if settled:
        # the largest singular value of N rows of 2 P Q random numbers
        noise = (1 + (2 * x.variations[0].size / len(x.weights)) ** 0.5) ** 2 * variance
        square = xp.maximum(square - noise, LEAST**2 * variance)
    else:
        square = square + variance
    return xp.sqrt(square).clip(TINY, None)


@dataclass(frozen=True)
class Smooth:
    """Changes of which that of the object is i phi O_1, phi = A C B^T, as records whose object is
    the real C.

    Attributes
    ----------
    object : (S, H, W) complex64
    rows, columns : (H, h) and (W, w) float32
        A and B: cosines.
    """

    object: Array
    rows: Array
    columns: Array

    @classmethod
    def of(cls, x: Unknowns, xp: Any) -> Smooth:
        half = width(x.probe, xp) / 2
        sides = [cosines(n, max(3, round(n / half)), xp) for n in x.object.shape[-2:]]
        return cls(x.object, *sides)

    def phase(self, C: Array) -> Array:
        """phi."""
        return self.rows @ C @ self.columns.T

    def change(self, d: Unknowns) -> Unknowns:
        """The change of an estimate."""
        O = 0 * self.object
        O[0] = 1j * self.phase(d.object) * self.object[0]
        return replace(d, object=O)

    def coefficients(self, change: Unknowns) -> Unknowns:
        """The adjoint."""
        asked = (self.object[0].conj() * change.object[0]).imag
        return replace(change, object=self.rows.T @ asked @ self.columns)

    def diagonal(self, full: Unknowns) -> Unknowns:
        """About the diagonal of an operator on coefficients, from that on estimates."""
        seen = (self.rows**2).T @ (abs2(self.object[0]) * full.object[0]) @ self.columns**2
        found = {"object": seen + PHASE_FLOOR * seen.max()}
        for name, array in full.each():
            if name in ("probe", "variations"):
                found[name] = array + PROBE_FLOOR * array.max()
        return Unknowns(**found)

    def moved(self, x: Unknowns, length: float, d: Unknowns, change: Unknowns) -> Unknowns:
        """An estimate after a part of a step; its object keeps its modulus."""
        rest = [name for name in change.names if name != "object"]
        new = x.axpy(length, change.only(rest))
        new.object = x.object.copy()
        turn = namespace(x.object).exp(1j * length * self.phase(d.object))
        new.object[0] = x.object[0] * turn.astype(x.object.dtype)
        return new


def cosines(n: int, count: int, xp: Any) -> Array:
    """cos(pi k (i + 1/2)/n) for k < count, (n, count) float32."""
    return xp.cos(xp.pi * (xp.arange(n)[:, None] + 0.5) * xp.arange(count) / n).astype("float32")


def width(probe: Array, xp: Any) -> float:
    """Four standard deviations of the light of a probe (K, P, Q), pixels, the mean of both axes."""
    light, squares = abs2(probe).sum(axis=0).astype("float64"), 0.0
    for axis in (0, 1):
        line = light.sum(axis=1 - axis)
        line = line / line.sum()
        u = xp.arange(len(line))
        squares += float((line * (u - (line * u).sum()) ** 2).sum())
    return float(4 * (squares / 2) ** 0.5)
