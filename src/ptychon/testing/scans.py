"""Small scans that engines are tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ..model.problem import Problem
from ..simulation.scan import raster
from ..simulation.simulate import simulate
from ..types import BoolArray, ComplexArray

#: Side of the frames and of the object.
SIDE, OBJECT = 24, 64


@dataclass(frozen=True)
class Scan:
    """A scan on its grid, and the object (H, W) and probe (K, P, Q) that it is of."""

    problem: Problem
    object: ComplexArray
    probe: ComplexArray


@cache
def small_scan(
    modes: int = 1, near_field: bool = False, masked: bool = False, background: float = 0.0
) -> Scan:
    """36 frames with 1e6 counts each, between pixels; random, but always the same. The object is
    smooth, of modulus about 1.
    """
    rng = np.random.default_rng(5)
    f2 = np.add.outer(np.fft.fftfreq(OBJECT) ** 2, np.fft.fftfreq(OBJECT) ** 2)
    rough = rng.standard_normal((OBJECT, OBJECT)) + 1j * rng.standard_normal((OBJECT, OBJECT))
    smooth = np.fft.ifft2(np.fft.fft2(rough) * np.exp(-f2 / (2 * 0.08**2)))
    smooth = smooth / np.abs(smooth).std()
    truth = ((1 - 0.1 * np.abs(smooth.real)) * np.exp(0.5j * smooth.imag)).astype(np.complex64)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    first = np.exp(-(y**2 + x**2) / (2 * 4.0**2) + 0.02j * (y**2 + x**2))
    probe = np.stack([first, 0.5 * x / 4.0 * first])[:modes].astype(np.complex64)
    mask: BoolArray | None = None
    if masked:
        mask = rng.random((SIDE, SIDE)) > 0.03
    geometry: dict[str, Any] = {}
    if near_field:
        geometry = {"geometry": "near", "wavelength": 1e-10, "distance": 0.02, "pixel_size": 2e-7}
    positions = raster(6, step=5.0, jitter=1.0, seed=2)
    noise: dict[str, Any] = {"noise": "poisson", "mean_counts": 1e6}
    if background:
        noise["background"] = background
    made = simulate(truth, probe, positions, mask=mask, seed=3, **noise, **geometry)
    return Scan(
        Problem.from_dataset(made.dataset, object_shape=truth.shape), made.object, made.probe
    )


@cache
def two_slices() -> Scan:
    """49 frames of two slices, so far apart that light of the finest details goes a detail
    sideways between them.
    """
    rng = np.random.default_rng(6)
    f2 = np.add.outer(np.fft.fftfreq(OBJECT) ** 2, np.fft.fftfreq(OBJECT) ** 2)
    rough = np.fft.fft2(rng.standard_normal((2, OBJECT, OBJECT))) * np.exp(-f2 / (2 * 0.1**2))
    smooth = np.fft.ifft2(rough).real
    truth = np.exp(0.5j * smooth / smooth.std()).astype(np.complex64)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    probe = np.exp(-(y**2 + x**2) / (2 * 4.0**2) + 0.02j * (y**2 + x**2)).astype(np.complex64)
    made = simulate(
        truth,
        probe,
        raster(7, step=5.0, jitter=1.0, seed=2),
        wavelength=1e-10,
        pixel_size=1e-8,
        spacing=60 * 1e-6,
        noise="poisson",
        mean_counts=1e6,
        seed=3,
    )
    problem = Problem.from_dataset(made.dataset, object_shape=truth.shape[-2:])
    return Scan(replace(problem, slices=made.slices), made.object, made.probe)
