"""What comes out of a reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..types import BoolArray, ComplexArray, FloatArray, IntArray
from ..units import pretty_pair
from .slices import HALVES, Slices


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything a reconstruction found and how it was found.

    Attributes
    ----------
    object : (H, W) complex64, or (S, H, W) in several slices
    probe : (K, P, Q) complex64
        Modes in the object plane, centred at [P//2, Q//2]; orthonormal FFT, so that sum |probe|^2
        is the counts of a frame behind a transparent object.
    object_std : (H, W) float32 or None
        sqrt(E|O - mean|^2), the posterior standard deviation of the complex object, where the
        engine gives one.
    draws : (S, H, W) complex64 or None
        Independent draws of the posterior error of the object, from engines that make them: for the
        error bar of anything computed from it.
    noise_variances : (N,) float32 or None
        Of the amplitude in each frame, where a run learned one for each (`noise_per_frame`).
    errors : (passes,) float32
        R = sqrt(sum (|model| - amplitude)^2 / sum amplitude^2) over valid pixels, accumulated
        during the pass, each frame before its own update. NaN in passes that did not measure it.
    final_error : float
        R of the final object and probe with everything held still.
    positions : (N, 2) float64
        Probe centres used, in object pixels from pixel [0, 0]: refined ones where a run has refined
        them.
    corners : (N, 2) int32 or None
        Top-left object pixel of each window used. Positions do not tell it where they lie half-way
        between pixels; None is of older results and other packages'.
    positions_given : (N, 2) float64 or None
        Those of the data, where `positions` are refined.
    log_scale : (N,) float32 or None
        Logarithm of the dose of each frame, as an amplitude and relative to their mean, where a run
        has found it: frame j has exp(2 log_scale_j) times the counts.
    variations : (M, P, Q) complex64 and weights : (N, M) float32, or None
        How the probe varies, where a run has found it: the first mode of frame j is probe[0] + sum
        over l of weights[j, l] variations[l]. Each variation has the norm of that mode.
    slices : Slices or None
        Where the slices of the object lie; None for a thin one.
    background : (P, Q) float32 or None
        Counts a pixel that are no part of the wave, where a run has found them; zero frequency of
        far-field frames at [P//2, Q//2].
    distance : float or None
        How many times as long as the data state the way from the object to the detector is, where a
        run in the near field has found it.
    origin : (2,) float
        Coordinates of object pixel [0, 0], m, or px if `pixel_size` is None.
    pixel_size : (dy, dx) m or None
    engine, backend : str
    passes : int
        Passes over the data, earlier runs that this one started from included.
    options : mapping
        The engine's hyper-parameters, all of them, as used.
    history : mapping of str to (passes,) arrays
        What else the engine recorded: "chi2", "noise_variance", "skipped", "change".
    settings : mapping
        How to run this again: input, passes, seed, schedule, data preparation.
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
    passes: int
    corners: IntArray | None = None
    object_std: FloatArray | None = None
    draws: ComplexArray | None = None
    noise_variances: FloatArray | None = None
    positions_given: FloatArray | None = None
    log_scale: FloatArray | None = None
    variations: ComplexArray | None = None
    weights: FloatArray | None = None
    background: FloatArray | None = None
    slices: Slices | None = None
    distance: float | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    pixel_size: tuple[float, float] | None = None
    backend: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, FloatArray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0

    def __repr__(self) -> str:
        (modes, p, q), (h, w) = self.probe.shape, self.object.shape[-2:]
        thick = "" if self.slices is None else f" in {self.slices}"
        of = f" of {self.settings['input']}" if self.settings.get("input") else ""
        if self.slices is not None:
            bars = f"no error bars: there are some for thin objects only; {HALVES}"
        elif self.object_std is None:
            bars = "no error bars: ptychon.error_bars(data, result) computes them"
        else:
            lit = self.illuminated
            size = float(np.mean(self.object_std[lit]) / np.mean(np.abs(self.object[lit])))
            bars = f"error bars of {100 * size:.2g} % of the amplitude, mean where it is lit"
        return (
            f"Result{of}: {self.engine} after {self.passes} passes, R = {self.final_error:.4f}\n"
            f"  object {h}x{w} pixels{thick}, pixel {pretty_pair(self.pixel_size)}; probe {p}x{q}, "
            f"{modes} mode{'s' if modes > 1 else ''}; {len(self.positions)} positions\n  {bars}"
        )

    def _repr_html_(self) -> str:
        from ..plots.notebook import result_html

        return result_html(self)

    def show(self, *, colour: bool = False, region: tuple[slice, slice] | None = None) -> None:
        """Draw the result: below the cell of a notebook, or in a window of matplotlib.

        Parameters
        ----------
        colour : bool
            The object alone, its amplitude as lightness and its phase as hue.
        region : (rows, columns), optional
            Slices of object pixels: this part of the object alone, enlarged.

        Raises
        ------
        PtychonError
            Where there is neither; `ptychon.plot` writes a file.
        """
        from ..plots.notebook import show

        show(self, colour=colour, region=region)

    def save(self, path: str | Path) -> None:
        """Write the result to an HDF5 file, which `load` and the command line read.

        Parameters
        ----------
        path : path of the file to write, .h5, .hdf5 or .cxi

        Raises
        ------
        PtychonError
            If the file cannot be written; an older file of that name is then unharmed.
        """
        from ..io import save_result

        save_result(path, self)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a result: our own, or one by ptypy, PtyLab, Ptychodus or fold_slice.

        Parameters
        ----------
        path : path of the file

        Raises
        ------
        PtychonError
            If the file is missing, damaged or no result, or an earlier version wrote it.
        """
        from ..io import load_result

        return load_result(path)

    @property
    def projection(self) -> ComplexArray:
        """The object as one picture, (H, W) complex64: itself, or the product of its slices, which
        is what it would be if it were thin.
        """
        return self.object if self.object.ndim == 2 else np.prod(self.object, axis=0)

    @property
    def illumination(self) -> FloatArray:
        """Sum over positions of |probe|^2 on the object grid, (H, W) float32;
        whole-pixel windows.
        """
        intensity = (np.abs(self.probe) ** 2).sum(axis=0)
        (p, q), (h, w) = intensity.shape, self.object.shape[-2:]
        total = np.zeros((h, w), np.float32)
        for y, x in self.windows.tolist():
            # an object of another package may end within a window
            top, left, bottom, right = max(y, 0), max(x, 0), min(y + p, h), min(x + q, w)
            if top < bottom and left < right:
                total[top:bottom, left:right] += intensity[
                    top - y : bottom - y, left - x : right - x
                ]
        return total

    @property
    def windows(self) -> IntArray:
        """Top-left object pixel of each window, (N, 2) int; where they are not known, of the
        rounded positions.
        """
        if self.corners is not None:
            return self.corners
        p, q = self.probe.shape[-2:]
        found: IntArray = np.rint(self.positions).astype(np.int32) - np.array(
            [p // 2, q // 2], np.int32
        )
        # half-way between pixels either may have been used: the one whose window is inside
        least, most = 0, np.array(self.object.shape[-2:]) - (p, q)
        between = np.abs(self.positions - np.rint(self.positions)) == 0.5
        moved: IntArray = np.where(
            between & (found > most),
            found - 1,
            np.where(between & (found < least), found + 1, found),
        )
        return moved

    @property
    def illuminated(self) -> BoolArray:
        """(H, W), where the illumination exceeds 10 % of its maximum: the region on which errors
        are reported.
        """
        light = self.illumination
        lit: BoolArray = light > 0.1 * light.max()
        return lit
