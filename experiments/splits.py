"""By how much halves of measured scans disagree with their error bars, over several splits.

A scan is reconstructed once. Then its data are split in two in several ways that have nothing to
do with each other, and each half gets an optimum and bars as the whole has them
(`ptychon.uncertainty.discrepancy`). Everything is kept in a folder, so that what is asked of the
halves can be tried again at once: T of each octave of periods for each split with its scatter by
chance, the factors that the first half of the splits gives, and what bars are on the others before
and after they are widened by these.

    python experiments/splits.py star near w electrons --frames 80 --splits 4 --folder splits

Sets, in the folder that PTYCHON_TEST_DATA names: `star` (hard X-rays, far field), `near` (hard
X-rays, near field), `w` (tungsten, hard X-rays, 20 frames), `electrons` (300 kV, defocused probe).
Simulated ones, by `second_simulator`, have a model that is wrong in a known way, and a truth:
`sim-NAME-KIND`, where NAME is right, modes (a second mode of 15 % is left out), positions (wrong
by 0.3 px) or blur (of the detector, 0.5 px), and KIND an object of that simulator.
"""

from __future__ import annotations

import argparse
import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from second_simulator import Wave, made_object, made_probe, scanned

from ptychon import Dataset, Problem, load, reconstruct
from ptychon.inspect.orientation import Orientation
from ptychon.metrics.alignment import phase_align
from ptychon.metrics.residual import coverage
from ptychon.types import ComplexArray
from ptychon.uncertainty.discrepancy import Halves, both_halves, learned
from ptychon.uncertainty.half_data_record import HalfDataTest, together
from ptychon.uncertainty.methods import Laplace
from ptychon.uncertainty.spectrum import octaves, rings
from ptychon.uncertainty.widening import widened

DATA = Path(os.environ.get("PTYCHON_TEST_DATA", "."))

Made = tuple[Problem, ComplexArray | None, dict[str, Any]]


def central(positions: Any, frames: int) -> Any:
    """The frames nearest to the middle, in the order of the scan."""
    off = np.asarray(positions, float) - np.median(positions, axis=0)
    return np.sort(np.argsort(np.abs(off).max(axis=1), kind="stable")[:frames])


def star(frames: int) -> Made:
    """516 frames of 128 x 128; three modes, positions and doses refined by `ml`."""
    with np.load(DATA / "siemens_star_xray" / "siemens_star.npz") as file:
        counts, places, probe = file["patterns"], file["positions_px"], file["probe"]
    some = central(places, frames)
    problem = Problem.from_dataset(
        Dataset(patterns=counts[some], positions=places[some], counting=True)
    )
    how = {"modes": 3, "passes": 40, "ml": 12, "update": ("object", "positions", "dose")}
    return problem, probe.astype(np.complex64), how


def near(frames: int) -> Made:
    """200 frames of 100 x 100 in the near field; two modes, positions and doses by `ml`."""
    (path,) = (DATA / "siemens_star_nearfield").glob("*.cxi")
    data = load(path, geometry="near", focus_distance="3.65mm")
    problem = Problem.from_dataset(data)
    some = central(problem.corners, frames)
    how = {"modes": 2, "passes": 60, "ml": 12, "update": ("object", "probe", "positions", "dose")}
    return problem.select(some), None, how


def tungsten(frames: int) -> Made:
    """20 frames, the central 256 x 256 of the detector; two modes, held in the halves."""
    with np.load(DATA / "aps_w_20frames" / "test235_truncated.npz") as file:
        counts, places = file["reciprocal"][:, 128:384, 128:384], file["position"]
    probe = np.load(DATA / "aps_w_20frames" / "probe_2x256x256.npy").astype(np.complex64)
    data = Dataset(
        patterns=np.maximum(counts, 0),
        positions=places,
        mask=(counts >= 0) & (counts <= 20000),
        pixel_size=8e-9,
        counting=True,
    )
    problem = Problem.from_dataset(Orientation.parse("flip-columns").apply(data))
    return problem, probe, {"modes": 2, "passes": 120, "ml": 0, "update": ("object",)}


def electrons(frames: int) -> Made:
    """784 frames of 96 x 96, a defocused probe."""
    import h5py

    with h5py.File(DATA / "electrons_28x28" / "electrons_28x28x96x96.h5") as file:
        counts = file["dp"][()].reshape(-1, 96, 96)
    turn, step, pixel = np.deg2rad(-126), 31.25, 6.2
    s, f = (x.ravel() * step / pixel for x in np.mgrid[:28, :28])
    places = np.stack(
        [s * np.cos(turn) - f * np.sin(turn), s * np.sin(turn) + f * np.cos(turn)], axis=-1
    )
    some = central(np.stack([s, f], -1), frames)
    data = Dataset(patterns=counts[some], positions=places[some], counting=True)
    problem = Problem.from_dataset(Orientation.parse("transpose").apply(data))
    k = np.hypot(*np.meshgrid(*2 * [np.fft.fftshift(np.fft.fftfreq(96, pixel))], indexing="ij"))
    wave = 0.0196875
    pupil = (k * wave < 1.03e-3) * np.exp(-1j * np.pi * k**2 * wave * -135000)
    probe = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(pupil)))
    how = {"modes": 1, "passes": 20, "ml": 0, "update": ("object", "probe")}
    how["options"] = {"object_step": 0.1, "probe_step": 0.1}
    return problem, probe.astype(np.complex64), how


def spread(counts: Any, width: float, rng: np.random.Generator) -> Any:
    """Counts of a detector that spreads them: each goes to one of 9 pixels by lot."""
    weight = np.exp(-(np.arange(-1, 2) ** 2) / (2 * width**2))
    shares = np.outer(weight, weight).ravel() / weight.sum() ** 2
    left, free, out = counts, 1.0, np.zeros_like(counts)
    for share, (y, x) in zip(shares, np.ndindex(3, 3), strict=True):
        moved = rng.binomial(left, min(share / free, 1.0))
        out += np.roll(moved, (y - 1, x - 1), (1, 2))
        left, free = left - moved, free - share
    return out + left


def simulated(name: str, frames: int, seed: int) -> tuple[Problem, ComplexArray, Wave]:
    """A scan whose model is wrong in a known way, the probe that is taken for known, the truth."""
    _, wrong, kind = name.split("-", 2)
    side, size, step, dose = int(frames**0.5), 48, 6.0, 1e5
    field = size + round(step * (side - 1)) + 6
    truth, probe = made_object(kind, field, seed), made_probe(size)
    rng = np.random.default_rng([79, seed])
    if wrong == "modes":
        tilt = probe * np.linspace(-1, 1, size)[:, None]
        more, corners, _ = scanned(truth, tilt, side, step, 0.15 * dose, seed)
        counts, again, probe = scanned(truth, probe, side, step, 0.85 * dose, seed)
        assert np.array_equal(corners, again)
        counts, probe = counts + more, probe / 0.85**0.5
    else:
        counts, corners, probe = scanned(truth, probe, side, step, dose, seed)
    places = corners + size // 2 - field // 2.0
    if wrong == "positions":
        places += rng.normal(0, 0.3, places.shape)
    if wrong == "blur":
        counts = spread(counts, 0.5, rng)
    data = Dataset(patterns=counts, positions=places, object_shape=truth.shape, counting=True)
    return Problem.from_dataset(data), probe.astype(np.complex64), truth


MEASURED: dict[str, Callable[[int], Made]] = {
    "star": star,
    "near": near,
    "w": tungsten,
    "electrons": electrons,
}


def kept(place: Path, make: Callable[[], Any]) -> Any:
    """What a file holds, or what is made and then kept in it."""
    if not place.exists():
        clock = time.process_time()
        made = make(), time.process_time() - clock
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".part").write_bytes(pickle.dumps(made))
        place.with_suffix(".part").rename(place)
    return pickle.loads(place.read_bytes())


def whole(problem: Problem, probe: ComplexArray | None, how: dict[str, Any]) -> Any:
    """The reconstruction of all frames by the recipe of its set."""
    common: dict[str, Any] = {"backend": "numpy", "judge": False, "say": None}
    found = reconstruct(
        *(problem, how.get("engine", "rpie")),
        passes=how["passes"],
        probe=probe,
        modes=how["modes"],
        **how.get("options", {}),
        **common,
    )
    if how["ml"]:
        update = {"positions": True, "dose": True}
        found = reconstruct(problem, "ml", passes=how["ml"], start=found, update=update, **common)
    return found


@dataclass(frozen=True)
class Prepared:
    """A scan on the grid of its reconstruction, how its halves get bars, the folder of all."""

    problem: Problem
    found: Any
    method: Laplace
    folder: Path
    truth: Wave | None = None


def prepared(name: str, given: argparse.Namespace) -> Prepared:
    """Of a set."""
    truth = None
    if name in MEASURED:
        problem, probe, how = MEASURED[name](given.frames)
    else:
        problem, probe, truth = simulated(name, given.frames, given.seed)
        how = {"modes": 1, "passes": 60, "ml": 0, "engine": "pie", "update": ("object",)}
        name = f"{name}-{given.seed}"
    folder = given.folder / f"{name}-{len(problem)}"
    found, seconds = kept(folder / "whole.pickle", lambda: whole(problem, probe, how))
    print(f"{name}: {len(problem)} frames, R {found.final_error:.4f}, {seconds:.0f} s", flush=True)
    if found.positions_given is not None or found.log_scale is not None:
        problem = problem.with_positions(found.positions, found.log_scale, corners=found.corners)
    method = Laplace(update=how["update"], draws=given.draws, propose=False)
    return Prepared(problem, found, method, folder, truth)


def against_truth(scan: Prepared, factors: Sequence[float]) -> list[str]:
    """The bars of the whole, as they are and widened, beside its error."""

    def bars() -> Any:
        return scan.method.to_optimum().run(
            *(scan.problem, scan.found, "numpy"), lambda *_: None, Path("whole")
        )[1]

    posterior, _ = kept(scan.folder / "bars.pickle", bars)
    assert scan.truth is not None
    lines = []
    for title, each in (("as they are", posterior), ("widened", widened(posterior, factors))):
        cover = coverage(each.object, scan.truth, each.object_std, each.region)
        error = phase_align(each.object, scan.truth, each.region) - scan.truth
        expected = np.mean([rings(d, each.region) for d in each.draws], axis=0)
        quotient = octaves(rings(error, each.region), expected, each.region)
        shares = " ".join(f"{100 * c:.0f}" for c in cover.covered)
        lines.append(
            f"  truth, bars {title}: u2 {cover.mean_square:.2f}, inside {shares}, "
            f"by octaves {row(quotient)}"
        )
    return lines


def row(values: Any) -> str:
    return " ".join(f"{x:8.3g}" for x in values)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("sets", nargs="+", help=", ".join(MEASURED))
    options.add_argument("--frames", type=int, default=80, help="central ones (%(default)s)")
    options.add_argument("--splits", type=int, default=4)
    options.add_argument("--kind", default="positions")
    options.add_argument("--draws", type=int, default=4, help="of each half (%(default)s)")
    options.add_argument("--seed", type=int, default=0, help="of what is simulated")
    options.add_argument("--folder", type=Path, default=Path("splits"))
    given = options.parse_args(arguments)
    for name in given.sets:
        scan = prepared(name, given)
        both = [split_in(scan, given.kind, number) for number in range(given.splits)]
        half = given.splits // 2
        if half:
            tried_on(scan, both[:half], both[half : 2 * half])
        if scan.truth is not None:
            print("\n".join(against_truth(scan, found_by(scan, both))), flush=True)


def split_in(scan: Prepared, kind: str, number: int) -> Halves:
    """Halves of a split, and a line on them."""

    def halves() -> Halves:
        how = {"number": number, "backend": "numpy"}
        return both_halves(scan.problem, scan.found, scan.method, kind, **how)

    both, seconds = kept(scan.folder / f"{kind}-{number}.pickle", halves)
    test = tested(scan, [both])
    T, chance = row(test.by_period), row(test.chance)
    print(f"  {kind} {number}: T {T} by chance {chance}, {seconds:.0f} s", flush=True)
    return both


def tested(scan: Prepared, splits: Sequence[Halves]) -> HalfDataTest:
    """What some splits say together."""
    free, near_field = scan.method.free(scan.found), scan.problem.near_field
    return together([each.compared(free, near_field) for each in splits])


def found_by(scan: Prepared, splits: Sequence[Halves]) -> tuple[float, ...]:
    """Factors by which some splits widen bars."""
    return learned(splits, tested(scan, splits), scan.problem.near_field)


def tried_on(scan: Prepared, some: Sequence[Halves], others: Sequence[Halves]) -> None:
    """Lines on bars that are widened by some splits and tried on others."""
    factors = found_by(scan, some)
    before = tested(scan, others)
    after = tested(scan, [each.wider(factors) for each in others])
    after = replace(after, widened=factors)
    scatter = [T * after.scatter(i) for i, T in enumerate(after.by_period)]
    print(f"  factors  {row(factors)}")
    for title, test in (("before", before), ("after", after)):
        shares = " ".join(f"{100 * c:.0f}" for c in test.covered)
        print(f"  {title:<8} {row(test.by_period)}, u2 {test.mean_square:.2f}, inside {shares}")
    print(f"  +-       {row(scatter)}, misfit {max(after.chi2):.3g}, step left {after.remains:.2g}")
    print(f"  {'hold' if after.bars_hold else 'do not hold'}", flush=True)


if __name__ == "__main__":
    main()
