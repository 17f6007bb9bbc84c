"""Objects to simulate with: pictures of any size with values in [0, 1], from a seed.

siemens_star  spokes cut by rings: resolution at every scale at once
cell          membrane, nucleus, organelles, filaments on an empty background: smooth, biological
circuit       two metal layers on a grid, vias, pads: straight edges
blobs         a few smooth spots, exactly 0 between them: sparse
texture       dense, edges at every scale: leaves of size s with density s^-3 that cover each other,
              the "dead leaves"
              model of natural images (Lee, Mumford & Huang, Int. J. Comput. Vis. 41, 35, 2001),
              over 1/f noise

Two pictures make a complex object, one its amplitude and one its phase, independent of each other:

    O = (a0 + (a1 - a0) A) exp(i (p0 + (p1 - p0) B)).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np

from ..types import COMPLEX, ComplexArray, FloatArray, PtychonError
from .drawing import (
    Shape,
    clipped,
    clouds,
    coordinates,
    draw_filaments,
    edge_of,
    outline,
    span,
    tracks,
)


def siemens_star(shape: Shape, seed: int = 0, *, spokes: int = 36) -> FloatArray:
    """Siemens star with three ring gaps and a blank hub.

    Parameters
    ----------
    shape : (H, W)
    seed : int
        Turns the star.
    spokes : int

    Returns
    -------
    (H, W) float32 in [0, 1]; 0 outside the star

    Raises
    ------
    PtychonError
        A shape that is not two positive numbers, fewer than 2 spokes.
    """
    y, x, unit = coordinates(shape)
    if spokes < 2:
        raise PtychonError(f"a Siemens star has at least 2 spokes, not {spokes}")
    r = np.hypot(y, x)
    turn = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    # distance to the nearest edge of a spoke, so that edges are one pixel soft at any radius
    star = edge_of(np.sin(spokes * np.arctan2(y, x) + turn) * r / spokes, unit)
    for radius in (0.24, 0.46, 0.7):
        star *= edge_of(np.abs(r - radius) - 0.015, unit)
    return clipped(star * edge_of(0.94 - r, unit) * edge_of(r - 0.04, unit))


def cell(shape: Shape, seed: int = 0) -> FloatArray:
    """Something like a living cell: membrane, nucleus with nucleoli, mitochondria, vesicles,
    filaments.

    Parameters
    ----------
    shape : (H, W)
        The cell fills it; organelles stay round in a rectangle.
    seed : int

    Returns
    -------
    (H, W) float32 in [0, 1]; 0 outside the cell

    Raises
    ------
    PtychonError
        A shape that is not two positive numbers.
    """
    y, x, unit = coordinates(shape)
    rng = np.random.default_rng(seed)
    half = np.array(shape) / min(shape)
    depth, wall = outline(y / half[0], x / half[1], 0.84, rng), max(0.018, 1.2 * unit)
    body = edge_of(depth, max(unit, wall / 2))
    image = 0.2 * (1 - np.exp(-np.clip(depth, 0, None) / 0.2)) + 0.05
    image += 0.05 * clouds(shape, rng, 1.2)

    centre = rng.uniform(-0.15, 0.15, 2) * half
    ny, nx = y - centre[0], x - centre[1]
    inner = outline(ny, nx, 0.3, rng)
    nucleus = edge_of(inner, 2 * unit)
    filaments = draw_filaments(shape, rng, centre, half, unit)
    image += 0.13 * filaments * (1 - nucleus)
    image = np.where(nucleus > 0, image + nucleus * (0.16 + 0.05 * clouds(shape, rng, 1.0)), image)
    image += 0.15 * np.exp(-((inner / max(0.012, unit)) ** 2))
    for _ in range(3):
        at = rng.uniform(-0.13, 0.13, 2)
        image += 0.22 * edge_of(
            rng.uniform(0.035, 0.06) - np.hypot(ny - at[0], nx - at[1]), 3 * unit
        )

    def places(n: int) -> FloatArray:
        """Up to n points in the cytoplasm."""
        points = rng.uniform(-1, 1, (40 * n, 2)) * half
        index = (
            ((points / unit) + (np.array(shape) - 1) / 2)
            .round()
            .astype(int)
            .clip(0, np.array(shape) - 1)
        )
        free = (depth[index[:, 0], index[:, 1]] > 0.1) & (inner[index[:, 0], index[:, 1]] < -0.07)
        return np.asarray(points[free][:n])

    for py, px in places(16):
        angle, length, width = (
            rng.uniform(0, np.pi),
            rng.uniform(0.05, 0.1),
            rng.uniform(0.022, 0.032),
        )
        along = (y - py) * np.sin(angle) + (x - px) * np.cos(angle)
        across = (x - px) * np.sin(angle) - (y - py) * np.cos(angle) + 0.3 * along**2 / length
        gap = np.hypot(across, np.clip(np.abs(along) - length, 0, None))
        cristae = 0.75 + 0.25 * np.cos(2 * np.pi * along / 0.028)
        image += 0.32 * edge_of(width - gap, 2 * unit) * cristae
    for py, px in places(45):
        radius, fill = rng.uniform(0.012, 0.035), rng.uniform(0.0, 0.3)
        gap = np.hypot(y - py, x - px) - radius
        image += fill * edge_of(-gap, unit) + 0.25 * np.exp(-((gap / max(0.008, unit)) ** 2))
    image = image * body + 0.4 * np.exp(-(((depth - 0.5 * wall) / wall) ** 2)) * body
    # the brightest crossings of organelles would leave the rest dark
    return clipped(image / np.quantile(image, 0.998))


def circuit(shape: Shape, seed: int = 0) -> FloatArray:
    """Layout of a circuit: diffusion blocks, a horizontal and a vertical metal layer, vias where
    they meet, pads.

    Parameters
    ----------
    shape : (H, W)
    seed : int

    Returns
    -------
    (H, W) float32 in [0, 1]: 0 substrate, 0.2 blocks, 0.45 and 0.7 metal, 1 vias and the rims of
    pads

    Raises
    ------
    PtychonError
        A shape that is not two positive numbers.
    """
    coordinates(shape)
    rng = np.random.default_rng(seed)
    h, w = shape
    width = max(1, round(min(shape) / 110))
    pitch = 3 * width
    image = np.zeros(shape)
    for _ in range(14):
        top, left = rng.integers(0, h), rng.integers(0, w)
        tall, wide = rng.integers(3, 14, 2) * pitch
        block = image[top : top + tall, left : left + wide]
        block[...] = 0.2
        if rng.random() < 0.6:  # a memory-like array of fine lines
            block[:, :: 2 * width] = 0.35
    across = tracks((h, w), pitch, width, 0.75, rng)
    down = tracks((w, h), pitch, width, 0.45, rng).T
    image[across] = 0.45
    image[down] = 0.7
    for y in range(0, h, pitch):
        for x in range(0, w, pitch):
            if across[y, x] and down[y, x] and rng.random() < 0.4:
                low = -(width // 2)
                image[
                    max(y + low, 0) : y + 2 * width + low, max(x + low, 0) : x + 2 * width + low
                ] = 1.0
    side = 4 * pitch
    for _ in range(7):
        y, x = int(rng.integers(0, max(1, h - side))), int(rng.integers(0, max(1, w - side)))
        # a clear margin, a bright rim, a grey face
        image[max(y - width, 0) : y + side + width, max(x - width, 0) : x + side + width] = 0.0
        image[y : y + side, x : x + side] = 1.0
        image[y + width : y + side - width, x + width : x + side - width] = 0.8
    return clipped(image)


def blobs(shape: Shape, seed: int = 0, *, count: int = 40) -> FloatArray:
    """Sparse: smooth spots (1 - (r/R)^2)^2 on a background that is exactly 0.

    Parameters
    ----------
    shape : (H, W)
    seed : int
    count : int
        Number of spots; 40 cover about a tenth of the picture.

    Returns
    -------
    (H, W) float32 in [0, 1]

    Raises
    ------
    PtychonError
        A shape that is not two positive numbers, no spots.
    """
    y, x, unit = coordinates(shape)
    if count < 1:
        raise PtychonError(f"the number of blobs is {count}; it must be at least 1")
    rng = np.random.default_rng(seed)
    half = np.array(shape) / min(shape)
    image = np.zeros(shape)
    for _ in range(count):
        (cy, cx), radius = (
            rng.uniform(-0.95, 0.95, 2) * half,
            max(rng.uniform(0.02, 0.09), 1.5 * unit),
        )
        stretch, angle = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        u = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / stretch
        spot = np.clip(1 - (u**2 + v**2) / radius**2, 0, None) ** 2
        image = np.maximum(image, rng.uniform(0.4, 1.0) * spot)
    return clipped(image / max(float(image.max()), 1e-12))


def texture(shape: Shape, seed: int = 0, *, leaves: int = 1500) -> FloatArray:
    """Dense natural texture: overlapping leaves of all sizes over 1/f noise; no empty pixel, edges
    everywhere.

    Parameters
    ----------
    shape : (H, W)
    seed : int
    leaves : int

    Returns
    -------
    (H, W) float32 in [0, 1], both reached

    Raises
    ------
    PtychonError
        A shape that is not two positive numbers.
    """
    y, x, unit = coordinates(shape)
    rng = np.random.default_rng(seed)
    half = np.array(shape) / min(shape)
    small, large = 0.02, 0.5
    # density s^-3 between the two sizes, by inversion
    radii = (small**-2 + rng.random(leaves) * (large**-2 - small**-2)) ** -0.5
    places = rng.uniform(-1.1, 1.1, (leaves, 2)) * half
    image = 0.5 + 0.12 * clouds(shape, rng, 1.0)
    for radius, (cy, cx) in zip(radii, places, strict=True):
        rows, columns = (span(c, radius, n, unit) for c, n in zip((cy, cx), shape, strict=True))
        grey, aspect, angle = rng.uniform(0, 1), rng.uniform(0.4, 1.0), rng.uniform(0, np.pi)
        slope, ripple, period = (
            rng.uniform(-0.25, 0.25),
            rng.uniform(0, 0.08),
            rng.uniform(0.06, 0.3) * radius,
        )
        if rows.stop <= rows.start or columns.stop <= columns.start:
            continue
        dy, dx = y[rows] - cy, x[:, columns] - cx
        u = dy * np.sin(angle) + dx * np.cos(angle)
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / aspect
        cover = edge_of(radius - np.hypot(u, v), unit)
        leaf = grey + slope * u / radius + ripple * np.sin(2 * np.pi * v / max(period, 3 * unit))
        image[rows, columns] += cover * (leaf - image[rows, columns])
    image += 0.04 * clouds(shape, rng, 0.8)
    low, high = image.min(), image.max()
    return clipped((image - low) / max(float(high - low), 1e-12))


_PHANTOMS: dict[str, Callable[[Shape, int], FloatArray]] = {
    "siemens_star": siemens_star,
    "cell": cell,
    "circuit": circuit,
    "blobs": blobs,
    "texture": texture,
}
#: Names that `make` knows.
NAMES = tuple(_PHANTOMS)


def make(name: str, shape: Shape, seed: int = 0) -> FloatArray:
    """A phantom by its name, one of `NAMES`: (H, W) float32 in [0, 1].

    Raises
    ------
    PtychonError
        An unknown name (the message gives the nearest one), a shape that is not two positive
        numbers.
    """
    if name not in _PHANTOMS:
        near = difflib.get_close_matches(str(name), NAMES, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PtychonError(f"unknown phantom {name!r}; {hint}Known: {', '.join(NAMES)}")
    return _PHANTOMS[name](shape, seed)


def complex_object(
    amplitude: FloatArray,
    phase: FloatArray,
    *,
    amplitude_range: tuple[float, float] = (0.4, 1.0),
    phase_range: tuple[float, float] = (0.0, np.pi / 2),
) -> ComplexArray:
    """Complex transmission from two independent pictures.

    Parameters
    ----------
    amplitude, phase : (H, W) float in [0, 1]
    amplitude_range : (a0, a1)
        Amplitude where `amplitude` is 0 and 1. A sparse object keeps its background at exactly 0
        with a0 = 0.
    phase_range : (p0, p1)
        rad.

    Returns
    -------
    (H, W) complex64

    Raises
    ------
    PtychonError
        Shapes that differ, values outside [0, 1], a negative amplitude.
    """
    a, b = np.asarray(amplitude, np.float64), np.asarray(phase, np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise PtychonError(
            f"amplitude has shape {a.shape} and phase {b.shape}; both must be the same (rows, "
            "columns)"
        )
    for what, picture in (("amplitude", a), ("phase", b)):
        if not ((picture >= 0) & (picture <= 1)).all():
            raise PtychonError(
                f"the {what} picture spans {picture.min():g} to {picture.max():g}; scale it to "
                "[0, 1] first, "
                f"{what}_range sets the physical values"
            )
    if min(amplitude_range) < 0:
        raise PtychonError(f"amplitude_range is {amplitude_range}; an amplitude is not negative")
    (a0, a1), (p0, p1) = amplitude_range, phase_range
    return np.asarray((a0 + (a1 - a0) * a) * np.exp(1j * (p0 + (p1 - p0) * b)), COMPLEX)
