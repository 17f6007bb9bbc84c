"""Make the pictures of the README from what the package computes.

    python docs/images/make.py
    ptychon reconstruct siemens_star.npz && python docs/images/make.py siemens_star_rpie.h5

The first makes demo.png, from the scan of `ptychon demo`; the second siemens_star.png, from the
result of a measured scan.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from small import save_small

from ptychon import Dataset, Result, reconstruct
from ptychon.cli.demo import specimen
from ptychon.plots.result import picture
from ptychon.run.observers import ProgressBar

HERE = Path(__file__).parent


def make(data: Dataset, name: str, what: str) -> None:
    """rPIE from nothing but the data, Ptycho-EP from there, and a small picture."""
    show = [ProgressBar(name, lines=True)]
    first = reconstruct(data, "rpie", passes=60, callbacks=show)
    result = reconstruct(data, "ep", start=first, passes=250, until="still:1e-4", callbacks=show)
    title = f"{what}: rPIE, then Ptycho-EP, {result.passes} passes, R = {result.final_error:.4f}"
    small(result, name, title)


def small(result: Result, name: str, title: str) -> None:
    """Draw a result, and save the picture small."""
    place = HERE / name
    picture(result, place, title)
    with Image.open(place) as image:
        image.load()
    save_small(image, place, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", help="the result of a Siemens star")
    given = parser.parse_args()
    if given.file is None:
        make(specimen(0).dataset, "demo.png", "simulated scan")
    else:
        result = Result.load(given.file)
        title = (
            f"measured scan, hard X-rays: rPIE, {len(result.probe)} modes, {result.passes} passes"
        )
        small(result, "siemens_star.png", f"{title}, R = {result.final_error:.4f}")


if __name__ == "__main__":
    main()
