r"""Frames that are smoother than any wave of the model makes them: a detector that spreads light
over its pixels, or a beam that is less coherent than the modes of the probe say.

Both take light from where it is bright to where it is dark beside it, so that counts n differ from
the model m by about w^2/2 times its Laplacian. What is left, n - m, is fitted by

    n - m = a (B m - m) + b + c m,        B: a narrow Gaussian, b: an even background, c: the scale

by least squares with the weights 1/(m + mean(m)/4). The share of the whole misfit that the first
term explains beside the others tells such frames. Measured on 36 simulated frames after 30 passes
of rPIE and after `ml`: blurs of 0.4 to 1.5 px, 0.03 to 0.11, the others 0.005 to 0.04; three modes
fitted with one, 0.12 and 0.13; sharp frames, a blur that is told, and positions that are wrong by
0.5 px, below 0.0005; an even background of 10 %, 0.03, the others 0.04. How wide the blur is it
does not tell: object and probe have taken most of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..model.spread import blur
from ..types import Array, FloatArray

#: Width of B, px, and the least weight of a pixel in mean counts.
NARROW, LEAST = 0.5, 0.25
#: Shares of the misfit from which frames are too smooth: of all, and of that of the other terms.
TELLS, BESIDE = 0.02, 1.5


@dataclass
class Smoothed:
    """Sums of a fit of what is left.

    Attributes
    ----------
    normal : (3, 3) float64
    right : (3,) float64
    misfit : float
        Weighted sum of (n - m)^2.
    """

    normal: FloatArray = field(default_factory=lambda: np.zeros((3, 3)))
    right: FloatArray = field(default_factory=lambda: np.zeros(3))
    misfit: float = 0.0

    def add(self, model: Array, counts: Array, valid: Array) -> None:
        """Frames (B, P, Q): what the model expects, what was counted, and where."""
        p, q = model.shape[-2:]
        change = blur((int(p), int(q)), NARROW).forward(model) - model
        weight = valid / np.maximum(model, LEAST * max(float(model.mean()), 1e-300))
        left = (counts - model).ravel()
        terms = np.stack([change, np.ones_like(model), model]).reshape(3, -1)
        weighted = terms * weight.ravel()
        self.normal += weighted @ terms.T
        self.right += weighted @ left
        self.misfit += float((weight.ravel() * left * left).sum())

    @property
    def shares(self) -> tuple[float, float]:
        """Of the misfit, what smoothness explains beside the other terms, and what these do
        alone; 0 where the model is too sharp, not too smooth.
        """
        if not self.misfit > 0 or not np.isfinite(self.normal).all():
            return 0.0, 0.0
        size = np.sqrt(np.maximum(np.diag(self.normal), 1e-300))
        normal, right = self.normal / np.outer(size, size), self.right / size
        found = np.linalg.lstsq(normal, right, rcond=1e-9)[0]
        alone = np.linalg.lstsq(normal[1:, 1:], right[1:], rcond=1e-9)[0]
        others = float(alone @ right[1:]) / self.misfit
        whole = float(found @ right) / self.misfit
        return (max(whole - others, 0.0) if found[0] > 0 else 0.0), others

    @property
    def tells(self) -> bool:
        """Whether frames are smoother than the model makes them."""
        share, others = self.shares
        return share > TELLS and share > BESIDE * others


def sentence(share: float, modes: int) -> str:
    """For people, with what treats it."""
    more = f"--modes {3 if modes == 1 else modes + 2}"
    made = "one mode makes" if modes == 1 else f"{modes} modes make"
    return (
        f"frames are smoother than {made} them "
        f"({100 * share:.2g} % of the misfit): a beam that is partly coherent ({more}), a detector "
        "that blurs (--blur 1), or a beam that varies (--update variations); try one of them at a "
        "time"
    )


__all__ = ["Smoothed", "sentence"]
