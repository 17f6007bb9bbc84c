r"""Gaussian priors of the object whose variances differ from place to place, for edges and flats.

A stationary prior (`prior`) takes an object for equally rough everywhere. One of pieces, of single
grains or of darkness between particles is not: its details lie at edges. Here each band b of
spatial frequencies (octaves of periods, each along two directions) has variances of its own at
each place, relative to those of the spectra S, a Gaussian scale mixture (Wainwright & Simoncelli,
NIPS 12, 855 (2000); Portilla et al., IEEE Trans. Image Process. 12, 1338 (2003)):

    precision = S^-1/2 [ sum_b F_b diag(1/w_b) F_b ] S^-1/2,     sum_b F_b^2 = 1

F_b are real filters, u and v (see `prior`) have w_b of their own, and w = 1 is the stationary
prior. A draw of N(0, precision) is S^-1/2 sum_b F_b w_b^-1/2 eps_b.

w is taken of the optimum under the stationary prior, where the mean square Y of a coefficient over
a few pixels is, with the noise N that the data leave there, (w + N) times the mean of n squares of
normal numbers. The distribution of log w over all places is that of the largest likelihood (with
no form given: Kiefer & Wolfowitz, Ann. Math. Stat. 27, 887 (1956)), and 1/w at a place its mean
given Y, as in expectation maximisation. For a stationary Gaussian field that distribution is
narrow about 1, and nothing is won. So the evidence decides: an octave gets variances of its own
only if they raise the logarithm of the likelihood by more than `GAIN` for each independent place,
on average, over that of one w for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..model.thin import normal
from ..types import COMPLEX, REAL, Array, BoolArray, ComplexArray, FloatArray
from .prior import Spectral, bands

#: Octaves of periods, from 2 px on, and directions of each.
OCTAVES, DIRECTIONS = 3, 2
#: Radius (standard deviation, px) over which squares are averaged in the finest octave; twice that
#: in the next.
NEAR = 1.2
#: log w, values at which its distribution is held; expectation maximisations of it.
LOGS, TURNS = np.linspace(np.log(1e-2), np.log(1e2), 33), 60
#: Gain of the logarithm of the likelihood for each independent place from which variances differ.
GAIN = 1.0
#: Light over its mean below which a place tells nothing.
DIM = 0.05
#: Pixels over which errors are those foretold from the prior, but for a factor.
EVEN = 1.5
#: Values of the light, and of it and w, at which tables are made.
LEVELS, FINE = 24, 33


@dataclass(frozen=True)
class Bands:
    """Filters whose squares add up to 1.

    Attributes
    ----------
    filters : (OCTAVES, DIRECTIONS, H, W) float64
        In the order of an FFT.
    """

    filters: FloatArray

    @classmethod
    def of(cls, shape: tuple[int, int]) -> Bands:
        """Of fields (H, W)."""
        y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
        octave = np.log2(np.maximum(np.hypot(y, x), 1e-9) / 0.5)
        # |cos| and |sin| of the angle, each even in the frequency: filters are real in space
        angle = np.arctan2(y, x)
        ways = [abs(np.cos(angle - np.pi * j / DIRECTIONS)) for j in range(DIRECTIONS)]
        rest, found = np.ones(shape), []
        for number in range(OCTAVES):
            turn = 0.5 * np.pi * np.clip(octave + number + 1.5, 0, 1)
            found.append([rest * np.sin(turn) * way for way in ways])
            rest = rest * np.cos(turn)
        return cls(np.array(found))


@dataclass
class Local(Spectral):
    """Precision of the object by two spectra and variances that differ from place to place.

    Attributes
    ----------
    variances : dict of (int, int) to (2, H, W) float32
        w of u and v of each octave and direction that has some; the others have 1.
    gains : tuple of float
        What they gain: of the logarithm of the likelihood for each independent place, by octaves,
        the larger of u and v.
    """

    variances: dict[tuple[int, int], FloatArray] | None = None
    gains: tuple[float, ...] = ()

    @classmethod
    def of(cls, prior: Spectral, object: ComplexArray, light: FloatArray) -> Local:
        """From the optimum (H, W) under a stationary prior that has learned its spectra.

        light : (H, W)
            What the data tell of each real part of a pixel.
        """
        found, gains = estimated(prior, object, light)
        same = prior.backend, prior.seen, prior.spectra, prior.carrier, prior.doubt
        return cls(*same, prior.noise_power, prior.measured, variances=found, gains=gains)

    @property
    def even(self) -> float:
        """Over how many pixels errors are `variance_left` but for a factor: fewer, since bands are
        not of their own.
        """
        return EVEN if self.variances else super().even

    def more(self) -> str:
        """Where its variances differ, and what the evidence for it is."""
        own = sorted({octave for octave, _ in self.variances or {}})
        if not own:
            return "; no evidence for variances that differ from place to place"
        said = [f"{2 ** (n + 1)} to {2 ** (n + 2)} px (gain {self.gains[n]:.3g})" for n in own]
        return (
            f"; variances that differ from place to place at periods of {', '.join(said)}: "
            "logarithm of the likelihood that each independent place gains"
        )

    @cached_property
    def _bands(self) -> list[tuple[Array, Array, Array]]:
        """On the device: a filter and 1/w of u and v, for what has variances of its own."""
        move, all_of = self.backend.asarray, Bands.of(self.carrier.shape).filters
        return [
            (move(all_of[key].astype(REAL)), *(move((1 / w).astype(REAL)) for w in own))
            for key, own in (self.variances or {}).items()
        ]

    @cached_property
    def _rest(self) -> Array:
        """On the device: the filter of all that has none."""
        all_of = Bands.of(self.carrier.shape).filters
        square = 1 - sum((all_of[key] ** 2 for key in self.variances or {}), np.zeros(1))
        return self.backend.asarray(np.sqrt(np.maximum(square, 0)).astype(REAL))

    def __call__(self, field: Array) -> Array:
        """Precision of real and imaginary parts times a change (1, H, W)."""
        fft, ifft = self.backend.fft2, self.backend.ifft2
        root = self.spectra**-0.5
        white = fft(self._parts(root, field * self._carrier.conj()))
        out = white * self._rest**2
        for band, own_u, own_v in self._bands:
            c = ifft(band * white)
            out += band * fft(own_u * c.real + 1j * (own_v * c.imag))
        return (self._carrier * self._parts(root, ifft(out))).astype(COMPLEX)

    def noise(self, rng: np.random.Generator) -> Array:
        """A draw of N(0, precision), (1, H, W)."""
        fft, shape = self.backend.fft2, (1, *self.carrier.shape)
        total = self._rest * fft(self.backend.asarray(normal(rng, shape)))
        for band, own_u, own_v in self._bands:
            white = self.backend.asarray(normal(rng, shape))
            total = total + band * fft(own_u**0.5 * white.real + 1j * (own_v**0.5 * white.imag))
        root = self.spectra**-0.5
        return (self._carrier * self._parts(root, self.backend.ifft2(total))).astype(COMPLEX)

    @property
    def _carrier(self) -> Array:
        return self._on_device(self.spectra**-0.5)[0]

    def _parts(self, transfer: FloatArray, turned: Array) -> Array:
        """u + i v from those of a field whose carrier is taken off."""
        _, p, q = self._on_device(transfer)
        fft = self.backend.fft2
        return self.backend.ifft2(p * fft(turned) + q * fft(turned.conj()))

    def variance_left(self, light: FloatArray) -> FloatArray:
        """E|error|^2 (H, W) where data give each part the precision `light` (H, W), as if each band
        were of its own.
        """
        all_of, rings = Bands.of(self.carrier.shape).filters, self.seen.rings
        own = self.variances or {}
        rest = 1 - sum((all_of[key] ** 2 for key in own), np.zeros(1))
        n, most = self.seen.rings.size, float(light.max())
        lights = np.linspace(0, 1, FINE) ** 3 * most

        def left(filter2: FloatArray, part: int, w: float) -> FloatArray:
            share = np.bincount(rings.ravel(), filter2.ravel(), len(self.seen.size)) / n
            return np.asarray((share / (1 / (w * self.spectra[part]) + lights[:, None])).sum(1))

        total = np.zeros(light.shape)
        for part in (0, 1):
            plain = left(np.broadcast_to(rest, light.shape), part, 1.0)
            total += np.interp(light.ravel(), lights, plain).reshape(light.shape)
            for key, w in own.items():
                table = np.array([left(all_of[key] ** 2, part, s) for s in np.exp(LOGS)])
                total += between(table, np.log(w[part]), LOGS, (light / most) ** (1 / 3))
        return total


def between(
    table: FloatArray, first: FloatArray, grid: FloatArray, second: FloatArray
) -> FloatArray:
    """A table over an even grid, and an even one from 0 to 1, linear between its values."""
    a = np.clip((first - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1.001)
    b = np.clip(second * (table.shape[1] - 1), 0, table.shape[1] - 1.001)
    i, j = a.astype(int), b.astype(int)
    a, b = a - i, b - j
    low = table[i, j] * (1 - b) + table[i, j + 1] * b
    high = table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b
    return np.asarray(low * (1 - a) + high * a)


def estimated(
    prior: Spectral, object: ComplexArray, light: FloatArray
) -> tuple[dict[tuple[int, int], FloatArray], tuple[float, ...]]:
    """Variances of what gains by them, and what each octave gains (see `Local`)."""
    seen, all_of = prior.seen, Bands.of(light.shape).filters
    mean_light = float((seen.window**2 * light).sum() / (seen.window**2).sum())
    ratio = light / mean_light
    inside = (seen.window > 0) & (ratio > DIM)
    noise = by_rings(prior, mean_light)
    off = np.asarray(object, np.complex128) * prior.carrier.conj()
    off -= (seen.window * off).sum() / seen.window.sum()
    white = [
        np.fft.fft2(part) / np.sqrt(prior.spectra[i])[seen.rings]
        for i, part in enumerate((off.real, off.imag))
    ]
    found: dict[tuple[int, int], FloatArray] = {}
    gains = []
    for octave in range(OCTAVES):
        near, best = NEAR * 2**octave, 0.0
        for part in (0, 1):
            looks = [
                look(all_of[octave, way], white[part], noise[part], seen.rings, ratio, inside, near)
                for way in range(DIRECTIONS)
            ]
            numbers = 0.5 * 4 * np.pi * near**2 * float((all_of[octave, 0] ** 2).mean())
            own_of, gain = mixed(np.array(looks), max(numbers, 0.5))
            gain /= max(DIRECTIONS * inside.sum() / (4 * np.pi * near**2), 1.0)
            best = max(best, gain)
            if gain < GAIN:
                continue
            for way in range(DIRECTIONS):
                own = found.setdefault((octave, way), np.ones((2, *light.shape), REAL))
                own[part][inside] = own_of[way]
        gains.append(best)
    return found, tuple(gains)


def by_rings(prior: Spectral, light: float) -> FloatArray:
    """Noise over the spectrum in each ring (2, R), as it was last seen; without that, of even
    light.
    """
    if prior.noise_power is None:
        return 1 / (light * prior.spectra)
    parts = bands(len(prior.seen.size))
    middle = np.log([0.5 * (k.start + k.stop - 1) for k in parts])
    at = np.log(np.maximum(np.arange(len(prior.seen.size)), 1))
    rows = [np.exp(np.interp(at, middle, np.log(row))) for row in prior.noise_power]
    return np.asarray(np.array(rows) / prior.spectra)


def look(
    filter: FloatArray,
    white: ComplexArray,
    noise: FloatArray,
    rings: Array,
    ratio: FloatArray,
    inside: BoolArray,
    near: float,
) -> FloatArray:
    """Y and N (2, n) of the places inside, relative to what the spectra say."""
    from scipy.ndimage import gaussian_filter

    weight = filter**2 / (filter**2).sum()
    share = np.bincount(rings.ravel(), weight.ravel(), len(noise))
    levels = np.geomspace(DIM, max(2.0, float(ratio.max())), LEVELS)
    # what the optimum has kept of a coefficient, and of its noise
    known = 1 / (1 + noise / levels[:, None])
    kept = (share * known**2).sum(axis=1)
    left = (share * known * (1 - known)).sum(axis=1) / kept
    square = np.fft.ifft2(filter * white).real ** 2 / (filter**2).mean()
    here = gaussian_filter(inside.astype(float), near)
    square = gaussian_filter(square * inside, near)[inside] / here[inside]
    at = np.log(ratio[inside])
    kept, left = (np.exp(np.interp(at, np.log(levels), np.log(a))) for a in (kept, left))
    return np.array([square / kept, left])


def mixed(looks: FloatArray, numbers: float) -> tuple[FloatArray, float]:
    """w at each place (ways, n), from Y and N (ways, 2, n), and the gain of the logarithm of the
    likelihood of all over the best w that is the same everywhere, neighbours counted as if they
    were independent.
    """
    Y, N = looks[:, 0].ravel(), looks[:, 1].ravel()
    total = np.exp(LOGS)[:, None] + N
    fit = -numbers * (np.log(total) + Y / total)
    fit -= fit[fit.sum(axis=1).argmax()]
    top = fit.max(axis=0)
    likely = np.exp(fit - top)
    share = np.exp(-0.5 * LOGS**2)
    share /= share.sum()
    for _ in range(TURNS):
        whole = share @ likely
        share = share * (likely @ (1 / whole)) / Y.size
    whole = share @ likely
    own = whole / ((share * np.exp(-LOGS)) @ likely)
    return own.reshape(len(looks), -1), float((np.log(whole) + top).sum())
