r"""How scans of one specimen lie to each other, where their positions do not say.

Each scan is reconstructed by itself, and its object laid on that of another one. A reconstruction
has its own phase ramp, constant and place: the products

    G_d(r) = O(r + d) O*(r)/sqrt|.|

know of no ramp but by a constant, so that their correlation coefficient over the pixels that both
have lit tells the shift, for any overlap (Padfield, IEEE Trans. Image Process. 21, 2706 (2012),
for the sums over it). Where the light of a probe is not in the middle of its window, its object is
moved by as much; that is taken off. Fractions of a pixel are those of `metrics.alignment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy

from ..data.result import Result
from ..metrics.alignment import align
from ..metrics.registration import LAGS, bounding_box, translate
from ..types import BoolArray, ComplexArray, FloatArray, PtychonError
from .constraints.shared import off_centre

#: Passes by which each scan is reconstructed for it.
PASSES = 80
#: Share of the smaller object that must be lit in both.
OVERLAP = 0.15
#: Least correlation coefficient, and how much the next best place must fall behind.
LIKE, AHEAD = 0.4, 1.2
#: Pixels about the best place that are no other place.
NEAR = 5


def searched(shift: Any) -> bool:
    """Whether the shifts of scans are to be searched for."""
    return isinstance(shift, str) and shift == "search"


def stated(shift: Any, count: int) -> FloatArray:
    """Shifts that are given, (S, 2) float64 with zeros for the first scan.

    Parameters
    ----------
    shift : (2,) or (S - 1, 2) floats, or None
        What is added to the positions of each scan but the first, m, or pixels where their size is
        not known; None is nothing.
    count : int
        S.

    Raises
    ------
    PtychonError
    """
    found = np.zeros((count, 2))
    if shift is None:
        return found
    try:
        moves = np.asarray(shift, float)
    except (TypeError, ValueError):
        moves = np.zeros(0)
    if moves.ndim == 1 and count == 2:
        moves = moves[None]
    if moves.shape != (count - 1, 2) or not np.isfinite(moves).all():
        raise PtychonError(
            f"shift is {shift!r}; give 'search', or dy, dx of each scan but the first, "
            f"{count - 1} pair{'s' if count > 2 else ''}"
        )
    found[1:] = moves
    return found


def found_shifts(results: Sequence[Result], say: Callable[[str], None] | None = None) -> FloatArray:
    """Shifts that lay objects on each other, (S, 2) float64, in the units of `stated`.

    Parameters
    ----------
    results : sequence of Result
        Of each scan by itself.
    say : callable, optional
        Told what was found.

    Raises
    ------
    PtychonError
        Where an object looks like no other one.
    """
    pixel = np.array(results[0].pixel_size or (1.0, 1.0))
    middles = [_middle(one) for one in results]
    moves = np.zeros((len(results), 2))
    for i in range(1, len(results)):
        tried = []
        for j in range(i):
            move, like, ahead = offset(results[j], results[i])
            tried.append((like, ahead, j, move))
        like, ahead, j, move = max(tried, key=lambda one: one[0])
        if like < LIKE or ahead < AHEAD:
            raise PtychonError(
                f"scan {i + 1} was found nowhere on the objects of the others: the best place has "
                f"a correlation of {like:.2f}, {ahead:.2f} times that of the next one, and "
                f"{LIKE:g} and {AHEAD:g} are needed; state --shift, or share the probe only"
            )
        move = move - (middles[i] - middles[j])
        apart = np.array(results[j].origin) - np.array(results[i].origin)
        moves[i] = moves[j] + apart - move * pixel
        if say is not None:
            steps = moves[i] / pixel
            say(
                f"scan {i + 1} is moved by {steps[0]:.2f}, {steps[1]:.2f} px (y, x) to lie on scan "
                f"{j + 1} (correlation {like:.2f})"
            )
    return moves


def _middle(result: Result) -> FloatArray:
    """How far the light of a probe is from the middle of its window, (2,) pixels."""
    power = (np.abs(result.probe) ** 2).sum(axis=0, dtype=np.float64)
    return np.array([off_centre(power, axis) for axis in (0, 1)])


def offset(one: Result, other: Result) -> tuple[FloatArray, float, float]:
    """Where one object lies on another: s with other(r + s) like one(r).

    Returns
    -------
    s : (2,) float64
        Pixels.
    like : float
        Correlation coefficient there.
    ahead : float
        How many times that of the next best place, further than `NEAR`, it is.
    """
    score, shape = _scores(one, other)
    at = np.unravel_index(int(score.argmax()), score.shape)
    like = float(np.sqrt(max(score[at], 0.0)))
    rest = score.copy()
    rest[tuple(slice(max(0, int(k) - NEAR), int(k) + NEAR + 1) for k in at)] = 0
    ahead = like / max(float(np.sqrt(max(rest.max(), 0.0))), 1e-9)
    whole = np.array(
        [
            int(k) if k < n else int(k) - m
            for k, n, m in zip(at, other.object.shape[-2:], shape, strict=True)
        ]
    )
    return whole + _fraction(one, other, whole), like, ahead


def _scores(one: Result, other: Result) -> tuple[FloatArray, tuple[int, int]]:
    """Squared coefficient for each shift, circular in a grid that holds both side by side."""
    a, b = _flat(one), _flat(other)
    shape = tuple(scipy.fft.next_fast_len(n + m) for n, m in zip(a.shape, b.shape, strict=True))
    masks = [_lit(one), _lit(other)]
    least = OVERLAP * min(int(mask.sum()) for mask in masks)
    total = np.zeros(shape)
    for lag in LAGS:
        parts = []
        for field, mask in zip((a, b), masks, strict=True):
            w = mask & (translate(mask.astype(complex), lag).real > 0.5)
            product = np.where(w, translate(field, lag) * field.conj(), 0)
            size = np.sqrt(np.abs(product))
            G = np.divide(product, size, out=np.zeros_like(product), where=size > 0)
            transforms = (w.astype(float), G, np.abs(G) ** 2)
            parts.append([scipy.fft.fft2(x, shape) for x in transforms])
        (wa, Ga, Ea), (wb, Gb, Eb) = parts

        def sums(x: Any, y: Any) -> Any:
            return scipy.fft.ifft2(y * x.conj())

        n = np.maximum(sums(wa, wb).real, 1e-3)
        first, second = sums(Ga, wb), sums(wa, Gb)  # the first is that of conj(G)
        cross = sums(Ga, Gb) - first * second / n
        spread_a = sums(Ea, wb).real - np.abs(first) ** 2 / n
        spread_b = sums(wa, Eb).real - np.abs(second) ** 2 / n
        floor = 1e-6 * max(float(spread_a.max()) * float(spread_b.max()), 1e-300)
        found = np.abs(cross) ** 2 / np.maximum(spread_a * spread_b, floor)
        total += np.where(n >= least, found, 0)
    return total / len(LAGS), (shape[0], shape[1])


def _lit(result: Result) -> BoolArray:
    return np.asarray(result.illuminated, bool)


def _flat(result: Result) -> ComplexArray:
    field = result.object if result.object.ndim == 2 else result.projection
    return np.where(np.isfinite(field), field, 0).astype(np.complex128)


def _fraction(one: Result, other: Result, whole: Any) -> FloatArray:
    """What is left beside whole pixels, (2,) float64."""
    truth = _flat(one)
    moved, there = (np.zeros(truth.shape, d) for d in (np.complex128, bool))
    (y, x), (h, w), (p, q) = whole.tolist(), truth.shape, other.object.shape[-2:]
    into = slice(max(0, -y), min(h, p - y)), slice(max(0, -x), min(w, q - x))
    out = slice(into[0].start + y, into[0].stop + y), slice(into[1].start + x, into[1].stop + x)
    moved[into], there[into] = _flat(other)[out], _lit(other)[out]
    inside = scipy.ndimage.binary_erosion(there & _lit(one), iterations=2)
    if not inside.any():
        return np.zeros(2)
    box = bounding_box(inside)
    around = tuple(slice(max(0, s.start - 4), s.stop + 4) for s in box)
    found = align(moved[around], truth[around], region=inside[around], max_shift=2, subpixel=True)
    return np.array(found.shift)


__all__ = ["PASSES", "found_shifts", "offset", "searched", "stated"]
