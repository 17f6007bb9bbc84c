"""What the bars of `laplace` are conditional on, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics.ambiguities import Gauge
from ..model.pulls import Together
from ..types import ComplexArray
from .prior import Spectral
from .probe_prior import ProbePrior


def conditions(
    point: Any, gauge: Gauge, priors: Sequence[str], learned: bool, read: bool = False
) -> tuple[str, ...]:
    """What Laplace's bars take for granted: short facts."""
    noise, x = point.at_x, point.x
    said = noise.describe()
    if noise.kind != "poisson":
        said += " (learned from the misfit)" if learned else " (given)"
    if read:
        said += " (read noise learned from the residuals)"
    host = point.backend.to_host
    spreads = {
        name: float(np.asarray(host(array)).reshape(-1)[0]) ** -0.5
        for name, array in point.prior.each()
    }
    modes = f"probe of {len(x.probe)} modes" if len(x.probe) > 1 else "probe"
    names = {"probe": modes, "positions": "positions", "log_scale": "doses"}
    if x.variations is not None:
        names["weights"] = f"weights of {len(x.variations)} variations of the probe"
        names["variations"] = "variations of the probe"
    if noise.kind == "poisson":
        names["background"] = "background"
    if point.problem.near_field:
        names["distance"] = "distance to the detector"
    wide = {
        "positions": lambda: f" (within {spreads['positions']:.3g} px)",
        "log_scale": lambda: f" (within {100 * spreads['log_scale']:.3g} %)",
        "distance": lambda: f" (within {100 * spreads['distance']:.3g} %)",
        "background": lambda: f" ({'each pixel' if point.columns is None else _images(point)})",
    }
    free = [
        text + (wide[name]() if name in wide else "")
        for name, text in names.items()
        if name in point.update
    ]
    exact = [text for name, text in names.items() if name not in point.update]
    return (
        said,
        *priors,
        f"free, their error in the bars: {', '.join(['object', *free])}",
        *([f"taken as exact: {', '.join(exact)}"] if exact else []),
        f"after alignment on the lit pixels: {', '.join(dict.fromkeys(gauge.names))}",
        "Gaussian about one optimum"
        if point.tilt is None
        else "Gaussian about the mean at one optimum",
    )


def of_priors(
    priors: Together, variance: float, errors: list[ComplexArray]
) -> tuple[float | None, list[str]]:
    """The share of the variance of errors that a learned prior of the object assumes, and what is
    said of it, or of CN(0, S), and of that of the probe.
    """
    prior, probe, assumed = priors.get("object"), priors.get("probe"), None
    said = [f"prior CN(0, {variance:.4g}) on every pixel of the object"]
    if isinstance(prior, Spectral):
        assumed = prior.assumed(errors)
        said = [prior.sentence(assumed)]
    if isinstance(probe, ProbePrior):
        said += [probe.sentence()]
    return assumed, said


def _images(point: Any) -> str:
    return "a level" if len(point.columns) == 1 else f"{len(point.columns)} smooth images"
