"""The posterior of Ptycho-EP, from where another engine has come."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Backend
from ..metrics import illuminated
from ..problem import Problem
from ..reconstruct import reconstruct
from ..result import Result
from ..types import COMPLEX
from .gauge import gauge_of
from .posterior import Posterior, bars, in_bars

#: Relative change of the object at which a run ends.
TOLERANCE = 1e-4


def expectation(
    problem: Problem,
    result: Result,
    *,
    free_probe: bool = True,
    epochs: int = 100,
    noise_variance: float | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Result, Posterior]:
    """Run Ptycho-EP from a result and take its error bars.

    Parameters
    ----------
    problem : Problem
        On the host.
    result : Result
        Of any engine, with one probe mode.
    free_probe : bool
        Learn the probe by EM, beginning with that of the result; False keeps it. The bars are for a known probe either way.
    epochs : int
        At most; the run ends when the object stands still.
    noise_variance : float, optional
        Of the amplitude.
    backend : str or Backend
    seed : int
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    (Result, Posterior)
        Ptycho-EP's own result, and its bars.

    Raises
    ------
    PtychonError
        Several probe modes, or a run that fails.
    """
    options: dict[str, Any] = dict(result.options) if result.engine == "ep" else {}
    if not free_probe:
        options["probe_updates"] = 0
    if noise_variance is not None:
        options["noise_variance"] = noise_variance
    found = reconstruct(
        problem, "ep", epochs=epochs, backend=backend, start=result, seed=seed, tolerance=TOLERANCE,
        callbacks=[lambda progress: tell("sweep", progress.epoch - result.epochs, epochs)], **options,
    )  # fmt: skip
    assert found.object_std is not None
    lit = illuminated(problem, found.probe)
    gauge = gauge_of(problem, found.object, found.probe, free_probe, lit, np.ones(lit.shape, bool))
    moved, _ = gauge.remove(result.object.astype(np.complex128) - found.object)
    half = found.object_std.astype(np.float64) ** 2 / 2
    v = found.history["noise_variance"][-1] if "noise_variance" in found.history else math.nan
    posterior = Posterior(
        method="ep",
        object=found.object,
        probe=found.probe,
        **bars(half, half, found.object),
        offset=moved.astype(COMPLEX),
        distance=in_bars(moved, found.object_std, lit),
        region=lit,
        samples=0,
        monte_carlo=0.0,
        noise_variance=float(v),
        conditional=(
            f"noise of the amplitude, variance {v:.4g}",
            f"prior of the object: {found.options['prior']}",
            "the probe is what was found last, as if it were known",
            "the positions are known exactly",
            f"after alignment on the lit pixels: {', '.join(gauge.names)}",
            "the error is as large along the mean as across it",
        ),
    )
    return found, posterior
