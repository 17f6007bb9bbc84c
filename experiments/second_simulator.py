r"""Data from a second simulator, which shares no line with the package's: plain NumPy in double
precision, the transform to the detector a product with a matrix of exponentials, objects and beams
of other kinds than `calibration.py` has. For the coverage of error bars on what they were not tuned
on.

    I_j(k) = dose |sum_r exp(-2 pi i k r/n) P(r) O(r + x_j)|^2,     counts ~ Poisson(I_j)

Objects: amplitude and phase each from a real field of unit variance, O = (0.7 + 0.12 a) exp(0.5 i
b), a cut off at 2.5; fields:

    power-S    Gaussian, amplitudes of their Fourier transform falling as k^-S
    smooth-W   white noise blurred by a Gaussian of W px
    pieces     constant on the cells of a Voronoi tessellation of 25 seeds in 100 x 100 px
    sparse     discs of 2 to 5 px on a third of the area, else 0

    python experiments/second_simulator.py --runs 4 --processes 2
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: Of the light in a second mode.
SHARE = 0.15

Field = npt.NDArray[np.float64]
Wave = npt.NDArray[np.complex128]


# ---------------------------------------------------------------- the simulator: NumPy alone


def power_law(rng: np.random.Generator, size: int, slope: float) -> Field:
    """A Gaussian field whose amplitudes fall as k^-slope."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    k[0, 0] = np.inf
    return unit(np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * k**-slope).real)


def smooth(rng: np.random.Generator, size: int, width: float) -> Field:
    """White noise blurred by a Gaussian."""
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))
    transfer = np.exp(-2 * (np.pi * width) ** 2 * (y * y + x * x))
    return unit(np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * transfer).real)


def pieces(rng: np.random.Generator, size: int) -> Field:
    """Constant on the cells of a Voronoi tessellation."""
    seeds = rng.uniform(0, size, (max(8, round(25 * size**2 / 1e4)), 2))
    y, x = np.mgrid[:size, :size]
    distance = (y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2
    return unit(rng.standard_normal(len(seeds))[distance.argmin(axis=-1)])


def discs(rng: np.random.Generator, size: int) -> Field:
    """Discs on an empty ground."""
    y, x = np.mgrid[:size, :size]
    out = np.zeros((size, size))
    for _ in range(round(0.4 * size**2 / (np.pi * 3.5**2))):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(2, 5)
        out[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform(0.5, 1)
    return out / out.std()


def unit(field: Field) -> Field:
    return np.asarray((field - field.mean()) / field.std())


def made_object(kind: str, size: int, seed: int) -> Wave:
    """Of a kind of the list above, "power-1.5" say."""
    rng = np.random.default_rng([77, seed])
    name, _, number = kind.partition("-")
    make: dict[str, Callable[[], Field]] = {
        "power": lambda: power_law(rng, size, float(number)),
        "smooth": lambda: smooth(rng, size, float(number)),
        "pieces": lambda: pieces(rng, size),
        "sparse": lambda: discs(rng, size),
    }
    a, b = make[name](), make[name]()
    return np.asarray((0.7 + 0.12 * np.clip(a, -2.5, 2.5)) * np.exp(0.5j * b))


def made_probe(frame: int, radius: float = 0.36) -> Wave:
    """A disc with a soft rim, out of focus, with coma and astigmatism; its radius in windows."""
    y, x = (np.mgrid[:frame, :frame] - frame // 2) / (radius * frame)
    r = np.hypot(y, x)
    soft = 1 / (1 + np.exp((r - 1) / 0.02))
    return np.asarray(soft * np.exp(1j * (6 * r * r + 0.9 * y * (r * r - 0.7) + 0.7 * x * y)))


def scanned(
    truth: Wave,
    probe: Wave,
    side: int,
    step: float,
    dose: float,
    seed: int,
    *,
    jitter: float = 1.5,
    fault: str = "",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Wave]:
    """Counts (N, n, n) with zero frequency in the middle, upper left corners of the frames
    (N, 2), and the probe scaled to `dose` counts a frame.

    A fault is what the data do not tell: "positions" off by 0.3 px, "dose" by 5 % of the amplitude,
    a "background" of a tenth of the light, a second of the "modes" with 15 % of it.
    """
    rng, n = np.random.default_rng([78, seed]), len(probe)
    free = len(truth) - n
    grid = (np.arange(side) - (side - 1) / 2) * step + free / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    moved = rng.uniform(-jitter, jitter, (side**2, 2))
    corners = np.rint(np.stack([y, x], -1).reshape(-1, 2) + moved)
    corners = np.clip(corners, 0, free).astype(int)
    k = np.arange(n) - n // 2
    kernel = np.exp(-2j * np.pi * np.outer(k, k) / n) / n**0.5
    beams = [(1.0, probe)]
    if fault == "modes":
        beams = [(1 - SHARE, probe), (SHARE, second_mode(probe))]
    off = 0.3 * rng.standard_normal((side**2, 2)) * (fault == "positions")
    light = np.zeros((side**2, n, n))
    for weight, beam in beams:
        exits = np.array(
            [
                moved_by(beam, d) * truth[i : i + n, j : j + n]
                for (i, j), d in zip(corners, off, strict=True)
            ]
        )
        light += weight * np.abs(kernel @ exits @ kernel.T) ** 2
    scale = dose / light.sum(axis=(1, 2)).mean()
    light *= scale
    if fault == "dose":
        light *= np.exp(0.1 * rng.standard_normal(side**2))[:, None, None]
    if fault == "background":
        light += 0.1 * dose / n**2
    main = beams[0][0]
    return rng.poisson(light), corners, np.asarray(probe * (main * scale) ** 0.5)


def second_mode(beam: Wave) -> Wave:
    """Another mode as bright as a beam, whose amplitude rises from the middle."""
    k = np.arange(len(beam)) - len(beam) // 2
    mode = beam * k[:, None]
    return np.asarray(mode * (np.linalg.norm(beam) / np.linalg.norm(mode)))


def moved_by(beam: Wave, by: Field) -> Wave:
    """A beam moved by a fraction of a pixel."""
    if not by.any():
        return beam
    k = np.fft.fftfreq(len(beam))
    phase = np.exp(-2j * np.pi * (k[:, None] * by[0] + k * by[1]))
    return np.asarray(np.fft.ifft2(np.fft.fft2(beam) * phase))


# ---------------------------------------------------------------- error bars on its data


@dataclass(frozen=True)
class Cell:
    """What is simulated and how it is begun: `passes` of `engine`, then of method `method`."""

    kind: str
    known: bool = True
    frame: int = 48
    side: int = 8
    step: float = 6.0
    dose: float = 1e5
    engine: str = "rpie"
    passes: int = 300
    method: str = "joint"

    @property
    def title(self) -> str:
        """All of it, in words."""
        whose = "known" if self.known else f"learned, {self.passes} passes of {self.engine}"
        return (
            f"{self.kind}, {self.side**2} frames of {self.frame} x {self.frame}, "
            f"{self.dose:.0e} counts, probe {whose}, {self.method}"
        ).replace("e+0", "e")


def cells() -> list[Cell]:
    """Small ones of every kind and start, then larger ones."""
    kinds = ["power-1", "power-1.5", "power-2.5", "smooth-3.5", "pieces", "sparse"]
    small: dict[str, Any] = {"frame": 32, "side": 7, "step": 4.5, "dose": 4e4}
    found = [Cell(kind, known, **small) for kind in kinds for known in (True, False)]
    for engine, passes in (("dm", 200), ("ep", 200)):
        found += [
            Cell(kind, False, engine=engine, passes=passes, **small)
            for kind in ("power-1.5", "smooth-3.5", "pieces")
        ]
    found += [Cell(kind, False) for kind in ("power-1.5", "power-2.5", "smooth-3.5")]
    large: dict[str, Any] = {"frame": 64, "side": 13, "step": 7.0, "dose": 2e5}
    for kind in ("power-1.5", "smooth-3.5"):
        found += [Cell(kind, known, **large) for known in (True, False)]
        found += [Cell(kind, False, method="laplace", **large)]
    return [*found, Cell("power-1.5", False, engine="ep", passes=400, **large)]


def dataset_of(
    cell: Cell, seed: int, beam: Wave | None = None, jitter: float = 1.5, fault: str = ""
) -> tuple[Any, Wave, Wave]:
    """Its data, and object and probe that they are of; the beam is that of `made_probe` if no other
    is given. A fault is one of `scanned`.
    """
    from ptychon import Dataset

    size = round(cell.frame + (cell.side - 1) * cell.step) + 6
    truth = made_object(cell.kind, size, seed)
    beam = made_probe(cell.frame) if beam is None else beam
    counts, corners, probe = scanned(
        truth, beam, cell.side, cell.step, cell.dose, seed, jitter=jitter, fault=fault
    )
    # positions are those of the middle pixel of a frame from the middle pixel of the object
    positions = corners + cell.frame // 2 - size // 2
    data = Dataset(
        patterns=counts.astype(np.uint32),
        positions=positions.astype(float),
        counting=True,
        object_shape=(size, size),
    )
    return data, truth, probe


def begun(cell: Cell, data: Any, probe: Wave, passes: int | None = None) -> Any:
    """The result that error bars are made for."""
    from ptychon import reconstruct

    passes = cell.passes if passes is None else passes
    if cell.known:
        light = np.asarray(probe[None], np.complex64)
        return reconstruct(
            data, "ep", passes=min(passes, 80), probe=light, probe_updates=0, backend="numpy"
        )
    return reconstruct(data, cell.engine, passes=passes, backend="numpy")


def trial(task: tuple[Cell, int]) -> dict[str, Any]:
    """Error bars of one realisation against its truth."""
    from ptychon import Problem, PtychonWarning
    from ptychon.uncertainty import laplace
    from ptychon.uncertainty.joint import joint, lit_region

    cell, seed = task
    warnings.simplefilter("ignore", PtychonWarning)
    data, truth, light = dataset_of(cell, seed)
    problem = Problem.from_dataset(data)
    row: dict[str, Any] = {"cell": cell.title, "seed": seed}
    clock = time.process_time()
    start = begun(cell, data, light)
    row["begun_s"] = time.process_time() - clock
    update = ("object",) if cell.known else ("object", "probe")
    clock = time.process_time()
    if cell.method == "joint":
        found, bars, twin = joint(problem, start, update=update, backend="numpy", seed=seed)
        assert twin is not None
        row |= {f"twin_{k}": v for k, v in asdict(twin).items()}
        row |= {"holds": twin.holds, "says": twin.sentence()}
    else:
        found = bars = laplace(
            *(problem, start.object, start.probe),
            update=update,
            prior="learned",
            backend="numpy",
            keep=True,
        ).with_errors()
        row["holds"] = None
    row["bars_s"] = time.process_time() - clock
    row |= score(lit_region(problem, start), found, bars, truth, free=not cell.known)
    return row


def score(lit: Any, found: Any, bars: Any, truth: Wave, *, free: bool) -> dict[str, Any]:
    """An object and its bars against the truth, on pixels that are `lit`: after alignment of the
    phase, or of factor, phase ramp and translation too where these are `free`.
    """
    from ptychon.metrics.alignment import align, phase_align
    from ptychon.metrics.residual import coverage
    from ptychon.uncertainty.spectrum import octaves, rings

    exact = truth.astype(np.complex64)
    estimate, std = np.asarray(found.object, np.complex64), found.object_std
    scale = 1.0
    if not free:
        estimate = phase_align(estimate, exact, lit)
    else:
        laid = align(estimate, exact, region=lit, max_shift=8, subpixel=True)
        estimate, std = laid.estimate, std / abs(laid.scale)
        scale = abs(laid.scale)
    inside = lit & (np.abs(estimate) > 0)
    cover = coverage(estimate, exact, std, inside)
    error = (estimate - exact) * inside
    row = {"covered": [round(float(c), 4) for c in cover.covered], "u2": cover.mean_square}
    bright = inside & (np.abs(estimate) > 3 * std)
    parts = {
        "amplitude": (np.abs(estimate) - np.abs(exact)) / (bars.amplitude_std / scale),
        "phase": np.angle(estimate * exact.conj()) / bars.phase_std,
    }
    for name, off in parts.items():
        share = np.mean(np.abs(off[bright]) < 1) if bright.any() else np.nan
        row[f"{name}_68"] = round(float(share), 4)
    row["dB"] = 10 * float(np.log10((np.abs(exact[inside]) ** 2).sum() / (abs(error) ** 2).sum()))
    if found.draws is not None:
        expected = np.mean([rings(d / scale, lit) for d in found.draws], axis=0)
        row["octaves"] = [round(q, 2) for q in octaves(rings(error, lit), expected, lit)]
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over realisations of each cell, in Markdown; "said" counts those that hold."""
    head = "| cell | runs | 50 % | 68.3 % | 90 % | 95 % | 99 % | mean u2 | from, to "
    head += "| ampl. 68.3 % | phase 68.3 % | dB | twin T | holds |"
    lines = [head, "|" + "---|" * 14]
    for title in dict.fromkeys(row["cell"] for row in rows):
        own = [row for row in rows if row["cell"] == title]

        def mean(name: str, own: Sequence[dict[str, Any]] = own) -> float:
            return float(np.mean([row.get(name, np.nan) for row in own]))

        covered = 100 * np.mean([row["covered"] for row in own], axis=0)
        u2 = [row["u2"] for row in own]
        holds = sum(bool(row["holds"]) for row in own)
        said = "-" if own[0]["holds"] is None else f"{holds}/{len(own)}"
        numbers = [f"{c:.1f}" for c in covered]
        numbers += [f"{np.mean(u2):.2f}", f"{min(u2):.2f}, {max(u2):.2f}"]
        numbers += [f"{100 * mean(name):.1f}" for name in ("amplitude_68", "phase_68")]
        numbers += [f"{mean('dB'):.1f}", f"{mean('twin_temperature'):.2f}", said]
        lines.append(f"| {title} | {len(own)} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    import multiprocessing

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=4, help="realisations (default %(default)s)")
    options.add_argument("--cells", default="", help="only those whose title contains this")
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("-o", "--output", type=Path, default=Path("second_simulator.jsonl"))
    options.add_argument("--table", action="store_true", help="print the table of what there is")
    given = options.parse_args(arguments)
    if given.table:
        print(table([json.loads(line) for line in given.output.read_text().splitlines()]))
        return
    chosen = [cell for cell in cells() if given.cells in cell.title]
    tasks = [(cell, seed) for seed in range(given.runs) for cell in chosen]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for row in pool.imap(trial, tasks):
            with given.output.open("a", encoding="utf-8") as file:
                print(json.dumps(row, default=float), file=file)
            print(json.dumps(row, default=float), flush=True)


if __name__ == "__main__":
    main()
