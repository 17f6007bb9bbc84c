"""What the test of error bars on two halves says, as numbers and as a table."""

from __future__ import annotations

from typing import Any

from ..metrics.residual import shares_in_words
from .half_data_record import POOR, HalfDataTest
from .spectrum import PERIODS


def half_data_numbers(said: HalfDataTest) -> dict[str, Any]:
    """All of it, with what follows from it; periods in object pixels, null where the region is too
    small to tell.
    """
    from dataclasses import asdict
    from math import isfinite

    numbers: dict[str, Any] = {
        name: [x if isinstance(x, str) or isfinite(x) else None for x in value]
        if isinstance(value, tuple)
        else value
        for name, value in asdict(said).items()
    }
    for name in ("mean_square_after", "remains"):
        if not isfinite(getattr(said, name)):
            numbers[name] = None
    more = {
        "temperature": said.temperature,
        "describes": said.describes,
        "bars_hold": said.bars_hold,
        "holds": said.holds,
        "sentence": said.sentence(),
    }
    return numbers | more | {"periods_above": list(PERIODS[1:])}


def half_data_rows(said: HalfDataTest) -> list[tuple[str, str]]:
    """The table for people."""
    from math import isfinite

    from .spectrum import PERIODS

    # then T judges the reconstructions of the halves as much as the model
    poor = (
        ": they did not converge, or the model is wrong; more passes (-n) tell"
        if max(said.chi2) > POOR
        else ""
    )
    periods = []
    for octave, T in enumerate(said.by_period):
        if isfinite(T):
            scatter = T * said.scatter(octave)
            more = f" +- {scatter:.2g}" if isfinite(scatter) else ""
            periods.append(f"above {PERIODS[octave + 1]:g} px {T:.2g}{more}")
    left = []
    if isfinite(said.remains):
        left = [("optimum", f"up to {said.remains:.2g} bars (rms) from each half at an octave")]
    return [
        ("verdict", said.sentence()),
        (
            "temperature",
            f"T = {said.temperature:.2f}: bars times {said.temperature**0.5:.2f} are right on "
            "average",
        ),
        ("inside", shares_in_words(said.covered)),
        ("after T", shares_in_words(said.covered_after)),
        ("T by period", ", ".join(periods)),
        (
            "misfit",
            ", ".join(f"{x:.2f}" for x in said.chi2)
            + f" of what the noise explains, in each half{poor}",
        ),
        *left,
    ]
