"""What comes out of a reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..types import BoolArray, ComplexArray, FloatArray


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything a reconstruction found and how it was found.

    Attributes
    ----------
    object : (H, W) complex64
    probe : (K, P, Q) complex64
        Modes in the object plane, centred at [P//2, Q//2]; orthonormal FFT, so that sum |probe|^2 is the counts of a frame
        behind a transparent object.
    object_std : (H, W) float32 or None
        sqrt(E|O - mean|^2), the posterior standard deviation of the complex object, where the engine gives one.
    draws : (S, H, W) complex64 or None
        Independent draws of the posterior error of the object, from engines that make them: for the error bar of anything
        computed from it.
    noise_variances : (N,) float32 or None
        Of the amplitude in each frame, where a run learned one for each (`noise_per_frame`).
    errors : (epochs,) float32
        R = sqrt(sum (|model| - amplitude)^2 / sum amplitude^2) over valid pixels, accumulated during the pass, each frame
        before its own update. NaN in passes that did not measure it.
    final_error : float
        R of the final object and probe with everything held still.
    positions : (N, 2) float64
        Probe centres used, in object pixels from pixel [0, 0].
    origin : (2,) float
        Coordinates of object pixel [0, 0], m, or px if `pixel_size` is None.
    pixel_size : (dy, dx) m or None
    engine, backend : str
    epochs : int
        Passes over the data, earlier runs that this one started from included.
    options : mapping
        The engine's hyper-parameters, all of them, as used.
    history : mapping of str to (epochs,) arrays
        What else the engine recorded: "chi2", "noise_variance", "skipped", "change".
    settings : mapping
        How to run this again: input, epochs, seed, schedule, data preparation.
    provenance : mapping
        Version of the package, hash of the input, what the backend is.
    seconds, compile_seconds : float
        Time of the passes, and of compiling kernels before them.
    """

    object: ComplexArray
    probe: ComplexArray
    errors: FloatArray
    final_error: float
    positions: FloatArray
    engine: str
    epochs: int
    object_std: FloatArray | None = None
    draws: ComplexArray | None = None
    noise_variances: FloatArray | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    pixel_size: tuple[float, float] | None = None
    backend: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, FloatArray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def illumination(self) -> FloatArray:
        """Sum over positions of |probe|^2 on the object grid, (H, W) float32; whole-pixel windows."""
        intensity = (np.abs(self.probe) ** 2).sum(axis=0)
        p, q = intensity.shape
        total = np.zeros(self.object.shape, np.float32)
        for y, x in np.rint(self.positions).astype(int) - (p // 2, q // 2):
            total[y : y + p, x : x + q] += intensity
        return total

    @property
    def illuminated(self) -> BoolArray:
        """(H, W), where the illumination exceeds 10 % of its maximum: the region on which errors are reported."""
        light = self.illumination
        lit: BoolArray = light > 0.1 * light.max()
        return lit
