"""``ptychon uncertainty``: error bars for a result that has none, or others for one that has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import BACKEND, at_least, output_options, seed_option
from .results import KNOWN_PROBE, NOISE_VARIANCE, RESULT, Bar, place_for, problem_of, show_rows

if TYPE_CHECKING:
    from ..data.result import Result
    from ..uncertainty import Posterior

#: A misfit above 1 that is said: by this much, and by so many of its standard deviations.
ALLOWED, SIGMAS = 0.1, 5.0


@click.command(
    epilog="""\b
Examples
  ptychon uncertainty scan_rpie.h5
  ptychon uncertainty scan_rpie.h5 --samples 128 --refine
  ptychon uncertainty scan_rpie.h5 --method bootstrap --replicates 20
  ptychon uncertainty scan_rpie.h5 --method ep
  ptychon uncertainty scan_ep.h5 --method sample -n 50000

laplace: a Gaussian about the solution, by sampling; seconds. bootstrap: simulate from the result
and reconstruct again, many times. ep: Ptycho-EP and the joint posterior from there on, which give
an object of their own, with a learned prior and a check on simulated data. sample: chains that
wander through the posterior, for small scans, few measurements and few counts. What the bars take
for granted is printed and stored with them. The data are looked for where they were, or beside the
result.
"""
)
@RESULT
@click.option(
    "-m", "--method", default="laplace", show_default=True, help="laplace, bootstrap, ep or sample."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Result file with the bars; default RESULT_METHOD.h5, beside it.",
)
@click.option(
    "--samples",
    type=int,
    default=32,
    show_default=True,
    callback=at_least(2),
    help="Of the posterior (laplace).",
)
@click.option(
    "--refine",
    is_flag=True,
    help="Write the optimum of the posterior instead of the object as it was (laplace).",
)
@click.option(
    "--replicates",
    type=int,
    default=20,
    show_default=True,
    callback=at_least(2),
    help="Reconstructions (bootstrap).",
)
@click.option(
    "--from-beginning", is_flag=True, help="Start replicates where the result started (bootstrap)."
)
@click.option(
    "--draws",
    type=int,
    default=8,
    show_default=True,
    callback=at_least(1),
    help="Of the posterior, kept (ep, sample).",
)
@click.option(
    "--twin/--no-twin",
    default=True,
    help="Whether to check and correct the bars on simulated data (ep).",
)
@click.option(
    "-n",
    "--epochs",
    type=int,
    callback=at_least(1),
    help="Passes of a replicate (as in RESULT), of Ptycho-EP (60), of a chain (8000).",
)
@KNOWN_PROBE
@NOISE_VARIANCE
@click.option(
    "--background",
    type=float,
    help="Counts a pixel that do not come from the wave, if the scan does not say it.",
)
@BACKEND
@seed_option("Of the samples.")
@output_options("No progress, no summary.", "The numbers for machines.")
def uncertainty(
    result: str,
    method: str,
    output: str | None,
    refine: bool,
    known_probe: bool | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Give the object of RESULT error bars: a standard deviation for every pixel, of the complex
    value, amplitude and phase.

    Writes a new result file with them, and prints a short table.
    """
    from ..uncertainty.methods import make_method, with_bars

    backend = options.pop("backend")
    chosen = make_method(method, refine=refine, **options)
    if refine and method != "laplace":
        raise PtychonError(
            f"--refine belongs to --method laplace; {method} does not find an optimum"
        )

    from ..io import load_result

    found = load_result(result)
    place = place_for(output, result, f"_{method}.h5")
    problem = problem_of(result, found)
    from ..engines import moves_probe

    free = moves_probe(found) if known_probe is None else not known_probe

    from ..uncertainty.saved import save_posterior

    with Bar(quiet or as_json) as tell:
        whole, posterior = with_bars(
            problem, found, chosen, free, backend, tell, place, Path(result).name
        )
    save_posterior(place, whole, posterior)
    numbers = numbers_of(posterior, found) | {"result": str(place)}
    if as_json:
        click.echo(json.dumps(numbers))
    elif not quiet:
        show(numbers)
    return 0


def numbers_of(posterior: Posterior, before: Result) -> dict[str, Any]:
    """The table: medians over the lit region, what is known of the quality of the bars, and a
    comparison with earlier ones.
    """
    import numpy as np

    inside = posterior.region

    def median(values: Any) -> float:
        return float(np.median(values[inside]))

    numbers: dict[str, Any] = {
        "method": posterior.method,
        "object_std": median(posterior.object_std),
        "amplitude_std": median(posterior.amplitude_std),
        "phase_std": median(posterior.phase_std),
        "decibel": posterior.decibel(),
        "samples": posterior.samples,
        "monte_carlo": posterior.monte_carlo if posterior.samples else None,
        "chi2": posterior.chi2,
        "chi2_error": posterior.chi2_error,
        "noise_variance": posterior.noise_variance,
        "distance": None if posterior.method == "ep" else posterior.distance,
        "unsolved": posterior.unsolved,
        "agreement": posterior.agreement,
        "conditional": list(posterior.conditional),
        "earlier": None,
    }
    if before.object_std is not None:
        numbers["earlier"] = median(posterior.object_std / np.maximum(before.object_std, 1e-30))
    return numbers


def fits(numbers: dict[str, Any]) -> bool:
    """Whether the misfit is what the noise explains, or not much more."""
    return bool(numbers["chi2"] < 1 + max(ALLOWED, SIGMAS * (numbers["chi2_error"] or 0.0)))


def show(numbers: dict[str, Any]) -> None:
    """The table for people, on stdout."""
    chance, sampled = numbers["monte_carlo"], ""
    if chance is not None:
        sampled = f", to {100 * chance:.1f} % ({numbers['samples']} samples)"
    rows = [
        ("error bar", f"{numbers['object_std']:.4g} (median of the lit pixels){sampled}"),
        ("amplitude", f"{numbers['amplitude_std']:.4g}"),
        ("phase", f"{numbers['phase_std']:.4g} rad"),
        ("as an error", f"{numbers['decibel']:.1f} dB"),
    ]
    if numbers["distance"] is not None:
        rows.append(("off centre", f"{numbers['distance']:.2f} error bars (rms)"))
    if numbers["chi2"] is not None:
        judged = (
            ""
            if fits(numbers)
            else ": more than chance; model or optimum is wrong, and the bars are too small"
        )
        rows.append(("misfit", f"{numbers['chi2']:.2f} of what the noise explains{judged}"))
    if numbers["agreement"] is not None:
        from ..uncertainty.sampling import sentence

        rows.append(("chains", sentence(numbers["agreement"])))
    if numbers["earlier"] is not None:
        rows.append(("before", f"{numbers['earlier']:.2f} times the error bar that the result had"))
    rows.append(("given", "; ".join(numbers["conditional"])))
    show_rows([*rows, ("result", numbers["result"])], 11)
