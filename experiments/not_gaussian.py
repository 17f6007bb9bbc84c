"""How far from a Gaussian is the posterior of a scan whose probe was learned, with few counts? Bars
of `laplace` about its optimum, which are those of a Gaussian, beside chains of `sampling`, which
assume none, on the same data with the same learned prior.

Scans are those of the table of cells, 36 frames of 24 x 24 with 39 counts a pixel, of a power law
behind two beams: that of the second simulator, spread over the detector by its defocus, and an
aperture of the package whose light stays near the axis. From the repository:

    python experiments/not_gaussian.py --seeds 4

takes a minute and a half of processor time a scan and prints a table: mean (error/bar)^2 of both,
and variances and squared errors of `sampling` over those of `laplace`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from coverage_cells import DOSE, FRAME, SIDE
from second_simulator import Cell, dataset_of

STEP = 0.2 * 0.72 * FRAME
CELL = Cell("power-1.5", frame=FRAME, side=SIDE, step=STEP, dose=DOSE)


def scan_behind(beam: str, seed: int) -> tuple[Any, Any]:
    """Data, and the object that they are of."""
    from ptychon.simulation.probes import defocused_aperture

    probe = None
    if beam == "aperture":
        probe = defocused_aperture((FRAME, FRAME), 0.36 * FRAME, 12).astype(complex)
    return dataset_of(CELL, seed, probe, jitter=0.4 * STEP)[:2]


def compared(beam: str, seed: int) -> tuple[float, float, float, float]:
    """Mean u2 of `laplace` and `sampling`; variance and squared error of the latter over those of
    the former.
    """
    from ptychon import reconstruct
    from ptychon.metrics.alignment import align
    from ptychon.model.found import on_grid
    from ptychon.uncertainty.joint import lit_region
    from ptychon.uncertainty.methods import Laplace, Sampling

    data, truth = scan_behind(beam, seed)
    start = reconstruct(data, "rpie", passes=300, backend="numpy")
    problem = on_grid(data, start)
    lit, own = lit_region(problem, start), {"prior": "learned", "seed": seed}
    free: dict[str, Any] = {"update": ("object", "probe"), **own}
    ways = Laplace(refine=True, propose=False, draws=32, **free), Sampling(**free)
    said = []
    for way in ways:
        _, bars = way.run(problem, start, "numpy", lambda *_: None, Path("nowhere"))
        laid = align(bars.object, truth.astype("c8"), region=lit, max_shift=8, subpixel=True)
        error = abs(laid.estimate - truth)[lit] ** 2
        variance = (bars.object_std[lit] / abs(laid.scale)) ** 2
        said.append(((error / variance).mean(), variance.mean(), error.mean()))
    (one, v, e), (two, w, f) = said
    return float(one), float(two), float(w / v), float(f / e)


def main(arguments: Sequence[str] | None = None) -> None:
    import warnings

    from ptychon import PtychonWarning

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=4)
    given = options.parse_args(arguments)
    warnings.simplefilter("ignore", PtychonWarning)
    print("| beam | u2 of laplace | u2 of sampling | variance | squared error |")
    print("|---|---|---|---|---|")
    for beam in ("spread", "aperture"):
        rows = np.array([compared(beam, seed) for seed in range(given.seeds)])
        shown = []
        for column in rows.T:
            shown.append(f"{column.mean():.2f} ({column.min():.2f} to {column.max():.2f})")
        print(f"| {beam} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
