"""``ptychon error_bars``: error bars for a result that has none, or others for one that has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from . import complete
from .options import BACKEND, BACKGROUND, at_least, output_options, passes_option, seed_option
from .results import FORCE, NOISE_VARIANCE, RESULT, UPDATE, Bar, place_for, problem_of, show_rows

if TYPE_CHECKING:
    from ..data.result import Result
    from ..uncertainty import Posterior

#: A misfit above 1 is reported as too large: by this much, and by so many of its standard
#: deviations.
ALLOWED, SIGMAS = 0.1, 5.0


@click.command(
    name="error_bars",
    epilog="""\b
Examples
  ptychon error_bars scan_rpie.h5
  ptychon error_bars scan_rpie.h5 --limit 120
  ptychon error_bars measured_ml.h5 --halves positions
  ptychon error_bars refined.h5 --update positions,dose,background
  ptychon error_bars nearfield.h5 --update distance
  ptychon error_bars scan_rpie.h5 --method joint
  ptychon error_bars scan_rpie.h5 --method bootstrap --replicates 20
  ptychon error_bars scan_ep.h5 --method sampling -n 50000
\b
Methods
  auto       one of these, by what the run has learned, its modes, counts and size; says which and
             why, and about how long it takes
  laplace    Gaussian approximation of the posterior about the solution; 1 to 2 minutes of processor
             time for 784 frames of 96 x 96 or 20 of 256 x 256 with two modes and 8 draws
  joint      Ptycho-EP, then the joint posterior of object and probe with a learned prior,
             checked on simulated data; gives an object of its own
  bootstrap  simulate data from the result and reconstruct them, many times; slow, independent
  sampling   Markov chains through the posterior; for small scans with few measurements or few
             counts, with --prior local for the smallest errors

With --halves two halves of the data get error bars too, for 2 to 4 ways to split it, and the bars
are widened, by octaves of periods, by what the halves disagree by: for measured data, whose model
is never quite right. ptychon validate then tries the widened bars on other splits.

The table lists what the error bars are conditional on; it is stored with the result. The data are
read from the file that the result names, or from the folder of the result.
""",
)
@RESULT
@click.option(
    "-m",
    "--method",
    default="auto",
    show_default=True,
    shell_complete=complete.of(complete.methods),
    help="auto, laplace, joint, bootstrap or sampling.",
)
@click.option(
    "--halves",
    default="",
    metavar="positions|counts",
    help="Widen the error bars by the disagreement between two halves of the data, split by frames "
    "(positions) or by counts; takes 2 to 4 times as long again.",
)
@click.option(
    "--limit",
    type=float,
    metavar="SECONDS",
    help="Stop after this time and use the draws computed by then (laplace).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Result file with error bars; default RESULT_METHOD.h5, beside RESULT.",
)
@click.option(
    "--draws",
    type=int,
    callback=at_least(1),
    help="Number of posterior draws (laplace until the bars are known to 3 %, 8 to 32; joint, "
    "sampling 8).",
)
@click.option(
    "--refine",
    is_flag=True,
    default=None,
    help="Store the optimum of the posterior instead of the object of RESULT (laplace).",
)
@click.option(
    "--prior",
    metavar="white|learned|local",
    help="Choose the prior of the object: independent pixels (white), spectra learned from the "
    "data (learned), or also variances that differ from place to place, for edges and flat "
    "regions, where the data show them (local) (laplace, sampling; default white; auto chooses and "
    "says so).",
)
@click.option(
    "--background-form",
    help="Choose the form of a free background: smooth (default), level (one number) or pixels "
    "(laplace).",
)
@click.option(
    "--propose/--no-propose",
    default=None,
    help="Test which further unknowns would raise the likelihood if they were free, and list them, "
    "or do not (laplace; default: test).",
)
@click.option(
    "--replicates",
    type=int,
    callback=at_least(2),
    help="Number of simulated and reconstructed data sets (bootstrap; default 20).",
)
@click.option(
    "--from-beginning",
    is_flag=True,
    default=None,
    help="Start each replicate where RESULT was started, not from RESULT (bootstrap).",
)
@click.option(
    "--twin/--no-twin",
    default=None,
    help="Check and correct the error bars on simulated data, or do not; takes two to three times "
    "as long as the run and its bars (default: check with joint, and with laplace where the data "
    "have at most a million numbers and there is no --limit; not with sampling).",
)
@passes_option(
    "Passes of each replicate (bootstrap; as in RESULT), of Ptycho-EP (joint; 60), of each chain "
    "(sampling; 8000, 20000 with a learned prior)."
)
@UPDATE
@NOISE_VARIANCE
@BACKGROUND
@BACKEND
@seed_option("Seed for the draws or replicates, and the split into halves.")
@FORCE
@output_options()
def error_bars(
    result: str,
    method: str,
    halves: str,
    output: str | None,
    updates: tuple[str, ...],
    background: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    backend: str,
    **options: Any,
) -> int:
    """Compute error bars for the object of RESULT: standard deviations of the complex value, the
    amplitude and the phase of every pixel.

    Writes a new result file with them, and prints a short table.
    """
    from ..backends import get_backend
    from ..run.update import updates_of
    from ..uncertainty.call import method_for, with_bars
    from ..uncertainty.methods import AUTO, make_method
    from ..uncertainty.splitting import KINDS

    if background is not None and options["noise_variance"] is not None:
        raise PtychonError(
            "--background belongs to counts and --noise-variance to amplitudes: give one of them"
        )
    if halves and halves not in KINDS:
        raise PtychonError(f"--halves is {halves!r}; choose one of {', '.join(KINDS)}")
    options = {name: value for name, value in options.items() if value is not None}
    if method != AUTO:
        make_method(method, **options)  # what is wrong with it is said before files are read

    from ..io import load_result

    try:
        found = load_result(result)
    except PtychonError as error:
        if not Path(result).is_file():
            raise
        raise PtychonError(
            f"{error}; of a scan: ptychon reconstruct {result} --error-bars auto"
        ) from error
    update = updates_of(updates)
    if method != AUTO or output is not None:
        place_for(output, result, f"_{method}.h5", force)
    problem = problem_of(result, found, background)
    here = get_backend(backend)
    chosen, why = method_for(
        problem, found, method, update=update, backend=here, halves=halves, **options
    )
    place = place_for(output, result, f"_{chosen.name}.h5", force)
    if why and not (quiet or as_json):
        click.echo(f"ptychon: {why}", err=True)
    from ..uncertainty.saved import save_posterior

    with Bar(quiet or as_json) as tell:
        whole, posterior = with_bars(
            problem, found, chosen, here, tell, place, Path(result).name, halves
        )
    save_posterior(place, whole, posterior)
    numbers = numbers_of(posterior, found) | {"why": why or None, "result": str(place)}
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
        "distance": None if posterior.method == "joint" else posterior.distance,
        "unsolved": posterior.unsolved,
        "agreement": posterior.agreement,
        "conditional": list(posterior.conditional),
        "gains": list(posterior.gains),
        "proposed": list(posterior.proposed),
        "positions_std": typical(posterior.positions_std),
        "dose_std": typical(posterior.log_scale_std),
        "background_std": typical(posterior.background_std),
        "variations_std": typical(posterior.variations_std),
        "longer": posterior.longer,
        "longer_std": posterior.longer_std,
        "read_noise": posterior.read_noise,
        "read_noise_std": posterior.read_noise_std,
        "path_m": posterior.path,
        "path_m_std": posterior.path_std,
        "stopped": posterior.stopped,
        "widened": list(posterior.widened),
        "remains": [r if np.isfinite(r) else None for r in posterior.remains],
        "optimum": posterior.way_left() or None,
        "verdict": posterior.verdict or None,
        "reason": posterior.reason or None,
        "temperature": posterior.temperature,
        "earlier": None,
    }
    if before.object_std is not None:
        numbers["earlier"] = median(posterior.object_std / np.maximum(before.object_std, 1e-30))
    return numbers


def typical(values: Any) -> float | None:
    """The median, where there is any."""
    import numpy as np

    return None if values is None else float(np.median(values))


def fits(numbers: dict[str, Any]) -> bool:
    """Whether the misfit is what the noise explains, or not much more."""
    return bool(numbers["chi2"] < 1 + max(ALLOWED, SIGMAS * (numbers["chi2_error"] or 0.0)))


def checked(numbers: dict[str, Any]) -> str:
    """For people: what a check on simulated data has said."""
    from ..uncertainty.verdict import HOLD, NOT

    said = {HOLD: "the error bars hold", NOT: "the error bars do not hold"}
    if numbers["verdict"] is None:
        able = numbers["method"] in ("laplace", "joint", "sampling") and not numbers["widened"]
        return f"not made{' (--twin makes it)' if able else ''}"
    what = said.get(numbers["verdict"], "it cannot tell whether the error bars hold")
    return f"{what} on simulated data" + (f": {numbers['reason']}" if numbers["reason"] else "")


def detector_distance(numbers: dict[str, Any]) -> str:
    """A distance that was free, for people."""
    from ..units import pretty

    off = 100 * (numbers["longer"] - 1)
    said = f"{off:+.3g} % ± {100 * numbers['longer_std']:.2g} % off the distance that is stated"
    if numbers["path_m"] is None:
        return said
    return f"at {numbers['path_m']:.6g} m ± {pretty(numbers['path_m_std'], 'length')}, {said}"


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
    if numbers["optimum"]:
        rows.append(("optimum", numbers["optimum"]))
    if numbers["chi2"] is not None:
        judged = ""
        if not fits(numbers):
            judged = ": more than chance; the model or the optimum is wrong, "
            judged += (
                "and the bars are as wide as halves of the data ask"
                if numbers["widened"]
                else "and the bars are too small (--halves positions widens them)"
            )
        rows.append(("misfit", f"{numbers['chi2']:.2f} of what the noise explains{judged}"))
    rows.append(("check", checked(numbers)))
    if numbers["agreement"] is not None:
        from ..uncertainty.sampling import sentence

        rows.append(("chains", sentence(numbers["agreement"])))
    if numbers["earlier"] is not None:
        rows.append(("before", f"{numbers['earlier']:.2f} times the error bar that the result had"))
    of_frames = [
        f"{numbers[name]:.3g} {unit}"
        for name, unit in (
            ("positions_std", "px of the positions"),
            ("dose_std", "of the logarithm of the doses"),
            ("background_std", "counts of the background"),
        )
        if numbers[name] is not None
    ]
    if of_frames:
        rows.append(("also", f"{', '.join(of_frames)} (median error bars)"))
    if numbers["read_noise"] is not None:
        noise = f"{numbers['read_noise']:.4g} ± {numbers['read_noise_std']:.2g} counts (rms)"
        rows.append(("read noise", noise))
    if numbers["longer"] is not None:
        rows.append(("detector", detector_distance(numbers)))
    if numbers["stopped"]:
        rows.append(("stopped", f"with {numbers['samples']} draws, by Ctrl-C or the limit of time"))
    rows += [
        ("given" if number == 0 else "", fact) for number, fact in enumerate(numbers["conditional"])
    ]
    rows += [("free too?", sentence) for sentence in numbers["gains"]]
    show_rows([*rows, ("result", numbers["result"])], 11)
