"""Small problems the tests share, and the formulas they are compared with, written out in float64
NumPy.

Nothing here calls the code under test: propagation, shifts and intensities are independent of the
package.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.model.problem import Problem
from ptychon.model.propagators import FarField, NearField

FRAME = (12, 9)  # neither square nor even
MASKS = ("none", "shared", "each")


@dataclass(frozen=True)
class Case:
    """A problem, what it was made of (float64), and a start near by (float32)."""

    problem: Problem
    true_object: np.ndarray
    true_probe: np.ndarray
    object: np.ndarray
    probe: np.ndarray


def make_case(
    *,
    subpixel: bool = False,
    near: bool = False,
    masks: str = "none",
    modes: int = 1,
    side: int = 4,
    seed: int = 0,
    frame: tuple[int, int] = FRAME,
) -> Case:
    """side x side frames, of 12x9 pixels on an object of about 30x27 unless told otherwise, start
    5 % from the truth, 1 % of noise.
    """
    rng = np.random.default_rng(seed)
    step, (p, q) = frame[0] // 2, frame
    grid = np.stack(np.meshgrid(*2 * [np.arange(side) * step], indexing="ij"), -1).reshape(-1, 2)
    corners = (grid + rng.integers(0, 3, grid.shape)).astype(np.int32)
    # a few distinct shifts, shared by several frames and in no order
    shifts = np.array([[0, 0], [0.25, -0.4375], [-0.5, 0.125], [0.0625, 0.3125]], np.float32)
    if not subpixel:
        shifts = shifts[:1]
    index = rng.integers(0, len(shifts), len(corners)).astype(np.int32)
    shape = tuple(
        (corners.max(axis=0) + frame + 2).tolist()
    )  # two rows and columns that no frame reaches
    true_object = (0.6 + 0.4 * rng.random(shape)) * np.exp(1j * rng.random(shape))
    y, x = (np.arange(n) - n // 2 for n in frame)
    envelope = np.exp(-((y[:, None] / p) ** 2) - (x[None] / q) ** 2) * 6
    waves = [
        np.exp(1j * (0.02 * (y[:, None] ** 2 - x[None] ** 2) + k * 0.7 * x[None] / (1 + k)))
        for k in range(modes)
    ]
    true_probe = np.stack([envelope * w / (1 + k) for k, w in enumerate(waves)])
    transfer = None
    if near:
        f2 = np.fft.fftfreq(p)[:, None] ** 2 + np.fft.fftfreq(q)[None] ** 2
        transfer = np.exp(-6j * np.pi * f2).astype(np.complex64)
    amplitude = np.empty((len(corners), p, q))
    for j, (r, c) in enumerate(corners):
        psi = shift64(true_probe, shifts[index[j]]) * true_object[r : r + p, c : c + q]
        amplitude[j] = np.sqrt(
            (np.abs(forward64(psi, transfer, shifts[index[j]])) ** 2).sum(axis=0)
        )
    amplitude = np.abs(
        amplitude + 0.01 * np.sqrt((amplitude**2).mean()) * rng.standard_normal(amplitude.shape)
    )
    mask = np.ones((1, p, q), bool)
    if masks != "none":
        mask = rng.random((len(corners) if masks == "each" else 1, p, q)) > 0.1
        amplitude = np.where(mask, amplitude, 0)
    problem = Problem(
        amplitude=amplitude.astype(np.float32),
        mask=mask,
        corners=corners,
        shifts=shifts,
        shift_index=index,
        object_shape=shape,
        propagator=FarField() if transfer is None else NearField(transfer),
        counting=False,
        noise_variance=1e-4 * float((amplitude**2).mean()),
    )
    return Case(
        problem,
        true_object,
        true_probe,
        (true_object + 0.05 * normal(rng, shape)).astype(np.complex64),
        (true_probe * (1 + 0.05 * normal(rng, true_probe.shape))).astype(np.complex64),
    )


def normal(rng: np.random.Generator, shape: Any) -> np.ndarray:
    """CN(0, 1)."""
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def forward64(psi: np.ndarray, transfer: np.ndarray | None, shift: Any = (0, 0)) -> np.ndarray:
    """Far field: orthonormal FFT. Near field: the exit wave, which the probe's `shift` has moved in
    its window, is put back; then it is multiplied by the transfer function of free space (P, Q) in
    Fourier space."""
    if transfer is None:
        return np.fft.fft2(psi.astype(np.complex128), norm="ortho")
    wave = np.fft.fft2(shift64(psi, shift, -1), norm="ortho")
    return np.fft.ifft2(wave * transfer, norm="ortho")


def backward64(wave: np.ndarray, transfer: np.ndarray | None, shift: Any = (0, 0)) -> np.ndarray:
    """Inverse of `forward64`."""
    if transfer is None:
        return np.fft.ifft2(wave, norm="ortho")
    return shift64(
        np.fft.ifft2(np.fft.fft2(wave, norm="ortho") * np.conj(transfer), norm="ortho"), shift
    )


def free_space(problem: Problem) -> np.ndarray | None:
    """The transfer function of free space (P, Q), as `forward64` takes it; None in
    the far field.
    """
    return problem.propagator.free if isinstance(problem.propagator, NearField) else None


def shift64(probe: np.ndarray, shift: Any, sign: int = 1) -> np.ndarray:
    """P(r - s) of (K, P, Q) by the Fourier shift theorem."""
    fy, fx = np.fft.fftfreq(probe.shape[-2])[:, None], np.fft.fftfreq(probe.shape[-1])[None]
    sy, sx = sign * float(shift[0]), sign * float(shift[1])
    return np.fft.ifft2(
        np.fft.fft2(probe.astype(np.complex128)) * np.exp(-2j * np.pi * (fy * sy + fx * sx))
    )


def window(case: Case, j: int) -> tuple[slice, slice]:
    """Where frame j lies on the object."""
    (r, c), (p, q) = case.problem.corners[j].tolist(), case.problem.frame_shape
    return slice(r, r + p), slice(c, c + q)


def frame_mask(case: Case, j: int) -> np.ndarray:
    """Valid pixels of frame j."""
    return case.problem.mask[j if len(case.problem.mask) > 1 else 0]


def frame_shift(case: Case, j: int) -> np.ndarray:
    """Sub-pixel shift of frame j."""
    return case.problem.shifts[case.problem.shift_index[j]]


def distance(a: Any, b: Any) -> float:
    """||a - b||/||b||."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def gpu_backend() -> Any:
    """The CuPy backend; without a GPU the test is skipped, or fails where PTYCHON_REQUIRE_GPU=1
    says there must be one.
    """
    try:
        return get_backend("cupy")
    except PtychonError as error:
        if os.environ.get("PTYCHON_REQUIRE_GPU") == "1":
            pytest.fail(f"PTYCHON_REQUIRE_GPU=1, but {error}")
        pytest.skip(str(error))


def sketch(result: Any, path: Any) -> None:
    """A picture of one pixel, in the place of `plots.result.picture`."""
    Image.new("L", (1, 1)).save(path)


def pixel(figure: Any) -> bytes:
    """A PNG of one pixel, in the place of `reports.page.png_of`."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, format="png")
    return stream.getvalue()
