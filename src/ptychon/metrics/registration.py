"""The search behind `align`: which shift s and which phase ramp k lay an estimate E on a truth T.

Shift and ramp maximise the correlation coefficient of T(r) and E(r + s) exp(-i k.r) on a region:
for one s over all k by an FFT of T* E_s, for one k over all s by cross-correlations, in turn. The
alternation starts from shifts found by measures that no ramp can change: the correlation of the
moduli, and that of the products E(r + d) E*(r), in which a ramp is one constant phase. Fractions of
a pixel come from Gauss-Newton steps on shift, ramp and factor together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy  # its parts are imported where they are first used

from ..types import BoolArray, ComplexArray, FloatArray

#: Lags d (px) of the products E(r + d) E*(r): short ones see detail, longer ones stand out of the
#: noise.
LAGS = ((1, 0), (0, 1), (4, 0), (0, 4))
#: Width (px) of the mirrored rim that keeps Fourier interpolation from ringing at the border.
RIM = 32
#: Pixels of a field that NumPy transforms in less time than the import of SciPy's transforms takes.
SMALL = 256 * 256


def phase_ramp(field: ComplexArray) -> tuple[float, float]:
    """Slope k of the ramp exp(i k.r) that a field (H, W) resembles most: the maximum of |sum field
    exp(-i k.r)|.

    Returns
    -------
    (y, x) float
        Radians a pixel, from the peak of a zero-padded FFT, refined to 1e-6 of a frequency bin.
    """
    spectrum = np.abs(_padded_spectrum(field.astype(np.complex64)))
    peak = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    size = spectrum.shape
    k = np.array([2 * np.pi * np.fft.fftfreq(n)[i] for n, i in zip(size, peak, strict=True)])
    return _refine(field, k)


def _padded_spectrum(field: ComplexArray) -> ComplexArray:
    """The transform of a field that zeros extend to twice its size or a little more."""
    if field.size <= SMALL:  # SciPy transforms faster, but to import it takes longer than this
        return np.fft.fft2(field, [1 << (2 * n - 1).bit_length() for n in field.shape])
    return scipy.fft.fft2(  # type: ignore[no-any-return]
        field, [scipy.fft.next_fast_len(2 * n) for n in field.shape]
    )


def _refine(field: ComplexArray, start: Any) -> tuple[float, float]:
    """The maximum of |sum field exp(-i k.r)| within a frequency bin of `start`."""
    k, half = np.array(start), np.pi / np.array(field.shape)
    r = [np.arange(n) - n // 2 for n in field.shape]
    offsets = np.linspace(-1, 1, 9)
    while half[0] * field.shape[0] > 1e-6:
        y, x = (np.exp(-1j * np.outer(k[a] + half[a] * offsets, r[a])) for a in (0, 1))
        value = np.abs(y @ field @ x.T)
        best = np.unravel_index(int(value.argmax()), value.shape)
        k = k + half * offsets[list(best)]
        half = half / 4
    k = np.pi - (np.pi - k) % (2 * np.pi)
    return float(k[0]), float(k[1])


def translate(field: ComplexArray, shift: tuple[float, float]) -> ComplexArray:
    """field(r + shift) for a field (H, W); pixels that come from outside are 0.

    The fraction of a pixel is interpolated by the Fourier shift theorem, on a grid with a mirrored
    rim.
    """
    whole = [math.floor(s + 0.5) for s in shift]
    fraction = [s - w for s, w in zip(shift, whole, strict=True)]
    out = np.zeros_like(field)
    if any(fraction):
        rim = [min(RIM, n) for n in field.shape]
        wide = np.pad(field, [(r, r) for r in rim], mode="symmetric")
        y, x = (
            np.exp(2j * np.pi * np.fft.fftfreq(n) * f)
            for n, f in zip(wide.shape, fraction, strict=True)
        )
        wide = scipy.fft.ifft2(scipy.fft.fft2(wide) * (y[:, None] * x))
        field = wide[rim[0] : rim[0] + field.shape[0], rim[1] : rim[1] + field.shape[1]]
    to, source = zip(
        *(_overlap(n, w) for n, w in zip(field.shape, whole, strict=True)), strict=True
    )
    out[to] = field[source]
    return out


class Search:
    """Maximises the correlation coefficient of the truth and the estimate over shifts and ramps.

    That is |A|/(||E_s|| ||T||) with the means taken off: a constant says nothing about the shift,
    but brings its noise.
    """

    def __init__(
        self,
        estimate: ComplexArray,
        truth: ComplexArray,
        inside: BoolArray,
        max_shift: int,
        ramp: bool,
    ) -> None:
        flat = float(truth[inside].std()) <= 1e-6 * float(np.abs(truth[inside]).max())
        max_shift = 0 if flat else max_shift
        self.E, self.T, self.w, self.m, self.ramp = estimate, truth, inside, max_shift, ramp
        rows, cols = bounding_box(inside)
        self.box = rows, cols
        # the window of the region, widened by the largest shift; where that leaves the grid, zeros
        self.wide = tuple((s.start - max_shift, s.stop + max_shift) for s in (rows, cols))

    def whole(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Best whole-pixel shift, and its ramp."""
        best = (-1.0, (0, 0), (0.0, 0.0))
        seen: set[tuple[int, int]] = set()
        for start in self._starts():
            s = start
            for _ in range(8):
                if s in seen:
                    break
                seen.add(s)
                k = self._slope(s)
                scores = self._scores(k)
                found = np.unravel_index(int(scores.argmax()), scores.shape)
                at = int(found[0]) - self.m, int(found[1]) - self.m
                best = max(best, (float(scores[found]), at, k))
                s = at
        # for one ramp the neighbours of a maximum are lower, but each of them has a ramp of its own
        top, s, k = best
        while self.ramp and self.m:
            around = [(s[0] + dy, s[1] + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            tried = [
                (t, _refine(self._product(t), k)) for t in around if max(map(abs, t)) <= self.m
            ]
            score, t, slope = max((self._score_at(t, slope), t, slope) for t, slope in tried)
            if score <= top:
                break
            top, s, k = score, t, slope
        return (float(s[0]), float(s[1])), self._slope(s)

    def fraction(
        self, shift: tuple[float, float], slope: tuple[float, float]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Gauss-Newton on shift, ramp and factor together, from the whole-pixel solution."""
        best = self._score_at(shift, slope)
        y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in self.T.shape), indexing="ij")
        for _ in range(12):
            flat = self.E * plane(self.T.shape, slope, -1)
            here, up, down, right, left = (
                translate(flat, (shift[0] + dy, shift[1] + dx))
                for dy, dx in ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
            )
            w = self.w & known(self.T.shape, shift)
            columns = [up - down, right - left] if self.m else []
            columns += [-1j * y * here, -1j * x * here] if self.ramp else []
            c = np.vdot(here[w], self.T[w]) / max(float(np.linalg.norm(here[w])) ** 2, 1e-300)
            # the factor is complex, the other parameters real: real and imaginary parts are rows of
            # one real system
            J = np.stack([c * here[w], 1j * c * here[w], *(c * d[w] for d in columns)], axis=1)
            norm = np.linalg.norm(J, axis=0)
            norm[norm == 0] = 1
            J = J / norm
            J, b = np.concatenate([J.real, J.imag]), self.T[w] - c * here[w]
            step = np.linalg.lstsq(J, np.concatenate([b.real, b.imag]), rcond=1e-6)[0] / norm
            delta = np.zeros(4)
            delta[0 if self.m else 2 : 4 if self.ramp else 2] = step[2:]
            delta[:2] = np.clip(delta[:2], -0.5, 0.5)
            new_shift = shift[0] + float(delta[0]), shift[1] + float(delta[1])
            new_slope = slope[0] + float(delta[2]), slope[1] + float(delta[3])
            score = self._score_at(new_shift, new_slope)
            if not score > best or max(abs(s) for s in new_shift) > self.m + 1:
                break
            shift, slope, best = new_shift, new_slope, score
            if np.abs(delta[:2]).max() < 1e-4:
                break
        return shift, slope

    def _starts(self) -> list[tuple[int, int]]:
        """Shifts to begin with: maxima of the measures that no ramp can change, and no shift at
        all.
        """
        starts = [(0, 0)]
        if self.m == 0:
            return starts
        moduli = self._lag_scores((0, 0))
        products = sum((self._lag_scores(d) for d in LAGS), np.zeros_like(moduli))
        for score in (products, moduli):
            score = score.copy()
            for _ in range(3):
                y, x = (int(i) for i in np.unravel_index(int(score.argmax()), score.shape))
                starts.append((y - self.m, x - self.m))
                score[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = -1
        return starts

    def _lag_scores(self, lag: tuple[int, int]) -> FloatArray:
        """Squared normalised correlation of E(r + d) E*(r)/sqrt|.| with the same of the truth, for
        every shift.
        """
        w = _lagged(self.w.astype(float), lag).real > 0
        if not w.any():
            return np.zeros((2 * self.m + 1,) * 2)
        G = _lagged(self.T, lag)
        G = np.where(w, G - G[w].mean(), 0)[self.box]
        big = _window(_lagged(self.E, lag), self.wide)
        mask = w[self.box].astype(float)
        first, second = _correlate(big, mask), _correlate(np.abs(big) ** 2, mask).real
        spread = second - np.abs(first) ** 2 / mask.sum()
        floor = 1e-9 * max(float(second.max()), 1e-300)
        energy = float(np.linalg.norm(G)) ** 2
        if energy <= 1e-12 * float(np.linalg.norm(self.T[self.w])) ** 2:
            return np.zeros((2 * self.m + 1,) * 2)
        return np.asarray(np.abs(_correlate(big, G)) ** 2 / (energy * np.maximum(spread, floor)))

    def _product(self, shift: tuple[int, int]) -> ComplexArray:
        product: ComplexArray = (
            np.where(self.w, self.T.conj(), 0)[self.box] * translate(self.E, shift)[self.box]
        )
        return product

    def _slope(self, shift: tuple[int, int]) -> tuple[float, float]:
        return phase_ramp(self._product(shift)) if self.ramp else (0.0, 0.0)

    def _scores(self, slope: tuple[float, float]) -> FloatArray:
        """The measure for one ramp and every whole shift, (2 m + 1, 2 m + 1)."""
        flat = _window(self.E * plane(self.T.shape, slope, -1), self.wide)
        grid, w = _window(np.ones(self.T.shape), self.wide), self.w[self.box].astype(float)
        T = np.where(self.w, self.T, 0)[self.box]
        sums = (
            _correlate(flat, T),
            _correlate(flat, w),
            _correlate(grid, T).conj(),
            _correlate(np.abs(flat) ** 2, w).real,
            _correlate(grid, np.abs(T) ** 2).real,
            _correlate(grid, w).real,
        )
        return np.asarray(_coefficient(*sums))

    def _score_at(self, shift: tuple[float, float], slope: tuple[float, float]) -> float:
        w = self.w & known(self.T.shape, shift)
        E, T = translate(self.E * plane(self.T.shape, slope, -1), shift)[w], self.T[w]
        squares = np.vdot(E, E).real, np.vdot(T, T).real
        return float(_coefficient(np.vdot(T, E), E.sum(), T.sum(), *squares, np.float64(T.size)))


def _coefficient(TE: Any, E: Any, T: Any, EE: Any, TT: Any, n: Any) -> Any:
    """Squared modulus of the correlation coefficient, from sums of T* E, E, T, |E|^2,
    |T|^2 and 1.
    """
    n = np.maximum(n, 1)
    varE, varT = EE - np.abs(E) ** 2 / n, TT - np.abs(T) ** 2 / n
    floor = 1e-12 * max(float(np.max(EE)) * float(np.max(TT)), 1e-300)
    return np.abs(TE - E * T.conj() / n) ** 2 / np.maximum(varE * varT, floor)


def bounding_box(mask: BoolArray) -> tuple[slice, slice]:
    """The smallest crop that holds every True pixel of a mask (H, W)."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)


def plane(shape: tuple[int, ...], slope: tuple[float, float], sign: int) -> ComplexArray:
    """exp(sign i slope.(r - centre)) on a grid of `shape`."""
    y, x = (
        np.exp(1j * sign * k * (np.arange(n) - n // 2)) for n, k in zip(shape, slope, strict=True)
    )
    return np.asarray(y[:, None] * x)


def _overlap(n: int, shift: int) -> tuple[slice, slice]:
    """Along an axis of n pixels, the pixels r for which r + shift is on the axis, and those r +
    shift.
    """
    low, high = max(0, -shift), max(min(n, n - shift), max(0, -shift))
    return slice(low, high), slice(low + shift, high + shift) if high > low else slice(0, 0)


def known(shape: tuple[int, ...], shift: tuple[float, float]) -> BoolArray:
    """Pixels r for which r + shift lies on the grid."""
    y, x = (
        (np.arange(n) + s >= -0.5) & (np.arange(n) + s <= n - 0.5)
        for n, s in zip(shape, shift, strict=True)
    )
    return np.asarray(y[:, None] & x)


def _lagged(field: Any, lag: tuple[int, int]) -> Any:
    """field(r + d) field*(r)/sqrt|.|, so that strong pixels do not count by their square; 0 where r
    + d is outside.
    """
    product = translate(field, lag) * field.conj()
    size = np.sqrt(np.abs(product))
    return np.divide(product, size, out=np.zeros_like(product), where=size > 0)


def _window(field: Any, limits: Any) -> Any:
    """Cut rows and columns `limits` out of a field, zeros where they leave it."""
    out = np.zeros([stop - start for start, stop in limits], field.dtype)
    to, source = [], []
    for (start, stop), n in zip(limits, field.shape, strict=True):
        low, high = max(start, 0), min(stop, n)
        to.append(slice(low - start, high - start))
        source.append(slice(low, high))
    out[tuple(to)] = field[tuple(source)]
    return out


def _correlate(big: Any, small: Any) -> Any:
    """sum_r small*(r) big(r + s), for all s that keep `small` inside `big`."""
    size = [scipy.fft.next_fast_len(n) for n in big.shape]
    full = scipy.fft.ifft2(scipy.fft.fft2(big, size) * scipy.fft.fft2(small, size).conj())
    return full[tuple(slice(0, b - s + 1) for b, s in zip(big.shape, small.shape, strict=True))]
