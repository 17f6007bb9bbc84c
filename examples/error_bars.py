"""Simulate a scan, reconstruct it, and ask how often the truth lies within the error bars.

    python examples/error_bars.py
    python examples/error_bars.py --counts 1e5 --known-probe

rPIE finds object and probe from nothing but the data; Ptycho-EP goes on from there until the object
moves no more. Only then are its standard deviations those of the error: the table printed at the
end compares both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptychon import reconstruct
from ptychon.metrics.residual import align, coverage
from ptychon.plots.result import picture
from ptychon.run.observers import ProgressBar
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--counts", type=float, default=1e6, help="mean photons of a frame (default %(default)g)"
    )
    parser.add_argument(
        "--points", type=int, default=15, help="scan points along each axis (default %(default)d)"
    )
    parser.add_argument(
        "--passes",
        dest="passes",
        type=int,
        default=400,
        help="most passes of Ptycho-EP (default %(default)d)",
    )
    parser.add_argument(
        "--known-probe", action="store_true", help="give Ptycho-EP the true probe and keep it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("error_bars.png"))
    given = parser.parse_args()

    frame, step = 64, 8
    size = frame + step * given.points + 8
    truth = phantoms.complex_object(
        phantoms.cell((size, size), given.seed),
        phantoms.siemens_star((size, size)),
        phase_range=(0.0, 1.0),
    )
    simulated = simulate(
        truth,
        probes.defocused_aperture((frame, frame), radius=12, defocus=30),
        scan.raster(given.points, step, jitter=2, seed=given.seed),
        noise="poisson",
        mean_counts=given.counts,
        seed=given.seed,
    )
    data = simulated.dataset

    show = [ProgressBar("ep", lines=True)]
    if given.known_probe:
        found = reconstruct(
            data,
            "ep",
            probe=simulated.probe,
            probe_updates=0,
            passes=given.passes,
            until="still:3e-5",
            callbacks=show,
        )
    else:
        first = reconstruct(data, "rpie", passes=min(60, given.passes), seed=given.seed)
        found = reconstruct(
            data, "ep", start=first, passes=given.passes, until="still:3e-5", callbacks=show
        )
    picture(found, given.picture)

    # factor, phase ramp and translation are free where the probe is unknown; the rim, dimly lit, is
    # left out
    inner = slice(frame // 2 + 8, size - frame // 2 - 8)
    aligned = align(
        found.object, simulated.object, region=(inner, inner), max_shift=4, subpixel=True
    )
    assert found.object_std is not None
    bars = coverage(
        aligned.estimate, simulated.object, found.object_std / abs(aligned.scale), (inner, inner)
    )
    print(
        f"{found.passes} passes, R {found.final_error:.4f}, {aligned.error_db:.1f} dB from the "
        f"truth; {given.picture}"
    )
    print("stated probability   truth within the bar")
    for stated, covered in zip(bars.probability, bars.covered, strict=True):
        print(f"{stated:18.1%}   {covered:20.1%}")


if __name__ == "__main__":
    main()
