"""Are the error bars of measured data true? Two halves of a scan, by positions and by counts, with
one probe mode or more.

Each half is reconstructed from the start by rPIE, then by Ptycho-EP (one mode) and the joint
posterior, the probe free. The halves are laid on each other and their difference compared with
their bars (`ptychon.uncertainty.half_data`). Further modes start as the first one times y and x,
with a tenth of its power.

    python experiments/halves.py DATA --modes 1 3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import common
import numpy as np
from common import Row

from ptychon import Problem, PtychonError, load
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.types import ComplexArray
from ptychon.uncertainty.half_data import half_data_test
from ptychon.uncertainty.half_data_record import PROBABILITIES
from ptychon.uncertainty.spectrum import PERIODS
from ptychon.uncertainty.splitting import KINDS

#: Amplitude of a further mode relative to the first, and the most there may be.
FURTHER, MOST = 0.3, 3


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "data", nargs="?", help="a scan with a first probe in it; without it one is simulated"
    )
    options.add_argument("--modes", type=int, nargs="+", default=[1, 3], help="probe modes, 1 to 3")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument(
        "--passes", dest="passes", type=int, default=40, help="passes of rPIE (default %(default)s)"
    )
    options.add_argument("--backend", default="auto", help="numpy, cupy or auto (default)")
    options.add_argument(
        "-o", "--output", default="experiment_halves", help="folder (default ./%(default)s)"
    )
    given = options.parse_args(arguments, argparse.Namespace(images=None, size=112))
    given.output = common.Path(given.output)
    if not all(1 <= n <= MOST for n in given.modes):
        raise PtychonError(f"--modes is {given.modes}; each must be 1, 2 or 3")
    given.output.mkdir(parents=True, exist_ok=True)
    problem, probe = measured(given.data) if given.data else simulated(given.size)
    table = measure(problem, probe, given)
    common.finish(given, draw(table), ("table.csv", table))


def measured(path: str) -> tuple[Problem, ComplexArray]:
    """A scan and its first probe, (P, Q)."""
    data = load(path)
    if data.probe is None:
        raise PtychonError(
            f"{path} has no first probe; put one into it, or both halves may end in different "
            "optima"
        )
    return Problem.from_dataset(data), np.asarray(data.probe).reshape(-1, *data.frame_shape)[0]


def simulated(size: int) -> tuple[Problem, ComplexArray]:
    """A scan with one mode and its probe."""
    beam = probes.defocused_aperture((32, 32), 11.5, 19.2)
    truth = phantoms.complex_object(
        phantoms.texture((size, size), 1), phantoms.texture((size, size), 2)
    )
    positions = scan.fit(scan.fermat_spiral(2000, 4.0, whole=True), truth.shape, beam.shape)
    made = simulate(truth, beam, positions, noise="poisson", mean_counts=100 * beam.size)
    return Problem.from_dataset(made.dataset), made.probe[0]


def with_modes(probe: ComplexArray, modes: int) -> ComplexArray:
    """(modes, P, Q): the probe, and itself times y and x."""
    axes = [(x - x.mean()) / (x.max() / 8) for x in np.indices(probe.shape)]
    return np.stack([probe, *(FURTHER * probe * x for x in axes[: modes - 1])]).astype(np.complex64)


def measure(problem: Problem, probe: ComplexArray, given: argparse.Namespace) -> list[Row]:
    """A row for each number of modes and kind of halves."""
    table: list[Row] = []
    for modes in given.modes:
        for kind in given.kinds:
            shared: dict[str, Any] = {"passes": given.passes, "backend": given.backend}
            found, _ = half_data_test(problem, kind, probe=with_modes(probe, modes), **shared)
            row: Row = {"halves": kind, "modes": modes, "mean square": round(found.mean_square, 2)}
            row |= {
                f"{p:.3g}": round(c, 3) for p, c in zip(PROBABILITIES, found.covered, strict=True)
            }
            row |= {
                f"{p:.3g} after": round(c, 3)
                for p, c in zip(PROBABILITIES, found.covered_after, strict=True)
            }
            row |= {
                f"above {p:g} px": round(T, 2)
                for p, T in zip(PERIODS[1:], found.by_period, strict=True)
            }
            table.append(
                row | {"misfit": round(max(found.chi2), 2), "dB": round(found.difference_db, 1)}
            )
            common.say(f"{modes} modes: {found.sentence()}")
    return table


def draw(table: Sequence[Row]) -> Any:
    """Coverage after the temperature, and the temperature of each octave."""
    picture = common.figure(9, 4)
    left, right = picture.subplots(1, 2)
    left.plot([0.45, 1], [0.45, 1], color="k", linewidth=3, alpha=0.25)
    for row, colour in zip(table, common.COLOURS * 2, strict=False):
        label = f"{row['halves']}, {row['modes']} modes"
        left.plot(
            PROBABILITIES, [row[f"{p:.3g} after"] for p in PROBABILITIES], color=colour, marker="o"
        )
        right.plot(
            PERIODS[1:],
            [row[f"above {p:g} px"] for p in PERIODS[1:]],
            color=colour,
            marker="o",
            label=label,
        )
    left.set(xlabel="stated probability", ylabel="share of pixels inside, after the temperature")
    right.axhline(1, color="k", linewidth=3, alpha=0.25)
    right.set(xscale="log", yscale="log", xlabel="periods above, px", ylabel="mean square")
    right.legend(frameon=False, fontsize=8)
    return picture


if __name__ == "__main__":
    common.command(main)
