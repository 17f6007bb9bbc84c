r"""Gaussian priors of the object whose spectra are learned with it.

    exp(-i phi) (O - c) = u + i v,    u, v real stationary Gaussian fields of spectra S^u_k, S^v_k

c is the mean of the object, phi the axis along which it varies most: an object that shifts the
phase more than it absorbs has two spectra, and one whose amplitude and phase vary alike has twice
the same. In each ring of spatial frequency the data leave of a spectrum S the share V/S, of the
measured mean m and draws of its error of the power V; to them it is as if S were measured once in
each frequency, with noise N:

    known = 1 - V/S,    N = V/known,    Y = |m|^2/known^2  ~  (S + N) times an exponential number

    log S  <-  arg min  sum_k n_k [log(S_k + N_k) + Y_k/(S_k + N_k)]
                        + tau/2 integral (d^2 log S/d log k^2)^2 d log k

(marginal likelihood, Whittle's; a smoothing spline beside it). A ring of which the data tell
nothing follows the power law of the last ones that they do, bent as little as possible, and a
spectrum may fall as fast as the data say. m and V depend on S, and so it is learned in turns with
the optimum (expectation maximisation, at the speed of Fisher scoring). The first spectra are those
of an object with all its noise, under which every ring is known; N and Y of a ring whose spectrum
has fallen far below its noise stay what they were last seen to be.

Where the probe is learned too, an optimum has less power at fine details than the Gaussian about it
foretells: Y is 0.9 (S + N) at S = 3 N and 0.7 at S = 1.4 N, and a spectrum that follows it down,
turn by turn, ends at 0.6 of the truth with one mode and at nothing with two. So rings in which S is
not well above N go on along the power law of those that are, unless Y is far below that and yet not
below the noise, which no spectrum explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..backends import Backend
from ..engines.joint_posterior import SMOOTH
from ..engines.spectral_prior import rings_of
from ..metrics.frc import soft_window
from ..model.thin import normal
from ..types import COMPLEX, REAL, Array, BoolArray, ComplexArray, FloatArray

#: What the prior of the object may be: CN(0, S) in each pixel, this one, or this one with variances
#: that differ from place to place where the evidence is for them (see `local`).
WHITE, LEARNED, LOCAL = PRIORS = ("white", "learned", "local")
#: Soft edge of the window under which spectra are taken, share of its shorter side.
EDGE = 0.2
#: Weight tau of the curvature of log S over log k: bends of 1/sqrt(tau) are expected.
STIFF = 0.02
#: N and Y are not seen any more in a ring of which the data know less than these shares.
KNOWN, LITTLE = 0.5, 0.1
#: Only what exceeds the noise of draws by this factor is taken for the object where the probe is
#: learned too: errors that both trade are left in the mean, and are not in draws about it.
DOUBT = 1.15
#: Share that data have to know of a ring beside a learned probe, or it follows the power law over
#: so many octaves before it; from this share of the power foretold downwards the data are believed,
#: if there is this share of the noise in them.
WELL_KNOWN, BEFORE, FALLEN, HONEST = 0.8, 1.0, 0.5, 0.9
#: A ring of which they know less than this share is assumed, not learned.
ASSUMED = 0.4
#: Bands that tell a power law, at least.
FEWEST = 3
#: Change of log S in one turn, at most, and steps of the search for it.
LARGEST, STEPS = 3.0, 60
#: Variance of the mean c over that of the whole object.
FREE_MEAN = 10.0
#: Power of a ring over that of the strongest, at least: single precision is no better.
LEAST = 1e-9


@dataclass(frozen=True)
class Seen:
    """What spectra are taken of: a window on the lit part, the rings of frequencies.

    Attributes
    ----------
    window : (H, W) float64
    rings : (H, W) int32 and size : (R,) float64
    """

    window: FloatArray
    rings: Array
    size: FloatArray

    @classmethod
    def of(cls, region: BoolArray) -> Seen:
        """Of a region (H, W)."""
        rings, size = rings_of(region.shape, np)
        return cls(soft_window(region, EDGE), rings, size.astype(np.float64))

    @cached_property
    def share(self) -> float:
        """Of the frequencies of a ring that are independent of each other."""
        w = self.window
        return float((w**2).sum() ** 2 / (w**4).sum() / w.size)

    def centred(self, field: ComplexArray) -> ComplexArray:
        """Less its mean."""
        return np.asarray(field - (self.window * field).sum() / self.window.sum())

    def carrier(self, field: ComplexArray) -> ComplexArray:
        """exp(i (phi + k r)) of an object (H, W): its mean slope of phase, which nobody knows where
        the probe is learned, and the direction in which the rest varies most.
        """
        O, w = np.asarray(field, np.complex128), self.window
        ramp = np.ones(O.shape, np.complex128)
        for axis in (0, 1):
            step = np.angle((w * O * np.roll(w * O, 1, axis).conj()).sum())
            r = np.arange(O.shape[axis]) - O.shape[axis] // 2
            ramp *= np.exp(1j * step * np.expand_dims(r, 1 - axis))
        off = self.centred(O * ramp.conj())
        return np.asarray(ramp * np.exp(0.5j * np.angle((w * off**2).sum())))

    def power(
        self, field: ComplexArray, carrier: ComplexArray, about: FloatArray | None = None
    ) -> FloatArray:
        """Of u and v of a field (H, W), by rings: (2, R); taken of the field whitened by spectra
        `about`, if there are some, so that nothing leaks from strong rings into weak ones.
        """
        off = self.centred(np.asarray(field, np.complex128) * carrier.conj())
        found = []
        for i, part in enumerate((off.real, off.imag)):
            if about is not None:
                white = np.fft.fft2(part) / np.sqrt(about[i])[self.rings]
                part = np.fft.ifft2(white).real
            power = np.abs(np.fft.fft2(self.window * part, norm="ortho")) ** 2
            total = np.bincount(self.rings.ravel(), power.ravel(), len(self.size))
            mean = total / np.maximum(self.size, 1) / (self.window**2).mean()
            found.append(mean if about is None else mean * about[i])
        return np.array(found)


@dataclass
class Spectral:
    """Precision of the object by two spectra.

    Attributes
    ----------
    backend : Backend
    seen : Seen
    spectra : (2, R) float64
        S^u and S^v.
    carrier : (H, W) complex128
        exp(i (phi + k r)).
    doubt : float
        Factor on the noise of draws above which something is taken for the object; 1 where the
        probe is known.
    noise_power, measured : (2, R) float64, optional
        N and Y, where they were last seen.
    """

    backend: Backend
    seen: Seen
    spectra: FloatArray
    carrier: ComplexArray
    doubt: float = DOUBT
    noise_power: FloatArray | None = None
    measured: FloatArray | None = None
    cache: dict[bytes, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False)

    @classmethod
    def first(
        cls, backend: Backend, seen: Seen, object: ComplexArray, doubt: float = DOUBT
    ) -> Spectral:
        """From an object alone, noise and all."""
        carrier = seen.carrier(object)
        spectra = smoothed(seen, seen.power(object, carrier))
        return cls(backend, seen, spectra, carrier, doubt).about(object)

    def about(self, object: ComplexArray) -> Spectral:
        """The same with a mean that is free."""
        spectra, w = self.spectra.copy(), self.seen.window
        spectra[:, 0] = FREE_MEAN * w.size * (w * abs(object) ** 2).sum() / w.sum()
        return replace(self, spectra=spectra, cache={})

    def learned(self, object: ComplexArray, errors: list[ComplexArray]) -> Spectral:
        """For the optimum that belongs to this prior, and draws of its error."""
        seen, S = self.seen, np.array([by_bands(self.seen, row) for row in self.spectra])
        m = np.array([by_bands(seen, row) for row in self.power(object)])
        V = np.mean([self.power(x) for x in errors], axis=0)
        V = np.array([by_bands(seen, row) for row in V])
        N, Y = without_prior(m, V, 1 / S, self.noise_power, self.measured)
        rows = zip(self.spectra, S, self.doubt * N, Y, strict=True)
        spectra = np.array([self._from(*row) for row in rows])
        found = replace(self, spectra=spectra, noise_power=N, measured=Y, cache={})
        return found.about(object)

    def _from(
        self, S: FloatArray, before: FloatArray, noise: FloatArray, measured: FloatArray
    ) -> FloatArray:
        """A spectrum (R,) from the one before, and that, N and Y by bands (B,)."""
        found = refit(self.seen, S, before, noise, measured)
        if self.doubt == 1:
            return found
        return continued(self.seen, found, noise, measured)

    def power(self, field: ComplexArray) -> FloatArray:
        """Of u and v of a field (H, W), by rings: (2, R)."""
        return self.seen.power(field, self.carrier, self.spectra)

    def assumed(self, errors: list[ComplexArray]) -> float:
        """Share of the variance of errors in rings of which the data know less than `ASSUMED`."""
        V = np.mean([self.power(x) for x in errors], axis=0)[:, 1:]
        left = V * self.seen.size[1:]
        return float(left[(1 - ASSUMED) * self.spectra[:, 1:] < V].sum() / left.sum())

    @property
    def even(self) -> float:
        """Over how many pixels errors are `variance_left` but for a factor."""
        return SMOOTH

    def sentence(self, assumed: float) -> str:
        """For a list of what bars are conditional on."""
        return (
            "prior of the object: stationary Gaussian, spectra along and across its mean learned "
            f"({assumed:.0%} of the variance where they are assumed)" + self.more()
        )

    def more(self) -> str:
        """What else there is to say of it, after a list of facts."""
        return ""

    # ------------------------------------------------------------ as an operator

    def _by(self, transfer: FloatArray, field: Array) -> Array:
        """Both parts of a field (1, H, W) times (2, R) in Fourier space."""
        carrier, p, q = self._on_device(transfer)
        turned = field * carrier.conj()
        both = p * self.backend.fft2(turned) + q * self.backend.fft2(turned.conj())
        return (carrier * self.backend.ifft2(both)).astype(COMPLEX)

    def _on_device(self, transfer: FloatArray) -> tuple[Array, Array, Array]:
        move, rings = self.backend.asarray, self.seen.rings
        p, q = (transfer[0] + transfer[1]) / 2, (transfer[0] - transfer[1]) / 2
        key = transfer.tobytes()
        if key not in self.cache:
            parts = (self.carrier.astype(COMPLEX), p.astype(REAL)[rings], q.astype(REAL)[rings])
            self.cache[key] = (move(parts[0]), move(parts[1]), move(parts[2]))
        return self.cache[key]

    def __call__(self, field: Array) -> Array:
        """Precision of real and imaginary parts times a change (1, H, W)."""
        return self._by(1 / self.spectra, field)

    def noise(self, rng: np.random.Generator) -> Array:
        """A draw of N(0, precision), (1, H, W)."""
        white = self.backend.asarray(normal(rng, (1, *self.seen.rings.shape)))
        return self._by(self.spectra**-0.5, white * COMPLEX.type(self.carrier))

    @property
    def diagonal(self) -> float:
        """Of the precision, the mean of both parts."""
        return float((self.seen.size / self.spectra).sum() / self.seen.size.sum() / 2)

    def inverse(self, field: Array, light: float) -> Array:
        """(precision + light)^-1 of a field (1, H, W): near that of H where light is even."""
        return self._by(1 / (1 / self.spectra + light), field)

    def variance_left(self, light: FloatArray) -> FloatArray:
        """E|error|^2 (H, W) where data give each part the precision `light` (H, W)."""
        grid = np.linspace(0, 1, 65) ** 3 * float(light.max())
        share = self.seen.size / self.seen.size.sum()
        left = (share / (1 / self.spectra[:, None] + grid[:, None])).sum(axis=(0, 2))
        return np.asarray(np.interp(light.ravel(), grid, left).reshape(light.shape))


def without_prior(
    m: FloatArray,
    V: FloatArray,
    precision: FloatArray,
    noise: FloatArray | None,
    measured: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    """N and Y of an optimum with the power m and draws about it with the power V, under a prior
    with this precision; where that tells nothing of them, what they were last.
    """
    known = np.clip(1 - precision * V, LITTLE, 1)
    N = V / known
    if noise is not None:
        N = np.where(known > KNOWN, N, noise)
    # no more chance than that of the mean itself is wanted here
    known = 1 / (1 + precision * N)
    Y = m / known**2
    if measured is not None:
        Y = np.where(known > LITTLE, Y, measured)
    return N, Y


def bands(rings: int) -> list[slice]:
    """Rings 1 to R - 1 in bands of about a tenth of their frequency."""
    found, first = [], 1
    while first < rings:
        last = min(rings, first + max(1, round(0.1 * first)))
        found.append(slice(first, last))
        first = last
    return found


def middles(parts: list[slice]) -> FloatArray:
    """log k of the middles of bands, (B,)."""
    return np.log([0.5 * (k.start + k.stop - 1) for k in parts])


def by_rings(S: FloatArray, x: FloatArray, theta: FloatArray) -> FloatArray:
    """A spectrum (R,) with theta, its logarithm, at log k of x (B,), on straight lines between;
    ring 0 as it was.
    """
    out = S.copy()
    out[1:] = np.exp(np.interp(np.log(np.arange(1, len(S))), x, theta))
    return np.asarray(out)


def by_bands(seen: Seen, values: FloatArray) -> FloatArray:
    """Means (B,) of values of rings (R,) over bands."""
    return np.array([np.average(values[k], weights=seen.size[k]) for k in bands(len(seen.size))])


def smoothed(seen: Seen, power: FloatArray) -> FloatArray:
    """Spectra (2, R) of bands for the power (2, R) of an object alone."""
    out = power.copy()
    for k, mean in zip(
        bands(len(seen.size)), np.transpose([by_bands(seen, p) for p in power]), strict=True
    ):
        out[:, k] = mean[:, None]
    return np.asarray(np.maximum(out, LEAST * out[:, 1:].max()))


def continued(seen: Seen, S: FloatArray, noise: FloatArray, measured: FloatArray) -> FloatArray:
    """A spectrum (R,), from the first ring on in which it is not well above the noise N along the
    power law before it, until the measured Y has fallen off that. A Y below N is that of an optimum
    which has lost these rings, and tells nothing.
    """
    parts = bands(len(S))
    size = np.array([seen.size[k].sum() for k in parts])
    x = middles(parts)
    theta = np.interp(x, np.log(np.arange(1, len(S))), np.log(S[1:]))
    known = 1 - noise / np.maximum(measured, noise)
    first = int(np.max(np.flatnonzero(known > WELL_KNOWN), initial=-1)) + 1
    near = (x >= x[first - 1] - BEFORE * math.log(2)) & (np.arange(len(x)) < first)
    if first == len(x) or near.sum() < FEWEST:
        return S
    slope, level = np.polyfit(x[near], theta[near], 1, w=np.sqrt(size[near]))
    for i in range(first, len(x)):
        foretold = level + slope * x[i]
        if HONEST * noise[i] < measured[i] < FALLEN * (math.exp(foretold) + noise[i]):
            break
        theta[i] = max(theta[i], foretold)
    return by_rings(S, x, theta)


def refit(
    seen: Seen, S: FloatArray, before: FloatArray, noise: FloatArray, measured: FloatArray
) -> FloatArray:
    """A spectrum (R,) from the one before, and of the same by bands (B,), with N and Y."""
    parts = bands(len(S))
    weight = 0.5 * seen.share * np.array([seen.size[k].sum() for k in parts])
    x = middles(parts)
    bend = STIFF * bending(x)
    least = np.log(LEAST * float(before.max()))
    theta = np.log(before)
    for _ in range(STEPS):
        s = np.exp(theta)
        total = s + noise
        slope = weight * s / total * (1 - measured / total) + bend @ theta
        curve = np.diag(weight * (s / total) ** 2 + 1e-6) + bend
        step = np.clip(np.linalg.solve(curve, -slope), -1, 1)
        theta = np.maximum(theta + step, least)
        if np.abs(step).max() < 1e-3:
            break
    theta = np.clip(theta, np.log(before) - LARGEST, np.log(before) + LARGEST)
    return by_rings(S, x, theta)


def bending(x: FloatArray) -> FloatArray:
    """Matrix of the integral of (second derivative)^2 of values at points x, (B, B)."""
    B = np.zeros((len(x), len(x)))
    for i in range(1, len(x) - 1):
        a, b = x[i] - x[i - 1], x[i + 1] - x[i]
        row = np.zeros(len(x))
        row[i - 1], row[i], row[i + 1] = 2 / a / (a + b), -2 / a / b, 2 / b / (a + b)
        B += np.outer(row, row) * (a + b) / 2
    return B
