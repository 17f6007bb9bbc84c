"""What an error bar is, and what it is conditional on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray
from .amplitude import NOTHING, bars

if TYPE_CHECKING:
    from .verdict import Twin

#: Steps to the optimum, in bars, up to which it is reached; and names of octaves of periods.
REACHED = 0.1
OCTAVES = ("above 32", "of 16 to 32", "of 8 to 16", "of 4 to 8", "of 2 to 4")


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Error bars of an object.

    Attributes
    ----------
    method : str
        "laplace", "bootstrap", "joint" or "sampling".
    object : (H, W) complex64
        The optimum of the posterior (laplace; with several learned modes and a learned prior the
        mean beside it, see `tilt`), its mean (joint, sampling), or the object of the result.
    probe : (K, P, Q) complex64
    object_std : (H, W) float32
        sqrt(E|O - mean|^2) of the complex value.
    amplitude_std : (H, W) float32
        Of |O|: the part of the error along the mean; near darkness half the width that holds
        68.3 %.
    phase_std : (H, W) float32
        Of the phase, rad: the part across the mean, over |mean|; near darkness half the width that
        holds 68.3 %, at most 0.683 pi, where nothing is known of it.
    offset : (H, W) complex64
        The object that was given less `object`, aligned: how far the engine was from the optimum.
    probe_std : (K, P, Q) float32 or None
        Where the probe was learned.
    positions_std : (N, 2) float32 or None
        Of the positions (y, x), object pixels, where they were free, less the mean of their errors.
    log_scale_std : (N,) float32 or None
        Of the logarithm of the doses (of the amplitude), where they were free, less the mean of
        their errors and, with a free probe, less a gradient of them over the scan.
    weights_std : (N, M) float32 or None
        Of the weights of a probe that varies, where they were free.
    variations_std : (M, P, Q) float32 or None
        Of the variations of the probe, where they were free, less what the first mode and mixings
        of them make up for.
    longer : float or None
        Distance to the detector of a near field at the optimum, over the one that is stated, where
        it was free, and `longer_std` its standard deviation.
    longer_std : float or None
    path : float or None
        The same in m, of a cone beam less its magnification (see `Problem.path`).
    path_std : float or None
    read_noise : float or None
        Counts rms, where it was learned, and `read_noise_std` its standard deviation.
    read_noise_std : float or None
    background : (P, Q) float32 or None
        Counts a pixel, where it was free, and `background_std` its standard deviation; zero
        frequency of far-field frames at [P//2, Q//2].
    background_std : (P, Q) float32 or None
    distance : float
        Root mean square of |offset|/object_std over the region, in bars of the optimum: 0 for an
        engine that found it.
    region : (H, W) bool
        Where errors are compared after alignment.
    samples : int
    monte_carlo : float
        Relative standard error of `object_std` from the number of samples, median over the region.
    chi2 : float or None
        Misfit over what the noise model expects of it; 1 where model and solution are right.
    chi2_error : float or None
        Its standard deviation from chance alone: sqrt(2/(measurements - parameters)).
    noise_variance : float or None
        Of the amplitude, where that is the noise model.
    parameters : float
        Real numbers the data determine.
    prior_variance : float or None
        S of the prior of the object.
    conditional : tuple of str
        What the bars take for granted.
    unsolved : float
        Largest residual of the linear systems.
    draws : (samples, H, W) complex64 or None
    gains : tuple of str
        By how much the likelihood would rise with something else free, a sentence each.
    proposed : tuple of str
        What should be free, by that.
    stopped : bool
        Whether Ctrl-C or a limit of time has ended it before all draws were there.
    remains : tuple of float
        Step to the optimum that was left (rms), in bars, by octaves of periods, above 32 px to 4 to
        2; NaN of one without frequencies, empty where no step was made.
    assumed : float or None
        Share of the variance at spatial frequencies of which the data tell less than 40 %, where
        the spectrum of the prior was learned: there it is assumed.
    widened : tuple of float
        Factors of the variance in each octave of periods, of a comparison of two halves of the data
        (`discrepancy`); empty where there was none.
    halves : HalfDataTest or None
        That comparison.
    sample : Unknowns or None
        A draw of all that was free, about the mean of the posterior, as it came: what data can be
        simulated from. Not in files.
    field_priors : mapping of str to FieldPrior
        The priors that were learned, of "object" and "probe". Not in files.
    verdict : {"", "hold", "do not hold", "cannot tell"}
        What a check on simulated data has said of the bars; empty where there was none.
    reason : str
        Why they do not hold, or nobody can tell.
    temperature : float or None
        What that check has multiplied the variances by.
    agreement : float or None
        R^ of the chains (method "sampling"): up to 1.05 they agree.
    """

    method: str
    object: ComplexArray
    probe: ComplexArray
    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray
    offset: ComplexArray
    distance: float
    region: BoolArray
    samples: int
    monte_carlo: float
    conditional: tuple[str, ...]
    probe_std: FloatArray | None = None
    positions_std: FloatArray | None = None
    log_scale_std: FloatArray | None = None
    weights_std: FloatArray | None = None
    variations_std: FloatArray | None = None
    longer: float | None = None
    longer_std: float | None = None
    path: float | None = None
    path_std: float | None = None
    read_noise: float | None = None
    read_noise_std: float | None = None
    background: FloatArray | None = None
    background_std: FloatArray | None = None
    chi2: float | None = None
    chi2_error: float | None = None
    noise_variance: float | None = None
    parameters: float = math.nan
    prior_variance: float | None = None
    unsolved: float = 0.0
    draws: ComplexArray | None = None
    agreement: float | None = None
    gains: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    stopped: bool = False
    remains: tuple[float, ...] = ()
    assumed: float | None = None
    widened: tuple[float, ...] = ()
    halves: Any = None
    sample: Unknowns | None = None
    field_priors: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""
    reason: str = ""
    temperature: float | None = None

    @property
    def total_std(self) -> FloatArray:
        """Error bar of the object that was given: sqrt(object_std^2 + |offset|^2),
        (H, W) float32.
        """
        return np.asarray(np.hypot(self.object_std, np.abs(self.offset)), REAL)

    def way_left(self) -> str:
        """For people: how far the optimum of the bars is; empty where that is not known."""
        known = [(r, n) for n, r in enumerate(self.remains) if math.isfinite(r)]
        if not known:
            return ""
        worst, octave = max(known)
        where = f"{worst:.2g} bars (rms) at periods {OCTAVES[octave]} px"
        if worst <= REACHED:
            return f"reached: the next step would be {where}"
        return f"not reached: the next step would be {where}; go on with engine ml first"

    def with_errors(self) -> Posterior:
        """The same with draws of the error, as results keep them, not draws of the object."""
        if self.draws is None:
            return self
        return replace(self, draws=(self.draws - self.object).astype(COMPLEX))

    def checked(self, twin: Twin) -> Posterior:
        """The same, corrected by what a check on simulated data has said of the bars."""
        root = REAL.type(math.sqrt(twin.factor))
        wider = {n: getattr(self, n) * root for n in ("object_std", "amplitude_std", "phase_std")}
        wider["phase_std"] = np.minimum(wider["phase_std"], REAL.type(NOTHING))
        return replace(
            self,
            **wider,
            draws=None if self.draws is None else self.draws * root,
            conditional=(*self.conditional, twin.sentence()),
        ).judged(twin)

    def judged(self, twin: Twin) -> Posterior:
        """The same, with the verdict of a check that has corrected the bars."""
        return replace(
            self, verdict=twin.verdict, reason=twin.reason, temperature=float(twin.factor)
        )

    def about(self, object: ComplexArray, probe: ComplexArray) -> Posterior:
        """The same of the object and the probe that were given: bars that hold their distance from
        the optimum as well.
        """
        size = np.abs(object)
        turned = self.offset * np.where(size > 0, object.conj() / np.where(size > 0, size, 1), 1)
        both, along = (a.astype(np.float64) ** 2 for a in (self.object_std, self.amplitude_std))
        # near darkness no direction is known, and the bar of the amplitude is not that along it
        along = np.where(np.abs(self.object) ** 2 < 4 * both, both / 2, along)
        across = np.maximum(both - along, 0) + turned.imag**2
        # errors about the object that was given: the optimum is off it by the offset, for certain
        draws = None if self.draws is None else (self.draws - self.offset).astype(COMPLEX)
        whole = bars(along + turned.real**2, across, object)
        return replace(self, object=object, probe=probe, draws=draws, **whole)

    def decibel(self) -> float:
        """10 log10(sum |O|^2/sum object_std^2) over the region: the error in dB that the bars
        foretell.
        """
        power = float(np.sum(np.abs(self.object[self.region]).astype(np.float64) ** 2))
        return 10 * math.log10(
            power / float(np.sum(self.object_std[self.region].astype(np.float64) ** 2))
        )


def in_bars(offset: ComplexArray, std: FloatArray, region: BoolArray) -> float:
    """Root mean square of |offset|/std over a region."""
    return float(np.sqrt(np.mean((np.abs(offset[region]) / np.maximum(std[region], 1e-30)) ** 2)))
