r"""Where would more frames help most? The next scan positions, from the error bars of a
reconstruction.

The local model of engine `joint`: where the data have the precision D(r) at an object pixel,
white over spatial frequencies, and the object has the spectrum S_k, the variance left is

    V(D) = mean_k 1/(1/S_k + D)

D(r) is what this gives for object_std^2; it is proportional to the light, D = c sum |P|^2, and one
more frame at s adds c |P(r - s)|^2. So it takes off

    G(s) = sum_r [V(D(r)) - V(D(r) + c |P(r - s)|^2)],     r in the field

G falls as D grows (V is convex), so the greedy choice, each frame after those before, is within 1 -
1/e of the best set (Nemhauser, Wolsey & Fisher, Math. Program. 14, 265 (1978)), and gains once
computed are upper limits: only the best candidates are ever computed again (Minoux 1978). The model
knows nothing of the phase problem: frames that stand alone in the dark need others that overlap
with them.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, QhullError

from ..data.result import Result
from ..metrics.frc import soft_window
from ..metrics.registration import bounding_box
from ..types import BoolArray, FloatArray, PtychonError

#: Candidates: this many along the width of the probe, and at most so many products of candidates
#: and pixels.
ACROSS, MOST = 12, 3e8
#: Points of the curve V(D).
POINTS = 256
#: Light relative to the mean of the lit region below which the error bar of a pixel is that of the
#: prior.
DARK = 0.02
#: Share of the probe's power outside which its light is neglected.
NEGLECTED = 1e-3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where to measure next.

    Attributes
    ----------
    positions : (M, 2) float64
        In object pixels from pixel [0, 0], the most useful first.
    coordinates : (M, 2) float64
        The same as `Dataset.positions` has them: metres where the scale is known, else pixels; of
        the same origin.
    gain : (M,) float64
        Share of the mean variance of the field that each takes off, after those before it.
    before, after : float
        Root of the mean variance of the field, now and with all of them.
    map : (H, W) float32
        Gain of one frame at each place, as a share of the mean variance; NaN where its window
        leaves the object.
    std : (H, W) float32
        Error bar that is foretold with all of them; NaN outside the field.
    field : (H, W) bool
        Pixels whose variance counts: lit ones, and those between the positions of the scan.
    unit : {"m", "px"}
    """

    positions: FloatArray
    coordinates: FloatArray
    gain: FloatArray
    before: float
    after: float
    map: FloatArray
    std: FloatArray
    field: BoolArray
    unit: str


def plan(
    result: Result, count: int, *, exposure: float = 1.0, field: BoolArray | None = None
) -> Plan:
    """Choose scan positions for further frames of the same probe.

    Parameters
    ----------
    result : Result
        With `object_std`.
    count : int
        Frames to add.
    exposure : float
        Exposure of each, relative to those of the scan.
    field : (H, W) bool, optional
        Pixels whose variance counts; default those that are lit or lie between the positions of the
        scan.

    Returns
    -------
    Plan

    Raises
    ------
    PtychonError
        If the result has no error bars, or a number or the field makes no sense.
    """
    if result.object_std is None:
        raise PtychonError(
            f"the result of engine {result.engine!r} has no error bars, which planning "
            "needs; compute them first: ptychon error_bars RESULT --method joint"
        )
    if count < 1:
        raise PtychonError(f"{count} frames to plan; at least 1 is needed")
    if not (math.isfinite(exposure) and exposure > 0):
        raise PtychonError(
            f"the exposure is {exposure} times that of the scan; it must be positive"
        )
    inside = field_of(result) if field is None else np.asarray(field)
    if inside.shape != result.object.shape or inside.dtype != bool or not inside.any():
        raise PtychonError(
            f"the field has shape {inside.shape} and type {inside.dtype}; give "
            f"{result.object.shape} bool, not empty"
        )
    model = _Model(result, inside)
    light = (np.abs(result.probe) ** 2).sum(axis=0) * exposure * model.rate
    grid, step = _candidates(result)
    kernel, corner = _core(light)
    gains = np.array([model.gain(kernel, c + corner) for c in grid])
    shown = _as_map(result, grid, gains, step)
    heap = [(-g, i) for i, g in enumerate(gains.tolist())]
    heapq.heapify(heap)
    before = model.total()
    chosen: list[int] = []
    taken: list[float] = []
    while len(chosen) < count and heap:
        _, i = heapq.heappop(heap)
        gain = model.gain(kernel, grid[i] + corner)
        if heap and gain < -heap[0][0]:
            heapq.heappush(heap, (-gain, i))
            continue
        model.add(kernel, grid[i] + corner)
        chosen.append(i)
        taken.append(gain)
        # the same place may be worth another frame
        heapq.heappush(heap, (-model.gain(kernel, grid[i] + corner), i))
    half = np.array(result.probe.shape[1:]) // 2
    positions = (grid[chosen] + half).astype(np.float64)
    size = np.ones(2) if result.pixel_size is None else np.array(result.pixel_size)
    pixels = int(inside.sum())
    after = model.variance()
    return Plan(
        positions=positions,
        coordinates=positions * size + np.array(result.origin),
        gain=np.array(taken) / before,
        before=math.sqrt(before / pixels),
        after=math.sqrt(float(after[inside].sum()) / pixels),
        map=np.asarray(shown / before, np.float32),
        std=np.where(inside, np.sqrt(after), np.nan).astype(np.float32),
        field=inside,
        unit="px" if result.pixel_size is None else "m",
    )


def field_of(result: Result) -> BoolArray:
    """Pixels that are lit, or lie within the convex hull of the positions of the scan,
    (H, W) bool.
    """
    inside = np.array(result.illuminated)
    h, w = inside.shape
    try:
        hull = Delaunay(result.positions)
    except (QhullError, ValueError):  # on a line
        return inside
    rows = np.arange(w)
    for y in range(h):
        inside[y] |= hull.find_simplex(np.column_stack([np.full(w, y), rows])) >= 0
    return np.asarray(inside)


def spectrum_of(result: Result, points: int = 0) -> tuple[FloatArray, FloatArray]:
    """Spectrum S_k of the object by rings, and the share of all frequencies in each.

    |m_k|^2 + V_k of an object under a learned prior, its rings from the lit region; else
    one ring, mean |O|^2 + std^2.
    """
    lit = result.illuminated
    std = np.asarray(result.object_std, np.float64)
    draws = result.draws
    if draws is None or not len(draws):
        return np.array([float((np.abs(result.object[lit]) ** 2).mean())]), np.ones(1)
    box = bounding_box(lit)
    window = soft_window(lit[box], 0.1)
    norm = float((window**2).sum())
    h, w = window.shape
    f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    rings = min(h, w) // 2
    ring = np.minimum(np.rint(f * 2 * rings).astype(int), rings).ravel()
    power = np.abs(np.fft.fft2(window * result.object[box])) ** 2
    scale = std[box] / np.maximum(
        np.sqrt((np.abs(draws[(slice(None), *box)]) ** 2).mean(axis=0)), 1e-12
    )
    level = float(np.median(scale[lit[box]]))
    for x in draws:
        power += np.abs(np.fft.fft2(window * x[box] * level)) ** 2 / len(draws)
    size = np.bincount(ring, minlength=rings + 1)
    mean = np.bincount(ring, power.ravel(), rings + 1) / np.maximum(size, 1) / norm
    return np.maximum(mean, 1e-9 * mean.max()), size / size.sum()


class _Model:
    """The precision of the data at each pixel, and what a frame would add."""

    def __init__(self, result: Result, field: BoolArray) -> None:
        spectrum, share = spectrum_of(result)
        mean = float((share * spectrum).sum())
        least = float(np.asarray(result.object_std)[field].min()) ** 2
        top = 1e3 / max(min(least, mean), 1e-30)
        # points of D from far below 1/S to far above what there is
        self.grid = np.concatenate([[0.0], np.geomspace(1e-4 / spectrum.max(), top, POINTS)])
        self.curve = (share / (1 / spectrum + self.grid[:, None])).sum(axis=1)
        self.field = field
        light = result.illumination.astype(np.float64)
        square = np.minimum(np.asarray(result.object_std, np.float64) ** 2, mean)
        # V falls with D
        precision = np.interp(square, self.curve[::-1], self.grid[::-1])
        lit = result.illuminated & field
        lit = lit if lit.any() else field
        self.rate = float(np.median(precision[lit] / np.maximum(light[lit], 1e-30)))
        bright = light > DARK * float(light[lit].mean())
        self.precision = np.where(bright, precision, self.rate * light)

    def variance(self) -> FloatArray:
        return np.asarray(np.interp(self.precision, self.grid, self.curve))

    def total(self) -> float:
        return float(self.variance()[self.field].sum())

    def _part(self, kernel: FloatArray, corner: FloatArray) -> tuple[slice, slice]:
        (y, x), (p, q) = np.asarray(corner, int).tolist(), kernel.shape
        return slice(y, y + p), slice(x, x + q)

    def gain(self, kernel: FloatArray, corner: FloatArray) -> float:
        part = self._part(kernel, corner)
        inside = self.field[part]
        now, more = self.precision[part][inside], kernel[inside]
        return float(
            (
                np.interp(now, self.grid, self.curve) - np.interp(now + more, self.grid, self.curve)
            ).sum()
        )

    def add(self, kernel: FloatArray, corner: FloatArray) -> None:
        self.precision[self._part(kernel, corner)] += kernel


def _candidates(result: Result) -> tuple[FloatArray, int]:
    """Corners of windows that lie inside the object, on a grid, (C, 2), and its step."""
    (h, w), (p, q) = result.object.shape, result.probe.shape[1:]
    light = (np.abs(result.probe) ** 2).sum(axis=0)
    width = 2 * math.sqrt(float((light > 0.1 * light.max()).sum()) / math.pi)
    step = max(1, int(width / ACROSS))
    core = _core(light)[0].size
    step = max(step, math.ceil(math.sqrt((h - p + 1) * (w - q + 1) * core / MOST)))
    y, x = (np.arange(n % step // 2, n + 1, step) for n in (h - p, w - q))
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2), step


def _core(light: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The part of the window that has all but a thousandth of the light, and its corner."""
    order = np.sort(light.ravel())
    below = np.cumsum(order) < NEGLECTED * order.sum()
    threshold = float(order[below][-1]) if below.any() else -1.0
    box = bounding_box(light > threshold)
    return light[box].astype(np.float64), np.array([box[0].start, box[1].start])


def _as_map(result: Result, grid: FloatArray, gains: FloatArray, step: int) -> FloatArray:
    """Gains of the candidates at the pixels of their centres, between them linearly; NaN where
    there are none.
    """
    h, w = result.object.shape
    half = np.array(result.probe.shape[1:]) // 2
    rows, columns = (np.unique(grid[:, i]) for i in (0, 1))
    table = gains.reshape(len(rows), len(columns))
    y, x = (np.arange(n) for n in (h, w))
    u, v = (y - half[0] - rows[0]) / step, (x - half[1] - columns[0]) / step
    where = np.meshgrid(u, v, indexing="ij")
    found = map_coordinates(table, where, order=1, mode="nearest")
    (p, q) = result.probe.shape[1:]
    valid = ((y >= half[0]) & (y <= h - p + half[0]))[:, None] & (
        (x >= half[1]) & (x <= w - q + half[1])
    )
    return np.asarray(np.where(valid, found, np.nan))
