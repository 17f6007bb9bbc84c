r"""Blur of the detector, seen in the frames before anything is reconstructed.

The Fourier transform of a far-field frame, A(t) = sum_q n(q) exp(-2 pi i q.t/N), is the
autocorrelation of the wave behind the object: nothing but noise where t is longer than twice the
beam. Two things show there and in the dark places between speckles.

Noise that is spread. Counts of single pixels are white, <|A(t)|^2> = <sum n>. Where light is spread
after it was counted (charge that is shared, frames that were interpolated or turned), noise is
spread too,

    <|A(t)|^2> = g <sum n> |K_s(t)|^2,

K_s being the transform of a Gaussian of s pixels, as `--blur` has it. It is fitted where t is long:
s with g = 1, and s and g together, so that neither counts in another unit nor light that is left
there pass for a blur. The mean of |A|^2 over F frames has a Gamma distribution, which gives
likelihoods; Poisson noise of a frame with the expectation m makes A(t) and A(t') correlate by the
transform of m at t - t', so that P Q sum m^2/(sum m)^2 of them count as one.

Light that is spread. A coherent wave has zeros, about which the intensity is a paraboloid of
curvature c = laplacian I. A point spread of variance s^2 lifts all of them to s^2 c/2. Counts are
split at random in two halves; one tells where the minima are, the other what they hold, in frames
without the frequencies that only noise has:

    s^2 = 2 sum I / sum laplacian I        over the minima that tell it well

A beam that is partly coherent fills the zeros as well; which of the two it is the frames do not
say, the held-out pixels of `propose` do. Where the beam is as wide as half the window its
autocorrelation fills the frame, intensities between pixels are not known, and this says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..data.bad_values import BadValues
from ..data.dataset import Dataset
from ..model.problem import Problem
from ..model.spread import blur
from ..types import BoolArray, ComplexArray, FloatArray

#: Frames that are looked at, and pixels of them in all.
FRAMES, PIXELS = 64, 2**21
#: Squares of |t/N| from which on there is noise alone; the second where light is left at the first.
RIMS = 0.15, 0.25
#: Widths that are tried, pixels; the first is none.
WIDTHS = np.concatenate([[0.0], np.arange(0.2, 2.01, 0.02)])
#: Standard errors from which a blur is named (one less where the scale is free, which is to agree),
#: its least width in pixels, and the ratio of widths by both fits.
CLEAR, WIDTH, ALIKE = 4.0, 0.3, 1.4
#: Largest |t/N| of the autocorrelation for which intensities between pixels are known.
WIDEST = 0.42
#: Pixels between two of a frame, error of s^2 of one minimum, and minima that are enough.
FINER, GOOD, ENOUGH = 2, 0.2, 100
#: s^2 of sharp frames, px^2, at most: minima are found a little beside the zeros, and not all are
#: zeros. Simulated, 0.01 to 0.09; a Gaussian of 0.5 px gives 0.27 to 0.36.
SHARP = 0.15


@dataclass(frozen=True)
class Blur:
    """A point spread that the frames show.

    Attributes
    ----------
    width, error : float
        Standard deviation, px.
    kind : {"noise", "light"}
        What is spread: noise too, which only a detector does; or light alone, which a beam that is
        partly coherent does as well.
    """

    width: float
    error: float
    kind: str


def find_blur(data: Dataset) -> Blur | None:
    """The point spread that the frames of a scan show; None where they show none, or cannot.

    Parameters
    ----------
    data : Dataset
        Of the far field, with counts.
    """
    if data.geometry == "near" or not data.counting or data.upsample > 1 or data.blur is not None:
        return None
    frames = _frames(data)
    if frames is None:
        return None
    return spread_noise(frames) or spread_light(frames)


def with_blur(problem: Problem, width: float) -> Problem:
    """A problem whose detector has a point spread of that width, px."""
    return replace(problem, spread=blur(problem.frame_shape, width))


def remark(found: Blur, path: str = "FILE") -> str:
    """What the frames show, for people, with the option that treats it."""
    width = f"{found.width:.2g} px"
    if found.kind == "noise":
        return (
            f"the noise of neighbouring pixels goes together as behind a point spread of {width}: "
            "the detector shares light between pixels, or frames were interpolated; add --blur "
            f"{found.width:.2g}"
        )
    return (
        f"the dark places between speckles are filled as by a point spread of {width}: a detector "
        f"that blurs (--blur {found.width:.2g}) or a beam that is partly coherent (--modes 3); "
        f"ptychon inspect {path} --propose settings.yaml tries both"
    )


def _frames(data: Dataset) -> FloatArray | None:
    """Frames in the middle of the scan, (F, P, Q), what is no measurement 0; None where gaps leave
    too little.
    """
    p, q = data.frame_shape
    count = min(FRAMES, len(data), max(1, PIXELS // (p * q)))
    first = (len(data) - count) // 2
    block = np.asarray(data.patterns[first : first + count])
    bad = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask).bad(block)
    valid = np.ones(block.shape, bool) if bad is None else ~bad
    if data.mask is not None:
        valid &= data.mask if data.mask.ndim == 2 else data.mask[first : first + count]
    values = np.where(valid, block, 0).astype(np.float64)
    if count < 8 or min(p, q) < 16 or not values.sum() > 0:
        return None
    return values


def _lengths(shape: tuple[int, ...]) -> FloatArray:
    """|t/N| of the frequencies of a frame (P, Q)."""
    return np.asarray(np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))


def _power(frames: FloatArray) -> FloatArray:
    """Mean |A(t)|^2 over mean counts of a frame, (P, Q)."""
    total = np.zeros(frames.shape[1:])
    for frame in frames:
        total += np.abs(np.fft.fft2(frame)) ** 2
    return np.asarray(total / max(float(frames.sum()), 1e-300))


def spread_noise(frames: FloatArray) -> Blur | None:
    """A point spread of the noise, from frames (F, P, Q) of counts."""
    power = _power(frames)
    return _fit(frames, power, RIMS[0]) or _fit(frames, power, RIMS[1])


def _fit(frames: FloatArray, power: FloatArray, beyond: float) -> Blur | None:
    """A point spread of the noise, by the rim of mean |A|^2 beyond a square of |t/N|."""
    rim = _lengths(frames.shape[1:]) ** 2 >= beyond
    power = power[rim]
    spread = np.stack([_transform(frames.shape[1:], width)[rim] ** 2 for width in WIDTHS])
    # A(-t) is the conjugate of A(t), and where the light is in few pixels, A(t) is alike nearby
    total, square = frames.sum(axis=(1, 2)), (frames**2 - frames).clip(0, None).sum(axis=(1, 2))
    alike = rim.size * square.sum() / max(float((total**2).sum()), 1e-300)
    freedom = len(frames) / (2 * max(float(alike), 1.0))
    alone = freedom * (np.log(spread) + power / spread).sum(axis=1)
    scale = (power / spread).mean(axis=1, keepdims=True)
    both = freedom * (np.log(scale * spread) + power / (scale * spread)).sum(axis=1)
    found = []
    for misfit, clear in ((alone, CLEAR), (both, CLEAR - 1)):
        best = int(misfit.argmin())
        if WIDTHS[best] < WIDTH or 2 * (misfit[0] - misfit[best]) < clear**2:
            return None
        found.append(WIDTHS[best])
    if max(found) > ALIKE * min(found):
        return None
    return Blur(float(found[0]), float(abs(found[0] - found[1])) / 2 + 0.01, "noise")


def _transform(shape: tuple[int, ...], width: float) -> FloatArray:
    """K_s at the frequencies of a frame (P, Q)."""
    away = np.arange(-int(6 * width) - 1, int(6 * width) + 2)
    kernel = np.exp(-(away**2) / (2 * max(width, 1e-3) ** 2))
    kernel /= kernel.sum()
    y, x = (np.cos(2 * np.pi * np.outer(np.fft.fftfreq(n), away)) @ kernel for n in shape)
    return np.asarray(np.maximum(np.outer(y, x), 1e-8))


def spread_light(frames: FloatArray, seed: int = 0) -> Blur | None:
    """A point spread of the light, from frames (F, P, Q) of counts."""
    u = _lengths(frames.shape[1:])
    reach = _support(_power(frames), u, len(frames))
    if reach > WIDEST:
        return None
    whole = np.maximum(np.rint(frames), 0).astype(np.int64)
    half = np.random.default_rng(seed).binomial(whole, 0.5).astype(np.float64)
    band = u <= reach
    found = _minima(half, whole - half, band, u)
    if found.count < ENOUGH or not found.square - SHARP > CLEAR * found.error:
        return None
    # a spread changes the curvature too: the width is that without which minima are as low as those
    # of sharp frames
    low, high = 0.2, 2.0
    for _ in range(7):
        width = math.sqrt(low * high)
        rest = _minima(half, whole - half, band, u, width).square
        low, high = (width, high) if rest > SHARP / 3 else (low, width)
    width = math.sqrt(low * high)
    return Blur(width, found.error / (2 * width), "light") if WIDTH < width < 1.9 else None


def _support(power: FloatArray, u: FloatArray, count: int) -> float:
    """|t/N| at which the autocorrelation has ended: the first ring that holds noise alone."""
    side = min(power.shape)
    ring = np.rint(u * side).astype(int).ravel()
    pixels = np.bincount(ring)
    mean = np.bincount(ring, power.ravel()) / np.maximum(pixels, 1)
    noise = 1 + 5 / np.sqrt(np.maximum(count * pixels / 2, 1)) + 0.05
    quiet = np.flatnonzero(mean < noise)
    return float((quiet[0] + 1) / side) if len(quiet) else 1.0


@dataclass(frozen=True)
class _Minima:
    """Sums over the minima of each frame: what they hold, twice, and their curvature."""

    held: FloatArray
    curvature: FloatArray
    count: int

    @property
    def square(self) -> float:
        """s^2."""
        return float(self.held.sum() / max(self.curvature.sum(), 1e-300))

    @property
    def error(self) -> float:
        """Of s^2, from the scatter between frames."""
        rest = self.held - self.square * self.curvature
        return float(np.sqrt((rest**2).sum()) / max(self.curvature.sum(), 1e-300))


def _minima(
    where: FloatArray, held: FloatArray, band: BoolArray, u: FloatArray, width: float = 0.0
) -> _Minima:
    """Minima of one half of the counts, and what the other half holds there, both without a point
    spread of that width.
    """
    sharper = np.exp(2 * np.pi**2 * width**2 * u**2) * band
    bend = -((2 * np.pi * u) ** 2) * sharper
    kernel = np.fft.fft2(np.abs(np.fft.ifft2(sharper)) ** 2)
    depths, curvatures, count = [], [], 0
    for a, b in zip(where, held, strict=True):
        spectrum, other = np.fft.fft2(a), np.fft.fft2(b)
        place = _finer(spectrum * sharper)
        lowest = np.ones(place.shape, bool)
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for sign in (1, -1):
                lowest &= place < np.roll(place, (sign * shift[0], sign * shift[1]), (0, 1))
        curve = _finer(spectrum * bend)
        noise = np.fft.ifft2(other * kernel).real.clip(0, None)
        noise = np.repeat(np.repeat(noise, FINER, 0), FINER, 1)
        known = lowest & (2 * np.sqrt(noise) < GOOD * curve)
        curvatures.append(float(_finer(other * bend)[known].sum()))
        depths.append(2 * float(_finer(other * sharper)[known].sum()))
        count += int(known.sum())
    return _Minima(np.array(depths), np.array(curvatures), count)


def _finer(spectrum: ComplexArray) -> FloatArray:
    """A frame on `FINER` times as many points, of its spectrum, which ends before its limit."""
    p, q = spectrum.shape
    wide = np.zeros((p * FINER, q * FINER), complex)
    rows, columns = (np.fft.fftfreq(n, 1 / n).astype(int) for n in (p, q))
    wide[rows[:, None], columns[None]] = spectrum
    return np.asarray(np.fft.ifft2(wide).real * FINER**2)
