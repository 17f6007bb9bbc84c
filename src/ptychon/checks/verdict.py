"""What a check has found, and the sentences that say it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import FloatArray, IntArray
from .convergence import Convergence
from .trends import Trend

#: Misfit of the whole above 1 that is said: by this much, and by so many of its standard
#: deviations.
ALLOWED, SIGMAS = 0.1, 5.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a predictive check found.

    Attributes
    ----------
    noise : (N,) float64 or None
        Variance of the amplitude that was learned for each frame, by which it is judged.
    level : float or None
        Misfit of pixels with a count or more over what noise and posterior foretell; 1 where all is
        right, None where the noise was learned from the misfit itself.
    level_error : float
        Its standard deviation from the noise alone.
    foretold : bool
        Whether the result has error bars; without them the level is that of frames relative to each
        other.
    chi2, score : (N,) float64
        chi2_j, and the number of robust standard deviations by which it stands out.
    dose : (N,) float64
        Counts of a frame over those foretold.
    shift, shift_std : (N, 2) float64
        Translation (y, x) of each frame from its stated position, object px, as far as the object
        has not followed it.
    pixel_chi2, pixel_score : (P, Q) float64
        Of detector pixels: chi2, and how far the total is from what is foretold, signed; NaN where
        masked. Zero frequency in the middle.
    bad_frames : (M,) int
        The worst first.
    worst_frames : (M,) int
        Those of them with no worse one near (half a window): frames that overlap with a broken one
        suffer with it.
    hot, dead, noisy : (M, 2) int
        Detector pixels (row, column), as in the data.
    trends : tuple of Trend
    drifts : tuple of Trend
        Those that are no chance; none where the result has no error bars.
    frame_limit, pixel_limit : float
        Scores from which on something is flagged.
    false_alarm : float
    convergence : Convergence
        Of a run that has not converged nothing is flagged.
    """

    noise: FloatArray | None
    level: float | None
    level_error: float
    foretold: bool
    chi2: FloatArray
    score: FloatArray
    dose: FloatArray
    shift: FloatArray
    shift_std: FloatArray
    pixel_chi2: FloatArray
    pixel_score: FloatArray
    bad_frames: IntArray
    worst_frames: IntArray
    hot: IntArray
    dead: IntArray
    noisy: IntArray
    trends: tuple[Trend, ...]
    drifts: tuple[Trend, ...]
    frame_limit: float
    pixel_limit: float
    false_alarm: float
    convergence: Convergence

    @property
    def converged(self) -> bool:
        """Whether the run has converged, so that what does not fit is a fault of the data."""
        return self.convergence.reached

    @property
    def fits(self) -> bool:
        """Whether the misfit of the whole is what is foretold, or not much more (not
        known: true).
        """
        return self.level is None or self.level < 1 + max(ALLOWED, SIGMAS * self.level_error)

    @property
    def clean(self) -> bool:
        """Whether the run has converged and nothing was flagged."""
        return self.converged and not (
            len(self.bad_frames)
            or len(self.hot)
            or len(self.dead)
            or len(self.noisy)
            or self.drifts
        )


def sentences(found: Check) -> list[str]:
    """What was found, for people, the faults first."""
    if not found.converged:
        return [found.convergence.sentence()]
    said = []
    for name, which in (("hot", found.hot), ("dead", found.dead), ("noisy", found.noisy)):
        if len(which):
            places = ", ".join(f"({y}, {x})" for y, x in which[:4].tolist()) + (
                ", ..." if len(which) > 4 else ""
            )
            said.append(
                f"{len(which)} detector pixel{'s are' if len(which) > 1 else ' is'} {name}: "
                f"{places}; mask them."
            )
    if len(found.bad_frames):
        names = ", ".join(_described(found, j) for j in found.bad_frames[:4].tolist())
        n, first = len(found.bad_frames), found.worst_frames
        others = (
            ""
            if len(first) == n
            else f", first {', '.join(map(str, first[:6].tolist()))}: the others overlap with these"
        )
        said.append(
            f"{n} of {len(found.score)} frames do{'es' if n == 1 else ''} not fit: "
            f"{names}{', ...' if n > 4 else ''}; "
            f"look at them, and drop them if they are broken{others}."
        )
    words = {
        "chi2": "the misfit",
        "dose": "the dose",
        "shift_y": "the position in y",
        "shift_x": "the position in x",
    }
    for trend in found.drifts:
        unit = " px" if trend.name.startswith("shift") else ""
        said.append(
            f"From first to last frame {words[trend.name]} drifts by {trend.change:+.2g} ± "
            f"{trend.error:.1g}{unit}."
        )
    if not found.fits:
        said.append(
            f"The misfit is {found.level:.2f} of what noise and posterior foretell, more than "
            "chance: the run has not "
            "converged, or the model is wrong for all frames alike, and what stands out is "
            "relative to that."
        )
    if found.noise is not None:
        ratio = found.noise / np.median(found.noise)
        most = ", ".join(
            f"{j} ({ratio[j]:.3g} times the median)"
            for j in np.argsort(-ratio, kind="stable")[:3].tolist()
        )
        said.append(
            "The noise was learned for each frame, so that one that does not fit can show as "
            f"noise: most in {most}."
        )
    if found.clean:
        said.append("No frame, no detector pixel and no drift stands out.")
    return said


def _described(found: Check, j: int) -> str:
    text = f"{j} ({found.score[j]:.0f} sigma"
    if abs(found.dose[j] - 1) > 0.05:
        text += f", {found.dose[j]:.2f} of the dose"
    return text + ")"
