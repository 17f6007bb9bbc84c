r"""Unknowns that only one frame has, eliminated exactly: position, dose and weights of a variation.

Let theta_j be all such unknowns of frame j, a_j,theta = d lambda_j/d theta the images by which they
change what is expected, W the information of each pixel on lambda (1/lambda for counts), and
Sigma^-1 their prior. In the normal matrix of everything the block of theta is one small matrix a
frame. What is left for the others is its Schur complement, a projection of each image:

    G_j    = sum_q a W a^T + Sigma^-1                                n x n, n = 2 for positions, 1
                                                                     for dose, ...
    W v    becomes   W v - W a^T G^-1 sum_q a W v
    theta  = -G^-1 ( sum_q a (W v + score) + Sigma^-1 (theta - theta_0) )

v being the change of lambda by all other unknowns. No FFT is needed for it, and it holds for any
model and any weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Array, PtychonError
from .forward import Model
from .unknowns import Unknowns, declared
from .view import View


def components(x: Unknowns, names: Sequence[str]) -> list[tuple[str, int]]:
    """The numbers that each frame has of its own, in order: (name, column), column 0 for (N,)
    arrays.

    Raises
    ------
    PtychonError
        If all frames share one of the unknowns.
    """
    found: list[tuple[str, int]] = []
    for name in names:
        if name not in declared() or not declared()[name].per_frame:
            own = ", ".join(n for n, of in declared().items() if of.per_frame)
            raise PtychonError(
                f"{name!r} is not an unknown of each frame, so it cannot be eliminated; those "
                f"are {own}"
            )
        array = dict(x.only([name]).each())[name]
        found += [(name, c) for c in range(1 if array.ndim == 1 else array.shape[1])]
    return found


def columns(model: Model, view: View, names: Sequence[str]) -> Array:
    """a: how lambda of each frame changes with each of its own numbers, (B, n, R, C) real."""
    xp, found = model.backend.xp, []
    for name, c in components(view.x, names):
        unit = model.zeros(view.x, [name])
        column = getattr(unit, name)
        column[... if column.ndim == 1 else (slice(None), c)] = 1
        found.append(model.intensity_tangent(view, unit))
    return xp.stack(found, axis=1)


def rows(x: Unknowns, names: Sequence[str], frames: Array, xp: Array) -> Array:
    """The numbers of some frames, in the order of `components`: (B, n) float64."""
    parts = [getattr(x, name)[frames] for name in names]
    return xp.concatenate(
        [(p[:, None] if p.ndim == 1 else p).astype("float64") for p in parts], axis=1
    )


def put_rows(numbers: Array, names: Sequence[str], frames: Array, out: Unknowns) -> None:
    """Write numbers (B, n) to the rows of some frames: the opposite of `rows`."""
    first = 0
    for name in names:
        field = getattr(out, name)
        width = 1 if field.ndim == 1 else field.shape[1]
        part = numbers[:, first : first + width].astype(field.dtype, copy=False)
        field[frames] = part[:, 0] if field.ndim == 1 else part
        first += width


@dataclass(frozen=True)
class Eliminated:
    """The unknowns of the frames of a view, taken out of its information.

    Attributes
    ----------
    weight : (B, R, C) real
        W, 0 where a pixel holds no data.
    images : (B, n, R, C) real, or None where nothing is eliminated
        a.
    inverse : (B, n, n) float64, or None
        G^-1: the covariance of these unknowns where all others are known.
    """

    weight: Array
    images: Array | None = None
    inverse: Array | None = None

    @classmethod
    def of(
        cls, model: Model, view: View, weight: Array, names: Sequence[str], prior: Array = 0
    ) -> Eliminated:
        """Eliminate the unknowns named from a view; `prior` (B, n) or a number is the diagonal of
        Sigma^-1.
        """
        if not names:
            return cls(weight)
        xp = model.backend.xp
        images = columns(model, view, names)
        flat = images.reshape(*images.shape[:2], -1)
        G = (flat * weight.reshape(len(flat), 1, -1)) @ flat.swapaxes(1, 2)
        G = G.astype("float64")
        index = xp.arange(G.shape[1])
        G[:, index, index] += prior
        # numbers of different units: brought to one scale, so that the inverse loses no digits
        size = 1 / xp.sqrt(xp.maximum(G[:, index, index], 1e-300))
        inverse = (
            xp.linalg.inv(G * size[:, :, None] * size[:, None, :])
            * size[:, :, None]
            * size[:, None, :]
        )
        return cls(weight, images, inverse)

    def along(self, image: Array) -> Array:
        """sum_q a image, (B, n) float64."""
        assert self.images is not None
        return (self.images * image[:, None]).sum(axis=(2, 3), dtype="float64")

    def solved(self, numbers: Array) -> Array:
        """G^-1 numbers, (B, n) float64."""
        assert self.inverse is not None
        return (self.inverse @ numbers[..., None])[..., 0]

    def across(self, numbers: Array) -> Array:
        """W a^T numbers, (B, R, C): how weighted images change with these unknowns."""
        assert self.images is not None
        return self.weight * (
            self.images * numbers[:, :, None, None].astype(self.images.dtype)
        ).sum(axis=1)

    def weighed(self, image: Array) -> Array:
        """W image less what these unknowns can explain of it, (B, R, C): symmetric, and never
        negative as a form.
        """
        weighted = self.weight * image
        return (
            weighted
            if self.images is None
            else weighted - self.across(self.solved(self.along(weighted)))
        )
