"""Make the pictures of docs/wrong.md: each fault beside its cure.

    python docs/images/wrong.py
    python docs/images/wrong.py orientation positions

Simulated scans of 64 x 64 pixels; each title gives R and the error against the truth, after factor,
phase ramp and translation are removed. A few seconds a picture.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ptychon import Dataset, PtychonWarning, Result, reconstruct, simulate
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.inspect.orientation import Orientation
from ptychon.metrics.alignment import align
from ptychon.metrics.registration import bounding_box, phase_ramp
from ptychon.plots.figures import Figure
from ptychon.plots.result import shown
from ptychon.run.doubts import grid_power
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import Simulation

HERE = Path(__file__).parent
FRAME, POINTS, STEP, RADIUS, DEFOCUS = 64, 11, 8, 11.0, 25.0
PASSES = 60


@dataclass(frozen=True)
class Panel:
    """One reconstruction: what is written above it, and what is drawn."""

    title: str
    result: Result
    truth: Simulation
    phase: Any = None


def scene(
    *,
    jitter: float = 2.0,
    counts: float = 1e6,
    modes: tuple[float, ...] = (1.0,),
    absorption: float = 0.6,
    phase: float = 1.0,
    seed: int = 0,
    **more: Any,
) -> Simulation:
    """A cell whose phase is a Siemens star, behind a defocused aperture."""
    size = FRAME + STEP * POINTS + 8
    truth = phantoms.complex_object(
        phantoms.cell((size, size), seed),
        phantoms.siemens_star((size, size)),
        amplitude_range=(1 - absorption, 1.0),
        phase_range=(0.0, phase),
    )
    beam = probes.defocused_aperture((FRAME, FRAME), RADIUS, DEFOCUS)
    y, x = ((np.arange(FRAME) - FRAME // 2) / RADIUS for _ in range(2))
    shapes = [beam, beam * y[:, None], beam * x][: len(modes)]
    powers = [np.linalg.norm(shape) for shape in shapes]
    beam = np.stack(
        [s * np.sqrt(m) / p for s, m, p in zip(shapes, modes, powers, strict=True)]
    ).astype(np.complex64)
    where = scan.raster(POINTS, STEP, jitter=jitter, seed=seed, whole=False)
    return simulate(truth, beam, where, noise="poisson", mean_counts=counts, seed=seed, **more)


def run(data: Dataset, engine: str = "rpie", **options: Any) -> Result:
    """A reconstruction from the data alone, as the command makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PtychonWarning)
        return reconstruct(data, engine, **({"passes": PASSES} | options))


def middle(picture: Any, size: Any) -> tuple[slice, ...]:
    """The window of a size about the middle of a picture."""
    return tuple(
        slice(n // 2 - m // 2, n // 2 - m // 2 + m)
        for n, m in zip(picture.shape, size, strict=True)
    )


def error(panel: Panel) -> float:
    """Error over signal (%) where the light is, after what data cannot tell is removed."""
    margin = FRAME // 2 + 12
    inner = slice(margin, panel.truth.object.shape[0] - margin)
    estimate, truth = panel.result.object, panel.truth.object
    # both have the middle of the scan in their middle, and differ in size where positions do
    window = [min(a, b) for a, b in zip(truth.shape, estimate.shape, strict=True)]
    field = np.zeros(truth.shape, complex)
    field[middle(truth, window)] = estimate[middle(estimate, window)]
    found = align(field, truth, region=(inner, inner), max_shift=8, subpixel=True)
    return float(100 * 10 ** (-found.error_db / 20))


def orientation() -> list[Panel]:
    made = scene()
    turned = Orientation.parse("transpose").apply(made.dataset)
    return [
        Panel("frames transposed", run(turned), made),
        Panel("--orient transpose", run(Orientation.parse("transpose").apply(turned)), made),
    ]


def raster() -> list[Panel]:
    """A weak object and a first probe that is too narrow, on even and on uneven steps."""
    weak = {"absorption": 0.1, "phase": 0.3}
    even, uneven = scene(jitter=0.0, **weak), scene(jitter=2.0, **weak)
    narrow = probes.defocused_aperture((FRAME, FRAME), 6.5, 60.0)
    found = [run(even.dataset, probe=narrow), run(uneven.dataset, probe=narrow), run(even.dataset)]
    for result in found:
        print("raster: contrast and share of the grid", grid_power(result))
    return [
        Panel("even steps, poor first probe", found[0], even),
        Panel("the same, steps uneven by 2 px", found[1], uneven),
        Panel("even steps, no --probe", found[2], even),
    ]


def ramp() -> list[Panel]:
    made = scene()
    off = replace(made.dataset, patterns=np.roll(made.dataset.patterns, (3, -2), axis=(1, 2)))
    raw, centred = run(off), run(prepare(off, Preparation(centre="auto")))
    for result in (raw, centred):
        flat = np.where(result.illuminated, result.object, 0)
        print("ramp: cycles over a frame", np.array(phase_ramp(flat)) * FRAME / (2 * np.pi))
    return [
        Panel("as stored, centre off by 3 and 2 px", raw, made, np.angle(raw.object)),
        Panel("as drawn", raw, made),
        Panel("as stored, --centre auto", centred, made, np.angle(centred.object)),
    ]


def twin() -> list[Panel]:
    made = scene()
    turned = Orientation.parse("flip-rows+flip-columns").apply(made.dataset)
    return [
        Panel("frames turned by 180 degrees", run(turned), made),
        Panel("--orient flip-rows+flip-columns", run(made.dataset), made),
    ]


def counts() -> list[Panel]:
    few, many = scene(counts=2e3), scene(counts=1e5)
    probe = run(many.dataset).probe
    known = run(few.dataset, probe=probe, update={"probe": False})
    return [
        Panel("2,000 counts a frame", run(few.dataset), few),
        Panel("--probe bright.h5 --update probe:no", known, few),
        Panel("100,000 counts a frame", run(many.dataset), many),
    ]


def positions() -> list[Panel]:
    made = scene(counts=1e5)
    wrong = np.random.default_rng(1).normal(0, 1.0, made.dataset.positions.shape)
    off = replace(made.dataset, positions=made.dataset.positions + wrong)
    refined = run(off, "ml", passes=12, update={"positions": True})
    left = refined.positions - made.dataset.positions
    print("positions: rms (px) before and after", wrong.std(), (left - left.mean(axis=0)).std())
    return [
        Panel("positions wrong by 1 px rms", run(off), made),
        Panel("--engine ml --update positions", refined, made),
    ]


def distance() -> list[Panel]:
    made = scene(wavelength=1.55e-10, distance=1.24, detector_pixel_size=75e-6)
    off = replace(made.dataset, distance=1.05 * 1.24, pixel_size=None)
    return [
        Panel("--distance 1.30m", run(off), made),
        Panel("--distance 1.24m", run(made.dataset), made),
    ]


def hot() -> list[Panel]:
    made = scene(counts=1e5)
    frames = made.dataset.patterns.astype(np.uint32)
    frames[:, [20, 41, 30], [45, 12, 50]] = 3000
    off = replace(made.dataset, patterns=frames)
    return [
        Panel("three hot pixels", run(off), made),
        Panel("--bad-pixels", run(prepare(off, Preparation(bad_pixels=True))), made),
    ]


def modes() -> list[Panel]:
    made = scene(modes=(0.7, 0.2, 0.1))
    return [
        Panel("one mode", run(made.dataset, passes=200), made),
        Panel("--modes 3 --passes 200", run(made.dataset, modes=3, passes=200), made),
    ]


PICTURES: dict[str, Callable[[], list[Panel]]] = {
    f.__name__: f
    for f in (orientation, raster, ramp, twin, counts, positions, distance, hot, modes)
}


def draw(panels: list[Panel], name: str) -> None:
    """Amplitude above phase, a column each."""
    figure = Figure(figsize=(2.7 * len(panels), 5.8), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False)
    for column, panel in zip(axes.T, panels, strict=True):
        amplitude, phase, _ = shown(panel.result)
        phase = phase if panel.phase is None else panel.phase
        box = bounding_box(np.isfinite(amplitude))
        for ax, whole in zip(column, (amplitude, phase), strict=True):
            values = whole[box]
            low, high = np.nanpercentile(values, (1, 99))
            ax.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        column[0].set_title(
            f"{panel.title}\n$R$ {panel.result.final_error:.3f}, error {error(panel):.0f} %",
            fontsize=8.5,
        )
        print(name, panel.title, f"R {panel.result.final_error:.4f}, error {error(panel):.1f} %")
    axes[0, 0].set_ylabel("amplitude")
    axes[1, 0].set_ylabel("phase")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer) as image:
        image.convert("L").quantize(64).save(HERE / f"wrong_{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help="default all")
    for name in parser.parse_args().names or PICTURES:
        draw(PICTURES[name](), name)


if __name__ == "__main__":
    main()
