r"""A probe that varies from frame to frame: its first mode is P_0 + sum_l c_jl V_l in frame j, with
real weights c and M variations V that all frames share.

    start     V_l <- sum_j c_jl R_j,  c_jl <- Re <V_l, R_j>, less their means, both orthonormal

R_j being what the misfit of frame j asks of the probe: power iterations for the strongest
variations, one look at the frames each. From V = 0 and c = 0 no step would leave.

    settle    c <- c - mean,  P_0 <- P_0 + sum_l mean(c_l) V_l;
              (c, V) <- their singular vectors: columns of c orthogonal, V orthogonal with the norm
              of P_0, the strongest first

No frame changes by the latter. Reference: Odstrcil et al., Opt. Express 24, 8360 (2016).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model.fit import Fit
from ..model.noise import Likelihood
from ..model.unknowns import Unknowns
from ..types import Array, PtychonError
from .update import After

#: Looks at the frames that find the first variations.
LOOKS = 6


def timed_variations(engine: Any, name: str, when: bool | After) -> dict[str, Any] | None:
    """The options by which an engine with `variations` and `variations_start` moves them when it is
    said; None for another unknown.

    Raises
    ------
    PtychonError
        Where more is said than from which pass on.
    """
    if name not in ("variations", "weights"):
        return None
    if when is False:
        return {"variations": 0}
    if isinstance(when, After) and (when.every != 1 or when.before is not None):
        raise PtychonError(
            f"engine {engine.name!r} cannot move variations {when}; give the pass that begins "
            "alone, such as after=3"
        )
    start = {"variations_start": when.passes} if isinstance(when, After) else {}
    return {"variations": engine.variations or 1, **start}


def first_variations(fit: Fit, x: Unknowns, count: int) -> tuple[Array, Array]:
    """The strongest variations that the misfit of the frames asks for, (M, P, Q), and weights of 0,
    (N, M).

    Parameters
    ----------
    fit : Fit
    x : Unknowns
        Without variations.
    count : int
        M.
    """
    model, likelihood = fit.model, replace(fit.likelihood, roots=True)
    xp, n = model.backend.xp, len(model)
    # any numbers without a pattern
    seeds = xp.arange(1, n + 1, dtype="float64")[:, None] * xp.arange(1, count + 1)
    weights = xp.sin(12.9898 * seeds).astype(x.probe.real.dtype)
    zero = xp.zeros((count, *x.probe.shape[-2:]), x.probe.dtype)
    for _ in range(LOOKS):
        weights = xp.linalg.qr(weights - weights.mean(axis=0))[0]
        trial = replace(x, variations=zero, weights=weights)
        variations = _asked(fit, likelihood, x, trial, "variations").variations
        rows = xp.linalg.qr(_real(variations, xp).T)[0].T
        trial = replace(x, variations=_complex(rows, zero, xp), weights=0 * weights)
        weights = _asked(fit, likelihood, x, trial, "weights").weights
    strength = xp.sqrt((abs(x.probe[0]) ** 2).sum())
    return trial.variations * strength, 0 * weights


def _asked(fit: Fit, likelihood: Likelihood, x: Unknowns, trial: Unknowns, name: str) -> Unknowns:
    """The adjoint of the score for one unknown of `trial`, at the waves of `x`."""
    out = fit.model.zeros(trial, [name])
    for b, view in fit.blocks(x):
        view.x = trial
        score = likelihood.score(fit.model.intensity(view), b)
        fit.model.intensity_adjoint(view, score.astype(view.waves.real.dtype), out)
    return out


def settled(probe: Array, variations: Array, weights: Array, xp: Any) -> tuple[Array, ...]:
    """Probe, variations and weights in the form that is stated; the same in every frame."""
    mean = weights.mean(axis=0)
    probe = probe.copy()
    probe[0] += (mean[:, None, None].astype(weights.dtype) * variations).sum(axis=0)
    q, r = xp.linalg.qr((weights - mean).astype("float64"))
    u, s, v = xp.linalg.svd(r @ _real(variations, xp).astype("float64"), full_matrices=False)
    strength = xp.sqrt((abs(probe[0]) ** 2).sum(dtype="float64"))
    weights = q @ (u * s) / strength
    # singular vectors have no sign of their own
    rows = abs(weights).argmax(axis=0)
    sign = xp.where(weights[rows, xp.arange(len(rows))] < 0, -1.0, 1.0)
    v = (strength * sign[:, None] * v).astype(variations.real.dtype)
    return probe, _complex(v, variations, xp), (weights * sign).astype("float32")


def _real(variations: Array, xp: Any) -> Array:
    """(M, 2 P Q) real."""
    flat = xp.ascontiguousarray(variations).reshape(len(variations), -1)
    return flat.view(flat.real.dtype)


def _complex(rows: Array, like: Array, xp: Any) -> Array:
    return xp.ascontiguousarray(rows).view(like.dtype).reshape(like.shape)
