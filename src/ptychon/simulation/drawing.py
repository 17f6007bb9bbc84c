"""What phantoms are drawn with: coordinates, soft edges, clouds and lines."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ..types import REAL, Array, FloatArray, PtychonError

Shape = tuple[int, int]


def coordinates(shape: Shape) -> tuple[FloatArray, FloatArray, float]:
    """Coordinates (H, 1) and (1, W) with the shorter side spanning [-1, 1], and the size of a pixel
    in them.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise PtychonError(
            f"the phantom's shape is {tuple(shape)}; it must be (rows, columns), each at least 1"
        )
    unit = 2 / min(shape)
    y, x = ((np.arange(n) - (n - 1) / 2) * unit for n in shape)
    return y[:, None], x[None, :], unit


def edge_of(distance: Array, width: float) -> FloatArray:
    """0 outside, 1 inside, linear over `width` about distance 0."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1))


def span(centre: float, radius: float, n: int, unit: float) -> slice:
    """Pixels of an axis within `radius` of `centre`."""
    middle = centre / unit + (n - 1) / 2
    return slice(max(0, int(middle - radius / unit - 1)), min(n, int(middle + radius / unit + 3)))


def clipped(image: Array) -> FloatArray:
    return np.asarray(np.clip(image, 0, 1), REAL)


def outline(y: FloatArray, x: FloatArray, radius: float, rng: np.random.Generator) -> FloatArray:
    """About the distance inside a wobbly circle (negative outside), in the units of y and x."""
    angle = np.arctan2(y, x)
    edge = np.ones_like(angle)
    for m in range(2, 7):
        edge += (
            0.16 / m**1.3 * rng.uniform(0.2, 0.7) * np.cos(m * angle + rng.uniform(0, 2 * np.pi))
        )
    return np.asarray(radius * edge - np.hypot(y, x))


def clouds(shape: Shape, rng: np.random.Generator, power: float) -> FloatArray:
    """Noise with spectrum f^-power in amplitude, mean 0, standard deviation about 1 (0 for a single
    pixel).
    """
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    f[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * f**-power).real
    return np.asarray(field / max(float(field.std()), 1e-12))


def draw_filaments(
    shape: Shape, rng: np.random.Generator, centre: FloatArray, half: FloatArray, unit: float
) -> FloatArray:
    """Thin curved lines that leave `centre`, one to two pixels wide."""
    image = np.zeros(shape)
    t = np.linspace(0.25, 1, 4 * max(shape))
    for angle in rng.uniform(0, 2 * np.pi, 26):
        bend, reach = rng.uniform(-0.9, 0.9), rng.uniform(0.6, 1.0)
        path = (
            np.stack([np.sin(angle + bend * t), np.cos(angle + bend * t)], axis=1)
            * (reach * t)[:, None]
            * half
        )
        index = np.rint((path + centre) / unit + (np.array(shape) - 1) / 2).astype(int)
        index = index[((index >= 0) & (index < shape)).all(axis=1)]
        image[index[:, 0], index[:, 1]] = 1.0
    image = gaussian_filter(image, max(0.6, 0.004 / unit))
    return np.asarray(image / max(float(image.max()), 1e-12))


def tracks(shape: Shape, pitch: int, width: int, density: float, rng: np.random.Generator) -> Array:
    """Horizontal wires of random length on every `pitch`-th row, (H, W) bool; some step to the next
    track.
    """
    h, w = shape
    wires = np.zeros(shape, bool)
    for y in range(0, h, pitch):
        x = int(rng.integers(0, 4 * pitch))
        while x < w:
            length = int(rng.integers(4, 40)) * pitch // 2
            if rng.random() < density:
                wires[y : y + width, x : x + length] = True
                if rng.random() < 0.2:
                    end = min(x + length, w) - width
                    wires[y : y + pitch, max(end, 0) : end + width] = True
            x += length + pitch * int(rng.integers(1, 4))
    return wires
