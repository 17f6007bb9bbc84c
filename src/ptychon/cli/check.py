"""``ptychon check``: compare the data with what the result predicts, frame by frame and pixel by
pixel.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import BACKEND, output_options
from .results import (
    NOISE_VARIANCE,
    PICTURE,
    RESULT,
    check_places,
    check_suffix,
    data_of,
    refuse_same,
    show_rows,
)

if TYPE_CHECKING:
    from ..checks.verdict import Check
    from ..data.dataset import Dataset


@click.command(
    epilog="""\b
Examples
  ptychon check scan_rpie.h5
  ptychon check scan_joint.h5 --picture check.png -o check.json
  ptychon check scan_rpie.h5 --clean clean.cxi          write the scan without flagged data

Exit code 1 if something was flagged, or if the run has not converged: nothing is flagged then,
since good frames and pixels do not fit either. In a scan without faults, each of the three searches
(bad frames, bad pixels, drift) raises a false alarm with the probability --false-alarm. The data
are read from the file that the result names, or from the folder of the result.
"""
)
@RESULT
@click.option(
    "--false-alarm",
    type=float,
    default=0.05,
    show_default=True,
    help="Probability of a false alarm in a scan without faults.",
)
@NOISE_VARIANCE
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Write the numbers of every frame and flagged pixel to .json.",
)
@PICTURE
@click.option(
    "--clean",
    type=click.Path(),
    help="Write the scan (.cxi, .h5) without the worst frames, flagged pixels masked.",
)
@BACKEND
@output_options()
def check(
    result: str,
    false_alarm: float,
    noise_variance: float | None,
    output: str | None,
    picture: str | None,
    clean: str | None,
    backend: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Flag bad frames, hot, dead and noisy detector pixels, and drifts: data that noise and error
    bars of RESULT do not explain.
    """
    from ..backends import get_backend
    from ..checks.predictive import check as look
    from ..checks.verdict import sentences
    from ..io import load_result, write_dataset
    from ..io.hdf5 import write_aside
    from ..model.found import on_grid

    check_suffix("numbers", output, ".json")
    check_suffix("scan", clean, ".cxi", ".h5")
    check_places(output, picture, clean)
    found = load_result(result)
    data, source = data_of(result, found)
    if clean is not None:
        refuse_same(clean, source, "the file with the data: give another name with --clean")
    problem = on_grid(data, found)
    made = look(
        problem,
        found,
        false_alarm=false_alarm,
        noise_variance=noise_variance,
        backend=get_backend(backend),
    )
    if clean is not None and not made.converged:
        raise PtychonError(f"{result} shows no faults to clean: {made.convergence.sentence()}")
    numbers = numbers_of(made)
    if output is not None:
        with write_aside(output) as aside:
            aside.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if picture is not None:
        from ..plots.check import checks

        checks(found, made, picture)
    if clean is not None:
        write_dataset(clean, cleaned(data, made))
    if as_json:
        click.echo(json.dumps(numbers))
    elif not quiet:
        if made.level is not None:
            click.echo(
                f"{'misfit':<10} {made.level:.3f} ± {made.level_error:.3f} of what noise and "
                "error bars predict"
            )
        elif not made.foretold:
            click.echo(
                f"{'misfit':<10} the result has no error bars: frames and pixels are compared "
                "with each other only"
            )
        else:
            click.echo(
                f"{'misfit':<10} the noise was learned from it: frames and pixels are compared "
                "with each other only"
            )
        for i, text in enumerate(sentences(made)):
            click.echo(f"{'' if i else 'found':<10} {text}")
        show_rows([("numbers", output), ("picture", picture), ("scan", clean)])
    return 0 if made.clean else 1


def numbers_of(made: Check) -> dict[str, Any]:
    """Everything but the pictures of the detector, for JSON."""
    from dataclasses import asdict

    from ..checks.verdict import sentences
    from ..reports.page import plain

    whole = {
        k: v for k, v in asdict(made).items() if not k.startswith("pixel_") or k == "pixel_limit"
    }
    numbers: dict[str, Any] = plain(
        whole
        | {
            "converged": made.converged,
            "clean": made.clean,
            "fits": made.fits,
            "said": sentences(made),
        }
    )
    return numbers


def cleaned(data: Dataset, made: Check) -> Dataset:
    """The scan without the worst frames, and with hot, dead and noisy pixels masked.

    Raises
    ------
    PtychonError
        If fewer than two frames are left.
    """
    from dataclasses import replace

    import numpy as np

    from ..data.lazy import Selected

    data = data.measured()  # frames are counted as those that were reconstructed
    keep = np.setdiff1d(np.arange(len(data)), made.worst_frames)
    if len(keep) < 2:
        raise PtychonError(f"{len(keep)} of {len(data)} frames are left; at least 2 are needed")
    mask: Any = np.ones(data.frame_shape, bool) if data.mask is None else np.array(data.mask)
    for which in (made.hot, made.dead, made.noisy):
        mask[..., which[:, 0], which[:, 1]] = False
    mask = mask if mask.ndim == 2 else mask[keep]
    return replace(
        data, patterns=Selected(data.patterns, keep), positions=data.positions[keep], mask=mask
    )
