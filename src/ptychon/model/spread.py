"""What a detector makes of the light that falls on it, lambda = B I, and a background on a grid:
sums over rows and columns. And the step that fits a wave to what was counted so:

    g = B^T[ n/(B I) ]/B^T 1,   z <- z sqrt(g)

of expectation-maximisation for Poisson counts, sums over valid pixels (Richardson, J. Opt. Soc. Am.
62, 55 (1972); Lucy, Astron. J. 79, 745 (1974)).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..kernels.reference import abs2
from ..types import Array, FloatArray, PtychonError


class Spread(Protocol):
    """A linear operator on intensities: from (B, P, Q), as light falls, to (B, R, C), as it is
    counted.
    """

    def forward(self, intensity: Array) -> Array:
        """B."""
        ...

    def transpose(self, change: Array) -> Array:
        """B^T."""
        ...

    def to(self, backend: Any) -> Spread:
        """The same on a backend's device."""
        ...


@dataclass(frozen=True)
class Separable:
    """B lambda = Y lambda X^T: a blur, a sum of pixels, or both (`blur`, `binning`, `after`).

    Attributes
    ----------
    rows : (R, P) float
        Y.
    columns : (C, Q) float
        X.
    """

    rows: Array
    columns: Array
    _kept: dict[tuple[str, bool], tuple[Array, Array]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def forward(self, intensity: Array) -> Array:
        y, x = self._factors(str(intensity.dtype), False)
        return y @ intensity @ x

    def transpose(self, change: Array) -> Array:
        y, x = self._factors(str(change.dtype), True)
        return y @ change @ x

    def _factors(self, dtype: str, transposed: bool) -> tuple[Array, Array]:
        """What multiplies from the left and from the right, in memory as BLAS wants it: kept, for
        those who ask frame by frame.
        """
        found: tuple[Array, Array] | None = self._kept.get((dtype, transposed))
        if found is None:
            y, x = self.rows.astype(dtype), self.columns.astype(dtype)
            found = (y.T.copy(), x) if transposed else (y, x.T.copy())
            self._kept[dtype, transposed] = found
        return found

    def to(self, backend: Any) -> Separable:
        return replace(self, rows=backend.asarray(self.rows), columns=backend.asarray(self.columns))

    def after(self, first: Separable) -> Separable:
        """This spread of what another has spread already: `binning(...).after(blur(...))`."""
        return Separable(self.rows @ first.rows, self.columns @ first.columns)


def blur(shape: tuple[int, int], width: float | tuple[float, float]) -> Separable:
    """A Gaussian point spread: positive, keeps the light, and goes round the edges of the frame, as
    waves do.

    Parameters
    ----------
    shape : (P, Q)
    width : float or (y, x)
        Standard deviation, detector pixels.

    Raises
    ------
    PtychonError
        If the width is not positive.
    """
    if not (np.isfinite(width) & (np.asarray(width) > 0)).all():
        raise PtychonError(
            f"the detector's point spread has a width of {width} px; it must be positive"
        )
    widths = np.broadcast_to(np.asarray(width, float), (2,))
    return Separable(*(_gaussian(n, float(w)) for n, w in zip(shape, widths, strict=True)))


def binning(shape: tuple[int, int], factor: int, *, centred: bool = True) -> Separable:
    """Sums of `factor` x `factor` pixels: waves on a finer grid than the detector's.

    Parameters
    ----------
    shape : (P, Q)
        Of the waves; multiples of `factor`.
    factor : int
    centred : bool
        True for far-field frames, zero frequency at [0, 0]: a measured pixel has its middle on a
        pixel of the wave (half a fine pixel above it for an even factor, which is a linear phase of
        the object). False for near-field images, whose first measured pixel is the sum of the first
        ones.

    Raises
    ------
    PtychonError
        If the shape is no multiple.
    """
    if factor < 1 or any(n % factor for n in shape):
        raise PtychonError(
            f"waves of {shape[0]} x {shape[1]} pixels cannot be summed by {factor}; give a "
            "divisor of both"
        )
    shift = factor // 2 if centred else 0
    return Separable(
        *(np.roll(np.kron(np.eye(n // factor), np.ones(factor)), -shift, 1) for n in shape)
    )


def cells(shape: tuple[int, int], factor: int) -> Separable:
    """Sums of `factor` x `factor` points around each: `binning` where all points are kept."""
    first = -(factor // 2)
    return Separable(*(sum(np.roll(np.eye(n), first + m, 1) for m in range(factor)) for n in shape))


def spread_of(shape: tuple[int, int], width: float | None, factor: int) -> Separable | None:
    """Of a detector with a point spread of `width` of its pixels, each of which is `factor` x
    `factor` points of the wave; None where a pixel counts what falls on it.
    """
    blurred = None if width is None else blur(shape, width * factor)
    if factor == 1:
        return blurred
    summed = cells(shape, factor)
    return summed if blurred is None else summed.after(blurred)


def fitted(
    wave: Array, spread: Spread, amplitude: Array, mask: Array, xp: Any
) -> tuple[Array, Array]:
    """A wave (B, K, P, Q) after the step, and its squared misfit before, (B,).

    Parameters
    ----------
    wave : (B, K, P, Q) complex64
    spread : Spread
    amplitude : (B, P, Q) float32
        sqrt(n).
    mask : (1 or B, P, Q) bool
    xp : module
    """
    light = spread.forward(abs2(wave).sum(axis=1))
    valid = xp.broadcast_to(mask, light.shape).astype(light.dtype)
    misfit = (valid * (xp.sqrt(light.clip(0, None)) - amplitude) ** 2).sum(axis=(1, 2))
    seen = spread.transpose(valid)
    ratio = spread.transpose(valid * amplitude**2 / light.clip(TINY, None))
    gain = xp.where(seen > UNSEEN, ratio / seen.clip(UNSEEN, None), 1).clip(0, None)
    return wave * xp.sqrt(gain)[:, None].astype(light.dtype), misfit


#: Light below which there is none, and share of a pixel below which no measurement sees it.
TINY, UNSEEN = 1e-20, 1e-3
#: Shares of the light of a pixel below which a point spread is 0.
SMALLEST = 1e-12


def hats(shape: tuple[int, int], distance: float, *, centred: bool = True) -> Separable:
    """A background that is linear between points on a grid: (P, Q) pixels from its values there,
    which are not negative where these are not.

    Parameters
    ----------
    shape : (P, Q)
    distance : float
        Between two points, detector pixels, about.
    centred : bool
        True for far-field frames, zero frequency at [0, 0]; the grid ends at the edges of the
        detector.
    """
    sides = []
    for n in shape:
        points = min(n, 1 + max(0, round((n - 1) / distance)))
        where = np.arange(n) * ((points - 1) / max(n - 1, 1))
        part = np.clip(1 - abs(where[:, None] - np.arange(points)), 0, None)
        sides.append(np.fft.ifftshift(part, axes=0) if centred else part)
    return Separable(*sides)


def _gaussian(n: int, width: float) -> FloatArray:
    """Circulant (n, n) with a Gaussian of that standard deviation in each row, summing to 1."""
    reach = np.arange(-(int(6 * width) // n + 1), int(6 * width) // n + 2) * n
    near = np.exp(-((np.arange(n)[:, None] + reach[None]) ** 2) / (2 * width**2)).sum(axis=1)
    near /= near.sum()
    # products with numbers too small for float32 take twenty times as long
    near[near < SMALLEST] = 0
    return np.asarray(near[(np.arange(n)[:, None] - np.arange(n)[None]) % n])
