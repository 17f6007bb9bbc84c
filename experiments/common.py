"""What the experiments share: objects, scans, runs that may fail, statistics over trials, tables
and figures.

The published experiments (Ueda, Katakami & Okada, arXiv:2504.05668) use photographs and two probes
that their authors distribute with their code; `--images FOLDER` names a folder that holds
cameraman.png, eagle.png, lily.png, moon.png, probe.png and probe_init.png. Without it phantoms of
the same kind stand in.

    object = A exp(i pi/2 B),   A and B pictures divided by their own maximum
    dense  A = cameraman, B = eagle;   sparse  A = lily, B = moon (most of it nearly dark)
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychon import Dataset, PtychonError, PtychonWarning, Recipe, Result, reconstruct
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import ComplexArray, FloatArray

#: Window of the known probe (px), and radius of its aperture as a fraction of it.
FRAME, RADIUS = 64, 0.47
#: Variance of the amplitude noise that gives the photographs 30 dB; phantoms get 30 dB by
#: definition.
VARIANCE = {"dense": 11.9e-5, "sparse": 3.4e-5}
PICTURES = {"dense": ("cameraman", "eagle"), "sparse": ("lily", "moon")}
#: Okabe & Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Row = dict[str, Any]
Region = tuple[slice, slice]


def parser(text: str, name: str, *, trials: int, passes: int) -> argparse.ArgumentParser:
    """Options that all experiments have."""
    options = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--trials",
        type=_positive,
        default=trials,
        help="noise realisations a case (default %(default)s)",
    )
    options.add_argument(
        "--passes",
        dest="passes",
        type=_positive,
        default=passes,
        help="passes over the data (default %(default)s)",
    )
    options.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="the published photographs; without it, phantoms",
    )
    options.add_argument(
        "--size", type=_positive, default=512, help="side of the phantoms, px (default %(default)s)"
    )
    options.add_argument("--backend", default="auto", help="numpy, cupy or auto (default)")
    options.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(f"experiment_{name}"),
        help="folder (default ./%(default)s)",
    )
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def start(given: argparse.Namespace) -> None:
    """Make the folder of the results and say what the objects are."""
    if given.images is not None and not given.images.is_dir():
        raise PtychonError(
            f"{given.images} is not a folder; --images names the folder that holds the "
            "published photographs"
        )
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PtychonError(f"cannot write into {given.output}: {error.strerror}") from None
    if given.images is None:
        print(
            f"No --images: phantoms of {given.size}x{given.size} px stand in for the "
            "photographs; numbers will differ."
        )


def say(text: str) -> None:
    """One line of progress, on stderr, so that the table alone is on stdout."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- objects, probes, scans


def photograph(path: Path) -> FloatArray:
    """A picture divided by its maximum, (H, W) float32; colours are averaged."""
    from matplotlib.image import imread

    try:
        picture = np.asarray(imread(path), np.float32)
    except (OSError, SyntaxError) as error:
        raise PtychonError(f"cannot read the picture {path}: {error}") from None
    if picture.ndim == 3:
        picture = picture[..., :3].mean(axis=2)
    return np.asarray(picture / picture.max(), np.float32)


def sample(kind: str, images: Path | None, size: int) -> ComplexArray:
    """The "dense" or the "sparse" object, (H, W) complex64."""
    if images is not None:
        amplitude, phase = (photograph(images / f"{name}.png") for name in PICTURES[kind])
        low = 0.0
    else:
        make, low = (phantoms.texture, 0.1) if kind == "dense" else (phantoms.blobs, 0.0)
        amplitude, phase = make((size, size), 1), phantoms.texture((size, size), 2)
    return phantoms.complex_object(
        amplitude, phase, amplitude_range=(low, 1.0), phase_range=(0.0, np.pi / 2)
    )


def aperture() -> ComplexArray:
    """The known probe: a disc of radius 0.47 in a window of 64 px."""
    return probes.circular_aperture((FRAME, FRAME), RADIUS * FRAME)


def spiral(shape: tuple[int, int], step: float) -> FloatArray:
    """Whole-pixel Fermat spiral, all positions whose window lies inside the object."""
    points = scan.fermat_spiral(int((max(shape) / step) ** 2) + 1, step, whole=True)
    return scan.fit(points, shape, (FRAME, FRAME))


def at_30_db(
    truth: ComplexArray, kind: str, positions: FloatArray, photographs: bool, seed: int
) -> Dataset:
    """A scan of the object with the known probe and amplitude noise at about 30 dB."""
    noise: dict[str, float] = {"variance": VARIANCE[kind]} if photographs else {"snr_db": 30.0}
    return simulate(truth, aperture(), positions, noise="gaussian", seed=seed, **noise).dataset  # type: ignore[arg-type]


def middle(shape: tuple[int, int], share: float) -> Region:
    """The central part of a picture, `share` of each side."""
    return tuple(slice(n // 2 - round(n * share / 2), n // 2 + round(n * share / 2)) for n in shape)  # type: ignore[return-value]


# ---------------------------------------------------------------- runs


@dataclass(frozen=True)
class Run:
    """A reconstruction that was tried: None where it failed, and how often it started again."""

    result: Result | None
    restarts: int


def run(data: Dataset, engine: str | Recipe, **options: Any) -> Run:
    """Reconstruct; a run that fails is an outcome, not the end of the experiment."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = reconstruct(data, engine, **options)
        except PtychonError as error:
            say(f"  {engine} failed: {error}")
            result = None
    return Run(
        result,
        sum(
            "starting again" in str(w.message)
            for w in caught
            if issubclass(w.category, PtychonWarning)
        ),
    )


# ---------------------------------------------------------------- tables and figures


def spread(values: Sequence[float], digits: int = 2) -> Row:
    """Median, quartiles and worst of values of which larger is better."""
    low, median, high = np.percentile(values, [25, 50, 75])
    numbers = {"median": median, "q25": low, "q75": high, "worst": min(values)}
    return {name: round(float(number), digits) for name, number in numbers.items()}


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A table as CSV; its columns are those of the first row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The same table on the screen."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    numeric = [isinstance(value, (int, float)) for value in rows[0].values()]
    for row in cells:
        aligned = (
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(aligned).rstrip())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figure(width: float, height: float) -> Any:
    """An empty figure that needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def band(
    axes: Any, x: Iterable[float], rows: Sequence[Row], colour: str, label: str, marker: str = "o"
) -> None:
    """Median as a line, quartiles as a band, the worst trial as open marks."""
    x = list(x)
    median, low, high, worst = (
        [row[name] for row in rows] for name in ("median", "q25", "q75", "worst")
    )
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, median, color=colour, marker=marker, markersize=4, linewidth=1.5, label=label)
    axes.plot(
        x, worst, color=colour, marker=marker, markersize=4, linestyle="none", fillstyle="none"
    )


def finish(
    given: argparse.Namespace, picture: Any, *tables: tuple[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Write the figure and the tables; the first table is also printed."""
    picture.savefig(given.output / "figure.png", dpi=150)
    for name, rows in tables:
        write(rows, given.output / name)
    show(tables[0][1])
    print(f"{', '.join(name for name, _ in tables)} and figure.png are in {given.output}")


def command(main: Any) -> None:
    """Run an experiment; what is wrong with the input is one sentence and exit code 2."""
    try:
        main()
    except PtychonError as error:
        say(f"Error: {error}")
        sys.exit(2)
