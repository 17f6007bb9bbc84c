"""First probes from the data alone: what a run reaches from them and from the true probe, for
twelve kinds of beam.

Each kind fills a small, a middle or a large part of the detector: the angles of the beam reach
0.12, 0.24 or 0.4 cycles/px, and the object is blurred to about the same. Frames of 64 px, a beam
about 26 px across, a jittered raster of step 7. A case succeeds within 2 dB of what the same run
reaches from the true probe. The error is that of the object where it is lit, after a complex
factor, a phase ramp and a translation are removed.

Cases that are in the table already are not run again, so a stopped experiment goes on where it was.

    python experiments/first_probe.py
    python experiments/first_probe.py --kinds disc electrons --fillings 0.3 --trials 3
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from typing import Any

import common
import numpy as np
from common import Row
from scipy.ndimage import gaussian_filter

from ptychon.backends import get_backend
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated, probe_at_rim
from ptychon.model.problem import Problem
from ptychon.run.first_probe import find_probe
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import Simulation, simulate
from ptychon.types import ComplexArray

#: Window and radius of the beam, px, step of the raster, and largest frequency of the beam
#: (cycles/px) at a filling of 1.
FRAME, RADIUS, STEP, CONE = 64, 13.0, 7, 0.4
#: Wavelength and object pixel of the electrons, m.
WAVELENGTH, PIXEL = 2e-12, 2e-11
#: A success is within this many dB of the run from the true probe.
WITHIN = 2.0
FILLINGS = (0.3, 0.6, 1.0)
SHAPE = (FRAME, FRAME)


def _curved(cone: float, sign: int) -> ComplexArray:
    """A disc whose wavefront is curved: at its edge the frequency is `cone`."""
    y = np.arange(FRAME) - FRAME // 2
    chirp = np.exp(1j * np.pi * sign * cone / RADIUS * (y[:, None] ** 2 + y**2))
    return np.asarray(probes.circular_aperture(SHAPE, RADIUS) * chirp, np.complex64)


def _electrons(
    cone: float, sign: int, share: float = 1.0, *, cs: float = 0.0, flaws: float = 0.0
) -> ComplexArray:
    """Rays at the edge of the aperture are a share of the radius from the axis; flaws are
    astigmatism and coma.
    """
    angle = cone * WAVELENGTH / PIXEL
    defocus = sign * share * RADIUS / cone * PIXEL**2 / WAVELENGTH
    return probes.electron(
        SHAPE,
        PIXEL,
        semi_angle=angle,
        wavelength=WAVELENGTH,
        defocus=defocus,
        cs=cs * defocus / angle**2,
        astigmatism=flaws * abs(defocus),
        astigmatism_angle=0.5,
        coma=flaws / 2 * abs(defocus) / angle,
    )


#: A probe for the largest frequency of the beam; flat ones leave it to the object to fill the
#: detector.
KINDS: dict[str, Callable[[float], ComplexArray]] = {
    "disc": lambda cone: probes.circular_aperture(SHAPE, RADIUS),
    "diverging disc": lambda cone: _curved(cone, 1),
    "converging disc": lambda cone: _curved(cone, -1),
    "disc with fringes": lambda cone: probes.defocused_aperture(SHAPE, RADIUS, 34.0),
    "gaussian": lambda cone: probes.gaussian(SHAPE, RADIUS),
    "curved gaussian": lambda cone: probes.gaussian(SHAPE, RADIUS, cone / RADIUS),
    "weak diffuser": lambda cone: probes.structured(SHAPE, 2 * RADIUS, 4, 0.5, seed=4),
    "strong diffuser": lambda cone: probes.structured(SHAPE, 2 * RADIUS, 4, 1.5, seed=4),
    "zone plate, behind": lambda cone: probes.zone_plate(SHAPE, cone, 0.4 * cone, RADIUS / cone),
    "zone plate, before": lambda cone: probes.zone_plate(SHAPE, cone, 0.4 * cone, -RADIUS / cone),
    "electrons": lambda cone: _electrons(cone, 1),
    "flawed electrons": lambda cone: _electrons(cone, -1, 0.8, cs=0.4, flaws=0.2),
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__ or "", "first_probe", trials=1, passes=60)
    options.add_argument(
        "--kinds",
        nargs="+",
        choices=list(KINDS),
        default=list(KINDS),
        metavar="KIND",
        help="of the beam",
    )
    options.add_argument(
        "--fillings", type=float, nargs="+", default=FILLINGS, help="of the detector, 0 to 1"
    )
    options.add_argument("--counts", type=float, default=1e5, help="a frame (default %(default)g)")
    options.add_argument(
        "--side",
        type=int,
        default=10,
        help="points of the raster along each axis (default %(default)s)",
    )
    given = options.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "table.csv"
    rows: list[Row] = []
    if path.exists():
        with path.open() as file:
            rows = [
                {name: _number(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    cases = [
        (k, f, given.counts, given.side, given.passes, t)
        for k in given.kinds
        for f in given.fillings
        for t in range(given.trials)
    ]
    for case in cases:
        if all(tuple(row.values())[: len(case)] != case for row in rows):
            rows.append(measure(case, given))
            common.write(rows, path)
            common.say(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    rows = [row for case in cases for row in rows if tuple(row.values())[: len(case)] == case]
    common.show(rows)
    good = sum(row["found_db"] > row["true_db"] - WITHIN for row in rows)
    print(
        f"{good} of {len(rows)} within {WITHIN:g} dB of the run from the true probe; table.csv "
        f"is in {given.output}"
    )


def _number(text: str) -> Any:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def made(kind: str, filling: float, counts: float, side: int, seed: int) -> Simulation:
    """The scan."""
    n = (side - 1) * STEP + FRAME + 4
    parts = [phantoms.texture((n, n), 2 * seed + k) for k in (1, 2)]
    sample = phantoms.complex_object(parts[0], parts[1])
    if filling < 1:
        real, imaginary = (
            gaussian_filter(part, 0.35 / filling) for part in (sample.real, sample.imag)
        )
        sample = np.asarray(real + 1j * imaginary, np.complex64)
    where = scan.raster(side, STEP, jitter=1, seed=seed)
    return simulate(
        sample, KINDS[kind](CONE * filling), where, noise="poisson", mean_counts=counts, seed=seed
    )


def measure(case: tuple[str, float, float, int, int, int], given: argparse.Namespace) -> Row:
    """One case: the errors from both probes, and what the search took."""
    kind, filling, counts, side, passes, trial = case
    scanned = made(kind, filling, counts, side, trial)
    problem = Problem.from_dataset(scanned.dataset)
    lit, errors = illuminated(problem, scanned.probe, 0.3), []
    began = time.perf_counter()
    found = find_probe(problem, get_backend("numpy"))
    seconds = time.perf_counter() - began
    for probe in (scanned.probe, found):
        done = common.run(problem, "rpie", probe=probe, passes=passes, backend=given.backend)  # type: ignore[arg-type]
        result = done.result
        near = (
            None
            if result is None
            else align(result.object, scanned.object, region=lit, max_shift=8, subpixel=True)
        )
        errors.append(
            (float("nan"), float("nan"))
            if near is None or result is None
            else (near.error_db, result.final_error)
        )
    (true_db, true_r), (found_db, found_r) = errors
    row: Row = {
        "kind": kind,
        "filling": filling,
        "counts": counts,
        "side": side,
        "passes": passes,
        "trial": trial,
    }
    row |= {
        "true_db": round(true_db, 2),
        "found_db": round(found_db, 2),
        "true_R": round(true_r, 4),
        "found_R": round(found_r, 4),
    }
    return row | {"rim": round(probe_at_rim(found), 3), "search_s": round(seconds, 2)}


if __name__ == "__main__":
    common.command(main)
