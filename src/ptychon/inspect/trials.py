"""What `ptychon.orient` tries: a part of a scan, and short reconstructions of it that are scored by
what they predict.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.bad_values import BadValues, without_bad
from ..data.blank import blank_frames
from ..data.dataset import Dataset
from ..types import BoolArray, FloatArray, IntArray, PtychonError

if TYPE_CHECKING:
    from ..data.result import Result
    from ..model.problem import Problem
    from .orientation import Orientation

#: Frames that are tried, and the share of them held out.
FRAMES, HELD_OUT = 240, 0.25
#: In the far field frames are cut to their middle, of at least this many pixels, while this share
#: of the counts stays.
CROP, KEPT = 128, 0.95
#: Gentle steps that do not shrink: at low doses full ones are mostly noise.
STEPS: dict[str, Any] = {
    "object_step": 0.5,
    "probe_step": 0.2,
    "object_reg": 0.5,
    "probe_reg": 1.0,
    "cool_from": 10**6,
}


def subset(data: Dataset, frames: int = FRAMES, seed: int = 0) -> tuple[Dataset, BoolArray]:
    """Frames around the middle of a scan, in memory, and which of them to hold out (not those at
    the rim).

    In the far field they are cut to the middle of the detector where hardly any counts are lost:
    the pixels of the object become larger in proportion.
    """
    if len(data) < 10:
        raise PtychonError(
            f"the scan has {len(data)} frames; at least 10 are needed to find its orientation"
        )
    positions = np.asarray(data.positions, float)
    distance = np.hypot(*(positions - np.median(positions, axis=0)).T)
    index: IntArray = np.sort(np.argsort(distance, kind="stable")[: min(frames, len(data))])
    chosen = data.select(index)
    patterns, mask = np.asarray(chosen.patterns), chosen.mask
    if blank_frames(patterns, mask).any() and len(there := data.measured()) < len(data):
        return subset(there, frames, seed)
    rule = BadValues.of(data.patterns, saturation=data.saturation, mask=data.mask)
    patterns, mask = without_bad(patterns, rule, mask, signed=bool(data.read_noise))
    part = replace(
        data, patterns=patterns, positions=positions[index], mask=mask, object_shape=None
    )
    if data.geometry == "far":
        part = _cropped(part)
    order = np.argsort(distance[index], kind="stable")
    inner = order[: max(2, int(0.8 * len(index)))]
    held = np.zeros(len(index), bool)
    held[np.random.default_rng(seed).permutation(inner)[: max(2, round(HELD_OUT * len(index)))]] = (
        True
    )
    return part, held


def _cropped(data: Dataset) -> Dataset:
    """The middle of the detector, if it holds nearly all the counts."""
    P, Q = data.frame_shape
    light = data.patterns.sum(axis=0, dtype=float)
    if data.background is not None:
        light = np.maximum(light - len(data) * np.asarray(data.background, float), 0)
    p, q = P, Q
    while min(p, q) // 2 >= CROP:
        p, q = p // 2, q // 2
        if light[P // 2 - p // 2 :, Q // 2 - q // 2 :][:p, :q].sum() < KEPT * light.sum():
            p, q = 2 * p, 2 * q
            break
    if (p, q) == (P, Q):
        return data
    rows, columns = (
        slice(P // 2 - p // 2, P // 2 - p // 2 + p),
        slice(Q // 2 - q // 2, Q // 2 - q // 2 + q),
    )
    scale = P / p, Q / q
    size = data.pixel_size
    return replace(
        data,
        patterns=np.ascontiguousarray(data.patterns[:, rows, columns]),
        mask=None if data.mask is None else data.mask[..., rows, columns],
        background=data.background[rows, columns]
        if isinstance(data.background, np.ndarray)
        else data.background,
        positions=data.positions / scale if size is None else data.positions,
        pixel_size=(size[0] * scale[0], size[1] * scale[1]) if isinstance(size, tuple) else None,
        probe=None if data.probe is None else _coarser(data.probe, (p, q)),
    )


def _coarser(probe: Any, shape: tuple[int, int]) -> Any:
    """A probe on larger pixels: the middle of its spectrum."""
    P, Q = probe.shape[-2:]
    p, q = shape
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes)), axes)
    cut = spectrum[..., P // 2 - p // 2 :, Q // 2 - q // 2 :][..., :p, :q]
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(cut, axes)), axes)


class Attempt:
    """A short reconstruction with one orientation and one first probe, that can be continued."""

    def __init__(
        self, part: Dataset, held: BoolArray, orientation: Orientation, probe: str, backend: Any
    ) -> None:
        from ..model.problem import Problem

        self.orientation, self.probe, self.passes, self._backend = orientation, probe, 0, backend
        data = orientation.apply(part)
        self._first = data.probe if probe == "given" else None
        whole = Problem.from_dataset(replace(data, probe=None))
        self._train, self._test = whole.select(~held), whole.select(held)
        self._result: Any = None
        self._mean = np.asarray(self._train.amplitude.mean(axis=0, dtype=np.float64))
        self.gain: FloatArray = np.full(int(held.sum()), -math.inf)
        self._total = 1.0

    @property
    def explained(self) -> float:
        """Share of the deviation of the held-out frames from the mean frame that is predicted."""
        return float(self.gain.sum()) / self._total

    def run(self, passes: int) -> None:
        from ..run.guess import initial_probe
        from ..run.recipe import Stage
        from ..run.reconstruct import reconstruct

        first = self._first
        if first is None and self._result is None:
            first = initial_probe(self._train, self._backend)
        try:
            self._result = reconstruct(
                self._train,
                Stage("rpie", passes, STEPS),
                backend=self._backend,
                probe=first if self._result is None else None,
                start=self._result,
                seed=self.passes,
                judge=False,
            )
        except PtychonError:
            return  # diverged: its gain stays what it was
        self.passes += passes
        self._score()

    def _score(self) -> None:
        self.gain, self._total = gains(self._test, self._mean, self._result, self._backend)


def gains(
    test: Problem, mean: FloatArray, result: Result, backend: Any
) -> tuple[FloatArray, float]:
    """What a result predicts of frames, or pixels, that it has not seen.

    Parameters
    ----------
    test : Problem
        What was held out, on the object of the result.
    mean : (P, Q) float64
        Mean amplitude of the frames that were not.
    result : Result
    backend : Backend

    Returns
    -------
    gain : (M,) float64
        Of each frame: by how much its squared deviation from the mean is less when what is
        predicted is taken off, with one factor for all.
    total : float
        Squared deviation of all of them.
    """
    from ..model.simulated import model_of

    overlap, square, total = (np.zeros(len(test)) for _ in range(3))
    for j in range(len(test)):
        part = slice(j, j + 1)
        valid = test.mask_of(part)[0]
        model = model_of(test, result.object, result.probe, part, backend)[0]
        added = np.where(valid, model - mean, 0)
        sought = np.where(valid, test.amplitude[j] - mean, 0)
        overlap[j], square[j], total[j] = (
            (added * sought).sum(),
            (added**2).sum(),
            (sought**2).sum(),
        )
    factor = max(0.0, float(overlap.sum()) / max(float(square.sum()), 1e-300))
    return 2 * factor * overlap - factor**2 * square, max(float(total.sum()), 1e-300)
