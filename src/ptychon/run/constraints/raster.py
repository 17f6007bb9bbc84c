r"""The period of a raster, which object and probe of a raster scan share.

Where positions s_j lie on a lattice and f has its period, f(r + s_j) = f(r),

    P(r - s_j) O(r) = [P f](r - s_j) [O/f](r)

so that no frame tells f (Thibault et al., Ultramicroscopy 109, 338 (2009)); what the run begins
with and noise do, and a grid appears in the object. `GridNotch` chooses the f for which the object
has none of the raster's period: with its harmonics q_h, r over pixels within a pitch of a position,

    log f = sum_h c_h exp(2 pi i q_h.r),    Re: least squares fit of log|O|,
                                            Im: least squares fit of the phases of O(r + 1) O*(r)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ...engines import Context, State
from ...model.problem import Problem
from ...types import Array, ComplexArray, FloatArray, PtychonError
from .record import Constraint, check_number, first_slice, illuminate
from .shared import slope

#: Positions may lie off a lattice by so much of its pitch, root mean square.
OFF = 0.1
#: Amplitudes below this share of the mean count as this.
DARK = 1e-2


@dataclass(frozen=True)
class GridNotch(Constraint):
    """The lit object, or its first slice, has nothing of the period of the raster that it was
    scanned on; the probe takes it.

    For scans on a raster, whose period then shows in the object. No frame changes where positions
    lie on the raster exactly. A specimen that has itself the period of the scan loses it.

    Parameters
    ----------
    harmonics : int
        Orders along each direction of the raster.
    """

    harmonics: int = 3

    def __post_init__(self) -> None:
        check_number("harmonics", self.harmonics, 1, 20)

    def check(self, problem: Problem) -> None:
        lattice(problem.positions)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        host = ctx.backend.to_host
        origin, steps = lattice(problem.positions)
        first = state.object if state.object.ndim == 2 else state.object[0]
        field = np.asarray(host(first)).astype(np.complex128)
        lit = scanned(problem.positions, steps, field.shape)
        slopes = [float(slope(field, lit, axis, np)) for axis in (0, 1)]
        waves = Waves.of(steps, self.harmonics, field.shape)
        log_f = waves.fitted(field, lit, slopes)
        f = ctx.backend.asarray(np.exp(waves.at(log_f, 0 * origin, field.shape)).astype("c8"))
        first_slice(state, lambda O: O / f)
        shape = state.probe.shape[-2:]
        corner = origin - np.array([n // 2 for n in shape])
        taken = ctx.backend.asarray(np.exp(waves.at(log_f, corner, shape)).astype("c8"))
        illuminate(state, lambda P: P * taken)


@dataclass(frozen=True)
class Waves:
    """exp(2 pi i q_h.r) for harmonics q_h (M, 2), cycles a pixel; the first two are constants,
    which stand for the slopes along y and x where a phase is fitted.
    """

    q: FloatArray

    @classmethod
    def of(cls, steps: FloatArray, orders: int, shape: tuple[int, ...]) -> Waves:
        """Those of a lattice with steps (2, 2), finer than the object is large and than its pixels
        are not.
        """
        n = np.arange(-orders, orders + 1)
        order = np.stack(np.meshgrid(n, n, indexing="ij"), -1).reshape(-1, 2)
        q = order @ np.linalg.inv(steps).T
        fits = (np.abs(q) < 0.5).all(axis=1) & (np.abs(q) * shape > 1).any(axis=1)
        return cls(np.concatenate([np.zeros((2, 2)), q[fits]]))

    def along(self, axis: int, n: int, start: float = 0.0) -> ComplexArray:
        """Along one axis, (M, n)."""
        return np.asarray(np.exp(2j * np.pi * self.q[:, axis, None] * (start + np.arange(n))))

    def at(self, c: ComplexArray, corner: FloatArray, shape: tuple[int, ...]) -> ComplexArray:
        """sum_h c_h exp(2 pi i q_h.r) on the pixels of a window, without the constants."""
        y, x = (self.along(axis, shape[axis], float(corner[axis])) for axis in (0, 1))
        return np.asarray((c[2:, None] * y[2:]).T @ x[2:])

    def moments(self, image: Array) -> ComplexArray:
        """sum_r image exp(-2 pi i q_h.r), (M,)."""
        y, x = (self.along(axis, image.shape[axis]).conj() for axis in (0, 1))
        return np.asarray(((y @ image) * x).sum(axis=1))

    def products(self, weight: FloatArray) -> ComplexArray:
        """sum_r weight exp(2 pi i (q_k - q_h).r), (M, M)."""
        y, x = (self.along(axis, weight.shape[axis]) for axis in (0, 1))
        rows = []
        for down, right in zip(y, x, strict=True):
            rows.append(((y * down.conj()) @ weight * (x * right.conj())).sum(axis=1))
        return np.stack(rows)

    def fitted(self, field: ComplexArray, lit: FloatArray, slopes: list[float]) -> ComplexArray:
        """c_h of log f, (M,)."""
        size = np.abs(field)
        floor = DARK * (size * lit).sum() / max(lit.sum(), 1)
        amplitude = _solved(self.products(lit), self.moments(lit * np.log(size.clip(floor, None))))
        matrix: Any = 0
        right: Any = 0
        for axis in (0, 1):
            both = lit * np.roll(lit, -1, axis)
            both[(slice(None),) * axis + (-1,)] = 0
            ahead = np.roll(field, -1, axis) * field.conj() * np.exp(-1j * slopes[axis])
            to = np.exp(2j * np.pi * self.q[:, axis]) - 1
            to[axis] = 1
            right = right + to.conj() * self.moments(both * np.angle(ahead))
            matrix = matrix + to.conj()[:, None] * self.products(both) * to
        found: ComplexArray = amplitude + 1j * _solved(matrix, right)
        return found


def scanned(positions: FloatArray, steps: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """1 within a pitch of a position, else 0, (H, W): lit, whatever the probe."""
    y, x = np.indices(shape)
    pixels = np.stack([y, x], -1).reshape(-1, 2)
    near = scipy.spatial.cKDTree(positions).query(pixels)[0] <= np.hypot(*steps.T).max()
    return np.asarray(near.reshape(shape), float)


def _solved(matrix: ComplexArray, right: ComplexArray) -> ComplexArray:
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=1e-6)[0])


def lattice(positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A point of the lattice that positions (N, 2) lie on, (2,), and its steps (2, 2), one a row.

    Raises
    ------
    PtychonError
        If they lie on none.
    """
    away = f"{len(positions)} positions lie on no raster"
    remedy = "grid_notch is for scans on a raster; leave it out"
    if len(positions) < 9:
        raise PtychonError(f"{away}: {remedy}")
    _, near = scipy.spatial.cKDTree(positions).query(positions, k=min(9, len(positions)))
    steps = (positions[near[:, 1:]] - positions[:, None]).reshape(-1, 2)
    length = np.hypot(*steps.T)
    least = np.median(np.hypot(*(positions[near[:, 1]] - positions).T))
    if least == 0:
        raise PtychonError(f"{away}, many of them on one point: {remedy}")
    first = _mean_step(steps, steps[np.argmin(np.abs(length - least))], least)
    turned = np.abs(steps @ np.array([-first[1], first[0]])) / (length * np.hypot(*first) + 1e-12)
    across = np.flatnonzero((turned > 0.5) & (length > 0.5 * least))
    if not len(across):
        raise PtychonError(f"{away}: {remedy}")
    shortest = np.quantile(length[across], 0.1)
    second = steps[across[np.argmin(np.abs(length[across] - shortest))]]
    found = np.stack([first, _mean_step(steps, second, least)])
    origin = positions[np.argmin(((positions - positions.mean(axis=0)) ** 2).sum(axis=1))]
    for _ in range(5):
        place = np.rint((positions - origin) @ np.linalg.inv(found))
        basis = np.concatenate([np.ones((len(place), 1)), place], axis=1)
        solved = np.linalg.lstsq(basis, positions, rcond=None)[0]
        origin, found = solved[0], solved[1:]
        if abs(np.linalg.det(found)) < 0.1 * least**2:
            raise PtychonError(f"{away}: {remedy}")
    off = float(np.sqrt(((positions - basis @ solved) ** 2).sum(axis=1).mean()))
    pitch = float(np.sqrt(abs(np.linalg.det(found))))
    if off > OFF * pitch:
        raise PtychonError(
            f"the positions lie {off:.2g} px from a raster with a pitch of {pitch:.3g} px, more "
            f"than {OFF:g} of it, and leave no grid in the object: leave grid_notch out"
        )
    return origin, found


def _mean_step(steps: FloatArray, like: FloatArray, pitch: float) -> FloatArray:
    """Mean of the steps that are like one of them."""
    close = np.hypot(*(steps - like).T) < 0.3 * pitch
    return np.asarray(steps[close].mean(axis=0))


__all__ = ["GridNotch"]
