"""Slices of a crystal in electrons: what is told apart along the depth, and what is not.

After the published experiment on PrScO3 (Chen et al., Science 372, 826 (2021)): 300 kV, a
convergence of 21.4 mrad, a probe 200 A behind its focus, steps of 0.41 A, 1e6 electrons a square
angstrom. The crystal is a simple one: columns of heavy atoms in pairs, of lighter ones and of
oxygen, whose projected potentials are sums of Gaussians. It is 100 A thick, in slices of 5 A; the
column in the middle has atoms in its lower half only, as at a step of the surface within the field.

It is reconstructed with fewer slices through the same 100 A, from a constant, with a probe whose
defocus is 10 % off; more than two slices without and with a filter along the depth, and with their
structure kept in the middle besides. The table has R, the correlation of
the phase of all slices together with the truth, and the share of the middle column that is found in
the upper half of the specimen, where it has no atoms: 0.5 is no depth at all. The figure has the
sections through this column.

    python experiments/slices.py
    python experiments/slices.py --slices 2 5 --points 16 --passes 80

With the options' defaults it takes about six minutes on one core; the row of 20 slices 45 s each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import common
import numpy as np
from common import Row

from ptychon import Result, reconstruct
from ptychon.metrics.depth import levelled
from ptychon.simulation import probes, scan
from ptychon.simulation.simulate import Simulation, simulate
from ptychon.types import ComplexArray, FloatArray

VOLTAGE, ANGLE, OVERFOCUS, STEP, DOSE = 300e3, 21.4e-3, 200e-10, 0.41e-10, 1e6 * 1e20
#: Pixel of the object, and thickness of the specimen and of its slices, m.
PIXEL, THICK, THIN = 0.25e-10, 100e-10, 5e-10
#: When the middle of the structure is put into the middle of the slices.
CENTRED = "after=5,every=5"
#: Of the simple crystal: sides of the cell, m, and of each column its place in it, its phase for
#: each m of depth, and the standard deviation of its Gaussian, m.
CELL = (5.6e-10, 5.6e-10)
PAIR = 0.6e-10
COLUMNS = (
    (0.25, 0.25, 0.040e10, 0.24e-10, PAIR),
    (0.75, 0.75, 0.040e10, 0.24e-10, -PAIR),
    (0.25, 0.75, 0.022e10, 0.22e-10, 0.0),
    (0.75, 0.25, 0.022e10, 0.22e-10, 0.0),
    (0.50, 0.25, 0.008e10, 0.20e-10, 0.0),
    (0.00, 0.75, 0.008e10, 0.20e-10, 0.0),
)


@dataclass(frozen=True)
class Scene:
    """A scan, the phases of the slices it is of (S, H, W), a first probe, and the pixel of the
    column that has atoms in its lower half only.
    """

    made: Simulation
    phase: FloatArray
    start: ComplexArray
    column: tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "slices", trials=1, passes=40)
    options.add_argument(
        "--points", type=int, default=12, help="frames along a side (default %(default)s)"
    )
    options.add_argument(
        "--frame", type=int, default=64, help="side of a frame, px (default %(default)s)"
    )
    options.add_argument(
        "--slices", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="how many are looked for"
    )
    options.add_argument(
        "--depth-filter",
        type=float,
        default=1.0,
        help="strength of the filter along the depth, with and without which more than two slices "
        "are found; 0 is without alone (default %(default)s)",
    )
    given = options.parse_args(arguments)
    common.start(given)
    made = scene(given.points, given.frame)
    rows: list[Row] = []
    sections = {"truth": (made.phase, THIN)}
    most = max(given.slices)
    for count in sorted(given.slices):
        for held in ways(count, given.depth_filter):
            name = f"{count} slice{'s' if count > 1 else ''}"
            name += "".join(f", {text}" for text in held)
            common.say(name)
            began = time.process_time()
            result = found(made, count, held, given)
            rows.append(
                {
                    "slices": count,
                    "held": " ".join(held) or "not",
                    "R": round(result.final_error, 4),
                    "correlation": round(correlation(made, result), 3),
                    "upper half": round(above(made, phases(result)), 2),
                    "s": round(time.process_time() - began, 1),
                }
            )
            common.write(rows, given.output / "table.csv")
            if count == most or held == ways(count, given.depth_filter)[-1]:
                sections[name] = (phases(result), THICK / count)
    common.say(f"upper half of the truth: {above(made, made.phase):.2f}")
    common.finish(given, draw(made, sections), ("table.csv", rows))


def ways(count: int, strength: float) -> list[tuple[str, ...]]:
    """Constraints with which so many slices are found, one set after the other."""
    if count < 3 or not strength:
        return [()]
    filtered = f"depth:{strength:g}"
    return [(), (filtered,), (filtered, "depth_centre")]


def scene(points: int, frame: int, seed: int = 1) -> Scene:
    """The scan."""
    positions = scan.raster(points, step=STEP / PIXEL, jitter=0.3, whole=False, seed=seed)
    size = frame + 2 * int(np.ceil(np.abs(positions).max() + 1))
    count = round(THICK / THIN)
    phase, column = crystal(size, count)
    focus = {"voltage": VOLTAGE, "semi_angle": ANGLE}
    beam = probes.electron((frame, frame), PIXEL, defocus=OVERFOCUS, **focus)
    made = simulate(
        np.exp(1j * phase),
        beam,
        positions,
        pixel_size=PIXEL,
        wavelength=probes.electron_wavelength(VOLTAGE),
        spacing=THIN,
        noise="poisson",
        mean_counts=DOSE * STEP**2,
        seed=seed,
    )
    start = probes.electron((frame, frame), PIXEL, defocus=0.9 * OVERFOCUS, **focus)
    return Scene(made, phase, start, column)


def crystal(size: int, count: int) -> tuple[FloatArray, tuple[int, int]]:
    """Phase of each slice (S, H, W), and where the column is that begins half-way down."""
    axis = (np.arange(size) - size // 2) * PIXEL
    phase, nearest = np.zeros((count, size, size)), (np.inf, (0, 0))
    reach = range(-int(size * PIXEL / CELL[0]) - 1, int(size * PIXEL / CELL[0]) + 2)
    places = []
    for v, u, strength, width, apart in COLUMNS:
        for a in reach:
            for b in reach:
                for sign in (1, -1) if apart else (0,):
                    y, x = (a + v) * CELL[0] + sign * abs(apart) / 2, (b + u) * CELL[1]
                    x += sign * apart / 2
                    places.append((y, x, strength, width))
    heavy = max(strength for _, _, strength, _ in places)
    for y, x, strength, _ in places:
        if strength == heavy and np.hypot(y, x) < nearest[0]:
            nearest = np.hypot(y, x), (y, x)
    for y, x, strength, width in places:
        if max(abs(y), abs(x)) > size * PIXEL / 2 + 4 * width:
            continue
        spot = np.exp(-((axis - y) ** 2) / (2 * width**2))[:, None] * np.exp(
            -((axis - x) ** 2) / (2 * width**2)
        )
        first = count // 2 if (y, x) == nearest[1] else 0
        phase[first:] += strength * THIN * spot
    where = tuple(round(r / PIXEL) + size // 2 for r in nearest[1])
    return phase, (where[0], where[1])


def found(made: Scene, count: int, held: Sequence[str], given: argparse.Namespace) -> Result:
    """From a constant, with the probe refined from pass 3 on."""
    how: dict[str, object] = {}
    if count > 1:
        how = {"slices": count, "spacing": THICK / count}
        how["constraints"] = [
            f"{text}:{CENTRED}" if text == "depth_centre" else text for text in held
        ]
    return reconstruct(
        made.made.dataset,
        "rpie",
        probe=made.start,
        passes=given.passes,
        object_reg=0.1,
        probe_start=3,
        backend=given.backend,
        judge=False,
        progress=False,
        **how,  # type: ignore[arg-type]
    )


def phases(result: Result) -> FloatArray:
    """Phase of each slice without its ramp and its median, (S, H, W)."""
    lit = result.illuminated
    layers = result.object[None] if result.object.ndim == 2 else result.object
    found = np.stack([np.angle(levelled(layer, lit)) for layer in layers])
    return np.asarray(found - np.median(found[:, lit], axis=1)[:, None, None])


def correlation(made: Scene, result: Result) -> float:
    """Of the phase of all slices with that of the truth, where it is lit."""
    lit = result.illuminated
    a, b = (p.sum(axis=0)[lit] for p in (phases(result), made.phase))
    return float(np.corrcoef(a, b)[0, 1])


def above(made: Scene, phase: FloatArray) -> float:
    """Share of the phase of the middle column that lies in the upper half of the specimen."""
    (y, x), r = made.column, 1
    spot = phase[:, y - r : y + r + 1, x - r : x + r + 1].mean(axis=(1, 2)).clip(0, None)
    edges = np.linspace(0, 1, len(spot) + 1)
    upper = ((0.5 - edges[:-1]) / np.diff(edges)).clip(0, 1)
    return float((upper * spot).sum() / max(float(spot.sum()), 1e-30))


def draw(made: Scene, sections: dict[str, tuple[FloatArray, float]]) -> object:
    """The phase of the truth from above, and sections through the middle column, for each 10 A of
    depth.
    """
    size = made.phase.shape[-1]
    half = size // 2 - 20
    inside = slice(size // 2 - half // 2 - 4, size // 2 + half // 2 + 4)
    picture = common.figure(10, 1.6 + 1.25 * len(sections))
    axes = picture.subplots(len(sections), 2, width_ratios=(1, 2.4), squeeze=False)
    top = float(made.phase[:, inside, inside].max()) * 10e-10 / THIN
    width = (inside.stop - inside.start) * PIXEL * 1e10
    for (from_above, section), (name, (phase, thick)) in zip(axes, sections.items(), strict=True):
        from_above.imshow(
            phase.sum(axis=0)[inside, inside], cmap="gray", extent=(0, width, width, 0)
        )
        row = made.column[0] - inside.start
        from_above.axhline((row + 0.5) * PIXEL * 1e10, color=common.COLOURS[1], lw=0.8)
        from_above.set_title(f"{name}:\nall of the depth", fontsize=9)
        from_above.set(xticks=[], yticks=[])
        image = section.imshow(
            phase[:, made.column[0], inside] * 10e-10 / thick,
            cmap="gray",
            vmin=0,
            vmax=top,
            aspect="auto",
            interpolation="nearest",
            extent=(0, width, THICK * 1e10, 0),
        )
        section.axvline(
            (made.column[1] - inside.start + 0.5) * PIXEL * 1e10,
            color=common.COLOURS[1],
            lw=0.8,
            ls=":",
        )
        section.set(title=f"{name}: along the beam", ylabel="z (Å)")
    axes[-1, 1].set_xlabel("x (Å)")
    picture.colorbar(image, ax=list(axes[:, 1]), label="phase for 10 Å (rad)", shrink=0.6)
    return picture


if __name__ == "__main__":
    common.command(main)
