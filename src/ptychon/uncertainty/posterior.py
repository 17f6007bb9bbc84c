"""What an error bar is, what it is conditional on, and how samples become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..engines.joint_posterior import SMOOTH
from ..metrics.ambiguities import Gauge
from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray

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
        The optimum of the posterior (laplace), its mean (joint, sampling), or the object of the
        result.
    probe : (K, P, Q) complex64
    object_std : (H, W) float32
        sqrt(E|O - mean|^2) of the complex value.
    amplitude_std : (H, W) float32
        Of |O|: the part of the error along the mean.
    phase_std : (H, W) float32
        Of the phase, rad: the part across the mean, over |mean|; at most pi/sqrt(3), that of a
        phase nothing is known of.
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
        wider["phase_std"] = np.minimum(wider["phase_std"], REAL.type(math.pi / math.sqrt(3)))
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


class Sums:
    """Running sums over samples of the error of an object.

    Parameters
    ----------
    gauge : Gauge
        What is removed from each sample.
    mean : (H, W) complex array
        About which errors are split into amplitude and phase.
    keep : bool
        Whether to keep the aligned samples.
    """

    def __init__(self, gauge: Gauge, mean: ComplexArray, keep: bool = False) -> None:
        self.gauge, self.mean, self.keep = gauge, np.asarray(mean, np.complex128), keep
        size = np.abs(self.mean)
        self.way = np.where(size > 0, self.mean / np.where(size > 0, size, 1), 1)
        self.along, self.across = np.zeros(size.shape), np.zeros(size.shape)
        self.first, self.second = np.zeros(size.shape), np.zeros(size.shape)
        self.probe: FloatArray | None = None
        self.varied: FloatArray | None = None
        #: Of a distance that is free, in units of the one that is stated.
        self.longer: float | None = None
        self.longer_std: float | None = None
        self.frames = Unknowns()
        #: The same of unknowns of single frames, and what these may do in common, (N, m) each.
        self.known_frames, self.shared = Unknowns(), Unknowns()
        self.dark: list[FloatArray] = []
        #: Whether somebody has ended it early.
        self.stopped = False
        #: Variance of each real part that is known without samples.
        self.known: Any = 0.0
        #: Variance (H, W) up to a smooth factor, where pixels are held together by their prior.
        self.shape: FloatArray | None = None
        #: Over how many pixels that factor is smooth.
        self.near = SMOOTH
        #: Samples of the error, kept where the spectrum of the prior was learned.
        self.errors: list[ComplexArray] = []
        #: A draw of all that is free.
        self.whole: Unknowns | None = None
        self.count = 0
        self.kept: list[ComplexArray] = []

    def add(
        self,
        error: ComplexArray,
        rest: ComplexArray | None = None,
        probe: ComplexArray | None = None,
        varied: ComplexArray | None = None,
    ) -> None:
        """One sample: its error (H, W); the part of it that `known` does not account for; and those
        of the probe and of its variations.
        """
        aligned, c = self.gauge.remove(np.asarray(error, np.complex128))
        along, across = _squares(aligned * self.way.conj())
        if rest is not None:
            # rest^2 instead of error^2, for all but what the alignment has changed
            for total, part, whole in zip(
                (along, across),
                _squares(rest * self.way.conj()),
                _squares(error * self.way.conj()),
                strict=True,
            ):
                total += part - whole
        both = along + across
        self.along += along
        self.across += across
        self.first += both
        self.second += both**2
        self.count += 1
        if probe is not None:
            bent = self.gauge.remove_from_probe(np.asarray(probe, np.complex128), c)
            self.probe = np.abs(bent) ** 2 + (0 if self.probe is None else self.probe)
        if varied is not None:
            bent = self.gauge.remove_from_variations(np.asarray(varied, np.complex128), c)
            self.varied = np.abs(bent) ** 2 + (0 if self.varied is None else self.varied)
        if self.shape is not None:
            self.errors.append(aligned.astype(COMPLEX))
        if self.keep:
            self.kept.append((self.mean + aligned).astype(COMPLEX))

    def add_frames(self, rest: Unknowns) -> None:
        """Of the unknowns of single frames, the part of a sample that `known_frames` does not
        account for.
        """
        self.frames = self.frames.axpy(1, self._off(rest).map(np.square))

    def _off(self, error: Unknowns) -> Unknowns:
        """Less what they may do in common."""
        parts = dict(self.shared.each())

        def one(name: str, array: FloatArray) -> FloatArray:
            wide = array.astype(np.float64)
            return np.asarray(wide - parts[name] @ (np.linalg.pinv(parts[name]) @ wide))

        return Unknowns(**{name: one(name, array) for name, array in error.each()})

    def frame_stds(self) -> FrameBars:
        """Standard deviations of those: of G^-1 g_j, which frames have for themselves, and of the
        rest.
        """
        std, parts = {}, dict(self.shared.each())
        for name, known in self.known_frames.each():
            K = known.astype(np.float64).reshape(len(known), -1)
            B = parts[name]
            inverse = np.linalg.pinv(B)
            # diagonal of (1 - B B+) K (1 - B B+)^T
            share = (B * inverse.T).sum(axis=1)[:, None]
            moved = np.einsum(
                "nm,mlc,nl->nc", B, np.einsum("mk,kc,lk->mlc", inverse, K, inverse), B
            )
            total = K - 2 * share * K + moved
            drawn = getattr(self.frames, name).reshape(K.shape) / max(self.count, 1)
            std[name] = np.sqrt(total + drawn).reshape(known.shape).astype(REAL)
        return FrameBars(
            positions_std=std.get("positions"),
            log_scale_std=std.get("log_scale"),
            weights_std=std.get("weights"),
        )

    def add_background(self, error: Any) -> None:
        """The error of a background, in its unknowns."""
        if error is not None:
            self.dark.append(np.asarray(error, np.float64))

    def _background(self, point: Any) -> BackgroundBars:
        """A free background and its error bar."""
        if not self.dark:
            return BackgroundBars(background=None, background_std=None)
        near, read = point.problem.near_field, point.noise.read_noise
        move = point.backend.asarray
        images = [point.backend.to_host(point.H.image(move(d.astype(REAL)))) for d in self.dark]
        square = np.mean(np.square(images, dtype=np.float64), axis=0)
        both = np.asarray(point.at_x.background)[0] - read**2, np.sqrt(square)
        mean, std = (a if near else np.fft.fftshift(a) for a in both)
        return BackgroundBars(background=mean.astype(REAL), background_std=std.astype(REAL))

    def _distance(self, problem: Any) -> DistanceBars:
        """A free distance and its error bar."""
        found = DistanceBars(longer=self.longer, longer_std=self.longer_std)
        if self.longer is None or self.longer_std is None or problem.path is None:
            return found
        found["path"] = self.longer * problem.path
        found["path_std"] = self.longer_std * abs(problem.path)
        return found

    def variances(self) -> tuple[FloatArray, FloatArray, float]:
        """Variance along and across the mean, each (H, W), and the relative error of their root sum
        from sampling.
        """
        n, inside = self.count, self.gauge.region
        if self.shape is not None:
            sizes = self.along + self.across
            both = self.shape * smooth_quotient(sizes / n, self.shape, inside, self.near)
            share = np.clip(smooth_quotient(self.along, sizes, inside, self.near), 0.01, 0.99)
            return both * share, both * (1 - share), (8 * math.pi * self.near**2 * n) ** -0.5
        along, across = self.along / n + self.known, self.across / n + self.known
        floor = 1e-3 * (along + across).clip(1e-30)  # sampling may leave one of them below zero
        along, across = np.maximum(along, floor), np.maximum(across, floor)
        scatter = np.maximum(self.second / n - (self.first / n) ** 2, 0) / max(n - 1, 1)
        relative = np.sqrt(scatter) / (2 * (along + across))
        return along, across, float(np.median(relative[inside]))

    def posterior(
        self,
        *,
        point: Any,
        given: ComplexArray,
        prior_variance: float,
        pilot: Any,
        unsolved: float,
        learned: bool,
        gains: tuple[Any, ...] = (),
        remains: tuple[float, ...] = (),
        prior: Any = None,
    ) -> Posterior:
        """The posterior of Laplace's approximation."""
        along, across, monte_carlo = self.variances()
        # the result that was given may lie anywhere along what cannot be told: only the rest of its
        # distance counts
        offset, _ = self.gauge.remove(given - self.mean)
        noise, made = point.at_x, bars(along, across, self.mean)
        assumed = None if prior is None else prior.assumed(self.errors)
        whose = f"prior CN(0, {prior_variance:.4g}) on every pixel of the object"
        if assumed is not None:
            whose = (
                "prior of the object: stationary Gaussian, spectra along and across its mean "
                f"learned ({assumed:.0%} of the variance where they are assumed)" + prior.more()
            )
        return Posterior(
            method="laplace",
            object=self.mean.astype(COMPLEX),
            probe=np.asarray(point.backend.to_host(point.x.probe), COMPLEX),
            **made,
            **self.frame_stds(),
            **self._background(point),
            offset=offset.astype(COMPLEX),
            distance=in_bars(offset, made["object_std"], self.gauge.region),
            region=self.gauge.region,
            samples=self.count,
            monte_carlo=monte_carlo,
            conditional=conditions(point, self.gauge, whose, learned),
            assumed=assumed,
            probe_std=None if self.probe is None else np.sqrt(self.probe / self.count).astype(REAL),
            variations_std=(
                None if self.varied is None else np.sqrt(self.varied / self.count).astype(REAL)
            ),
            **self._distance(point.problem),
            chi2=pilot.misfit / max(pilot.expected, 1e-30),
            chi2_error=math.sqrt(2 / max(pilot.measured - pilot.parameters, 1.0)),
            noise_variance=noise.amplitude_variance,
            parameters=pilot.parameters,
            prior_variance=prior_variance,
            unsolved=unsolved,
            draws=np.array(self.kept) if self.keep else None,
            stopped=self.stopped,
            sample=self.whole,
            remains=remains,
            gains=tuple(gain.sentence() for gain in gains),
            proposed=tuple(gain.name for gain in gains if gain.proposed),
        )


def smooth_quotient(
    above: FloatArray, below: FloatArray, inside: BoolArray, near: float = SMOOTH
) -> FloatArray:
    """Quotient of two positive fields (H, W), each smoothed over some pixels of a region; that of
    their means far from it.
    """
    from scipy.ndimage import gaussian_filter

    a, b = (gaussian_filter(inside * part, near, mode="constant") for part in (above, below))
    near = b > 1e-6 * b.max()
    far = above[inside].sum() / below[inside].sum()
    return np.asarray(np.where(near, a / np.where(near, b, 1), far))


class BackgroundBars(TypedDict):
    """The fields of a posterior about a free background."""

    background: FloatArray | None
    background_std: FloatArray | None


class DistanceBars(TypedDict, total=False):
    """The fields of a posterior about a free distance."""

    longer: float | None
    longer_std: float | None
    path: float | None
    path_std: float | None


def in_bars(offset: ComplexArray, std: FloatArray, region: BoolArray) -> float:
    """Root mean square of |offset|/std over a region."""
    return float(np.sqrt(np.mean((np.abs(offset[region]) / np.maximum(std[region], 1e-30)) ** 2)))


class FrameBars(TypedDict):
    """The fields of a posterior that are error bars of frames."""

    positions_std: FloatArray | None
    log_scale_std: FloatArray | None
    weights_std: FloatArray | None


class Bars(TypedDict):
    """The three fields of a posterior that are error bars."""

    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray


def bars(along: FloatArray, across: FloatArray, mean: ComplexArray) -> Bars:
    """object_std, amplitude_std and phase_std from the variances along and across the mean, (H, W)
    each.
    """
    phase = np.sqrt(across) / np.maximum(np.abs(mean), 1e-12)
    return Bars(
        object_std=np.sqrt(along + across).astype(REAL),
        amplitude_std=np.sqrt(along).astype(REAL),
        phase_std=np.minimum(phase, math.pi / math.sqrt(3)).astype(REAL),
    )


def conditions(point: Any, gauge: Gauge, prior: str, learned: bool) -> tuple[str, ...]:
    """What Laplace's bars take for granted: short facts."""
    noise, x = point.at_x, point.x
    said = noise.describe()
    if noise.kind != "poisson":
        said += " (learned from the misfit)" if learned else " (given)"
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
        prior,
        f"free, their error in the bars: {', '.join(['object', *free])}",
        *([f"taken as exact: {', '.join(exact)}"] if exact else []),
        f"after alignment on the lit pixels: {', '.join(dict.fromkeys(gauge.names))}",
        "Gaussian about one optimum",
    )


def _images(point: Any) -> str:
    return "a level" if len(point.columns) == 1 else f"{len(point.columns)} smooth images"


def _squares(error: ComplexArray) -> list[FloatArray]:
    return [error.real**2, error.imag**2]
