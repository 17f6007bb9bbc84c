"""The grid that a scan on a raster leaves in the object, and what takes it out.

On an exact raster no frame tells what object and probe have of its period
(`ptychon.run.constraints.raster`): what a wrong first probe puts there stays. One phase object is
scanned by a Gaussian probe on an exact raster and on others, and reconstructed from that probe with
a wrong curvature, without a constraint and with some. The table has the error of the object in
percent, over its middle and wherever it lies, R, and the share of the power of the error at
harmonics of the raster's period; the figure has what was found divided by the truth.

    python experiments/raster.py
    python experiments/raster.py --counts 1e3 --trials 4

It takes some seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Result, reconstruct
from ptychon.metrics.alignment import Alignment, align
from ptychon.simulation import scan
from ptychon.simulation.simulate import Simulation, simulate

#: Sides of the object and of a frame, and the pitch of the raster, px.
SIDE, FRAME, PITCH = 64, 24, 6
#: Part of the object that is compared, and as many pitches of it as there are.
INNER, WHOLE = slice(14, 50), slice(11, 53)


@dataclass(frozen=True)
class Case:
    """A scan and how it is reconstructed."""

    name: str
    step: float = PITCH
    jitter: float = 0.0
    constraints: tuple[str, ...] = ()


CASES = (
    Case("exact raster"),
    Case("grid_notch", constraints=("grid_notch:every=5",)),
    Case("blurred early", constraints=("smooth:sigma=1,before=20",)),
    Case("amplitude 1", constraints=("amplitude:lo=0.98,hi=1.02",)),
    Case("support", constraints=("support:radius=8",)),
    Case("jitter 1 px", jitter=1.0),
    Case("step 4 px", step=4.0),
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "raster", trials=2, passes=60)
    options.add_argument(
        "--counts", type=float, default=1e5, help="of a frame (default %(default)g)"
    )
    given = options.parse_args(arguments)
    common.start(given)
    rows: list[Row] = []
    pictures = {}
    for case in CASES:
        found = []
        for seed in range(given.trials):
            made = scanned(case, given.counts, seed)
            result = reconstructed(case, made, given)
            lies = laid(result, made)
            pictures.setdefault(case.name, lies.estimate / made.object)
            error = 100 * 10 ** (-lies.error_db / 20)
            found.append((error, result.final_error, periodic(lies, made)))
        error, misfit, share = np.mean(found, axis=0)
        row = {"case": case.name, "error %": round(float(error), 1)}
        rows.append(row | {"R": round(float(misfit), 4), "at the period": round(float(share), 2)})
    common.finish(given, draw(pictures), ("table.csv", rows))


def scanned(case: Case, counts: float, seed: int) -> Simulation:
    """Frames of a smooth phase object."""
    rng = np.random.default_rng(1)
    f2 = np.add.outer(np.fft.fftfreq(SIDE) ** 2, np.fft.fftfreq(SIDE) ** 2)
    rough = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * np.exp(-f2 / (2 * 0.07**2))
    smooth = np.fft.ifft2(rough).real
    y, x = np.indices((FRAME, FRAME)) - FRAME // 2
    beam = np.exp(-(y**2 + x**2) / (2 * 3.0**2) + 0.03j * (y**2 + x**2))
    side = int(36 // case.step) + 1
    places = scan.raster(side, step=case.step, jitter=case.jitter, seed=7)
    object = np.exp(0.5j * smooth / smooth.std())
    return simulate(object, beam, places, noise="poisson", mean_counts=counts, seed=seed)


def reconstructed(case: Case, made: Simulation, given: argparse.Namespace) -> Result:
    """From the probe with a wrong curvature."""
    y, x = np.indices((FRAME, FRAME)) - FRAME // 2
    return reconstruct(
        made.dataset,
        "rpie",
        passes=given.passes,
        probe=made.probe * np.exp(0.03j * (y**2 + x**2)),
        constraints=list(case.constraints),
        backend=given.backend,
        judge=False,
        progress=False,
    )


def laid(result: Result, made: Simulation) -> Alignment:
    """The object on the truth."""
    return align(result.object, made.object, region=(INNER, INNER), subpixel=True)


def periodic(lies: Alignment, made: Simulation) -> float:
    """Share of the power of the error at the first two harmonics of the raster."""
    off = (lies.estimate / made.object)[WHOLE, WHOLE] - 1
    power = np.abs(np.fft.fft2(off)) ** 2
    first = (WHOLE.stop - WHOLE.start) // PITCH
    orders = [n * first for n in range(-2, 3)]
    at = [(a, b) for a in orders for b in orders if a or b]
    return float(sum(power[place] for place in at) / power.sum())


def draw(pictures: dict[str, Any]) -> Any:
    """Phases of the quotients."""
    count = len(pictures)
    picture = common.figure(1.9 * count + 0.8, 2.6)
    axes = picture.subplots(1, count, squeeze=False)[0]
    for axis, (name, quotient) in zip(axes, pictures.items(), strict=True):
        image = axis.imshow(np.angle(quotient[INNER, INNER]), cmap="gray", vmin=-0.2, vmax=0.2)
        axis.set(xticks=[], yticks=[], title=name)
        axis.title.set_fontsize(9)
    picture.colorbar(image, ax=list(axes), label="phase against the truth (rad)", shrink=0.8)
    return picture


if __name__ == "__main__":
    common.command(main)
