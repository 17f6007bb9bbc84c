"""``ptychon uncertainty``: error bars for a result that has none, or others for one that has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import BACKEND, at_least, output_options, seed_option
from .results import KNOWN_PROBE, NOISE_VARIANCE, RESULT, Bar, moves_probe, place_for, problem_of, show_rows

if TYPE_CHECKING:
    from ..data.result import Result
    from ..model.problem import Problem
    from ..uncertainty import Posterior

METHODS = ("laplace", "bootstrap", "ep", "sample")
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

laplace: a Gaussian about the solution, by sampling; seconds. bootstrap: simulate from the result and reconstruct again,
many times. ep: Ptycho-EP and the joint posterior from there on, which give an object of their own, with a learned prior
and a check on simulated data. sample: chains that wander through the posterior, for small scans, few measurements and few
counts. What the bars take for granted is printed and stored with them. The data are looked for where they
were, or beside the result.
""",
)
@RESULT
@click.option("-m", "--method", default="laplace", show_default=True, help="laplace, bootstrap, ep or sample.")
@click.option("-o", "--output", type=click.Path(), help="Result file with the bars; default RESULT_METHOD.h5, beside it.")
@click.option(
    "--samples", type=int, default=32, show_default=True, callback=at_least(2), help="Of the posterior (laplace)."
)
@click.option("--refine", is_flag=True, help="Write the optimum of the posterior instead of the object as it was (laplace).")
@click.option(
    "--replicates", type=int, default=20, show_default=True, callback=at_least(2), help="Reconstructions (bootstrap)."
)
@click.option("--from-beginning", is_flag=True, help="Start replicates where the result started (bootstrap).")
@click.option(
    "--draws", type=int, default=8, show_default=True, callback=at_least(1), help="Of the posterior, kept (ep, sample)."
)
@click.option("--twin/--no-twin", default=True, help="Whether to check and correct the bars on simulated data (ep).")
@click.option(
    "-n", "--epochs", type=int, callback=at_least(1),
    help="Passes of a replicate (as in RESULT), of Ptycho-EP (60), of a chain (8000).",
)  # fmt: skip
@KNOWN_PROBE
@NOISE_VARIANCE
@click.option("--background", type=float, help="Counts a pixel that do not come from the wave, if the scan does not say it.")
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
    """Give the object of RESULT error bars: a standard deviation for every pixel, of the complex value, amplitude and phase.

    Writes a new result file with them, and prints a short table.
    """
    if method not in METHODS:
        raise PtychonError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if refine and method != "laplace":
        raise PtychonError(f"--refine belongs to --method laplace; {method} does not find an optimum")

    from ..io import load_result

    found = load_result(result)
    place = place_for(output, result, f"_{method}.h5")
    problem = problem_of(result, found)
    free = moves_probe(found) if known_probe is None else not known_probe

    from ..uncertainty.saved import save_posterior

    with Bar(quiet or as_json) as tell:
        whole, posterior = with_bars(problem, found, method, free, options, tell, place, refine=refine, name=Path(result).name)
    save_posterior(place, whole, posterior)
    numbers = numbers_of(posterior, found) | {"result": str(place)}
    if as_json:
        click.echo(json.dumps(numbers))
    elif not quiet:
        show(numbers)
    return 0


def with_bars(
    problem: Problem,
    found: Result,
    method: str,
    free: bool,
    options: dict[str, Any],
    tell: Any,
    place: Path,
    *,
    refine: bool = False,
    name: str = "",
) -> tuple[Result, Posterior]:
    """A result with the error bars of a method, and what is known of them.

    Parameters
    ----------
    problem : Problem
        Its data.
    found : Result
    method : {"laplace", "bootstrap", "ep", "sample"}
    free : bool
        Whether the probe was learned.
    options : dict
        Those of the command that are not named here; what is missing takes its default.
    tell : callable
    place : Path
        Where the result goes: the bootstrap keeps what it has beside it.
    refine : bool
        Write the optimum (laplace).
    name : str
        Of the file that the result was in, if it was in one.
    """
    given = uncertainty.make_context("uncertainty", ["RESULT"]).params | options
    whole, posterior = _METHODS[method](problem, found, free, given, tell, place)
    if not refine and method == "laplace":
        posterior = posterior.about(found.object, found.probe)
    elif method == "laplace":
        whole = _refined(problem, whole, posterior)
    how = {"method": method, "free_probe": free, "refine": refine, "of": name}
    # a run of its own knows nothing of the file that the scan is in
    settings = dict(found.settings) | dict(whole.settings) | {"uncertainty": how}
    provenance = dict(found.provenance) | dict(whole.provenance)
    return replace(whole, settings=settings, provenance=provenance), posterior


def _laplace(problem: Problem, found: Result, free: bool, options: dict[str, Any], tell: Any, place: Path) -> Any:
    from ..uncertainty import laplace

    names = ("samples", "noise_variance", "background", "backend", "seed")
    chosen = {name: options[name] for name in names} | {"object_variance": _prior(found)}
    return found, laplace(problem, found.object, found.probe, free_probe=free, tell=tell, **chosen)


def _prior(result: Result) -> float | None:
    """The variance of the object that the engine assumed, if it did."""
    options = result.options
    given = options.get("object_variance") if options.get("prior") == "gaussian" else None
    return float(given) if given else None


def _bootstrap(problem: Problem, found: Result, free: bool, options: dict[str, Any], tell: Any, place: Path) -> Any:
    from ..uncertainty import bootstrap

    if free != moves_probe(found):
        raise PtychonError(f"the bootstrap runs engine {found.engine!r} again as it was; it cannot hold or free the probe")
    names = ("replicates", "epochs", "noise_variance", "background", "backend", "seed")
    start = "beginning" if options["from_beginning"] else "solution"
    store = place.with_suffix(".replicates.npz")
    done = bootstrap(problem, found, start=start, store=store, tell=tell, **{name: options[name] for name in names})
    store.unlink(missing_ok=True)
    return found, done.about(found.object, found.probe)


def _ep(problem: Problem, found: Result, free: bool, options: dict[str, Any], tell: Any, place: Path) -> Any:
    from ..uncertainty.joint import SWEEPS, joint

    chosen = {name: options[name] for name in ("noise_variance", "backend", "seed", "draws")}
    sweeps = options["epochs"] or SWEEPS
    whole, posterior, _ = joint(problem, found, free_probe=free, sweeps=sweeps, check=options["twin"], tell=tell, **chosen)
    return whole, posterior


def _sample(problem: Problem, found: Result, free: bool, options: dict[str, Any], tell: Any, place: Path) -> Any:
    from ..metrics.residual import residual
    from ..uncertainty import sample

    chosen = {name: options[name] for name in ("noise_variance", "background", "backend", "seed", "draws")}
    if options["epochs"] is not None:
        chosen["passes"] = options["epochs"]
    done = sample(problem, found.object, found.probe, free_probe=free, object_variance=_prior(found), tell=tell, **chosen)
    return replace(found, final_error=residual(problem, done.object, done.probe)), done


_METHODS = {"laplace": _laplace, "bootstrap": _bootstrap, "ep": _ep, "sample": _sample}


def _refined(problem: Problem, result: Result, posterior: Posterior) -> Result:
    """The result with the R of the optimum in place of its own."""
    from ..metrics.residual import residual

    return replace(result, final_error=residual(problem, posterior.object, posterior.probe))


def numbers_of(posterior: Posterior, before: Result) -> dict[str, Any]:
    """The table: medians over the lit region, what is known of the quality of the bars, and a comparison with earlier ones."""
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
        judged = "" if fits(numbers) else ": more than chance; model or optimum is wrong, and the bars are too small"
        rows.append(("misfit", f"{numbers['chi2']:.2f} of what the noise explains{judged}"))
    if numbers["agreement"] is not None:
        from ..uncertainty.sampling import sentence

        rows.append(("chains", sentence(numbers["agreement"])))
    if numbers["earlier"] is not None:
        rows.append(("before", f"{numbers['earlier']:.2f} times the error bar that the result had"))
    rows.append(("given", "; ".join(numbers["conditional"])))
    show_rows([*rows, ("result", numbers["result"])], 11)
