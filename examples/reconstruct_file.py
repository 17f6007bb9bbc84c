"""Reconstruct a scan in a file, with a callback of one's own, and look into the result.

ptychon demo
python examples/reconstruct_file.py ptychon_demo/scan.cxi
python examples/reconstruct_file.py ptychon_demo/scan.cxi --engine ep --start scan_rpie.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ptychon import load, reconstruct
from ptychon.io import load_result, save_result
from ptychon.metrics.residual import phase_ramp
from ptychon.plots.result import picture, remove_ramp
from ptychon.run.progress import Progress


def report(progress: Progress) -> bool:
    """Called after each pass; True ends the run."""
    if np.isfinite(progress.error):
        print(
            f"pass {progress.passes} of {progress.planned}: R {progress.error:.4f}, "
            f"{progress.seconds:.1f} s"
        )
    return progress.error < 0.01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="CXI, .npz or HDF5")
    parser.add_argument(
        "--engine", default="rpie", help="pie, epie, rpie, dm or ep (default %(default)s)"
    )
    parser.add_argument("--passes", dest="passes", type=int, default=40)
    parser.add_argument("--start", type=Path, help="an earlier result to go on from")
    given = parser.parse_args()

    data = load(given.file)
    print(
        f"{len(data)} frames of {data.frame_shape}, wavelength {data.wavelength}, object pixel "
        f"{data.pixel_size}"
    )
    start = None if given.start is None else load_result(given.start)
    result = reconstruct(data, given.engine, passes=given.passes, start=start, callbacks=[report])

    out = Path(f"{given.file.stem}_{given.engine}.h5")
    save_result(out, result)
    picture(result, out.with_suffix(".png"))

    lit = result.illuminated
    ky, kx = phase_ramp(np.where(lit, result.object, 0))
    flat = remove_ramp(result.object, lit)
    print(f"{out}: R {result.final_error:.4f} with object and probe held still")
    print(
        f"phase ramp taken off ({ky:.2g}, {kx:.2g}) rad/px; phases then span "
        f"{np.ptp(np.angle(flat[lit])):.2f} rad"
    )
    if result.object_std is not None:
        print(f"median standard deviation {np.median(result.object_std[lit]):.2g}")


if __name__ == "__main__":
    main()
