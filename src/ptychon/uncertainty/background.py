"""What a background that is free may be: images whose sum it is.

smooth   cosines over the detector, up to two periods across each side
level    the same number of counts in all pixels
pixels   anything: no images, each pixel for itself
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Backend
from ..model.forward import Model, unknowns_of
from ..model.marginal import Marginal
from ..model.problem import Problem
from ..types import COMPLEX, REAL, FloatArray, PtychonError

SMOOTH, LEVEL, PIXELS = "smooth", "level", "pixels"
FORMS = (SMOOTH, LEVEL, PIXELS)
#: Half periods of the finest cosine.
ORDER = 4
#: Looks at so many pixels at most for the first level of a background.
LOOKS, SEEN = 40, 1_000_000


def columns_of(form: str, shape: tuple[int, int], near_field: bool = False) -> FloatArray | None:
    """The images, (n, P, Q) float32 in the order of `Problem.amplitude`; None for pixels.

    Raises
    ------
    PtychonError
        For another form.
    """
    if form not in FORMS:
        raise PtychonError(
            f"the form of the background is {form!r}; choose one of {', '.join(FORMS)}"
        )
    if form == PIXELS:
        return None
    orders = range(1 if form == LEVEL else ORDER + 1)
    rows, columns = (np.cos(np.pi * np.outer(orders, (np.arange(n) + 0.5) / n)) for n in shape)
    images = np.einsum("ap,bq->abpq", rows, columns).reshape(-1, *shape)
    images = images if near_field else np.fft.ifftshift(images, axes=(1, 2))
    return np.ascontiguousarray(images, REAL)


def first_level(problem: Problem, object: Any, probe: Any, backend: Backend) -> FloatArray:
    """A level (1, P, Q) of background by the likelihood, object and probe held, by expectation
    maximisation, b <- b mean(n/(m^2 + b)) (Richardson, J. Opt. Soc. Am. 62, 55 (1972)).
    """
    move, host = backend.asarray, backend.to_host
    x = unknowns_of(problem, move(np.asarray(object, COMPLEX)), move(probe.astype(COMPLEX)))
    model, light, counts = Model.of(problem, backend), [], []
    x = x.to(backend)
    step = max(1, problem.amplitude.size // SEEN)
    for b in Marginal.slices(x, len(problem)):
        valid = np.broadcast_to(host(problem.mask_of(b)), problem.amplitude[b].shape)
        waves = model.view(x, b).waves
        light.append(host((waves.real**2 + waves.imag**2).sum(axis=1))[valid][::step])
        counts.append(host(problem.amplitude[b] ** 2)[valid][::step])
    m, n = (np.concatenate(part).astype(np.float64) for part in (light, counts))
    level = 0.01 * float(n.mean())
    for _ in range(LOOKS):
        level *= float((n / np.maximum(m + level, 1e-12)).mean())
    return np.full((1, *problem.frame_shape), level, REAL)
